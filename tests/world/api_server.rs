//! A simulated API server with everything that can influence a plan: uids, versions, generations, finalizers, defaults, and
//! ownership of fields.

use std::collections::BTreeMap;

use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use serde_json::{Map, Value, json};
use slipway::api::vocabulary::FINALIZER;
use slipway::plan::{Key, Kind, Object, Target};

/// The creator of an object.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum By {
    /// Slipway. The managed fields keep an entry of the creation until an apply takes over the entry.
    Slipway,
    /// Anyone else.
    Others,
}

/// The reason for which a request is refused.
#[derive(Debug)]
pub enum Refusal {
    AlreadyExists,
    NotFound,
    Conflict,
    NamespaceTerminating,
    Invalid(String),
}

/// The maximum size of all annotations of an object together, in bytes.
pub const MOST_ANNOTATIONS: usize = 256 * 1024;

/// The store of the API server.
#[derive(Clone)]
pub struct ApiServer {
    /// The current time.
    pub now: Timestamp,
    /// All objects that exist.
    pub objects: BTreeMap<Key, Object>,
    /// A mutating webhook: changes each object before the API server stores the object.
    pub webhook: Option<fn(&mut Object)>,
    /// The time at which each object received its current generation.
    pub unchanged_since: BTreeMap<Key, Timestamp>,
    /// The fields of each object that Slipway's applies own.
    applied: BTreeMap<Key, Value>,
    /// The fields of each object that Slipway's creation owns, until an apply takes over the fields.
    created: BTreeMap<Key, Value>,
    version: u64,
}

impl ApiServer {
    pub fn new() -> Self {
        Self {
            now: "2026-11-23T01:20:00Z".parse().expect("a time"),
            objects: BTreeMap::new(),
            webhook: None,
            unchanged_since: BTreeMap::new(),
            applied: BTreeMap::new(),
            created: BTreeMap::new(),
            version: 0,
        }
    }

    pub fn get(&self, kind: Kind, namespace: &str, name: &str) -> Option<&Object> {
        self.objects.get(&Key::new(kind, namespace, name))
    }

    pub fn of_kind(&self, kind: Kind) -> impl Iterator<Item = &Object> {
        self.objects.values().filter(move |object| object.kind == kind)
    }

    fn next(&mut self) -> String {
        self.version += 1;
        self.version.to_string()
    }

    /// Creates an object.
    pub fn create(&mut self, mut object: Object, by: By) -> Result<(), Refusal> {
        let key = object.key();
        if self.objects.contains_key(&key) {
            return Err(Refusal::AlreadyExists);
        }
        if object.kind.is_namespaced() {
            match self.get(Kind::Namespace, "", object.namespace()) {
                None => return Err(Refusal::NotFound),
                Some(namespace) if namespace.is_terminating() => return Err(Refusal::NamespaceTerminating),
                Some(_) => {}
            }
        }
        if by == By::Slipway {
            self.created.insert(key.clone(), fields(&object));
            object.creation_entry = Some(0);
        }
        if let Some(webhook) = self.webhook {
            webhook(&mut object);
        }
        defaults(&mut object);
        let version = self.next();
        object.metadata.uid.get_or_insert(format!("u-{version}"));
        object.metadata.resource_version = Some(version);
        object.metadata.generation = Some(1);
        object.metadata.creation_timestamp = Some(Time(self.now));
        self.unchanged_since.insert(key.clone(), self.now);
        self.objects.insert(key, object);
        Ok(())
    }

    /// Performs a forced server-side apply: Slipway's values replace the live values. Removes fields that Slipway owned and no
    /// longer applies.
    pub fn apply(&mut self, object: &Object, adopt: Option<&(usize, String)>) -> Result<(), Refusal> {
        let key = object.key();
        let live = self.objects.get(&key).ok_or(Refusal::NotFound)?;
        if live.metadata.uid != object.metadata.uid {
            return Err(Refusal::Conflict);
        }
        if let Some((_, version)) = adopt
            && live.metadata.resource_version.as_ref() != Some(version)
        {
            return Err(Refusal::Conflict);
        }
        let mut owned = self.applied.remove(&key).unwrap_or_else(|| json!({}));
        if adopt.is_some()
            && let Some(created) = self.created.remove(&key)
        {
            merge(&mut owned, &json!({}), &created);
        }
        let desired = fields(object);
        let mut merged = live.to_json();
        merge(&mut merged, &owned, &desired);
        self.applied.insert(key.clone(), desired);
        let mut object = Object::from_json(key.kind, merged).expect("an object");
        object.creation_entry = live.creation_entry.filter(|_| adopt.is_none());
        self.store(object);
        Ok(())
    }

    /// Performs a replacing update of everything except the status, if the object still has the observed version.
    pub fn replace(&mut self, object: &Object) -> Result<(), Refusal> {
        let live = self.objects.get(&object.key()).ok_or(Refusal::NotFound)?;
        if (&live.metadata.uid, &live.metadata.resource_version)
            != (&object.metadata.uid, &object.metadata.resource_version)
        {
            return Err(Refusal::Conflict);
        }
        let had = live.metadata.finalizers.clone().unwrap_or_default();
        let added = object
            .metadata
            .finalizers
            .iter()
            .flatten()
            .find(|name| !had.contains(name));
        if let Some(name) = added.filter(|_| live.is_terminating()) {
            return Err(Refusal::Invalid(format!(
                "finalizer {name} can't be added to a terminating object"
            )));
        }
        let annotations = object.metadata.annotations.iter().flatten();
        if annotations.map(|(key, value)| key.len() + value.len()).sum::<usize>() > MOST_ANNOTATIONS {
            let message = format!("metadata.annotations: Too long: may not be more than {MOST_ANNOTATIONS} bytes");
            return Err(Refusal::Invalid(message));
        }
        let mut object = object.clone();
        object.metadata.managed_fields = None;
        match live.content.get("status") {
            Some(status) => object.content.insert("status".into(), status.clone()),
            None => object.content.remove("status"),
        };
        self.store(object);
        Ok(())
    }

    /// Deletes an object if the object still has this uid. A pod, and an object with finalizers, only becomes Terminating.
    pub fn delete(&mut self, key: &Key, uid: &str) -> Result<(), Refusal> {
        let now = self.now;
        let version = self.next();
        let live = self.objects.get_mut(key).ok_or(Refusal::NotFound)?;
        if live.uid() != uid {
            return Err(Refusal::Conflict);
        }
        let held = live
            .metadata
            .finalizers
            .as_ref()
            .is_some_and(|finalizers| !finalizers.is_empty());
        if !held && !ends_by_itself(key.kind) {
            self.forget(key);
        } else if !live.is_terminating() {
            live.metadata.deletion_timestamp = Some(Time(now));
            live.metadata.resource_version = Some(version);
            // As in a real API server, a deletion increments the generation.
            live.metadata.generation = live.metadata.generation.map(|generation| generation + 1);
        }
        Ok(())
    }

    /// Adds Slipway's finalizer to an object, or removes the finalizer.
    pub fn set_finalizer(&mut self, target: &Target, held: bool) -> Result<(), Refusal> {
        let live = self.objects.get(&target.key).ok_or(Refusal::NotFound)?;
        if live.uid() != target.uid || live.metadata.resource_version.as_deref() != Some(&target.resource_version) {
            return Err(Refusal::Conflict);
        }
        if held && live.is_terminating() {
            return Err(Refusal::Invalid(
                "a finalizer can't be added to a terminating object".into(),
            ));
        }
        let mut object = live.clone();
        let mut finalizers = target.other_finalizers.clone();
        finalizers.extend(held.then(|| FINALIZER.to_owned()));
        object.metadata.finalizers = Some(finalizers);
        self.store(object);
        Ok(())
    }

    /// Performs a change by another user, including changes of the status.
    pub fn edit(&mut self, key: &Key, change: impl FnOnce(&mut Object)) {
        let mut object = self
            .objects
            .get(key)
            .unwrap_or_else(|| panic!("{key} does not exist"))
            .clone();
        change(&mut object);
        self.store(object);
    }

    /// Removes an object regardless of its finalizers.
    pub fn forget(&mut self, key: &Key) {
        self.objects.remove(key);
        self.applied.remove(key);
        self.created.remove(key);
    }

    fn store(&mut self, mut object: Object) {
        if let Some(webhook) = self.webhook {
            webhook(&mut object);
        }
        defaults(&mut object);
        let key = object.key();
        let live = &self.objects[&key];
        let held = object
            .metadata
            .finalizers
            .as_ref()
            .is_some_and(|finalizers| !finalizers.is_empty());
        if object.is_terminating() && !held && !ends_by_itself(key.kind) {
            return self.forget(&key);
        }
        object.metadata.generation = live.metadata.generation;
        object
            .metadata
            .resource_version
            .clone_from(&live.metadata.resource_version);
        if *live == object {
            return;
        }
        let mut without_status = [live.content.clone(), object.content.clone()];
        for content in &mut without_status {
            content.remove("status");
        }
        if without_status[0] != without_status[1] {
            object.metadata.generation = live.metadata.generation.map(|generation| generation + 1);
            self.unchanged_since.insert(key.clone(), self.now);
        }
        object.metadata.resource_version = Some(self.next());
        self.objects.insert(key, object);
    }
}

/// Reports whether another process ends an object of this kind: the containers of a pod, or the deletion of everything in a
/// namespace.
fn ends_by_itself(kind: Kind) -> bool {
    matches!(kind, Kind::Pod | Kind::Namespace)
}

/// Returns the fields that a writer sends, without the fields that only identify the object.
fn fields(object: &Object) -> Value {
    let mut json = object.to_json();
    if let Some(metadata) = json["metadata"].as_object_mut() {
        metadata.retain(|key, _| ["labels", "annotations", "finalizers", "ownerReferences"].contains(&key.as_str()));
    }
    json
}

/// Merges as server-side apply does: the desired values replace the live values, and fields that are owned but not desired are
/// removed.
fn merge(live: &mut Value, owned: &Value, desired: &Value) {
    match (live, desired) {
        (Value::Object(live), Value::Object(desired)) => {
            for (key, value) in owned
                .as_object()
                .into_iter()
                .flatten()
                .filter(|(key, _)| !desired.contains_key(*key))
            {
                let empty = match live.get_mut(key) {
                    Some(inner @ Value::Object(_)) => {
                        merge(inner, value, &json!({}));
                        inner.as_object().is_some_and(Map::is_empty)
                    }
                    _ => true,
                };
                if empty {
                    live.remove(key);
                }
            }
            for (key, value) in desired {
                let before = owned.get(key).cloned().unwrap_or_default();
                // Replaced as a whole (a binding's `listType=atomic`, a Service's and a pod's `mapType=atomic`).
                if ["subjects", "selector", "nodeSelector"].contains(&key.as_str()) {
                    live.remove(key);
                }
                merge(live.entry(key.clone()).or_insert(Value::Null), &before, value);
            }
        }
        (Value::Array(live), Value::Array(desired)) if identity(desired).is_some() => {
            let key = identity(desired).expect("the guard checked the identity");
            let item = |items: &[Value], id: &Value| items.iter().position(|item| item[key] == *id);
            let owned = owned.as_array().cloned().unwrap_or_default();
            live.retain(|there| item(&owned, &there[key]).is_none() || item(desired, &there[key]).is_some());
            for wanted in desired {
                match item(live, &wanted[key]) {
                    Some(index) => {
                        let before = item(&owned, &wanted[key])
                            .map(|index| owned[index].clone())
                            .unwrap_or_default();
                        merge(&mut live[index], &before, wanted);
                    }
                    None => live.push(wanted.clone()),
                }
            }
        }
        (live, desired) => *live = desired.clone(),
    }
}

/// Returns the key that identifies the items of a list for apply, or None if apply replaces the list.
fn identity(items: &[Value]) -> Option<&'static str> {
    let keys = ["uid", "mountPath", "name"];
    keys.into_iter()
        .find(|key| !items.is_empty() && items.iter().all(|item| item.get(key).is_some()))
}

/// Sets the defaults of the API server, and removes empty values that the API server does not store.
fn defaults(object: &mut Object) {
    if object.kind == Kind::Lease {
        object.content.entry("spec").or_insert_with(|| json!({}));
    }
    let Some(Value::Object(spec)) = object.content.get_mut("spec") else {
        return;
    };
    match object.kind {
        Kind::Service => {
            default(spec, "clusterIP", "10.96.0.1".into());
            default(spec, "type", "ClusterIP".into());
            default(spec, "sessionAffinity", "None".into());
            for port in spec
                .get_mut("ports")
                .and_then(Value::as_array_mut)
                .into_iter()
                .flatten()
            {
                let Value::Object(port) = port else { continue };
                let number = port["port"].clone();
                default(port, "targetPort", number);
                default(port, "protocol", "TCP".into());
            }
        }
        Kind::Deployment | Kind::DaemonSet => {
            default(spec, "revisionHistoryLimit", 10.into());
            if let Some(Value::Object(pod)) = spec.get_mut("template").and_then(|template| template.get_mut("spec")) {
                default(pod, "restartPolicy", "Always".into());
                for container in pod
                    .get_mut("containers")
                    .and_then(Value::as_array_mut)
                    .into_iter()
                    .flatten()
                {
                    container["terminationMessagePolicy"] = "File".into();
                    if let Some(cpu) = container
                        .pointer_mut("/resources/requests/cpu")
                        .filter(|cpu| **cpu == "1000m")
                    {
                        *cpu = "1".into();
                    }
                }
            }
            clean(spec);
        }
        _ => {}
    }
}

fn default(fields: &mut Map<String, Value>, key: &str, value: Value) {
    fields.entry(key.to_owned()).or_insert(value);
}

fn clean(fields: &mut Map<String, Value>) {
    for value in fields.values_mut() {
        match value {
            Value::Object(inner) => clean(inner),
            Value::Array(items) => items.iter_mut().filter_map(Value::as_object_mut).for_each(clean),
            _ => {}
        }
    }
    // An empty `emptyDir: {}` is significant.
    fields.retain(|key, value| key == "emptyDir" || !matches!(value, Value::Array(items) if items.is_empty()));
}
