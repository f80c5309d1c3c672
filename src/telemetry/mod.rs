//! Slipway's telemetry: metrics, probes and logs.
//!
//! The other modules report events and states here, and this module answers scrapes and probes. The module makes no decisions, has no
//! client, and can't fail a reconcile.

mod extension_services;
pub mod logs;
mod metrics;
mod probes;
mod server;

pub use metrics::{Metrics, ReconcileOutcome, WriteOutcome};
pub use probes::{Liveness, Readiness};
pub use server::serve;

/// The handles through which the parts of the process report their state.
#[derive(Clone, Debug)]
pub struct Telemetry {
    /// The content of `/metrics`.
    pub metrics: Metrics,
    /// The result of `/readyz`.
    pub readiness: Readiness,
    /// The result of `/livez`.
    pub liveness: Liveness,
}
