//! The metrics: counters of the whole process, and the series of each ContourDeployment.
//!
//! Names and labels are part of the interface. Every label has few values: constants of the code, or names of objects whose series are
//! dropped when the objects are deleted.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use jiff::Timestamp;
use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, EncodeLabelSet, text};
use prometheus_client::metrics::MetricType;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::metrics::info::Info;
use prometheus_client::registry::{Registry, Unit};

use super::extension_services::{self, OwnerLabels, Series};
use crate::api::ContourDeploymentStatus;

/// The bounds of the duration histogram: from a reconcile that changes nothing to one whose API calls time out.
const RECONCILE_SECONDS: [f64; 14] = [
    0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0,
];

/// The values of a condition's status.
const CONDITION_STATUSES: [&str; 3] = ["True", "False", "Unknown"];

/// The outcome of a reconcile or of a dry run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ReconcileOutcome {
    /// It succeeded.
    Success,
    /// It failed. The reason becomes a label, so it is a constant of the code, never a message.
    Error(&'static str),
}

impl ReconcileOutcome {
    fn label(self) -> &'static str {
        match self {
            Self::Success => "success",
            Self::Error(_) => "error",
        }
    }
}

/// The outcome of a write request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum WriteOutcome {
    /// The request succeeded.
    Success,
    /// The object had changed since it was observed. This is not an error: Slipway observes the object again, and the next plan decides.
    Stale,
    /// The request failed. The reason becomes a label, so it is one of a few constants, never a message.
    Error(&'static str),
}

impl WriteOutcome {
    fn label(self) -> &'static str {
        match self {
            Self::Success => "success",
            Self::Stale => "stale",
            Self::Error(_) => "error",
        }
    }
}

/// The metrics of the process. Clones share the metrics.
#[derive(Clone, Debug)]
pub struct Metrics {
    registry: Arc<Registry>,
    deployments: Arc<Deployments>,
    reconciles: Family<OutcomeLabels, Counter>,
    reconcile_errors: Family<ReasonLabels, Counter>,
    reconcile_duration: Histogram,
    writes: Family<WriteLabels, Counter>,
    write_errors: Family<WriteErrorLabels, Counter>,
    dry_runs: Family<OutcomeLabels, Counter>,
    watch_errors: Family<KindLabels, Counter>,
    objects_in_backoff: Gauge,
    admission_policies: Family<PolicyLabels, Gauge>,
    /// The estimated size of the next scrape in bytes, based on the last scrape.
    size: Arc<AtomicUsize>,
}

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
struct OutcomeLabels {
    outcome: &'static str,
}

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
struct ReasonLabels {
    reason: &'static str,
}

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
struct WriteLabels {
    kind: String,
    verb: String,
    outcome: &'static str,
}

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
struct WriteErrorLabels {
    kind: String,
    verb: String,
    reason: &'static str,
}

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
struct KindLabels {
    kind: String,
}

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
struct PolicyLabels {
    policy: &'static str,
}

impl Metrics {
    /// Returns metrics with all counters at zero.
    pub fn new() -> Self {
        let mut registry = Registry::default();
        let metrics = Self {
            registry: Arc::default(),
            deployments: Arc::default(),
            reconciles: Family::default(),
            reconcile_errors: Family::default(),
            reconcile_duration: Histogram::new(RECONCILE_SECONDS),
            writes: Family::default(),
            write_errors: Family::default(),
            dry_runs: Family::default(),
            watch_errors: Family::default(),
            objects_in_backoff: Gauge::default(),
            admission_policies: Family::default(),
            size: Arc::default(),
        };
        // Alerts can't detect the first error if the counter appears only with that error, so both outcomes start at zero.
        for outcome in [ReconcileOutcome::Success, ReconcileOutcome::Error("")] {
            drop(metrics.reconciles.get_or_create(&OutcomeLabels {
                outcome: outcome.label(),
            }));
        }

        // The registry adds a full stop to each help text.
        let version = [("version", env!("CARGO_PKG_VERSION"))];
        registry.register("slipway_build", "The version of Slipway", Info::new(version));
        registry.register(
            "slipway_reconciles",
            "Reconciles, by outcome",
            metrics.reconciles.clone(),
        );
        registry.register(
            "slipway_reconcile_errors",
            "Reconciles that failed, by reason",
            metrics.reconcile_errors.clone(),
        );
        registry.register_with_unit(
            "slipway_reconcile_duration",
            "Duration of a reconcile, including API calls",
            Unit::Seconds,
            metrics.reconcile_duration.clone(),
        );
        registry.register(
            "slipway_dry_runs",
            "Dry runs that validate settings against the API server, by outcome",
            metrics.dry_runs.clone(),
        );
        registry.register(
            "slipway_writes",
            "Write requests to the API server, by outcome",
            metrics.writes.clone(),
        );
        registry.register(
            "slipway_write_errors",
            "Write requests that failed, by reason",
            metrics.write_errors.clone(),
        );
        registry.register(
            "slipway_watch_errors",
            "Watches that failed and were restarted",
            metrics.watch_errors.clone(),
        );
        registry.register(
            "slipway_objects_in_backoff",
            "ContourDeployments that back off after a failure",
            metrics.objects_in_backoff.clone(),
        );
        registry.register(
            "slipway_admission_policy_installed",
            "Whether an admission policy and its binding are installed as this version ships them",
            metrics.admission_policies.clone(),
        );
        registry.register_collector(Box::new(Arc::clone(&metrics.deployments)));
        Self {
            registry: Arc::new(registry),
            ..metrics
        }
    }

    /// Observes a status that was computed at `now`, whether or not the status is written.
    ///
    /// The ContourDeployment has series from this call until [`Self::forget`]. So callers must not call this function after the last
    /// `forget`.
    pub fn observe_status(&self, namespace: &str, name: &str, status: &ContourDeploymentStatus, now: Timestamp) {
        let mut deployments = self.deployments.lock();
        let deployment = deployments.entry(owner(namespace, name)).or_default();
        deployment.conditions = status
            .conditions
            .iter()
            .map(|condition| {
                let known = CONDITION_STATUSES
                    .into_iter()
                    .find(|status| *status == condition.status);
                (condition.type_.clone(), known.unwrap_or("Unknown"))
            })
            .collect();
        let before = std::mem::take(&mut deployment.extension_services);
        deployment.extension_services = extension_services::observe(before, &status.extension_services, now);
    }

    /// Drops the series of a deleted ContourDeployment.
    pub fn forget(&self, namespace: &str, name: &str) {
        self.deployments.lock().remove(&owner(namespace, name));
    }

    /// Counts a reconcile.
    pub fn reconciled(&self, namespace: &str, name: &str, outcome: ReconcileOutcome, duration: Duration) {
        self.reconciles
            .get_or_create(&OutcomeLabels {
                outcome: outcome.label(),
            })
            .inc();
        self.reconcile_duration.observe(duration.as_secs_f64());
        let mut deployments = self.deployments.lock();
        match outcome {
            // `entry` would be wrong: the reconcile of a deleted object succeeds too, and must not add its series again.
            ReconcileOutcome::Success => {
                if let Some(deployment) = deployments.get_mut(&owner(namespace, name)) {
                    deployment.reconcile_failed = false;
                }
            }
            ReconcileOutcome::Error(reason) => {
                deployments.entry(owner(namespace, name)).or_default().reconcile_failed = true;
                self.reconcile_errors.get_or_create(&ReasonLabels { reason }).inc();
            }
        }
    }

    /// Counts a write request for an object of a kind. `verb` is `apply`, `create`, `delete` and so on.
    pub fn wrote(&self, kind: &str, verb: &str, outcome: WriteOutcome) {
        let (kind, verb) = (kind.to_owned(), verb.to_owned());
        if let WriteOutcome::Error(reason) = outcome {
            self.write_errors
                .get_or_create(&WriteErrorLabels {
                    kind: kind.clone(),
                    verb: verb.clone(),
                    reason,
                })
                .inc();
        }
        self.writes
            .get_or_create(&WriteLabels {
                kind,
                verb,
                outcome: outcome.label(),
            })
            .inc();
    }

    /// Counts a dry run of the settings, which writes nothing.
    pub fn tried(&self, outcome: ReconcileOutcome) {
        let outcome = outcome.label();
        self.dry_runs.get_or_create(&OutcomeLabels { outcome }).inc();
    }

    /// Counts a failure of the watch of a kind.
    pub fn watch_failed(&self, kind: &str) {
        self.watch_errors
            .get_or_create(&KindLabels { kind: kind.to_owned() })
            .inc();
    }

    /// Sets the number of ContourDeployments that back off after a failure.
    pub fn objects_in_backoff(&self, count: usize) {
        self.objects_in_backoff.set(i64::try_from(count).unwrap_or(i64::MAX));
    }

    /// Sets whether an admission policy is installed as this version ships it.
    pub fn admission_policy(&self, policy: &'static str, installed: bool) {
        self.admission_policies
            .get_or_create(&PolicyLabels { policy })
            .set(i64::from(installed));
    }

    /// Returns all metrics in the `OpenMetrics` text format. The counters of seconds have their values at `now`.
    pub fn encode(&self, now: Timestamp) -> String {
        for deployment in self.deployments.lock().values_mut() {
            deployment
                .extension_services
                .iter_mut()
                .for_each(|series| series.advance(now));
        }
        // With a thousand ContourDeployments the text has several megabytes. A text that grows by doubling could take twice the memory.
        let mut text = String::with_capacity(self.size.load(Ordering::Relaxed));
        text::encode(&mut text, &self.registry).expect("writing to a String never fails");
        self.size.store(text.len() + text.len() / 16, Ordering::Relaxed);
        text
    }
}

impl Default for Metrics {
    fn default() -> Self {
        Self::new()
    }
}

/// The namespace and the name of a ContourDeployment.
type SeriesOwner = (String, String);

fn owner(namespace: &str, name: &str) -> SeriesOwner {
    (namespace.to_owned(), name.to_owned())
}

/// The series of the ContourDeployments. They are not stored in a `Family`, because a `Family` stores all labels for each sample, and each
/// ContourDeployment has dozens of samples.
#[derive(Debug, Default)]
struct Deployments(Mutex<BTreeMap<SeriesOwner, DeploymentSeries>>);

/// The series of one ContourDeployment.
#[derive(Debug, Default)]
struct DeploymentSeries {
    /// The type and the status of each condition.
    conditions: Vec<(String, &'static str)>,
    extension_services: Vec<Series>,
    reconcile_failed: bool,
}

impl Deployments {
    /// Locks the map, even if another thread panicked while it held the lock. This is safe because no update leaves the map half done.
    fn lock(&self) -> MutexGuard<'_, BTreeMap<SeriesOwner, DeploymentSeries>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Collector for Deployments {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> fmt::Result {
        let deployments = self.lock();
        let labelled = deployments.iter().map(|((namespace, name), deployment)| {
            let labels: OwnerLabels<'_> = [("contourdeployment_namespace", namespace), ("contourdeployment", name)];
            (labels, deployment)
        });

        let mut family = encoder.encode_descriptor(
            "slipway_contourdeployment_condition",
            "The conditions of the ContourDeployment: 1 for the current status, 0 for the others. An absent condition has no samples.",
            None,
            MetricType::Gauge,
        )?;
        for (owner, deployment) in labelled.clone() {
            for (type_, status) in &deployment.conditions {
                for candidate in CONDITION_STATUSES {
                    let labels = ([("type", type_.as_str()), ("status", candidate)], owner);
                    family
                        .encode_family(&labels)?
                        .encode_gauge(&u64::from(candidate == *status))?;
                }
            }
        }

        let mut family = encoder.encode_descriptor(
            "slipway_contourdeployment_reconcile_failed",
            "Whether the last reconcile of the ContourDeployment failed.",
            None,
            MetricType::Gauge,
        )?;
        for (owner, deployment) in labelled.clone() {
            family
                .encode_family(&owner)?
                .encode_gauge(&u64::from(deployment.reconcile_failed))?;
        }

        let services = labelled
            .flat_map(|(owner, deployment)| deployment.extension_services.iter().map(move |series| (owner, series)));
        extension_services::encode(&mut encoder, services)
    }
}

#[cfg(test)]
mod tests;
