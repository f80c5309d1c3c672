//! Slipway rolls out Contour before Envoy, and replaces one type of Envoy workload only after the other type is available.

use std::time::Duration;

use serde_json::json;
use slipway::plan::{Key, Kind};

use super::cluster::{Cluster, NAMESPACE};

/// Returns a spec with another image of Contour, which also changes the bootstrap container in Envoy's pods.
fn upgraded() -> serde_json::Value {
    json!({"contour": {"image": "example.com/contour:v2"}})
}

/// Returns a settled cluster in which the image of Contour has just changed.
fn upgrading() -> Cluster {
    let mut cluster = Cluster::new();
    cluster.specify(json!({}));
    cluster.settle();
    cluster.specify(upgraded());
    cluster
}

const ENVOY: &str = "Apply DaemonSet projectcontour/edge-envoy";
const CONTOUR: &str = "Apply Deployment projectcontour/edge-contour";

#[test]
fn envoy_is_created_at_once_on_a_fresh_installation() {
    let mut cluster = Cluster::new();
    cluster.specify(json!({}));
    let writes = cluster.writes();
    assert!(
        writes.contains(&"Create DaemonSet projectcontour/edge-envoy".to_owned()),
        "{writes:?}"
    );
}

#[test]
fn envoy_is_not_updated_while_contour_rolls_out() {
    let mut cluster = upgrading();
    assert_eq!(
        cluster.writes(),
        [CONTOUR],
        "the Deployment controller has not observed the new template"
    );
    cluster.new_pods_start();
    assert_eq!(cluster.writes(), [""; 0], "the old pods run");
    cluster.old_pods_terminate();
    assert_eq!(cluster.writes(), [""; 0], "the old pods are Terminating");
    assert_eq!(cluster.condition("Ready"), "False/RollingOut");
    cluster.terminating_pods_end();
    assert_eq!(cluster.writes(), [ENVOY]);
    cluster.settle();
    assert_eq!(cluster.condition("Ready"), "True/AsSpecified");
}

#[test]
fn envoy_is_not_updated_while_contour_is_unavailable() {
    let mut cluster = upgrading();
    cluster.reconcile();
    cluster.roll();
    let contour = cluster.contour().key();
    cluster.api.edit(&contour, |object| {
        object.content["status"]["availableReplicas"] = 0.into();
    });
    assert_eq!(cluster.writes(), [""; 0]);
    assert_eq!(cluster.condition("ContourAvailable"), "False/Unavailable");
}

#[test]
fn a_deleted_envoy_is_recreated_while_contour_rolls_out() {
    let mut cluster = upgrading();
    cluster.reconcile();
    cluster.new_pods_start();
    cluster.delete(Kind::DaemonSet, NAMESPACE, "edge-envoy");
    assert_eq!(cluster.writes(), ["Create DaemonSet projectcontour/edge-envoy"]);
}

#[test]
fn a_hanging_pod_blocks_envoy_for_a_minute_and_then_only_ready() {
    let mut cluster = upgrading();
    cluster.reconcile();
    cluster.new_pods_start();
    cluster.old_pods_terminate();
    // 30 s of grace period, and a minute.
    cluster.api.now += Duration::from_secs(89);
    assert_eq!(cluster.plan().requeue_after, Some(Duration::from_secs(1)));
    assert_eq!(cluster.writes(), [""; 0]);
    cluster.api.now += Duration::from_secs(1);
    assert_eq!(cluster.writes(), [ENVOY]);
    cluster.new_pods_start();
    cluster.reconcile();
    assert_eq!(cluster.condition("Ready"), "False/RollingOut");
    assert_eq!(cluster.condition("Degraded"), "True/RolloutStuck");
    let status = cluster.status();
    let hanging = cluster
        .contour_pods()
        .find(|pod| pod.is_terminating())
        .expect("a hanging pod")
        .name();
    let degraded = status
        .conditions
        .iter()
        .find(|condition| condition.type_ == "Degraded")
        .expect("the condition exists");
    assert!(degraded.message.contains(hanging), "{}", degraded.message);
}

#[test]
fn scaling_by_an_autoscaler_is_not_a_rollout() {
    let mut cluster = Cluster::new();
    cluster.specify(json!({}));
    cluster.settle();
    let contour = cluster.contour().key();
    cluster
        .api
        .edit(&contour, |object| object.content["spec"]["replicas"] = 5.into());
    cluster.roll();
    assert_eq!(cluster.writes(), [""; 0]);
    assert_eq!(cluster.status().contour.as_deref(), Some("5/5"));
}

#[test]
fn a_new_workload_type_replaces_envoy_when_it_is_available() {
    for (from, to, old, new) in [
        ("DaemonSet", "Deployment", Kind::DaemonSet, Kind::Deployment),
        ("Deployment", "DaemonSet", Kind::Deployment, Kind::DaemonSet),
    ] {
        let mut cluster = Cluster::new();
        cluster.specify(json!({"envoy": {"workloadType": from}}));
        cluster.settle();
        cluster.specify(json!({"envoy": {"workloadType": to}}));
        assert_eq!(
            cluster.writes(),
            [format!("Create {new} projectcontour/edge-envoy")],
            "{from}"
        );
        assert!(
            cluster.api.get(old, NAMESPACE, "edge-envoy").is_some(),
            "the new workload has no pods yet"
        );
        cluster.new_pods_start();
        let new = Key::new(new, NAMESPACE, "edge-envoy");
        let observed = |cluster: &mut Cluster, generation: i64| {
            let status = "observedGeneration";
            cluster
                .api
                .edit(&new, |object| object.content["status"][status] = generation.into());
        };
        observed(&mut cluster, 0);
        assert_eq!(
            cluster.writes(),
            [""; 0],
            "{from}: the status may be about an older generation"
        );
        observed(&mut cluster, 1);
        assert_eq!(
            cluster.writes(),
            [format!("Delete {old} projectcontour/edge-envoy")],
            "{from}"
        );
        cluster.settle();
        assert_eq!(cluster.condition("Ready"), "True/AsSpecified");
    }
}

#[test]
fn a_refused_spec_changes_nothing_and_a_repaired_spec_rolls_out() {
    let mut cluster = Cluster::new();
    cluster.specify(json!({}));
    cluster.settle();
    let before = cluster.template();
    cluster.refuses_settings = Some("spec.foo: unknown".into());
    cluster.specify(json!({"contour": {"image": "example.com/contour:v2"}, "runtimeSettings": {"foo": 1}}));
    assert_eq!(cluster.writes(), [""; 0]);
    assert_eq!(cluster.condition("Stalled"), "True/ConfigurationRefused");
    assert_eq!(cluster.condition("ConfigurationValid"), "False/ConfigurationRefused");
    assert_eq!(cluster.template(), before);
    cluster.refuses_settings = None;
    cluster.specify(upgraded());
    cluster.settle();
    assert_eq!(cluster.condition("Ready"), "True/AsSpecified");
    assert_eq!(cluster.condition("Stalled"), "");
}

#[test]
fn the_status_names_all_stand_ins_while_a_spec_is_refused() {
    let mut cluster = Cluster::enforcing(&super::scene::points_at("auth"));
    let auth = json!({"namespace": "auth", "name": "auth"});
    let mut asks = json!({"runtimeSettings": {
        "globalExtAuth": {"extensionRef": auth}, "tracing": {"extensionService": auth},
    }});
    cluster.specify(asks.clone());
    cluster.settle();
    let named = |cluster: &Cluster| {
        let rows = cluster.status().extension_services;
        let name = |row: &slipway::api::ExtensionServiceStatus| row.stand_in.as_ref().expect("a stand-in").name.clone();
        rows.iter().map(name).collect::<Vec<_>>()
    };
    let before = named(&cluster);
    assert!(before[0].starts_with("edge-ext-auth-") && before[1].starts_with("edge-tracing-"));
    cluster.refuses_settings = Some("spec.foo: unknown".into());
    asks["runtimeSettings"]["foo"] = 1.into();
    cluster.specify(asks);
    cluster.settle();
    assert_eq!(cluster.condition("Stalled"), "True/ConfigurationRefused");
    assert_eq!(named(&cluster), before);
}

#[test]
fn stand_ins_follow_their_services_while_a_spec_is_refused() {
    let spec = super::scene::points_at("auth");
    let mut cluster = Cluster::enforcing(&spec);
    cluster.refuses_settings = Some("spec.foo: unknown".into());
    let mut asks = super::scene::asks_auth();
    asks["runtimeSettings"]["foo"] = 1.into();
    cluster.specify(asks);
    cluster.reconcile();
    assert_eq!(cluster.condition("Stalled"), "True/ConfigurationRefused");
    cluster.delete(Kind::ExtensionService, "auth", "auth");
    assert_eq!(cluster.writes().len(), 1);
    assert!(super::scene::is_blackhole(cluster.stand_in()));
    cluster.create_extension_service("auth", "auth", &spec);
    cluster.contour_judges();
    cluster.reconcile();
    assert_eq!(cluster.stand_in().at("/spec"), Some(&spec));
}
