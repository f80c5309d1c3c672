//! Guards that are removed on purpose. Each removal is a small wrapper around the real plan or around its execution. The search
//! must notice each removal: a search that cannot tell a removal from the product proves nothing.

use std::sync::Arc;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use serde_json::{Map, Value, json};
use slipway::api::vocabulary::{FINALIZER, annotations, labels};
use slipway::plan::{Kind, Object, Observed, Owner, Plan, Target, Wave, Write, hash, hash_json};

use crate::checks::MOST_SALT;
use crate::scopes::{ALICE, AUTH};

/// Flaws in the execution of a plan.
#[derive(Clone, Copy, Debug, Default)]
#[allow(clippy::struct_excessive_bools)] // one at a time
pub struct Flaws {
    /// Deletions carry no uid.
    pub ignores_uid: bool,
    /// The operator deletes without a live read.
    pub skips_live_reads: bool,
    /// The operator overwrites an object of another user that has the desired name.
    pub adopts: bool,
    /// A refusal in another namespace stops the writes that follow.
    pub stops_at_refusals: bool,
}

/// The removal of a guard.
pub struct Breakage {
    pub name: &'static str,
    /// The scope in which the search notices the removal.
    pub scope: &'static str,
    pub observe: fn(&mut Observed),
    pub plan: fn(&Observed, &mut Plan),
    pub apply: Flaws,
}

const NONE: Breakage = Breakage {
    name: "",
    scope: "installation",
    observe: |_| {},
    plan: |_, _| {},
    apply: Flaws {
        ignores_uid: false,
        skips_live_reads: false,
        adopts: false,
        stops_at_refusals: false,
    },
};

/// All removals.
pub static ALL: &[Breakage] = &[
    Breakage {
        name: "Contour is written before the blackholes of its stand-ins",
        plan: |observed, plan| contour_first(observed, plan, "blackholes"),
        ..NONE
    },
    Breakage {
        name: "Contour is written before its ContourConfiguration",
        plan: |observed, plan| contour_first(observed, plan, "configurations"),
        ..NONE
    },
    Breakage {
        name: "Contour is written before its stand-ins",
        plan: |observed, plan| contour_first(observed, plan, "new stand-ins"),
        ..NONE
    },
    Breakage {
        name: "no finalizer on stand-ins",
        scope: "namespace",
        observe: |observed| pretend_finalizer(observed, Kind::ExtensionService),
        plan: |_, plan| without_finalizer(plan, Kind::ExtensionService),
        ..NONE
    },
    Breakage {
        name: "no finalizer on blackholes",
        scope: "namespace",
        observe: |observed| pretend_finalizer(observed, Kind::Service),
        plan: |_, plan| without_finalizer(plan, Kind::Service),
        ..NONE
    },
    Breakage {
        name: "the ContourDeployment has no finalizer",
        scope: "deletion",
        plan: |_, plan| {
            plan.waves.retain(|wave| {
                wave.name != "the ContourDeployment's finalizer"
                    || wave.writes.iter().any(|write| matches!(write, Write::Release(_)))
            });
        },
        ..NONE
    },
    Breakage {
        name: "a verdict on an older generation is accepted",
        scope: "edits",
        observe: |observed| judged(observed, false),
        ..NONE
    },
    Breakage {
        name: "an ExtensionService without a verdict is copied",
        observe: |observed| judged(observed, true),
        ..NONE
    },
    Breakage {
        name: "Terminating pods are ignored",
        scope: "rollout",
        observe: |observed| {
            observed
                .objects
                .retain(|_, object| object.kind != Kind::Pod || !object.is_terminating());
        },
        ..NONE
    },
    Breakage {
        name: "a ContourConfiguration lacks its block while the service is missing",
        plan: |observed, plan| {
            let missing = observed.extension_services.is_empty();
            for object in created(plan).filter(|object| missing && object.kind == Kind::ContourConfiguration) {
                object.content["spec"]
                    .as_object_mut()
                    .expect("a spec")
                    .remove("globalExtAuth");
            }
        },
        ..NONE
    },
    Breakage {
        name: "deletions are executed without a live read",
        scope: "rollouts",
        apply: Flaws {
            skips_live_reads: true,
            ..NONE.apply
        },
        ..NONE
    },
    Breakage {
        name: "ReplicaSets are ignored",
        scope: "rollouts",
        observe: |observed| observed.objects.retain(|_, object| object.kind != Kind::ReplicaSet),
        ..NONE
    },
    Breakage {
        name: "the observedGeneration of a workload is ignored",
        scope: "rollouts",
        observe: |observed| {
            for object in observed
                .objects
                .values_mut()
                .filter(|object| matches!(object.kind, Kind::Deployment | Kind::ReplicaSet))
            {
                let generation = object.metadata.generation;
                let content = &mut Arc::make_mut(object).content;
                content.entry("status").or_insert_with(|| json!({}))["observedGeneration"] = json!(generation);
            }
        },
        ..NONE
    },
    Breakage {
        name: "changed facts do not retire a stand-in",
        scope: "facts",
        plan: |_, plan| {
            for object in created(plan).filter(|object| object.kind == Kind::ExtensionService) {
                change_persisted_state(object, |memory| drop(memory.remove("retired")));
            }
        },
        ..NONE
    },
    Breakage {
        name: "a ContourConfiguration that was deleted is taken for the one that is created in its place",
        scope: "configurations",
        observe: |observed| each_configuration(observed, |metadata| metadata.uid = Some("the same".to_owned())),
        apply: Flaws {
            ignores_uid: true,
            ..NONE.apply
        },
        ..NONE
    },
    Breakage {
        name: "a ContourConfiguration that was altered is taken for one that was not",
        scope: "configurations",
        observe: |observed| each_configuration(observed, |metadata| metadata.generation = Some(1)),
        ..NONE
    },
    Breakage {
        name: "any invalid verdict of any Contour withdraws a copy",
        scope: "verdicts",
        observe: |observed| {
            for object in observed
                .objects
                .values_mut()
                .filter(|object| object.kind == Kind::ExtensionService)
            {
                if let Some(reason) = Arc::make_mut(object)
                    .content
                    .get_mut("status")
                    .and_then(|it| it.pointer_mut("/conditions/0/errors/0/reason"))
                {
                    *reason = json!("ServiceUnresolvedReference");
                }
            }
        },
        ..NONE
    },
    Breakage {
        name: "Contour is not nudged when a Service is created late",
        scope: "services",
        plan: |_, plan| without_nudges(plan, false),
        ..NONE
    },
    Breakage {
        name: "Contour is not nudged when a verdict is lost",
        scope: "lost verdicts",
        plan: |_, plan| without_nudges(plan, true),
        ..NONE
    },
    Breakage {
        name: "an ExtensionService that Contour never judges is not tried",
        scope: "verdicts on another object",
        plan: |_, plan| {
            let is_trial = |write: &Write| matches!(write, Write::Create(object) if object.name().contains("-trial-"));
            plan.waves
                .iter_mut()
                .for_each(|wave| wave.writes.retain(|write| !is_trial(write)));
        },
        ..NONE
    },
    Breakage {
        name: "a withdrawn copy is restored without a new verdict",
        scope: "services",
        observe: |observed| {
            for object in observed
                .objects
                .values_mut()
                .filter(|object| object.kind == Kind::ExtensionService)
            {
                change_persisted_state(Arc::make_mut(object), |memory| drop(memory.remove("withdrawn")));
            }
        },
        ..NONE
    },
    Breakage {
        name: "deletions carry no uid",
        scope: "names",
        apply: Flaws {
            ignores_uid: true,
            ..NONE.apply
        },
        ..NONE
    },
    Breakage {
        name: "an object of another user with the desired name is overwritten",
        scope: "names again",
        apply: Flaws {
            adopts: true,
            ..NONE.apply
        },
        ..NONE
    },
    Breakage {
        name: "stand-ins are deleted before Contour's pods have ended",
        scope: "deletion",
        observe: |observed| {
            if observed.deployment.metadata.deletion_timestamp.is_some() {
                observed.objects.retain(|_, object| object.kind != Kind::Pod);
            }
        },
        ..NONE
    },
    Breakage {
        name: "the ContourDeployment is released before its stand-ins",
        scope: "deletion",
        plan: |observed, plan| {
            let deletes = plan
                .waves
                .iter()
                .any(|wave| wave.name == "stand-ins" && !wave.writes.is_empty());
            if deletes && observed.deployment.metadata.deletion_timestamp.is_some() {
                let target = Target::of_deployment(&observed.deployment);
                plan.waves
                    .insert(0, Wave::of("release too early", vec![Write::Release(target)]));
            }
        },
        ..NONE
    },
    Breakage {
        name: "a deletion ignores ReplicaSets and pods that the Deployment does not control",
        scope: "deletion",
        observe: forget_strangers,
        ..NONE
    },
    Breakage {
        name: "a deletion waits for a pod in an unreferenced namespace",
        scope: "tenant",
        observe: |observed| {
            for pod in elsewhere(observed, Kind::Pod) {
                bring_home(observed, &pod);
            }
        },
        ..NONE
    },
    Breakage {
        name: "the startup inputs of a pod in an unreferenced namespace are believed",
        scope: "tenant",
        observe: |observed| {
            for pod in elsewhere(observed, Kind::Pod) {
                believe(observed, &pod, &json!(pod.metadata.annotations));
            }
        },
        ..NONE
    },
    Breakage {
        name: "the template of a ReplicaSet in an unreferenced namespace is believed",
        scope: "tenant",
        observe: |observed| {
            for set in elsewhere(observed, Kind::ReplicaSet) {
                let annotations = set.at("/spec/template/metadata/annotations").cloned();
                believe(observed, &set, &annotations.unwrap_or_default());
            }
        },
        ..NONE
    },
    Breakage {
        name: "a Deployment in an unreferenced namespace is taken for Contour's",
        scope: "tenant",
        observe: |observed| {
            for deployment in elsewhere(observed, Kind::Deployment) {
                bring_home(observed, &deployment);
            }
        },
        ..NONE
    },
    Breakage {
        name: "the rolled-out mark of a configuration in an unreferenced namespace is believed, whatever Contour runs on",
        scope: "tenant",
        observe: |observed| {
            for configuration in elsewhere(observed, Kind::ContourConfiguration) {
                bring_home(observed, &configuration);
                forget_available_replicas(observed);
            }
        },
        ..NONE
    },
    Breakage {
        name: "the rolled-out mark of a configuration is believed without proof by its name",
        scope: "configurations",
        observe: |observed| {
            forget_available_replicas(observed);
            let configurations = observed
                .objects
                .values()
                .filter(|it| it.kind == Kind::ContourConfiguration);
            for mut configuration in configurations.cloned().collect::<Vec<_>>() {
                let name = configuration_name(&observed.owner(), &configuration);
                Arc::make_mut(&mut configuration).metadata.name = Some(name);
                observed.objects.entry(configuration.key()).or_insert(configuration);
            }
        },
        ..NONE
    },
    Breakage {
        name: "a stand-in in an unreferenced namespace is believed",
        scope: "tenant",
        observe: |observed| {
            for stand_in in elsewhere(observed, Kind::ExtensionService) {
                let mut stand_in = Object::clone(&stand_in);
                stand_in.metadata.namespace = Some(AUTH.to_owned());
                observed.objects.insert(stand_in.key(), Arc::new(stand_in));
            }
        },
        ..NONE
    },
    Breakage {
        name: "numbers in persisted state have no bounds",
        scope: "tenant beside the service",
        plan: |observed, plan| {
            let salt = |object: &Object| {
                let memory: Value = serde_json::from_str(object.annotation(annotations::PERSISTED_STATE)?).ok()?;
                memory["salt"].as_u64()
            };
            let salts = observed.objects.values().filter_map(|object| salt(object));
            let Some(highest) = salts.max().filter(|salt| *salt > MOST_SALT) else {
                return;
            };
            for object in created(plan).filter(|object| object.kind == Kind::ExtensionService) {
                change_persisted_state(object, |memory| {
                    drop(memory.insert("salt".to_owned(), json!(highest + 1)));
                });
            }
        },
        ..NONE
    },
    Breakage {
        name: "every object with Slipway's labels is deleted in any namespace",
        scope: "tenant",
        plan: |observed, plan| {
            if plan.is_settled() {
                let elsewhere = Kind::ALL.iter().flat_map(|kind| elsewhere(observed, *kind));
                let writes = elsewhere.map(|object| Write::Delete(Target::of(&object)));
                plan.waves = vec![Wave::of("objects with Slipway's labels", writes.collect())];
            }
        },
        ..NONE
    },
    Breakage {
        name: "a deletion waits for objects elsewhere that cannot be deleted",
        scope: "tenant",
        plan: |observed, plan| {
            let is_left = !elsewhere(observed, Kind::ExtensionService).is_empty();
            if is_left && observed.deployment.metadata.deletion_timestamp.is_some() {
                plan.waves.iter_mut().for_each(|wave| {
                    wave.writes.retain(
                        |write| !matches!(write, Write::Release(target) if target.key.kind == Kind::ContourDeployment),
                    );
                });
            }
        },
        ..NONE
    },
    Breakage {
        name: "a refusal elsewhere is not recorded and stops the writes that follow",
        scope: "tenant",
        observe: |observed| observed.attempts = Arc::default(),
        apply: Flaws {
            stops_at_refusals: true,
            ..NONE.apply
        },
        ..NONE
    },
    Breakage {
        name: "a creation beside the service is retried although the name is taken",
        scope: "tenant beside the service",
        observe: |observed| observed.attempts = Arc::default(),
        ..NONE
    },
];

/// Returns the removal of this name.
pub fn named(name: &str) -> &'static Breakage {
    ALL.iter()
        .find(|breakage| breakage.name == name)
        .unwrap_or_else(|| panic!("no removed guard has the name {name:?}"))
}

/// Returns the objects of a kind that a tenant created in an unreferenced namespace.
fn elsewhere(observed: &Observed, kind: Kind) -> Vec<Arc<Object>> {
    let objects = observed.objects.values();
    let objects = objects.filter(|object| object.namespace() == ALICE && object.kind == kind);
    objects.cloned().collect()
}

/// Moves an observed object into the namespace of the ContourDeployment.
fn bring_home(observed: &mut Observed, object: &Object) {
    let mut object = object.clone();
    object.metadata.namespace = Some(observed.owner().namespace);
    observed.objects.insert(object.key(), Arc::new(object));
}

/// Adds an observed ReplicaSet of Contour's Deployment with these annotations in the template.
fn believe(observed: &mut Observed, object: &Object, annotations: &Value) {
    let owner = observed.owner();
    let deployment = observed.object(Kind::Deployment, &owner.namespace, &owner.contour());
    let Some(uid) = deployment.map(|deployment| deployment.uid().to_owned()) else {
        return;
    };
    let controller = json!({
        "apiVersion": "apps/v1", "kind": "Deployment", "name": owner.contour(), "uid": uid, "controller": true,
    });
    let metadata = json!({
        "namespace": owner.namespace, "name": object.name(), "labels": object.metadata.labels, "ownerReferences": [controller],
    });
    let spec = json!({"replicas": 1, "template": {"metadata": {"annotations": annotations}}});
    let set = json!({"metadata": metadata, "spec": spec, "status": {"observedGeneration": 1}});
    let set = Object::from_json(Kind::ReplicaSet, set).expect("an object");
    observed.objects.insert(set.key(), Arc::new(set));
}

/// Removes the number of available pods from the observed ReplicaSets.
fn forget_available_replicas(observed: &mut Observed) {
    for object in observed
        .objects
        .values_mut()
        .filter(|object| object.kind == Kind::ReplicaSet)
    {
        if let Some(Value::Object(status)) = Arc::make_mut(object).content.get_mut("status") {
            status.remove("availableReplicas");
        }
    }
}

/// Removes ReplicaSets and pods that the current Deployment does not control from the observed state.
fn forget_strangers(observed: &mut Observed) {
    let owner = observed.owner();
    let contour = observed
        .object(Kind::Deployment, &owner.namespace, &owner.contour())
        .cloned();
    let is_controlled = |object: &Object, by: &[Object]| by.iter().any(|by| object.is_controlled_by(by));
    let deployments: Vec<Object> = contour.into_iter().collect();
    let sets = observed
        .objects
        .values()
        .filter(|object| object.kind == Kind::ReplicaSet);
    let sets = sets.filter(|set| is_controlled(set, &deployments));
    let sets: Vec<Object> = sets.map(|set| Object::clone(set)).collect();
    observed.objects.retain(|_, object| match object.kind {
        Kind::ReplicaSet => is_controlled(object, &deployments),
        Kind::Pod => is_controlled(object, &sets),
        _ => true,
    });
}

/// Changes the metadata of the observed ContourConfigurations.
fn each_configuration(observed: &mut Observed, change: impl Fn(&mut ObjectMeta)) {
    let all = observed.objects.values_mut();
    for object in all.filter(|object| object.kind == Kind::ContourConfiguration) {
        change(&mut Arc::make_mut(object).metadata);
    }
}

/// Returns the name that matches the content of a configuration.
fn configuration_name(owner: &Owner, configuration: &Object) -> String {
    let spec = configuration.at("/spec").cloned().unwrap_or_default();
    let spec = hash_json(&spec);
    let parts = [owner.namespace.as_str(), &owner.name, &spec];
    owner.configuration(&hash(
        parts
            .into_iter()
            .chain(configuration.annotation(annotations::IN_PLACE_OF)),
    ))
}

/// Changes the persisted state of a stand-in.
fn change_persisted_state(object: &mut Object, change: impl FnOnce(&mut Map<String, Value>)) {
    let Some(text) = object.annotation(annotations::PERSISTED_STATE) else {
        return;
    };
    if let Ok(Value::Object(mut memory)) = serde_json::from_str(text) {
        change(&mut memory);
        object.annotate(annotations::PERSISTED_STATE, Value::Object(memory).to_string());
    }
}

/// Inserts the rollout of Contour before this wave. Contour is rolled out to objects that this wave and later waves create.
fn contour_first(observed: &Observed, plan: &mut Plan, name: &str) {
    let has_writes = |wave: &Wave| wave.name == name && !wave.writes.is_empty();
    let Some(place) = plan.waves.iter().position(has_writes) else {
        return;
    };
    let mut later = observed.clone();
    for write in plan.waves.iter().flat_map(|wave| &wave.writes) {
        if let Write::Create(object) = write {
            let mut object = object.clone();
            object.metadata.uid = Some("early".to_owned());
            object.metadata.generation = Some(1);
            later.objects.insert(object.key(), Arc::new(object));
        }
    }
    plan.waves.retain(|wave| wave.name != "Contour");
    let waves = slipway::plan::plan(&later).waves;
    let contour = waves.into_iter().find(|wave| wave.name == "Contour");
    plan.waves.splice(place..place, contour);
}

fn created(plan: &mut Plan) -> impl Iterator<Item = &mut Object> {
    plan.waves
        .iter_mut()
        .flat_map(|wave| &mut wave.writes)
        .filter_map(|write| match write {
            Write::Create(object) | Write::Replace(object) => Some(object),
            _ => None,
        })
}

/// Removes nudges: those for a missing verdict, or those for Services that Contour did not find.
fn without_nudges(plan: &mut Plan, for_silence: bool) {
    // A nudge for a missing verdict is for a generation, which the persisted state contains.
    let is_for_silence = |object: &Object| {
        let memory = object.annotation(annotations::PERSISTED_STATE);
        memory.is_some_and(|memory| memory.contains(".@"))
    };
    let is_nudge = |write: &Write| {
        matches!(write, Write::Replace(object)
            if object.at("/spec/services/0/weight").is_some() && is_for_silence(object) == for_silence)
    };
    plan.waves
        .iter_mut()
        .for_each(|wave| wave.writes.retain(|write| !is_nudge(write)));
}

/// Creates objects of a kind without Slipway's finalizer.
fn without_finalizer(plan: &mut Plan, kind: Kind) {
    for object in created(plan).filter(|object| object.kind == kind) {
        object.metadata.finalizers = None;
    }
}

fn pretend_finalizer(observed: &mut Observed, kind: Kind) {
    let owner = observed.owner();
    for object in observed
        .objects
        .values_mut()
        .filter(|object| object.kind == kind && !object.is_terminating())
    {
        if owner.owns(object) && !object.has_our_finalizer() && object.label(labels::ROLE).is_some() {
            Arc::make_mut(object).metadata.finalizers = Some(vec![FINALIZER.to_owned()]);
        }
    }
}

/// Sets the verdicts on the user's objects to the current generation. With `all`, sets a valid verdict on every object.
fn judged(observed: &mut Observed, all: bool) {
    for service in observed.extension_services.values_mut() {
        let service = Arc::make_mut(service);
        let generation = service.metadata.generation.unwrap_or_default();
        if all {
            let condition = json!({"type": "Valid", "status": "True", "observedGeneration": generation});
            service.status.conditions = vec![serde_json::from_value(condition).expect("a condition")];
        }
        for condition in &mut service.status.conditions {
            condition.observed_generation = generation;
        }
    }
}
