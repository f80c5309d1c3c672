//! The model: maps a state to the possible next states. The steps of each actor are in the other files. This file contains what
//! the actors share.

use rustc_hash::FxHashMap as HashMap;
use serde_json::Value;
use slipway::plan::{Key, Kind, Object, SettingsVerdict};

use crate::api_server::{self, Refusal};
use crate::breakages::Breakage;
use crate::furniture::Furniture;
use crate::items::{Id, Items, KeyId};
use crate::plans::Plans;
use crate::refused::Refused;
use crate::scopes::{AUTH, Interference, OWNERS, Scope, Start};
use crate::state::{Budgets, Control, MOST_OWNERS, Slot, State};

/// One step of an actor.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Action {
    /// The operator's watch of a kind catches up. The states in between are lost.
    Deliver(Kind),
    /// The operator executes a write of the current wave for a ContourDeployment.
    Write(u8, u8),
    /// The operator performs a live read before deletions.
    Look(u8),
    /// The operator checks whether the API server accepts the settings.
    Ask(u8),
    /// The operator executes a write, and the answer is lost.
    Lose(u8, u8),
    Crash,
    /// The time that the operator waits for passes.
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
    ContourLooksAgain,
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
    AnotherUser(Interference, KeyId),
    TenantMakes(u8),
    TenantDeletes(u8),
}

impl Action {
    /// Reports whether the step happens without a cause, sooner or later. Steps of users and tenants, faults, and steps whose
    /// cause is outside the model are not certain.
    pub fn is_certain(self) -> bool {
        !matches!(
            self,
            Self::Crash
                | Self::Lose(..)
                | Self::ContainerIsKilled(_)
                | Self::ContourLooksAgain
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
                | Self::AnotherUser(..)
                | Self::TenantMakes(_)
                | Self::TenantDeletes(_)
        )
    }
}

/// The result of a step.
pub struct Step {
    pub action: Action,
    pub to: State,
    /// The name under which the step is counted.
    pub name: &'static str,
    /// Whether the step changed an object on the API server, or a container.
    pub wrote: bool,
    /// Properties that the step violated.
    pub problems: Vec<String>,
}

/// A change of an object that depends on nothing but the object. The model computes the result once and caches the result.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Change {
    Deletion,
    Age,
    EndOfPod,
    Scale(i64),
    Available(i64),
    Revision(usize),
    Observation,
    Report(i64, i64, i64),
    Verdict(Verdict),
    Form(u8),
    Wish(u8),
    Interference(Interference),
    /// An object that a tenant creates.
    Imitation(u8),
    /// A request of the operator.
    Write(u32),
    /// A new object. The number, and the object that the new object is derived from, identify the object.
    New(Kind, u32),
}

/// Verdicts of this Contour and of other Contours.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Verdict {
    Valid,
    Unresolved,
    /// A verdict of another Contour, for its own reasons.
    SecretNotValid,
}

/// The startup inputs that a container has read.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Captured {
    pub configuration: KeyId,
    /// The spec of the configuration, as a number.
    pub spec: u32,
    /// The timeout and the subject name of each stand-in, as text.
    pub facts: Vec<(KeyId, String)>,
}

/// The keys that the model refers to by name.
pub struct Keys {
    pub namespace: KeyId,
    pub service: KeyId,
    pub extension_service: KeyId,
    pub deployments: Vec<KeyId>,
    pub contours: Vec<KeyId>,
    /// The objects that the tenant creates, in the order of the scope.
    pub imitations: Vec<KeyId>,
}

pub struct Model {
    pub scope: Scope,
    pub breakage: Option<&'static Breakage>,
    pub items: Items,
    pub plans: Plans,
    pub keys: Keys,
    pub captured: Vec<Captured>,
    /// The spec with which each ContourConfiguration was first created.
    pub originals: HashMap<KeyId, u32>,
    /// Specs that another user has written.
    pub foreign: Vec<u32>,
    /// Specs of the user's ExtensionService, by form.
    pub forms: [u32; 3],
    /// Specs of the ContourDeployment, by wish.
    pub wishes: Vec<u32>,
    pub furniture: Vec<Furniture>,
    pub furnished: HashMap<(u32, u32), u32>,
    pub verdicts: Vec<SettingsVerdict>,
    /// Sets of refused writes that the operator may remember.
    pub refused: Vec<Vec<Refused>>,
    pub changes: HashMap<(Change, Id, u32), Result<Id, Refusal>>,
    pub renamed: HashMap<(Id, Vec<u32>), Id>,
    pub renamed_furniture: HashMap<(u32, Vec<u32>), u32>,
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
            imitations: scope
                .imitations
                .iter()
                .map(|imitation| imitation.key(scope.tenant_in))
                .map(|it| key(it.kind, &it.namespace, &it.name))
                .collect(),
        };
        let forms = crate::scopes::Form::ALL.map(|form| items.spec(&form.spec()));
        let wishes = scope.wishes.iter().map(|wish| items.spec(&wish.spec())).collect();
        Self {
            scope,
            breakage,
            items,
            plans: Plans::default(),
            keys,
            captured: Vec::new(),
            originals: HashMap::default(),
            foreign: Vec::new(),
            forms,
            wishes,
            furniture: vec![Furniture::default()],
            furnished: HashMap::default(),
            changes: HashMap::default(),
            verdicts: vec![SettingsVerdict::Unchecked],
            refused: vec![Vec::new()],
            renamed: HashMap::default(),
            renamed_furniture: HashMap::default(),
            replica_sets: HashMap::default(),
            templates: HashMap::default(),
            ends: HashMap::default(),
        }
    }

    /// Returns the state before the first step of the search.
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
            refused: [0; MOST_OWNERS],
            budgets: self.scope.budgets,
            judged: 0,
            form: 0,
        }
    }

    /// Returns a state with these objects of the user, and no other objects. `wishes` has an entry for each ContourDeployment.
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

    /// Takes certain steps one after the other until no certain step changes the state.
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
        panic!("the model does not settle");
    }

    /// Returns all possible steps.
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
        self.tenant_actions(state, &mut actions);
        actions
    }

    /// Takes a step.
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
            Action::ContainerStarts(_)
            | Action::ContainerIsKilled(_)
            | Action::ContourJudges(_)
            | Action::ContourLooksAgain => self.contour_step(&mut step),
            Action::AnotherUser(interference, key) => self.foreign_step(&mut step, interference, key),
            Action::TenantMakes(_) | Action::TenantDeletes(_) => self.tenant_step(&mut step),
            _ => self.user_step(&mut step),
        }
        self.contour_overlooks(state, action, &mut step.to);
        self.follow(&mut step.to);
        step
    }

    /// Updates everything that follows immediately: statuses of workloads, and watches that do not lag. Then renames uids to
    /// their smallest numbers.
    fn follow(&mut self, state: &mut State) {
        self.workloads_report(state);
        self.collect_furniture(state);
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

    /// Creates an object under a key without an object. `change` and `from` identify the new object, so that the model computes
    /// the object only once.
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
        state.set_live(key, id.expect("the object can be created"));
    }

    /// Changes an object. `to` returns None if the object is gone afterwards.
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
        state.set_live(key, id.expect("the object can be changed"));
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
}
