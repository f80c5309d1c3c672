//! What the watches have seen, and what the last writes have answered. Objects are found by key and by owner.
//!
//! Unlike kube's `Store` it is indexed by owner, tells which objects a relist found gone, and takes the answers of our own
//! writes, so that the next plan sees them before their watch events arrive.

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

/// How late the answer of a write may be; longer than any call is waited for.
const LATE_ANSWERS: Duration = Duration::from_secs(30);

/// Objects of one referenced namespace that are kept of a kind. Only there others decide how many there are: EndpointSlices of one
/// Service. Who makes more than these hides what comes after them, and has a right to that: who answers is theirs to say.
const MOST: usize = 4096;

/// One watched set of objects.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct StoreId {
    /// Their kind.
    pub kind: Kind,
    /// Which of them.
    pub scope: Scope,
}

/// Which objects of a kind.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Scope {
    /// All.
    All,
    /// Those with our labels.
    Owned,
    /// Those in one namespace that somebody refers to, and what bears our finalizer there.
    AllIn(String),
    /// Those with our labels in one namespace.
    OwnedIn(String),
}

/// What is not as it was known of a set.
#[derive(Clone, Debug)]
pub struct Touched {
    /// Which set.
    pub set: StoreId,
    /// The objects that have come, are other than before, or are gone.
    pub changes: Vec<Change>,
    /// Whether the set counted as unread until now.
    pub is_first_read: bool,
}

/// An object that is not as it was known. Of EndpointSlices: a Service of which it is not true any more whether anybody is ready.
#[derive(Clone, Debug)]
pub struct Change {
    /// Its namespace; empty for cluster-scoped kinds.
    pub namespace: String,
    /// Its name.
    pub name: String,
    /// Whose it is or was.
    pub owners: BTreeSet<NamespacedName>,
    /// Whether it is or was held by our finalizer while nobody could tell whose it is.
    pub is_nobodys: bool,
}

/// The stores.
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
    /// Begins a watch of a set, which is unread until that has read it. What is known stays known until then. Returns the watch's number.
    pub fn begin(&self, id: &StoreId) -> u64 {
        let mut stores = self.stores.write().expect("nobody panics with the lock");
        let store = stores.entry(id.clone()).or_default();
        store.watch = self.watches.fetch_add(1, Ordering::Relaxed) + 1;
        store.synced = false;
        store.incoming = None;
        store.watch
    }

    /// Says what is asked for in a set of [`Scope::AllIn`]. What is not, is forgotten. Whether something is asked for that was not before:
    /// then the set counts as unread, and has to be read anew.
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

    /// Takes an event of the watch with this number. Returns what is not as it was known, if anything is.
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

    /// Takes the API server's answer to a write, or to a read of one object, that belongs to this owner.
    pub fn note(&self, object: &Object, whose: &NamespacedName) {
        let mut stores = self.stores.write().expect("nobody panics with the lock");
        for (id, store) in stores.iter_mut().filter(|(id, _)| id.holds(object)) {
            let is_shared = matches!(id.scope, Scope::AllIn(_));
            if is_shared && !store.takes(id, object) {
                continue;
            }
            let known = store.objects.get(&object.key());
            if known.is_none_or(|known| version(known) <= version(object)) && !store.has_left(object) {
                // The answer to a write of the status may show an edit, of which the plan that the status is of did not know.
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

    /// An object turned out to be gone. `uid`: only if it is still this one.
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

    /// Says which status of a ContourDeployment is about to be written. Its arrival is no news.
    pub fn note_status(&self, key: &Key, status: &Value) {
        let mut stores = self.stores.write().expect("nobody panics with the lock");
        let store = stores.get_mut(&StoreId::all(key.kind));
        if let Some(store) = store.filter(|store| store.objects.contains_key(key)) {
            store.statuses.insert(key.clone(), status.clone());
        }
    }

    /// Keeps a set that no watch feeds: it takes answers from now on.
    pub fn open(&self, id: &StoreId) {
        let mut stores = self.stores.write().expect("nobody panics with the lock");
        stores.entry(id.clone()).or_default();
    }

    /// Takes all objects of this owner in a set of [`Scope::OwnedIn`] that no watch feeds, as they were listed; none if it is gone.
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

    /// The number of the watch that feeds a set.
    #[cfg(test)]
    pub fn watch(&self, id: &StoreId) -> u64 {
        let stores = self.stores.read().expect("nobody panics with the lock");
        stores.get(id).map_or(0, |store| store.watch)
    }

    /// Forgets a set that is not watched any more.
    pub fn forget(&self, id: &StoreId) {
        self.stores.write().expect("nobody panics with the lock").remove(id);
    }

    /// One object of a set.
    pub fn get(&self, id: &StoreId, key: &Key) -> Option<Arc<Object>> {
        self.stores
            .read()
            .expect("nobody panics with the lock")
            .get(id)?
            .objects
            .get(key)
            .cloned()
    }

    /// Since when an object of a set has been known in its present generation. A process that starts knows none.
    pub fn unchanged_since(&self, id: &StoreId, key: &Key) -> Option<Timestamp> {
        let stores = self.stores.read().expect("nobody panics with the lock");
        stores.get(id)?.unchanged_since.get(key).copied()
    }

    /// All objects of a set.
    pub fn all(&self, id: &StoreId) -> Vec<Arc<Object>> {
        let stores = self.stores.read().expect("nobody panics with the lock");
        stores
            .get(id)
            .into_iter()
            .flat_map(|store| store.objects.values().cloned())
            .collect()
    }

    /// All objects that belong to this ContourDeployment. One that is in two sets is taken as the newer of the two has it.
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

    /// Whether a set has been read.
    pub fn is_synced(&self, id: &StoreId) -> bool {
        self.stores
            .read()
            .expect("nobody panics with the lock")
            .get(id)
            .is_some_and(|store| store.synced)
    }

    /// The objects of a set that nobody's label is on.
    pub fn unlabelled(&self, id: &StoreId) -> Vec<Arc<Object>> {
        let stores = self.stores.read().expect("nobody panics with the lock");
        let objects = stores.get(id).into_iter().flat_map(|store| store.objects.values());
        objects
            .filter(|object| object.has_our_finalizer() && owner(object).is_none())
            .cloned()
            .collect()
    }

    /// The Services with a ready endpoint in a namespace.
    pub fn ready_services(&self, namespace: &str) -> Vec<NamespacedName> {
        let stores = self.stores.read().expect("nobody panics with the lock");
        let store = stores.get(&StoreId::all_in(Kind::EndpointSlice, namespace));
        let ready = store.into_iter().flat_map(|store| store.ready.keys());
        ready.map(|name| NamespacedName::new(namespace, name)).collect()
    }

    /// Comes back when all these sets have been read.
    pub async fn wait_for(&self, ids: &[StoreId]) {
        let mut synced = self.synced.subscribe();
        // The sender lives as long as this does, so that waiting can't fail.
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

    /// Our objects of a kind.
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

    /// Our objects of a kind in a namespace.
    pub fn owned_in(kind: Kind, namespace: &str) -> Self {
        Self {
            kind,
            scope: Scope::OwnedIn(namespace.to_owned()),
        }
    }

    /// Whether objects in this set are counted among their owner's.
    fn is_ours(&self) -> bool {
        matches!(self.scope, Scope::Owned | Scope::OwnedIn(_)) || self.kind == Kind::ExtensionService
    }

    /// Whether an object of ours belongs into this set.
    fn holds(&self, object: &Object) -> bool {
        self.kind == object.kind
            && match &self.scope {
                Scope::All | Scope::Owned => true,
                Scope::AllIn(namespace) | Scope::OwnedIn(namespace) => namespace == object.namespace(),
            }
    }
}

/// Whether an object of a set of ours says that it belongs to a ContourDeployment of another namespace, and can't: only stand-ins and
/// blackholes are anywhere else. The same is one that has not both labels, if it is of a kind that everybody may label. Nobody is woken for
/// it, and nothing of it is kept.
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

/// Forgets the owners of an object that they know already in this state, by the other set that it is in. What they see is the newer of
/// the two.
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
    // One whose it was before sees another state of it in each set.
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
