//! The results of the operator's requests to the API server.

use slipway::plan::{Key, Kind, Object, Owner, Target, Write};

use crate::api_server::{self, Refusal};
use crate::items::{Id, Item, KeyId, Uid};
use crate::model::{Change, Model};
use crate::scopes::{ALICE, AUTH, OWNERS};
use crate::state::State;

impl Model {
    pub fn request(&mut self, state: &State, key: KeyId, number: u32, write: &Write) -> Result<Id, Refusal> {
        let live = state.live(key);
        if let Write::Create(object) = write {
            if live != 0 {
                return Err(Refusal::AlreadyExists);
            }
            if let Some(refusal) = self.refused_in(state, object.namespace()) {
                return Err(refusal);
            }
        } else if live == 0 {
            return Err(Refusal::NotFound);
        }
        let uid = if live == 0 {
            self.fresh_uid(state, key)
        } else {
            Uid { key, number: 0 }
        };
        let change = (Change::Write(number), live, uid.number);
        if let Some(known) = self.changes.get(&change) {
            return *known;
        }
        let result = self
            .stored(live, uid, write)
            .map(|object| object.map_or(0, |object| self.items.put(object)));
        self.changes.insert(change, result);
        result
    }

    fn stored(&self, live: Id, uid: Uid, write: &Write) -> Result<Option<Object>, Refusal> {
        if let Write::Create(object) = write {
            if !api_server::is_a_name(object.name()) {
                return Err(Refusal::Invalid);
            }
            return Ok(Some(api_server::created(object.clone(), uid.text())));
        }
        if matches!(write, Write::Delete(_)) && self.is_guarded(self.item(live).key) {
            return Err(Refusal::Forbidden);
        }
        let object = &self.item(live).object;
        let flaws = self.breakage.map(|breakage| breakage.apply).unwrap_or_default();
        let is = |target: &Target| object.uid() == target.uid;
        let at = |target: &Target| {
            is(target) && object.metadata.resource_version.as_deref() == Some(&target.resource_version)
        };
        match write {
            Write::Create(_) => unreachable!("above"),
            Write::Apply { object: desired, .. } => api_server::applied(object, desired).map(Some),
            Write::Replace(desired) => api_server::replaced(object, desired),
            Write::Delete(target) if is(target) || flaws.ignores_uid => Ok(api_server::deleted(object)),
            Write::Hold(target) if at(target) => api_server::with_finalizers(object, &target.other_finalizers, true),
            Write::Release(target) if at(target) => {
                api_server::with_finalizers(object, &target.other_finalizers, false)
            }
            _ => Err(Refusal::Conflict),
        }
    }

    /// Returns the reason for which the API server refuses creations in a namespace, or None.
    fn refused_in(&self, state: &State, namespace: &str) -> Option<Refusal> {
        if namespace != crate::scopes::AUTH {
            return None;
        }
        match self.live(state, self.keys.namespace) {
            None => Some(Refusal::NotFound),
            Some(item) if item.is_terminating() => Some(Refusal::NamespaceTerminating),
            Some(_) => None,
        }
    }

    pub fn is_owned_by(&self, item: &Item, owner: usize) -> bool {
        let key = self.items.key(item.key);
        if item.kind() == Kind::ContourDeployment {
            return item.key == self.keys.deployments[owner];
        }
        if key.namespace == ALICE {
            return self.is_leftover(item);
        }
        (item.owner == Some(owner) && !self.items.is_aside(item.key)) || self.is_nameless(item)
    }

    /// Reports whether an object beside the service has Slipway's finalizer and a name of a stand-in, but no owner labels. An
    /// imitation may have all of these properties.
    pub fn is_nameless(&self, item: &Item) -> bool {
        let (key, (namespace, name)) = (self.items.key(item.key), OWNERS[0]);
        let owner = Owner {
            namespace: namespace.to_owned(),
            name: name.to_owned(),
            uid: String::new(),
        };
        let is_beside_the_service = key.namespace == AUTH && owner.is_stand_in(&key.name);
        item.owner.is_none() && is_beside_the_service && item.object.has_our_finalizer()
    }
}

pub fn key_of(write: &Write) -> Key {
    match write {
        Write::Create(object) | Write::Apply { object, .. } | Write::Replace(object) => object.key(),
        Write::Delete(target) | Write::Hold(target) | Write::Release(target) => target.key.clone(),
    }
}

/// Returns the name under which a write is counted.
pub fn verb(write: &Write) -> &'static str {
    match write {
        Write::Create(_) => "the operator creates",
        Write::Apply { .. } => "the operator applies",
        Write::Replace(_) => "the operator replaces",
        Write::Delete(_) => "the operator deletes",
        Write::Hold(_) => "the operator adds a finalizer",
        Write::Release(_) => "the operator removes its finalizer",
    }
}
