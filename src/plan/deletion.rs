//! What is done when the ContourDeployment is being deleted: Contour's Deployment, its pods gone, then Envoy and the rest,
//! stand-ins, blackholes, and its own finalizer last.
//!
//! A Contour that still runs must not see its stand-ins go: it would drop HTTPS virtual hosts. The order holds that.

use super::diff::{Target, Write};
use super::object::{Kind, Object};
use super::observed::{NamespacePhase, Observed};
use super::operand::access;
use super::{Plan, Wave, rollout, status};
use crate::api::vocabulary::FINALIZER;

/// The plan of a deletion. It needs neither Contour's CRDs nor the users' ExtensionServices.
pub fn plan(observed: &Observed) -> Plan {
    let owner = observed.owner();
    let finalizers = observed.deployment.metadata.finalizers.iter().flatten();
    if !finalizers.clone().any(|finalizer| finalizer == FINALIZER) {
        return Plan {
            waves: Vec::new(),
            questions: Vec::new(),
            status: status::deleting(observed, &[]),
            events: Vec::new(),
            look_again: None,
        };
    }
    // In a namespace that goes too the namespace controller deletes, and our own access may already be gone.
    let namespace_stays = observed.namespace(&owner.namespace) == Some(NamespacePhase::Active);
    let mut waves = Vec::new();
    if namespace_stays {
        waves.push(Wave::converge(
            "the operator's own access",
            access::operator(observed),
            observed,
        ));
    }
    let bindings: Vec<_> = access::operator(observed)
        .iter()
        .map(|desired| desired.object.key())
        .collect();
    let ours = |object: &&Object| {
        owner.owns(object) && !matches!(object.kind, Kind::Pod | Kind::ReplicaSet) && !bindings.contains(&object.key())
    };
    let can_go =
        |object: &&Object| namespace_stays || object.namespace() != owner.namespace || object.has_our_finalizer();
    let rest: Vec<&Object> = observed
        .objects
        .values()
        .map(AsRef::as_ref)
        .filter(ours)
        .filter(can_go)
        .collect();
    let is_contour = |object: &Object| object.kind == Kind::Deployment && object.name() == owner.contour();

    let old = rollout::old_pods(observed, None);
    let contour_gone = observed
        .object(Kind::Deployment, &owner.namespace, &owner.contour())
        .is_none();
    waves.push(removal(
        "Contour",
        rest.iter().copied().filter(|object| is_contour(object)),
    ));
    if contour_gone && old.waited_for.is_empty() {
        let held = |object: &&&Object| object.has_our_finalizer();
        waves.push(removal(
            "everything but the stand-ins",
            rest.iter().filter(|object| !held(object)).copied(),
        ));
        waves.push(removal(
            "stand-ins",
            rest.iter()
                .filter(held)
                .filter(|object| object.kind == Kind::ExtensionService)
                .copied(),
        ));
        waves.push(removal(
            "blackholes",
            rest.iter()
                .filter(held)
                .filter(|object| object.kind != Kind::ExtensionService)
                .copied(),
        ));
        if rest.is_empty() {
            let target = Target::of_deployment(&observed.deployment);
            waves.push(Wave {
                name: "the ContourDeployment's finalizer",
                writes: vec![Write::Release(target)],
                look_first: false,
            });
        }
    }
    let waiting: Vec<String> = if contour_gone && old.waited_for.is_empty() {
        rest.iter().map(|object| object.key().to_string()).collect()
    } else {
        old.waited_for.iter().map(|pod| format!("Pod {pod}")).collect()
    };
    Plan {
        waves,
        questions: Vec::new(),
        status: status::deleting(observed, &waiting),
        events: Vec::new(),
        look_again: old.look_again,
    }
}

/// What must go although Contour's CRDs are missing: a CRD that is being deleted waits for its objects, and a namespace for what
/// is in it; our finalizer must hold neither. A blackhole is of no use once its stand-in is gone.
pub fn without_crds(observed: &Observed) -> [Wave; 2] {
    let terminating = |kind| observed.of_kind(kind).filter(|object| object.is_terminating());
    let is_left = |object: &&Object| {
        let stand_in = observed.object(Kind::ExtensionService, object.namespace(), object.name());
        object.has_our_finalizer() && stand_in.is_none()
    };
    [
        removal("stand-ins that are being deleted", terminating(Kind::ExtensionService)),
        removal(
            "blackholes that are being deleted",
            terminating(Kind::Service).filter(is_left),
        ),
    ]
}

/// The next step on the way out, for each of these objects: delete, and then, where our finalizer holds it, release.
pub fn removal<'a>(name: &'static str, objects: impl IntoIterator<Item = &'a Object>) -> Wave {
    let writes = objects.into_iter().filter_map(|object| {
        if !object.is_terminating() {
            Some(Write::Delete(Target::of(object)))
        } else if object.has_our_finalizer() {
            Some(Write::Release(Target::of(object)))
        } else {
            None
        }
    });
    Wave {
        name,
        writes: writes.collect(),
        look_first: false,
    }
}
