//! Simplified versions of Kubernetes' controllers and of Contour. Each of them takes a step only when a test requests the step.

use std::collections::BTreeSet;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use serde_json::{Value, json};
use slipway::plan::{Key, Kind, Object};

use super::api_server::By;
use super::cluster::{Cluster, NAMESPACE};

/// The uid and generation of an object whose change makes Contour process all ExtensionServices.
pub type Trigger = (String, Option<i64>);

impl Cluster {
    /// Lets the Deployment and DaemonSet controllers react: creates pods of new templates and keeps pods of old templates.
    pub fn new_pods_start(&mut self) {
        let deployments = self.deployments();
        for deployment in &deployments {
            // Kubernetes refuses creations in a Terminating namespace.
            let namespace = self.api.get(Kind::Namespace, "", deployment.namespace());
            if deployment.is_terminating() || namespace.is_none_or(Object::is_terminating) {
                continue;
            }
            let template = deployment.at("/spec/template").expect("a template").clone();
            let wanted = deployment.at("/spec/replicas").and_then(Value::as_i64).unwrap_or(1);
            let name = format!("{}-{}", deployment.name(), slipway::plan::hash_json(&template));
            let key = Key::new(Kind::ReplicaSet, deployment.namespace(), &name);
            if !self.api.objects.contains_key(&key) {
                let metadata = json!({
                    "name": name, "namespace": deployment.namespace(), "labels": template["metadata"]["labels"],
                    "ownerReferences": [owner_reference(deployment)],
                });
                self.create(
                    Kind::ReplicaSet,
                    json!({"metadata": metadata, "spec": {"template": template}}),
                );
            }
            self.api
                .edit(&key, |set| set.content["spec"]["replicas"] = wanted.into());
            self.sync_replicas(&key);
        }
        self.update_workload_status();
    }

    /// Scales down the ReplicaSets of old templates. Their pods become Terminating.
    pub fn old_pods_terminate(&mut self) {
        let deployments = self.deployments();
        for deployment in &deployments {
            let template = deployment.at("/spec/template").expect("a template");
            let current = format!("{}-{}", deployment.name(), slipway::plan::hash_json(template));
            for key in self
                .owned_by(deployment, Kind::ReplicaSet)
                .into_iter()
                .filter(|key| key.name != current)
            {
                self.api.edit(&key, |set| set.content["spec"]["replicas"] = 0.into());
                self.sync_replicas(&key);
            }
        }
        self.update_workload_status();
    }

    /// Removes the pods that are Terminating.
    pub fn terminating_pods_end(&mut self) {
        let pods = self
            .api
            .of_kind(Kind::Pod)
            .filter(|pod| pod.is_terminating())
            .map(Object::key);
        for key in pods.collect::<Vec<_>>() {
            self.api.forget(&key);
        }
        self.update_workload_status();
    }

    /// Performs a whole rollout.
    pub fn roll(&mut self) {
        self.new_pods_start();
        self.old_pods_terminate();
        self.terminating_pods_end();
    }

    fn sync_replicas(&mut self, key: &Key) {
        let set = self.api.objects[key].clone();
        let wanted = set.at("/spec/replicas").and_then(Value::as_i64).unwrap_or_default();
        let pods: Vec<Key> = self.owned_by(&set, Kind::Pod);
        let running: Vec<&Key> = pods
            .iter()
            .filter(|key| !self.api.objects[*key].is_terminating())
            .collect();
        let there = i64::try_from(running.len()).expect("few pods");
        for _ in there..wanted {
            self.pods_created += 1;
            let mut metadata = set.at("/spec/template/metadata").expect("metadata").clone();
            metadata["name"] = format!("{}-{}", set.name(), self.pods_created).into();
            metadata["namespace"] = set.namespace().into();
            metadata["ownerReferences"] = json!([owner_reference(&set)]);
            self.create(
                Kind::Pod,
                json!({"metadata": metadata, "spec": {}, "status": {"phase": "Running"}}),
            );
        }
        let surplus = usize::try_from(there - wanted).unwrap_or_default();
        let end = Time(self.api.now + std::time::Duration::from_secs(30));
        for key in running.into_iter().take(surplus).cloned().collect::<Vec<_>>() {
            self.api
                .edit(&key, |pod| pod.metadata.deletion_timestamp = Some(end.clone()));
        }
        self.api.edit(key, |set| {
            let generation = set.metadata.generation;
            set.content.insert(
                "status".into(),
                json!({"observedGeneration": generation, "replicas": wanted, "availableReplicas": wanted}),
            );
        });
    }

    /// Updates the status of every workload to match its pods.
    fn update_workload_status(&mut self) {
        for deployment in self.deployments() {
            let template = deployment.at("/spec/template").expect("a template");
            let current = format!("{}-{}", deployment.name(), slipway::plan::hash_json(template));
            let sets = self.owned_by(&deployment, Kind::ReplicaSet);
            let count = |key: &Key| {
                let pods = self.owned_by(&self.api.objects[key], Kind::Pod);
                pods.iter()
                    .filter(|pod| !self.api.objects[*pod].is_terminating())
                    .count()
            };
            let all: usize = sets.iter().map(count).sum();
            let updated: usize = sets.iter().filter(|key| key.name == current).map(count).sum();
            let available = if all > 0 { "True" } else { "False" };
            let progress = if all == updated {
                "NewReplicaSetAvailable"
            } else {
                "ReplicaSetUpdated"
            };
            let now = Value::from(self.api.now.to_string());
            self.api.edit(&deployment.key(), |object| {
                let conditions = object.at("/status/conditions");
                let since = |index: usize, field: &str, value: &str, time: &str| {
                    let before = conditions.map(|conditions| &conditions[index]);
                    let unchanged = before.filter(|before| before[field] == value);
                    unchanged.map_or(now.clone(), |before| before[time].clone())
                };
                let conditions = json!([
                    {
                        "type": "Available", "status": available,
                        "lastTransitionTime": since(0, "status", available, "lastTransitionTime"),
                    },
                    {
                        "type": "Progressing", "status": "True", "reason": progress,
                        "lastUpdateTime": since(1, "reason", progress, "lastUpdateTime"),
                    },
                ]);
                let status = json!({
                    "observedGeneration": object.metadata.generation, "replicas": all, "updatedReplicas": updated,
                    "readyReplicas": all, "availableReplicas": all, "conditions": conditions,
                });
                object.content.insert("status".into(), status);
            });
        }
        for key in self.api.of_kind(Kind::DaemonSet).map(Object::key).collect::<Vec<_>>() {
            self.api.edit(&key, |object| {
                let status = json!({
                    "observedGeneration": object.metadata.generation, "desiredNumberScheduled": 2,
                    "currentNumberScheduled": 2, "updatedNumberScheduled": 2, "numberReady": 2, "numberAvailable": 2,
                });
                object.content.insert("status".into(), status);
            });
        }
    }

    /// Lets the garbage collector delete the objects that have owners of which none exists.
    pub fn collect_garbage(&mut self) {
        loop {
            let exists = |uid: &str| self.api.objects.values().any(|object| object.uid() == uid);
            let orphan = |object: &&Object| {
                let mut owners = object.metadata.owner_references.iter().flatten().peekable();
                owners.peek().is_some() && !owners.any(|owner| exists(&owner.uid)) && !object.is_terminating()
            };
            let Some(object) = self.api.objects.values().find(orphan).cloned() else {
                return;
            };
            self.api.delete(&object.key(), object.uid()).expect("the object exists");
        }
    }

    /// Lets the namespace controller empty Terminating namespaces and remove those that are empty.
    pub fn finalize_namespaces(&mut self) {
        let going = self
            .api
            .of_kind(Kind::Namespace)
            .filter(|namespace| namespace.is_terminating())
            .cloned();
        for namespace in going.collect::<Vec<_>>() {
            let inside = |object: &&Object| object.namespace() == namespace.name();
            for object in self.api.objects.values().filter(inside).cloned().collect::<Vec<_>>() {
                self.api.delete(&object.key(), object.uid()).expect("the object exists");
            }
            if !self.api.objects.values().any(|object| inside(&object)) {
                self.api.forget(&namespace.key());
            }
        }
    }

    /// Lets Contour process all ExtensionServices if Contour has a reason: Contour has just started, or an ExtensionService has
    /// another generation. A change of a Service that an ExtensionService names is not a reason (v1.33, `internal/dag/cache.go`,
    /// `serviceTriggersRebuild`).
    pub fn contour_judges_if_triggered(&mut self) {
        if self.judged_triggers.as_ref() != Some(&self.contour_triggers()) {
            self.contour_judges();
        }
    }

    fn contour_triggers(&self) -> BTreeSet<Trigger> {
        let started = self.contour_pods().filter(|pod| !pod.is_terminating());
        let heeded = self.api.of_kind(Kind::ExtensionService).chain(started);
        let id = |object: &Object| (object.uid().to_owned(), object.metadata.generation);
        heeded.map(id).collect()
    }

    /// Lets Contour, if a pod of Contour runs, judge every ExtensionService. An ExtensionService is valid if it points at ports
    /// of Services that exist. Contour does not replace a verdict on a later generation (v1.33,
    /// `internal/status/extensionstatus.go`).
    pub fn contour_judges(&mut self) {
        let runs = self.contour_pods().any(|pod| !pod.is_terminating());
        for object in self
            .api
            .of_kind(Kind::ExtensionService)
            .filter(|object| runs && judged_generation(object) <= object.metadata.generation)
            .cloned()
            .collect::<Vec<_>>()
        {
            match self.unresolved(&object) {
                None => self.contour_writes_verdict(&object.key(), Ok(())),
                Some(message) => {
                    self.contour_writes_verdict(&object.key(), Err(("ServiceUnresolvedReference", &message)));
                }
            }
        }
        self.judged_triggers = Some(self.contour_triggers());
    }

    /// Writes a verdict of this Contour, or of another Contour, on the current generation: valid, or a reason and a message. This
    /// Contour judges again afterwards.
    pub fn contour_writes_verdict(&mut self, key: &Key, verdict: Result<(), (&str, &str)>) {
        self.judged_triggers = None;
        self.api.edit(key, |object| {
            let generation = object.metadata.generation;
            let condition = match verdict {
                Ok(()) => json!({"type": "Valid", "status": "True", "observedGeneration": generation}),
                Err((reason, message)) => json!({
                    "type": "Valid", "status": "False", "observedGeneration": generation,
                    "errors": [{"type": "ServiceError", "status": "True", "reason": reason, "message": message}],
                }),
            };
            object
                .content
                .insert("status".into(), json!({"conditions": [condition]}));
        });
    }

    /// Lets Contour process all ExtensionServices and lose all verdicts, for example because this replica has only just been
    /// elected.
    pub fn contour_loses_its_verdicts(&mut self) {
        self.judged_triggers = Some(self.contour_triggers());
    }

    /// Writes a verdict that Contour reached on a deleted object to the object that was created under the same name. The verdict
    /// is about a generation that is `later` generations after the generation of the new object.
    pub fn contour_writes_verdict_on_predecessor(&mut self, key: &Key, later: i64) {
        self.judged_triggers = None;
        self.api.edit(key, |object| {
            let generation = object.metadata.generation.unwrap_or_default() + later;
            let condition = json!({"type": "Valid", "status": "True", "observedGeneration": generation});
            object
                .content
                .insert("status".into(), json!({"conditions": [condition]}));
        });
    }

    /// Returns a message about a Service or port that an ExtensionService points at and that Contour cannot use, or None. Contour
    /// drops the HTTPS hosts that reference such an ExtensionService.
    pub fn unresolved(&self, object: &Object) -> Option<String> {
        let services = object.at("/spec/services").and_then(Value::as_array);
        services.into_iter().flatten().find_map(|service| {
            let name = service["name"].as_str().unwrap_or_default();
            let found = self.api.get(Kind::Service, object.namespace(), name);
            let ports = found
                .and_then(|found| found.at("/spec/ports"))
                .and_then(Value::as_array);
            let has_port = ports.into_iter().flatten().any(|port| port["port"] == service["port"]);
            let external = found.is_some_and(|found| found.at("/spec/type") == Some(&"ExternalName".into()));
            (!has_port || external).then(|| format!("unresolved service {}/{name}", object.namespace()))
        })
    }

    /// Returns Contour's pods. A pod with the same labels in another namespace is an imitation.
    pub fn contour_pods(&self) -> impl Iterator<Item = &Object> {
        let is_contour =
            |pod: &&Object| pod.label("app.kubernetes.io/component") == Some("contour") && pod.namespace() == NAMESPACE;
        self.api.of_kind(Kind::Pod).filter(is_contour)
    }

    fn deployments(&self) -> Vec<Object> {
        let deployments = self.api.of_kind(Kind::Deployment);
        deployments
            .filter(|deployment| deployment.at("/spec/template").is_some())
            .cloned()
            .collect()
    }

    fn owned_by(&self, owner: &Object, kind: Kind) -> Vec<Key> {
        let has_it = |object: &&Object| {
            object
                .metadata
                .owner_references
                .iter()
                .flatten()
                .any(|it| it.uid == owner.uid())
        };
        self.api.of_kind(kind).filter(has_it).map(Object::key).collect()
    }

    /// Creates an object that does not exist yet.
    pub fn create(&mut self, kind: Kind, json: Value) {
        let object = Object::from_json(kind, json).expect("an object");
        let key = object.key();
        self.api
            .create(object, By::Others)
            .unwrap_or_else(|refusal| panic!("{key}: {refusal:?}"));
    }
}

fn owner_reference(object: &Object) -> Value {
    json!({
        "apiVersion": object.kind.api_version(), "kind": object.kind.name(), "name": object.name(), "uid": object.uid(),
        "controller": true
    })
}

/// Returns the generation that the verdict on an ExtensionService is about.
fn judged_generation(object: &Object) -> Option<i64> {
    object.at("/status/conditions/0/observedGeneration")?.as_i64()
}
