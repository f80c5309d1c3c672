//! The reasons why a ContourDeployment is not Ready or is Degraded: ordered chains of rules. The first rule that holds is reported. Each
//! rule of Ready also determines whether a change is in progress (Reconciling) or an administrator must act (Stalled). The reference page
//! is generated from these rules.

use super::services::summary;
use super::{Input, PATIENCE_WITH_FAILURES};
use crate::api::vocabulary::reasons;
use crate::api::{ExtensionServiceReadiness, ExtensionServiceState, ExtensionServiceStatus, Traffic};
use crate::plan::assess::{Phase, Running};
use crate::plan::failure::{Failure, FailureCause};
use crate::plan::rollout::{OldPods, Rollout, Workload};

/// A reason and a message.
pub type Told = (&'static str, String);

/// A rule: a condition, and the reason and message to report.
pub struct Rule {
    /// The condition under which the rule holds, as a text for the reference page.
    pub when: &'static str,
    /// The reasons that the rule reports. Empty: one reason for each state of an ExtensionService.
    pub reasons: &'static [&'static str],
    /// The condition to set beside Ready.
    pub besides: Besides,
    holds: fn(&Input<'_>) -> Option<Told>,
}

/// The condition to set beside Ready.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Besides {
    /// Neither Reconciling nor Stalled.
    Nothing,
    /// A change is in progress.
    Reconciling,
    /// An administrator must act.
    Stalled,
}

/// The rules for Ready to be False. Ready is True if no rule holds.
pub const READY: &[Rule] = &[
    Rule {
        when: "an object cannot be written, and an administrator must act: no step that Slipway waits for can resolve \
               the failure, or the failure has lasted for 30 seconds",
        reasons: FAILURES.split_at(FAILURES.len() - 1).0,
        besides: Besides::Stalled,
        holds: |input| {
            input
                .failure()
                .filter(|failure| is_for_a_person(input, failure))
                .map(failed)
        },
    },
    Rule {
        when: "an object cannot be written, and Slipway retries",
        reasons: FAILURES.split_at(1).1,
        besides: Besides::Reconciling,
        holds: |input| input.failure().map(failed),
    },
    Rule {
        when: "the ContourDeployment is being deleted",
        reasons: &[reasons::DELETING],
        besides: Besides::Reconciling,
        holds: deleting,
    },
    Rule {
        when: "the namespace of the ContourDeployment is being deleted",
        reasons: &[reasons::NAMESPACE_TERMINATING],
        besides: Besides::Stalled,
        holds: namespace_terminating,
    },
    Rule {
        when: "the API server does not serve Contour's CRDs",
        reasons: &[reasons::CONTOUR_CRDS_MISSING],
        besides: Besides::Reconciling,
        holds: crds_missing,
    },
    Rule {
        when: "the Secrets of the namespace have not been read yet, or the API server has not checked the configuration yet",
        reasons: &[reasons::CONFIGURATION_UNCHECKED],
        besides: Besides::Reconciling,
        holds: unchecked,
    },
    Rule {
        when: "the configuration is refused",
        reasons: &[reasons::CONFIGURATION_REFUSED],
        besides: Besides::Stalled,
        holds: refused,
    },
    Rule {
        when: "Contour's Deployment does not exist",
        reasons: &[reasons::NOT_CREATED],
        besides: Besides::Reconciling,
        holds: |input| absent(CONTOUR, &input.running()?.contour),
    },
    Rule {
        when: "Contour's rollout is stuck",
        reasons: &[reasons::ROLLOUT_STUCK],
        besides: Besides::Stalled,
        holds: |input| stuck(&input.running()?.contour),
    },
    Rule {
        when: "Contour is being rolled out",
        reasons: &[reasons::ROLLING_OUT],
        besides: Besides::Reconciling,
        holds: |input| rolling_out(&input.running()?.contour),
    },
    Rule {
        when: "too few pods of Contour are available",
        reasons: &[reasons::UNAVAILABLE],
        besides: Besides::Reconciling,
        holds: |input| unavailable(CONTOUR, &input.running()?.contour),
    },
    Rule {
        when: "Envoy waits until Contour is available and Contour's old pods have terminated",
        reasons: &[reasons::ROLLING_OUT],
        besides: Besides::Reconciling,
        holds: |input| Some((reasons::ROLLING_OUT, input.running()?.gate.clone().err()?)),
    },
    Rule {
        when: "Envoy's DaemonSet or Deployment does not exist",
        reasons: &[reasons::NOT_CREATED],
        besides: Besides::Reconciling,
        holds: |input| absent(ENVOY, &input.running()?.envoy),
    },
    Rule {
        when: "Envoy's rollout is stuck",
        reasons: &[reasons::ROLLOUT_STUCK],
        besides: Besides::Stalled,
        holds: |input| stuck(&input.running()?.envoy),
    },
    Rule {
        when: "Envoy is being rolled out",
        reasons: &[reasons::ROLLING_OUT],
        besides: Besides::Reconciling,
        holds: |input| rolling_out(&input.running()?.envoy),
    },
    Rule {
        when: "too few pods of Envoy are available",
        reasons: &[reasons::UNAVAILABLE],
        besides: Besides::Reconciling,
        holds: |input| unavailable(ENVOY, &input.running()?.envoy),
    },
    Rule {
        when: "old pods of Contour are stuck in Terminating",
        reasons: &[reasons::ROLLING_OUT],
        besides: Besides::Reconciling,
        holds: |input| Some((reasons::ROLLING_OUT, hanging(&input.running()?.old_pods)?)),
    },
    Rule {
        when: "requests are denied because an ExtensionService is not available, and `readiness` is `Required`",
        reasons: &[],
        besides: Besides::Nothing,
        holds: required_and_denied,
    },
];

/// The rules for Degraded to be True. If no rule holds, Degraded is False, or keeps its value if nothing was assessed.
pub const DEGRADED: &[Rule] = &[
    Rule {
        when: "the API server does not serve Contour's CRDs",
        reasons: &[reasons::CONTOUR_CRDS_MISSING],
        besides: Besides::Nothing,
        holds: crds_missing,
    },
    Rule {
        when: "the configuration is refused",
        reasons: &[reasons::CONFIGURATION_REFUSED],
        besides: Besides::Nothing,
        holds: refused,
    },
    Rule {
        when: "the renewal of a certificate is overdue",
        reasons: &[reasons::CERTIFICATES_FAILED],
        besides: Besides::Nothing,
        holds: |input| {
            let problem = input.running()?.certificates.problem.clone()?;
            Some((reasons::CERTIFICATES_FAILED, problem))
        },
    },
    Rule {
        when: "another user or controller changed or deleted a ContourConfiguration that is in use",
        reasons: &[reasons::CONFIGURATION_ALTERED],
        besides: Besides::Nothing,
        holds: altered,
    },
    Rule {
        when: "the rollout of Contour or Envoy is stuck",
        reasons: &[reasons::ROLLOUT_STUCK],
        besides: Besides::Nothing,
        holds: |input| {
            let running = input.running()?;
            stuck(&running.contour).or_else(|| stuck(&running.envoy))
        },
    },
    Rule {
        when: "old pods of Contour are stuck in Terminating",
        reasons: &[reasons::ROLLOUT_STUCK],
        besides: Besides::Nothing,
        holds: |input| Some((reasons::ROLLOUT_STUCK, hanging(&input.running()?.old_pods)?)),
    },
    Rule {
        when: "an ExtensionService is not available",
        reasons: &[],
        besides: Besides::Nothing,
        holds: |input| {
            input.running()?;
            summary(not_available(input))
        },
    },
    Rule {
        when: "an unneeded object in another namespace cannot be deleted",
        reasons: &[reasons::LEFT_BEHIND],
        besides: Besides::Nothing,
        holds: left_behind,
    },
];

/// Returns the first rule of a chain that holds, with its reason and message.
pub fn first(chain: &'static [Rule], input: &Input<'_>) -> Option<(&'static Rule, Told)> {
    let (rule, told) = chain.iter().find_map(|rule| Some((rule, (rule.holds)(input)?)))?;
    debug_assert!(
        rule.reasons.is_empty() || rule.reasons.contains(&told.0),
        "the rule \"{}\" does not list the reason {}",
        rule.when,
        told.0
    );
    Some((rule, told))
}

const CONTOUR: &str = "Contour";
const ENVOY: &str = "Envoy";

/// The reasons of [`failed`], the worst first. The first one requires an administrator immediately, and the last one never does.
const FAILURES: [&str; 8] = [
    reasons::NOT_TAKEN,
    reasons::NAME_COLLISION,
    reasons::FORBIDDEN,
    reasons::REFUSED,
    reasons::UNSETTLED,
    reasons::CONTESTED,
    reasons::NAMESPACE_TERMINATING,
    reasons::WRITE_FAILED,
];

/// Returns the reason for the cause of a failure.
fn reason_of(cause: FailureCause) -> &'static str {
    match cause {
        FailureCause::Collision => reasons::NAME_COLLISION,
        FailureCause::Forbidden | FailureCause::AccessPending => reasons::FORBIDDEN,
        FailureCause::NamespaceTerminating => reasons::NAMESPACE_TERMINATING,
        FailureCause::Refused => reasons::REFUSED,
        FailureCause::NotTaken => reasons::NOT_TAKEN,
        FailureCause::Contested => reasons::CONTESTED,
        FailureCause::Unsettled => reasons::UNSETTLED,
        FailureCause::Transient => reasons::WRITE_FAILED,
    }
}

/// Returns the rank of a failure. The lowest rank is the worst failure.
pub fn rank(failure: &Failure) -> usize {
    let reason = reason_of(failure.cause);
    let rank = FAILURES.iter().position(|other| *other == reason);
    debug_assert!(rank.is_some(), "FAILURES does not rank {reason}");
    rank.unwrap_or(FAILURES.len())
}

fn failed(failure: &Failure) -> Told {
    (
        reason_of(failure.cause),
        format!("{}: {}", failure.key, failure.message),
    )
}

/// Reports whether an administrator must act. Once Stalled was reported for a reason, the answer stays true for that reason.
fn is_for_a_person(input: &Input<'_>, failure: &Failure) -> bool {
    let is_for_a_person = match failure.cause {
        FailureCause::NotTaken => true,
        FailureCause::Transient => false,
        _ => input.conditions.reconciles_for() >= PATIENCE_WITH_FAILURES,
    };
    is_for_a_person || input.conditions.was_stalled(reason_of(failure.cause))
}

fn deleting(input: &Input<'_>) -> Option<Told> {
    let Phase::Deleting(deletion) = &input.assessment.phase else {
        return None;
    };
    let message = if deletion.waiting.is_empty() {
        "the ContourDeployment is being deleted".to_owned()
    } else {
        format!(
            "the ContourDeployment is being deleted and waits for the deletion of: {}",
            deletion.waiting.join(", ")
        )
    };
    Some((reasons::DELETING, message))
}

fn namespace_terminating(input: &Input<'_>) -> Option<Told> {
    let namespace = &input.assessment.instance.owner.namespace;
    matches!(input.assessment.phase, Phase::NamespaceTerminating).then(|| {
        let message =
            format!("namespace {namespace} is being deleted, and Slipway can create nothing in the namespace");
        (reasons::NAMESPACE_TERMINATING, message)
    })
}

/// Contour cannot start without its CRDs, so Slipway starts nothing until the API server serves them.
pub fn crds_missing(input: &Input<'_>) -> Option<Told> {
    let Phase::CrdsMissing(missing) = &input.assessment.phase else {
        return None;
    };
    let message = format!(
        "the API server does not serve these CRDs of Contour: {}; install the CRDs from Contour's release",
        missing.join(", ")
    );
    Some((reasons::CONTOUR_CRDS_MISSING, message))
}

/// The API server has not checked the settings yet, or Slipway has not read the Secrets yet.
pub fn unchecked(input: &Input<'_>) -> Option<Told> {
    let message = match input.assessment.phase {
        Phase::Unchecked(_) => "the API server has not checked the configuration yet".to_owned(),
        Phase::SecretsUnread => {
            let namespace = &input.assessment.instance.owner.namespace;
            format!("Slipway has not read the Secrets of namespace {namespace} yet")
        }
        _ => return None,
    };
    Some((reasons::CONFIGURATION_UNCHECKED, message))
}

/// The settings are invalid, and nothing of this generation is applied.
pub fn refused(input: &Input<'_>) -> Option<Told> {
    let Phase::Refused(refused) = &input.assessment.phase else {
        return None;
    };
    let message = format!(
        "the configuration is refused, and Slipway applies nothing of this generation; the last good configuration stays in use: {}",
        refused.message
    );
    Some((reasons::CONFIGURATION_REFUSED, message))
}

fn absent(name: &str, workload: &Workload) -> Option<Told> {
    let is_absent = workload.rollout == Rollout::Absent;
    is_absent.then(|| (reasons::NOT_CREATED, format!("{name} does not exist yet")))
}

fn stuck(workload: &Workload) -> Option<Told> {
    match &workload.rollout {
        Rollout::Stuck(message) => Some((reasons::ROLLOUT_STUCK, message.clone())),
        _ => None,
    }
}

fn rolling_out(workload: &Workload) -> Option<Told> {
    match &workload.rollout {
        Rollout::Progressing(message) => Some((reasons::ROLLING_OUT, message.clone())),
        _ => None,
    }
}

fn unavailable(name: &str, workload: &Workload) -> Option<Told> {
    (!workload.available).then(|| (reasons::UNAVAILABLE, too_few(name, workload)))
}

/// Returns the message for a workload with too few available pods.
pub fn too_few(name: &str, workload: &Workload) -> String {
    let pods = workload.pods.as_deref().unwrap_or("0");
    format!("too few pods of {name} are available; ready pods: {pods}")
}

fn hanging(old_pods: &OldPods) -> Option<String> {
    let pods = &old_pods.hanging;
    let words = || {
        format!(
            "old pods of Contour are stuck in Terminating: {}; check their nodes",
            pods.join(", ")
        )
    };
    (!pods.is_empty()).then(words)
}

/// Returns the ExtensionServices that are not available.
fn not_available<'a>(input: &'a Input<'_>) -> impl Iterator<Item = &'a ExtensionServiceStatus> {
    let services = input.services.iter();
    services.filter(|service| service.state != ExtensionServiceState::Available)
}

fn required_and_denied(input: &Input<'_>) -> Option<Told> {
    input.running()?;
    let readiness = input.assessment.instance.spec.extension_services.readiness;
    if readiness.unwrap_or_default() != ExtensionServiceReadiness::Required {
        return None;
    }
    summary(not_available(input).filter(|service| service.traffic == Traffic::Denied))
}

fn altered(input: &Input<'_>) -> Option<Told> {
    let Running { altered, .. } = input.running()?;
    if altered.is_empty() {
        return None;
    }
    let names: Vec<_> = altered.iter().map(String::as_str).collect();
    let message = format!(
        "another user or controller changed or deleted ContourConfiguration {}; Slipway restores it and rolls out Contour, because a \
         container that started in the meantime may have read other content",
        names.join(", ")
    );
    Some((reasons::CONFIGURATION_ALTERED, message))
}

fn left_behind(input: &Input<'_>) -> Option<Told> {
    let failure = input.waves.iter().flat_map(|wave| &wave.left_behind).next()?;
    let message = format!(
        "{} is no longer needed but cannot be deleted; Slipway retries: {}",
        failure.key, failure.message
    );
    Some((reasons::LEFT_BEHIND, message))
}
