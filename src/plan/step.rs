//! A single list of named steps describes all work for a ContourDeployment. The list determines the writes, their order, the writes that
//! wait, and the objects that pruning spares.

use super::object::Key;
use super::write::{Desired, Write};

/// A step: objects to converge, to restore or to delete.
#[derive(Clone, Debug)]
pub struct Step {
    /// The name of the step.
    pub name: &'static str,
    /// The work of the step.
    pub content: Content,
    /// When the step is due.
    pub when: When,
    /// Whether later steps wait until this step has no work left.
    pub comes_first: bool,
}

/// The work of a step.
#[derive(Clone, Debug)]
#[allow(clippy::large_enum_variant)] // a dozen at a time
pub enum Content {
    /// Bring these objects to the desired state.
    Converge(Vec<Desired>),
    /// Create these objects if they do not exist. Existing objects are not changed.
    Restore(Vec<Desired>),
    /// Delete the selected objects, except those that a step of the list names.
    Remove(Selection),
    /// A write to the ContourDeployment itself, or no write.
    Write(Option<Write>),
}

/// When a step is due.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum When {
    /// Immediately after the preceding steps.
    Now,
    /// Not in this plan. Pruning still spares the objects that the step names.
    Later,
    /// When the preceding step has no work left.
    AfterThatBefore,
    /// When no preceding step has writes other than removals.
    Settled,
}

/// A selection of existing objects to delete.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Selection {
    /// Objects that no Contour reads at startup and that nothing needs.
    Unwanted {
        /// Whether an Envoy of the other workload type may be deleted, because the new Envoy is available.
        other_envoy: bool,
    },
    /// Objects that a Contour may have read at startup and that no Contour uses any more.
    Unused,
    /// Leftovers of an earlier plan in namespaces that nothing references any more.
    Leftovers,
    /// Unused objects whose deletion started before the spec was refused.
    Going,
    /// Stand-ins that are being deleted.
    TerminatingStandIns,
    /// Blackholes that are being deleted and whose stand-in does not exist any more.
    TerminatingBlackholes,
    /// A part of the objects of a ContourDeployment that is being deleted.
    Remains {
        /// The part to delete.
        part: Part,
        /// Whether the namespace of the ContourDeployment, and so every object in the namespace, is being deleted.
        namespace_goes: bool,
    },
}

/// The parts of a ContourDeployment's objects, in the order of their deletion. A running Contour must not observe the deletion of its
/// stand-ins.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Part {
    /// Contour's Deployment.
    Contour,
    /// Every object without Slipway's finalizer.
    AllButStandIns,
    /// Stand-ins.
    StandIns,
    /// Blackholes.
    Blackholes,
}

impl Step {
    /// Creates a step that brings these objects to the desired state.
    pub fn converge(name: &'static str, desired: impl IntoIterator<Item = Desired>) -> Self {
        Self::new(name, Content::Converge(desired.into_iter().collect()))
    }

    /// Creates a step that creates these objects if they do not exist.
    pub fn restore(name: &'static str, desired: impl IntoIterator<Item = Desired>) -> Self {
        Self::new(name, Content::Restore(desired.into_iter().collect()))
    }

    /// Creates a step that deletes the selected objects.
    pub fn remove(name: &'static str, selection: Selection) -> Self {
        Self::new(name, Content::Remove(selection))
    }

    /// Creates a step that writes to the ContourDeployment itself, or a step without a write.
    pub fn write(name: &'static str, write: Option<Write>) -> Self {
        Self::new(name, Content::Write(write))
    }

    /// Returns the step with another due time.
    pub fn when(self, when: When) -> Self {
        Self { when, ..self }
    }

    /// Returns the step with later steps blocked until this step has no work left.
    pub fn first(self) -> Self {
        Self {
            comes_first: true,
            ..self
        }
    }

    /// Returns the keys of the objects that the step names.
    pub fn keys(&self) -> impl Iterator<Item = Key> {
        let desired = match &self.content {
            Content::Converge(desired) | Content::Restore(desired) => desired.as_slice(),
            Content::Remove(_) | Content::Write(_) => &[],
        };
        desired.iter().map(|desired| desired.object.key())
    }

    fn new(name: &'static str, content: Content) -> Self {
        Self {
            name,
            content,
            when: When::Now,
            comes_first: false,
        }
    }
}
