//! Attacks on a real Contour, under traffic: rows of `slipway_e2e::attack`, and a specification that once was written for ever.

use std::net::SocketAddr;

use anyhow::{Context as _, ensure};
use serde_json::{Value, json};
use slipway_e2e::attack::{Step, Victim, Who, everywhere, grants, table};
use slipway_e2e::lab::Metrics;
use slipway_e2e::lab::operator;
use slipway_e2e::narration::say;
use slipway_e2e::probe::Caller;
use slipway_e2e::wait::{Look, Wait};
use slipway_e2e::{installation, places};

use crate::stage::{Auth, NAMESPACE, ROLLOUT, Stage, Without, play};

/// What a tenant of an unrelated namespace tries.
const ROWS: [&str; 4] = [
    "pod-captured-unchecked",
    "pod-captured-bad-name",
    "service-account",
    "memory-salt",
];

#[tokio::test]
async fn what_a_tenant_makes_in_another_namespace_lets_no_request_pass_unchecked_and_stops_nothing() {
    play("a tenant attacks", async |stage| {
        let hosts = stage.given(Without::Denied, Auth::Complete).await?;
        hosts.until(Caller::Anonymous, 401).await?;
        let folder = places::repository().join("config/admission");
        let policies = folder.to_string_lossy();
        let tried = async {
            policies_are(stage, "True").await?;
            tenant(stage, true).await?;
            stage.kubectl(&["delete", "-k", &policies]).await?;
            policies_are(stage, "False").await?;
            tenant(stage, false).await
        };
        let tried = hosts.watch_until(tried).await;
        // Whatever came of it: the next test has them.
        let put_back = stage.kubectl(&["apply", "-k", &policies]).await;
        let ((), watched) = tried?;
        put_back?;
        policies_are(stage, "True").await?;
        say(format!("meanwhile: {watched}"));
        watched.only(&[401])
    })
    .await;
}

/// Waits until the status says this of the policies.
async fn policies_are(stage: &Stage, said: &str) -> anyhow::Result<()> {
    Wait::for_it(format!("it says of the policies: {said}"))
        .until(async || {
            let status = stage.edge.status().await?;
            Ok(Look::when(
                status.is("AdmissionPoliciesInstalled", said),
                status.to_string(),
            ))
        })
        .await
}

/// All rows at once, then a restart of the operator, and another one after all is gone.
async fn tenant(stage: &Stage, is_guarded: bool) -> anyhow::Result<()> {
    let victim = victim(stage).await?;
    let namespace = json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": victim.alice}});
    let kubectl = stage.cluster().kubectl();
    kubectl.apply(&namespace).await?;
    for grant in everywhere().into_iter().chain(grants(Who::Tenant, &victim)) {
        kubectl.apply(&grant).await?;
    }
    let before = (stage.edge.rolled_state().await?, status(stage).await?);
    let user = ["--as", Who::Tenant.user(), "-n", &victim.alice];
    for (number, row) in table().iter().filter(|row| ROWS.contains(&row.name)).enumerate() {
        for step in (row.steps)(&victim) {
            let Step::Create(object) = step else { continue };
            let file = places::target().join(format!("attack-{number}.json"));
            std::fs::write(&file, object.to_string()).with_context(|| format!("writing {}", file.display()))?;
            let file = file.to_string_lossy();
            let create = [&user[..], &["create", "-f", &file]].concat();
            Wait::for_it(format!("{} is refused, or made", row.name))
                .until(async || {
                    let said = stage.kubectl(&create).await.map_err(|error| format!("{error:#}"));
                    let is_refused = said
                        .as_ref()
                        .is_err_and(|said| said.contains("ValidatingAdmissionPolicy 'slipway-"));
                    Ok(match said {
                        Ok(_) => Look::Reached(()),
                        Err(_) if is_refused && is_guarded => Look::Reached(()),
                        // A right that is new, or a policy that has just gone.
                        Err(said) => Look::NotYet(said),
                    })
                })
                .await?;
        }
    }
    for is_gone in [false, true] {
        if is_gone {
            stage
                .kubectl(&["delete", "namespace", &victim.alice, "--timeout=60s"])
                .await?;
        }
        looks_again(stage).await?;
        installation::stop_operator(stage.cluster()).await?;
        installation::start_operator(stage.cluster()).await?;
        looks_again(stage).await?;
        let now = (stage.edge.rolled_state().await?, status(stage).await?);
        ensure!(
            now == before,
            "policies: {is_guarded}, all gone: {is_gone}: {before:?} has become {now:?}"
        );
        let configuration = self::victim(stage).await?.configuration["metadata"]["name"].clone();
        let names = stage
            .kubectl(&["-n", NAMESPACE, "get", "contourconfigurations", "-o", "name"])
            .await?;
        ensure!(
            names.lines().count() == 1,
            "in use is {configuration}, and there are {names}"
        );
    }
    Ok(())
}

#[tokio::test]
async fn a_toleration_that_the_api_server_shortens_is_written_once() {
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
            looks_again(stage).await?;
            let before = metrics(stage).await?.sum("slipway_writes_total", &[]);
            looks_again(stage).await?;
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

/// What the attacker may know.
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

/// Touches the ContourDeployment and waits until it was reconciled, twice.
async fn looks_again(stage: &Stage) -> anyhow::Result<()> {
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
        Wait::for_it("the operator has looked again")
            .silently()
            .until(async || Ok(Look::when(reconciles().await? > before, "not yet")))
            .await?;
    }
    Ok(())
}

/// The operator's, straight from its pod.
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
