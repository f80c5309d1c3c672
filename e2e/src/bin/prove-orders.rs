//! `make prove-orders`: creates Slipway, Contour's CRDs and their prerequisites in every possible order, on real API servers, and some
//! orders also with real pods.
//!
//! An interrupted proof resumes where it stopped. A complete proof writes its rows of `docs/proof-results.md`. `--only CNSEDO` plays one order
//! (in the same way for the same `--seed`).

use std::collections::VecDeque;
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Mutex;
use std::time::{Duration, Instant, SystemTime};

use anyhow::{Context as _, ensure};
use clap::{Parser, ValueEnum};
use futures::future::join_all;
use serde_json::json;
use slipway_e2e::cluster::testbed;
use slipway_e2e::installation;
use slipway_e2e::lab::Lab;
use slipway_e2e::lab::operator::complaints;
use slipway_e2e::lab::world::World;
use slipway_e2e::narration::{say, show, title};
use slipway_e2e::orders::masks::FinalState;
use slipway_e2e::orders::order::Order;
use slipway_e2e::orders::plan::{self, OrderCase, Pace};
use slipway_e2e::orders::played::OrderServer;
use slipway_e2e::orders::real::RealCluster;
use slipway_e2e::proof::{self, Journal, Row};
use tokio::sync::OnceCell;

/// The name of the proof.
const PROOF: &str = "prove-orders";

#[derive(Debug, Parser)]
#[command(about = "Plays every order in which the pieces may be created")]
struct Arguments {
    /// Chooses the orders that settle after each piece, the sequence in which pieces are recreated, and the orders with real pods
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// Plays only this order, and records nothing
    #[arg(long)]
    only: Option<Order>,
    /// Runs only this part
    #[arg(long)]
    part: Option<Part>,
    /// The number of API servers that play orders in parallel; most of the time they wait for Kubernetes' own controllers
    #[arg(long, default_value_t = 4)]
    servers: usize,
    /// The number of orders with real pods
    #[arg(long, default_value_t = 24)]
    real: usize,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Part {
    /// On real API servers, with stand-ins for kubelet and Contour.
    Played,
    /// On a real cluster, with real Contour and Envoy.
    Real,
}

/// The finished, pending and failed steps.
struct Progress {
    journal: Option<Journal>,
    started: Instant,
    run: u64,
    done: usize,
    of: usize,
    failed: Vec<String>,
}

impl Progress {
    fn new(arguments: &Arguments, of: usize) -> anyhow::Result<Self> {
        ensure!(of > 0, "the proof has no steps");
        let journal = arguments.only.is_none().then(|| Journal::open(PROOF, arguments.seed));
        let journal = journal.transpose()?;
        let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH)?;
        Ok(Self {
            journal,
            started: Instant::now(),
            run: now.as_secs(),
            done: 0,
            of,
            failed: Vec::new(),
        })
    }

    fn is_done(&self, step: &str) -> bool {
        self.journal
            .as_ref()
            .is_some_and(|journal| journal.outcome(step).is_some())
    }

    /// Records a finished step. `outcome` is the number of requests of the step.
    fn finish(&mut self, step: &str, outcome: &anyhow::Result<u64>, took: Duration) -> anyhow::Result<()> {
        self.done += 1;
        let (done, of) = (self.done, self.of);
        let seconds = took.as_secs_f64();
        match outcome {
            Ok(requests) => {
                say(format!("{done:3}/{of} {step}: {seconds:.1} s"));
                let elapsed = self.started.elapsed().as_secs();
                let outcome = json!({"run": self.run, "elapsed": elapsed, "seconds": seconds, "requests": requests});
                self.journal
                    .as_mut()
                    .map_or(Ok(()), |journal| journal.note(step, outcome))
            }
            Err(error) => {
                say(format!("{done:3}/{of} {step} FAILED after {seconds:.1} s: {error:#}"));
                self.failed.push(format!("{step}: {error:#}"));
                Ok(())
            }
        }
    }

    /// Returns the total time, over all runs, of the steps whose names start with `part`.
    fn time(&self, part: &str) -> Duration {
        let outcomes = self.journal.iter().flat_map(Journal::outcomes);
        let mut runs = std::collections::BTreeMap::<u64, u64>::new();
        for (_, outcome) in outcomes.filter(|(step, _)| step.starts_with(part)) {
            let number = |field: &str| outcome[field].as_u64().unwrap_or_default();
            let longest = runs.entry(number("run")).or_default();
            *longest = number("elapsed").max(*longest);
        }
        Duration::from_secs(runs.values().sum())
    }

    /// Returns the number of requests in the steps whose names start with `part`.
    fn requests(&self, part: &str) -> u64 {
        let outcomes = self.journal.iter().flat_map(Journal::outcomes);
        let requests = outcomes
            .filter(|(step, _)| step.starts_with(part))
            .filter_map(|(_, it)| it["requests"].as_u64());
        requests.sum()
    }
}

#[tokio::main]
async fn main() -> ExitCode {
    let arguments = Arguments::parse();
    match prove(&arguments).await {
        Ok(failed) if failed.is_empty() => {
            title("every order led to the same final state");
            ExitCode::SUCCESS
        }
        Ok(failed) => {
            title(&format!("{} orders failed", failed.len()));
            for line in failed {
                show(&line);
            }
            ExitCode::FAILURE
        }
        Err(error) => {
            eprintln!("\nthe proof could not be completed: {error:#}");
            ExitCode::FAILURE
        }
    }
}

async fn prove(arguments: &Arguments) -> anyhow::Result<Vec<String>> {
    let Arguments { seed, only, part, .. } = *arguments;
    title(&format!("orders; seed {seed}"));
    let mut failed = Vec::new();
    let mut rows = Vec::new();
    if part != Some(Part::Real) {
        let mut cases = plan::all(seed);
        ensure!(cases.len() == 150, "found {} orders instead of 150", cases.len());
        cases.retain(|case| only.is_none_or(|only| case.order == only));
        let (row, bad) = played(arguments, &cases).await?;
        rows.push(row);
        failed.extend(bad);
    }
    if part != Some(Part::Played) {
        let orders = match only {
            Some(order) => vec![order],
            None => plan::some(seed, arguments.real),
        };
        let (row, bad) = real(arguments, &orders).await?;
        rows.push(row);
        failed.extend(bad);
    }
    if only.is_none() && part.is_none() {
        proof::record(PROOF, &rows)?;
    }
    Ok(failed)
}

/// Plays these orders on several API servers in parallel.
async fn played(arguments: &Arguments, cases: &[OrderCase]) -> anyhow::Result<(Row, Vec<String>)> {
    let mut progress = Progress::new(arguments, cases.len())?;
    let name = |case: &OrderCase| format!("played {} {:?}", case.order, case.pace);
    let todo: VecDeque<_> = cases
        .iter()
        .filter(|case| !progress.is_done(&name(case)))
        .cloned()
        .collect();
    progress.done = cases.len() - todo.len();
    let servers = arguments.servers.clamp(1, todo.len().max(1));
    say(format!(
        "{} orders on API servers, {} of them finished before, {servers} servers",
        cases.len(),
        progress.done
    ));
    let (todo, progress) = (Mutex::new(todo), Mutex::new(progress));
    let reference = OnceCell::new();
    let workers = (0..servers).map(async |worker| {
        let mut age = 0;
        // The state after a failure is unknown, so the next order gets another server.
        while !todo.lock().expect("the lock is not poisoned").is_empty() {
            let place = format!("orders-{}-{worker}-{age}", std::process::id());
            on_a_server(&place, &reference, &todo, async |case, outcome, took| {
                progress
                    .lock()
                    .expect("the lock is not poisoned")
                    .finish(&name(case), outcome, took)
            })
            .await?;
            age += 1;
        }
        anyhow::Ok(())
    });
    join_all(workers).await.into_iter().collect::<anyhow::Result<()>>()?;
    let progress = progress.into_inner().expect("the lock is not poisoned");
    let settling = cases.iter().filter(|case| case.pace == Pace::Settling).count();
    let again: usize = cases.iter().map(|case| case.away.len()).sum();
    let counts = format!(
        "{} orders ({settling} settle after each piece), {again} recreations of a piece, {} failed",
        cases.len(),
        progress.failed.len()
    );
    let row = Row::new(
        "every order on the API server",
        &arguments.seed,
        counts,
        progress.time("played "),
    );
    Ok((row, progress.failed))
}

/// Plays these orders with real pods, on one cluster.
async fn real(arguments: &Arguments, orders: &[Order]) -> anyhow::Result<(Row, Vec<String>)> {
    let mut progress = Progress::new(arguments, orders.len())?;
    let mut todo: VecDeque<_> = orders
        .iter()
        .filter(|order| !progress.is_done(&format!("real {order}")))
        .collect();
    progress.done = orders.len() - todo.len();
    say(format!(
        "{} orders with real pods, {} of them finished before",
        orders.len(),
        progress.done
    ));
    while !todo.is_empty() {
        let real_cluster = RealCluster::start(&format!("orders-real-{}", std::process::id())).await?;
        while let Some(order) = todo.pop_front() {
            let started = Instant::now();
            let outcome = real_cluster.play(*order).await;
            let (played, bad) = (started.elapsed(), outcome.is_err());
            if let Ok(seen) = &outcome {
                say(format!("  {} requests, answers {:?}", seen.requests, seen.answers));
            }
            progress.finish(&format!("real {order}"), &outcome.map(|seen| seen.requests), played)?;
            if bad {
                installation::diagnose(real_cluster.cluster()).await;
                // The state after a failure is unknown, so the next order gets another cluster.
                break;
            }
            if !todo.is_empty() {
                real_cluster
                    .clear()
                    .await
                    .with_context(|| format!("clearing after {order}"))?;
            }
        }
    }
    let (requests, failed) = (progress.requests("real "), progress.failed.len());
    let counts = format!(
        "{} orders, {requests} requests on HTTP and HTTPS answered as expected at every step, 0 restarts; {failed} orders failed",
        orders.len()
    );
    let row = Row::new("orders with real pods", &arguments.seed, counts, progress.time("real "));
    Ok((row, progress.failed))
}

/// Plays orders on one API server until none is left or one fails.
async fn on_a_server(
    place: &str,
    reference: &OnceCell<FinalState>,
    todo: &Mutex<VecDeque<OrderCase>>,
    done: impl AsyncFn(&OrderCase, &anyhow::Result<u64>, Duration) -> anyhow::Result<()>,
) -> anyhow::Result<()> {
    // The world is never freed. It ends with this process, or with the last line of this function.
    let world: &'static World = Box::leak(Box::new(World::without_operator(place).await?));
    world.start_operator().await?;
    let lab = Lab::new(world, "orders").await?;
    let server = OrderServer::emptied(&lab).await?;
    let wanted = reference
        .get_or_try_init(async || server.reference().await.context("the best order"))
        .await?;
    loop {
        let Some(case) = todo.lock().expect("the lock is not poisoned").pop_front() else {
            break;
        };
        let started = Instant::now();
        let outcome = server.play(&case, wanted).await.map(|()| 0);
        done(&case, &outcome, started.elapsed()).await?;
        if let Err(error) = outcome {
            let folder = keep(world, &lab, &case, &error).await?;
            say(format!("see {}", folder.display()));
            break;
        }
    }
    drop(server);
    // A failed order may have left the operator running.
    drop(world.stop_operator().await);
    testbed(&["down", place]).await.map(drop)
}

/// Stores the error and the logs of a failed order, and returns their folder.
async fn keep(world: &World, lab: &Lab, case: &OrderCase, error: &anyhow::Error) -> anyhow::Result<PathBuf> {
    let folder = proof::folder(PROOF)?.join(format!("{}-{:?}", case.order, case.pace));
    std::fs::create_dir_all(&folder)?;
    std::fs::write(folder.join("error.txt"), format!("{case:?}\n{error:?}\n"))?;
    std::fs::copy(&world.setup.log, folder.join("operator.log"))?;
    std::fs::copy(world.state.join("audit.log"), folder.join("audit.log"))?;
    show(&complaints(&world.setup.log));
    lab.show().await;
    Ok(folder)
}
