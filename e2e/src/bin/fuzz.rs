//! `make fuzz`: runs each fuzz target (`fuzz/`) for ten minutes, in slices of one minute, so that an interrupted run can resume.

use std::io::{BufRead, BufReader};
use std::path::PathBuf;
use std::process::{Command, ExitCode, Stdio};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use anyhow::{Context as _, bail, ensure};
use clap::Parser;
use serde_json::json;
use slipway_e2e::proof::{self, Journal, Row};
use slipway_e2e::{narration, places};

/// The targets, and the length of the longest useful input.
const TARGETS: [(&str, u32); 2] = [("documents", 4096), ("events", 512)];

/// The length of a slice in seconds, which is the most that an interruption costs.
const SLICE: u64 = 60;

#[derive(Parser)]
struct Options {
    /// Generates the same inputs from the same corpus. Default: another seed each time.
    #[arg(long)]
    seed: Option<u64>,
    /// The duration of each target, in seconds.
    #[arg(long, default_value_t = 600)]
    seconds: u64,
    /// Runs only this target; writes no rows.
    #[arg(long)]
    only: Option<String>,
    /// Replays only this file (`fuzz/artifacts/…`); needs `--only`.
    #[arg(long, requires = "only")]
    replay: Option<PathBuf>,
    /// The path of the cargo-fuzz for this run.
    #[arg(long)]
    tool: PathBuf,
}

fn main() -> anyhow::Result<ExitCode> {
    let options = Options::parse();
    let chosen = |target: &&(&str, u32)| options.only.as_ref().is_none_or(|only| only == target.0);
    let targets: Vec<_> = TARGETS.iter().filter(chosen).collect();
    ensure!(!targets.is_empty(), "no target has this name: {:?}", options.only);
    if let Some(file) = &options.replay {
        let status = cargo_fuzz(&options, targets[0].0).arg(file).status()?;
        return Ok(if status.success() {
            ExitCode::SUCCESS
        } else {
            ExitCode::FAILURE
        });
    }
    let now = SystemTime::now().duration_since(UNIX_EPOCH)?.as_secs();
    let seed = options.seed.unwrap_or(now & 0xffff_ffff);
    // A resumed run keeps its first seed, so only the duration identifies the journal.
    let mut journal = Journal::open("fuzz", options.seconds)?;
    let mut rows = Vec::new();
    for &&(target, longest) in &targets {
        let mut inputs = 0_u64;
        let mut seeds = Vec::new();
        for slice in 0..options.seconds.div_ceil(SLICE) {
            let step = format!("{target} {slice}");
            if journal.outcome(&step).is_none() {
                let seed = seed + slice;
                narration::say(format!(
                    "{target}: minute {} of {}, seed {seed}",
                    slice + 1,
                    options.seconds.div_ceil(SLICE)
                ));
                let seconds = SLICE.min(options.seconds - slice * SLICE);
                let Some(count) = run(&options, target, longest, seed, seconds)? else {
                    narration::say("the target crashed; see above for the input and fuzz/artifacts for the file");
                    return Ok(ExitCode::FAILURE);
                };
                journal.note(&step, json!({"inputs": count, "seed": seed}))?;
            }
            let known = journal.outcome(&step).context("the step has no outcome")?;
            inputs += known["inputs"].as_u64().context("a count")?;
            seeds.push(known["seed"].as_u64().context("a seed")?);
        }
        ensure!(inputs > 0, "{target}: no input was tested");
        let first = seeds.first().context("a slice")?;
        let counts = format!("{inputs} inputs, 0 crashes");
        narration::say(format!("{target}: {counts}"));
        rows.push(Row::new(target, first, counts, Duration::from_secs(options.seconds)));
    }
    if options.only.is_none() {
        proof::record("fuzz", &rows)?;
    }
    Ok(ExitCode::SUCCESS)
}

/// Runs a target for `seconds` and returns the number of inputs, or None if the target crashed.
fn run(options: &Options, target: &str, longest: u32, seed: u64, seconds: u64) -> anyhow::Result<Option<u64>> {
    // New inputs go to the build folder; the corpus in the repository is only read.
    let learned = proof::folder("fuzz")?.join(target);
    std::fs::create_dir_all(&learned).with_context(|| format!("creating {}", learned.display()))?;
    let mut command = cargo_fuzz(options, target);
    command
        .arg(&learned)
        .arg(places::repository().join("fuzz/corpus").join(target))
        .arg("--");
    command.args([
        format!("-seed={seed}"),
        format!("-max_total_time={seconds}"),
        format!("-max_len={longest}"),
    ]);
    command.args(["-print_final_stats=1", "-timeout=60", "-rss_limit_mb=2048"]);
    let mut child = command.stderr(Stdio::piped()).spawn().context("running cargo-fuzz")?;
    let mut inputs = None;
    for line in BufReader::new(child.stderr.take().context("cargo-fuzz has no standard error")?).lines() {
        let line = line?;
        if let Some(count) = line.strip_prefix("stat::number_of_executed_units:") {
            inputs = count.trim().parse().ok();
        }
        // libFuzzer's progress is a line for each input with new coverage.
        if !line.starts_with('#') || line.contains("pulse") {
            eprintln!("{line}");
        }
    }
    let status = child.wait()?;
    match (status.success(), inputs) {
        (true, Some(inputs)) => Ok(Some(inputs)),
        (true, None) => bail!("{target}: libFuzzer did not report the number of inputs"),
        (false, _) => Ok(None),
    }
}

/// Returns the command `cargo fuzz run TARGET` without a sanitizer, since there is no unsafe code to check. The stable compiler supports
/// the required coverage, if `RUSTC_BOOTSTRAP` allows its use.
fn cargo_fuzz(options: &Options, target: &str) -> Command {
    let mut command = Command::new(&options.tool);
    command.current_dir(places::repository()).env("RUSTC_BOOTSTRAP", "1");
    command.env("CARGO_TARGET_DIR", places::target().join("fuzz"));
    command.args(["run", "--sanitizer", "none", target]);
    command
}
