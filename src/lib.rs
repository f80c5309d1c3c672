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

#[cfg(all(test, feature = "one-test-binary"))]
extern crate self as slipway;
#[cfg(all(test, feature = "one-test-binary"))]
#[path = "../tests/golden.rs"]
mod golden;
#[cfg(all(test, feature = "one-test-binary"))]
#[path = "../tests/world/main.rs"]
mod world;
