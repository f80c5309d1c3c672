//! A sample of `make prove-drift`, by a seed that is printed: what somebody else does to Slipway's objects is put right, and
//! nothing is left behind. How long it took is said, not asserted.

use anyhow::ensure;
use slipway_e2e::drift::leaks::{self, Batch, Crds, Operator, Scenario};
use slipway_e2e::drift::{self, Round, Workload};
use slipway_e2e::lab::Lab;
use slipway_e2e::lab::world::{Takes, alone, beside_others};
use slipway_e2e::narration::say;

/// One case of so many.
const SHARE: usize = 8;

/// `SEED`, or 1: what `make test` does is the same each time, `make prove-drift` tries more.
fn seed(test: &str) -> anyhow::Result<u64> {
    let seed = match std::env::var("SEED") {
        Ok(seed) => seed.parse()?,
        Err(_) => 1,
    };
    say(format!("{test}: SEED={seed}"));
    Ok(seed)
}

#[tokio::test]
async fn what_somebody_does_to_an_object_is_repaired_at_once_and_what_is_theirs_is_left_alone() {
    beside_others("drift", async |lab: &Lab| {
        let seed = seed("drift")?;
        let workloads = [
            Workload::Deployment,
            Workload::DaemonSet,
            Workload::Deployment,
            Workload::DaemonSet,
        ];
        let rounds: Vec<_> = workloads
            .into_iter()
            .enumerate()
            .map(|(number, workload)| Round {
                name: number.to_string(),
                seed,
                workload,
                share: (number, SHARE),
                only: None,
            })
            .collect();
        let outcome = drift::rounds(lab, &rounds, rounds.len(), |_, _| Ok(())).await?;
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
    })
    .await;
}

/// So many of these, by a seed.
fn some(of: &[Scenario], count: usize, seed: u64) -> Vec<Scenario> {
    let mut chosen = of.to_vec();
    fastrand::Rng::with_seed(seed).shuffle(&mut chosen);
    chosen.truncate(count);
    chosen
}

async fn nothing_is_left(
    lab: &Lab,
    scenarios: &[Scenario],
    operator: Operator,
    crds: Crds,
    seed: u64,
) -> anyhow::Result<()> {
    let batch = Batch {
        name: "way",
        scenarios,
        operator,
        crds,
        seed,
    };
    for (scenario, time) in leaks::run(lab, &batch).await? {
        say(format!("{scenario}: nothing left after {time:?}"));
    }
    Ok(())
}

#[tokio::test]
async fn nothing_is_left_whatever_is_deleted_switched_or_renamed() {
    beside_others("leaks", async |lab: &Lab| {
        let seed = seed("leaks")?;
        nothing_is_left(lab, &some(&leaks::ALL, 6, seed), Operator::Up, Crds::Installed, seed).await
    })
    .await;
}

#[tokio::test]
async fn nothing_is_left_if_the_operator_was_down_meanwhile() {
    alone("leaks-down", Takes::Operator, async |lab: &Lab| {
        let seed = seed("leaks-down")?;
        nothing_is_left(lab, &some(&leaks::ALL, 8, seed), Operator::Down, Crds::Installed, seed).await
    })
    .await;
}

#[tokio::test]
async fn nothing_is_left_and_no_namespace_is_blocked_without_contour_s_crds() {
    alone("leaks-crds", Takes::ContourCrds, async |lab: &Lab| {
        let seed = seed("leaks-crds")?;
        let operator = if seed % 2 == 0 { Operator::Up } else { Operator::Down };
        nothing_is_left(lab, &some(&leaks::WITHOUT_CRDS, 2, seed), operator, Crds::Deleted, seed).await
    })
    .await;
}
