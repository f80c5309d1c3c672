//! `make mutants`: checks that a test fails for each change of the core. cargo-mutants makes the changes, one at a time, and runs the
//! core's tests. This program keeps the outcomes, so that an interrupted run can resume, and judges them.
//!
//! A killed mutant stays killed as long as the core is unchanged. Only survivors are tested again, with the present tests. The run fails
//! if fewer than 95 of 100 mutants are killed, or if `docs/survivors.md` has no reason for a survivor.

mod core;
mod outcome;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};
use std::thread::available_parallelism;

use anyhow::{Context as _, ensure};
use clap::Parser;
use slipway_e2e::proof::{self, Row};
use slipway_e2e::{narration, places};

use outcome::{Mutant, Outcomes};

/// The page with a reason for each survivor.
const SURVIVORS: &str = "docs/survivors.md";

/// The required percentage of killed mutants.
const GOAL: usize = 95;

#[derive(Parser)]
struct Options {
    /// Tests only mutants of this file, for example `src/plan/usage.rs`; writes no rows.
    #[arg(long)]
    only: Option<String>,
    /// The path of the cargo-mutants for this run.
    #[arg(long)]
    tool: PathBuf,
}

fn main() -> anyhow::Result<ExitCode> {
    let options = Options::parse();
    let of = options.only.as_deref().unwrap_or("core").replace('/', "-");
    let folder = proof::folder(&format!("mutants-{of}-{}", core::fingerprint()?))?;
    let mut kept = Outcomes::kept_in(&folder)?;
    // The outcomes of an interrupted run.
    kept.extend(Outcomes::last_of(&folder)?);
    kept.keep_in(&folder)?;
    narration::say(format!(
        "{} mutants are already killed or do not compile",
        kept.settled()
    ));
    run(&options, &folder)?;
    kept.extend(Outcomes::last_of(&folder)?);
    kept.keep_in(&folder)?;
    ensure!(kept.tried() > 0, "no mutant could be built, so nothing was tested");
    if options.only.is_none() {
        proof::record("mutants", &rows(&kept))?;
    }
    judge(&kept)
}

/// Tests the remaining mutants.
fn run(options: &Options, folder: &Path) -> anyhow::Result<()> {
    let mut command = Command::new(&options.tool);
    command
        .current_dir(places::repository())
        .args(["mutants", "--iterate", "--colors", "never", "--output"])
        .arg(folder)
        .args(["--jobs", &available_parallelism()?.to_string()])
        // Each job builds in its own folder.
        .env_remove("CARGO_TARGET_DIR")
        // Property tests use the same values for every mutant.
        .env("PROPTEST_RNG_SEED", "1")
        // tests/world/cluster.rs
        .env("FAIL_FAST", "1");
    if let Some(file) = &options.only {
        command.arg("--config").arg(config_for(file, folder)?);
    }
    let status = command.status().context("running cargo-mutants")?;
    // 2: some mutants survived; 3: some reached the time limit.
    ensure!(
        matches!(status.code(), Some(0 | 2 | 3)),
        "cargo-mutants: {status}; its logs are in {}",
        folder.display()
    );
    Ok(())
}

/// Writes the configuration for only one file and returns its path. (`--file` adds to the files that the configuration examines, and `--re`
/// does not apply to every mutant: cargo-mutants 27.1.)
fn config_for(file: &str, folder: &Path) -> anyhow::Result<PathBuf> {
    const EXAMINED: &str = "examine_globs = ";
    let page = places::repository().join(".cargo/mutants.toml");
    let text = fs::read_to_string(&page).with_context(|| format!("reading {}", page.display()))?;
    let examined = text.lines().find(|line| line.starts_with(EXAMINED));
    let examined = examined.with_context(|| format!("{}: no {EXAMINED:?}", page.display()))?;
    let config = folder.join("one-file.toml");
    fs::write(&config, text.replace(examined, &format!("{EXAMINED}[{file:?}]")))
        .with_context(|| format!("writing {}", config.display()))?;
    Ok(config)
}

/// Returns a row for all mutants, and one for each file.
fn rows(outcomes: &Outcomes) -> Vec<Row> {
    let all = Row::new("the core", &"1", outcomes.to_string(), outcomes.took());
    let files = outcomes.by_file().into_iter();
    let files = files.map(|(file, its)| Row::new(format!("`{file}`"), &"1", its.to_string(), its.took()));
    std::iter::once(all).chain(files).collect()
}

/// Checks that enough mutants were killed and that every survivor has a reason.
fn judge(outcomes: &Outcomes) -> anyhow::Result<ExitCode> {
    let page = places::repository().join(SURVIVORS);
    let reasons = fs::read_to_string(&page).with_context(|| format!("reading {}", page.display()))?;
    let unexplained: Vec<&Mutant> = outcomes
        .missed()
        .into_iter()
        .filter(|mutant| !reasons.contains(&format!("`{}`", mutant.described())))
        .collect();
    println!("{outcomes}");
    for mutant in &unexplained {
        println!("survived, but {SURVIVORS} has no reason: {}", mutant.0);
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
