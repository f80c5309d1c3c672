//! The selection of plans. The first write of each distinct verb and kind gets every fault. Every other write gets one fault, which
//! the seed chooses. Streams, starts and dead connections have their own plans.

use std::collections::{BTreeMap, BTreeSet};

use anyhow::ensure;

use super::plan::{Fault, ON_REQUEST, OnRequest, OnStart, OnStream, Plan};
use super::run::Reference;
use super::script::EVERYWHERE;
use super::workload::Workload;

/// The sets with faults at a start: the primary set, one of Contour's sets, and a set that is read only later.
const AT_A_START: [&str; 3] = ["contourdeployments:all", "extensionservices:ours", "deployments:ours"];

/// Returns all plans, in the order of the workloads.
pub fn all(references: &BTreeMap<Workload, Reference>, seed: u64) -> anyhow::Result<Vec<Plan>> {
    let mut plans = Vec::new();
    let mut known = BTreeSet::new();
    for (workload, reference) in references {
        ensure!(
            !reference.writes.is_empty(),
            "workload {workload} has no write that could fail"
        );
        ensure!(
            !reference.events.is_empty(),
            "workload {workload} has no event that could be lost"
        );
        let mut random = fastrand::Rng::with_seed(seed ^ (*workload as u64) << 32);
        let mut plan = |fault, place: &str| {
            plans.push(Plan {
                workload: *workload,
                fault,
                place: place.to_owned(),
            });
        };
        for write in &reference.writes {
            if known.insert(&reference.classes[write]) {
                for fault in ON_REQUEST {
                    plan(Fault::Request(fault), write);
                }
            } else {
                plan(Fault::Request(ON_REQUEST[random.usize(..ON_REQUEST.len())]), write);
            }
        }
        for set in &reference.events {
            let faults = [OnStream::Cut, OnStream::Error, OnStream::Gone, OnStream::Withheld];
            plan(Fault::Stream(faults[random.usize(..faults.len())]), set);
        }
        for fault in [
            OnStream::Cut,
            OnStream::Error,
            OnStream::Gone,
            OnStream::Withheld,
            OnStream::Silent,
        ] {
            plan(Fault::Stream(fault), EVERYWHERE);
        }
        plan(Fault::Start(OnStart::Stale), EVERYWHERE);
        plan(Fault::DeadConnections, EVERYWHERE);
        let starts = [OnStart::ListBlackHole, OnStart::ListStalls, OnStart::WatchBlackHole];
        for set in AT_A_START {
            ensure!(
                reference.sets.iter().any(|known| known == set),
                "the operator does not read {set}"
            );
            plan(Fault::Start(starts[random.usize(..starts.len())]), set);
        }
    }
    ensure!(!plans.is_empty(), "the selection has no plan");
    Ok(plans)
}

/// Returns a few plans, chosen by the seed: `each` kills, responses, streams and starts. None of them waits for the timeout of a call.
pub fn sample(plans: &[Plan], seed: u64, each: usize) -> Vec<Plan> {
    let mut random = fastrand::Rng::with_seed(seed);
    let groups: [fn(&Fault) -> bool; 4] = [
        |fault| matches!(fault, Fault::Request(OnRequest::KillBefore | OnRequest::KillAfter)),
        |fault| matches!(fault, Fault::Request(OnRequest::Answer(_) | OnRequest::Reset)),
        |fault| matches!(fault, Fault::Stream(stream) if *stream != OnStream::Silent),
        |fault| matches!(fault, Fault::Start(OnStart::Stale)),
    ];
    let mut chosen = Vec::new();
    for group in groups {
        let mut of: Vec<_> = plans.iter().filter(|plan| group(&plan.fault)).cloned().collect();
        random.shuffle(&mut of);
        chosen.extend(of.into_iter().take(each));
    }
    chosen
}
