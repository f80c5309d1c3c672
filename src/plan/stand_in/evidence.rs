//! What is known of a user's ExtensionService in one role: what [`decide`](super::decision::decide) decides by.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;

use super::nudge::Due;
use super::{Existing, Proven, trial};
use crate::api::Role;
use crate::api::contour::{ExtensionService, ServiceTarget, SubCondition, Verdict};
use crate::plan::object::{Kind, NamespacedName, Object};
use crate::plan::observed::Observed;
use crate::plan::rollout;
use crate::plan::views::ServiceSpec;

/// Contour's reason for a Service, or a port, that it does not find.
const UNRESOLVED: &str = "ServiceUnresolvedReference";

/// Reasons of Contour's that speak of what the copy points at, not of the Contour that judges: only these withdraw a copy.
/// Another reason, a client certificate missing in *its* configuration for instance, marks every ExtensionService.
const WITHDRAWING: [&str; 4] = [
    UNRESOLVED,
    "UnsupportedServiceType",
    "TLSUpstreamValidation",
    "CACertificateNotDelegated",
];

/// What is known of a user's ExtensionService in one role.
pub struct Evidence<'a> {
    /// Which it is.
    pub target: &'a NamespacedName,
    /// The user's object, if it exists.
    pub user: Option<&'a ExtensionService>,
    /// Contour's verdict on it, or on its trial, if it exists.
    pub verdict: Option<Verdict>,
    /// The newest spec of the present object that Contour has judged valid.
    pub proven: Option<Proven>,
    /// What is seen to be wrong with what that points at, in words.
    pub problem: Option<String>,
    /// Whether a copy went bad, and Contour has not called the user's object valid since.
    pub was_withdrawn: bool,
    /// Whether anybody answers behind it.
    pub is_answered: bool,
    /// Whether Contour should have said something of its present form long since.
    pub is_overdue: bool,
    /// What Contour is to be nudged for.
    pub due: Option<Due>,
}

impl<'a> Evidence<'a> {
    /// What is known now.
    pub fn of(observed: &'a Observed, existing: &[Existing<'_>], target: &'a NamespacedName, role: Role) -> Self {
        let NamespacedName { namespace, .. } = target;
        let user = observed.extension_services.get(target).map(AsRef::as_ref);
        let mine: Vec<_> = existing
            .iter()
            .filter(|existing| existing.role == role && existing.stands_for(target))
            .collect();
        // Contour's word on the user's object is that on its trial, if it needs one.
        let trial = user.and_then(|user| trial::of(observed, target, user));
        let judged = trial.as_ref().or(user);
        let verdict = judged.map(ExtensionService::verdict);
        let proven = proven(&mine, user, verdict.as_ref());
        let outdated = judged.and_then(|judged| outdated(observed, namespace, judged));
        // Of an object that is to be tried Contour never says anything.
        let heard_of = trial.as_ref().or(user.filter(|user| !trial::needs_one(user)));
        let without_verdict = heard_of.and_then(|object| without_verdict(observed, namespace, object));
        let services = proven.as_ref().map(|proven| proven.spec.services()).unwrap_or_default();
        let is_ready = |service: &ServiceTarget| {
            let service = NamespacedName::new(&**namespace, &*service.name);
            observed.ready_services.contains(&service)
        };
        Self {
            target,
            user,
            problem: services
                .iter()
                .find_map(|service| problem(observed, namespace, service)),
            was_withdrawn: mine
                .iter()
                .any(|mine| mine.persisted.withdrawn || is_unusable(mine.object)),
            is_answered: services.iter().any(is_ready),
            is_overdue: without_verdict.as_ref().is_some_and(Due::is_due),
            due: outdated.or(without_verdict),
            verdict,
            proven,
        }
    }
}

impl Evidence<'_> {
    /// Whether the user's object is too large to be copied.
    pub fn is_too_large(&self) -> bool {
        self.user.is_some_and(|user| user.spec.is_too_large())
    }
}

/// The newest spec of the user's present object that Contour has judged valid: the present one, or one that a stand-in
/// remembers. An object that was deleted and made again (another uid) has proved nothing yet.
fn proven(existing: &[&Existing<'_>], user: Option<&ExtensionService>, verdict: Option<&Verdict>) -> Option<Proven> {
    let user = user?;
    let uid = user.metadata.uid.clone().unwrap_or_default();
    let generation = user.metadata.generation.unwrap_or_default();
    if verdict == Some(&Verdict::Valid) && !user.spec.is_too_large() {
        return Some(Proven {
            uid,
            generation,
            spec: user.spec.clone(),
        });
    }
    let remembered = existing
        .iter()
        .filter_map(|existing| existing.persisted.proven.as_ref());
    remembered
        .filter(|proven| proven.uid == uid)
        .max_by_key(|proven| proven.generation)
        .cloned()
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
pub fn without_verdict(observed: &Observed, namespace: &str, object: &ExtensionService) -> Option<Due> {
    if object.verdict() != Verdict::None {
        return None;
    }
    let metadata = &object.metadata;
    let heard = rollout::contour_heard_since(observed)?;
    let id = NamespacedName::new(namespace, metadata.name.clone().unwrap_or_default());
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
    let theirs = observed.services.get(&NamespacedName::new(namespace, name));
    theirs
        .map(AsRef::as_ref)
        .or_else(|| observed.object(Kind::Service, namespace, name))
}

/// Whether Contour says of a stand-in's own present generation that what it points at is not usable.
pub fn is_unusable(object: &Object) -> bool {
    let withdraws = |errors: &[SubCondition]| errors.iter().any(|error| WITHDRAWING.contains(&error.reason.as_str()));
    object
        .parse::<ExtensionService>()
        .is_ok_and(|stand_in| matches!(stand_in.verdict(), Verdict::Invalid(errors) if withdraws(&errors)))
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
    let spec = ServiceSpec::of(service);
    if spec.type_ == "ExternalName" {
        return Some(format!(
            "its Service {namespace}/{name} is of type ExternalName, which Contour does not take here"
        ));
    }
    let has_port = spec.ports.iter().any(|entry| entry.number() == *port);
    (!has_port).then(|| format!("its Service {namespace}/{name} has no port {port}"))
}
