//! The objects of the kinds that Slipway creates, observed by one watch for each kind, with the time of each observation.

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

/// The kinds that Slipway reads but never creates. Slipway creates all of its other kinds. A kind in neither group means that a test is
/// missing.
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

/// Returns the kinds that Slipway creates.
pub fn created_kinds() -> impl Iterator<Item = &'static str> {
    let made = Kind::ALL.iter().filter(|kind| !READ_ONLY.contains(kind));
    made.map(|kind| kind.name())
}

/// An observed change or deletion of an object.
#[derive(Clone, Debug)]
pub struct Change {
    /// The reference to the object.
    pub thing: Thing,
    /// The object now, or its last state before the deletion.
    pub object: Arc<Value>,
    /// Whether the object exists.
    pub is_there: bool,
    /// The time of the watch event.
    pub at: Instant,
}

/// The watches; they end when this value is dropped.
pub struct Watches {
    objects: Arc<Mutex<BTreeMap<Thing, Arc<Value>>>>,
    told: Sender<Change>,
    tasks: Vec<JoinHandle<()>>,
}

impl Watches {
    /// Watches every kind that Slipway creates, in the whole cluster.
    pub fn of(lab: &Lab) -> Self {
        let objects = Arc::<Mutex<BTreeMap<Thing, Arc<Value>>>>::default();
        // The capacity exceeds the number of events during any pause of a receiver. A receiver that misses events returns an error.
        let (told, _) = broadcast::channel(1 << 14);
        let tasks = created_kinds().chain(["ContourDeployment"]).map(|kind| {
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
                            // Removes the objects that were deleted while the watch was interrupted.
                            let mut objects = objects.lock().expect("the lock is not poisoned");
                            objects.retain(|thing, _| thing.kind != kind || listed.contains(thing));
                            continue;
                        }
                        Ok(Event::Apply(object)) => (object, true),
                        Ok(Event::Delete(object)) => (object, false),
                        // The CRD of the kind is missing; kube waits before the next attempt.
                        Err(_) => continue,
                    };
                    let Ok(value) = serde_json::to_value(&object) else {
                        continue;
                    };
                    let (thing, object) = (thing(kind, &object), Arc::new(value));
                    let mut objects = objects.lock().expect("the lock is not poisoned");
                    if is_there {
                        objects.insert(thing.clone(), Arc::clone(&object));
                    } else {
                        objects.remove(&thing);
                    }
                    // An error means that there is no listener.
                    let _ = told.send(Change {
                        thing,
                        object,
                        is_there,
                        at,
                    });
                }
            })
        });
        let tasks = tasks.collect();
        Self { objects, told, tasks }
    }

    /// Returns a listener for events from now on.
    pub fn listen(&self) -> Listener {
        Listener(self.told.subscribe())
    }

    /// Returns all objects with the labels of an edge, in their last observed state.
    pub fn of_edge(&self, edge: &Edge) -> BTreeMap<Thing, Arc<Value>> {
        let objects = self.objects.lock().expect("the lock is not poisoned");
        let is_its = |object: &Value| {
            let labels = &object["metadata"]["labels"];
            labels[OWNER_NAME] == edge.name() && labels[OWNER_NAMESPACE] == edge.namespace()
        };
        let its = objects.iter().filter(|(_, object)| is_its(object));
        its.map(|(thing, object)| (thing.clone(), Arc::clone(object))).collect()
    }
}

impl Watches {
    /// Returns descriptions of these objects and of the ContourDeployment itself, in the form of [`crate::leftovers`].
    pub fn described(&self, edge: &Edge) -> BTreeSet<String> {
        let own = Thing::new("ContourDeployment", edge.namespace(), edge.name());
        let itself = self
            .objects
            .lock()
            .expect("the lock is not poisoned")
            .get(&own)
            .cloned();
        let all = self.of_edge(edge).into_iter().chain(itself.map(|object| (own, object)));
        all.map(|(thing, object)| {
            let is_terminating = !object["metadata"]["deletionTimestamp"].is_null();
            format!("{thing}{}", if is_terminating { " (terminating)" } else { "" })
        })
        .collect()
    }
}

impl Drop for Watches {
    fn drop(&mut self) {
        for task in &self.tasks {
            task.abort();
        }
    }
}

fn thing(kind: &'static str, object: &DynamicObject) -> Thing {
    Thing::new(kind, &object.namespace().unwrap_or_default(), &object.name_any())
}

/// A receiver of all events since its creation.
pub struct Listener(Receiver<Change>);

impl Listener {
    /// Returns the time of the first event that is later than `version` and that `look` accepts. `look` returns a description of the
    /// difference for other events.
    pub async fn first(
        &mut self,
        version: u64,
        limit: Duration,
        mut look: impl FnMut(&Change) -> Result<(), String>,
    ) -> anyhow::Result<Instant> {
        let mut last = "nothing was observed".to_owned();
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
            Err(_) => bail!("not within {} s; last observed: {last}", limit.as_secs()),
        }
    }
}

/// Returns an object's resourceVersion: etcd's revision, which increases with every write to the cluster.
pub fn version_of(object: &Value) -> anyhow::Result<u64> {
    let version = object["metadata"]["resourceVersion"]
        .as_str()
        .context("a resourceVersion")?;
    version.parse().with_context(|| format!("resourceVersion {version}"))
}
