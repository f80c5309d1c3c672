//! The pure core: `plan(&Observed) -> Plan`. No clock, no randomness, no client: what a decision depends on is in
//! [`Observed`], what is to be done is in [`Plan`]. If a decision can be made here, it is made here.

pub mod certificates;
mod configuration;
mod deletion;
mod diff;
mod duration;
mod names;
mod object;
mod observed;
mod operand;
mod preflight;
mod refused;
mod rollout;
mod stand_in;
mod status;
mod succession;
mod usage;

use std::time::Duration;

use serde::Serialize;

pub use diff::{Desired, Fields, Target, Write, is_captured};
pub use names::{hash, hash_json};
pub use object::{Key, Kind, Object, Owner};
pub use observed::{
    Failure, FailureCause, NamespacePhase, NamespacedName, Observed, ServiceAccountRef, SettingsVerdict,
    has_ready_endpoint,
};
pub use stand_in::{bears_our_name, targets};
pub use status::patience_left;

use crate::api::ContourDeploymentStatus;

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

impl Wave {
    /// The writes that make these objects what they shall be.
    fn converge(name: &'static str, desired: impl IntoIterator<Item = Desired>, observed: &Observed) -> Self {
        let owner = observed.owner();
        let writes = desired
            .into_iter()
            .filter_map(|desired| diff::write(&desired, observed, &owner))
            .collect();
        Self {
            name,
            writes,
            look_first: false,
        }
    }
}

/// What to do about this ContourDeployment now.
pub fn plan(observed: &Observed) -> Plan {
    if observed.deployment.metadata.deletion_timestamp.is_some() {
        return deletion::plan(observed);
    }
    let owner = observed.owner();
    if observed.namespace(&owner.namespace) == Some(NamespacePhase::Terminating) {
        return Plan::waiting(status::namespace_terminating(observed));
    }
    if !observed.missing_crds.is_empty() {
        let mut plan = Plan::waiting(status::crds_missing(observed));
        plan.waves.extend(deletion::without_crds(observed));
        return plan;
    }

    let mut usage = usage::Usage::of(observed);
    let settings = configuration::settings(observed);
    let last_good = match settings {
        configuration::Settings::Refused(_) => configuration::last_good(observed),
        _ => None,
    };
    if let Some(last_good) = &last_good {
        usage.add_captured(last_good);
    }
    let references = stand_in::references(&observed.deployment.spec.runtime_settings);
    let accepted = matches!(settings, configuration::Settings::Accepted(_));
    // Until the settings are accepted nothing is made for them; what a Contour runs on goes on following its services.
    let stand_ins = stand_in::plan(observed, if accepted { references.clone() } else { Vec::new() }, &usage);

    // First of all what decides on traffic: no trouble elsewhere may keep a stand-in from following.
    let mut waves = vec![own_finalizer(observed)];
    waves.extend(stand_in_waves(&stand_ins, observed));
    waves.push(Wave::converge(
        "the operator's own access",
        operand::access::operator(observed),
        observed,
    ));
    if !observed.secrets_synced {
        return Plan {
            waves,
            ..Plan::waiting((status::unchecked(observed), Vec::new()))
        };
    }
    let mut plan = match settings {
        configuration::Settings::Unchecked(question) => Plan {
            waves,
            questions: vec![*question],
            ..Plan::waiting((status::unchecked(observed), Vec::new()))
        },
        configuration::Settings::Refused(message) => {
            let roles = references
                .into_iter()
                .map(|reference| stand_in::see(observed, reference))
                .collect::<Vec<_>>();
            refused::plan(observed, waves, &roles, &message, &usage, last_good.as_ref())
        }
        configuration::Settings::Accepted(accepted) => run(observed, waves, &stand_ins, &accepted, usage),
    };
    plan.look_again = plan.look_again.into_iter().chain(stand_ins.look_again).min();
    plan
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
    mut waves: Vec<Wave>,
    stand_ins: &stand_in::StandIns,
    accepted: &configuration::Accepted,
    mut usage: usage::Usage,
) -> Plan {
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
        let contour_changes = !contour_wave.writes.is_empty();
        waves.push(contour_wave);
        let envoy_wave = Wave::converge("Envoy", [envoy.clone()], observed);
        if !rollout::has_envoy(observed) || (gate.is_ok() && !contour_changes) {
            waves.push(envoy_wave);
        }
    }
    let envoy_workload = rollout::envoy(observed, envoy.object.kind);
    if waves.iter().all(|wave| wave.writes.is_empty()) {
        waves.extend(prune(observed, &desired, &usage, &envoy_workload));
    }

    let altered: Vec<_> = observed
        .of_kind(Kind::ContourConfiguration)
        .filter(|object| usage.configurations.contains_key(object.name()) && configuration::is_altered(object))
        .map(|object| object.name().to_owned())
        .collect();
    let seen: Vec<_> = stand_ins.roles.iter().map(|role| role.seen.clone()).collect();
    let look = status::Parts {
        roles: &seen,
        contour: &contour_workload,
        envoy: &envoy_workload,
        gate: &gate,
        old_pods: &old_pods,
        certificate_problem: certificates.problem.as_deref(),
        altered: &altered,
    };
    let (status, events) = status::running(observed, &look);
    let questions = certificates.request.into_iter().map(Question::Certificates).collect();
    let look_again = [certificates.renew_in, old_pods.look_again, stays]
        .into_iter()
        .flatten()
        .min();
    Plan {
        waves,
        questions,
        status,
        events,
        look_again,
    }
}

/// The ContourConfigurations that containers have captured or may capture, as they were made.
fn configurations_in_use(observed: &Observed, usage: &usage::Usage, planned: Option<&usage::Captured>) -> Vec<Desired> {
    let in_use = usage.configurations.values();
    in_use
        .filter_map(|captured| configuration::object(observed, captured, planned))
        .collect()
}

/// The finalizer on the ContourDeployment, before anything is made that would outlive it.
fn own_finalizer(observed: &Observed) -> Wave {
    let finalizers = observed.deployment.metadata.finalizers.iter().flatten();
    let held = finalizers
        .clone()
        .any(|finalizer| finalizer == crate::api::vocabulary::FINALIZER);
    let writes = if held {
        Vec::new()
    } else {
        vec![Write::Hold(Target::of_deployment(&observed.deployment))]
    };
    Wave {
        name: "the ContourDeployment's finalizer",
        writes,
        look_first: false,
    }
}

/// What is ours, no longer desired and no longer in use. Stand-ins go before their blackholes, and an Envoy of the other
/// workload type stays until the new one is there.
fn prune(observed: &Observed, desired: &[Key], usage: &usage::Usage, envoy: &rollout::Workload) -> Vec<Wave> {
    let owner = observed.owner();
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
        .filter(|object| owner.owns(object) && !desired.contains(&object.key()) && !in_use(object))
        .collect();
    let (captured, others): (Vec<_>, Vec<_>) = orphans
        .into_iter()
        .partition(|object| is_captured(object.kind) && (object.kind != Kind::Service || object.has_our_finalizer()));
    let mut captured = deletion::removal("what no Contour uses any more", captured);
    captured.look_first = true;
    vec![deletion::removal("what is no longer wanted", others), captured]
}

impl Plan {
    /// Nothing to do but to say so.
    fn waiting((status, events): (ContourDeploymentStatus, Vec<Event>)) -> Self {
        Self {
            waves: Vec::new(),
            questions: Vec::new(),
            status,
            events,
            look_again: None,
        }
    }
}
