//! Contour's configuration: the user's settings, with stand-ins in place of the users' ExtensionServices.
//!
//! A ContourConfiguration is content-addressed, because Contour reads it once, at container start. New content gets a new object with a new
//! name in the pod template, and so a rollout exactly when one is needed. An old container that restarts reads its old object. The template
//! also names the uid and the generation of the object. A container may have read an object that another user changed or deleted before
//! Slipway repaired it. Slipway then rolls out Contour to the object that exists after the repair.

use std::collections::BTreeSet;

use jiff::Timestamp;
use serde_json::{Map, Value};

use super::object::{Kind, NamespacedName, Object, Owner};
use super::observed::{Observed, whole_seconds};
use super::settings::Accepted;
use super::stand_in::RolePlan;
use super::startup_inputs::{Contours, Identity, StartupInputs, configuration_name, references};
use super::usage::Usage;
use super::views::{ReplicasStatus, wanted_replicas};
use super::write::Desired;
use crate::api::vocabulary::annotations;

/// Returns the startup inputs for these settings and stand-ins. [`identified`] adds the identity of the ContourConfiguration.
pub fn wanted(observed: &Observed, accepted: &Accepted, roles: &[RolePlan]) -> StartupInputs {
    let owner = observed.owner();
    let mut inputs = StartupInputs {
        spec: accepted.spec.clone(),
        ..StartupInputs::default()
    };
    for role in roles {
        let NamespacedName { namespace, name } = &role.planned;
        role.seen.reference.role.refer(&mut inputs.spec, namespace, name);
        inputs.stand_ins.push(format!("{namespace}/{name}"));
    }
    let present = Contours::of(observed).deployment.and_then(StartupInputs::of_template);
    inputs.in_place_of = present
        .filter(|present| present.spec == inputs.spec && present.is_intact(&owner))
        .and_then(|present| present.in_place_of);
    // Each object that is stuck in its deletion has a successor, so there are no more names than objects.
    for _ in observed.of_kind(Kind::ContourConfiguration) {
        inputs.name(&owner);
        match inputs.live(observed) {
            Some(live) if live.is_terminating() => inputs.in_place_of = Some(live.uid().to_owned()),
            _ => break,
        }
    }
    inputs.name(&owner);
    inputs
}

/// Returns the inputs that a container reads if it starts now: the existing ContourConfiguration of this name. Returns None if the
/// ContourConfiguration does not exist or is being deleted.
pub fn identified(observed: &Observed, wanted: &StartupInputs) -> Option<StartupInputs> {
    let live = wanted.live(observed).filter(|live| !live.is_terminating())?;
    Some(StartupInputs {
        identity: Identity::of(live),
        ..wanted.clone()
    })
}

impl StartupInputs {
    fn name(&mut self, owner: &Owner) {
        self.configuration = configuration_name(owner, &self.spec, self.in_place_of.as_deref());
    }
}

/// Returns the inputs of the newest completely rolled-out ReplicaSet of Contour's Deployment. If no such ReplicaSet is left (the Deployment
/// was deleted), returns the inputs from the ContourConfiguration that is marked as rolled out and still has its original content.
pub fn last_good(observed: &Observed) -> Option<StartupInputs> {
    let owner = observed.owner();
    let contours = Contours::of(observed);
    let wanted = contours.deployment.and_then(wanted_replicas);
    let has_replicas = |set: &Object| wanted_replicas(set).unwrap_or_default() > 0;
    let is_the_only_one = contours.replica_sets.iter().filter(|set| has_replicas(set)).count() == 1;
    let is_complete = |set: &&&Object| {
        let available = ReplicasStatus::of(set).available_replicas;
        let has_taken_over = is_the_only_one && has_replicas(set);
        available > 0 && (has_taken_over || Some(available) >= wanted)
    };
    // The Deployment controller numbers its ReplicaSets.
    let revision = |set: &&&Object| {
        let revision = set.annotation("deployment.kubernetes.io/revision");
        revision.and_then(|revision| revision.parse::<u64>().ok())
    };
    let complete = contours.replica_sets.iter().filter(is_complete).max_by_key(revision);
    complete
        .and_then(|set| StartupInputs::of_template(set))
        .filter(|inputs| inputs.is_intact(&owner))
        .or_else(|| marked(observed))
}

/// Returns the inputs from the newest ContourConfiguration that is marked as rolled out and still has its original content.
fn marked(observed: &Observed) -> Option<StartupInputs> {
    let owner = observed.owner();
    let rolled_out = observed.of_kind(Kind::ContourConfiguration).filter_map(|object| {
        let spec = object.spec()?.clone();
        let stand_ins = references(&spec).into_iter();
        let inputs = StartupInputs {
            configuration: object.name().to_owned(),
            identity: Identity::of(object),
            in_place_of: object.annotation(annotations::IN_PLACE_OF).map(str::to_owned),
            stand_ins: stand_ins.map(|stand_in| stand_in.to_string()).collect(),
            spec,
        };
        let time: jiff::Timestamp = object.annotation(annotations::ROLLED_OUT)?.parse().ok()?;
        inputs.is_intact(&owner).then_some((time.min(observed.now), inputs))
    });
    let newest = rolled_out.max_by(|(a, one), (b, other)| (a, &one.configuration).cmp(&(b, &other.configuration)));
    newest.map(|(_, inputs)| inputs)
}

/// A ContourConfiguration that containers have read or will read.
#[derive(Clone, Debug)]
pub struct InUse {
    inputs: StartupInputs,
    /// The time at which the last rollout of Contour to this ContourConfiguration completed.
    rolled_out: Option<String>,
}

/// Returns the configurations in use. `rolled_out` is the configuration to which Contour is currently rolled out, with the time of the
/// rollout. A configuration whose name does not match its content is left out, because its original content is unknown.
pub fn in_use(
    observed: &Observed,
    usage: &Usage,
    rolled_out: Option<(&StartupInputs, Option<Timestamp>)>,
) -> Vec<InUse> {
    let owner = observed.owner();
    let known = usage.configurations.values();
    let in_use = known.filter(|inputs| inputs.is_intact(&owner)).map(|inputs| {
        let live = inputs.live(observed);
        let mark = live.and_then(|live| live.annotation(annotations::ROLLED_OUT));
        let mark = mark.map(str::to_owned);
        let rolled_out = rolled_out.filter(|(present, _)| present.configuration == inputs.configuration);
        InUse {
            rolled_out: match rolled_out {
                Some((_, Some(since))) => Some(whole_seconds(since).to_string()),
                Some((_, None)) => mark.or_else(|| Some(whole_seconds(observed.now).to_string())),
                None => mark,
            },
            inputs: inputs.clone(),
        }
    });
    in_use.collect()
}

impl InUse {
    /// Returns the desired ContourConfiguration.
    pub fn object(&self, owner: &Owner) -> Desired {
        let StartupInputs {
            configuration,
            spec,
            in_place_of,
            ..
        } = &self.inputs;
        let mut object = Object {
            kind: Kind::ContourConfiguration,
            metadata: owner.metadata(Kind::ContourConfiguration, &owner.namespace, configuration),
            content: Map::from_iter([("spec".to_owned(), Value::Object(spec.clone()))]),
            creation_entry: None,
        };
        let annotations = [
            (annotations::IN_PLACE_OF, in_place_of),
            (annotations::ROLLED_OUT, &self.rolled_out),
        ];
        for (key, value) in annotations {
            if let Some(value) = value {
                object.annotate(key, value.clone());
            }
        }
        Desired::whole_spec(object)
    }
}

/// Returns the names of the ContourConfigurations that a Contour may have read in another form than the current one, because another user
/// changed or deleted them.
pub fn altered(observed: &Observed) -> BTreeSet<String> {
    let owner = observed.owner();
    let contours = Contours::of(observed);
    let inputs = contours.templates().filter_map(StartupInputs::of_template);
    let altered = inputs.filter(|inputs| inputs.is_intact(&owner) && !inputs.is_unchanged(observed));
    altered.map(|inputs| inputs.configuration).collect()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn inputs_are_recreated_only_if_the_name_matches_the_content() {
        let observed = crate::plan::operand::tests::observed(&json!({}));
        let owner = observed.owner();
        let spec = |value: &str| Map::from_iter([("debug".to_owned(), value.into())]);
        let inputs = StartupInputs {
            configuration: configuration_name(&owner, &spec("a"), Some("uid")),
            in_place_of: Some("uid".to_owned()),
            spec: spec("a"),
            ..StartupInputs::default()
        };
        let made = |inputs: &StartupInputs| {
            let mut usage = Usage::default();
            usage.add_inputs(inputs);
            in_use(&observed, &usage, None)
        };
        let [made_again] = <[InUse; 1]>::try_from(made(&inputs)).expect("the inputs are intact");
        let object = made_again.object(&owner).object;
        assert_eq!(object.annotation(annotations::IN_PLACE_OF), Some("uid"));
        let changes: [fn(&mut StartupInputs); 3] = [
            |it| it.configuration.push('x'),
            |it| it.in_place_of = None,
            |it| it.spec.clear(),
        ];
        for (number, change) in changes.into_iter().enumerate() {
            let mut other = inputs.clone();
            change(&mut other);
            assert!(!other.is_intact(&owner), "{number}");
            assert!(made(&other).is_empty(), "{number}");
        }
    }
}
