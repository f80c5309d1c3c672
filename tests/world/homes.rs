//! The namespace of a stand-in, while namespaces are created and deleted and references change.

use serde_json::json;
use slipway::plan::{Key, Kind};

use super::cluster::{Cluster, NAMESPACE};
use super::scene::{asks_auth, id, is_blackhole, points_at, points_at_with_timeout};

fn asks(namespace: &str, name: &str) -> serde_json::Value {
    json!({"runtimeSettings": {"globalExtAuth": {"extensionRef": {"namespace": namespace, "name": name}}}})
}

#[test]
fn a_stand_in_moves_to_the_service_namespace_when_it_appears() {
    let mut cluster = Cluster::new();
    cluster.specify(asks_auth());
    cluster.settle();
    let old = cluster.stand_in().key();
    assert_eq!(old.namespace, NAMESPACE);
    cluster.create_namespace("auth");
    cluster.reconcile();
    assert_eq!(cluster.stand_in().namespace(), "auth");
    assert!(
        cluster.api.objects.contains_key(&old),
        "the old stand-in remains while a pod uses it"
    );
    cluster.settle();
    assert_eq!(cluster.stand_ins().len(), 1);
    assert_eq!(
        cluster.api.get(Kind::Service, NAMESPACE, &old.name),
        None,
        "the blackhole of the old stand-in is gone, too"
    );
}

#[test]
fn a_terminating_service_namespace_moves_the_stand_in_home() {
    let mut cluster = Cluster::enforcing(&points_at("auth"));
    let old = cluster.stand_in().key();
    cluster.delete(Kind::Namespace, "", "auth");
    cluster.finalize_namespaces();
    cluster.reconcile();
    assert_eq!(cluster.stand_in().namespace(), NAMESPACE);
    assert!(is_blackhole(cluster.stand_in()));
    let terminating = &cluster.api.objects[&old];
    assert!(
        terminating.is_terminating() && is_blackhole(terminating),
        "the old stand-in points at its blackhole until no pod uses the old stand-in"
    );
    cluster.new_pods_start();
    cluster.old_pods_terminate();
    cluster.reconcile();
    assert!(
        cluster.api.objects.contains_key(&old),
        "a Terminating pod uses the old stand-in"
    );
    cluster.terminating_pods_end();
    cluster.settle();
    assert_eq!(
        cluster.api.get(Kind::Namespace, "", "auth"),
        None,
        "nothing blocks the deletion of the namespace"
    );
    assert_eq!(cluster.stand_ins().len(), 1);
}

#[test]
fn a_stand_in_returns_to_a_recreated_service_namespace() {
    let mut cluster = Cluster::enforcing(&points_at("auth"));
    cluster.delete(Kind::Namespace, "", "auth");
    cluster.settle();
    cluster.create_service("auth", "auth");
    cluster.create_extension_service("auth", "auth", &points_at("auth"));
    cluster.settle();
    assert_eq!(cluster.stand_in().namespace(), "auth");
    assert_eq!(cluster.stand_in().at("/spec"), Some(&points_at("auth")));
    assert_eq!(cluster.condition("Ready"), "True/AsSpecified");
}

/// Returns a cluster whose reference was changed to the valid `auth2/auth`, and the stand-in that Contour's pods still use.
fn referring_to_auth2() -> (Cluster, Key) {
    let mut cluster = Cluster::enforcing(&points_at("auth"));
    let old = cluster.stand_in().key();
    cluster.create_service("auth2", "auth");
    cluster.create_extension_service("auth2", "auth", &points_at("auth"));
    cluster.contour_judges();
    cluster.specify(asks("auth2", "auth"));
    cluster.reconcile();
    (cluster, old)
}

#[test]
fn an_old_stand_in_follows_its_own_service_while_a_pod_uses_it() {
    let (mut cluster, old) = referring_to_auth2();
    assert_eq!(cluster.stand_in().namespace(), "auth2");
    cluster.new_pods_start();

    cluster.delete(Kind::ExtensionService, "auth", "auth");
    cluster.reconcile();
    assert!(
        is_blackhole(&cluster.api.objects[&old]),
        "the old stand-in's own service is gone"
    );
    assert_eq!(
        cluster.stand_in().at("/spec"),
        Some(&points_at("auth")),
        "the new stand-in's service exists"
    );
    cluster.create_extension_service("auth", "auth", &points_at("auth"));
    cluster.contour_judges();
    cluster.reconcile();
    assert_eq!(cluster.api.objects[&old].at("/spec"), Some(&points_at("auth")));

    cluster.settle();
    assert_eq!(cluster.stand_ins(), [id(cluster.stand_in())]);
    assert_eq!(cluster.api.get(Kind::Service, "auth", &old.name), None);
}

#[test]
fn a_fault_of_the_old_service_does_not_withdraw_the_new_copy() {
    let (mut cluster, old) = referring_to_auth2();
    cluster.delete(Kind::Service, "auth", "auth");
    cluster.reconcile();
    assert!(
        is_blackhole(&cluster.api.objects[&old]),
        "the old stand-in's own Service is gone"
    );

    let mut edited = points_at("auth");
    edited["protocol"] = "h2".into();
    let new = Key::new(Kind::ExtensionService, "auth2", "auth");
    cluster
        .api
        .edit(&new, |object| drop(object.content.insert("spec".into(), edited)));
    cluster.reconcile();
    let last_valid = points_at("auth");
    assert_eq!(
        cluster.stand_in().at("/spec"),
        Some(&last_valid),
        "Contour has not judged the edit yet"
    );
}

#[test]
fn a_reference_to_another_name_never_uses_the_former_copy() {
    let mut cluster = Cluster::enforcing(&points_at("auth"));
    cluster.specify(asks("auth", "other"));
    cluster.reconcile();
    let stand_in = cluster.stand_in();
    assert!(
        is_blackhole(stand_in),
        "auth/other does not exist: {:?}",
        stand_in.at("/spec")
    );
    cluster.settle();
    assert_eq!(cluster.status().extension_services[0].name, "other");
    assert_eq!(cluster.stand_ins().len(), 1);
}

#[test]
fn a_reference_to_another_name_does_not_keep_former_timeouts() {
    let mut cluster = Cluster::enforcing(&points_at_with_timeout("auth", "5s"));
    let before = cluster.stand_in().key();
    cluster.specify(asks("auth", "other"));
    cluster.settle();
    assert_ne!(
        cluster.stand_in().key(),
        before,
        "the former stand-in promises 5 s, which auth/other does not set"
    );
    assert_eq!(cluster.stand_in().at("/spec/timeoutPolicy"), None);
}

#[test]
fn a_reference_into_the_owners_namespace_is_enforced() {
    let mut cluster = Cluster::new();
    cluster.create_service(NAMESPACE, "auth");
    cluster.create_extension_service(NAMESPACE, "auth", &points_at("auth"));
    cluster.specify(asks(NAMESPACE, "auth"));
    cluster.settle();
    assert_eq!(cluster.stand_in().at("/spec"), Some(&points_at("auth")));
    assert_eq!(cluster.condition("Ready"), "True/AsSpecified");
}

#[test]
fn a_dropped_reference_leaves_nothing_behind() {
    let mut cluster = Cluster::enforcing(&points_at("auth"));
    cluster.specify(json!({}));
    cluster.settle();
    assert_eq!(cluster.stand_ins(), [""; 0]);
    assert_eq!(cluster.configuration().at("/spec/globalExtAuth"), None);
    assert_eq!(cluster.api.of_kind(Kind::ContourConfiguration).count(), 1);
    let left = cluster
        .api
        .of_kind(Kind::Service)
        .filter(|service| service.namespace() == "auth")
        .count();
    assert_eq!(left, 1, "only the user's own Service");
    assert!(
        cluster
            .api
            .objects
            .contains_key(&Key::new(Kind::ExtensionService, "auth", "auth"))
    );
}
