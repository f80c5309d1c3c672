//! The deletion of a ContourDeployment: Slipway deletes Contour first, then everything else, and releases its own finalizer last.

use std::time::Duration;

use slipway::plan::{Key, Kind, Object};

use super::cluster::{Cluster, NAME, NAMESPACE, deployment_key, described};
use super::scene::points_at;

/// Returns a settled cluster in which the ContourDeployment has just been deleted.
fn deleting() -> Cluster {
    let mut cluster = Cluster::enforcing(&points_at("auth"));
    cluster.delete(Kind::ContourDeployment, NAMESPACE, NAME);
    cluster
}

/// Returns the objects that still bear a label or the finalizer of Slipway.
fn left(cluster: &Cluster) -> Vec<String> {
    let marked =
        |object: &&Object| object.label("app.kubernetes.io/managed-by").is_some() || object.has_our_finalizer();
    cluster
        .api
        .objects
        .values()
        .filter(marked)
        .map(|object| object.key().to_string())
        .collect()
}

#[test]
fn only_contours_deployment_is_deleted_until_its_pods_are_gone() {
    let mut cluster = deleting();
    assert_eq!(cluster.writes(), ["Delete Deployment projectcontour/edge-contour"]);
    assert_eq!(cluster.writes(), [""; 0], "Contour's pods run");
    cluster.collect_garbage();
    assert!(cluster.contour_pods().all(Object::is_terminating) && cluster.contour_pods().count() == 2);
    assert_eq!(cluster.writes(), [""; 0], "Contour's pods are Terminating");
    assert_eq!(cluster.condition("Ready"), "False/Deleting");
    cluster.terminating_pods_end();
    assert!(
        cluster
            .writes()
            .contains(&"Delete DaemonSet projectcontour/edge-envoy".to_owned())
    );
}

#[test]
fn stand_ins_are_released_before_blackholes_the_owner_is_last() {
    let mut cluster = deleting();
    let stand_in = cluster.stand_in().key();
    cluster.reconcile();
    cluster.collect_garbage();
    cluster.terminating_pods_end();
    let writes = cluster.writes();
    let at = |text: String| {
        writes
            .iter()
            .position(|write| *write == text)
            .unwrap_or_else(|| panic!("{text}: {writes:?}"))
    };
    let blackhole = format!("Service {}/{}", stand_in.namespace, stand_in.name);
    assert!(at(format!("Release {stand_in}")) < at(format!("Release {blackhole}")));
    assert_eq!(writes.last(), Some(&format!("Release {}", deployment_key())));
    assert!(!cluster.api.objects.contains_key(&deployment_key()));
}

#[test]
fn a_deletion_leaves_only_what_the_garbage_collector_deletes() {
    let mut cluster = deleting();
    cluster.settle();
    assert_eq!(left(&cluster), [""; 0]);
    assert!(
        cluster.api.get(Kind::ExtensionService, "auth", "auth").is_some(),
        "the user's ExtensionService remains"
    );
    assert!(cluster.api.get(Kind::Service, "auth", "auth").is_some());
}

#[test]
fn a_deletion_needs_no_crd_of_contour() {
    let mut cluster = deleting();
    // The deletion of a CRD deletes the objects of its kind.
    let gone = [Kind::ExtensionService, Kind::ContourConfiguration];
    cluster.api.objects.retain(|key, _| !gone.contains(&key.kind));
    cluster.missing_crds = vec![
        "extensionservices.projectcontour.io".into(),
        "contourconfigurations.projectcontour.io".into(),
    ];
    cluster.settle();
    assert_eq!(left(&cluster), [""; 0]);
}

#[test]
fn without_contours_crds_a_blackhole_outlives_its_stand_in() {
    let mut cluster = Cluster::enforcing(&points_at("auth"));
    let stand_in = cluster.stand_in().key();
    let blackhole = Key::new(Kind::Service, &stand_in.namespace, &stand_in.name);
    cluster.missing_crds = vec!["contourconfigurations.projectcontour.io".into()];
    for key in [&blackhole, &stand_in] {
        cluster.delete(key.kind, &key.namespace, &key.name);
    }
    let writes = |cluster: &Cluster| -> Vec<String> {
        let waves = cluster.plan().waves;
        waves.iter().flat_map(|wave| described(&wave.writes)).collect()
    };
    assert_eq!(writes(&cluster), [format!("Release {stand_in}")]);
    cluster.reconcile_until_crash(1);
    assert_eq!(writes(&cluster), [format!("Release {blackhole}")]);
}

#[test]
fn a_deletion_completes_though_the_namespaces_access_is_gone() {
    let mut cluster = Cluster::enforcing(&points_at("auth"));
    cluster.delete(Kind::Namespace, "", NAMESPACE);
    cluster.finalize_namespaces();
    assert_eq!(cluster.api.of_kind(Kind::RoleBinding).count(), 0);
    cluster.settle();
    assert_eq!(left(&cluster), [""; 0]);
    assert_eq!(cluster.api.get(Kind::Namespace, "", NAMESPACE), None);
}

#[test]
fn a_deletion_completes_while_the_service_namespace_terminates() {
    let mut cluster = deleting();
    cluster.delete(Kind::Namespace, "", "auth");
    cluster.settle();
    assert_eq!(left(&cluster), [""; 0]);
    assert_eq!(cluster.api.get(Kind::Namespace, "", "auth"), None);
}

#[test]
fn startup_inputs_remain_while_a_replica_set_can_create_a_pod() {
    let mut cluster = Cluster::enforcing(&points_at("auth"));
    cluster.delete(Kind::ContourDeployment, NAMESPACE, NAME);
    cluster.reconcile();
    assert!(cluster.api.get(Kind::Deployment, NAMESPACE, "edge-contour").is_none());
    let pods: Vec<_> = cluster.contour_pods().map(Object::key).collect();
    for pod in &pods {
        cluster.api.forget(pod);
    }
    assert_eq!(
        cluster.writes(),
        [""; 0],
        "the garbage collector has not deleted the ReplicaSet yet"
    );
    cluster.collect_garbage();
    let waves = cluster.plan().waves;
    let removals = waves.iter().filter(|wave| !wave.writes.is_empty());
    assert!(
        removals.clone().count() > 0 && removals.clone().all(|wave| wave.needs_live_read),
        "a watch may lag, so every deletion requires a live read"
    );
}

#[test]
fn a_contour_deployment_with_a_refused_spec_can_be_deleted() {
    let mut cluster = Cluster::enforcing(&points_at("auth"));
    cluster.refuses_settings = Some("no".into());
    let mut asks = super::scene::asks_auth();
    asks["runtimeSettings"]["foo"] = 1.into();
    cluster.specify(asks);
    cluster.reconcile();
    cluster.delete(Kind::ContourDeployment, NAMESPACE, NAME);
    cluster.settle();
    assert_eq!(left(&cluster), [""; 0]);
}

#[test]
fn a_deletion_before_the_first_reconcile_releases_the_owner() {
    let mut cluster = Cluster::new();
    cluster.specify(super::scene::asks_auth());
    cluster.delete(Kind::ContourDeployment, NAMESPACE, NAME);
    assert_eq!(cluster.writes(), [""; 0]);
    assert_eq!(left(&cluster), [""; 0]);
}

#[test]
fn a_hanging_pod_delays_a_deletion_for_at_most_a_minute() {
    let mut cluster = deleting();
    cluster.reconcile();
    cluster.collect_garbage();
    cluster.api.now += Duration::from_secs(61);
    cluster.reconcile();
    assert!(!cluster.api.objects.contains_key(&deployment_key()));
}

#[test]
fn a_foreign_finalizer_delays_a_deletion_only_at_home() {
    for is_at_home in [true, false] {
        let mut cluster = deleting();
        let key = if is_at_home {
            Key::new(Kind::Service, NAMESPACE, "edge-envoy")
        } else {
            cluster.stand_in().key()
        };
        cluster.api.edit(&key, |object| {
            object
                .metadata
                .finalizers
                .get_or_insert_default()
                .push("example.com/mine".into());
        });
        cluster.reconcile();
        cluster.collect_garbage();
        cluster.terminating_pods_end();
        cluster.reconcile();
        let object = &cluster.api.objects[&key];
        assert!(object.is_terminating() && !object.has_our_finalizer(), "{key}");
        if is_at_home {
            let status = cluster.status();
            let ready = status.conditions.iter().find(|condition| condition.type_ == "Ready");
            let message = &ready.expect("the condition exists").message;
            assert!(message.contains(&key.to_string()), "{message}");
        } else {
            assert!(cluster.observe().is_none(), "the ContourDeployment is gone");
        }
    }
}

#[test]
fn a_terminating_namespace_receives_no_new_objects() {
    let mut cluster = Cluster::enforcing(&points_at("auth"));
    cluster.delete(Kind::Namespace, "", NAMESPACE);
    cluster.specify(super::scene::asks_auth_fail_open());
    assert_eq!(cluster.writes(), [""; 0]);
    assert_eq!(cluster.condition("Stalled"), "True/NamespaceTerminating");
}
