//! The status: what is said of a ContourDeployment, and when something is worth an Event. `conditions` holds the mechanics of
//! conditions, `traffic` what happens to requests; this file says which condition is what, in order of what matters most.

mod conditions;
mod traffic;

use std::collections::BTreeSet;
use std::time::Duration;

use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;

use super::object::Kind;
use super::observed::{Failure, FailureCause, Observed};
use super::rollout::{self, OldPods, Rollout, Workload};
use super::stand_in::SeenRole;
use super::{Event, Severity, Wave};
use crate::api::vocabulary::{conditions as types, reasons};
use crate::api::{
    ContourDeploymentStatus, ExtensionServiceReadiness, ExtensionServiceState, ExtensionServiceStatus, StandInRef,
    Traffic,
};

use conditions::Conditions;

/// How long a failure that something later in the same installation may cure is called a change on its way; after that a
/// person has to look.
const PATIENCE_WITH_FAILURES: Duration = Duration::from_secs(30);

/// How long it takes until a failure that this status calls a change on its way is a person's turn.
pub fn patience_left(status: &ContourDeploymentStatus, now: Timestamp) -> Option<Duration> {
    let reconciling = status
        .conditions
        .iter()
        .find(|condition| condition.type_ == types::RECONCILING)?;
    let begun = reconciling.last_transition_time.0;
    let end = begun.saturating_add(PATIENCE_WITH_FAILURES).unwrap_or(Timestamp::MAX);
    Duration::try_from(end.duration_since(now))
        .ok()
        .filter(|left| !left.is_zero())
}

/// What there is to report.
#[allow(clippy::large_enum_variant)] // one at a time, and not for long
pub enum Situation {
    /// It is being deleted, and this is still there.
    Deleting(Vec<String>),
    /// Its namespace is being deleted.
    NamespaceTerminating,
    /// Contour can't start without its CRDs.
    CrdsMissing,
    /// The API server has not been asked about the settings yet, or what is there has not been read.
    Unchecked,
    /// The settings can't be used.
    Refused {
        /// Why, in words.
        message: String,
        /// What is seen of each reference.
        roles: Vec<SeenRole>,
    },
    /// Everything is applied, or on its way.
    Running(Parts),
}

/// What the status of a running ContourDeployment is made from.
pub struct Parts {
    /// What is seen of each reference.
    pub roles: Vec<SeenRole>,
    /// Contour's Deployment.
    pub contour: Workload,
    /// The Envoys.
    pub envoy: Workload,
    /// Why Envoy waits for Contour, if it does.
    pub gate: Result<(), String>,
    /// Pods of other templates.
    pub old_pods: OldPods,
    /// What is wrong with the certificates.
    pub certificate_problem: Option<String>,
    /// ContourConfigurations in use that somebody altered.
    pub altered: Vec<String>,
}

/// A status, and what is worth telling about its difference to the one before.
type Told = (ContourDeploymentStatus, Vec<Event>);

/// The status in this situation, while these waves are to be carried out.
pub fn of(observed: &Observed, situation: &Situation, waves: &[Wave]) -> Told {
    let (conditions, status) = match situation {
        Situation::Deleting(waiting) => deleting(observed, waiting),
        Situation::NamespaceTerminating => namespace_terminating(observed),
        Situation::CrdsMissing => crds_missing(observed),
        Situation::Unchecked => unchecked(observed),
        Situation::Refused { message, roles } => refused(observed, message, roles),
        Situation::Running(parts) => running(observed, parts),
    };
    let status = finish(observed, conditions, status, waves);
    // What is on its way is told when it has come.
    let is_told = !matches!(situation, Situation::Deleting(_) | Situation::Unchecked);
    let events = if is_told { events(observed, &status) } else { Vec::new() };
    (status, events)
}

type Draft<'a> = (Conditions<'a>, ContourDeploymentStatus);

/// Everything is applied, or on its way.
fn running<'a>(observed: &'a Observed, parts: &Parts) -> Draft<'a> {
    let mut conditions = Conditions::of(observed);
    let services = extension_services(observed, &parts.roles);

    conditions.set(
        types::CONFIGURATION_VALID,
        true,
        reasons::CONFIGURATION_ACCEPTED,
        "the configuration was accepted",
    );
    set_references(&mut conditions, &services);
    set_workload(&mut conditions, types::CONTOUR_AVAILABLE, "Contour", &parts.contour);
    set_workload(&mut conditions, types::ENVOY_AVAILABLE, "Envoy", &parts.envoy);

    let unready = unready(observed, parts, &services);
    match &unready {
        None => conditions.set(
            types::READY,
            true,
            reasons::AS_SPECIFIED,
            "Contour and Envoy run as specified",
        ),
        Some((reason, message)) => conditions.set(types::READY, false, reason, message),
    }
    match degraded(parts, &services) {
        None => conditions.set(types::DEGRADED, false, reasons::HEALTHY, "nothing is wrong"),
        Some((reason, message)) => conditions.set(types::DEGRADED, true, reason, &message),
    }
    match &unready {
        Some((reasons::ROLLOUT_STUCK, message)) => conditions.stalled(reasons::ROLLOUT_STUCK, message),
        Some((reason @ (reasons::ROLLING_OUT | reasons::NOT_CREATED | reasons::UNAVAILABLE), message)) => {
            conditions.reconciling(reason, message);
        }
        _ => conditions.settled(),
    }
    let status = ContourDeploymentStatus {
        extension_services_available: Some(available(&services)),
        extension_services: services,
        contour: parts.contour.pods.clone(),
        envoy: parts.envoy.pods.clone(),
        ..ContourDeploymentStatus::default()
    };
    (conditions, status)
}

/// The API server has not been asked about the settings yet, or what is there has not been read.
fn unchecked(observed: &Observed) -> Draft<'_> {
    let mut conditions = Conditions::of(observed);
    let message = if observed.secrets_synced {
        "the configuration has not been checked yet".to_owned()
    } else {
        format!(
            "the Secrets of namespace {} have not been read yet",
            observed.owner().namespace
        )
    };
    let reason = reasons::CONFIGURATION_UNCHECKED;
    conditions.unknown(types::CONFIGURATION_VALID, reason, &message);
    conditions.set(types::READY, false, reason, &message);
    conditions.reconciling(reason, &message);
    (conditions, previous(observed))
}

/// The settings can't be used; nothing of this generation is applied.
fn refused<'a>(observed: &'a Observed, message: &str, roles: &[SeenRole]) -> Draft<'a> {
    let mut conditions = Conditions::of(observed);
    let services = extension_services(observed, roles);
    set_references(&mut conditions, &services);
    let contour = rollout::contour(observed);
    let envoy = [Kind::DaemonSet, Kind::Deployment].map(|kind| rollout::envoy(observed, kind));
    let envoy = envoy
        .iter()
        .find(|workload| workload.rollout != Rollout::Absent)
        .unwrap_or(&envoy[0]);
    set_workload(&mut conditions, types::CONTOUR_AVAILABLE, "Contour", &contour);
    set_workload(&mut conditions, types::ENVOY_AVAILABLE, "Envoy", envoy);
    let message =
        format!("the configuration was refused and nothing of it is applied; what ran goes on running: {message}");
    conditions.set(
        types::CONFIGURATION_VALID,
        false,
        reasons::CONFIGURATION_REFUSED,
        &message,
    );
    conditions.set(types::READY, false, reasons::CONFIGURATION_REFUSED, &message);
    conditions.set(types::DEGRADED, true, reasons::CONFIGURATION_REFUSED, &message);
    conditions.stalled(reasons::CONFIGURATION_REFUSED, &message);
    let status = ContourDeploymentStatus {
        extension_services_available: Some(available(&services)),
        extension_services: services,
        contour: contour.pods,
        envoy: envoy.pods.clone(),
        ..ContourDeploymentStatus::default()
    };
    (conditions, status)
}

/// How many are available, `1/2` for instance.
fn available(services: &[ExtensionServiceStatus]) -> String {
    let available = services
        .iter()
        .filter(|service| service.state == ExtensionServiceState::Available);
    format!("{}/{}", available.count(), services.len())
}

/// Contour can't start without its CRDs, so nothing is started until they are there.
fn crds_missing(observed: &Observed) -> Draft<'_> {
    let mut conditions = Conditions::of(observed);
    let message = format!(
        "Contour's CRDs are not served: {}; install them from Contour's release",
        observed.missing_crds.join(", ")
    );
    for type_ in [types::READY, types::EXTENSION_SERVICES_AVAILABLE] {
        conditions.set(type_, false, reasons::CONTOUR_CRDS_MISSING, &message);
    }
    conditions.set(types::DEGRADED, true, reasons::CONTOUR_CRDS_MISSING, &message);
    conditions.unknown(types::CONFIGURATION_VALID, reasons::CONTOUR_CRDS_MISSING, &message);
    conditions.reconciling(reasons::CONTOUR_CRDS_MISSING, &message);
    (conditions, previous(observed))
}

/// The namespace of the ContourDeployment is being deleted: nothing can be made in it.
fn namespace_terminating(observed: &Observed) -> Draft<'_> {
    let mut conditions = Conditions::of(observed);
    let message = format!("namespace {} is being deleted", observed.owner().namespace);
    conditions.set(types::READY, false, reasons::NAMESPACE_TERMINATING, &message);
    conditions.stalled(reasons::NAMESPACE_TERMINATING, &message);
    (conditions, previous(observed))
}

/// The ContourDeployment is being deleted, and this is still there.
fn deleting<'a>(observed: &'a Observed, waiting: &[String]) -> Draft<'a> {
    let mut conditions = Conditions::of(observed);
    let message = if waiting.is_empty() {
        "being deleted".to_owned()
    } else {
        format!("being deleted; still there: {}", waiting.join(", "))
    };
    conditions.set(types::READY, false, reasons::DELETING, &message);
    conditions.reconciling(reasons::DELETING, &message);
    (conditions, previous(observed))
}

/// The parts of the last status that a status without a look at the workloads keeps.
fn previous(observed: &Observed) -> ContourDeploymentStatus {
    observed.deployment.status.clone().unwrap_or_default()
}

/// Failures, generation and order.
fn finish(
    observed: &Observed,
    mut conditions: Conditions<'_>,
    mut status: ContourDeploymentStatus,
    waves: &[Wave],
) -> ContourDeploymentStatus {
    let held = waves.iter().flat_map(|wave| &wave.held);
    let failures = held.filter_map(|held| held.failure.as_ref()).chain(&observed.failures);
    if let Some(failure) = worst(failures) {
        let reason = match failure.cause {
            FailureCause::Collision => reasons::NAME_COLLISION,
            FailureCause::Forbidden | FailureCause::AccessPending => reasons::FORBIDDEN,
            FailureCause::NamespaceTerminating => reasons::NAMESPACE_TERMINATING,
            FailureCause::Refused => reasons::REFUSED,
            FailureCause::NotTaken => reasons::NOT_TAKEN,
            FailureCause::Contested => reasons::CONTESTED,
            FailureCause::Unsettled => reasons::UNSETTLED,
            FailureCause::Transient => reasons::WRITE_FAILED,
        };
        let message = format!("{}: {}", failure.key, failure.message);
        conditions.set(types::READY, false, reason, &message);
        let is_for_a_person = match failure.cause {
            FailureCause::NotTaken => true,
            FailureCause::Transient => false,
            _ => conditions.reconciles_for() >= PATIENCE_WITH_FAILURES,
        };
        if is_for_a_person || conditions.was_stalled(reason) {
            conditions.stalled(reason, &message);
        } else {
            conditions.reconciling(reason, &message);
        }
    }
    if let Some(failure) = waves.iter().flat_map(|wave| &wave.left_behind).next() {
        let message = format!("{} can't be deleted and is left: {}", failure.key, failure.message);
        conditions.degraded_besides(reasons::LEFT_BEHIND, &message);
    }
    status.fields_decided_by_others = waves.iter().flat_map(|wave| wave.overruled.clone()).collect();
    set_policies(&mut conditions, &observed.admission_problems);
    status.observed_generation = observed.deployment.metadata.generation;
    status.conditions = conditions.finish();
    status
}

/// Whether the admission policies are there: a word to who installed Slipway, and nothing that anything here depends on.
fn set_policies(conditions: &mut Conditions<'_>, problems: &[String]) {
    let type_ = types::ADMISSION_POLICIES_INSTALLED;
    if problems.is_empty() {
        let message = "the admission policies are installed as this version of Slipway ships them";
        conditions.set(type_, true, reasons::AS_SHIPPED, message);
    } else {
        let message = format!("{}; install config/admission of this version", problems.join("; "));
        conditions.set(type_, false, reasons::NOT_AS_SHIPPED, &message);
    }
}

/// The failure that a person has to know of first.
fn worst<'a>(failures: impl Iterator<Item = &'a Failure>) -> Option<&'a Failure> {
    failures.min_by_key(|failure| match failure.cause {
        FailureCause::NotTaken => 0,
        FailureCause::Collision => 1,
        FailureCause::Forbidden | FailureCause::AccessPending => 2,
        FailureCause::Refused => 3,
        FailureCause::Unsettled => 4,
        FailureCause::Contested => 5,
        FailureCause::NamespaceTerminating => 6,
        FailureCause::Transient => 7,
    })
}

fn extension_services(observed: &Observed, roles: &[SeenRole]) -> Vec<ExtensionServiceStatus> {
    let before = observed.deployment.status.as_ref();
    let describe = |role: &SeenRole| {
        let (namespace, name) = role.reference.target.clone();
        let traffic = traffic::of(observed, &role.reference);
        let last = before.into_iter().flat_map(|status| &status.extension_services);
        let since = last
            .filter(|last| last.role == role.reference.role && (&last.namespace, &last.name) == (&namespace, &name))
            .find(|last| last.state == role.state)
            .map_or_else(
                || Time(conditions::whole_seconds(observed.now)),
                |last| last.since.clone(),
            );
        let message = role
            .message
            .as_ref()
            .map(|message| match traffic::consequence(&role.reference, traffic) {
                Some(consequence) => format!("{message}: {consequence}"),
                None => message.clone(),
            });
        let stand_in = role
            .stand_in
            .clone()
            .map(|(namespace, name)| StandInRef { namespace, name });
        ExtensionServiceStatus {
            role: role.reference.role,
            namespace,
            name,
            state: role.state,
            since,
            fail_open: role.reference.fail_open,
            traffic,
            stand_in,
            message,
        }
    };
    roles.iter().map(describe).collect()
}

fn reason_of(state: ExtensionServiceState) -> &'static str {
    match state {
        ExtensionServiceState::Missing => reasons::EXTENSION_SERVICE_MISSING,
        ExtensionServiceState::Blocked => reasons::EXTENSION_SERVICE_BLOCKED,
        ExtensionServiceState::Pending => reasons::EXTENSION_SERVICE_PENDING,
        ExtensionServiceState::Invalid => reasons::EXTENSION_SERVICE_INVALID,
        ExtensionServiceState::NoEndpoints => reasons::EXTENSION_SERVICE_NO_ENDPOINTS,
        ExtensionServiceState::Available => reasons::EXTENSION_SERVICE_AVAILABLE,
    }
}

/// Reason and message of the services that are not available: the reason of the first, the messages of all.
fn summary<'a>(services: impl Iterator<Item = &'a ExtensionServiceStatus>) -> Option<(&'static str, String)> {
    let mut services = services.peekable();
    let reason = reason_of(services.peek()?.state);
    let messages: BTreeSet<_> = services.filter_map(|service| service.message.clone()).collect();
    Some((reason, messages.into_iter().collect::<Vec<_>>().join("; ")))
}

fn set_references(conditions: &mut Conditions<'_>, services: &[ExtensionServiceStatus]) {
    let type_ = types::EXTENSION_SERVICES_AVAILABLE;
    match summary(
        services
            .iter()
            .filter(|service| service.state != ExtensionServiceState::Available),
    ) {
        Some((reason, message)) => conditions.set(type_, false, reason, &message),
        None if services.is_empty() => conditions.set(
            type_,
            true,
            reasons::NOTHING_REFERENCED,
            "no ExtensionService is referenced",
        ),
        None => conditions.set(
            type_,
            true,
            reasons::ALL_AVAILABLE,
            "every referenced ExtensionService is available",
        ),
    }
}

fn set_workload(conditions: &mut Conditions<'_>, type_: &'static str, name: &str, workload: &Workload) {
    let pods = workload.pods.as_deref().unwrap_or("0");
    match (&workload.rollout, workload.available) {
        (Rollout::Absent, _) => conditions.set(
            type_,
            false,
            reasons::NOT_CREATED,
            &format!("{name} does not exist yet"),
        ),
        (_, true) => conditions.set(
            type_,
            true,
            reasons::AVAILABLE,
            &format!("{name} is available, ready pods: {pods}"),
        ),
        (_, false) => conditions.set(
            type_,
            false,
            reasons::UNAVAILABLE,
            &format!("too few pods of {name} are available, ready pods: {pods}"),
        ),
    }
}

/// Why Ready is not True, if it is not; the first of these.
fn unready(observed: &Observed, parts: &Parts, services: &[ExtensionServiceStatus]) -> Option<(&'static str, String)> {
    for (name, workload) in [("Contour", &parts.contour), ("Envoy", &parts.envoy)] {
        match &workload.rollout {
            Rollout::Absent => return Some((reasons::NOT_CREATED, format!("{name} does not exist yet"))),
            Rollout::Stuck(message) => return Some((reasons::ROLLOUT_STUCK, message.clone())),
            Rollout::Progressing(message) => return Some((reasons::ROLLING_OUT, message.clone())),
            Rollout::Complete => {}
        }
        if !workload.available {
            let pods = workload.pods.as_deref().unwrap_or("0");
            return Some((
                reasons::UNAVAILABLE,
                format!("too few pods of {name} are available, ready pods: {pods}"),
            ));
        }
        if name == "Contour"
            && let Err(message) = &parts.gate
        {
            return Some((reasons::ROLLING_OUT, message.clone()));
        }
    }
    if !parts.old_pods.hanging.is_empty() {
        return Some((reasons::ROLLING_OUT, hanging(&parts.old_pods)));
    }
    let readiness = observed
        .deployment
        .spec
        .extension_services
        .readiness
        .unwrap_or_default();
    let denied = services
        .iter()
        .filter(|service| service.traffic == Traffic::Denied && service.state != ExtensionServiceState::Available);
    if readiness == ExtensionServiceReadiness::Required {
        summary(denied)
    } else {
        None
    }
}

fn hanging(old_pods: &OldPods) -> String {
    format!(
        "old pods of Contour hang in Terminating: {}; look at their node",
        old_pods.hanging.join(", ")
    )
}

/// Why it does not work as intended, if that is so.
fn degraded(parts: &Parts, services: &[ExtensionServiceStatus]) -> Option<(&'static str, String)> {
    if let Some(problem) = &parts.certificate_problem {
        return Some((reasons::CERTIFICATES_FAILED, problem.clone()));
    }
    if !parts.altered.is_empty() {
        let message = format!(
            "somebody altered ContourConfiguration {}: it was put right, but a Contour that started meanwhile may have read \
             it; Contour is rolled to a successor",
            parts.altered.join(", ")
        );
        return Some((reasons::CONFIGURATION_ALTERED, message));
    }
    for workload in [&parts.contour, &parts.envoy] {
        if let Rollout::Stuck(message) = &workload.rollout {
            return Some((reasons::ROLLOUT_STUCK, message.clone()));
        }
    }
    if !parts.old_pods.hanging.is_empty() {
        return Some((reasons::ROLLOUT_STUCK, hanging(&parts.old_pods)));
    }
    summary(
        services
            .iter()
            .filter(|service| service.state != ExtensionServiceState::Available),
    )
}

/// What changed since the last status, if it is worth telling.
fn events(observed: &Observed, status: &ContourDeploymentStatus) -> Vec<Event> {
    let before = observed.deployment.status.as_ref();
    let was = |type_: &str| {
        before
            .into_iter()
            .flat_map(|status| &status.conditions)
            .find(|condition| condition.type_ == type_)
    };
    let mut events = Vec::new();
    for condition in &status.conditions {
        let good = condition.status == "True";
        let severity = match condition.type_.as_str() {
            types::READY | types::RECONCILING if good => Severity::Normal,
            types::STALLED if good => Severity::Warning,
            types::CONFIGURATION_VALID if condition.status == "False" => Severity::Warning,
            _ => continue,
        };
        let same = was(&condition.type_)
            .is_some_and(|last| last.status == condition.status && last.reason == condition.reason);
        let event = Event {
            severity,
            reason: condition.reason.clone(),
            note: condition.message.clone(),
        };
        // Two conditions may say the same.
        if !same && !events.contains(&event) {
            events.push(event);
        }
    }
    for service in &status.extension_services {
        let last = before
            .into_iter()
            .flat_map(|status| &status.extension_services)
            .find(|last| last.role == service.role);
        if last.is_none_or(|last| {
            (last.state, &last.namespace, &last.name) != (service.state, &service.namespace, &service.name)
        }) {
            let available = service.state == ExtensionServiceState::Available;
            let severity = if available { Severity::Normal } else { Severity::Warning };
            let note = service
                .message
                .clone()
                .unwrap_or_else(|| format!("ExtensionService {}/{} is available", service.namespace, service.name));
            events.push(Event {
                severity,
                reason: reason_of(service.state).to_owned(),
                note,
            });
        }
    }
    events
}

#[cfg(test)]
mod tests;
