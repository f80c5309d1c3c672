//! A permission that the operator lacks.

use std::time::Duration;

use anyhow::{Context as _, ensure};
use serde_json::json;

use slipway_e2e::lab::world::{Takes, alone};
use slipway_e2e::lab::{Lab, PATIENT, Thing, specification};

#[tokio::test]
async fn a_missing_permission_is_reported_until_it_is_granted() {
    alone("forbidden", Takes::Installation, async |lab: &Lab| {
        let role = Thing::new("ClusterRole", "", "slipway-operand");
        let rules = lab.read(&role).await?["rules"].clone();
        let without: Vec<_> = rules
            .as_array()
            .context("rules")?
            .iter()
            .filter(|rule| rule["resources"] != json!(["serviceaccounts"]))
            .cloned()
            .collect();
        ensure!(without.len() + 1 == rules.as_array().map_or(0, Vec::len), "{rules}");
        lab.patch(&role, &json!({"rules": without})).await?;
        let edge = lab.edge(&specification("nowhere")).await?;
        // Right after the operator creates its own binding, a 403 may only mean that the API server has not yet observed the
        // binding. So the operator reports the error after a delay.
        let status = lab
            .status(
                &edge,
                "status reports the missing permission",
                Duration::from_secs(15),
                |status| status.condition("Ready").is_some_and(|it| it.reason == "Forbidden"),
            )
            .await?;
        let message = &status.condition("Ready").expect("the status has the condition").message;
        ensure!(
            message.contains(&format!("ServiceAccount {}/edge-", lab.namespace)) && message.contains("serviceaccounts"),
            "{message}"
        );
        ensure!(status.is("Reconciling", "True"), "{status}");
        lab.patch(&role, &json!({"rules": rules})).await?;
        let deployment = Thing::new("Deployment", &lab.namespace, "edge-contour");
        lab.wait_until_exists(&deployment, PATIENT).await?;
        lab.status(
            &edge,
            "status no longer reports a missing permission",
            PATIENT,
            |status| status.condition("Ready").is_some_and(|it| it.reason != "Forbidden"),
        )
        .await?;
        Ok(())
    })
    .await;
}
