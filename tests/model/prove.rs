//! The full run: every scope to its end, every breakage to its counterexample, on two threads; rows for docs/proof.md.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Mutex;
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::breakages::{self, Breakage};
use crate::model::Model;
use crate::scopes::{self, Scope};
use crate::search::{Found, search};
use crate::trace;

/// Searches at once: one for each core that the figures in docs/proof.md are about.
const AT_ONCE: usize = 2;

#[derive(clap::Args)]
pub struct Options {
    /// Only scopes and breakages with this in their names.
    #[arg(long)]
    only: Option<String>,
    /// Where to write the rows for docs/proof.md, as JSON.
    #[arg(long)]
    rows: Option<PathBuf>,
    /// Where to write the ways to bad states.
    #[arg(long, default_value = "target/prove/model")]
    ways: PathBuf,
    /// Give a scope up after so many states.
    #[arg(long, default_value_t = 60_000_000)]
    most: usize,
}

/// One search.
struct Task {
    scope: Scope,
    breakage: Option<&'static Breakage>,
}

impl Task {
    fn name(&self) -> String {
        match self.breakage {
            None => self.scope.name.to_owned(),
            Some(breakage) => format!("without a guard: {}", breakage.name),
        }
    }
}

/// What came of a search.
struct Outcome {
    task: Task,
    found: Found,
    took: Duration,
    way: Option<PathBuf>,
}

pub fn prove(options: &Options) -> ExitCode {
    let wanted = |task: &Task| options.only.as_ref().is_none_or(|only| task.name().contains(only));
    let scopes = scopes::all();
    let broken = breakages::ALL.iter().map(|breakage| Task {
        scope: scopes::named(breakage.scope),
        breakage: Some(breakage),
    });
    let tasks = scopes.into_iter().map(|scope| Task { scope, breakage: None }).chain(broken);
    let tasks: VecDeque<Task> = tasks.filter(wanted).collect();
    assert!(!tasks.is_empty(), "nothing is called so");
    std::fs::create_dir_all(&options.ways).expect("a folder for the ways");
    let (queue, outcomes) = (Mutex::new(tasks), Mutex::new(Vec::new()));
    let next = || queue.lock().expect("nobody panics with the lock").pop_front();
    std::thread::scope(|threads| {
        for _ in 0..AT_ONCE {
            threads.spawn(|| {
                while let Some(task) = next() {
                    let outcome = run(task, options);
                    outcomes.lock().expect("nobody panics with the lock").push(outcome);
                }
            });
        }
    });
    conclude(&outcomes.into_inner().expect("nobody panics with the lock"), options)
}

fn run(task: Task, options: &Options) -> Outcome {
    let (name, started) = (task.name(), Instant::now());
    let mut model = Model::new(task.scope.clone(), task.breakage);
    let found = search(&mut model, options.most, &mut |states, left| {
        println!("{name}: {states} states, {left} of them still to do, {} s", started.elapsed().as_secs());
    });
    let took = started.elapsed();
    println!(
        "{name}: {} states, {} steps, {} ends, {} observed, {} objects, {:.1} s",
        found.states, found.steps, found.ends, found.observed, model.items.len(), took.as_secs_f64()
    );
    let way = found.counterexample.as_ref().map(|counterexample| {
        let told = trace::head(&task.scope, task.breakage) + &model.tell(counterexample);
        let file = options.ways.join(format!("{}.txt", name.replace([' ', ':', ','], "-")));
        std::fs::write(&file, &told).expect("the way can be written");
        if task.breakage.is_none() {
            println!("{told}");
        }
        file
    });
    Outcome { task, found, took, way }
}

/// Counts, rows, and whether all is as it must be.
fn conclude(outcomes: &[Outcome], options: &Options) -> ExitCode {
    let mut bad = Vec::new();
    let mut rows: Vec<(String, Value)> = Vec::new();
    let mut counts: BTreeMap<&str, usize> = BTreeMap::new();
    for outcome in outcomes {
        let Outcome { task, found, took, way } = outcome;
        let shown = way.as_ref().map(|way| way.display().to_string());
        match (task.breakage, &found.counterexample) {
            (None, None) => {
                let text = format!(
                    "{} states, {} steps, {} ends, {} observed, 0 counterexamples",
                    found.states, found.steps, found.ends, found.observed
                );
                if found.states < 2 || found.ends == 0 || found.observed == 0 {
                    bad.push(format!("{} tested nothing: {text}", task.name()));
                }
                rows.push((task.name(), row(&format!("{}: {}", task.scope.name, task.scope.what), &text, *took)));
                for (action, count) in &found.counts {
                    *counts.entry(action).or_default() += count;
                }
            }
            (None, Some(counterexample)) => {
                bad.push(format!("{}: {} ({})", task.name(), counterexample.problems.join("; "), shown.unwrap_or_default()));
            }
            (Some(_), None) => bad.push(format!("{}: nobody noticed", task.name())),
            (Some(_), Some(counterexample)) => {
                let first = counterexample.problems.first().map(String::as_str).unwrap_or_default();
                let text = format!("{} steps to: {}", counterexample.way.len(), first.lines().next().unwrap_or_default());
                rows.push((task.name(), row(&task.name(), &text, *took)));
            }
        }
    }
    if options.only.is_none() {
        let never: BTreeSet<&str> = trace::ACTIONS.iter().copied().filter(|name| !counts.contains_key(name)).collect();
        bad.extend(never.into_iter().map(|name| format!("it never happened that {name}")));
    }
    println!();
    for (action, count) in &counts {
        println!("{count:12} {action}");
    }
    let all: usize = outcomes.iter().filter(|outcome| outcome.task.breakage.is_none()).map(|outcome| outcome.found.states).sum();
    let broken = outcomes.iter().filter(|outcome| outcome.task.breakage.is_some() && outcome.way.is_some()).count();
    println!("\n{all} states; {broken} breakages found out; {} problems", bad.len());
    for problem in &bad {
        println!("! {problem}");
    }
    rows.sort_by_key(|(name, _)| name.clone());
    if let Some(file) = &options.rows
        && bad.is_empty()
    {
        let rows: Vec<Value> = rows.into_iter().map(|(_, row)| row).collect();
        std::fs::write(file, serde_json::to_string_pretty(&rows).expect("JSON")).expect("the rows can be written");
    }
    if bad.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

fn row(what: &str, counts: &str, took: Duration) -> Value {
    json!({"what": what, "seed": "–", "counts": counts, "seconds": took.as_secs()})
}

/// Goes a way that was written to a file, and tells it.
pub fn replay(file: &Path) -> ExitCode {
    let text = std::fs::read_to_string(file).expect("the file can be read");
    let problems = trace::follow(&text, &mut |line| println!("{line}"));
    for problem in &problems {
        println!("! {problem}");
    }
    if problems.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}
