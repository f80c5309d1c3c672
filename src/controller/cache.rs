//! The objects that the watches have received and that the last writes have returned, by key and by owner.
//!
//! Unlike kube's `Store`, the cache has an index by owner, reports the objects that a relist did not return, and stores the answers to
//! Slipway's own writes. So the next plan observes a write before its watch event arrives.

mod store;

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, RwLock};
use std::time::Duration;

use jiff::Timestamp;
use kube::runtime::watcher::Event;
use serde_json::Value;
use tokio::sync::watch;

use crate::plan::{Key, Kind, NamespacedName, Object, Owner};
pub use store::owner;
use store::{Store, is_same_but_status, version};

/// The maximum delay of the answer to a write. The delay is longer than the timeout of any call.
const LATE_ANSWERS: Duration = Duration::from_secs(30);

/// The maximum number of objects of a kind in one referenced namespace. Other users decide how many objects exist there. A user who creates
/// more objects hides the objects after this number. A user with this right may decide about these objects anyway.
const MOST: usize = 4096;

/// A watched set of objects.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct StoreId {
    /// The kind of the objects.
    pub kind: Kind,
    /// The objects of this kind that belong to the set.
    pub scope: Scope,
}

/// The objects of a kind that belong to a set.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Scope {
    /// All objects.
    All,
    /// The objects with Slipway's labels.
    Owned,
    /// The objects of one namespace that a ContourDeployment references, and the objects with Slipway's finalizer there.
    AllIn(String),
    /// The objects of one namespace with Slipway's labels.
    OwnedIn(String),
}

/// The changes of a set.
#[derive(Clone, Debug)]
pub struct Touched {
    /// The set.
    pub set: StoreId,
    /// The objects that were created, changed or deleted.
    pub changes: Vec<Change>,
    /// Whether the set was unread before.
    pub is_first_read: bool,
}

/// A changed object. In a set of EndpointSlices: a Service whose readiness has changed.
#[derive(Clone, Debug)]
pub struct Change {
    /// The namespace. Empty for cluster-scoped kinds.
    pub namespace: String,
    /// The name.
    pub name: String,
    /// The present and former owners.
    pub owners: BTreeSet<NamespacedName>,
    /// Whether the object has or had Slipway's finalizer while its owner was unknown.
    pub is_nobodys: bool,
}

/// The sets.
pub struct Cache {
    stores: RwLock<HashMap<StoreId, Store>>,
    synced: watch::Sender<u64>,
    watches: AtomicU64,
}

impl Default for Cache {
    fn default() -> Self {
        Self {
            stores: RwLock::default(),
            synced: watch::Sender::new(0),
            watches: AtomicU64::default(),
        }
    }
}

impl Cache {
    /// Begins a watch of a set. The set is unread until the watch has listed it, and keeps its objects until then. Returns the number of
    /// the watch.
    pub fn begin(&self, id: &StoreId) -> u64 {
        let mut stores = self.stores.write().expect("nobody panics with the lock");
        let store = stores.entry(id.clone()).or_default();
        store.watch = self.watches.fetch_add(1, Ordering::Relaxed) + 1;
        store.synced = false;
        store.incoming = None;
        store.watch
    }

    /// Sets the wanted names of a set of [`Scope::AllIn`], and forgets objects with other names. Returns true if a name is new. The set
    /// then counts as unread, and must be listed again.
    pub fn want(&self, id: &StoreId, wanted: BTreeSet<String>) -> bool {
        let mut stores = self.stores.write().expect("nobody panics with the lock");
        let store = stores.entry(id.clone()).or_default();
        if store.wanted == wanted {
            return false;
        }
        let has_grown = !wanted.is_subset(&store.wanted);
        store.wanted = wanted;
        store.synced &= !has_grown;
        let dropped = store.objects.values().filter(|object| !store.takes(id, object));
        for key in dropped.map(|object| object.key()).collect::<Vec<_>>() {
            store.remove(&key);
        }
        has_grown
    }

    /// Applies an event of the watch with this number. Returns the changes, or None if nothing changed.
    pub fn apply(&self, id: &StoreId, watch: u64, event: Event<Object>) -> Option<Touched> {
        let mut stores = self.stores.write().expect("nobody panics with the lock");
        let store = stores.get_mut(id).filter(|store| store.watch == watch)?;
        let is_read = matches!(event, Event::InitDone);
        let is_first_read = is_read && !store.synced;
        let mut changes = store.take(id, event);
        if !is_read {
            for change in &mut changes {
                forget_told(&stores, id, change);
            }
        }
        drop(stores);
        if is_read {
            self.synced.send_modify(|count| *count += 1);
        }
        (is_first_read || !changes.is_empty()).then(|| Touched {
            set: id.clone(),
            changes,
            is_first_read,
        })
    }

    /// Stores the API server's answer to a write, or to a read of one object, for this owner.
    pub fn note(&self, object: &Object, whose: &NamespacedName) {
        let mut stores = self.stores.write().expect("nobody panics with the lock");
        for (id, store) in stores.iter_mut().filter(|(id, _)| id.holds(object)) {
            let is_shared = matches!(id.scope, Scope::AllIn(_));
            if is_shared && !store.takes(id, object) {
                continue;
            }
            let known = store.objects.get(&object.key());
            if known.is_none_or(|known| version(known) <= version(object)) && !store.has_left(object) {
                // The answer to a status update may contain a change of the spec that the plan did not know.
                let is_root = object.kind == Kind::ContourDeployment;
                let is_edited = is_root && known.is_some_and(|known| !is_same_but_status(known, object));
                let since = store.unchanged_since(object);
                store.put(object.clone(), Some(whose), since);
                if is_shared || is_edited || owner(object).is_some_and(|owner| owner != *whose) {
                    store.untold.insert(object.key());
                }
            }
        }
    }

    /// Removes an object that does not exist. With `uid`, removes only the object with this uid.
    pub fn note_gone(&self, key: &Key, uid: Option<&str>) {
        let mut stores = self.stores.write().expect("nobody panics with the lock");
        for (_, store) in stores.iter_mut().filter(|(id, _)| id.kind == key.kind) {
            if store
                .objects
                .get(key)
                .is_some_and(|known| uid.is_none_or(|uid| known.uid() == uid))
            {
                store.remove(key);
                store.untold.insert(key.clone());
            }
        }
    }

    /// Records the status that is about to be written to a ContourDeployment. The event of this write is then not a change.
    pub fn note_status(&self, key: &Key, status: &Value) {
        let mut stores = self.stores.write().expect("nobody panics with the lock");
        let store = stores.get_mut(&StoreId::all(key.kind));
        if let Some(store) = store.filter(|store| store.objects.contains_key(key)) {
            store.statuses.insert(key.clone(), status.clone());
        }
    }

    /// Creates a set without a watch. The set stores answers from now on.
    pub fn open(&self, id: &StoreId) {
        let mut stores = self.stores.write().expect("nobody panics with the lock");
        stores.entry(id.clone()).or_default();
    }

    /// Replaces the objects of this owner in a set of [`Scope::OwnedIn`] without a watch by the listed objects. None: the owner is deleted.
    pub fn note_listed(&self, id: &StoreId, whose: &NamespacedName, objects: Option<Vec<Object>>) {
        let mut stores = self.stores.write().expect("nobody panics with the lock");
        let store = stores.entry(id.clone()).or_default();
        let is_over = objects.is_none();
        store.untold.clear();
        for key in store.by_owner.get(whose).cloned().unwrap_or_default() {
            store.remove(&key);
        }
        for object in objects.into_iter().flatten().filter(|object| !is_stray(id, object)) {
            let since = store.unchanged_since(&object);
            store.put(object, None, since);
        }
        if is_over && store.objects.is_empty() {
            stores.remove(id);
        }
    }

    /// Returns the number of the watch that feeds a set.
    #[cfg(test)]
    pub fn watch(&self, id: &StoreId) -> u64 {
        let stores = self.stores.read().expect("nobody panics with the lock");
        stores.get(id).map_or(0, |store| store.watch)
    }

    /// Forgets a set that is no longer watched.
    pub fn forget(&self, id: &StoreId) {
        self.stores.write().expect("nobody panics with the lock").remove(id);
    }

    /// Returns one object of a set.
    pub fn get(&self, id: &StoreId, key: &Key) -> Option<Arc<Object>> {
        self.stores
            .read()
            .expect("nobody panics with the lock")
            .get(id)?
            .objects
            .get(key)
            .cloned()
    }

    /// Returns the time since which an object of a set has been observed in its current generation. A new process does not know earlier
    /// times.
    pub fn unchanged_since(&self, id: &StoreId, key: &Key) -> Option<Timestamp> {
        let stores = self.stores.read().expect("nobody panics with the lock");
        stores.get(id)?.unchanged_since.get(key).copied()
    }

    /// Returns all objects of a set.
    pub fn all(&self, id: &StoreId) -> Vec<Arc<Object>> {
        let stores = self.stores.read().expect("nobody panics with the lock");
        stores
            .get(id)
            .into_iter()
            .flat_map(|store| store.objects.values().cloned())
            .collect()
    }

    /// Returns all objects of this ContourDeployment. If two sets contain an object, returns the newer state.
    pub fn owned(&self, whose: &NamespacedName) -> BTreeMap<Key, Arc<Object>> {
        let stores = self.stores.read().expect("nobody panics with the lock");
        let owned = stores.iter().filter(|(id, _)| id.is_ours()).flat_map(|(_, store)| {
            let keys = store.by_owner.get(whose).into_iter().flatten();
            keys.filter_map(|key| store.objects.get(key))
        });
        let mut newest = BTreeMap::<Key, Arc<Object>>::new();
        for object in owned {
            let known = newest.entry(object.key()).or_insert_with(|| object.clone());
            if version(known) < version(object) {
                *known = object.clone();
            }
        }
        newest
    }

    /// Reports whether a set has been read.
    pub fn is_synced(&self, id: &StoreId) -> bool {
        self.stores
            .read()
            .expect("nobody panics with the lock")
            .get(id)
            .is_some_and(|store| store.synced)
    }

    /// Returns the objects of a set that have Slipway's finalizer and no owner labels.
    pub fn unlabelled(&self, id: &StoreId) -> Vec<Arc<Object>> {
        let stores = self.stores.read().expect("nobody panics with the lock");
        let objects = stores.get(id).into_iter().flat_map(|store| store.objects.values());
        objects
            .filter(|object| object.has_our_finalizer() && owner(object).is_none())
            .cloned()
            .collect()
    }

    /// Returns the Services of a namespace that have a ready endpoint.
    pub fn ready_services(&self, namespace: &str) -> Vec<NamespacedName> {
        let stores = self.stores.read().expect("nobody panics with the lock");
        let store = stores.get(&StoreId::all_in(Kind::EndpointSlice, namespace));
        let ready = store.into_iter().flat_map(|store| store.ready.keys());
        ready.map(|name| NamespacedName::new(namespace, name)).collect()
    }

    /// Waits until all these sets have been read.
    pub async fn wait_for(&self, ids: &[StoreId]) {
        let mut synced = self.synced.subscribe();
        // The sender lives as long as the cache, so the wait cannot fail.
        let _ = synced.wait_for(|_| ids.iter().all(|id| self.is_synced(id))).await;
    }
}

impl StoreId {
    /// All objects of a kind.
    pub fn all(kind: Kind) -> Self {
        Self {
            kind,
            scope: Scope::All,
        }
    }

    /// Slipway's objects of a kind.
    pub fn owned(kind: Kind) -> Self {
        Self {
            kind,
            scope: Scope::Owned,
        }
    }

    /// All objects of a kind in a namespace.
    pub fn all_in(kind: Kind, namespace: &str) -> Self {
        Self {
            kind,
            scope: Scope::AllIn(namespace.to_owned()),
        }
    }

    /// Slipway's objects of a kind in a namespace.
    pub fn owned_in(kind: Kind, namespace: &str) -> Self {
        Self {
            kind,
            scope: Scope::OwnedIn(namespace.to_owned()),
        }
    }

    /// Reports whether the objects of this set count as objects of their owner.
    fn is_ours(&self) -> bool {
        matches!(self.scope, Scope::Owned | Scope::OwnedIn(_)) || self.kind == Kind::ExtensionService
    }

    /// Reports whether an object of Slipway belongs to this set.
    fn holds(&self, object: &Object) -> bool {
        self.kind == object.kind
            && match &self.scope {
                Scope::All | Scope::Owned => true,
                Scope::AllIn(namespace) | Scope::OwnedIn(namespace) => namespace == object.namespace(),
            }
    }
}

/// Reports whether the labels of an object cannot be true: they name a ContourDeployment of another namespace, and only stand-ins and
/// blackholes may be in other namespaces. An object without both labels counts as well, if everyone may label objects of its kind. Such an
/// object wakes nobody, and the cache does not store it.
fn is_stray(id: &StoreId, object: &Object) -> bool {
    if !matches!(id.scope, Scope::Owned | Scope::OwnedIn(_)) || !object.kind.is_namespaced() {
        return false;
    }
    let Some(NamespacedName { namespace, name }) = owner(object) else {
        return object.kind == Kind::Lease || object.kind.is_made_by_controllers();
    };
    if namespace == object.namespace() {
        return false;
    }
    let owner = Owner {
        namespace,
        name,
        uid: String::new(),
    };
    !matches!(object.kind, Kind::ExtensionService | Kind::Service) || !owner.is_stand_in(object.name())
}

/// Removes from a change the owners that already know this state of the object from the other set that contains the object. Owners observe
/// the newer of the two states.
fn forget_told(stores: &HashMap<StoreId, Store>, id: &StoreId, change: &mut Change) {
    if id.kind != Kind::ExtensionService {
        return;
    }
    let key = Key::new(id.kind, &change.namespace, &change.name);
    let other = match &id.scope {
        Scope::AllIn(_) => StoreId::owned(id.kind),
        _ => StoreId::all_in(id.kind, &change.namespace),
    };
    let here = stores.get(id).and_then(|store| store.objects.get(&key));
    let there = stores.get(&other).filter(|store| !store.untold.contains(&key));
    let there = there.and_then(|store| store.objects.get(&key));
    // A former owner observes another state in each set.
    if let (Some(here), Some(there)) = (here, there)
        && version(there) >= version(here)
        && owner(there) == owner(here)
        && change.owners.iter().all(|whose| owner(here).as_ref() == Some(whose))
    {
        change.owners.clear();
    }
}

#[cfg(test)]
mod tests;
