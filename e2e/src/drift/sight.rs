//! What there is of the kinds that Slipway makes, as one watch of each kind tells it, with the moment at which it was told.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use anyhow::{Context as _, bail};
use futures::StreamExt as _;
use kube::ResourceExt as _;
use kube::api::DynamicObject;
use kube::runtime::watcher::{self, Event};
use serde_json::Value;
use slipway::plan::Kind;
use tokio::sync::broadcast::{self, Receiver, Sender};
use tokio::task::JoinHandle;

use crate::edge::{Edge, OWNER_NAME, OWNER_NAMESPACE};
use crate::lab::{Lab, Thing};

/// Kinds that Slipway reads and never makes. Whatever else it knows it makes, and a kind that is in neither place is a test
/// that is missing.
const READ_ONLY: [Kind; 9] = [
    Kind::ContourDeployment,
    Kind::CustomResourceDefinition,
    Kind::ValidatingAdmissionPolicy,
    Kind::ValidatingAdmissionPolicyBinding,
    Kind::Namespace,
    Kind::EndpointSlice,
    Kind::ReplicaSet,
    Kind::ControllerRevision,
    Kind::Pod,
];

/// The kinds that Slipway makes.
pub fn made_kinds() -> impl Iterator<Item = &'static str> {
    let made = Kind::ALL.iter().filter(|kind| !READ_ONLY.contains(kind));
    made.map(|kind| kind.name())
}

/// An object was seen, or seen to be gone.
#[derive(Clone, Debug)]
pub struct Seen {
    /// Which.
    pub thing: Thing,
    /// As it is now, or was when it went.
    pub object: Arc<Value>,
    /// Whether it is there.
    pub is_there: bool,
    /// When its watch told.
    pub at: Instant,
}

/// The watches; they end with it.
pub struct Sight {
    objects: Arc<Mutex<BTreeMap<Thing, Arc<Value>>>>,
    told: Sender<Seen>,
    watches: Vec<JoinHandle<()>>,
}

impl Sight {
    /// Watches every kind that Slipway makes, in the whole cluster.
    pub fn of(lab: &Lab) -> Self {
        let objects = Arc::<Mutex<BTreeMap<Thing, Arc<Value>>>>::default();
        // More events than come while a receiver is not looking; one that missed some fails loudly.
        let (told, _) = broadcast::channel(1 << 14);
        let watches = made_kinds().chain(["ContourDeployment"]).map(|kind| {
            let mut events = watcher::watcher(lab.api(kind, ""), watcher::Config::default()).boxed();
            let (objects, told) = (Arc::clone(&objects), told.clone());
            tokio::spawn(async move {
                let mut listed = BTreeSet::new();
                while let Some(event) = events.next().await {
                    let at = Instant::now();
                    let (object, is_there) = match event {
                        Ok(Event::Init) => {
                            listed.clear();
                            continue;
                        }
                        Ok(Event::InitApply(object)) => {
                            listed.insert(thing(kind, &object));
                            (object, true)
                        }
                        Ok(Event::InitDone) => {
                            // What went while the watch was away.
                            let mut objects = objects.lock().expect("nobody panics with the lock");
                            objects.retain(|thing, _| thing.kind != kind || listed.contains(thing));
                            continue;
                        }
                        Ok(Event::Apply(object)) => (object, true),
                        Ok(Event::Delete(object)) => (object, false),
                        // A kind whose CRD is missing; kube waits before it tries again.
                        Err(_) => continue,
                    };
                    let Ok(value) = serde_json::to_value(&object) else {
                        continue;
                    };
                    let (thing, object) = (thing(kind, &object), Arc::new(value));
                    let mut objects = objects.lock().expect("nobody panics with the lock");
                    if is_there {
                        objects.insert(thing.clone(), Arc::clone(&object));
                    } else {
                        objects.remove(&thing);
                    }
                    // Nobody may be listening.
                    let _ = told.send(Seen {
                        thing,
                        object,
                        is_there,
                        at,
                    });
                }
            })
        });
        let watches = watches.collect();
        Self { objects, told, watches }
    }

    /// What is told from now on.
    pub fn listen(&self) -> Listener {
        Listener(self.told.subscribe())
    }

    /// Everything that bears the labels of an edge, as it was seen last.
    pub fn of_edge(&self, edge: &Edge) -> BTreeMap<Thing, Arc<Value>> {
        let objects = self.objects.lock().expect("nobody panics with the lock");
        let is_its = |object: &Value| {
            let labels = &object["metadata"]["labels"];
            labels[OWNER_NAME] == edge.name() && labels[OWNER_NAMESPACE] == edge.namespace()
        };
        let its = objects.iter().filter(|(_, object)| is_its(object));
        its.map(|(thing, object)| (thing.clone(), Arc::clone(object))).collect()
    }
}

impl Sight {
    /// The same in words, and the ContourDeployment itself: as [`crate::leftovers`] says it.
    pub fn described(&self, edge: &Edge) -> BTreeSet<String> {
        let own = Thing::new("ContourDeployment", edge.namespace(), edge.name());
        let itself = self
            .objects
            .lock()
            .expect("nobody panics with the lock")
            .get(&own)
            .cloned();
        let all = self.of_edge(edge).into_iter().chain(itself.map(|object| (own, object)));
        all.map(|(thing, object)| {
            let is_ending = !object["metadata"]["deletionTimestamp"].is_null();
            format!("{thing}{}", if is_ending { " (ending)" } else { "" })
        })
        .collect()
    }
}

impl Drop for Sight {
    fn drop(&mut self) {
        for watch in &self.watches {
            watch.abort();
        }
    }
}

fn thing(kind: &'static str, object: &DynamicObject) -> Thing {
    Thing::new(kind, &object.namespace().unwrap_or_default(), &object.name_any())
}

/// What was told since somebody began to listen.
pub struct Listener(Receiver<Seen>);

impl Listener {
    /// The first thing that was told of a later state than `version` and is as wanted. `look` says what is not, yet.
    pub async fn first(
        &mut self,
        version: u64,
        limit: Duration,
        mut look: impl FnMut(&Seen) -> Result<(), String>,
    ) -> anyhow::Result<Instant> {
        let mut last = "nothing was seen".to_owned();
        let found = tokio::time::timeout(limit, async {
            loop {
                let seen = self.0.recv().await.context("the watches of the test were too slow")?;
                if version_of(&seen.object)? <= version {
                    continue;
                }
                match look(&seen) {
                    Ok(()) => return anyhow::Ok(seen.at),
                    Err(difference) => {
                        if !difference.is_empty() {
                            last = difference;
                        }
                    }
                }
            }
        });
        match found.await {
            Ok(found) => found,
            Err(_) => bail!("not within {} s; seen last: {last}", limit.as_secs()),
        }
    }
}

/// An object's resourceVersion: etcd's revision, which grows with every write to the cluster.
pub fn version_of(object: &Value) -> anyhow::Result<u64> {
    let version = object["metadata"]["resourceVersion"]
        .as_str()
        .context("a resourceVersion")?;
    version.parse().with_context(|| format!("resourceVersion {version}"))
}
