//! The facts about a user's ExtensionService in one role, on which [`decide`](super::decision::decide) bases its decision.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;

use super::nudge::Due;
use super::{Existing, Proven, trial};
use crate::api::Role;
use crate::api::contour::{ExtensionService, ServiceTarget, SubCondition, Verdict};
use crate::plan::object::{Kind, NamespacedName, Object};
use crate::plan::observed::Observed;
use crate::plan::rollout;
use crate::plan::views::ServiceSpec;

/// The facts about a user's ExtensionService in one role.
pub struct Evidence<'a> {
    /// The namespace and the name of the ExtensionService.
    pub target: &'a NamespacedName,
    /// The user's ExtensionService, if it exists.
    pub user: Option<&'a ExtensionService>,
    /// Contour's verdict on the ExtensionService or on its trial. None if the ExtensionService does not exist.
    pub verdict: Option<Verdict>,
    /// The newest spec of the existing ExtensionService that Contour has judged valid.
    pub proven: Option<Proven>,
    /// The problem of the Services that the proven spec names, as a message.
    pub problem: Option<String>,
    /// Whether a copy was withdrawn and Contour has not judged the ExtensionService valid since.
    pub was_withdrawn: bool,
    /// Whether a Service of the proven spec has a ready endpoint.
    pub is_answered: bool,
    /// Whether Contour's verdict on the current form is overdue.
    pub is_overdue: bool,
    /// The nudge that Contour needs.
    pub due: Option<Due>,
}

impl<'a> Evidence<'a> {
    /// Collects the facts.
    pub fn of(observed: &'a Observed, existing: &[Existing<'_>], target: &'a NamespacedName, role: Role) -> Self {
        let NamespacedName { namespace, .. } = target;
        let user = observed.extension_services.get(target).map(AsRef::as_ref);
        let mine: Vec<_> = existing
            .iter()
            .filter(|existing| existing.role == role && existing.stands_for(target))
            .collect();
        // If the ExtensionService needs a trial, the verdict on the trial replaces the verdict on the ExtensionService.
        let trial = user.and_then(|user| trial::of(observed, target, user));
        let judged = trial.as_ref().or(user);
        let verdict = judged.map(ExtensionService::verdict);
        let proven = proven(&mine, user, verdict.as_ref());
        let outdated = judged.and_then(|judged| outdated(observed, namespace, judged));
        // Contour never reports a verdict on an object that needs a trial.
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
                .any(|mine| mine.persisted.withdrawn || is_unusable(observed, mine.object)),
            is_answered: services.iter().any(is_ready),
            is_overdue: without_verdict.as_ref().is_some_and(Due::is_due),
            due: outdated.or(without_verdict),
            verdict,
            proven,
        }
    }
}

impl Evidence<'_> {
    /// Reports whether the user's ExtensionService is too large to be copied.
    pub fn is_too_large(&self) -> bool {
        self.user.is_some_and(|user| user.spec.is_too_large())
    }
}

/// Returns the newest spec of the existing ExtensionService that Contour has judged valid: the current spec, or a spec in the persisted
/// state of a stand-in. A recreated ExtensionService (with another uid) has no proven spec yet.
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

/// Returns the nudge that is due if Contour's verdict on the current form of an object, the user's or a stand-in, is outdated. A verdict is
/// outdated if Contour did not find a Service or its port, but all Services and ports exist now.
pub fn outdated(observed: &Observed, namespace: &str, object: &ExtensionService) -> Option<Due> {
    let Verdict::Invalid(errors) = object.verdict() else {
        return None;
    };
    let services = object.spec.services();
    let is_outdated = observed.references_synced
        && !services.is_empty()
        && errors
            .iter()
            .any(|error| error.reason == observed.version().facts().unresolved_reason)
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

/// Returns the nudge for an object on whose current form Contour has reported no verdict. Contour is not expected to report a verdict while
/// no Contour pod is ready. When Contour's Deployment becomes available or unavailable, the leader may change, so the count starts again.
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

/// Returns a Service of a user, or a blackhole.
fn service<'a>(observed: &'a Observed, namespace: &str, name: &str) -> Option<&'a Object> {
    let theirs = observed.services.get(&NamespacedName::new(namespace, name));
    theirs
        .map(AsRef::as_ref)
        .or_else(|| observed.object(Kind::Service, namespace, name))
}

/// Reports whether Contour's verdict on a stand-in's current generation is that the stand-in's target is unusable.
pub fn is_unusable(observed: &Observed, object: &Object) -> bool {
    let target_reasons = observed.version().facts().target_reasons;
    let withdraws = |errors: &[SubCondition]| {
        errors
            .iter()
            .any(|error| target_reasons.contains(&error.reason.as_str()))
    };
    object
        .parse::<ExtensionService>()
        .is_ok_and(|stand_in| matches!(stand_in.verdict(), Verdict::Invalid(errors) if withdraws(&errors)))
}

/// Returns the problem of a Service that the copy needs, or None. Contour publishes its routes before it writes a verdict, so this check
/// detects the problem earlier than the verdict.
fn problem(observed: &Observed, namespace: &str, target: &ServiceTarget) -> Option<String> {
    if !observed.references_synced {
        return None;
    }
    let ServiceTarget { name, port } = target;
    let Some(service) = service(observed, namespace, name) else {
        return Some(format!("Service {namespace}/{name} does not exist"));
    };
    let spec = ServiceSpec::of(service);
    if spec.type_ == "ExternalName" {
        return Some(format!(
            "Service {namespace}/{name} is of type ExternalName, which Contour does not accept for an ExtensionService"
        ));
    }
    let has_port = spec.ports.iter().any(|entry| entry.number() == *port);
    (!has_port).then(|| format!("Service {namespace}/{name} has no port {port}"))
}
