//! What may go wrong, where, and in the middle of what: a plan, which has a name by which it is done again alone.

use std::fmt;
use std::str::FromStr;

use anyhow::{Context as _, bail};

use super::workload::Workload;

/// One fault in one workload.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Plan {
    /// What happens meanwhile.
    pub workload: Workload,
    /// What goes wrong.
    pub fault: Fault,
    /// Where: for a request the write's name and, after `#`, which of those that bear it; for a stream or a read the set's
    /// name, or `all`.
    pub place: String,
}

impl Plan {
    /// Whether there are runs of the workload without this place: how often the operator reports, in the status and by Events,
    /// depends on how much it sees in one look.
    pub fn may_not_come_up(&self) -> bool {
        let reports = ["patch:contourdeployments/status/", "create:events", "patch:events"];
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

/// What goes wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Fault {
    /// Something about one request that writes.
    Request(OnRequest),
    /// Something about streams of events.
    Stream(OnStream),
    /// Something about how an operator that starts reads the world.
    Start(OnStart),
    /// Every connection that the operator has dies without a word.
    DeadConnections,
}

/// What happens to a request that writes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum OnRequest {
    /// The operator is killed before the API server hears of it.
    KillBefore,
    /// The API server has done it, and the operator is killed before it hears so.
    KillAfter,
    /// The API server does nothing and answers with this code.
    Answer(u16),
    /// The connection is reset, and the API server hears nothing.
    Reset,
    /// The API server has done it; no answer comes.
    CommitWithoutAnswer,
    /// Nobody hears of it; no answer comes.
    BlackHole,
}

/// What happens to a stream when its first event comes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum OnStream {
    /// It breaks off in the middle of the event.
    Cut,
    /// An event of type ERROR comes in its place.
    Error,
    /// An event of type ERROR comes in its place, with code 410: what was seen so far is worth nothing.
    Gone,
    /// Nothing comes any more, and the stream stays open.
    Silent,
    /// Events are withheld for a while; then code 410, so that only what is left of them is seen.
    Withheld,
}

/// What an operator that starts is told. It is killed and started for it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum OnStart {
    /// The world of before the workload, for a while; then the world as it is.
    Stale,
    /// No answer to the first reading of a set.
    ListBlackHole,
    /// The first reading of a set breaks off in the middle, silently.
    ListStalls,
    /// No answer to the first watch of a set.
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
            format!("no fault is called {text}; there are {}", all.join(", "))
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
            bail!("a plan is WORKLOAD/FAULT@PLACE, and not {text}")
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
