//! The operator as a process: start without Contour's CRDs, probes, metrics, events, the end.

use std::time::{Duration, Instant};

use anyhow::ensure;
use kube::api::{DeleteParams, ListParams};
use serde_json::Value;
use slipway_e2e::wait::Look;

use crate::lab::{Lab, PATIENT, PROMPT, Thing, specification, wait};
use crate::operator;
use crate::world::{Takes, alone, beside_others};

/// Contour's CRDs without which it does not start.
const REQUIRED: [&str; 4] = [
    "contourconfigurations.projectcontour.io",
    "extensionservices.projectcontour.io",
    "httpproxies.projectcontour.io",
    "tlscertificatedelegations.projectcontour.io",
];

/// Deletes all of Contour's CRDs and waits until they are gone.
pub async fn delete_contour_crds(lab: &Lab) -> anyhow::Result<()> {
    let file = slipway_e2e::cluster::contour_crds().await?;
    lab.world
        .kubectl()
        .run(&[
            "delete",
            "--ignore-not-found",
            "--timeout=30s",
            "-f",
            &file.to_string_lossy(),
        ])
        .await?;
    Ok(())
}

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
async fn the_probes_and_the_metrics_answer() {
    beside_others("probes", async |lab: &Lab| {
        for path in ["/livez", "/readyz", "/metrics"] {
            let (code, body) = operator::get(lab.world.address(), path).await?;
            ensure!(code == 200, "{path}: {code} {body}");
        }
        let (code, _) = operator::get(lab.world.address(), "/debug").await?;
        ensure!(code == 404, "/debug: {code}");
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
                resources.retain(|resource| resource != "leases");
                if resources.is_empty() {
                    resources.push(Value::from("nothing"));
                }
            }
        }
        lab.patch(&role, &serde_json::json!({"rules": rules})).await?;
        lab.world.start_operator().await?;
        wait("/readyz says that Leases are not read, and nothing else", PATIENT)
            .until(async || {
                Ok(match operator::get(lab.world.address(), "/readyz").await {
                    Ok((503, body)) if body.contains("Lease") && !body.contains("Pod") => Look::Reached(()),
                    other => Look::NotYet(format!("{other:?}")),
                })
            })
            .await?;
        let (code, _) = operator::get(lab.world.address(), "/livez").await?;
        ensure!(code == 200, "a restart would not cure it, and /livez says {code}");
        Ok(())
    })
    .await;
}

#[tokio::test]
async fn a_contour_deployment_that_is_gone_leaves_no_metrics_behind() {
    beside_others("metrics-gone", async |lab: &Lab| {
        let edge = lab.edge(&specification("nowhere")).await?;
        let own = [("contourdeployment_namespace", lab.namespace.as_str())];
        let series = async || {
            anyhow::Ok(
                lab.metrics()
                    .await?
                    .of("slipway_contourdeployment_condition", &own)
                    .count(),
            )
        };
        wait("there are series", PROMPT)
            .until(async || Ok(Look::when(series().await? > 0, "none")))
            .await?;
        edge.delete().await?;
        lab.nothing_is_left(&edge).await?;
        wait("the series are gone", PROMPT)
            .until(async || {
                let count = series().await?;
                Ok(Look::when(count == 0, format!("{count} series")))
            })
            .await
    })
    .await;
}

#[tokio::test]
async fn contour_s_crds_that_are_deleted_while_it_runs_are_reported_and_block_nothing_and_everything_is_remade_when_they_return()
 {
    alone("crds-gone", Takes::ContourCrds, async |lab: &Lab| {
        let auth = lab.name("auth");
        lab.make_namespace(&auth).await?;
        let edge = lab.edge(&specification(&auth)).await?;
        lab.status(&edge, "it is at work", PROMPT, |status| {
            !status.extension_services.is_empty()
        })
        .await?;
        let deployment = Thing::new("Deployment", &lab.namespace, "edge-contour");
        let before = lab.read(&deployment).await?["metadata"]["generation"].clone();
        let crds = lab.api("CustomResourceDefinition", "");
        for name in REQUIRED {
            crds.delete(name, &DeleteParams::default()).await?;
        }
        let since = Instant::now();
        wait("the CRDs are gone, though our objects have finalizers", PATIENT)
            .until(async || {
                let list = crds.list_metadata(&ListParams::default()).await?;
                let left: Vec<_> = list
                    .items
                    .into_iter()
                    .filter_map(|crd| crd.metadata.name)
                    .filter(|name| REQUIRED.contains(&name.as_str()))
                    .collect();
                Ok(Look::when(left.is_empty(), left.join(", ")))
            })
            .await?;
        ensure!(since.elapsed() < PATIENT);
        lab.status(&edge, "it says that CRDs are missing", PROMPT, |status| {
            status
                .condition("Ready")
                .is_some_and(|it| it.reason == "ContourCRDsMissing")
        })
        .await?;
        let now = lab.read(&deployment).await?["metadata"]["generation"].clone();
        ensure!(now == before, "the running Contour was touched");

        lab.world.install_contour_crds().await?;
        wait("the stand-in is there again", PROMPT)
            .until(async || {
                Ok(Look::when(
                    lab.all("ExtensionService", &auth, &edge).await?.len() == 1,
                    edge.status().await?.to_string(),
                ))
            })
            .await?;
        wait("the configuration is there again", PROMPT)
            .until(async || {
                Ok(Look::when(
                    lab.all("ContourConfiguration", &lab.namespace, &edge).await?.len() == 1,
                    edge.status().await?.to_string(),
                ))
            })
            .await
    })
    .await;
}
