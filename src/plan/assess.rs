//! Converts the observed state to typed facts, in this file or in the modules that it calls. After this stage only `diff` reads raw
//! objects, to compare them.

use std::collections::BTreeSet;
use std::time::Duration;

use jiff::Timestamp;

use super::certificates::{self, Certificates};
use super::configuration::{self, InUse};
use super::deletion::{self, Deletion};
use super::failure::Failure;
use super::object::Kind;
use super::observed::{Instance, NamespacePhase, Observed};
use super::operand::{contour, envoy};
use super::ownership::Classified;
use super::rollout::{self, OldPods, Rollout, Workload};
use super::settings::{self, Settings};
use super::stand_in::{self, ObservedRole, StandIns};
use super::startup_inputs::{Contours, StartupInputs};
use super::succession;
use super::traffic;
use super::usage::Usage;
use super::waves::Question;
use super::write::Target;
use crate::api::vocabulary::FINALIZER;
use crate::api::{ContourDeployment, Traffic};

/// The assessment of a ContourDeployment and its surroundings.
pub struct Assessment<'a> {
    /// The inputs of the desired objects, apart from decisions.
    pub instance: Instance<'a>,
    /// The ContourDeployment.
    pub deployment: &'a ContourDeployment,
    /// The current time.
    pub now: Timestamp,
    /// The phase of the ContourDeployment.
    pub phase: Phase,
    /// The objects in use.
    pub usage: Usage,
    /// The desired stand-ins and their targets.
    pub stand_ins: StandIns,
    /// The ContourDeployment as a target, if it lacks Slipway's finalizer.
    pub unheld: Option<Target>,
    /// Questions that only the outside can answer.
    pub questions: Vec<Question>,
    /// The failures of this round.
    pub failures: &'a [Failure],
    /// The differences between the admission policies in the cluster and those that this version ships, each as a message.
    pub admission_problems: &'a [String],
    /// Requeue after this time even if no event arrives.
    pub requeue_after: Option<Duration>,
}

/// The phase of a ContourDeployment.
pub enum Phase {
    /// The ContourDeployment is being deleted.
    Deleting(Deletion),
    /// The namespace of the ContourDeployment is being deleted, so nothing can be created in the namespace.
    NamespaceTerminating,
    /// The API server does not serve these CRDs of Contour. Contour cannot start without them.
    CrdsMissing(Vec<String>),
    /// The Secrets of the namespace have not been read yet.
    SecretsUnread,
    /// The API server has not reported its verdict on the settings yet.
    Unchecked(Option<Box<Kept>>),
    /// The settings are invalid. Nothing of this generation is applied.
    Refused(Box<Refused>),
    /// Everything is applied or being rolled out.
    Running(Box<Running>),
}

/// What keeps running while the settings are refused or unchecked.
pub struct Kept {
    /// The certificates, which are renewed before they expire.
    pub certificates: Certificates,
    /// The configurations in use.
    pub configurations: Vec<InUse>,
    /// The inputs for a deleted part that Slipway recreates.
    pub last_good: Option<StartupInputs>,
    /// Whether an Envoy of either workload type exists.
    pub has_envoy: bool,
}

/// The assessment of refused settings.
pub struct Refused {
    /// The reason for the refusal.
    pub message: String,
    /// The observed state of each reference.
    pub roles: Vec<AssessedRole>,
    /// Contour's Deployment.
    pub contour: Workload,
    /// The Envoys, of either workload type.
    pub envoy: Workload,
    /// What keeps running.
    pub kept: Option<Kept>,
}

/// A running Contour and its Envoys.
pub struct Running {
    /// The observed state of each reference.
    pub roles: Vec<AssessedRole>,
    /// The inputs that a container reads if it starts now. None: the ContourConfiguration does not exist yet.
    pub inputs: Option<StartupInputs>,
    /// The ContourConfigurations in use, including the one in `inputs`.
    pub configurations: Vec<InUse>,
    /// The certificates.
    pub certificates: Certificates,
    /// Contour's Deployment.
    pub contour: Workload,
    /// The Envoys, of the specified workload type.
    pub envoy: Workload,
    /// Whether an Envoy of either workload type exists.
    pub has_envoy: bool,
    /// The reason why Envoy waits for Contour, if Envoy waits.
    pub gate: Result<(), String>,
    /// Contour's pods of other templates.
    pub old_pods: OldPods,
    /// The names of the ContourConfigurations that a Contour may have read in another form than the current one.
    pub altered: BTreeSet<String>,
}

/// The observed state of a reference, and the treatment of the requests that the reference affects.
pub struct AssessedRole {
    /// The observed state.
    pub seen: ObservedRole,
    /// The treatment of requests.
    pub traffic: Traffic,
}

/// Assesses the observed state.
pub fn assess(classified: &Classified) -> Assessment<'_> {
    let observed = &classified.observed;
    let mut assessment = Assessment {
        instance: observed.instance(),
        deployment: &observed.deployment,
        now: observed.now,
        phase: Phase::SecretsUnread,
        usage: Usage::of(observed),
        stand_ins: StandIns::default(),
        unheld: unheld(&observed.deployment),
        questions: Vec::new(),
        failures: &observed.failures,
        admission_problems: &observed.admission_problems,
        requeue_after: None,
    };
    if observed.deployment.metadata.deletion_timestamp.is_some() {
        let (deletion, requeue_after) = deletion::assess(classified, assessment.unheld.is_none());
        assessment.phase = Phase::Deleting(deletion);
        assessment.requeue_after = requeue_after;
        return assessment;
    }
    if observed.namespace(&assessment.instance.owner.namespace) == Some(NamespacePhase::Terminating) {
        assessment.phase = Phase::NamespaceTerminating;
        return assessment;
    }
    if !observed.missing_crds.is_empty() {
        assessment.phase = Phase::CrdsMissing(observed.missing_crds.clone());
        return assessment;
    }
    let settings = settings::assess(observed);
    let last_good = match settings {
        Settings::Accepted(_) => None,
        Settings::Unchecked(_) | Settings::Refused(_) => configuration::last_good(observed),
    };
    if let Some(last_good) = &last_good {
        assessment.usage.add_inputs(last_good);
    }
    let references = stand_in::references(&observed.deployment.spec.runtime_settings);
    // Nothing is created for settings that are not accepted. The stand-ins of a running Contour keep following their services.
    let planned = match settings {
        Settings::Accepted(_) => references.clone(),
        Settings::Unchecked(_) | Settings::Refused(_) => Vec::new(),
    };
    assessment.stand_ins = stand_in::assess(observed, planned, &assessment.usage);
    if !observed.secrets_synced {
        return assessment;
    }
    assessment.requeue_in(assessment.stand_ins.requeue_after);
    match settings {
        Settings::Unchecked(question) => {
            let kept = assessment.kept(observed, last_good);
            assessment.phase = Phase::Unchecked(kept.map(Box::new));
            assessment.questions.push(*question);
        }
        Settings::Refused(message) => {
            let kept = assessment.kept(observed, last_good);
            let seen = references
                .into_iter()
                .map(|reference| stand_in::observe(observed, reference));
            let envoys = [Kind::DaemonSet, Kind::Deployment].map(|kind| rollout::envoy(observed, kind));
            let [daemon_set, deployment] = envoys;
            let is_deployment = daemon_set.rollout == Rollout::Absent && deployment.rollout != Rollout::Absent;
            let refused = Refused {
                message,
                roles: seen.map(|seen| AssessedRole::of(observed, seen)).collect(),
                contour: rollout::contour(observed),
                envoy: if is_deployment { deployment } else { daemon_set },
                kept,
            };
            assessment.phase = Phase::Refused(Box::new(refused));
        }
        Settings::Accepted(accepted) => {
            let running = assessment.running(observed, &accepted);
            assessment.phase = Phase::Running(Box::new(running));
        }
    }
    assessment
}

impl Assessment<'_> {
    /// Returns what keeps running, or None if nothing was running.
    fn kept(&mut self, observed: &Observed, last_good: Option<StartupInputs>) -> Option<Kept> {
        if rollout::contour(observed).rollout == Rollout::Absent && last_good.is_none() {
            return None;
        }
        let mut certificates = certificates::assess(observed);
        self.requeue_in(certificates.renew_in);
        self.questions
            .extend(certificates.request.take().map(Question::Certificates));
        Some(Kept {
            certificates,
            configurations: configuration::in_use(observed, &self.usage, None),
            last_good: last_good.and_then(|inputs| configuration::identified(observed, &inputs)),
            has_envoy: rollout::has_envoy(observed),
        })
    }

    /// Assesses everything that a running Contour and its Envoys need.
    fn running(&mut self, observed: &Observed, accepted: &settings::Accepted) -> Running {
        let mut certificates = certificates::assess(observed);
        let wanted = configuration::wanted(observed, accepted, &self.stand_ins.roles);
        self.usage.add_inputs(&wanted);
        let template = |inputs: &StartupInputs| contour::template_hash(&self.instance, inputs);
        let identified = configuration::identified(observed, &wanted);
        let stays = identified
            .as_ref()
            .and_then(|wanted| succession::stays(observed, wanted, template));
        let wait = stays.as_ref().map(|(_, wait)| *wait);
        let inputs = stays.map(|(present, _)| present).or(identified);
        let template = inputs.as_ref().map(template);
        let old_pods = rollout::old_pods(observed, template.as_deref());
        let contour = rollout::contour(observed);
        let gate = match inputs {
            Some(_) => rollout::gate(observed, &contour, &old_pods),
            None => Err(format!(
                "Envoy waits until ContourConfiguration {} exists",
                wanted.configuration
            )),
        };
        let is_present = template.as_deref() == Contours::of(observed).template();
        let is_rolled_out = is_present && wait.is_none() && rollout::is_rolled_out(&contour, &old_pods);
        let rolled_out = inputs.as_ref().filter(|_| is_rolled_out);
        let rolled_out = rolled_out.map(|inputs| (inputs, rollout::completed_at(observed)));
        let configurations = configuration::in_use(observed, &self.usage, rolled_out);
        let envoy = rollout::envoy(observed, envoy::kind(self.instance.spec));
        for wait in [certificates.renew_in, old_pods.requeue_after, wait, envoy.patience] {
            self.requeue_in(wait);
        }
        self.questions
            .extend(certificates.request.take().map(Question::Certificates));
        let roles = self.stand_ins.roles.iter().map(|role| role.seen.clone());
        Running {
            roles: roles.map(|seen| AssessedRole::of(observed, seen)).collect(),
            configurations,
            altered: configuration::altered(observed),
            envoy,
            has_envoy: rollout::has_envoy(observed),
            inputs,
            certificates,
            contour,
            gate,
            old_pods,
        }
    }

    fn requeue_in(&mut self, wait: Option<Duration>) {
        self.requeue_after = self.requeue_after.into_iter().chain(wait).min();
    }
}

impl AssessedRole {
    fn of(observed: &Observed, seen: ObservedRole) -> Self {
        let traffic = traffic::of(observed, &seen.reference);
        Self { seen, traffic }
    }
}

/// Returns the ContourDeployment as a target if it lacks Slipway's finalizer.
fn unheld(deployment: &ContourDeployment) -> Option<Target> {
    let mut finalizers = deployment.metadata.finalizers.iter().flatten();
    let is_held = finalizers.any(|finalizer| finalizer == FINALIZER);
    (!is_held).then(|| Target::of_deployment(deployment))
}
