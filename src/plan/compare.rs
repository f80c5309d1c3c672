//! Compares live objects with desired objects. The API server does not store objects exactly as sent: it drops empty values, converts
//! quantities to their canonical form, and merges some lists. Each of these rules has a name in this file.

use std::collections::BTreeMap;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use serde_json::{Map, Value};

use super::object::{Key, Kind, Object};
use super::write::Fields;
use crate::api::Role;
use crate::api::vocabulary::{annotations, labels};

/// The fields in which an object differs from the desired object, by path.
pub type Differences = BTreeMap<String, Comparison>;

/// A live value that differs from the desired value.
#[derive(Clone, Debug, PartialEq)]
pub struct Comparison {
    /// The live value, or null if the field does not exist.
    pub live: Value,
    /// Whether the field must have Slipway's value.
    pub must_be_ours: bool,
}

/// Reports whether a field must have Slipway's value, whoever changes the field. Such fields determine what a Contour reads or runs, and
/// which pods are selected. An added field in a spec that Slipway owns may be a default of the CRD, unless the field decides on a check.
fn must_be_ours(key: &Key, field: &str, is_added: bool) -> bool {
    let is_of_containers = |part: &str| {
        let containers = ["spec.template.spec.containers[", "spec.template.spec.initContainers["];
        let rest = containers.into_iter().find_map(|prefix| field.strip_prefix(prefix));
        rest.and_then(|rest| rest.split_once(']')).is_some_and(|(_, rest)| {
            let rest = rest.strip_prefix('.').unwrap_or(rest);
            rest.starts_with(part) && !rest[part.len()..].starts_with(char::is_alphanumeric)
        })
    };
    let is_below = |prefixes: &[&str]| {
        prefixes.iter().any(|prefix| {
            field
                .strip_prefix(prefix)
                .is_some_and(|rest| rest.is_empty() || rest.starts_with(['.', '[']))
        })
    };
    if is_below(&["metadata.finalizers", "metadata.ownerReferences"])
        || field.starts_with("metadata.labels[contour.slipway.dev/")
    {
        return true;
    }
    match key.kind {
        Kind::ExtensionService if is_added => is_below(&[
            "spec.services",
            "spec.validation",
            "spec.timeoutPolicy",
            "spec.protocol",
        ]),
        Kind::ContourConfiguration if is_added => {
            let mut roles = Role::ALL.into_iter();
            roles.any(|role| is_below(&[&format!("spec.{}", role.field())]))
        }
        Kind::ExtensionService | Kind::ContourConfiguration => {
            is_below(&["spec"]) || field == format!("metadata.annotations[{}]", annotations::PERSISTED_STATE)
        }
        Kind::Service => is_below(&[
            "spec.selector",
            "spec.externalName",
            "spec.type",
            "spec.clusterIP",
            "spec.ports",
        ]),
        Kind::Deployment | Kind::DaemonSet => {
            is_below(&[
                "spec.selector",
                "spec.template.metadata",
                "spec.template.spec.serviceAccountName",
                "spec.template.spec.volumes",
            ]) || ["command", "args", "volumeMounts"].into_iter().any(is_of_containers)
        }
        Kind::RoleBinding | Kind::ClusterRoleBinding => is_below(&["roleRef", "subjects"]),
        Kind::Secret => is_below(&["data"]),
        _ => false,
    }
}

/// Returns the fields in which an object that Slipway wrote differs from the API server's object.
pub fn differences(sent: &Object, live: &Object) -> Differences {
    let fields = match sent.kind {
        Kind::ExtensionService | Kind::ContourConfiguration => Fields::Whole("spec"),
        Kind::Service if sent.label(labels::ROLE).is_some() => Fields::BLACKHOLE,
        _ => Fields::Shared { initial: &[] },
    };
    compare(sent, live, fields)
}

/// Returns the fields in which an object differs from the desired object. `fields` is the ownership of the object's fields.
pub fn compare(desired: &Object, live: &Object, fields: Fields) -> Differences {
    let (mut found, mut added) = (BTreeMap::new(), BTreeMap::new());
    compare_metadata(&desired.metadata, &live.metadata, &mut found);
    match fields {
        Fields::Shared { .. } => compare_fields("", &desired.content, &live.content, &mut found),
        Fields::Whole(field) => compare_exactly(
            field,
            desired.content.get(field).unwrap_or(&Value::Null),
            live.content.get(field).unwrap_or(&Value::Null),
            &mut found,
            &mut added,
        ),
        Fields::Sealed { absent } => {
            compare_fields("", &desired.content, &live.content, &mut found);
            for pointer in absent {
                if let Some(value) = live.at(pointer) {
                    found.insert(pointer.trim_start_matches('/').replace('/', "."), value.clone());
                }
            }
        }
        Fields::MetadataOnly => {}
    }
    let key = desired.key();
    let judged = |found: BTreeMap<String, Value>, is_added| {
        let key = key.clone();
        found.into_iter().map(move |(field, live)| {
            let must_be_ours = must_be_ours(&key, &field, is_added);
            (field, Comparison { live, must_be_ours })
        })
    };
    judged(found, false).chain(judged(added, true)).collect()
}

/// Collects the desired labels, annotations, finalizers and owner references that are missing or different.
fn compare_metadata(desired: &ObjectMeta, live: &ObjectMeta, found: &mut BTreeMap<String, Value>) {
    type Map = BTreeMap<String, String>;
    let mut maps = |name: &str, desired: Option<&Map>, live: Option<&Map>| {
        for (key, value) in desired.into_iter().flatten() {
            let other = live.and_then(|live| live.get(key));
            if other != Some(value) {
                let other = other.map_or(Value::Null, |other| other.as_str().into());
                found.insert(format!("metadata.{name}[{key}]"), other);
            }
        }
    };
    maps("labels", desired.labels.as_ref(), live.labels.as_ref());
    maps("annotations", desired.annotations.as_ref(), live.annotations.as_ref());
    for name in desired.finalizers.iter().flatten() {
        if !live.finalizers.iter().flatten().any(|other| other == name) {
            found.insert(format!("metadata.finalizers[{name}]"), Value::Null);
        }
    }
    for owner in desired.owner_references.iter().flatten() {
        if !live.owner_references.iter().flatten().any(|other| other == owner) {
            found.insert(format!("metadata.ownerReferences[{}]", owner.name), Value::Null);
        }
    }
}

/// Collects all differences between two values, and the fields that others added.
fn compare_exactly(
    path: &str,
    desired: &Value,
    live: &Value,
    found: &mut BTreeMap<String, Value>,
    added: &mut BTreeMap<String, Value>,
) {
    match (desired, live) {
        (Value::Object(desired), Value::Object(live)) => {
            for (key, value) in desired {
                let other = live.get(key).unwrap_or(&Value::Null);
                compare_exactly(&format!("{path}.{key}"), value, other, found, added);
            }
            let others = live.iter().filter(|(key, _)| !desired.contains_key(*key));
            added.extend(others.map(|(key, value)| (format!("{path}.{key}"), value.clone())));
        }
        (desired, live) if desired == live => {}
        (_, live) => drop(found.insert(path.to_owned(), live.clone())),
    }
}

/// Collects the desired fields that are missing or different. Fields that others added are no difference.
fn compare_fields(
    path: &str,
    desired: &Map<String, Value>,
    live: &Map<String, Value>,
    found: &mut BTreeMap<String, Value>,
) {
    for (key, value) in desired {
        let path = if path.is_empty() {
            key.clone()
        } else {
            format!("{path}.{key}")
        };
        match live.get(key) {
            Some(other) => compare_values(&path, key, value, other, found),
            // The API server does not store empty values.
            None if is_empty(value) || is_zero(key, value) => {}
            None => drop(found.insert(path, Value::Null)),
        }
    }
}

/// The rule for comparing a desired value with the API server's value. The API server does not store every value exactly as sent. Each rule
/// has a case in `e2e/tests/api_server/rules.rs`, where a real API server stores the value.
enum EqualityRule {
    /// Amounts of resources, which the API server stores in their canonical form.
    Quantities,
    /// One amount.
    Quantity,
    /// A map that server-side apply treats as one value (`mapType=atomic`). With an additional label, a selector matches nothing.
    AtomicMap,
    /// A map in which others may have fields of their own.
    Map,
    /// A list that server-side apply merges by this key. Slipway's items must exist, and others may exist.
    MergedList(&'static str),
    /// A list that is one value. Others may add fields to each item.
    List,
    /// Any other value.
    Value,
}

impl EqualityRule {
    fn of(field: &str, desired: &Value) -> Self {
        match desired {
            Value::Object(_) if field == "requests" || field == "limits" => Self::Quantities,
            Value::Object(_) if field == "selector" || field == "nodeSelector" => Self::AtomicMap,
            Value::Object(_) => Self::Map,
            Value::String(_) | Value::Number(_) if field == "sizeLimit" || field == "divisor" => Self::Quantity,
            Value::Array(items) => merge_key(field, items).map_or(Self::List, Self::MergedList),
            _ => Self::Value,
        }
    }
}

fn compare_values(path: &str, field: &str, desired: &Value, live: &Value, found: &mut BTreeMap<String, Value>) {
    let holds = match (EqualityRule::of(field, desired), desired, live) {
        (EqualityRule::Quantities, Value::Object(desired), Value::Object(live)) => desired
            .iter()
            .all(|(name, amount)| live.get(name).is_some_and(|other| same_quantity(amount, other))),
        (EqualityRule::Quantity, desired, live) => same_quantity(desired, live),
        (EqualityRule::Map, Value::Object(desired), Value::Object(live)) => {
            return compare_fields(path, desired, live, found);
        }
        (EqualityRule::MergedList(key), Value::Array(desired), Value::Array(live)) => {
            for item in desired {
                let path = format!("{path}[{}]", item[key].as_str().unwrap_or_default());
                match live.iter().find(|other| other.get(key) == item.get(key)) {
                    Some(other) => compare_values(&path, "", item, other, found),
                    None => drop(found.insert(path, Value::Null)),
                }
            }
            return;
        }
        (EqualityRule::List, Value::Array(desired), Value::Array(live)) => {
            let mut inner = BTreeMap::new();
            for (item, other) in desired.iter().zip(live) {
                compare_values("", "", item, other, &mut inner);
            }
            desired.len() == live.len() && inner.is_empty()
        }
        _ => desired == live,
    };
    if !holds {
        found.insert(path.to_owned(), live.clone());
    }
}

/// Returns the key by which server-side apply merges a list of this form: `name` for containers, volumes, environment and ports,
/// `mountPath` for volume mounts. The `subjects` of a binding also have names, but are one value.
fn merge_key(field: &str, items: &[Value]) -> Option<&'static str> {
    if field == "subjects" {
        return None;
    }
    ["mountPath", "name"]
        .into_iter()
        .find(|key| !items.is_empty() && items.iter().all(|item| item.get(key).is_some()))
}

/// Reports whether two quantities are equal. The API server stores quantities in their canonical form, for example `1000m` as `1`.
fn same_quantity(desired: &Value, live: &Value) -> bool {
    let number = |value: &Value| {
        value
            .as_str()
            .map(str::to_owned)
            .or_else(|| value.as_number().map(ToString::to_string))
    };
    let (Some(desired), Some(live)) = (number(desired), number(live)) else {
        return false;
    };
    desired == live
        || matches!((quantity(&desired), quantity(&live)), (Some(a), Some(b)) if (a - b).abs() <= f64::EPSILON * a.abs())
}

/// Returns the value of a quantity (apimachinery `resource.Quantity`: number and suffix).
fn quantity(text: &str) -> Option<f64> {
    const SUFFIXES: [(&str, f64); 15] = [
        ("Ki", 1024.0),
        ("Mi", 1_048_576.0),
        ("Gi", 1_073_741_824.0),
        ("Ti", 1_099_511_627_776.0),
        ("Pi", 1_125_899_906_842_624.0),
        ("Ei", 1_152_921_504_606_846_976.0),
        ("n", 1e-9),
        ("u", 1e-6),
        ("m", 1e-3),
        ("k", 1e3),
        ("M", 1e6),
        ("G", 1e9),
        ("T", 1e12),
        ("P", 1e15),
        ("E", 1e18),
    ];
    if let Ok(number) = text.parse::<f64>() {
        return Some(number);
    }
    SUFFIXES
        .iter()
        .find_map(|(suffix, factor)| Some(text.strip_suffix(suffix)?.parse::<f64>().ok()? * factor))
}

fn is_empty(value: &Value) -> bool {
    match value {
        Value::Null => true,
        Value::String(text) => text.is_empty(),
        Value::Array(items) => items.is_empty(),
        Value::Object(fields) => fields.is_empty(),
        _ => false,
    }
}

/// Reports whether this is the zero value of a field that is neither a pointer nor required in Go (Kubernetes 1.34, `core/v1/types.go`). The
/// API server does not store such a value. Only overlays contain one.
fn is_zero(field: &str, value: &Value) -> bool {
    const FIELDS: [&str; 9] = [
        "healthCheckNodePort",
        "hostPort",
        "initialDelaySeconds",
        "nodePort",
        "readOnly",
        "stdin",
        "stdinOnce",
        "tty",
        "publishNotReadyAddresses",
    ];
    FIELDS.contains(&field) && (value == &Value::Bool(false) || value.as_i64() == Some(0))
}

#[cfg(test)]
mod tests;
