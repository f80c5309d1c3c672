//! What comes out of the core: the writes, in waves, what is asked, and what is told.

use std::time::Duration;

use serde::Serialize;

use super::failure::Failure;
use super::issuing::Request;
use super::object::Object;
use super::write::Write;
use crate::api::{ContourDeploymentStatus, OverruledFields};

/// What to do.
#[derive(Clone, Debug, Serialize)]
pub struct Plan {
    /// The writes, in waves: within a wave they go out together, and a wave starts when the one before it is done.
    pub waves: Vec<Wave>,
    /// Facts that only the outside has; the plan is made again with the answers once the waves are done.
    pub questions: Vec<Question>,
    /// The status to report when nothing is left to write.
    pub status: ContourDeploymentStatus,
    /// What to tell with Events, once.
    pub events: Vec<Event>,
    /// Look again after this time even if nothing happens.
    #[serde(skip)]
    pub requeue_after: Option<Duration>,
}

/// Writes that go out together.
#[derive(Clone, Debug, Default, Serialize)]
pub struct Wave {
    /// What it is about.
    pub name: &'static str,
    /// The writes that are needed.
    pub writes: Vec<Write>,
    /// Whether these deletions need a live look at pods and ReplicaSets first: a watch may lag behind a container's start.
    pub needs_live_read: bool,
    /// Writes that have to wait.
    #[serde(skip)]
    pub held: Vec<Held>,
    /// Fields that somebody else decided as we wrote them, and that are taken as they are.
    #[serde(skip)]
    pub overruled: Vec<OverruledFields>,
    /// What can't be deleted in other namespaces.
    #[serde(skip)]
    pub left_behind: Vec<Failure>,
    /// Look again after this time.
    #[serde(skip)]
    pub requeue_after: Option<Duration>,
}

/// A write that has to wait, and why.
#[derive(Clone, Debug, PartialEq)]
pub struct Held {
    /// What is to be said of it; none: it is said elsewhere.
    pub failure: Option<Failure>,
    /// For how long.
    pub wait: Duration,
    /// Whether what comes after it has to wait, too: that would go by an object that is not there, or is not ours.
    pub blocks: bool,
}

/// What only the outside can answer.
#[derive(Clone, Debug, Serialize)]
pub enum Question {
    /// Does the API server take this ContourConfiguration? (A strict dry run of its creation.)
    Settings {
        /// Hash of the settings, to be returned with the answer.
        hash: String,
        /// The object to try.
        candidate: Box<Object>,
    },
    /// Issue certificates: that needs randomness.
    Certificates(Request),
}

/// Something to tell.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[allow(missing_docs)]
pub struct Event {
    pub severity: Severity,
    pub reason: String,
    pub note: String,
}

/// Kubernetes' event types.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[allow(missing_docs)]
pub enum Severity {
    Normal,
    Warning,
}

impl Plan {
    /// Whether there is nothing left to do but to report.
    pub fn is_settled(&self) -> bool {
        self.questions.is_empty() && self.waves.iter().all(|wave| wave.writes.is_empty())
    }
}

impl Wave {
    /// A wave of these writes.
    pub fn of(name: &'static str, writes: Vec<Write>) -> Self {
        Self {
            name,
            writes,
            ..Self::default()
        }
    }

    /// Whether a held write stops the waves after this one.
    pub fn blocks(&self) -> bool {
        self.held.iter().any(|held| held.blocks)
    }

    /// Whether everything in it is as it shall be.
    pub fn is_done(&self) -> bool {
        self.writes.is_empty() && self.held.is_empty()
    }
}
