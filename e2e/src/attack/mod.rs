//! People who may do some things and try others: what each of them makes, with exactly the rights that are said, and what may
//! come of it. `tenant`, `provider` and `editor` are the table, `forged` is what they write on their objects, `rights` who they
//! are, `place` whom it is done to, `sight` what is seen of that, and `play` carries the table out.

mod editor;
mod forged;
mod place;
pub mod play;
mod provider;
mod rights;
mod sight;
mod tenant;

use serde_json::Value;

use crate::lab::Thing;

pub use forged::Victim;
pub use rights::{everywhere, grants};

/// Who attacks; `rights` says what each may do.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Who {
    /// A tenant of an unrelated namespace: `edit` there, and writes Contour's kinds there.
    Tenant,
    /// Who may do everything in an unrelated namespace.
    Owner,
    /// Who may make namespaces, and do everything in those.
    Founder,
    /// Who may bind users to ClusterRole `view` in the whole cluster, and nothing else.
    Binder,
    /// Who may do everything in the namespace of the authorization service.
    Provider,
    /// `edit` in the namespace of the ContourDeployment, and writes Contour's kinds there.
    Editor,
}

/// What there is before.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Given {
    /// The authorization service is enforced.
    Available,
    /// Its namespace is there, the ExtensionService is not.
    Missing,
    /// It was enforced, and was then edited into something that Contour finds invalid: the last valid form is.
    Edited,
    /// Its namespace does not exist.
    Absent,
    /// The specification was edited into one that is refused.
    Refused,
    /// Its namespace is there, and the ContourDeployment is made only after the attack.
    NotYet,
}

/// When it is done.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum When {
    /// While the operator runs.
    Running,
    /// While the operator is away, so that it has no chance to be quicker.
    Away,
}

/// What comes of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// A policy of `config/admission` refuses what the attacker asks for.
    Refused,
    /// Nothing: the operator writes nothing, and the status stays as it is.
    Nothing,
    /// The operator deletes what the attacker made, and writes nothing else.
    Pruned,
    /// The operator puts right what is its own: afterwards all is as before.
    Repaired,
    /// Contour may be rolled; afterwards the status says the same as before.
    Rolled,
    /// The role is lost, or the attacker's: this happens to the requests that it is about. All else goes on.
    Role(&'static str),
}

impl Outcome {
    /// Whether others can be tried on the same ContourDeployment at the same time.
    fn leaves_all_as_it_is(self) -> bool {
        matches!(self, Self::Refused | Self::Nothing | Self::Pruned)
    }
}

/// One request of the attacker's.
#[derive(Clone, Debug)]
pub enum Step {
    /// Make an object.
    Create(Value),
    /// A JSON merge patch.
    Patch(Thing, Value),
    /// The same of its status.
    PatchStatus(Thing, Value),
    /// Delete it.
    Delete(Thing),
}

impl Step {
    /// Which object it is about.
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
    /// What is done, in a few words that can be part of a name.
    pub name: &'static str,
    /// By whom.
    pub who: Who,
    /// To what.
    pub given: Given,
    /// When.
    pub when: When,
    /// The requests, one after the other. One that is refused is the last.
    pub steps: fn(&Victim) -> Vec<Step>,
    /// What comes of it where the policies are installed.
    pub guarded: Outcome,
    /// What comes of it where they are not.
    pub unguarded: Outcome,
    /// Whether what the attacker makes may hold something: a deletion of the ContourDeployment, or what would be pruned.
    pub may_hold: bool,
}

impl Attack {
    /// What is to come of it.
    fn outcome(&self, is_guarded: bool) -> Outcome {
        if is_guarded { self.guarded } else { self.unguarded }
    }
}

/// A row, done while the operator runs: name, who, given, steps, with the policies, without.
fn attack(
    name: &'static str,
    who: Who,
    given: Given,
    steps: fn(&Victim) -> Vec<Step>,
    [guarded, unguarded]: [Outcome; 2],
) -> Attack {
    Attack {
        name,
        who,
        given,
        when: When::Running,
        steps,
        guarded,
        unguarded,
        may_hold: false,
    }
}

/// The whole table.
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
    fn every_row_has_a_name_of_its_own_that_can_be_part_of_a_namespaces_name() {
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

    /// By its name, or by what it begins with and a star.
    #[test]
    fn the_security_page_names_every_row() {
        let file = places::repository().join("docs/security.md");
        let page = std::fs::read_to_string(&file).expect("the page can be read");
        let named: Vec<_> = page.split('`').skip(1).step_by(2).collect();
        for row in table() {
            let is_it = |named: &&str| match named.strip_suffix('*') {
                Some(beginning) => row.name.starts_with(beginning),
                None => row.name == *named,
            };
            assert!(named.iter().any(is_it), "{} is not there", row.name);
        }
    }
}
