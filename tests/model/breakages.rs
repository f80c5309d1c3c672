//! Guards that are removed on purpose, one line each, around the real plan and the real order of its execution. Each must be
//! found out: a search that does not tell these from the product proves nothing.

use std::sync::Arc;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use serde_json::{Map, Value, json};
use slipway::api::vocabulary::{FINALIZER, annotations, labels};
use slipway::plan::{Kind, Object, Observed, Owner, Plan, Target, Wave, Write, hash, hash_json};

use crate::checks::MOST_SALT;
use crate::scopes::{ALICE, AUTH};

/// What is removed from how a plan is carried out.
#[derive(Clone, Copy, Debug, Default)]
#[allow(clippy::struct_excessive_bools)] // one at a time
pub struct Flaws {
    /// Deletions carry no uid.
    pub ignores_uid: bool,
    /// Nothing is read from the API server before a deletion.
    pub never_looks: bool,
    /// A name that is taken is taken over.
    pub adopts: bool,
    /// What is refused in another namespace stops what comes after it.
    pub stops_at_refusals: bool,
}

/// A guard that is removed.
pub struct Breakage {
    pub name: &'static str,
    /// In which scope it is found out.
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
        never_looks: false,
        adopts: false,
        stops_at_refusals: false,
    },
};

/// All of them.
pub static ALL: &[Breakage] = &[
    Breakage {
        name: "Contour before the blackholes of its stand-ins",
        plan: |observed, plan| contour_first(observed, plan, "blackholes"),
        ..NONE
    },
    Breakage {
        name: "Contour before its ContourConfiguration",
        plan: |observed, plan| contour_first(observed, plan, "configurations"),
        ..NONE
    },
    Breakage {
        name: "Contour before its stand-ins",
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
        name: "no finalizer on the ContourDeployment",
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
        name: "the verdict on an older generation counts",
        scope: "edits",
        observe: |observed| judged(observed, false),
        ..NONE
    },
    Breakage {
        name: "an object that nobody has judged is copied",
        observe: |observed| judged(observed, true),
        ..NONE
    },
    Breakage {
        name: "Terminating pods are forgotten",
        scope: "rollout",
        observe: |observed| {
            observed
                .objects
                .retain(|_, object| object.kind != Kind::Pod || !object.is_terminating());
        },
        ..NONE
    },
    Breakage {
        name: "a ContourConfiguration without the block while the service is missing",
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
        name: "nothing is looked at before a deletion",
        scope: "rollouts",
        apply: Flaws {
            never_looks: true,
            ..NONE.apply
        },
        ..NONE
    },
    Breakage {
        name: "ReplicaSets are forgotten",
        scope: "rollouts",
        observe: |observed| observed.objects.retain(|_, object| object.kind != Kind::ReplicaSet),
        ..NONE
    },
    Breakage {
        name: "a controller that has not caught up is taken for one that has",
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
        name: "facts that change do not retire",
        scope: "facts",
        plan: |_, plan| {
            for object in created(plan).filter(|object| object.kind == Kind::ExtensionService) {
                remember(object, |memory| drop(memory.remove("retired")));
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
        name: "a bare False of any Contour's withdraws a copy",
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
        name: "Contour is not nudged when a Service comes late",
        scope: "services",
        plan: |_, plan| without_nudges(plan, false),
        ..NONE
    },
    Breakage {
        name: "Contour is not nudged when its word is lost",
        scope: "lost words",
        plan: |_, plan| without_nudges(plan, true),
        ..NONE
    },
    Breakage {
        name: "what Contour never judges is not tried",
        scope: "verdicts on another",
        plan: |_, plan| {
            let is_trial = |write: &Write| matches!(write, Write::Create(object) if object.name().contains("-trial-"));
            plan.waves
                .iter_mut()
                .for_each(|wave| wave.writes.retain(|write| !is_trial(write)));
        },
        ..NONE
    },
    Breakage {
        name: "an withdrawn copy comes back by itself",
        scope: "services",
        observe: |observed| {
            for object in observed
                .objects
                .values_mut()
                .filter(|object| object.kind == Kind::ExtensionService)
            {
                remember(Arc::make_mut(object), |memory| drop(memory.remove("withdrawn")));
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
        name: "a name that is taken is taken over",
        scope: "names again",
        apply: Flaws {
            adopts: true,
            ..NONE.apply
        },
        ..NONE
    },
    Breakage {
        name: "stand-ins do not wait for the end of Contour's pods",
        scope: "deletion",
        observe: |observed| {
            if observed.deployment.metadata.deletion_timestamp.is_some() {
                observed.objects.retain(|_, object| object.kind != Kind::Pod);
            }
        },
        ..NONE
    },
    Breakage {
        name: "the ContourDeployment goes before its stand-ins",
        scope: "deletion",
        plan: |observed, plan| {
            let deletes = plan
                .waves
                .iter()
                .any(|wave| wave.name == "stand-ins" && !wave.writes.is_empty());
            if deletes && observed.deployment.metadata.deletion_timestamp.is_some() {
                let target = Target::of_deployment(&observed.deployment);
                plan.waves
                    .insert(0, Wave::of("too early", vec![Write::Release(target)]));
            }
        },
        ..NONE
    },
    Breakage {
        name: "what the Deployment does not control is not held for",
        scope: "deletion",
        observe: forget_strangers,
        ..NONE
    },
    Breakage {
        name: "a pod elsewhere is held for",
        scope: "tenant",
        observe: |observed| {
            for pod in elsewhere(observed, Kind::Pod) {
                bring_home(observed, &pod);
            }
        },
        ..NONE
    },
    Breakage {
        name: "what a pod elsewhere has captured is needed",
        scope: "tenant",
        observe: |observed| {
            for pod in elsewhere(observed, Kind::Pod) {
                believe(observed, &pod, &json!(pod.metadata.annotations));
            }
        },
        ..NONE
    },
    Breakage {
        name: "the template of a ReplicaSet that is not the Deployment's counts",
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
        name: "a Deployment elsewhere is taken for Contour's",
        scope: "tenant",
        observe: |observed| {
            for deployment in elsewhere(observed, Kind::Deployment) {
                bring_home(observed, &deployment);
            }
        },
        ..NONE
    },
    Breakage {
        name: "a configuration elsewhere is the last good one if it says so, whatever Contour runs on",
        scope: "tenant",
        observe: |observed| {
            for configuration in elsewhere(observed, Kind::ContourConfiguration) {
                bring_home(observed, &configuration);
                forget_what_is_available(observed);
            }
        },
        ..NONE
    },
    Breakage {
        name: "a configuration is the last good one if it says so, without a proof",
        scope: "configurations",
        observe: |observed| {
            forget_what_is_available(observed);
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
        name: "a stand-in counts in a namespace that nothing refers to",
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
        name: "numbers have no bounds",
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
                remember(object, |memory| {
                    drop(memory.insert("salt".to_owned(), json!(highest + 1)));
                });
            }
        },
        ..NONE
    },
    Breakage {
        name: "what bears our labels is taken away wherever it is",
        scope: "tenant",
        plan: |observed, plan| {
            if plan.is_settled() {
                let elsewhere = Kind::ALL.iter().flat_map(|kind| elsewhere(observed, *kind));
                let writes = elsewhere.map(|object| Write::Delete(Target::of(&object)));
                plan.waves = vec![Wave::of("what bears our labels", writes.collect())];
            }
        },
        ..NONE
    },
    Breakage {
        name: "what can't be taken away elsewhere is waited for",
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
        name: "what was refused elsewhere is forgotten, and stops what comes after it",
        scope: "tenant",
        observe: |observed| observed.attempts = Arc::default(),
        apply: Flaws {
            stops_at_refusals: true,
            ..NONE.apply
        },
        ..NONE
    },
    Breakage {
        name: "a name that is taken beside the service is insisted on",
        scope: "tenant beside the service",
        observe: |observed| observed.attempts = Arc::default(),
        ..NONE
    },
];

/// The breakage of this name.
pub fn named(name: &str) -> &'static Breakage {
    ALL.iter()
        .find(|breakage| breakage.name == name)
        .unwrap_or_else(|| panic!("no breakage is called {name:?}"))
}

/// What a tenant made in a namespace that nothing refers to.
fn elsewhere(observed: &Observed, kind: Kind) -> Vec<Arc<Object>> {
    let objects = observed.objects.values();
    let objects = objects.filter(|object| object.namespace() == ALICE && object.kind == kind);
    objects.cloned().collect()
}

/// An object is taken for one of the ContourDeployment's namespace.
fn bring_home(observed: &mut Observed, object: &Object) {
    let mut object = object.clone();
    object.metadata.namespace = Some(observed.owner().namespace);
    observed.objects.insert(object.key(), Arc::new(object));
}

/// These annotations are taken for those of a template of a ReplicaSet of Contour's Deployment.
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

/// Nothing is seen of the ReplicaSets that Contour's pods are available of.
fn forget_what_is_available(observed: &mut Observed) {
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

/// ReplicaSets and pods that the present Deployment does not control are not seen.
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

/// Changes the metadata of ContourConfigurations.
fn each_configuration(observed: &mut Observed, change: impl Fn(&mut ObjectMeta)) {
    let all = observed.objects.values_mut();
    for object in all.filter(|object| object.kind == Kind::ContourConfiguration) {
        change(&mut Arc::make_mut(object).metadata);
    }
}

/// The name that proves what is in a configuration.
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

/// Changes what is remembered on a stand-in.
fn remember(object: &mut Object, change: impl FnOnce(&mut Map<String, Value>)) {
    let Some(text) = object.annotation(annotations::PERSISTED_STATE) else {
        return;
    };
    if let Ok(Value::Object(mut memory)) = serde_json::from_str(text) {
        change(&mut memory);
        object.annotate(annotations::PERSISTED_STATE, Value::Object(memory).to_string());
    }
}

/// Contour is rolled before this wave, to what this one and the others create.
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

/// Contour is not nudged for its silence, or not for Services that it did not find.
fn without_nudges(plan: &mut Plan, for_silence: bool) {
    // That is for a generation of an object, which is remembered with it.
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

/// Objects of this kind are made without our finalizer, and it is not missed.
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

/// The user's objects look as if Contour had found them valid: those that it has judged at some time, or all.
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
