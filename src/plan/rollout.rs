//! How far Contour and Envoy are, and the gate between them.

use std::time::Duration;

use jiff::Timestamp;
use serde_json::Value;

use super::captured::Contours;
use super::object::{Kind, Object};
use super::observed::Observed;
use crate::api::vocabulary::labels;

/// A pod that hangs in Terminating for this long past its grace period is not waited for: its node is gone, or its runtime
/// is stuck, and a person has to look.
const PATIENCE_WITH_TERMINATING: Duration = Duration::from_mins(1);

/// How far a workload is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Rollout {
    /// It does not exist.
    Absent,
    /// Pods of the present template are on their way; in words.
    Progressing(String),
    /// Kubernetes has given up waiting (`progressDeadlineSeconds`); in words.
    Stuck(String),
    /// Every pod is of the present template.
    Complete,
}

/// A workload, as its status tells.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Workload {
    /// How far its rollout is.
    pub rollout: Rollout,
    /// Whether enough pods are available, by its own rollout thresholds.
    pub available: bool,
    /// Ready and wanted pods, `2/2`.
    pub pods: Option<String>,
}

impl Workload {
    const ABSENT: Self = Self {
        rollout: Rollout::Absent,
        available: false,
        pods: None,
    };
}

/// Contour's Deployment.
pub fn contour(observed: &Observed) -> Workload {
    let owner = observed.owner();
    observed
        .object(Kind::Deployment, &owner.namespace, &owner.contour())
        .map_or(Workload::ABSENT, deployment)
}

/// Since when Contours can be heard, counted anew each time that their Deployment becomes available or ceases to be; none: not one is
/// ready. What the Deployment does not say is long ago.
pub fn contour_heard_since(observed: &Observed) -> Option<Timestamp> {
    let owner = observed.owner();
    let object = observed.object(Kind::Deployment, &owner.namespace, &owner.contour())?;
    let conditions = object.at("/status/conditions").and_then(Value::as_array);
    let available = conditions.into_iter().flatten().find(|it| it["type"] == "Available");
    let since = available.and_then(|it| it["lastTransitionTime"].as_str()?.parse().ok());
    (number(object, "/status/readyReplicas") > 0).then(|| since.unwrap_or(Timestamp::UNIX_EPOCH))
}

/// Envoy's workload of the kind that the specification asks for.
pub fn envoy(observed: &Observed, kind: Kind) -> Workload {
    let owner = observed.owner();
    match observed.object(kind, &owner.namespace, &owner.envoy()) {
        None => Workload::ABSENT,
        Some(object) if kind == Kind::DaemonSet => daemon_set(object),
        Some(object) => deployment(object),
    }
}

/// Contour's pods of another template than this one, and those that hang in Terminating.
pub struct OldPods {
    /// They are waited for.
    pub waited_for: Vec<String>,
    /// They are not: they hang.
    pub hanging: Vec<String>,
    /// When the next one of the first is counted among the second.
    pub look_again: Option<Duration>,
}

/// The pods of Contour's Deployment that are not of the template with this hash; if there is none, all that may run a Contour,
/// whoever controls them.
pub fn old_pods(observed: &Observed, template: Option<&str>) -> OldPods {
    let mut old = OldPods {
        waited_for: Vec::new(),
        hanging: Vec::new(),
        look_again: None,
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
                old.look_again = [old.look_again, wait].into_iter().flatten().min();
            }
        }
    }
    old
}

/// How long until a Terminating pod counts as hanging; zero if it does. `deletionTimestamp` lies at the end of the grace period.
fn hangs_in(pod: &Object, now: Timestamp) -> Option<Duration> {
    let end = pod.metadata.deletion_timestamp.as_ref()?.0;
    // A grace period may be as long as its author likes.
    let end = end.saturating_add(PATIENCE_WITH_TERMINATING).unwrap_or(Timestamp::MAX);
    Some(Duration::try_from(end.duration_since(now)).unwrap_or(Duration::ZERO))
}

/// Why Envoy has to wait, if it has to: it never rolls before the Contour that configures it has (upstream's order of
/// upgrades). Where no Envoy exists yet nothing is waited for.
pub fn gate(observed: &Observed, contour: &Workload, old: &OldPods) -> Result<(), String> {
    if !has_envoy(observed) {
        return Ok(());
    }
    match &contour.rollout {
        Rollout::Complete if contour.available && old.waited_for.is_empty() => Ok(()),
        Rollout::Complete if old.waited_for.is_empty() => Err("Contour is not available".to_owned()),
        Rollout::Complete => Err(format!(
            "Contour's old pods are still there: {}",
            old.waited_for.join(", ")
        )),
        Rollout::Progressing(message) | Rollout::Stuck(message) => Err(message.clone()),
        Rollout::Absent => Err("Contour's Deployment does not exist".to_owned()),
    }
}

/// Whether there is an Envoy, of whatever workload type.
pub fn has_envoy(observed: &Observed) -> bool {
    let owner = observed.owner();
    [Kind::DaemonSet, Kind::Deployment]
        .into_iter()
        .any(|kind| observed.object(kind, &owner.namespace, &owner.envoy()).is_some())
}

fn number(object: &Object, pointer: &str) -> i64 {
    object.at(pointer).and_then(Value::as_i64).unwrap_or_default()
}

fn is_observed(object: &Object) -> bool {
    object
        .metadata
        .generation
        .is_some_and(|generation| number(object, "/status/observedGeneration") >= generation)
}

fn deployment(object: &Object) -> Workload {
    let wanted = object.at("/spec/replicas").and_then(Value::as_i64).unwrap_or(1);
    let [updated, all, ready] =
        ["/status/updatedReplicas", "/status/replicas", "/status/readyReplicas"].map(|field| number(object, field));
    let condition = |type_: &str| {
        let conditions = object.at("/status/conditions").and_then(Value::as_array);
        conditions
            .into_iter()
            .flatten()
            .find(|condition| condition["type"] == type_)
            .cloned()
            .unwrap_or_default()
    };
    let name = object.name();
    let rollout = if !is_observed(object) {
        Rollout::Progressing(format!("Deployment {name}: the change has not been picked up yet"))
    } else if updated == wanted && all == updated {
        Rollout::Complete
    } else if condition("Progressing")["reason"] == "ProgressDeadlineExceeded" {
        let message = condition("Progressing")["message"]
            .as_str()
            .unwrap_or_default()
            .to_owned();
        Rollout::Stuck(format!("Deployment {name}: {message}"))
    } else {
        Rollout::Progressing(format!(
            "Deployment {name}: {updated} of {wanted} pods are of the new template, {all} in all"
        ))
    };
    Workload {
        rollout,
        available: condition("Available")["status"] == "True",
        pods: Some(format!("{ready}/{wanted}")),
    }
}

fn daemon_set(object: &Object) -> Workload {
    let [wanted, updated, ready, available] = [
        "/status/desiredNumberScheduled",
        "/status/updatedNumberScheduled",
        "/status/numberReady",
        "/status/numberAvailable",
    ]
    .map(|field| number(object, field));
    let name = object.name();
    let rollout = if !is_observed(object) {
        Rollout::Progressing(format!("DaemonSet {name}: the change has not been picked up yet"))
    } else if updated < wanted {
        Rollout::Progressing(format!(
            "DaemonSet {name}: {updated} of {wanted} pods are of the new template"
        ))
    } else {
        Rollout::Complete
    };
    // `maxUnavailable` is 10 %, rounded up: so many may be missing while it rolls.
    let may_miss = (wanted + 9) / 10;
    let enough = if rollout == Rollout::Complete {
        available == wanted
    } else {
        available + may_miss >= wanted
    };
    Workload {
        rollout,
        available: wanted > 0 && enough && available > 0,
        pods: Some(format!("{ready}/{wanted}")),
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use serde_json::json;

    use super::*;

    fn workload(kind: Kind, spec: &Value, status: &Value) -> Object {
        let metadata = json!({"name": "edge-envoy", "namespace": "projectcontour", "generation": 1});
        let mut object = json!({"metadata": metadata, "spec": spec, "status": status});
        object["status"]["observedGeneration"] = json!(1);
        Object::from_json(kind, object).expect("an object")
    }

    #[test]
    fn a_deployment_is_complete_when_all_its_pods_are_new_and_no_other_is_left() {
        for (updated, all, is_complete) in [(2, 2, true), (2, 3, false), (1, 1, false), (1, 2, false)] {
            let status = json!({"updatedReplicas": updated, "replicas": all});
            let seen = deployment(&workload(Kind::Deployment, &json!({"replicas": 2}), &status));
            assert_eq!(seen.rollout == Rollout::Complete, is_complete, "{updated} new of {all}");
        }
    }

    #[test]
    fn of_a_daemon_set_a_tenth_may_be_missing_while_it_rolls_and_none_afterwards() {
        for (wanted, updated, available, expected) in [
            (20, 5, 18, (false, true)),
            (20, 5, 17, (false, false)),
            (21, 20, 18, (false, true)),
            (1, 0, 0, (false, false)),
            (20, 20, 20, (true, true)),
            (20, 20, 19, (true, false)),
            (0, 0, 0, (true, false)),
        ] {
            let status = json!({
                "desiredNumberScheduled": wanted, "updatedNumberScheduled": updated, "numberAvailable": available,
            });
            let seen = daemon_set(&workload(Kind::DaemonSet, &json!({}), &status));
            let found = (seen.rollout == Rollout::Complete, seen.available);
            assert_eq!(found, expected, "{updated} new, {available} available of {wanted}");
        }
    }

    #[test]
    fn a_daemon_set_for_no_node_is_not_available_though_its_last_pod_still_is() {
        let status = json!({"desiredNumberScheduled": 0, "updatedNumberScheduled": 0, "numberAvailable": 1});
        let mut object = workload(Kind::DaemonSet, &json!({}), &status);
        assert!(!daemon_set(&object).available);
        object.metadata.generation = Some(2);
        assert!(
            !daemon_set(&object).available,
            "seen before the controller has picked up the change"
        );
    }

    #[test]
    fn the_gate_says_what_envoy_waits_for() {
        let mut observed = crate::plan::operand::tests::observed(&json!({}));
        let envoy = workload(Kind::Deployment, &json!({}), &json!({}));
        observed.objects.insert(envoy.key(), Arc::new(envoy));
        let says = |available, pods: &[&str]| {
            let contour = Workload {
                rollout: Rollout::Complete,
                available,
                pods: None,
            };
            let old = OldPods {
                waited_for: pods.iter().map(ToString::to_string).collect(),
                hanging: Vec::new(),
                look_again: None,
            };
            gate(&observed, &contour, &old).err()
        };
        assert_eq!(says(true, &[]), None);
        assert_eq!(says(false, &[]).as_deref(), Some("Contour is not available"));
        for available in [true, false] {
            let words = "Contour's old pods are still there: a, b";
            assert_eq!(says(available, &["a", "b"]).as_deref(), Some(words));
        }
    }
}
