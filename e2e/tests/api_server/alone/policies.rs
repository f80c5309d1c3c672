//! Admission policies that are missing, or that somebody weakened.

use anyhow::{Context as _, ensure};
use serde_json::{Value, json};
use slipway_e2e::edge::{Edge, Status};
use slipway_e2e::lab::players::Kubelet;
use slipway_e2e::lab::world::{Takes, alone};
use slipway_e2e::lab::{Lab, PATIENT, PROMPT, Thing, specification, wait};
use slipway_e2e::places;
use slipway_e2e::wait::Look;

const CONDITION: &str = "AdmissionPoliciesInstalled";

/// Waits until the condition is so, and says these words; returns the status.
async fn told(lab: &Lab, edge: &Edge, is: &str, words: &[&str]) -> anyhow::Result<Status> {
    let says = |status: &Status| {
        status
            .condition(CONDITION)
            .is_some_and(|it| it.status == is && words.iter().all(|word| it.message.contains(word)))
    };
    lab.status(edge, &format!("{CONDITION} is {is}: {words:?}"), PROMPT, says)
        .await
}

/// Waits until the metric says that these policies are not there, and all others are.
async fn counted(lab: &Lab, missing: &[&str]) -> anyhow::Result<()> {
    wait(&format!("the metric says that {missing:?} are missing"), PROMPT)
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
async fn a_policy_that_is_missing_or_weakened_is_told_of_and_nothing_else_becomes_of_it() {
    alone("policies", Takes::Installation, async |lab: &Lab| {
        let _kubelet = Kubelet::of(&lab.client, &lab.namespace);
        let mut spec = specification("nowhere");
        spec["extensionServices"] = json!({"readiness": "Tolerated"});
        let edge = lab.edge(&spec).await?;
        lab.status(&edge, "it is ready", PATIENT, |status| status.is("Ready", "True"))
            .await?;
        let before = told(lab, &edge, "True", &[]).await?;
        counted(lab, &[]).await?;

        let policy = |name: &str| Thing::new("ValidatingAdmissionPolicy", "", name);
        lab.delete(&Thing::new("ValidatingAdmissionPolicyBinding", "", "slipway-marks"))
            .await?;
        told(
            lab,
            &edge,
            "False",
            &["ValidatingAdmissionPolicyBinding slipway-marks is absent"],
        )
        .await?;
        counted(lab, &["slipway-marks"]).await?;

        // A condition more, and somebody is let through.
        let content = policy("slipway-content");
        let mut conditions = lab.read(&content).await?["spec"]["matchConditions"].take();
        let friend = json!({"name": "not-a-friend", "expression": "request.userInfo.username != 'friend'"});
        conditions.as_array_mut().context("conditions")?.push(friend);
        lab.patch(&content, &json!({"spec": {"matchConditions": conditions}}))
            .await?;
        let words = [
            "slipway-marks is absent",
            "ValidatingAdmissionPolicy slipway-content has another spec.matchConditions",
        ];
        let now = told(lab, &edge, "False", &words).await?;
        counted(lab, &["slipway-content", "slipway-marks"]).await?;
        for (type_, status) in [("Ready", "True"), ("Degraded", "True")] {
            ensure!(
                before.is(type_, status) && now.is(type_, status),
                "{type_}: {before}; {now}"
            );
        }
        ensure!(!now.is("Stalled", "True") && !now.is("Reconciling", "True"), "{now}");

        // What people write beside the specification is theirs.
        lab.delete(&content).await?;
        let folder = places::repository().join("config/default");
        lab.world
            .kubectl()
            .run(&["apply", "-k", &folder.to_string_lossy()])
            .await?;
        lab.patch(&content, &json!({"metadata": {"labels": {"example.com/mine": "x"}}}))
            .await?;
        told(lab, &edge, "True", &[]).await?;
        counted(lab, &[]).await?;
        let labels = lab.read(&content).await?["metadata"]["labels"].take();
        ensure!(labels["example.com/mine"] != Value::Null, "{labels}");
        Ok(())
    })
    .await;
}
