//! The operator's shutdown, readiness and restart.

use std::time::Duration;

use anyhow::ensure;
use serde_json::Value;
use slipway_e2e::wait::Look;

use slipway_e2e::lab::created::settled_edge;
use slipway_e2e::lab::players::{self, Kubelet};
use slipway_e2e::lab::world::{OPERATOR, Takes, alone};
use slipway_e2e::lab::{Lab, PATIENT, PROMPT, QUIET, Thing, specification, wait};
use slipway_e2e::lab::{audit, operator};

#[tokio::test]
async fn sigterm_ends_the_operator_cleanly_within_five_seconds() {
    alone("sigterm", Takes::Operator, async |lab: &Lab| {
        let edge = lab.edge(&specification("nowhere")).await?;
        lab.status(&edge, "the operator has reconciled edge", PROMPT, |status| {
            !status.extension_services.is_empty()
        })
        .await?;
        let end = lab.world.stop_operator().await?;
        ensure!(end.status.code() == Some(0), "the operator ended with {}", end.status);
        ensure!(
            end.took < Duration::from_secs(5),
            "the operator took {:?} to end",
            end.took
        );
        Ok(())
    })
    .await;
}

#[tokio::test]
async fn readyz_names_the_kinds_that_are_not_read_yet() {
    alone("readyz", Takes::Installation, async |lab: &Lab| {
        lab.world.stop_operator().await?;
        // The operator cannot read a kind that it may not list.
        let role = Thing::new("ClusterRole", "", "slipway-operator");
        let mut rules = lab.read(&role).await?["rules"].clone();
        for rule in rules.as_array_mut().into_iter().flatten() {
            if let Some(resources) = rule["resources"].as_array_mut() {
                resources.retain(|resource| resource != "daemonsets");
                if resources.is_empty() {
                    resources.push(Value::from("nothing"));
                }
            }
        }
        lab.patch(&role, &serde_json::json!({"rules": rules})).await?;
        let may_list = ["auth", "can-i", "list", "daemonsets.apps", "-A", "--as", OPERATOR];
        wait("the operator may not list DaemonSets", PROMPT)
            .until(async || {
                Ok(Look::when(
                    lab.world.kubectl().run(&may_list).await.is_err(),
                    "the operator still may",
                ))
            })
            .await?;
        lab.world.start_operator().await?;
        wait(
            "/readyz reports that DaemonSets are not read, and names no Pods",
            PATIENT,
        )
        .until(async || {
            Ok(match operator::get(lab.world.address(), "/readyz").await {
                Ok((503, body)) if body.contains("DaemonSet") && !body.contains("Pod") => Look::Reached(()),
                other => Look::NotYet(format!("{other:?}")),
            })
        })
        .await?;
        let (code, _) = operator::get(lab.world.address(), "/livez").await?;
        ensure!(code == 200, "/livez returns {code}, but a restart would not help");
        // The next operator starts with the restored role. This operator's next retry may be far in the future.
        lab.world.stop_operator().await.map(drop)
    })
    .await;
}

#[tokio::test]
async fn an_operator_restart_on_a_settled_cluster_writes_nothing() {
    alone("restart", Takes::Operator, async |lab: &Lab| {
        let _kubelet = Kubelet::of(&lab.client, &lab.namespace);
        let auth = lab.name("auth");
        let edge = settled_edge(lab, &auth).await?;
        players::auth_server(lab, &auth).await?;
        lab.create(&players::extension_service(&auth, "500ms")).await?;
        players::judge(lab, &auth, "auth", players::Verdict::Valid).await?;
        lab.status(&edge, "edge is ready", PATIENT, |status| status.is("Ready", "True"))
            .await?;
        lab.settled(&edge).await?;
        lab.reconcile_again(&edge, 1).await?;
        lab.world.stop_operator().await?;
        let mark = audit::mark(lab.world)?;
        lab.world.start_operator().await?;
        lab.world.operator_is_ready().await?;
        let own = [("contourdeployment_namespace", lab.namespace.as_str())];
        wait("the operator has reconciled edge", PROMPT)
            .until(async || {
                let count = lab
                    .metrics()
                    .await?
                    .of("slipway_contourdeployment_condition", &own)
                    .count();
                Ok(Look::when(count > 0, "edge has no series yet"))
            })
            .await?;
        tokio::time::sleep(QUIET).await;
        let requests = audit::requests(lab.world, mark, &lab.namespace)?;
        ensure!(
            !requests.is_empty(),
            "the audit log does not contain the operator's list requests"
        );
        let writes: Vec<_> = requests
            .into_iter()
            .filter(|request| audit::is_write(request))
            .collect();
        ensure!(writes.is_empty(), "{} writes:\n{}", writes.len(), writes.join("\n"));
        Ok(())
    })
    .await;
}
