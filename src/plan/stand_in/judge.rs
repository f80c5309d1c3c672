//! What state the user's ExtensionService is in, and whether a copy of it can be used.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;

use super::nudge::Due;
use super::{Existing, Proven};
use crate::api::ExtensionServiceState as State;
use crate::api::contour::{ExtensionService, ServiceTarget, SubCondition, Verdict};
use crate::plan::object::{Kind, Object};
use crate::plan::observed::{NamespacedName, Observed};
use crate::plan::rollout;

/// Contour's reason for a Service, or a port, that it does not find.
const UNRESOLVED: &str = "ServiceUnresolvedReference";

/// Reasons of Contour's that speak of what the copy points at, not of the Contour that judges: only these evict a copy.
/// Another reason, a client certificate missing in *its* configuration for instance, marks every ExtensionService.
const EVICTING: [&str; 4] = [
    UNRESOLVED,
    "UnsupportedServiceType",
    "TLSUpstreamValidation",
    "CACertificateNotDelegated",
];

/// What is to be thought of the user's object.
#[derive(Clone, Debug)]
pub struct Judgement {
    /// Its state.
    pub state: State,
    /// Why it is not available.
    pub message: Option<String>,
    /// The newest proven copy can't be used: it would take HTTPS virtual hosts away (Contour v1.33 drops them when an
    /// ExtensionService that they reference is invalid).
    pub copy_is_bad: bool,
}

/// Judges the user's object by Contour's verdict on it (none: it does not exist), whether that is overdue, the newest proven copy
/// of it, and what Contour says of the stand-ins that stand for it.
pub fn judge(
    observed: &Observed,
    target: &NamespacedName,
    verdict: Option<&Verdict<'_>>,
    is_overdue: bool,
    proven: Option<&Proven>,
    stand_ins: &[&Existing<'_>],
) -> Judgement {
    let (namespace, name) = target;
    let judgement = |state, message: String, copy_is_bad| Judgement {
        state,
        message: Some(message),
        copy_is_bad,
    };
    let Some(verdict) = verdict else {
        return judgement(
            State::Missing,
            format!("ExtensionService {namespace}/{name} does not exist"),
            true,
        );
    };
    let Some(copy) = proven else {
        return match verdict {
            Verdict::Invalid(errors) => judgement(
                State::Invalid,
                format!(
                    "Contour says that ExtensionService {namespace}/{name} is not valid: {}",
                    said(errors)
                ),
                true,
            ),
            _ => judgement(
                State::Pending,
                format!("ExtensionService {namespace}/{name} exists, and Contour has not judged it yet"),
                true,
            ),
        };
    };
    let services = copy.spec.services();
    if let Some(problem) = services
        .iter()
        .find_map(|service| problem(observed, namespace, service))
    {
        return judgement(
            State::Invalid,
            format!("ExtensionService {namespace}/{name}: {problem}"),
            true,
        );
    }
    // Contour's word on the user's object brings a copy back; until then an evicted one stays away, or the two would flip.
    if *verdict != Verdict::Valid
        && stand_ins
            .iter()
            .any(|stand_in| stand_in.memory.evicted || is_evicted(stand_in.object))
    {
        let errors = match verdict {
            Verdict::Invalid(errors) => said(errors),
            _ => "what it points at is not usable any more".to_owned(),
        };
        return judgement(
            State::Invalid,
            format!("Contour says that ExtensionService {namespace}/{name} is not valid: {errors}"),
            true,
        );
    }
    if let Verdict::Invalid(errors) = verdict {
        let message = format!(
            "Contour says that ExtensionService {namespace}/{name} is not valid: {}; its last valid form stays in use",
            said(errors)
        );
        return judgement(State::Invalid, message, false);
    }
    if services.iter().any(|service| {
        observed
            .ready_services
            .contains(&(namespace.clone(), service.name.clone()))
    }) {
        if is_overdue {
            let message = format!(
                "Contour has not judged the present form of ExtensionService {namespace}/{name}; its last valid form stays in use"
            );
            return judgement(State::Pending, message, false);
        }
        return Judgement {
            state: State::Available,
            message: None,
            copy_is_bad: false,
        };
    }
    let names: Vec<_> = services.iter().map(|service| service.name.as_str()).collect();
    let message = format!(
        "no endpoint is ready behind ExtensionService {namespace}/{name} (Services: {})",
        names.join(", ")
    );
    judgement(State::NoEndpoints, message, false)
}

/// The nudge that is due if Contour's word on the present form of an object, the user's or a stand-in, is out of date, as far as can
/// be seen: it did not find a Service, or its port, and all of them are there by now.
pub fn outdated(observed: &Observed, namespace: &str, object: &ExtensionService) -> Option<Due> {
    let Verdict::Invalid(errors) = object.verdict() else {
        return None;
    };
    let services = object.spec.services();
    let is_outdated = observed.references_synced
        && !services.is_empty()
        && errors.iter().any(|error| error.reason == UNRESOLVED)
        && services
            .iter()
            .all(|service| problem(observed, namespace, service).is_none());
    if !is_outdated {
        return None;
    }
    let service = |target: &ServiceTarget| service(observed, namespace, &target.name);
    let services: Vec<&Object> = services.iter().filter_map(service).collect();
    let made = services
        .iter()
        .map(|service| &service.metadata)
        .chain([&object.metadata]);
    let made = made.filter_map(|metadata| metadata.creation_timestamp.as_ref());
    let since = made.map(|Time(made)| *made).max().unwrap_or(observed.now);
    let services = services.iter().map(|service| service.uid().to_owned()).collect();
    Some(Due::for_services(services, since, observed.now))
}

/// The nudge for an object of whose present form Contour has said nothing. While none of its pods is ready it has an excuse; and when
/// too few of them become ready, or enough, who leads may change, and the count begins anew.
pub fn unheard(observed: &Observed, namespace: &str, object: &ExtensionService) -> Option<Due> {
    if object.verdict() != Verdict::None {
        return None;
    }
    let metadata = &object.metadata;
    let heard = rollout::contour_heard_since(observed)?;
    let id = (namespace.to_owned(), metadata.name.clone().unwrap_or_default());
    let made = || metadata.creation_timestamp.as_ref().map(|Time(made)| *made);
    let unchanged = observed.unchanged_since.get(&id).copied().or_else(made);
    Some(Due::for_silence(
        metadata.uid.as_deref().unwrap_or_default(),
        metadata.generation.unwrap_or_default(),
        unchanged.unwrap_or(observed.now).max(heard),
        observed.now,
    ))
}

/// A Service of the user's, or a blackhole.
fn service<'a>(observed: &'a Observed, namespace: &str, name: &str) -> Option<&'a Object> {
    let theirs = observed.services.get(&(namespace.to_owned(), name.to_owned()));
    theirs
        .map(AsRef::as_ref)
        .or_else(|| observed.object(Kind::Service, namespace, name))
}

/// Contour's words.
fn said(errors: &[SubCondition]) -> String {
    errors
        .iter()
        .map(|error| format!("{}: {}", error.reason, error.message))
        .collect::<Vec<_>>()
        .join("; ")
}

/// Whether Contour says of a stand-in's own present generation that what it points at is not usable.
fn is_evicted(object: &Object) -> bool {
    let evicts = |errors: &[SubCondition]| errors.iter().any(|error| EVICTING.contains(&error.reason.as_str()));
    object
        .parse::<ExtensionService>()
        .is_ok_and(|stand_in| matches!(stand_in.verdict(), Verdict::Invalid(errors) if evicts(errors)))
}

/// What is seen to be wrong with a Service that the copy needs. Contour publishes its routes before it writes a verdict, so
/// this is the faster of the two signals.
fn problem(observed: &Observed, namespace: &str, target: &ServiceTarget) -> Option<String> {
    if !observed.references_synced {
        return None;
    }
    let ServiceTarget { name, port } = target;
    let Some(service) = service(observed, namespace, name) else {
        return Some(format!("its Service {namespace}/{name} does not exist"));
    };
    if service.at("/spec/type").and_then(serde_json::Value::as_str) == Some("ExternalName") {
        return Some(format!(
            "its Service {namespace}/{name} is of type ExternalName, which Contour does not take here"
        ));
    }
    let ports = service.at("/spec/ports").and_then(serde_json::Value::as_array);
    let has_port = ports
        .into_iter()
        .flatten()
        .any(|entry| entry.get("port").and_then(serde_json::Value::as_i64) == Some(*port));
    (!has_port).then(|| format!("its Service {namespace}/{name} has no port {port}"))
}
