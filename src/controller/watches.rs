//! The watches: each has its own backoff, feeds the cache, and says which ContourDeployments to look at again.
//!
//! All triggers of a kube-runtime `Controller` share one backoff, so that one failing watch would delay every other one's
//! events (docs/design.md, "Watches"). Here errors are counted and dropped before anything reaches the controller.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use futures::{Stream, StreamExt, TryStreamExt};
use kube::api::{ApiResource, DynamicObject};
use kube::core::PartialObjectMeta;
use kube::runtime::watcher::{self, Event, ExponentialBackoff};
use kube::runtime::{WatchStreamExt, watcher as watch};
use kube::{Api, Client};
use serde_json::{Map, Value};
use tokio::sync::mpsc;
use tokio::task::JoinHandle;
use tracing::{debug, warn};

use super::cache::{Cache, Scope, StoreId, Touched};
use crate::api::contour;
use crate::api::vocabulary::labels;
use crate::plan::admission;
use crate::plan::{Key, Kind, NamespacedName, Object};
use crate::telemetry::{Metrics, Readiness};

/// A watch is asked for no longer than this and resumed where it ended, so that a stream that went silent is noticed within
/// a minute (kube adds 5 s).
pub const WATCH_SECONDS: u32 = 50;

/// The sets that are watched from the start, whatever is installed.
pub fn always() -> Vec<StoreId> {
    let owned = [
        Kind::RoleBinding,
        Kind::ClusterRoleBinding,
        Kind::ServiceAccount,
        Kind::Lease,
        Kind::Service,
        Kind::Deployment,
        Kind::DaemonSet,
        Kind::ReplicaSet,
        Kind::ControllerRevision,
        Kind::Pod,
    ];
    let all = [
        Kind::Namespace,
        Kind::CustomResourceDefinition,
        Kind::ValidatingAdmissionPolicy,
        Kind::ValidatingAdmissionPolicyBinding,
    ];
    all.map(StoreId::all)
        .into_iter()
        .chain(owned.map(StoreId::owned))
        .collect()
}

/// The sets that can be watched only while Contour's CRDs are there.
pub fn with_contour() -> [(&'static str, StoreId); 2] {
    [
        (
            "extensionservices.projectcontour.io",
            StoreId::all(Kind::ExtensionService),
        ),
        (
            "contourconfigurations.projectcontour.io",
            StoreId::owned(Kind::ContourConfiguration),
        ),
    ]
}

/// Starts and stops watches.
pub struct Watches {
    client: Client,
    cache: Arc<Cache>,
    triggers: mpsc::UnboundedSender<Touched>,
    metrics: Metrics,
    readiness: Readiness,
    running: Mutex<BTreeMap<StoreId, JoinHandle<()>>>,
    /// Who needs which of the sets that depend on what is referenced.
    needs: Mutex<BTreeMap<NamespacedName, BTreeSet<StoreId>>>,
}

impl Watches {
    /// None yet.
    pub fn new(
        client: Client,
        cache: Arc<Cache>,
        triggers: mpsc::UnboundedSender<Touched>,
        metrics: Metrics,
        readiness: Readiness,
    ) -> Self {
        Self {
            client,
            cache,
            triggers,
            metrics,
            readiness,
            running: Mutex::default(),
            needs: Mutex::default(),
        }
    }

    /// Starts the watch of a set, if it does not run.
    pub fn start(&self, id: &StoreId) {
        let mut running = self.running.lock().expect("nobody panics with the lock");
        if running.contains_key(id) {
            return;
        }
        debug!(kind = %id.kind, scope = ?id.scope, "watching");
        let (cache, triggers, metrics, readiness) = (
            self.cache.clone(),
            self.triggers.clone(),
            self.metrics.clone(),
            self.readiness.clone(),
        );
        let (id_, mut events) = (id.clone(), events(&self.client, id));
        let task = tokio::spawn(async move {
            while let Some(event) = events.next().await {
                match event {
                    Ok(event) => {
                        let done = matches!(event, Event::InitDone);
                        let touched = cache.apply(&id_, event);
                        if done {
                            readiness.set(id_.kind.name(), true);
                        }
                        if !matches!(touched, Touched::Nothing) && triggers.send(touched).is_err() {
                            return;
                        }
                    }
                    Err(error) => {
                        metrics.watch_failed(id_.kind.name());
                        warn!(kind = %id_.kind, scope = ?id_.scope, %error, "a watch failed; it is tried again");
                    }
                }
            }
        });
        running.insert(id.clone(), task);
    }

    /// Ends the watch of a set, and forgets what it brought.
    pub fn stop(&self, id: &StoreId) {
        if let Some(task) = self.running.lock().expect("nobody panics with the lock").remove(id) {
            debug!(kind = %id.kind, scope = ?id.scope, "not watching any more");
            task.abort();
            self.cache.forget(id);
        }
    }

    /// Says which sets a ContourDeployment needs; those that nobody needs any more are dropped.
    pub fn need(&self, whose: &NamespacedName, wanted: BTreeSet<StoreId>) {
        let (start, stop) = {
            let mut needs = self.needs.lock().expect("nobody panics with the lock");
            if needs.get(whose).is_some_and(|before| *before == wanted)
                || (wanted.is_empty() && !needs.contains_key(whose))
            {
                return;
            }
            let before = if wanted.is_empty() {
                needs.remove(whose)
            } else {
                needs.insert(whose.clone(), wanted.clone())
            };
            let still: BTreeSet<&StoreId> = needs.values().flatten().collect();
            let stop: Vec<StoreId> = before.into_iter().flatten().filter(|id| !still.contains(id)).collect();
            (wanted, stop)
        };
        for id in &start {
            self.start(id);
        }
        for id in &stop {
            self.stop(id);
        }
    }

    /// The watches of Contour's own kinds that run now.
    pub fn of_contour(&self) -> Vec<StoreId> {
        let running = self.running.lock().expect("nobody panics with the lock");
        with_contour()
            .into_iter()
            .map(|(_, id)| id)
            .filter(|id| running.contains_key(id))
            .collect()
    }

    /// The watch of ContourDeployments, for kube's controller; it feeds the cache like the others.
    pub fn root(&self) -> impl Stream<Item = Result<Event<DynamicObject>, watcher::Error>> + Send + use<> {
        let id = StoreId::all(Kind::ContourDeployment);
        let (cache, triggers, metrics, readiness) = (
            self.cache.clone(),
            self.triggers.clone(),
            self.metrics.clone(),
            self.readiness.clone(),
        );
        let api: Api<DynamicObject> = Api::all_with(self.client.clone(), &resource(id.kind));
        let events = watch::watcher(api, watch::Config::default().timeout(WATCH_SECONDS)).backoff(backoff());
        events.filter_map(move |event| {
            let passed_on = match event {
                Ok(event) => {
                    if matches!(event, Event::InitDone) {
                        readiness.set(id.kind.name(), true);
                    }
                    // The controller sees arrivals by itself; what it does not see is an end.
                    let ends = matches!(event, Event::Delete(_) | Event::InitDone);
                    let touched = cache.apply(&id, map(event.clone(), from_dynamic(id.kind)));
                    if ends {
                        let _ = triggers.send(touched);
                    }
                    Some(Ok(event))
                }
                Err(error) => {
                    metrics.watch_failed(id.kind.name());
                    warn!(kind = %id.kind, %error, "a watch failed; it is tried again");
                    None
                }
            };
            futures::future::ready(passed_on)
        })
    }

    /// Follows the CRDs of Contour: their arrival starts the watches of their kinds at once, their end ends them.
    pub fn follow_crds(&self) {
        for (crd, id) in with_contour() {
            let key = Key::new(Kind::CustomResourceDefinition, "", crd);
            if self
                .cache
                .get(&StoreId::all(Kind::CustomResourceDefinition), &key)
                .is_some()
            {
                if !self
                    .running
                    .lock()
                    .expect("nobody panics with the lock")
                    .contains_key(&id)
                {
                    self.readiness.set(id.kind.name(), false);
                }
                self.start(&id);
            } else {
                self.stop(&id);
                self.readiness.exempt(id.kind.name());
            }
        }
    }
}

/// Contour's CRDs that can't be used now: absent, being deleted, or not read yet.
pub fn missing_crds(cache: &Cache) -> Vec<String> {
    let is_unusable = |crd: &str| {
        let key = Key::new(Kind::CustomResourceDefinition, "", crd);
        let served = cache
            .get(&StoreId::all(Kind::CustomResourceDefinition), &key)
            .is_some_and(|crd| !crd.is_terminating());
        let read = with_contour()
            .into_iter()
            .all(|(name, id)| name != crd || cache.is_synced(&id));
        !(served && read)
    };
    contour::REQUIRED_CRDS
        .into_iter()
        .filter(|crd| is_unusable(crd))
        .map(str::to_owned)
        .collect()
}

/// The events of one set. An error is an item, after which the stream goes on by its own backoff.
fn events(client: &Client, id: &StoreId) -> futures::stream::BoxStream<'static, Result<Event<Object>, watcher::Error>> {
    let mut config = watch::Config::default().timeout(WATCH_SECONDS);
    if matches!(id.scope, Scope::Owned | Scope::OwnedIn(_)) {
        config = config.labels(labels::OWNER_NAME);
    }
    let kind = id.kind;
    let resource = resource(kind);
    let is_metadata_enough = matches!(
        kind,
        Kind::Namespace | Kind::CustomResourceDefinition | Kind::Lease | Kind::ControllerRevision
    );
    if is_metadata_enough {
        let api: Api<PartialObjectMeta<DynamicObject>> = Api::all_with(client.clone(), &resource);
        let to_object = move |partial: PartialObjectMeta<DynamicObject>| object(kind, partial.metadata, Map::new());
        return stream(watch::watcher(api, config), to_object).boxed();
    }
    let api: Api<DynamicObject> = match &id.scope {
        Scope::All | Scope::Owned => Api::all_with(client.clone(), &resource),
        Scope::AllIn(namespace) | Scope::OwnedIn(namespace) => {
            Api::namespaced_with(client.clone(), namespace, &resource)
        }
    };
    stream(watch::watcher(api, config), from_dynamic(kind))
        .try_filter(|event| futures::future::ready(is_wanted(event)))
        .boxed()
}

/// Whether an event is about an object that anybody asks for. Of policies that is ours alone; they can't be chosen by a label, which
/// is what somebody might take off.
fn is_wanted(event: &Event<Object>) -> bool {
    match event {
        Event::InitApply(object) | Event::Apply(object) | Event::Delete(object) => {
            !is_policy(object.kind) || admission::is_ours(object)
        }
        Event::Init | Event::InitDone => true,
    }
}

/// Whether this is the kind of an admission policy, or of the binding of one.
pub fn is_policy(kind: Kind) -> bool {
    matches!(
        kind,
        Kind::ValidatingAdmissionPolicy | Kind::ValidatingAdmissionPolicyBinding
    )
}

/// How kube addresses a kind.
pub fn resource(kind: Kind) -> ApiResource {
    ApiResource {
        group: kind.group().into(),
        version: kind.version().into(),
        api_version: kind.api_version(),
        kind: kind.name().into(),
        plural: kind.plural().into(),
    }
}

fn stream<K: Send + 'static>(
    events: impl Stream<Item = Result<Event<K>, watcher::Error>> + Send,
    to_object: impl Fn(K) -> Object + Send,
) -> impl Stream<Item = Result<Event<Object>, watcher::Error>> + Send {
    events.backoff(backoff()).map_ok(move |event| map(event, &to_object))
}

/// The first tries come soon: right after a CRD or a binding is made, the API server still says no for some milliseconds.
fn backoff() -> ExponentialBackoff {
    let builder = backon::ExponentialBuilder::default()
        .with_min_delay(Duration::from_millis(20))
        .with_max_delay(Duration::from_secs(30))
        .with_factor(2.0)
        .with_jitter()
        .without_max_times();
    ExponentialBackoff::from(builder)
}

fn map<K>(event: Event<K>, to_object: impl Fn(K) -> Object) -> Event<Object> {
    match event {
        Event::Init => Event::Init,
        Event::InitDone => Event::InitDone,
        Event::InitApply(found) => Event::InitApply(to_object(found)),
        Event::Apply(found) => Event::Apply(to_object(found)),
        Event::Delete(found) => Event::Delete(to_object(found)),
    }
}

fn from_dynamic(kind: Kind) -> impl Fn(DynamicObject) -> Object {
    move |found| {
        let content = match found.data {
            Value::Object(content) => content,
            _ => Map::new(),
        };
        object(kind, found.metadata, trimmed(kind, content))
    }
}

fn object(kind: Kind, metadata: kube::core::ObjectMeta, content: Map<String, Value>) -> Object {
    let mut object = Object {
        kind,
        metadata,
        content,
        creation_entry: None,
    };
    object.forget_managed_fields();
    object
}

/// What is kept of kinds that others own and that there are many of.
fn trimmed(kind: Kind, mut content: Map<String, Value>) -> Map<String, Value> {
    match kind {
        Kind::Pod => {
            let phase = content
                .get("status")
                .and_then(|status| status.get("phase"))
                .cloned()
                .unwrap_or_default();
            Map::from_iter([(
                "status".to_owned(),
                Value::Object(Map::from_iter([("phase".to_owned(), phase)])),
            )])
        }
        Kind::ReplicaSet => {
            if let Some(spec) = content
                .get_mut("spec")
                .and_then(|spec| spec.pointer_mut("/template/spec"))
            {
                *spec = Value::Null;
            }
            content
        }
        _ => content,
    }
}
