//! The rows of a run for `docs/proof-results.md`: plans, failures, and the longest of the measured times.

use std::collections::BTreeMap;
use std::time::Duration;

use crate::proof::Row;

use super::plan::{Fault, Plan};
use super::run::{Outcome, TRIES};

/// Returns a row for each kind of fault and one for all plans. The seconds are the sum of the plans' durations, including those of
/// interrupted runs.
pub fn rows(seed: u64, outcomes: &BTreeMap<String, Outcome>) -> Vec<Row> {
    let mut groups: BTreeMap<&str, Vec<&Outcome>> = BTreeMap::new();
    for (plan, outcome) in outcomes {
        let what = match plan.parse::<Plan>().map(|plan| plan.fault) {
            Ok(Fault::Request(_)) => "faults of requests that write",
            Ok(Fault::Stream(_)) => "faults of watches",
            Ok(Fault::Start(_)) => "faults of a start: stale views, reads without a response",
            Ok(Fault::DeadConnections) => "connections that die without notice",
            Err(_) => "plans of another version",
        };
        groups.entry(what).or_default().push(outcome);
    }
    let mut rows: Vec<Row> = groups
        .into_iter()
        .map(|(what, group)| row(what, seed, &group))
        .collect();
    let all: Vec<_> = outcomes.values().collect();
    rows.push(Row::new("all", &seed, plans(&all), spent(outcomes.values())));
    rows
}

/// Counts the plans. Plans whose fault did not happen are counted apart.
fn plans(group: &[&Outcome]) -> String {
    let failed = group.iter().filter(|outcome| !outcome.wrong.is_empty()).count();
    let absent = group.iter().filter(|outcome| outcome.did_not_happen).count();
    let happened = format!("{} plans, {failed} failed", group.len() - absent);
    match absent {
        0 => happened,
        absent => format!("{happened}; the fault of {absent} more did not happen in any of {TRIES} runs"),
    }
}

fn row(what: &str, seed: u64, group: &[&Outcome]) -> Row {
    let most = |value: fn(&Outcome) -> u64| group.iter().map(|outcome| value(outcome)).max().unwrap_or_default();
    let commits: usize = group.iter().map(|outcome| outcome.commits).sum();
    let mut counts = vec![
        plans(group),
        format!("{commits} commits checked"),
        format!("recovered within {} s", seconds(most(|outcome| outcome.recovery_ms))),
    ];
    let longest = [
        ("longest call", most(|outcome| outcome.longest_call_ms)),
        ("longest silence of a watch", most(|outcome| outcome.silence_ms)),
        ("all dead connections noticed within", most(|outcome| outcome.dead_ms)),
    ];
    let measured = longest.into_iter().filter(|(_, millis)| *millis > 0);
    counts.extend(measured.map(|(what, millis)| format!("{what} {} s", seconds(millis))));
    Row::new(what, &seed, counts.join("; "), spent(group.iter().copied()))
}

fn spent<'a>(outcomes: impl Iterator<Item = &'a Outcome>) -> Duration {
    Duration::from_millis(outcomes.map(|outcome| outcome.took_ms).sum())
}

/// Formats milliseconds as seconds with one decimal.
pub fn seconds(millis: u64) -> String {
    format!("{}.{}", millis / 1000, millis % 1000 / 100)
}
