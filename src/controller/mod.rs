//! The edge: the watches, the gather step that fills `Observed`, the apply step that executes a `Plan`, and the kube-runtime `Controller`
//! that calls these steps. Only the edge has a client.

mod agenda;
mod apply;
mod backoff;
mod bounded;
mod cache;
mod client;
mod connection;
mod decode;
mod gather;
mod interest;
mod leases;
#[cfg(test)]
mod played;
mod reconcile;
pub mod release;
mod triggers;
mod undecodable;
mod watches;

use std::collections::HashMap;
use std::convert::Infallible;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use futures::StreamExt;
use futures::future::{BoxFuture, Shared};
use kube::api::DynamicObject;
use kube::runtime::controller::{Action, Config};
use kube::runtime::events::{EventType, Recorder, Reporter};
use kube::runtime::reflector::ObjectRef;
use kube::runtime::reflector::store::Writer;
use kube::runtime::{Controller, WatchStreamExt, controller};
use kube::{Client, Resource, ResourceExt};
use tokio::sync::mpsc;
use tracing::{debug, info, warn};

use crate::api::ContourDeployment;
use crate::plan::admission;
use crate::plan::{Event, Kind, NamespacedName, ServiceAccountRef, Severity};
use crate::telemetry::Telemetry;

use agenda::Agenda;
use backoff::Backoff;
use cache::Cache;
pub use client::Error as RequestError;
use gather::Answers;
use interest::Needs;
use leases::Leases;
use watches::Watches;

pub use connection::client as connect;

/// The controller ends only with the shutdown.
pub type Error = Infallible;

/// The number of ContourDeployments that are reconciled concurrently.
const CONCURRENCY: u16 = 16;

/// The options of the operator.
#[derive(Clone, Debug)]
pub struct Options {
    /// The ServiceAccount of the operator, which is the subject of the operator's own bindings.
    pub operator: ServiceAccountRef,
}

/// Returns the names of the parts that `/readyz` waits for: one for each kind that is watched from the start, and Contour's two kinds.
pub fn parts() -> Vec<&'static str> {
    let contours = watches::with_contour().map(|(_, id)| id.kind.name());
    let always = watches::always().into_iter().map(|id| id.kind.name());
    always.chain(contours).chain([Kind::ContourDeployment.name()]).collect()
}

/// The context of a reconcile.
pub(crate) struct Context {
    client: Client,
    cache: Arc<Cache>,
    watches: Arc<Watches>,
    answers: Answers,
    backoff: Backoff,
    agenda: Agenda,
    leases: Leases,
    options: Options,
    telemetry: Telemetry,
    recorder: Recorder,
    /// The ContourDeployments to retry before their time.
    retries: mpsc::UnboundedSender<NamespacedName>,
    new_bindings: Mutex<HashMap<NamespacedName, Instant>>,
    without_access: Mutex<HashMap<NamespacedName, Instant>>,
}

/// Runs until the shutdown begins. Reconciles in progress are completed.
pub async fn run(
    client: Client,
    options: Options,
    telemetry: Telemetry,
    shutdown: Shared<BoxFuture<'static, ()>>,
) -> Result<(), Error> {
    let cache = Arc::new(Cache::default());
    let (touch, touched) = mpsc::unbounded_channel();
    let watches = Arc::new(Watches::new(
        client.clone(),
        cache.clone(),
        touch,
        telemetry.metrics.clone(),
        telemetry.readiness.clone(),
    ));
    let always = watches::always();
    for id in &always {
        watches.start(id);
    }
    let reporter = Reporter {
        controller: "slipway".into(),
        instance: std::env::var("POD_NAME").ok(),
    };
    let (retry, retries) = mpsc::unbounded_channel();
    let context = Arc::new(Context {
        recorder: Recorder::new(client.clone(), reporter),
        client,
        cache,
        watches,
        answers: Answers::default(),
        backoff: Backoff::default(),
        agenda: Agenda::default(),
        leases: Leases::default(),
        options,
        telemetry,
        retries: retry,
        new_bindings: Mutex::default(),
        without_access: Mutex::default(),
    });
    info!("listing the existing objects");
    tokio::select! {
        () = context.cache.wait_for(&always) => {}
        () = shutdown.clone() => return Ok(()),
    }
    context.watches.follow_crds();
    let contours = context.watches.of_contour();
    tokio::select! {
        () = context.cache.wait_for(&contours) => {}
        () = shutdown.clone() => return Ok(()),
    }
    info!("reconciling");

    // All watches send to one channel. The controller receives names and never errors.
    let (trigger, triggers) = mpsc::unbounded_channel();
    let relay = tokio::spawn(triggers::relay(context.clone(), touched, trigger));
    let writer = Writer::new(watches::resource(Kind::ContourDeployment));
    let (reader, root) = (writer.as_reader(), context.watches.root());
    let triggers = futures::stream::unfold(triggers, |mut triggers| async {
        triggers.recv().await.map(|whose| (whose, triggers))
    });
    let retries = futures::stream::unfold(retries, |mut retries| async {
        retries.recv().await.map(|whose| (reference(&whose), retries))
    });
    let liveness = context.telemetry.liveness.clone();
    // Only the relay decides which ContourDeployments an event wakes. The controller learns here which ContourDeployments exist.
    let silent = root
        .reflect(writer)
        .filter_map(|event| futures::future::ready(event.err().map(Err)));
    let results = Controller::for_stream_with(silent, reader, watches::resource(Kind::ContourDeployment))
        .reconcile_on(triggers)
        .reconcile_on(retries)
        .with_config(Config::default().concurrency(CONCURRENCY))
        .graceful_shutdown_on(shutdown)
        .run(
            |object, context: Arc<Context>| async move {
                let whose = NamespacedName::new(object.namespace().unwrap_or_default(), object.name_any());
                Ok::<Action, Infallible>(reconcile::reconcile(&context, &whose).await)
            },
            |_, error, _| match *error {},
            context,
        )
        .for_each(|result| {
            match result {
                Ok((object, _)) => debug!(%object, "reconciled"),
                Err(controller::Error::ObjectNotFound(object)) => debug!(%object, "gone"),
                Err(error) => warn!(%error, "the controller reports an error"),
            }
            futures::future::ready(())
        });
    liveness.beat_while(results).await;
    relay.abort();
    Ok(())
}

/// Returns how the controller refers to a ContourDeployment.
fn reference(whose: &NamespacedName) -> ObjectRef<DynamicObject> {
    ObjectRef::new_with(&whose.name, watches::resource(Kind::ContourDeployment)).within(&whose.namespace)
}

impl Context {
    /// Retries ContourDeployments that failed, before their wait ends.
    fn retry(&self, all: Vec<NamespacedName>) {
        for whose in all {
            // The receiver is gone when the process ends.
            let _ = self.retries.send(whose);
        }
    }

    /// Forgets a deleted ContourDeployment.
    fn forget(&self, whose: &NamespacedName) {
        self.watches.need(whose, Needs::new());
        self.answers.forget(whose);
        self.retry(self.backoff.deleted(whose));
        self.agenda.forget(whose);
        self.leases.forget(whose);
        self.cache.note_listed(&leases::store(whose), whose, None);
        self.telemetry.metrics.forget(&whose.namespace, &whose.name);
        self.new_bindings
            .lock()
            .expect("nobody panics with the lock")
            .remove(whose);
        self.has_access(whose);
    }

    /// Updates the metrics of the admission policies.
    fn count_policies(&self) {
        let found = gather::policies(&self.cache);
        for policy in admission::policies(&self.options.operator, found.iter().map(AsRef::as_ref)) {
            let metrics = &self.telemetry.metrics;
            metrics.admission_policy(policy.name, policy.problems.is_empty());
        }
    }

    /// Records that one of the operator's own bindings was created.
    fn note_binding(&self, whose: &NamespacedName) {
        self.new_bindings
            .lock()
            .expect("nobody panics with the lock")
            .insert(whose.clone(), Instant::now());
    }

    /// Reports whether one of the operator's own bindings was created within this time.
    fn has_new_binding(&self, whose: &NamespacedName, within: Duration) -> bool {
        self.new_bindings
            .lock()
            .expect("nobody panics with the lock")
            .get(whose)
            .is_some_and(|made| made.elapsed() < within)
    }

    /// Records that access was refused. Reports whether the reason may still be that the API server has not processed the new access.
    fn waits_for_access(&self, whose: &NamespacedName, within: Duration) -> bool {
        let mut since = self.without_access.lock().expect("nobody panics with the lock");
        since.entry(whose.clone()).or_insert_with(Instant::now).elapsed() < within
    }

    /// Records that access was granted, or that nothing waits for access any more.
    fn has_access(&self, whose: &NamespacedName) {
        self.without_access
            .lock()
            .expect("nobody panics with the lock")
            .remove(whose);
    }

    /// Publishes Events. Nothing waits for an Event, and a failure has no consequence.
    fn tell(&self, about: &ContourDeployment, events: &[Event]) {
        let reference = about.object_ref(&());
        for event in events {
            let (recorder, reference) = (self.recorder.clone(), reference.clone());
            let event = kube::runtime::events::Event {
                type_: match event.severity {
                    Severity::Normal => EventType::Normal,
                    Severity::Warning => EventType::Warning,
                },
                reason: event.reason.clone(),
                // The API limits a note to 1 kB.
                note: Some(event.note.chars().take(900).collect()),
                action: "Reconcile".to_owned(),
                secondary: None,
            };
            tokio::spawn(async move {
                if let Err(error) = recorder.publish(&event, &reference).await {
                    debug!(%error, "an Event could not be written");
                }
            });
        }
    }
}

#[cfg(test)]
mod tests;
