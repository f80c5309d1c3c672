//! Contour: at each start of its container it reads its ContourConfiguration and the stand-ins that this references, and exits if
//! one is absent. While it runs it judges every ExtensionService, late, and looks again at all of them when one container starts or one
//! ExtensionService has another generation; the Services that these name are no reason to (v1.33, `internal/dag/cache.go`,
//! `serviceTriggersRebuild`). Something that is not in the model, a route for instance, may make it look again at any time. A verdict
//! that another Contour gave is put right sooner or later; one that is lost is given again when it looks again.

use serde_json::json;
use slipway::plan::Kind;

use crate::items::{Item, KeyId, Said};
use crate::model::{Action, Captured, Change, Model, Step, Verdict};
use crate::scopes::{Form, Mischief};
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

    /// Whether Contour's first word on the user's object in its present form, or on a trial, is about to be said. (Nobody is nudged for
    /// one on a stand-in: docs/design.md, "Limits".)
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
        item.said == Said::OfAnother || item.said == self.verdict(state, item).said()
    }

    /// After a step from `before`: of which verdicts Contour does not know that they are out of date.
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
                | Action::Foreigner(Mischief::SayInvalid, _)
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
                let said = self.verdict(&step.to, self.live(&step.to, key).expect("it exists"));
                if (key == self.keys.extension_service || self.is_trial(key)) && said == Verdict::Valid {
                    let spec = self.live(&step.to, key).expect("it exists").spec;
                    let form = Form::ALL.into_iter().find(|form| self.forms[*form as usize] == spec);
                    step.to.judged |= form.expect("a form of the user's").bit();
                }
                self.say(&mut step.to, key, said);
            }
            Action::ContourLooksAgain => {
                step.name = "Contour processes everything again, for its own reasons";
                step.wrote = false;
            }
            _ => unreachable!("not Contour's"),
        }
    }

    /// What a container of this pod would miss if it started now.
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
        let item = self.live(state, configuration).expect("it exists");
        let facts = item
            .stand_ins
            .iter()
            .map(|stand_in| (*stand_in, facts(self.live(state, *stand_in).expect("it exists"))));
        let captured = Captured {
            configuration,
            spec: item.spec,
            facts: facts.collect(),
        };
        self.captured_id(captured)
    }

    /// What Contour finds: valid is what points at ports of Services that exist.
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

    /// The verdict on another object of its name lands on it (v1.33, `internal/k8s/status.go`); Contour takes every verdict on an
    /// earlier generation for stale (`internal/status/extensionstatus.go`).
    pub fn say_of_another(&mut self, state: &mut State, key: KeyId) {
        self.change(state, key, Change::Mischief(Mischief::SayOfAnother), |object| {
            let mut object = object.clone();
            let generation = object.metadata.generation.unwrap_or(1) + 5;
            let condition = json!({"type": "Valid", "status": "True", "observedGeneration": generation});
            object
                .content
                .insert("status".into(), json!({"conditions": [condition]}));
            Some(object)
        });
    }

    /// A verdict on the present generation.
    pub fn say(&mut self, state: &mut State, key: KeyId, verdict: Verdict) {
        self.change(state, key, Change::Verdict(verdict), |object| {
            let mut object = object.clone();
            let generation = object.metadata.generation;
            let condition = match verdict.said() {
                Said::Invalid(reason) => json!({
                    "type": "Valid", "status": "False", "observedGeneration": generation,
                    "errors": [{"type": "ServiceError", "status": "True", "reason": reason, "message": "not usable"}],
                }),
                _ => json!({"type": "Valid", "status": "True", "observedGeneration": generation}),
            };
            object
                .content
                .insert("status".into(), json!({"conditions": [condition]}));
            Some(object)
        });
    }
}

/// Whether Contour takes the one for the other (v1.33, `internal/k8s/helpers.go`, `IsObjectEqual`).
fn is_same_generation(one: &Item, other: &Item) -> bool {
    let generation = |item: &Item| (item.uid, item.spec, item.is_terminating());
    generation(one) == generation(other)
}

impl Verdict {
    fn said(self) -> Said {
        match self {
            Self::Valid => Said::Valid,
            Self::Unresolved => Said::Invalid("ServiceUnresolvedReference".into()),
            Self::SecretNotValid => Said::Invalid("SecretNotValid".into()),
        }
    }
}

/// What Contour captures of an ExtensionService.
pub fn facts(item: &Item) -> String {
    let fact = |pointer: &str| item.object.at(pointer).map(ToString::to_string).unwrap_or_default();
    format!(
        "{} {}",
        fact("/spec/timeoutPolicy/response"),
        fact("/spec/validation/subjectName")
    )
}
