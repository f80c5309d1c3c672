//! One list of named steps says everything that is to be done for a ContourDeployment. What is written, in which order, what waits, and
//! what pruning spares all derive from it.

use super::object::Key;
use super::write::{Desired, Write};

/// A step: objects that are to be as they are desired, or gone.
#[derive(Clone, Debug)]
pub struct Step {
    /// What it is about.
    pub name: &'static str,
    /// What is to be done.
    pub content: Content,
    /// Whether it is done now.
    pub when: When,
    /// Whether no later step is due until this one has nothing to do any more.
    pub comes_first: bool,
}

/// What is to be done in a step.
#[derive(Clone, Debug)]
#[allow(clippy::large_enum_variant)] // a dozen at a time
pub enum Content {
    /// These objects shall be so.
    Converge(Vec<Desired>),
    /// These objects shall exist; if they do, they stay as they are.
    Restore(Vec<Desired>),
    /// What is selected goes, unless a step of the list names it.
    Remove(Selection),
    /// This write, if there is one, which is about the ContourDeployment itself.
    Write(Option<Write>),
}

/// When a step is done.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum When {
    /// At once, after those before it.
    Now,
    /// Not yet. What it names is spared all the same.
    Later,
    /// When the step before it has nothing to do any more.
    AfterThatBefore,
    /// When no step before it has anything to write but removals.
    Settled,
}

/// Which of the objects that exist are to go.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Selection {
    /// What no Contour captures, and nothing needs.
    Unwanted {
        /// Whether an Envoy of the other workload type may go: the new one is there.
        other_envoy: bool,
    },
    /// What a Contour may have captured once, and none uses any more.
    Unused,
    /// What an earlier plan left in namespaces that nothing refers to any more.
    Leftovers,
    /// What is unused and was being deleted before the specification was refused.
    Going,
    /// Stand-ins that are being deleted.
    TerminatingStandIns,
    /// Blackholes that are being deleted and whose stand-in is gone.
    TerminatingBlackholes,
    /// A part of what a ContourDeployment that is being deleted leaves.
    Remains {
        /// Which part.
        part: Part,
        /// Whether what is in the ContourDeployment's namespace is deleted with that.
        namespace_goes: bool,
    },
}

/// The parts of what a ContourDeployment leaves, in the order in which they go: a Contour that still runs must not see its stand-ins go.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Part {
    /// Contour's Deployment.
    Contour,
    /// Everything that our finalizer does not hold.
    AllButStandIns,
    /// Stand-ins.
    StandIns,
    /// Blackholes.
    Blackholes,
}

impl Step {
    /// Objects that shall be so.
    pub fn converge(name: &'static str, desired: impl IntoIterator<Item = Desired>) -> Self {
        Self::new(name, Content::Converge(desired.into_iter().collect()))
    }

    /// Objects that shall exist.
    pub fn restore(name: &'static str, desired: impl IntoIterator<Item = Desired>) -> Self {
        Self::new(name, Content::Restore(desired.into_iter().collect()))
    }

    /// What shall go.
    pub fn remove(name: &'static str, selection: Selection) -> Self {
        Self::new(name, Content::Remove(selection))
    }

    /// A write about the ContourDeployment itself, if there is one.
    pub fn write(name: &'static str, write: Option<Write>) -> Self {
        Self::new(name, Content::Write(write))
    }

    /// The same at this time.
    pub fn when(self, when: When) -> Self {
        Self { when, ..self }
    }

    /// The same, and no later step is due until it has nothing to do any more.
    pub fn first(self) -> Self {
        Self {
            comes_first: true,
            ..self
        }
    }

    /// The objects that it names.
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
