//! `make bench`, the live part: the cost and speed of Slipway on a real cluster, compared with the speed of the API server in the same run.
//! The benchmark prints a table and writes `target/bench/report.json`. The benchmark does not judge the figures.
//!
//! Environment variables: `N=n`, the number of ContourDeployments for memory and throughput (default 100, at most 1000). `RUNS=n`, the
//! number of reactions (default 9). `KEEP=1` leaves the cluster running. `CLUSTER=name` uses a running cluster (`testbed up NAME`) and
//! leaves it running.

mod baseline;
mod crowd;
mod process;
mod steps;
mod table;
mod traffic;

use std::process::ExitCode;

use anyhow::{Context as _, ensure};
use slipway_e2e::cluster::Cluster;
use slipway_e2e::installation;
use slipway_e2e::narration::{say, title};

use crate::steps::Bench;
use crate::table::Table;

/// The settings from the environment.
struct Settings {
    cluster: Option<String>,
    crowd: usize,
    reactions: usize,
}

impl Settings {
    fn from_environment() -> anyhow::Result<Self> {
        let settings = Self {
            cluster: std::env::var("CLUSTER").ok().filter(|name| !name.is_empty()),
            crowd: number("N", 100)?,
            reactions: number("RUNS", 9)?,
        };
        ensure!((1..=1000).contains(&settings.crowd), "N must be between 1 and 1000");
        ensure!(
            (1..=100).contains(&settings.reactions),
            "RUNS must be between 1 and 100"
        );
        Ok(settings)
    }
}

fn number(variable: &str, default: usize) -> anyhow::Result<usize> {
    let text = std::env::var(variable).ok().filter(|text| !text.is_empty());
    text.map_or(Ok(default), |text| {
        text.parse()
            .with_context(|| format!("{variable}={text} is not a number"))
    })
}

#[tokio::main]
async fn main() -> ExitCode {
    let mut table = Table::default();
    let outcome = measure(&mut table).await;
    table.print();
    match table.write() {
        Ok(file) => say(format!("wrote {}", file.display())),
        Err(error) => say(format!("could not write the report: {error:#}")),
    }
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("\nThe benchmark failed: {error:#}");
            ExitCode::FAILURE
        }
    }
}

async fn measure(table: &mut Table) -> anyhow::Result<()> {
    const OWN: &str = "bench";
    let settings = Settings::from_environment()?;
    title("a cluster, and the images");
    let (name, cluster) = match &settings.cluster {
        Some(name) => (name.as_str(), Cluster::attach(name).await?),
        None => (OWN, Cluster::start(OWN).await?),
    };
    installation::everything(&cluster).await?;
    let outcome = all(&settings, name, &cluster, table).await;
    if let Err(error) = &outcome {
        title("a step failed; the state of the cluster follows");
        say(format!("{error:#}"));
        installation::diagnose(&cluster).await;
    }
    outcome
}

async fn all(settings: &Settings, name: &str, cluster: &Cluster, table: &mut Table) -> anyhow::Result<()> {
    let mut bench = Bench::start(name, cluster, table).await?;
    title("bare server-side apply: the baseline");
    bench.baseline().await?;
    title("the idle operator");
    bench.memory("RSS, no ContourDeployment", "≤ 15 MiB").await?;
    title("a service is created");
    bench.reactions(settings.reactions).await?;
    title("one ContourDeployment from nothing");
    bench.single().await?;
    title(&format!("{} ContourDeployments", settings.crowd));
    bench.crowd(settings.crowd).await?;
    title("the baseline again, to detect changes of the machine's load");
    bench.drift().await
}
