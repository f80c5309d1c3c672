//! Contour's configuration: the user's settings, with the stand-ins in place of the users' ExtensionServices.
//!
//! A ContourConfiguration is content-addressed. Contour reads it once, at container start; a new content is a new object, a
//! new name in the pod template, and so a rollout, exactly when one is needed. An old container that starts again reads the
//! one that it had. One that somebody altered may have been read; another, of the same content, succeeds it.

use std::time::Duration;

use serde_json::{Map, Value};

use super::captured::{Captured, Contours, configuration_name, references};
use super::names::salts_from;
use super::object::{Kind, NamespacedName, Object, Owner};
use super::observed::Observed;
use super::settings::Accepted;
use super::stand_in::RolePlan;
use super::succession;
use super::usage::Usage;
use super::views::{ReplicasStatus, wanted_replicas};
use super::write::Desired;
use crate::api::vocabulary::annotations;

/// What a container that starts now is to capture: these settings and stand-ins. And how long until that may be another
/// configuration, if somebody altered this one and it has to stay for a while. `usage` is what is in use already.
pub fn captured(
    observed: &Observed,
    accepted: &Accepted,
    roles: &[RolePlan],
    usage: &Usage,
) -> (Captured, Option<Duration>) {
    let owner = observed.owner();
    let mut spec = accepted.spec.clone();
    let mut captured = Captured::default();
    for role in roles {
        let NamespacedName { namespace, name } = &role.planned;
        role.seen.reference.role.refer(&mut spec, namespace, name);
        captured.stand_ins.push(format!("{namespace}/{name}"));
    }
    let known = usage.configurations.values().filter(|known| known.is_intact(&owner));
    let highest = known.map(|known| known.salt).max().unwrap_or_default();
    let mut stays = None;
    for salt in salts_from(highest) {
        captured.salt = salt;
        captured.configuration = configuration_name(&owner, &spec, salt);
        let found = observed.object(Kind::ContourConfiguration, &owner.namespace, &captured.configuration);
        // A Deployment names one only after it was made. If it is not there, somebody deleted it, and may have altered it before.
        let was_deleted = found.is_none() && usage.configurations.contains_key(&captured.configuration);
        let is_spent = was_deleted || found.is_some_and(is_altered);
        stays = found
            .filter(|_| is_spent)
            .and_then(|found| succession::configuration_stays(found, salt, observed.now));
        if !is_spent || stays.is_some() {
            break;
        }
    }
    captured.spec = spec;
    (captured, stays)
}

fn salt(object: &Object) -> u32 {
    object
        .annotation(annotations::SALT)
        .and_then(|salt| salt.parse().ok())
        .unwrap_or_default()
}

/// Whether somebody changed its spec, or is deleting it, or did so to the one that it was made again for. Slipway changes no
/// spec but to put it right, so that its generation stays 1, and a container that started after the change has captured
/// something else than the name says.
pub fn is_altered(object: &Object) -> bool {
    object.is_terminating()
        || object.annotation(annotations::REMADE).is_some()
        || object.metadata.generation.is_some_and(|generation| generation != 1)
}

/// What the newest completely rolled-out ReplicaSet of Contour's Deployment has captured. Where none is left (the Deployment was
/// deleted) it is what the ContourConfiguration says that is marked as rolled out, and is as it was made.
pub fn last_good(observed: &Observed) -> Option<Captured> {
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
    // The Deployment controller counts its ReplicaSets.
    let revision = |set: &&&Object| {
        let revision = set.annotation("deployment.kubernetes.io/revision");
        revision.and_then(|revision| revision.parse::<u64>().ok())
    };
    let complete = contours.replica_sets.iter().filter(is_complete).max_by_key(revision);
    complete
        .and_then(|set| Captured::of_template(set))
        .filter(|captured| captured.is_intact(&owner))
        .or_else(|| marked(observed))
}

/// What a container captures from the newest ContourConfiguration that is marked as rolled out and is as it was made.
fn marked(observed: &Observed) -> Option<Captured> {
    let owner = observed.owner();
    let rolled_out = observed.of_kind(Kind::ContourConfiguration).filter_map(|object| {
        let spec = object.at("/spec")?.as_object()?.clone();
        let stand_ins = references(&spec).into_iter();
        let captured = Captured {
            configuration: object.name().to_owned(),
            salt: salt(object),
            stand_ins: stand_ins.map(|stand_in| stand_in.to_string()).collect(),
            spec,
        };
        let time: jiff::Timestamp = object.annotation(annotations::ROLLED_OUT)?.parse().ok()?;
        captured.is_intact(&owner).then_some((time.min(observed.now), captured))
    });
    let newest = rolled_out.max_by(|(a, one), (b, other)| (a, &one.configuration).cmp(&(b, &other.configuration)));
    newest.map(|(_, captured)| captured)
}

/// A ContourConfiguration that containers have captured, or are to capture.
#[derive(Clone, Debug)]
pub struct InUse {
    captured: Captured,
    /// When Contour was rolled out to it.
    rolled_out: Option<String>,
    /// Whether it is made again for one that somebody deleted, and may have altered before.
    is_remade: bool,
}

/// The configurations that are in use. `planned` is the one that is to be captured; `rolled_out` says whether Contour was rolled out to it
/// just now. A configuration whose name does not prove its content is left out: nobody knows what was in it.
pub fn in_use(observed: &Observed, usage: &Usage, planned: Option<&Captured>, rolled_out: bool) -> Vec<InUse> {
    let owner = observed.owner();
    let intact = usage
        .configurations
        .values()
        .filter(|captured| captured.is_intact(&owner));
    let in_use = intact.map(|captured| {
        let live = observed.object(Kind::ContourConfiguration, &owner.namespace, &captured.configuration);
        let kept = |key| live.and_then(|live| live.annotation(key)).map(str::to_owned);
        let is_planned = planned == Some(captured);
        let now = jiff::Timestamp::from_second(observed.now.as_second()).unwrap_or(observed.now);
        let just_now = || (rolled_out && is_planned).then(|| now.to_string());
        InUse {
            rolled_out: kept(annotations::ROLLED_OUT).or_else(just_now),
            // A template names one only after it was made. The mark comes with it: a crash before Contour is rolled to the successor must
            // not leave one that looks as if nothing had happened.
            is_remade: kept(annotations::REMADE).is_some() || (live.is_none() && !is_planned),
            captured: captured.clone(),
        }
    });
    in_use.collect()
}

impl InUse {
    /// The ContourConfiguration.
    pub fn object(&self, owner: &Owner) -> Desired {
        let Captured {
            configuration,
            spec,
            salt,
            ..
        } = &self.captured;
        let mut object = Object {
            kind: Kind::ContourConfiguration,
            metadata: owner.metadata(Kind::ContourConfiguration, &owner.namespace, configuration),
            content: Map::from_iter([("spec".to_owned(), Value::Object(spec.clone()))]),
            creation_entry: None,
        };
        let annotations = [
            (annotations::SALT, (*salt > 0).then(|| salt.to_string())),
            (annotations::ROLLED_OUT, self.rolled_out.clone()),
            (annotations::REMADE, self.is_remade.then(|| "true".to_owned())),
        ];
        for (key, value) in annotations {
            if let Some(value) = value {
                object.annotate(key, value);
            }
        }
        Desired::whole_spec(object)
    }
}

/// Those in use that somebody altered.
pub fn altered(observed: &Observed, usage: &Usage) -> Vec<String> {
    let in_use = observed
        .of_kind(Kind::ContourConfiguration)
        .filter(|object| usage.configurations.contains_key(object.name()) && is_altered(object));
    in_use.map(|object| object.name().to_owned()).collect()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn what_is_said_to_be_captured_is_borne_out_by_its_name_and_can_be_made_again() {
        let observed = crate::plan::operand::tests::observed(&json!({}));
        let owner = observed.owner();
        let spec = |value: &str| Map::from_iter([("debug".to_owned(), value.into())]);
        let captured = Captured {
            configuration: configuration_name(&owner, &spec("a"), 2),
            salt: 2,
            spec: spec("a"),
            stand_ins: Vec::new(),
        };
        let made = |captured: &Captured| {
            let mut usage = Usage::default();
            usage.add_captured(captured);
            in_use(&observed, &usage, Some(captured), false)
        };
        let [made_again] = <[InUse; 1]>::try_from(made(&captured)).expect("it is as it was made");
        assert_eq!(salt(&made_again.object(&owner).object), 2);
        let changes: [fn(&mut Captured); 3] = [|it| it.configuration.push('x'), |it| it.salt = 1, |it| it.spec.clear()];
        for (number, change) in changes.into_iter().enumerate() {
            let mut other = captured.clone();
            change(&mut other);
            assert!(!other.is_intact(&owner), "{number}");
            assert!(made(&other).is_empty(), "{number}");
        }
    }
}
