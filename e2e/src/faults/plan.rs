//! A plan: a fault, its place, and the workload that it interrupts. The name of a plan is enough to repeat the plan alone.

use std::fmt;
use std::str::FromStr;

use anyhow::{Context as _, bail};

use super::workload::Workload;

/// One fault in one workload.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Plan {
    /// The workload.
    pub workload: Workload,
    /// The fault.
    pub fault: Fault,
    /// The place. For a request: the name of the write and, after `#`, its number among the writes of this name. For a stream or a read:
    /// the name of the set, or `all`.
    pub place: String,
}

impl Plan {
    /// Whether this place does not occur in each run of the workload. The number of reports in the status and in Events depends on how many
    /// changes the operator observes at once.
    pub fn may_not_come_up(&self) -> bool {
        let reports = [
            "patch:contourdeployments/status/",
            "create:events",
            "merge:events",
            "patch:events",
        ];
        matches!(self.fault, Fault::Request(_)) && reports.iter().any(|report| self.place.starts_with(report))
    }

    /// Reports whether the API server finally refuses the creation of a stand-in or of its blackhole. Then the role falls back to a blackhole
    /// beside the ContourDeployment until Slipway retries, and Contour is rolled out for each of the two moves
    /// (docs/decisions/0006-namespace-of-a-stand-in.md).
    pub fn moves_the_stand_in(&self) -> bool {
        let creations = ["create:extensionservices/", "create:services/edge-ext-"];
        self.fault == Fault::Request(OnRequest::Answer(422))
            && creations.iter().any(|creation| self.place.starts_with(creation))
    }
}

/// A fault.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Fault {
    /// A fault of one request that writes.
    Request(OnRequest),
    /// A fault of streams of events.
    Stream(OnStream),
    /// A fault of the reads at the start of the operator.
    Start(OnStart),
    /// Every connection of the operator dies silently.
    DeadConnections,
}

/// A fault of a request that writes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum OnRequest {
    /// The operator is killed before the API server receives the request.
    KillBefore,
    /// The API server commits the write, and the operator is killed before it receives the answer.
    KillAfter,
    /// The API server does not commit the write, and answers with this code.
    Answer(u16),
    /// The connection is reset, and the API server does not receive the request.
    Reset,
    /// The API server commits the write, and no answer arrives.
    CommitWithoutAnswer,
    /// The API server does not receive the request, and no answer arrives.
    BlackHole,
}

/// A fault of a stream, at its first event.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum OnStream {
    /// The stream ends in the middle of the event.
    Cut,
    /// An event of type ERROR replaces the event.
    Error,
    /// An event of type ERROR with code 410 replaces the event, so the operator must list the set again.
    Gone,
    /// No event arrives any more, and the stream stays open.
    Silent,
    /// Events are withheld for some time. Then code 410 follows, so the operator observes only the final state.
    Withheld,
}

/// A fault of the reads at a start. The operator is killed and restarted for this fault.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum OnStart {
    /// The operator reads the state before the workload for some time, and then the current state.
    Stale,
    /// The first list of a set gets no answer.
    ListBlackHole,
    /// The first list of a set stops silently in the middle.
    ListStalls,
    /// The first watch of a set gets no answer.
    WatchBlackHole,
}

/// All faults of requests.
pub const ON_REQUEST: [OnRequest; 11] = [
    OnRequest::KillBefore,
    OnRequest::KillAfter,
    OnRequest::Answer(409),
    OnRequest::Answer(422),
    OnRequest::Answer(429),
    OnRequest::Answer(500),
    OnRequest::Answer(503),
    OnRequest::Answer(504),
    OnRequest::Reset,
    OnRequest::CommitWithoutAnswer,
    OnRequest::BlackHole,
];

/// All faults of streams.
pub const ON_STREAM: [OnStream; 5] = [
    OnStream::Cut,
    OnStream::Error,
    OnStream::Gone,
    OnStream::Silent,
    OnStream::Withheld,
];

/// All faults of a start.
pub const ON_START: [OnStart; 4] = [
    OnStart::Stale,
    OnStart::ListBlackHole,
    OnStart::ListStalls,
    OnStart::WatchBlackHole,
];

/// All faults, by name.
fn faults() -> impl Iterator<Item = Fault> {
    let requests = ON_REQUEST.into_iter().map(Fault::Request);
    requests
        .chain(ON_STREAM.into_iter().map(Fault::Stream))
        .chain(ON_START.into_iter().map(Fault::Start))
        .chain([Fault::DeadConnections])
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Request(OnRequest::Answer(code)) => return write!(f, "{code}"),
            Self::Request(OnRequest::KillBefore) => "kill-before-forwarding",
            Self::Request(OnRequest::KillAfter) => "kill-after-commit",
            Self::Request(OnRequest::Reset) => "reset",
            Self::Request(OnRequest::CommitWithoutAnswer) => "commit-without-answer",
            Self::Request(OnRequest::BlackHole) => "black-hole",
            Self::Stream(OnStream::Cut) => "watch-cut",
            Self::Stream(OnStream::Error) => "watch-error",
            Self::Stream(OnStream::Gone) => "watch-gone",
            Self::Stream(OnStream::Silent) => "watch-silent",
            Self::Stream(OnStream::Withheld) => "watch-withheld",
            Self::Start(OnStart::Stale) => "stale-view",
            Self::Start(OnStart::ListBlackHole) => "list-black-hole",
            Self::Start(OnStart::ListStalls) => "list-stalls",
            Self::Start(OnStart::WatchBlackHole) => "watch-black-hole",
            Self::DeadConnections => "dead-connections",
        })
    }
}

impl FromStr for Fault {
    type Err = anyhow::Error;

    fn from_str(text: &str) -> anyhow::Result<Self> {
        let known = faults().find(|fault| fault.to_string() == text);
        known.with_context(|| {
            let all: Vec<_> = faults().map(|fault| fault.to_string()).collect();
            format!("{text} is not a fault; the faults are {}", all.join(", "))
        })
    }
}

impl fmt::Display for Plan {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { workload, fault, place } = self;
        write!(f, "{workload}/{fault}@{place}")
    }
}

impl FromStr for Plan {
    type Err = anyhow::Error;

    fn from_str(text: &str) -> anyhow::Result<Self> {
        let Some(((workload, fault), place)) = text
            .split_once('@')
            .and_then(|(what, place)| Some((what.split_once('/')?, place)))
        else {
            bail!("{text} is not a plan; a plan has the form WORKLOAD/FAULT@PLACE")
        };
        Ok(Self {
            workload: workload.parse()?,
            fault: fault.parse()?,
            place: place.to_owned(),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_plan_is_found_again_by_its_name() {
        for fault in faults() {
            let plan = Plan {
                workload: Workload::Switch,
                fault,
                place: "create:secrets/edge-xds-ca#1".to_owned(),
            };
            assert_eq!(plan.to_string().parse::<Plan>().expect("a plan"), plan);
        }
        assert!("create@x".parse::<Plan>().is_err());
        assert!("create/none@x".parse::<Plan>().is_err());
    }
}
