//! In which fields an object differs from what we want. What the API server stores is not what it was sent: it drops empty values,
//! writes quantities in its own form, and merges some lists; each of these rules has a name here.

use std::collections::BTreeMap;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use serde_json::{Map, Value};

use super::object::{Key, Kind, Object};
use super::write::Fields;
use crate::api::Role;
use crate::api::vocabulary::{annotations, labels};

/// The fields in which an object differs from what we want, by their paths.
pub type Differences = BTreeMap<String, Comparison>;

/// What is found where we want something else.
#[derive(Clone, Debug, PartialEq)]
pub struct Comparison {
    /// The value; null: none.
    pub live: Value,
    /// Whether nothing else than ours will do.
    pub must_be_ours: bool,
}

/// Whether a field may not be another than we write it, whoever changes it: what a Contour reads or runs, and what selects pods. What
/// is added to a spec that is ours as a whole may be a default of the CRD, unless it decides on a check.
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

/// The fields in which an object that we wrote differs from what the API server has.
pub fn differences(sent: &Object, live: &Object) -> Differences {
    let fields = match sent.kind {
        Kind::ExtensionService | Kind::ContourConfiguration => Fields::Whole("spec"),
        Kind::Service if sent.label(labels::ROLE).is_some() => Fields::BLACKHOLE,
        _ => Fields::Shared { initial: &[] },
    };
    compare(sent, live, fields)
}

/// The fields in which an object differs from what we want, where these fields are ours.
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

/// Labels, annotations, finalizers and owner references that we want and that are not there.
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

/// Everything in which two values differ, and what somebody added to ours.
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

/// The fields that we want and that are not there with our value. What others added is no difference.
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
            None if is_empty(value) => {}
            None => drop(found.insert(path, Value::Null)),
        }
    }
}

/// How a value is compared with what the API server has. What it stores is not to the letter what it was sent; each rule has a case in
/// `e2e/tests/api_server/rules.rs`, where a real one stores it.
enum EqualityRule {
    /// Amounts of resources: stored in their canonical form.
    Quantities,
    /// A map that is one value to server-side apply (`mapType=atomic`): one label more, and a selector finds nothing.
    AtomicMap,
    /// A map in which others may have fields of their own.
    Map,
    /// A list that server-side apply merges by this key: our items must be there, others may be.
    MergedList(&'static str),
    /// A list that is one value, in each of whose items others may have fields of their own.
    List,
    /// Anything else.
    Value,
}

impl EqualityRule {
    fn of(field: &str, desired: &Value) -> Self {
        match desired {
            Value::Object(_) if field == "requests" || field == "limits" => Self::Quantities,
            Value::Object(_) if field == "selector" || field == "nodeSelector" => Self::AtomicMap,
            Value::Object(_) => Self::Map,
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
        (EqualityRule::Map, Value::Object(desired), Value::Object(live)) => return compare_fields(path, desired, live, found),
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

/// The key by which server-side apply merges a list of this form: `name` for containers, volumes, environment and ports,
/// `mountPath` for volume mounts. A binding's `subjects` have names too, and are one value.
fn merge_key(field: &str, items: &[Value]) -> Option<&'static str> {
    if field == "subjects" {
        return None;
    }
    ["mountPath", "name"]
        .into_iter()
        .find(|key| !items.is_empty() && items.iter().all(|item| item.get(key).is_some()))
}

/// The API server stores quantities in their canonical form: `1000m` comes back as `1`.
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

/// A quantity's value (apimachinery `resource.Quantity`: number and suffix).
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

#[cfg(test)]
mod tests;
