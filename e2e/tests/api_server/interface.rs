//! What a person sees before and beside the operator: defaults, short names, columns, the generated CRD.

use anyhow::{Context as _, ensure};
use serde_json::json;
use slipway_e2e::{command, places};

use slipway_e2e::lab::world::{World, beside_others};
use slipway_e2e::lab::{Lab, PROMPT, contour_deployment, specification};

#[tokio::test]
async fn a_contour_deployment_that_nobody_has_seen_yet_says_so() {
    beside_others("fresh", async |lab: &Lab| {
        // The answer to the creation, which no operator can have been faster than.
        let made = lab
            .create(&contour_deployment(&lab.namespace, &specification("auth")))
            .await?;
        ensure!(
            made.data["status"] == json!({"observedGeneration": -1}),
            "{}",
            made.data["status"]
        );
        Ok(())
    })
    .await;
}

#[tokio::test]
async fn the_short_name_and_the_full_one_find_ours_beside_the_kind_of_the_same_name_in_contour_s_crds() {
    beside_others("names", async |lab: &Lab| {
        let upstream = lab
            .world
            .kubectl()
            .run(&["get", "crd", "contourdeployments.projectcontour.io", "-o", "name"])
            .await?;
        ensure!(!upstream.is_empty(), "Contour's own ContourDeployment is not installed");
        lab.edge(&specification("auth")).await?;
        for name in ["cdep", "contourdeployment", "contourdeployments"] {
            let listed = lab.world.kubectl().json(&["get", name, "-n", &lab.namespace]).await?;
            let kinds = listed["items"]
                .as_array()
                .context("a list")?
                .iter()
                .map(|item| item["apiVersion"].as_str());
            ensure!(kinds.eq([Some("contour.slipway.dev/v1alpha1")]), "{name}: {listed}");
        }
        let of_category = lab
            .world
            .kubectl()
            .run(&["get", "slipway", "-n", &lab.namespace, "-o", "name"])
            .await?;
        ensure!(
            of_category.trim() == "contourdeployment.contour.slipway.dev/edge",
            "{of_category}"
        );
        Ok(())
    })
    .await;
}

#[tokio::test]
async fn kubectl_get_shows_the_state_in_columns() {
    beside_others("columns", async |lab: &Lab| {
        let edge = lab.edge(&specification("nowhere")).await?;
        lab.status(&edge, "it is reported", PROMPT, |status| {
            !status.extension_services.is_empty()
        })
        .await?;
        let shown = lab.world.kubectl().run(&["get", "cdep", "-n", &lab.namespace]).await?;
        let lines: Vec<Vec<_>> = shown.lines().map(|line| line.split_whitespace().collect()).collect();
        let [header, row] = lines.as_slice() else {
            anyhow::bail!("not one line: {shown}")
        };
        ensure!(
            *header
                == [
                    "NAME",
                    "READY",
                    "DEGRADED",
                    "REASON",
                    "EXTENSIONS",
                    "CONTOUR",
                    "ENVOY",
                    "AGE"
                ],
            "{shown}"
        );
        ensure!(row[..3] == ["edge", "False", "True"] && row[4] == "0/1", "{shown}");
        Ok(())
    })
    .await;
}

#[tokio::test]
async fn the_crd_in_the_repository_is_what_the_binary_prints() {
    let binary = slipway_e2e::lab::operator::binary().await.expect("the operator builds");
    let printed = command::output(binary, &["crd"], None)
        .await
        .expect("it prints the CRD");
    let file = places::repository().join("crds/contour.slipway.dev_contourdeployments.yaml");
    let stored = std::fs::read_to_string(file).expect("the CRD is in the repository");
    // Not assert_eq!: it would print both.
    assert!(
        printed == stored,
        "crds/ is not what `slipway crd` prints: run `make generate`"
    );
}

#[tokio::test]
async fn the_api_server_has_no_complaint_about_the_crd() {
    beside_others("crd", async |lab: &Lab| {
        let live = installed(lab.world).await?;
        for (type_, status) in [("Established", "True"), ("NamesAccepted", "True")] {
            let mut conditions = live["status"]["conditions"].as_array().into_iter().flatten();
            ensure!(
                conditions.any(|it| it["type"] == type_ && it["status"] == status),
                "{type_}: {}",
                live["status"]
            );
        }
        let mut conditions = live["status"]["conditions"].as_array().into_iter().flatten();
        let complaint = conditions.find(|it| it["type"] == "NonStructuralSchema" && it["status"] == "True");
        ensure!(complaint.is_none(), "{complaint:?}");
        Ok(())
    })
    .await;
}

async fn installed(world: &World) -> anyhow::Result<serde_json::Value> {
    world
        .kubectl()
        .json(&["get", "crd", "contourdeployments.contour.slipway.dev"])
        .await
}
