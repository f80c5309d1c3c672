//! Describes a path through the model step by step, with the changes of each step. A described path can be replayed by the same
//! words.

use std::fmt::Write as _;

use slipway::plan::{Kind, Write};

use crate::breakages::{self, Breakage};
use crate::items::{Id, KeyId};
use crate::model::{Action, Model, Step};
use crate::plans::Doing;
use crate::requests::key_of;
use crate::scopes::{self, Form, Scope};
use crate::search::Counterexample;
use crate::settled::unsalted;
use crate::state::{Container, State};

/// The names of all steps that must occur in a full run.
pub const ACTIONS: &[&str] = &[
    "a ReplicaSet ends its pod",
    "a ReplicaSet creates its pod",
    "a ReplicaSet's controller catches up",
    "a container is killed and starts again",
    "a container starts",
    "a namespace is gone",
    "a pod has ended",
    "a watch catches up",
    "time passes",
    "Contour judges",
    "Contour processes everything again, for its own reasons",
    "the Deployment controller scales a ReplicaSet down",
    "the Deployment controller scales a ReplicaSet up",
    "the Deployment controller observes a template",
    "the garbage collector deletes",
    "the namespace controller deletes",
    "the answer to a write is lost",
    "the operator adds a finalizer",
    "the operator applies",
    "the operator checks settings",
    "the operator cannot write: the namespace does not exist",
    "the operator cannot write: the namespace is Terminating",
    "the operator creates",
    "the operator deletes",
    "the operator detects a stale view",
    "the operator is killed",
    "the operator performs a live read before deletions",
    "the operator meets an object of another user",
    "the operator replaces",
    "the operator removes its finalizer",
    "the operator writes access, certificates, Services, Envoy",
    "the user changes the ContourDeployment's spec",
    "the user deletes the ContourDeployment",
    "the user deletes the ExtensionService",
    "the user deletes the Service",
    "the user deletes the namespace",
    "the user edits the ExtensionService",
    "the user creates the ContourDeployment",
    "the user creates the ExtensionService",
    "the user creates the Service",
    "the user creates the namespace",
    "Contour's verdict on a deleted ExtensionService lands on its successor",
    "another user alters a stand-in's timeout",
    "another user points a stand-in elsewhere",
    "another user erases a stand-in's persisted state",
    "another user deletes a stand-in",
    "another user deletes a blackhole",
    "another user removes a stand-in's finalizer",
    "another user deletes a ContourConfiguration",
    "another user takes a ContourConfiguration's name",
    "another user alters a ContourConfiguration",
    "Contour's verdict is lost",
    "a tenant deletes an imitation",
    "a tenant creates an imitation",
    "another Contour judges an ExtensionService invalid",
];

/// Returns the head of a described path: the scope and the removed guard.
pub fn head(scope: &Scope, breakage: Option<&Breakage>) -> String {
    let without = breakage.map(|breakage| format!("without: {}\n", breakage.name));
    format!("scope: {}\n{}", scope.name, without.unwrap_or_default())
}

/// Reports whether a guard was removed on a path.
pub fn is_without_a_guard(text: &str) -> bool {
    text.lines().any(|line| line.starts_with("without: "))
}

/// Replays a described path. Skips steps that are not possible, for example because the operator has been repaired since. Returns
/// the problems on the path or at its end.
pub fn follow(text: &str, tell: &mut dyn FnMut(&str)) -> Vec<String> {
    let named = |field: &str| text.lines().find_map(|line| line.strip_prefix(field));
    let scope = scopes::named(named("scope: ").expect("a path begins with its scope"));
    let breakage = named("without: ").map(breakages::named);
    let steps = text.lines().filter_map(|line| {
        let (number, words) = line.trim_start().split_once(". ")?;
        number.parse::<u32>().ok()?;
        Some(unsalted(words))
    });
    let mut model = Model::new(scope, breakage);
    let mut state = model.start();
    for words in steps {
        let same = |model: &Model, state: &State, action: &Action| unsalted(&model.words(state, *action)) == words;
        let action = model
            .enabled(&state)
            .into_iter()
            .find(|action| same(&model, &state, action));
        let Some(action) = action else {
            tell(&format!("  –  {words}"));
            continue;
        };
        let (step, told) = model.told(&state, action);
        tell(&told);
        let problems = if step.problems.is_empty() {
            model.check_state(&step.to)
        } else {
            step.problems
        };
        if !problems.is_empty() {
            return problems;
        }
        state = step.to;
    }
    let end = model.settle(state);
    model.check_end(&end)
}

impl Model {
    /// Describes the path of a counterexample by replaying the path from the start.
    pub fn tell(&mut self, counterexample: &Counterexample) -> String {
        let problems = counterexample.problems.iter();
        let mut text = problems.fold(String::new(), |text, problem| text + "! " + problem + "\n");
        let mut state = self.start();
        for (number, action) in counterexample.way.iter().enumerate() {
            let (step, told) = self.told(&state, *action);
            let _ = writeln!(text, "{:3}. {told}", number + 1);
            state = step.to;
        }
        text
    }

    fn told(&mut self, state: &State, action: Action) -> (Step, String) {
        let mut text = self.words(state, action);
        let step = self.take(state, action);
        for line in self.changes(state, &step.to) {
            let _ = write!(text, "\n       {line}");
        }
        (step, text)
    }

    /// Returns the words that describe a step and identify the step in a replay.
    fn words(&self, state: &State, action: Action) -> String {
        let key = |key: KeyId| self.items.key(key).to_string();
        let form = |form: u8| format!("{:?}", Form::ALL[usize::from(form)]);
        match action {
            Action::Deliver(kind) => format!("a watch catches up: {kind}"),
            Action::Write(owner, write) => format!("operator: {}", self.request_in_words(state, owner, write)),
            Action::Lose(owner, write) => format!(
                "operator, and the answer is lost: {}",
                self.request_in_words(state, owner, write)
            ),
            Action::Look(owner) => format!("operator: performs a live read before deletions, for {owner}"),
            Action::Ask(owner) => format!("operator: checks settings, for {owner}"),
            Action::Crash => "operator: is killed".to_owned(),
            Action::TimePasses => "time passes".to_owned(),
            Action::DeploymentSees(it) => format!("Deployment controller: observes {}", key(it)),
            Action::DeploymentActs(it) => format!("Deployment controller: scales up for {}", key(it)),
            Action::DeploymentScalesDown(it) => format!("Deployment controller: scales down {}", key(it)),
            Action::ReplicaSetMakesPod(it) => format!("ReplicaSet controller: creates a pod for {}", key(it)),
            Action::ReplicaSetEndsPod(it) => format!("ReplicaSet controller: ends the pod of {}", key(it)),
            Action::ReplicaSetCatchesUp(it) => format!("ReplicaSet controller: catches up with {}", key(it)),
            Action::ContainerStarts(it) => format!("kubelet: the container starts, of {}", key(it)),
            Action::ContainerIsKilled(it) => format!("fault: the container is killed and starts again, of {}", key(it)),
            Action::PodEnds(it) => format!("kubelet: has ended {}", key(it)),
            Action::ContourJudges(it) => format!("Contour: judges {}", key(it)),
            Action::ContourLooksAgain => "Contour: processes everything again".to_owned(),
            Action::GarbageCollectorDeletes(it) => format!("garbage collector: deletes {}", key(it)),
            Action::NamespaceIsEmptied(it) => format!("namespace controller: deletes {}", key(it)),
            Action::NamespaceEnds(it) => format!("namespace controller: finishes the deletion of {}", key(it)),
            Action::UserMakesNamespace => "user: creates the namespace".to_owned(),
            Action::UserDeletesNamespace => "user: deletes the namespace".to_owned(),
            Action::UserMakesService => "user: creates the Service".to_owned(),
            Action::UserDeletesService => "user: deletes the Service".to_owned(),
            Action::UserMakesExtensionService(it) => format!("user: creates the ExtensionService, {}", form(it)),
            Action::UserEditsExtensionService(it) => format!("user: edits the ExtensionService, {}", form(it)),
            Action::UserDeletesExtensionService => "user: deletes the ExtensionService".to_owned(),
            Action::UserMakesContourDeployment(it) => format!("user: creates ContourDeployment {it}"),
            Action::UserRespecifies(it, wish) => {
                format!(
                    "user: changes ContourDeployment {it}, {:?}",
                    self.scope.wishes[usize::from(wish)]
                )
            }
            Action::UserDeletesContourDeployment(it) => format!("user: deletes ContourDeployment {it}"),
            Action::AnotherUser(interference, it) => format!("another user: {interference:?} {}", key(it)),
            Action::TenantMakes(it) => format!("tenant: creates {:?}", self.scope.imitations[usize::from(it)]),
            Action::TenantDeletes(it) => format!("tenant: deletes {:?}", self.scope.imitations[usize::from(it)]),
        }
    }

    fn request_in_words(&self, state: &State, owner: u8, write: u8) -> String {
        match self.doing(state, owner.into(), write.into()) {
            Some(Doing::Furniture(..)) => format!("access, certificates, Services, Envoy, of {owner}"),
            Some(Doing::One(_, write)) => described(write),
            None => String::new(),
        }
    }

    fn changes(&self, before: &State, after: &State) -> Vec<String> {
        let mut keys: Vec<KeyId> = before.slots.iter().chain(&after.slots).map(|slot| slot.key).collect();
        keys.sort_unstable();
        keys.dedup();
        let mut lines = Vec::new();
        for key in keys {
            let (old, new) = (before.slot(key), after.slot(key));
            let name = self.items.key(key);
            if old.live != new.live {
                lines.push(format!("{name}: {}", self.shown(new.live)));
            }
            if old.view != new.view && new.view != new.live {
                lines.push(format!("the operator sees {name}: {}", self.shown(new.view)));
            }
            if name.kind == Kind::ExtensionService && new.live != 0 && old.extra < new.extra {
                lines.push(format!(
                    "Contour does not notice that the verdict on {name} is out of date"
                ));
            }
            if name.kind == Kind::Pod && old.extra != new.extra {
                let container = match Container::of(new.extra) {
                    Container::Waiting => "waiting".to_owned(),
                    Container::Exited => "exited".to_owned(),
                    Container::Running(captured) => {
                        let captured = &self.captured[captured as usize];
                        let facts: Vec<_> = captured.facts.iter().map(|(_, facts)| facts).collect();
                        format!("runs on {} {facts:?}", self.items.key(captured.configuration).name)
                    }
                };
                lines.push(format!("container of {}: {container}", name.name));
            }
        }
        lines
    }

    /// Describes an object in a few words.
    fn shown(&self, id: Id) -> String {
        let Some(item) = self.items.get(id) else {
            return "gone".to_owned();
        };
        let object = &item.object;
        let mut words = Vec::new();
        if item.is_terminating() {
            words.push("terminating".to_owned());
        }
        match item.kind() {
            Kind::ExtensionService => {
                let services = item
                    .services
                    .iter()
                    .map(|(service, _)| self.items.key(*service).name.as_str());
                words.push(format!("→ {}", services.collect::<Vec<_>>().join(", ")));
                if let Some(timeout) = object.at("/spec/timeoutPolicy/response") {
                    words.push(format!("timeout {timeout}"));
                }
                words.push(format!("{:?}", item.said));
                if let Some(memory) = object.annotation(slipway::api::vocabulary::annotations::PERSISTED_STATE) {
                    words.push(memory.to_owned());
                }
            }
            Kind::ReplicaSet | Kind::Deployment => {
                words.push(format!("replicas {}", item.replicas));
                if let Some(configuration) = item.configuration.filter(|_| item.kind() == Kind::Deployment) {
                    words.push(self.items.key(configuration).name.clone());
                }
                if !item.is_observed {
                    words.push("not observed".to_owned());
                }
            }
            _ => {}
        }
        if words.is_empty() {
            "is there".to_owned()
        } else {
            words.join(", ")
        }
    }
}

/// Describes a request.
fn described(write: &Write) -> String {
    let verb = match write {
        Write::Create(_) => "creates",
        Write::Apply { .. } => "applies",
        Write::Replace(_) => "replaces",
        Write::Delete(_) => "deletes",
        Write::Hold(_) => "adds the finalizer to",
        Write::Release(_) => "takes the finalizer from",
    };
    format!("{verb} {}", key_of(write))
}
