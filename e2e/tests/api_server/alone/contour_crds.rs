//! Contour's CRDs: missing at the start, deleted later, come back.

use anyhow::ensure;
use kube::api::{DeleteParams, ListParams};
use slipway_e2e::wait::Look;

use slipway_e2e::lab::players::Kubelet;
use slipway_e2e::lab::world::{Takes, alone};
use slipway_e2e::lab::{CRD_GOES, Lab, PATIENT, PROMPT, Thing, specification, wait};

/// Contour's CRDs without which it does not start.
const REQUIRED: [&str; 4] = [
    "contourconfigurations.projectcontour.io",
    "extensionservices.projectcontour.io",
    "httpproxies.projectcontour.io",
    "tlscertificatedelegations.projectcontour.io",
];

/// Deletes all of Contour's CRDs and waits until they are gone.
async fn delete_contour_crds(lab: &Lab) -> anyhow::Result<()> {
    let file = slipway_e2e::cluster::contour_crds().await?;
    lab.world
        .kubectl()
        .run(&[
            "delete",
            "--ignore-not-found",
            &format!("--timeout={}s", CRD_GOES.as_secs()),
            "-f",
            &file.to_string_lossy(),
        ])
        .await?;
    Ok(())
}

#[tokio::test]
async fn without_contour_s_crds_the_operator_is_ready_and_says_what_it_waits_for_and_goes_on_when_they_come() {
    alone("no-crds", Takes::ContourCrds, async |lab: &Lab| {
        lab.world.stop_operator().await?;
        delete_contour_crds(lab).await?;
        lab.world.start_operator().await?;
        lab.world.operator_is_ready().await?;
        let edge = lab.edge(&specification("auth")).await?;
        let status = lab
            .status(&edge, "it says that CRDs are missing", PROMPT, |status| {
                status.is("Reconciling", "True")
            })
            .await?;
        let ready = status.condition("Ready").expect("it has one");
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
            "Contour was started without its CRDs"
        );

        lab.world.install_contour_crds().await?;
        wait("Contour's Deployment is made once its CRDs are there", PATIENT)
            .until(async || {
                Ok(Look::when(
                    lab.find(&deployment).await?.is_some(),
                    edge.status().await?.to_string(),
                ))
            })
            .await?;
        lab.status(&edge, "it does not miss CRDs any more", PATIENT, |status| {
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
async fn contour_s_crds_that_are_deleted_while_it_runs_are_reported_and_block_nothing_and_everything_is_remade_when_they_return()
 {
    alone("crds-gone", Takes::ContourCrds, async |lab: &Lab| {
        let _kubelet = Kubelet::of(&lab.client, &lab.namespace);
        let auth = lab.name("auth");
        lab.make_namespace(&auth).await?;
        let edge = lab.edge(&specification(&auth)).await?;
        lab.status(&edge, "it is at work", PATIENT, |status| {
            !status.extension_services.is_empty()
        })
        .await?;
        let deployment = Thing::new("Deployment", &lab.namespace, "edge-contour");
        let before = lab.read(&deployment).await?["metadata"]["generation"].clone();
        let crds = lab.api("CustomResourceDefinition", "");
        for name in REQUIRED {
            crds.delete(name, &DeleteParams::default()).await?;
        }
        wait("the CRDs are gone, though our objects have finalizers", CRD_GOES)
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
        lab.status(&edge, "it says that CRDs are missing", PROMPT, |status| {
            status
                .condition("Ready")
                .is_some_and(|it| it.reason == "ContourCRDsMissing")
        })
        .await?;
        let now = lab.read(&deployment).await?["metadata"]["generation"].clone();
        ensure!(now == before, "the running Contour was touched");

        lab.world.install_contour_crds().await?;
        wait("the stand-in is there again", PATIENT)
            .until(async || {
                Ok(Look::when(
                    lab.all("ExtensionService", &auth, &edge).await?.len() == 1,
                    edge.status().await?.to_string(),
                ))
            })
            .await?;
        // Nobody can say what a Contour read meanwhile: it is rolled to a configuration of another name.
        lab.settled(&edge).await?;
        wait("one configuration is there again", PATIENT)
            .until(async || {
                let all = lab.all("ContourConfiguration", &lab.namespace, &edge).await?;
                Ok(Look::when(all.len() == 1, format!("there are {}", all.len())))
            })
            .await
    })
    .await;
}
