//! The objects that Slipway creates for a ContourDeployment. Once they exist, Slipway sends no further requests.

use std::collections::BTreeSet;

use anyhow::ensure;
use serde_json::{Value, json};
use slipway_e2e::edge::{OWNER_NAME, OWNER_NAMESPACE};

use slipway_e2e::lab::audit;
use slipway_e2e::lab::created::{FINALIZER, name, objects_created_for, settled_edge};
use slipway_e2e::lab::players::Kubelet;
use slipway_e2e::lab::world::beside_others;
use slipway_e2e::lab::{Lab, PROMPT, QUIET, Thing, specification};

/// The label that makes Velero exclude an object from backups.
const EXCLUDED: &str = "velero.io/exclude-from-backup";

#[tokio::test]
async fn created_objects_have_labels_owners_and_finalizers() {
    beside_others("objects", async |lab: &Lab| {
        let _kubelet = Kubelet::of(&lab.client, &lab.namespace);
        let auth = lab.name("auth");
        let edge = settled_edge(lab, &auth).await?;
        let owner = lab
            .read(&Thing::new("ContourDeployment", &lab.namespace, "edge"))
            .await?;
        ensure!(
            owner["metadata"]["finalizers"] == json!([FINALIZER]),
            "{}",
            owner["metadata"]
        );
        ensure!(
            owner["metadata"]["labels"].get(EXCLUDED).is_none(),
            "the ContourDeployment is excluded from backups"
        );
        for kind in ["ReplicaSet", "Pod", "EndpointSlice"] {
            let made = lab.all(kind, &lab.namespace, &edge).await?;
            let excluded = |object: &Value| object["metadata"]["labels"][EXCLUDED] == "true";
            ensure!(!made.is_empty() && made.iter().all(excluded), "{kind}s: {made:?}");
        }
        let made = objects_created_for(lab, &edge, &auth).await?;
        for thing in &made {
            let metadata = lab.read(thing).await?["metadata"].clone();
            let labels = &metadata["labels"];
            ensure!(
                labels[OWNER_NAME] == "edge" && labels[OWNER_NAMESPACE] == *lab.namespace,
                "{thing}: {labels}"
            );
            ensure!(labels["app.kubernetes.io/managed-by"] == "slipway", "{thing}: {labels}");
            ensure!(labels[EXCLUDED] == "true", "{thing}: {labels}");
            // Argo CD claims an object that has this label and no owner.
            ensure!(labels.get("app.kubernetes.io/instance").is_none(), "{thing}: {labels}");
            let is_owned = thing.namespace == lab.namespace;
            let owners = metadata["ownerReferences"].as_array().cloned().unwrap_or_default();
            let expected = json!([{
                "apiVersion": "contour.slipway.dev/v1alpha1", "kind": "ContourDeployment", "name": "edge",
                "uid": owner["metadata"]["uid"], "controller": true, "blockOwnerDeletion": true,
            }]);
            ensure!(
                if is_owned {
                    json!(owners) == expected
                } else {
                    owners.is_empty()
                },
                "{thing}: {owners:?}"
            );
            let is_held = thing.namespace == auth;
            ensure!(
                (metadata["finalizers"] == json!([FINALIZER])) == is_held,
                "{thing}: {}",
                metadata["finalizers"]
            );
        }
        // Slipway creates no other objects. Objects that Kubernetes' own controllers create do not count.
        let by_others = [
            "Pod ",
            "ReplicaSet ",
            "EndpointSlice ",
            "Endpoints ",
            "ContourDeployment ",
        ];
        let found = lab.objects_of(&edge).await?;
        let found: BTreeSet<_> = found
            .into_iter()
            .filter(|object| !by_others.iter().any(|kind| object.starts_with(kind)))
            .collect();
        let expected: BTreeSet<_> = made.iter().map(ToString::to_string).collect();
        ensure!(found == expected, "found {found:#?}, expected {expected:#?}");
        Ok(())
    })
    .await;
}

#[tokio::test]
async fn the_configuration_has_the_stand_in_and_the_settings() {
    beside_others("configuration", async |lab: &Lab| {
        let auth = lab.name("auth");
        lab.create_namespace(&auth).await?;
        let mut spec = specification(&auth);
        spec["runtimeSettings"]["enableExternalNameService"] = json!(true);
        let edge = lab.edge(&spec).await?;
        let deployment = Thing::new("Deployment", &lab.namespace, "edge-contour");
        lab.wait_until_exists(&deployment, PROMPT).await?;
        let configuration = lab.only("ContourConfiguration", &lab.namespace, &edge).await?;
        let stand_in = lab.only("ExtensionService", &auth, &edge).await?;
        let block = &configuration["spec"]["globalExtAuth"];
        ensure!(
            block["extensionRef"] == json!({"namespace": auth, "name": stand_in["metadata"]["name"]}),
            "{block}"
        );
        // The field itself, not its default: Slipway must never write a block without failOpen.
        ensure!(block["failOpen"] == json!(false), "{block}");
        ensure!(
            configuration["spec"]["enableExternalNameService"] == json!(true),
            "{}",
            configuration["spec"]
        );
        ensure!(
            configuration["spec"]["envoy"]["service"] == json!({"namespace": lab.namespace, "name": "edge-envoy"}),
            "{}",
            configuration["spec"]
        );
        let arguments = lab.read(&deployment).await?["spec"]["template"]["spec"]["containers"][0]["args"].clone();
        let flag = format!("--contour-config-name={}", name(&configuration)?);
        ensure!(
            arguments.as_array().is_some_and(|all| all.contains(&json!(flag))),
            "{arguments}"
        );
        Ok(())
    })
    .await;
}

#[tokio::test]
async fn reconciling_a_settled_contour_deployment_sends_no_request() {
    beside_others("quiet", async |lab: &Lab| {
        let _kubelet = Kubelet::of(&lab.client, &lab.namespace);
        let edge = settled_edge(lab, &lab.name("auth")).await?;
        // The ContourDeployment has settled, but the operator may still have to write its status once more.
        lab.reconcile_again(&edge, 1).await?;
        let mark = audit::mark(lab.world)?;
        lab.reconcile_again(&edge, 5).await?;
        // Only waiting can prove that nothing happens.
        tokio::time::sleep(QUIET).await;
        let requests = audit::requests(lab.world, mark, &lab.namespace)?;
        ensure!(
            requests.is_empty(),
            "{} requests:\n{}",
            requests.len(),
            requests.join("\n")
        );
        Ok(())
    })
    .await;
}
