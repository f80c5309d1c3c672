//! `make mutants`: does any test notice when a piece of the core is another? cargo-mutants makes the changes, one at a time, and
//! runs the core's tests; this runs it in slices, so that it can be interrupted, and judges what is left.
//!
//! It fails if fewer than 95 of 100 mutants are killed, or if one survives that `docs/survivors.md` gives no reason for.

mod outcome;

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};
use std::time::{Duration, Instant};

use anyhow::{Context as _, ensure};
use clap::Parser;
use serde_json::Value;
use slipway_e2e::proof::{self, Journal, Row};
use slipway_e2e::{narration, places};

use outcome::{Mutant, Outcomes};

/// Mutants of one slice: what an interruption costs at most.
const SLICE: usize = 80;

/// Where each survivor has its reason.
const SURVIVORS: &str = "docs/survivors.md";

/// Of a hundred mutants so many have to be killed.
const GOAL: usize = 95;

#[derive(Parser)]
struct Options {
    /// Only mutants of this file, `src/plan/usage.rs` for instance; writes no rows.
    #[arg(long)]
    only: Option<String>,
    /// The cargo-mutants that was installed for this.
    #[arg(long)]
    tool: PathBuf,
    /// The configuration to use in place of the repository's.
    #[arg(skip)]
    config: Option<PathBuf>,
}

fn main() -> anyhow::Result<ExitCode> {
    let mut options = Options::parse();
    options.config = options.only.as_deref().map(config_for).transpose()?;
    let all = listed(&options)?;
    ensure!(!all.is_empty(), "there is nothing to mutate: nothing was tested");
    let slices = all.len().div_ceil(SLICE);
    narration::say(format!("{} mutants in {slices} slices", all.len()));
    let name = options.only.as_ref().map_or("mutants".to_owned(), |file| {
        format!("mutants-{}", file.replace('/', "-"))
    });
    let mut journal = Journal::open(&name, 0)?;
    let mut outcomes = Outcomes::default();
    let mut took = BTreeMap::<String, Duration>::new();
    for slice in 0..slices {
        let step = format!("{slice}/{slices}");
        if journal.outcome(&step).is_none() {
            let started = Instant::now();
            let outcome = run(&options, &step, slice == 0)?;
            narration::say(format!("slice {step}: {outcome}, {} s", started.elapsed().as_secs()));
            journal.note(&step, serde_json::to_value((&outcome, started.elapsed().as_secs()))?)?;
        }
        let known = journal.outcome(&step).context("it was just noted")?;
        let (outcome, seconds): (Outcomes, u64) = serde_json::from_value(known.clone())?;
        for (file, tried) in outcome.tried_by_file() {
            let share = u32::try_from(tried)? * u32::try_from(seconds)? / u32::try_from(outcome.tried().max(1))?;
            *took.entry(file).or_default() += Duration::from_secs(share.into());
        }
        outcomes.extend(outcome);
    }
    ensure!(outcomes.tried() > 0, "no mutant could be built: nothing was tested");
    if options.only.is_none() {
        proof::record("mutants", &rows(&outcomes, &took))?;
    }
    judge(&outcomes)
}

/// All mutants.
fn listed(options: &Options) -> anyhow::Result<Vec<Value>> {
    let output = cargo_mutants(options)
        .args(["--list", "--json"])
        .output()
        .context("running cargo-mutants")?;
    ensure!(
        output.status.success(),
        "listing the mutants: {}",
        String::from_utf8_lossy(&output.stderr)
    );
    serde_json::from_slice(&output.stdout).context("reading the list of mutants")
}

/// Runs one slice.
fn run(options: &Options, shard: &str, first: bool) -> anyhow::Result<Outcomes> {
    let folder = proof::folder("mutants")?;
    let mut command = cargo_mutants(options);
    command.args([
        "--shard",
        shard,
        "--sharding",
        "slice",
        "--jobs",
        "1",
        "--no-shuffle",
        "--colors",
        "never",
    ]);
    command.arg("--output").arg(&folder);
    // The tests pass as they are; that need not be shown for each slice.
    if !first {
        command.args(["--baseline", "skip", "--timeout", "300"]);
    }
    let status = command.status().context("running cargo-mutants")?;
    // 2: some survived; 3: some ran into the time limit.
    ensure!(
        matches!(status.code(), Some(0 | 2 | 3)),
        "cargo-mutants: {status}; its logs are in {}",
        folder.display()
    );
    Outcomes::read(&folder.join("mutants.out/outcomes.json"))
}

fn cargo_mutants(options: &Options) -> Command {
    let mut command = Command::new(&options.tool);
    command
        .current_dir(places::repository())
        .arg("mutants")
        .env("CARGO_TARGET_DIR", places::target());
    // Properties are tried with the same values for every mutant.
    command.env("PROPTEST_RNG_SEED", "1");
    // tests/world/cluster.rs
    command.env("FAIL_FAST", "1");
    if let Some(config) = &options.config {
        command.arg("--config").arg(config);
    }
    command
}

/// The configuration, but for one file only. (`--file` comes on top of what the configuration examines, and `--re` does not hold for
/// every mutant: cargo-mutants 27.1.)
fn config_for(file: &str) -> anyhow::Result<PathBuf> {
    const EXAMINED: &str = "examine_globs = ";
    let page = places::repository().join(".cargo/mutants.toml");
    let text = fs::read_to_string(&page).with_context(|| format!("reading {}", page.display()))?;
    let examined = text.lines().find(|line| line.starts_with(EXAMINED));
    let examined = examined.with_context(|| format!("{}: no {EXAMINED:?}", page.display()))?;
    let config = proof::folder("mutants")?.join("one-file.toml");
    fs::write(&config, text.replace(examined, &format!("{EXAMINED}[{file:?}]")))
        .with_context(|| format!("writing {}", config.display()))?;
    Ok(config)
}

fn rows(outcomes: &Outcomes, took: &BTreeMap<String, Duration>) -> Vec<Row> {
    let total = took.values().sum();
    let all = Row::new("the core", &"1", outcomes.to_string(), total);
    let files = outcomes.by_file().into_iter().map(|(file, outcomes)| {
        let took = took.get(&file).copied().unwrap_or_default();
        Row::new(format!("`{file}`"), &"1", outcomes.to_string(), took)
    });
    std::iter::once(all).chain(files).collect()
}

/// Whether enough were killed, and every survivor has a reason.
fn judge(outcomes: &Outcomes) -> anyhow::Result<ExitCode> {
    let page = places::repository().join(SURVIVORS);
    let reasons = fs::read_to_string(&page).with_context(|| format!("reading {}", page.display()))?;
    let unexplained: Vec<&Mutant> = outcomes
        .missed
        .iter()
        .filter(|mutant| !reasons.contains(&format!("`{}`", mutant.described())))
        .collect();
    println!("{outcomes}");
    for mutant in &unexplained {
        println!("survived, and {SURVIVORS} gives no reason: {}", mutant.0);
    }
    let enough = outcomes.killed() * 100 >= outcomes.tried() * GOAL;
    if !enough {
        println!("fewer than {GOAL} of 100 were killed");
    }
    Ok(if enough && unexplained.is_empty() {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    })
}

impl Outcomes {
    fn read(file: &Path) -> anyhow::Result<Self> {
        let text = fs::read_to_string(file).with_context(|| format!("reading {}", file.display()))?;
        Self::parse(&text).with_context(|| format!("reading the outcomes in {}", file.display()))
    }
}
