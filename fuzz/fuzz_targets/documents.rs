//! ContourDeployments and the objects around them → plans. What must hold is in `tests/fuzz/documents.rs`.

#![no_main]
#![allow(dead_code)] // it shares the simulated cluster with tests that use more of it

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
