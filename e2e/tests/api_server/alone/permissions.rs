//! A permission that was taken from the operator.

use std::time::Duration;

use anyhow::{Context as _, ensure};
use serde_json::json;
use slipway_e2e::wait::Look;

use slipway_e2e::lab::world::{Takes, alone};
use slipway_e2e::lab::{Lab, PATIENT, Thing, specification, wait};

#[tokio::test]
async fn a_permission_that_is_missing_is_reported_with_the_object_and_once_it_is_granted_all_is_made() {
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
        // A 403 right after the operator's own binding was made may only mean that the API server does not know it yet.
        let status = lab
            .status(&edge, "it says what is forbidden", Duration::from_secs(15), |status| {
                status.condition("Ready").is_some_and(|it| it.reason == "Forbidden")
            })
            .await?;
        let said = &status.condition("Ready").expect("it has one").message;
        ensure!(
            said.contains(&format!("ServiceAccount {}/edge-", lab.namespace)) && said.contains("serviceaccounts"),
            "{said}"
        );
        ensure!(status.is("Reconciling", "True"), "{status}");
        lab.patch(&role, &json!({"rules": rules})).await?;
        let deployment = Thing::new("Deployment", &lab.namespace, "edge-contour");
        wait("Contour is made once it is allowed", PATIENT)
            .until(async || {
                Ok(Look::when(
                    lab.find(&deployment).await?.is_some(),
                    edge.status().await?.to_string(),
                ))
            })
            .await?;
        lab.status(&edge, "nothing is forbidden any more", PATIENT, |status| {
            status.condition("Ready").is_some_and(|it| it.reason != "Forbidden")
        })
        .await?;
        Ok(())
    })
    .await;
}
