//! The full run: searches every scope to its end, and every removed guard to its counterexample, two searches at a time. Writes
//! rows for docs/proof-results.md. A journal records completed searches, so that an interrupted run continues.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::fs;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Mutex;
use std::time::Instant;

use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use crate::breakages::{self, Breakage};
use crate::model::Model;
use crate::scopes::{self, Scope};
use crate::search::search;
use crate::trace;

/// The number of concurrent searches: one for each core of the machine that the figures in docs/proof-results.md are about.
const AT_ONCE: usize = 2;

#[derive(clap::Args)]
pub struct Options {
    /// Run only scopes and removed guards with this text in their names.
    #[arg(long)]
    only: Option<String>,
    /// Skip the searches in this journal, and append completed searches to the journal.
    #[arg(long)]
    journal: Option<PathBuf>,
    /// Write the rows for docs/proof-results.md to this file, as JSON.
    #[arg(long)]
    rows: Option<PathBuf>,
    /// Write the paths to bad states to this folder.
    #[arg(long, default_value = "target/prove/model")]
    ways: PathBuf,
    /// Give up a scope after this number of states.
    #[arg(long, default_value_t = 50_000_000)]
    most: usize,
}

/// The longest searches. They start first, so that no core is idle at the end.
const LONGEST: [&str; 3] = ["edits after a verdict on another object", "namespace", "two"];

/// One search.
struct Task {
    scope: Scope,
    breakage: Option<&'static Breakage>,
}

impl Task {
    fn name(&self) -> String {
        match self.breakage {
            None => format!("{}: {}", self.scope.name, self.scope.what),
            Some(breakage) => format!("guard removed: {}", breakage.name),
        }
    }
}

/// The result of a search.
#[derive(Serialize, Deserialize)]
struct Done {
    name: String,
    /// Whether a guard was removed, so that the search must find a counterexample.
    broken: bool,
    states: usize,
    steps: usize,
    ends: usize,
    observed: usize,
    counts: BTreeMap<String, usize>,
    counterexample: Option<Shown>,
    seconds: u64,
}

/// A counterexample.
#[derive(Serialize, Deserialize)]
struct Shown {
    problem: String,
    steps: usize,
    file: PathBuf,
}

pub fn prove(options: &Options) -> ExitCode {
    let before = read(options.journal.as_deref());
    let scopes = scopes::all().into_iter().map(|scope| Task { scope, breakage: None });
    let broken = breakages::ALL.iter().map(|breakage| Task {
        scope: scopes::named(breakage.scope),
        breakage: Some(breakage),
    });
    let wanted = |task: &Task| options.only.as_ref().is_none_or(|only| task.name().contains(only));
    let mut tasks: Vec<Task> = scopes.chain(broken).filter(wanted).collect();
    tasks.sort_by_key(|task| task.breakage.is_some() || !LONGEST.contains(&task.scope.name));
    assert!(!tasks.is_empty(), "no scope or removed guard has this name");
    let is_new = |task: &Task| before.iter().all(|done| done.name != task.name());
    let queue = Mutex::new(tasks.into_iter().filter(is_new).collect::<VecDeque<_>>());
    let done = Mutex::new(before);
    fs::create_dir_all(&options.ways).expect("the folder for the paths can be created");
    let next = || queue.lock().expect("nobody panics with the lock").pop_front();
    std::thread::scope(|threads| {
        for _ in 0..AT_ONCE {
            threads.spawn(|| {
                while let Some(task) = next() {
                    let one = run(&task, options);
                    let mut done = done.lock().expect("nobody panics with the lock");
                    write(options.journal.as_deref(), &one);
                    done.push(one);
                }
            });
        }
    });
    conclude(&done.into_inner().expect("nobody panics with the lock"), options)
}

fn read(journal: Option<&Path>) -> Vec<Done> {
    let text = journal
        .and_then(|journal| fs::read_to_string(journal).ok())
        .unwrap_or_default();
    text.lines()
        .filter_map(|line| serde_json::from_str(line).ok())
        .collect()
}

/// Appends a completed search to the journal. Omits an unexpected result, so that the next run repeats the search.
fn write(journal: Option<&Path>, done: &Done) {
    if done.broken != done.counterexample.is_some() {
        return;
    }
    if let Some(journal) = journal {
        let mut file = fs::File::options()
            .create(true)
            .append(true)
            .open(journal)
            .expect("the journal can be opened");
        let line = serde_json::to_string(done).expect("JSON");
        writeln!(file, "{line}").expect("the journal can be written");
    }
}

fn run(task: &Task, options: &Options) -> Done {
    let (name, started) = (task.name(), Instant::now());
    let mut model = Model::new(task.scope.clone(), task.breakage);
    let found = search(&mut model, options.most, &mut |states, left| {
        println!(
            "{name}: {states} states, {left} of them not processed yet, {} s",
            started.elapsed().as_secs()
        );
    });
    let took = started.elapsed();
    println!(
        "{name}: {} states, {} steps, {} ends, {} observed, {} objects, {:.1} s",
        found.states,
        found.steps,
        found.ends,
        found.observed,
        model.items.len(),
        took.as_secs_f64()
    );
    let counterexample = found.counterexample.map(|counterexample| {
        let told = trace::head(&task.scope, task.breakage) + &model.tell(&counterexample);
        let label = task.breakage.map_or(task.scope.name, |breakage| breakage.name);
        let file = options.ways.join(format!(
            "{}.txt",
            label.replace(|char: char| !char.is_ascii_alphanumeric(), "-")
        ));
        fs::write(&file, &told).expect("the path can be written");
        if task.breakage.is_none() {
            println!("{told}");
        }
        let problem = counterexample
            .problems
            .first()
            .and_then(|problem| problem.lines().next())
            .unwrap_or_default()
            .to_owned();
        Shown {
            problem,
            steps: counterexample.way.len(),
            file,
        }
    });
    Done {
        name,
        broken: task.breakage.is_some(),
        states: found.states,
        steps: found.steps,
        ends: found.ends,
        observed: found.observed,
        counts: found
            .counts
            .into_iter()
            .map(|(name, count)| (name.to_owned(), count))
            .collect(),
        counterexample,
        seconds: took.as_secs(),
    }
}

/// Prints counts, writes rows, and reports whether every search has the expected result.
fn conclude(done: &[Done], options: &Options) -> ExitCode {
    let mut bad = Vec::new();
    let mut counts: BTreeMap<&str, usize> = BTreeMap::new();
    for one in done {
        let name = &one.name;
        match &one.counterexample {
            Some(shown) if !one.broken => bad.push(format!("{name}: {} ({})", shown.problem, shown.file.display())),
            None if one.broken => bad.push(format!("{name}: the removal of the guard was not noticed")),
            None if one.states < 2 || one.ends == 0 || one.observed == 0 => {
                bad.push(format!("{name}: nothing was tested"));
            }
            _ => {}
        }
        for (action, count) in one.counts.iter().filter(|_| !one.broken) {
            *counts.entry(action).or_default() += count;
        }
    }
    if options.only.is_none() {
        let never: BTreeSet<&str> = trace::ACTIONS
            .iter()
            .copied()
            .filter(|name| !counts.contains_key(name))
            .collect();
        bad.extend(
            never
                .into_iter()
                .map(|name| format!("this step never happened: {name}")),
        );
    }
    println!();
    for (action, count) in &counts {
        println!("{count:12} {action}");
    }
    let states: usize = done.iter().filter(|one| !one.broken).map(|one| one.states).sum();
    let broken = done
        .iter()
        .filter(|one| one.broken && one.counterexample.is_some())
        .count();
    println!(
        "\n{states} states; {broken} removals of guards were noticed; {} problems",
        bad.len()
    );
    for problem in &bad {
        println!("! {problem}");
    }
    if !bad.is_empty() {
        return ExitCode::FAILURE;
    }
    if let Some(file) = &options.rows {
        let rows: Vec<Value> = done.iter().map(row).collect();
        fs::write(file, serde_json::to_string_pretty(&rows).expect("JSON")).expect("the rows can be written");
    }
    ExitCode::SUCCESS
}

fn row(one: &Done) -> Value {
    let counts = match &one.counterexample {
        Some(shown) => format!("noticed after {} steps: {}", shown.steps, shown.problem),
        None => format!(
            "{} states, {} steps, {} ends, {} distinct Observed, 0 counterexamples",
            one.states, one.steps, one.ends, one.observed
        ),
    };
    json!({"what": one.name, "seed": "–", "counts": counts, "seconds": one.seconds})
}

/// Replays and prints a path from a file.
pub fn replay(file: &Path) -> ExitCode {
    let text = fs::read_to_string(file).expect("the file can be read");
    let problems = trace::follow(&text, &mut |line| println!("{line}"));
    for problem in &problems {
        println!("! {problem}");
    }
    if problems.is_empty() {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    }
}
