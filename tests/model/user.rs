//! The user, who creates, changes and deletes the user's own objects at any moment, and another user, who changes and deletes
//! Slipway's objects.

use serde_json::{Value, json};
use slipway::api::vocabulary::annotations;
use slipway::plan::{Kind, Object};

use crate::api_server;
use crate::items::{KeyId, Said};
use crate::model::{Action, Change, Model, Step, Verdict};
use crate::scopes::{AUTH, Form, Interference, OWNERS, Start};
use crate::state::{OVERLOOKED, State, spend};

impl Model {
    pub fn user_actions(&mut self, state: &State, actions: &mut Vec<Action>) {
        let budgets = state.budgets;
        let namespace = self.live(state, self.keys.namespace);
        let is_active = namespace.is_some_and(|item| !item.is_terminating());
        if namespace.is_none() && (self.scope.start == Start::WithoutNamespace || self.scope.budgets.namespaces > 0) {
            actions.push(Action::UserMakesNamespace);
        }
        if is_active && budgets.namespaces > 0 {
            actions.push(Action::UserDeletesNamespace);
        }
        if is_active && state.live(self.keys.service) == 0 {
            actions.push(Action::UserMakesService);
        }
        if state.live(self.keys.service) != 0 && budgets.services > 0 {
            actions.push(Action::UserDeletesService);
        }
        let forms = self.scope.forms.iter().map(|form| *form as u8);
        let forms: Vec<u8> = forms
            .filter(|form| *form == state.form || budgets.changes > 0)
            .collect();
        match self.live(state, self.keys.extension_service) {
            None if is_active => actions.extend(forms.into_iter().map(Action::UserMakesExtensionService)),
            None => {}
            Some(item) => {
                if budgets.flaps > 0 {
                    actions.push(Action::UserDeletesExtensionService);
                }
                let other = forms
                    .into_iter()
                    .filter(|form| self.forms[usize::from(*form)] != item.spec);
                actions.extend(other.map(Action::UserEditsExtensionService));
            }
        }
        for (owner, key) in self.keys.deployments.iter().enumerate() {
            let owner = u8::try_from(owner).expect("few");
            match self.live(state, *key) {
                None => actions.push(Action::UserMakesContourDeployment(owner)),
                Some(item) if item.is_terminating() => {}
                Some(item) => {
                    if budgets.deletions > 0 {
                        actions.push(Action::UserDeletesContourDeployment(owner));
                    }
                    if budgets.respecifications > 0 {
                        for (index, wish) in self.wishes.iter().enumerate() {
                            if item.spec != *wish {
                                actions.push(Action::UserRespecifies(owner, u8::try_from(index).expect("few")));
                            }
                        }
                    }
                }
            }
        }
    }

    pub fn user_step(&mut self, step: &mut Step) {
        let state = &mut step.to;
        step.name = match step.action {
            Action::UserMakesNamespace => {
                self.make(
                    state,
                    self.keys.namespace,
                    Change::New(Kind::Namespace, 0),
                    0,
                    |_| json!({"metadata": {"name": AUTH}}),
                );
                "the user creates the namespace"
            }
            Action::UserDeletesNamespace => {
                spend(&mut state.budgets.namespaces);
                self.user_deletes(state, self.keys.namespace);
                "the user deletes the namespace"
            }
            Action::UserMakesService => {
                self.make(state, self.keys.service, Change::New(Kind::Service, 0), 0, |_| {
                    let spec = json!({"selector": {"app": AUTH}, "ports": [{"port": 9001}]});
                    json!({"metadata": {"name": AUTH, "namespace": AUTH}, "spec": spec})
                });
                "the user creates the Service"
            }
            Action::UserDeletesService => {
                spend(&mut state.budgets.services);
                self.user_deletes(state, self.keys.service);
                "the user deletes the Service"
            }
            Action::UserMakesExtensionService(form) => {
                choose(state, form);
                let spec = Form::ALL[usize::from(form)].spec();
                let new = Change::New(Kind::ExtensionService, form.into());
                self.make(
                    state,
                    self.keys.extension_service,
                    new,
                    0,
                    |_| json!({"metadata": {"name": AUTH, "namespace": AUTH}, "spec": spec}),
                );
                "the user creates the ExtensionService"
            }
            Action::UserEditsExtensionService(form) => {
                choose(state, form);
                let spec = Form::ALL[usize::from(form)].spec();
                self.specify(state, self.keys.extension_service, Change::Form(form), spec);
                "the user edits the ExtensionService"
            }
            Action::UserDeletesExtensionService => {
                spend(&mut state.budgets.flaps);
                self.user_deletes(state, self.keys.extension_service);
                "the user deletes the ExtensionService"
            }
            Action::UserMakesContourDeployment(owner) => {
                let key = self.keys.deployments[usize::from(owner)];
                self.make(state, key, Change::New(Kind::ContourDeployment, owner.into()), 0, |model| {
                    let (namespace, name) = OWNERS[usize::from(owner)];
                    json!({"metadata": {"namespace": namespace, "name": name}, "spec": model.scope.wishes[0].spec()})
                });
                "the user creates the ContourDeployment"
            }
            Action::UserRespecifies(owner, wish) => {
                spend(&mut state.budgets.respecifications);
                let spec = self.scope.wishes[usize::from(wish)].spec();
                let key = self.keys.deployments[usize::from(owner)];
                self.specify(state, key, Change::Wish(wish), spec);
                "the user changes the ContourDeployment's spec"
            }
            Action::UserDeletesContourDeployment(owner) => {
                spend(&mut state.budgets.deletions);
                self.user_deletes(state, self.keys.deployments[usize::from(owner)]);
                "the user deletes the ContourDeployment"
            }
            _ => unreachable!("not a step of the user"),
        };
    }

    fn user_deletes(&mut self, state: &mut State, key: KeyId) {
        self.change(state, key, Change::Deletion, api_server::deleted);
    }

    fn specify(&mut self, state: &mut State, key: KeyId, change: Change, spec: Value) {
        self.change(state, key, change, |object| {
            api_server::edited(object, |object| drop(object.content.insert("spec".into(), spec)))
        });
    }

    pub fn foreign_actions(&mut self, state: &State, actions: &mut Vec<Action>) {
        if state.budgets.foreign == 0 {
            return;
        }
        for interference in self.scope.interference {
            let kind = match interference {
                Interference::DeleteConfiguration | Interference::TakeName | Interference::AlterConfiguration => {
                    Kind::ContourConfiguration
                }
                Interference::DeleteBlackhole => Kind::Service,
                _ => Kind::ExtensionService,
            };
            for slot in state.of_kind(&self.items, kind) {
                let item = self.item(slot.live);
                let deletes = matches!(
                    interference,
                    Interference::DeleteStandIn | Interference::DeleteBlackhole
                );
                let fits = match interference {
                    Interference::JudgeInvalid => item.said == Said::Valid,
                    Interference::MisplaceVerdict => {
                        slot.key == self.keys.extension_service && item.said == Said::Nothing
                    }
                    Interference::LoseVerdict => self.may_be_lost(state, slot),
                    Interference::TakeName => item.owner.is_some() && !self.is_read(state, slot.key),
                    Interference::StripFinalizer => item.object.has_our_finalizer() && item.owner.is_some(),
                    _ => item.owner.is_some() && !(deletes && item.is_terminating()),
                };
                if fits {
                    actions.push(Action::AnotherUser(*interference, slot.key));
                }
            }
        }
    }

    /// Reports whether a container reads, or may read, this ContourConfiguration.
    fn is_read(&self, state: &State, key: KeyId) -> bool {
        state
            .slots
            .iter()
            .filter_map(|slot| self.items.get(slot.live))
            .any(|item| item.configuration == Some(key))
    }

    pub fn foreign_step(&mut self, step: &mut Step, interference: Interference, key: KeyId) {
        let state = &mut step.to;
        spend(&mut state.budgets.foreign);
        step.name = interference.name();
        match interference {
            Interference::JudgeInvalid => self.say(state, key, Verdict::SecretNotValid),
            Interference::MisplaceVerdict => self.say_of_another(state, key),
            Interference::LoseVerdict => {
                state.slot_mut(key).extra = OVERLOOKED;
                step.wrote = false;
            }
            Interference::DeleteStandIn
            | Interference::DeleteBlackhole
            | Interference::DeleteConfiguration
            | Interference::TakeName => {
                self.user_deletes(state, key);
            }
            _ => self.change(state, key, Change::Interference(interference), |object| {
                api_server::edited(object, |object| alter(object, interference))
            }),
        }
        if interference == Interference::TakeName {
            let taken = self.items.key(key).clone();
            self.make(state, key, Change::New(taken.kind, key), 0, |_| {
                let metadata = json!({"namespace": taken.namespace, "name": taken.name});
                json!({"metadata": metadata, "spec": {"ingress": {"classNames": ["theirs"]}}})
            });
        }
        match self.items.get(state.live(key)) {
            None => state.slot_mut(key).extra = 1,
            Some(item) if !self.foreign.contains(&item.spec) => {
                if matches!(
                    interference,
                    Interference::AlterFacts
                        | Interference::Redirect
                        | Interference::AlterConfiguration
                        | Interference::TakeName
                ) {
                    self.foreign.push(item.spec);
                }
            }
            Some(_) => {}
        }
    }
}

fn alter(object: &mut Object, interference: Interference) {
    let spec = &mut object.content["spec"];
    match interference {
        Interference::AlterFacts => spec["timeoutPolicy"] = json!({"response": "9s"}),
        Interference::Redirect => spec["services"] = json!([{"name": AUTH, "port": 9001, "weight": 7}]),
        Interference::AlterConfiguration => spec["globalExtAuth"]["failOpen"] = true.into(),
        Interference::EraseMemory => {
            object
                .metadata
                .annotations
                .get_or_insert_default()
                .remove(annotations::PERSISTED_STATE);
        }
        Interference::StripFinalizer => object.metadata.finalizers = None,
        _ => unreachable!("not a change of an object's content"),
    }
}

impl Interference {
    fn name(self) -> &'static str {
        match self {
            Self::AlterFacts => "another user alters a stand-in's timeout",
            Self::Redirect => "another user points a stand-in elsewhere",
            Self::EraseMemory => "another user erases a stand-in's persisted state",
            Self::DeleteStandIn => "another user deletes a stand-in",
            Self::DeleteBlackhole => "another user deletes a blackhole",
            Self::StripFinalizer => "another user removes a stand-in's finalizer",
            Self::DeleteConfiguration => "another user deletes a ContourConfiguration",
            Self::TakeName => "another user takes a ContourConfiguration's name",
            Self::AlterConfiguration => "another user alters a ContourConfiguration",
            Self::JudgeInvalid => "another Contour judges an ExtensionService invalid",
            Self::LoseVerdict => "Contour's verdict is lost",
            Self::MisplaceVerdict => "Contour's verdict on a deleted ExtensionService lands on its successor",
        }
    }
}

/// Records the form that the user chose. Another form than the last form spends a change.
fn choose(state: &mut State, form: u8) {
    if state.form != form {
        spend(&mut state.budgets.changes);
        state.form = form;
    }
}
