//! The output of the core: waves of writes, questions, a status and Events.

use std::time::Duration;

use serde::Serialize;

use super::failure::Failure;
use super::issuing::Request;
use super::object::Object;
use super::write::Write;
use crate::api::{ContourDeploymentStatus, OverruledFields};

/// The plan for a ContourDeployment.
#[derive(Clone, Debug, Serialize)]
pub struct Plan {
    /// The writes, in waves. The writes of a wave are sent concurrently. A wave starts when the preceding wave is complete.
    pub waves: Vec<Wave>,
    /// Questions that only the outside can answer. The plan is computed again with the answers when the waves are complete.
    pub questions: Vec<Question>,
    /// The status to report when no writes are left.
    pub status: ContourDeploymentStatus,
    /// The Events to record, each once.
    pub events: Vec<Event>,
    /// Requeue after this time even if no event arrives.
    #[serde(skip)]
    pub requeue_after: Option<Duration>,
}

/// Writes that are sent concurrently.
#[derive(Clone, Debug, Default, Serialize)]
pub struct Wave {
    /// The name of the wave.
    pub name: &'static str,
    /// The writes of the wave.
    pub writes: Vec<Write>,
    /// Whether these deletions require a live read of pods and ReplicaSets first, because a watch may lag behind the start of a container.
    pub needs_live_read: bool,
    /// Writes that wait.
    #[serde(skip)]
    pub held: Vec<Held>,
    /// Fields that another user or controller changed in Slipway's own write. Slipway accepts their values.
    #[serde(skip)]
    pub overruled: Vec<OverruledFields>,
    /// Objects in other namespaces that cannot be deleted.
    #[serde(skip)]
    pub left_behind: Vec<Failure>,
    /// Requeue after this time.
    #[serde(skip)]
    pub requeue_after: Option<Duration>,
}

/// A write that waits, and the reason.
#[derive(Clone, Debug, PartialEq)]
pub struct Held {
    /// The failure to report. None: another part of the status reports the reason.
    pub failure: Option<Failure>,
    /// The time to wait.
    pub wait: Duration,
    /// Whether later waves wait, too, because they depend on an object that does not exist or does not have Slipway's content.
    pub blocks: bool,
}

/// A question that only the outside can answer.
#[derive(Clone, Debug, Serialize)]
pub enum Question {
    /// Does the API server accept these objects? The answer comes from strict dry runs.
    Settings {
        /// Hash of the settings. The answer repeats the hash.
        hash: String,
        /// The ContourConfiguration, for a dry run of its creation.
        candidate: Box<Object>,
        /// The writes of the workloads and the Service with fields that only the API server can check, each with such a field.
        others: Vec<(&'static str, Write)>,
    },
    /// Issue certificates, which requires randomness.
    Certificates(Request),
}

/// An Event to record.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[allow(missing_docs)]
pub struct Event {
    pub severity: Severity,
    pub reason: String,
    pub note: String,
}

/// The event types of Kubernetes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[allow(missing_docs)]
pub enum Severity {
    Normal,
    Warning,
}

impl Plan {
    /// Reports whether only the report of the status is left.
    pub fn is_settled(&self) -> bool {
        self.questions.is_empty() && self.waves.iter().all(|wave| wave.writes.is_empty())
    }
}

impl Wave {
    /// Creates a wave of these writes.
    pub fn of(name: &'static str, writes: Vec<Write>) -> Self {
        Self {
            name,
            writes,
            ..Self::default()
        }
    }

    /// Reports whether a held write blocks the waves after this one.
    pub fn blocks(&self) -> bool {
        self.held.iter().any(|held| held.blocks)
    }

    /// Reports whether every object of the wave has its desired state.
    pub fn is_done(&self) -> bool {
        self.writes.is_empty() && self.held.is_empty()
    }
}
