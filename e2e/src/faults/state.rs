//! What a run leaves behind, in a form in which two runs can be compared. **All masks are here**: what may differ from run to run
//! without a meaning, and nothing else.

use std::collections::BTreeMap;

use anyhow::Context as _;
use kube::api::ListParams;
use serde_json::Value;

use crate::lab::Lab;

/// The kinds that are compared, and whether they live in namespaces.
const KINDS: [(&str, bool); 11] = [
    ("ContourDeployment", true),
    ("ContourConfiguration", true),
    ("ExtensionService", true),
    ("RoleBinding", true),
    ("ServiceAccount", true),
    ("Lease", true),
    ("Secret", true),
    ("Service", true),
    ("Deployment", true),
    ("DaemonSet", true),
    ("ClusterRoleBinding", false),
];

/// What is masked: the end of a path, and why it differs.
const MASKED: [(&str, &str); 17] = [
    ("/metadata/uid", "each object has its own"),
    ("/metadata/resourceVersion", "a counter of the whole cluster"),
    ("/metadata/creationTimestamp", "time"),
    (
        "/metadata/managedFields",
        "times, and one entry more or less of a user's own",
    ),
    ("/metadata/ownerReferences/*/uid", "the owner's uid"),
    (
        "/metadata/annotations/contour.slipway.dev~1applied",
        "a hash over what was written, the owner's uid in it",
    ),
    ("/metadata/annotations/contour.slipway.dev~1rolled-out", "time"),
    ("/status/conditions/*/lastTransitionTime", "time"),
    ("/status/conditions/*/lastUpdateTime", "time"),
    ("/status/extensionServices/*/since", "time"),
    (
        "/status/conditions/*/message",
        "kube-controller-manager's have random names of pods in them",
    ),
    ("/spec/clusterIP", "assigned by chance"),
    ("/spec/clusterIPs", "assigned by chance"),
    ("/spec/ports/*/nodePort", "assigned by chance"),
    ("/secrets", "tokens"),
    (
        "/status/observedGeneration",
        "compared with metadata.generation, which is not masked",
    ),
    ("/status/collisionCount", "of ReplicaSets' names"),
];

/// The objects of a run, by kind, namespace and name.
pub type State = BTreeMap<String, Value>;

/// Everything of the kinds that are compared in the namespaces of a run, and what lives in none and is of its edge.
pub async fn read(lab: &Lab, namespaces: &[&str]) -> anyhow::Result<State> {
    let mut state = State::new();
    for (kind, namespaced) in KINDS {
        let places: &[&str] = if namespaced { namespaces } else { &[""] };
        for namespace in places {
            let list = lab.api(kind, namespace).list(&ListParams::default()).await;
            for object in list.with_context(|| format!("listing {kind}s"))? {
                let name = object.metadata.name.clone().unwrap_or_default();
                let is_of_kubernetes = name == "default" || name == "kube-root-ca.crt";
                if is_of_kubernetes || (!namespaced && !name.contains(&format!(":{}:", lab.namespace))) {
                    continue;
                }
                let object = masked(kind, serde_json::to_value(object)?);
                state.insert(format!("{kind} {namespace}/{name}"), object);
            }
        }
    }
    Ok(state)
}

/// An object without what differs from run to run.
pub fn masked(kind: &str, mut object: Value) -> Value {
    for (path, _) in MASKED {
        let own_message = kind == "ContourDeployment" && path.ends_with("/message");
        if !own_message {
            mask(&mut object, path);
        }
    }
    match kind {
        // Keys and certificates are made anew for each ContourDeployment; that they are there is compared.
        "Secret" => mask(&mut object, "/data/*"),
        // The pod template means one ContourConfiguration, by its uid, and its hash covers that.
        "Deployment" => {
            let template = "/spec/template/metadata";
            let captured = format!("{template}/annotations/contour.slipway.dev~1startup-inputs");
            change_json(&mut object, &captured, |captured| mask(captured, "/uid"));
            mask(&mut object, &format!("{template}/labels/contour.slipway.dev~1template"));
        }
        // Contour's verdicts are the player's; and a stand-in is made as a copy, or becomes one, as soon as there is a verdict.
        "ExtensionService" => {
            mask(&mut object, "/metadata/generation");
            mask(&mut object, "/status");
            // A stand-in remembers which object it copies, by its uid.
            change_json(
                &mut object,
                "/metadata/annotations/contour.slipway.dev~1persisted-state",
                |memory| {
                    mask(memory, "/proven/uid");
                    if let Some(memory) = memory.as_object_mut() {
                        memory.remove("nudge");
                    }
                },
            );
            // How often Contour was nudged depends on how much of its Services it saw at once.
            let services = object.pointer_mut("/spec/services").and_then(Value::as_array_mut);
            for service in services.into_iter().flatten().filter_map(Value::as_object_mut) {
                service.remove("weight");
            }
        }
        _ => {}
    }
    object
}

/// Returns the state without the numbers of Contour's rollouts and of a stand-in's predecessors.
pub fn without_rollouts(mut state: State) -> State {
    for (name, object) in &mut state {
        if name.starts_with("Deployment ") {
            mask(object, "/metadata/generation");
            mask(object, "/metadata/annotations/deployment.kubernetes.io~1revision");
        } else if name.starts_with("ExtensionService ") {
            let persisted = "/metadata/annotations/contour.slipway.dev~1persisted-state";
            change_json(object, persisted, |persisted| {
                if let Some(persisted) = persisted.as_object_mut() {
                    persisted.remove("moves");
                }
            });
        }
    }
    state
}

/// Changes the JSON that an annotation holds.
fn change_json(object: &mut Value, annotation: &str, change: impl FnOnce(&mut Value)) {
    let Some(Value::String(text)) = object.pointer_mut(annotation) else {
        return;
    };
    if let Ok(mut value) = serde_json::from_str::<Value>(text) {
        change(&mut value);
        *text = value.to_string();
    }
}

/// Writes `masked` in the place of whatever a path leads to; `*` is each entry.
fn mask(value: &mut Value, path: &str) {
    let Some((head, rest)) = path
        .strip_prefix('/')
        .map(|path| path.split_once('/').unwrap_or((path, "")))
    else {
        *value = Value::from("masked");
        return;
    };
    let rest = if rest.is_empty() {
        String::new()
    } else {
        format!("/{rest}")
    };
    match value {
        Value::Object(fields) if head == "*" => fields.values_mut().for_each(|value| mask(value, &rest)),
        Value::Array(items) if head == "*" => items.iter_mut().for_each(|value| mask(value, &rest)),
        Value::Object(fields) => {
            if let Some(value) = fields.get_mut(&head.replace("~1", "/")) {
                mask(value, &rest);
            }
        }
        _ => {}
    }
}

/// Where two states differ, in words; none if they are the same.
pub fn differences(expected: &State, found: &State) -> Vec<String> {
    let mut all = Vec::new();
    for (name, object) in expected {
        match found.get(name) {
            None => all.push(format!("{name} is missing")),
            Some(other) => compare(name, object, other, &mut all),
        }
    }
    let more = found.keys().filter(|name| !expected.contains_key(*name));
    all.extend(more.map(|name| format!("{name} is there, too")));
    all
}

fn compare(place: &str, expected: &Value, found: &Value, all: &mut Vec<String>) {
    match (expected, found) {
        (Value::Object(expected), Value::Object(found)) => {
            for (key, value) in expected {
                compare(
                    &format!("{place}.{key}"),
                    value,
                    found.get(key).unwrap_or(&Value::Null),
                    all,
                );
            }
            let more = found.iter().filter(|(key, _)| !expected.contains_key(*key));
            all.extend(more.map(|(key, value)| format!("{place}.{key}: {value}, expected nothing")));
        }
        (Value::Array(expected), Value::Array(found)) if expected.len() == found.len() => {
            for (index, (expected, found)) in expected.iter().zip(found).enumerate() {
                compare(&format!("{place}[{index}]"), expected, found, all);
            }
        }
        _ if expected == found => {}
        _ => all.push(format!("{place}: {found}, expected {expected}")),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn what_differs_by_chance_is_masked_and_nothing_else() {
        let object = |uid: &str, port: u16| {
            masked(
                "Service",
                json!({"metadata": {"uid": uid, "name": "x"}, "spec": {"ports": [{"nodePort": port, "port": 80}]}}),
            )
        };
        assert_eq!(object("1", 30000), object("2", 30001));
        assert_eq!(object("1", 1)["spec"]["ports"][0]["port"], 80);
    }

    #[test]
    fn each_difference_is_named() {
        let of = |value: Value| State::from([("Service a/x".to_owned(), value)]);
        let found = differences(&of(json!({"a": [1, 2]})), &of(json!({"a": [1, 3], "b": 4})));
        assert_eq!(
            found,
            ["Service a/x.a[1]: 3, expected 2", "Service a/x.b: 4, expected nothing"]
        );
        assert_eq!(differences(&of(json!(1)), &State::new()), ["Service a/x is missing"]);
        assert_eq!(differences(&State::new(), &of(json!(1))), ["Service a/x is there, too"]);
    }
}
