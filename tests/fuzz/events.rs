//! Converts bytes to a sequence of events on the simulated cluster: events of the user, of Kubernetes, of Contour, of another
//! user who changes Slipway's objects, of a tenant who imitates Slipway's objects in an unreferenced namespace or beside a
//! service, and of the operator, crashes included.
//!
//! Properties: nothing panics. After every single write the `invariants` hold. After a whole reconcile the planned stand-ins
//! point at nothing, or at what Contour has judged valid. When the events stop, the cluster settles in the state of a cluster
//! that was built in order. If the ContourDeployment is gone, Slipway leaves no trace.

use std::collections::BTreeSet;
use std::time::Duration;

use arbitrary::{Arbitrary, Unstructured};
use serde_json::{Value, json};
use slipway::api::vocabulary::annotations;
use slipway::plan::{Key, Kind, NamespacePhase, Object, ours};

use crate::api_server::By;
use crate::cluster::{Cluster, NAMESPACE, deployment_key, described, startup_inputs};
use crate::imitations::{self, ALICE, Imitation};
use crate::invariants::unusable_startup_inputs;
use crate::scene::is_blackhole;

/// The maximum number of events. Longer sequences take longer and find no more.
const LONGEST: usize = 48;

/// The namespace of an object of the user.
#[derive(Arbitrary, Clone, Copy, Debug)]
enum Place {
    Auth,
    Limits,
    Own,
}

impl Place {
    fn name(self) -> &'static str {
        match self {
            Self::Auth => "auth",
            Self::Limits => "limits",
            Self::Own => NAMESPACE,
        }
    }
}

/// The spec of an ExtensionService.
#[derive(Arbitrary, Clone, Copy, Debug)]
enum Shape {
    Plain,
    OtherService,
    Timeout,
    OtherTimeout,
    NoDuration,
}

impl Shape {
    fn spec(self) -> Value {
        let service = if matches!(self, Self::OtherService) {
            "other"
        } else {
            "one"
        };
        let mut spec = json!({"protocol": "h2c", "services": [{"name": service, "port": 9001}]});
        match self {
            Self::Plain | Self::OtherService => {}
            Self::Timeout => spec["timeoutPolicy"] = json!({"response": "500ms"}),
            Self::OtherTimeout => spec["timeoutPolicy"] = json!({"response": "2s"}),
            Self::NoDuration => spec["timeoutPolicy"] = json!({"response": "s"}),
        }
        spec
    }
}

/// The spec of the ContourDeployment.
#[derive(Arbitrary, Clone, Copy, Debug)]
struct Asked {
    auth: Option<(Place, bool)>,
    limits: Option<(Place, bool)>,
    tracing: Option<Place>,
    deployment: bool,
    debug: bool,
}

impl Asked {
    fn spec(self) -> Value {
        let reference = |place: Place| json!({"namespace": place.name(), "name": "one"});
        let mut settings = json!({});
        if let Some((place, fail_open)) = self.auth {
            settings["globalExtAuth"] = json!({"extensionRef": reference(place), "failOpen": fail_open});
        }
        if let Some((place, fail_open)) = self.limits {
            settings["rateLimitService"] =
                json!({"extensionService": reference(place), "domain": "edge", "failOpen": fail_open});
        }
        if let Some(place) = self.tracing {
            settings["tracing"] = json!({"extensionService": reference(place)});
        }
        let envoy = if self.deployment { "Deployment" } else { "DaemonSet" };
        let level = if self.debug { "debug" } else { "info" };
        json!({"runtimeSettings": settings, "envoy": {"workloadType": envoy}, "contour": {"logLevel": level}})
    }
}

/// A change of one of Slipway's objects by another user.
#[derive(Arbitrary, Clone, Debug)]
enum Touch {
    Delete,
    StripLabels,
    StripOwners,
    StripAnnotations,
    Memory(String),
    Respond,
    Repoint,
}

#[derive(Arbitrary, Clone, Debug)]
enum Event {
    // Events of the user.
    CreateNamespace(Place),
    DeleteNamespace(Place),
    CreateService(Place),
    DeleteService(Place),
    CreateExtensionService(Place, Shape),
    EditExtensionService(Place, Shape),
    DeleteExtensionService(Place),
    Specify(Asked),
    DeleteContourDeployment,
    RefuseSettings(bool),
    // Events of Kubernetes and Contour.
    NewPodsStart,
    OldPodsTerminate,
    TerminatingPodsEnd,
    CollectGarbage,
    FinalizeNamespaces,
    SecondsPass(u8),
    ContourJudges,
    ContourWritesVerdict(Place, u8),
    // Events of another user.
    Touch(u8, Touch),
    // Events of a tenant.
    Imitate(Option<Place>, Imitation),
    ChangeImitation(u8, Imitation),
    DeleteImitation(u8),
    // Events of the operator.
    Reconcile,
    Crash(u8),
}

/// Checks the sequence of events that the bytes describe. Returns the number of events.
pub fn check(bytes: &[u8]) -> usize {
    let mut input = Unstructured::new(bytes);
    let mut world = World::new();
    let mut count = 0;
    while !input.is_empty() && count < LONGEST {
        let Ok(event) = Event::arbitrary(&mut input) else { break };
        if std::env::var_os("TRACE").is_some() {
            eprintln!("{event:?}");
        }
        world.apply_event(event);
        count += 1;
    }
    world.assert_settles();
    count
}

struct World {
    cluster: Cluster,
    /// The specs of ExtensionServices that Contour has judged valid.
    proven: Vec<Value>,
    /// The keys of the objects that the tenant has created.
    imitations: Vec<Key>,
}

impl World {
    fn new() -> Self {
        let mut cluster = Cluster::new();
        cluster.create_namespace(ALICE);
        cluster.specify(
            Asked {
                auth: Some((Place::Auth, false)),
                limits: None,
                tracing: None,
                deployment: false,
                debug: false,
            }
            .spec(),
        );
        Self {
            cluster,
            proven: Vec::new(),
            imitations: Vec::new(),
        }
    }

    fn apply_event(&mut self, event: Event) {
        let cluster = &mut self.cluster;
        match event {
            Event::CreateNamespace(place) => {
                attempt(cluster, Kind::Namespace, json!({"metadata": {"name": place.name()}}));
            }
            Event::DeleteNamespace(place) => delete(cluster, &Key::new(Kind::Namespace, "", place.name())),
            Event::CreateService(place) => create_service(cluster, place),
            Event::DeleteService(place) => delete(cluster, &Key::new(Kind::Service, place.name(), "one")),
            Event::CreateExtensionService(place, shape) => {
                let metadata = json!({"name": "one", "namespace": place.name()});
                attempt(
                    cluster,
                    Kind::ExtensionService,
                    json!({"metadata": metadata, "spec": shape.spec()}),
                );
            }
            Event::EditExtensionService(place, shape) => {
                let key = Key::new(Kind::ExtensionService, place.name(), "one");
                if cluster.api.objects.contains_key(&key) {
                    let edit = |object: &mut Object| drop(object.content.insert("spec".into(), shape.spec()));
                    cluster.api.edit(&key, edit);
                }
            }
            Event::DeleteExtensionService(place) => {
                delete(cluster, &Key::new(Kind::ExtensionService, place.name(), "one"));
            }
            Event::Specify(asked) => specify(cluster, asked),
            Event::DeleteContourDeployment => delete(cluster, &deployment_key()),
            Event::RefuseSettings(refused) => {
                cluster.refuses_settings = refused.then(|| "no".to_owned());
                // A process checks settings only once.
                cluster.restart();
            }
            Event::NewPodsStart => cluster.new_pods_start(),
            Event::OldPodsTerminate => cluster.old_pods_terminate(),
            Event::TerminatingPodsEnd => cluster.terminating_pods_end(),
            Event::CollectGarbage => cluster.collect_garbage(),
            Event::FinalizeNamespaces => cluster.finalize_namespaces(),
            Event::SecondsPass(seconds) => cluster.api.now += Duration::from_secs(seconds.into()),
            Event::ContourJudges => cluster.contour_judges(),
            Event::ContourWritesVerdict(place, what) => {
                const REASONS: [&str; 3] = ["ServiceUnresolvedReference", "SecretNotValid", "TLSUpstreamValidation"];
                let key = Key::new(Kind::ExtensionService, place.name(), "one");
                if cluster.api.objects.contains_key(&key) {
                    match what {
                        0..192 => {
                            let reason = REASONS[usize::from(what) % REASONS.len()];
                            cluster.contour_writes_verdict(&key, Err((reason, "no")));
                        }
                        192..240 => cluster.contour_writes_verdict_on_predecessor(&key, 1 + i64::from(what % 3)),
                        240.. => cluster.contour_loses_its_verdicts(),
                    }
                }
            }
            Event::Touch(which, touch) => touched(cluster, which, &touch),
            Event::Imitate(place, imitation) => {
                // Only administrators of the ContourDeployment write in the namespace of the ContourDeployment.
                let place = place
                    .filter(|place| !matches!(place, Place::Own))
                    .map_or(ALICE, Place::name);
                let key = imitation.key(place);
                if !cluster.api.objects.contains_key(&key) {
                    attempt(cluster, key.kind, imitation.object(place));
                    self.imitations.push(key);
                }
            }
            Event::ChangeImitation(which, imitation) => {
                if let Some(key) = self.imitation(which) {
                    self.change_imitation(&key, imitation);
                }
            }
            Event::DeleteImitation(which) => {
                if let Some(key) = self.imitation(which) {
                    delete(&mut self.cluster, &key);
                }
            }
            Event::Reconcile => {
                self.learn();
                self.cluster.reconcile();
                self.check_stand_ins();
                self.cluster.observe().iter().for_each(imitations::check_influence);
            }
            Event::Crash(survived) => drop(cluster.reconcile_until_crash(usize::from(survived % 32))),
        }
    }

    /// Returns one of the tenant's objects that still exist.
    fn imitation(&self, which: u8) -> Option<Key> {
        let there = |key: &&Key| self.cluster.api.objects.contains_key(*key);
        let left: Vec<&Key> = self.imitations.iter().filter(there).collect();
        let index = usize::from(which).checked_rem(left.len())?;
        Some(left[index].clone())
    }

    /// Makes an imitation equal to another imitation of the same kind.
    fn change_imitation(&mut self, key: &Key, like: Imitation) {
        let mut other = like.object(&key.namespace);
        if like.kind() != key.kind {
            return;
        }
        other["metadata"]["name"] = key.name.clone().into();
        let other = Object::from_json(key.kind, other).expect("an object");
        let owner = self.cluster.observe().map(|observed| observed.owner());
        let is_owned = |object: &Object| owner.as_ref().is_some_and(|owner| owner.owns(object));
        // A tenant who removes every label turns the imitation into an object without any relation to Slipway.
        if is_owned(&self.cluster.api.objects[key]) && !is_owned(&other) {
            return;
        }
        self.cluster.api.edit(key, |live| {
            live.metadata.labels = other.metadata.labels;
            live.metadata.annotations = other.metadata.annotations;
            if !live.is_terminating() {
                live.metadata.finalizers = other.metadata.finalizers;
            }
            live.content.extend(other.content);
        });
    }

    /// Deletes the imitations beside a service that Slipway has not changed, because such an imitation may occupy a name that
    /// Slipway needs.
    fn remove_untouched_imitations(&mut self) {
        let keys: Vec<Key> = self
            .imitations
            .iter()
            .filter(|key| key.namespace != ALICE)
            .cloned()
            .collect();
        for key in keys {
            if self.cluster.api.objects.get(&key).is_some_and(imitations::is_untouched) {
                self.cluster.api.forget(&key);
            }
        }
    }

    /// Records the specs that Contour has judged valid. Slipway may copy these specs from now on.
    fn learn(&mut self) {
        let owner = self.cluster.observe().map(|observed| observed.owner());
        for object in self.cluster.api.of_kind(Kind::ExtensionService) {
            let theirs = !owner.as_ref().is_some_and(|owner| owner.owns(object)) || is_trial(object.name());
            let valid = object.at("/status/conditions/0").is_some_and(|condition| {
                condition["status"] == "True" && condition["observedGeneration"].as_i64() == object.metadata.generation
            });
            if let Some(spec) = object.at("/spec").filter(|_| theirs && valid) {
                self.proven.push(spec.clone());
            }
        }
    }

    /// Checks the stand-ins that Contour's Deployment names, if Slipway is responsible for the Deployment.
    fn check_stand_ins(&self) {
        let Some(observed) = self.cluster.observe() else { return };
        let is_kept = observed.deployment.metadata.deletion_timestamp.is_none()
            && observed.namespace(NAMESPACE) == Some(NamespacePhase::Active);
        let contour = self.cluster.api.get(Kind::Deployment, NAMESPACE, "edge-contour");
        let Some(contour) = contour.filter(|contour| is_kept && !contour.is_terminating()) else {
            return;
        };
        for id in startup_inputs(contour)["standIns"]
            .as_array()
            .into_iter()
            .flatten()
            .filter_map(Value::as_str)
        {
            let (namespace, name) = id.split_once('/').expect("namespace/name");
            let Some(stand_in) = observed.object(Kind::ExtensionService, namespace, name) else {
                continue;
            };
            // Slipway nudges Contour with a weight. No spec of the user has a weight.
            let mut spec = stand_in.at("/spec").expect("a spec").clone();
            let services = spec["services"].as_array_mut().into_iter().flatten();
            services
                .filter_map(Value::as_object_mut)
                .for_each(|service| drop(service.remove("weight")));
            assert!(
                is_blackhole(stand_in) || self.proven.contains(&spec),
                "stand-in {id} has a spec that Contour has not judged: {spec}"
            );
        }
    }

    /// Stops the events, settles the cluster, and compares the cluster with a cluster that was built in order.
    fn assert_settles(&mut self) {
        self.cluster.refuses_settings = None;
        self.cluster.restart();
        self.cluster.settle();
        self.remove_untouched_imitations();
        let cluster = &mut self.cluster;
        // Ten minutes are enough for a delayed succession and for nudges of Contour.
        cluster.api.now += Duration::from_mins(10);
        cluster.settle();
        let Some(observed) = cluster.observe() else {
            let left = marked(cluster, &self.imitations);
            assert_eq!(
                left, [""; 0],
                "Slipway leaves no objects after the ContourDeployment is gone"
            );
            return;
        };
        assert_eq!(unusable_startup_inputs(cluster), BTreeSet::new());
        let planned = cluster.plan();
        let left: Vec<_> = planned.waves.iter().flat_map(|wave| wave.writes.clone()).collect();
        assert!(planned.is_settled(), "{:?}", described(&left));
        assert_eq!(planned.status, cluster.status());
        self.learn();
        self.check_stand_ins();
        imitations::check_influence(&self.cluster.observe().expect("the ContourDeployment exists"));
        let cluster = &self.cluster;
        assert_eq!(
            left_over(cluster),
            [""; 0],
            "Slipway deletes objects that look like leftovers"
        );
        let mut fresh = Cluster::new();
        for object in cluster.api.objects.values().filter(|object| is_the_users(object)) {
            let mut object = object.clone();
            object.content.remove("status");
            object.metadata.generation = None;
            if !fresh.api.objects.contains_key(&object.key()) {
                fresh.api.create(object, By::Others).expect("the object can be created");
            }
        }
        let spec = serde_json::to_value(&observed.deployment.spec).expect("a spec is JSON");
        fresh.specify(spec);
        fresh.settle();
        assert_eq!(
            inventory(cluster),
            inventory(&fresh),
            "the same objects as in a cluster that was built in order"
        );
        let told = |cluster: &Cluster| {
            let services = cluster.status().extension_services.into_iter();
            services
                .map(|service| (service.role, service.state, service.traffic))
                .collect::<Vec<_>>()
        };
        assert_eq!(
            told(cluster),
            told(&fresh),
            "the same status as in a cluster that was built in order"
        );
    }
}

/// Reports whether an ExtensionService of this name is a trial: a copy of the user's ExtensionService that Contour judges but
/// does not use.
fn is_trial(name: &str) -> bool {
    name.starts_with("edge-trial-")
}

/// Creates an object as another user would. Ignores a refusal by the API server.
fn attempt(cluster: &mut Cluster, kind: Kind, json: Value) {
    drop(
        cluster
            .api
            .create(Object::from_json(kind, json).expect("an object"), By::Others),
    );
}

fn delete(cluster: &mut Cluster, key: &Key) {
    if let Some(uid) = cluster.api.objects.get(key).map(|object| object.uid().to_owned()) {
        cluster.api.delete(key, &uid).expect("the object exists");
    }
}

fn create_service(cluster: &mut Cluster, place: Place) {
    let (namespace, labels) = (place.name(), json!({"kubernetes.io/service-name": "one"}));
    let spec = json!({"selector": {"app": "one"}, "ports": [{"port": 9001}]});
    attempt(
        cluster,
        Kind::Service,
        json!({"metadata": {"name": "one", "namespace": namespace}, "spec": spec}),
    );
    let metadata = json!({"name": "one-x", "namespace": namespace, "labels": labels});
    let endpoints = json!([{"addresses": ["10.0.0.7"], "conditions": {"ready": true}}]);
    attempt(
        cluster,
        Kind::EndpointSlice,
        json!({"metadata": metadata, "endpoints": endpoints}),
    );
}

fn specify(cluster: &mut Cluster, asked: Asked) {
    let namespace = cluster.api.get(Kind::Namespace, "", NAMESPACE);
    let can_be_made = namespace.is_some_and(|namespace| !namespace.is_terminating());
    if can_be_made || cluster.api.objects.contains_key(&deployment_key()) {
        cluster.specify(asked.spec());
    }
}

/// Changes one of the objects that Slipway has created, as another user would.
fn touched(cluster: &mut Cluster, which: u8, touch: &Touch) {
    let Some(observed) = cluster.observe() else { return };
    let made: Vec<Key> = ours(
        &observed.owner(),
        &observed.deployment.spec.runtime_settings,
        &observed.objects,
    )
    .map(Object::key)
    .filter(|key| !matches!(key.kind, Kind::Pod | Kind::ReplicaSet))
    .collect();
    if made.is_empty() {
        return;
    }
    let key = &made[usize::from(which) % made.len()];
    if matches!(touch, Touch::Delete) {
        return delete(cluster, key);
    }
    let mut object = cluster.api.objects[key].clone();
    change(&mut object, touch);
    // A user who removes every label turns the object into an object of the user.
    if observed.owner().owns(&object) {
        cluster.api.edit(key, |live| *live = object);
    }
}

fn change(object: &mut Object, touch: &Touch) {
    let is_stand_in = object.kind == Kind::ExtensionService;
    let mut set = |field: &str, value: Value| {
        if let Some(Value::Object(spec)) = object.content.get_mut("spec").filter(|_| is_stand_in) {
            spec.insert(field.to_owned(), value);
        }
    };
    match touch {
        Touch::Delete => {}
        Touch::StripLabels => object.metadata.labels = None,
        Touch::StripOwners => object.metadata.owner_references = None,
        Touch::StripAnnotations => object.metadata.annotations = None,
        Touch::Memory(text) => object.annotate(annotations::PERSISTED_STATE, text.clone()),
        Touch::Respond => set("timeoutPolicy", json!({"response": "9s"})),
        Touch::Repoint => set("services", json!([{"name": "other", "port": 9001}])),
    }
}

fn is_the_users(object: &Object) -> bool {
    let is_theirs = matches!(
        object.kind,
        Kind::Service | Kind::ExtensionService | Kind::EndpointSlice
    ) && object.name().starts_with("one");
    object.kind == Kind::Namespace || is_theirs
}

/// Returns the objects that bear a label or the finalizer of Slipway and are not imitations.
fn marked(cluster: &Cluster, imitations: &[Key]) -> Vec<String> {
    let is_imitation = |object: &Object| {
        object.namespace() == ALICE || (imitations.contains(&object.key()) && imitations::is_untouched(object))
    };
    let is_marked =
        |object: &&Object| object.label("app.kubernetes.io/managed-by").is_some() || object.has_our_finalizer();
    let objects = cluster.api.objects.values().filter(is_marked);
    let objects = objects.filter(|object| !is_imitation(object));
    objects.map(|object| object.key().to_string()).collect()
}

/// Returns the objects in an unreferenced namespace that look like leftovers of Slipway: objects with both labels and a
/// stand-in's name that are not Terminating.
fn left_over(cluster: &Cluster) -> Vec<String> {
    let owner = cluster.observe().expect("the ContourDeployment exists").owner();
    let is_left = |object: &&Object| {
        let may_be_left = matches!(object.kind, Kind::ExtensionService | Kind::Service);
        let bears_our_marks = owner.is_named_by(object) && owner.is_stand_in(object.name());
        object.namespace() == ALICE && may_be_left && bears_our_marks && !object.is_terminating()
    };
    let objects = cluster.api.objects.values().filter(is_left);
    objects.map(|object| object.key().to_string()).collect()
}

/// Returns the keys of all objects of Slipway without the hashes in names and without trials. The hashes may differ because of
/// salts and of timeouts that are pinned for an absent object. A cluster that was built in order needs no trials, because no
/// verdict was about another object.
fn inventory(cluster: &Cluster) -> BTreeSet<String> {
    let observed = cluster.observe().expect("the ContourDeployment exists");
    let settings = &observed.deployment.spec.runtime_settings;
    let owner = observed.owner();
    let made = ours(&owner, settings, &observed.objects).map(Object::key);
    let made = made.filter(|key| !matches!(key.kind, Kind::Pod | Kind::ReplicaSet) && !is_trial(&key.name));
    let without_hash = made.map(|key| {
        let text = key.to_string();
        match text.rsplit_once('-') {
            Some((name, hash)) if hash.len() == 10 => name.to_owned(),
            _ => text,
        }
    });
    without_hash.collect()
}
