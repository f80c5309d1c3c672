//! The status of a ContourDeployment. `chain` determines why the ContourDeployment is not Ready or is Degraded, with the most important
//! reason first. `services` builds the entries of ExtensionServices, `conditions` implements the conditions, and `events` selects the
//! changes to record as Events.

mod chain;
mod conditions;
mod events;
mod services;

use std::time::Duration;

use jiff::Timestamp;

use super::assess::{Assessment, Phase, Running};
use super::failure::Failure;
use super::rollout::{Rollout, Workload};
use super::waves::{Event, Plan, Wave};
use crate::api::vocabulary::{conditions as types, reasons};
use crate::api::{ContourDeploymentStatus, ExtensionServiceState, ExtensionServiceStatus};
use crate::contour::version::{ImageVersion, Version};

pub use chain::{Besides, DEGRADED, READY, Rule};
use conditions::Conditions;
use services::{available, extension_services, summary};

/// The time for which a failure counts as a change in progress, because a later step of the same installation may resolve the failure.
/// After this time, an administrator must act.
const PATIENCE_WITH_FAILURES: Duration = Duration::from_secs(30);

/// Returns the time until a failure that this status reports as a change in progress requires an administrator. Returns None if no change
/// is in progress or the time has passed.
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

/// The input of the rules of a condition.
pub struct Input<'a> {
    assessment: &'a Assessment<'a>,
    waves: &'a [Wave],
    services: &'a [ExtensionServiceStatus],
    conditions: &'a Conditions<'a>,
}

impl Input<'_> {
    fn running(&self) -> Option<&Running> {
        match &self.assessment.phase {
            Phase::Running(running) => Some(running),
            _ => None,
        }
    }

    /// Returns the most important failure.
    fn failure(&self) -> Option<&Failure> {
        let held = self.waves.iter().flat_map(|wave| &wave.held);
        let failures = held.filter_map(|held| held.failure.as_ref());
        failures
            .chain(self.assessment.failures)
            .min_by_key(|failure| chain::rank(failure))
    }
}

/// Returns the plan with these waves, the questions, and the status and Events for both.
pub fn report(assessment: Assessment<'_>, waves: Vec<Wave>) -> Plan {
    let (status, events) = told(&assessment, &waves);
    let waits = waves.iter().filter_map(|wave| wave.requeue_after);
    Plan {
        requeue_after: waits.chain(assessment.requeue_after).min(),
        waves,
        questions: assessment.questions,
        status,
        events,
    }
}

fn told(assessment: &Assessment<'_>, waves: &[Wave]) -> (ContourDeploymentStatus, Vec<Event>) {
    let mut status = subjects(assessment);
    let mut conditions = Conditions::of(assessment.deployment, assessment.now);
    let input = Input {
        assessment,
        waves,
        services: &status.extension_services,
        conditions: &Conditions::of(assessment.deployment, assessment.now),
    };
    set_parts(&mut conditions, &input);
    set_summary(&mut conditions, &input);
    set_version(&mut conditions, assessment.deployment.spec.contour.image.as_deref());
    set_policies(&mut conditions, assessment.admission_problems);
    status.fields_decided_by_others = waves.iter().flat_map(|wave| wave.overruled.clone()).collect();
    status.observed_generation = assessment.deployment.metadata.generation;
    status.conditions = conditions.finish();
    // The Events of a change in progress are recorded when the change is complete.
    let is_on_its_way = matches!(
        assessment.phase,
        Phase::Deleting(_) | Phase::SecretsUnread | Phase::Unchecked(_)
    );
    let events = if is_on_its_way {
        Vec::new()
    } else {
        events::events(assessment.deployment, &status)
    };
    (status, events)
}

/// Returns the parts of the status other than the conditions. If the workloads were not assessed, the parts keep their values.
fn subjects(assessment: &Assessment<'_>) -> ContourDeploymentStatus {
    let (roles, contour, envoy) = match &assessment.phase {
        Phase::Running(running) => (&running.roles, &running.contour, &running.envoy),
        Phase::Refused(refused) => (&refused.roles, &refused.contour, &refused.envoy),
        _ => return assessment.deployment.status.clone().unwrap_or_default(),
    };
    let services = extension_services(assessment, roles);
    ContourDeploymentStatus {
        extension_services_available: Some(available(&services)),
        extension_services: services,
        contour: contour.pods.clone(),
        envoy: envoy.pods.clone(),
        ..ContourDeploymentStatus::default()
    }
}

/// Sets Ready, Degraded, Reconciling and Stalled.
fn set_summary(conditions: &mut Conditions<'_>, input: &Input<'_>) {
    match chain::first(READY, input) {
        None => conditions.set(
            types::READY,
            true,
            reasons::AS_SPECIFIED,
            "Contour and Envoy run as specified",
        ),
        Some((rule, (reason, message))) => {
            conditions.set(types::READY, false, reason, &message);
            match rule.besides {
                Besides::Nothing => {}
                Besides::Reconciling => conditions.set(types::RECONCILING, true, reason, &message),
                Besides::Stalled => conditions.set(types::STALLED, true, reason, &message),
            }
        }
    }
    match chain::first(DEGRADED, input) {
        Some((_, (reason, message))) => conditions.set(types::DEGRADED, true, reason, &message),
        None if input.running().is_some() => {
            conditions.set(types::DEGRADED, false, reasons::HEALTHY, "no problem was found");
        }
        None => {}
    }
}

/// Sets the condition of each part. Parts that were not assessed keep their conditions.
fn set_parts(conditions: &mut Conditions<'_>, input: &Input<'_>) {
    let (contour, envoy) = match &input.assessment.phase {
        Phase::Running(running) => (&running.contour, &running.envoy),
        Phase::Refused(refused) => (&refused.contour, &refused.envoy),
        _ => {
            if let Some((reason, message)) = chain::crds_missing(input) {
                conditions.set(types::EXTENSION_SERVICES_AVAILABLE, false, reason, &message);
            }
            if let Some((reason, message)) = chain::crds_missing(input).or_else(|| chain::unchecked(input)) {
                conditions.unknown(types::CONFIGURATION_VALID, reason, &message);
            }
            return;
        }
    };
    match chain::refused(input) {
        Some((reason, message)) => conditions.set(types::CONFIGURATION_VALID, false, reason, &message),
        None => conditions.set(
            types::CONFIGURATION_VALID,
            true,
            reasons::CONFIGURATION_ACCEPTED,
            "the configuration is accepted",
        ),
    }
    set_references(conditions, input.services);
    set_workload(conditions, types::CONTOUR_AVAILABLE, "Contour", contour);
    set_workload(conditions, types::ENVOY_AVAILABLE, "Envoy", envoy);
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
            "the spec references no ExtensionService",
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
            &format!("{name} is available; ready pods: {pods}"),
        ),
        (_, false) => conditions.set(type_, false, reasons::UNAVAILABLE, &chain::too_few(name, workload)),
    }
}

/// Sets the condition of Contour's version. The condition informs the administrator, and nothing else depends on it.
fn set_version(conditions: &mut Conditions<'_>, image: Option<&str>) {
    let type_ = types::CONTOUR_VERSION_SUPPORTED;
    let supported = Version::ALL.map(|version| version.to_string()).join(", ");
    let default = Version::DEFAULT;
    match ImageVersion::of(image) {
        ImageVersion::Supported(version) => {
            let message = format!("this version of Slipway supports Contour {version}");
            conditions.set(type_, true, reasons::VERSION_SUPPORTED, &message);
        }
        ImageVersion::Unsupported(found) => {
            let message = format!(
                "spec.contour.image names Contour {found}, and this version of Slipway supports {supported}; the rules of Contour {default} \
                 apply, so use an image of a supported version"
            );
            conditions.set(type_, false, reasons::VERSION_UNSUPPORTED, &message);
        }
        ImageVersion::Unknown => {
            let message = format!(
                "the tag of spec.contour.image names no version of Contour; the rules of Contour {default} apply, so check that the image \
                 contains one of these versions: {supported}"
            );
            conditions.unknown(type_, reasons::VERSION_UNKNOWN, &message);
        }
    }
}

/// Sets the condition of the admission policies. The condition informs the administrator, and nothing else depends on it.
fn set_policies(conditions: &mut Conditions<'_>, problems: &[String]) {
    let type_ = types::ADMISSION_POLICIES_INSTALLED;
    if problems.is_empty() {
        let message = "the admission policies are installed as this version of Slipway ships them";
        conditions.set(type_, true, reasons::AS_SHIPPED, message);
    } else {
        let message = format!(
            "{}; install config/admission of this version of Slipway",
            problems.join("; ")
        );
        conditions.set(type_, false, reasons::NOT_AS_SHIPPED, &message);
    }
}

#[cfg(test)]
mod tests;
