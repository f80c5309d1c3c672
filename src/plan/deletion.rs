//! How far a deletion of the ContourDeployment is, and what has to go with it.

use std::time::Duration;

use super::object::{Kind, Object, Owner};
use super::observed::NamespacePhase;
use super::operand::access;
use super::ownership::Classified;
use super::rollout;
use super::startup_inputs::Contours;

/// A deletion, as far as it is.
pub struct Deletion {
    /// Whether the ContourDeployment's namespace stays.
    pub namespace_stays: bool,
    /// Whether no Contour runs any more, and none can start.
    pub contour_is_gone: bool,
    /// What is waited for, in words.
    pub waiting: Vec<String>,
}

/// How far the deletion is, and how long until a pod that hangs is not waited for any more. It needs neither Contour's CRDs nor the
/// users' ExtensionServices. If our finalizer does not hold the ContourDeployment any more, nothing is waited for.
pub fn assess(classified: &Classified, is_held: bool) -> (Deletion, Option<Duration>) {
    let observed = &classified.observed;
    let owner = observed.owner();
    if !is_held {
        let over = Deletion {
            namespace_stays: false,
            contour_is_gone: false,
            waiting: Vec::new(),
        };
        return (over, None);
    }
    // In a namespace that goes too the namespace controller deletes, and our own access may already be gone.
    let namespace_stays = observed.namespace(&owner.namespace) == Some(NamespacePhase::Active);
    let old = rollout::old_pods(observed, None);
    let contours = Contours::of(observed);
    // A ReplicaSet that was not collected yet may still make a pod.
    let replica_sets: Vec<_> = contours.all_replica_sets().collect();
    let contour_is_gone = replica_sets.is_empty() && contours.deployment.is_none() && old.waited_for.is_empty();
    // Elsewhere somebody else may hold an object, or refuse its deletion. That is not waited for.
    let is_waited_for = |object: &&Object| {
        let has_to_be_written = !object.is_terminating() || object.has_our_finalizer();
        let key = object.key();
        !owner.is_elsewhere(&key) || (has_to_be_written && !observed.attempts.gave_up(&key))
    };
    let waiting = if contour_is_gone {
        let left = classified
            .objects(true)
            .filter(|object| has_to_go(&owner, !namespace_stays, object));
        let left = left.filter(is_waited_for);
        left.map(|object| object.key().to_string()).collect()
    } else {
        let pods = old.waited_for.iter().map(|pod| format!("Pod {pod}"));
        let sets = replica_sets.iter().map(|set| format!("ReplicaSet {}", set.name()));
        sets.chain(pods).collect()
    };
    let deletion = Deletion {
        namespace_stays,
        contour_is_gone,
        waiting,
    };
    (deletion, old.requeue_after)
}

/// Whether Slipway deletes this object together with the ContourDeployment. The garbage collector deletes our own access.
pub fn has_to_go(owner: &Owner, namespace_goes: bool, object: &Object) -> bool {
    let is_our_access = object.kind == Kind::RoleBinding && access::is_operators(owner, object.name());
    let can_go = !namespace_goes || object.namespace() != owner.namespace || object.has_our_finalizer();
    !object.kind.is_made_by_controllers() && !is_our_access && can_go
}
