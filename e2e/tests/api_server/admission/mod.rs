//! The admission policies on marks and on content. The policies refuse changes by all users except the operator, and do not block
//! other users and controllers that work with these objects.
//!
//! By default, these tests send requests as an administrator, and as dry runs.

mod content;
mod marks;
mod others;

use anyhow::bail;
use kube::api::{DynamicObject, Patch, PatchParams, PostParams};
use kube::{Api, Client};
use serde_json::{Value, json};
use slipway_e2e::edge::Edge;
use slipway_e2e::lab::created::{objects_created_for, settled_edge};
use slipway_e2e::lab::{self, Lab, PROMPT, Thing, wait};
use slipway_e2e::wait::Look;

/// The kinds on which marks are reserved.
const KINDS: [&str; 9] = [
    "ContourConfiguration",
    "ExtensionService",
    "Service",
    "Secret",
    "ServiceAccount",
    "Deployment",
    "DaemonSet",
    "RoleBinding",
    "ClusterRoleBinding",
];

/// The kinds of Kubernetes itself that have a status subresource.
const WITH_STATUS: [&str; 3] = ["Service", "Deployment", "DaemonSet"];

/// A label that no policy and no controller depends on.
const MANAGED_BY: &str = "app.kubernetes.io/managed-by";

/// Returns an object of this kind without marks.
fn unmarked(kind: &str, namespace: &str, name: &str) -> Value {
    let metadata = json!({"namespace": namespace, "name": name});
    let role = json!({"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": "view"});
    let workload = json!({
        "selector": {"matchLabels": {"app": "x"}},
        "template": {"metadata": {"labels": {"app": "x"}}, "spec": {"containers": [{"name": "c", "image": "i"}]}},
    });
    let (api_version, content) = match kind {
        "ContourConfiguration" => ("projectcontour.io/v1alpha1", json!({"spec": {}})),
        "ExtensionService" => (
            "projectcontour.io/v1alpha1",
            json!({"spec": {"services": [{"name": "x", "port": 1}]}}),
        ),
        "Service" => ("v1", json!({"spec": {"ports": [{"port": 1}]}})),
        "Secret" => ("v1", json!({"data": {"a": "Yg=="}})),
        "ServiceAccount" => ("v1", json!({})),
        "Deployment" | "DaemonSet" => ("apps/v1", json!({"spec": workload})),
        "RoleBinding" => ("rbac.authorization.k8s.io/v1", json!({"roleRef": role})),
        _ => (
            "rbac.authorization.k8s.io/v1",
            json!({"roleRef": role, "metadata": {"name": format!("{namespace}-{name}")}}),
        ),
    };
    let mut object = json!({"apiVersion": api_version, "kind": kind, "metadata": metadata});
    for (key, value) in content.as_object().into_iter().flatten() {
        object[key] = value.clone();
    }
    object
}

/// A user who sends dry runs to the API server.
struct User<'a> {
    client: &'a Client,
}

impl User<'_> {
    fn api(&self, kind: &str, namespace: &str) -> Api<DynamicObject> {
        lab::api(self.client, kind, namespace)
    }

    async fn try_create(&self, object: &Value) -> kube::Result<DynamicObject> {
        let text = |pointer: &str| object.pointer(pointer).and_then(Value::as_str).unwrap_or_default();
        let parsed = serde_json::from_value(object.clone()).map_err(kube::Error::SerdeError)?;
        let dry_run = PostParams {
            dry_run: true,
            ..PostParams::default()
        };
        let api = self.api(text("/kind"), text("/metadata/namespace"));
        api.create(&dry_run, &parsed).await
    }

    async fn try_patch(&self, thing: &Thing, patch: &Value) -> kube::Result<DynamicObject> {
        let api = self.api(thing.kind, &thing.namespace);
        api.patch(&thing.name, &dry_run_patch(), &Patch::Merge(patch)).await
    }

    async fn try_patch_status(&self, thing: &Thing, patch: &Value) -> kube::Result<DynamicObject> {
        let api = self.api(thing.kind, &thing.namespace);
        api.patch_status(&thing.name, &dry_run_patch(), &Patch::Merge(patch))
            .await
    }
}

fn dry_run_patch() -> PatchParams {
    PatchParams {
        dry_run: true,
        ..PatchParams::default()
    }
}

fn administrator(lab: &Lab) -> User<'_> {
    User { client: &lab.client }
}

/// Returns the message with which the policy refused the request. Returns an error if this policy did not refuse the request.
fn refused<T>(outcome: kube::Result<T>, policy: &str, what: &str) -> anyhow::Result<String> {
    match outcome {
        Ok(_) => bail!("{what}: the request was accepted"),
        Err(kube::Error::Api(status)) if status.code == 403 && status.message.contains(&format!("'{policy}'")) => {
            Ok(status.message.clone())
        }
        Err(error) => bail!("{what}: this error is not from {policy}: {error}"),
    }
}

/// Returns a settled edge, the namespace of its authorization service, and the objects of the edge. The Lease is left out, because
/// Contour writes the Lease.
async fn settled_edge_and_objects(lab: &Lab) -> anyhow::Result<(Edge, String, Vec<Thing>)> {
    let auth = lab.name("auth");
    let edge = settled_edge(lab, &auth).await?;
    let mut objects = objects_created_for(lab, &edge, &auth).await?;
    objects.retain(|thing| thing.kind != "Lease");
    Ok((edge, auth, objects))
}

/// Grants a user a ClusterRole in a namespace, or in the whole cluster if `namespace` is empty. Returns the binding.
async fn grant(lab: &Lab, user: &str, role: &str, namespace: &str) -> anyhow::Result<Thing> {
    let kind = if namespace.is_empty() {
        "ClusterRoleBinding"
    } else {
        "RoleBinding"
    };
    lab.apply(&json!({
        "apiVersion": "rbac.authorization.k8s.io/v1", "kind": kind, "metadata": {"namespace": namespace, "name": user},
        "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": role},
        "subjects": [{"apiGroup": "rbac.authorization.k8s.io", "kind": "User", "name": user}],
    }))
    .await?;
    Ok(Thing::new(kind, namespace, user))
}

/// Retries a request until RBAC permits it, and returns the outcome. A refusal in the outcome is from an admission policy.
async fn once_permitted(
    what: &str,
    request: impl AsyncFn() -> kube::Result<DynamicObject>,
) -> anyhow::Result<kube::Result<DynamicObject>> {
    wait(&format!("the API server has observed the permission: {what}"), PROMPT)
        .until(async || {
            Ok(match request().await {
                Err(kube::Error::Api(status))
                    if status.code == 403 && !status.message.contains("ValidatingAdmissionPolicy") =>
                {
                    Look::NotYet(status.message.clone())
                }
                outcome => Look::Reached(outcome),
            })
        })
        .await
}
