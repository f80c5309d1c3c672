//! The refused writes in other namespaces that the operator remembers (`Attempts`). The next plan works without the refused
//! writes, and retries them after some time.

use std::time::Duration;

use serde_json::json;
use slipway::api::vocabulary::annotations;
use slipway::plan::{Attempts, Failure, FailureCause, Key, Kind, Object, Target, Write};

use crate::api_server::{self, Refusal};
use crate::model::Model;
use crate::requests::key_of;
use crate::state::State;

/// A refused write.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refused {
    key: Key,
    /// The hash of the desired object, or None for a deletion.
    wanted: Option<String>,
    creates: bool,
    refusal: Refusal,
    /// Whether the time of the next retry has not come yet.
    waits: bool,
    /// Whether a retry was refused, too.
    again: bool,
}

impl Refused {
    fn write(&self) -> Write {
        let metadata = json!({"namespace": self.key.namespace, "name": self.key.name});
        let mut object = Object::from_json(self.key.kind, json!({"metadata": metadata})).expect("an object");
        let Some(wanted) = &self.wanted else {
            return Write::Delete(Target::of(&object));
        };
        object.annotate(annotations::APPLIED, wanted.clone());
        if self.creates {
            Write::Create(object)
        } else {
            Write::Replace(object)
        }
    }
}

impl Model {
    /// Returns the refused writes as the plan takes them.
    pub fn attempts(&self, refused: u32) -> Attempts {
        let mut attempts = Attempts::default();
        for one in &self.refused[refused as usize] {
            let cause = match one.refusal {
                Refusal::AlreadyExists => FailureCause::Collision,
                Refusal::NamespaceTerminating => FailureCause::NamespaceTerminating,
                Refusal::Forbidden => FailureCause::Forbidden,
                _ => FailureCause::Refused,
            };
            let failure = Failure {
                key: one.key.clone(),
                cause,
                message: format!("{:?}", one.refusal),
            };
            let ago = if one.waits { 0 } else { 60 };
            let when = api_server::NOW - Duration::from_secs(ago);
            attempts.failed(&one.write(), failure, when);
        }
        attempts
    }

    /// Records a refused write in another namespace. Reports whether the rest of the wave is still executed.
    pub fn note_refused(&mut self, state: &mut State, owner: usize, write: &Write, refusal: Refusal) -> bool {
        let key = key_of(write);
        let wanted = wanted(write);
        let creates = matches!(write, Write::Create(_));
        let mut all = self.refused[state.refused[owner] as usize].clone();
        let again = all.iter().any(|one| one.key == key && one.wanted == wanted);
        all.retain(|one| one.key != key);
        all.push(Refused {
            key,
            wanted,
            creates,
            refusal,
            waits: true,
            again,
        });
        state.refused[owner] = self.refused_id(all);
        !creates
    }

    /// Returns a problem if a refused write is retried too early.
    pub fn check_backoff(&self, state: &State, owner: usize, write: &Write) -> Option<String> {
        let key = key_of(write);
        let wanted = wanted(write);
        let all = &self.refused[state.refused[owner] as usize];
        let waits = |one: &Refused| one.key == key && one.wanted == wanted && one.waits;
        all.iter()
            .any(waits)
            .then(|| format!("liveness: {key} is retried at once, but was refused"))
    }

    /// Forgets the refusals of a key, after the API server has accepted a write.
    pub fn forget_refused(&mut self, state: &mut State, owner: usize, key: &Key) {
        let mut all = self.refused[state.refused[owner] as usize].clone();
        all.retain(|one| one.key != *key);
        state.refused[owner] = self.refused_id(all);
    }

    /// Reports whether a retry must follow after some time: once in vain, and again when the write may succeed.
    pub fn retries(&mut self, state: &State, owner: usize) -> bool {
        let all = self.refused[state.refused[owner] as usize].clone();
        all.iter().filter(|one| one.waits).any(|one| {
            let live = state.live(self.items.key_id(&one.key));
            let is_in_the_way = match self.items.get(live) {
                None => false,
                Some(item) => !one.creates || !self.is_owned_by(item, owner),
            };
            !one.again || !is_in_the_way
        })
    }

    /// Marks all refused writes as due for a retry, because some time has passed.
    pub fn allow_retries(&mut self, state: &mut State, owner: usize) {
        let mut all = self.refused[state.refused[owner] as usize].clone();
        for one in &mut all {
            one.waits = false;
        }
        state.refused[owner] = self.refused_id(all);
    }

    fn refused_id(&mut self, mut all: Vec<Refused>) -> u32 {
        all.sort_by(|one, other| one.key.cmp(&other.key));
        let found = self.refused.iter().position(|known| *known == all);
        let index = found.unwrap_or_else(|| {
            self.refused.push(all);
            self.refused.len() - 1
        });
        u32::try_from(index).expect("few")
    }

    /// Reports whether the operator remembers the result of a write of this key.
    pub fn remembers(&self, key: &Key) -> bool {
        let elsewhere = key.kind != Kind::ContourDeployment && key.namespace != crate::scopes::OWNERS[0].0;
        !self.scope.imitations.is_empty() && elsewhere
    }
}

/// Returns the hash of the desired object, or None for a deletion.
fn wanted(write: &Write) -> Option<String> {
    match write {
        Write::Create(sent) | Write::Apply { object: sent, .. } | Write::Replace(sent) => {
            Some(sent.annotation(annotations::APPLIED).unwrap_or_default().to_owned())
        }
        Write::Delete(_) | Write::Release(_) | Write::Hold(_) => None,
    }
}
