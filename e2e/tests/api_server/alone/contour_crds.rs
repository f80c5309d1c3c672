//! Contour's CRDs: missing when the operator starts, deleted later, and installed again.

use anyhow::ensure;
use kube::api::{DeleteParams, ListParams};
use slipway_e2e::wait::Look;

use slipway_e2e::lab::players::Kubelet;
use slipway_e2e::lab::world::{Takes, alone};
use slipway_e2e::lab::{CRD_DELETION, Lab, PATIENT, PROMPT, Thing, specification, wait};

/// The CRDs without which Contour does not start.
const REQUIRED: [&str; 4] = [
    "contourconfigurations.projectcontour.io",
    "extensionservices.projectcontour.io",
    "httpproxies.projectcontour.io",
    "tlscertificatedelegations.projectcontour.io",
];

/// Deletes all of Contour's CRDs and waits until they no longer exist.
async fn delete_contour_crds(lab: &Lab) -> anyhow::Result<()> {
    let file = slipway_e2e::cluster::contour_crds().await?;
    lab.world
        .kubectl()
        .run(&[
            "delete",
            "--ignore-not-found",
            &format!("--timeout={}s", CRD_DELETION.as_secs()),
            "-f",
            &file.to_string_lossy(),
        ])
        .await?;
    Ok(())
}

#[tokio::test]
async fn the_operator_reports_missing_crds_and_continues_with_them() {
    alone("no-crds", Takes::ContourCrds, async |lab: &Lab| {
        lab.world.stop_operator().await?;
        delete_contour_crds(lab).await?;
        lab.world.start_operator().await?;
        lab.world.operator_is_ready().await?;
        let edge = lab.edge(&specification("auth")).await?;
        let status = lab
            .status(&edge, "status reports that CRDs are missing", PROMPT, |status| {
                status.is("Reconciling", "True")
            })
            .await?;
        let ready = status.condition("Ready").expect("the status has the condition");
        ensure!(
            ready.status == "False" && ready.reason == "ContourCRDsMissing",
            "{status}"
        );
        for name in REQUIRED {
            ensure!(ready.message.contains(name), "{name} is not named: {}", ready.message);
        }
        ensure!(!status.is("Stalled", "True"), "{status}");
        let deployment = Thing::new("Deployment", &lab.namespace, "edge-contour");
        ensure!(
            lab.find(&deployment).await?.is_none(),
            "Contour's Deployment was created without its CRDs"
        );

        lab.world.install_contour_crds().await?;
        lab.wait_until_exists(&deployment, PATIENT).await?;
        lab.status(&edge, "status no longer reports missing CRDs", PATIENT, |status| {
            status
                .condition("Ready")
                .is_some_and(|it| it.reason != "ContourCRDsMissing")
        })
        .await?;
        Ok(())
    })
    .await;
}

#[tokio::test]
async fn deleted_crds_are_reported_and_their_objects_recreated() {
    alone("crds-gone", Takes::ContourCrds, async |lab: &Lab| {
        let _kubelet = Kubelet::of(&lab.client, &lab.namespace);
        let auth = lab.name("auth");
        lab.create_namespace(&auth).await?;
        let edge = lab.edge(&specification(&auth)).await?;
        lab.status(&edge, "the operator has reconciled edge", PATIENT, |status| {
            !status.extension_services.is_empty()
        })
        .await?;
        let deployment = Thing::new("Deployment", &lab.namespace, "edge-contour");
        let before = lab.read(&deployment).await?["metadata"]["generation"].clone();
        let crds = lab.api("CustomResourceDefinition", "");
        for name in REQUIRED {
            crds.delete(name, &DeleteParams::default()).await?;
        }
        wait(
            "the CRDs are deleted, although Slipway's objects have finalizers",
            CRD_DELETION,
        )
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
        lab.status(&edge, "status reports that CRDs are missing", PROMPT, |status| {
            status
                .condition("Ready")
                .is_some_and(|it| it.reason == "ContourCRDsMissing")
        })
        .await?;
        let now = lab.read(&deployment).await?["metadata"]["generation"].clone();
        ensure!(now == before, "the Deployment of the running Contour was changed");

        lab.world.install_contour_crds().await?;
        wait("the stand-in exists again", PATIENT)
            .until(async || {
                Ok(Look::when(
                    lab.all("ExtensionService", &auth, &edge).await?.len() == 1,
                    edge.status().await?.to_string(),
                ))
            })
            .await?;
        // What Contour read meanwhile is unknown, so Slipway rolls out Contour with a configuration of another name.
        lab.settled(&edge).await?;
        wait("exactly one configuration exists again", PATIENT)
            .until(async || {
                let all = lab.all("ContourConfiguration", &lab.namespace, &edge).await?;
                Ok(Look::when(
                    all.len() == 1,
                    format!("{} configurations exist", all.len()),
                ))
            })
            .await
    })
    .await;
}
