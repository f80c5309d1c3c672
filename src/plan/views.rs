//! Typed views of the fields of Kubernetes' own objects that the core reads. A test catches a misspelt field in this file, and a misspelt
//! field elsewhere does not compile. Fields that are absent or of another form get the default.

use std::collections::BTreeMap;

use jiff::Timestamp;
use serde::Deserialize;

use super::object::{Kind, Object};

/// A view of the spec of a Deployment or a ReplicaSet.
#[derive(Debug, Default, Deserialize)]
struct ScaleSpec {
    replicas: Option<i64>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Templated<'a> {
    #[serde(borrow)]
    template: Template<'a>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Template<'a> {
    #[serde(borrow)]
    metadata: TemplateMetadata<'a>,
}

/// A view of the metadata of the pod template of a Deployment or a ReplicaSet.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub struct TemplateMetadata<'a> {
    /// The labels of the template's pods.
    #[serde(borrow)]
    pub labels: BTreeMap<&'a str, &'a str>,
    /// The annotations of the template's pods.
    #[serde(borrow)]
    pub annotations: BTreeMap<&'a str, &'a str>,
}

/// A view of the status of a Deployment or a ReplicaSet (apps/v1).
#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct ReplicasStatus {
    /// The number of pods of any template.
    pub replicas: i64,
    /// The number of pods of the current template.
    pub updated_replicas: i64,
    /// The number of ready pods.
    pub ready_replicas: i64,
    /// The number of pods that have been ready for `minReadySeconds`.
    pub available_replicas: i64,
    conditions: Vec<Condition>,
}

/// A view of the status of a DaemonSet (apps/v1).
#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct DaemonSetStatus {
    /// The number of nodes that should run a pod.
    pub desired_number_scheduled: i64,
    /// The number of these nodes that have a pod of any template.
    pub current_number_scheduled: i64,
    /// The number of these nodes that have a pod of the current template.
    pub updated_number_scheduled: i64,
    /// The number of these nodes with a ready pod.
    pub number_ready: i64,
    /// The number of these nodes with a pod that has been ready for `minReadySeconds`.
    pub number_available: i64,
}

/// A condition of a Deployment.
#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Condition {
    /// The type of the condition.
    #[serde(rename = "type")]
    type_: String,
    /// The reason of the condition.
    pub reason: String,
    /// The message of the condition.
    pub message: String,
    /// The time of the last change of the status.
    pub last_transition_time: Option<Timestamp>,
    /// The time of the last change of the status or the reason.
    pub last_update_time: Option<Timestamp>,
}

/// A view of the spec of a Service.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub struct ServiceSpec {
    /// The type of the Service, for example `ClusterIP`.
    #[serde(rename = "type")]
    pub type_: String,
    /// The ports of the Service.
    pub ports: Vec<ServicePort>,
}

/// A port of a Service. The watch keeps only the number of the ports of the users' Services (`controller/decode.rs`).
#[derive(Debug, Deserialize)]
#[serde(untagged)]
pub enum ServicePort {
    /// The number of the port.
    Number(i64),
    /// The port in Kubernetes' own form.
    Whole {
        /// The number of the port.
        #[serde(default)]
        port: i64,
    },
}

impl ServicePort {
    /// Returns the number of the port.
    pub fn number(&self) -> i64 {
        match self {
            Self::Number(port) | Self::Whole { port } => *port,
        }
    }
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct Observation {
    observed_generation: Option<i64>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct PodStatus {
    phase: String,
}

impl ReplicasStatus {
    /// Returns the view of a Deployment or a ReplicaSet.
    pub fn of(object: &Object) -> Self {
        debug_assert!(matches!(object.kind, Kind::Deployment | Kind::ReplicaSet));
        view(object, "status")
    }

    /// Returns the condition of this type.
    pub fn condition(&self, type_: &str) -> Option<&Condition> {
        self.conditions.iter().find(|condition| condition.type_ == type_)
    }
}

impl<'a> TemplateMetadata<'a> {
    /// Returns the view of the pod template of a Deployment or a ReplicaSet.
    pub fn of(object: &'a Object) -> Self {
        debug_assert!(matches!(object.kind, Kind::Deployment | Kind::ReplicaSet));
        view::<Templated>(object, "spec").template.metadata
    }
}

impl DaemonSetStatus {
    /// Returns the view of a DaemonSet.
    pub fn of(object: &Object) -> Self {
        debug_assert_eq!(object.kind, Kind::DaemonSet);
        view(object, "status")
    }
}

impl ServiceSpec {
    /// Returns the view of a Service.
    pub fn of(object: &Object) -> Self {
        debug_assert_eq!(object.kind, Kind::Service);
        view(object, "spec")
    }
}

/// Returns the desired number of pods of a Deployment or a ReplicaSet, if its spec sets the number.
pub fn wanted_replicas(object: &Object) -> Option<i64> {
    view::<ScaleSpec>(object, "spec").replicas
}

/// Reports whether the object's controller has observed the current generation.
pub fn is_observed(object: &Object) -> bool {
    let observed = view::<Observation>(object, "status").observed_generation;
    observed.is_some() && observed >= object.metadata.generation
}

/// Returns the phase of a pod, for example `Running`.
pub fn pod_phase(pod: &Object) -> String {
    debug_assert_eq!(pod.kind, Kind::Pod);
    view::<PodStatus>(pod, "status").phase
}

/// Returns a top-level field as this type.
fn view<'a, T: Deserialize<'a> + Default>(object: &'a Object, field: &str) -> T {
    let value = object.content.get(field);
    value.and_then(|value| T::deserialize(value).ok()).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use k8s_openapi::api::apps::v1 as apps;
    use k8s_openapi::api::core::v1 as core;
    use serde::de::DeserializeOwned;
    use serde_json::{Value, json};

    use super::*;

    /// Parses the fields as Kubernetes' own type and returns the result as JSON.
    fn made<T: serde::Serialize + DeserializeOwned>(fields: Value) -> Value {
        let made: T = serde_json::from_value(fields).expect("of that form");
        serde_json::to_value(made).expect("JSON")
    }

    fn object(kind: Kind, field: &str, value: &Value) -> Object {
        let json = json!({"metadata": {"name": "a", "generation": 3}, field: value});
        Object::from_json(kind, json).expect("an object")
    }

    /// Kubernetes' own types drop unknown fields, so each field of the views must have the same name there.
    #[test]
    fn field_names_match_those_of_kubernetes_own_types() {
        let deployment = made::<apps::DeploymentStatus>(json!({
            "observedGeneration": 3, "replicas": 1, "updatedReplicas": 2, "readyReplicas": 3, "availableReplicas": 4,
            "conditions": [{
                "type": "Available", "status": "True", "reason": "Why", "message": "words",
                "lastTransitionTime": "2026-01-01T00:00:00Z", "lastUpdateTime": "2026-01-01T00:00:01Z",
            }],
        }));
        let deployment = object(Kind::Deployment, "status", &deployment);
        let status = ReplicasStatus::of(&deployment);
        let numbers = [
            status.replicas,
            status.updated_replicas,
            status.ready_replicas,
            status.available_replicas,
        ];
        assert_eq!(numbers, [1, 2, 3, 4]);
        let available = status.condition("Available").expect("the condition exists");
        assert_eq!(
            (available.reason.as_str(), available.message.as_str()),
            ("Why", "words")
        );
        assert_eq!(available.last_transition_time, "2026-01-01T00:00:00Z".parse().ok());
        assert_eq!(available.last_update_time, "2026-01-01T00:00:01Z".parse().ok());
        assert!(is_observed(&deployment));
        let daemon_set = made::<apps::DaemonSetStatus>(json!({
            "desiredNumberScheduled": 1, "currentNumberScheduled": 2, "updatedNumberScheduled": 3, "numberReady": 4, "numberAvailable": 5,
            "numberMisscheduled": 0, "observedGeneration": 2,
        }));
        let daemon_set = object(Kind::DaemonSet, "status", &daemon_set);
        let status = DaemonSetStatus::of(&daemon_set);
        let numbers = [
            status.desired_number_scheduled,
            status.current_number_scheduled,
            status.updated_number_scheduled,
            status.number_ready,
            status.number_available,
        ];
        assert_eq!(numbers, [1, 2, 3, 4, 5]);
        assert!(!is_observed(&daemon_set), "an older generation");
        let spec = made::<apps::ReplicaSetSpec>(json!({"replicas": 7, "selector": {}}));
        assert_eq!(wanted_replicas(&object(Kind::ReplicaSet, "spec", &spec)), Some(7));
        let metadata = json!({"labels": {"a": "b"}, "annotations": {"c": "d"}});
        let spec = made::<apps::ReplicaSetSpec>(json!({"selector": {}, "template": {"metadata": metadata}}));
        let set = object(Kind::ReplicaSet, "spec", &spec);
        let template = TemplateMetadata::of(&set);
        assert_eq!((template.labels["a"], template.annotations["c"]), ("b", "d"));
        let pod = made::<core::PodStatus>(json!({"phase": "Running"}));
        assert_eq!(pod_phase(&object(Kind::Pod, "status", &pod)), "Running");
        let spec = made::<core::ServiceSpec>(json!({"type": "ExternalName", "ports": [{"port": 80}]}));
        let service = object(Kind::Service, "spec", &spec);
        let spec = ServiceSpec::of(&service);
        assert_eq!((spec.type_.as_str(), spec.ports[0].number()), ("ExternalName", 80));
    }
}
