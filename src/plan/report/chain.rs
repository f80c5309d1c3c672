//! Why a ContourDeployment is not Ready, or is Degraded: ordered chains of rules, of which the first that holds is told. Whether a change
//! is on its way (Reconciling) or a person must act (Stalled) is a part of each rule of Ready. The reference page is made from these.

use super::services::summary;
use super::{Input, PATIENCE_WITH_FAILURES};
use crate::api::vocabulary::reasons;
use crate::api::{ExtensionServiceReadiness, ExtensionServiceState, ExtensionServiceStatus, Traffic};
use crate::plan::assess::{Phase, Running};
use crate::plan::failure::{Failure, FailureCause};
use crate::plan::rollout::{OldPods, Rollout, Workload};

/// A reason and a message.
pub type Told = (&'static str, String);

/// A rule: when it holds, and what is told then.
pub struct Rule {
    /// When it holds, in words.
    pub when: &'static str,
    /// The reasons that it tells; empty: one for each state of an ExtensionService.
    pub reasons: &'static [&'static str],
    /// What is said beside it.
    pub besides: Besides,
    holds: fn(&Input<'_>) -> Option<Told>,
}

/// What is said beside a rule of Ready.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Besides {
    /// Neither of the two.
    Nothing,
    /// A change is on its way.
    Reconciling,
    /// A person must act.
    Stalled,
}

/// Why Ready is False. It is True if none of these holds.
pub const READY: &[Rule] = &[
    Rule {
        when: "an object can't be written, and a person has to act: nothing that Slipway waits for can cure it, or it has lasted for half a minute",
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
        when: "an object can't be written, and it is tried again",
        reasons: FAILURES.split_at(1).1,
        besides: Besides::Reconciling,
        holds: |input| input.failure().map(failed),
    },
    Rule {
        when: "it is being deleted",
        reasons: &[reasons::DELETING],
        besides: Besides::Reconciling,
        holds: deleting,
    },
    Rule {
        when: "its namespace is being deleted",
        reasons: &[reasons::NAMESPACE_TERMINATING],
        besides: Besides::Stalled,
        holds: namespace_terminating,
    },
    Rule {
        when: "Contour's CRDs are not served",
        reasons: &[reasons::CONTOUR_CRDS_MISSING],
        besides: Besides::Reconciling,
        holds: crds_missing,
    },
    Rule {
        when: "the Secrets of its namespace have not been read, or the API server has not said yet whether it takes the configuration",
        reasons: &[reasons::CONFIGURATION_UNCHECKED],
        besides: Besides::Reconciling,
        holds: unchecked,
    },
    Rule {
        when: "the configuration was refused",
        reasons: &[reasons::CONFIGURATION_REFUSED],
        besides: Besides::Stalled,
        holds: refused,
    },
    Rule {
        when: "Contour does not exist",
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
        when: "Envoy waits until Contour is available and its old pods are gone",
        reasons: &[reasons::ROLLING_OUT],
        besides: Besides::Reconciling,
        holds: |input| Some((reasons::ROLLING_OUT, input.running()?.gate.clone().err()?)),
    },
    Rule {
        when: "Envoy does not exist",
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
        when: "old pods of Contour hang in Terminating",
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

/// Why Degraded is True. If none of these holds it is False, or, where nothing was looked at, what it was.
pub const DEGRADED: &[Rule] = &[
    Rule {
        when: "Contour's CRDs are not served",
        reasons: &[reasons::CONTOUR_CRDS_MISSING],
        besides: Besides::Nothing,
        holds: crds_missing,
    },
    Rule {
        when: "the configuration was refused",
        reasons: &[reasons::CONFIGURATION_REFUSED],
        besides: Besides::Nothing,
        holds: refused,
    },
    Rule {
        when: "a certificate should have been renewed long ago",
        reasons: &[reasons::CERTIFICATES_FAILED],
        besides: Besides::Nothing,
        holds: |input| {
            let problem = input.running()?.certificates.problem.clone()?;
            Some((reasons::CERTIFICATES_FAILED, problem))
        },
    },
    Rule {
        when: "somebody altered or deleted a ContourConfiguration that is in use",
        reasons: &[reasons::CONFIGURATION_ALTERED],
        besides: Besides::Nothing,
        holds: altered,
    },
    Rule {
        when: "Contour's rollout, or Envoy's, is stuck",
        reasons: &[reasons::ROLLOUT_STUCK],
        besides: Besides::Nothing,
        holds: |input| {
            let running = input.running()?;
            stuck(&running.contour).or_else(|| stuck(&running.envoy))
        },
    },
    Rule {
        when: "old pods of Contour hang in Terminating",
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
        when: "something that is no longer wanted can't be deleted in another namespace",
        reasons: &[reasons::LEFT_BEHIND],
        besides: Besides::Nothing,
        holds: left_behind,
    },
];

/// The first rule of a chain that holds, and what it tells.
pub fn first(chain: &'static [Rule], input: &Input<'_>) -> Option<(&'static Rule, Told)> {
    chain.iter().find_map(|rule| Some((rule, (rule.holds)(input)?)))
}

const CONTOUR: &str = "Contour";
const ENVOY: &str = "Envoy";

/// Those that [`failed`] tells, the worst first. The first is a person's turn at once, the last never is.
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

/// The reason that a failure is told with.
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

/// How bad a failure is: the least is the worst.
pub fn rank(failure: &Failure) -> usize {
    let reason = reason_of(failure.cause);
    FAILURES
        .iter()
        .position(|other| *other == reason)
        .unwrap_or(FAILURES.len())
}

fn failed(failure: &Failure) -> Told {
    (
        reason_of(failure.cause),
        format!("{}: {}", failure.key, failure.message),
    )
}

/// Whether a person has to act. What was said once stays said.
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
        "being deleted".to_owned()
    } else {
        format!("being deleted; still there: {}", deletion.waiting.join(", "))
    };
    Some((reasons::DELETING, message))
}

fn namespace_terminating(input: &Input<'_>) -> Option<Told> {
    let namespace = &input.assessment.instance.owner.namespace;
    matches!(input.assessment.phase, Phase::NamespaceTerminating).then(|| {
        let message = format!("namespace {namespace} is being deleted");
        (reasons::NAMESPACE_TERMINATING, message)
    })
}

/// Contour can't start without its CRDs, so nothing is started until they are there.
pub fn crds_missing(input: &Input<'_>) -> Option<Told> {
    let Phase::CrdsMissing(missing) = &input.assessment.phase else {
        return None;
    };
    let message = format!(
        "Contour's CRDs are not served: {}; install them from Contour's release",
        missing.join(", ")
    );
    Some((reasons::CONTOUR_CRDS_MISSING, message))
}

/// The API server has not been asked about the settings yet, or what is there has not been read.
pub fn unchecked(input: &Input<'_>) -> Option<Told> {
    let message = match input.assessment.phase {
        Phase::Unchecked(_) => "the configuration has not been checked yet".to_owned(),
        Phase::SecretsUnread => {
            let namespace = &input.assessment.instance.owner.namespace;
            format!("the Secrets of namespace {namespace} have not been read yet")
        }
        _ => return None,
    };
    Some((reasons::CONFIGURATION_UNCHECKED, message))
}

/// The settings can't be used; nothing of this generation is applied.
pub fn refused(input: &Input<'_>) -> Option<Told> {
    let Phase::Refused(refused) = &input.assessment.phase else {
        return None;
    };
    let message = format!(
        "the configuration was refused and nothing of it is applied; what ran goes on running: {}",
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

/// In words.
pub fn too_few(name: &str, workload: &Workload) -> String {
    let pods = workload.pods.as_deref().unwrap_or("0");
    format!("too few pods of {name} are available, ready pods: {pods}")
}

fn hanging(old_pods: &OldPods) -> Option<String> {
    let pods = &old_pods.hanging;
    let words = || {
        format!(
            "old pods of Contour hang in Terminating: {}; look at their node",
            pods.join(", ")
        )
    };
    (!pods.is_empty()).then(words)
}

/// Those that are not available.
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
        "somebody altered or deleted ContourConfiguration {}; Slipway repairs it and rolls Contour, because a Contour that started in \
         between may have read something else",
        names.join(", ")
    );
    Some((reasons::CONFIGURATION_ALTERED, message))
}

fn left_behind(input: &Input<'_>) -> Option<Told> {
    let failure = input.waves.iter().flat_map(|wave| &wave.left_behind).next()?;
    let message = format!("{} can't be deleted and is left: {}", failure.key, failure.message);
    Some((reasons::LEFT_BEHIND, message))
}
