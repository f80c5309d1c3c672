//! The whole proof: every possible order, on real API servers, and some orders also with real pods. An interrupted proof resumes where it
//! stopped.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::{Duration, Instant, SystemTime};

use anyhow::{Context as _, ensure};
use clap::{Parser, ValueEnum};
use futures::future::join_all;
use serde::{Deserialize, Serialize};
use tokio::sync::OnceCell;

use crate::cases::{Cases, Outcome, failures};
use crate::cluster::testbed;
use crate::installation;
use crate::lab::Lab;
use crate::lab::operator::complaints;
use crate::lab::world::World;
use crate::narration::{say, show, title};
use crate::orders::masks::FinalState;
use crate::orders::order::Order;
use crate::orders::plan::{self, OrderCase, Pace};
use crate::orders::played::OrderServer;
use crate::orders::real::RealCluster;
use crate::proof::{self, Journal, Row};

/// The name of the proof.
const PROOF: &str = "prove-orders";

/// The arguments of the proof.
#[derive(Debug, Parser)]
#[command(about = "Plays every order in which the pieces may be created")]
pub struct Options {
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

/// A part of the proof.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Part {
    /// On real API servers, with stand-ins for kubelet and Contour.
    Played,
    /// On a real cluster, with real Contour and Envoy.
    Real,
}

/// The outcome of an order, as the journal stores it.
#[derive(Debug, Deserialize, Serialize)]
struct Played {
    /// The start time of the run, in seconds since 1970.
    run: u64,
    /// The time from the start of the run to the end of the order, in seconds.
    elapsed: u64,
    /// The duration of the order, in seconds.
    seconds: f64,
    /// The number of requests.
    requests: u64,
    #[serde(skip)]
    failures: Vec<String>,
}

impl Outcome for Played {
    fn failures(&self) -> &[String] {
        &self.failures
    }
}

/// The orders of one part of the proof.
struct Orders<C> {
    cases: Cases<C, Played>,
    started: Instant,
    run: u64,
}

/// The sum of the outcomes.
struct Total {
    /// The time of all runs.
    time: Duration,
    requests: u64,
    failed: Vec<String>,
}

impl<C> Orders<C> {
    fn resume(options: &Options, orders: impl IntoIterator<Item = (String, C)>) -> anyhow::Result<Self> {
        let journal = options.only.is_none().then(|| Journal::open(PROOF, options.seed));
        let cases = Cases::resume(journal.transpose()?, orders);
        ensure!(cases.total() > 0, "the proof has no orders");
        let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH)?;
        Ok(Self {
            cases,
            started: Instant::now(),
            run: now.as_secs(),
        })
    }

    /// Stores the outcome of an order: the number of its requests.
    fn finish(&self, name: &str, outcome: &anyhow::Result<u64>, took: Duration) -> anyhow::Result<()> {
        let (total, seconds) = (self.cases.total(), took.as_secs_f64());
        let failure = outcome.as_ref().err().map(|error| format!("{error:#}"));
        let played = Played {
            run: self.run,
            elapsed: self.started.elapsed().as_secs(),
            seconds,
            requests: outcome.as_ref().copied().unwrap_or_default(),
            failures: failure.iter().cloned().collect(),
        };
        let done = self.cases.finish(name, played)?;
        say(match failure {
            None => format!("{done:3}/{total} {name}: {seconds:.1} s"),
            Some(failure) => format!("{done:3}/{total} {name} FAILED after {seconds:.1} s: {failure}"),
        });
        Ok(())
    }

    fn total(self) -> Total {
        let outcomes = self.cases.into_outcomes();
        let mut runs = BTreeMap::<u64, u64>::new();
        let mut requests = 0;
        for outcome in outcomes.values().filter(|outcome| outcome.failures.is_empty()) {
            let longest = runs.entry(outcome.run).or_default();
            *longest = outcome.elapsed.max(*longest);
            requests += outcome.requests;
        }
        Total {
            time: Duration::from_secs(runs.values().sum()),
            requests,
            failed: failures(&outcomes),
        }
    }
}

/// Runs the proof, and records its rows if all parts ran. Returns the failed orders.
pub async fn prove(options: &Options) -> anyhow::Result<Vec<String>> {
    let Options { seed, only, part, .. } = *options;
    title(&format!("orders; seed {seed}"));
    let mut failed = Vec::new();
    let mut rows = Vec::new();
    if part != Some(Part::Real) {
        let mut cases = plan::all(seed);
        ensure!(cases.len() == 150, "found {} orders instead of 150", cases.len());
        cases.retain(|case| only.is_none_or(|only| case.order == only));
        let (row, bad) = played(options, &cases).await?;
        rows.push(row);
        failed.extend(bad);
    }
    if part != Some(Part::Played) {
        let orders = match only {
            Some(order) => vec![order],
            None => plan::some(seed, options.real),
        };
        let (row, bad) = real(options, &orders).await?;
        rows.push(row);
        failed.extend(bad);
    }
    if only.is_none() && part.is_none() {
        proof::record(PROOF, &rows)?;
    }
    Ok(failed)
}

/// Plays these orders on several API servers in parallel.
async fn played(options: &Options, cases: &[OrderCase]) -> anyhow::Result<(Row, Vec<String>)> {
    let name = |case: &OrderCase| format!("played {} {:?}", case.order, case.pace);
    let orders = Orders::resume(options, cases.iter().map(|case| (name(case), case.clone())))?;
    let pending = orders.cases.pending();
    let servers = options.servers.clamp(1, pending.len().max(1));
    say(format!(
        "{} orders on API servers, {} of them finished before, {servers} servers",
        orders.cases.total(),
        orders.cases.finished_before()
    ));
    let reference = OnceCell::new();
    let workers = (0..servers).map(async |worker| {
        let mut age = 0;
        // The state after a failure is unknown, so the next order gets another server.
        while !pending.is_empty() {
            let place = format!("orders-{}-{worker}-{age}", std::process::id());
            on_a_server(&place, &reference, &orders).await?;
            age += 1;
        }
        anyhow::Ok(())
    });
    join_all(workers).await.into_iter().collect::<anyhow::Result<()>>()?;
    let total = orders.total();
    let settling = cases.iter().filter(|case| case.pace == Pace::Settling).count();
    let again: usize = cases.iter().map(|case| case.away.len()).sum();
    let counts = format!(
        "{} orders ({settling} settle after each piece), {again} recreations of a piece, {} failed",
        cases.len(),
        total.failed.len()
    );
    let row = Row::new("every order on the API server", &options.seed, counts, total.time);
    Ok((row, total.failed))
}

/// Plays these orders with real pods, on one cluster.
async fn real(options: &Options, all: &[Order]) -> anyhow::Result<(Row, Vec<String>)> {
    let orders = Orders::resume(options, all.iter().map(|order| (format!("real {order}"), *order)))?;
    say(format!(
        "{} orders with real pods, {} of them finished before",
        orders.cases.total(),
        orders.cases.finished_before()
    ));
    let pending = orders.cases.pending();
    while !pending.is_empty() {
        let real_cluster = RealCluster::start(&format!("orders-real-{}", std::process::id())).await?;
        while let Some((name, order)) = pending.next() {
            let started = Instant::now();
            let outcome = real_cluster.play(order).await;
            let (took, bad) = (started.elapsed(), outcome.is_err());
            if let Ok(seen) = &outcome {
                say(format!("  {} requests, answers {:?}", seen.requests, seen.answers));
            }
            orders.finish(&name, &outcome.map(|seen| seen.requests), took)?;
            if bad {
                installation::diagnose(real_cluster.cluster()).await;
                // The state after a failure is unknown, so the next order gets another cluster.
                break;
            }
            if !pending.is_empty() {
                real_cluster
                    .clear()
                    .await
                    .with_context(|| format!("clearing after {order}"))?;
            }
        }
    }
    let total = orders.total();
    let counts = format!(
        "{} orders, {} requests on HTTP and HTTPS answered as expected at every step, 0 restarts; {} orders failed",
        all.len(),
        total.requests,
        total.failed.len()
    );
    let row = Row::new("orders with real pods", &options.seed, counts, total.time);
    Ok((row, total.failed))
}

/// Plays orders on one API server until none is left or one fails.
async fn on_a_server(place: &str, reference: &OnceCell<FinalState>, orders: &Orders<OrderCase>) -> anyhow::Result<()> {
    // The world is never freed. It ends with this process, or with the last line of this function.
    let world: &'static World = Box::leak(Box::new(World::without_operator(place).await?));
    world.start_operator().await?;
    let lab = Lab::new(world, "orders").await?;
    let server = OrderServer::emptied(&lab).await?;
    let wanted = reference
        .get_or_try_init(async || server.reference().await.context("the best order"))
        .await?;
    while let Some((name, case)) = orders.cases.pending().next() {
        let started = Instant::now();
        let outcome = server.play(&case, wanted).await.map(|()| 0);
        orders.finish(&name, &outcome, started.elapsed())?;
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
