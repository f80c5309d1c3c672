//! Stand-ins for absent components: the kubelet, a node, and Contour's verdicts as a test chooses them. A stand-in for Contour that
//! chooses its own verdicts is in `contour`.

use std::time::Duration;

use crate::wait::Look;
use k8s_openapi::api::core::v1::Pod;
use kube::api::{ListParams, Patch, PatchParams};
use kube::{Api, Client};
use serde_json::{Value, json};
use tokio::task::JoinHandle;

use crate::lab::{Lab, PROMPT, Thing, wait};

/// A stand-in for the kubelet: makes every pod of a namespace ready as soon as it exists, until this value is dropped. The Deployment
/// controller itself does the rest.
#[derive(Debug)]
pub struct Kubelet(JoinHandle<()>);

impl Kubelet {
    /// Starts the stand-in for the pods of a namespace.
    pub fn of(client: &Client, namespace: &str) -> Self {
        Self::among(client, Api::namespaced(client.clone(), namespace), namespace)
    }

    /// Starts the stand-in for the pods in all namespaces of a test.
    pub fn of_all(lab: &Lab) -> Self {
        Self::among(&lab.client, Api::all(lab.client.clone()), &lab.namespace)
    }

    /// Starts the stand-in for the pods in namespaces with this prefix.
    fn among(client: &Client, pods: Api<Pod>, prefix: &str) -> Self {
        let (client, prefix) = (client.clone(), prefix.to_owned());
        Self(tokio::spawn(async move {
            let mut round = tokio::time::interval(Duration::from_millis(100));
            loop {
                round.tick().await;
                // The next round retries after any error.
                let Ok(list) = pods.list(&ListParams::default()).await else {
                    continue;
                };
                for pod in list.items.iter().filter(|pod| !is_running(pod) && !is_gated(pod)) {
                    let namespace = pod.metadata.namespace.as_deref().unwrap_or_default();
                    if !namespace.starts_with(&prefix) {
                        continue;
                    }
                    let _ = Api::<Pod>::namespaced(client.clone(), namespace)
                        .patch_status(
                            pod.metadata.name.as_deref().unwrap_or_default(),
                            &PatchParams::default(),
                            &Patch::Merge(running()),
                        )
                        .await;
                }
            }
        }))
    }
}

impl Drop for Kubelet {
    fn drop(&mut self) {
        self.0.abort();
    }
}

/// Reports whether a scheduling gate holds the pod back.
fn is_gated(pod: &Pod) -> bool {
    let mut gates = pod.spec.iter().filter_map(|spec| spec.scheduling_gates.as_ref());
    gates.any(|gates| !gates.is_empty())
}

pub(super) fn is_running(pod: &Pod) -> bool {
    pod.status.as_ref().and_then(|status| status.phase.as_deref()) == Some("Running")
}

pub(super) fn running() -> Value {
    json!({"status": {"phase": "Running", "conditions": [
        {"type": "Ready", "status": "True", "lastTransitionTime": "2026-01-01T00:00:00Z"},
        {"type": "ContainersReady", "status": "True", "lastTransitionTime": "2026-01-01T00:00:00Z"},
    ]}})
}

/// A stand-in for a node, until this value is dropped. Nothing is scheduled on the node, but a `DaemonSet` creates a pod for it. Its
/// pods are never bound to the node, so they are deleted immediately.
#[derive(Debug)]
pub struct Node(JoinHandle<()>);

impl Node {
    /// Creates the node `played`.
    pub async fn of(lab: &Lab) -> anyhow::Result<Self> {
        let name = "played";
        let node = json!({"apiVersion": "v1", "kind": "Node", "metadata": {"name": name, "labels": {"kubernetes.io/os": "linux"}}, "spec": {"unschedulable": true}});
        lab.apply(&node).await?;
        let nodes = lab.api("Node", "");
        Ok(Self(tokio::spawn(async move {
            // Kubernetes treats a node without a heartbeat for 40 s as lost.
            let mut beat = tokio::time::interval(Duration::from_secs(5));
            loop {
                beat.tick().await;
                let now = k8s_openapi::jiff::Timestamp::now().to_string();
                let ready = json!({"type": "Ready", "status": "True", "reason": "Played", "lastHeartbeatTime": now});
                let patch = Patch::Merge(json!({"status": {"conditions": [ready]}}));
                let _ = nodes.patch_status(name, &PatchParams::default(), &patch).await;
            }
        })))
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        self.0.abort();
    }
}

/// Contour's verdict on an ExtensionService.
#[derive(Clone, Copy, Debug)]
pub enum Verdict {
    /// The ExtensionService is valid.
    Valid,
    /// The ExtensionService is invalid for this reason.
    Invalid(&'static str),
}

/// Writes Contour's verdict on the present generation of an ExtensionService.
pub async fn judge(lab: &Lab, namespace: &str, name: &str, verdict: Verdict) -> anyhow::Result<()> {
    let thing = Thing::new("ExtensionService", namespace, name);
    let generation = lab.read(&thing).await?["metadata"]["generation"].clone();
    let patch = self::verdict(generation.as_i64().unwrap_or_default(), verdict);
    lab.api("ExtensionService", namespace)
        .patch_status(name, &PatchParams::default(), &Patch::Merge(patch))
        .await?;
    Ok(())
}

/// Returns the status patch with a verdict on a generation.
pub(super) fn verdict(generation: i64, verdict: Verdict) -> Value {
    let (status, errors) = match verdict {
        Verdict::Valid => ("True", json!([])),
        Verdict::Invalid(reason) => (
            "False",
            json!([{"type": "Valid", "status": "True", "reason": reason, "message": "the stand-in chose this verdict"}]),
        ),
    };
    let condition = json!({
        "type": "Valid", "status": status, "observedGeneration": generation, "reason": status, "message": "judged",
        "lastTransitionTime": "2026-01-01T00:00:00Z", "errors": errors,
    });
    json!({"status": {"conditions": [condition]}})
}

/// Creates the Service `auth` with a ready endpoint, but no ExtensionService.
pub async fn auth_server(lab: &Lab, namespace: &str) -> anyhow::Result<()> {
    lab.apply(&json!({
        "apiVersion": "v1", "kind": "Service", "metadata": {"namespace": namespace, "name": "auth"},
        "spec": {"ports": [{"name": "grpc", "port": 9001}]},
    }))
    .await?;
    lab.apply(&json!({
        "apiVersion": "discovery.k8s.io/v1", "kind": "EndpointSlice", "addressType": "IPv4",
        "metadata": {"namespace": namespace, "name": "auth", "labels": {"kubernetes.io/service-name": "auth"}},
        "endpoints": [{"addresses": ["192.0.2.1"], "conditions": {"ready": true}}], "ports": [{"name": "grpc", "port": 9001}],
    }))
    .await?;
    Ok(())
}

/// Creates a namespace with the Service `auth` and a valid ExtensionService `auth`, and returns the name of the namespace.
pub async fn valid_auth(lab: &Lab) -> anyhow::Result<String> {
    let auth = lab.name("auth");
    lab.create_namespace(&auth).await?;
    auth_server(lab, &auth).await?;
    lab.create(&extension_service(&auth, "500ms")).await?;
    judge(lab, &auth, "auth", Verdict::Valid).await?;
    Ok(auth)
}

/// Returns the user's ExtensionService `auth`, which references that Service, with this response timeout.
pub fn extension_service(namespace: &str, response: &str) -> Value {
    json!({
        "apiVersion": "projectcontour.io/v1alpha1", "kind": "ExtensionService", "metadata": {"namespace": namespace, "name": "auth"},
        "spec": {"protocol": "h2c", "services": [{"name": "auth", "port": 9001}], "timeoutPolicy": {"response": response}},
    })
}

/// Waits until the stand-in of this name references these Services, and returns the stand-in.
pub async fn wait_for_stand_in_services(lab: &Lab, stand_in: &Thing, services: &[&str]) -> anyhow::Result<Value> {
    wait(&format!("{stand_in} references {services:?}"), PROMPT)
        .until(async || {
            let found = lab.find(stand_in).await?.unwrap_or_default();
            let listed = found["spec"]["services"].as_array().cloned().unwrap_or_default();
            let names: Vec<_> = listed.iter().filter_map(|service| service["name"].as_str()).collect();
            Ok(if names == services {
                Look::Reached(found)
            } else {
                Look::NotYet(format!("the stand-in references {names:?}"))
            })
        })
        .await
}
