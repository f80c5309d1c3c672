//! The operator: its end, its next start, and what happened meanwhile.

use std::time::Duration;

use anyhow::ensure;
use serde_json::Value;
use slipway_e2e::wait::Look;

use crate::objects::QUIET;
use slipway_e2e::lab::made::settled_edge;
use slipway_e2e::lab::players::{self, Kubelet};
use slipway_e2e::lab::world::{OPERATOR, Takes, alone};
use slipway_e2e::lab::{Lab, PATIENT, PROMPT, Thing, specification, wait};
use slipway_e2e::lab::{audit, operator};

#[tokio::test]
async fn sigterm_ends_the_operator_within_five_seconds_and_with_success() {
    alone("sigterm", Takes::Operator, async |lab: &Lab| {
        let edge = lab.edge(&specification("nowhere")).await?;
        lab.status(&edge, "it is at work", PROMPT, |status| {
            !status.extension_services.is_empty()
        })
        .await?;
        let end = lab.world.stop_operator().await?;
        ensure!(end.status.code() == Some(0), "it ended with {}", end.status);
        ensure!(end.took < Duration::from_secs(5), "it took {:?}", end.took);
        Ok(())
    })
    .await;
}

#[tokio::test]
async fn readyz_names_what_is_not_read_yet_until_everything_is() {
    alone("readyz", Takes::Installation, async |lab: &Lab| {
        lab.world.stop_operator().await?;
        // A kind that it may not list is one that it can't have read.
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
                    "it still may",
                ))
            })
            .await?;
        lab.world.start_operator().await?;
        wait("/readyz says that DaemonSets are not read, and nothing else", PATIENT)
            .until(async || {
                Ok(match operator::get(lab.world.address(), "/readyz").await {
                    Ok((503, body)) if body.contains("DaemonSet") && !body.contains("Pod") => Look::Reached(()),
                    other => Look::NotYet(format!("{other:?}")),
                })
            })
            .await?;
        let (code, _) = operator::get(lab.world.address(), "/livez").await?;
        ensure!(code == 200, "a restart would not cure it, and /livez says {code}");
        // The next one begins with the role as it is then; this one's next try may be far off.
        lab.world.stop_operator().await.map(drop)
    })
    .await;
}

#[tokio::test]
async fn an_operator_that_starts_where_all_is_well_writes_nothing() {
    alone("restart", Takes::Operator, async |lab: &Lab| {
        let _kubelet = Kubelet::of(&lab.client, &lab.namespace);
        let auth = lab.name("auth");
        let edge = settled_edge(lab, &auth).await?;
        players::auth_server(lab, &auth).await?;
        lab.create(&players::extension_service(&auth, "500ms")).await?;
        players::judge(lab, &auth, "auth", players::Verdict::Valid).await?;
        lab.status(&edge, "it is ready", PATIENT, |status| status.is("Ready", "True"))
            .await?;
        lab.settled(&edge).await?;
        lab.looks_again(&edge, 1).await?;
        lab.world.stop_operator().await?;
        let mark = audit::mark(lab.world)?;
        lab.world.start_operator().await?;
        lab.world.operator_is_ready().await?;
        let own = [("contourdeployment_namespace", lab.namespace.as_str())];
        wait("the operator has looked at it", PROMPT)
            .until(async || {
                let count = lab
                    .metrics()
                    .await?
                    .of("slipway_contourdeployment_condition", &own)
                    .count();
                Ok(Look::when(count > 0, "it has no series yet"))
            })
            .await?;
        tokio::time::sleep(QUIET).await;
        let requests = audit::requests(lab.world, mark, &lab.namespace)?;
        ensure!(!requests.is_empty(), "not even its lists are in the audit log");
        let writes: Vec<_> = requests
            .into_iter()
            .filter(|request| audit::is_write(request))
            .collect();
        ensure!(writes.is_empty(), "{} writes:\n{}", writes.len(), writes.join("\n"));
        Ok(())
    })
    .await;
}
