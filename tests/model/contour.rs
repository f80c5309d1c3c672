//! Contour. At each start a container reads its ContourConfiguration and the stand-ins that the configuration references. The
//! container exits if one of them is absent. A running Contour judges every ExtensionService late. Contour judges all of them
//! again when a container starts or an ExtensionService has another generation. Changes of the Services that they name are not a
//! reason (v1.33, `internal/dag/cache.go`, `serviceTriggersRebuild`). An object outside the model, for example a route, may make
//! Contour judge again at any time. Contour replaces a verdict of another Contour sooner or later. Contour writes a lost verdict
//! again when it judges again.

use serde_json::json;
use slipway::plan::Kind;

use crate::items::{Item, KeyId, Said};
use crate::model::{Action, Captured, Change, Model, Step, Verdict};
use crate::scopes::{Form, Interference};
use crate::state::{Container, OVERLOOKED, Slot, State, spend};

impl Model {
    pub fn contour_actions(&mut self, state: &State, actions: &mut Vec<Action>) {
        let mut runs = false;
        for pod in state.of_kind(&self.items, Kind::Pod).collect::<Vec<_>>() {
            match Container::of(pod.extra) {
                Container::Waiting => actions.push(Action::ContainerStarts(pod.key)),
                Container::Exited => {
                    if self.missing(state, pod.key).is_none() {
                        actions.push(Action::ContainerStarts(pod.key));
                    }
                }
                Container::Running(_) => {
                    runs = true;
                    if state.budgets.kills > 0 {
                        actions.push(Action::ContainerIsKilled(pod.key));
                    }
                }
            }
        }
        if runs {
            for slot in state.of_kind(&self.items, Kind::ExtensionService) {
                if !self.is_judged(state, slot) && slot.extra != OVERLOOKED {
                    actions.push(Action::ContourJudges(slot.key));
                }
            }
            if state
                .of_kind(&self.items, Kind::ExtensionService)
                .any(|slot| slot.extra == OVERLOOKED)
            {
                actions.push(Action::ContourLooksAgain);
            }
        }
    }

    /// Reports whether Contour is about to write the first verdict on the user's object in its current form, or on a trial.
    /// (Slipway never nudges Contour for a first verdict on a stand-in: docs/limits.md.)
    pub fn may_be_lost(&self, state: &State, slot: Slot) -> bool {
        let is_the_users = self.item(slot.live).owner.is_none();
        let matters = is_the_users || self.is_trial(slot.key);
        let is_unsaid = self.item(slot.live).said == Said::Nothing && slot.extra != OVERLOOKED;
        matters && is_unsaid && self.runs(state)
    }

    fn is_trial(&self, key: KeyId) -> bool {
        self.items.key(key).name.contains("-trial-")
    }

    fn is_judged(&self, state: &State, slot: Slot) -> bool {
        let item = self.item(slot.live);
        item.said == Said::OfAnother || self.verdict(state, item).is(&item.said)
    }

    /// Marks, after a step from `before`, the verdicts that are out of date without a reason for Contour to judge again.
    pub fn contour_overlooks(&self, before: &State, action: Action, state: &mut State) {
        let all: Vec<Slot> = state.of_kind(&self.items, Kind::ExtensionService).collect();
        let is_same = |slot: &Slot| {
            let old = self.live(before, slot.key);
            old.is_some_and(|old| is_same_generation(old, self.item(slot.live)))
        };
        let begins = matches!(
            action,
            Action::ContainerStarts(_)
                | Action::ContainerIsKilled(_)
                | Action::ContourLooksAgain
                | Action::AnotherUser(Interference::JudgeInvalid, _)
        );
        let were = before.of_kind(&self.items, Kind::ExtensionService).count();
        let looks = begins || were != all.len() || !all.iter().all(is_same) || !self.runs(state);
        for slot in all {
            let becomes_outdated = || self.is_judged(before, before.slot(slot.key)) && !self.is_judged(state, slot);
            let is_overlooked = !looks
                && if slot.extra == OVERLOOKED {
                    !self.is_judged(state, slot)
                } else {
                    becomes_outdated()
                };
            state.slot_mut(slot.key).extra = if is_overlooked { OVERLOOKED } else { 0 };
        }
    }

    fn runs(&self, state: &State) -> bool {
        let mut pods = state.of_kind(&self.items, Kind::Pod);
        pods.any(|pod| matches!(Container::of(pod.extra), Container::Running(_)))
    }

    pub fn contour_step(&mut self, step: &mut Step) {
        match step.action {
            Action::ContainerStarts(key) => {
                step.name = "a container starts";
                self.start_container(step, key);
            }
            Action::ContainerIsKilled(key) => {
                step.name = "a container is killed and starts again";
                spend(&mut step.to.budgets.kills);
                self.start_container(step, key);
            }
            Action::ContourJudges(key) => {
                step.name = "Contour judges";
                let said = self.verdict(&step.to, self.live(&step.to, key).expect("the ExtensionService exists"));
                if (key == self.keys.extension_service || self.is_trial(key)) && said == Verdict::Valid {
                    let spec = self.live(&step.to, key).expect("the ExtensionService exists").spec;
                    let form = Form::ALL.into_iter().find(|form| self.forms[*form as usize] == spec);
                    step.to.judged |= form.expect("a form of the user's").bit();
                }
                self.say(&mut step.to, key, said);
            }
            Action::ContourLooksAgain => {
                step.name = "Contour processes everything again, for its own reasons";
                step.wrote = false;
            }
            _ => unreachable!("not a step of Contour"),
        }
    }

    /// Returns the object that a container of this pod would miss if the container started now, or None.
    pub fn missing(&self, state: &State, pod: KeyId) -> Option<KeyId> {
        let configuration = self.live(state, pod)?.configuration?;
        match self.live(state, configuration) {
            None => Some(configuration),
            Some(item) => item
                .stand_ins
                .iter()
                .copied()
                .find(|stand_in| state.live(*stand_in) == 0),
        }
    }

    fn start_container(&mut self, step: &mut Step, key: KeyId) {
        let before = step.to.slot(key).extra;
        let container = match self.missing(&step.to, key) {
            Some(missing) => {
                step.problems.extend(self.check_exit(&step.to, key, missing));
                Container::Exited
            }
            None => Container::Running(self.capture(&step.to, key)),
        };
        step.to.slot_mut(key).extra = container.encoded();
        step.wrote = before != container.encoded();
    }

    fn capture(&mut self, state: &State, pod: KeyId) -> u32 {
        let configuration = self
            .live(state, pod)
            .and_then(|pod| pod.configuration)
            .expect("a configuration");
        let item = self
            .live(state, configuration)
            .expect("the ContourConfiguration exists");
        let facts = item.stand_ins.iter().map(|stand_in| {
            (
                *stand_in,
                facts(self.live(state, *stand_in).expect("the stand-in exists")),
            )
        });
        let captured = Captured {
            configuration,
            spec: item.spec,
            facts: facts.collect(),
        };
        self.captured_id(captured)
    }

    /// Returns Contour's verdict. An ExtensionService is valid if it points at ports of Services that exist.
    fn verdict(&self, state: &State, item: &Item) -> Verdict {
        if self.is_resolved(state, item) {
            Verdict::Valid
        } else {
            Verdict::Unresolved
        }
    }

    pub fn is_resolved(&self, state: &State, item: &Item) -> bool {
        item.services.iter().all(|(service, port)| {
            self.live(state, *service)
                .is_some_and(|service| service.ports.contains(port))
        })
    }

    /// Writes the verdict on a deleted object to its successor of the same name (v1.33, `internal/k8s/status.go`). Contour
    /// considers every verdict on an earlier generation stale (`internal/status/extensionstatus.go`).
    pub fn say_of_another(&mut self, state: &mut State, key: KeyId) {
        self.change(
            state,
            key,
            Change::Interference(Interference::MisplaceVerdict),
            |object| {
                let mut object = object.clone();
                let generation = object.metadata.generation.unwrap_or(1) + 5;
                let condition = json!({"type": "Valid", "status": "True", "observedGeneration": generation});
                object
                    .content
                    .insert("status".into(), json!({"conditions": [condition]}));
                Some(object)
            },
        );
    }

    /// Writes a verdict on the current generation.
    pub fn say(&mut self, state: &mut State, key: KeyId, verdict: Verdict) {
        self.change(state, key, Change::Verdict(verdict), |object| {
            let mut object = object.clone();
            let generation = object.metadata.generation;
            let condition = match verdict.reason() {
                Some(reason) => json!({
                    "type": "Valid", "status": "False", "observedGeneration": generation,
                    "errors": [{"type": "ServiceError", "status": "True", "reason": reason, "message": "not usable"}],
                }),
                None => json!({"type": "Valid", "status": "True", "observedGeneration": generation}),
            };
            object
                .content
                .insert("status".into(), json!({"conditions": [condition]}));
            Some(object)
        });
    }
}

/// Reports whether Contour considers two objects equal (v1.33, `internal/k8s/helpers.go`, `IsObjectEqual`).
fn is_same_generation(one: &Item, other: &Item) -> bool {
    let generation = |item: &Item| (item.uid, item.spec, item.is_terminating());
    generation(one) == generation(other)
}

impl Verdict {
    /// Reports whether an object has this verdict.
    fn is(self, said: &Said) -> bool {
        match said {
            Said::Valid => self == Self::Valid,
            Said::Invalid(reason) => self.reason() == Some(reason.as_str()),
            Said::Nothing | Said::OfAnother => false,
        }
    }

    fn reason(self) -> Option<&'static str> {
        match self {
            Self::Valid => None,
            Self::Unresolved => Some("ServiceUnresolvedReference"),
            Self::SecretNotValid => Some("SecretNotValid"),
        }
    }
}

/// Returns the facts that Contour reads from an ExtensionService at its start.
pub fn facts(item: &Item) -> String {
    let fact = |pointer: &str| item.object.at(pointer).map(ToString::to_string).unwrap_or_default();
    format!(
        "{} {}",
        fact("/spec/timeoutPolicy/response"),
        fact("/spec/validation/subjectName")
    )
}
