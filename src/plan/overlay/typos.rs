//! Reads an overlay as a typed object. The decoder drops unknown fields, so the result is compared with the overlay.

use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::{Map, Value};

/// The version of the Kubernetes API whose fields are known (the feature of `k8s-openapi` in `Cargo.toml`).
const KUBERNETES: &str = "1.34";

/// Returns the overlay as a partial object, or one message for each value that a Kubernetes object of this type does not have.
pub fn read<T: DeserializeOwned + Serialize>(overlay: &Map<String, Value>, field: &str) -> Result<T, Vec<String>> {
    let partial: T = serde_path_to_error::deserialize(Value::Object(overlay.clone())).map_err(|error| {
        let path = error.path().to_string();
        vec![format!("{field}.{path}: {}", error.inner())]
    })?;
    let read = serde_json::to_value(&partial).expect("an object is JSON");
    let mut problems = Vec::new();
    for (key, value) in overlay {
        compare(value, read.get(key), &format!("{field}.{key}"), &mut problems);
    }
    if problems.is_empty() {
        Ok(partial)
    } else {
        Err(problems)
    }
}

/// Adds a message for each field of `written` that is missing in `read`. Values are not compared: the decoder reads `cpu: 1` as `"1"`. A null
/// counts as an absent field.
fn compare(written: &Value, read: Option<&Value>, path: &str, problems: &mut Vec<String>) {
    match (written, read) {
        (Value::Null, _) => {}
        (_, None) => problems.push(format!(
            "{path}: this field does not exist in Kubernetes {KUBERNETES}; if it is no typo, it is newer than this version of Slipway"
        )),
        (Value::Object(written), Some(Value::Object(read))) => {
            for (key, value) in written {
                compare(value, read.get(key), &format!("{path}.{key}"), problems);
            }
        }
        (Value::Array(written), Some(Value::Array(read))) => {
            for (index, value) in written.iter().enumerate() {
                let path = format!("{path}[{index}]");
                if value.is_null() {
                    problems.push(format!("{path}: an item of a list must not be null"));
                } else {
                    compare(value, read.get(index), &path, problems);
                }
            }
        }
        _ => {}
    }
}
