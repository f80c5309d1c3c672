//! Attacks by users with limited rights. Each attacker has exactly the stated rights, and each attack has an expected outcome.
//!
//! `tenant`, `provider` and `editor` contain the table of attacks. `forged` contains the forged objects, `rights` the attackers' rights,
//! and `place` the victims. `snapshot` observes the victims, and `play` executes the table.

mod editor;
mod findings;
mod forged;
mod place;
pub mod play;
mod provider;
mod rights;
mod snapshot;
mod tenant;

use serde_json::Value;

use crate::lab::Thing;

pub use forged::Victim;
pub use rights::{everywhere, grants};

/// An attacker; `rights` defines the rights of each.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Attacker {
    /// A tenant of an unrelated namespace: `edit` there, and writes to Contour's kinds there.
    Tenant,
    /// A user with all rights in an unrelated namespace.
    Owner,
    /// A user who may create namespaces and has all rights in them.
    Founder,
    /// A user who may only bind users to ClusterRole `view` in the whole cluster.
    Binder,
    /// A user with all rights in the namespace of the authorization service.
    Provider,
    /// `edit` in the namespace of the ContourDeployment, and writes to Contour's kinds there.
    Editor,
}

/// The initial state.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Initial {
    /// The authorization service is enforced.
    Available,
    /// The service's namespace exists, but the ExtensionService does not.
    Missing,
    /// The service was enforced, and then edited so that Contour finds it invalid. The last valid form is enforced.
    Edited,
    /// The service's namespace does not exist.
    Absent,
    /// The spec was edited into one that Slipway rejects.
    Refused,
    /// The service's namespace exists. The ContourDeployment is created after the attack.
    NotYet,
}

/// The time of the attack.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OperatorState {
    /// While the operator runs.
    Running,
    /// While the operator is stopped, so that the operator cannot react first.
    Stopped,
}

/// The expected outcome of an attack.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// A policy of `config/admission` rejects the attacker's request.
    Refused,
    /// No effect: the operator writes nothing, and the status does not change.
    Nothing,
    /// The operator deletes the attacker's objects and writes nothing else.
    Pruned,
    /// The operator repairs its own objects; afterwards the state is the same as before.
    Repaired,
    /// Contour may be rolled out; afterwards the status is the same as before.
    Rolled,
    /// The attacker disables or controls the role. The status reports this traffic for the role's requests. Everything else continues to
    /// work.
    Role(&'static str),
}

impl Outcome {
    /// Reports whether other attacks can run on the same ContourDeployment at the same time.
    fn leaves_all_as_it_is(self) -> bool {
        matches!(self, Self::Refused | Self::Nothing | Self::Pruned)
    }
}

/// One request of the attacker.
#[derive(Clone, Debug)]
pub enum Step {
    /// Creates an object.
    Create(Value),
    /// Patches an object with a JSON merge patch.
    Patch(Thing, Value),
    /// Patches the status of an object with a JSON merge patch.
    PatchStatus(Thing, Value),
    /// Deletes an object.
    Delete(Thing),
}

impl Step {
    /// Returns the reference to the request's object.
    fn thing(&self) -> anyhow::Result<Thing> {
        match self {
            Self::Create(object) => forged::thing(object),
            Self::Patch(thing, _) | Self::PatchStatus(thing, _) | Self::Delete(thing) => Ok(thing.clone()),
        }
    }
}

/// A row of the table.
#[derive(Debug)]
pub struct Attack {
    /// A short name that can be part of a namespace's name.
    pub name: &'static str,
    /// The attacker.
    pub who: Attacker,
    /// The initial state.
    pub given: Initial,
    /// The time.
    pub when: OperatorState,
    /// The requests in sequence. A rejected request is the last.
    pub steps: fn(&Victim) -> Vec<Step>,
    /// The outcome with the policies installed.
    pub guarded: Outcome,
    /// The outcome without the policies.
    pub unguarded: Outcome,
    /// Whether the attacker's objects may block deletions: of the ContourDeployment, or of objects to be pruned.
    pub may_hold: bool,
}

impl Attack {
    /// Returns the expected outcome.
    fn outcome(&self, is_guarded: bool) -> Outcome {
        if is_guarded { self.guarded } else { self.unguarded }
    }
}

/// Returns a row with an attack while the operator runs. `outcomes` are those with and without the policies.
fn attack(
    name: &'static str,
    who: Attacker,
    given: Initial,
    steps: fn(&Victim) -> Vec<Step>,
    [guarded, unguarded]: [Outcome; 2],
) -> Attack {
    Attack {
        name,
        who,
        given,
        when: OperatorState::Running,
        steps,
        guarded,
        unguarded,
        may_hold: false,
    }
}

/// Returns the whole table.
pub fn table() -> Vec<Attack> {
    [tenant::rows(), provider::rows(), editor::rows()]
        .into_iter()
        .flatten()
        .collect()
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::table;
    use crate::places;

    #[test]
    fn names_are_unique_and_valid_in_namespace_names() {
        let table = table();
        let names: BTreeSet<_> = table.iter().map(|row| row.name).collect();
        assert_eq!(names.len(), table.len());
        assert!(table.len() >= 25, "{}", table.len());
        for name in names {
            let is_label = name
                .chars()
                .all(|it| it.is_ascii_lowercase() || it.is_ascii_digit() || it == '-');
            assert!(is_label && name.len() <= 36, "{name}");
        }
    }

    /// The page may name a row exactly, or by a prefix and a star.
    #[test]
    fn security_page_names_every_row() {
        let file = places::repository().join("docs/security.md");
        let page = std::fs::read_to_string(&file).expect("the page can be read");
        let named: Vec<_> = page.split('`').skip(1).step_by(2).collect();
        for row in table() {
            let is_it = |named: &&str| match named.strip_suffix('*') {
                Some(beginning) => row.name.starts_with(beginning),
                None => row.name == *named,
            };
            assert!(named.iter().any(is_it), "the page does not name {}", row.name);
        }
    }
}
