//! Computes plans from ContourDeployments and the objects around them. `tests/fuzz/documents.rs` checks the invariants.

#![no_main]
#![allow(dead_code)] // the tests use more of the shared simulated cluster

#[path = "../../tests/world/api_server.rs"]
mod api_server;
#[path = "../../tests/world/cluster.rs"]
mod cluster;
#[path = "../../tests/world/controllers.rs"]
mod controllers;
#[path = "../../tests/fuzz/documents.rs"]
mod documents;
#[path = "../../tests/fuzz/imitations.rs"]
mod imitations;
#[path = "../../tests/world/invariants.rs"]
mod invariants;

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| -> libfuzzer_sys::Corpus {
    match documents::check(bytes) {
        Some(_) => libfuzzer_sys::Corpus::Keep,
        None => libfuzzer_sys::Corpus::Reject,
    }
});
