//! Where a stand-in lives while namespaces come and go, and references change.

use serde_json::json;
use slipway::plan::{Key, Kind};

use crate::cluster::{Cluster, NAMESPACE};
use crate::scene::{asks_auth, id, is_blackhole, points_at, points_at_with_timeout};

fn asks(namespace: &str, name: &str) -> serde_json::Value {
    json!({"runtimeSettings": {"globalExtAuth": {"extensionRef": {"namespace": namespace, "name": name}}}})
}

#[test]
fn a_namespace_that_appears_gets_the_stand_in_at_once_without_waiting_for_the_extension_service() {
    let mut cluster = Cluster::new();
    cluster.specify(asks_auth());
    cluster.settle();
    let old = cluster.stand_in().key();
    assert_eq!(old.namespace, NAMESPACE);
    cluster.make_namespace("auth");
    cluster.reconcile();
    assert_eq!(cluster.stand_in().namespace(), "auth");
    assert!(
        cluster.api.objects.contains_key(&old),
        "the old one stays while a pod uses it"
    );
    cluster.settle();
    assert_eq!(cluster.stand_ins().len(), 1);
    assert_eq!(
        cluster.api.get(Kind::Service, NAMESPACE, &old.name),
        None,
        "its blackhole is gone, too"
    );
}

#[test]
fn a_namespace_that_is_being_deleted_moves_the_stand_in_beside_the_contour_deployment() {
    let mut cluster = Cluster::enforcing(&points_at("auth"));
    let old = cluster.stand_in().key();
    cluster.delete(Kind::Namespace, "", "auth");
    cluster.namespaces_end();
    cluster.reconcile();
    assert_eq!(cluster.stand_in().namespace(), NAMESPACE);
    assert!(is_blackhole(cluster.stand_in()));
    let terminating = &cluster.api.objects[&old];
    assert!(
        terminating.is_terminating() && is_blackhole(terminating),
        "it is as good as it can be until it is unused"
    );
    cluster.pods_come();
    cluster.old_pods_begin_to_end();
    cluster.reconcile();
    assert!(cluster.api.objects.contains_key(&old), "a Terminating pod uses it");
    cluster.terminating_pods_end();
    cluster.settle();
    assert_eq!(
        cluster.api.get(Kind::Namespace, "", "auth"),
        None,
        "nothing holds the namespace any more"
    );
    assert_eq!(cluster.stand_ins().len(), 1);
}

#[test]
fn a_namespace_that_was_deleted_and_comes_back_is_used_again() {
    let mut cluster = Cluster::enforcing(&points_at("auth"));
    cluster.delete(Kind::Namespace, "", "auth");
    cluster.settle();
    cluster.make_service("auth", "auth");
    cluster.make_extension_service("auth", "auth", &points_at("auth"));
    cluster.settle();
    assert_eq!(cluster.stand_in().namespace(), "auth");
    assert_eq!(cluster.stand_in().at("/spec"), Some(&points_at("auth")));
    assert_eq!(cluster.condition("Ready"), "True/AsSpecified");
}

/// After a change of the reference to `auth2/auth`, which is valid; and the stand-in that Contour's pods still use.
fn referring_to_auth2() -> (Cluster, Key) {
    let mut cluster = Cluster::enforcing(&points_at("auth"));
    let old = cluster.stand_in().key();
    cluster.make_service("auth2", "auth");
    cluster.make_extension_service("auth2", "auth", &points_at("auth"));
    cluster.contour_judges();
    cluster.specify(asks("auth2", "auth"));
    cluster.reconcile();
    (cluster, old)
}

#[test]
fn after_a_change_of_the_reference_the_old_stand_in_follows_its_own_service_until_no_pod_uses_it() {
    let (mut cluster, old) = referring_to_auth2();
    assert_eq!(cluster.stand_in().namespace(), "auth2");
    cluster.pods_come();

    cluster.delete(Kind::ExtensionService, "auth", "auth");
    cluster.reconcile();
    assert!(is_blackhole(&cluster.api.objects[&old]), "its own service is gone");
    assert_eq!(
        cluster.stand_in().at("/spec"),
        Some(&points_at("auth")),
        "the new one's is not"
    );
    cluster.make_extension_service("auth", "auth", &points_at("auth"));
    cluster.contour_judges();
    cluster.reconcile();
    assert_eq!(cluster.api.objects[&old].at("/spec"), Some(&points_at("auth")));

    cluster.settle();
    assert_eq!(cluster.stand_ins(), [id(cluster.stand_in())]);
    assert_eq!(cluster.api.get(Kind::Service, "auth", &old.name), None);
}

#[test]
fn what_is_wrong_with_the_old_service_does_not_withdraw_the_copy_of_the_new_one() {
    let (mut cluster, old) = referring_to_auth2();
    cluster.delete(Kind::Service, "auth", "auth");
    cluster.reconcile();
    assert!(is_blackhole(&cluster.api.objects[&old]), "its own Service is gone");

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
        "the edit is not judged yet"
    );
}

#[test]
fn another_name_in_the_same_namespace_is_another_stand_in_or_the_same_but_never_the_others_copy() {
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
fn what_the_other_said_about_timeouts_is_not_kept_for_a_service_of_another_name() {
    let mut cluster = Cluster::enforcing(&points_at_with_timeout("auth", "5s"));
    let before = cluster.stand_in().key();
    cluster.specify(asks("auth", "other"));
    cluster.settle();
    assert_ne!(
        cluster.stand_in().key(),
        before,
        "it promises 5 s, which nobody asked of auth/other"
    );
    assert_eq!(cluster.stand_in().at("/spec/timeoutPolicy"), None);
}

#[test]
fn a_reference_into_the_namespace_of_the_contour_deployment_is_no_special_case() {
    let mut cluster = Cluster::new();
    cluster.make_service(NAMESPACE, "auth");
    cluster.make_extension_service(NAMESPACE, "auth", &points_at("auth"));
    cluster.specify(asks(NAMESPACE, "auth"));
    cluster.settle();
    assert_eq!(cluster.stand_in().at("/spec"), Some(&points_at("auth")));
    assert_eq!(cluster.condition("Ready"), "True/AsSpecified");
}

#[test]
fn references_that_are_dropped_leave_nothing_behind() {
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
    assert_eq!(left, 1, "the user's own");
    assert!(
        cluster
            .api
            .objects
            .contains_key(&Key::new(Kind::ExtensionService, "auth", "auth"))
    );
}
