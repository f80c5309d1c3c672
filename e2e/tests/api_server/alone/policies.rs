//! Admission policies that are missing, or that another user weakened.

use anyhow::{Context as _, ensure};
use serde_json::{Value, json};
use slipway_e2e::edge::{Edge, Status};
use slipway_e2e::lab::players::Kubelet;
use slipway_e2e::lab::world::{Takes, alone};
use slipway_e2e::lab::{Lab, PATIENT, PROMPT, Thing, specification, wait};
use slipway_e2e::places;
use slipway_e2e::wait::Look;

const CONDITION: &str = "AdmissionPoliciesInstalled";

/// Waits until the condition has this status, and its message contains these parts. Returns the status of the ContourDeployment.
async fn condition_is(lab: &Lab, edge: &Edge, expected: &str, parts: &[&str]) -> anyhow::Result<Status> {
    let is_reported = |status: &Status| {
        status
            .condition(CONDITION)
            .is_some_and(|it| it.status == expected && parts.iter().all(|part| it.message.contains(part)))
    };
    lab.status(
        edge,
        &format!("{CONDITION} is {expected}: {parts:?}"),
        PROMPT,
        is_reported,
    )
    .await
}

/// Waits until the metric reports that these policies are missing, and that all other policies are installed.
async fn metric_is(lab: &Lab, missing: &[&str]) -> anyhow::Result<()> {
    wait(&format!("the metric reports {missing:?} as missing"), PROMPT)
        .until(async || {
            let metrics = lab.metrics().await?;
            let all: Vec<_> = metrics.of("slipway_admission_policy_installed", &[]).collect();
            let mut found: Vec<&str> = all
                .iter()
                .filter(|(_, installed)| *installed < 0.5)
                .map(|(labels, _)| labels["policy"].as_str())
                .collect();
            found.sort_unstable();
            Ok(Look::when(all.len() == 7 && found == missing, format!("{all:?}")))
        })
        .await
}

#[tokio::test]
async fn a_missing_or_weakened_policy_is_reported_without_side_effect() {
    alone("policies", Takes::Installation, async |lab: &Lab| {
        let _kubelet = Kubelet::of(&lab.client, &lab.namespace);
        let mut spec = specification("nowhere");
        spec["extensionServices"] = json!({"readiness": "Tolerated"});
        let edge = lab.edge(&spec).await?;
        lab.status(&edge, "edge is ready", PATIENT, |status| status.is("Ready", "True"))
            .await?;
        let before = condition_is(lab, &edge, "True", &[]).await?;
        metric_is(lab, &[]).await?;

        let policy = |name: &str| Thing::new("ValidatingAdmissionPolicy", "", name);
        lab.delete(&Thing::new("ValidatingAdmissionPolicyBinding", "", "slipway-marks"))
            .await?;
        condition_is(
            lab,
            &edge,
            "False",
            &["ValidatingAdmissionPolicyBinding slipway-marks does not exist"],
        )
        .await?;
        metric_is(lab, &["slipway-marks"]).await?;

        // One more match condition, which exempts a user from the policy.
        let content = policy("slipway-content");
        let mut conditions = lab.read(&content).await?["spec"]["matchConditions"].take();
        let friend = json!({"name": "not-a-friend", "expression": "request.userInfo.username != 'friend'"});
        conditions.as_array_mut().context("conditions")?.push(friend);
        lab.patch(&content, &json!({"spec": {"matchConditions": conditions}}))
            .await?;
        let parts = [
            "slipway-marks does not exist",
            "ValidatingAdmissionPolicy slipway-content differs from the shipped object in spec.matchConditions",
        ];
        let now = condition_is(lab, &edge, "False", &parts).await?;
        metric_is(lab, &["slipway-content", "slipway-marks"]).await?;
        for (type_, status) in [("Ready", "True"), ("Degraded", "True")] {
            ensure!(
                before.is(type_, status) && now.is(type_, status),
                "{type_}: {before}; {now}"
            );
        }
        ensure!(!now.is("Stalled", "True") && !now.is("Reconciling", "True"), "{now}");

        // Users may change everything outside of the spec.
        lab.delete(&content).await?;
        let folder = places::repository().join("config/default");
        lab.world
            .kubectl()
            .run(&["apply", "-k", &folder.to_string_lossy()])
            .await?;
        lab.patch(&content, &json!({"metadata": {"labels": {"example.com/mine": "x"}}}))
            .await?;
        condition_is(lab, &edge, "True", &[]).await?;
        metric_is(lab, &[]).await?;
        let labels = lab.read(&content).await?["metadata"]["labels"].take();
        ensure!(labels["example.com/mine"] != Value::Null, "{labels}");
        Ok(())
    })
    .await;
}
