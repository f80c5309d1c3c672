use serde_json::{Value, json};

use super::*;

#[test]
fn quantities_are_compared_by_value_not_by_text() {
    let same = [
        ("1000m", "1"),
        ("0.5Gi", "512Mi"),
        ("1Mi", "1024Ki"),
        ("1Ki", "1024"),
        ("1Ti", "1024Gi"),
        ("1Pi", "1024Ti"),
        ("1Ei", "1024Pi"),
        ("1000n", "1u"),
        ("1000u", "1m"),
        ("1k", "1000"),
        ("1M", "1000k"),
        ("1G", "1000M"),
        ("1T", "1000G"),
        ("1P", "1000T"),
        ("1E", "1000P"),
        ("1e3", "1k"),
        ("x", "x"),
    ];
    for (one, other) in same {
        assert!(same_quantity(&json!(one), &json!(other)), "{one} {other}");
        assert!(same_quantity(&json!(other), &json!(one)), "{other} {one}");
    }
    let different = [
        ("1", "2"),
        ("1", "-1"),
        ("0", "1"),
        ("1", "1m"),
        ("1Gi", "1G"),
        ("1", "x"),
        ("x", "y"),
        ("1x", "1"),
    ];
    for (one, other) in different {
        assert!(!same_quantity(&json!(one), &json!(other)), "{one} {other}");
        assert!(!same_quantity(&json!(other), &json!(one)), "{other} {one}");
    }
    assert!(same_quantity(&json!(2), &json!("2")), "a number is also a quantity");
    for no_quantity in [Value::Null, json!(true), json!({}), json!(["1"])] {
        assert!(!same_quantity(&no_quantity, &no_quantity), "{no_quantity}");
        assert!(!same_quantity(&json!("1"), &no_quantity), "{no_quantity}");
    }
}

#[test]
fn an_empty_value_may_be_missing_but_other_values_may_not() {
    let holds = |desired: &Value| {
        let mut found = BTreeMap::new();
        let desired = desired.as_object().expect("an object");
        let live = json!({"there": 1});
        compare_fields("", desired, live.as_object().expect("an object"), &mut found);
        found.is_empty()
    };
    for empty in [Value::Null, json!([]), json!({}), json!("")] {
        assert!(holds(&json!({"a": empty})), "{empty}");
    }
    for value in [json!(0), json!(false), json!([0]), json!({"b": 0})] {
        assert!(!holds(&json!({"a": value})), "{value}");
    }
    assert!(holds(&json!({"readOnly": false, "hostPort": 0})));
    assert!(!holds(&json!({"readOnly": true})) && !holds(&json!({"hostPort": 1})));
    assert!(holds(&json!({"there": 1})) && !holds(&json!({"there": 2})));
}

fn value_holds(key: &str, desired: &Value, live: &Value) -> bool {
    let mut found = BTreeMap::new();
    compare_values("path", key, desired, live, &mut found);
    found.is_empty()
}

#[test]
fn only_fields_with_a_quantity_are_compared_by_amount() {
    for field in ["sizeLimit", "divisor"] {
        assert!(
            value_holds(field, &json!("1024Mi"), &json!("1Gi")) && !value_holds(field, &json!("1Gi"), &json!("2Gi"))
        );
    }
    assert!(!value_holds("value", &json!("1024Mi"), &json!("1Gi")));
}

#[test]
fn only_merged_lists_may_have_additional_items() {
    let holds = |key: &str, desired: Value, live: Value| value_holds(key, &desired, &live);
    let (a, b) = (json!({"name": "a", "x": 1}), json!({"name": "b"}));
    assert!(holds("containers", json!([a]), json!([b, a])));
    assert!(!holds("containers", json!([a]), json!([b, {"name": "a", "x": 2}])));
    assert!(!holds("containers", json!([a, b]), json!([a])));
    // A subject has a name, but server-side apply treats the list as one value.
    assert!(!holds("subjects", json!([a]), json!([a, b])) && holds("subjects", json!([a]), json!([a])));
    // One item lacks the key that distinguishes the other items.
    assert!(!holds("list", json!([a, {"x": 1}]), json!([a, {"x": 1}, b])));
    assert!(holds("args", json!(["a", "b"]), json!(["a", "b"])));
    for other in [json!(["b", "a"]), json!(["a"]), json!(["a", "b", "c"]), json!([])] {
        assert!(!holds("args", json!(["a", "b"]), other.clone()), "{other}");
    }
    let mounts = json!([{"name": "v", "mountPath": "/a"}, {"name": "v", "mountPath": "/b"}]);
    assert!(holds("volumeMounts", mounts.clone(), json!([mounts[1], mounts[0]])));
}

#[test]
fn only_resource_amounts_are_compared_as_quantities() {
    let holds = |key: &str| value_holds(key, &json!({"cpu": "1000m"}), &json!({"cpu": "1"}));
    assert!(holds("requests") && holds("limits") && !holds("data"));
    assert!(!value_holds("limits", &json!({"cpu": "1"}), &json!({"memory": "1"})));
}

#[test]
fn decisive_fields_must_have_slipways_value() {
    use Kind::{ContourConfiguration, Deployment, ExtensionService, RoleBinding, Secret, Service, ServiceAccount};
    // For each field: whether it must have Slipway's value where Slipway sets the field, and where another user adds the field.
    let table = [
        (ServiceAccount, "metadata.finalizers", true, true),
        (ServiceAccount, "metadata.ownerReferences[0].uid", true, true),
        (ServiceAccount, "metadata.labels[contour.slipway.dev/role]", true, true),
        (ServiceAccount, "metadata.labels[team]", false, false),
        (ServiceAccount, "metadata.finalizersX", false, false),
        (ExtensionService, "spec.services[0].name", true, true),
        (ExtensionService, "spec.validation", true, true),
        (ExtensionService, "spec.timeoutPolicy.response", true, true),
        (ExtensionService, "spec.protocol", true, true),
        (ExtensionService, "spec.circuitBreakerPolicy", true, false),
        (
            ExtensionService,
            "metadata.annotations[contour.slipway.dev/persisted-state]",
            true,
            false,
        ),
        (ExtensionService, "metadata.annotations[a]", false, false),
        (ContourConfiguration, "spec.globalExtAuth.authPolicy", true, true),
        (ContourConfiguration, "spec.rateLimitService.failOpen", true, true),
        (ContourConfiguration, "spec.tracing", true, true),
        (ContourConfiguration, "spec.gateway", true, false),
        (Service, "spec.selector", true, true),
        (Service, "spec.externalName", true, true),
        (Service, "spec.type", true, true),
        (Service, "spec.ports[0].port", true, true),
        (Service, "spec.sessionAffinity", false, false),
        (Deployment, "spec.selector", true, true),
        (Deployment, "spec.template.metadata.labels[app]", true, true),
        (Deployment, "spec.template.spec.serviceAccountName", true, true),
        (Deployment, "spec.template.spec.volumes[0]", true, true),
        (Deployment, "spec.template.spec.containers[contour].args", true, true),
        (Deployment, "spec.template.spec.containers[contour].image", false, false),
        (Deployment, "spec.template.spec.tolerations", false, false),
        (RoleBinding, "subjects[0].name", true, true),
        (RoleBinding, "roleRef", true, true),
        (Secret, "data", true, true),
        (Secret, "immutable", false, false),
    ];
    for (kind, field, where_set, where_added) in table {
        let key = Key::new(kind, "projectcontour", "edge");
        for (is_added, expected) in [(false, where_set), (true, where_added)] {
            let found = must_be_ours(&key, field, is_added);
            assert_eq!(found, expected, "{kind} {field}, added: {is_added}");
        }
    }
}
