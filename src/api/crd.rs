//! The CRD as it is installed: the output of the derive macro, with the changes that the macro can't express.

use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use kube::CustomResourceExt;
use serde_json::{Value, json};

use super::ContourDeployment;

/// Returns the CustomResourceDefinition of ContourDeployment.
pub fn crd() -> CustomResourceDefinition {
    let mut crd = serde_json::to_value(ContourDeployment::crd()).expect("a CRD is JSON");
    let schema = &mut crd["spec"]["versions"][0]["schema"]["openAPIV3Schema"];
    clean(schema);

    // kstatus and Argo CD consider an object without status as current. The default marks a new object as not yet observed.
    schema["properties"]["status"]["default"] = json!({"observedGeneration": -1});
    let conditions = &mut schema["properties"]["status"]["properties"]["conditions"];
    conditions["x-kubernetes-list-type"] = json!("map");
    conditions["x-kubernetes-list-map-keys"] = json!(["type"]);
    let extension_services = &mut schema["properties"]["status"]["properties"]["extensionServices"];
    extension_services["x-kubernetes-list-type"] = json!("map");
    extension_services["x-kubernetes-list-map-keys"] = json!(["role"]);

    // CEL rules can refuse only fields that the schema declares. The schema accepts all other fields.
    let settings = &mut schema["properties"]["spec"]["properties"]["runtimeSettings"];
    let refused =
        |why: &str| json!({"type": "object", "x-kubernetes-preserve-unknown-fields": true, "description": why});
    settings["x-kubernetes-preserve-unknown-fields"] = json!(true);
    settings["properties"]["xdsServer"] = refused("Slipway sets this field itself. The API server refuses it here.");
    settings["properties"]["gateway"] =
        refused("Slipway does not support the Gateway API yet. The API server refuses this field.");
    settings["properties"]["envoy"] = json!({
        "type": "object",
        "x-kubernetes-preserve-unknown-fields": true,
        "description": "Contour's settings for Envoy (`spec.envoy` of a ContourConfiguration), except `service`. Optional.",
        "properties": {"service": refused("Slipway sets this field itself. The API server refuses it here.")},
    });
    serde_json::from_value(crd).expect("still a CRD")
}

/// Replaces `additionalProperties: true` in a schema by `x-kubernetes-preserve-unknown-fields`. With `additionalProperties: true` the
/// kube-controller-manager of Kubernetes 1.34 panics when an admission policy matches the kind (kubernetes/kubernetes#135145).
fn clean(schema: &mut Value) {
    // The CRD has no schemas in arrays, so arrays are skipped.
    let Value::Object(fields) = schema else { return };
    if fields.get("additionalProperties") == Some(&Value::Bool(true)) {
        fields.remove("additionalProperties");
        fields.insert("x-kubernetes-preserve-unknown-fields".to_owned(), Value::Bool(true));
    }
    fields.values_mut().for_each(clean);
}

#[cfg(test)]
mod tests {
    use serde_json::Value;

    fn find(value: &Value, key: &str, found: &mut Vec<Value>) {
        match value {
            Value::Object(fields) => {
                found.extend(fields.get(key).cloned());
                fields.values().for_each(|value| find(value, key, found));
            }
            Value::Array(items) => items.iter().for_each(|value| find(value, key, found)),
            _ => {}
        }
    }

    #[test]
    fn crd_has_no_open_properties_and_no_unknown_formats() {
        let crd = serde_json::to_value(super::crd()).expect("a CRD is JSON");
        let [mut properties, mut formats] = [vec![], vec![]];
        find(&crd, "additionalProperties", &mut properties);
        assert!(
            !properties.is_empty() && !properties.contains(&Value::Bool(true)),
            "{properties:?}"
        );
        find(&crd, "format", &mut formats);
        assert!(!formats.is_empty(), "the CRD has formats");
        for format in formats {
            assert!(
                ["int32", "int64", "date-time"].map(Value::from).contains(&format),
                "{format}"
            );
        }
    }
}
