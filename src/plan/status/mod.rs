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
use super::{Event, Severity};
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
    let end = reconciling.last_transition_time.0 + PATIENCE_WITH_FAILURES;
    Duration::try_from(end.duration_since(now))
        .ok()
        .filter(|left| !left.is_zero())
}

/// What the status of a running ContourDeployment is made from.
pub struct Parts<'a> {
    /// What is seen of each reference.
    pub roles: &'a [SeenRole],
    /// Contour's Deployment.
    pub contour: &'a Workload,
    /// The Envoys.
    pub envoy: &'a Workload,
    /// Why Envoy waits for Contour, if it does.
    pub gate: &'a Result<(), String>,
    /// Pods of other templates.
    pub old_pods: &'a OldPods,
    /// What is wrong with the certificates.
    pub certificate_problem: Option<&'a str>,
    /// ContourConfigurations in use that somebody altered.
    pub altered: &'a [String],
}

/// A status, and what is worth telling about its difference to the one before.
type Told = (ContourDeploymentStatus, Vec<Event>);

/// Everything is applied, or on its way.
pub fn running(observed: &Observed, parts: &Parts<'_>) -> Told {
    let mut conditions = Conditions::of(observed);
    let services = extension_services(observed, parts.roles);

    conditions.set(
        types::CONFIGURATION_VALID,
        true,
        reasons::CONFIGURATION_ACCEPTED,
        "the configuration was accepted",
    );
    set_references(&mut conditions, &services);
    set_workload(&mut conditions, types::CONTOUR_AVAILABLE, "Contour", parts.contour);
    set_workload(&mut conditions, types::ENVOY_AVAILABLE, "Envoy", parts.envoy);

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
    finish(observed, conditions, status)
}

/// The API server has not been asked about the settings yet, or what is there has not been read.
pub fn unchecked(observed: &Observed) -> ContourDeploymentStatus {
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
    finish(observed, conditions, previous(observed)).0
}

/// The settings can't be used; nothing of this generation is applied.
pub fn refused(observed: &Observed, message: &str, roles: &[SeenRole]) -> Told {
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
    finish(observed, conditions, status)
}

/// How many are available, `1/2` for instance.
fn available(services: &[ExtensionServiceStatus]) -> String {
    let available = services
        .iter()
        .filter(|service| service.state == ExtensionServiceState::Available);
    format!("{}/{}", available.count(), services.len())
}

/// Contour can't start without its CRDs, so nothing is started until they are there.
pub fn crds_missing(observed: &Observed) -> Told {
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
    finish(observed, conditions, previous(observed))
}

/// The namespace of the ContourDeployment is being deleted: nothing can be made in it.
pub fn namespace_terminating(observed: &Observed) -> Told {
    let mut conditions = Conditions::of(observed);
    let message = format!("namespace {} is being deleted", observed.owner().namespace);
    conditions.set(types::READY, false, reasons::NAMESPACE_TERMINATING, &message);
    conditions.stalled(reasons::NAMESPACE_TERMINATING, &message);
    finish(observed, conditions, previous(observed))
}

/// The ContourDeployment is being deleted, and this is still there.
pub fn deleting(observed: &Observed, waiting: &[String]) -> ContourDeploymentStatus {
    let mut conditions = Conditions::of(observed);
    let message = if waiting.is_empty() {
        "being deleted".to_owned()
    } else {
        format!("being deleted; still there: {}", waiting.join(", "))
    };
    conditions.set(types::READY, false, reasons::DELETING, &message);
    conditions.reconciling(reasons::DELETING, &message);
    finish(observed, conditions, previous(observed)).0
}

/// The parts of the last status that a status without a look at the workloads keeps.
fn previous(observed: &Observed) -> ContourDeploymentStatus {
    observed.deployment.status.clone().unwrap_or_default()
}

/// Failures, generation and order; and what is worth an Event.
fn finish(observed: &Observed, mut conditions: Conditions<'_>, mut status: ContourDeploymentStatus) -> Told {
    if let Some(failure) = worst(&observed.failures) {
        let reason = match failure.cause {
            FailureCause::Collision => reasons::NAME_COLLISION,
            FailureCause::Forbidden | FailureCause::AccessPending => reasons::FORBIDDEN,
            FailureCause::NamespaceTerminating => reasons::NAMESPACE_TERMINATING,
            FailureCause::Refused => reasons::REFUSED,
            FailureCause::Transient => reasons::WRITE_FAILED,
        };
        let message = format!("{}: {}", failure.key, failure.message);
        conditions.set(types::READY, false, reason, &message);
        let given_up =
            failure.cause != FailureCause::Transient && conditions.reconciles_for() >= PATIENCE_WITH_FAILURES;
        if given_up || conditions.was_stalled(reason) {
            conditions.stalled(reason, &message);
        } else {
            conditions.reconciling(reason, &message);
        }
    }
    status.observed_generation = observed.deployment.metadata.generation;
    status.conditions = conditions.finish();
    let events = events(observed, &status);
    (status, events)
}

/// The failure that a person has to know of first.
fn worst(failures: &[Failure]) -> Option<&Failure> {
    failures.iter().min_by_key(|failure| match failure.cause {
        FailureCause::Collision => 0,
        FailureCause::Forbidden | FailureCause::AccessPending => 1,
        FailureCause::Refused => 2,
        FailureCause::NamespaceTerminating => 3,
        FailureCause::Transient => 4,
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
fn unready(
    observed: &Observed,
    parts: &Parts<'_>,
    services: &[ExtensionServiceStatus],
) -> Option<(&'static str, String)> {
    for (name, workload) in [("Contour", parts.contour), ("Envoy", parts.envoy)] {
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
            && let Err(message) = parts.gate
        {
            return Some((reasons::ROLLING_OUT, message.clone()));
        }
    }
    if !parts.old_pods.hanging.is_empty() {
        return Some((reasons::ROLLING_OUT, hanging(parts.old_pods)));
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
fn degraded(parts: &Parts<'_>, services: &[ExtensionServiceStatus]) -> Option<(&'static str, String)> {
    if let Some(problem) = parts.certificate_problem {
        return Some((reasons::CERTIFICATES_FAILED, problem.to_owned()));
    }
    if !parts.altered.is_empty() {
        let message = format!(
            "somebody altered ContourConfiguration {}: it was put right, but a Contour that started meanwhile may have read \
             it; Contour is rolled to a successor",
            parts.altered.join(", ")
        );
        return Some((reasons::CONFIGURATION_ALTERED, message));
    }
    for workload in [parts.contour, parts.envoy] {
        if let Rollout::Stuck(message) = &workload.rollout {
            return Some((reasons::ROLLOUT_STUCK, message.clone()));
        }
    }
    if !parts.old_pods.hanging.is_empty() {
        return Some((reasons::ROLLOUT_STUCK, hanging(parts.old_pods)));
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
