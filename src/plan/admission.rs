//! The admission policies that this version ships (`config/admission`), and the differences in an installation. The plan is safe without
//! the policies. They keep other users from forbidden writes, and the plan only reports whether they are installed.

use std::borrow::Cow;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::LazyLock;

use serde_json::Value;

use super::object::{Key, Kind, Object};
use super::observed::ServiceAccountRef;

/// The files of `config/admission`, by name.
const FILES: [(&str, &str); 7] = [
    (
        "contourdeployments.yaml",
        include_str!("../../config/admission/contourdeployments.yaml"),
    ),
    (
        "cluster-wide-access.yaml",
        include_str!("../../config/admission/cluster-wide-access.yaml"),
    ),
    (
        "operator-access.yaml",
        include_str!("../../config/admission/operator-access.yaml"),
    ),
    (
        "operator-bindings.yaml",
        include_str!("../../config/admission/operator-bindings.yaml"),
    ),
    (
        "operator-objects.yaml",
        include_str!("../../config/admission/operator-objects.yaml"),
    ),
    ("marks.yaml", include_str!("../../config/admission/marks.yaml")),
    ("content.yaml", include_str!("../../config/admission/content.yaml")),
];

/// Namespace and name of the ServiceAccount in the shipped files.
const SHIPPED_FOR: (&str, &str) = ("slipway-system", "slipway");

/// The kinds of a policy and of its binding. The two objects have the same name, and a policy has no effect without its binding.
const KINDS: [Kind; 2] = [Kind::ValidatingAdmissionPolicy, Kind::ValidatingAdmissionPolicyBinding];

/// The shipped policies and their bindings.
static SHIPPED: LazyLock<BTreeMap<Key, Object>> = LazyLock::new(|| {
    let objects = FILES.iter().flat_map(|(name, text)| {
        let documents: Vec<Value> = serde_saphyr::from_multiple(text)
            .unwrap_or_else(|error| panic!("the built-in file config/admission/{name} is not valid YAML: {error}"));
        documents.into_iter().map(move |document| {
            let kind = KINDS.into_iter().find(|kind| document["kind"] == kind.name());
            let kind = kind.unwrap_or_else(|| {
                panic!("config/admission/{name} contains an object of an unexpected kind: {document}")
            });
            let object = Object::from_json(kind, document).expect("a policy has metadata");
            (object.key(), object)
        })
    });
    objects.collect()
});

/// One of the policies, and whether the cluster has it as shipped.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Policy {
    /// The name of the policy, which is also the name of its binding.
    pub name: &'static str,
    /// The problems of the policy and its binding. Empty if there are none.
    pub problems: Vec<String>,
}

/// Reports whether an object is one of these policies or bindings.
pub fn is_ours(object: &Object) -> bool {
    SHIPPED.contains_key(&object.key())
}

/// Compares each of the policies with the objects that were found in the cluster.
pub fn policies<'a>(operator: &ServiceAccountRef, found: impl IntoIterator<Item = &'a Object>) -> Vec<Policy> {
    let found: BTreeMap<Key, &Object> = found.into_iter().map(|object| (object.key(), object)).collect();
    let names = SHIPPED.keys().filter(|key| key.kind == Kind::ValidatingAdmissionPolicy);
    let policy = |key: &'static Key| {
        let both = KINDS.map(|kind| Key::new(kind, "", &key.name));
        let problem = |key: &Key| problem(operator, key, found.get(key).copied());
        Policy {
            name: &key.name,
            problems: both.iter().filter_map(problem).collect(),
        }
    };
    names.map(policy).collect()
}

/// Returns the problems of all policies as messages. The list is empty if there are none.
pub fn problems<'a>(operator: &ServiceAccountRef, found: impl IntoIterator<Item = &'a Object>) -> Vec<String> {
    policies(operator, found)
        .into_iter()
        .flat_map(|policy| policy.problems)
        .collect()
}

/// Returns the problem of one object. The whole `spec` is compared, because an additional condition weakens a policy as much as a missing
/// rule.
fn problem(operator: &ServiceAccountRef, key: &Key, found: Option<&Object>) -> Option<String> {
    let Some(found) = found else {
        return Some(format!("{key} does not exist"));
    };
    let shipped = SHIPPED.get(key).and_then(|shipped| shipped.at("/spec"))?;
    let (wanted, is) = (
        for_operator(operator, shipped),
        found.at("/spec").unwrap_or(&Value::Null),
    );
    if *wanted == *is {
        return None;
    }
    let fields = |spec: &Value| spec.as_object().cloned().unwrap_or_default();
    let (wanted, is) = (fields(&wanted), fields(is));
    let names: BTreeSet<&String> = wanted.keys().chain(is.keys()).collect();
    let other = names.into_iter().filter(|name| wanted.get(*name) != is.get(*name));
    let other: Vec<String> = other.map(|name| format!("spec.{name}")).collect();
    Some(format!("{key} differs from the shipped object in {}", other.join(", ")))
}

/// Adapts a shipped spec to an operator with another namespace or name. The policies name the operator as a user and as the subject of a
/// binding.
fn for_operator<'a>(operator: &ServiceAccountRef, spec: &'a Value) -> Cow<'a, Value> {
    let (namespace, name) = SHIPPED_FOR;
    if (operator.namespace.as_str(), operator.name.as_str()) == SHIPPED_FOR {
        return Cow::Borrowed(spec);
    }
    let words = [
        (
            format!("'system:serviceaccount:{namespace}:{name}'"),
            format!("'system:serviceaccount:{}:{}'", operator.namespace, operator.name),
        ),
        (format!("'{namespace}'"), format!("'{}'", operator.namespace)),
        (format!("'{name}'"), format!("'{}'", operator.name)),
    ];
    Cow::Owned(replaced(&words, spec))
}

fn replaced(words: &[(String, String)], value: &Value) -> Value {
    match value {
        Value::String(text) => Value::String(replaced_in(words, text).into_owned()),
        Value::Array(items) => items.iter().map(|item| replaced(words, item)).collect(),
        Value::Object(fields) => fields
            .iter()
            .map(|(name, field)| (name.clone(), replaced(words, field)))
            .collect(),
        other => other.clone(),
    }
}

/// Replaces all words in one pass. Inserted text is not searched again.
fn replaced_in<'a>(words: &[(String, String)], text: &'a str) -> Cow<'a, str> {
    let first = words
        .iter()
        .filter_map(|(old, new)| Some((text.find(old.as_str())?, old, new)))
        .min_by_key(|(place, ..)| *place);
    match first {
        None => Cow::Borrowed(text),
        Some((place, old, new)) => {
            let rest = replaced_in(words, &text[place + old.len()..]);
            Cow::Owned(format!("{}{new}{rest}", &text[..place]))
        }
    }
}

#[cfg(test)]
mod tests;
