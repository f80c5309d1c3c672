//! What the watches have seen, and what the last writes have answered. Objects are found by key and by owner.
//!
//! Unlike kube's `Store` it is indexed by owner, tells which objects a relist found gone, and takes the answers of our own
//! writes, so that the next plan sees them before their watch events arrive.

use std::collections::{BTreeMap, BTreeSet, HashMap, VecDeque};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, RwLock};
use std::time::{Duration, Instant};

use jiff::Timestamp;
use kube::runtime::watcher::Event;
use tokio::sync::watch;

use super::decode::SERVICE_NAME;
use crate::api::vocabulary::labels;
use crate::plan::{Key, Kind, NamespacedName, Object, Owner};

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

/// What an event was about.
#[derive(Clone, Debug)]
pub enum Touched {
    /// This object, now and before.
    Object {
        /// Which.
        key: Key,
        /// Whose, by its labels.
        owners: BTreeSet<NamespacedName>,
    },
    /// Anything: the set was read anew.
    Everything,
    /// Anything in this namespace: a set of it was read anew.
    Namespace(String),
    /// Nothing that anybody can tell from what was known.
    Nothing,
}

/// The stores.
pub struct Cache {
    stores: RwLock<HashMap<StoreId, Store>>,
    synced: watch::Sender<u64>,
    watches: AtomicU64,
}

#[derive(Default)]
struct Store {
    /// Which watch feeds it: an event of a former one says nothing of what is asked for now.
    watch: u64,
    /// What is asked for in a set of [`Scope::AllIn`]: names, of EndpointSlices those of their Services.
    wanted: BTreeSet<String>,
    objects: HashMap<Key, Arc<Object>>,
    by_owner: HashMap<NamespacedName, BTreeSet<Key>>,
    /// Since when each has been known in its present generation.
    unchanged_since: HashMap<Key, Timestamp>,
    /// What a read of the whole set has brought so far.
    incoming: Option<Vec<Object>>,
    synced: bool,
    /// What was seen to leave the set lately, by uid, and at which version: the answer of a write may arrive after the event
    /// of a later deletion, and would bring back what is gone for good.
    left: VecDeque<(Instant, String, u64)>,
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

    /// Takes an event of the watch with this number.
    pub fn apply(&self, id: &StoreId, watch: u64, event: Event<Object>) -> Touched {
        let mut stores = self.stores.write().expect("nobody panics with the lock");
        let Some(store) = stores.get_mut(id).filter(|store| store.watch == watch) else {
            return Touched::Nothing;
        };
        // What nobody asks for is as good as absent.
        let event = match event {
            Event::InitApply(object) if !store.takes(id, &object) => return Touched::Nothing,
            Event::Apply(object) | Event::Delete(object) if !store.takes(id, &object) => {
                if !store.objects.contains_key(&object.key()) {
                    return Touched::Nothing;
                }
                Event::Delete(object)
            }
            event => event,
        };
        match event {
            Event::Init => {
                store.incoming = Some(Vec::new());
                Touched::Nothing
            }
            Event::InitApply(object) => {
                store.incoming.get_or_insert_default().push(object);
                Touched::Nothing
            }
            Event::InitDone => {
                let mut before = std::mem::take(store);
                (store.watch, store.wanted) = (before.watch, std::mem::take(&mut before.wanted));
                for object in before.incoming.take().unwrap_or_default() {
                    let since = before.unchanged_since(&object);
                    store.put(object, None, since);
                }
                store.synced = true;
                store.left = before.left;
                drop(stores);
                self.synced.send_modify(|count| *count += 1);
                match &id.scope {
                    Scope::AllIn(namespace) => Touched::Namespace(namespace.clone()),
                    _ => Touched::Everything,
                }
            }
            Event::Apply(object) => {
                let key = object.key();
                let before = store.objects.get(&key);
                if before.is_some_and(|before| version(before) > version(&object)) {
                    return Touched::Nothing;
                }
                // Contour renews its Lease every two seconds; of that only the version is seen here.
                let same = before.is_some_and(|before| is_same(before, &object));
                let known = before.is_some_and(|before| before.uid() == object.uid());
                // One that only lost its labels is still whose it was: nobody else would ever take our finalizer from it.
                let whose = (known && object.has_our_finalizer())
                    .then(|| store.whose(&key))
                    .flatten();
                let owners = [before.and_then(|before| owner(before)), owner(&object), whose.clone()]
                    .into_iter()
                    .flatten()
                    .collect();
                let since = store.unchanged_since(&object);
                store.put(object, whose.as_ref(), since);
                if same {
                    Touched::Nothing
                } else {
                    Touched::Object { key, owners }
                }
            }
            Event::Delete(object) => {
                let key = object.key();
                // A successor of the same name, which we wrote, may be known already.
                let is_newer = |known: &Arc<Object>| known.uid() != object.uid() && version(known) > version(&object);
                if store.objects.get(&key).is_some_and(is_newer) {
                    return Touched::Nothing;
                }
                let before = store.remove(&key);
                store.note_left(&object);
                let owners = [before.as_deref().and_then(owner), owner(&object)]
                    .into_iter()
                    .flatten()
                    .collect();
                Touched::Object { key, owners }
            }
        }
    }

    /// Takes the API server's answer to a write, or to a read of one object, that belongs to this owner.
    pub fn note(&self, object: &Object, whose: &NamespacedName) {
        let mut stores = self.stores.write().expect("nobody panics with the lock");
        let is_asked_for =
            |id: &StoreId, store: &Store| !matches!(id.scope, Scope::AllIn(_)) || store.takes(id, object);
        for (id, store) in stores.iter_mut().filter(|(id, _)| id.holds(object)) {
            if !is_asked_for(id, store) {
                continue;
            }
            let known = store.objects.get(&object.key());
            if known.is_none_or(|known| version(known) <= version(object)) && !store.has_left(object) {
                let since = store.unchanged_since(object);
                store.put(object.clone(), Some(whose), since);
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
            }
        }
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

    /// Comes back when all these sets have been read.
    pub async fn wait_for(&self, ids: &[StoreId]) {
        let mut synced = self.synced.subscribe();
        // The sender lives as long as this does, so that waiting can't fail.
        let _ = synced.wait_for(|_| ids.iter().all(|id| self.is_synced(id))).await;
    }
}

impl Store {
    /// Whether an object is kept in this set.
    fn takes(&self, id: &StoreId, object: &Object) -> bool {
        let Scope::AllIn(_) = id.scope else {
            return !is_stray(id, object);
        };
        let is_wanted = match object.kind {
            Kind::EndpointSlice => object
                .label(SERVICE_NAME)
                .is_some_and(|name| self.wanted.contains(name)),
            // A stand-in that lost its labels is not referred to by a name.
            Kind::ExtensionService => self.wanted.contains(object.name()) || object.has_our_finalizer(),
            _ => self.wanted.contains(object.name()),
        };
        let count = self.incoming.as_ref().map_or(self.objects.len(), Vec::len);
        is_wanted && (count < MOST || self.objects.contains_key(&object.key()))
    }

    /// Remembers for a while that this object has left the set.
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

    /// Whether this is a state from before the object left the set. One that only lost its labels is there, and is read at
    /// the version at which it left, or a later one.
    fn has_left(&self, object: &Object) -> bool {
        self.left
            .iter()
            .any(|(_, uid, at)| uid == object.uid() && version(object) < *at)
    }

    /// Whose an object is: by its labels, or as it was filed.
    fn whose(&self, key: &Key) -> Option<NamespacedName> {
        let filed = || self.by_owner.iter().find(|(_, keys)| keys.contains(key));
        owner(self.objects.get(key)?).or_else(|| filed().map(|(owner, _)| owner.clone()))
    }

    /// When the generation of this object, which is not put here yet, was first seen: before, or now.
    fn unchanged_since(&self, object: &Object) -> Timestamp {
        let key = object.key();
        let generation = |object: &Object| (object.uid().to_owned(), object.metadata.generation);
        let known = self.objects.get(&key);
        let is_known = known.is_some_and(|known| generation(known) == generation(object));
        let since = self.unchanged_since.get(&key).filter(|_| is_known);
        since.copied().unwrap_or_else(Timestamp::now)
    }

    fn put(&mut self, object: Object, whose: Option<&NamespacedName>, since: Timestamp) {
        let key = object.key();
        self.remove(&key);
        self.unchanged_since.insert(key.clone(), since);
        if let Some(owner) = owner(&object).or_else(|| whose.cloned()) {
            self.by_owner.entry(owner).or_default().insert(key.clone());
        }
        self.objects.insert(key, Arc::new(object));
    }

    fn remove(&mut self, key: &Key) -> Option<Arc<Object>> {
        let object = self.objects.remove(key)?;
        self.unchanged_since.remove(key);
        // An object may be filed under an owner that its labels don't name (they were stripped), so that all are looked through
        // in that rare case.
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

/// Whose an object is, by its labels.
pub fn owner(object: &Object) -> Option<NamespacedName> {
    Some(NamespacedName::new(
        object.label(labels::OWNER_NAMESPACE)?,
        object.label(labels::OWNER_NAME)?,
    ))
}

/// Whether two states of an object differ in nothing but their version.
fn is_same(before: &Object, after: &Object) -> bool {
    let mut metadata = before.metadata.clone();
    metadata.resource_version.clone_from(&after.metadata.resource_version);
    metadata == after.metadata && before.content == after.content
}

/// Versions of one resource grow (Kubernetes API conventions; numbers in every API server there is). One that is no number
/// counts as newest: it is better to take an object twice than not at all.
fn version(object: &Object) -> u64 {
    object
        .metadata
        .resource_version
        .as_deref()
        .and_then(|version| version.parse().ok())
        .unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests;
