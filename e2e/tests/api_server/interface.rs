//! The parts of the API that users see without the operator: defaults, short names, columns, and the generated CRD.

use anyhow::{Context as _, ensure};
use serde_json::json;
use slipway_e2e::{command, places};

use slipway_e2e::lab::world::{World, beside_others};
use slipway_e2e::lab::{Lab, PROMPT, contour_deployment, specification};

#[tokio::test]
async fn a_new_contour_deployment_reports_that_it_was_not_observed() {
    beside_others("fresh", async |lab: &Lab| {
        // The response to the creation, before the operator can have written the status.
        let created = lab
            .create(&contour_deployment(&lab.namespace, &specification("auth")))
            .await?;
        ensure!(
            created.data["status"] == json!({"observedGeneration": -1}),
            "{}",
            created.data["status"]
        );
        Ok(())
    })
    .await;
}

#[tokio::test]
async fn kubectl_names_select_slipway_and_not_contours_own_kind() {
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
                .context("the list has items")?
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
        lab.status(&edge, "the service is reported", PROMPT, |status| {
            !status.extension_services.is_empty()
        })
        .await?;
        let shown = lab.world.kubectl().run(&["get", "cdep", "-n", &lab.namespace]).await?;
        let lines: Vec<Vec<_>> = shown.lines().map(|line| line.split_whitespace().collect()).collect();
        let [header, row] = lines.as_slice() else {
            anyhow::bail!("expected a header and one line: {shown}")
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
async fn the_crd_in_the_repository_equals_the_output_of_the_binary() {
    let binary = slipway_e2e::binaries::slipway().await.expect("the operator builds");
    let printed = command::output(binary, &["crd"], None)
        .await
        .expect("the operator prints the CRD");
    let file = places::repository().join("crds/contour.slipway.dev_contourdeployments.yaml");
    let stored = std::fs::read_to_string(file).expect("the CRD is in the repository");
    // assert_eq! would print both texts in full.
    assert!(
        printed == stored,
        "crds/ differs from the output of `slipway crd`: run `make generate`"
    );
}

#[tokio::test]
async fn the_api_server_reports_no_problem_with_the_crd() {
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
        let problem = conditions.find(|it| it["type"] == "NonStructuralSchema" && it["status"] == "True");
        ensure!(problem.is_none(), "{problem:?}");
        Ok(())
    })
    .await;
}

/// Returns Slipway's CRD as the API server stores it.
async fn installed(world: &World) -> anyhow::Result<serde_json::Value> {
    world
        .kubectl()
        .json(&["get", "crd", "contourdeployments.contour.slipway.dev"])
        .await
}
