//! The fields of an object that Slipway owns, according to the API server's own record (`metadata.managedFields`): their paths, their
//! values, and other possible values.

use std::collections::BTreeMap;

use anyhow::Context as _;
use fastrand::Rng;
use serde_json::{Map, Value, json};

/// Slipway's field manager.
const MANAGER: &str = "slipway";

/// The prefix of Slipway's annotations.
const OWN_ANNOTATION: &str = "contour.slipway.dev/";

/// One step of the path to a field.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Step {
    /// The field of an object.
    Field(String),
    /// The item of a list with these fields (JSON).
    Item(String),
    /// The item of a list with this value (JSON).
    Value(String),
}

/// A field that Slipway owns, without owned fields below it.
#[derive(Clone, Debug)]
pub struct Leaf {
    path: Vec<Step>,
    /// The field's value.
    pub value: Value,
}

/// Returns the fields of an object that Slipway set, except fields whose values the API server allocated.
pub fn leaves(object: &Value) -> anyhow::Result<Vec<Leaf>> {
    let entries = object["metadata"]["managedFields"]
        .as_array()
        .context("managed fields")?;
    let own = entries
        .iter()
        .filter(|entry| entry["manager"] == MANAGER && entry["subresource"].is_null());
    let mut found = BTreeMap::new();
    for entry in own {
        if let Value::Object(fields) = &entry["fieldsV1"] {
            walk(fields, Some(object), &mut Vec::new(), &mut found);
        }
    }
    Ok(found
        .into_iter()
        .map(|(path, value)| Leaf { path, value })
        .filter(|leaf| !leaf.is_allocated())
        .collect())
}

/// Reports whether an object still has the managed fields of its creation. Until Slipway's first apply, defaulted fields count as
/// Slipway's.
pub fn is_as_created(object: &Value) -> bool {
    let entries = object["metadata"]["managedFields"].as_array();
    entries
        .into_iter()
        .flatten()
        .any(|entry| entry["manager"] == MANAGER && entry["operation"] == "Update" && entry["subresource"].is_null())
}

fn walk(
    fields: &Map<String, Value>,
    value: Option<&Value>,
    path: &mut Vec<Step>,
    found: &mut BTreeMap<Vec<Step>, Value>,
) {
    let mut is_leaf = true;
    for (key, below) in fields.iter().filter(|(key, _)| *key != ".") {
        is_leaf = false;
        let step = match key.split_at(2) {
            ("f:", name) => Step::Field(name.to_owned()),
            ("k:", fields) => Step::Item(fields.to_owned()),
            ("v:", value) => Step::Value(value.to_owned()),
            _ => continue,
        };
        let value = value.and_then(|value| step.of(value));
        path.push(step);
        walk(below.as_object().unwrap_or(&Map::new()), value, path, found);
        path.pop();
    }
    if is_leaf && let Some(value) = value {
        found.insert(path.clone(), value.clone());
    }
}

impl Step {
    fn of<'a>(&self, value: &'a Value) -> Option<&'a Value> {
        match self {
            Self::Field(name) => value.get(name),
            Self::Item(_) | Self::Value(_) => value.get(self.index(value)?),
        }
    }

    fn index(&self, list: &Value) -> Option<usize> {
        let is_it = |item: &Value| match self {
            Self::Field(_) => false,
            Self::Item(fields) => serde_json::from_str::<Map<String, Value>>(fields)
                .is_ok_and(|fields| fields.iter().all(|(key, value)| item.get(key) == Some(value))),
            Self::Value(value) => serde_json::from_str::<Value>(value).is_ok_and(|value| *item == value),
        };
        list.as_array()?.iter().position(is_it)
    }
}

impl Leaf {
    /// Returns the field's value in another object, or in another state of the same object.
    pub fn of<'a>(&self, object: &'a Value) -> Option<&'a Value> {
        self.path.iter().try_fold(object, |value, step| step.of(value))
    }

    /// Returns the field's path in an object as a JSON pointer, or None if the object lacks a list item of the path.
    pub fn pointer(&self, object: &Value) -> Option<String> {
        let mut pointer = String::new();
        let mut value = object;
        for step in &self.path {
            let token = match step {
                Step::Field(name) => name.replace('~', "~0").replace('/', "~1"),
                Step::Item(_) | Step::Value(_) => step.index(value)?.to_string(),
            };
            value = step.of(value)?;
            pointer = format!("{pointer}/{token}");
        }
        Some(pointer)
    }

    /// Returns an object with only this field, in the form that server-side apply accepts.
    pub fn alone(&self, value: Value) -> anyhow::Result<Value> {
        self.path.iter().rev().try_fold(value, |below, step| {
            Ok(match step {
                Step::Field(name) => json!({name: below}),
                Step::Item(fields) => {
                    let mut item: Map<String, Value> = serde_json::from_str(fields)?;
                    item.extend(below.as_object().cloned().unwrap_or_default());
                    json!([item])
                }
                Step::Value(value) => json!([serde_json::from_str::<Value>(value)?]),
            })
        })
    }

    /// Reports whether the field is in `metadata`.
    pub fn is_metadata(&self) -> bool {
        self.path.first() == Some(&Step::Field("metadata".to_owned()))
    }

    /// Reports whether the path is exactly this one. A path with list items never matches.
    pub fn is_at(&self, names: &[&str]) -> bool {
        let is_it = |(step, name): (&Step, &&str)| *step == Step::Field((*name).to_owned());
        self.path.len() == names.len() && self.path.iter().zip(names).all(is_it)
    }

    /// Reports whether the value may change with a repair: a hash, persisted state, or a new certificate.
    pub fn is_variable(&self) -> bool {
        match self.path.as_slice() {
            [Step::Field(first), ..] if first == "data" => true,
            [Step::Field(_), Step::Field(second), Step::Field(name)] => {
                second == "annotations" && name.starts_with(OWN_ANNOTATION)
            }
            _ => false,
        }
    }

    /// Reports whether a value is equal to the field's value. The startup inputs of a pod template are compared without the identity of the
    /// ContourConfiguration:
    ///
    /// - Without its uid and generation. Contour's rollout to a repaired or recreated ContourConfiguration may wait for a minute, and a
    ///   repair of the Deployment in this minute includes the rollout.
    /// - Without its name if the ContourConfiguration is the successor of one that was stuck in its deletion. Only the Deployment stores
    ///   that, so a recreated Deployment names the ContourConfiguration of the first choice again.
    ///
    /// The hash of the pod template covers this identity, and an argument contains the name. So any text of the same length is equal there.
    /// The end of a round checks the argument.
    pub fn is_equal(&self, value: &Value) -> bool {
        if self.path.last() == Some(&Step::Field(format!("{OWN_ANNOTATION}template"))) {
            return value.as_str().map(str::len) == self.value.as_str().map(str::len);
        }
        if self.path.last() == Some(&Step::Field("args".to_owned())) {
            return without_names(&self.value) == without_names(value);
        }
        if self.path.last() == Some(&Step::Field(format!("{OWN_ANNOTATION}startup-inputs")))
            && let (Some(mut one), Some(mut other)) = (startup_inputs(&self.value), startup_inputs(value))
        {
            let mut masked = vec!["uid", "generation"];
            if [&one, &other].iter().any(|inputs| inputs.contains_key("inPlaceOf")) {
                masked.extend(["configuration", "inPlaceOf"]);
            }
            for inputs in [&mut one, &mut other] {
                inputs.retain(|field, _| !masked.contains(&field.as_str()));
            }
            return one == other;
        }
        *value == self.value
    }

    /// Reports whether the field is the mark of a completed rollout.
    pub fn is_rollout_mark(&self) -> bool {
        self.is_at(&["metadata", "annotations", "contour.slipway.dev/rolled-out"])
    }

    fn is_allocated(&self) -> bool {
        ["clusterIP", "clusterIPs", "ipFamilies", "healthCheckNodePort"]
            .iter()
            .any(|name| self.path.get(1) == Some(&Step::Field((*name).to_owned())))
    }

    /// Returns other possible values in random order; `None` is the field's absence.
    pub fn others(&self, rng: &mut Rng) -> Vec<Option<Value>> {
        let mut others = vec![None];
        match &self.value {
            Value::String(text) => {
                let texts = [format!("{text}x"), format!("1{text}"), "bWFsbG9yeQ==".to_owned()];
                others.extend(texts.map(|text| Some(json!(text))));
            }
            Value::Number(number) => others.extend(number.as_i64().map(|number| Some(json!(number + 1)))),
            Value::Bool(value) => others.push(Some(json!(!value))),
            Value::Array(items) => {
                let mut more = items.clone();
                more.extend(items.first().map(altered));
                others.push(Some(json!(more)));
                others.push(Some(json!(&items[..items.len().saturating_sub(1)])));
            }
            Value::Object(fields) => {
                let mut more = fields.clone();
                more.insert("mallory".to_owned(), json!("was-here"));
                others.push(Some(Value::Object(more)));
            }
            Value::Null => {}
        }
        rng.shuffle(&mut others);
        others
    }

    /// Reports whether the value is not empty.
    pub fn is_filled(&self) -> bool {
        match &self.value {
            Value::Null => false,
            Value::Array(items) => !items.is_empty(),
            Value::Object(fields) => !fields.is_empty(),
            Value::String(text) => !text.is_empty(),
            Value::Bool(_) | Value::Number(_) => true,
        }
    }
}

/// Returns the arguments of a container, with the length of the name in place of the name of a ContourConfiguration.
fn without_names(arguments: &Value) -> Option<Vec<String>> {
    let without_name = |argument: &Value| {
        let argument = argument.as_str()?;
        let name = argument.strip_prefix("--contour-config-name=");
        Some(name.map_or_else(|| argument.to_owned(), |name| format!("a name of {} bytes", name.len())))
    };
    arguments.as_array()?.iter().map(without_name).collect()
}

/// Returns the startup inputs in the annotation of a pod template, or None if the value is something else.
fn startup_inputs(annotation: &Value) -> Option<Map<String, Value>> {
    serde_json::from_str(annotation.as_str()?).ok()
}

/// Returns a similar item.
fn altered(item: &Value) -> Value {
    match item {
        Value::String(text) => json!(format!("{text}x")),
        Value::Object(fields) => {
            let mut fields = fields.clone();
            if let Some(name) = fields.get_mut("name") {
                *name = json!("mallory");
            }
            Value::Object(fields)
        }
        other => other.clone(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn service() -> Value {
        json!({
            "metadata": {
                "finalizers": ["other", "mine"], "labels": {"a": "b"},
                "managedFields": [
                    {"manager": "slipway", "operation": "Apply", "fieldsV1": {
                        "f:metadata": {"f:finalizers": {"v:\"mine\"": {}}, "f:labels": {"f:a": {}}},
                        "f:spec": {"f:ports": {".": {}, "k:{\"port\":2}": {".": {}, "f:name": {}}}, "f:selector": {}}}},
                    {"manager": "somebody", "operation": "Update", "fieldsV1": {"f:spec": {"f:type": {}}}},
                ],
            },
            "spec": {"type": "x", "ports": [{"port": 1}, {"port": 2, "name": "two"}], "selector": {"c": "d"}},
        })
    }

    #[test]
    fn leaves_finds_exactly_slipways_fields() {
        let object = service();
        let leaves = leaves(&object).expect("leaves");
        let mut found: Vec<_> = leaves
            .iter()
            .map(|leaf| (leaf.pointer(&object).expect("there"), leaf.value.clone()))
            .collect();
        found.sort_by(|a, b| a.0.cmp(&b.0));
        let expected = [
            ("/metadata/finalizers/1", json!("mine")),
            ("/metadata/labels/a", json!("b")),
            ("/spec/ports/1/name", json!("two")),
            ("/spec/selector", json!({"c": "d"})),
        ];
        assert_eq!(found, expected.map(|(pointer, value)| (pointer.to_owned(), value)));
    }

    #[test]
    fn is_equal_ignores_only_the_identity_in_startup_inputs() {
        let inputs = |uid: &str, name: &str| {
            json!(json!({"configuration": name, "uid": uid, "generation": 1, "spec": {}}).to_string())
        };
        let successor = |spec: Value| {
            json!(
                json!({"configuration": "b", "uid": "2", "generation": 1, "inPlaceOf": "1", "spec": spec}).to_string()
            )
        };
        let leaf = |name: &str| Leaf {
            path: vec![Step::Field("annotations".to_owned()), Step::Field(name.to_owned())],
            value: inputs("1", "a"),
        };
        let captured = leaf("contour.slipway.dev/startup-inputs");
        assert!(captured.is_equal(&inputs("2", "a")) && !captured.is_equal(&inputs("1", "b")));
        assert!(captured.is_equal(&successor(json!({}))) && !captured.is_equal(&successor(json!({"a": 1}))));
        assert!(!captured.is_equal(&json!("not JSON")));
        assert!(!leaf("another").is_equal(&inputs("2", "a")));
        let hash = Leaf {
            value: json!("0123456789"),
            ..leaf("contour.slipway.dev/template")
        };
        assert!(hash.is_equal(&json!("abcdefghij")));
        assert!(
            [json!("0123456789x"), Value::Null]
                .iter()
                .all(|value| !hash.is_equal(value))
        );
    }

    #[test]
    fn alone_returns_an_object_for_server_side_apply() {
        let object = service();
        let name = leaves(&object)
            .expect("leaves")
            .into_iter()
            .find(|leaf| leaf.value == "two")
            .expect("the name");
        let alone = name.alone(json!("three")).expect("an object");
        assert_eq!(alone, json!({"spec": {"ports": [{"port": 2, "name": "three"}]}}));
    }
}
