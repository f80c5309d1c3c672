//! Contour's configuration: the user's settings, checked, with the stand-ins in place of the users' ExtensionServices.
//!
//! A ContourConfiguration is content-addressed. Contour reads it once, at container start; a new content is a new object, a
//! new name in the pod template, and so a rollout, exactly when one is needed. An old container that starts again reads the
//! one that it had. One that somebody altered may have been read; another, of the same content, succeeds it.

use std::time::Duration;

use serde_json::{Map, Value, json};

use super::diff::Desired;
use super::names::{hash, hash_json};
use super::object::{Kind, Object, Owner};
use super::observed::{Observed, SettingsVerdict};
use super::rollout::{OldPods, Rollout, Workload};
use super::stand_in::RolePlan;
use super::usage::{Captured, Usage, references};
use super::{Question, preflight, succession};
use crate::api::Role;
use crate::api::vocabulary::annotations;

/// What is known of the user's settings.
#[derive(Clone, Debug)]
pub enum Settings {
    /// The API server has to be asked.
    Unchecked(Box<Question>),
    /// They can't be used; in words, with the field's path.
    Refused(String),
    /// They can be used.
    Accepted(Accepted),
}

/// Settings that the API server and Contour accept.
#[derive(Clone, Debug)]
pub struct Accepted {
    hash: String,
    /// With the CRD's defaults, so that what is stored can be compared with what is wanted.
    spec: Map<String, Value>,
}

/// Checks the settings, as far as that goes without asking.
pub fn settings(observed: &Observed) -> Settings {
    let problems = preflight::check(&observed.deployment.spec);
    if !problems.is_empty() {
        return Settings::Refused(problems.join("; "));
    }
    let spec = own_spec(observed);
    let hash = hash_json(&spec);
    match &observed.settings {
        SettingsVerdict::Refused { hash: asked, message } if *asked == hash => Settings::Refused(message.clone()),
        SettingsVerdict::Accepted { hash: asked, spec } if *asked == hash => Settings::Accepted(Accepted {
            hash,
            spec: spec.clone(),
        }),
        _ => match accepted_before(observed, &spec, &hash) {
            Some(spec) => Settings::Accepted(Accepted { hash, spec }),
            None => Settings::Unchecked(Box::new(Question::Settings {
                candidate: Box::new(candidate(observed, &hash, spec)),
                hash,
            })),
        },
    }
}

/// The settings as the user wrote them, and what Slipway adds.
fn own_spec(observed: &Observed) -> Map<String, Value> {
    let owner = observed.owner();
    let settings = serde_json::to_value(&observed.deployment.spec.runtime_settings).expect("settings are JSON");
    let Value::Object(mut spec) = settings else {
        unreachable!("settings are an object")
    };
    let envoy = spec.entry("envoy").or_insert_with(|| json!({}));
    // Contour copies this Service's address into the status of Ingresses and HTTPProxies; its default is projectcontour/envoy.
    if let Value::Object(envoy) = envoy {
        envoy.insert(
            "service".into(),
            json!({"namespace": owner.namespace, "name": owner.envoy()}),
        );
    }
    spec
}

fn candidate(observed: &Observed, hash: &str, spec: Map<String, Value>) -> Object {
    let owner = observed.owner();
    Object {
        kind: Kind::ContourConfiguration,
        metadata: owner.metadata(
            Kind::ContourConfiguration,
            &owner.namespace,
            &owner.configuration(&format!("{hash}-check")),
        ),
        content: Map::from_iter([("spec".to_owned(), Value::Object(spec))]),
        creation_entry: None,
    }
}

/// The spec, with defaults, of a ContourConfiguration that was made from the same settings and is still as it was made: its
/// name, which nobody can change, bears that out.
fn accepted_before(observed: &Observed, own: &Map<String, Value>, hash: &str) -> Option<Map<String, Value>> {
    let owner = observed.owner();
    observed.of_kind(Kind::ContourConfiguration).find_map(|object| {
        let (settings, content) = object.annotation(annotations::SETTINGS)?.split_once('.')?;
        let spec = object.at("/spec")?.as_object()?;
        let as_it_was_made = content == hash_json(spec) && object.name() == name(&owner, spec, salt(object));
        (settings == hash && as_it_was_made && asks_the_same(own, spec)).then(|| spec.clone())
    })
}

/// Whether both have the same blocks, with the same `failOpen`. Nothing may pass because somebody wrote on an annotation.
fn asks_the_same(own: &Map<String, Value>, spec: &Map<String, Value>) -> bool {
    Role::ALL.into_iter().all(|role| {
        let fail_open = |spec: &Map<String, Value>| {
            let block = spec.get(role.field())?;
            Some(block.get("failOpen").and_then(Value::as_bool).unwrap_or_default())
        };
        fail_open(own) == fail_open(spec)
    })
}

/// What a container is to capture that starts on these settings and stand-ins; and how long until that may be another one, if
/// it is one that somebody altered and that has to stay for a while. `usage` is what is in use already.
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
        let (namespace, name) = &role.planned;
        let field = match role.seen.reference.role {
            Role::GlobalExternalAuthorization => "extensionRef",
            Role::RateLimit | Role::Tracing => "extensionService",
        };
        if let Some(Value::Object(block)) = spec.get_mut(role.seen.reference.role.field()) {
            block.insert(field.to_owned(), json!({"namespace": namespace, "name": name}));
        }
        captured.stand_ins.push(format!("{namespace}/{name}"));
    }
    let known = usage.configurations.values();
    captured.salt = known
        .filter(|known| is_intact(&owner, known))
        .map(|known| known.salt)
        .max()
        .unwrap_or_default();
    let stays = loop {
        captured.configuration = name(&owner, &spec, captured.salt);
        let found = observed.object(Kind::ContourConfiguration, &owner.namespace, &captured.configuration);
        // A Deployment names one only after it was made. If it is not there, somebody deleted it, and may have altered it before.
        let was_deleted = found.is_none() && usage.configurations.contains_key(&captured.configuration);
        let is_spent = was_deleted || found.is_some_and(is_altered);
        let stays = found
            .filter(|_| is_spent)
            .and_then(|found| succession::configuration_stays(found, captured.salt, observed.now));
        if !is_spent || stays.is_some() || captured.salt == u32::MAX {
            break stays;
        }
        captured.salt += 1;
    };
    captured.settings = format!("{}.{}", accepted.hash, hash_json(&spec));
    captured.spec = spec;
    (captured, stays)
}

/// The name of a ContourConfiguration of this spec that succeeds so many others.
fn name(owner: &Owner, spec: &Map<String, Value>, salt: u32) -> String {
    let parts = [&owner.namespace, &owner.name, &hash_json(spec), &salt.to_string()];
    owner.configuration(&hash(parts.map(String::as_str)))
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

/// Whether what is said to be captured is what the configuration's name was made from. What stands on a pod may have been
/// written by anybody, or by a Slipway of another version.
pub fn is_intact(owner: &Owner, captured: &Captured) -> bool {
    let content = captured.settings.split_once('.').map(|(_, content)| content);
    captured.configuration == name(owner, &captured.spec, captured.salt)
        && content == Some(hash_json(&captured.spec).as_str())
}

/// What the newest ContourConfiguration makes a container capture to which Contour was completely rolled, and that is as it
/// was made.
pub fn last_good(observed: &Observed) -> Option<Captured> {
    let owner = observed.owner();
    let rolled_out = observed.of_kind(Kind::ContourConfiguration).filter_map(|object| {
        let captured = Captured {
            configuration: object.name().to_owned(),
            settings: object.annotation(annotations::SETTINGS)?.to_owned(),
            salt: salt(object),
            spec: object.at("/spec")?.as_object()?.clone(),
            stand_ins: references(object)
                .into_iter()
                .map(|(namespace, name)| format!("{namespace}/{name}"))
                .collect(),
        };
        let time = object.annotation(annotations::ROLLED_OUT)?.to_owned();
        is_intact(&owner, &captured).then_some((time, captured))
    });
    let newest = rolled_out.max_by(|(a, one), (b, other)| (a, &one.configuration).cmp(&(b, &other.configuration)));
    newest.map(|(_, captured)| captured)
}

/// Whether every Contour that runs has captured what its Deployment's present template says, and enough of them are available.
pub fn is_rolled_out(contour: &Workload, old_pods: &OldPods) -> bool {
    contour.rollout == Rollout::Complete && contour.available && old_pods.waited_for.is_empty()
}

/// Says on a ContourConfiguration that Contour was rolled out to it.
pub fn mark_rolled_out(configuration: &mut Desired, observed: &Observed) {
    let object = &mut configuration.object;
    if object.annotation(annotations::ROLLED_OUT).is_none() {
        let now = jiff::Timestamp::from_second(observed.now.as_second()).unwrap_or(observed.now);
        object.annotate(annotations::ROLLED_OUT, now.to_string());
    }
}

/// The ContourConfiguration that containers have captured, or are to capture, which is then what is `planned`; none if what is
/// in it can't be told.
pub fn object(observed: &Observed, captured: &Captured, planned: Option<&Captured>) -> Option<Desired> {
    let owner = observed.owner();
    if !is_intact(&owner, captured) {
        return None;
    }
    let mut object = Object {
        kind: Kind::ContourConfiguration,
        metadata: owner.metadata(Kind::ContourConfiguration, &owner.namespace, &captured.configuration),
        content: Map::from_iter([("spec".to_owned(), Value::Object(captured.spec.clone()))]),
        creation_entry: None,
    };
    object.annotate(annotations::SETTINGS, captured.settings.clone());
    if captured.salt > 0 {
        object.annotate(annotations::SALT, captured.salt.to_string());
    }
    let live = observed.object(Kind::ContourConfiguration, &owner.namespace, &captured.configuration);
    for kept in [annotations::ROLLED_OUT, annotations::REMADE] {
        if let Some(value) = live.and_then(|live| live.annotation(kept)) {
            object.annotate(kept, value.to_owned());
        }
    }
    // A template names one only after it was made. The mark comes with it: a crash before Contour is rolled to the successor must
    // not leave one that looks as if nothing had happened.
    if live.is_none() && planned != Some(captured) {
        object.annotate(annotations::REMADE, "true".to_owned());
    }
    Some(Desired::whole_spec(object))
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::plan::operand::tests::observed;

    fn with_stored(change: impl Fn(&mut Map<String, Value>)) -> Observed {
        let auth = json!({"extensionRef": {"namespace": "auth", "name": "auth"}});
        let mut observed = observed(&json!({"runtimeSettings": {"globalExtAuth": auth}}));
        let (owner, mut spec) = (observed.owner(), own_spec(&observed));
        let (settings, name) = (hash_json(&spec), name(&owner, &spec, 0));
        change(&mut spec);
        let mut object = Object {
            kind: Kind::ContourConfiguration,
            metadata: owner.metadata(Kind::ContourConfiguration, &owner.namespace, &name),
            content: Map::new(),
            creation_entry: None,
        };
        object.annotate(annotations::SETTINGS, format!("{settings}.{}", hash_json(&spec)));
        object.content.insert("spec".to_owned(), Value::Object(spec));
        observed.objects.insert(object.key(), Arc::new(object));
        observed
    }

    #[test]
    fn what_was_accepted_before_is_not_asked_again() {
        assert!(matches!(settings(&with_stored(|_| {})), Settings::Accepted(_)));
    }

    #[test]
    fn a_spec_that_was_altered_together_with_its_annotation_is_asked_again() {
        let altered = with_stored(|spec| {
            spec["globalExtAuth"]["authPolicy"] = json!({"disabled": true});
        });
        assert!(matches!(settings(&altered), Settings::Unchecked(_)));
    }

    #[test]
    fn what_is_said_to_be_captured_is_borne_out_by_its_name_and_can_be_made_again() {
        let observed = crate::plan::operand::tests::observed(&json!({}));
        let owner = observed.owner();
        let spec = |value: &str| Map::from_iter([("debug".to_owned(), value.into())]);
        let captured = Captured {
            configuration: name(&owner, &spec("a"), 2),
            settings: format!("asked.{}", hash_json(&spec("a"))),
            salt: 2,
            spec: spec("a"),
            stand_ins: Vec::new(),
        };
        let made = object(&observed, &captured, Some(&captured)).expect("it is as it was made");
        assert_eq!(salt(&made.object), 2);
        let changes: [fn(&mut Captured); 5] = [
            |it| it.configuration.push('x'),
            |it| it.settings.push('x'),
            |it| it.settings = "asked".to_owned(),
            |it| it.salt = 1,
            |it| it.spec.clear(),
        ];
        for (number, change) in changes.into_iter().enumerate() {
            let mut other = captured.clone();
            change(&mut other);
            assert!(!is_intact(&owner, &other), "{number}");
            assert!(object(&observed, &other, Some(&other)).is_none(), "{number}");
        }
    }
}
