//! The effect of a request on the API server: the stored object, or the reason for which the API server refuses the request. The
//! functions are pure. The model stores the objects and assigns the uids.

use std::time::Duration;

use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use serde_json::{Map, Value, json};
use slipway::api::vocabulary::{FINALIZER, labels};
use slipway::plan::{Kind, Object};

/// The current time. The time stands still. When an actor waits for the time, the model [ages](aged) existing objects instead.
pub const NOW: Timestamp = Timestamp::constant(1_795_396_800, 0);

/// The reason for which a request is refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refusal {
    AlreadyExists,
    NotFound,
    Conflict,
    NamespaceTerminating,
    Invalid,
    Forbidden,
}

/// Reports whether a text is a valid name: a DNS subdomain. (Names with colons belong to bindings, which this file does not
/// check.)
pub fn is_a_name(name: &str) -> bool {
    let is_part = |byte: u8| matches!(byte, b'a'..=b'z' | b'0'..=b'9' | b'-' | b'.' | b':');
    !name.is_empty() && name.bytes().all(is_part)
}

/// Returns a new object.
pub fn created(mut object: Object, uid: String) -> Object {
    object.metadata.uid = Some(uid);
    object.metadata.generation = Some(1);
    object.metadata.creation_timestamp = Some(Time(NOW));
    object
}

/// Returns the object with a creation time one hour earlier.
pub fn aged(object: &Object) -> Object {
    let mut object = object.clone();
    let made = object.metadata.creation_timestamp.map_or(NOW, |Time(made)| made);
    object.metadata.creation_timestamp = Some(Time(made - Duration::from_hours(1)));
    object
}

/// Returns the age of an object in hours.
pub fn hours_of(object: &Object) -> i64 {
    let made = object.metadata.creation_timestamp.as_ref();
    made.map_or(0, |Time(made)| NOW.duration_since(*made).as_hours())
}

/// Performs a forced server-side apply: the desired values replace the live values. Lists are replaced as a whole, because no
/// other user adds items.
pub fn applied(live: &Object, desired: &Object) -> Result<Object, Refusal> {
    if live.uid() != desired.uid() {
        return Err(Refusal::Conflict);
    }
    let mut object = live.clone();
    let (to, from) = (&mut object.metadata, &desired.metadata);
    to.labels
        .get_or_insert_default()
        .extend(from.labels.clone().unwrap_or_default());
    to.annotations
        .get_or_insert_default()
        .extend(from.annotations.clone().unwrap_or_default());
    if let Some(owners) = &from.owner_references {
        let others = to.owner_references.take().unwrap_or_default();
        let kept = others
            .into_iter()
            .filter(|other| !owners.iter().any(|owner| owner.uid == other.uid));
        to.owner_references = Some(kept.chain(owners.clone()).collect());
    }
    overlay(&mut object.content, &desired.content);
    Ok(changed(live, object))
}

/// Performs a replacing update of everything except the status, if the object still has the observed version. Returns None if the
/// update removes the last finalizer of a Terminating object.
pub fn replaced(live: &Object, object: &Object) -> Result<Option<Object>, Refusal> {
    let seen = |object: &Object| (object.metadata.uid.clone(), object.metadata.resource_version.clone());
    if seen(live) != seen(object) {
        return Err(Refusal::Conflict);
    }
    let had = live.metadata.finalizers.clone().unwrap_or_default();
    let adds = object
        .metadata
        .finalizers
        .iter()
        .flatten()
        .any(|name| !had.contains(name));
    if adds && live.is_terminating() {
        return Err(Refusal::Invalid);
    }
    let mut object = object.clone();
    match live.content.get("status") {
        Some(status) => object.content.insert("status".into(), status.clone()),
        None => object.content.remove("status"),
    };
    Ok(unless_gone(changed(live, object)))
}

/// Performs a deletion. Returns None if the object is gone.
pub fn deleted(live: &Object) -> Option<Object> {
    let mut object = live.clone();
    if !object.is_terminating() {
        object.metadata.deletion_timestamp = Some(Time(NOW));
        // As in a real API server, a deletion increments the generation.
        raise(&mut object);
    }
    unless_gone(object)
}

/// Adds or removes Slipway's finalizer. Returns None if the object is gone.
pub fn with_finalizers(live: &Object, others: &[String], held: bool) -> Result<Option<Object>, Refusal> {
    if held && live.is_terminating() {
        return Err(Refusal::Invalid);
    }
    let mut object = live.clone();
    let mut finalizers = others.to_vec();
    finalizers.extend(held.then(|| FINALIZER.to_owned()));
    object.metadata.finalizers = Some(finalizers).filter(|finalizers| !finalizers.is_empty());
    Ok(unless_gone(object))
}

/// Performs a change by a user, without changes of the status.
pub fn edited(live: &Object, change: impl FnOnce(&mut Object)) -> Option<Object> {
    let mut object = live.clone();
    change(&mut object);
    unless_gone(changed(live, object))
}

fn unless_gone(object: Object) -> Option<Object> {
    let held = object
        .metadata
        .finalizers
        .as_ref()
        .is_some_and(|finalizers| !finalizers.is_empty());
    // Namespaces and pods end in other steps.
    (!object.is_terminating() || held || matches!(object.kind, Kind::Namespace | Kind::Pod)).then_some(object)
}

/// Increments the generation if the content has changed.
fn changed(live: &Object, mut object: Object) -> Object {
    let without_status = |object: &Object| {
        let mut content = object.content.clone();
        content.remove("status");
        content
    };
    if without_status(live) != without_status(&object) {
        raise(&mut object);
    }
    object
}

fn raise(object: &mut Object) {
    let generation = object.metadata.generation.unwrap_or(1);
    match object.kind {
        // The generations of the user's objects are counted, because the persisted state of copies contains the generation.
        Kind::ExtensionService if object.label(labels::OWNER_NAME).is_none() => {
            object.metadata.generation = Some(generation + 1);
            // The age of these objects is the age of the generation, as in the operator's cache.
            object.metadata.creation_timestamp = Some(Time(NOW));
        }
        // No actor reads a verdict on another generation than the current generation.
        Kind::ExtensionService => {
            object.metadata.generation = Some(2);
            object.content.remove("status");
        }
        // Contour's template names the generation. The number of alterations by other users is limited.
        Kind::ContourConfiguration => object.metadata.generation = Some(generation + 1),
        Kind::ContourDeployment | Kind::Namespace | Kind::Pod => {}
        _ => {
            object.metadata.generation = Some(2);
            if let Some(observed) = object
                .content
                .get_mut("status")
                .and_then(|status| status.get_mut("observedGeneration"))
            {
                *observed = json!(1);
            }
        }
    }
}

/// Replaces the live values with the desired values.
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
