//! The end of an order: all objects on the API server, without the parts that must differ. All masks of the proof are in this module.
//!
//! The masks remove these parts from all objects:
//! - uid, resourceVersion, generation, times, and managed fields (which manager wrote which field, and when);
//! - the status of all kinds except ContourDeployments and ExtensionServices. Their statuses lose times, and their
//!   `observedGeneration` is only compared with the generation.
//!
//! The masks remove these parts from some objects:
//! - cluster addresses, the content of certificates, and the number of Contour's rollouts;
//! - the hash of the last written object, which covers the owner's uid;
//! - the uid and generation of the ContourConfiguration that a pod template refers to, and the template's hash;
//! - the weights of a stand-in with which Slipway nudged Contour;
//! - from the persisted state: that nudge, the salt, the number of moves, and the uid and generation of the proven user's object.
//!
//! Pods are identified by workload, not by name. A ReplicaSet without replicas is history and is ignored. After an absence of a piece
//! that a stand-in depends on ([`Names::Succeeded`]), the hashes in names may differ, too.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;

use serde_json::{Value, json};

use crate::differences;
use crate::edge::COMPONENT;
use crate::lab::RECONCILE_TRIGGER;
use crate::lab::created::APPLIED;
use crate::orders::inventory::Objects;

/// The annotation with the time when a Contour was completely rolled out with a configuration.
const ROLLED_OUT: &str = "contour.slipway.dev/rolled-out";
/// The annotation with the persisted state of a stand-in.
const PERSISTED_STATE: &str = "contour.slipway.dev/persisted-state";
/// The annotation of Contour's pod template with the inputs that a container reads at its start.
const STARTUP_INPUTS: &str = "contour.slipway.dev/startup-inputs";
/// The label with the hash of Contour's pod template.
const TEMPLATE: &str = "contour.slipway.dev/template";

/// The replacement of an `observedGeneration` that is not the present generation.
const OLDER: &str = "an older one";

/// The comparison of names.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Names {
    /// Names must be equal: they depend only on facts.
    Exact,
    /// A name may depend on a salt: hashes are only compared with each other.
    Succeeded,
}

/// The final state of an order.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FinalState(Objects);

impl FinalState {
    /// Returns all objects except those of the beginning, masked.
    pub fn of(objects: Objects, beginning: &BTreeSet<String>) -> Self {
        let new = objects.into_iter().filter(|(key, _)| !beginning.contains(key));
        let mut end = Objects::new();
        for (key, object) in new {
            let Some((mut key, object)) = shown(key, object) else {
                continue;
            };
            // Objects that differ only in masked parts are counted.
            while end.contains_key(&key) {
                key.push_str(" and another");
            }
            end.insert(key, object);
        }
        Self(end)
    }

    /// Returns the number of objects.
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Reports whether no objects exist.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Returns the objects with work in progress: objects that are being deleted, and objects with a status of an older generation.
    pub fn unfinished(&self) -> Vec<&str> {
        let is_unfinished = |object: &Value| {
            object["isTerminating"] == true || object["metadata"]["isTerminating"] == true || is_behind(object)
        };
        let unfinished = self.0.iter().filter(|(_, object)| is_unfinished(object));
        unfinished.map(|(key, _)| key.as_str()).collect()
    }

    /// Returns the differences from the expected state; empty if the states are equal.
    pub fn differences(&self, wanted: &Self, names: Names) -> Vec<String> {
        let (found, wanted) = match names {
            Names::Exact => (self.0.clone(), wanted.0.clone()),
            Names::Succeeded => (without_hashes(&self.0), without_hashes(&wanted.0)),
        };
        differences::of_objects(&wanted, &found)
    }
}

/// Returns an object and its key, both without the parts that must differ. Returns None for an object that is ignored.
fn shown(key: String, mut object: Value) -> Option<(String, Value)> {
    let (kind, _) = key.split_once(' ').unwrap_or((&key, ""));
    let kind = kind.to_owned();
    let key = match kind.as_str() {
        "Pod" => {
            let pod = shown_pod(&object);
            return Some((by_workload(&kind, &object), pod));
        }
        "ReplicaSet.apps" if object["spec"]["replicas"] == 0 => return None,
        "ReplicaSet.apps" => by_workload(&kind, &object),
        // The controller generates random names.
        "EndpointSlice.discovery.k8s.io" => {
            let service = &object["metadata"]["labels"]["kubernetes.io/service-name"];
            format!("{kind} of {}/{service}", object["metadata"]["namespace"])
        }
        _ => key,
    };
    let generation = object["metadata"]["generation"].take();
    mask_metadata(&mut object["metadata"]);
    mask_template(&mut object);
    mask_status(&kind, &mut object, &generation);
    match kind.as_str() {
        "ExtensionService.projectcontour.io" if object["metadata"]["annotations"].get(PERSISTED_STATE).is_some() => {
            for service in object["spec"]["services"].as_array_mut().into_iter().flatten() {
                remove(Some(service), "weight");
            }
        }
        "Secret" => blank_values(&mut object["data"]),
        "ConfigMap" if object["metadata"]["name"] == "kube-root-ca.crt" => blank_values(&mut object["data"]),
        "Service" if object["spec"]["clusterIP"] != "None" => {
            object["spec"]["clusterIP"] = json!("an address");
            object["spec"]["clusterIPs"] = json!(["an address"]);
        }
        "ReplicaSet.apps" => {
            object["metadata"]["name"] = Value::Null;
            for path in [
                "/metadata/labels",
                "/spec/selector/matchLabels",
                "/spec/template/metadata/labels",
            ] {
                remove(object.pointer_mut(path), "pod-template-hash");
            }
        }
        "EndpointSlice.discovery.k8s.io" => {
            object["metadata"]["name"] = Value::Null;
            object["metadata"]["generateName"] = Value::Null;
        }
        _ => {}
    }
    Some((key, object))
}

/// Returns a key with the workload instead of the name, for example `Pod of contour in orders`.
fn by_workload(kind: &str, object: &Value) -> String {
    let metadata = &object["metadata"];
    let component = metadata["labels"][COMPONENT].as_str().unwrap_or("no component");
    format!(
        "{kind} of {component} in {}",
        metadata["namespace"].as_str().unwrap_or_default()
    )
}

fn shown_pod(object: &Value) -> Value {
    let metadata = &object["metadata"];
    let mut its_labels = metadata["labels"].clone();
    remove(Some(&mut its_labels), "pod-template-hash");
    remove(Some(&mut its_labels), TEMPLATE);
    let is_terminating = !metadata["deletionTimestamp"].is_null();
    json!({"labels": its_labels, "phase": object["status"]["phase"], "isTerminating": is_terminating})
}

fn mask_metadata(metadata: &mut Value) {
    let is_terminating = !metadata["deletionTimestamp"].is_null();
    for field in [
        "uid",
        "resourceVersion",
        "generation",
        "creationTimestamp",
        "deletionTimestamp",
        "deletionGracePeriodSeconds",
        "managedFields",
    ] {
        remove(Some(metadata), field);
    }
    metadata["isTerminating"] = is_terminating.into();
    for owner in metadata["ownerReferences"].as_array_mut().into_iter().flatten() {
        owner["uid"] = Value::Null;
    }
    let Some(its_annotations) = metadata.get_mut("annotations").filter(|them| them.is_object()) else {
        return;
    };
    for annotation in [
        APPLIED,
        RECONCILE_TRIGGER,
        "deployment.kubernetes.io/revision",
        "deployment.kubernetes.io/revision-history",
        "endpoints.kubernetes.io/last-change-trigger-time",
    ] {
        remove(Some(&mut *its_annotations), annotation);
    }
    if let Some(time) = its_annotations.get_mut(ROLLED_OUT) {
        *time = json!("a time");
    }
    if let Some(memory) = its_annotations.get_mut(PERSISTED_STATE) {
        *memory = without_history(memory);
    }
    if its_annotations.as_object().is_some_and(serde_json::Map::is_empty) {
        remove(Some(metadata), "annotations");
    }
}

/// Removes the uid and generation of the ContourConfiguration from a pod template, and the template's hash, which covers both.
fn mask_template(object: &mut Value) {
    for path in ["/metadata/labels", "/spec/template/metadata/labels"] {
        remove(object.pointer_mut(path), TEMPLATE);
    }
    if let Some(annotations) = object.pointer_mut("/spec/template/metadata/annotations")
        && let Some(mut captured) = annotations[STARTUP_INPUTS]
            .as_str()
            .and_then(|text| serde_json::from_str(text).ok())
    {
        remove(Some(&mut captured), "uid");
        remove(Some(&mut captured), "generation");
        annotations[STARTUP_INPUTS] = captured;
    }
}

/// Returns the persisted state of a stand-in without its history.
fn without_history(memory: &Value) -> Value {
    let Some(mut remembered) = memory
        .as_str()
        .and_then(|text| serde_json::from_str::<Value>(text).ok())
    else {
        return memory.clone();
    };
    remove(Some(&mut remembered), "salt");
    remove(Some(&mut remembered), "moves");
    remove(Some(&mut remembered), "nudge");
    remove(remembered.get_mut("proven"), "uid");
    remove(remembered.get_mut("proven"), "generation");
    remembered
}

fn mask_status(kind: &str, object: &mut Value, generation: &Value) {
    let is_compared = [
        "ContourDeployment.contour.slipway.dev",
        "ExtensionService.projectcontour.io",
    ]
    .contains(&kind);
    if is_compared {
        mask_times(&mut object["status"], generation);
    } else {
        remove(Some(object), "status");
    }
}

fn mask_times(value: &mut Value, generation: &Value) {
    match value {
        Value::Object(fields) => {
            fields.retain(|key, _| !["lastTransitionTime", "since"].contains(&key.as_str()));
            if let Some(observed) = fields.get_mut("observedGeneration") {
                *observed = Value::from(if observed == generation {
                    "the present one"
                } else {
                    OLDER
                });
            }
            fields.values_mut().for_each(|value| mask_times(value, generation));
        }
        Value::Array(items) => items.iter_mut().for_each(|item| mask_times(item, generation)),
        _ => {}
    }
}

/// Reports whether a status, or a condition in it, describes an older generation.
fn is_behind(value: &Value) -> bool {
    match value {
        Value::Object(fields) => fields
            .iter()
            .any(|(name, value)| (name == "observedGeneration" && value == OLDER) || is_behind(value)),
        Value::Array(items) => items.iter().any(is_behind),
        _ => false,
    }
}

fn blank_values(data: &mut Value) {
    for value in data.as_object_mut().into_iter().flat_map(serde_json::Map::values_mut) {
        *value = Value::Null;
    }
}

fn remove(object: Option<&mut Value>, field: &str) {
    if let Some(fields) = object.and_then(Value::as_object_mut) {
        fields.remove(field);
    }
}

/// Replaces each hash in a name with a number. The first hash of each prefix becomes 1.
fn without_hashes(objects: &Objects) -> Objects {
    let text = serde_json::to_string(objects).expect("JSON");
    let mut seen = BTreeMap::<String, Vec<String>>::new();
    let mut plain = String::new();
    let mut word = String::new();
    for char in text.chars().chain(['\n']) {
        if char.is_ascii_alphanumeric() || char == '-' {
            word.push(char);
            continue;
        }
        match hashed(&word) {
            Some((prefix, hash)) => {
                let hashes = seen.entry(prefix.to_owned()).or_default();
                let number = hashes.iter().position(|other| other == hash).unwrap_or_else(|| {
                    hashes.push(hash.to_owned());
                    hashes.len() - 1
                });
                write!(plain, "{prefix}-#{}", number + 1).expect("a String takes everything");
            }
            None => plain.push_str(&word),
        }
        word.clear();
        plain.push(char);
    }
    serde_json::from_str(&plain).expect("the replacement keeps the JSON valid")
}

/// Splits a name into prefix and hash, for example `edge-ext-auth` and ten characters of base32 (`plan/names.rs`). Returns None for a
/// name without a hash.
fn hashed(word: &str) -> Option<(&str, &str)> {
    let (prefix, hash) = word.rsplit_once('-')?;
    let is_hash = hash.len() == 10 && hash.chars().all(|char| matches!(char, '0'..='9' | 'a'..='v'));
    (is_hash && prefix.split('-').next() == Some("edge")).then_some((prefix, hash))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn end(objects: &[(&str, Value)]) -> FinalState {
        let objects = objects.iter().map(|(key, value)| ((*key).to_owned(), value.clone()));
        FinalState::of(objects.collect(), &BTreeSet::from(["Namespace default".to_owned()]))
    }

    fn stand_in(hash: &str, points_at: &str) -> FinalState {
        let name = format!("edge-ext-auth-{hash}");
        let object = json!({
            "metadata": {"name": name, "uid": hash, "annotations": {PERSISTED_STATE: r#"{"salt":1,"withdrawn":true}"#}},
            "spec": {"services": [{"name": points_at}]},
        });
        end(&[
            ("Namespace default", Value::Null),
            (&format!("ExtensionService.projectcontour.io a/{name}"), object),
        ])
    }

    #[test]
    fn comparison_ignores_only_the_masked_parts() {
        let of = |uid: &str, port: u16| {
            let metadata = json!({"name": "a", "uid": uid, "creationTimestamp": uid, "generation": 1});
            end(&[(
                "Service a/a",
                json!({"metadata": metadata, "spec": {"clusterIP": uid, "port": port}}),
            )])
        };
        assert_eq!(
            of("1", 80).differences(&of("2", 80), Names::Exact),
            Vec::<String>::new()
        );
        let differences = of("1", 80).differences(&of("1", 81), Names::Exact);
        assert_eq!(differences, ["Service a/a.spec.port: 80, expected 81"]);
        assert_eq!(
            of("1", 80).differences(&end(&[]), Names::Exact),
            ["Service a/a is superfluous"]
        );
        assert_eq!(
            end(&[]).differences(&of("1", 80), Names::Exact),
            ["Service a/a is missing"]
        );
    }

    #[test]
    fn unfinished_reports_old_verdicts_and_deletions() {
        let judged = |observed: u64| {
            let status = json!({"conditions": [{"type": "Valid", "observedGeneration": observed}]});
            json!({"metadata": {"generation": 2}, "status": status})
        };
        let key = "ExtensionService.projectcontour.io a/a";
        assert_eq!(end(&[(key, judged(1))]).unfinished(), [key]);
        assert_eq!(end(&[(key, judged(2))]).unfinished(), [""; 0]);
        let terminating = json!({"metadata": {"deletionTimestamp": "now"}});
        assert_eq!(
            end(&[("Service a/a", terminating.clone())]).unfinished(),
            ["Service a/a"]
        );
        assert_eq!(
            end(&[("Pod a/a", terminating)]).unfinished(),
            ["Pod of no component in "]
        );
    }

    #[test]
    fn succeeded_compares_hashes_only_with_each_other() {
        let (one, other) = ("k3v7q2m9ua", "a3v7q2m9ub");
        let own = |hash: &str| stand_in(hash, &format!("edge-ext-auth-{hash}"));
        assert!(own(one).differences(&own(other), Names::Succeeded).is_empty());
        assert!(!own(one).differences(&own(other), Names::Exact).is_empty());
        let mixed = stand_in(one, &format!("edge-ext-auth-{other}"));
        assert!(!mixed.differences(&own(one), Names::Succeeded).is_empty());
    }

    #[test]
    fn without_history_removes_only_the_history() {
        let of = |memory: &str| without_history(&Value::from(memory));
        assert_eq!(of(r#"{"salt":1,"retired":true}"#), of(r#"{"salt":2,"retired":true}"#));
        assert_ne!(of(r#"{"salt":1,"retired":true}"#), of(r#"{"salt":1}"#));
    }
}
