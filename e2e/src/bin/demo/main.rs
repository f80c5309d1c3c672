//! `make demo`: shows on a real cluster, step by step, what Slipway adds to Contour.
//!
//! Environment variables: `STOCK=0` skips the contrast with stock Contour. `RUNS=n` repeats the measurement n times and reports the median.
//! `KEEP=1` leaves the cluster running. `CLUSTER=name` uses a running cluster (`testbed up NAME`) and leaves it running.

mod steps;

use std::process::ExitCode;

use anyhow::Context as _;
use slipway_e2e::cluster::Cluster;
use slipway_e2e::narration::{say, title};
use slipway_e2e::report::Report;
use slipway_e2e::{images, installation};

use crate::steps::Demo;

/// The settings from the environment.
struct Settings {
    stock: bool,
    runs: usize,
    cluster: Option<String>,
}

impl Settings {
    fn from_environment() -> anyhow::Result<Self> {
        let runs = std::env::var("RUNS").ok().filter(|text| !text.is_empty());
        Ok(Self {
            stock: std::env::var("STOCK").map_or(true, |value| value != "0"),
            runs: runs.map_or(Ok(0), |text| {
                text.parse().with_context(|| format!("RUNS={text} is not a number"))
            })?,
            cluster: std::env::var("CLUSTER").ok().filter(|name| !name.is_empty()),
        })
    }
}

#[tokio::main]
async fn main() -> ExitCode {
    let mut report = Report::default();
    let outcome = demonstrate(&mut report).await;
    match report.write() {
        Ok(file) => say(format!("wrote {}", file.display())),
        Err(error) => say(format!("could not write the report: {error:#}")),
    }
    match outcome {
        Ok(()) => {
            title("all steps succeeded");
            ExitCode::SUCCESS
        }
        Err(error) => {
            eprintln!("\nA step failed: {error:#}");
            ExitCode::FAILURE
        }
    }
}

async fn demonstrate(report: &mut Report) -> anyhow::Result<()> {
    let settings = Settings::from_environment()?;
    title("0. a cluster, and the images");
    let cluster = match &settings.cluster {
        Some(name) => Cluster::attach(name).await?,
        None => Cluster::start("demo").await?,
    };
    say("building the static binaries and their images");
    cluster.load(&images::build().await?).await?;
    let outcome = tell(&settings, &cluster, report).await;
    if let Err(error) = &outcome {
        title("a step failed; the state of the cluster follows");
        say(format!("{error:#}"));
        installation::diagnose(&cluster).await;
    }
    outcome
}

async fn tell(settings: &Settings, cluster: &Cluster, report: &mut Report) -> anyhow::Result<()> {
    title("1. Contour's CRDs, Slipway, and a ContourDeployment that requires auth/auth, which does not exist");
    let mut demo = Demo::install(cluster, report).await?;
    title("2. Contour and Envoy run nevertheless, and no request passes");
    demo.runs_without().await?;
    title("3. the ExtensionService is created");
    demo.enforces().await?;
    title("4. the ExtensionService is deleted, then all of Contour's pods");
    demo.survives_deletion().await?;
    title("5. the ExtensionService is recreated");
    demo.enforces_again(settings.runs).await?;
    title("6. failOpen: true, the ExtensionService is deleted, then its whole namespace");
    demo.fails_open().await?;
    if settings.stock {
        title("7. for contrast: Contour alone, with the same reference");
        demo.shows_stock().await?;
    } else {
        title("7. Contour alone: skipped (STOCK=0)");
    }
    title("8. the ContourDeployment is deleted");
    demo.leaves_nothing().await
}
