//! The plans that the real core makes for the operator's cache. The model caches plans by the observed state and by their
//! content, so that each plan is made only once.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use rustc_hash::FxHashMap as HashMap;
use serde_json::{Value, json};
use slipway::plan::{
    Attempts, Environment, Key, Kind, NamespacePhase, NamespacedName, Object, Observed, Owner, Plan, Question,
    SettingsVerdict, View, Write, decode_deployment, plan,
};
use slipway::render::answered;

use crate::api_server;
use crate::items::{Item, Uid, fingerprint};
use crate::model::Model;
use crate::requests::key_of;
use crate::scopes::{ALICE, OWNERS};
use crate::state::State;

/// The number of values before the objects in the observed state.
pub const FACTS: usize = 5;

/// The parts of a plan that the model executes.
#[derive(Clone, Debug)]
pub struct Compiled {
    pub waves: Arc<[Wave]>,
    /// The answer to the question of the plan, as a number. 0: the plan has no question.
    pub answer: u32,
    /// Whether the plan must be made again after some time.
    pub waits: bool,
    pub mentions: Vec<Uid>,
}

#[derive(Clone, Debug)]
pub struct Wave {
    pub name: &'static str,
    pub needs_live_read: bool,
    pub writes: Vec<Doing>,
    /// The writes as the core planned them.
    pub planned: Vec<Write>,
}

/// The writes of one step.
#[derive(Clone, Debug)]
pub enum Doing {
    Furniture(u32, Vec<Write>),
    One(u32, Box<Write>),
}

impl Doing {
    fn number(&self) -> u32 {
        match self {
            Self::Furniture(number, _) | Self::One(number, _) => *number,
        }
    }
}

/// All plans.
#[derive(Default)]
pub struct Plans {
    all: Vec<Compiled>,
    by_content: HashMap<u128, u32>,
    /// Numbers of plans, by the observed state.
    pub by_observed: HashMap<Vec<u32>, u32>,
    /// Numbers of writes, by content.
    writes: HashMap<u128, u32>,
    /// Problems of plans, by the number of the plan.
    pub problems: HashMap<u32, Vec<String>>,
}

impl Plans {
    /// Returns a plan by its number plus one.
    pub fn get(&self, number: u32) -> Option<&Compiled> {
        self.all.get((number as usize).checked_sub(1)?)
    }

    /// Returns the number of different observed states.
    pub fn observed(&self) -> usize {
        self.by_observed.len()
    }
}

impl Model {
    /// Returns the number of the plan for the operator's cache. `fresh`: Contour's Deployment, ReplicaSets and pods are read
    /// live.
    pub fn plan_for(&mut self, state: &State, owner: usize, fresh: bool) -> Option<u32> {
        let seen = self.seen(state, owner, fresh)?;
        if let Some(known) = self.plans.by_observed.get(&seen) {
            return Some(*known);
        }
        let (observed, planned) = self.planned(&seen)?;
        let mut problems = self.check_plan(&observed, &planned);
        problems.extend(self.check_steered(&seen, &planned));
        let number = self.compile(planned);
        if !problems.is_empty() {
            self.plans.problems.insert(number, problems);
        }
        self.plans.by_observed.insert(seen, number);
        Some(number)
    }

    /// Returns the observed state and the core's plan.
    pub fn planned(&self, seen: &[u32]) -> Option<(Observed, Plan)> {
        let mut observed = self.observe(seen)?;
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
        Some((observed, planned))
    }

    /// Returns everything that a plan depends on, as numbers. The ContourDeployment is at index 3.
    pub fn seen(&self, state: &State, owner: usize, fresh: bool) -> Option<Vec<u32>> {
        let deployment = state.slot(self.keys.deployments[owner]).view;
        if deployment == 0 {
            return None;
        }
        let mut seen = vec![
            u32::try_from(owner).expect("few"),
            state.answers[owner],
            state.furniture[owner],
            deployment,
            state.refused[owner],
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

    /// Returns the observed state for these numbers.
    pub fn observe(&self, seen: &[u32]) -> Option<Observed> {
        let deployment = decode_deployment(&self.items.get(seen[3])?.object).expect("a ContourDeployment");
        let mut view = Seen {
            items: seen[FACTS..].iter().filter_map(|id| self.items.get(*id)).collect(),
            furniture: &self.furniture[seen[2] as usize].objects,
            settings: &self.verdicts[seen[1] as usize],
            attempts: Arc::new(self.attempts(seen[4])),
        };
        Some(Observed::of(&mut view, deployment))
    }

    /// Returns the current observed state, for checks of other parts of the plan than the writes.
    pub fn observed_now(&self, state: &State, owner: usize) -> Option<Observed> {
        self.observe(&self.seen(state, owner, false)?)
    }

    fn compile(&mut self, planned: Plan) -> u32 {
        let answer = planned.questions.iter().find_map(|question| match question {
            Question::Settings { hash, candidate, .. } => Some(verdict(hash, candidate)),
            Question::Certificates(_) => None,
        });
        let answer = answer.map_or(0, |verdict| self.verdict_id(verdict));
        // The next renewal of certificates is months away.
        let waits = planned.requeue_after.is_some_and(|wait| wait < Duration::from_hours(1));
        let waves = planned.waves.into_iter().filter(|wave| !wave.writes.is_empty());
        let waves = waves
            .map(|wave| self.wave_of(wave.name, wave.needs_live_read, wave.writes))
            .collect();
        self.intern(waves, answer, waits)
    }

    pub fn wave_of(&mut self, name: &'static str, needs_live_read: bool, planned: Vec<Write>) -> Wave {
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
            needs_live_read,
            writes,
            planned,
        }
    }

    pub fn intern(&mut self, waves: Vec<Wave>, answer: u32, waits: bool) -> u32 {
        let names = waves.iter().map(|wave| (wave.name, wave.needs_live_read));
        let numbers = waves
            .iter()
            .map(|wave| wave.writes.iter().map(Doing::number).collect::<Vec<_>>());
        let content: Vec<_> = names.zip(numbers).collect();
        let content = fingerprint(format!("{answer} {waits} {content:?}").as_bytes());
        let plans = &mut self.plans.all;
        *self.plans.by_content.entry(content).or_insert_with(|| {
            let mut mentions = Vec::new();
            let planned = waves.iter().flat_map(|wave| &wave.planned);
            for uid in planned.flat_map(|write| Uid::mentioned(&format!("{write:?}"))) {
                if !mentions.contains(&uid) {
                    mentions.push(uid);
                }
            }
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

/// What the operator has seen for one ContourDeployment.
struct Seen<'a> {
    items: Vec<&'a Item>,
    furniture: &'a BTreeMap<Key, Arc<Object>>,
    settings: &'a SettingsVerdict,
    attempts: Arc<Attempts>,
}

impl Seen<'_> {
    fn of_kind(&self, kind: Kind, namespace: &str) -> impl Iterator<Item = &Item> {
        let items = self.items.iter().copied();
        items.filter(move |item| item.kind() == kind && item.object.namespace() == namespace)
    }
}

impl View for Seen<'_> {
    /// The tenant's stand-in without labels in `alice` counts as known from the time when it had labels.
    fn objects(&mut self, _: &Owner) -> BTreeMap<Key, Arc<Object>> {
        let is_known = |object: &Object| object.namespace() == ALICE && object.has_our_finalizer();
        let known = self
            .items
            .iter()
            .filter(|item| item.owner.is_some() || is_known(&item.object));
        let known = known.map(|item| (item.object.key(), item.object.clone()));
        let furniture = self.furniture.iter().map(|(key, object)| (key.clone(), object.clone()));
        known.chain(furniture).collect()
    }

    fn unlabelled(&mut self, namespace: &str) -> Vec<Arc<Object>> {
        let extension_services = self.of_kind(Kind::ExtensionService, namespace);
        let unlabelled = extension_services.filter(|item| item.owner.is_none());
        unlabelled.map(|item| item.object.clone()).collect()
    }

    fn extension_service(&mut self, id: &NamespacedName) -> Option<(Arc<Object>, Option<Timestamp>)> {
        let mut extension_services = self.of_kind(Kind::ExtensionService, &id.namespace);
        let item = extension_services.find(|item| item.object.name() == id.name)?;
        Some((item.object.clone(), None))
    }

    fn services(&mut self, namespace: &str, names: &BTreeSet<String>) -> Vec<Arc<Object>> {
        let services = self.of_kind(Kind::Service, namespace);
        let found = services.filter(|item| names.contains(item.object.name()));
        found.map(|item| item.object.clone()).collect()
    }

    /// The user's Service has a ready endpoint as long as the Service exists. A blackhole has no selector and no endpoint.
    fn ready_services(&mut self, namespace: &str, names: &BTreeSet<String>) -> BTreeSet<String> {
        let services = self.services(namespace, names).into_iter();
        let ready = services.filter(|service| service.at("/spec/selector").is_some());
        ready.map(|service| service.name().to_owned()).collect()
    }

    /// The namespace of the ContourDeployments always exists.
    fn namespace(&mut self, name: &str) -> Option<NamespacePhase> {
        let mut namespaces = self.of_kind(Kind::Namespace, "");
        let found = namespaces.find(|item| item.object.name() == name);
        let phase = found.map(|item| NamespacePhase::of(&item.object));
        phase.or((name == OWNERS[0].0).then_some(NamespacePhase::Active))
    }

    fn environment(&mut self) -> Environment {
        Environment {
            settings: self.settings.clone(),
            attempts: self.attempts.clone(),
            ..Environment::at(api_server::NOW)
        }
    }
}

/// Returns the verdict of a strict dry run. One field is unknown, and the CRD sets a default.
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
        // The Services of Contour and Envoy. All other Services are blackholes.
        Kind::Service => OWNERS
            .iter()
            .any(|(_, name)| key.name == format!("{name}-contour") || key.name == format!("{name}-envoy")),
        _ => true,
    }
}
