//! Slipway never adopts, changes or deletes objects of other users. A name collision is a condition, not an overwrite.

use std::time::Duration;

use serde_json::{Value, json};
use slipway::plan::{Key, Kind, Object, Write};

use super::cluster::{Cluster, NAMESPACE, key_of};
use super::scene::{asks_auth, points_at};

/// Returns the keys of all objects that a fresh installation creates.
fn created() -> Vec<Key> {
    let mut cluster = Cluster::new();
    cluster.create_namespace("auth");
    cluster.specify(asks_auth());
    let creations = cluster.reconcile();
    creations
        .iter()
        .filter(|write| matches!(write, Write::Create(_)))
        .map(key_of)
        .collect()
}

/// Returns an object of another user with this key.
fn foreign(key: &Key, labels: &Value) -> Object {
    let mut metadata = json!({"name": key.name, "labels": labels});
    if key.kind.is_namespaced() {
        metadata["namespace"] = key.namespace.clone().into();
    }
    Object::from_json(key.kind, json!({"metadata": metadata, "spec": {"of": "somebody"}})).expect("an object")
}

#[test]
fn slipway_reports_a_name_collision_and_keeps_the_object() {
    let others = [
        json!({"app": "mine"}),
        json!({"contour.slipway.dev/contourdeployment": "other", "contour.slipway.dev/contourdeployment-namespace": NAMESPACE}),
        json!({"contour.slipway.dev/contourdeployment": "edge", "contour.slipway.dev/contourdeployment-namespace": "elsewhere"}),
    ];
    let created = created();
    assert!(created.len() > 15, "{created:?}");
    let created = created.iter().filter(|key| key.namespace != "auth");
    for (key, labels) in created.zip(others.iter().cycle()) {
        let mut cluster = Cluster::new();
        cluster.create_namespace("auth");
        let theirs = foreign(key, labels);
        cluster.create(key.kind, theirs.to_json());
        let before = cluster.api.objects[key].clone();
        cluster.specify(asks_auth());
        for _ in 0..3 {
            cluster.reconcile();
            cluster.roll();
        }
        assert_eq!(cluster.condition("Ready"), "False/NameCollision", "{key}");
        assert_eq!(
            cluster.condition("Reconciling"),
            "True/NameCollision",
            "{key}: a later change may resolve the collision"
        );
        let status = cluster.status();
        let ready = status
            .conditions
            .iter()
            .find(|condition| condition.type_ == "Ready")
            .expect("the condition exists");
        assert!(ready.message.contains(&key.to_string()), "{}", ready.message);
        assert_eq!(
            without_status(&cluster.api.objects[key]),
            without_status(&before),
            "{key}"
        );

        cluster.api.now += Duration::from_secs(31);
        cluster.reconcile();
        assert_eq!(
            cluster.condition("Stalled"),
            "True/NameCollision",
            "{key}: the user has to act"
        );
        assert_eq!(cluster.condition("Reconciling"), "", "{key}");

        cluster.api.forget(key);
        cluster.settle();
        assert_eq!(cluster.condition("Stalled"), "", "{key}");
    }
}

/// Returns an object without its status, because Kubernetes' controllers write a status on the workloads of all users.
fn without_status(object: &Object) -> Object {
    let mut object = object.clone();
    object.content.remove("status");
    object.metadata.resource_version = None;
    object
}

#[test]
fn a_deletion_keeps_the_objects_of_other_users() {
    let mut cluster = Cluster::enforcing(&points_at("auth"));
    let labels = json!({"app.kubernetes.io/managed-by": "slipway", "contour.slipway.dev/contourdeployment": "other"});
    for kind in [Kind::Service, Kind::Deployment, Kind::Secret, Kind::ServiceAccount] {
        let theirs = foreign(&Key::new(kind, NAMESPACE, "theirs"), &labels);
        if kind != Kind::Deployment {
            cluster.create(kind, theirs.to_json());
        }
    }
    let count = |cluster: &Cluster| cluster.api.objects.keys().filter(|key| key.name == "theirs").count();
    cluster.settle();
    assert_eq!(count(&cluster), 3);
    cluster.delete(Kind::ContourDeployment, NAMESPACE, "edge");
    cluster.settle();
    assert_eq!(count(&cluster), 3);
}

#[test]
fn a_delete_carries_the_observed_uid() {
    let mut cluster = Cluster::enforcing(&points_at("auth"));
    cluster.delete(Kind::ContourDeployment, NAMESPACE, "edge");
    let planned = cluster.plan();
    let uid = cluster.contour().uid().to_owned();
    let deletes: Vec<_> = planned.waves.iter().flat_map(|wave| &wave.writes).collect();
    assert!(
        matches!(deletes[..], [Write::Delete(target)] if target.uid == uid),
        "{deletes:?}"
    );
}

#[test]
fn a_forbidden_write_is_reported_and_stops_no_independent_write() {
    let mut cluster = Cluster::enforcing(&points_at("auth"));
    cluster.forbidden_name = Some("edge-envoy".into());
    cluster.specify({
        let mut spec = asks_auth();
        spec["envoy"] = json!({"logLevel": "debug"});
        spec
    });
    cluster.reconcile();
    assert_eq!(cluster.condition("Ready"), "False/Forbidden");
    cluster.api.now += Duration::from_secs(31);
    cluster.reconcile();
    assert_eq!(cluster.condition("Stalled"), "True/Forbidden");
    cluster.delete(Kind::ExtensionService, "auth", "auth");
    cluster.reconcile();
    assert!(
        super::scene::is_blackhole(cluster.stand_in()),
        "the stand-in follows its service while another write fails"
    );
    cluster.forbidden_name = None;
    cluster.settle();
    assert_eq!(cluster.condition("Stalled"), "");
}
