//! What the operator remembers of its writes in other namespaces that were refused (`Attempts`): the next plan does without them, and
//! tries again when some time has passed.

use std::time::Duration;

use serde_json::json;
use slipway::api::vocabulary::annotations;
use slipway::plan::{Attempts, Failure, FailureCause, Key, Kind, Object, Target, Write};

use crate::api_server::{self, Refusal};
use crate::model::Model;
use crate::requests::key_of;
use crate::state::State;

/// A write that was refused.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refused {
    key: Key,
    /// Hash of what was to be written; none: it was to go.
    wanted: Option<String>,
    creates: bool,
    refusal: Refusal,
    /// Whether it is not yet to be tried again.
    waits: bool,
    /// Whether it was tried again in vain.
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
    /// The same as the plan takes it.
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
            let when = api_server::now() - Duration::from_secs(ago);
            attempts.failed(&one.write(), failure, when);
        }
        attempts
    }

    /// A write in another namespace was refused. Whether the rest of the wave stands.
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

    /// What was refused must not be tried again before its time.
    pub fn check_pace(&self, state: &State, owner: usize, write: &Write) -> Option<String> {
        let key = key_of(write);
        let wanted = wanted(write);
        let all = &self.refused[state.refused[owner] as usize];
        let waits = |one: &Refused| one.key == key && one.wanted == wanted && one.waits;
        all.iter()
            .any(waits)
            .then(|| format!("liveness: {key} is tried again at once, and was refused"))
    }

    /// A write was taken.
    pub fn forget_refused(&mut self, state: &mut State, owner: usize, key: &Key) {
        let mut all = self.refused[state.refused[owner] as usize].clone();
        all.retain(|one| one.key != *key);
        state.refused[owner] = self.refused_id(all);
    }

    /// Whether something is to be tried again when some time has passed: once in vain, and when it may succeed.
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

    /// Some time has passed.
    pub fn may_be_tried_again(&mut self, state: &mut State, owner: usize) {
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

    /// Whether what comes of a write of this key is remembered.
    pub fn remembers(&self, key: &Key) -> bool {
        let elsewhere = key.kind != Kind::ContourDeployment && key.namespace != crate::scopes::OWNERS[0].0;
        !self.scope.imitations.is_empty() && elsewhere
    }
}

/// Hash of what is to be written; none: it is to go.
fn wanted(write: &Write) -> Option<String> {
    match write {
        Write::Create(sent) | Write::Apply { object: sent, .. } | Write::Replace(sent) => {
            Some(sent.annotation(annotations::APPLIED).unwrap_or_default().to_owned())
        }
        Write::Delete(_) | Write::Release(_) | Write::Hold(_) => None,
    }
}
