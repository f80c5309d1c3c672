//! Who else is on a stage, played: a Contour that finds every ExtensionService valid, and a node, so that a `DaemonSet` has a pod.

use std::time::Duration;

use k8s_openapi::jiff::Timestamp;
use kube::api::{ApiResource, DynamicObject, GroupVersionKind, ListParams, Patch, PatchParams};
use kube::{Api, Client};
use serde_json::{Value, json};
use tokio::task::JoinHandle;

use crate::lab::Lab;

/// How often Contour looks. The real one needs about 18 ms for a verdict; nothing depends on it.
const PACE: Duration = Duration::from_millis(100);

/// They play as long as this value lives.
#[derive(Debug)]
pub struct Cast([JoinHandle<()>; 2]);

impl Cast {
    /// For the `ExtensionService`s of these namespaces.
    pub async fn of(lab: &Lab, namespaces: &[&str]) -> anyhow::Result<Self> {
        Ok(Self([contour(&lab.client, namespaces), node(lab).await?]))
    }
}

impl Drop for Cast {
    fn drop(&mut self) {
        self.0.iter().for_each(JoinHandle::abort);
    }
}

/// Gives each generation its verdict, those of stand-ins included.
fn contour(client: &Client, namespaces: &[&str]) -> JoinHandle<()> {
    let kind = ApiResource::from_gvk(&GroupVersionKind::gvk(
        "projectcontour.io",
        "v1alpha1",
        "ExtensionService",
    ));
    let of = |namespace: &&str| Api::<DynamicObject>::namespaced_with(client.clone(), namespace, &kind);
    let places: Vec<_> = namespaces.iter().map(of).collect();
    tokio::spawn(async move {
        let mut round = tokio::time::interval(PACE);
        loop {
            round.tick().await;
            for place in &places {
                // Whatever fails is tried again in the next round.
                let Ok(list) = place.list(&ListParams::default()).await else {
                    continue;
                };
                for service in list.items.iter().filter(|service| !is_judged(service)) {
                    let name = service.metadata.name.as_deref().unwrap_or_default();
                    let patch = Patch::Merge(verdict(service.metadata.generation));
                    let _ = place.patch_status(name, &PatchParams::default(), &patch).await;
                }
            }
        }
    })
}

fn is_judged(service: &DynamicObject) -> bool {
    service.data["status"]["conditions"][0]["observedGeneration"] == json!(service.metadata.generation)
}

fn verdict(generation: Option<i64>) -> Value {
    json!({"status": {"conditions": [{
        "type": "Valid", "status": "True", "observedGeneration": generation, "reason": "Valid", "message": "judged",
        "lastTransitionTime": "2026-01-01T00:00:00Z",
    }]}})
}

/// There is no scheduler: its pods are never bound to it, and go at once when they are deleted.
async fn node(lab: &Lab) -> anyhow::Result<JoinHandle<()>> {
    let name = "played";
    lab.apply(&json!({"apiVersion": "v1", "kind": "Node", "metadata": {"name": name}}))
        .await?;
    let nodes = lab.api("Node", "");
    Ok(tokio::spawn(async move {
        // One that is silent for 40 s is taken for lost.
        let mut beat = tokio::time::interval(Duration::from_secs(5));
        loop {
            beat.tick().await;
            let now = Timestamp::now().to_string();
            let ready = json!({"type": "Ready", "status": "True", "reason": "Played", "lastHeartbeatTime": now});
            let patch = Patch::Merge(json!({"status": {"conditions": [ready]}}));
            let _ = nodes.patch_status(name, &PatchParams::default(), &patch).await;
        }
    }))
}
