//! What is not ours is never adopted, changed or deleted: a name collision is a condition, not an overwrite.

use std::time::Duration;

use serde_json::{Value, json};
use slipway::plan::{Key, Kind, Object, Write};

use crate::cluster::{Cluster, NAMESPACE, key_of};
use crate::scene::{asks_auth, points_at};

/// The key of everything that a fresh installation creates.
fn created() -> Vec<Key> {
    let mut cluster = Cluster::new();
    cluster.make_namespace("auth");
    cluster.specify(asks_auth());
    let creations = cluster.reconcile();
    creations
        .iter()
        .filter(|write| matches!(write, Write::Create(_)))
        .map(key_of)
        .collect()
}

/// Somebody's object of this name.
fn foreign(key: &Key, labels: &Value) -> Object {
    let mut metadata = json!({"name": key.name, "labels": labels});
    if key.kind.is_namespaced() {
        metadata["namespace"] = key.namespace.clone().into();
    }
    Object::from_json(key.kind, json!({"metadata": metadata, "spec": {"of": "somebody"}})).expect("an object")
}

#[test]
fn an_object_of_the_same_name_is_never_touched_and_said() {
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
        cluster.make_namespace("auth");
        let theirs = foreign(key, labels);
        cluster.make(key.kind, theirs.to_json());
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
            "{key}: something later may cure it"
        );
        let status = cluster.status();
        let ready = status
            .conditions
            .iter()
            .find(|condition| condition.type_ == "Ready")
            .expect("it is said");
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
            "{key}: a person has to act"
        );
        assert_eq!(cluster.condition("Reconciling"), "", "{key}");

        cluster.api.forget(key);
        cluster.settle();
        assert_eq!(cluster.condition("Stalled"), "", "{key}");
    }
}

/// Kubernetes' controllers write a status on everybody's workloads.
fn without_status(object: &Object) -> Object {
    let mut object = object.clone();
    object.content.remove("status");
    object.metadata.resource_version = None;
    object
}

#[test]
fn nothing_of_anybody_else_goes_with_the_contour_deployment() {
    let mut cluster = Cluster::enforcing(&points_at("auth"));
    let labels = json!({"app.kubernetes.io/managed-by": "slipway", "contour.slipway.dev/contourdeployment": "other"});
    for kind in [Kind::Service, Kind::Deployment, Kind::Secret, Kind::ServiceAccount] {
        let theirs = foreign(&Key::new(kind, NAMESPACE, "theirs"), &labels);
        if kind != Kind::Deployment {
            cluster.make(kind, theirs.to_json());
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
fn every_delete_names_the_uid_that_was_seen() {
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
fn a_write_that_is_forbidden_is_said_and_tried_again_and_does_not_stop_what_does_not_need_it() {
    let mut cluster = Cluster::enforcing(&points_at("auth"));
    cluster.forbids = Some("edge-envoy".into());
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
        crate::scene::is_blackhole(cluster.stand_in()),
        "the stand-in follows its service"
    );
    cluster.forbids = None;
    cluster.settle();
    assert_eq!(cluster.condition("Stalled"), "");
}
