//! Sequences of events on the simulated cluster. What must hold is in `tests/fuzz/events.rs`.

#![no_main]
#![allow(dead_code)] // it shares the simulated cluster with tests that use more of it

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
