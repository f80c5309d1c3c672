//! The tests of `cargo test`: the search of a part of the model that is small enough to be searched to its end in seconds, the
//! removal of guards that must be noticed, and the replay of paths that once led to a bad state (`ways/`).

use std::fs;
use std::path::Path;
use std::process::ExitCode;

use libtest_mimic::{Arguments, Failed, Trial};

use crate::breakages::{self, Breakage};
use crate::model::Model;
use crate::scopes::{self, Scope};
use crate::search::search;
use crate::trace;

/// More states than any search here needs.
const MOST: usize = 100_000;

/// Guards whose removal is noticed within a few hundred states.
const GUARDS: [&str; 5] = [
    "Contour is written before its ContourConfiguration",
    "Contour is written before its stand-ins",
    "no finalizer on stand-ins",
    "the ContourDeployment has no finalizer",
    "a verdict on an older generation is accepted",
];

pub fn run() -> ExitCode {
    let mut trials = vec![Trial::test(
        "the_smallest_scope_is_searched_to_its_end_and_settles",
        || holds(scopes::named("smallest")),
    )];
    for name in GUARDS {
        let title = format!("the_removal_is_noticed::{}", name.replace(' ', "_"));
        trials.push(Trial::test(title, move || is_noticed(breakages::named(name))));
    }
    let ways = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/model/ways");
    let mut files: Vec<_> = fs::read_dir(ways)
        .expect("the folder exists")
        .map(|file| file.expect("an entry").path())
        .collect();
    files.sort();
    assert!(!files.is_empty(), "a path to replay exists");
    for file in files {
        let title = format!("path::{}", file.file_stem().unwrap_or_default().to_string_lossy());
        trials.push(Trial::test(title, move || is_gone(&file)));
    }
    libtest_mimic::run(&Arguments::from_args(), trials).exit_code()
}

fn holds(scope: Scope) -> Result<(), Failed> {
    let mut model = Model::new(scope, None);
    let found = search(&mut model, MOST, &mut |_, _| {});
    println!(
        "{} states, {} steps, {} ends, {} observed",
        found.states, found.steps, found.ends, found.observed
    );
    if found.states < 100 || found.ends == 0 {
        return Err(format!("{} states and {} ends: nothing was tested", found.states, found.ends).into());
    }
    found
        .counterexample
        .map_or(Ok(()), |counterexample| Err(model.tell(&counterexample).into()))
}

fn is_noticed(breakage: &'static Breakage) -> Result<(), Failed> {
    let mut model = Model::new(scopes::named(breakage.scope), Some(breakage));
    let found = search(&mut model, MOST, &mut |_, _| {});
    found
        .counterexample
        .map(|_| ())
        .ok_or_else(|| format!("{}: the removal of the guard was not noticed", breakage.name).into())
}

/// Replays a path. Without a guard the path must still show a problem. With all guards the path must not show any problem.
fn is_gone(file: &Path) -> Result<(), Failed> {
    let text = fs::read_to_string(file).expect("the file can be read");
    let problems = trace::follow(&text, &mut |_| {});
    match (trace::is_without_a_guard(&text), problems.is_empty()) {
        (true, true) => Err("the removal of the guard was not noticed".into()),
        (false, false) => Err(problems.join("; ").into()),
        _ => Ok(()),
    }
}
