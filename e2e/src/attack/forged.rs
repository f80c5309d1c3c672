//! The victim of an attack, and the objects that an attacker can forge from the known facts. The names of Slipway's objects contain hashes
//! that anyone can compute.

use anyhow::Context as _;
use serde_json::{Map, Value, json};
use slipway::plan::{hash, hash_json};

use crate::edge::{COMPONENT, Component, OWNER_NAME, OWNER_NAMESPACE};
use crate::lab::Thing;
use crate::lab::created::FINALIZER;

/// The annotation with the persisted state of a stand-in.
pub const PERSISTED_STATE: &str = "contour.slipway.dev/persisted-state";

/// The annotation with the inputs that a container reads at its start.
pub const STARTUP_INPUTS: &str = "contour.slipway.dev/startup-inputs";

/// The content of forged Secrets.
pub const FORGED_DATA: &str = "Zm9yZ2Vk";

/// A ContourDeployment `edge`, with the facts that an attacker may know.
#[derive(Clone, Debug, Default)]
pub struct Victim {
    /// The ContourDeployment's namespace.
    pub home: String,
    /// The namespace of its authorization service.
    pub auth: String,
    /// An unrelated namespace.
    pub alice: String,
    /// A namespace that does not exist and that no request may mention.
    pub elsewhere: String,
    /// The ContourDeployment's uid.
    pub uid: String,
    /// The uid of the user's ExtensionService.
    pub service: String,
    /// The ContourConfiguration in use.
    pub configuration: Value,
    /// The stand-in.
    pub stand_in: Value,
    /// Contour's Deployment.
    pub deployment: Value,
    /// A pod of Contour's Deployment.
    pub pod: Value,
}

/// A forged ContourConfiguration.
#[derive(Clone, Debug)]
pub struct Forged {
    /// The name with the hash of its content.
    pub name: String,
    /// The spec.
    pub spec: Value,
    /// The uid of the ContourConfiguration that it claims to replace.
    pub in_place_of: Option<String>,
}

impl Victim {
    /// Returns the labels of Slipway's objects, with both owner labels.
    pub fn labels(&self) -> Value {
        json!({OWNER_NAME: "edge", OWNER_NAMESPACE: self.home, "app.kubernetes.io/managed-by": "slipway", "app.kubernetes.io/part-of": "contour"})
    }

    /// Returns the labels of Contour's pods.
    pub fn contour_labels(&self) -> Value {
        let mut labels = self.labels();
        labels[COMPONENT] = json!(Component::Contour.label());
        labels["app.kubernetes.io/name"] = json!("contour");
        labels["contour.slipway.dev/template"] = json!("forged");
        labels
    }

    /// Returns an object with both owner labels.
    pub fn marked(&self, kind: &'static str, namespace: &str, name: &str) -> Value {
        let mut object = object(kind, namespace, name);
        object["metadata"]["labels"] = self.labels();
        object
    }

    /// Returns the name of the stand-in for the authorization service with this timeout and this salt.
    pub fn stand_in_name(&self, response: Option<&str>, salt: u32) -> String {
        let response = response.map_or_else(|| "-".to_owned(), |value| format!("={value}"));
        let parts = [&self.home, "edge", "ext-auth", &response, "-", &salt.to_string()];
        format!("edge-ext-auth-{}", hash(parts))
    }

    /// Returns the name of the ContourConfiguration with this spec.
    pub fn configuration_name(&self, spec: &Value, in_place_of: Option<&str>) -> String {
        let spec = hash_json(spec);
        let parts = [self.home.as_str(), "edge", &spec];
        format!("edge-{}", hash(parts.into_iter().chain(in_place_of)))
    }

    /// Returns a ContourConfiguration that disables all checks. Its spec consists of the settings in use, and its name has the matching
    /// hash. The name sorts before the name of the real ContourConfiguration.
    pub fn unchecked(&self) -> Forged {
        let mut spec = self.configuration["spec"].clone();
        let real = self.configuration["metadata"]["name"].as_str().unwrap_or_default();
        let (name, spec) = (0..10_000)
            .map(|number| {
                spec["globalExtAuth"]["authPolicy"] = json!({"disabled": true, "context": {"n": number.to_string()}});
                (self.configuration_name(&spec, None), spec.clone())
            })
            .find(|(name, _)| name.as_str() < real)
            .expect("half of all names sort before another one");
        Forged {
            name,
            spec,
            in_place_of: None,
        }
    }

    /// Returns the real ContourConfiguration as the successor of one with this uid whose deletion is blocked.
    pub fn succeeding(&self, uid: &str) -> Forged {
        let spec = self.configuration["spec"].clone();
        Forged {
            name: self.configuration_name(&spec, Some(uid)),
            spec,
            in_place_of: Some(uid.to_owned()),
        }
    }

    /// Returns a forged stand-in. Its name depends on `salt` and on no facts.
    pub fn forged_stand_in(&self, namespace: &str, salt: u32, memory: &Value) -> Value {
        let mut object = self.marked("ExtensionService", namespace, &self.stand_in_name(None, salt));
        object["metadata"]["labels"]["contour.slipway.dev/role"] = json!("ext-auth");
        object["metadata"]["finalizers"] = json!([FINALIZER]);
        object["metadata"]["annotations"] = json!({PERSISTED_STATE: memory.to_string()});
        object["spec"] = points_at("evil");
        object
    }

    /// Returns the reference to the stand-in.
    pub fn stand_in(&self) -> Thing {
        let [namespace, name] =
            ["namespace", "name"].map(|key| self.stand_in["metadata"][key].as_str().unwrap_or_default());
        Thing::new("ExtensionService", namespace, name)
    }

    /// Returns the reference to the blackhole.
    pub fn blackhole(&self) -> Thing {
        Thing {
            kind: "Service",
            ..self.stand_in()
        }
    }

    /// Returns the inputs that a container of the real Contour captures.
    pub fn captured(&self) -> Value {
        let annotations = &self.deployment["spec"]["template"]["metadata"]["annotations"];
        let text = annotations[STARTUP_INPUTS].as_str();
        text.and_then(|text| serde_json::from_str(text).ok())
            .unwrap_or_default()
    }
}

impl Forged {
    /// Returns the annotation of a container that claims to have captured this configuration.
    pub fn captured(&self, stand_ins: &[String]) -> Value {
        json!({
            "configuration": self.name, "uid": "forged", "generation": i64::MAX, "inPlaceOf": self.in_place_of, "spec": self.spec,
            "standIns": stand_ins,
        })
    }

    /// Returns the object. The object claims a completed rollout in the far future.
    pub fn object(&self, victim: &Victim, namespace: &str) -> Value {
        let mut object = victim.marked("ContourConfiguration", namespace, &self.name);
        object["metadata"]["annotations"] = json!({"contour.slipway.dev/rolled-out": "2099-01-01T00:00:00Z"});
        object["spec"] = self.spec.clone();
        object
    }
}

/// The kinds of the forged objects, with their versions.
const KINDS: [(&str, &str); 16] = [
    ("ClusterRole", "rbac.authorization.k8s.io/v1"),
    ("ClusterRoleBinding", "rbac.authorization.k8s.io/v1"),
    ("ContourConfiguration", "projectcontour.io/v1alpha1"),
    ("DaemonSet", "apps/v1"),
    ("Deployment", "apps/v1"),
    ("EndpointSlice", "discovery.k8s.io/v1"),
    ("ExtensionService", "projectcontour.io/v1alpha1"),
    ("Lease", "coordination.k8s.io/v1"),
    ("Namespace", "v1"),
    ("Pod", "v1"),
    ("ReplicaSet", "apps/v1"),
    ("ResourceQuota", "v1"),
    ("RoleBinding", "rbac.authorization.k8s.io/v1"),
    ("Secret", "v1"),
    ("Service", "v1"),
    ("ServiceAccount", "v1"),
];

/// Returns an object with only a name and a namespace.
pub fn object(kind: &'static str, namespace: &str, name: &str) -> Value {
    let known = KINDS.iter().find(|(known, _)| *known == kind);
    let (_, version) = known.expect("a kind of KINDS");
    let mut metadata = Map::from_iter([("name".to_owned(), json!(name))]);
    if !namespace.is_empty() {
        metadata.insert("namespace".to_owned(), json!(namespace));
    }
    json!({"apiVersion": version, "kind": kind, "metadata": metadata})
}

/// Returns the reference to an object.
pub fn thing(object: &Value) -> anyhow::Result<Thing> {
    let known = KINDS.iter().find(|(known, _)| object["kind"] == *known);
    let (kind, _) = known.with_context(|| format!("not a kind of the forged objects: {object}"))?;
    let text = |key: &str| object["metadata"][key].as_str().unwrap_or_default();
    Ok(Thing::new(kind, text("namespace"), text("name")))
}

/// Returns the spec of an ExtensionService that references this Service.
pub fn points_at(service: &str) -> Value {
    json!({"protocol": "h2c", "services": [{"name": service, "port": 9001}]})
}

/// Returns the spec of a pod.
pub fn pod_spec() -> Value {
    json!({
        "terminationGracePeriodSeconds": 0,
        "containers": [{"name": "contour", "image": "example.com/nothing:1"}],
    })
}

/// Returns the spec of a pod that never runs.
pub fn pending_pod_spec() -> Value {
    let mut spec = pod_spec();
    spec["schedulingGates"] = json!([{"name": "example.com/never"}]);
    spec
}

/// Returns the spec of a Deployment or ReplicaSet of pods that never run.
pub fn pods_spec(labels: &Value, annotations: &Value, replicas: u32) -> Value {
    json!({
        "replicas": replicas, "selector": {"matchLabels": labels},
        "template": {"metadata": {"labels": labels, "annotations": annotations}, "spec": pending_pod_spec()},
    })
}
