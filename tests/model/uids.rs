//! The assignment of uids to new objects, and the renaming of uids, so that two states that differ only in uids are equal.

use std::collections::BTreeMap;
use std::sync::Arc;

use slipway::plan::Object;

use crate::items::{Id, KeyId, Uid};
use crate::model::Model;
use crate::state::{Slot, State};

impl Model {
    /// Returns the smallest uid that no object and no plan mentions.
    pub fn fresh_uid(&self, state: &State, key: KeyId) -> Uid {
        let ids = state.slots.iter().flat_map(|slot| [slot.live, slot.view]);
        let in_objects = ids.filter_map(|id| self.items.get(id)).flat_map(|item| &item.mentions);
        let in_plans = state.control.iter().filter_map(|control| self.plans.get(control.plan));
        let mut used: Vec<u32> = in_objects
            .chain(in_plans.flat_map(|plan| &plan.mentions))
            .filter(|uid| uid.key == key)
            .map(|uid| uid.number)
            .collect();
        let in_furniture = state
            .furniture
            .iter()
            .flat_map(|set| &self.furniture[*set as usize].mentions);
        used.extend(in_furniture.filter(|uid| uid.key == key).map(|uid| uid.number));
        let number = (0..=u32::MAX).find(|number| !used.contains(number)).expect("endless");
        Uid { key, number }
    }

    /// Renames uids to numbers in the order in which they appear, while the operator executes no plan. Two states that differ
    /// only in uids are equal afterwards.
    pub fn rename(&mut self, state: &mut State) {
        if state.control.iter().any(|control| control.plan != 0) {
            return;
        }
        let ids = || {
            state
                .slots
                .iter()
                .flat_map(|slot| [slot.live, slot.view])
                .filter_map(|id| self.items.get(id))
        };
        let furnished = || {
            state
                .furniture
                .iter()
                .flat_map(|set| &self.furniture[*set as usize].mentions)
        };
        if ids().all(|item| item.is_plain) && furnished().all(|uid| uid.number == 0) {
            return;
        }
        let mut seen: BTreeMap<KeyId, Vec<u32>> = BTreeMap::new();
        for uid in ids().flat_map(|item| &item.renamed).chain(furnished()) {
            let numbers = seen.entry(uid.key).or_default();
            if !numbers.contains(&uid.number) {
                numbers.push(uid.number);
            }
        }
        if seen.values().all(|numbers| {
            numbers
                .iter()
                .enumerate()
                .all(|(index, number)| *number as usize == index)
        }) {
            return;
        }
        let new = |uid: &Uid| {
            let numbers = &seen[&uid.key];
            let index = numbers
                .iter()
                .position(|number| *number == uid.number)
                .expect("the uid was seen");
            u32::try_from(index).expect("few")
        };
        for index in 0..state.slots.len() {
            let Slot { live, view, .. } = state.slots[index];
            state.slots[index].live = self.renamed(live, &new);
            state.slots[index].view = self.renamed(view, &new);
        }
        for owner in 0..self.scope.owners {
            let set = state.furniture[owner];
            let mentions = self.furniture[set as usize].mentions.clone();
            let numbers: Vec<u32> = mentions.iter().map(new).collect();
            if mentions.iter().zip(&numbers).all(|(uid, number)| uid.number == *number) {
                continue;
            }
            let known = self.renamed_furniture.get(&(set, numbers.clone())).copied();
            let renamed = known.unwrap_or_else(|| {
                let objects = self.furniture[set as usize].objects.clone();
                let renamed = objects.into_iter().map(|(key, mut object)| {
                    let owners = Arc::make_mut(&mut object)
                        .metadata
                        .owner_references
                        .iter_mut()
                        .flatten();
                    for owner in owners {
                        if let Some(uid) = Uid::mentioned(&owner.uid).first() {
                            owner.uid = Uid {
                                number: new(uid),
                                ..*uid
                            }
                            .text();
                        }
                    }
                    (key, object)
                });
                let renamed = renamed.collect();
                self.furniture_id(renamed)
            });
            self.renamed_furniture.insert((set, numbers), renamed);
            state.furniture[owner] = renamed;
        }
    }

    fn renamed(&mut self, id: Id, new: &impl Fn(&Uid) -> u32) -> Id {
        let Some(item) = self.items.get(id) else { return 0 };
        let numbers: Vec<u32> = item.renamed.iter().map(new).collect();
        if item
            .renamed
            .iter()
            .zip(&numbers)
            .all(|(uid, number)| uid.number == *number)
        {
            return id;
        }
        if let Some(known) = self.renamed.get(&(id, numbers.clone())) {
            return *known;
        }
        let mut text = item.object.to_json().to_string();
        // Renames to unused names first, so that two uids that exchange their numbers do not collide.
        for (uid, number) in item.renamed.iter().zip(&numbers) {
            text = text.replace(&uid.text(), &format!("uid:{}:+{number}.", uid.key));
        }
        let text = text.replace(":+", ":");
        let value = serde_json::from_str(&text).expect("JSON");
        let object = Object::from_json(item.object.kind, value).expect("an object");
        let renamed = self.items.put(object);
        self.renamed.insert((id, numbers), renamed);
        renamed
    }
}
