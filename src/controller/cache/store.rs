//! A watched set of objects, and the effect of an event on the set.

use std::collections::{BTreeMap, BTreeSet, HashMap, VecDeque};
use std::sync::Arc;
use std::time::Instant;

use jiff::Timestamp;
use kube::runtime::watcher::Event;
use serde_json::Value;

use super::{Change, LATE_ANSWERS, MOST, Scope, StoreId, is_stray};
use crate::api::vocabulary::labels;
use crate::controller::decode::SERVICE_NAME;
use crate::plan::{Key, Kind, NamespacedName, Object, has_ready_endpoint};

/// A watched set of objects.
#[derive(Default)]
pub struct Store {
    /// The number of the watch that feeds the set. Events of earlier watches are ignored, because they lack the names that were added
    /// since.
    pub watch: u64,
    /// The names that are asked for in a set of [`Scope::AllIn`]. For EndpointSlices, the names of their Services.
    pub wanted: BTreeSet<String>,
    pub objects: HashMap<Key, Arc<Object>>,
    pub by_owner: HashMap<NamespacedName, BTreeSet<Key>>,
    /// The time since which each object has been observed in its current generation.
    pub unchanged_since: HashMap<Key, Timestamp>,
    pub synced: bool,
    /// The objects that the answer to a request of one ContourDeployment has changed. The other ContourDeployments that depend on such an
    /// object are woken when the event arrives.
    pub untold: BTreeSet<Key>,
    /// The last written status of each ContourDeployment.
    pub statuses: HashMap<Key, Value>,
    /// The number of EndpointSlices with a ready endpoint, by Service.
    pub ready: BTreeMap<String, usize>,
    /// The objects of a list in progress.
    pub incoming: Option<Vec<Object>>,
    /// The objects that recently left the set, with uid and version. The answer to a write may arrive after the event of a later deletion.
    /// Without this list, such an answer would add the deleted object again.
    left: VecDeque<(Instant, String, u64)>,
}

impl Store {
    /// Applies an event. Returns the changes.
    pub fn take(&mut self, id: &StoreId, event: Event<Object>) -> Vec<Change> {
        match event {
            Event::Init => self.incoming = Some(Vec::new()),
            // An object that nobody asks for counts as absent.
            Event::InitApply(object) if !self.takes(id, &object) => {}
            Event::InitApply(object) => self.incoming.get_or_insert_default().push(object),
            Event::InitDone => return self.read(id),
            Event::Apply(object) if self.takes(id, &object) => return self.arrive(id, object),
            Event::Apply(object) | Event::Delete(object)
                if !self.takes(id, &object) && !self.objects.contains_key(&object.key()) =>
            {
                self.untold.remove(&object.key());
            }
            Event::Apply(object) | Event::Delete(object) => return self.leave(id, &object),
        }
        Vec::new()
    }

    /// Completes a list. Returns the objects that were created, changed or deleted.
    fn read(&mut self, id: &StoreId) -> Vec<Change> {
        let mut before = std::mem::take(self);
        (self.watch, self.synced) = (before.watch, true);
        self.wanted = std::mem::take(&mut before.wanted);
        self.left = std::mem::take(&mut before.left);
        self.statuses = std::mem::take(&mut before.statuses);
        for object in before.incoming.take().unwrap_or_default() {
            let (whose, since) = (before.still_whose(&object), before.unchanged_since(&object));
            self.put(object, whose.as_ref(), since);
        }
        if id.kind == Kind::EndpointSlice {
            let services = before.ready.keys().chain(self.ready.keys());
            let changed: BTreeSet<&String> = services
                .filter(|name| before.is_ready(name) != self.is_ready(name))
                .collect();
            return changed.into_iter().map(|name| Change::of_service(id, name)).collect();
        }
        let keys: BTreeSet<&Key> = before
            .objects
            .keys()
            .chain(self.objects.keys())
            .chain(&before.untold)
            .collect();
        let is_other = |key: &&&Key| {
            let same = match (before.objects.get(**key), self.objects.get(**key)) {
                (Some(before), Some(after)) => is_same(before, after),
                (before, after) => before.is_none() && after.is_none(),
            };
            !same || before.untold.contains(**key)
        };
        let others = keys.iter().filter(is_other);
        others
            .map(|key| {
                let mut change = Change::of(key);
                change.see(before.get(key), before.whose(key));
                change.see(self.get(key), self.whose(key));
                change
            })
            .collect()
    }

    /// Adds or updates an object.
    fn arrive(&mut self, id: &StoreId, object: Object) -> Vec<Change> {
        let key = object.key();
        let before = self.objects.get(&key).cloned();
        if before.as_ref().is_some_and(|before| version(before) > version(&object)) {
            return Vec::new();
        }
        let since = self.unchanged_since(&object);
        if id.kind == Kind::EndpointSlice {
            return self.whoever_is_ready(id, &object, |store, object| {
                store.put(object.clone(), None, since);
            });
        }
        let is_same = before.as_ref().is_some_and(|before| {
            is_same(before, &object)
                // The operator's own status, whose event may arrive before the answer to the request.
                || (is_same_but_status(before, &object) && self.is_our_word(&object))
        });
        let mut change = Change::of(&key);
        change.see(before.as_deref(), self.whose(&key));
        let whose = self.still_whose(&object);
        self.put(object, whose.as_ref(), since);
        change.see(self.get(&key), self.whose(&key));
        let is_told = !self.untold.remove(&key);
        match (is_same, is_told) {
            (true, true) => return Vec::new(),
            // The owner already knows this state.
            (true, false) if matches!(id.scope, Scope::AllIn(_)) => change.owners.clear(),
            _ => {}
        }
        vec![change]
    }

    /// Removes an object.
    fn leave(&mut self, id: &StoreId, object: &Object) -> Vec<Change> {
        let key = object.key();
        // The cache may already contain a successor with the same name that Slipway has written.
        let is_newer = |known: &Arc<Object>| known.uid() != object.uid() && version(known) > version(object);
        if self.objects.get(&key).is_some_and(is_newer) {
            return Vec::new();
        }
        self.note_left(object);
        if id.kind == Kind::EndpointSlice {
            return self.whoever_is_ready(id, object, |store, object| drop(store.remove(&object.key())));
        }
        let mut change = Change::of(&key);
        change.see(self.get(&key), self.whose(&key));
        change.see(Some(object), owner(object));
        self.remove(&key);
        self.untold.remove(&key);
        vec![change]
    }

    /// Applies a change of an EndpointSlice. Returns the Services whose readiness has changed.
    fn whoever_is_ready(&mut self, id: &StoreId, slice: &Object, act: impl FnOnce(&mut Self, &Object)) -> Vec<Change> {
        let before = self.objects.get(&slice.key()).cloned();
        let services = [before.as_deref(), Some(slice)].into_iter().flatten();
        let services: BTreeSet<String> = services.filter_map(service).map(str::to_owned).collect();
        let were_ready: Vec<bool> = services.iter().map(|name| self.is_ready(name)).collect();
        act(self, slice);
        let services = services.iter().zip(were_ready);
        let changed = services.filter(|(name, was_ready)| self.is_ready(name) != *was_ready);
        changed.map(|(name, _)| Change::of_service(id, name)).collect()
    }

    /// Reports whether the status of a ContourDeployment is the last written one.
    fn is_our_word(&self, object: &Object) -> bool {
        let written = self.statuses.get(&object.key());
        written.is_some() && written == object.content.get("status")
    }

    fn get(&self, key: &Key) -> Option<&Object> {
        self.objects.get(key).map(AsRef::as_ref)
    }

    fn is_ready(&self, service: &str) -> bool {
        self.ready.contains_key(service)
    }

    /// Reports whether the set keeps an object.
    pub fn takes(&self, id: &StoreId, object: &Object) -> bool {
        let Scope::AllIn(_) = id.scope else {
            return !is_stray(id, object);
        };
        let is_wanted = match object.kind {
            Kind::EndpointSlice => service(object).is_some_and(|name| self.wanted.contains(name)),
            // A stand-in that lost its labels is not referenced by name.
            Kind::ExtensionService => self.wanted.contains(object.name()) || object.has_our_finalizer(),
            _ => self.wanted.contains(object.name()),
        };
        let count = self.incoming.as_ref().map_or(self.objects.len(), Vec::len);
        is_wanted && (count < MOST || self.objects.contains_key(&object.key()))
    }

    /// Records for some time that this object has left the set.
    fn note_left(&mut self, object: &Object) {
        while self
            .left
            .front()
            .is_some_and(|(when, ..)| when.elapsed() > LATE_ANSWERS)
        {
            self.left.pop_front();
        }
        self.left
            .push_back((Instant::now(), object.uid().to_owned(), version(object)));
    }

    /// Reports whether this state is older than the moment at which the object left the set. An object that only lost its labels still
    /// exists, and later reads return the version at which it left the set, or a later one.
    pub fn has_left(&self, object: &Object) -> bool {
        self.left
            .iter()
            .any(|(_, uid, at)| uid == object.uid() && version(object) < *at)
    }

    /// Returns the owner of an object: the owner in the labels, or else the owner for which the object is stored.
    pub fn whose(&self, key: &Key) -> Option<NamespacedName> {
        let filed = || self.by_owner.iter().find(|(_, keys)| keys.contains(key));
        owner(self.objects.get(key)?).or_else(|| filed().map(|(owner, _)| owner.clone()))
    }

    /// Returns the owner of an object that only lost its labels. No other user would remove Slipway's finalizer from such an object.
    fn still_whose(&self, object: &Object) -> Option<NamespacedName> {
        let key = object.key();
        let is_known = self.objects.get(&key).is_some_and(|known| known.uid() == object.uid());
        let may_be_filed = is_known && object.has_our_finalizer() && owner(object).is_none();
        may_be_filed.then(|| self.whose(&key)).flatten()
    }

    /// Returns the time since which the generation of this object has been observed. The object is not stored yet.
    pub fn unchanged_since(&self, object: &Object) -> Timestamp {
        let key = object.key();
        let generation = |object: &Object| (object.uid().to_owned(), object.metadata.generation);
        let known = self.objects.get(&key);
        let is_known = known.is_some_and(|known| generation(known) == generation(object));
        let since = self.unchanged_since.get(&key).filter(|_| is_known);
        since.copied().unwrap_or_else(Timestamp::now)
    }

    pub fn put(&mut self, object: Object, whose: Option<&NamespacedName>, since: Timestamp) {
        let key = object.key();
        let status = self.statuses.remove(&key);
        self.remove(&key);
        self.statuses.extend(status.map(|status| (key.clone(), status)));
        self.unchanged_since.insert(key.clone(), since);
        if let Some(owner) = owner(&object).or_else(|| whose.cloned()) {
            self.by_owner.entry(owner).or_default().insert(key.clone());
        }
        if let Some(service) = ready_service(&object) {
            *self.ready.entry(service.to_owned()).or_default() += 1;
        }
        self.objects.insert(key, Arc::new(object));
    }

    pub fn remove(&mut self, key: &Key) -> Option<Arc<Object>> {
        let object = self.objects.remove(key)?;
        self.unchanged_since.remove(key);
        self.statuses.remove(key);
        if let Some(service) = ready_service(&object)
            && let Some(count) = self.ready.get_mut(service)
        {
            *count -= 1;
            if *count == 0 {
                self.ready.remove(service);
            }
        }
        // An object may be stored for an owner that its labels do not name, because another user removed the labels. In this rare case,
        // search all owners.
        let filed = owner(&object).filter(|owner| self.by_owner.get(owner).is_some_and(|keys| keys.contains(key)));
        match filed {
            Some(owner) => {
                let keys = self.by_owner.entry(owner.clone()).or_default();
                keys.remove(key);
                if keys.is_empty() {
                    self.by_owner.remove(&owner);
                }
            }
            None => self.by_owner.retain(|_, keys| {
                keys.remove(key);
                !keys.is_empty()
            }),
        }
        Some(object)
    }
}

impl Change {
    fn of(key: &Key) -> Self {
        Self {
            namespace: key.namespace.clone(),
            name: key.name.clone(),
            owners: BTreeSet::new(),
            is_nobodys: false,
        }
    }

    fn of_service(id: &StoreId, name: &str) -> Self {
        let (Scope::AllIn(namespace) | Scope::OwnedIn(namespace)) = &id.scope else {
            return Self::of(&Key::new(Kind::Service, "", name));
        };
        Self::of(&Key::new(Kind::Service, namespace, name))
    }

    /// Adds a former or present state of the object, and its owner.
    fn see(&mut self, object: Option<&Object>, whose: Option<NamespacedName>) {
        let Some(object) = object else { return };
        self.is_nobodys |= object.has_our_finalizer() && whose.is_none();
        self.owners.extend(whose);
    }
}

/// Returns the Service of an EndpointSlice.
fn service(slice: &Object) -> Option<&str> {
    slice.label(SERVICE_NAME)
}

/// Returns the Service of an EndpointSlice, if the EndpointSlice has a ready endpoint.
fn ready_service(object: &Object) -> Option<&str> {
    let is_ready = object.kind == Kind::EndpointSlice && has_ready_endpoint(object);
    service(object).filter(|_| is_ready)
}

/// Returns the owner in the labels of an object.
pub fn owner(object: &Object) -> Option<NamespacedName> {
    Some(NamespacedName::new(
        object.label(labels::OWNER_NAMESPACE)?,
        object.label(labels::OWNER_NAME)?,
    ))
}

/// Reports whether two states of an object differ only in their versions.
fn is_same(before: &Object, after: &Object) -> bool {
    is_same_metadata(before, after) && before.content == after.content
}

/// Reports whether two states of a ContourDeployment differ only in their versions and statuses.
pub fn is_same_but_status(before: &Object, after: &Object) -> bool {
    fn rest(object: &Object) -> impl Iterator<Item = (&String, &Value)> {
        object.content.iter().filter(|(field, _)| *field != "status")
    }
    before.kind == Kind::ContourDeployment && is_same_metadata(before, after) && rest(before).eq(rest(after))
}

fn is_same_metadata(before: &Object, after: &Object) -> bool {
    let mut metadata = before.metadata.clone();
    metadata.resource_version.clone_from(&after.metadata.resource_version);
    metadata == after.metadata
}

/// Returns the version of an object as a number. Versions of one resource grow (Kubernetes API conventions; every known API server uses
/// numbers). A version that is not a number counts as the newest, because processing an object twice is better than missing it.
pub fn version(object: &Object) -> u64 {
    object
        .metadata
        .resource_version
        .as_deref()
        .and_then(|version| version.parse().ok())
        .unwrap_or(u64::MAX)
}
