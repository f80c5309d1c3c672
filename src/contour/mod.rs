//! What Slipway knows of Contour and Envoy beside their API: which settings they do not take, their ports, how they read durations. Nothing
//! here knows of plans.

pub mod duration;
pub mod ports;
pub mod preflight;
