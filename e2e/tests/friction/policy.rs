//! Policies of somebody else's, each for one namespace: they change what is written there, or refuse it.

use std::time::Duration;

use anyhow::Context as _;
use kube::Api;
use kube::api::{ApiResource, DeleteParams, DynamicObject, GroupVersionKind, ListParams, PostParams};
use serde_json::{Value, json};
use slipway_e2e::lab::{Lab, wait};
use slipway_e2e::wait::Look;

/// API servers look once a second whether there are new policies, and may be busy.
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

/// What of a namespace a policy is about: API group and resource.
pub type Resources<'a> = &'a [(&'a str, &'a str)];

/// Both kinds of workloads.
pub const WORKLOADS: Resources<'static> = &[("apps", "deployments"), ("apps", "daemonsets")];

/// Everything.
pub const EVERYTHING: Resources<'static> = &[("*", "*")];

impl Policy {
    /// One that changes what is written: the expression makes a list of JSON patches, while the condition holds.
    pub fn patches(name: &str, namespace: &str, resources: Resources<'_>, condition: &str, patches: &str) -> Self {
        let mutation = json!({"patchType": "JSONPatch", "jsonPatch": {"expression": patches}});
        Self::mutating(name, namespace, resources, condition, &mutation)
    }

    /// One that changes what is written, as server-side apply of what the expression makes would.
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
                "matchConditions": [{"name": "concerns-it", "expression": condition}],
                "mutations": [mutation],
            }),
        }
    }

    /// One that refuses what the expression is false of, with this message.
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

    /// Puts it in force. The probe is an object that is not there, and that the policy concerns.
    pub async fn impose(&self, lab: &Lab, probe: &Value) -> anyhow::Result<()> {
        let before = answer(lab, probe).await?;
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
                .with_context(|| format!("making {} {}", object["kind"], self.name))?;
        }
        self.changes_the_answer(lab, probe, &before, "in force").await
    }

    /// Takes it out of force.
    pub async fn lift(&self, lab: &Lab, probe: &Value) -> anyhow::Result<()> {
        let before = answer(lab, probe).await?;
        api(lab, &format!("{}Binding", self.kind), self.version)
            .delete(&self.name, &DeleteParams::default())
            .await
            .with_context(|| format!("deleting the binding of {}", self.name))?;
        self.changes_the_answer(lab, probe, &before, "out of force").await
    }

    async fn changes_the_answer(&self, lab: &Lab, probe: &Value, before: &Value, what: &str) -> anyhow::Result<()> {
        wait(&format!("policy {} is {what}", self.name), TAKES_EFFECT)
            .until(async || {
                let now = answer(lab, probe).await?;
                Ok(Look::when(now != *before, format!("still {now}")))
            })
            .await
    }
}

/// Takes everything out of force that a case has put in force: what it made could not go, or not be changed, otherwise.
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

/// The label that says whose a policy is: the namespace of the case.
const CASE: &str = "friction.test/case";

/// The labels of what a case puts in force.
pub fn labels(lab: &Lab) -> Value {
    json!({CASE: lab.namespace})
}

/// Objects by which admission is told what to do.
pub fn api(lab: &Lab, kind: &str, version: &str) -> Api<DynamicObject> {
    let group = GroupVersionKind::gvk("admissionregistration.k8s.io", version, kind);
    Api::all_with(lab.client.clone(), &ApiResource::from_gvk(&group))
}

fn rules(resources: Resources<'_>) -> Value {
    let rule = |(group, resource): &(&str, &str)| {
        json!({
            "apiGroups": [group], "apiVersions": ["*"], "resources": [resource], "operations": ["CREATE", "UPDATE"],
            "scope": "Namespaced",
        })
    };
    Value::Array(resources.iter().map(rule).collect())
}

/// What the API server makes of an object, or says of it, without storing it; times and uids, which differ each time, left out.
pub async fn answer(lab: &Lab, object: &Value) -> anyhow::Result<Value> {
    let text = |pointer: &str| object.pointer(pointer).and_then(Value::as_str).unwrap_or_default();
    let tried = lab
        .api(
            KINDS
                .iter()
                .find(|kind| **kind == text("/kind"))
                .context("a probe has a known kind")?,
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
    Ok(match tried {
        Ok(made) => {
            let mut made = serde_json::to_value(made)?;
            let volatile = ["uid", "creationTimestamp", "managedFields"];
            for field in volatile {
                if let Some(metadata) = made["metadata"].as_object_mut() {
                    metadata.remove(field);
                }
            }
            for address in ["clusterIP", "clusterIPs"] {
                if let Some(spec) = made["spec"].as_object_mut() {
                    spec.remove(address);
                }
            }
            made
        }
        Err(kube::Error::Api(status)) => json!(status.message),
        Err(error) => return Err(error).context("trying a probe"),
    })
}

/// The kinds of probes.
const KINDS: [&str; 4] = ["ContourConfiguration", "Deployment", "ExtensionService", "Service"];

/// A Deployment to try a policy with.
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

/// A Service to try a policy with.
pub fn service(namespace: &str, name: &str) -> Value {
    json!({
        "apiVersion": "v1", "kind": "Service", "metadata": {"namespace": namespace, "name": name},
        "spec": {"ports": [{"name": "grpc", "port": 9001}]},
    })
}

/// An ExtensionService to try a policy with.
pub fn extension_service(namespace: &str, name: &str) -> Value {
    json!({
        "apiVersion": "projectcontour.io/v1alpha1", "kind": "ExtensionService",
        "metadata": {"namespace": namespace, "name": name}, "spec": {"services": [{"name": "auth", "port": 9001}]},
    })
}

/// A ContourConfiguration to try a policy with.
pub fn configuration(namespace: &str, name: &str) -> Value {
    json!({
        "apiVersion": "projectcontour.io/v1alpha1", "kind": "ContourConfiguration",
        "metadata": {"namespace": namespace, "name": name},
        "spec": {"globalExtAuth": {"extensionRef": {"namespace": "auth", "name": "auth"}}},
    })
}
