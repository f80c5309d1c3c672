//! Executes one plan, or a workload without a fault, on a stage, and reports what is wrong.

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

use anyhow::{Context as _, bail, ensure};
use hyper::StatusCode;
use serde::{Deserialize, Serialize};

use crate::lab::{Thing, audit};
use crate::wait::Look;
use crate::{cases, differences};

use super::counts::{self, Counts};
use super::dead::Dead;
use super::plan::{Fault, OnStart, OnStream, Plan};
use super::request::Asked;
use super::script::{End, Seen, numbered};
use super::stage::Stage;
use super::state::{self, State};
use super::workload::Workload;

/// The time limit for the recovery from a fault. It includes the timeout of a call, the detection of a silent stream, and some backoff.
const WELL: Duration = Duration::from_secs(100);

/// The time limit for a blocked call. It includes the time that the proxy needs to notice the end of the call.
const PATIENCE: Duration = Duration::from_millis(10_500);

/// The time limit for the detection of an open but silent stream.
const SILENCE: Duration = Duration::from_mins(1);

/// The idle time after which an event that has not happened does not happen any more.
const REST: Duration = Duration::from_secs(20);

/// The number of attempts for a plan whose place does not occur in each run.
pub const TRIES: usize = 5;

/// The time limit for the detection of a dead connection.
const DEATH: Duration = Duration::from_secs(15);

/// The result of a workload without a fault.
#[derive(Clone, Debug)]
pub struct Reference {
    /// The final state.
    pub state: State,
    /// The numbers of creations and deletions.
    pub counts: Counts,
    /// The writes in their order, each with its number among the writes of the same name.
    pub writes: Vec<String>,
    /// The class of each write: verb and kind.
    pub classes: BTreeMap<String, String>,
    /// The sets whose streams had an event.
    pub events: Vec<String>,
    /// The sets that the operator has read since its start.
    pub sets: Vec<String>,
}

impl Reference {
    /// Returns the common result of two runs: the places that both have. The final states and the numbers must be equal, or else a
    /// comparison proves nothing.
    pub fn confirmed_by(mut self, other: &Self) -> anyhow::Result<Self> {
        let mut wrong = differences::of_objects(&self.state, &other.state);
        wrong.extend(counts::differences(&self.counts, &other.counts));
        ensure!(wrong.is_empty(), "two runs differ: {}", wrong.join("; "));
        self.writes.retain(|write| other.writes.contains(write));
        self.events.retain(|set| other.events.contains(set));
        self.sets.retain(|set| other.sets.contains(set));
        Ok(self)
    }
}

/// The outcome of a plan.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct Outcome {
    /// The problems. Empty: the plan passed.
    pub wrong: Vec<String>,
    /// The duration of the plan with its base, in milliseconds.
    pub took_ms: u64,
    /// The time from the fault to the end, in milliseconds.
    pub recovery_ms: u64,
    /// The duration of the longest call, in milliseconds.
    pub longest_call_ms: u64,
    /// The longest silence of a stream until its detection, in milliseconds. 0: no stream was silent.
    pub silence_ms: u64,
    /// The time until all dead connections were detected, in milliseconds. 0: no connection died.
    pub dead_ms: u64,
    /// The number of examined commits.
    pub commits: usize,
    /// Whether the place of the fault occurred in none of the runs, so that the plan shows nothing.
    #[serde(default)]
    pub did_not_happen: bool,
}

impl cases::Outcome for Outcome {
    fn failures(&self) -> &[String] {
        &self.wrong
    }
}

/// Whether time limits are checked. A short test on a busy machine does not check them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Bounds {
    /// Time limits are checked.
    Checked,
    /// Time limits are not checked.
    Ignored,
}

/// Runs a workload without a fault. The stage is clean before and after the run.
pub async fn reference(stage: &Stage, workload: Workload) -> anyhow::Result<Reference> {
    stage.prepare(workload.base()).await?;
    let sets = stage.proxy.script.sets();
    let mark = audit::mark(stage.world)?;
    stage.proxy.script.begin(None);
    workload.act(&stage.lab, &stage.auth).await?;
    let end = settled(stage, workload).await?;
    let (commits, wrong) = history(stage).await?;
    ensure!(commits > 0, "the history contains no commit");
    ensure!(wrong.is_empty(), "without any fault: {}", wrong.join("; "));
    let counts = counts::since(stage.world, mark)?;
    let mut writes = Vec::new();
    let mut classes = BTreeMap::new();
    let mut occurrences = BTreeMap::<String, usize>::new();
    let mut conflicts = BTreeSet::new();
    for seen in stage.proxy.script.seen() {
        if let Asked::Write(write) = seen.asked {
            let count = occurrences.entry(write.to_string()).or_default();
            *count += 1;
            // Whether a write conflicts and is retried depends on the other writes at this time. The retry is not a place of its own.
            let is_again = if matches!(seen.end, Some((End::Answered(StatusCode::CONFLICT), _))) {
                !conflicts.insert(write.to_string())
            } else {
                conflicts.remove(&write.to_string())
            };
            if is_again {
                continue;
            }
            let name = numbered(&write, *count);
            let (verb, kind) = write.class();
            classes.insert(name.clone(), format!("{verb}:{kind}"));
            writes.push(name);
        }
    }
    let events = stage.proxy.script.events();
    stage.clean_up().await?;
    Ok(Reference {
        state: end,
        counts,
        writes,
        classes,
        events,
        sets,
    })
}

/// Waits for the end of a workload whose result is not known yet.
async fn settled(stage: &Stage, workload: Workload) -> anyhow::Result<State> {
    let edge = stage.edge();
    let thing = Thing::new("ContourDeployment", edge.namespace(), edge.name());
    let started = Instant::now();
    let mut last = (State::new(), Instant::now());
    loop {
        let now = stage.state().await?;
        if now != last.0 {
            last = (now, Instant::now());
        }
        let gone = stage.lab.find(&thing).await?.is_none();
        let look = match (workload.ends_with_nothing(), gone) {
            (false, false) => stage.look_settled().await?.map(drop),
            (ends, gone) => Look::when(ends == gone, format!("gone: {gone}")),
        };
        if matches!(look, Look::Reached(())) && last.1.elapsed() > Duration::from_secs(2) {
            return Ok(last.0);
        }
        ensure!(started.elapsed() < WELL, "{workload} does not settle: {look:?}");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

async fn history(stage: &Stage) -> anyhow::Result<(usize, Vec<String>)> {
    stage.history.catch_up(&stage.lab).await?;
    let (commits, mut wrong) = stage.history.violations();
    wrong.truncate(3);
    wrong.extend(stage.contour.exits());
    Ok((commits, wrong))
}

/// Executes a plan. The stage is clean before the plan. The caller cleans the stage afterwards.
pub async fn carry_out(stage: &Stage, plan: &Plan, expected: &Reference, bounds: Bounds) -> anyhow::Result<Outcome> {
    for _ in 0..TRIES {
        if let Some(outcome) = try_it(stage, plan, expected, bounds).await? {
            return Ok(outcome);
        }
        ensure!(plan.may_not_come_up(), "the fault did not happen");
        stage.clean_up().await?;
    }
    Ok(Outcome {
        did_not_happen: true,
        ..Outcome::default()
    })
}

/// Executes a plan once. Returns None if its place did not occur.
async fn try_it(stage: &Stage, plan: &Plan, expected: &Reference, bounds: Bounds) -> anyhow::Result<Option<Outcome>> {
    let began = Instant::now();
    let Plan { workload, fault, place } = plan;
    stage.prepare(workload.base()).await?;
    let script = &stage.proxy.script;
    let dead = match fault {
        Fault::DeadConnections => Some(Dead::begin(stage).await?),
        _ => None,
    };
    let mark = audit::mark(stage.world)?;
    if *fault == Fault::Start(OnStart::Stale) {
        // The stale view must be the state before the workload. So run the workload first with a current view.
        stage.proxy.remember().await?;
        script.begin(None);
        workload.act(&stage.lab, &stage.auth).await?;
        well(stage, plan, expected, Killed::StartsAgain, || true)
            .await
            .context("before the view becomes stale")?;
        stage.seat.kill();
        script.begin(Some((*fault, place.clone())));
    } else {
        if matches!(fault, Fault::Start(_)) {
            stage.seat.kill();
        }
        script.begin(Some((*fault, place.clone())));
        workload.act(&stage.lab, &stage.auth).await?;
    }
    let acted = Instant::now();
    let mut outcome = Outcome::default();
    let end = if let Some(dead) = &dead {
        let noticed = dead.noticed().await?;
        outcome.dead_ms = millis(noticed);
        if bounds == Bounds::Checked && noticed > DEATH {
            outcome.wrong.push(format!(
                "{} dead connections were detected only after {noticed:?}",
                dead.count()
            ));
        }
        well(stage, plan, expected, Killed::IsElsewhere, || true).await
    } else {
        well(stage, plan, expected, Killed::StartsAgain, || {
            script.has_fired() && script.is_over()
        })
        .await
    };
    outcome.recovery_ms = millis(script.fired().unwrap_or(acted).elapsed());
    match end {
        Ok(Rest::Well) => {}
        Ok(Rest::NothingHappened) => return Ok(None),
        Err(error) => outcome.wrong.push(format!("{error:#}")),
    }
    let (commits, wrong) = history(stage).await?;
    outcome.commits = commits;
    outcome.wrong.extend(wrong);
    let counted = counts::since(stage.world, mark)?;
    outcome.wrong.extend(if plan.moves_the_stand_in() {
        counts::differences(&counts::net(&expected.counts), &counts::net(&counted))
    } else {
        counts::differences(&expected.counts, &counted)
    });
    let longest = script
        .seen()
        .into_iter()
        .map(|seen| (seen.end.map_or_else(|| seen.at.elapsed(), |(_, took)| took), seen))
        .max_by_key(|(took, _)| *took);
    if let Some((took, seen)) = longest {
        outcome.longest_call_ms = millis(took);
        if bounds == Bounds::Checked && took > PATIENCE {
            outcome.wrong.push(too_long(&seen, took));
        }
    }
    if *fault == Fault::Stream(OnStream::Silent) {
        let silence = script.longest_silence().context("no silent stream was detected")?;
        outcome.silence_ms = millis(silence);
        if bounds == Bounds::Checked && silence > SILENCE {
            outcome
                .wrong
                .push(format!("a silent stream was detected only after {silence:?}"));
        }
    }
    outcome.took_ms = millis(began.elapsed());
    if let Some(dead) = dead {
        dead.end().await?;
    }
    Ok(Some(outcome))
}

fn too_long(seen: &Seen, took: Duration) -> String {
    let how = match seen.end {
        Some((End::Answered(code), _)) => format!("was answered with {code}"),
        _ => "was aborted".to_owned(),
    };
    format!("{:?} {how} only after {took:?}", seen.asked)
}

fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

/// The reaction to a killed operator.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Killed {
    /// The operator was killed, and is restarted.
    StartsAgain,
    /// The operator runs outside of the seat.
    IsElsewhere,
}

/// A good end of a run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Rest {
    /// The state is as without a fault, and the operator is idle.
    Well,
    /// The state is as without a fault, because the place of the fault did not occur.
    NothingHappened,
}

/// Waits until the state is as without a fault and the operator is idle.
async fn well(
    stage: &Stage,
    plan: &Plan,
    expected: &Reference,
    killed: Killed,
    is_done: impl Fn() -> bool,
) -> anyhow::Result<Rest> {
    let comparable = |state: State| {
        if plan.moves_the_stand_in() {
            state::without_rollouts(state)
        } else {
            state
        }
    };
    let expected = comparable(expected.state.clone());
    let started = Instant::now();
    let mut busy = Instant::now();
    loop {
        if killed == Killed::StartsAgain {
            stage.seat.take()?;
        }
        let found = differences::of_objects(&expected, &comparable(stage.state().await?));
        if !found.is_empty() || !stage.is_quiet() {
            busy = Instant::now();
        } else if is_done() {
            return Ok(Rest::Well);
        } else if busy.elapsed() > REST && !stage.proxy.script.has_fired() {
            return Ok(Rest::NothingHappened);
        }
        if started.elapsed() > WELL {
            ensure!(
                found.is_empty(),
                "the final state differs from the one without a fault: {}",
                found.join("; ")
            );
            bail!("the operator does not become idle");
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}
