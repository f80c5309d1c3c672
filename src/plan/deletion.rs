//! What is done when the ContourDeployment is being deleted: Contour's Deployment, its pods gone, then Envoy and the rest,
//! stand-ins, blackholes, and its own finalizer last.
//!
//! A Contour that still runs must not see its stand-ins go: it would drop HTTPS virtual hosts. The order holds that.

use std::sync::Arc;
use std::time::Duration;

use super::captured::Contours;
use super::diff::{Target, Write};
use super::object::{Kind, Object};
use super::observed::{NamespacePhase, Observed};
use super::operand::access;
use super::usage::Usage;
use super::{Wave, rollout};
use crate::api::vocabulary::FINALIZER;

/// A deletion, as far as it is.
pub struct Deletion {
    /// What is to be done.
    pub waves: Vec<Wave>,
    /// What is waited for, in words.
    pub waiting: Vec<String>,
    /// Look again after this time.
    pub look_again: Option<Duration>,
}

/// The plan of a deletion. It needs neither Contour's CRDs nor the users' ExtensionServices.
pub fn plan(observed: &Observed, leftovers: &[Arc<Object>]) -> Deletion {
    let owner = observed.owner();
    let finalizers = observed.deployment.metadata.finalizers.iter().flatten();
    if !finalizers.clone().any(|finalizer| finalizer == FINALIZER) {
        return Deletion {
            waves: Vec::new(),
            waiting: Vec::new(),
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
    let must_go =
        |object: &&Object| !matches!(object.kind, Kind::Pod | Kind::ReplicaSet) && !bindings.contains(&object.key());
    let can_go =
        |object: &&Object| namespace_stays || object.namespace() != owner.namespace || object.has_our_finalizer();
    let rest: Vec<&Object> = observed
        .objects
        .values()
        .chain(leftovers)
        .map(AsRef::as_ref)
        .filter(must_go)
        .filter(can_go)
        .collect();
    let is_contour = |object: &Object| object.kind == Kind::Deployment && object.name() == owner.contour();

    let old = rollout::old_pods(observed, None);
    let contours = Contours::of(observed);
    // A ReplicaSet that was not collected yet may still make a pod.
    let replica_sets: Vec<_> = contours.all_replica_sets().collect();
    let contour_gone = replica_sets.is_empty() && contours.deployment.is_none();
    let removal = |name, objects: Vec<&Object>| removal(name, objects, observed);
    waves.push(removal(
        "Contour",
        rest.iter().copied().filter(|object| is_contour(object)).collect(),
    ));
    // Elsewhere somebody else may hold an object, or refuse its deletion. That is not waited for.
    let is_waited_for = |object: &&&Object| {
        let has_to_be_written = !object.is_terminating() || object.has_our_finalizer();
        let key = object.key();
        !owner.is_elsewhere(&key) || (has_to_be_written && !observed.attempts.gave_up(&key))
    };
    let left: Vec<&Object> = rest.iter().filter(is_waited_for).copied().collect();
    if contour_gone && old.waited_for.is_empty() {
        // A watch may lag behind the start of a container, which must not find its configuration gone.
        let removal = |name, objects: Vec<&Object>| Wave {
            look_first: true,
            ..removal(name, objects)
        };
        let held = |object: &&&Object| object.has_our_finalizer();
        waves.push(removal(
            "everything but the stand-ins",
            rest.iter().filter(|object| !held(object)).copied().collect(),
        ));
        waves.push(removal(
            "stand-ins",
            rest.iter()
                .filter(held)
                .filter(|object| object.kind == Kind::ExtensionService)
                .copied()
                .collect(),
        ));
        waves.push(removal(
            "blackholes",
            rest.iter()
                .filter(held)
                .filter(|object| object.kind != Kind::ExtensionService)
                .copied()
                .collect(),
        ));
        if left.is_empty() {
            let target = Target::of_deployment(&observed.deployment);
            waves.push(Wave::of(
                "the ContourDeployment's finalizer",
                vec![Write::Release(target)],
            ));
        }
    }
    let waiting: Vec<String> = if contour_gone && old.waited_for.is_empty() {
        left.iter().map(|object| object.key().to_string()).collect()
    } else {
        let pods = old.waited_for.iter().map(|pod| format!("Pod {pod}"));
        let sets = replica_sets.iter().map(|set| format!("ReplicaSet {}", set.name()));
        sets.chain(pods).collect()
    };
    Deletion {
        waves,
        waiting,
        look_again: old.look_again,
    }
}

/// What must go although Contour's CRDs are missing: a CRD that is being deleted waits for its objects, and a namespace for what
/// is in it; our finalizer must hold neither. A blackhole is of no use once its stand-in is gone.
pub fn without_crds(observed: &Observed, leftovers: &[Arc<Object>]) -> [Wave; 2] {
    let all = || observed.objects.values().chain(leftovers).map(AsRef::as_ref);
    let terminating = |kind| all().filter(move |object: &&Object| object.kind == kind && object.is_terminating());
    let is_left = |object: &&Object| {
        let mut stand_ins = all().filter(|other| other.kind == Kind::ExtensionService);
        let id = |object: &Object| (object.namespace().to_owned(), object.name().to_owned());
        object.has_our_finalizer() && !stand_ins.any(|stand_in| id(stand_in) == id(object))
    };
    [
        removal(
            "stand-ins that are being deleted",
            terminating(Kind::ExtensionService),
            observed,
        ),
        removal(
            "blackholes that are being deleted",
            terminating(Kind::Service).filter(is_left),
            observed,
        ),
    ]
}

/// What an earlier plan left behind in a namespace that nothing refers to any more, unless a pod says that it needs it. Stand-ins go
/// before their blackholes.
pub fn leftovers(observed: &Observed, leftovers: &[Arc<Object>], usage: &Usage) -> Wave {
    let has_stand_in = |object: &Object| {
        let mut stand_ins = leftovers.iter().filter(|other| other.kind == Kind::ExtensionService);
        let same = |other: &Arc<Object>| (other.namespace(), other.name()) == (object.namespace(), object.name());
        object.kind == Kind::Service && stand_ins.any(same)
    };
    let objects = leftovers.iter().map(AsRef::as_ref);
    let objects =
        objects.filter(|object| !has_stand_in(object) && !usage.holds_name(object.namespace(), object.name()));
    Wave {
        look_first: true,
        ..removal("what is left in other namespaces", objects, observed)
    }
}

/// The next step on the way out, for each of these objects: delete, and then, where our finalizer holds it, release. What could not be
/// deleted elsewhere waits for its next try.
pub fn removal<'a>(name: &'static str, objects: impl IntoIterator<Item = &'a Object>, observed: &Observed) -> Wave {
    let mut wave = Wave {
        name,
        ..Wave::default()
    };
    for object in objects {
        let write = if !object.is_terminating() {
            Write::Delete(Target::of(object))
        } else if object.has_our_finalizer() {
            Write::Release(Target::of(object))
        } else {
            continue;
        };
        let key = object.key();
        match observed.attempts.wait(&key, "", false, observed.now) {
            Some(wait) => {
                wave.left_behind.extend(observed.attempts.failure(&key, "").cloned());
                wave.look_again = wave.look_again.into_iter().chain([wait]).min();
            }
            None => wave.writes.push(write),
        }
    }
    wave
}
