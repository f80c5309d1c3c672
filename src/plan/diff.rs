//! From what is desired and what is there to the writes that are needed. Converged means: none.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use serde::Serialize;
use serde_json::{Map, Value};

use super::names::hash_json;
use super::object::{Kind, Object, Owner};
use super::observed::Observed;
use crate::api::vocabulary::annotations;

/// An object as it shall be.
#[derive(Clone, Debug, PartialEq)]
pub struct Desired {
    /// The object.
    pub object: Object,
    /// Whose fields it has.
    pub fields: Fields,
}

/// Whose the fields of an object are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fields {
    /// We own the fields that we set and leave all others alone; written by server-side apply.
    Shared {
        /// JSON pointers of fields that we set at creation and leave to others afterwards (an autoscaler's `replicas`).
        initial: &'static [&'static str],
    },
    /// All of this top-level field is ours; anything that somebody adds to it goes. Written by a replacing update.
    Whole(&'static str),
    /// As `Shared`, and these fields must not be there at all. Written by a replacing update: server-side apply can't take
    /// away what somebody else added.
    Sealed {
        /// JSON pointers.
        absent: &'static [&'static str],
    },
    /// We only want it to exist and to carry our metadata; the rest is somebody else's (Contour's Lease).
    MetadataOnly,
}

impl Desired {
    /// An object that others may add fields to.
    pub fn shared(object: Object) -> Self {
        Self {
            object,
            fields: Fields::Shared { initial: &[] },
        }
    }

    /// An object whose `spec` is ours alone.
    pub fn whole_spec(object: Object) -> Self {
        Self {
            object,
            fields: Fields::Whole("spec"),
        }
    }
}

/// A single write to the API server.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub enum Write {
    /// Make it; it must not exist.
    Create(Object),
    /// Server-side apply, forced; it must exist.
    Apply {
        /// The fields that we own, with the uid of the object that must exist.
        object: Object,
        /// First make the entry that our creation left in `managedFields` one of server-side apply: index and the
        /// resourceVersion that it was seen at.
        #[serde(skip)]
        adopt_creation: Option<(usize, String)>,
    },
    /// Update the whole object, with its resourceVersion.
    Replace(Object),
    /// Delete it, if it is still the one with this uid; children go in the background.
    Delete(Target),
    /// Put our finalizer on it.
    Hold(Target),
    /// Take our finalizer away.
    Release(Target),
}

/// An object that exists.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[allow(missing_docs)]
pub struct Target {
    pub key: super::object::Key,
    #[serde(skip)]
    pub uid: String,
    #[serde(skip)]
    pub resource_version: String,
    /// Its finalizers, without ours.
    #[serde(skip)]
    pub other_finalizers: Vec<String>,
}

impl Target {
    /// The ContourDeployment itself.
    pub fn of_deployment(deployment: &crate::api::ContourDeployment) -> Self {
        Self::of(&Object {
            kind: Kind::ContourDeployment,
            metadata: deployment.metadata.clone(),
            content: Map::new(),
            creation_entry: None,
        })
    }

    /// This object.
    pub fn of(object: &Object) -> Self {
        let finalizers = object.metadata.finalizers.iter().flatten();
        Self {
            key: object.key(),
            uid: object.uid().to_owned(),
            resource_version: object.metadata.resource_version.clone().unwrap_or_default(),
            other_finalizers: finalizers
                .filter(|name| *name != crate::api::vocabulary::FINALIZER)
                .cloned()
                .collect(),
        }
    }
}

/// The write that makes the live object the desired one, if one is needed.
pub fn write(desired: &Desired, observed: &Observed, owner: &Owner) -> Option<Write> {
    let live = observed
        .objects
        .get(&desired.object.key())
        .map(AsRef::as_ref)
        .filter(|live| owner.owns(live));
    let applied = hash_json(&(&desired.object.metadata, &desired.object.content));
    let mut object = desired.object.clone();
    object.annotate(annotations::APPLIED, applied);
    let Some(live) = live else {
        return Some(Write::Create(object));
    };

    match desired.fields {
        Fields::Shared { initial } => {
            for pointer in initial {
                adopt(&mut object.content, &live.content, pointer);
            }
            if live.is_terminating()
                || (metadata_holds(&object.metadata, &live.metadata) && holds(&object.content, &live.content))
            {
                return None;
            }
            if let Some(replacement) = renumbered(&object, live) {
                return Some(Write::Replace(replacement));
            }
            object.metadata.uid.clone_from(&live.metadata.uid);
            let version = live.metadata.resource_version.clone().unwrap_or_default();
            Some(Write::Apply {
                object,
                adopt_creation: live.creation_entry.map(|entry| (entry, version)),
            })
        }
        Fields::Whole(field) => {
            // A terminating object can still be changed, but no finalizer can be added to it.
            if live.is_terminating() {
                object.metadata.finalizers.clone_from(&live.metadata.finalizers);
            }
            if metadata_holds(&object.metadata, &live.metadata) && object.content.get(field) == live.content.get(field)
            {
                return None;
            }
            let mut replacement = live.clone();
            merge_metadata(&mut replacement.metadata, &object.metadata);
            if let Some(value) = object.content.get(field) {
                replacement.content.insert(field.to_owned(), value.clone());
            }
            Some(Write::Replace(replacement))
        }
        Fields::Sealed { absent } => {
            if live.is_terminating() {
                object.metadata.finalizers.clone_from(&live.metadata.finalizers);
            }
            let sealed = absent.iter().all(|pointer| live.at(pointer).is_none());
            if sealed && metadata_holds(&object.metadata, &live.metadata) && holds(&object.content, &live.content) {
                return None;
            }
            let mut replacement = live.clone();
            merge_metadata(&mut replacement.metadata, &object.metadata);
            overlay(&mut replacement.content, &object.content);
            for pointer in absent {
                remove(&mut replacement.content, pointer);
            }
            Some(Write::Replace(replacement))
        }
        Fields::MetadataOnly => {
            if live.is_terminating() || metadata_holds(&object.metadata, &live.metadata) {
                return None;
            }
            object.content.clear();
            object.metadata.uid.clone_from(&live.metadata.uid);
            let version = live.metadata.resource_version.clone().unwrap_or_default();
            Some(Write::Apply {
                object,
                adopt_creation: live.creation_entry.map(|entry| (entry, version)),
            })
        }
    }
}

/// Whether labels, annotations, finalizers and owner references that we want are there.
fn metadata_holds(desired: &ObjectMeta, live: &ObjectMeta) -> bool {
    let map = |desired: Option<&std::collections::BTreeMap<String, String>>,
               live: Option<&std::collections::BTreeMap<String, String>>| {
        desired
            .into_iter()
            .flatten()
            .all(|(key, value)| live.and_then(|live| live.get(key)) == Some(value))
    };
    map(desired.labels.as_ref(), live.labels.as_ref())
        && map(desired.annotations.as_ref(), live.annotations.as_ref())
        && desired
            .finalizers
            .iter()
            .flatten()
            .all(|name| live.finalizers.iter().flatten().any(|other| other == name))
        && desired
            .owner_references
            .iter()
            .flatten()
            .all(|owner| live.owner_references.iter().flatten().any(|other| other == owner))
}

fn merge_metadata(live: &mut ObjectMeta, desired: &ObjectMeta) {
    for (key, value) in desired.labels.iter().flatten() {
        live.labels.get_or_insert_default().insert(key.clone(), value.clone());
    }
    for (key, value) in desired.annotations.iter().flatten() {
        live.annotations
            .get_or_insert_default()
            .insert(key.clone(), value.clone());
    }
    for finalizer in desired.finalizers.iter().flatten() {
        let finalizers = live.finalizers.get_or_insert_default();
        if !finalizers.contains(finalizer) {
            finalizers.push(finalizer.clone());
        }
    }
    for owner in desired.owner_references.iter().flatten() {
        let owners = live.owner_references.get_or_insert_default();
        owners.retain(|other| other.uid != owner.uid);
        owners.push(owner.clone());
    }
}

/// Whether every field that we want is there with our value. What others added is no difference.
fn holds(desired: &Map<String, Value>, live: &Map<String, Value>) -> bool {
    desired.iter().all(|(key, value)| match live.get(key) {
        Some(other) => value_holds(key, value, other),
        // The API server does not store empty values.
        None => is_empty(value),
    })
}

fn value_holds(key: &str, desired: &Value, live: &Value) -> bool {
    match (desired, live) {
        (Value::Object(desired), Value::Object(live)) if key == "requests" || key == "limits" => desired
            .iter()
            .all(|(name, amount)| live.get(name).is_some_and(|other| same_quantity(amount, other))),
        // Whole values to server-side apply (`mapType=atomic`): one label more, and a selector finds nothing.
        (Value::Object(_), Value::Object(_)) if key == "selector" || key == "nodeSelector" => desired == live,
        (Value::Object(desired), Value::Object(live)) => holds(desired, live),
        (Value::Array(desired), Value::Array(live)) => match merge_key(key, desired) {
            // Lists that server-side apply merges: our items must be there, others may be.
            Some(name) => desired.iter().all(|item| {
                live.iter()
                    .find(|other| other.get(name) == item.get(name))
                    .is_some_and(|other| value_holds("", item, other))
            }),
            None => {
                desired.len() == live.len()
                    && desired
                        .iter()
                        .zip(live)
                        .all(|(item, other)| value_holds("", item, other))
            }
        },
        _ => desired == live,
    }
}

/// The object as it shall be, if somebody gave one of our ports another number: server-side apply knows a port by number and
/// protocol, would put ours beside theirs, and two of one name are refused.
fn renumbered(desired: &Object, live: &Object) -> Option<Object> {
    let list = |value: Option<&Value>| value.and_then(Value::as_array).cloned().unwrap_or_default();
    let mut replacement = live.clone();
    match desired.kind {
        Kind::Service => {
            let [ours, theirs] = [desired, live].map(|object| list(object.at("/spec/ports")));
            let ports = ports(&ours, &theirs, "port")?;
            merge_metadata(&mut replacement.metadata, &desired.metadata);
            overlay(&mut replacement.content, &desired.content);
            replacement.content["spec"]["ports"] = Value::Array(ports);
        }
        Kind::Deployment | Kind::DaemonSet => {
            let place = "/spec/template/spec/containers";
            let mut containers = list(live.at(place));
            let mut is_one = false;
            for ours in list(desired.at(place)) {
                let same = |container: &&mut Value| container["name"] == ours["name"];
                if let Some(container) = containers.iter_mut().find(same)
                    && let Some(ports) = ports(&list(ours.get("ports")), &list(container.get("ports")), "containerPort")
                {
                    container["ports"] = Value::Array(ports);
                    is_one = true;
                }
            }
            if !is_one {
                return None;
            }
            // The rest of it is applied when this is there.
            replacement.content["spec"]["template"]["spec"]["containers"] = Value::Array(containers);
        }
        _ => return None,
    }
    Some(replacement)
}

/// Our ports in place of those of their names, and those of others; none if no number clashes. Node ports stay.
fn ports(desired: &[Value], live: &[Value], number: &str) -> Option<Vec<Value>> {
    let same = |key: &str, one: &Value, other: &Value| one.get(key) == other.get(key);
    let clashes = |one: &Value, other: &Value| {
        same("name", one, other) && !(same(number, one, other) && same("protocol", one, other))
    };
    if !live.iter().any(|port| desired.iter().any(|ours| clashes(ours, port))) {
        return None;
    }
    let theirs = live.iter().filter(|port| {
        let is_ours =
            |ours: &Value| same("name", ours, port) || (same(number, ours, port) && same("protocol", ours, port));
        !desired.iter().any(is_ours)
    });
    let ours = desired.iter().map(|ours| {
        let mut ours = ours.clone();
        if let Some(node_port) = live
            .iter()
            .find(|port| same("name", &ours, port))
            .and_then(|port| port.get("nodePort"))
        {
            ours["nodePort"] = node_port.clone();
        }
        ours
    });
    Some(ours.chain(theirs.cloned()).collect())
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
        Value::Array(items) => items.is_empty(),
        Value::Object(fields) => fields.is_empty(),
        _ => false,
    }
}

/// Puts our values over the live ones.
fn overlay(live: &mut Map<String, Value>, desired: &Map<String, Value>) {
    for (key, value) in desired {
        match (live.get_mut(key), value) {
            (Some(Value::Object(live)), Value::Object(desired)) => overlay(live, desired),
            _ => {
                live.insert(key.clone(), value.clone());
            }
        }
    }
}

fn remove(content: &mut Map<String, Value>, pointer: &str) {
    if let Some((first, last)) = pointer.strip_prefix('/').and_then(|path| path.split_once('/'))
        && let Some(Value::Object(fields)) = content.get_mut(first)
    {
        fields.remove(last);
    }
}

/// Takes over the live value of a field that we leave to others after the creation.
fn adopt(desired: &mut Map<String, Value>, live: &Map<String, Value>, pointer: &str) {
    let Some((first, last)) = pointer.strip_prefix('/').and_then(|path| path.split_once('/')) else {
        return;
    };
    if let (Some(value), Some(Value::Object(fields))) = (
        live.get(first).and_then(|fields| fields.get(last)),
        desired.get_mut(first),
    ) {
        fields.insert(last.to_owned(), value.clone());
    }
}

/// Kinds whose absence or presence decides what a Contour container captures: they go only after a second, live look.
pub fn is_captured(kind: Kind) -> bool {
    matches!(
        kind,
        Kind::ContourConfiguration | Kind::ExtensionService | Kind::Service
    )
}

#[cfg(test)]
mod tests;
