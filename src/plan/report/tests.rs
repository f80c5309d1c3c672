use std::collections::BTreeSet;
use std::sync::Arc;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, Time};
use serde_json::json;

use super::events::events;
use super::*;
use crate::api::{Role, Traffic};
use crate::plan::assess::assess;
use crate::plan::observed::Observed;
use crate::plan::rollout::OldPods;
use crate::plan::startup_inputs::StartupInputs;
use crate::plan::waves::Severity;
use crate::plan::{certificates, ownership};

fn at(second: i64) -> Timestamp {
    Timestamp::from_second(second).expect("a time")
}

fn condition(type_: &str, status: &str, reason: &str) -> Condition {
    Condition {
        type_: type_.to_owned(),
        status: status.to_owned(),
        reason: reason.to_owned(),
        message: format!("{reason} in words"),
        observed_generation: Some(1),
        last_transition_time: Time(at(100)),
    }
}

fn with_conditions(conditions: Vec<Condition>) -> ContourDeploymentStatus {
    ContourDeploymentStatus {
        conditions,
        ..ContourDeploymentStatus::default()
    }
}

fn observed_after(last: Option<ContourDeploymentStatus>) -> Observed {
    let mut observed = crate::plan::operand::tests::observed(&json!({}));
    let mut deployment = observed.deployment.as_ref().clone();
    deployment.status = last;
    observed.deployment = deployment.into();
    observed
}

#[test]
fn patience_with_failures_starts_with_the_change_and_ends() {
    let status = with_conditions(vec![
        condition(types::READY, "False", reasons::WRITE_FAILED),
        condition(types::RECONCILING, "True", reasons::WRITE_FAILED),
    ]);
    for (now, left) in [
        (100, Some(30)),
        (110, Some(20)),
        (129, Some(1)),
        (130, None),
        (200, None),
    ] {
        assert_eq!(
            patience_left(&status, at(now)),
            left.map(Duration::from_secs),
            "{now} s, the change began at 100 s"
        );
    }
    let settled = with_conditions(vec![condition(types::READY, "False", reasons::WRITE_FAILED)]);
    assert_eq!(patience_left(&settled, at(110)), None, "no change is in progress");
}

#[test]
fn an_event_reports_only_a_changed_condition() {
    let told = |before: Option<Condition>, now: Condition| {
        let observed = observed_after(before.map(|before| with_conditions(vec![before])));
        let events = events(&observed.deployment, &with_conditions(vec![now]));
        events
            .into_iter()
            .map(|event| (event.severity, event.reason, event.note))
            .collect::<Vec<_>>()
    };
    for (type_, status, expected) in [
        (types::READY, "True", Some(Severity::Normal)),
        (types::READY, "False", None),
        (types::RECONCILING, "True", Some(Severity::Normal)),
        (types::STALLED, "True", Some(Severity::Warning)),
        (types::STALLED, "False", None),
        (types::CONFIGURATION_VALID, "False", Some(Severity::Warning)),
        (types::CONFIGURATION_VALID, "True", None),
        (types::CONFIGURATION_VALID, "Unknown", None),
        (types::DEGRADED, "True", None),
    ] {
        let now = condition(type_, status, "Why");
        let events: Vec<_> = expected
            .map(|severity| (severity, "Why".to_owned(), "Why in words".to_owned()))
            .into_iter()
            .collect();
        assert_eq!(told(None, now.clone()), events, "{type_} {status}, the first status");
        assert_eq!(told(Some(now.clone()), now.clone()), [], "{type_} {status} as before");
        let other_reason = condition(type_, status, "WhyBefore");
        assert_eq!(
            told(Some(other_reason), now.clone()),
            events,
            "{type_} {status}, another reason"
        );
        let other_status = condition(type_, "Other", "Why");
        assert_eq!(
            told(Some(other_status), now),
            events,
            "{type_} {status}, another status"
        );
    }
}

#[test]
fn a_message_of_two_conditions_is_recorded_once() {
    let now = with_conditions(vec![
        condition(types::STALLED, "True", reasons::CONFIGURATION_REFUSED),
        condition(types::CONFIGURATION_VALID, "False", reasons::CONFIGURATION_REFUSED),
    ]);
    assert_eq!(events(&observed_after(None).deployment, &now).len(), 1);
}

fn service(namespace: &str, name: &str, state: ExtensionServiceState) -> ExtensionServiceStatus {
    ExtensionServiceStatus {
        role: Role::GlobalExternalAuthorization,
        namespace: namespace.to_owned(),
        name: name.to_owned(),
        state,
        since: Time(at(100)),
        fail_open: Some(false),
        traffic: Traffic::Denied,
        stand_in: None,
        message: (state != ExtensionServiceState::Available).then(|| "why not".to_owned()),
    }
}

#[test]
fn an_event_reports_a_changed_reference_or_state() {
    use ExtensionServiceState::{Available, Missing};
    let with = |service| ContourDeploymentStatus {
        extension_services: vec![service],
        ..ContourDeploymentStatus::default()
    };
    let told = |before: Option<ExtensionServiceStatus>, now: ExtensionServiceStatus| {
        let events = events(&observed_after(before.map(with)).deployment, &with(now));
        events
            .into_iter()
            .map(|event| (event.severity, event.reason, event.note))
            .collect::<Vec<_>>()
    };
    let missing = [(
        Severity::Warning,
        reasons::EXTENSION_SERVICE_MISSING.to_owned(),
        "why not".to_owned(),
    )];
    let available = [(
        Severity::Normal,
        reasons::EXTENSION_SERVICE_AVAILABLE.to_owned(),
        "ExtensionService auth/auth is available".to_owned(),
    )];
    let now = |state| service("auth", "auth", state);
    assert_eq!(told(None, now(Missing)), missing);
    assert_eq!(told(None, now(Available)), available);
    assert_eq!(told(Some(now(Missing)), now(Missing)), []);
    assert_eq!(told(Some(now(Missing)), now(Available)), available);
    assert_eq!(told(Some(service("other", "auth", Missing)), now(Missing)), missing);
    assert_eq!(told(Some(service("auth", "other", Missing)), now(Missing)), missing);
    let mut of_another_role = now(Missing);
    of_another_role.role = Role::Tracing;
    assert_eq!(told(Some(of_another_role), now(Missing)), missing);
}

fn workload(rollout: Rollout, available: bool) -> Workload {
    Workload {
        rollout,
        available,
        is_whole: available,
        pods: None,
        patience: None,
    }
}

#[test]
fn ready_reports_contour_then_the_gate_then_envoy() {
    let complete = || workload(Rollout::Complete, true);
    let rolling = |name: &str| workload(Rollout::Progressing(format!("{name} rolls")), true);
    let waits = Err("Envoy waits".to_owned());
    for (contour, gate, envoy, expected) in [
        (
            rolling("Contour"),
            waits.clone(),
            rolling("Envoy"),
            Some((reasons::ROLLING_OUT, "Contour rolls")),
        ),
        (
            complete(),
            waits.clone(),
            rolling("Envoy"),
            Some((reasons::ROLLING_OUT, "Envoy waits")),
        ),
        (
            complete(),
            waits,
            workload(Rollout::Absent, false),
            Some((reasons::ROLLING_OUT, "Envoy waits")),
        ),
        (
            complete(),
            Ok(()),
            rolling("Envoy"),
            Some((reasons::ROLLING_OUT, "Envoy rolls")),
        ),
        (
            complete(),
            Ok(()),
            workload(Rollout::Absent, false),
            Some((reasons::NOT_CREATED, "Envoy does not exist yet")),
        ),
        (complete(), Ok(()), complete(), None),
    ] {
        let classified = ownership::classify(&observed_after(None));
        let mut assessment = assess(&classified);
        assessment.phase = Phase::Running(Box::new(Running {
            roles: Vec::new(),
            inputs: Some(StartupInputs::default()),
            configurations: Vec::new(),
            certificates: certificates::assess(&classified.observed),
            contour,
            envoy,
            has_envoy: true,
            gate,
            old_pods: OldPods {
                waited_for: Vec::new(),
                hanging: Vec::new(),
                requeue_after: None,
            },
            altered: BTreeSet::new(),
        }));
        let (status, _) = told(&assessment, &[]);
        let ready = status
            .conditions
            .iter()
            .find(|condition| condition.type_ == types::READY);
        let ready = ready.expect("Ready is always set");
        let found = (ready.status == "False").then_some((ready.reason.as_str(), ready.message.as_str()));
        assert_eq!(found, expected);
    }
}

#[test]
fn missing_policies_are_reported_and_change_nothing_else() {
    let told = |problems: &[&str]| {
        let mut observed = observed_after(None);
        observed.admission_problems = problems.iter().map(|&problem| problem.to_owned()).collect();
        let classified = ownership::classify(&observed);
        let mut assessment = assess(&classified);
        assessment.phase = Phase::NamespaceTerminating;
        let (mut status, events) = super::told(&assessment, &[]);
        let is_it = |condition: &Condition| condition.type_ == types::ADMISSION_POLICIES_INSTALLED;
        let told: Vec<_> = status
            .conditions
            .iter()
            .filter(|condition| is_it(condition))
            .cloned()
            .collect();
        status.conditions.retain(|condition| !is_it(condition));
        let [told] = <[Condition; 1]>::try_from(told).expect("one condition");
        ((status, events), told)
    };
    let (with, installed) = told(&[]);
    assert_eq!(
        (installed.status.as_str(), installed.reason.as_str()),
        ("True", reasons::AS_SHIPPED)
    );
    let (without, missing) = told(&["a does not exist", "b differs from the shipped object in spec.c"]);
    assert_eq!(
        (missing.status.as_str(), missing.reason.as_str()),
        ("False", reasons::NOT_AS_SHIPPED)
    );
    assert!(
        missing
            .message
            .starts_with("a does not exist; b differs from the shipped object in spec.c; "),
        "{}",
        missing.message
    );
    assert_eq!(with, without);
}

#[test]
fn the_version_of_contour_is_read_off_its_image() {
    for (image, status, reason) in [
        (None, "True", reasons::VERSION_SUPPORTED),
        (Some("contour:v1.33.8"), "True", reasons::VERSION_SUPPORTED),
        (Some("contour:v1.30.0"), "False", reasons::VERSION_UNSUPPORTED),
        (Some("contour@sha256:00"), "Unknown", reasons::VERSION_UNKNOWN),
    ] {
        let mut observed = observed_after(None);
        Arc::make_mut(&mut observed.deployment).spec.contour.image = image.map(str::to_owned);
        let classified = ownership::classify(&observed);
        let (found, _) = super::told(&assess(&classified), &[]);
        let condition = found
            .conditions
            .iter()
            .find(|condition| condition.type_ == types::CONTOUR_VERSION_SUPPORTED)
            .expect("the condition is always set");
        assert_eq!((&*condition.status, &*condition.reason), (status, reason), "{image:?}");
    }
}
