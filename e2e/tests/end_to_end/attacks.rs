//! Attacks on a real Contour under traffic: rows of `slipway_e2e::attack`, and a spec that an earlier operator wrote without end.

use std::net::SocketAddr;

use anyhow::{Context as _, ensure};
use serde_json::{Value, json};
use slipway_e2e::attack::{Attacker, Step, Victim, everywhere, grants, table};
use slipway_e2e::lab::Metrics;
use slipway_e2e::lab::operator;
use slipway_e2e::narration::say;
use slipway_e2e::probe::Caller;
use slipway_e2e::wait::{Look, Wait};
use slipway_e2e::{installation, places};

use crate::stage::{Auth, NAMESPACE, ROLLOUT, Stage, Without, play};

/// The rows that a tenant of an unrelated namespace tries.
const ROWS: [&str; 4] = [
    "pod-captured-unchecked",
    "pod-captured-bad-name",
    "service-account",
    "memory-salt",
];

#[tokio::test]
async fn a_tenant_of_another_namespace_opens_and_stops_nothing() {
    play("a tenant attacks", async |stage| {
        let hosts = stage.given(Without::Denied, Auth::Complete).await?;
        hosts.until(Caller::Anonymous, 401).await?;
        let folder = places::repository().join("config/admission");
        let policies = folder.to_string_lossy();
        let outcome = async {
            wait_for_policies_condition(stage, "True").await?;
            tenant(stage, true).await?;
            stage.kubectl(&["delete", "-k", &policies]).await?;
            wait_for_policies_condition(stage, "False").await?;
            tenant(stage, false).await
        };
        let outcome = hosts.watch_until(outcome).await;
        // The next test needs the policies, even if the attacks failed.
        let restored = stage.kubectl(&["apply", "-k", &policies]).await;
        let ((), watched) = outcome?;
        restored?;
        wait_for_policies_condition(stage, "True").await?;
        say(format!("requests during the attacks: {watched}"));
        watched.only(&[401])
    })
    .await;
}

/// Waits until condition `AdmissionPoliciesInstalled` has this status.
async fn wait_for_policies_condition(stage: &Stage, expected: &str) -> anyhow::Result<()> {
    Wait::for_it(format!("AdmissionPoliciesInstalled is {expected}"))
        .until(async || {
            let status = stage.edge.status().await?;
            Ok(Look::when(
                status.is("AdmissionPoliciesInstalled", expected),
                status.to_string(),
            ))
        })
        .await
}

/// Tries all rows at once, restarts the operator, deletes the tenant's namespace, and restarts the operator again.
async fn tenant(stage: &Stage, is_guarded: bool) -> anyhow::Result<()> {
    let victim = victim(stage).await?;
    let namespace = json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": victim.alice}});
    let kubectl = stage.cluster().kubectl();
    kubectl.apply(&namespace).await?;
    for grant in everywhere().into_iter().chain(grants(Attacker::Tenant, &victim)) {
        kubectl.apply(&grant).await?;
    }
    let before = (stage.edge.rolled_state().await?, status(stage).await?);
    let user = ["--as", Attacker::Tenant.user(), "-n", &victim.alice];
    for (number, row) in table().iter().filter(|row| ROWS.contains(&row.name)).enumerate() {
        for step in (row.steps)(&victim) {
            let Step::Create(object) = step else { continue };
            let file = places::target().join(format!("attack-{number}.json"));
            std::fs::write(&file, object.to_string()).with_context(|| format!("writing {}", file.display()))?;
            let file = file.to_string_lossy();
            let create = [&user[..], &["create", "-f", &file]].concat();
            Wait::for_it(format!("the object of {} is refused or created", row.name))
                .until(async || {
                    let outcome = stage.kubectl(&create).await.map_err(|error| format!("{error:#}"));
                    let is_refused = outcome
                        .as_ref()
                        .is_err_and(|message| message.contains("ValidatingAdmissionPolicy 'slipway-"));
                    Ok(match outcome {
                        Ok(_) => Look::Reached(()),
                        Err(_) if is_refused && is_guarded => Look::Reached(()),
                        // The API server has not yet observed a new right or the deletion of a policy.
                        Err(message) => Look::NotYet(message),
                    })
                })
                .await?;
        }
    }
    for is_deleted in [false, true] {
        if is_deleted {
            stage
                .kubectl(&["delete", "namespace", &victim.alice, "--timeout=60s"])
                .await?;
        }
        reconcile_twice(stage).await?;
        installation::stop_operator(stage.cluster()).await?;
        installation::start_operator(stage.cluster()).await?;
        reconcile_twice(stage).await?;
        let now = (stage.edge.rolled_state().await?, status(stage).await?);
        ensure!(
            now == before,
            "with policies: {is_guarded}, attackers' objects deleted: {is_deleted}: {before:?} changed to {now:?}"
        );
        let configuration = self::victim(stage).await?.configuration["metadata"]["name"].clone();
        let names = stage
            .kubectl(&["-n", NAMESPACE, "get", "contourconfigurations", "-o", "name"])
            .await?;
        ensure!(
            names.lines().count() == 1,
            "one configuration, {configuration}, is in use, but these exist: {names}"
        );
    }
    Ok(())
}

#[tokio::test]
async fn the_operator_writes_a_shortened_toleration_once() {
    play("a shortened toleration", async |stage| {
        let hosts = stage.given(Without::Denied, Auth::Complete).await?;
        hosts.until(Caller::Anonymous, 401).await?;
        let tolerated = async {
            tolerate(
                stage,
                &json!([{"key": "dedicated", "operator": "Exists", "effect": ""}]),
            )
            .await?;
            stage.settled(Auth::Complete).await?;
            reconcile_twice(stage).await?;
            let before = metrics(stage).await?.sum("slipway_writes_total", &[]);
            reconcile_twice(stage).await?;
            let after = metrics(stage).await?.sum("slipway_writes_total", &[]);
            ensure!(after - before < 0.5, "{} writes in two reconciles", after - before);
            Ok(())
        };
        let ((), watched) = hosts.watch_until(tolerated).await?;
        watched.only(&[401])?;
        tolerate(stage, &Value::Null).await?;
        stage.settled(Auth::Complete).await.map(drop)
    })
    .await;
}

async fn tolerate(stage: &Stage, tolerations: &Value) -> anyhow::Result<()> {
    let patch = json!({"spec": {"contour": {"nodePlacement": {"tolerations": tolerations}}}}).to_string();
    stage
        .kubectl(&["-n", NAMESPACE, "patch", "cdep", "edge", "--type=merge", "-p", &patch])
        .await
        .map(drop)
}

/// Returns the facts about the victim that the attacker may know.
async fn victim(stage: &Stage) -> anyhow::Result<Victim> {
    let mut victim = Victim {
        home: NAMESPACE.to_owned(),
        auth: "auth".to_owned(),
        alice: "alice".to_owned(),
        elsewhere: "elsewhere".to_owned(),
        deployment: stage
            .json(&["-n", NAMESPACE, "get", "deployment", "edge-contour"])
            .await?,
        ..Victim::default()
    };
    let captured = victim.captured();
    let configuration = captured["configuration"].as_str().context("a configuration")?;
    victim.configuration = stage
        .json(&["-n", NAMESPACE, "get", "contourconfiguration", configuration])
        .await?;
    let stand_in = captured["standIns"][0].as_str().and_then(|id| id.split_once('/'));
    let (namespace, name) = stand_in.context("a stand-in")?;
    victim.stand_in = stage.json(&["-n", namespace, "get", "extensionservice", name]).await?;
    Ok(victim)
}

async fn status(stage: &Stage) -> anyhow::Result<Value> {
    Ok(stage.json(&["-n", NAMESPACE, "get", "cdep", "edge"]).await?["status"].take())
}

/// Touches the ContourDeployment twice, and waits after each touch until the operator has reconciled it.
async fn reconcile_twice(stage: &Stage) -> anyhow::Result<()> {
    for round in 0..2 {
        let reconciles = async || -> anyhow::Result<f64> {
            Ok(metrics(stage)
                .await
                .map_or(0.0, |metrics| metrics.sum("slipway_reconciles_total", &[])))
        };
        Wait::for_it("the operator has reconciled")
            .within(ROLLOUT)
            .silently()
            .until(async || Ok(Look::when(reconciles().await? > 0.0, "not yet")))
            .await?;
        let before = reconciles().await?;
        let touch = format!("test.example.com/poke={round}-{before}");
        stage
            .kubectl(&["-n", NAMESPACE, "annotate", "--overwrite", "cdep", "edge", &touch])
            .await?;
        Wait::for_it("the operator has reconciled again")
            .silently()
            .until(async || Ok(Look::when(reconciles().await? > before, "not yet")))
            .await?;
    }
    Ok(())
}

/// Returns the operator's metrics, read directly from its pod.
async fn metrics(stage: &Stage) -> anyhow::Result<Metrics> {
    let pods = stage
        .json(&["-n", installation::SLIPWAY_NAMESPACE, "get", "pods"])
        .await?;
    let address = pods["items"][0]["status"]["podIP"]
        .as_str()
        .context("the operator has no address")?;
    let (_, text) = operator::get(SocketAddr::new(address.parse()?, 8080), "/metrics").await?;
    Metrics::parse(&text)
}
