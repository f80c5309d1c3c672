//! The fields of Kubernetes' own objects that the core reads, in types: a field that is misspelt here is missed by a test, and one that is
//! misspelt elsewhere does not compile. What is absent, or not of this form, is the default.

use std::collections::BTreeMap;

use jiff::Timestamp;
use serde::Deserialize;

use super::object::{Kind, Object};

/// Of the spec of a Deployment or a ReplicaSet.
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

/// Of the metadata of the pod template of a Deployment or a ReplicaSet.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub struct TemplateMetadata<'a> {
    /// Labels that its pods get.
    #[serde(borrow)]
    pub labels: BTreeMap<&'a str, &'a str>,
    /// Annotations that its pods get.
    #[serde(borrow)]
    pub annotations: BTreeMap<&'a str, &'a str>,
}

/// Of the status of a Deployment or a ReplicaSet (apps/v1).
#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct ReplicasStatus {
    /// Pods, of whatever template.
    pub replicas: i64,
    /// Pods of the present template.
    pub updated_replicas: i64,
    /// Pods that are ready.
    pub ready_replicas: i64,
    /// Pods that have been ready for `minReadySeconds`.
    pub available_replicas: i64,
    conditions: Vec<Condition>,
}

/// Of the status of a DaemonSet (apps/v1).
#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct DaemonSetStatus {
    /// Nodes that shall run a pod.
    pub desired_number_scheduled: i64,
    /// Of these, nodes that have a pod, of whatever template.
    pub current_number_scheduled: i64,
    /// Of these, nodes that have a pod of the present template.
    pub updated_number_scheduled: i64,
    /// Of these, nodes on which a pod is ready.
    pub number_ready: i64,
    /// Of these, nodes on which a pod has been ready for `minReadySeconds`.
    pub number_available: i64,
}

/// A condition of a Deployment.
#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Condition {
    /// Its type.
    #[serde(rename = "type")]
    type_: String,
    /// Its reason.
    pub reason: String,
    /// Its message.
    pub message: String,
    /// When its status changed last.
    pub last_transition_time: Option<Timestamp>,
    /// When its status or its reason changed last.
    pub last_update_time: Option<Timestamp>,
}

/// Of the spec of a Service.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub struct ServiceSpec {
    /// `ClusterIP` and others.
    #[serde(rename = "type")]
    pub type_: String,
    /// Its ports.
    pub ports: Vec<ServicePort>,
}

/// A port of a Service. Of the users' Services the watch keeps the number alone (`controller/decode.rs`).
#[derive(Debug, Deserialize)]
#[serde(untagged)]
pub enum ServicePort {
    /// Its number.
    Number(i64),
    /// As Kubernetes has it.
    Whole {
        /// Its number.
        #[serde(default)]
        port: i64,
    },
}

impl ServicePort {
    /// Its number.
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
    /// Of a Deployment's, or a ReplicaSet's.
    pub fn of(object: &Object) -> Self {
        debug_assert!(matches!(object.kind, Kind::Deployment | Kind::ReplicaSet));
        view(object, "status")
    }

    /// A condition of this type.
    pub fn condition(&self, type_: &str) -> Option<&Condition> {
        self.conditions.iter().find(|condition| condition.type_ == type_)
    }
}

impl<'a> TemplateMetadata<'a> {
    /// Of a Deployment's pod template, or a ReplicaSet's.
    pub fn of(object: &'a Object) -> Self {
        debug_assert!(matches!(object.kind, Kind::Deployment | Kind::ReplicaSet));
        view::<Templated>(object, "spec").template.metadata
    }
}

impl DaemonSetStatus {
    /// Of a DaemonSet's.
    pub fn of(object: &Object) -> Self {
        debug_assert_eq!(object.kind, Kind::DaemonSet);
        view(object, "status")
    }
}

impl ServiceSpec {
    /// Of a Service's.
    pub fn of(object: &Object) -> Self {
        debug_assert_eq!(object.kind, Kind::Service);
        view(object, "spec")
    }
}

/// The number of pods that a Deployment or a ReplicaSet shall have, if it says it.
pub fn wanted_replicas(object: &Object) -> Option<i64> {
    view::<ScaleSpec>(object, "spec").replicas
}

/// Whether an object's controller has seen its present generation.
pub fn is_observed(object: &Object) -> bool {
    let observed = view::<Observation>(object, "status").observed_generation;
    observed.is_some() && observed >= object.metadata.generation
}

/// The phase of a pod, `Running` and others.
pub fn pod_phase(pod: &Object) -> String {
    debug_assert_eq!(pod.kind, Kind::Pod);
    view::<PodStatus>(pod, "status").phase
}

/// A top-level field as this type.
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

    /// What Kubernetes' own type makes of this.
    fn made<T: serde::Serialize + DeserializeOwned>(fields: Value) -> Value {
        let made: T = serde_json::from_value(fields).expect("of that form");
        serde_json::to_value(made).expect("JSON")
    }

    fn object(kind: Kind, field: &str, value: &Value) -> Object {
        let json = json!({"metadata": {"name": "a", "generation": 3}, field: value});
        Object::from_json(kind, json).expect("an object")
    }

    /// Kubernetes' own types drop what they do not know: every field is called as it is there.
    #[test]
    fn the_fields_are_called_as_they_are_in_kubernetes_own_types() {
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
        let available = status.condition("Available").expect("it is there");
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
