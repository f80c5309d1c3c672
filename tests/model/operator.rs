//! The operator: makes a plan of what its cache shows, and carries it out write by write, as `src/controller` does: in any order
//! within a wave; a wave only when the one before has succeeded as a whole; an answer goes into the cache; an answer that says
//! that the world is not as observed ends the wave and brings the object into the cache; before a wave that takes away what a
//! container may have captured Contour's Deployment, ReplicaSets and pods are read from the API server and the plan is made again.
//!
//! Access, certificates, Services of Contour and Envoy, and Envoy's workload are furniture: those of one wave are written in one step,
//! and never fail.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;
use std::time::Duration;

use serde_json::{Value, json};
use slipway::api::ContourDeployment;
use slipway::plan::{
    Key, Kind, NamespacePhase, Object, Observed, Plan, Question, ServiceAccountRef, SettingsVerdict, Target, Write,
    plan, targets,
};
use slipway::render::answered;

use crate::api_server::{self, Refusal};
use crate::items::{Id, Item, KeyId, Uid, fingerprint};
use crate::model::{Action, Change, Model, Step};
use crate::scopes::OWNERS;
use crate::state::{Control, State, spend};

/// A plan, as far as it is carried out here.
#[derive(Clone, Debug)]
pub struct Compiled {
    pub waves: Arc<[Wave]>,
    /// The answer to what it asks, as a number; 0: it asks nothing.
    answer: u32,
    /// Whether it is to be made again when some time has passed.
    waits: bool,
    pub mentions: Vec<Uid>,
}

#[derive(Clone, Debug)]
pub struct Wave {
    pub name: &'static str,
    look_first: bool,
    pub writes: Vec<Doing>,
    /// As they were planned.
    planned: Vec<Write>,
}

/// What is done in one step.
#[derive(Clone, Debug)]
pub enum Doing {
    Furniture(u32, Vec<Write>),
    One(u32, Box<Write>),
}

/// The plans that were made.
#[derive(Default)]
pub struct Plans {
    all: Vec<Compiled>,
    by_content: HashMap<u128, u32>,
    /// By what was observed.
    by_observed: HashMap<Vec<u32>, u32>,
    /// Writes, by number.
    writes: HashMap<u128, u32>,
    /// What is wrong with them.
    problems: HashMap<u32, Vec<String>>,
}

impl Plans {
    /// A plan, by its number plus one.
    pub fn get(&self, number: u32) -> Option<&Compiled> {
        self.all.get((number as usize).checked_sub(1)?)
    }

    /// How many different worlds were observed.
    pub fn observed(&self) -> usize {
        self.by_observed.len()
    }
}

/// Where the operator is, and what it may do next.
struct Position {
    plan: u32,
    wave: usize,
    done: u16,
    failed: bool,
}

impl Model {
    pub fn operator_actions(&mut self, state: &State, owner: usize, actions: &mut Vec<Action>) {
        let crash = state.budgets.crashes > 0 && owner == 0;
        if crash && (state.control.iter().any(|control| control.plan != 0) || state.answers != [0; 2]) {
            actions.push(Action::Crash);
        }
        if self.waits(state, owner) {
            actions.push(Action::TimePasses);
        }
        let Some(position) = self.position(state, owner) else {
            return;
        };
        let number = u8::try_from(owner).expect("few");
        let plan = self.plans.get(position.plan).expect("a plan");
        let Some(wave) = plan.waves.get(position.wave) else {
            actions.push(Action::Ask(number));
            return;
        };
        if wave.look_first && !self.breakage.is_some_and(|breakage| breakage.apply.never_looks) {
            actions.push(Action::Look(number));
            return;
        }
        for write in 0..u8::try_from(wave.writes.len()).expect("few") {
            if position.done & 1 << write == 0 {
                actions.push(Action::Write(number, write));
                if self.scope.loses_answers
                    && state.budgets.crashes > 0
                    && matches!(wave.writes[usize::from(write)], Doing::One(..))
                {
                    actions.push(Action::Lose(number, write));
                }
            }
        }
    }

    /// Whether the operator is done but for what it has to wait for, and that is not over.
    fn waits(&mut self, state: &State, owner: usize) -> bool {
        if state.control[owner].plan != 0 || !state.slots.iter().any(|slot| self.is_young(slot.live)) {
            return false;
        }
        let plan = self.plan_for(state, owner, false);
        plan.and_then(|plan| self.plans.get(plan))
            .is_some_and(|plan| plan.waits)
    }

    fn position(&mut self, state: &State, owner: usize) -> Option<Position> {
        let Control {
            plan,
            wave,
            done,
            failed,
        } = state.control[owner];
        if plan != 0 {
            return Some(Position {
                plan,
                wave: wave.into(),
                done,
                failed,
            });
        }
        let plan = self.plan_for(state, owner, false)?;
        let compiled = self.plans.get(plan).expect("a plan");
        let is_settled = compiled.waves.is_empty() && compiled.answer == 0;
        (!is_settled).then_some(Position {
            plan,
            wave: 0,
            done: 0,
            failed: false,
        })
    }

    pub fn operator_step(&mut self, step: &mut Step) {
        let state = step.to.clone();
        match step.action {
            Action::Crash => {
                step.name = "the operator is killed";
                step.wrote = false;
                spend(&mut step.to.budgets.crashes);
                step.to.control = [Control::default(); 2];
                step.to.answers = [0; 2];
                for slot in &mut step.to.slots {
                    slot.view = slot.live;
                }
            }
            Action::Ask(owner) => {
                step.name = "the operator asks whether settings are taken";
                step.wrote = false;
                let position = self.position(&state, owner.into()).expect("a plan");
                self.finish(&mut step.to, owner.into(), position.plan);
            }
            Action::Look(owner) => {
                step.name = "the operator looks before deletions";
                step.wrote = false;
                self.look(&mut step.to, owner.into());
            }
            Action::Write(owner, write) => self.write_step(step, &state, owner.into(), write.into(), false),
            Action::Lose(owner, write) => {
                spend(&mut step.to.budgets.crashes);
                self.write_step(step, &state, owner.into(), write.into(), true);
                step.name = "the answer to a write is lost";
            }
            Action::TimePasses => {
                step.name = "time passes, which a succession waits for";
                step.wrote = false;
                for slot in &mut step.to.slots {
                    slot.live = self.aged(slot.live);
                    slot.view = self.aged(slot.view);
                }
            }
            _ => unreachable!("not the operator's"),
        }
    }

    /// Whether it counts how old this object is, and it is new.
    fn is_young(&self, id: Id) -> bool {
        let counts = |item: &&Item| {
            matches!(item.kind(), Kind::ExtensionService | Kind::ContourConfiguration) && item.owner.is_some()
        };
        self.items.get(id).filter(counts).is_some_and(|item| {
            item.object
                .metadata
                .creation_timestamp
                .as_ref()
                .is_some_and(|made| made.0 == api_server::now())
        })
    }

    fn aged(&mut self, id: Id) -> Id {
        if !self.is_young(id) {
            return id;
        }
        let known = self.changes.get(&(Change::Age, id, 0)).copied();
        let aged = known.unwrap_or_else(|| {
            let aged = api_server::aged(&self.item(id).object);
            Ok(self.items.put(aged))
        });
        self.changes.insert((Change::Age, id, 0), aged);
        aged.expect("nobody refuses")
    }

    /// The end of a plan: questions are answered, and the next look follows.
    fn finish(&mut self, state: &mut State, owner: usize, plan: u32) {
        let answer = self.plans.get(plan).expect("a plan").answer;
        if answer != 0 {
            state.answers[owner] = answer;
        }
        state.control[owner] = Control::default();
    }

    /// Of the deletions of a wave those stay that still stand after a look at the API server.
    fn look(&mut self, state: &mut State, owner: usize) {
        let position = self.position(state, owner).expect("a plan");
        let waves = self.plans.get(position.plan).expect("a plan").waves.clone();
        let wave = &waves[position.wave];
        let fresh = self.plan_for(state, owner, true);
        let still: Vec<Write> = fresh
            .and_then(|fresh| self.plans.get(fresh))
            .map(|fresh| {
                fresh
                    .waves
                    .iter()
                    .filter(|wave| wave.look_first)
                    .flat_map(|wave| wave.planned.clone())
                    .collect()
            })
            .unwrap_or_default();
        let left: Vec<Write> = wave
            .planned
            .iter()
            .filter(|write| still.contains(write))
            .cloned()
            .collect();
        if left.is_empty() {
            state.control[owner] = Control::default();
            return;
        }
        let left = self.wave_of(wave.name, false, left);
        let looked = self.intern(vec![left], 0, false);
        state.control[owner] = Control {
            plan: looked,
            ..Control::default()
        };
    }

    /// What a step of the operator's would be.
    pub fn doing(&self, state: &State, owner: usize, index: usize) -> Option<&Doing> {
        let control = state.control[owner];
        let (plan, wave) = match control.plan {
            0 => (*self.plans.by_observed.get(&self.seen(state, owner, false)?)?, 0),
            plan => (plan, usize::from(control.wave)),
        };
        self.plans.get(plan)?.waves.get(wave)?.writes.get(index)
    }

    fn write_step(&mut self, step: &mut Step, before: &State, owner: usize, index: usize, lost: bool) {
        let position = self.position(before, owner).expect("a plan");
        step.problems
            .extend(self.plans.problems.get(&position.plan).into_iter().flatten().cloned());
        let waves = self.plans.get(position.plan).expect("a plan").waves.clone();
        let all = waves[position.wave].writes.len();
        let waves_in_all = waves.len();
        let succeeded = match &waves[position.wave].writes[index] {
            Doing::Furniture(number, writes) => {
                step.name = "the operator writes access, certificates, Services, Envoy";
                let furniture = self.furnish(before.furniture[owner], *number, writes);
                step.wrote = furniture != before.furniture[owner];
                step.to.furniture[owner] = furniture;
                true
            }
            Doing::One(number, write) => self.write(step, owner, *number, write, lost),
        };
        let done = position.done | 1 << index;
        let failed = position.failed || !succeeded;
        let plan = position.plan;
        step.to.control[owner] = if done.count_ones() as usize == all {
            if failed {
                Control::default()
            } else if position.wave + 1 == waves_in_all {
                self.finish(&mut step.to, owner, plan);
                Control::default()
            } else {
                let wave = u8::try_from(position.wave + 1).expect("few");
                Control {
                    plan,
                    wave,
                    ..Control::default()
                }
            }
        } else {
            let wave = u8::try_from(position.wave).expect("few");
            Control {
                plan,
                wave,
                done,
                failed,
            }
        };
    }

    /// One request. Whether it succeeded.
    fn write(&mut self, step: &mut Step, owner: usize, number: u32, write: &Write, lost: bool) -> bool {
        let before = step.to.clone();
        let key = self.items.key_id(&key_of(write));
        let live = before.live(key);
        let result = self.request(&before, key, number, write);
        step.name = verb(write);
        step.problems
            .extend(self.check_write(&before, owner, key, write, result));
        let flaws = self.breakage.map(|breakage| breakage.apply).unwrap_or_default();
        match result {
            Ok(id) => {
                step.to.set_live(key, id);
                step.problems.extend(self.check_captured(&before, &step.to));
                if lost {
                    return false;
                }
                step.to.set_view(key, id);
                step.wrote = id != live;
                true
            }
            Err(refusal) => {
                step.wrote = false;
                let owns = self.items.get(live).is_some_and(|item| self.is_owned_by(item, owner));
                match refusal {
                    Refusal::AlreadyExists if !owns && flaws.adopts => {
                        let Write::Create(object) = write else {
                            unreachable!("only a creation")
                        };
                        let foreign = self.item(live).object.clone();
                        let mut object = object.clone();
                        object.metadata.uid.clone_from(&foreign.metadata.uid);
                        let taken = api_server::applied(&foreign, &object).map_or(0, |object| self.items.put(object));
                        step.problems
                            .push(format!("{} is somebody else's, and was overwritten", key_of(write)));
                        step.to.set_live(key, taken);
                        step.wrote = true;
                    }
                    // A collision: it is reported, and nothing is done.
                    Refusal::AlreadyExists if !owns => step.name = "the operator meets an object of somebody else's",
                    Refusal::NotFound if matches!(write, Write::Create(_)) => {
                        step.name = "the operator can't write: no namespace";
                    }
                    Refusal::NamespaceTerminating => {
                        step.name = "the operator can't write: the namespace is being deleted";
                    }
                    Refusal::Invalid => step.name = "the operator's write is refused",
                    Refusal::AlreadyExists | Refusal::Conflict | Refusal::NotFound => {
                        step.name = "the operator finds that its view is old";
                        step.to.set_view(key, live);
                    }
                }
                false
            }
        }
    }

    fn request(&mut self, state: &State, key: KeyId, number: u32, write: &Write) -> Result<Id, Refusal> {
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
            return Ok(Some(api_server::created(object.clone(), uid.text())));
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

    /// Why nothing can be made in a namespace, if that is so.
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
        item.owner == Some(owner)
            || (item.kind() == Kind::ContourDeployment && item.key == self.keys.deployments[owner])
    }

    fn furnish(&mut self, furniture: u32, number: u32, writes: &[Write]) -> u32 {
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
                            api_server::applied(live, &desired).expect("of the same uid")
                        }
                    };
                    object.metadata.resource_version = Some("1".into());
                    if object.kind == Kind::DaemonSet {
                        let status = json!({
                            "observedGeneration": object.metadata.generation, "desiredNumberScheduled": 1,
                            "updatedNumberScheduled": 1, "numberReady": 1, "numberAvailable": 1,
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

    /// The plan for what the cache shows. `fresh`: with Contour's Deployment, ReplicaSets and pods as they are.
    pub fn plan_for(&mut self, state: &State, owner: usize, fresh: bool) -> Option<u32> {
        let seen = self.seen(state, owner, fresh)?;
        if let Some(known) = self.plans.by_observed.get(&seen) {
            return Some(*known);
        }
        let mut observed = self.observe(&seen)?;
        if let Some(breakage) = self.breakage {
            (breakage.observe)(&mut observed);
        }
        let mut planned = plan(&observed);
        if planned
            .questions
            .iter()
            .any(|question| matches!(question, Question::Certificates(_)))
        {
            observed.issued = answered(&observed).1.issued;
            planned = plan(&observed);
        }
        if let Some(breakage) = self.breakage {
            (breakage.plan)(&observed, &mut planned);
        }
        let problems = self.check_plan(&observed, &planned);
        let number = self.compile(planned);
        if !problems.is_empty() {
            self.plans.problems.insert(number, problems);
        }
        self.plans.by_observed.insert(seen, number);
        Some(number)
    }

    /// What a plan depends on, as numbers: the ContourDeployment first.
    fn seen(&self, state: &State, owner: usize, fresh: bool) -> Option<Vec<u32>> {
        let deployment = state.slot(self.keys.deployments[owner]).view;
        if deployment == 0 {
            return None;
        }
        let mut seen = vec![
            u32::try_from(owner).expect("few"),
            state.answers[owner],
            state.furniture[owner],
            deployment,
        ];
        for slot in &state.slots {
            let kind = self.items.kind(slot.key);
            let live = fresh && matches!(kind, Kind::Deployment | Kind::ReplicaSet | Kind::Pod);
            let id = if live { slot.live } else { slot.view };
            if let Some(item) = self.items.get(id)
                && kind != Kind::ContourDeployment
                && item.owner.is_none_or(|other| other == owner)
            {
                seen.push(id);
            }
        }
        Some(seen)
    }

    /// As the controller's gather step does it.
    pub fn observe(&self, seen: &[u32]) -> Option<Observed> {
        let deployment: ContourDeployment = self.items.get(seen[3])?.object.parse().expect("a ContourDeployment");
        let items: Vec<&Item> = seen[4..].iter().filter_map(|id| self.items.get(*id)).collect();
        let ours = items
            .iter()
            .filter(|item| item.owner.is_some())
            .map(|item| item.object.clone());
        let mut objects: BTreeMap<Key, Arc<Object>> = ours.map(|object| (object.key(), object)).collect();
        objects.extend(self.furniture[seen[2] as usize].objects.clone());
        let wanted = targets(&deployment.spec.runtime_settings, objects.values().map(AsRef::as_ref));
        let id = |object: &Object| (object.namespace().to_owned(), object.name().to_owned());
        let of_kind = |kind: Kind| {
            items
                .iter()
                .filter(move |item| item.kind() == kind)
                .map(|item| &item.object)
        };
        let extension_services = of_kind(Kind::ExtensionService)
            .filter(|object| wanted.contains(&id(object)))
            .map(|object| (id(object), Arc::new(object.parse().expect("an ExtensionService"))))
            .collect();
        let referenced: BTreeSet<&str> = wanted.iter().map(|target| target.0.as_str()).collect();
        let services: BTreeMap<_, _> = of_kind(Kind::Service)
            .filter(|object| referenced.contains(object.namespace()))
            .map(|object| (id(object), object.clone()))
            .collect();
        // Somebody answers behind the user's Service as long as it exists.
        let ready = services.values().filter(|object| object.at("/spec/selector").is_some());
        let ready_services = ready.map(|object| id(object)).collect();
        let mut namespaces = BTreeMap::from([(OWNERS[0].0.to_owned(), NamespacePhase::Active)]);
        for object in of_kind(Kind::Namespace) {
            let phase = if object.is_terminating() {
                NamespacePhase::Terminating
            } else {
                NamespacePhase::Active
            };
            namespaces.insert(object.name().to_owned(), phase);
        }
        Some(Observed {
            now: api_server::now(),
            deployment: Arc::new(deployment),
            operator: ServiceAccountRef {
                namespace: "slipway-system".into(),
                name: "slipway".into(),
            },
            objects,
            namespaces,
            missing_crds: Vec::new(),
            extension_services,
            services,
            ready_services,
            references_synced: true,
            secrets_synced: true,
            settings: self.verdicts[seen[1] as usize].clone(),
            issued: None,
            failures: Vec::new(),
        })
    }

    /// What is observed now, for those who want to see more of a plan than its writes.
    pub fn observed_now(&self, state: &State, owner: usize) -> Option<Observed> {
        self.observe(&self.seen(state, owner, false)?)
    }

    fn compile(&mut self, planned: Plan) -> u32 {
        let answer = planned.questions.iter().find_map(|question| match question {
            Question::Settings { hash, candidate } => Some(verdict(hash, candidate)),
            Question::Certificates(_) => None,
        });
        let answer = answer.map_or(0, |verdict| self.verdict_id(verdict));
        // Certificates are due in months.
        let waits = planned.look_again.is_some_and(|wait| wait < Duration::from_hours(1));
        let waves = planned.waves.into_iter().filter(|wave| !wave.writes.is_empty());
        let waves = waves
            .map(|wave| self.wave_of(wave.name, wave.look_first, wave.writes))
            .collect();
        self.intern(waves, answer, waits)
    }

    fn wave_of(&mut self, name: &'static str, look_first: bool, planned: Vec<Write>) -> Wave {
        let numbers = &mut self.plans.writes;
        let mut number = |text: String| {
            let next = u32::try_from(numbers.len()).expect("fewer than 2^32");
            *numbers.entry(fingerprint(text.as_bytes())).or_insert(next)
        };
        let (furniture, others): (Vec<Write>, Vec<Write>) = planned.iter().cloned().partition(is_furniture);
        let others = others
            .into_iter()
            .map(|write| Doing::One(number(format!("{write:?}")), Box::new(write)));
        let mut writes: Vec<Doing> = others.collect();
        if !furniture.is_empty() {
            writes.push(Doing::Furniture(number(format!("{furniture:?}")), furniture));
        }
        Wave {
            name,
            look_first,
            writes,
            planned,
        }
    }

    fn intern(&mut self, waves: Vec<Wave>, answer: u32, waits: bool) -> u32 {
        let mut mentions = Vec::new();
        let text: String = waves
            .iter()
            .flat_map(|wave| {
                std::iter::once(format!("{}{}", wave.name, wave.look_first))
                    .chain(wave.planned.iter().map(|write| format!("{write:?}")))
            })
            .collect();
        for uid in Uid::mentioned(&text) {
            if !mentions.contains(&uid) {
                mentions.push(uid);
            }
        }
        let content = fingerprint(format!("{answer}{waits}{text}").as_bytes());
        let plans = &mut self.plans.all;
        *self.plans.by_content.entry(content).or_insert_with(|| {
            plans.push(Compiled {
                waves: waves.into(),
                answer,
                waits,
                mentions,
            });
            u32::try_from(plans.len()).expect("fewer than 2^32")
        })
    }
}

/// A strict dry run: one field is unknown; the CRD has a default.
fn verdict(hash: &str, candidate: &Object) -> SettingsVerdict {
    let hash = hash.to_owned();
    let mut spec = candidate
        .at("/spec")
        .and_then(Value::as_object)
        .cloned()
        .expect("a spec");
    if spec.contains_key("nonsense") {
        return SettingsVerdict::Refused {
            hash,
            message: "unknown field \"spec.nonsense\"".into(),
        };
    }
    spec.entry("xdsServer").or_insert_with(|| json!({"type": "envoy"}));
    SettingsVerdict::Accepted { hash, spec }
}

fn is_furniture(write: &Write) -> bool {
    let key = key_of(write);
    match key.kind {
        Kind::ContourDeployment | Kind::ExtensionService | Kind::ContourConfiguration => false,
        Kind::Deployment => !key.name.ends_with("-contour"),
        // Contour's and Envoy's; the others are blackholes.
        Kind::Service => OWNERS
            .iter()
            .any(|(_, name)| key.name == format!("{name}-contour") || key.name == format!("{name}-envoy")),
        _ => true,
    }
}

pub fn key_of(write: &Write) -> Key {
    match write {
        Write::Create(object) | Write::Apply { object, .. } | Write::Replace(object) => object.key(),
        Write::Delete(target) | Write::Hold(target) | Write::Release(target) => target.key.clone(),
    }
}

/// Under which name a write is counted.
fn verb(write: &Write) -> &'static str {
    match write {
        Write::Create(_) => "the operator creates",
        Write::Apply { .. } => "the operator applies",
        Write::Replace(_) => "the operator replaces",
        Write::Delete(_) => "the operator deletes",
        Write::Hold(_) => "the operator adds a finalizer",
        Write::Release(_) => "the operator takes its finalizer away",
    }
}
