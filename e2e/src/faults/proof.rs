//! The whole proof: every plan, on several API servers in parallel. An interrupted proof resumes with the remaining plans. One plan can
//! be executed alone.

use std::collections::BTreeMap;
use std::sync::Mutex;

use anyhow::{Context as _, ensure};
use clap::Parser;

use crate::cases::{Cases, Outcome as _, Queue};
use crate::narration::say;
use crate::proof::{self, Journal};

use super::plan::Plan;
use super::run::{Bounds, Outcome, Reference, carry_out, reference};
use super::stage::Stage;
use super::workload::{self, Workload};
use super::{selection, tally};

/// The section of `docs/proof-results.md`.
pub const PROOF: &str = "prove-faults";

/// Proves that no fault between the operator and the API server leaves a trace.
#[derive(Debug, Parser)]
pub struct Options {
    /// Chooses the fault of each write whose verb and kind have occurred before
    #[arg(long, env = "SEED", default_value_t = 1)]
    seed: u64,
    /// Only this plan: WORKLOAD/FAULT@PLACE, as printed. Records nothing
    #[arg(long, value_name = "PLAN")]
    only: Option<Plan>,
    /// Only plans with this text in their names. Records nothing
    #[arg(long, value_name = "TEXT")]
    matching: Option<String>,
    /// Only lists the plans
    #[arg(long)]
    list: bool,
    /// The number of API servers in parallel
    #[arg(long, default_value_t = 3)]
    servers: usize,
}

/// Runs the proof, and records its rows if all plans were executed and none failed. Returns whether none failed.
pub async fn prove(options: &Options) -> anyhow::Result<bool> {
    say(format!("{PROOF}: seed {}", options.seed));
    // Runs without a fault find the places of plans. A single plan needs only the runs of its own workload.
    let is_wanted = |workload: &Workload| match (&options.only, &options.matching) {
        (Some(plan), _) => plan.workload == *workload,
        (None, Some(text)) => !text.contains('/') || text.starts_with(&format!("{workload}/")),
        (None, None) => true,
    };
    let workloads: Vec<Workload> = workload::ALL.into_iter().filter(is_wanted).collect();
    let mut slots: Vec<ServerSlot> = (0..options.servers.max(1)).map(ServerSlot::new).collect();
    let references = references(&mut slots, &workloads).await?;
    let plans = match &options.only {
        Some(plan) => vec![plan.clone()],
        None => selection::all(&references, options.seed)?,
    };
    let wanted = options.matching.clone().unwrap_or_default();
    let plans: Vec<Plan> = plans
        .into_iter()
        .filter(|plan| plan.to_string().contains(&wanted))
        .collect();
    ensure!(!plans.is_empty(), "no plan has this name");
    if options.list {
        for plan in &plans {
            println!("{plan}");
        }
        return Ok(true);
    }
    let part = options.only.is_some() || options.matching.is_some();
    let journal = if part {
        None
    } else {
        Some(Journal::open(PROOF, options.seed)?)
    };
    let outcomes = carry_out_all(&mut slots, &plans, &references, journal).await?;
    let failed = outcomes
        .values()
        .filter(|outcome| !outcome.failures().is_empty())
        .count();
    ensure!(
        outcomes.len() == plans.len(),
        "{} of {} plans were executed",
        outcomes.len(),
        plans.len()
    );
    let rows = tally::rows(options.seed, &outcomes);
    for row in &rows {
        say(format!("{}: {}", row.what, row.counts));
    }
    if !part && failed == 0 {
        proof::record(PROOF, &rows)?;
    }
    Ok(failed == 0)
}

/// A sequence of API servers. A server is replaced after a plan that leaves objects behind.
struct ServerSlot {
    number: usize,
    built: usize,
    stage: Option<Stage>,
}

impl ServerSlot {
    fn new(number: usize) -> Self {
        Self {
            number,
            built: 0,
            stage: None,
        }
    }

    async fn stage(&mut self) -> anyhow::Result<&Stage> {
        if self.stage.is_none() {
            self.built += 1;
            let name = format!("faults-{}-{}-{}", std::process::id(), self.number, self.built);
            self.stage = Some(Stage::build(&name).await?);
        }
        self.stage.as_ref().context("the stage is missing")
    }
}

/// Runs each workload twice without a fault. If the two runs differ, a comparison proves nothing.
async fn references(slots: &mut [ServerSlot], workloads: &[Workload]) -> anyhow::Result<BTreeMap<Workload, Reference>> {
    let left = Queue::new(workloads.to_vec());
    let done = Mutex::new(BTreeMap::new());
    let work = slots.iter_mut().map(|slot| {
        let (left, done) = (&left, &done);
        async move {
            while let Some(workload) = left.next() {
                let stage = slot.stage().await?;
                let first = reference(stage, workload).await?;
                let both = first.confirmed_by(&reference(stage, workload).await?);
                let both = both.with_context(|| format!("{workload} without a fault"))?;
                say(format!(
                    "{workload}: {} writes, {} streams",
                    both.writes.len(),
                    both.events.len()
                ));
                done.lock().expect("the lock is not poisoned").insert(workload, both);
            }
            anyhow::Ok(())
        }
    });
    futures::future::try_join_all(work).await?;
    Ok(done.into_inner().expect("the lock is not poisoned"))
}

async fn carry_out_all(
    slots: &mut [ServerSlot],
    plans: &[Plan],
    references: &BTreeMap<Workload, Reference>,
    journal: Option<Journal>,
) -> anyhow::Result<BTreeMap<String, Outcome>> {
    let cases = Cases::resume(journal, plans.iter().map(|plan| (plan.to_string(), plan)));
    let total = cases.total();
    say(format!(
        "{total} plans, {} of them finished before",
        cases.finished_before()
    ));
    let work = slots.iter_mut().map(|slot| {
        let cases = &cases;
        async move {
            while let Some((name, plan)) = cases.pending().next() {
                let (outcome, clean) = one(slot.stage().await?, plan, &references[&plan.workload]).await?;
                if !clean {
                    slot.stage = None;
                }
                let count = cases.finish(&name, outcome.clone())?;
                tell(plan, &outcome, count, total);
            }
            anyhow::Ok(())
        }
    });
    futures::future::try_join_all(work).await?;
    Ok(cases.into_outcomes())
}

fn tell(plan: &Plan, outcome: &Outcome, count: usize, total: usize) {
    let verdict = match (outcome.wrong.is_empty(), outcome.did_not_happen) {
        (true, false) => "ok",
        (true, true) => "did not happen",
        (false, _) => "FAILED",
    };
    let [recovery, took] = [outcome.recovery_ms, outcome.took_ms].map(tally::seconds);
    say(format!(
        "{count}/{total} {plan} {verdict}, recovered after {recovery} s, {took} s in total"
    ));
    for wrong in &outcome.wrong {
        say(format!("    {wrong}"));
    }
}

/// Executes one plan. Returns the outcome and whether the stage is clean again. After an aborted plan the stage is not clean, since the
/// fault may still be active.
async fn one(stage: &Stage, plan: &Plan, expected: &Reference) -> anyhow::Result<(Outcome, bool)> {
    let mark = stage.log_mark()?;
    let carried_out = carry_out(stage, plan, expected, Bounds::Checked).await;
    let is_whole = carried_out.is_ok();
    let mut outcome = carried_out.unwrap_or_else(|error| Outcome {
        wrong: vec![format!("{error:#}")],
        ..Outcome::default()
    });
    let cleaned = stage.clean_up().await;
    if let Err(error) = &cleaned {
        outcome.wrong.push(format!("{error:#}"));
    }
    if !outcome.wrong.is_empty() {
        let file = proof::folder(PROOF)?.join(format!("{}.log", plan.to_string().replace('/', "_")));
        stage.keep_log(&mark, &file)?;
        outcome.wrong.push(format!(
            "the operator's log: {}; the operator's requests, from the audit log, are in the same folder",
            file.display()
        ));
    }
    Ok((outcome, is_whole && cleaned.is_ok()))
}
