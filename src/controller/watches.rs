//! The watches. Each watch has its own backoff, feeds the cache, and reports its changes to the relay.
//!
//! All triggers of a kube-runtime `Controller` share one backoff, so one failing watch would delay the events of all others
//! (docs/decisions/0016-one-cache.md). Here, errors are counted and dropped before they reach the controller.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use futures::stream::BoxStream;
use futures::{Stream, StreamExt, TryStreamExt};
use kube::api::{ApiResource, DynamicObject};
use kube::runtime::watcher::{self, Event, ExponentialBackoff};
use kube::runtime::{WatchStreamExt, watcher as watch};
use kube::{Api, Client};
use tokio::sync::mpsc;
use tokio::task::JoinHandle;
use tracing::{debug, warn};

use super::cache::{Cache, Scope, StoreId, Touched};
use super::decode::{self, Decoded, Form, Ours};
use super::interest::{Interest, Needs};
use crate::api::contour;
use crate::api::vocabulary::labels;
use crate::plan::admission;
use crate::plan::{Key, Kind, NamespacedName, Object};
use crate::telemetry::{Metrics, Readiness};

/// The maximum duration of a watch request. The next request resumes the watch. So a silent stream is detected within a minute (kube adds 5
/// s).
pub const WATCH_SECONDS: u32 = 50;

/// Slipway's CRD.
const OUR_CRD: &str = "contourdeployments.contour.slipway.dev";

/// The CRD of ExtensionServices.
pub const EXTENSION_SERVICES: &str = "extensionservices.projectcontour.io";

/// Returns the sets that are watched from the start.
pub fn always() -> Vec<StoreId> {
    let owned = [
        Kind::RoleBinding,
        Kind::ClusterRoleBinding,
        Kind::ServiceAccount,
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

/// Returns the sets that can be watched only while Contour's CRDs exist.
pub fn with_contour() -> [(&'static str, StoreId); 2] {
    [
        (EXTENSION_SERVICES, StoreId::owned(Kind::ExtensionService)),
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
    /// The needs of the ContourDeployments for sets of referenced objects.
    interest: Mutex<Interest>,
}

/// The result of new needs of a ContourDeployment.
pub struct Needed {
    /// The sets with additional names. These sets count as unread until they have been listed again.
    pub unread: Vec<StoreId>,
    /// Whether the ContourDeployment asks for a name or a set that it did not ask for before. Earlier changes of such an object may have
    /// woken only others.
    pub is_new: bool,
}

impl Watches {
    /// Returns an instance without running watches.
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
            interest: Mutex::default(),
        }
    }

    /// Starts the watch of a set, if the watch does not run.
    pub fn start(&self, id: &StoreId) {
        let mut running = self.running.lock().expect("nobody panics with the lock");
        if !running.contains_key(id) {
            running.insert(id.clone(), self.watch(id));
        }
    }

    /// Restarts the watch of a set, because additional names are asked for.
    fn restart(&self, id: &StoreId) {
        let mut running = self.running.lock().expect("nobody panics with the lock");
        if let Some(former) = running.insert(id.clone(), self.watch(id)) {
            former.abort();
        }
    }

    fn watch(&self, id: &StoreId) -> JoinHandle<()> {
        debug!(kind = %id.kind, scope = ?id.scope, "watching");
        let (cache, triggers, metrics, readiness) = (
            self.cache.clone(),
            self.triggers.clone(),
            self.metrics.clone(),
            self.readiness.clone(),
        );
        let number = cache.begin(id);
        let (id, mut events) = (id.clone(), events(&self.client, id));
        tokio::spawn(async move {
            while let Some(event) = events.next().await {
                match event {
                    Ok(event) => {
                        let done = matches!(event, Event::InitDone);
                        let touched = cache.apply(&id, number, event);
                        if done && matches!(id.scope, Scope::All | Scope::Owned) {
                            readiness.set(id.kind.name(), true);
                        }
                        if touched.is_some_and(|touched| triggers.send(touched).is_err()) {
                            return;
                        }
                    }
                    Err(error) => {
                        metrics.watch_failed(id.kind.name());
                        warn!(kind = %id.kind, scope = ?id.scope, %error, "a watch failed; the operator retries");
                    }
                }
            }
        })
    }

    /// Stops the watch of a set, and forgets the objects of the set.
    pub fn stop(&self, id: &StoreId) {
        if let Some(task) = self.running.lock().expect("nobody panics with the lock").remove(id) {
            debug!(kind = %id.kind, scope = ?id.scope, "stopped watching");
            task.abort();
            self.cache.forget(id);
        }
    }

    /// Sets the needs of a ContourDeployment. Stops the watches of sets that no ContourDeployment needs, and lists sets with additional
    /// names again.
    pub fn need(&self, whose: &NamespacedName, wanted: Needs) -> Needed {
        let mut interest = self.interest();
        let change = interest.set(whose, wanted);
        let mut unread = Vec::new();
        for id in change.sets {
            if !interest.is_needed(&id) {
                self.stop(&id);
            } else if self.cache.want(&id, interest.names(&id)) {
                self.restart(&id);
                unread.push(id);
            } else {
                self.start(&id);
            }
        }
        Needed {
            unread,
            is_new: change.has_grown,
        }
    }

    /// Returns the needs of the ContourDeployments for sets of referenced objects.
    pub fn interest(&self) -> MutexGuard<'_, Interest> {
        self.interest.lock().expect("nobody panics with the lock")
    }

    /// Returns the running watches of Contour's own kinds.
    pub fn of_contour(&self) -> Vec<StoreId> {
        let running = self.running.lock().expect("nobody panics with the lock");
        with_contour()
            .into_iter()
            .map(|(_, id)| id)
            .filter(|id| running.contains_key(id))
            .collect()
    }

    /// Returns the watch of ContourDeployments for kube's controller, which receives only references. This watch feeds the cache and
    /// reports its changes like the other watches.
    pub fn root(&self) -> impl Stream<Item = Result<Event<DynamicObject>, watcher::Error>> + Send + use<> {
        let id = StoreId::all(Kind::ContourDeployment);
        let (cache, triggers, metrics, readiness) = (
            self.cache.clone(),
            self.triggers.clone(),
            self.metrics.clone(),
            self.readiness.clone(),
        );
        let number = cache.begin(&id);
        events_of::<Ours>(&self.client, &id).filter_map(move |event| {
            let passed_on = match event {
                Ok(event) => {
                    if matches!(event, Event::InitDone) {
                        readiness.set(id.kind.name(), true);
                    }
                    let reference = map(borrowed(&event), reference);
                    if let Some(touched) = cache.apply(&id, number, event) {
                        // The receiver is gone when the process ends.
                        let _ = triggers.send(touched);
                    }
                    Some(Ok(reference))
                }
                Err(error) => {
                    metrics.watch_failed(id.kind.name());
                    warn!(kind = %id.kind, %error, "a watch failed; the operator retries");
                    None
                }
            };
            futures::future::ready(passed_on)
        })
    }

    /// Follows Contour's CRDs: starts the watches of their kinds when the CRDs are created, and stops the watches when the CRDs are
    /// deleted.
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
                let running = self.running.lock().expect("nobody panics with the lock");
                let of_its_kind: Vec<StoreId> = running.keys().filter(|it| it.kind == id.kind).cloned().collect();
                drop(running);
                for id in &of_its_kind {
                    self.stop(id);
                }
                self.readiness.exempt(id.kind.name());
            }
        }
    }
}

/// Returns Contour's CRDs that cannot be used now: absent, being deleted, or not read yet.
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

/// Returns the events of one set. An error is an item. The stream continues after the error with its own backoff.
fn events(client: &Client, id: &StoreId) -> Events {
    match (id.kind, &id.scope) {
        (Kind::Namespace | Kind::CustomResourceDefinition, _) => events_of::<decode::Existence>(client, id),
        (Kind::ControllerRevision, _) => events_of::<decode::Marks>(client, id),
        (Kind::Pod, _) => events_of::<decode::Pods>(client, id),
        (Kind::ReplicaSet, _) => events_of::<decode::ReplicaSets>(client, id),
        (Kind::EndpointSlice, _) => events_of::<decode::EndpointSlices>(client, id),
        (Kind::ExtensionService, _) => events_of::<decode::ExtensionServices>(client, id),
        (Kind::Service, Scope::AllIn(_)) => events_of::<decode::Services>(client, id),
        _ => events_of::<Ours>(client, id),
    }
}

type Events = BoxStream<'static, Result<Event<Object>, watcher::Error>>;

fn events_of<F: Form>(client: &Client, id: &StoreId) -> Events {
    let api: Api<Decoded<F>> = match &id.scope {
        Scope::All | Scope::Owned => Api::all_with(client.clone(), &id.kind),
        Scope::AllIn(namespace) | Scope::OwnedIn(namespace) => {
            Api::namespaced_with(client.clone(), namespace, &id.kind)
        }
    };
    let kind = id.kind;
    watch::watcher(api, config(id, F::PAGE))
        .backoff(backoff())
        .map_ok(move |event| map(event, |found: Decoded<F>| found.into_object(kind)))
        .try_filter(|event| futures::future::ready(is_wanted(event)))
        .boxed()
}

fn config(id: &StoreId, page: u32) -> watch::Config {
    let config = watch::Config::default().timeout(WATCH_SECONDS).page_size(page);
    if matches!(id.scope, Scope::Owned | Scope::OwnedIn(_)) {
        config.labels(labels::OWNER_NAME)
    } else {
        config
    }
}

/// Reports whether an event is about an object that matters. Of policies, only Slipway's own matter. A label selector can't select them,
/// because another user might remove the label. Of CRDs, only Slipway's own and Contour's matter.
fn is_wanted(event: &Event<Object>) -> bool {
    match event {
        Event::InitApply(object) | Event::Apply(object) | Event::Delete(object) => match object.kind {
            kind if is_policy(kind) => admission::is_ours(object),
            Kind::CustomResourceDefinition => {
                contour::REQUIRED_CRDS.contains(&object.name()) || object.name() == OUR_CRD
            }
            _ => true,
        },
        Event::Init | Event::InitDone => true,
    }
}

/// Reports whether this is the kind of an admission policy or of its binding.
pub fn is_policy(kind: Kind) -> bool {
    matches!(
        kind,
        Kind::ValidatingAdmissionPolicy | Kind::ValidatingAdmissionPolicyBinding
    )
}

/// Returns kube's description of a kind.
pub fn resource(kind: Kind) -> ApiResource {
    ApiResource {
        group: kind.group().into(),
        version: kind.version().into(),
        api_version: kind.api_version(),
        kind: kind.name().into(),
        plural: kind.plural().into(),
    }
}

/// The first retries follow quickly: right after the creation of a CRD or a binding, the API server refuses requests for some milliseconds.
fn backoff() -> ExponentialBackoff {
    let builder = backon::ExponentialBuilder::default()
        .with_min_delay(Duration::from_millis(20))
        .with_max_delay(Duration::from_secs(30))
        .with_factor(2.0)
        .with_jitter()
        .without_max_times();
    ExponentialBackoff::from(builder)
}

fn map<K, T>(event: Event<K>, convert: impl Fn(K) -> T) -> Event<T> {
    match event {
        Event::Init => Event::Init,
        Event::InitDone => Event::InitDone,
        Event::InitApply(found) => Event::InitApply(convert(found)),
        Event::Apply(found) => Event::Apply(convert(found)),
        Event::Delete(found) => Event::Delete(convert(found)),
    }
}

fn borrowed<K>(event: &Event<K>) -> Event<&K> {
    match event {
        Event::Init => Event::Init,
        Event::InitDone => Event::InitDone,
        Event::InitApply(found) => Event::InitApply(found),
        Event::Apply(found) => Event::Apply(found),
        Event::Delete(found) => Event::Delete(found),
    }
}

/// Returns the name of a ContourDeployment from the reference of kube's controller.
fn reference(object: &Object) -> DynamicObject {
    DynamicObject::new(object.name(), &resource(object.kind)).within(object.namespace())
}

#[cfg(test)]
mod tests;
