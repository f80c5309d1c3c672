//! A sample of `make prove-drift`: Slipway repairs the changes of other users to its objects, and leaves no objects behind.
//!
//! The tests print the seed that selects the sample. The tests print how long each repair took, but assert no limit.

use slipway_e2e::drift::leaks::{self, Batch, Crds, Operator, Scenario};
use slipway_e2e::drift::{self, EnvoyWorkload, Round};
use slipway_e2e::lab::Lab;
use slipway_e2e::lab::world::{Takes, alone, beside_others};
use slipway_e2e::narration::say;

/// Each round runs one of this many cases.
const SHARE: usize = 8;

/// Returns `SEED`, or 1 by default, and prints the seed. With the default, `make test` runs the same cases each time.
/// `make prove-drift` runs more cases.
fn seed(test: &str) -> anyhow::Result<u64> {
    let seed = match std::env::var("SEED") {
        Ok(seed) => seed.parse()?,
        Err(_) => 1,
    };
    say(format!("{test}: SEED={seed}"));
    Ok(seed)
}

#[tokio::test]
async fn the_operator_repairs_drift_and_keeps_what_others_own() {
    beside_others("drift", async |lab: &Lab| {
        let seed = seed("drift")?;
        let workloads = [
            EnvoyWorkload::Deployment,
            EnvoyWorkload::DaemonSet,
            EnvoyWorkload::Deployment,
            EnvoyWorkload::DaemonSet,
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
        drift::rounds(lab, &rounds, rounds.len(), |_, _| Ok(())).await?.check()
    })
    .await;
}

/// Returns `count` random scenarios that the seed selects.
fn sample(of: &[Scenario], count: usize, seed: u64) -> Vec<Scenario> {
    let mut chosen = of.to_vec();
    fastrand::Rng::with_seed(seed).shuffle(&mut chosen);
    chosen.truncate(count);
    chosen
}

/// Plays the scenarios. Returns an error if an object is left.
async fn run_scenarios(
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
        say(format!("{scenario}: no object left after {time:?}"));
    }
    Ok(())
}

#[tokio::test]
async fn deletions_switches_and_renames_leave_no_objects() {
    beside_others("leaks", async |lab: &Lab| {
        let seed = seed("leaks")?;
        run_scenarios(lab, &sample(&leaks::ALL, 6, seed), Operator::Up, Crds::Installed, seed).await
    })
    .await;
}

#[tokio::test]
async fn changes_while_the_operator_is_down_leave_no_objects() {
    alone("leaks-down", Takes::Operator, async |lab: &Lab| {
        let seed = seed("leaks-down")?;
        run_scenarios(
            lab,
            &sample(&leaks::ALL, 8, seed),
            Operator::Down,
            Crds::Installed,
            seed,
        )
        .await
    })
    .await;
}

#[tokio::test]
async fn missing_contour_crds_leave_no_objects_and_block_no_namespace() {
    alone("leaks-crds", Takes::ContourCrds, async |lab: &Lab| {
        let seed = seed("leaks-crds")?;
        let operator = if seed % 2 == 0 { Operator::Up } else { Operator::Down };
        run_scenarios(
            lab,
            &sample(&leaks::WITHOUT_CRDS, 2, seed),
            operator,
            Crds::Deleted,
            seed,
        )
        .await
    })
    .await;
}
