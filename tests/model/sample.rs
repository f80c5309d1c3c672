//! What `cargo test` runs: a part of the world that is small enough to be searched to its end in seconds, guards that are removed and
//! must be missed, and ways that were gone before (`ways/`).

use std::fs;
use std::path::Path;
use std::process::ExitCode;

use libtest_mimic::{Arguments, Failed, Trial};

use crate::breakages::{self, Breakage};
use crate::model::Model;
use crate::scopes::{self, Scope};
use crate::search::search;
use crate::trace;

/// More than any search here needs.
const MOST: usize = 100_000;

/// Guards whose absence shows within some hundred states.
const GUARDS: [&str; 5] = [
    "Contour before its ContourConfiguration",
    "Contour before its stand-ins",
    "no finalizer on stand-ins",
    "no finalizer on the ContourDeployment",
    "the verdict on an older generation counts",
];

pub fn run() -> ExitCode {
    let mut trials = vec![Trial::test("the_smallest_world_is_closed_and_comes_to_rest", || {
        holds(scopes::named("smallest"))
    })];
    for name in GUARDS {
        let title = format!("it_is_noticed::{}", name.replace(' ', "_"));
        trials.push(Trial::test(title, move || is_noticed(breakages::named(name))));
    }
    let ways = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/model/ways");
    let mut files: Vec<_> = fs::read_dir(ways)
        .expect("the folder is there")
        .map(|file| file.expect("an entry").path())
        .collect();
    files.sort();
    assert!(!files.is_empty(), "there are ways to be gone");
    for file in files {
        let title = format!("way::{}", file.file_stem().unwrap_or_default().to_string_lossy());
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
        .ok_or_else(|| format!("{}: nobody noticed", breakage.name).into())
}

/// Without a guard it must end badly as it did; with all of them nothing may be wrong any more.
fn is_gone(file: &Path) -> Result<(), Failed> {
    let text = fs::read_to_string(file).expect("the file can be read");
    let problems = trace::follow(&text, &mut |_| {});
    match (trace::is_without_a_guard(&text), problems.is_empty()) {
        (true, true) => Err("nobody noticed".into()),
        (false, false) => Err(problems.join("; ").into()),
        _ => Ok(()),
    }
}
