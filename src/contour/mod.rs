//! Knowledge about Contour and Envoy beyond their API: the settings that they refuse, their ports, and their duration syntax. This module
//! does not depend on the plan.

pub mod duration;
pub mod ports;
pub mod preflight;
pub mod version;
