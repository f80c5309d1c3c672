//! The foundation of the demo, the proofs and the end-to-end tests: a real cluster, real traffic, and a real external
//! authorization server.

pub mod attack;
pub mod authorizer;
pub mod binaries;
pub mod certificate;
pub mod cluster;
pub mod command;
pub mod documentation;
pub mod drift;
pub mod edge;
pub mod faults;
pub mod flap;
pub mod hosts;
pub mod images;
pub mod installation;
pub mod kubectl;
pub mod lab;
pub mod leftovers;
pub mod narration;
pub mod orders;
pub mod places;
pub mod probe;
pub mod proof;
pub mod report;
pub mod stock;
pub mod wait;
