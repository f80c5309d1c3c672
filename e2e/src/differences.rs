//! Comparisons of JSON values and of sets of objects. An absent field and the value null are equal.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::Value;

/// The maximum length of a shown value, in characters.
const SHOWN: usize = 400;

/// Returns the differences between two sets of objects. Empty: the sets are equal.
pub fn of_objects(expected: &BTreeMap<String, Value>, found: &BTreeMap<String, Value>) -> Vec<String> {
    let mut all = Vec::new();
    for name in expected.keys().chain(found.keys()).collect::<BTreeSet<_>>() {
        match (expected.get(name), found.get(name)) {
            (Some(_), None) => all.push(format!("{name} is missing")),
            (None, Some(_)) => all.push(format!("{name} is superfluous")),
            (Some(expected), Some(found)) => compare(name, expected, found, &mut all),
            (None, None) => {}
        }
    }
    all
}

/// Returns the differences between two values, each with its place: `.a[1]: 3, expected 2`. Empty: the values are equal.
pub fn of_values(expected: &Value, found: &Value) -> Vec<String> {
    let mut all = Vec::new();
    compare("", expected, found, &mut all);
    all
}

fn compare(place: &str, expected: &Value, found: &Value, all: &mut Vec<String>) {
    match (expected, found) {
        (Value::Object(one), Value::Object(other)) => {
            for key in one.keys().chain(other.keys()).collect::<BTreeSet<_>>() {
                let key = key.as_str();
                compare(&format!("{place}.{key}"), &expected[key], &found[key], all);
            }
        }
        (Value::Array(one), Value::Array(other)) if one.len() == other.len() => {
            for (index, (one, other)) in one.iter().zip(other).enumerate() {
                compare(&format!("{place}[{index}]"), one, other, all);
            }
        }
        _ if expected == found => {}
        _ => all.push(format!("{place}: {}, expected {}", short(found), short(expected))),
    }
}

fn short(value: &Value) -> String {
    let text = value.to_string();
    if text.chars().count() > SHOWN {
        format!("{}…", text.chars().take(SHOWN).collect::<String>())
    } else {
        text
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn each_difference_is_reported_with_its_place() {
        let of = |value: Value| BTreeMap::from([("Service a/x".to_owned(), value)]);
        let found = of_objects(&of(json!({"a": [1, 2]})), &of(json!({"a": [1, 3], "b": 4})));
        assert_eq!(
            found,
            ["Service a/x.a[1]: 3, expected 2", "Service a/x.b: 4, expected null"]
        );
        assert_eq!(of_objects(&of(json!(1)), &BTreeMap::new()), ["Service a/x is missing"]);
        assert_eq!(
            of_objects(&BTreeMap::new(), &of(json!(1))),
            ["Service a/x is superfluous"]
        );
        assert_eq!(
            of_values(&json!({"a": [1]}), &json!({"a": [1, 2]})),
            [".a: [1,2], expected [1]"]
        );
        assert_eq!(of_values(&json!({"a": null}), &json!({})), [""; 0]);
    }
}
