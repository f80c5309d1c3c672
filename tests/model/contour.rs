//! Contour: at each start of its container it reads its ContourConfiguration and the stand-ins that this references, and exits if
//! one is absent. While it runs it judges every ExtensionService, late.

use serde_json::json;
use slipway::plan::Kind;

use crate::items::{Item, KeyId, Said};
use crate::model::{Action, Captured, Change, Model, Step, Verdict};
use crate::scopes::Form;
use crate::state::{Container, State, spend};

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
                if self.item(slot.live).said != self.verdict(state, self.item(slot.live)).said() {
                    actions.push(Action::ContourJudges(slot.key));
                }
            }
        }
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
                if key == self.keys.extension_service && said == Verdict::Valid {
                    let spec = self.live(&step.to, key).expect("it exists").spec;
                    let form = Form::ALL.into_iter().find(|form| self.forms[*form as usize] == spec);
                    step.to.judged |= form.expect("a form of the user's").bit();
                }
                self.say(&mut step.to, key, said);
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
