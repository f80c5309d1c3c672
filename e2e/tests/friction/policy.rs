//! Admission policies of other users. Each policy changes or refuses writes in one namespace.

use std::time::Duration;

use anyhow::Context as _;
use kube::Api;
use kube::api::{ApiResource, DeleteParams, DynamicObject, GroupVersionKind, ListParams, PostParams};
use serde_json::{Value, json};
use slipway_e2e::lab::{Lab, wait};
use slipway_e2e::wait::Look;

/// The limit for a policy to take effect. API servers check for new policies once a second, and may be busy.
const TAKES_EFFECT: Duration = Duration::from_secs(30);

/// A policy and its binding to a namespace.
#[derive(Clone, Debug)]
pub struct Policy {
    kind: &'static str,
    version: &'static str,
    name: String,
    namespace: String,
    spec: Value,
}

/// The resources that a policy matches: API group and resource.
pub type Resources<'a> = &'a [(&'a str, &'a str)];

/// The two kinds of workloads.
pub const WORKLOADS: Resources<'static> = &[("apps", "deployments"), ("apps", "daemonsets")];

/// All resources.
pub const EVERYTHING: Resources<'static> = &[("*", "*")];

impl Policy {
    /// Returns a policy that changes writes that meet the condition. The expression returns a list of JSON patches.
    pub fn patches(name: &str, namespace: &str, resources: Resources<'_>, condition: &str, patches: &str) -> Self {
        let mutation = json!({"patchType": "JSONPatch", "jsonPatch": {"expression": patches}});
        Self::mutating(name, namespace, resources, condition, &mutation)
    }

    /// Returns a policy that changes writes like server-side apply. The expression returns the configuration to apply.
    pub fn applies(name: &str, namespace: &str, resources: Resources<'_>, configuration: &str) -> Self {
        let mutation = json!({"patchType": "ApplyConfiguration", "applyConfiguration": {"expression": configuration}});
        Self::mutating(name, namespace, resources, "true", &mutation)
    }

    fn mutating(name: &str, namespace: &str, resources: Resources<'_>, condition: &str, mutation: &Value) -> Self {
        Self {
            kind: "MutatingAdmissionPolicy",
            version: "v1beta1",
            name: format!("{namespace}-{name}"),
            namespace: namespace.to_owned(),
            spec: json!({
                "failurePolicy": "Fail", "reinvocationPolicy": "IfNeeded",
                "matchConstraints": {"resourceRules": rules(resources)},
                "matchConditions": [{"name": "matches", "expression": condition}],
                "mutations": [mutation],
            }),
        }
    }

    /// Returns a policy that refuses a write with this message unless the expression is true.
    pub fn refuses_unless(
        name: &str,
        namespace: &str,
        resources: Resources<'_>,
        expression: &str,
        message: &str,
    ) -> Self {
        Self {
            kind: "ValidatingAdmissionPolicy",
            version: "v1",
            name: format!("{namespace}-{name}"),
            namespace: namespace.to_owned(),
            spec: json!({
                "failurePolicy": "Fail",
                "matchConstraints": {"resourceRules": rules(resources)},
                "validations": [{"expression": expression, "message": message}],
            }),
        }
    }

    /// Creates the policy and its binding, and waits until the policy is in force. The probe is an object that does not exist, and
    /// that the policy matches.
    pub async fn impose(&self, lab: &Lab, probe: &Value) -> anyhow::Result<()> {
        let before = dry_run(lab, probe).await?;
        let policy = json!({
            "apiVersion": format!("admissionregistration.k8s.io/{}", self.version), "kind": self.kind,
            "metadata": {"name": self.name, "labels": labels(lab)}, "spec": self.spec,
        });
        let mut binding = json!({
            "apiVersion": format!("admissionregistration.k8s.io/{}", self.version), "kind": format!("{}Binding", self.kind),
            "metadata": {"name": self.name, "labels": labels(lab)},
            "spec": {
                "policyName": self.name,
                "matchResources": {"namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": self.namespace}}},
            },
        });
        if self.kind == "ValidatingAdmissionPolicy" {
            binding["spec"]["validationActions"] = json!(["Deny"]);
        }
        for object in [&policy, &binding] {
            api(lab, object["kind"].as_str().unwrap_or_default(), self.version)
                .create(&PostParams::default(), &serde_json::from_value(object.clone())?)
                .await
                .with_context(|| format!("creating {} {}", object["kind"], self.name))?;
        }
        self.wait_for_effect(lab, probe, &before, "in force").await
    }

    /// Deletes the binding, and waits until the policy is no longer in force.
    pub async fn lift(&self, lab: &Lab, probe: &Value) -> anyhow::Result<()> {
        let before = dry_run(lab, probe).await?;
        api(lab, &format!("{}Binding", self.kind), self.version)
            .delete(&self.name, &DeleteParams::default())
            .await
            .with_context(|| format!("deleting the binding of {}", self.name))?;
        self.wait_for_effect(lab, probe, &before, "no longer in force").await
    }

    /// Waits until the response to a dry run of the probe changes.
    async fn wait_for_effect(&self, lab: &Lab, probe: &Value, before: &Value, what: &str) -> anyhow::Result<()> {
        wait(&format!("policy {} is {what}", self.name), TAKES_EFFECT)
            .until(async || {
                let now = dry_run(lab, probe).await?;
                Ok(Look::when(now != *before, format!("still {now}")))
            })
            .await
    }
}

/// Deletes all bindings and webhooks of a case. Otherwise they could prevent the deletion of the case's objects.
pub async fn lift_all(lab: &Lab) -> anyhow::Result<()> {
    let kinds = [
        ("MutatingAdmissionPolicyBinding", "v1beta1"),
        ("ValidatingAdmissionPolicyBinding", "v1"),
        ("ValidatingWebhookConfiguration", "v1"),
    ];
    let own = ListParams::default().labels(&format!("{CASE}={}", lab.namespace));
    for (kind, version) in kinds {
        api(lab, kind, version)
            .delete_collection(&DeleteParams::default(), &own)
            .await
            .with_context(|| format!("deleting each {kind} of {}", lab.namespace))?;
    }
    Ok(())
}

/// The label of a policy with the namespace of its case.
const CASE: &str = "friction.test/case";

/// Returns the labels of the policies and webhooks of a case.
pub fn labels(lab: &Lab) -> Value {
    json!({CASE: lab.namespace})
}

/// Returns the API of a kind in group admissionregistration.k8s.io.
pub fn api(lab: &Lab, kind: &str, version: &str) -> Api<DynamicObject> {
    let group = GroupVersionKind::gvk("admissionregistration.k8s.io", version, kind);
    Api::all_with(lab.client.clone(), &ApiResource::from_gvk(&group))
}

/// Returns the rules that match creations and updates of these resources.
fn rules(resources: Resources<'_>) -> Value {
    let rule = |(group, resource): &(&str, &str)| {
        json!({
            "apiGroups": [group], "apiVersions": ["*"], "resources": [resource], "operations": ["CREATE", "UPDATE"],
            "scope": "Namespaced",
        })
    };
    Value::Array(resources.iter().map(rule).collect())
}

/// Returns the response to the creation of an object in a dry run: the object, or the error message. The object is without times,
/// UIDs and addresses, which differ each time.
pub async fn dry_run(lab: &Lab, object: &Value) -> anyhow::Result<Value> {
    let text = |pointer: &str| object.pointer(pointer).and_then(Value::as_str).unwrap_or_default();
    let outcome = lab
        .api(
            KINDS
                .iter()
                .find(|kind| **kind == text("/kind"))
                .context("the probe has an unknown kind")?,
            text("/metadata/namespace"),
        )
        .create(
            &PostParams {
                dry_run: true,
                ..PostParams::default()
            },
            &serde_json::from_value(object.clone())?,
        )
        .await;
    Ok(match outcome {
        Ok(created) => {
            let mut created = serde_json::to_value(created)?;
            let volatile = ["uid", "creationTimestamp", "managedFields"];
            for field in volatile {
                if let Some(metadata) = created["metadata"].as_object_mut() {
                    metadata.remove(field);
                }
            }
            for address in ["clusterIP", "clusterIPs"] {
                if let Some(spec) = created["spec"].as_object_mut() {
                    spec.remove(address);
                }
            }
            created
        }
        Err(kube::Error::Api(status)) => json!(status.message),
        Err(error) => return Err(error).context("creating a probe in a dry run"),
    })
}

/// The kinds of probes.
const KINDS: [&str; 4] = ["ContourConfiguration", "Deployment", "ExtensionService", "Service"];

/// Returns a Deployment as a probe for a policy.
pub fn deployment(namespace: &str, name: &str) -> Value {
    let labels = json!({"app": "probe"});
    json!({
        "apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"namespace": namespace, "name": name},
        "spec": {"selector": {"matchLabels": labels}, "template": {
            "metadata": {"labels": labels},
            "spec": {
                "affinity": {"podAntiAffinity": {}},
                "containers": [{"name": "contour", "image": "probe.test/probe:1", "command": ["probe"], "args": ["probe"]}],
            },
        }},
    })
}

/// Returns a Service as a probe for a policy.
pub fn service(namespace: &str, name: &str) -> Value {
    json!({
        "apiVersion": "v1", "kind": "Service", "metadata": {"namespace": namespace, "name": name},
        "spec": {"ports": [{"name": "grpc", "port": 9001}]},
    })
}

/// Returns an ExtensionService as a probe for a policy.
pub fn extension_service(namespace: &str, name: &str) -> Value {
    json!({
        "apiVersion": "projectcontour.io/v1alpha1", "kind": "ExtensionService",
        "metadata": {"namespace": namespace, "name": name}, "spec": {"services": [{"name": "auth", "port": 9001}]},
    })
}

/// Returns a ContourConfiguration as a probe for a policy.
pub fn configuration(namespace: &str, name: &str) -> Value {
    json!({
        "apiVersion": "projectcontour.io/v1alpha1", "kind": "ContourConfiguration",
        "metadata": {"namespace": namespace, "name": name},
        "spec": {"globalExtAuth": {"extensionRef": {"namespace": "auth", "name": "auth"}}},
    })
}
