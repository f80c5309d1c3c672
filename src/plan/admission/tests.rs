use serde_json::json;

use super::*;

fn operator(namespace: &str, name: &str) -> ServiceAccountRef {
    ServiceAccountRef {
        namespace: namespace.to_owned(),
        name: name.to_owned(),
    }
}

fn default_operator() -> ServiceAccountRef {
    operator("slipway-system", "slipway")
}

/// Returns the objects of an installation from the shipped files.
fn installed() -> Vec<Object> {
    SHIPPED.values().cloned().collect()
}

fn object<'a>(of: &'a mut [Object], kind: Kind, name: &str) -> &'a mut Object {
    of.iter_mut()
        .find(|object| object.kind == kind && object.name() == name)
        .expect("the object is shipped")
}

#[test]
fn the_built_in_files_are_the_installed_files() {
    let kustomization: Value =
        serde_saphyr::from_str(include_str!("../../../config/admission/kustomization.yaml")).expect("YAML");
    let built_in: Vec<&str> = FILES.iter().map(|(name, _)| *name).collect();
    assert_eq!(kustomization["resources"], json!(built_in));
    // The kustomization changes nothing in these files except for labels.
    let fields: Vec<&String> = kustomization.as_object().expect("fields").keys().collect();
    assert_eq!(fields, ["apiVersion", "kind", "resources"]);
}

#[test]
fn each_policy_has_a_binding_that_denies() {
    for policy in policies(&default_operator(), &installed()) {
        assert_eq!(policy.problems, Vec::<String>::new());
        let binding = &SHIPPED[&Key::new(Kind::ValidatingAdmissionPolicyBinding, "", policy.name)];
        assert_eq!(binding.at("/spec/policyName"), Some(&json!(policy.name)));
        assert_eq!(binding.at("/spec/validationActions"), Some(&json!(["Deny"])));
        let policy = &SHIPPED[&Key::new(Kind::ValidatingAdmissionPolicy, "", policy.name)];
        assert_eq!(policy.at("/spec/failurePolicy"), Some(&json!("Fail")));
    }
    assert_eq!(SHIPPED.len(), 2 * FILES.len());
}

#[test]
fn absent_objects_are_reported() {
    let problems = problems(&default_operator(), []);
    assert_eq!(problems.len(), 2 * FILES.len());
    assert!(problems.contains(&"ValidatingAdmissionPolicy slipway-marks does not exist".to_owned()));
    assert!(problems.contains(&"ValidatingAdmissionPolicyBinding slipway-content does not exist".to_owned()));
}

#[test]
fn differences_are_reported_by_field() {
    let policy = Kind::ValidatingAdmissionPolicy;
    let binding = Kind::ValidatingAdmissionPolicyBinding;
    let cases = [
        // An additional condition covers fewer cases.
        (
            policy,
            "slipway-content",
            "/spec/matchConditions",
            json!([]),
            "matchConditions",
        ),
        (
            policy,
            "slipway-marks",
            "/spec/failurePolicy",
            json!("Ignore"),
            "failurePolicy",
        ),
        (
            policy,
            "slipway-operator-objects",
            "/spec/matchConstraints/namespaceSelector",
            json!({"matchLabels": {"a": "b"}}),
            "matchConstraints",
        ),
        (
            binding,
            "slipway-marks",
            "/spec/validationActions",
            json!(["Audit"]),
            "validationActions",
        ),
    ];
    for (kind, name, pointer, value, field) in cases {
        let mut found = installed();
        let changed = object(&mut found, kind, name);
        let mut spec = Value::Object(changed.content.clone());
        *spec.pointer_mut(pointer).expect("a field") = value;
        changed.content = spec.as_object().cloned().expect("an object");
        assert_eq!(
            problems(&default_operator(), &found),
            [format!("{kind} {name} differs from the shipped object in spec.{field}")]
        );
    }
    // A field that the shipped object does not have.
    let mut found = installed();
    let spec = object(&mut found, binding, "slipway-content").content.get_mut("spec");
    spec.expect("a spec")["matchResources"] = json!({"namespaceSelector": {"matchLabels": {"a": "b"}}});
    let expected =
        "ValidatingAdmissionPolicyBinding slipway-content differs from the shipped object in spec.matchResources";
    assert_eq!(problems(&default_operator(), &found), [expected]);
}

#[test]
fn labels_and_status_do_not_matter() {
    let mut found = installed();
    for object in &mut found {
        object.annotate("example.com/theirs", "x".to_owned());
        object
            .content
            .insert("status".to_owned(), json!({"observedGeneration": 7}));
    }
    assert_eq!(problems(&default_operator(), &found), Vec::<String>::new());
}

#[test]
fn a_renamed_operator_needs_policies_that_name_it() {
    // Names that contain each other must not be confused.
    for (namespace, name) in [
        ("ingress", "contour-operator"),
        ("slipway", "slipway-system"),
        ("slipway-system", "other"),
    ] {
        let other = operator(namespace, name);
        let differing = problems(&other, &installed());
        // All policies except those that name no operator: slipway-cluster-wide-access and slipway-operator-access.
        assert_eq!(differing.len(), FILES.len() - 2, "{differing:?}");
        let mut found = installed();
        for object in &mut found {
            let text = serde_json::to_string(&object.content).expect("JSON");
            let marked = text
                .replace("'system:serviceaccount:slipway-system:slipway'", "\u{1}")
                .replace("'slipway-system'", "\u{2}")
                .replace("'slipway'", "\u{3}");
            let renamed = marked
                .replace('\u{1}', &format!("'system:serviceaccount:{namespace}:{name}'"))
                .replace('\u{2}', &format!("'{namespace}'"))
                .replace('\u{3}', &format!("'{name}'"));
            object.content = serde_json::from_str(&renamed).expect("JSON");
        }
        assert_eq!(problems(&other, &found), Vec::<String>::new());
        assert_eq!(problems(&default_operator(), &found).len(), FILES.len() - 2);
    }
}

#[test]
fn slipway_ignores_the_policies_of_others() {
    let named = |kind, name: &str| Object::from_json(kind, json!({"metadata": {"name": name}})).expect("an object");
    assert!(is_ours(&named(Kind::ValidatingAdmissionPolicy, "slipway-marks")));
    assert!(is_ours(&named(
        Kind::ValidatingAdmissionPolicyBinding,
        "slipway-content"
    )));
    assert!(!is_ours(&named(Kind::ValidatingAdmissionPolicy, "theirs")));
    assert!(!is_ours(&named(Kind::ClusterRoleBinding, "slipway-marks")));
}

/// Because of a defect of go-yaml, kustomize and other tools parse such a text with one more line break than YAML specifies. The installed
/// text would then differ from the shipped text.
#[test]
fn no_folded_text_has_lines_that_are_indented_further() {
    let indent = |line: &str| line.len() - line.trim_start().len();
    for (name, text) in FILES {
        let lines: Vec<&str> = text.lines().collect();
        for (number, line) in lines.iter().enumerate().filter(|(_, line)| line.ends_with(": >-")) {
            let start = line.len() - line.trim_start_matches([' ', '-']).len();
            let below = lines[number + 1..].iter().take_while(|below| indent(below) > start);
            let indents: BTreeSet<usize> = below.map(|below| indent(below)).collect();
            assert_eq!(
                indents.len(),
                1,
                "config/admission/{name}, line {}: write |-",
                number + 1
            );
        }
    }
}
