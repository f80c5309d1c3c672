//! Slipway runs Project Contour and its Envoys from one custom resource, `ContourDeployment`, in any start-up order.
//!
//! Data flows one way: watch → observe → plan → apply → status. `docs/architecture.md` states the invariants, and `docs/decisions` the reasons.

pub mod api;
mod contour;
#[cfg(feature = "operator")]
pub mod controller;
pub mod issuer;
pub mod plan;
pub mod reference_page;
pub mod render;
#[cfg(feature = "operator")]
pub mod telemetry;
