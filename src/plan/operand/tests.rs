use std::collections::BTreeMap;

use serde_json::{Value, json};

use super::{access, contour, envoy, network};
use crate::api::ContourDeployment;
use crate::api::vocabulary::{annotations, labels};
use crate::contour::ports::Ports;
use crate::contour::version::Version;
use crate::plan::observe::{Environment, Snapshot};
use crate::plan::observed::Observed;
use crate::plan::startup_inputs::StartupInputs;
use crate::plan::write::{Desired, Fields};

/// Returns the ContourDeployment projectcontour/edge with this spec, and no other objects.
pub fn observed(spec: &Value) -> Observed {
    let deployment: ContourDeployment = serde_json::from_value(json!({
        "apiVersion": "contour.slipway.dev/v1alpha1",
        "kind": "ContourDeployment",
        "metadata": {"name": "edge", "namespace": "projectcontour", "uid": "u-edge", "generation": 1},
        "spec": spec,
    }))
    .expect("a ContourDeployment");
    let mut nothing = Snapshot {
        objects: &BTreeMap::new(),
        unchanged_since: &BTreeMap::new(),
        environment: Environment::at("2026-11-23T01:20:00Z".parse().expect("a time")),
    };
    Observed::of(&mut nothing, deployment)
}

fn inputs() -> StartupInputs {
    StartupInputs {
        configuration: "edge-abc".into(),
        stand_ins: vec!["auth/edge-ext-auth-def".into()],
        ..StartupInputs::default()
    }
}

fn on_the_settings_of(observed: &Observed) -> StartupInputs {
    let settings = serde_json::to_value(&observed.deployment.spec.runtime_settings).expect("settings are JSON");
    StartupInputs {
        spec: settings.as_object().expect("settings are an object").clone(),
        ..inputs()
    }
}

fn contour_of(spec: &Value) -> Desired {
    let observed = observed(spec);
    contour::deployment(&observed.instance(), &on_the_settings_of(&observed)).object
}

fn envoy_of(spec: &Value) -> Desired {
    let observed = observed(spec);
    envoy::workload(
        &observed.instance(),
        &Ports::of(observed.version(), &observed.deployment.spec.runtime_settings),
    )
    .object
}

fn envoy_service_of(spec: &Value) -> Desired {
    let observed = observed(spec);
    network::envoy(
        &observed.instance(),
        &Ports::of(observed.version(), &observed.deployment.spec.runtime_settings),
    )
    .object
}

fn at<'a>(desired: &'a Desired, pointer: &str) -> &'a Value {
    desired.object.at(pointer).unwrap_or(&Value::Null)
}

/// Returns every container of a workload, init containers included.
fn containers(desired: &Desired) -> Vec<&Value> {
    let lists = ["/spec/template/spec/initContainers", "/spec/template/spec/containers"];
    lists
        .into_iter()
        .filter_map(|list| at(desired, list).as_array())
        .flatten()
        .collect()
}

fn workloads() -> [Desired; 3] {
    let empty = json!({});
    [
        contour_of(&empty),
        envoy_of(&empty),
        envoy_of(&json!({"envoy": {"workloadType": "Deployment"}})),
    ]
}

#[test]
fn every_pod_meets_the_restricted_pod_security_standard() {
    for workload in workloads() {
        let pod = at(&workload, "/spec/template/spec/securityContext");
        assert_eq!(pod["runAsNonRoot"], true);
        assert_eq!(pod["seccompProfile"]["type"], "RuntimeDefault");
        assert!(pod["runAsUser"].as_i64().is_some_and(|user| user > 0));
        for container in containers(&workload) {
            let security = &container["securityContext"];
            assert_eq!(security["allowPrivilegeEscalation"], false);
            assert_eq!(security["capabilities"], json!({"drop": ["ALL"]}));
            assert_eq!(security["readOnlyRootFilesystem"], true);
        }
    }
}

#[test]
fn every_mount_has_its_volume_and_ports_are_unique() {
    for workload in workloads() {
        let volumes = at(&workload, "/spec/template/spec/volumes").as_array().unwrap();
        for container in containers(&workload) {
            for mount in container["volumeMounts"].as_array().unwrap() {
                assert!(volumes.iter().any(|volume| volume["name"] == mount["name"]), "{mount}");
            }
            let ports = container["ports"]
                .as_array()
                .into_iter()
                .flatten()
                .map(|port| port["containerPort"].as_i64());
            let ports: Vec<_> = ports.collect();
            assert_eq!(
                ports.iter().collect::<std::collections::BTreeSet<_>>().len(),
                ports.len()
            );
        }
    }
}

#[test]
fn workloads_and_services_select_their_own_pods_only() {
    let [contour, daemon_set, deployment] = workloads();
    for (workload, component) in [(&contour, "contour"), (&daemon_set, "envoy"), (&deployment, "envoy")] {
        let selector = at(workload, "/spec/selector/matchLabels").as_object().unwrap();
        let pods = at(workload, "/spec/template/metadata/labels");
        assert_eq!(selector.len(), 3);
        assert_eq!(pods[labels::EXCLUDED_FROM_BACKUP], "true");
        assert!(selector.iter().all(|(key, value)| pods.get(key) == Some(value)));
        assert_eq!(pods[labels::COMPONENT], component);
    }
    let empty = observed(&json!({}));
    let instance = empty.instance();
    let services = [
        network::contour(&instance),
        network::envoy(
            &instance,
            &Ports::of(empty.version(), &empty.deployment.spec.runtime_settings),
        )
        .object,
    ];
    assert_eq!(
        at(&services[0], "/spec/selector"),
        at(&contour, "/spec/selector/matchLabels")
    );
    assert_eq!(
        at(&services[1], "/spec/selector"),
        at(&daemon_set, "/spec/selector/matchLabels")
    );
}

#[test]
fn contours_pod_template_contains_the_startup_inputs() {
    let contour = contour_of(&json!({}));
    let annotation = &at(&contour, "/spec/template/metadata/annotations")[annotations::STARTUP_INPUTS];
    assert_eq!(
        serde_json::from_str::<StartupInputs>(annotation.as_str().unwrap()).unwrap(),
        inputs()
    );
    let arguments = &containers(&contour)[0]["args"];
    assert_eq!(
        *arguments,
        json!([
            "serve",
            "--incluster",
            "--contour-config-name=edge-abc",
            "--leader-election-resource-name=edge-contour"
        ])
    );
}

#[test]
fn the_template_hash_changes_only_with_the_pods() {
    let hash = |spec: &Value| {
        let observed = observed(spec);
        let hash = contour::template_hash(&observed.instance(), &on_the_settings_of(&observed));
        assert_eq!(
            at(&contour_of(spec), "/spec/template/metadata/labels")[labels::TEMPLATE],
            hash
        );
        hash
    };
    let first = hash(&json!({}));
    for same in [
        json!({"contour": {"deployment": {"replicas": 5, "minReadySeconds": 5, "strategy": {"type": "Recreate"}}}}),
        json!({"envoy": {"extraArgs": ["--concurrency=1"], "baseID": 1, "shutdown": {"drainDelay": "1s"}}}),
        json!({"envoy": {"logLevel": "debug"}}),
    ] {
        assert_eq!(hash(&same), first, "{same}");
    }
    for other in [
        json!({"contour": {"image": "contour:other"}}),
        json!({"contour": {"logLevel": "debug"}}),
        json!({"contour": {"kubernetesLogLevel": 4}}),
        json!({"contour": {"logFormat": "json"}}),
        json!({"contour": {"kubernetesClient": {"qps": 50}}}),
        json!({"contour": {"leaderElection": {"leaseDuration": "30s"}}}),
        json!({"contour": {"podTemplate": {"spec": {"priorityClassName": "system-cluster-critical"}}}}),
        json!({"contour": {"resources": {"requests": {"cpu": "1"}}}}),
        json!({"contour": {"nodePlacement": {"nodeSelector": {"a": "b"}}}}),
        json!({"contour": {"nodePlacement": {"tolerations": [{"operator": "Exists"}]}}}),
        json!({"runtimeSettings": {"health": {"port": 8100}}}),
    ] {
        assert_ne!(hash(&other), first, "{other}");
    }
    let observed = observed(&json!({}));
    let other = StartupInputs {
        configuration: "edge-xyz".into(),
        ..on_the_settings_of(&observed)
    };
    assert_ne!(contour::template_hash(&observed.instance(), &other), first);
}

#[test]
fn slipway_owns_replicas_only_if_the_spec_sets_them() {
    let initial: Fields = Fields::Shared {
        initial: &["/spec/replicas"],
    };
    let owned: Fields = Fields::Shared { initial: &[] };
    let three = json!({"deployment": {"replicas": 3}});
    let table = [
        (contour_of(&json!({})), 2, initial),
        (contour_of(&json!({"contour": three})), 3, owned),
        (envoy_of(&json!({"envoy": {"workloadType": "Deployment"}})), 2, initial),
        (
            envoy_of(&json!({"envoy": {"workloadType": "Deployment", "deployment": {"replicas": 3}}})),
            3,
            owned,
        ),
    ];
    for (workload, replicas, fields) in table {
        assert_eq!(at(&workload, "/spec/replicas"), replicas);
        assert_eq!(workload.fields, fields);
    }
}

#[test]
fn no_liveness_probe_depends_on_the_api_server() {
    let contour = contour_of(&json!({"runtimeSettings": {"health": {"port": 8100}}}));
    let container = containers(&contour)[0];
    assert_eq!(container["livenessProbe"]["tcpSocket"]["port"], 8100);
    assert_eq!(container["startupProbe"]["tcpSocket"]["port"], 8100);
    assert_eq!(container["readinessProbe"]["tcpSocket"]["port"], 8001);
    assert!(
        container["ports"]
            .as_array()
            .unwrap()
            .iter()
            .any(|port| port["name"] == "health" && port["containerPort"] == 8100)
    );
}

#[test]
fn envoy_finds_contour_by_its_service() {
    let daemon_set =
        envoy_of(&json!({"envoy": {"logLevel": "warn"}, "runtimeSettings": {"envoy": {"health": {"port": 8102}}}}));
    let containers = containers(&daemon_set);
    let arguments = containers[0]["args"].as_array().unwrap();
    assert!(arguments.contains(&json!("--xds-address=edge-contour")));
    assert_eq!(containers[2]["readinessProbe"]["httpGet"]["port"], 8102);
    assert!(
        containers[2]["args"]
            .as_array()
            .unwrap()
            .ends_with(&[json!("--log-level"), json!("warn")])
    );
    assert_eq!(
        at(&daemon_set, "/spec/template/spec/automountServiceAccountToken"),
        false
    );
}

#[test]
fn the_spec_sets_the_images_of_contour_and_envoy() {
    let spec = json!({"contour": {"image": "c"}, "envoy": {"image": "e"}});
    let images = |workload: &Desired| -> Vec<String> {
        containers(workload)
            .into_iter()
            .map(|container| container["image"].as_str().unwrap().to_owned())
            .collect()
    };
    assert_eq!(images(&contour_of(&spec)), ["c"]);
    assert_eq!(images(&envoy_of(&spec)), ["c", "c", "e"]);
    let facts = Version::DEFAULT.facts();
    assert_eq!(
        images(&envoy_of(&json!({}))),
        [facts.contour_image, facts.contour_image, facts.envoy_image]
    );
}

#[test]
fn the_spec_places_the_pods() {
    let placement = json!({"nodeSelector": {"disk": "ssd"}, "tolerations": [{"key": "edge", "operator": "Exists"}]});
    let spec = json!({"contour": {"nodePlacement": placement}, "envoy": {"nodePlacement": placement}});
    for (workload, anywhere) in [
        (contour_of(&spec), contour_of(&json!({}))),
        (envoy_of(&spec), envoy_of(&json!({}))),
    ] {
        let field = |workload: &Desired, field: &str| at(workload, &format!("/spec/template/spec/{field}")).clone();
        let name = workload.object.name();
        assert_eq!(field(&workload, "tolerations"), placement["tolerations"], "{name}");
        assert_eq!(field(&anywhere, "tolerations"), Value::Null, "{name}");
        let (linux, both) = (
            json!({"kubernetes.io/os": "linux"}),
            json!({"kubernetes.io/os": "linux", "disk": "ssd"}),
        );
        assert_eq!(field(&workload, "nodeSelector"), both, "{name}");
        assert_eq!(field(&anywhere, "nodeSelector"), linux, "{name}");
        let other = json!({"nodePlacement": {"nodeSelector": {"kubernetes.io/os": "windows"}}});
        let other = json!({"contour": other, "envoy": other});
        for workload in [contour_of(&other), envoy_of(&other)] {
            assert_eq!(field(&workload, "nodeSelector"), json!({"kubernetes.io/os": "windows"}));
        }
    }
}

#[test]
fn the_kubernetes_log_level_sets_a_flag_of_contour() {
    for (level, flag) in [
        (json!(null), None),
        (json!(0), None),
        (json!(3), Some("--kubernetes-debug=3")),
    ] {
        let workload = contour_of(&json!({"contour": {"kubernetesLogLevel": level}}));
        let arguments = containers(&workload)[0]["args"].as_array().expect("arguments").clone();
        let found = arguments
            .iter()
            .filter_map(Value::as_str)
            .find(|text| text.contains("kubernetes"));
        assert_eq!(found, flag, "{level}");
    }
}

#[test]
fn the_envoy_service_is_published_as_specified() {
    let publishing = |fields: Value| envoy_service_of(&json!({"envoy": {"networkPublishing": fields}}));
    let table = [
        (json!({}), json!(["LoadBalancer", "Local", "SingleStack"])),
        (
            json!({"type": "NodePortService", "externalTrafficPolicy": "Cluster"}),
            json!(["NodePort", "Cluster", "SingleStack"]),
        ),
        (
            json!({"type": "ClusterIPService", "externalTrafficPolicy": "Local", "ipFamilyPolicy": "PreferDualStack"}),
            json!(["ClusterIP", null, "PreferDualStack"]),
        ),
    ];
    for (fields, expected) in table {
        let service = publishing(fields);
        let seen =
            ["/spec/type", "/spec/externalTrafficPolicy", "/spec/ipFamilyPolicy"].map(|pointer| at(&service, pointer));
        assert_eq!(json!(seen), expected);
    }
    let annotated = publishing(json!({"serviceAnnotations": {"a": "b"}}));
    assert_eq!(annotated.object.annotation("a"), Some("b"));
    let service = envoy_service_of(&json!({"runtimeSettings": {"envoy": {"http": {"port": 9080}}}}));
    let ports = at(&service, "/spec/ports");
    assert_eq!(
        json!([ports[0]["port"], ports[0]["targetPort"], ports[1]["targetPort"]]),
        json!([80, 9080, 8443])
    );
}

#[test]
fn bindings_name_preinstalled_roles_and_one_account_each() {
    let observed = observed(&json!({}));
    let all: Vec<Desired> = access::operator(&observed.instance())
        .into_iter()
        .chain(access::contour(&observed.instance()))
        .collect();
    let bindings: Vec<_> = all
        .iter()
        .filter(|desired| desired.object.content.contains_key("roleRef"))
        .map(|desired| {
            let subject = &at(desired, "/subjects")[0];
            let account = format!(
                "{}/{}",
                subject["namespace"].as_str().unwrap(),
                subject["name"].as_str().unwrap()
            );
            (
                desired.object.key().to_string(),
                at(desired, "/roleRef/name").as_str().unwrap().to_owned(),
                account,
            )
        })
        .collect();
    let row = |key: &str, role: &str, account: &str| (key.to_owned(), role.to_owned(), account.to_owned());
    assert_eq!(
        bindings,
        [
            row(
                "RoleBinding projectcontour/edge-slipway-operand",
                "slipway-operand",
                "slipway-system/slipway"
            ),
            row(
                "RoleBinding projectcontour/edge-slipway-secrets",
                "slipway-secrets",
                "slipway-system/slipway"
            ),
            row(
                "ClusterRoleBinding slipway:projectcontour:edge:contour",
                "slipway-contour",
                "projectcontour/edge-contour"
            ),
            row(
                "RoleBinding projectcontour/edge-contour",
                "slipway-contour-local",
                "projectcontour/edge-contour"
            ),
        ]
    );
    let lease = all.last().unwrap();
    assert_eq!(
        (lease.object.key().to_string().as_str(), lease.fields),
        ("Lease projectcontour/edge-contour", Fields::MetadataOnly)
    );
}

#[test]
fn settings_of_the_workloads_become_fields_and_arguments() {
    let contour = contour_of(&json!({"contour": {
        "deployment": {"strategy": {"type": "Recreate"}, "minReadySeconds": 5},
        "logFormat": "json", "kubernetesClient": {"qps": 50, "burst": 100},
        "leaderElection": {"leaseDuration": "60s", "renewDeadline": "40s", "retryPeriod": "5s"},
    }}));
    assert_eq!(at(&contour, "/spec/strategy"), &json!({"type": "Recreate"}));
    assert_eq!(at(&contour, "/spec/minReadySeconds"), 5);
    let arguments = at(&contour, "/spec/template/spec/containers/0/args")
        .as_array()
        .expect("arguments");
    assert_eq!(
        arguments[4..],
        [
            "--log-format=json",
            "--kubernetes-client-qps=50",
            "--kubernetes-client-burst=100",
            "--leader-election-lease-duration=60s",
            "--leader-election-renew-deadline=40s",
            "--leader-election-retry-period=5s",
        ]
    );
    let daemon_set = envoy_of(&json!({"envoy": {
        "daemonSet": {"updateStrategy": {"type": "OnDelete"}, "minReadySeconds": 7},
        "baseID": 3, "overloadMaxHeapSize": 2_000_000_000, "overloadMaxDownstreamConnections": 5000,
        "extraArgs": ["--concurrency=2"],
        "shutdown": {
            "drainDelay": "5s", "checkDelay": "10s", "checkInterval": "1s", "minOpenConnections": 2, "gracePeriodSeconds": 60,
        },
    }}));
    assert_eq!(at(&daemon_set, "/spec/updateStrategy"), &json!({"type": "OnDelete"}));
    assert_eq!(at(&daemon_set, "/spec/minReadySeconds"), 7);
    let pod = at(&daemon_set, "/spec/template/spec");
    assert_eq!(pod["terminationGracePeriodSeconds"], 60);
    let [bootstrap, shutdown, envoy] = [
        &pod["initContainers"][0]["args"],
        &pod["containers"][0]["lifecycle"]["preStop"]["exec"]["command"],
        &pod["containers"][1]["args"],
    ];
    let last = |arguments: &Value, count: usize| {
        let arguments = arguments.as_array().expect("arguments");
        arguments[arguments.len() - count..].to_vec()
    };
    assert_eq!(
        last(bootstrap, 2),
        ["--overload-max-heap=2000000000", "--overload-downstream-max-conn=5000"]
    );
    assert_eq!(
        last(shutdown, 5),
        [
            "shutdown",
            "--drain-delay=5s",
            "--check-delay=10s",
            "--check-interval=1s",
            "--min-open-connections=2"
        ]
    );
    assert_eq!(last(envoy, 5), ["info", "--base-id", "3", "--concurrency", "2"]);
    let deployment = envoy_of(&json!({"envoy": {
        "workloadType": "Deployment", "deployment": {"strategy": {"type": "Recreate"}, "minReadySeconds": 9},
    }}));
    assert_eq!(at(&deployment, "/spec/strategy"), &json!({"type": "Recreate"}));
    assert_eq!(at(&deployment, "/spec/minReadySeconds"), 9);
}

#[test]
fn zero_is_the_default_of_numeric_settings() {
    let zero = json!({"envoy": {
        "daemonSet": {"minReadySeconds": 0}, "baseID": 0, "overloadMaxHeapSize": 0, "overloadMaxDownstreamConnections": 0,
    }});
    assert_eq!(envoy_of(&zero), envoy_of(&json!({})));
    assert_eq!(
        contour_of(&json!({"contour": {"deployment": {"minReadySeconds": 0}}})),
        contour_of(&json!({}))
    );
}
