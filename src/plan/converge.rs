//! The write that brings a live object to the desired state.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ManagedFieldsEntry, ObjectMeta};
use serde_json::{Map, Value};

use super::compare::compare;
use super::object::{Kind, Object};
use super::write::{Fields, Write};
use crate::api::vocabulary::{FINALIZER, annotations};

/// Returns the write that brings the live object to the desired state. With `is_bare`, a replacing update leaves out what others added to
/// the object. Their additions may be so large that the API server accepts no further addition.
pub fn write(mut object: Object, live: &Object, fields: Fields, is_bare: bool) -> Write {
    let replacement = || {
        let mut replacement = live.clone();
        if is_bare {
            strip(&mut replacement.metadata);
        }
        merge_metadata(&mut replacement.metadata, &object.metadata);
        replacement
    };
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
            let mut replacement = replacement();
            if let Some(value) = object.content.get(field) {
                replacement.content.insert(field.to_owned(), value.clone());
            }
            Write::Replace(replacement)
        }
        Fields::Sealed { absent } => {
            let mut replacement = replacement();
            overwrite(&mut replacement.content, &object.content);
            for pointer in absent {
                remove(&mut replacement.content, pointer);
            }
            Write::Replace(replacement)
        }
    }
}

/// Removes everything that others may have added to an object. Empty entries of managed fields reset them (`isResetManagedFields`,
/// apimachinery 0.34).
fn strip(metadata: &mut ObjectMeta) {
    metadata.labels = None;
    metadata.annotations = None;
    metadata.owner_references = None;
    metadata
        .finalizers
        .iter_mut()
        .for_each(|finalizers| finalizers.retain(|name| name == FINALIZER));
    metadata.managed_fields = Some(vec![ManagedFieldsEntry::default()]);
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

/// Returns the replacement of an object in which another user changed the number of one of Slipway's ports. Server-side apply identifies a
/// port by number and protocol. It would add Slipway's port beside the changed one, and the API server rejects two ports of the same name.
fn renumbered(desired: &Object, live: &Object) -> Option<Object> {
    let list = |value: Option<&Value>| value.and_then(Value::as_array).cloned().unwrap_or_default();
    let mut replacement = live.clone();
    match desired.kind {
        Kind::Service => {
            let [ours, theirs] = [desired, live].map(|object| list(object.at("/spec/ports")));
            let ports = ports(&ours, &theirs, "port")?;
            merge_metadata(&mut replacement.metadata, &desired.metadata);
            overwrite(&mut replacement.content, &desired.content);
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
            // The rest of the object is applied after this replacement.
            replacement.content["spec"]["template"]["spec"]["containers"] = Value::Array(containers);
            if !compare(desired, &replacement, Fields::Shared { initial: &[] }).is_empty() {
                replacement.annotate(annotations::APPLIED, String::new());
            }
        }
        _ => return None,
    }
    Some(replacement)
}

/// Returns Slipway's ports in place of live ports with the same names, followed by the ports of others. Returns None if no port conflicts.
/// Node ports are kept, unless Slipway sets them.
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
        let same_port = live.iter().find(|port| same("name", &ours, port));
        if let Some(node_port) = same_port.and_then(|port| port.get("nodePort"))
            && ours.get("nodePort").is_none()
        {
            ours["nodePort"] = node_port.clone();
        }
        ours
    });
    Some(ours.chain(theirs.cloned()).collect())
}

/// Overwrites live values with Slipway's values.
fn overwrite(live: &mut Map<String, Value>, desired: &Map<String, Value>) {
    for (key, value) in desired {
        match (live.get_mut(key), value) {
            (Some(Value::Object(live)), Value::Object(desired)) => overwrite(live, desired),
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

/// Adopts the live values of the fields that Slipway sets only at creation.
pub fn adopt_initial(object: &mut Object, live: &Object, fields: Fields) {
    let Fields::Shared { initial } = fields else { return };
    for pointer in initial {
        adopt(&mut object.content, &live.content, pointer);
    }
}

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

#[cfg(test)]
mod tests;
