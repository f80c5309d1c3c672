//! Simplified versions of Kubernetes' controllers: Deployments, ReplicaSets, pods that end, the garbage collector, and namespaces
//! that are deleted.
//!
//! Each controller acts as late as possible. The Deployment controller acts on the template that it has observed, which may not
//! be the current template. A ReplicaSet controller that has not observed that its set was scaled down may still create a pod.
//! The status of a Deployment matches its pods. A ReplicaSet that was scaled down is deleted with its last pod.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use serde_json::{Value, json};
use slipway::plan::{Key, Kind, Object, hash_json};

use crate::api_server;
use crate::items::{Id, Item, KeyId, Uid};
use crate::model::{Action, Change, Model, Step};
use crate::state::{Container, State};

impl Model {
    pub fn kubernetes_actions(&mut self, state: &State, actions: &mut Vec<Action>) {
        for owner in 0..self.scope.owners {
            self.deployment_actions(state, self.keys.contours[owner], actions);
        }
        for slot in state.of_kind(&self.items, Kind::ReplicaSet) {
            let set = self.item(slot.live);
            let running = self
                .pods_of(state, set)
                .any(|pod| !self.item(pod.live).is_terminating());
            let wanted = set.replicas > 0;
            if !running && (wanted || !set.is_observed) {
                actions.push(Action::ReplicaSetMakesPod(slot.key));
            }
            if running && !wanted {
                actions.push(Action::ReplicaSetEndsPod(slot.key));
            }
            if running == wanted && !set.is_observed {
                actions.push(Action::ReplicaSetCatchesUp(slot.key));
            }
        }
        for slot in state.of_kind(&self.items, Kind::Pod) {
            if self.item(slot.live).is_terminating() {
                actions.push(Action::PodEnds(slot.key));
            }
        }
        for slot in state.slots.iter().filter(|slot| slot.live != 0) {
            let item = self.item(slot.live);
            if !item.references.is_empty() && !item.is_terminating() && !self.has_owner(state, item) {
                actions.push(Action::GarbageCollectorDeletes(slot.key));
            }
        }
        if self.live(state, self.keys.namespace).is_some_and(Item::is_terminating) {
            let inside = state
                .slots
                .iter()
                .filter(|slot| slot.live != 0 && self.items.key(slot.key).namespace == crate::scopes::AUTH);
            let mut empty = true;
            for slot in inside {
                empty = false;
                if !self.item(slot.live).is_terminating() {
                    actions.push(Action::NamespaceIsEmptied(slot.key));
                }
            }
            if empty {
                actions.push(Action::NamespaceEnds(self.keys.namespace));
            }
        }
    }

    fn deployment_actions(&mut self, state: &State, key: KeyId, actions: &mut Vec<Action>) {
        let slot = state.slot(key);
        if slot.live == 0 {
            return;
        }
        let present = self.replica_set_of(slot.live);
        if slot.extra != present + 1 {
            actions.push(Action::DeploymentSees(key));
        }
        let Some(seen) = slot.extra.checked_sub(1) else { return };
        let deployment = self.item(slot.live);
        let is_mine = |item: &Item| item.references.first() == deployment.uid.as_ref();
        match self.live(state, seen) {
            Some(set) if !is_mine(set) => {}
            Some(set) if set.replicas > 0 && (seen != present || deployment.is_observed) => {}
            _ => actions.push(Action::DeploymentActs(key)),
        }
        let is_up = |set: KeyId| {
            let set = self.live(state, set);
            set.is_some_and(|set| self.pods_of(state, set).any(|pod| self.is_running(pod)))
        };
        for slot in state.of_kind(&self.items, Kind::ReplicaSet) {
            let set = self.item(slot.live);
            let is_old = slot.key != seen && is_mine(set) && set.replicas > 0;
            // The controller first scales down a ReplicaSet whose pod does not run.
            if is_old && (is_up(seen) || !is_up(slot.key)) {
                actions.push(Action::DeploymentScalesDown(slot.key));
            }
        }
    }

    pub fn kubernetes_step(&mut self, step: &mut Step) {
        match step.action {
            Action::DeploymentSees(key) => {
                step.name = "the Deployment controller observes a template";
                step.wrote = false;
                let present = self.replica_set_of(step.to.live(key));
                step.to.slot_mut(key).extra = present + 1;
            }
            Action::DeploymentActs(key) => {
                step.name = "the Deployment controller scales a ReplicaSet up";
                self.scale_up(&mut step.to, key);
            }
            Action::DeploymentScalesDown(key) => {
                step.name = "the Deployment controller scales a ReplicaSet down";
                self.scale(&mut step.to, key, 0);
            }
            Action::ReplicaSetMakesPod(key) => {
                step.name = "a ReplicaSet creates its pod";
                self.make_pod(&mut step.to, key);
                if self.live(&step.to, key).is_some_and(|set| set.replicas > 0) {
                    self.observe_replica_set(&mut step.to, key);
                }
            }
            Action::ReplicaSetEndsPod(key) => {
                step.name = "a ReplicaSet ends its pod";
                let set = self.live(&step.to, key).expect("the ReplicaSet exists").clone();
                let pods: Vec<_> = self.pods_of(&step.to, &set).collect();
                for pod in pods {
                    self.begin_to_end(&mut step.to, pod.key);
                }
                self.observe_replica_set(&mut step.to, key);
            }
            Action::ReplicaSetCatchesUp(key) => {
                step.name = "a ReplicaSet's controller catches up";
                self.observe_replica_set(&mut step.to, key);
            }
            Action::PodEnds(key) => {
                step.name = "a pod has ended";
                step.to.set_live(key, 0);
            }
            Action::GarbageCollectorDeletes(key) => {
                step.name = "the garbage collector deletes";
                self.delete(&mut step.to, key);
            }
            Action::NamespaceIsEmptied(key) => {
                step.name = "the namespace controller deletes";
                self.delete(&mut step.to, key);
            }
            Action::NamespaceEnds(key) => {
                step.name = "a namespace is gone";
                step.to.set_live(key, 0);
            }
            _ => unreachable!("not a step of Kubernetes"),
        }
    }

    fn delete(&mut self, state: &mut State, key: KeyId) {
        if self.items.key(key).kind == Kind::Pod {
            return self.begin_to_end(state, key);
        }
        self.change(state, key, Change::Deletion, api_server::deleted);
    }

    fn begin_to_end(&mut self, state: &mut State, key: KeyId) {
        self.change(state, key, Change::EndOfPod, |pod| {
            let mut pod = pod.clone();
            let end = api_server::NOW + std::time::Duration::from_secs(30);
            pod.metadata.deletion_timestamp.get_or_insert(Time(end));
            Some(pod)
        });
    }

    /// Returns the key of the ReplicaSet of a Deployment's template.
    fn replica_set_of(&mut self, deployment: Id) -> KeyId {
        if let Some(known) = self.replica_sets.get(&deployment) {
            return *known;
        }
        let object = self.item(deployment).object.clone();
        let template = object.at("/spec/template").expect("a template").clone();
        let name = format!("{}-{}", object.name(), hash_json(&template));
        let key = self
            .items
            .key_id(&Key::new(Kind::ReplicaSet, object.namespace(), &name));
        self.replica_sets.insert(deployment, key);
        self.templates.insert(key, template);
        key
    }

    fn scale_up(&mut self, state: &mut State, key: KeyId) {
        let slot = state.slot(key);
        let seen = slot
            .extra
            .checked_sub(1)
            .expect("the controller has observed a template");
        let deployment = self.item(slot.live).object.clone();
        if state.live(seen) == 0 {
            let of = deployment_uid(self.item(slot.live).uid.as_ref());
            // As the operator's watch shows the ReplicaSet: without the pod's spec.
            self.make(state, seen, Change::New(Kind::ReplicaSet, seen), of, |model| {
                let template = &model.templates[&seen];
                let metadata = json!({
                    "name": model.items.key(seen).name, "namespace": deployment.namespace(),
                    "labels": template["metadata"]["labels"], "ownerReferences": [owner_reference(&deployment)],
                });
                let spec = json!({"replicas": 1, "template": {"metadata": template["metadata"], "spec": null}});
                json!({"metadata": metadata, "spec": spec})
            });
        } else {
            self.scale(state, seen, 1);
        }
        if self.replica_set_of(slot.live) == seen {
            self.change(state, key, Change::Observation, |deployment| {
                let mut deployment = deployment.clone();
                let status = deployment.content.entry("status").or_insert_with(|| json!({}));
                status["observedGeneration"] = json!(deployment.metadata.generation);
                Some(deployment)
            });
        }
    }

    fn scale(&mut self, state: &mut State, key: KeyId, replicas: i64) {
        self.change(state, key, Change::Scale(replicas), |set| {
            api_server::edited(set, |set| {
                set.content["spec"]["replicas"] = replicas.into();
                if replicas > 0 {
                    set.metadata.annotations = None;
                }
            })
        });
    }

    fn observe_replica_set(&mut self, state: &mut State, key: KeyId) {
        self.change(state, key, Change::Observation, |set| {
            let mut set = set.clone();
            set.content
                .insert("status".into(), json!({"observedGeneration": set.metadata.generation}));
            Some(set)
        });
    }

    fn make_pod(&mut self, state: &mut State, key: KeyId) {
        let live = state.live(key);
        let set = self.item(live).object.clone();
        let keys = (0..).map(|number| Key::new(Kind::Pod, set.namespace(), &format!("{}-{number}", set.name())));
        let mut free = keys.map(|key| self.items.key_id(&key)).filter(|pod| {
            let slot = state.slot(*pod);
            slot.live == 0 && slot.view == 0
        });
        let pod = free.next().expect("endless");
        drop(free);
        self.make(state, pod, Change::New(Kind::Pod, pod), live, |model| {
            let mut metadata = set.at("/spec/template/metadata").expect("metadata").clone();
            metadata["name"] = model.items.key(pod).name.clone().into();
            metadata["namespace"] = set.namespace().into();
            metadata["ownerReferences"] = json!([owner_reference(&set)]);
            json!({"metadata": metadata, "status": {"phase": "Running"}})
        });
    }

    fn has_owner(&self, state: &State, item: &Item) -> bool {
        item.references
            .iter()
            .any(|uid| self.live(state, uid.key).is_some_and(|owner| owner.uid == Some(*uid)))
    }

    /// Returns the pods of a ReplicaSet.
    pub fn pods_of<'a>(&'a self, state: &'a State, set: &'a Item) -> impl Iterator<Item = crate::state::Slot> + 'a {
        let pods = state.of_kind(&self.items, Kind::Pod);
        pods.filter(|pod| self.item(pod.live).references.first() == set.uid.as_ref())
    }

    pub fn is_running(&self, pod: crate::state::Slot) -> bool {
        matches!(Container::of(pod.extra), Container::Running(_)) && !self.item(pod.live).is_terminating()
    }

    /// Updates the status of Deployments, and deletes ReplicaSets that have been scaled down and have no pods.
    pub fn workloads_report(&mut self, state: &mut State) {
        for index in 0..self.scope.owners {
            let key = self.keys.contours[index];
            let live = state.live(key);
            if live == 0 {
                continue;
            }
            let present = self.replica_set_of(live);
            let sets: Vec<_> = state.of_kind(&self.items, Kind::ReplicaSet).collect();
            let (mut all, mut updated, mut ready) = (0_i64, 0_i64, 0_i64);
            for set in &sets {
                let item = self.item(set.live);
                if item.references.first() != self.item(live).uid.as_ref() {
                    continue;
                }
                let pods: Vec<_> = self.pods_of(state, item).collect();
                let there = pods.iter().filter(|pod| !self.item(pod.live).is_terminating()).count();
                let there = i64::try_from(there).expect("few");
                all += there;
                let running = i64::try_from(pods.iter().filter(|pod| self.is_running(**pod)).count()).expect("few");
                ready += running;
                if set.key == present {
                    updated += there;
                } else if item.replicas == 0 && item.is_observed && pods.is_empty() {
                    state.set_live(set.key, 0);
                    continue;
                }
                self.report_available(state, set.key, running);
            }
            self.number(state, key, &sets);
            // A Deployment has no status before the controller has observed the Deployment.
            let Some(told) = self.item(live).reported else {
                continue;
            };
            if (told.all, told.updated, told.ready) == (all, updated, ready) {
                continue;
            }
            self.change(state, key, Change::Report(all, updated, ready), |deployment| {
                let mut deployment = deployment.clone();
                let status = deployment.content.get_mut("status").expect("the status exists");
                status["replicas"] = all.into();
                status["updatedReplicas"] = updated.into();
                status["readyReplicas"] = ready.into();
                status["availableReplicas"] = ready.into();
                let available = if ready > 0 { "True" } else { "False" };
                status["conditions"] = json!([{"type": "Available", "status": available}]);
                Some(deployment)
            });
        }
    }
}

impl Model {
    fn report_available(&mut self, state: &mut State, key: KeyId, available: i64) {
        let told = self.item(state.live(key)).reported;
        if told.is_none_or(|told| told.available.max(0) == available) {
            return;
        }
        self.change(state, key, Change::Available(available), |set| {
            let mut set = set.clone();
            let status = set.content.get_mut("status").expect("the status exists");
            status["availableReplicas"] = available.into();
            Some(set)
        });
    }

    /// Numbers the ReplicaSets as the Deployment controller does, the newest last. Here the numbers start at 1 again as soon as
    /// one of the ReplicaSets is gone.
    fn number(&mut self, state: &mut State, deployment: KeyId, sets: &[crate::state::Slot]) {
        const REVISION: &str = "deployment.kubernetes.io/revision";
        let uid = self.item(state.live(deployment)).uid;
        let mine = sets.iter().filter(|set| {
            let item = self.live(state, set.key);
            item.is_some_and(|item| item.references.first() == uid.as_ref())
        });
        let number = |object: &Object| object.annotation(REVISION).and_then(|it| it.parse::<usize>().ok());
        let mut numbered: Vec<_> = mine
            .map(|set| (number(&self.item(state.live(set.key)).object), set.key))
            .collect();
        // A ReplicaSet that was just created, or is scaled up again, has no number yet.
        numbered.sort_by_key(|(number, key)| (number.unwrap_or(usize::MAX), *key));
        for (index, (number, key)) in numbered.into_iter().enumerate() {
            let wanted = index + 1;
            if number == Some(wanted) {
                continue;
            }
            self.change(state, key, Change::Revision(wanted), |set| {
                let mut set = set.clone();
                set.annotate(REVISION, wanted.to_string());
                Some(set)
            });
        }
    }
}

fn deployment_uid(uid: Option<&Uid>) -> u32 {
    uid.map_or(0, |uid| uid.number)
}

fn owner_reference(object: &Object) -> Value {
    json!({
        "apiVersion": object.kind.api_version(), "kind": object.kind.name(), "name": object.name(), "uid": object.uid(),
        "controller": true
    })
}
