//! What is made for a ContourDeployment, and that nothing more is written or read once it is there.

use std::collections::BTreeSet;
use std::time::Duration;

use anyhow::ensure;
use serde_json::{Value, json};
use slipway_e2e::edge::{OWNER_NAME, OWNER_NAMESPACE};
use slipway_e2e::wait::Look;

use slipway_e2e::lab::audit;
use slipway_e2e::lab::made::{FINALIZER, made_for, name, settled_edge};
use slipway_e2e::lab::players::Kubelet;
use slipway_e2e::lab::world::beside_others;
use slipway_e2e::lab::{Lab, PROMPT, Thing, specification, wait};

/// The label by which Velero leaves an object out of backups.
const EXCLUDED: &str = "velero.io/exclude-from-backup";

/// How long nothing may happen to count as nothing.
pub const QUIET: Duration = Duration::from_secs(4);

#[tokio::test]
async fn everything_that_contour_needs_is_made_and_carries_labels_and_owner() {
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
            "it is not to be backed up"
        );
        for kind in ["ReplicaSet", "Pod", "EndpointSlice"] {
            let made = lab.all(kind, &lab.namespace, &edge).await?;
            let excluded = |object: &Value| object["metadata"]["labels"][EXCLUDED] == "true";
            ensure!(!made.is_empty() && made.iter().all(excluded), "{kind}s: {made:?}");
        }
        let made = made_for(lab, &edge, &auth).await?;
        for thing in &made {
            let metadata = lab.read(thing).await?["metadata"].clone();
            let labels = &metadata["labels"];
            ensure!(
                labels[OWNER_NAME] == "edge" && labels[OWNER_NAMESPACE] == *lab.namespace,
                "{thing}: {labels}"
            );
            ensure!(labels["app.kubernetes.io/managed-by"] == "slipway", "{thing}: {labels}");
            ensure!(labels[EXCLUDED] == "true", "{thing}: {labels}");
            // Argo CD would take an object with this label, and without an owner, for its own.
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
        // And nothing else: of the kinds that Kubernetes' own controllers don't make.
        let by_others = [
            "Pod ",
            "ReplicaSet ",
            "EndpointSlice ",
            "Endpoints ",
            "ContourDeployment ",
        ];
        let there = lab.belongings(&edge).await?;
        let there: BTreeSet<_> = there
            .into_iter()
            .filter(|object| !by_others.iter().any(|kind| object.starts_with(kind)))
            .collect();
        let expected: BTreeSet<_> = made.iter().map(ToString::to_string).collect();
        ensure!(there == expected, "there are {there:#?}, and not {expected:#?}");
        Ok(())
    })
    .await;
}

#[tokio::test]
async fn contour_s_configuration_names_the_stand_in_and_what_the_specification_says() {
    beside_others("configuration", async |lab: &Lab| {
        let auth = lab.name("auth");
        lab.make_namespace(&auth).await?;
        let mut spec = specification(&auth);
        spec["runtimeSettings"]["enableExternalNameService"] = json!(true);
        let edge = lab.edge(&spec).await?;
        let deployment = Thing::new("Deployment", &lab.namespace, "edge-contour");
        wait("Contour is made", PROMPT)
            .until(async || {
                Ok(Look::when(
                    lab.find(&deployment).await?.is_some(),
                    edge.status().await?.to_string(),
                ))
            })
            .await?;
        let configuration = lab.only("ContourConfiguration", &lab.namespace, &edge).await?;
        let stand_in = lab.only("ExtensionService", &auth, &edge).await?;
        let block = &configuration["spec"]["globalExtAuth"];
        ensure!(
            block["extensionRef"] == json!({"namespace": auth, "name": stand_in["metadata"]["name"]}),
            "{block}"
        );
        // The word itself, not its default: a block without it must never be written.
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
async fn a_settled_contour_deployment_costs_no_request_even_when_it_is_looked_at_again() {
    beside_others("quiet", async |lab: &Lab| {
        let _kubelet = Kubelet::of(&lab.client, &lab.namespace);
        let edge = settled_edge(lab, &lab.name("auth")).await?;
        // Settled in the eyes of this test; the operator may have a last word to write.
        lab.looks_again(&edge, 1).await?;
        let mark = audit::mark(lab.world)?;
        lab.looks_again(&edge, 5).await?;
        // That nothing happens can only be seen by waiting.
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
