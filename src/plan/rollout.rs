//! The progress of the rollouts of Contour and Envoy, and the gate between them.

use std::time::Duration;

use jiff::Timestamp;

use super::object::{Kind, Object};
use super::observed::Observed;
use super::startup_inputs::Contours;
use super::views::{DaemonSetStatus, ReplicasStatus, is_observed, wanted_replicas};
use crate::api::vocabulary::labels;

/// The plan stops waiting for a pod that has been Terminating for this long past its grace period. The pod's node is lost or its container
/// runtime is stuck, and an administrator must act.
const PATIENCE_WITH_TERMINATING: Duration = Duration::from_mins(1);

/// A DaemonSet is stuck if its rollout is incomplete and it has got no pod for this time. By default, Kubernetes gives a Deployment the
/// same time (`progressDeadlineSeconds`), and a DaemonSet unlimited time.
const PATIENCE_WITH_DAEMON_SETS: Duration = Duration::from_mins(10);

/// The percentage of Contour's pods that may be unavailable while Contour counts as available. The value is that of `maxUnavailable` in
/// `operand/contour.rs`, but rounded up, so that one node that is not ready does not make Contour unavailable.
const MAY_MISS_OF_CONTOUR: i64 = 25;

/// The same percentage for Envoy (`operand/envoy.rs`).
const MAY_MISS_OF_ENVOY: i64 = 10;

/// The reason of a Deployment's condition Progressing after a complete rollout. The reason stays while the Deployment is scaled
/// (`syncRolloutStatus`, Kubernetes 1.34).
const ROLLED_OUT: &str = "NewReplicaSetAvailable";

/// The progress of a workload's rollout.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Rollout {
    /// The workload does not exist.
    Absent,
    /// The rollout is incomplete. The text describes the progress.
    Progressing(String),
    /// The rollout has not progressed for ten minutes (Deployments: `progressDeadlineSeconds`). The text describes the progress.
    Stuck(String),
    /// Every pod runs the current template.
    Complete,
}

/// A workload as its status describes it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Workload {
    /// The progress of its rollout.
    pub rollout: Rollout,
    /// Whether enough pods are available. Some may be unavailable.
    pub available: bool,
    /// Whether all desired pods are available.
    pub is_whole: bool,
    /// Ready and desired pods, for example `2/2`.
    pub pods: Option<String>,
    /// The time until the workload counts as stuck, if no event reports that.
    pub patience: Option<Duration>,
}

impl Workload {
    const ABSENT: Self = Self {
        rollout: Rollout::Absent,
        available: false,
        is_whole: false,
        pods: None,
        patience: None,
    };
}

/// Returns the state of Contour's Deployment.
pub fn contour(observed: &Observed) -> Workload {
    let owner = observed.owner();
    observed
        .object(Kind::Deployment, &owner.namespace, &owner.contour())
        .map_or(Workload::ABSENT, |object| deployment(object, MAY_MISS_OF_CONTOUR))
}

/// Returns the time since which Contour could have written verdicts. This is the last time at which Contour's Deployment became available
/// or unavailable, or the Unix epoch if the Deployment does not report that time. Returns None if no Contour is ready.
pub fn contour_heard_since(observed: &Observed) -> Option<Timestamp> {
    let owner = observed.owner();
    let object = observed.object(Kind::Deployment, &owner.namespace, &owner.contour())?;
    let status = ReplicasStatus::of(object);
    let since = status.condition("Available").and_then(|it| it.last_transition_time);
    (status.ready_replicas > 0).then(|| since.unwrap_or(Timestamp::UNIX_EPOCH))
}

/// Returns the time at which Contour's last rollout completed, if Contour's Deployment reports the time.
pub fn completed_at(observed: &Observed) -> Option<Timestamp> {
    let owner = observed.owner();
    let object = observed.object(Kind::Deployment, &owner.namespace, &owner.contour())?;
    let status = ReplicasStatus::of(object);
    let progress = status.condition("Progressing");
    progress.filter(|it| it.reason == ROLLED_OUT)?.last_update_time
}

/// Returns the state of Envoy's workload of the kind that the spec specifies.
pub fn envoy(observed: &Observed, kind: Kind) -> Workload {
    let owner = observed.owner();
    match observed.object(kind, &owner.namespace, &owner.envoy()) {
        None => Workload::ABSENT,
        Some(object) if kind == Kind::DaemonSet => daemon_set(object, observed),
        Some(object) => deployment(object, MAY_MISS_OF_ENVOY),
    }
}

/// Contour's pods of other templates, divided by whether the plan waits for them.
pub struct OldPods {
    /// The names of the pods that the plan waits for.
    pub waited_for: Vec<String>,
    /// The names of the pods that are stuck in Terminating. The plan does not wait for them.
    pub hanging: Vec<String>,
    /// The time until the next pod of `waited_for` counts as stuck.
    pub requeue_after: Option<Duration>,
}

/// Returns the pods of Contour's Deployment without the template hash `template`. If `template` is None, returns all pods that may run a
/// Contour, whoever controls them.
pub fn old_pods(observed: &Observed, template: Option<&str>) -> OldPods {
    let mut old = OldPods {
        waited_for: Vec::new(),
        hanging: Vec::new(),
        requeue_after: None,
    };
    let contours = Contours::of(observed);
    let pods: Vec<&Object> = match template {
        Some(template) => {
            let pods = contours.pods.iter().map(|(pod, _)| *pod);
            pods.filter(|pod| pod.label(labels::TEMPLATE) != Some(template))
                .collect()
        }
        None => contours.all_pods().collect(),
    };
    for pod in pods {
        match hangs_in(pod, observed.now) {
            Some(wait) if wait.is_zero() => old.hanging.push(pod.name().to_owned()),
            wait => {
                old.waited_for.push(pod.name().to_owned());
                old.requeue_after = [old.requeue_after, wait].into_iter().flatten().min();
            }
        }
    }
    old
}

/// Returns the time until a Terminating pod counts as stuck, or zero if it already does. `deletionTimestamp` is the end of the grace
/// period.
fn hangs_in(pod: &Object, now: Timestamp) -> Option<Duration> {
    let end = pod.metadata.deletion_timestamp.as_ref()?.0;
    // A grace period has no upper limit.
    let end = end.saturating_add(PATIENCE_WITH_TERMINATING).unwrap_or(Timestamp::MAX);
    Some(Duration::try_from(end.duration_since(now)).unwrap_or(Duration::ZERO))
}

/// Returns the reason why Envoy has to wait, if Envoy has to wait. Envoy is rolled out after the Contour that configures it (upstream's
/// order of upgrades). Without an existing Envoy, this gate is open.
pub fn gate(observed: &Observed, contour: &Workload, old: &OldPods) -> Result<(), String> {
    if !has_envoy(observed) {
        return Ok(());
    }
    match &contour.rollout {
        _ if is_rolled_out(contour, old) => Ok(()),
        Rollout::Complete if old.waited_for.is_empty() => {
            Err("Envoy waits until enough pods of Contour are available".to_owned())
        }
        Rollout::Complete => Err(format!(
            "Envoy waits until the old pods of Contour have terminated: {}",
            old.waited_for.join(", ")
        )),
        Rollout::Progressing(message) | Rollout::Stuck(message) => Err(message.clone()),
        Rollout::Absent => Err("Envoy waits until Contour's Deployment exists".to_owned()),
    }
}

/// Reports whether every running Contour has read the startup inputs of the Deployment's current template, and enough pods are available.
pub fn is_rolled_out(contour: &Workload, old: &OldPods) -> bool {
    contour.rollout == Rollout::Complete && contour.available && old.waited_for.is_empty()
}

/// Reports whether an Envoy of either workload type exists.
pub fn has_envoy(observed: &Observed) -> bool {
    let owner = observed.owner();
    [Kind::DaemonSet, Kind::Deployment]
        .into_iter()
        .any(|kind| observed.object(kind, &owner.namespace, &owner.envoy()).is_some())
}

fn deployment(object: &Object, may_miss: i64) -> Workload {
    let wanted = wanted_replicas(object).unwrap_or(1);
    let status = ReplicasStatus::of(object);
    let ReplicasStatus {
        replicas: all,
        updated_replicas: updated,
        ..
    } = status;
    let name = object.name();
    let progress = status.condition("Progressing");
    let progress_is = |reason: &str| progress.filter(|condition| condition.reason == reason);
    let is_scaling = all == updated && progress_is(ROLLED_OUT).is_some();
    let rollout = if !is_observed(object) {
        Rollout::Progressing(format!(
            "Deployment {name}: the Deployment controller has not observed the latest generation yet"
        ))
    } else if is_scaling || (updated == wanted && all == updated) {
        Rollout::Complete
    } else if let Some(stuck) = progress_is("ProgressDeadlineExceeded") {
        Rollout::Stuck(format!("Deployment {name}: {}", stuck.message))
    } else {
        Rollout::Progressing(format!(
            "Deployment {name}: {updated} of {wanted} desired pods run the current template, and {all} pods exist"
        ))
    };
    Workload {
        rollout,
        available: is_enough(status.available_replicas, wanted, may_miss),
        is_whole: is_enough(status.available_replicas, wanted, 0),
        pods: Some(format!("{}/{wanted}", status.ready_replicas)),
        patience: None,
    }
}

fn daemon_set(object: &Object, observed: &Observed) -> Workload {
    let status = DaemonSetStatus::of(object);
    let (wanted, updated) = (status.desired_number_scheduled, status.updated_number_scheduled);
    let name = object.name();
    // A node that was just added has no pod yet.
    let are_all_new = updated >= status.current_number_scheduled && (updated > 0 || wanted == 0);
    let progress = format!("DaemonSet {name}: {updated} of {wanted} desired pods run the current template");
    let patience = last_progress(object, observed).map(|last| {
        let idle = Duration::try_from(observed.now.duration_since(last)).unwrap_or(Duration::ZERO);
        PATIENCE_WITH_DAEMON_SETS.saturating_sub(idle)
    });
    let rollout = if !is_observed(object) {
        Rollout::Progressing(format!(
            "DaemonSet {name}: the DaemonSet controller has not observed the latest generation yet"
        ))
    } else if are_all_new {
        Rollout::Complete
    } else if patience == Some(Duration::ZERO) {
        Rollout::Stuck(format!(
            "{progress}, and no pod has been created for ten minutes; check the DaemonSet's events"
        ))
    } else {
        Rollout::Progressing(progress)
    };
    Workload {
        patience: patience.filter(|_| matches!(rollout, Rollout::Progressing(_))),
        rollout,
        available: is_enough(status.number_available, wanted, MAY_MISS_OF_ENVOY),
        is_whole: is_enough(status.number_available, wanted, 0),
        pods: Some(format!("{}/{wanted}", status.number_ready)),
    }
}

/// Returns the time at which a DaemonSet last got a template or a pod. Returns None if no observed object shows the time.
fn last_progress(daemon_set: &Object, observed: &Observed) -> Option<Timestamp> {
    let owned = [Kind::ControllerRevision, Kind::Pod]
        .into_iter()
        .flat_map(|kind| observed.of_kind(kind));
    let owned = owned.filter(|object| object.is_controlled_by(daemon_set));
    let created = owned.filter_map(|object| object.metadata.creation_timestamp.as_ref());
    created.map(|time| time.0).max()
}

/// Reports whether enough of the desired pods are available. `may_miss` percent of them, rounded up, may be unavailable, but at least one
/// pod must be available.
fn is_enough(available: i64, wanted: i64, may_miss: i64) -> bool {
    let missing = wanted.saturating_sub(available);
    available > 0 && wanted > 0 && missing <= wanted.saturating_mul(may_miss).saturating_add(99) / 100
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use serde_json::{Value, json};

    use super::*;

    fn workload(kind: Kind, spec: &Value, status: &Value) -> Object {
        let metadata = json!({"name": "edge-envoy", "namespace": "projectcontour", "generation": 1});
        let mut object = json!({"metadata": metadata, "spec": spec, "status": status});
        object["status"]["observedGeneration"] = json!(1);
        Object::from_json(kind, object).expect("an object")
    }

    #[test]
    fn a_deployment_is_complete_when_only_new_pods_exist() {
        for (updated, all, is_complete) in [(2, 2, true), (2, 3, false), (1, 1, false), (1, 2, false)] {
            let status = json!({"updatedReplicas": updated, "replicas": all});
            let seen = deployment(&workload(Kind::Deployment, &json!({"replicas": 2}), &status), 0);
            assert_eq!(seen.rollout == Rollout::Complete, is_complete, "{updated} new of {all}");
        }
    }

    #[test]
    fn scaling_a_deployment_does_not_count_as_a_rollout() {
        let seen = |updated: i64, all: i64, reason: &str| {
            let status = json!({
                "updatedReplicas": updated, "replicas": all, "availableReplicas": updated,
                "conditions": [{"type": "Progressing", "status": "True", "reason": reason}],
            });
            deployment(
                &workload(Kind::Deployment, &json!({"replicas": 20}), &status),
                MAY_MISS_OF_ENVOY,
            )
        };
        let scaled = seen(18, 18, "NewReplicaSetAvailable");
        assert!(
            scaled.rollout == Rollout::Complete && scaled.available && !scaled.is_whole,
            "{scaled:?}"
        );
        let far = seen(2, 2, "NewReplicaSetAvailable");
        assert!(far.rollout == Rollout::Complete && !far.available, "{far:?}");
        for (updated, all, reason) in [(2, 2, "ReplicaSetUpdated"), (2, 4, "NewReplicaSetAvailable")] {
            let rolled = seen(updated, all, reason);
            assert!(matches!(rolled.rollout, Rollout::Progressing(_)), "{rolled:?}");
        }
    }

    #[test]
    fn a_share_of_the_pods_may_be_missing_but_never_all() {
        for (available, wanted, of_contour, of_envoy, is_whole) in [
            (0, 0, false, false, false),
            (0, 1, false, false, false),
            (1, 1, true, true, true),
            (2, 1, true, true, true),
            (1, 2, true, true, false),
            (1, 3, false, false, false),
            (2, 3, true, true, false),
            (6, 8, true, false, false),
            (5, 8, false, false, false),
            (9, 10, true, true, false),
            (9, 11, true, true, false),
            (17, 20, true, false, false),
            (18, 20, true, true, false),
            (i64::MAX, i64::MAX, true, true, true),
        ] {
            let found =
                [MAY_MISS_OF_CONTOUR, MAY_MISS_OF_ENVOY, 0].map(|may_miss| is_enough(available, wanted, may_miss));
            assert_eq!(found, [of_contour, of_envoy, is_whole], "{available} of {wanted}");
        }
    }

    #[test]
    fn a_daemon_set_is_complete_when_every_pod_is_new() {
        let observed = crate::plan::operand::tests::observed(&json!({}));
        for (wanted, current, updated, is_complete) in [
            (20, 20, 5, false),
            (20, 20, 20, true),
            // An additional node, or a node on which the pod is being replaced.
            (21, 20, 20, true),
            (20, 0, 0, false),
            (0, 0, 0, true),
        ] {
            let status = json!({
                "desiredNumberScheduled": wanted, "currentNumberScheduled": current, "updatedNumberScheduled": updated,
            });
            let seen = daemon_set(&workload(Kind::DaemonSet, &json!({}), &status), &observed);
            let complete = seen.rollout == Rollout::Complete;
            assert_eq!(complete, is_complete, "{updated} new of {current}, {wanted} desired");
        }
    }

    #[test]
    fn a_daemon_set_is_stuck_after_ten_minutes_without_progress() {
        let mut observed = crate::plan::operand::tests::observed(&json!({}));
        let time = |minutes: i64| Timestamp::from_second(1_800_000_000 + 60 * minutes).expect("a time");
        let owned = |kind, name: &str, minutes, uid: &str| {
            let owner =
                json!({"apiVersion": "apps/v1", "kind": "DaemonSet", "name": "x", "uid": uid, "controller": true});
            let metadata = json!({
                "name": name, "namespace": "projectcontour", "creationTimestamp": time(minutes), "ownerReferences": [owner],
            });
            Object::from_json(kind, json!({"metadata": metadata})).expect("an object")
        };
        let rolling = json!({"desiredNumberScheduled": 3, "currentNumberScheduled": 3, "updatedNumberScheduled": 1});
        let mut object = workload(Kind::DaemonSet, &json!({}), &rolling);
        object.metadata.uid = Some("u".to_owned());
        let add =
            |observed: &mut Observed, object: Object| drop(observed.objects.insert(object.key(), Arc::new(object)));
        let left = |observed: &Observed, minutes| {
            let mut observed = observed.clone();
            observed.now = time(minutes);
            let seen = daemon_set(&object, &observed);
            (matches!(seen.rollout, Rollout::Stuck(_)), seen.patience)
        };
        assert_eq!(
            left(&observed, 99),
            (false, None),
            "no object shows the start of the rollout"
        );
        add(&mut observed, owned(Kind::ControllerRevision, "old", 0, "u"));
        add(&mut observed, owned(Kind::ControllerRevision, "new", 5, "u"));
        add(&mut observed, owned(Kind::Pod, "another-s", 30, "v"));
        assert_eq!(left(&observed, 14), (false, Some(Duration::from_mins(1))));
        assert!(left(&observed, 15).0, "ten minutes since the newest template");
        add(&mut observed, owned(Kind::Pod, "new-1", 12, "u"));
        assert_eq!(
            left(&observed, 15),
            (false, Some(Duration::from_mins(7))),
            "a pod was created"
        );
        assert!(left(&observed, 22).0);
        let complete = json!({"desiredNumberScheduled": 3, "currentNumberScheduled": 3, "updatedNumberScheduled": 3});
        let mut complete = workload(Kind::DaemonSet, &json!({}), &complete);
        complete.metadata.uid = Some("u".to_owned());
        observed.now = time(99);
        let seen = daemon_set(&complete, &observed);
        assert_eq!((seen.rollout, seen.patience), (Rollout::Complete, None));
    }

    #[test]
    fn a_daemon_set_without_nodes_is_not_available() {
        let observed = crate::plan::operand::tests::observed(&json!({}));
        let status = json!({"desiredNumberScheduled": 0, "updatedNumberScheduled": 0, "numberAvailable": 1});
        let mut object = workload(Kind::DaemonSet, &json!({}), &status);
        assert!(!daemon_set(&object, &observed).available);
        object.metadata.generation = Some(2);
        assert!(
            !daemon_set(&object, &observed).available,
            "the controller has not observed the change"
        );
    }

    #[test]
    fn the_gate_names_what_envoy_waits_for() {
        let mut observed = crate::plan::operand::tests::observed(&json!({}));
        let envoy = workload(Kind::Deployment, &json!({}), &json!({}));
        observed.objects.insert(envoy.key(), Arc::new(envoy));
        let says = |available, pods: &[&str]| {
            let contour = Workload {
                rollout: Rollout::Complete,
                available,
                is_whole: available,
                pods: None,
                patience: None,
            };
            let old = OldPods {
                waited_for: pods.iter().map(ToString::to_string).collect(),
                hanging: Vec::new(),
                requeue_after: None,
            };
            gate(&observed, &contour, &old).err()
        };
        assert_eq!(says(true, &[]), None);
        assert_eq!(
            says(false, &[]).as_deref(),
            Some("Envoy waits until enough pods of Contour are available")
        );
        for available in [true, false] {
            let words = "Envoy waits until the old pods of Contour have terminated: a, b";
            assert_eq!(says(available, &["a", "b"]).as_deref(), Some(words));
        }
    }
}
