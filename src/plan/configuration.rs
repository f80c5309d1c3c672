//! Contour's configuration: the user's settings, checked, with the stand-ins in place of the users' ExtensionServices.
//!
//! A ContourConfiguration is content-addressed. Contour reads it once, at container start; a new content is a new object, a
//! new name in the pod template, and so a rollout, exactly when one is needed. An old container that starts again reads the
//! one that it had. One that somebody altered may have been read; another, of the same content, succeeds it.

use std::time::Duration;

use serde_json::{Map, Value, json};

use super::captured::{Captured, Contours, references};
use super::diff::Desired;
use super::names::{hash, hash_json, salts_from};
use super::object::{Kind, Object, Owner};
use super::observed::{Observed, SettingsVerdict};
use super::rollout::{OldPods, Rollout, Workload};
use super::stand_in::RolePlan;
use super::usage::Usage;
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
        SettingsVerdict::Accepted {
            hash: asked,
            spec: answer,
        } if *asked == hash => match changed(&spec, answer) {
            None => Settings::Accepted(Accepted { spec: answer.clone() }),
            Some(field) => Settings::Refused(format!(
                "runtimeSettings.{field}: something between Slipway and the API server (a mutating webhook or policy) changes it, and \
                 what Contour is told must be what is specified; exempt ContourConfigurations from it"
            )),
        },
        _ => Settings::Unchecked(Box::new(Question::Settings {
            candidate: Box::new(candidate(observed, &hash, spec)),
            hash,
        })),
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

/// The first field that the API server's answer has otherwise than the user wrote it, if there is one. Defaults of the CRD may be
/// added, but nothing may that decides whether a request is checked.
pub fn changed(own: &Map<String, Value>, answer: &Map<String, Value>) -> Option<String> {
    let kept = |(key, value): (&String, &Value)| match answer.get(key) {
        Some(other) => lost(key, value, other),
        None => (!value.is_null()).then(|| key.clone()),
    };
    let added = |role: Role| {
        let field = role.field();
        match (own.get(field), answer.get(field)) {
            (Some(own), Some(answer)) => {
                let is_the_same = |key: &str| own.get(key) == answer.get(key);
                let fails_open = |block: &Value| block.get("failOpen").and_then(Value::as_bool).unwrap_or_default();
                let decisive = ["authPolicy", "extensionRef", "extensionService"];
                let other = decisive.into_iter().find(|key| !is_the_same(key));
                let other = other.or_else(|| (fails_open(own) != fails_open(answer)).then_some("failOpen"));
                other.map(|key| format!("{field}.{key}"))
            }
            (None, Some(_)) => Some(field.to_owned()),
            (_, None) => None,
        }
    };
    own.iter()
        .find_map(kept)
        .or_else(|| Role::ALL.into_iter().find_map(added))
}

/// The path of the first value that is not there any more, or is another one.
fn lost(path: &str, own: &Value, answer: &Value) -> Option<String> {
    match (own, answer) {
        (Value::Object(own), Value::Object(answer)) => own.iter().find_map(|(key, value)| {
            let path = format!("{path}.{key}");
            match answer.get(key) {
                Some(other) => lost(&path, value, other),
                None => (!value.is_null()).then_some(path),
            }
        }),
        (Value::Array(own), Value::Array(answer)) if own.len() == answer.len() => {
            let mut items = own.iter().zip(answer).enumerate();
            items.find_map(|(index, (own, answer))| lost(&format!("{path}[{index}]"), own, answer))
        }
        _ => (own != answer).then(|| path.to_owned()),
    }
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
    let known = usage.configurations.values().filter(|known| is_intact(&owner, known));
    let highest = known.map(|known| known.salt).max().unwrap_or_default();
    let mut stays = None;
    for salt in salts_from(highest) {
        captured.salt = salt;
        captured.configuration = name(&owner, &spec, salt);
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
    captured.configuration == name(owner, &captured.spec, captured.salt)
}

/// What the newest completely rolled-out ReplicaSet of Contour's Deployment has captured. Where none is left (the Deployment was
/// deleted) it is what the ContourConfiguration says that is marked as rolled out, and is as it was made.
pub fn last_good(observed: &Observed) -> Option<Captured> {
    let owner = observed.owner();
    let contours = Contours::of(observed);
    let number = |object: &Object, pointer| object.at(pointer).and_then(Value::as_i64).unwrap_or_default();
    let wanted = contours
        .deployment
        .map(|deployment| number(deployment, "/spec/replicas"));
    let active = contours
        .replica_sets
        .iter()
        .filter(|set| number(set, "/spec/replicas") > 0);
    let is_the_only_one = active.count() == 1;
    let is_complete = |set: &&&Object| {
        let available = number(set, "/status/availableReplicas");
        let has_taken_over = is_the_only_one && number(set, "/spec/replicas") > 0;
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
        .filter(|captured| is_intact(&owner, captured))
        .or_else(|| marked(observed))
}

/// What the newest ContourConfiguration makes a container capture that is marked as rolled out, and is as it was made.
fn marked(observed: &Observed) -> Option<Captured> {
    let owner = observed.owner();
    let rolled_out = observed.of_kind(Kind::ContourConfiguration).filter_map(|object| {
        let spec = object.at("/spec")?.as_object()?.clone();
        let stand_ins = references(&spec).into_iter();
        let captured = Captured {
            configuration: object.name().to_owned(),
            salt: salt(object),
            stand_ins: stand_ins
                .map(|(namespace, name)| format!("{namespace}/{name}"))
                .collect(),
            spec,
        };
        let time: jiff::Timestamp = object.annotation(annotations::ROLLED_OUT)?.parse().ok()?;
        is_intact(&owner, &captured).then_some((time.min(observed.now), captured))
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
    use super::*;

    type Change = fn(&mut Value);

    #[test]
    fn an_answer_may_add_defaults_and_nothing_that_decides_on_a_check() {
        let auth = json!({"extensionRef": {"namespace": "auth", "name": "auth"}});
        let own = json!({"globalExtAuth": auth, "httpproxy": {"rootNamespaces": ["a", "b"]}, "tracing": null});
        let answer = |change: fn(&mut Value)| {
            let mut answer = own.clone();
            answer["debug"] = json!({"port": 6060});
            answer["httpproxy"]["fallback"] = json!("x");
            answer["globalExtAuth"]["failOpen"] = json!(false);
            answer.as_object_mut().expect("an object").remove("tracing");
            change(&mut answer);
            changed(
                own.as_object().expect("an object"),
                answer.as_object().expect("an object"),
            )
        };
        assert_eq!(answer(|_| {}), None);
        let changes: [(Change, &str); 7] = [
            (
                |it| it["globalExtAuth"]["authPolicy"] = json!({"disabled": true}),
                "globalExtAuth.authPolicy",
            ),
            (
                |it| it["globalExtAuth"]["failOpen"] = json!(true),
                "globalExtAuth.failOpen",
            ),
            (
                |it| it["globalExtAuth"]["extensionRef"]["name"] = json!("other"),
                "globalExtAuth.extensionRef.name",
            ),
            (
                |it| drop(it.as_object_mut().expect("an object").remove("globalExtAuth")),
                "globalExtAuth",
            ),
            (|it| it["rateLimitService"] = json!({"domain": "x"}), "rateLimitService"),
            (
                |it| it["httpproxy"]["rootNamespaces"] = json!(["a", "c"]),
                "httpproxy.rootNamespaces[1]",
            ),
            (
                |it| it["httpproxy"]["rootNamespaces"] = json!(["a"]),
                "httpproxy.rootNamespaces",
            ),
        ];
        for (change, field) in changes {
            assert_eq!(answer(change).as_deref(), Some(field));
        }
    }

    #[test]
    fn what_is_said_to_be_captured_is_borne_out_by_its_name_and_can_be_made_again() {
        let observed = crate::plan::operand::tests::observed(&json!({}));
        let owner = observed.owner();
        let spec = |value: &str| Map::from_iter([("debug".to_owned(), value.into())]);
        let captured = Captured {
            configuration: name(&owner, &spec("a"), 2),
            salt: 2,
            spec: spec("a"),
            stand_ins: Vec::new(),
        };
        let made = object(&observed, &captured, Some(&captured)).expect("it is as it was made");
        assert_eq!(salt(&made.object), 2);
        let changes: [fn(&mut Captured); 3] = [|it| it.configuration.push('x'), |it| it.salt = 1, |it| it.spec.clear()];
        for (number, change) in changes.into_iter().enumerate() {
            let mut other = captured.clone();
            change(&mut other);
            assert!(!is_intact(&owner, &other), "{number}");
            assert!(object(&observed, &other, Some(&other)).is_none(), "{number}");
        }
    }
}
