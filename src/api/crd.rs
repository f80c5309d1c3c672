//! The CRD, as it is installed: what the derive makes, and the few things that it can't express.

use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use kube::CustomResourceExt;
use serde_json::{Value, json};

use super::ContourDeployment;

/// The CustomResourceDefinition of ContourDeployment.
pub fn crd() -> CustomResourceDefinition {
    let mut crd = serde_json::to_value(ContourDeployment::crd()).expect("a CRD is JSON");
    let schema = &mut crd["spec"]["versions"][0]["schema"]["openAPIV3Schema"];
    clean(schema);

    // kstatus and Argo CD take an object without status for a finished one: "not seen yet" must never look like "current".
    schema["properties"]["status"]["default"] = json!({"observedGeneration": -1});
    let conditions = &mut schema["properties"]["status"]["properties"]["conditions"];
    conditions["x-kubernetes-list-type"] = json!("map");
    conditions["x-kubernetes-list-map-keys"] = json!(["type"]);
    let extension_services = &mut schema["properties"]["status"]["properties"]["extensionServices"];
    extension_services["x-kubernetes-list-type"] = json!("map");
    extension_services["x-kubernetes-list-map-keys"] = json!(["role"]);

    // Fields that CEL must see to be able to refuse them, in a schema that lets everything else through.
    let settings = &mut schema["properties"]["spec"]["properties"]["runtimeSettings"];
    let refused =
        |why: &str| json!({"type": "object", "x-kubernetes-preserve-unknown-fields": true, "description": why});
    settings["x-kubernetes-preserve-unknown-fields"] = json!(true);
    settings["properties"]["xdsServer"] = refused("Set by Slipway; refused here.");
    settings["properties"]["gateway"] = refused("Not supported by this version of Slipway; refused here.");
    settings["properties"]["envoy"] = json!({
        "type": "object",
        "x-kubernetes-preserve-unknown-fields": true,
        "description": "Contour's settings for Envoy (ContourConfiguration: spec.envoy), without `service`.",
        "properties": {"service": refused("Set by Slipway; refused here.")},
    });
    serde_json::from_value(crd).expect("still a CRD")
}

/// Takes away what Kubernetes can't take: `additionalProperties: true` makes the kube-controller-manager of 1.34 panic as soon as an
/// admission policy matches the kind (kubernetes/kubernetes#135145).
fn clean(schema: &mut Value) {
    // No schema of ours is in a list.
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
    fn no_schema_takes_any_additional_property_or_has_a_format_that_the_api_server_would_warn_of() {
        let crd = serde_json::to_value(super::crd()).expect("a CRD is JSON");
        let [mut properties, mut formats] = [vec![], vec![]];
        find(&crd, "additionalProperties", &mut properties);
        assert!(
            !properties.is_empty() && !properties.contains(&Value::Bool(true)),
            "{properties:?}"
        );
        find(&crd, "format", &mut formats);
        assert!(!formats.is_empty(), "there are some");
        for format in formats {
            assert!(
                ["int32", "int64", "date-time"].map(Value::from).contains(&format),
                "{format}"
            );
        }
    }
}
