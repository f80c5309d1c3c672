//! The final state of a run, in a form in which two runs can be compared. **All masks are in this file**: they hide what may differ between
//! runs without a meaning, and nothing else.

use std::collections::BTreeMap;

use anyhow::Context as _;
use kube::api::ListParams;
use serde_json::Value;

use crate::lab::Lab;

/// The compared kinds, and whether they are namespaced.
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

/// The masks: the end of a path, and the reason for the difference.
const MASKED: [(&str, &str); 17] = [
    ("/metadata/uid", "each object has its own"),
    ("/metadata/resourceVersion", "a counter of the whole cluster"),
    ("/metadata/creationTimestamp", "time"),
    (
        "/metadata/managedFields",
        "times, and the number of a user's own entries",
    ),
    ("/metadata/ownerReferences/*/uid", "the owner's uid"),
    (
        "/metadata/annotations/contour.slipway.dev~1applied",
        "a hash of the written object, which contains the owner's uid",
    ),
    ("/metadata/annotations/contour.slipway.dev~1rolled-out", "time"),
    ("/status/conditions/*/lastTransitionTime", "time"),
    ("/status/conditions/*/lastUpdateTime", "time"),
    ("/status/extensionServices/*/since", "time"),
    (
        "/status/conditions/*/message",
        "the Events of kube-controller-manager contain random names of pods",
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

/// Returns the objects of the compared kinds in the namespaces of a run, and the cluster-scoped objects of its ContourDeployment.
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

/// Returns an object without the parts that differ between runs.
pub fn masked(kind: &str, mut object: Value) -> Value {
    for (path, _) in MASKED {
        let own_message = kind == "ContourDeployment" && path.ends_with("/message");
        if !own_message {
            mask(&mut object, path);
        }
    }
    match kind {
        // Slipway issues new keys and certificates for each ContourDeployment. Their existence is compared.
        "Secret" => mask(&mut object, "/data/*"),
        // The pod template names one ContourConfiguration by its uid, and the template's hash covers the uid.
        "Deployment" => {
            let template = "/spec/template/metadata";
            let captured = format!("{template}/annotations/contour.slipway.dev~1startup-inputs");
            change_json(&mut object, &captured, |captured| mask(captured, "/uid"));
            mask(&mut object, &format!("{template}/labels/contour.slipway.dev~1template"));
        }
        // The simulated Contour writes the verdicts. Slipway creates a stand-in as a copy, or changes it to a copy, as soon as a verdict
        // exists.
        "ExtensionService" => {
            mask(&mut object, "/metadata/generation");
            mask(&mut object, "/status");
            // A stand-in records the copied object by its uid.
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
            // The number of nudges depends on how many changes of Services Contour observes at once.
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

/// Changes the JSON in an annotation.
fn change_json(object: &mut Value, annotation: &str, change: impl FnOnce(&mut Value)) {
    let Some(Value::String(text)) = object.pointer_mut(annotation) else {
        return;
    };
    if let Ok(mut value) = serde_json::from_str::<Value>(text) {
        change(&mut value);
        *text = value.to_string();
    }
}

/// Replaces the values at a path by `masked`. `*` stands for each entry.
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
}
