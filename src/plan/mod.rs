//! The pure core: `plan(&Observed) -> Plan`. No clock, no randomness, no client: what a decision depends on is in
//! [`Observed`], what is to be done is in [`Plan`]. If a decision can be made here, it is made here.

pub mod admission;
mod attempts;
mod captured;
pub mod certificates;
mod configuration;
mod deletion;
mod diff;
mod duration;
mod names;
mod object;
mod observed;
mod operand;
mod ours;
mod preflight;
mod refused;
mod rollout;
mod stand_in;
mod status;
mod succession;
mod usage;

use std::sync::Arc;
use std::time::Duration;

use serde::Serialize;

pub use attempts::Attempts;
use captured::Captured;
pub use diff::{Desired, Fields, Target, Write, differences, is_captured};
use diff::{Held, Step};
pub use names::{hash, hash_json};
pub use object::{Key, Kind, Object, Owner};
pub use observed::{
    Failure, FailureCause, NamespacePhase, NamespacedName, Observed, ServiceAccountRef, SettingsVerdict,
    has_ready_endpoint,
};
pub use ours::of as ours;
pub use stand_in::{bears_our_name, targets};
pub use status::patience_left;

use crate::api::{ContourDeploymentStatus, OverruledFields};

/// What to do.
#[derive(Clone, Debug, Serialize)]
pub struct Plan {
    /// The writes, in waves: within a wave they go out together, and a wave starts when the one before it is done.
    pub waves: Vec<Wave>,
    /// Facts that only the outside has; the plan is made again with the answers once the waves are done.
    pub questions: Vec<Question>,
    /// The status to report when nothing is left to write.
    pub status: ContourDeploymentStatus,
    /// What to tell with Events, once.
    pub events: Vec<Event>,
    /// Look again after this time even if nothing happens.
    #[serde(skip)]
    pub look_again: Option<Duration>,
}

/// Writes that go out together.
#[derive(Clone, Debug, Default, Serialize)]
pub struct Wave {
    /// What it is about.
    pub name: &'static str,
    /// The writes that are needed.
    pub writes: Vec<Write>,
    /// Whether these deletions need a live look at pods and ReplicaSets first: a watch may lag behind a container's start.
    pub look_first: bool,
    /// Writes that have to wait.
    #[serde(skip)]
    held: Vec<Held>,
    /// Fields that somebody else decided as we wrote them, and that are taken as they are.
    #[serde(skip)]
    overruled: Vec<OverruledFields>,
    /// What can't be deleted in other namespaces.
    #[serde(skip)]
    left_behind: Vec<Failure>,
    /// Look again after this time.
    #[serde(skip)]
    look_again: Option<Duration>,
}

/// What only the outside can answer.
#[derive(Clone, Debug, Serialize)]
pub enum Question {
    /// Does the API server take this ContourConfiguration? (A strict dry run of its creation.)
    Settings {
        /// Hash of the settings, to be returned with the answer.
        hash: String,
        /// The object to try.
        candidate: Box<Object>,
    },
    /// Issue certificates: that needs randomness.
    Certificates(certificates::Request),
}

/// Something to tell.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[allow(missing_docs)]
pub struct Event {
    pub severity: Severity,
    pub reason: String,
    pub note: String,
}

/// Kubernetes' event types.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[allow(missing_docs)]
pub enum Severity {
    Normal,
    Warning,
}

impl Plan {
    /// Whether there is nothing left to do but to report.
    pub fn is_settled(&self) -> bool {
        self.questions.is_empty() && self.waves.iter().all(|wave| wave.writes.is_empty())
    }
}

/// What is still to be written when one write has followed another for too long: a bug, or somebody's doing that nothing else tells
/// from one.
pub fn unsettled(plan: &Plan, observed: &Observed) -> Vec<Failure> {
    let writes = plan.waves.iter().flat_map(|wave| &wave.writes);
    writes.map(|write| diff::unsettled(write, observed)).collect()
}

impl Wave {
    /// The writes that make these objects what they shall be.
    fn converge(name: &'static str, desired: impl IntoIterator<Item = Desired>, observed: &Observed) -> Self {
        let owner = observed.owner();
        let mut wave = Self {
            name,
            ..Self::default()
        };
        for desired in desired {
            match diff::step(&desired, observed, &owner) {
                Step::Write(write) => wave.writes.push(write),
                Step::Nothing(fields) if fields.is_empty() => {}
                Step::Nothing(fields) => wave.overruled.push(diff::overruled(&desired.object, fields)),
                Step::Wait(held) => {
                    wave.look_again = wave.look_again.into_iter().chain([held.wait]).min();
                    wave.held.push(held);
                }
            }
        }
        wave
    }

    /// A wave of these writes.
    pub fn of(name: &'static str, writes: Vec<Write>) -> Self {
        Self {
            name,
            writes,
            ..Self::default()
        }
    }

    /// Whether what comes after it has to wait for a write that has to wait.
    fn blocks(&self) -> bool {
        self.held.iter().any(|held| held.blocks)
    }

    /// Whether everything in it is as it shall be.
    fn is_done(&self) -> bool {
        self.writes.is_empty() && self.held.is_empty()
    }
}

/// What there is to do, and what is to be said when nothing is left.
struct Draft {
    waves: Vec<Wave>,
    questions: Vec<Question>,
    situation: status::Situation,
    look_again: Option<Duration>,
}

impl Draft {
    /// The plan: as far as nothing has to wait that the rest goes by; and the status, which tells of that, too.
    fn finish(mut self, observed: &Observed) -> Plan {
        let ends = self.waves.iter().position(Wave::blocks).map(|last| last + 1);
        self.waves.truncate(ends.unwrap_or(self.waves.len()));
        let waits = self.waves.iter().filter_map(|wave| wave.look_again);
        let look_again = waits.chain(self.look_again).min();
        let (status, events) = status::of(observed, &self.situation, &self.waves);
        Plan {
            waves: self.waves,
            questions: self.questions,
            status,
            events,
            look_again,
        }
    }
}

/// What to do about this ContourDeployment now.
pub fn plan(observed: &Observed) -> Plan {
    let (observed, leftovers) = ours::sort(observed);
    draft(&observed, &leftovers).finish(&observed)
}

fn draft(observed: &Observed, leftovers: &[Arc<Object>]) -> Draft {
    if observed.deployment.metadata.deletion_timestamp.is_some() {
        let deletion = deletion::plan(observed, leftovers);
        return Draft {
            waves: deletion.waves,
            questions: Vec::new(),
            situation: status::Situation::Deleting(deletion.waiting),
            look_again: deletion.look_again,
        };
    }
    let waiting = |situation, waves| Draft {
        waves,
        questions: Vec::new(),
        situation,
        look_again: None,
    };
    let owner = observed.owner();
    if observed.namespace(&owner.namespace) == Some(NamespacePhase::Terminating) {
        return waiting(status::Situation::NamespaceTerminating, Vec::new());
    }
    if !observed.missing_crds.is_empty() {
        let waves = deletion::without_crds(observed, leftovers).into();
        return waiting(status::Situation::CrdsMissing, waves);
    }

    let mut usage = usage::Usage::of(observed);
    let settings = configuration::settings(observed);
    let is_accepted = matches!(settings, configuration::Settings::Accepted(_));
    let last_good = if is_accepted {
        None
    } else {
        configuration::last_good(observed)
    };
    if let Some(last_good) = &last_good {
        usage.add_captured(last_good);
    }
    let references = stand_in::references(&observed.deployment.spec.runtime_settings);
    // Until the settings are accepted nothing is made for them; what a Contour runs on goes on following its services.
    let planned = if is_accepted { references.clone() } else { Vec::new() };
    let stand_ins = stand_in::plan(observed, planned, &usage);

    // First of all what decides on traffic: no trouble elsewhere may keep a stand-in from following.
    let mut waves = vec![own_finalizer(observed)];
    waves.extend(stand_in_waves(&stand_ins, observed));
    waves.push(Wave::converge(
        "the operator's own access",
        operand::access::operator(observed),
        observed,
    ));
    if !observed.secrets_synced {
        return waiting(status::Situation::Unchecked, waves);
    }
    let mut draft = match settings {
        configuration::Settings::Unchecked(question) => {
            let (mut questions, look_again) =
                refused::plan(observed, leftovers, &mut waves, &usage, last_good.as_ref());
            questions.push(*question);
            Draft {
                waves,
                questions,
                situation: status::Situation::Unchecked,
                look_again,
            }
        }
        configuration::Settings::Refused(message) => {
            let (questions, look_again) = refused::plan(observed, leftovers, &mut waves, &usage, last_good.as_ref());
            let roles = references.into_iter();
            let roles = roles.map(|reference| stand_in::see(observed, reference)).collect();
            Draft {
                waves,
                questions,
                situation: status::Situation::Refused { message, roles },
                look_again,
            }
        }
        configuration::Settings::Accepted(accepted) => run(observed, leftovers, waves, &stand_ins, &accepted, usage),
    };
    draft.look_again = draft.look_again.into_iter().chain(stand_ins.look_again).min();
    draft
}

/// Stand-ins that exist follow their services before anything new is made; a new one comes after its blackhole, without which
/// it would be invalid.
fn stand_in_waves(stand_ins: &stand_in::StandIns, observed: &Observed) -> [Wave; 3] {
    let exists = |kind: Kind, object: &Object| observed.object(kind, object.namespace(), object.name()).is_some();
    let (known, new): (Vec<_>, Vec<_>) = stand_ins.objects.iter().cloned().partition(|stand_in| {
        exists(Kind::ExtensionService, &stand_in.object) && exists(Kind::Service, &stand_in.object)
    });
    [
        Wave::converge("stand-ins", known, observed),
        Wave::converge("blackholes", stand_ins.blackholes.iter().cloned(), observed),
        Wave::converge("new stand-ins", new, observed),
    ]
}

/// Everything that a running Contour and its Envoys need.
fn run(
    observed: &Observed,
    leftovers: &[Arc<Object>],
    mut waves: Vec<Wave>,
    stand_ins: &stand_in::StandIns,
    accepted: &configuration::Accepted,
    mut usage: usage::Usage,
) -> Draft {
    let certificates = certificates::plan(observed);
    let (captured, stays) = configuration::captured(observed, accepted, &stand_ins.roles, &usage);
    usage.add_captured(&captured);

    let operand::Operand {
        services,
        contour,
        envoy,
    } = operand::Operand::of(observed, &captured);
    let old_pods = rollout::old_pods(observed, operand::contour::template_hash(&contour));
    let contour_workload = rollout::contour(observed);
    let gate = rollout::gate(observed, &contour_workload, &old_pods);

    let mut configurations = configurations_in_use(observed, &usage, Some(&captured));
    if configuration::is_rolled_out(&contour_workload, &old_pods) {
        configurations
            .iter_mut()
            .filter(|configuration| configuration.object.name() == captured.configuration)
            .for_each(|configuration| configuration::mark_rolled_out(configuration, observed));
    }

    let access = operand::access::contour(observed);
    let mut desired: Vec<Key> = operand::access::operator(observed)
        .iter()
        .map(|desired| desired.object.key())
        .collect();
    let groups = [
        &certificates.desired,
        &access,
        &stand_ins.blackholes,
        &stand_ins.objects,
        &services,
    ];
    desired.extend(groups.into_iter().flatten().map(|desired| desired.object.key()));
    desired.extend(
        configurations
            .iter()
            .chain([&contour, &envoy])
            .map(|desired| desired.object.key()),
    );

    // Pods can't start without their certificates; until those are issued the later waves wait.
    let has_certificates = certificates.are_complete();
    waves.push(Wave::converge(
        "certificates, Contour's access",
        certificates.desired.into_iter().chain(access),
        observed,
    ));
    if has_certificates {
        waves.push(Wave::converge("configurations", configurations, observed));
        waves.push(Wave::converge("services", services, observed));
        let contour_wave = Wave::converge("Contour", [contour.clone()], observed);
        let contour_changes = !contour_wave.is_done();
        waves.push(contour_wave);
        let envoy_wave = Wave::converge("Envoy", [envoy.clone()], observed);
        if !rollout::has_envoy(observed) || (gate.is_ok() && !contour_changes) {
            waves.push(envoy_wave);
        }
    }
    let envoy_workload = rollout::envoy(observed, envoy.object.kind);
    if waves.iter().all(|wave| wave.writes.is_empty()) {
        waves.extend(prune(observed, &desired, &usage, &envoy_workload));
        waves.push(deletion::leftovers(observed, leftovers, &usage));
    }

    let altered: Vec<_> = observed
        .of_kind(Kind::ContourConfiguration)
        .filter(|object| usage.configurations.contains_key(object.name()) && configuration::is_altered(object))
        .map(|object| object.name().to_owned())
        .collect();
    let look_again = [certificates.renew_in, old_pods.look_again, stays];
    Draft {
        waves,
        questions: certificates.request.into_iter().map(Question::Certificates).collect(),
        look_again: look_again.into_iter().flatten().min(),
        situation: status::Situation::Running(status::Parts {
            roles: stand_ins.roles.iter().map(|role| role.seen.clone()).collect(),
            contour: contour_workload,
            envoy: envoy_workload,
            gate,
            old_pods,
            certificate_problem: certificates.problem,
            altered,
        }),
    }
}

/// The ContourConfigurations that containers have captured or may capture, as they were made.
fn configurations_in_use(observed: &Observed, usage: &usage::Usage, planned: Option<&Captured>) -> Vec<Desired> {
    let in_use = usage.configurations.values();
    in_use
        .filter_map(|captured| configuration::object(observed, captured, planned))
        .collect()
}

/// The finalizer on the ContourDeployment, before anything is made that would outlive it.
fn own_finalizer(observed: &Observed) -> Wave {
    let mut finalizers = observed.deployment.metadata.finalizers.iter().flatten();
    let is_held = finalizers.any(|finalizer| finalizer == crate::api::vocabulary::FINALIZER);
    let hold = || Write::Hold(Target::of_deployment(&observed.deployment));
    let writes = (!is_held).then(hold).into_iter().collect();
    Wave::of("the ContourDeployment's finalizer", writes)
}

/// What is ours, no longer desired and no longer in use. Stand-ins go before their blackholes, and an Envoy of the other
/// workload type stays until the new one is there.
fn prune(observed: &Observed, desired: &[Key], usage: &usage::Usage, envoy: &rollout::Workload) -> Vec<Wave> {
    let in_use = |object: &Object| match object.kind {
        Kind::Pod | Kind::ReplicaSet => true,
        // Contour's is always desired.
        Kind::DaemonSet | Kind::Deployment => !(envoy.available && envoy.rollout == rollout::Rollout::Complete),
        _ => usage.holds(observed, object),
    };
    let orphans: Vec<&Object> = observed
        .objects
        .values()
        .map(AsRef::as_ref)
        .filter(|object| !desired.contains(&object.key()) && !in_use(object))
        .collect();
    let (captured, others): (Vec<_>, Vec<_>) = orphans
        .into_iter()
        .partition(|object| is_captured(object.kind) && (object.kind != Kind::Service || object.has_our_finalizer()));
    let mut captured = deletion::removal("what no Contour uses any more", captured, observed);
    captured.look_first = true;
    vec![
        deletion::removal("what is no longer wanted", others, observed),
        captured,
    ]
}
