//! The back-off between rollouts of Contour. Without the back-off, a user who keeps changing Slipway's objects, or a namespace that is
//! repeatedly deleted and recreated, would keep Contour rolling out without an end. Changes of the spec are never delayed.
//!
//! The counts are stored on the objects, and the age of the objects measures the time, so a restart of the operator changes nothing.

use std::time::Duration;

use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;

use super::backoff::{BackoffSchedule, CALM};
use super::object::Object;
use super::observed::Observed;
use super::startup_inputs::{Contours, StartupInputs};

/// The minimum time between two rollouts of Contour to a configuration with unchanged content that was changed or deleted and then
/// repaired. The first such rollout is immediate. The time is short, because the content that a container read in the meantime may leave
/// requests unchecked.
const BETWEEN_ROLLS: Duration = Duration::from_mins(1);

/// A stand-in follows its service whatever the stand-in's name is. A successor only changes what containers read at startup. A stepwise
/// installation takes up to three successors, and its stepwise removal two more.
const STAND_IN: BackoffSchedule = BackoffSchedule {
    free: 4,
    first: Duration::from_secs(10),
    longest: Duration::from_mins(5),
};

/// Moves are counted up to this number, which is far beyond the number that leads to the longest wait.
pub const MOST_MOVES: u32 = 1000;

/// Returns the inputs that Contour keeps for now, and the remaining time, although another ContourConfiguration with the same content
/// exists now. Returns None if Contour may be rolled out. `template` computes the hash of the pod template with these inputs.
pub fn stays(
    observed: &Observed,
    wanted: &StartupInputs,
    template: impl Fn(&StartupInputs) -> String,
) -> Option<(StartupInputs, Duration)> {
    let contours = Contours::of(observed);
    // Inputs that another user wrote on the template do not count.
    let present = StartupInputs::of_template(contours.deployment?).filter(|it| it.is_intact(&observed.owner()))?;
    let differs_in_nothing_else = present.spec == wanted.spec && contours.template()? == template(&present);
    if present == *wanted || !differs_in_nothing_else {
        return None;
    }
    let inputs = |set: &Object| StartupInputs::of_template(set).filter(|inputs| inputs.spec == wanted.spec);
    let sets = contours.replica_sets.iter();
    let sets = sets.filter_map(|set| Some((inputs(set)?, *set)));
    let (of_present, before): (Vec<_>, Vec<_>) = sets.partition(|(inputs, _)| *inputs == present);
    if before.is_empty() {
        return None;
    }
    let waits = of_present
        .into_iter()
        .filter_map(|(_, set)| remaining(set, BETWEEN_ROLLS, observed.now));
    waits.max().map(|wait| (present, wait))
}

/// Returns the time for which this stand-in must stay, after `moves` predecessors in a short time. Returns None if the stand-in may be
/// succeeded now.
pub fn stand_in_stays(object: &Object, moves: u32, now: Timestamp) -> Option<Duration> {
    remaining(object, STAND_IN.after(moves), now)
}

/// Returns the count of moves for the successor of a stand-in.
pub fn next_move(predecessor: &Object, moves: u32, now: Timestamp) -> u32 {
    let is_calm = age(predecessor, now).is_none_or(|age| age >= CALM);
    if is_calm {
        0
    } else {
        moves.saturating_add(1).min(MOST_MOVES)
    }
}

fn remaining(object: &Object, wait: Duration, now: Timestamp) -> Option<Duration> {
    let left = wait.checked_sub(age(object, now)?)?;
    (!left.is_zero()).then_some(left)
}

/// Returns the age of an object, or None if the object has no creation time.
fn age(object: &Object, now: Timestamp) -> Option<Duration> {
    let Time(made) = object.metadata.creation_timestamp.as_ref()?;
    // If this clock is behind the clock of the API server, the age is zero.
    Some(Duration::try_from(now.duration_since(*made)).unwrap_or(Duration::ZERO))
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use serde_json::{Map, json};

    use super::*;
    use crate::api::vocabulary::{annotations, labels};
    use crate::plan::object::Kind;
    use crate::plan::startup_inputs::configuration_name;

    fn made(at: &str) -> Object {
        let metadata = json!({"name": "a", "creationTimestamp": at});
        Object::from_json(Kind::ExtensionService, json!({"metadata": metadata})).expect("an object")
    }

    fn at(text: &str) -> Timestamp {
        text.parse().expect("a time")
    }

    #[test]
    fn contour_keeps_a_configuration_only_if_its_name_matches() {
        let mut observed = crate::plan::operand::tests::observed(&json!({}));
        let owner = observed.owner();
        observed.now = at("2026-01-01T00:00:10Z");
        let inputs = |generation: i64, in_place_of: Option<&str>| {
            let mut inputs = StartupInputs {
                configuration: configuration_name(&owner, &Map::new(), in_place_of),
                ..StartupInputs::default()
            };
            inputs.identity.generation = generation;
            inputs
        };
        let workload = |kind, name: &str, inputs: &StartupInputs| {
            let text = serde_json::to_string(inputs).expect("JSON");
            let template =
                json!({"labels": {labels::TEMPLATE: "hash"}, "annotations": {annotations::STARTUP_INPUTS: text}});
            let owner =
                json!({"apiVersion": "apps/v1", "kind": "Deployment", "name": "x", "uid": "u", "controller": true});
            let ours = json!({
                labels::OWNER_NAMESPACE: owner_namespace(&observed), labels::OWNER_NAME: "edge", labels::COMPONENT: "contour",
            });
            let metadata = json!({
                "namespace": owner_namespace(&observed), "name": name, "uid": "u", "labels": ours, "ownerReferences": [owner],
                "creationTimestamp": "2026-01-01T00:00:00Z",
            });
            let spec = json!({"replicas": 1, "template": {"metadata": template}});
            Object::from_json(kind, json!({"metadata": metadata, "spec": spec})).expect("an object")
        };
        let waits = |present: &StartupInputs| {
            let mut observed = observed.clone();
            let objects = [
                workload(Kind::Deployment, &owner.contour(), present),
                workload(Kind::ReplicaSet, "before", &inputs(1, None)),
                workload(Kind::ReplicaSet, "present", present),
            ];
            observed.objects = objects.map(|object| (object.key(), Arc::new(object))).into();
            stays(&observed, &inputs(5, None), |_| "hash".to_owned()).map(|(_, wait)| wait)
        };
        assert_eq!(waits(&inputs(3, None)), Some(Duration::from_secs(50)));
        assert_eq!(
            waits(&inputs(5, None)),
            None,
            "the template already has the desired inputs"
        );
        let mut forged = inputs(3, None);
        forged.configuration = "edge-forged".to_owned();
        assert_eq!(waits(&forged), None);
    }

    fn owner_namespace(observed: &Observed) -> String {
        observed.owner().namespace
    }

    #[test]
    fn the_wait_counts_from_the_creation_of_the_object() {
        let object = made("2026-01-01T00:00:00Z");
        let stays = |now: &str| stand_in_stays(&object, 5, at(now));
        assert_eq!(stays("2026-01-01T00:00:04Z"), Some(Duration::from_secs(6)));
        assert_eq!(stays("2026-01-01T00:00:10Z"), None);
        assert_eq!(stays("2025-12-31T23:59:00Z"), Some(Duration::from_secs(10)));
    }

    #[test]
    fn moves_start_again_at_zero_after_a_calm_time() {
        let object = made("2026-01-01T00:00:00Z");
        assert_eq!(next_move(&object, 7, at("2026-01-01T00:09:59Z")), 8);
        assert_eq!(next_move(&object, 7, at("2026-01-01T00:10:00Z")), 0);
    }
}
