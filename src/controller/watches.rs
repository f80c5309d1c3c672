//! The watches: each has its own backoff, feeds the cache, and says which ContourDeployments to look at again.
//!
//! All triggers of a kube-runtime `Controller` share one backoff, so that one failing watch would delay every other one's
//! events (docs/decisions/0016-one-cache.md). Here errors are counted and dropped before anything reaches the controller.

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

/// A watch is asked for no longer than this and resumed where it ended, so that a stream that went silent is noticed within
/// a minute (kube adds 5 s).
pub const WATCH_SECONDS: u32 = 50;

/// Our own CRD.
const OUR_CRD: &str = "contourdeployments.contour.slipway.dev";

/// The CRD of ExtensionServices.
pub const EXTENSION_SERVICES: &str = "extensionservices.projectcontour.io";

/// The sets that are watched from the start, whatever is installed.
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

/// The sets that can be watched only while Contour's CRDs are there.
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
    /// Who needs which of the sets that depend on what is referenced.
    interest: Mutex<Interest>,
}

/// What came of it that a ContourDeployment said what it needs.
pub struct Needed {
    /// Sets that are asked for more than before. They count as unread until they have been read anew.
    pub unread: Vec<StoreId>,
    /// Whether it asks for anything that it did not ask for before. What happened to that until now may have been told to others only.
    pub is_new: bool,
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
            interest: Mutex::default(),
        }
    }

    /// Starts the watch of a set, if it does not run.
    pub fn start(&self, id: &StoreId) {
        let mut running = self.running.lock().expect("nobody panics with the lock");
        if !running.contains_key(id) {
            running.insert(id.clone(), self.watch(id));
        }
    }

    /// Watches a set anew: it is asked for more than before.
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
                        warn!(kind = %id.kind, scope = ?id.scope, %error, "a watch failed; it is tried again");
                    }
                }
            }
        })
    }

    /// Ends the watch of a set, and forgets what it brought.
    pub fn stop(&self, id: &StoreId) {
        if let Some(task) = self.running.lock().expect("nobody panics with the lock").remove(id) {
            debug!(kind = %id.kind, scope = ?id.scope, "not watching any more");
            task.abort();
            self.cache.forget(id);
        }
    }

    /// Says what a ContourDeployment needs; what nobody needs any more is dropped. What nobody asked for until now is read anew.
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

    /// Who needs which of the sets that depend on what is referenced.
    pub fn interest(&self) -> MutexGuard<'_, Interest> {
        self.interest.lock().expect("nobody panics with the lock")
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

    /// The watch of ContourDeployments, for kube's controller, which gets references alone. It feeds the cache like the others, and what it
    /// saw is told like what the others saw.
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
                        // Nobody listens any more when the process ends.
                        let _ = triggers.send(touched);
                    }
                    Some(Ok(reference))
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

/// Whether an event is about an object that anybody asks for. Of policies that is ours alone; they can't be chosen by a label, which
/// is what somebody might take off. Of CRDs it is ours and those that Contour needs.
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

/// The name of a ContourDeployment, as kube's controller knows one.
fn reference(object: &Object) -> DynamicObject {
    DynamicObject::new(object.name(), &resource(object.kind)).within(object.namespace())
}

#[cfg(test)]
mod tests;
