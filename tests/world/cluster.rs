//! A cluster with Slipway: observes, plans, and executes the plan against the API server. Checks the invariants after each write.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Once};
use std::{env, panic, process};

use serde_json::{Value, json};
use slipway::api::ContourDeploymentStatus;
use slipway::api::vocabulary::annotations;
use slipway::plan::{
    Attempts, Environment, Failure, FailureCause, Key, Kind, Object, Observed, Plan, Question, SettingsVerdict,
    Snapshot, Write, decode_deployment, plan,
};
use slipway::render::answered;

use super::api_server::{ApiServer, By, Refusal};
use super::controllers::Trigger;

/// The namespace and name of the ContourDeployment in all tests.
pub const NAMESPACE: &str = "projectcontour";
pub const NAME: &str = "edge";

/// The maximum number of consecutive plans until nothing is left to write.
pub const ROUNDS: usize = 12;

#[derive(Clone)]
pub struct Cluster {
    pub api: ApiServer,
    pub missing_crds: Vec<String>,
    /// The message with which the API server refuses any settings. None: the API server accepts settings.
    pub refuses_settings: Option<String>,
    /// Namespaces whose quota is used up. The API server refuses creations in these namespaces.
    pub full: BTreeSet<String>,
    /// The name of objects for which every write fails.
    pub forbidden_name: Option<String>,
    pub pods_created: u64,
    /// The spec of every ContourConfiguration at its creation.
    pub configurations: BTreeMap<String, Value>,
    /// What Contour has processed. None: Contour will process all ExtensionServices again.
    pub judged_triggers: Option<BTreeSet<Trigger>>,
    answer: SettingsVerdict,
    attempts: Arc<Attempts>,
}

impl Cluster {
    /// Returns a cluster in which only the ContourDeployment's namespace exists.
    pub fn new() -> Self {
        fail_fast();
        let mut cluster = Self {
            api: ApiServer::new(),
            missing_crds: Vec::new(),
            refuses_settings: None,
            full: BTreeSet::new(),
            forbidden_name: None,
            pods_created: 0,
            configurations: BTreeMap::new(),
            judged_triggers: None,
            answer: SettingsVerdict::Unchecked,
            attempts: Arc::default(),
        };
        cluster.create_namespace(NAMESPACE);
        cluster
    }

    pub fn create_namespace(&mut self, name: &str) {
        self.create(Kind::Namespace, json!({"metadata": {"name": name}}));
    }

    /// Writes the spec of the ContourDeployment. Creates the ContourDeployment if the ContourDeployment does not exist.
    pub fn specify(&mut self, spec: Value) {
        let key = deployment_key();
        if self.api.objects.contains_key(&key) {
            self.api
                .edit(&key, |object| drop(object.content.insert("spec".into(), spec)));
        } else {
            self.create(
                Kind::ContourDeployment,
                json!({"metadata": {"name": NAME, "namespace": NAMESPACE}, "spec": spec}),
            );
        }
    }

    /// Returns what the operator would observe, or None if the ContourDeployment does not exist.
    pub fn observe(&self) -> Option<Observed> {
        let deployment = self.api.objects.get(&deployment_key())?;
        let deployment = decode_deployment(deployment).expect("a ContourDeployment");
        let mut snapshot = Snapshot {
            objects: &self.api.objects,
            unchanged_since: &self.api.unchanged_since,
            environment: Environment {
                missing_crds: self.missing_crds.clone(),
                settings: self.answer.clone(),
                attempts: self.attempts.clone(),
                ..Environment::at(self.api.now)
            },
        };
        Some(Observed::of(&mut snapshot, deployment))
    }

    /// Returns the plan for the current state, with issued certificates.
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

    /// Replaces the operator's process. The new process knows nothing of what the former process knew.
    pub fn restart(&mut self) {
        self.answer = SettingsVerdict::Unchecked;
        self.attempts = Arc::default();
    }

    /// Reconciles once: plans and writes until nothing is left to write, and then writes the status. Returns the writes.
    pub fn reconcile(&mut self) -> Vec<Write> {
        self.reconcile_until_crash(usize::MAX)
    }

    /// Reconciles in a process that is killed after `survived` writes and loses everything that the process knew.
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
                super::invariants::check_live_read(wave, &observed);
                for write in &wave.writes {
                    if written.len() == survived {
                        self.restart();
                        return written;
                    }
                    let now = self.api.now;
                    match self.execute(write, &observed) {
                        Ok(true) => {
                            let answer = self.api.objects.get(&key_of(write)).cloned();
                            let is_ours = Arc::make_mut(&mut self.attempts).taken(write, answer.as_ref(), now);
                            written.push(write.clone());
                            if !is_ours {
                                break 'waves;
                            }
                        }
                        Ok(false) => break 'waves,
                        // As in the operator: a failure in another namespace is recorded, and the next plan works without the
                        // failed write.
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
        panic!("not settled after {ROUNDS} rounds; remaining writes: {left:?}");
    }

    /// Answers the questions of a plan.
    pub fn ask(&mut self, planned: &Plan) {
        for question in &planned.questions {
            if let Question::Settings { hash, candidate, .. } = question {
                self.answer = self.verdict(hash, candidate);
            }
        }
    }

    /// Returns the verdict of a strict dry run. The CRD sets a default.
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

    /// Executes a write. Returns false if the cluster no longer matches the observed state.
    fn execute(&mut self, write: &Write, observed: &Observed) -> Result<bool, Failure> {
        let key = key_of(write);
        let failure = |cause, message: String| Failure {
            key: key.clone(),
            cause,
            message,
        };
        if self.forbidden_name.as_deref() == Some(&key.name) {
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
            assert!(matches!(write, Write::Create(_)), "not Slipway's: {}", describe(write));
        }
        super::invariants::check_place(write, observed, self);
        super::invariants::check_configuration(write, observed, self);
        let before = super::invariants::unusable_startup_inputs(self);
        let result = match write {
            Write::Create(object) => self.api.create(object.clone(), By::Slipway),
            Write::Apply { object, adopt_creation } => self.api.apply(object, adopt_creation.as_ref()),
            Write::Replace(object) => self.api.replace(object),
            Write::Delete(target) => self.api.delete(&target.key, &target.uid),
            Write::Hold(target) => self.api.set_finalizer(target, true),
            Write::Release(target) => self.api.set_finalizer(target, false),
        };
        let after = super::invariants::unusable_startup_inputs(self);
        let worse: Vec<_> = after.difference(&before).collect();
        // Without its CRDs Contour has lost its configuration in any case.
        assert!(
            worse.is_empty() || !self.missing_crds.is_empty(),
            "{} makes startup inputs of a container unusable: {worse:?}",
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

    /// Runs Slipway, Kubernetes' controllers and Contour in turns until nothing changes. Returns Slipway's writes.
    pub fn settle(&mut self) -> Vec<Write> {
        let mut written = Vec::new();
        for _ in 0..20 {
            let before = self.api.objects.clone();
            written.extend(self.reconcile());
            self.roll();
            self.contour_judges_if_triggered();
            self.collect_garbage();
            self.finalize_namespaces();
            if self.api.objects == before {
                return written;
            }
        }
        panic!("the cluster does not settle");
    }

    /// Returns the status that was written last.
    pub fn status(&self) -> ContourDeploymentStatus {
        let observed = self.observe().expect("the ContourDeployment exists");
        observed.deployment.status.clone().expect("a status was written")
    }

    /// Returns the status, a slash and the reason of a condition, or an empty string if the condition is absent.
    pub fn condition(&self, type_: &str) -> String {
        let status = self.status();
        let found = status.conditions.iter().find(|condition| condition.type_ == type_);
        found
            .map(|condition| format!("{}/{}", condition.status, condition.reason))
            .unwrap_or_default()
    }

    /// Returns the ContourConfiguration that Contour's Deployment names.
    pub fn configuration(&self) -> Object {
        let name = startup_inputs(self.contour())["configuration"]
            .as_str()
            .expect("a name")
            .to_owned();
        self.api
            .get(Kind::ContourConfiguration, NAMESPACE, &name)
            .expect("the ContourConfiguration exists")
            .clone()
    }

    /// Returns Contour's Deployment.
    pub fn contour(&self) -> &Object {
        self.api
            .get(Kind::Deployment, NAMESPACE, "edge-contour")
            .expect("Contour's Deployment exists")
    }

    /// Deletes an object as a user would.
    pub fn delete(&mut self, kind: Kind, namespace: &str, name: &str) {
        let object = self
            .api
            .get(kind, namespace, name)
            .unwrap_or_else(|| panic!("no {kind} {name}"))
            .clone();
        self.api
            .delete(&object.key(), object.uid())
            .expect("the object can be deleted");
    }
}

/// Ends the whole run at the first failure if `FAIL_FAST` is set. For a mutant one failure is enough.
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

/// Returns the startup inputs that the pod template of Contour's Deployment declares.
pub fn startup_inputs(deployment: &Object) -> Value {
    let template = deployment
        .at("/spec/template/metadata/annotations")
        .expect("annotations");
    serde_json::from_str(template[annotations::STARTUP_INPUTS].as_str().expect("startup inputs")).expect("JSON")
}

pub fn key_of(write: &Write) -> Key {
    match write {
        Write::Create(object) | Write::Apply { object, .. } | Write::Replace(object) => object.key(),
        Write::Delete(target) | Write::Hold(target) | Write::Release(target) => target.key.clone(),
    }
}

/// Describes a write: `Replace ExtensionService auth/edge-ext-auth-…`.
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
