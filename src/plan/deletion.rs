//! The progress of the deletion of a ContourDeployment, and the objects that must be deleted with the ContourDeployment.

use std::time::Duration;

use super::object::{Kind, Object, Owner};
use super::observed::NamespacePhase;
use super::operand::access;
use super::ownership::Classified;
use super::rollout;
use super::startup_inputs::Contours;

/// The progress of a deletion.
pub struct Deletion {
    /// Whether the ContourDeployment's namespace is not being deleted.
    pub namespace_stays: bool,
    /// Whether no Contour runs any more and none can start.
    pub contour_is_gone: bool,
    /// The objects that the deletion waits for, each as a text.
    pub waiting: Vec<String>,
}

/// Assesses the progress of the deletion. The second value is the time until the next stuck pod is not waited for any more. Contour's CRDs
/// and the users' ExtensionServices are not needed. Without Slipway's finalizer on the ContourDeployment, the deletion waits for nothing.
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
    // In a terminating namespace, the namespace controller deletes the objects, and the operator's own access may already be deleted.
    let namespace_stays = observed.namespace(&owner.namespace) == Some(NamespacePhase::Active);
    let old = rollout::old_pods(observed, None);
    let contours = Contours::of(observed);
    // A ReplicaSet that is not garbage-collected yet may still create a pod.
    let replica_sets: Vec<_> = contours.all_replica_sets().collect();
    let contour_is_gone = replica_sets.is_empty() && contours.deployment.is_none() && old.waited_for.is_empty();
    // In other namespaces, another user may hold an object or refuse its deletion. The deletion does not wait for such objects.
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

/// Reports whether Slipway deletes this object together with the ContourDeployment. The garbage collector deletes the operator's own
/// access.
pub fn has_to_go(owner: &Owner, namespace_goes: bool, object: &Object) -> bool {
    let is_our_access = object.kind == Kind::RoleBinding && access::is_operators(owner, object.name());
    let can_go = !namespace_goes || object.namespace() != owner.namespace || object.has_our_finalizer();
    !object.kind.is_made_by_controllers() && !is_our_access && can_go
}
