//! From what is desired and what is there to the writes that are needed. Converged means: none.

use std::collections::BTreeMap;
use std::time::Duration;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use serde::Serialize;
use serde_json::{Map, Value};

use super::names::hash_json;
use super::object::{Key, Kind, Object, Owner};
use super::observed::{Failure, FailureCause, Observed};
use crate::api::OverruledFields;
use crate::api::vocabulary::{annotations, labels};

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

/// What a desired object takes.
#[derive(Clone, Debug, PartialEq)]
#[allow(clippy::large_enum_variant)] // one at a time, and not for long
pub enum Step {
    /// Nothing. These fields have values that somebody else decided as we wrote them, and that are taken as they are.
    Nothing(Vec<String>),
    /// A write.
    Write(Write),
    /// A write that has to wait.
    Wait(Held),
}

/// A write that has to wait, and why.
#[derive(Clone, Debug, PartialEq)]
pub struct Held {
    /// What is to be said of it; none: it is said elsewhere.
    pub failure: Option<Failure>,
    /// For how long.
    pub wait: Duration,
    /// Whether what comes after it has to wait, too: that would go by an object that is not there, or is not ours.
    pub blocks: bool,
}

/// What makes the live object the desired one.
pub fn step(desired: &Desired, observed: &Observed, owner: &Owner) -> Step {
    let key = desired.object.key();
    let live = observed.objects.get(&key).map(AsRef::as_ref);
    let live = live.filter(|live| owner.owns(live));
    let wanted = hash_json(&(&desired.object.metadata, &desired.object.content));
    let mut object = desired.object.clone();
    object.annotate(annotations::APPLIED, wanted.clone());
    let is_decisive = is_captured(key.kind);
    let wait = observed.attempts.wait(&key, &wanted, is_decisive, observed.now);
    let Some(live) = live else {
        let refusal = observed.attempts.refusal(&key.namespace, observed.now);
        if let Some(refusal) = refusal.filter(|_| owner.is_elsewhere(&key)) {
            return Step::Wait(Held {
                failure: None,
                wait: refusal.wait,
                blocks: false,
            });
        }
        return match wait {
            Some(wait) => {
                let failure = observed.attempts.failure(&key, &wanted).cloned();
                Step::Wait(Held {
                    failure: Some(failure.unwrap_or_else(|| deleted(&key))),
                    wait,
                    blocks: true,
                })
            }
            None => Step::Write(Write::Create(object)),
        };
    };
    if let Fields::Shared { initial } = desired.fields {
        for pointer in initial {
            adopt(&mut object.content, &live.content, pointer);
        }
    }
    // A terminating object can still be changed, but no finalizer can be added to it.
    if live.is_terminating() && matches!(desired.fields, Fields::Whole(_) | Fields::Sealed { .. }) {
        object.metadata.finalizers.clone_from(&live.metadata.finalizers);
    }
    let overruled = observed.attempts.overruled(&key, &wanted);
    let is_overruled = |field: &String, found: &Found| overruled.is_some_and(|fields| fields.get(field) == Some(found));
    let (taken, left): (Differences, Differences) = compare(&object, live, desired.fields)
        .into_iter()
        .partition(|(field, found)| is_overruled(field, found) && !found.must_be_ours);
    let is_left_alone = live.is_terminating() && matches!(desired.fields, Fields::Shared { .. } | Fields::MetadataOnly);
    if left.is_empty() || is_left_alone {
        return Step::Nothing(taken.into_keys().collect());
    }
    if let Some(wait) = wait {
        let failure = observed.attempts.failure(&key, &wanted).cloned();
        let failure = failure.unwrap_or_else(|| {
            changed(
                &key,
                &left,
                left.iter().any(|(field, value)| is_overruled(field, value)),
            )
        });
        let is_not_ours = left.values().any(|found| found.must_be_ours);
        return Step::Wait(Held {
            failure: Some(failure),
            wait,
            blocks: is_not_ours && !owner.is_elsewhere(&key),
        });
    }
    Step::Write(write(object, live, desired.fields))
}

/// What is said of a write after which another followed, again and again.
pub fn unsettled(write: &Write, observed: &Observed) -> Failure {
    let (key, sent) = match write {
        Write::Create(sent) | Write::Apply { object: sent, .. } | Write::Replace(sent) => (sent.key(), Some(sent)),
        Write::Delete(target) | Write::Hold(target) | Write::Release(target) => (target.key.clone(), None),
    };
    let live = observed.objects.get(&key);
    let fields = sent.zip(live).map(|(sent, live)| differences(sent, live));
    let fields: Vec<_> = fields.into_iter().flatten().map(|(field, _)| field).collect();
    let message = if fields.is_empty() {
        "it is written again and again, and never is as it shall be".to_owned()
    } else {
        format!("{} never is as Slipway writes it", fields.join(", "))
    };
    Failure {
        key,
        cause: FailureCause::Unsettled,
        message,
    }
}

/// Fields of an object that somebody else decides, as status names them.
pub fn overruled(object: &Object, fields: Vec<String>) -> OverruledFields {
    OverruledFields {
        kind: object.kind.name().to_owned(),
        namespace: object.metadata.namespace.clone(),
        name: object.name().to_owned(),
        fields,
    }
}

/// What is said of an object that somebody deletes again and again.
fn deleted(key: &Key) -> Failure {
    Failure {
        key: key.clone(),
        cause: FailureCause::Contested,
        message: "somebody keeps deleting it; Slipway makes it again ever less often; find out who (the API server's audit log)"
            .to_owned(),
    }
}

/// What is said of fields that somebody changes: in our own write, or after it and again and again.
fn changed(key: &Key, fields: &Differences, as_we_write: bool) -> Failure {
    let fields = fields.keys().map(String::as_str).collect::<Vec<_>>().join(", ");
    let (cause, message) = if as_we_write {
        let message = format!(
            "something between Slipway and the API server (a mutating webhook or policy) changes {fields} as Slipway writes it, and \
             that must be as Slipway writes it; exempt the object"
        );
        (FailureCause::NotTaken, message)
    } else {
        let message = format!(
            "somebody keeps changing {fields}; Slipway puts it right ever less often; find out who (kubectl get --show-managed-fields)"
        );
        (FailureCause::Contested, message)
    };
    Failure {
        key: key.clone(),
        cause,
        message,
    }
}

/// The write that makes the live object this one.
fn write(mut object: Object, live: &Object, fields: Fields) -> Write {
    let apply = |mut object: Object| {
        object.metadata.uid.clone_from(&live.metadata.uid);
        let version = live.metadata.resource_version.clone().unwrap_or_default();
        Write::Apply {
            object,
            adopt_creation: live.creation_entry.map(|entry| (entry, version)),
        }
    };
    match fields {
        Fields::Shared { .. } => match renumbered(&object, live) {
            Some(replacement) => Write::Replace(replacement),
            None => apply(object),
        },
        Fields::MetadataOnly => {
            object.content.clear();
            apply(object)
        }
        Fields::Whole(field) => {
            let mut replacement = live.clone();
            merge_metadata(&mut replacement.metadata, &object.metadata);
            if let Some(value) = object.content.get(field) {
                replacement.content.insert(field.to_owned(), value.clone());
            }
            Write::Replace(replacement)
        }
        Fields::Sealed { absent } => {
            let mut replacement = live.clone();
            merge_metadata(&mut replacement.metadata, &object.metadata);
            overlay(&mut replacement.content, &object.content);
            for pointer in absent {
                remove(&mut replacement.content, pointer);
            }
            Write::Replace(replacement)
        }
    }
}

/// The fields in which an object differs from what we want, by their paths.
pub type Differences = BTreeMap<String, Found>;

/// What is found where we want something else.
#[derive(Clone, Debug, PartialEq)]
pub struct Found {
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
            is_below(&["spec.globalExtAuth", "spec.rateLimitService", "spec.tracing"])
        }
        Kind::ExtensionService | Kind::ContourConfiguration => {
            is_below(&["spec"]) || field == format!("metadata.annotations[{}]", annotations::MEMORY)
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
        Kind::Service if sent.label(labels::ROLE).is_some() => super::stand_in::BLACKHOLE,
        _ => Fields::Shared { initial: &[] },
    };
    compare(sent, live, fields)
}

fn compare(desired: &Object, live: &Object, fields: Fields) -> Differences {
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
            (field, Found { live, must_be_ours })
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

fn compare_values(path: &str, key: &str, desired: &Value, live: &Value, found: &mut BTreeMap<String, Value>) {
    let holds = match (desired, live) {
        (Value::Object(desired), Value::Object(live)) if key == "requests" || key == "limits" => desired
            .iter()
            .all(|(name, amount)| live.get(name).is_some_and(|other| same_quantity(amount, other))),
        // Whole values to server-side apply (`mapType=atomic`): one label more, and a selector finds nothing.
        (Value::Object(_), Value::Object(_)) if key == "selector" || key == "nodeSelector" => desired == live,
        (Value::Object(desired), Value::Object(live)) => return compare_fields(path, desired, live, found),
        // Lists that server-side apply merges: our items must be there, others may be.
        (Value::Array(desired), Value::Array(live)) if merge_key(key, desired).is_some() => {
            let name = merge_key(key, desired).expect("just seen");
            for item in desired {
                let id = item[name].as_str().unwrap_or_default();
                let path = format!("{path}[{id}]");
                match live.iter().find(|other| other.get(name) == item.get(name)) {
                    Some(other) => compare_values(&path, "", item, other, found),
                    None => drop(found.insert(path, Value::Null)),
                }
            }
            return;
        }
        (Value::Array(desired), Value::Array(live)) => {
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
            if !compare(desired, &replacement, Fields::Shared { initial: &[] }).is_empty() {
                replacement.annotate(annotations::APPLIED, String::new());
            }
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
        Value::String(text) => text.is_empty(),
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
