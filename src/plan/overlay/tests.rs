use proptest::prelude::{Just, ProptestConfig, Strategy, prop_assert, prop_assert_eq, prop_oneof, proptest};
use proptest::sample::select;
use serde_json::json;

use super::*;
use crate::contour::ports::Ports;
use crate::plan::operand::tests::observed;
use crate::plan::operand::{contour as contour_pods, envoy as envoy_pods, network};
use crate::plan::startup_inputs::StartupInputs;
use crate::plan::write::Desired;

/// Returns Contour's Deployment, Envoy's DaemonSet and Envoy's Service with this spec.
fn built(spec: &Value) -> [Overlaid<Desired>; 3] {
    let observed = observed(spec);
    let ports = Ports::of(observed.version(), &observed.deployment.spec.runtime_settings);
    let instance = observed.instance();
    [
        contour_pods::deployment(&instance, &StartupInputs::default()),
        envoy_pods::workload(&instance, &ports),
        network::envoy(&instance, &ports),
    ]
}

/// Returns the spec with an overlay, and the place of the object in [`built`].
fn with(field: &str, overlay: &Value) -> (Value, usize) {
    match field {
        CONTOUR => (json!({"contour": {"podTemplate": overlay}}), 0),
        ENVOY => (json!({"envoy": {"podTemplate": overlay}}), 1),
        SERVICE => (json!({"envoy": {"networkPublishing": {"service": overlay}}}), 2),
        other => panic!("{other}"),
    }
}

/// Returns the content of the object with the overlay, or the messages.
fn merge(field: &str, overlay: &Value) -> Result<Value, Vec<String>> {
    let (spec, place) = with(field, overlay);
    let [.., plain] = [0, 1, 2].map(|_| built(&json!({})));
    let Overlaid { object, problems } = built(&spec)[place].clone();
    if problems.is_empty() {
        return Ok(object.object.to_json());
    }
    assert_eq!(
        object.object.content, plain[place].object.object.content,
        "a violated overlay is left out"
    );
    Err(problems)
}

#[test]
fn a_users_parts_are_merged() {
    let overlay = json!({
        "metadata": {"labels": {"team": "edge"}, "annotations": {"kubectl.kubernetes.io/restartedAt": "now"}},
        "spec": {
            "priorityClassName": "system-cluster-critical",
            "imagePullSecrets": [{"name": "registry"}],
            "affinity": {"podAntiAffinity": {"preferredDuringSchedulingIgnoredDuringExecution": []}},
            "securityContext": {"fsGroup": 1},
            "volumes": [{"name": "logs", "emptyDir": {}}],
            "initContainers": [{"name": "bootstrap", "resources": {"limits": {"cpu": 1}}}, {"name": "wait", "image": "wait"}],
            "containers": [
                {"name": "logs", "image": "logs", "volumeMounts": [{"name": "logs", "mountPath": "/certs"}]},
                {"name": "envoy", "readinessProbe": {"periodSeconds": 9}, "volumeMounts": [{"name": "logs", "mountPath": "/logs"}]},
            ],
        },
    });
    let merged = merge(ENVOY, &overlay).expect("the overlay is valid");
    let template = &merged["spec"]["template"];
    assert_eq!(template["metadata"]["labels"]["team"], "edge");
    let spec = &template["spec"];
    assert_eq!(spec["priorityClassName"], "system-cluster-critical");
    let names = |list: &str| -> Vec<_> {
        let items = spec[list].as_array().expect("a list").iter();
        items
            .map(|item| item["name"].as_str().expect("a name").to_owned())
            .collect()
    };
    assert_eq!(names("initContainers"), ["bootstrap", "wait"]);
    assert_eq!(names("containers"), ["shutdown-manager", "envoy", "logs"]);
    assert_eq!(names("volumes"), ["certificates", "configuration", "admin", "logs"]);
    assert_eq!(spec["initContainers"][0]["resources"]["limits"]["cpu"], "1");
    let envoy = &spec["containers"][1];
    assert_eq!(envoy["readinessProbe"]["periodSeconds"], 9);
    assert_eq!(envoy["readinessProbe"]["httpGet"]["path"], "/ready");
    assert_eq!(envoy["volumeMounts"][3]["mountPath"], "/logs");
    assert_eq!(spec["securityContext"]["runAsNonRoot"], true);
}

#[test]
fn load_balancer_options_are_merged_into_the_service() {
    let overlay = json!({
        "metadata": {"annotations": {"a": "b"}, "labels": {"c": "d"}},
        "spec": {
            "loadBalancerClass": "service.k8s.aws/nlb", "loadBalancerSourceRanges": ["10.0.0.0/8"],
            "ports": [{"port": 80, "nodePort": 30080}, {"port": 9000, "name": "logs"}],
        },
    });
    let merged = merge(SERVICE, &overlay).expect("the overlay is valid");
    assert_eq!(merged["metadata"]["annotations"]["a"], "b");
    assert_eq!(merged["spec"]["loadBalancerClass"], "service.k8s.aws/nlb");
    let ports = &merged["spec"]["ports"];
    assert_eq!(
        (&ports[0]["nodePort"], &ports[0]["targetPort"]),
        (&json!(30080), &json!(8080))
    );
    assert_eq!((&ports[1]["port"], &ports[2]["port"]), (&json!(443), &json!(9000)));
}

#[test]
fn no_overlay_changes_nothing() {
    for field in [CONTOUR, ENVOY, SERVICE] {
        let (_, place) = with(field, &json!({}));
        let plain = built(&json!({}))[place].object.object.to_json();
        for overlay in [
            json!({}),
            json!({"spec": {}}),
            json!({"spec": null, "metadata": {"labels": null}}),
        ] {
            assert_eq!(merge(field, &overlay), Ok(plain.clone()), "{field} {overlay}");
        }
    }
}

/// Returns an overlay of one container.
fn container(name: &str, mut fields: Value) -> Value {
    fields["name"] = name.into();
    json!({"spec": {"containers": [fields]}})
}

/// An overlay, and a part of the message about its violation.
type Violation = (Value, &'static str);

/// Returns overlays that change Contour's container.
fn violations_of_containers() -> Vec<Violation> {
    vec![
        (
            container("contour", json!({"image": "other"})),
            r#".spec.containers[name="contour"].image: "#,
        ),
        (
            container("contour", json!({"args": ["serve"]})),
            r#".spec.containers[name="contour"].args: "#,
        ),
        (
            container("contour", json!({"command": ["sh"]})),
            r#".spec.containers[name="contour"].command: "#,
        ),
        (
            container(
                "contour",
                json!({"env": [{"name": "KUBERNETES_SERVICE_HOST", "value": "evil"}]}),
            ),
            "].env: ",
        ),
        (
            container("contour", json!({"envFrom": [{"configMapRef": {"name": "a"}}]})),
            "].envFrom: ",
        ),
        (
            container("contour", json!({"resources": {"limits": {"cpu": 1}}})),
            "spec.contour.resources sets",
        ),
        (
            container("contour", json!({"readinessProbe": {"exec": {"command": ["true"]}}})),
            "].readinessProbe.exec: ",
        ),
        (
            container("contour", json!({"livenessProbe": {"tcpSocket": {"port": 1}}})),
            "].livenessProbe.tcpSocket: ",
        ),
        (
            container("contour", json!({"lifecycle": {"preStop": {"sleep": {"seconds": 1}}}})),
            "].lifecycle: ",
        ),
        (
            container("contour", json!({"securityContext": {"privileged": true}})),
            "].securityContext: ",
        ),
        (
            container(
                "contour",
                json!({"ports": [{"containerPort": 8001, "protocol": "UDP"}]}),
            ),
            r#".ports[containerPort="8001"]: "#,
        ),
        (
            container(
                "contour",
                json!({"volumeMounts": [{"name": "x", "mountPath": "/certs/"}]}),
            ),
            r#".volumeMounts[mountPath="/certs/"]: the container needs its own files in /certs"#,
        ),
        (
            container(
                "contour",
                json!({"volumeMounts": [{"name": "x", "mountPath": "/certs"}]}),
            ),
            r#"[mountPath="/certs"]: "#,
        ),
    ]
}

/// Returns overlays that change the rest of Contour's pods.
fn violations_of_pods() -> Vec<Violation> {
    vec![
        (
            json!({"spec": {"volumes": [{"name": "certificates", "secret": {"secretName": "mine"}}]}}),
            r#".spec.volumes[name="certificates"]: "#,
        ),
        (
            json!({"spec": {"serviceAccountName": "admin"}}),
            ".spec.serviceAccountName: ",
        ),
        (json!({"spec": {"serviceAccount": "admin"}}), ".spec.serviceAccount: "),
        (
            json!({"spec": {"automountServiceAccountToken": false}}),
            ".spec.automountServiceAccountToken: ",
        ),
        (json!({"spec": {"hostPID": true}}), ".spec.hostPID: "),
        (json!({"spec": {"hostNetwork": true}}), ".spec.hostNetwork: "),
        (json!({"spec": {"restartPolicy": "Never"}}), ".spec.restartPolicy: "),
        (
            json!({"spec": {"securityContext": {"runAsUser": 0}}}),
            ".spec.securityContext.runAsUser: ",
        ),
        (
            json!({"spec": {"nodeSelector": {"a": "b"}}}),
            "spec.contour.nodePlacement sets",
        ),
    ]
}

/// Returns overlays that change Envoy's pods.
fn violations_of_envoys_pods() -> Vec<Violation> {
    vec![
        (
            container("envoy", json!({"terminationMessagePath": "/usr/local/bin/envoy"})),
            "].terminationMessagePath: ",
        ),
        (
            json!({"spec": {"tolerations": [{"operator": "Exists"}]}}),
            "spec.envoy.nodePlacement sets",
        ),
        (
            json!({"spec": {"shareProcessNamespace": true}}),
            ".spec.shareProcessNamespace: this field is refused: ",
        ),
        (
            json!({"spec": {"initContainers": [{"name": "bootstrap", "args": ["x"]}]}}),
            r#"[name="bootstrap"].args: "#,
        ),
        (
            container(
                "envoy",
                json!({"lifecycle": {"preStop": {"httpGet": {"path": "/", "port": 1}}}}),
            ),
            "].lifecycle: ",
        ),
        (
            container(
                "shutdown-manager",
                json!({"livenessProbe": {"httpGet": {"path": "/x", "port": 1}}}),
            ),
            "].livenessProbe.httpGet: ",
        ),
        (
            json!({"metadata": {"labels": {"app.kubernetes.io/component": "contour"}}}),
            r#".metadata.labels["app.kubernetes.io/component"]: "#,
        ),
        (
            json!({"metadata": {"annotations": {"contour.slipway.dev/startup-inputs": "{}"}}}),
            r#".metadata.annotations["contour.slipway.dev/startup-inputs"]: "#,
        ),
        (json!({"metadata": {"name": "x"}}), ".metadata.name: "),
    ]
}

/// Returns overlays that change the Service.
fn violations_of_services() -> Vec<Violation> {
    vec![
        (json!({"spec": {"selector": {"a": "b"}}}), ".spec.selector: "),
        (
            json!({"spec": {"type": "NodePort"}}),
            "spec.envoy.networkPublishing.type sets",
        ),
        (
            json!({"spec": {"externalIPs": ["1.2.3.4"]}}),
            ".spec.externalIPs: this field is refused: ",
        ),
        (
            json!({"spec": {"ports": [{"port": 443, "protocol": "UDP"}]}}),
            r#".spec.ports[port="443"].protocol: "#,
        ),
        (
            json!({"spec": {"ports": [{"port": 80, "targetPort": 1}]}}),
            r#".spec.ports[port="80"].targetPort: "#,
        ),
        (
            json!({"metadata": {"labels": {"contour.slipway.dev/role": "x"}}}),
            r#"["contour.slipway.dev/role"]: "#,
        ),
        (
            json!({"status": {"loadBalancer": {"ingress": [{"ip": "1.2.3.4"}]}}}),
            ".status: ",
        ),
    ]
}

#[test]
fn what_the_pods_need_is_refused_with_the_path_of_the_field() {
    for (field, violations) in [
        (CONTOUR, violations_of_containers()),
        (CONTOUR, violations_of_pods()),
        (ENVOY, violations_of_envoys_pods()),
        (SERVICE, violations_of_services()),
    ] {
        for (overlay, message) in violations {
            let problems = merge(field, &overlay).expect_err(&format!("{overlay}"));
            assert_eq!(problems.len(), 1, "{overlay}: {problems:?}");
            let is_named = problems[0].starts_with(field) && problems[0].contains(message);
            assert!(is_named, "{overlay}: {problems:?}");
        }
    }
}

#[test]
fn typos_and_wrong_types_are_refused_with_the_path_of_the_field() {
    let typo = |field: &str, overlay: &Value| merge(field, overlay).expect_err("a typo").join("; ");
    let message = typo(
        ENVOY,
        &json!({"spec": {"containers": [{"name": "a", "imagee": "x"}], "priorityClass": "x"}}),
    );
    assert!(
        message.contains("spec.envoy.podTemplate.spec.containers[0].imagee: this field does not exist"),
        "{message}"
    );
    assert!(
        message.contains("spec.envoy.podTemplate.spec.priorityClass: this field does not exist"),
        "{message}"
    );
    let message = typo(CONTOUR, &json!({"spec": {"priority": "high"}}));
    assert!(
        message.starts_with("spec.contour.podTemplate.spec.priority: invalid type"),
        "{message}"
    );
    let message = typo(SERVICE, &json!({"spec": {"loadBalancerSourceRanges": [null]}}));
    assert!(message.contains("loadBalancerSourceRanges"), "{message}");
    // The decoder reads these values in another form.
    assert!(
        merge(
            ENVOY,
            &container("logs", json!({"resources": {"limits": {"cpu": 1, "memory": "1Gi"}}}))
        )
        .is_ok()
    );
    assert!(merge(ENVOY, &container("logs", json!({"image": "x", "env": null}))).is_ok());
}

/// Returns fragments of overlays: keys and values that occur in pods and Services, at any place.
fn fragments() -> impl Strategy<Value = Value> {
    let texts = [
        "contour",
        "envoy",
        "bootstrap",
        "shutdown-manager",
        "certificates",
        "configuration",
        "admin",
        "/certs",
        "/",
        "/x",
        "x",
        "TCP",
        "UDP",
        "http",
        "Always",
        "contour.slipway.dev/template",
    ];
    let leaf = prop_oneof![
        select(texts.to_vec()).prop_map(Value::from),
        select(vec![0, 1, 80, 443, 8001, 8080, 8443]).prop_map(Value::from),
        Just(json!(true)),
        Just(Value::Null),
    ];
    leaf.prop_recursive(6, 40, 5, |inner| {
        let keys = vec![
            "metadata",
            "labels",
            "annotations",
            "spec",
            "containers",
            "initContainers",
            "volumes",
            "volumeMounts",
            "mountPath",
            "name",
            "image",
            "args",
            "command",
            "env",
            "ports",
            "containerPort",
            "port",
            "targetPort",
            "protocol",
            "securityContext",
            "runAsUser",
            "serviceAccountName",
            "hostNetwork",
            "selector",
            "type",
            "secret",
            "secretName",
            "readinessProbe",
            "httpGet",
            "periodSeconds",
            "lifecycle",
            "restartPolicy",
            "affinity",
            "emptyDir",
            "contour.slipway.dev/template",
        ];
        prop_oneof![
            proptest::collection::btree_map(select(keys).prop_map(str::to_owned), inner.clone(), 0..5)
                .prop_map(|fields| Value::Object(fields.into_iter().collect())),
            proptest::collection::vec(inner, 0..3).prop_map(Value::Array),
        ]
    })
}

/// Returns containers with valid fields, most of them with the name of a container of Slipway's.
fn containers() -> impl Strategy<Value = Value> {
    let fields = vec![
        ("image", json!("x")),
        ("args", json!(["serve"])),
        ("command", json!(["x"])),
        ("env", json!([{"name": "A", "value": "b"}])),
        ("envFrom", json!([{"secretRef": {"name": "a"}}])),
        ("imagePullPolicy", json!("Always")),
        ("lifecycle", json!({"postStart": {"exec": {"command": ["x"]}}})),
        ("ports", json!([{"containerPort": 7000}])),
        ("readinessProbe", json!({"periodSeconds": 9})),
        ("securityContext", json!({"privileged": true})),
        ("volumeMounts", json!([{"name": "x", "mountPath": "/x"}])),
        ("volumeMounts", json!([{"name": "x", "mountPath": "/certs"}])),
        ("workingDir", json!("/x")),
    ];
    let some = proptest::sample::subsequence(fields, 0..4);
    (select(vec!["contour", "envoy", "shutdown-manager", "x"]), some).prop_map(|(name, fields)| {
        let mut container = json!({"name": name});
        for (key, value) in fields {
            container[key] = value;
        }
        container
    })
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 256, failure_persistence: None, ..ProptestConfig::default() })]

    /// The protected parts are written here by hand, and not read from the rules.
    #[test]
    fn an_overlay_is_refused_or_leaves_what_the_pods_need(
        metadata in fragments(), container in containers(), spec in fragments(), field in select(vec![CONTOUR, ENVOY, SERVICE]),
    ) {
        let mut spec = if spec.is_object() { spec } else { json!({}) };
        if field != SERVICE {
            spec["containers"] = json!([container]);
        }
        let overlay = json!({"metadata": metadata, "spec": spec});
        let (_, place) = with(field, &overlay);
        let plain = built(&json!({}))[place].object.object.to_json();
        let Ok(merged) = merge(field, &overlay) else { return Ok(()) };
        if field == SERVICE {
            for pointer in ["/spec/selector", "/spec/type", "/spec/externalIPs", "/spec/ports/0/port", "/spec/ports/0/targetPort",
                "/spec/ports/1/protocol", "/spec/ports/1/targetPort"] {
                prop_assert_eq!(merged.pointer(pointer), plain.pointer(pointer), "{} {}", overlay, pointer);
            }
            return Ok(());
        }
        for pointer in ["serviceAccountName", "serviceAccount", "automountServiceAccountToken", "hostNetwork", "hostPID", "restartPolicy",
            "shareProcessNamespace", "securityContext/runAsUser"] {
            let pointer = format!("/spec/template/spec/{pointer}");
            prop_assert_eq!(merged.pointer(&pointer), plain.pointer(&pointer), "{} {}", overlay, pointer);
        }
        let (ours, theirs) = (&plain["spec"]["template"]["spec"], &merged["spec"]["template"]["spec"]);
        for list in ["containers", "initContainers", "volumes"] {
            for (index, ours) in ours[list].as_array().into_iter().flatten().enumerate() {
                let theirs = &theirs[list][index];
                for key in ["name", "image", "command", "args", "env", "envFrom", "lifecycle", "securityContext", "secret", "emptyDir"] {
                    prop_assert_eq!(&theirs[key], &ours[key], "{} {}[{}].{}", overlay, list, index, key);
                }
                for (nth, mount) in theirs["volumeMounts"].as_array().into_iter().flatten().enumerate() {
                    let is_ours = ours["volumeMounts"].get(nth) == Some(mount);
                    let path = mount["mountPath"].as_str().unwrap_or_default();
                    let hides = |own: &Value| own["mountPath"] == path;
                    let is_hidden = ours["volumeMounts"].as_array().is_some_and(|own| own.iter().any(hides));
                    prop_assert!(is_ours || !(is_hidden || ["", "/"].contains(&path)), "{} {}", overlay, path);
                }
            }
        }
        for (key, value) in plain["spec"]["template"]["metadata"]["labels"].as_object().expect("labels") {
            if !key.ends_with("/template") {
                prop_assert_eq!(&merged["spec"]["template"]["metadata"]["labels"][key], value, "{}", overlay);
            }
        }
        prop_assert_eq!(&merged["spec"]["selector"], &plain["spec"]["selector"]);
    }
}
