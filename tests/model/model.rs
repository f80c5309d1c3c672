//! The model: from a state of the world to the states that may come next. Who makes which step is in the other files; here is
//! what they share.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use serde_json::Value;
use slipway::plan::{Key, Kind, Object, SettingsVerdict};

use crate::api_server::{self, Refusal};
use crate::breakages::Breakage;
use crate::items::{Id, Items, KeyId, Uid};
use crate::operator::Plans;
use crate::scopes::{AUTH, Mischief, OWNERS, Scope, Start};
use crate::state::{Budgets, Control, MOST_OWNERS, Slot, State};

/// One step of somebody's.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Action {
    /// The operator's watch of a kind catches up; what was in between is lost.
    Deliver(Kind),
    /// The operator, for one ContourDeployment: a write of the present wave.
    Write(u8, u8),
    /// … looks at the API server itself, before deletions.
    Look(u8),
    /// … asks whether the settings are taken.
    Ask(u8),
    /// … the same as `Write`, and the answer gets lost.
    Lose(u8, u8),
    Crash,
    /// What the operator waits for is over.
    TimePasses,
    DeploymentSees(KeyId),
    DeploymentActs(KeyId),
    DeploymentScalesDown(KeyId),
    ReplicaSetMakesPod(KeyId),
    ReplicaSetEndsPod(KeyId),
    ReplicaSetCatchesUp(KeyId),
    ContainerStarts(KeyId),
    ContainerIsKilled(KeyId),
    PodEnds(KeyId),
    ContourJudges(KeyId),
    GarbageCollectorDeletes(KeyId),
    NamespaceIsEmptied(KeyId),
    NamespaceEnds(KeyId),
    UserMakesNamespace,
    UserDeletesNamespace,
    UserMakesService,
    UserDeletesService,
    UserMakesExtensionService(u8),
    UserEditsExtensionService(u8),
    UserDeletesExtensionService,
    UserMakesContourDeployment(u8),
    UserRespecifies(u8, u8),
    UserDeletesContourDeployment(u8),
    Foreigner(Mischief, KeyId),
}

impl Action {
    /// Whether it happens by itself, sooner or later: everything but the user, foreigners and faults.
    pub fn is_certain(self) -> bool {
        !matches!(
            self,
            Self::Crash
                | Self::Lose(..)
                | Self::ContainerIsKilled(_)
                | Self::UserMakesNamespace
                | Self::UserDeletesNamespace
                | Self::UserMakesService
                | Self::UserDeletesService
                | Self::UserMakesExtensionService(_)
                | Self::UserEditsExtensionService(_)
                | Self::UserDeletesExtensionService
                | Self::UserMakesContourDeployment(_)
                | Self::UserRespecifies(..)
                | Self::UserDeletesContourDeployment(_)
                | Self::Foreigner(..)
        )
    }
}

/// A step that was made.
pub struct Step {
    pub action: Action,
    pub to: State,
    /// Under which name it is counted.
    pub name: &'static str,
    /// Whether something on the API server, or in a container, changed.
    pub wrote: bool,
    /// What must not have happened.
    pub problems: Vec<String>,
}

/// What becomes of an object, as far as it does not depend on anything else; remembered, so that it is worked out once.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Change {
    Deletion,
    Age,
    EndOfPod,
    Scale(i64),
    Observation,
    Report(i64, i64, i64),
    Verdict(Verdict),
    Form(u8),
    Wish(u8),
    Mischief(Mischief),
    /// A request of the operator's.
    Write(u32),
    /// A new object, from the one that it is made after, or from nothing; by a number of the maker's.
    New(Kind, u32),
}

/// What Contours say.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Verdict {
    Valid,
    Unresolved,
    /// Of another Contour, for reasons of its own.
    SecretNotValid,
}

/// Access, certificates, Services and Envoy of one ContourDeployment.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Furniture {
    pub objects: BTreeMap<Key, Arc<Object>>,
    /// The uids of the ContourDeployments that it belongs to.
    pub mentions: Vec<Uid>,
}

/// What a container read at its start.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Captured {
    pub configuration: KeyId,
    /// Its spec.
    pub spec: u32,
    /// Of each stand-in the timeout and subject name, as text.
    pub facts: Vec<(KeyId, String)>,
}

/// The keys that the model speaks of by name.
pub struct Keys {
    pub namespace: KeyId,
    pub service: KeyId,
    pub extension_service: KeyId,
    pub deployments: Vec<KeyId>,
    pub contours: Vec<KeyId>,
}

pub struct Model {
    pub scope: Scope,
    pub breakage: Option<&'static Breakage>,
    pub items: Items,
    pub plans: Plans,
    pub keys: Keys,
    pub captured: Vec<Captured>,
    /// The spec with which each ContourConfiguration was first made.
    pub originals: HashMap<KeyId, u32>,
    /// Specs that are a foreigner's.
    pub foreign: Vec<u32>,
    /// Specs of the user's forms, by form.
    pub forms: [u32; 3],
    pub furniture: Vec<Furniture>,
    pub furnished: HashMap<(u32, u32), u32>,
    pub verdicts: Vec<SettingsVerdict>,
    pub changes: HashMap<(Change, Id, u32), Result<Id, Refusal>>,
    renamed: HashMap<(Id, Vec<u32>), Id>,
    renamed_furniture: HashMap<(u32, Vec<u32>), u32>,
    pub replica_sets: HashMap<Id, KeyId>,
    pub templates: HashMap<KeyId, Value>,
    pub ends: HashMap<Vec<u32>, crate::settled::End>,
}

impl Model {
    pub fn new(scope: Scope, breakage: Option<&'static Breakage>) -> Self {
        let mut items = Items::default();
        let mut key = |kind, namespace: &str, name: &str| items.key_id(&Key::new(kind, namespace, name));
        let owners = &OWNERS[..scope.owners];
        let keys = Keys {
            namespace: key(Kind::Namespace, "", AUTH),
            service: key(Kind::Service, AUTH, AUTH),
            extension_service: key(Kind::ExtensionService, AUTH, AUTH),
            deployments: owners
                .iter()
                .map(|(namespace, name)| key(Kind::ContourDeployment, namespace, name))
                .collect(),
            contours: owners
                .iter()
                .map(|(namespace, name)| key(Kind::Deployment, namespace, &format!("{name}-contour")))
                .collect(),
        };
        let forms = crate::scopes::Form::ALL.map(|form| items.spec(&form.spec()));
        Self {
            scope,
            breakage,
            items,
            plans: Plans::default(),
            keys,
            captured: Vec::new(),
            originals: HashMap::new(),
            foreign: Vec::new(),
            forms,
            furniture: vec![Furniture::default()],
            furnished: HashMap::new(),
            changes: HashMap::new(),
            verdicts: vec![SettingsVerdict::Unchecked],
            renamed: HashMap::new(),
            renamed_furniture: HashMap::new(),
            replica_sets: HashMap::new(),
            templates: HashMap::new(),
            ends: HashMap::new(),
        }
    }

    /// The world before anybody does anything.
    pub fn start(&mut self) -> State {
        let mut state = self.nothing();
        let moves: &[Action] = match self.scope.start {
            Start::WithoutNamespace => &[],
            Start::Empty => &[Action::UserMakesNamespace],
            Start::Settled => &[
                Action::UserMakesNamespace,
                Action::UserMakesService,
                Action::UserMakesExtensionService(0),
                Action::UserMakesContourDeployment(0),
                Action::UserMakesContourDeployment(1),
            ],
        };
        for action in moves {
            if matches!(action, Action::UserMakesContourDeployment(owner) if usize::from(*owner) >= self.scope.owners) {
                continue;
            }
            state = self.take(&state, *action).to;
        }
        if self.scope.start == Start::Settled {
            state = self.settle(state);
        }
        state.budgets = self.scope.budgets;
        state
    }

    fn nothing(&self) -> State {
        State {
            slots: Vec::new(),
            furniture: [0; MOST_OWNERS],
            control: [Control::default(); MOST_OWNERS],
            answers: [0; MOST_OWNERS],
            budgets: self.scope.budgets,
            judged: 0,
            form: 0,
        }
    }

    /// A world with these things of the user's, and nothing else. `wishes`: of each ContourDeployment.
    pub fn furnished(&mut self, namespace: bool, service: bool, form: Option<u8>, wishes: &[Option<u8>]) -> State {
        let mut state = self.nothing();
        state.budgets = Budgets {
            changes: 9,
            respecifications: 9,
            ..Budgets::NONE
        };
        let mut moves = Vec::new();
        moves.extend(namespace.then_some(Action::UserMakesNamespace));
        moves.extend(service.then_some(Action::UserMakesService));
        moves.extend(form.map(Action::UserMakesExtensionService));
        for (owner, wish) in wishes.iter().enumerate() {
            let owner = u8::try_from(owner).expect("few");
            if let Some(wish) = wish {
                moves.push(Action::UserMakesContourDeployment(owner));
                if *wish != 0 {
                    moves.push(Action::UserRespecifies(owner, *wish));
                }
            }
        }
        for action in moves {
            state = self.take(&state, action).to;
        }
        state
    }

    /// Everything that happens by itself, one after the other, until nothing is left.
    pub fn settle(&mut self, mut state: State) -> State {
        for _ in 0..2000 {
            let next = self
                .enabled(&state)
                .into_iter()
                .filter(|action| action.is_certain())
                .find_map(|action| {
                    let step = self.take(&state, action);
                    (step.to != state).then_some(step.to)
                });
            match next {
                Some(next) => state = next,
                None => return state,
            }
        }
        panic!("it does not come to rest");
    }

    /// All steps that can be made.
    pub fn enabled(&mut self, state: &State) -> Vec<Action> {
        let mut actions = Vec::new();
        for kind in self.scope.lags {
            let behind = |slot: &Slot| slot.view != slot.live && self.items.kind(slot.key) == *kind;
            if state.slots.iter().any(behind) {
                actions.push(Action::Deliver(*kind));
            }
        }
        for owner in 0..self.scope.owners {
            self.operator_actions(state, owner, &mut actions);
        }
        self.kubernetes_actions(state, &mut actions);
        self.contour_actions(state, &mut actions);
        self.user_actions(state, &mut actions);
        self.foreign_actions(state, &mut actions);
        actions
    }

    /// Makes a step.
    pub fn take(&mut self, state: &State, action: Action) -> Step {
        let mut step = Step {
            action,
            to: state.clone(),
            name: "",
            wrote: true,
            problems: Vec::new(),
        };
        match action {
            Action::Deliver(kind) => {
                step.name = "a watch catches up";
                step.wrote = false;
                for slot in step
                    .to
                    .slots
                    .iter_mut()
                    .filter(|slot| self.items.kind(slot.key) == kind)
                {
                    slot.view = slot.live;
                }
            }
            Action::Write(..)
            | Action::Look(_)
            | Action::Ask(_)
            | Action::Lose(..)
            | Action::Crash
            | Action::TimePasses => {
                self.operator_step(&mut step);
            }
            Action::DeploymentSees(_)
            | Action::DeploymentActs(_)
            | Action::DeploymentScalesDown(_)
            | Action::ReplicaSetMakesPod(_)
            | Action::ReplicaSetEndsPod(_)
            | Action::ReplicaSetCatchesUp(_)
            | Action::PodEnds(_)
            | Action::GarbageCollectorDeletes(_)
            | Action::NamespaceIsEmptied(_)
            | Action::NamespaceEnds(_) => self.kubernetes_step(&mut step),
            Action::ContainerStarts(_) | Action::ContainerIsKilled(_) | Action::ContourJudges(_) => {
                self.contour_step(&mut step);
            }
            Action::Foreigner(mischief, key) => self.foreign_step(&mut step, mischief, key),
            _ => self.user_step(&mut step),
        }
        self.follow(&mut step.to);
        step
    }

    /// What follows at once: statuses of workloads, watches that do not lag; then names are made as few as they can be.
    fn follow(&mut self, state: &mut State) {
        self.workloads_report(state);
        self.furniture_goes(state);
        for slot in &mut state.slots {
            if !self.scope.lags.contains(&self.items.kind(slot.key)) {
                slot.view = slot.live;
            }
        }
        state.tidy();
        self.rename(state);
    }

    pub fn item(&self, id: Id) -> &crate::items::Item {
        self.items.get(id).expect("an object")
    }

    pub fn live<'a>(&'a self, state: &State, key: KeyId) -> Option<&'a crate::items::Item> {
        self.items.get(state.live(key))
    }

    /// The smallest uid that nobody remembers.
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

    /// Makes an object; nothing of its name must exist. `change` and `from` say which, so that it is worked out once.
    pub fn make(
        &mut self,
        state: &mut State,
        key: KeyId,
        change: Change,
        from: Id,
        object: impl FnOnce(&Self) -> Value,
    ) {
        let uid = self.fresh_uid(state, key);
        let known = self.changes.get(&(change, from, uid.number)).copied();
        let id = known.unwrap_or_else(|| {
            let object = Object::from_json(self.items.kind(key), object(self)).expect("an object");
            let made = Ok(self.items.put(api_server::created(object, uid.text())));
            self.changes.insert((change, from, uid.number), made);
            made
        });
        state.set_live(key, id.expect("it can be made"));
    }

    /// Changes an object; none: it is gone.
    pub fn change(
        &mut self,
        state: &mut State,
        key: KeyId,
        change: Change,
        to: impl FnOnce(&Object) -> Option<Object>,
    ) {
        let live = state.live(key);
        let known = self.changes.get(&(change, live, 0)).copied();
        let id = known.unwrap_or_else(|| {
            let changed = to(&self.item(live).object.clone());
            let changed = Ok(changed.map_or(0, |object| self.items.put(object)));
            self.changes.insert((change, live, 0), changed);
            changed
        });
        state.set_live(key, id.expect("it can be changed"));
    }

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

    pub fn verdict_id(&mut self, verdict: SettingsVerdict) -> u32 {
        let found = self.verdicts.iter().position(|known| *known == verdict);
        let index = found.unwrap_or_else(|| {
            self.verdicts.push(verdict);
            self.verdicts.len() - 1
        });
        u32::try_from(index).expect("few")
    }

    pub fn captured_id(&mut self, captured: Captured) -> u32 {
        let found = self.captured.iter().position(|known| *known == captured);
        let index = found.unwrap_or_else(|| {
            self.captured.push(captured);
            self.captured.len() - 1
        });
        u32::try_from(index).expect("few")
    }

    /// What belongs to a ContourDeployment that is gone goes with it: the garbage collector, at once where nothing depends on it.
    fn furniture_goes(&mut self, state: &mut State) {
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

    /// Uids are numbered anew, in the order in which they appear, while nobody is in the middle of a plan: two worlds that
    /// differ in nothing else are the same.
    fn rename(&mut self, state: &mut State) {
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
        for uid in ids().flat_map(|item| &item.mentions).chain(furnished()) {
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
                .expect("it was seen");
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
        let numbers: Vec<u32> = item.mentions.iter().map(new).collect();
        if item
            .mentions
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
        // First to names that nobody has, so that two that change places do not run into each other.
        for (uid, number) in item.mentions.iter().zip(&numbers) {
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
