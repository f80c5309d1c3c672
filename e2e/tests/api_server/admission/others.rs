//! The policies do not block other users, Kubernetes' own controllers and cloud controllers.

use anyhow::{Context as _, ensure};
use kube::api::{DeleteParams, Patch, PatchParams, PostParams, PropagationPolicy};
use serde_json::json;
use slipway_e2e::drift::leaks::wait_until_namespace_is_deleted;
use slipway_e2e::lab::created::{APPLIED, settled_edge};
use slipway_e2e::lab::players::{Kubelet, Node};
use slipway_e2e::lab::world::beside_others;
use slipway_e2e::lab::{Lab, PATIENT, PROMPT, Thing, specification, wait};
use slipway_e2e::wait::Look;

use super::{User, grant, once_permitted, unmarked};

#[tokio::test]
async fn policies_do_not_block_a_namespace_editor() {
    beside_others("editor", async |lab: &Lab| {
        let user = lab.name("editor");
        grant(lab, &user, "edit", &lab.namespace).await?;
        let client = lab.client_of(&user).await?;
        let editor = User { client: &client };
        for kind in ["Service", "Secret", "ServiceAccount", "Deployment", "DaemonSet"] {
            let object = unmarked(kind, &lab.namespace, "foreign");
            let made = once_permitted(kind, async || editor.try_create(&object).await).await?;
            made.with_context(|| format!("creating a {kind}"))?;
            let parsed = serde_json::from_value(object)?;
            let api = editor.api(kind, &lab.namespace);
            api.create(&PostParams::default(), &parsed)
                .await
                .with_context(|| format!("creating a {kind}"))?;
            let labels = json!({"metadata": {"labels": {"app": "x"}, "annotations": {"a": "b"}, "finalizers": []}});
            api.patch("foreign", &PatchParams::default(), &Patch::Merge(&labels))
                .await
                .with_context(|| format!("labeling a {kind}"))?;
            api.delete("foreign", &DeleteParams::default())
                .await
                .with_context(|| format!("deleting a {kind}"))?;
        }
        // An editor may delete Slipway's objects, and the operator recreates them.
        let edge = lab.edge(&specification("nowhere")).await?;
        let service = Thing::new("Service", &lab.namespace, "edge-envoy");
        let uid = async || anyhow::Ok(lab.find(&service).await?.unwrap_or_default()["metadata"]["uid"].clone());
        wait("Envoy's Service exists", PROMPT)
            .until(async || Ok(Look::when(!uid().await?.is_null(), edge.status().await?.to_string())))
            .await?;
        let before = uid().await?;
        editor
            .api("Service", &lab.namespace)
            .delete("edge-envoy", &DeleteParams::default())
            .await?;
        wait("Envoy's Service is recreated", PROMPT)
            .until(async || {
                let now = uid().await?;
                Ok(Look::when(!now.is_null() && now != before, now.to_string()))
            })
            .await
    })
    .await;
}

#[tokio::test]
async fn policies_do_not_block_kubernetes_controllers() {
    beside_others("controllers", async |lab: &Lab| {
        let _kubelet = Kubelet::of(&lab.client, &lab.namespace);
        let _node = Node::of(lab).await?;
        let auth = lab.name("auth");
        let edge = settled_edge(lab, &auth).await?;
        // The Deployment controller writes a revision to the Deployment, and copies the Deployment's labels and annotations.
        let deployment = Thing::new("Deployment", &lab.namespace, "edge-contour");
        let revision = async || {
            anyhow::Ok(
                lab.read(&deployment).await?["metadata"]["annotations"]["deployment.kubernetes.io/revision"].clone(),
            )
        };
        ensure!(revision().await? == "1", "{}", revision().await?);
        lab.patch(
            &Thing::new("ContourDeployment", &lab.namespace, "edge"),
            &json!({"spec": {"contour": {"logLevel": "debug"}}}),
        )
        .await?;
        lab.settled(&edge).await?;
        ensure!(revision().await? == "2", "{}", revision().await?);
        let replica_sets = lab.all("ReplicaSet", &lab.namespace, &edge).await?;
        let of_contour: Vec<_> = replica_sets
            .iter()
            .filter(|it| it["metadata"]["ownerReferences"][0]["name"] == "edge-contour")
            .collect();
        ensure!(of_contour.len() == 2, "{of_contour:?}");
        for replica_set in of_contour {
            ensure!(
                replica_set["metadata"]["annotations"][APPLIED].is_string(),
                "the annotation was not copied: {}",
                replica_set["metadata"]
            );
        }
        // The controllers of Services and of DaemonSets also copy labels.
        lab.patch(
            &Thing::new("ContourDeployment", &lab.namespace, "edge"),
            &json!({"spec": {"envoy": {"workloadType": "DaemonSet"}}}),
        )
        .await?;
        for kind in ["EndpointSlice", "ControllerRevision"] {
            wait(&format!("an object of kind {kind} has Slipway's labels"), PATIENT)
                .until(async || {
                    let copies = lab.all(kind, &lab.namespace, &edge).await?;
                    Ok(Look::when(!copies.is_empty(), edge.status().await?.to_string()))
                })
                .await?;
        }
        lab.settled(&edge).await?;

        // The garbage collector removes the owner reference from each object before the ContourDeployment is deleted.
        let orphans = DeleteParams {
            propagation_policy: Some(PropagationPolicy::Orphan),
            ..DeleteParams::default()
        };
        lab.api("ContourDeployment", &lab.namespace)
            .delete("edge", &orphans)
            .await?;
        let own = Thing::new("ContourDeployment", &lab.namespace, "edge");
        wait("the ContourDeployment is deleted", PATIENT)
            .until(async || Ok(Look::when(lab.find(&own).await?.is_none(), "it still exists")))
            .await?;
        // The operator leaves the deletion of its own bindings to the garbage collector, which orphans them here.
        for name in ["edge-slipway-operand", "edge-slipway-secrets"] {
            lab.delete(&Thing::new("RoleBinding", &lab.namespace, name)).await?;
        }
        lab.wait_until_nothing_is_left(&edge).await
    })
    .await;
}

#[tokio::test]
async fn policies_do_not_block_cloud_controllers() {
    beside_others("cloud", async |lab: &Lab| {
        let mut spec = specification("nowhere");
        spec["envoy"]["networkPublishing"]["type"] = json!("LoadBalancerService");
        let edge = lab.edge(&spec).await?;
        let service = Thing::new("Service", &lab.namespace, "edge-envoy");
        lab.wait_until_exists(&service, PROMPT).await?;
        // `k8s.io/cloud-provider` does the same: it adds a finalizer, writes the address, and removes the finalizer at the end.
        let held = json!({"metadata": {"finalizers": ["service.kubernetes.io/load-balancer-cleanup"]}});
        lab.patch(&service, &held).await?;
        let address = json!({"status": {"loadBalancer": {"ingress": [{"ip": "192.0.2.1"}]}}});
        let api = lab.api("Service", &lab.namespace);
        api.patch_status("edge-envoy", &PatchParams::default(), &Patch::Merge(&address))
            .await?;
        let node_port = lab.read(&service).await?["spec"]["ports"][0]["nodePort"]
            .as_i64()
            .context("a node port")?;
        lab.patch(
            &service,
            &json!({"metadata": {"annotations": {"cloud.example.com/port": node_port.to_string()}}}),
        )
        .await?;
        edge.delete().await?;
        wait("the Service waits for the cloud controller", PROMPT)
            .until(async || {
                let now = lab.read(&service).await?;
                Ok(Look::when(
                    !now["metadata"]["deletionTimestamp"].is_null(),
                    "the Service is not being deleted",
                ))
            })
            .await?;
        lab.patch(&service, &json!({"metadata": {"finalizers": null}})).await?;
        lab.wait_until_nothing_is_left(&edge).await
    })
    .await;
}

#[tokio::test]
async fn policies_do_not_block_namespace_deletion() {
    beside_others("namespaces", async |lab: &Lab| {
        let _kubelet = Kubelet::of(&lab.client, &lab.namespace);
        let auth = lab.name("auth");
        settled_edge(lab, &auth).await?;
        for namespace in [&auth, &lab.namespace] {
            let namespace = Thing::new("Namespace", "", namespace);
            lab.delete(&namespace).await?;
            wait_until_namespace_is_deleted(lab, &namespace).await?;
        }
        Ok(())
    })
    .await;
}

#[tokio::test]
async fn kube_controller_manager_reports_no_warning_for_any_policy() {
    beside_others("types", async |lab: &Lab| {
        lab.world.install_httpproxy_policy().await?;
        let mut all = slipway_policies(lab).await?;
        ensure!(all.len() == 8, "{all:?}");
        while let Some(name) = all.pop() {
            let policy = Thing::new("ValidatingAdmissionPolicy", "", &name);
            // kube-controller-manager panics on some schemas (kubernetes/kubernetes#135145), and then never checks the policy.
            let now = wait(
                &format!("kube-controller-manager has checked {name} against the schemas of the matched resources"),
                PATIENT,
            )
            .until(async || {
                let now = lab.read(&policy).await?;
                let checked = now["status"]["observedGeneration"] == now["metadata"]["generation"];
                Ok(if checked {
                    Look::Reached(now)
                } else {
                    Look::NotYet(now["status"].to_string())
                })
            })
            .await?;
            let warnings = &now["status"]["typeChecking"]["expressionWarnings"];
            ensure!(warnings.is_null(), "{name}: {warnings}");
        }
        Ok(())
    })
    .await;
}

/// Returns the names of all of Slipway's admission policies.
async fn slipway_policies(lab: &Lab) -> anyhow::Result<Vec<String>> {
    let list = lab
        .api("ValidatingAdmissionPolicy", "")
        .list_metadata(&kube::api::ListParams::default())
        .await?;
    let names = list.items.into_iter().filter_map(|policy| policy.metadata.name);
    Ok(names.filter(|name| name.starts_with("slipway-")).collect())
}
