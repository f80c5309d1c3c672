//! The user's settings of Contour, checked: what is wrong with them is said before anything of them is applied.

use serde_json::{Map, Value, json};

use super::names::hash_json;
use super::object::{Kind, Object};
use super::observed::{Observed, SettingsVerdict};
use super::waves::Question;
use crate::api::Role;
use crate::contour::preflight;

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
    pub spec: Map<String, Value>,
}

/// Checks the settings, as far as that goes without asking.
pub fn assess(observed: &Observed) -> Settings {
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
        } if *asked == hash => Settings::Accepted(Accepted { spec: answer.clone() }),
        _ => Settings::Unchecked(Box::new(Question::Settings {
            candidate: Box::new(candidate(observed, &hash, spec)),
            hash,
        })),
    }
}

impl SettingsVerdict {
    /// Judges the answer to a dry run. If something changed the settings on the way, that is a refusal, and is asked about again like any
    /// other.
    pub fn of(hash: &str, asked: &Object, answer: &Object) -> Self {
        let spec = |object: &Object| object.spec().cloned().unwrap_or_default();
        let (hash, spec, asked) = (hash.to_owned(), spec(answer), spec(asked));
        match changed(&asked, &spec) {
            None => Self::Accepted { hash, spec },
            Some(field) => Self::Refused {
                hash,
                message: format!(
                    "runtimeSettings.{field}: something between Slipway and the API server (a mutating webhook or policy) changes it, \
                     and what Contour is told must be what is specified; exempt ContourConfigurations from it"
                ),
            },
        }
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
                let decisive = ["authPolicy", role.reference_field()];
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
    fn an_answer_with_other_settings_than_were_asked_about_is_a_refusal() {
        let observed = crate::plan::operand::tests::observed(&json!({}));
        let asked = candidate(&observed, "hash", own_spec(&observed));
        let mut answer = asked.clone();
        answer.content["spec"]["debug"] = json!({"port": 6060});
        let verdict = SettingsVerdict::of("hash", &asked, &answer);
        let with_defaults = answer.content["spec"].as_object().expect("an object").clone();
        let accepted = |spec| SettingsVerdict::Accepted {
            hash: "hash".to_owned(),
            spec,
        };
        assert_eq!(verdict, accepted(with_defaults));
        answer.content["spec"]["envoy"]["service"]["name"] = "other".into();
        match SettingsVerdict::of("hash", &asked, &answer) {
            SettingsVerdict::Refused { hash, message } => {
                assert_eq!(hash, "hash");
                assert!(message.starts_with("runtimeSettings.envoy.service.name: "), "{message}");
            }
            verdict => panic!("{verdict:?}"),
        }
        answer.content.remove("spec");
        assert!(matches!(
            SettingsVerdict::of("hash", &asked, &answer),
            SettingsVerdict::Refused { .. }
        ));
    }
}
