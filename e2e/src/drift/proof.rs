//! The whole proof: every object of Slipway's with every perturbation, many times, and every scenario of a possible leak.

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

use anyhow::{Context as _, ensure};
use clap::Parser;
use serde::{Deserialize, Serialize};

use super::leaks::{self, Batch, Crds, Operator, Scenario};
use super::times::Times;
use super::watches::created_kinds;
use super::{EnvoyWorkload, Outcome, Round};
use crate::cases::{self, Cases};
use crate::lab::Lab;
use crate::narration::{say, title};
use crate::proof::{self, Journal, Row};

/// The name of the proof.
const PROOF: &str = "prove-drift";

/// The longest time in which objects may be left.
const LEAK_LIMIT: Duration = Duration::from_secs(10);

/// Proves that Slipway repairs every change of its objects, and leaves nothing behind.
#[derive(Debug, Parser)]
pub struct Options {
    /// Repeats the same run
    #[arg(long, default_value_t = 1)]
    pub seed: u64,
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
#[derive(Debug, Deserialize, Serialize)]
struct Kept {
    times: Times,
    kinds: BTreeSet<String>,
    deletions: usize,
    seconds: u64,
    #[serde(skip)]
    failures: Vec<String>,
}

/// The journal entry of a batch of leaks: milliseconds by scenario.
#[derive(Debug, Deserialize, Serialize)]
struct KeptLeaks {
    millis: Vec<(String, u64)>,
    seconds: u64,
}

impl cases::Outcome for Kept {
    fn failures(&self) -> &[String] {
        &self.failures
    }
}

impl cases::Outcome for KeptLeaks {
    /// Returns no failures: a failed batch ends the proof.
    fn failures(&self) -> &[String] {
        &[]
    }
}

/// Runs the proof, and records its rows. With [`Options::only`], runs only these cases of drift, and records nothing.
pub async fn prove(lab: &Lab, options: &Options) -> anyhow::Result<()> {
    let mut rows = drift(lab, options).await?;
    if options.only.is_some() {
        return Ok(());
    }
    rows.extend(leak(lab, options).await?);
    ensure!(!rows.is_empty(), "the proof tested nothing");
    proof::record(PROOF, &rows)
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

async fn drift(lab: &Lab, options: &Options) -> anyhow::Result<Vec<Row>> {
    let journal = options.only.is_none().then(|| Journal::open(PROOF, options.seed));
    let all = rounds(options).into_iter().map(|round| (round.name.clone(), round));
    let cases = Cases::<Round, Kept>::resume(journal.transpose()?, all);
    let open: Vec<_> = std::iter::from_fn(|| cases.pending().next())
        .map(|(_, round)| round)
        .collect();
    title(&format!(
        "drift: {} rounds, {} of them pending",
        cases.total(),
        open.len()
    ));
    if !open.is_empty() {
        let mut last = Instant::now();
        let note = |round: &Round, outcome: &Outcome| {
            let (count, failed) = (outcome.times.count(), outcome.failures.len());
            say(format!(
                "{}: {count} repairs, {failed} cases failed, {} deletions",
                round.name, outcome.deletions
            ));
            let kept = Kept {
                times: outcome.times.clone(),
                kinds: outcome.kinds.iter().map(|&kind| kind.to_owned()).collect(),
                deletions: outcome.deletions,
                seconds: last.elapsed().as_secs(),
                failures: outcome.failures.clone(),
            };
            last = Instant::now();
            cases.finish(&round.name, kept).map(drop)
        };
        super::rounds(lab, &open, options.at_once, note).await?.check()?;
    }
    if options.only.is_some() {
        return Ok(Vec::new());
    }
    let (total, outcomes) = (cases.total(), cases.into_outcomes());
    ensure!(outcomes.len() == total, "{} of {total} rounds ran", outcomes.len());
    drift_rows(&outcomes, options)
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

async fn leak(lab: &Lab, options: &Options) -> anyhow::Result<Vec<Row>> {
    let journal = Journal::open(PROOF, options.seed)?;
    let all = batches(options).into_iter().map(|batch| (batch.0.clone(), batch));
    let cases = Cases::<_, KeptLeaks>::resume(Some(journal), all);
    while let Some((_, (name, seed, operator, crds, scenarios))) = cases.pending().next() {
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
        cases.finish(&name, kept)?;
    }
    leak_rows(&cases.into_outcomes(), options)
}

fn drift_rows(rounds: &BTreeMap<String, Kept>, options: &Options) -> anyhow::Result<Vec<Row>> {
    let mut times = Times::default();
    let (mut kinds, mut deletions, mut seconds) = (BTreeSet::new(), 0, 0);
    for kept in rounds.values() {
        times.add(kept.times.clone());
        kinds.extend(kept.kinds.iter().cloned());
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

fn leak_rows(outcomes: &BTreeMap<String, KeptLeaks>, options: &Options) -> anyhow::Result<Vec<Row>> {
    let mut groups: BTreeMap<String, (Vec<u64>, u64)> = BTreeMap::new();
    for (name, _, operator, crds, _) in batches(options) {
        let kept = outcomes.get(&name).with_context(|| format!("{name} was not played"))?;
        let group = groups
            .entry(format!("leaks: operator {operator:?}, Contour's CRDs {crds:?}").to_lowercase())
            .or_default();
        group.0.extend(kept.millis.iter().map(|(_, millis)| *millis));
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
