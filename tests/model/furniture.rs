//! Objects of a ContourDeployment that the model simplifies: access, certificates, Services of Contour and Envoy, and Envoy's
//! workload. All their writes of a wave are one step and never fail.

use std::collections::BTreeMap;
use std::sync::Arc;

use serde_json::json;
use slipway::plan::{Key, Kind, Object, Write};

use crate::api_server;
use crate::items::Uid;
use crate::model::Model;
use crate::requests::key_of;
use crate::state::State;

/// Access, certificates, Services and Envoy of one ContourDeployment.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Furniture {
    pub objects: BTreeMap<Key, Arc<Object>>,
    /// The uids of the ContourDeployments in the owner references.
    pub mentions: Vec<Uid>,
}

impl Model {
    pub fn furniture_id(&mut self, objects: BTreeMap<Key, Arc<Object>>) -> u32 {
        let owners = objects
            .values()
            .flat_map(|object| object.metadata.owner_references.iter().flatten());
        let mut mentions: Vec<Uid> = owners.flat_map(|owner| Uid::mentioned(&owner.uid)).collect();
        mentions.dedup();
        let set = Furniture { objects, mentions };
        let found = self.furniture.iter().position(|known| *known == set);
        let index = found.unwrap_or_else(|| {
            self.furniture.push(set);
            self.furniture.len() - 1
        });
        u32::try_from(index).expect("few")
    }

    /// Deletes the objects of a ContourDeployment that is gone. The garbage collector acts at once here, because nothing depends
    /// on these objects.
    pub fn collect_furniture(&mut self, state: &mut State) {
        for owner in 0..self.scope.owners {
            let set = &self.furniture[state.furniture[owner] as usize];
            let uid = self
                .items
                .get(state.live(self.keys.deployments[owner]))
                .and_then(|item| item.uid);
            if set.mentions.iter().all(|mentioned| Some(*mentioned) == uid) {
                continue;
            }
            let uid = uid.map(Uid::text);
            let stays = |object: &Arc<Object>| {
                let mut owners = object.metadata.owner_references.iter().flatten().peekable();
                owners.peek().is_none() || owners.any(|owner| Some(&owner.uid) == uid.as_ref())
            };
            let left = set.objects.iter().filter(|(_, object)| stays(object));
            let left: BTreeMap<_, _> = left.map(|(key, object)| (key.clone(), object.clone())).collect();
            if left.len() < set.objects.len() {
                state.furniture[owner] = self.furniture_id(left);
            }
        }
    }

    /// Returns the objects that exist after these writes.
    pub fn furnish(&mut self, furniture: u32, number: u32, writes: &[Write]) -> u32 {
        if let Some(known) = self.furnished.get(&(furniture, number)) {
            return *known;
        }
        let mut set = self.furniture[furniture as usize].objects.clone();
        for write in writes {
            let key = key_of(write);
            match write {
                Write::Create(object) | Write::Replace(object) | Write::Apply { object, .. } => {
                    let mut object = match set.get(&key) {
                        None => api_server::created(object.clone(), format!("uid-of-{key}")),
                        Some(live) => {
                            let mut desired = object.clone();
                            desired.metadata.uid.clone_from(&live.metadata.uid);
                            api_server::applied(live, &desired).expect("the uids are equal")
                        }
                    };
                    object.metadata.resource_version = Some("1".into());
                    if object.kind == Kind::DaemonSet {
                        let status = json!({
                            "observedGeneration": object.metadata.generation, "desiredNumberScheduled": 1,
                            "currentNumberScheduled": 1, "updatedNumberScheduled": 1, "numberReady": 1, "numberAvailable": 1,
                        });
                        object.content.insert("status".into(), status);
                    }
                    set.insert(key, Arc::new(object));
                }
                Write::Delete(_) => drop(set.remove(&key)),
                Write::Hold(_) | Write::Release(_) => unreachable!("furniture has no finalizers"),
            }
        }
        let furnished = self.furniture_id(set);
        self.furnished.insert((furniture, number), furnished);
        furnished
    }
}
