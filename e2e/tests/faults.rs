//! A sample of `make prove-faults`: a few faults between the operator and a real API server, none of which leaves a trace.
//!
//! The test prints the seed that selects the sample. `SEED` repeats a sample. The test does not measure anything.

use std::collections::BTreeMap;

use anyhow::{Context as _, ensure};
use slipway_e2e::faults::run::{Bounds, carry_out, reference};
use slipway_e2e::faults::selection;
use slipway_e2e::faults::stage::Stage;
use slipway_e2e::faults::workload;
use slipway_e2e::narration::say;

/// The number of workloads in a sample.
const WORKLOADS: usize = 2;

/// The number of plans of each group: kills, responses, streams, stale views.
const EACH: usize = 2;

#[tokio::test]
async fn a_few_faults_during_changes_by_a_user_leave_no_trace() {
    sample().await.unwrap_or_else(|error| panic!("{error:#}"));
}

async fn sample() -> anyhow::Result<()> {
    let seed = match std::env::var("SEED") {
        Ok(seed) => seed.parse().context("SEED must be a number")?,
        Err(_) => 1,
    };
    say(format!("faults: SEED={seed}"));
    let stage = Stage::build(&format!("faults-{}", std::process::id())).await?;
    let mut workloads = workload::ALL;
    fastrand::Rng::with_seed(seed).shuffle(&mut workloads);
    let mut references = BTreeMap::new();
    for workload in &workloads[..WORKLOADS] {
        let first = reference(&stage, *workload).await?;
        references.insert(*workload, first.confirmed_by(&reference(&stage, *workload).await?)?);
    }
    let plans = selection::sample(&selection::all(&references, seed)?, seed, EACH);
    ensure!(!plans.is_empty(), "the sample is empty");
    for plan in &plans {
        let outcome = carry_out(&stage, plan, &references[&plan.workload], Bounds::Ignored).await?;
        ensure!(!outcome.did_not_happen, "the fault of {plan} did not happen");
        ensure!(
            outcome.wrong.is_empty(),
            "prove-faults --only '{plan}': {}",
            outcome.wrong.join("; ")
        );
        say(format!("{plan} ok"));
        stage.clean_up().await?;
    }
    Ok(())
}
