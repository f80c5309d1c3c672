//! Runs sequences of events on the simulated cluster. `tests/fuzz/events.rs` checks the invariants.

#![no_main]
#![allow(dead_code)] // the tests use more of the shared simulated cluster

#[path = "../../tests/world/api_server.rs"]
mod api_server;
#[path = "../../tests/world/cluster.rs"]
mod cluster;
#[path = "../../tests/world/controllers.rs"]
mod controllers;
#[path = "../../tests/fuzz/events.rs"]
mod events;
#[path = "../../tests/fuzz/imitations.rs"]
mod imitations;
#[path = "../../tests/world/invariants.rs"]
mod invariants;
#[path = "../../tests/world/scene.rs"]
mod scene;

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    events::check(bytes);
});
