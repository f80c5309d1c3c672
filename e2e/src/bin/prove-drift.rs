//! `make prove-drift`: every object of Slipway's with every perturbation, many times, and every scenario of a possible leak.
//! `docs/proof.md` describes what is proved.

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

use anyhow::{Context as _, ensure};
use clap::Parser;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use slipway_e2e::drift::leaks::{self, Batch, Crds, Operator, Scenario};
use slipway_e2e::drift::times::Times;
use slipway_e2e::drift::watches::created_kinds;
use slipway_e2e::drift::{self, EnvoyWorkload, Outcome, Round};
use slipway_e2e::lab::Lab;
use slipway_e2e::lab::world::{Takes, alone};
use slipway_e2e::narration::{say, title};
use slipway_e2e::proof::{self, Journal, Row};

/// The longest time in which objects may be left.
const LEAK_LIMIT: Duration = Duration::from_secs(10);

#[derive(Parser)]
struct Options {
    /// Repeats the same run
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// The number of rounds; the default gives 200 samples of each perturbation that applies to every object
    #[arg(long, default_value_t = 12)]
    rounds: u64,
    /// The number of parallel rounds
    #[arg(long, default_value_t = 2)]
    at_once: usize,
    /// The number of repetitions of each leak scenario
    #[arg(long, default_value_t = 3)]
    leaks: u64,
    /// Only the cases of drift with this text in their names; records nothing
    #[arg(long)]
    only: Option<String>,
}

/// The journal entry of a round.
#[derive(Deserialize, Serialize)]
struct Kept {
    times: Times,
    kinds: BTreeSet<String>,
    deletions: usize,
    seconds: u64,
}

/// The journal entry of a batch of leaks: milliseconds by scenario.
#[derive(Deserialize, Serialize)]
struct KeptLeaks {
    millis: Vec<(String, u64)>,
    seconds: u64,
}

#[tokio::main]
async fn main() {
    let options = Options::parse();
    say(format!("seed {}", options.seed));
    alone("drift", Takes::ContourCrds, async |lab: &Lab| run(lab, &options).await).await;
}

async fn run(lab: &Lab, options: &Options) -> anyhow::Result<()> {
    let mut journal = Journal::open("prove-drift", options.seed)?;
    drift(lab, options, &mut journal).await?;
    if options.only.is_some() {
        return Ok(());
    }
    leak(lab, options, &mut journal).await?;
    let mut rows = drift_rows(&journal, options)?;
    rows.extend(leak_rows(&journal, options)?);
    ensure!(!rows.is_empty(), "the proof tested nothing");
    proof::record("prove-drift", &rows)
}

fn rounds(options: &Options) -> Vec<Round> {
    let round = |number| Round {
        name: format!("round-{number}"),
        seed: fastrand::Rng::with_seed(options.seed.wrapping_mul(1000).wrapping_add(number)).u64(..),
        workload: if number % 2 == 0 {
            EnvoyWorkload::Deployment
        } else {
            EnvoyWorkload::DaemonSet
        },
        share: (0, 1),
        only: options.only.clone(),
    };
    (0..options.rounds).map(round).collect()
}

async fn drift(lab: &Lab, options: &Options, journal: &mut Journal) -> anyhow::Result<()> {
    let rounds = rounds(options);
    let open: Vec<_> = rounds
        .iter()
        .filter(|round| journal.outcome(&round.name).is_none())
        .cloned()
        .collect();
    title(&format!(
        "drift: {} rounds, {} of them pending",
        rounds.len(),
        open.len()
    ));
    if open.is_empty() {
        return Ok(());
    }
    let mut last = Instant::now();
    let note = |round: &Round, outcome: &Outcome| {
        let (count, failed) = (outcome.times.count(), outcome.failures.len());
        say(format!(
            "{}: {count} repairs, {failed} cases failed, {} deletions",
            round.name, outcome.deletions
        ));
        if failed == 0 && options.only.is_none() {
            let kept = Kept {
                times: outcome.times.clone(),
                kinds: outcome.kinds.iter().map(|&kind| kind.to_owned()).collect(),
                deletions: outcome.deletions,
                seconds: last.elapsed().as_secs(),
            };
            journal.note(&round.name, serde_json::to_value(kept)?)?;
        }
        last = Instant::now();
        Ok(())
    };
    let outcome = drift::rounds(lab, &open, options.at_once, note).await?;
    for (what, line) in outcome.times.lines() {
        say(format!("{what}: {line}"));
    }
    let failures = outcome.failures;
    ensure!(
        failures.is_empty(),
        "{} cases failed:\n{}",
        failures.len(),
        failures.join("\n")
    );
    Ok(())
}

/// Returns the batches of leaks: with and without the operator, and with and without Contour's CRDs.
fn batches(options: &Options) -> Vec<(String, u64, Operator, Crds, &'static [Scenario])> {
    let mut batches = Vec::new();
    for number in 0..options.leaks {
        for (operator, crds, scenarios) in [
            (Operator::Down, Crds::Installed, &leaks::ALL[..]),
            (Operator::Up, Crds::Installed, &leaks::ALL[..]),
            (Operator::Down, Crds::Deleted, &leaks::WITHOUT_CRDS[..]),
            (Operator::Up, Crds::Deleted, &leaks::WITHOUT_CRDS[..]),
        ] {
            let name = format!("{operator:?}-{crds:?}-{number}").to_lowercase();
            batches.push((
                name,
                options.seed.wrapping_mul(1000).wrapping_add(number),
                operator,
                crds,
                scenarios,
            ));
        }
    }
    batches
}

async fn leak(lab: &Lab, options: &Options, journal: &mut Journal) -> anyhow::Result<()> {
    for (name, seed, operator, crds, scenarios) in batches(options) {
        if journal.outcome(&name).is_some() {
            continue;
        }
        title(&format!("leaks: {name}, seed {seed}"));
        let started = Instant::now();
        let batch = Batch {
            name: &name,
            scenarios,
            operator,
            crds,
            seed,
        };
        let times = leaks::run(lab, &batch).await?;
        if crds == Crds::Deleted {
            lab.world.install_contour_crds().await?;
        }
        let slow: Vec<_> = times.iter().filter(|(_, time)| *time > LEAK_LIMIT).collect();
        ensure!(slow.is_empty(), "not within {LEAK_LIMIT:?}: {slow:?}");
        let millis = times
            .into_iter()
            .map(|(name, time)| (name, u64::try_from(time.as_millis()).unwrap_or(u64::MAX)));
        let kept = KeptLeaks {
            millis: millis.collect(),
            seconds: started.elapsed().as_secs(),
        };
        for (scenario, millis) in &kept.millis {
            say(format!("{scenario}: no object left after {millis} ms"));
        }
        journal.note(&name, serde_json::to_value(kept)?)?;
    }
    Ok(())
}

fn kept<T: DeserializeOwned>(journal: &Journal, step: &str) -> anyhow::Result<T> {
    let kept = journal
        .outcome(step)
        .with_context(|| format!("{step} is not in the journal"))?;
    Ok(serde_json::from_value(kept.clone())?)
}

fn drift_rows(journal: &Journal, options: &Options) -> anyhow::Result<Vec<Row>> {
    let mut times = Times::default();
    let (mut kinds, mut deletions, mut seconds) = (BTreeSet::new(), 0, 0);
    for round in rounds(options) {
        let kept: Kept = kept(journal, &round.name)?;
        times.add(kept.times);
        kinds.extend(kept.kinds);
        deletions += kept.deletions;
        seconds += kept.seconds;
    }
    let expected: BTreeSet<_> = created_kinds().map(str::to_owned).collect();
    ensure!(
        kinds == expected,
        "the disturbed kinds are {kinds:?}, but Slipway creates {expected:?}"
    );
    let took = Duration::from_secs(seconds);
    let lines = times.lines().into_iter();
    let mut rows: Vec<_> = lines
        .map(|(what, line)| Row::new(format!("drift: {what}"), &options.seed, line, took))
        .collect();
    let counts = format!("{deletions}, each with the uid of its object");
    rows.push(Row::new(
        "drift: deletions that the operator asked for",
        &options.seed,
        counts,
        took,
    ));
    Ok(rows)
}

fn leak_rows(journal: &Journal, options: &Options) -> anyhow::Result<Vec<Row>> {
    let mut groups: BTreeMap<String, (Vec<u64>, u64)> = BTreeMap::new();
    for (name, _, operator, crds, _) in batches(options) {
        let kept: KeptLeaks = kept(journal, &name)?;
        let group = groups
            .entry(format!("leaks: operator {operator:?}, Contour's CRDs {crds:?}").to_lowercase())
            .or_default();
        group.0.extend(kept.millis.into_iter().map(|(_, millis)| millis));
        group.1 += kept.seconds;
    }
    let row = |(name, (millis, seconds)): (String, (Vec<u64>, u64))| {
        let slowest = millis.iter().max().copied().unwrap_or_default();
        let counts = format!(
            "{} scenarios, 0 objects left, the slowest after {slowest} ms",
            millis.len()
        );
        Row::new(name, &options.seed, counts, Duration::from_secs(seconds))
    };
    Ok(groups.into_iter().map(row).collect())
}
