//! The way out: Contour first, then everything else, its own finalizer last.

use std::time::Duration;

use slipway::plan::{Key, Kind, Object};

use crate::cluster::{Cluster, NAME, NAMESPACE, deployment_key, described};
use crate::scene::points_at;

/// Settled, and then deleted.
fn deleting() -> Cluster {
    let mut cluster = Cluster::enforcing(&points_at("auth"));
    cluster.delete(Kind::ContourDeployment, NAMESPACE, NAME);
    cluster
}

/// What is left that carries a mark of Slipway's.
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
fn contours_deployment_goes_first_and_nothing_else_until_its_pods_are_gone() {
    let mut cluster = deleting();
    assert_eq!(cluster.writes(), ["Delete Deployment projectcontour/edge-contour"]);
    assert_eq!(cluster.writes(), [""; 0], "its pods run");
    cluster.collect_garbage();
    assert!(cluster.contour_pods().all(Object::is_terminating) && cluster.contour_pods().count() == 2);
    assert_eq!(cluster.writes(), [""; 0], "its pods are Terminating");
    assert_eq!(cluster.condition("Ready"), "False/Deleting");
    cluster.terminating_pods_end();
    assert!(
        cluster
            .writes()
            .contains(&"Delete DaemonSet projectcontour/edge-envoy".to_owned())
    );
}

#[test]
fn stand_ins_go_before_blackholes_and_the_own_finalizer_last() {
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
fn nothing_is_left_but_what_the_garbage_collector_takes() {
    let mut cluster = deleting();
    cluster.settle();
    assert_eq!(left(&cluster), [""; 0]);
    assert!(
        cluster.api.get(Kind::ExtensionService, "auth", "auth").is_some(),
        "the user's own stays"
    );
    assert!(cluster.api.get(Kind::Service, "auth", "auth").is_some());
}

#[test]
fn it_needs_no_crd_of_contours() {
    let mut cluster = deleting();
    // With the CRDs go the objects.
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
fn without_contours_crds_a_blackhole_that_is_being_deleted_waits_for_its_stand_in() {
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
fn it_works_while_the_namespace_is_being_deleted_and_after_our_access_is_gone() {
    let mut cluster = Cluster::enforcing(&points_at("auth"));
    cluster.delete(Kind::Namespace, "", NAMESPACE);
    cluster.namespaces_end();
    assert_eq!(cluster.api.of_kind(Kind::RoleBinding).count(), 0);
    cluster.settle();
    assert_eq!(left(&cluster), [""; 0]);
    assert_eq!(cluster.api.get(Kind::Namespace, "", NAMESPACE), None);
}

#[test]
fn it_works_while_everything_that_it_references_is_being_deleted_too() {
    let mut cluster = deleting();
    cluster.delete(Kind::Namespace, "", "auth");
    cluster.settle();
    assert_eq!(left(&cluster), [""; 0]);
    assert_eq!(cluster.api.get(Kind::Namespace, "", "auth"), None);
}

#[test]
fn nothing_that_a_container_reads_goes_while_a_replica_set_may_make_a_pod() {
    let mut cluster = Cluster::enforcing(&points_at("auth"));
    cluster.delete(Kind::ContourDeployment, NAMESPACE, NAME);
    cluster.reconcile();
    assert!(cluster.api.get(Kind::Deployment, NAMESPACE, "edge-contour").is_none());
    let pods: Vec<_> = cluster.contour_pods().map(Object::key).collect();
    for pod in &pods {
        cluster.api.forget(pod);
    }
    assert_eq!(cluster.writes(), [""; 0], "the ReplicaSet was not collected yet");
    cluster.collect_garbage();
    let waves = cluster.plan().waves;
    let removals = waves.iter().filter(|wave| !wave.writes.is_empty());
    assert!(
        removals.clone().count() > 0 && removals.clone().all(|wave| wave.needs_live_read),
        "a watch may lag"
    );
}

#[test]
fn a_spec_that_is_refused_can_be_deleted() {
    let mut cluster = Cluster::enforcing(&points_at("auth"));
    cluster.refuses_settings = Some("no".into());
    let mut asks = crate::scene::asks_auth();
    asks["runtimeSettings"]["foo"] = 1.into();
    cluster.specify(asks);
    cluster.reconcile();
    cluster.delete(Kind::ContourDeployment, NAMESPACE, NAME);
    cluster.settle();
    assert_eq!(left(&cluster), [""; 0]);
}

#[test]
fn one_that_was_deleted_before_anything_was_made_just_goes() {
    let mut cluster = Cluster::new();
    cluster.specify(crate::scene::asks_auth());
    cluster.delete(Kind::ContourDeployment, NAMESPACE, NAME);
    assert_eq!(cluster.writes(), [""; 0]);
    assert_eq!(left(&cluster), [""; 0]);
}

#[test]
fn a_pod_that_hangs_does_not_hold_the_deletion_for_ever() {
    let mut cluster = deleting();
    cluster.reconcile();
    cluster.collect_garbage();
    cluster.api.now += Duration::from_secs(61);
    cluster.reconcile();
    assert!(!cluster.api.objects.contains_key(&deployment_key()));
}

#[test]
fn somebody_elses_finalizer_is_waited_for_and_named_at_home_and_holds_nothing_up_elsewhere() {
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
            let message = &ready.expect("it is said").message;
            assert!(message.contains(&key.to_string()), "{message}");
        } else {
            assert!(cluster.observe().is_none(), "the ContourDeployment is gone");
        }
    }
}

#[test]
fn a_namespace_that_is_being_deleted_gets_nothing_new() {
    let mut cluster = Cluster::enforcing(&points_at("auth"));
    cluster.delete(Kind::Namespace, "", NAMESPACE);
    cluster.specify(crate::scene::asks_auth_fail_open());
    assert_eq!(cluster.writes(), [""; 0]);
    assert_eq!(cluster.condition("Stalled"), "True/NamespaceTerminating");
}
