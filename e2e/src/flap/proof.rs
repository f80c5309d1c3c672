//! The whole proof that flapping under traffic passes no unchecked request, breaks no connection and restarts no container.
//! The proof consists of chunks; an interrupted proof resumes with the next chunk, on a new cluster.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::time::Duration;

use anyhow::{Context as _, bail, ensure};
use clap::Parser;

use super::answers::Counts;
use super::backend::Arrivals;
use super::place::Place;
use super::play::Faults;
use super::{Mode, Outcome};
use crate::cases::Cases;
use crate::cluster::Cluster;
use crate::installation;
use crate::narration::{say, title};
use crate::proof::{Journal, Row, record};

/// The name of the proof, and of its section on the page.
const PROOF: &str = "prove-flap";

/// The name of the proof's cluster.
const CLUSTER: &str = "flap-proof";

/// The number of cycles in a chunk.
const CHUNK: usize = 20;

/// The requirements of the issue: the cycles of each mode, and the answers with `failOpen: false`.
const CYCLES: usize = 200;
const REQUESTS: u64 = 100_000;
const CHECKED: u64 = 20_000;
const REFUSED: u64 = 20_000;
const DENIED: u64 = 10_000;

/// The arguments of the proof.
#[derive(Debug, Parser)]
#[command(about = "Flapping of an ExtensionService under traffic, on a real cluster")]
pub struct Options {
    /// Repeats the same moments and faults
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// Plays only this chunk, for example `closed/3` or `open/0`, and records nothing
    #[arg(long, value_name = "CHUNK")]
    only: Option<String>,
    /// Plays on a running cluster of the testbed, with the Slipway that is installed there
    #[arg(long, value_name = "NAME")]
    cluster: Option<String>,
}

/// One chunk of one mode.
#[derive(Clone, Copy, Debug)]
struct Chunk {
    mode: Mode,
    number: usize,
}

impl Chunk {
    fn all() -> impl Iterator<Item = Self> {
        let chunks = |mode| (0..CYCLES.div_ceil(CHUNK)).map(move |number| Self { mode, number });
        chunks(Mode::FailClosed).chain(chunks(Mode::FailOpen))
    }

    fn name(self) -> String {
        format!("{}/{}", self.mode, self.number)
    }

    /// Returns the seed of this chunk, so that the chunk can be played alone.
    fn seed(self, seed: u64) -> u64 {
        let mode = match self.mode {
            Mode::FailClosed => 0,
            Mode::FailOpen => 1,
        };
        seed.wrapping_mul(1_000_003) ^ (mode << 32) ^ self.number as u64
    }
}

/// Runs the proof, and records its rows.
pub async fn prove(options: &Options) -> anyhow::Result<()> {
    title(&format!("{PROOF}, seed {}", options.seed));
    if let Some(name) = &options.only {
        let chunk = Chunk::all().find(|chunk| chunk.name() == *name);
        let chunk = chunk.with_context(|| format!("{name:?} is not a chunk"))?;
        let cluster = cluster(options).await?;
        let place = Place::prepare(&cluster).await?;
        let outcome = play(&cluster, &place, chunk, options.seed).await?;
        ensure!(outcome.failures.is_empty(), "{} failures", outcome.failures.len());
        return Ok(());
    }
    let journal = Journal::open(PROOF, options.seed)?;
    let cases = Cases::<Chunk, Outcome>::resume(Some(journal), Chunk::all().map(|chunk| (chunk.name(), chunk)));
    let left = cases.pending().len();
    if left < cases.total() {
        say(format!("{left} chunks are left of {}", cases.total()));
    }
    if left > 0 {
        let cluster = cluster(options).await?;
        let place = Place::prepare(&cluster).await?;
        let mut failed = Vec::new();
        while let Some((name, chunk)) = cases.pending().next() {
            title(&format!("{name} ({} of {left})", left - cases.pending().len()));
            let outcome = play(&cluster, &place, chunk, options.seed).await?;
            if !outcome.failures.is_empty() {
                failed.push(name.clone());
            }
            cases.finish(&name, outcome)?;
        }
        ensure!(
            failed.is_empty(),
            "failed: {}; to repeat one: {PROOF} --seed {} --only {}",
            failed.join(", "),
            options.seed,
            failed[0]
        );
    }
    let outcomes = cases.into_outcomes();
    let rows = [Mode::FailClosed, Mode::FailOpen].map(|mode| Total::of(&outcomes, mode));
    let rows: Vec<_> = rows
        .into_iter()
        .map(|total| total?.row(options.seed))
        .collect::<anyhow::Result<_>>()?;
    record(PROOF, &rows)?;
    for row in rows {
        say(format!("{}: {} ({} s)", row.what, row.counts, row.seconds));
    }
    Ok(())
}

async fn cluster(options: &Options) -> anyhow::Result<Cluster> {
    if let Some(name) = &options.cluster {
        return Cluster::attach(name).await;
    }
    let cluster = Cluster::start(CLUSTER).await?;
    installation::everything(&cluster).await?;
    Ok(cluster)
}

async fn play(cluster: &Cluster, place: &Place<'_>, chunk: Chunk, seed: u64) -> anyhow::Result<Outcome> {
    let outcome = super::chunk(place, chunk.mode, chunk.seed(seed), CHUNK).await;
    let outcome = match outcome {
        Ok(outcome) => outcome,
        Err(error) => {
            installation::diagnose(cluster).await;
            return Err(error.context(chunk.name()));
        }
    };
    for failure in &outcome.failures {
        say(format!("FAILED: {failure}"));
    }
    if !outcome.failures.is_empty() {
        installation::diagnose(cluster).await;
    }
    Ok(outcome)
}

/// The sum of all chunks of a mode.
struct Total {
    mode: Mode,
    cycles: usize,
    counts: Counts,
    arrivals: Arrivals,
    faults: Faults,
    took: Duration,
}

impl Total {
    fn of(outcomes: &BTreeMap<String, Outcome>, mode: Mode) -> anyhow::Result<Self> {
        let mut total = Self {
            mode,
            cycles: 0,
            counts: Counts::default(),
            arrivals: Arrivals::default(),
            faults: Faults::default(),
            took: Duration::ZERO,
        };
        for chunk in Chunk::all().filter(|chunk| chunk.mode == mode) {
            let Some(outcome) = outcomes.get(&chunk.name()) else {
                bail!("{} was not played", chunk.name())
            };
            total.cycles += outcome.cycles;
            total.counts.add(&outcome.counts);
            total.arrivals.add(outcome.arrivals);
            total.faults.add(outcome.faults);
            total.took += outcome.took;
        }
        Ok(total)
    }

    fn row(self, seed: u64) -> anyhow::Result<Row> {
        let Self {
            mode,
            cycles,
            counts,
            arrivals,
            faults,
            took,
        } = self;
        ensure!(cycles >= CYCLES, "{cycles} cycles were played, of {CYCLES}");
        let what = match mode {
            Mode::FailClosed => {
                for (what, count, wanted) in [
                    ("requests", counts.requests, REQUESTS),
                    ("requests that passed", counts.checked, CHECKED),
                    ("requests that were refused", counts.refused, REFUSED),
                    ("requests that were denied", counts.denied, DENIED),
                ] {
                    ensure!(count >= wanted, "{count} {what}, but at least {wanted} are required");
                }
                "`failOpen: false`"
            }
            Mode::FailOpen => "`failOpen: true`, the control",
        };
        let mut words = format!(
            "{cycles} cycles; {faults}; {counts}; {} requests reached the backend unchecked ({} with a forged mark)",
            arrivals.unchecked(),
            arrivals.forged
        );
        if mode == Mode::FailOpen {
            write!(
                words,
                "; every client observed {} of {} absences, and 0 of {} anonymous requests were refused from then on; the last refusal \
                 {} ms after a deletion",
                counts.windows, counts.absences, counts.in_windows, counts.lag_millis
            )?;
        }
        words += "; 0 restarts except those of killed containers";
        Ok(Row::new(what, &seed, words, took))
    }
}
