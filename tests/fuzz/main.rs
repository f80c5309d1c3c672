//! A small sample of what `make fuzz` does for longer: the bodies of its two targets (`fuzz/fuzz_targets`) over the kept corpus
//! (`fuzz/corpus`) and over random bytes. `SEED=7 cargo test --test fuzz` makes the same bytes again.

#[path = "../world/api_server.rs"]
mod api_server;
#[path = "../world/cluster.rs"]
#[allow(dead_code)] // as above
mod cluster;
#[path = "../world/controllers.rs"]
mod controllers;
#[path = "../world/invariants.rs"]
mod invariants;
#[path = "../world/scene.rs"]
#[allow(dead_code)] // the tests in `world` use more of it
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

/// The files of a target's corpus, each checked; says how many they are.
fn corpus(target: &str, check: impl Fn(&[u8])) -> usize {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz/corpus").join(target);
    let entries = fs::read_dir(&folder).unwrap_or_else(|error| panic!("{}: {error}", folder.display()));
    let mut files: Vec<_> = entries.map(|entry| entry.expect("an entry").path()).collect();
    files.sort();
    for file in &files {
        // Shown only if it panics.
        eprintln!("{}", file.display());
        check(&fs::read(file).expect("it can be read"));
    }
    files.len()
}

/// Random bytes, so often, each checked; they are made smaller if one fails.
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
fn any_contour_deployment_among_any_objects_gives_one_plan_with_what_is_asked_for() {
    let planned = Cell::new(0);
    let check = |bytes: &[u8]| planned.set(planned.get() + usize::from(documents::check(bytes).is_some()));
    let kept = corpus("documents", check);
    random(128, 1024, check);
    assert!(planned.get() * 2 > kept + 128, "only {} could be read", planned.get());
}

#[test]
fn any_sequence_of_events_keeps_what_must_hold_and_comes_to_rest_as_if_built_in_order() {
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
