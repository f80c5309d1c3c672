//! A short version of `make fuzz`: runs the bodies of the two targets (`fuzz/fuzz_targets`) over the kept corpus (`fuzz/corpus`)
//! and over random bytes. `SEED=7 cargo test --test fuzz` repeats a run with the same bytes.

#[path = "../world/api_server.rs"]
mod api_server;
#[path = "../world/cluster.rs"]
#[allow(dead_code)] // the tests in `world` use more functions
mod cluster;
#[path = "../world/controllers.rs"]
mod controllers;
#[path = "../world/invariants.rs"]
mod invariants;
#[path = "../world/scene.rs"]
#[allow(dead_code)] // the tests in `world` use more functions
mod scene;

mod documents;
mod events;
mod imitations;

use std::cell::Cell;
use std::fs;
use std::path::Path;

use proptest::collection::vec;
use proptest::prelude::any;
use proptest::test_runner::{Config, RngSeed, TestRunner};

/// Checks every file of a target's corpus. Returns the number of files.
fn corpus(target: &str, check: impl Fn(&[u8])) -> usize {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz/corpus").join(target);
    let entries = fs::read_dir(&folder).unwrap_or_else(|error| panic!("{}: {error}", folder.display()));
    let mut files: Vec<_> = entries.map(|entry| entry.expect("an entry").path()).collect();
    files.sort();
    for file in &files {
        // libtest shows the line only if the test panics.
        eprintln!("{}", file.display());
        check(&fs::read(file).expect("the file can be read"));
    }
    files.len()
}

/// Checks `cases` sequences of random bytes. Shrinks the first sequence that fails.
fn random(cases: u32, longest: usize, check: impl Fn(&[u8])) {
    let seed = std::env::var("SEED").map_or(1, |seed| seed.parse().expect("SEED is a number"));
    println!("seed {seed}");
    let config = Config {
        cases,
        rng_seed: RngSeed::Fixed(seed),
        failure_persistence: None,
        ..Config::default()
    };
    let bytes = vec(any::<u8>(), 0..longest);
    let result = TestRunner::new(config).run(&bytes, |bytes| {
        check(&bytes);
        Ok(())
    });
    result.unwrap_or_else(|error| panic!("SEED={seed}: {error}"));
}

#[test]
fn every_contour_deployment_gets_one_plan_that_matches_its_spec() {
    let planned = Cell::new(0);
    let check = |bytes: &[u8]| planned.set(planned.get() + usize::from(documents::check(bytes).is_some()));
    let kept = corpus("documents", check);
    random(128, 1024, check);
    assert!(
        planned.get() * 2 > kept + 128,
        "only {} inputs could be read",
        planned.get()
    );
}

#[test]
fn every_sequence_of_events_keeps_the_invariants_and_settles() {
    let happened = Cell::new(0);
    let check = |bytes: &[u8]| happened.set(happened.get() + events::check(bytes));
    let kept = corpus("events", check);
    random(32, 160, check);
    assert!(
        happened.get() > (kept + 32) * 4,
        "only {} events happened",
        happened.get()
    );
}
