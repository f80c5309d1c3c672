//! What Slipway says about itself: metrics, probes, logs.
//!
//! It is told things and answers scrapes. It decides nothing, it has no client, and nothing in here can fail a reconcile.

mod extension_services;
pub mod logs;
mod metrics;
mod probes;
mod server;

pub use metrics::{Metrics, ReconcileOutcome, WriteOutcome};
pub use probes::{Liveness, Readiness};
pub use server::serve;

/// Where the parts of the process tell how they are.
#[derive(Clone, Debug)]
pub struct Telemetry {
    /// What `/metrics` shows.
    pub metrics: Metrics,
    /// What `/readyz` shows.
    pub readiness: Readiness,
    /// What `/livez` shows.
    pub liveness: Liveness,
}
