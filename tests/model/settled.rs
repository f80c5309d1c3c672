//! The final state: when no certain step is left, the model must be in the state that it would be in if it had been built in
//! order. Only the following differences are masked:
//!
//! - uids, versions, generations, times; hashes in names (salts), and values that depend on the hashes;
//! - the persisted state of stand-ins;
//! - the weights with which Slipway nudged Contour (no spec of the user has a weight);
//! - trials: in a model that was built in order, Contour judges the user's object;
//! - the timeout of a blackhole: Slipway keeps facts of an absent object;
//! - the target of a stand-in and the resulting traffic while the user's object is not valid: the last proven copy stays in use;
//! - objects of a tenant that Slipway must not change or cannot delete;
//! - the startup inputs that a container has read from its stand-in, and the results, while a Service of another user occupies
//!   the name of a stand-in in the service's namespace: the former stand-in or the blackhole at home stays in use;
//! - everything while the spec is refused (the former workload keeps running, whatever it was), or while another user occupies a
//!   name (Slipway reports a condition and forces nothing).

use std::collections::BTreeMap;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;
use serde_json::{Value, json};
use slipway::api::vocabulary::{annotations, labels};
use slipway::plan::{Kind, Object, plan};

use crate::contour::facts;
use crate::items::Item;
use crate::model::Model;
use crate::scopes::{Form, OWNERS, Wish};
use crate::state::{Container, State};

/// The objects of a final state, by name.
pub type End = BTreeMap<String, Value>;

impl Model {
    /// Returns the problems of a state without certain steps.
    pub fn check_end(&mut self, state: &State) -> Vec<String> {
        let is_taken = state
            .of_kind(&self.items, Kind::ContourConfiguration)
            .any(|slot| self.item(slot.live).owner.is_none());
        if is_taken {
            return Vec::new();
        }
        let mut problems = self.check_tenants(state);
        let is_in_the_way = state
            .of_kind(&self.items, Kind::Service)
            .any(|slot| self.is_in_the_way(self.item(slot.live)));
        for slot in state.slots.iter().filter(|slot| slot.live != 0) {
            let item = self.item(slot.live);
            if item.is_terminating() && !self.items.is_aside(slot.key) {
                problems.push(format!("I7: {} hangs in its deletion", self.items.key(slot.key)));
            }
            if slot.view != slot.live {
                problems.push(format!("the operator's view of {} is stale", self.items.key(slot.key)));
            }
        }
        for pod in state.of_kind(&self.items, Kind::Pod).collect::<Vec<_>>() {
            problems.extend(self.check_pod(state, pod, is_in_the_way));
        }
        let wishes: Vec<Option<u8>> = (0..self.scope.owners).map(|owner| self.wish_of(state, owner)).collect();
        let is_refused = wishes
            .iter()
            .flatten()
            .any(|wish| self.scope.wishes[usize::from(*wish)] == Wish::Refused);
        if !problems.is_empty() || is_refused {
            return problems;
        }
        if is_in_the_way {
            let runs = |owner: &usize| wishes[*owner].is_none() || state.live(self.keys.contours[*owner]) != 0;
            let stuck = (0..self.scope.owners).find(|owner| !runs(owner));
            return stuck
                .map(|owner| format!("I5: {} is not installed", OWNERS[owner].1))
                .into_iter()
                .collect();
        }
        let form = self.form_of(state);
        let (namespace, service) = (state.live(self.keys.namespace) != 0, state.live(self.keys.service) != 0);
        let mut environment = vec![u32::from(namespace), u32::from(service), form.map_or(9, u32::from)];
        environment.extend(wishes.iter().map(|wish| wish.map_or(9, u32::from)));
        let expected = if let Some(known) = self.ends.get(&environment) {
            known.clone()
        } else {
            let fresh = self.furnished(namespace, service, form, &wishes);
            let fresh = self.settle(fresh);
            let end = self.end(&fresh);
            self.ends.insert(environment, end.clone());
            end
        };
        let found = self.end(state);
        for (name, value) in &expected {
            match found.get(name) {
                None => problems.push(format!(
                    "I5: {name} does not exist, but exists in a model that was built in order"
                )),
                Some(other) if other != value => problems.push(format!(
                    "I5: {name} is\n      {other}\n    in a model that was built in order it is\n      {value}"
                )),
                Some(_) => {}
            }
        }
        for name in found.keys().filter(|name| !expected.contains_key(*name)) {
            problems.push(format!("I7: {name} is left over"));
        }
        problems
    }

    /// Returns differences that a tenant causes, and imitations that Slipway has not deleted although they look like leftovers.
    /// Imitations that a tenant protects are excepted.
    fn check_tenants(&mut self, state: &State) -> Vec<String> {
        let mut problems = Vec::new();
        for owner in 0..self.scope.owners {
            let plan = self.plan_for(state, owner, false).unwrap_or_default();
            problems.extend(self.plans.problems.get(&plan).into_iter().flatten().cloned());
            let wish = self.wish_of(state, owner);
            let is_run = wish.is_some_and(|wish| self.scope.wishes[usize::from(wish)] != Wish::Refused);
            let live = state.slots.iter().filter_map(|slot| self.items.get(slot.live));
            let left = live.filter(|item| is_run && self.is_leftover(item));
            let left = left.filter(|item| !item.is_terminating() && !self.is_guarded(item.key));
            problems.extend(left.map(|item| format!("I7: {} is left over", self.items.key(item.key))));
        }
        problems
    }

    /// Checks that the container of a pod runs, and that its startup inputs equal the current objects.
    fn check_pod(&self, state: &State, pod: crate::state::Slot, is_in_the_way: bool) -> Option<String> {
        let name = self.items.key(pod.key);
        let Container::Running(captured) = Container::of(pod.extra) else {
            return Some(format!("I2: the container of {name} does not run"));
        };
        let captured = &self.captured[captured as usize];
        if self
            .live(state, captured.configuration)
            .is_none_or(|item| item.spec != captured.spec)
        {
            return Some(format!(
                "I5: {name} runs on another spec than that of its ContourConfiguration"
            ));
        }
        if is_in_the_way {
            return None;
        }
        captured.facts.iter().find_map(|(stand_in, captured)| {
            let now = self.live(state, *stand_in).map(facts);
            (now.as_ref() != Some(captured)).then(|| {
                format!(
                    "I5: {name} has read {captured:?} from {}, which now has {now:?}",
                    self.items.key(*stand_in)
                )
            })
        })
    }

    fn wish_of(&self, state: &State, owner: usize) -> Option<u8> {
        let item = self.live(state, self.keys.deployments[owner])?;
        let index = self.wishes.iter().position(|wish| *wish == item.spec);
        Some(u8::try_from(index.expect("a wish")).expect("few"))
    }

    fn form_of(&self, state: &State) -> Option<u8> {
        let item = self.live(state, self.keys.extension_service)?;
        let index = self
            .forms
            .iter()
            .position(|form| *form == item.spec)
            .expect("a form of the user's");
        Some(u8::try_from(index).expect("few"))
    }

    /// Returns the objects of a state, masked.
    pub fn end(&self, state: &State) -> End {
        let is_invalid = self.form_of(state) == Some(Form::Invalid as u8) || state.live(self.keys.service) == 0;
        let mut end = End::new();
        let mut add = |name: String, value: Value| {
            let count = (0..usize::MAX)
                .find(|count| !end.contains_key(&format!("{name} #{count}")))
                .expect("endless");
            end.insert(format!("{name} #{count}"), value);
        };
        for item in state
            .slots
            .iter()
            .filter_map(|slot| self.items.get(slot.live))
            .filter(|item| item.owner.is_some() && !self.items.is_aside(item.key))
            .filter(|item| !item.object.name().contains("-trial-"))
        {
            let value = match item.kind() {
                Kind::ReplicaSet | Kind::Pod => json!("is there"),
                _ => masked(item, is_invalid),
            };
            let name = match item.kind() {
                Kind::ReplicaSet | Kind::Pod => format!(
                    "a {} of {}",
                    item.kind(),
                    item.owner.map_or("", |owner| OWNERS[owner].1)
                ),
                _ => unsalted(&item.object.key().to_string()),
            };
            add(name, value);
        }
        for (owner, furniture) in state.furniture.iter().enumerate().take(self.scope.owners) {
            for key in self.furniture[*furniture as usize].objects.keys() {
                add(key.to_string(), json!("is there"));
            }
            if let Some(observed) = self.observed_now(state, owner) {
                let status = plan(&observed).status;
                let conditions: Vec<_> = status.conditions.iter().map(masked_condition).collect();
                let services: Vec<_> = status
                    .extension_services
                    .iter()
                    .map(|it| {
                        format!(
                            "{} {:?} {:?} {:?}",
                            it.role,
                            it.state,
                            it.fail_open,
                            (!is_invalid).then_some(it.traffic)
                        )
                    })
                    .collect();
                let told = json!([
                    services,
                    status.contour,
                    status.envoy,
                    if is_invalid { json!(null) } else { json!(conditions) }
                ]);
                add(format!("the status of {}", OWNERS[owner].1), told);
            }
        }
        end
    }
}

fn masked(item: &Item, is_invalid: bool) -> Value {
    let mut object = Object::clone(&item.object);
    let metadata = &mut object.metadata;
    metadata.uid = None;
    metadata.resource_version = None;
    metadata.generation = None;
    metadata.creation_timestamp = None;
    metadata
        .owner_references
        .iter_mut()
        .flatten()
        .for_each(|owner| owner.uid.clear());
    let hashes = [
        annotations::PERSISTED_STATE,
        annotations::APPLIED,
        annotations::ROLLED_OUT,
    ];
    metadata
        .annotations
        .iter_mut()
        .for_each(|them| them.retain(|key, _| !hashes.contains(&key.as_str())));
    if let Some(template) = object
        .content
        .get_mut("spec")
        .and_then(|spec| spec.pointer_mut("/template/metadata"))
    {
        template["labels"][labels::TEMPLATE] = json!("");
        let captured = template["annotations"][annotations::STARTUP_INPUTS]
            .as_str()
            .unwrap_or_default();
        let mut captured: Value = serde_json::from_str(captured).unwrap_or_default();
        captured["uid"] = json!("");
        captured["generation"] = json!("");
        template["annotations"][annotations::STARTUP_INPUTS] = captured;
    }
    if let Some(status) = object.content.get_mut("status") {
        status["observedGeneration"] = json!(null);
        status["conditions"]
            .as_array_mut()
            .into_iter()
            .flatten()
            .for_each(|it| it["observedGeneration"] = json!(null));
    }
    if item.kind() == Kind::ExtensionService {
        let is_blackhole = object.at("/spec/services/0/name") == Some(&Value::from(object.name()));
        if is_invalid {
            object.content.clear();
        } else if let Some(Value::Object(spec)) = object.content.get_mut("spec") {
            if is_blackhole {
                spec.remove("timeoutPolicy");
            }
            let services = spec.get_mut("services").and_then(Value::as_array_mut);
            for service in services.into_iter().flatten().filter_map(Value::as_object_mut) {
                service.remove("weight");
            }
        }
    }
    serde_json::from_str(&unsalted(&object.to_json().to_string())).expect("JSON")
}

/// Describes a condition without times. The status reports objects that Slipway cannot delete only if no other problem exists.
fn masked_condition(condition: &Condition) -> String {
    if condition.reason == "LeftBehind" {
        return "Degraded False Healthy".to_owned();
    }
    format!("{} {} {}", condition.type_, condition.status, condition.reason)
}

/// Removes the hashes from names.
pub fn unsalted(text: &str) -> String {
    let is_part = |char: char| char.is_ascii_alphanumeric() || char == '-';
    let is_ours = |word: &str| OWNERS.iter().any(|(_, name)| word.starts_with(&format!("{name}-")));
    let mut plain = String::new();
    let mut word = String::new();
    for char in text.chars().chain(['\n']) {
        if is_part(char) {
            word.push(char);
            continue;
        }
        match word.rsplit_once('-') {
            Some((name, hash)) if hash.len() == 10 && is_ours(&word) => plain.push_str(name),
            _ => plain.push_str(&word),
        }
        plain.push(char);
        word.clear();
    }
    plain.truncate(plain.trim_end().len());
    plain
}
