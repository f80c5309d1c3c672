//! A converged cluster causes no writes, for any valid spec and after any change from one valid spec to another.

use std::collections::BTreeSet;

use proptest::option;
use proptest::prelude::{Just, ProptestConfig, Strategy, any, prop_assert_eq, prop_oneof, proptest};
use serde_json::{Map, Value, json};

use super::cluster::{Cluster, described};
use super::scene::{points_at, points_at_with_timeout};

fn object(fields: Vec<(&'static str, Option<Value>)>) -> Value {
    let fields: Map<_, _> = fields
        .into_iter()
        .filter_map(|(key, value)| Some((key.to_owned(), value?)))
        .collect();
    Value::Object(fields)
}

/// Generates a namespace: one without services, one with valid services, one with invalid services, one that does not exist, or
/// the ContourDeployment's own.
fn namespace() -> impl Strategy<Value = &'static str> {
    prop_oneof![
        Just("empty"),
        Just("answers"),
        Just("invalid"),
        Just("absent"),
        Just("projectcontour")
    ]
}

fn settings() -> impl Strategy<Value = Value> {
    let auth = option::of((namespace(), any::<bool>(), option::of(Just("1.5s"))));
    let limit = option::of((namespace(), any::<bool>()));
    let tracing = option::of((namespace(), option::of(0..200_i64)));
    let other = option::of(prop_oneof![
        Just(("health", json!({"port": 8100}))),
        Just(("policy", json!({"requestHeaders": {"remove": ["X-A"]}}))),
        Just((
            "envoy",
            json!({"http": {"port": 9080}, "timeouts": {"requestTimeout": "infinity"}})
        )),
    ]);
    (auth, limit, tracing, other).prop_map(|(auth, limit, tracing, other)| {
        let auth = auth.map(|(namespace, fail_open, timeout)| {
            let mut auth = json!({"extensionRef": {"namespace": namespace, "name": "one"}, "failOpen": fail_open});
            if let Some(timeout) = timeout {
                auth["responseTimeout"] = timeout.into();
            }
            auth
        });
        let limit = limit.map(|(namespace, fail_open)| {
            json!({"extensionService": {"namespace": namespace, "name": "one"}, "domain": "d", "failOpen": fail_open})
        });
        let tracing = tracing.map(|(namespace, length)| {
            let mut tracing = json!({"extensionService": {"namespace": namespace, "name": "two"}, "customTags": []});
            if let Some(length) = length {
                tracing["maxPathTagLength"] = length.into();
            }
            tracing
        });
        let mut settings = object(vec![
            ("globalExtAuth", auth),
            ("rateLimitService", limit),
            ("tracing", tracing),
        ]);
        if let Some((key, value)) = other {
            settings[key] = value;
        }
        settings
    })
}

fn spec() -> impl Strategy<Value = Value> {
    let replicas = || option::of(1..4_i32).prop_map(|replicas| replicas.map(|replicas| json!({"replicas": replicas})));
    let resources = option::of(Just(
        json!({"requests": {"cpu": "1000m", "memory": "0.5Gi"}, "limits": {}}),
    ));
    let placement = option::of(Just(
        json!({"nodeSelector": {"disk": "ssd"}, "tolerations": [{"key": "edge", "operator": "Exists"}]}),
    ));
    let contour = (
        replicas(),
        resources.clone(),
        placement.clone(),
        option::of(Just(json!("debug"))),
    );
    let publishing = prop_oneof![
        Just(json!({})),
        Just(json!({"type": "NodePortService", "externalTrafficPolicy": "Cluster"})),
        Just(json!({"type": "ClusterIPService", "serviceAnnotations": {"example.com/a": ""}})),
        Just(json!({"ipFamilyPolicy": "PreferDualStack"})),
    ];
    let envoy = (any::<bool>(), replicas(), publishing, resources, placement);
    (contour, envoy, settings()).prop_map(|(contour, envoy, settings)| {
        let overlay = json!({"spec": {"priorityClassName": "system-cluster-critical", "containers": [{"name": "extra", "image": "x"}]}});
        let contour = object(vec![
            ("podTemplate", contour.3.is_some().then_some(overlay)),
            ("deployment", contour.0),
            ("resources", contour.1),
            ("nodePlacement", contour.2),
            ("logLevel", contour.3),
        ]);
        let workload = envoy.0.then(|| json!("Deployment"));
        let envoy = object(vec![
            ("workloadType", workload.clone()),
            ("deployment", envoy.1.filter(|_| workload.is_some())),
            ("networkPublishing", Some(envoy.2)),
            ("resources", envoy.3),
            ("nodePlacement", envoy.4),
        ]);
        json!({"contour": contour, "envoy": envoy, "runtimeSettings": settings})
    })
}

/// Returns a cluster with the services that specs may reference.
fn with_services() -> Cluster {
    let mut cluster = Cluster::new();
    cluster.create_namespace("empty");
    for name in ["one", "two"] {
        for namespace in ["answers", "projectcontour"] {
            cluster.create_service(namespace, name);
            cluster.create_extension_service(namespace, name, &points_at_with_timeout(name, "250ms"));
        }
    }
    cluster.create_namespace("invalid");
    for name in ["one", "two"] {
        cluster.create_extension_service("invalid", name, &points_at("missing"));
    }
    cluster
}

/// Returns the keys of all objects of Slipway without the hashes in names. The hashes may differ because of salts and of timeouts
/// that are pinned for an absent object.
fn inventory(cluster: &Cluster) -> BTreeSet<String> {
    let made = cluster
        .observe()
        .expect("the ContourDeployment exists")
        .objects
        .into_keys();
    let made = made.filter(|key| !matches!(key.kind, slipway::plan::Kind::Pod | slipway::plan::Kind::ReplicaSet));
    made.map(|key| {
        let text = key.to_string();
        match text.rsplit_once('-') {
            Some((name, hash)) if hash.len() == 10 => name.to_owned(),
            _ => text,
        }
    })
    .collect()
}

/// Checks that the cluster is settled: another reconcile changes neither objects nor status.
fn assert_settled(cluster: &mut Cluster) {
    let planned = cluster.plan();
    assert!(
        planned.is_settled(),
        "{:?}",
        described(
            &planned
                .waves
                .iter()
                .flat_map(|wave| wave.writes.clone())
                .collect::<Vec<_>>()
        )
    );
    assert_eq!(planned.status, cluster.status());
    assert_eq!(planned.events, []);
    let before = cluster.api.objects.clone();
    assert_eq!(described(&cluster.reconcile()), [""; 0]);
    assert!(cluster.api.objects == before);
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 16, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn every_valid_spec_settles_and_then_causes_no_writes(spec in spec()) {
        let mut cluster = with_services();
        cluster.specify(spec);
        cluster.settle();
        assert_settled(&mut cluster);
    }

    #[test]
    fn a_change_of_the_spec_leaves_nothing_behind(before in spec(), after in spec()) {
        let mut cluster = with_services();
        cluster.specify(before);
        cluster.settle();
        cluster.specify(after.clone());
        cluster.settle();
        assert_settled(&mut cluster);
        let mut fresh = with_services();
        fresh.specify(after);
        fresh.settle();
        prop_assert_eq!(inventory(&cluster), inventory(&fresh));
        let told = |cluster: &Cluster| {
            let services = cluster.status().extension_services;
            services.into_iter().map(|service| (service.role, service.state, service.traffic)).collect::<Vec<_>>()
        };
        prop_assert_eq!(told(&cluster), told(&fresh));
    }

    #[test]
    fn a_crash_after_any_write_has_the_same_final_state(spec in spec(), survived in 0..25_usize) {
        let mut cluster = with_services();
        cluster.specify(spec.clone());
        cluster.reconcile_until_crash(survived);
        cluster.settle();
        assert_settled(&mut cluster);
        let mut fresh = with_services();
        fresh.specify(spec);
        fresh.settle();
        prop_assert_eq!(inventory(&cluster), inventory(&fresh));
    }
}
