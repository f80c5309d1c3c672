//! A cluster with Slipway in it: gathers what is observed, plans, and carries the plan out against the API server. After
//! each write it checks what must hold at every moment.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Once};
use std::{env, panic, process};

use serde_json::{Value, json};
use slipway::api::vocabulary::annotations;
use slipway::api::{ContourDeployment, ContourDeploymentStatus};
use slipway::plan::{
    Attempts, Failure, FailureCause, Key, Kind, NamespacePhase, NamespacedName, Object, Observed, Plan, Question,
    ServiceAccountRef, SettingsVerdict, Write, has_ready_endpoint, ours, plan, targets,
};
use slipway::render::answered;

use crate::api_server::{ApiServer, By, Refusal};
use crate::controllers::LookedAt;

/// The ContourDeployment of all tests.
pub const NAMESPACE: &str = "projectcontour";
pub const NAME: &str = "edge";

/// Plans that may follow each other until nothing is left to write.
pub const ROUNDS: usize = 12;

#[derive(Clone)]
pub struct Cluster {
    pub api: ApiServer,
    pub missing_crds: Vec<String>,
    /// The API server's words on any settings, if it refuses them.
    pub refuses_settings: Option<String>,
    /// What is created in these namespaces is refused: their quota is used up.
    pub full: BTreeSet<String>,
    /// Writes of objects of this name fail.
    pub forbids: Option<String>,
    pub pods_made: u64,
    /// Every ContourConfiguration that was ever made, as it was made.
    pub configurations: BTreeMap<String, Value>,
    /// What Contour has looked at; none: it will look again.
    pub looked_at: Option<BTreeSet<LookedAt>>,
    answer: SettingsVerdict,
    attempts: Arc<Attempts>,
}

impl Cluster {
    /// With the ContourDeployment's namespace, and nothing else.
    pub fn new() -> Self {
        fail_fast();
        let mut cluster = Self {
            api: ApiServer::new(),
            missing_crds: Vec::new(),
            refuses_settings: None,
            full: BTreeSet::new(),
            forbids: None,
            pods_made: 0,
            configurations: BTreeMap::new(),
            looked_at: None,
            answer: SettingsVerdict::Unchecked,
            attempts: Arc::default(),
        };
        cluster.make_namespace(NAMESPACE);
        cluster
    }

    pub fn make_namespace(&mut self, name: &str) {
        self.make(Kind::Namespace, json!({"metadata": {"name": name}}));
    }

    /// Writes the ContourDeployment's spec, making it if need be.
    pub fn specify(&mut self, spec: Value) {
        let key = deployment_key();
        if self.api.objects.contains_key(&key) {
            self.api
                .edit(&key, |object| drop(object.content.insert("spec".into(), spec)));
        } else {
            self.make(
                Kind::ContourDeployment,
                json!({"metadata": {"name": NAME, "namespace": NAMESPACE}, "spec": spec}),
            );
        }
    }

    /// What the controller's gather step would see.
    pub fn observe(&self) -> Option<Observed> {
        let deployment: ContourDeployment = self
            .api
            .objects
            .get(&deployment_key())?
            .parse()
            .expect("a ContourDeployment");
        let mut observed = Observed {
            now: self.api.now,
            deployment: Arc::new(deployment),
            operator: ServiceAccountRef {
                namespace: "slipway-system".into(),
                name: "slipway".into(),
            },
            objects: BTreeMap::new(),
            namespaces: BTreeMap::new(),
            missing_crds: self.missing_crds.clone(),
            admission_problems: Vec::new(),
            extension_services: BTreeMap::new(),
            unchanged_since: BTreeMap::new(),
            services: BTreeMap::new(),
            ready_services: BTreeSet::new(),
            references_synced: true,
            secrets_synced: true,
            settings: self.answer.clone(),
            issued: None,
            failures: Vec::new(),
            attempts: self.attempts.clone(),
        };
        let owner = observed.owner();
        let labelled = self
            .api
            .objects
            .values()
            .filter(|object| object.kind != Kind::ContourDeployment && owner.owns(object));
        observed.objects = labelled
            .map(|object| (object.key(), Arc::new(object.clone())))
            .collect();
        let settings = &observed.deployment.spec.runtime_settings;
        let targets = targets(settings, ours(&owner, settings, &observed.objects));
        for target in &targets {
            if let Some(object) = self.api.get(Kind::ExtensionService, &target.namespace, &target.name) {
                let since = self.api.unchanged_since[&object.key()];
                observed.unchanged_since.insert(target.clone(), since);
                observed
                    .extension_services
                    .insert(target.clone(), Arc::new(object.parse().expect("an ExtensionService")));
            }
        }
        let referenced: BTreeSet<&str> = targets.iter().map(|target| target.namespace.as_str()).collect();
        for object in self
            .api
            .objects
            .values()
            .filter(|object| referenced.contains(object.namespace()))
        {
            let id = |name: &str| NamespacedName::new(object.namespace(), name);
            if object.kind == Kind::Service {
                observed.services.insert(id(object.name()), Arc::new(object.clone()));
            } else if object.kind == Kind::EndpointSlice && has_ready_endpoint(object) {
                observed
                    .ready_services
                    .extend(object.label("kubernetes.io/service-name").map(id));
            }
        }
        let phase = |object: &Object| {
            if object.is_terminating() {
                NamespacePhase::Terminating
            } else {
                NamespacePhase::Active
            }
        };
        let namespaces = self.api.of_kind(Kind::Namespace);
        observed.namespaces = namespaces
            .map(|object| (object.name().to_owned(), phase(object)))
            .collect();
        Some(observed)
    }

    /// The plan for what is there now, with certificates issued.
    pub fn plan(&self) -> Plan {
        let mut observed = self.observe().expect("the ContourDeployment exists");
        Self::plan_for(&mut observed)
    }

    fn plan_for(observed: &mut Observed) -> Plan {
        let planned = plan(observed);
        if planned
            .questions
            .iter()
            .any(|question| matches!(question, Question::Certificates(_)))
        {
            observed.issued = answered(observed).1.issued;
            return plan(observed);
        }
        planned
    }

    /// Another process: what the last one knew is gone.
    pub fn restart(&mut self) {
        self.answer = SettingsVerdict::Unchecked;
        self.attempts = Arc::default();
    }

    /// One reconcile: plans and writes until nothing is left, then the status. Returns the writes.
    pub fn reconcile(&mut self) -> Vec<Write> {
        self.reconcile_until_crash(usize::MAX)
    }

    /// The same by a process that ends after so many writes, and with it all that it knew.
    pub fn reconcile_until_crash(&mut self, survived: usize) -> Vec<Write> {
        let mut written = Vec::new();
        for _ in 0..ROUNDS {
            let Some(mut observed) = self.observe() else {
                return written;
            };
            let planned = Self::plan_for(&mut observed);
            if planned.is_settled() {
                self.report(&planned.status);
                return written;
            }
            let mut failures = Vec::new();
            'waves: for wave in &planned.waves {
                crate::invariants::check_look(wave, &observed);
                for write in &wave.writes {
                    if written.len() == survived {
                        self.restart();
                        return written;
                    }
                    let now = self.api.now;
                    match self.carry_out(write, &observed) {
                        Ok(true) => {
                            let answer = self.api.objects.get(&key_of(write)).cloned();
                            let is_ours = Arc::make_mut(&mut self.attempts).taken(write, answer.as_ref(), now);
                            written.push(write.clone());
                            if !is_ours {
                                break 'waves;
                            }
                        }
                        Ok(false) => break 'waves,
                        // As the operator does it: what fails elsewhere is remembered, and the next plan does without.
                        Err(failure) if observed.owner().is_elsewhere(&failure.key) => {
                            let waits = failure.cause == FailureCause::Transient;
                            Arc::make_mut(&mut self.attempts).failed(write, failure.clone(), now);
                            match write {
                                Write::Create(_) if waits => failures.push(failure),
                                Write::Create(_) => break 'waves,
                                _ => {}
                            }
                        }
                        Err(failure) => failures.push(failure),
                    }
                }
                if !failures.is_empty() {
                    break;
                }
            }
            self.ask(&planned);
            if !failures.is_empty() {
                let Some(mut observed) = self.observe() else {
                    return written;
                };
                observed.failures = failures;
                let planned = Self::plan_for(&mut observed);
                self.report(&planned.status);
                return written;
            }
        }
        let left: Vec<_> = self
            .plan()
            .waves
            .iter()
            .flat_map(|wave| &wave.writes)
            .map(describe)
            .collect();
        panic!("not settled after {ROUNDS} rounds; still to do: {left:?}");
    }

    /// Asks what a plan asks.
    pub fn ask(&mut self, planned: &Plan) {
        for question in &planned.questions {
            if let Question::Settings { hash, candidate } = question {
                self.answer = self.verdict(hash, candidate);
            }
        }
    }

    /// A strict dry run; the CRD has a default.
    fn verdict(&self, hash: &str, candidate: &Object) -> SettingsVerdict {
        let hash = hash.to_owned();
        if let Some(message) = self.refuses_settings.clone() {
            return SettingsVerdict::Refused { hash, message };
        }
        let mut answer = candidate.clone();
        let spec = answer.content["spec"].as_object_mut().expect("a spec");
        spec.entry("xdsServer").or_insert_with(|| json!({"type": "envoy"}));
        SettingsVerdict::of(&hash, candidate, &answer)
    }

    /// False: the world is not as it was observed.
    fn carry_out(&mut self, write: &Write, observed: &Observed) -> Result<bool, Failure> {
        let key = key_of(write);
        let failure = |cause, message: String| Failure {
            key: key.clone(),
            cause,
            message,
        };
        if self.forbids.as_deref() == Some(&key.name) {
            return Err(failure(FailureCause::Forbidden, "forbidden".into()));
        }
        if matches!(write, Write::Create(_)) && self.full.contains(&key.namespace) {
            return Err(failure(FailureCause::Forbidden, "exceeded quota".into()));
        }
        let owner = observed.owner();
        let is_ours = |object: &Object| object.kind == Kind::ContourDeployment || owner.owns(object);
        if let Some(live) = self.api.objects.get(&key)
            && !is_ours(live)
        {
            assert!(matches!(write, Write::Create(_)), "not ours: {}", describe(write));
        }
        crate::invariants::check_place(write, observed, self);
        crate::invariants::check_configuration(write, observed, self);
        let before = crate::invariants::captured_and_unusable(self);
        let result = match write {
            Write::Create(object) => self.api.create(object.clone(), By::Slipway),
            Write::Apply { object, adopt_creation } => self.api.apply(object, adopt_creation.as_ref()),
            Write::Replace(object) => self.api.replace(object),
            Write::Delete(target) => self.api.delete(&target.key, &target.uid),
            Write::Hold(target) => self.api.set_finalizer(target, true),
            Write::Release(target) => self.api.set_finalizer(target, false),
        };
        let after = crate::invariants::captured_and_unusable(self);
        let worse: Vec<_> = after.difference(&before).collect();
        // Without its CRDs Contour has lost its configuration anyway.
        assert!(
            worse.is_empty() || !self.missing_crds.is_empty(),
            "{} makes what a container has captured unusable: {worse:?}",
            describe(write)
        );
        match result {
            Ok(()) => Ok(true),
            Err(Refusal::AlreadyExists) if !self.api.objects.get(&key).is_some_and(is_ours) => Err(failure(
                FailureCause::Collision,
                "an object of this name exists and is not Slipway's".into(),
            )),
            Err(Refusal::AlreadyExists | Refusal::Conflict) => Ok(false),
            Err(Refusal::NotFound) if !matches!(write, Write::Create(_)) => Ok(false),
            Err(Refusal::NotFound) => Err(failure(FailureCause::Transient, "namespace not found".into())),
            Err(Refusal::NamespaceTerminating) => {
                Err(failure(FailureCause::NamespaceTerminating, "being terminated".into()))
            }
            Err(Refusal::Invalid(message)) => Err(failure(FailureCause::Refused, message)),
        }
    }

    fn report(&mut self, status: &ContourDeploymentStatus) {
        let key = deployment_key();
        if self.api.objects.contains_key(&key) {
            let status = serde_json::to_value(status).expect("a status is JSON");
            self.api
                .edit(&key, |object| drop(object.content.insert("status".into(), status)));
        }
    }

    /// Slipway, Kubernetes' controllers and Contour take turns until nothing changes. Returns Slipway's writes.
    pub fn settle(&mut self) -> Vec<Write> {
        let mut written = Vec::new();
        for _ in 0..20 {
            let before = self.api.objects.clone();
            written.extend(self.reconcile());
            self.roll();
            self.contour_looks();
            self.collect_garbage();
            self.namespaces_end();
            if self.api.objects == before {
                return written;
            }
        }
        panic!("it does not come to rest");
    }

    /// The status that was written last.
    pub fn status(&self) -> ContourDeploymentStatus {
        let observed = self.observe().expect("the ContourDeployment exists");
        observed.deployment.status.clone().expect("a status was written")
    }

    /// Status, a slash and reason of a condition; empty if it is absent.
    pub fn condition(&self, type_: &str) -> String {
        let status = self.status();
        let found = status.conditions.iter().find(|condition| condition.type_ == type_);
        found
            .map(|condition| format!("{}/{}", condition.status, condition.reason))
            .unwrap_or_default()
    }

    /// The ContourConfiguration that Contour's Deployment names.
    pub fn configuration(&self) -> Object {
        let name = captured(self.contour())["configuration"]
            .as_str()
            .expect("a name")
            .to_owned();
        self.api
            .get(Kind::ContourConfiguration, NAMESPACE, &name)
            .expect("it exists")
            .clone()
    }

    /// Contour's Deployment.
    pub fn contour(&self) -> &Object {
        self.api
            .get(Kind::Deployment, NAMESPACE, "edge-contour")
            .expect("Contour's Deployment exists")
    }

    /// Deletes an object as a person would.
    pub fn delete(&mut self, kind: Kind, namespace: &str, name: &str) {
        let object = self
            .api
            .get(kind, namespace, name)
            .unwrap_or_else(|| panic!("no {kind} {name}"))
            .clone();
        self.api.delete(&object.key(), object.uid()).expect("it can be deleted");
    }
}

/// With `FAIL_FAST` in the environment the first failure ends the whole run: of a mutant nobody wants to know more.
fn fail_fast() {
    static HOOK: Once = Once::new();
    HOOK.call_once(|| {
        if env::var_os("FAIL_FAST").is_some() {
            panic::set_hook(Box::new(|failure| {
                eprintln!("{failure}");
                process::exit(101);
            }));
        }
    });
}

pub fn deployment_key() -> Key {
    Key::new(Kind::ContourDeployment, NAMESPACE, NAME)
}

/// What Contour's pod template says that a container captures.
pub fn captured(deployment: &Object) -> Value {
    let template = deployment
        .at("/spec/template/metadata/annotations")
        .expect("annotations");
    serde_json::from_str(template[annotations::STARTUP_INPUTS].as_str().expect("captured")).expect("JSON")
}

pub fn key_of(write: &Write) -> Key {
    match write {
        Write::Create(object) | Write::Apply { object, .. } | Write::Replace(object) => object.key(),
        Write::Delete(target) | Write::Hold(target) | Write::Release(target) => target.key.clone(),
    }
}

/// A write in words: `Replace ExtensionService auth/edge-ext-auth-…`.
pub fn describe(write: &Write) -> String {
    let verb = match write {
        Write::Create(_) => "Create",
        Write::Apply { .. } => "Apply",
        Write::Replace(_) => "Replace",
        Write::Delete(_) => "Delete",
        Write::Hold(_) => "Hold",
        Write::Release(_) => "Release",
    };
    format!("{verb} {}", key_of(write))
}

pub fn described(writes: &[Write]) -> Vec<String> {
    writes.iter().map(describe).collect()
}
