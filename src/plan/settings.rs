//! Checks the user's settings of Contour. Slipway reports problems before it applies any part of the settings.

use serde_json::{Map, Value, json};

use super::converge;
use super::names::hash_json;
use super::object::{Kind, Object};
use super::observed::{Observed, SettingsVerdict};
use super::operand::Operand;
use super::overlay;
use super::startup_inputs::StartupInputs;
use super::waves::Question;
use super::write::{Desired, Write};
use crate::api::{ContourDeploymentSpec, Role};
use crate::contour::preflight;

/// The state of the check of the user's settings.
#[derive(Clone, Debug)]
pub enum Settings {
    /// The API server must be asked.
    Unchecked(Box<Question>),
    /// The settings are invalid. The message contains the path of the field.
    Refused(String),
    /// The settings are valid.
    Accepted(Accepted),
}

/// Settings that the API server and Contour accept.
#[derive(Clone, Debug)]
pub struct Accepted {
    /// The spec with the CRD's defaults, so that the stored spec can be compared with the desired spec.
    pub spec: Map<String, Value>,
}

/// Checks the settings as far as possible without asking the API server.
pub fn assess(observed: &Observed) -> Settings {
    let spec = own_spec(observed);
    let mut problems = preflight::check(&observed.deployment.spec);
    let unchecked = unchecked(observed, &spec).unwrap_or_else(|violations| {
        problems.extend(violations);
        Vec::new()
    });
    if !problems.is_empty() {
        return Settings::Refused(problems.join("; "));
    }
    let hash = if unchecked.is_empty() {
        hash_json(&spec)
    } else {
        let contents = unchecked.iter().map(|(_, desired)| &desired.object.content);
        hash_json(&(&spec, contents.collect::<Vec<_>>()))
    };
    match &observed.settings {
        SettingsVerdict::Refused { hash: asked, message } if *asked == hash => Settings::Refused(message.clone()),
        SettingsVerdict::Accepted {
            hash: asked,
            spec: answer,
        } if *asked == hash => Settings::Accepted(Accepted { spec: answer.clone() }),
        _ => Settings::Unchecked(Box::new(Question::Settings {
            candidate: Box::new(candidate(observed, &hash, spec)),
            others: unchecked
                .into_iter()
                .map(|(field, desired)| (field, write(observed, desired)))
                .collect(),
            hash,
        })),
    }
}

impl SettingsVerdict {
    /// Converts the answer to a dry run to a verdict. A changed setting in the answer counts as a refusal, which is checked again like any
    /// other refusal.
    pub fn of(hash: &str, asked: &Object, answer: &Object) -> Self {
        let spec = |object: &Object| object.spec().cloned().unwrap_or_default();
        let (hash, spec, asked) = (hash.to_owned(), spec(answer), spec(asked));
        match changed(&asked, &spec) {
            None => Self::Accepted { hash, spec },
            Some(field) => Self::Refused {
                hash,
                message: format!(
                    "runtimeSettings.{field}: a mutating webhook or policy changes this field, but Contour's configuration must \
                     match the spec; exempt ContourConfigurations from the webhook or policy"
                ),
            },
        }
    }
}

/// Returns the user's settings with the fields that Slipway adds.
fn own_spec(observed: &Observed) -> Map<String, Value> {
    let owner = observed.owner();
    let settings = serde_json::to_value(&observed.deployment.spec.runtime_settings).expect("settings are JSON");
    let Value::Object(mut spec) = settings else {
        unreachable!("settings are an object")
    };
    let envoy = spec.entry("envoy").or_insert_with(|| json!({}));
    // Contour copies the address of this Service to the status of Ingresses and HTTPProxies. Contour's default is projectcontour/envoy.
    if let Value::Object(envoy) = envoy {
        envoy.insert(
            "service".into(),
            json!({"namespace": owner.namespace, "name": owner.envoy()}),
        );
    }
    spec
}

/// Returns the first field in which the API server's answer differs from the user's settings, or None. The answer may add defaults of the
/// CRD, but no field that decides whether a request is checked.
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

/// Returns the path of the first value that is missing or different in the answer.
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

/// Returns the objects with fields that only the API server can check (overlays and strategies), each with such a field, or the violations of
/// the overlays. The startup inputs are provisional: they have no effect on these fields.
fn unchecked(observed: &Observed, spec: &Map<String, Value>) -> Result<Vec<(&'static str, Desired)>, Vec<String>> {
    let ContourDeploymentSpec { contour, envoy, .. } = &observed.deployment.spec;
    let first = |fields: &[(&'static str, bool)]| fields.iter().find(|(_, is_set)| *is_set).map(|(field, _)| *field);
    let fields = [
        first(&[
            (overlay::CONTOUR, contour.pod_template.is_some()),
            (
                "spec.contour.deployment.strategy",
                contour.deployment.strategy.is_some(),
            ),
        ]),
        first(&[
            (overlay::ENVOY, envoy.pod_template.is_some()),
            ("spec.envoy.deployment.strategy", envoy.deployment.strategy.is_some()),
            (
                "spec.envoy.daemonSet.updateStrategy",
                envoy.daemon_set.update_strategy.is_some(),
            ),
        ]),
        first(&[(overlay::SERVICE, envoy.network_publishing.service.is_some())]),
    ];
    if fields == [None; 3] {
        return Ok(Vec::new());
    }
    let inputs = StartupInputs {
        configuration: observed.owner().configuration("check"),
        spec: spec.clone(),
        ..StartupInputs::default()
    };
    let operand = Operand::of(&observed.instance(), &inputs);
    if !operand.problems.is_empty() {
        return Err(operand.problems);
    }
    let objects = [operand.contour, operand.envoy, operand.envoy_service];
    let unchecked = fields.into_iter().zip(objects);
    Ok(unchecked.filter_map(|(field, object)| Some((field?, object))).collect())
}

/// Returns the write of a desired object as if it were due.
fn write(observed: &Observed, desired: Desired) -> Write {
    let mut object = desired.object;
    let live = observed.objects.get(&object.key()).map(AsRef::as_ref);
    match live.filter(|live| observed.owner().owns(live)) {
        Some(live) => {
            converge::adopt_initial(&mut object, live, desired.fields);
            converge::write(object, live, desired.fields, false)
        }
        None => Write::Create(object),
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
    fn an_answer_may_add_only_defaults_that_decide_no_check() {
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
    fn an_answer_with_changed_settings_is_a_refusal() {
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
