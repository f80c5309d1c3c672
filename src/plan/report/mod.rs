//! The status: what is said of a ContourDeployment. `chain` says why it is not Ready, or Degraded, in order of what matters most;
//! `services` what is said of each ExtensionService, `conditions` holds the mechanics of conditions, `events` says what is worth an Event.

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

pub use chain::{Besides, DEGRADED, READY, Rule};
use conditions::Conditions;
use services::{available, extension_services, summary};

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

/// What the rules of a condition go by.
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

    /// The failure that a person has to know of first.
    fn failure(&self) -> Option<&Failure> {
        let held = self.waves.iter().flat_map(|wave| &wave.held);
        let failures = held.filter_map(|held| held.failure.as_ref());
        failures
            .chain(self.assessment.failures)
            .min_by_key(|failure| chain::rank(failure))
    }
}

/// The plan: these waves, what is asked, and what is told of both.
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
    set_policies(&mut conditions, assessment.admission_problems);
    status.fields_decided_by_others = waves.iter().flat_map(|wave| wave.overruled.clone()).collect();
    status.observed_generation = assessment.deployment.metadata.generation;
    status.conditions = conditions.finish();
    // What is on its way is told when it has come.
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

/// The parts of status beside its conditions. Where the workloads were not looked at they are what they were.
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

/// Ready, Degraded, and whether a change is on its way or a person must act.
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
            conditions.set(types::DEGRADED, false, reasons::HEALTHY, "nothing is wrong");
        }
        None => {}
    }
}

/// The conditions of one part each. Of what was not looked at nothing is said.
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
            "the configuration was accepted",
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
        (_, false) => conditions.set(type_, false, reasons::UNAVAILABLE, &chain::too_few(name, workload)),
    }
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

#[cfg(test)]
mod tests;
