//! Slipway keeps everything that a container may have read at its start, and prunes everything else.

use serde_json::json;
use slipway::api::vocabulary::annotations;
use slipway::plan::{Key, Kind, Object, Write};

use super::cluster::{Cluster, NAMESPACE, described};
use super::scene::{asks_auth_fail_open, auth, id, points_at, points_at_with_timeout};

/// Returns a cluster in which the stand-in and the configuration have successors and every old pod still exists, and the keys of
/// the old objects.
fn succeeded() -> (Cluster, [Key; 3]) {
    let mut cluster = Cluster::enforcing(&points_at_with_timeout("auth", "500ms"));
    let stand_in = cluster.stand_in().key();
    let blackhole = Key::new(Kind::Service, &stand_in.namespace, &stand_in.name);
    let old = [cluster.configuration().key(), stand_in, blackhole];
    cluster.edit_auth(points_at_with_timeout("auth", "900ms"));
    cluster.contour_writes_verdict(&auth(), Ok(()));
    cluster.reconcile();
    (cluster, old)
}

fn all_exist(cluster: &Cluster, keys: &[Key]) -> bool {
    keys.iter().all(|key| {
        cluster
            .api
            .objects
            .get(key)
            .is_some_and(|object| !object.is_terminating())
    })
}

#[test]
fn inputs_of_an_active_replica_set_or_terminating_pod_remain() {
    let (mut cluster, old) = succeeded();
    cluster.new_pods_start();
    assert_eq!(cluster.writes(), [""; 0], "the old ReplicaSet has replicas");
    assert!(all_exist(&cluster, &old));
    cluster.old_pods_terminate();
    cluster.reconcile();
    assert!(all_exist(&cluster, &old), "the old pods are Terminating");
    cluster.terminating_pods_end();
    cluster.reconcile();
    assert!(old.iter().all(|key| !cluster.api.objects.contains_key(key)));
}

#[test]
fn inputs_of_a_replica_set_without_pods_remain() {
    let (mut cluster, old) = succeeded();
    cluster.new_pods_start();
    let pods: Vec<Key> = cluster.contour_pods().map(Object::key).collect();
    for key in &pods {
        cluster.api.forget(key);
    }
    cluster.reconcile();
    assert!(all_exist(&cluster, &old));
}

#[test]
fn inputs_of_a_pod_without_a_replica_set_remain() {
    let (mut cluster, old) = succeeded();
    cluster.new_pods_start();
    let sets: Vec<Key> = cluster.api.of_kind(Kind::ReplicaSet).map(Object::key).collect();
    for key in &sets {
        cluster.api.forget(key);
    }
    cluster.reconcile();
    assert!(all_exist(&cluster, &old));
}

#[test]
fn inputs_of_a_pod_that_has_failed_are_pruned() {
    let (mut cluster, old) = succeeded();
    cluster.new_pods_start();
    cluster.old_pods_terminate();
    let ended: Vec<Key> = cluster
        .contour_pods()
        .filter(|pod| pod.is_terminating())
        .map(Object::key)
        .collect();
    for key in &ended {
        cluster
            .api
            .edit(key, |pod| pod.content["status"]["phase"] = "Failed".into());
    }
    cluster.reconcile();
    assert!(old.iter().all(|key| !cluster.api.objects.contains_key(key)));
}

#[test]
fn no_input_is_pruned_before_the_controllers_catch_up() {
    for kind in [Kind::Deployment, Kind::ReplicaSet] {
        let (mut cluster, old) = succeeded();
        cluster.roll();
        let late = |object: &&Object| object.name().starts_with("edge-contour");
        let keys: Vec<Key> = cluster.api.of_kind(kind).filter(late).map(Object::key).collect();
        for key in &keys {
            cluster
                .api
                .edit(key, |object| object.content["status"]["observedGeneration"] = 0.into());
        }
        cluster.reconcile();
        assert!(
            all_exist(&cluster, &old),
            "{kind}: the controller may create pods that are not visible yet"
        );
        for key in &keys {
            cluster.api.edit(key, |object| drop(object.content.remove("status")));
        }
        cluster.reconcile();
        assert!(all_exist(&cluster, &old), "{kind}: no status at all");
    }
}

#[test]
fn a_changed_pod_annotation_neither_frees_nor_alters_its_inputs() {
    let configuration = succeeded().1[0].name.clone();
    let open = json!({"globalExtAuth": {"extensionRef": {"namespace": "auth", "name": "open"}, "failOpen": true}});
    let table = [
        json!({"configuration": configuration}),
        json!({"configuration": configuration, "standIns": []}),
        json!({"configuration": configuration, "standIns": [], "settings": "a.b", "spec": {}}),
        json!({"configuration": configuration, "standIns": ["auth/open"], "settings": ".", "spec": open}),
    ];
    for annotation in table {
        let (mut cluster, old) = succeeded();
        let as_it_was = cluster.api.objects[&old[0]].at("/spec").cloned();
        cluster.new_pods_start();
        cluster.old_pods_terminate();
        let ending = |pod: &&Object| pod.is_terminating();
        let pods: Vec<Key> = cluster.contour_pods().filter(ending).map(Object::key).collect();
        for key in &pods {
            cluster.api.edit(key, |pod| {
                pod.annotate(annotations::STARTUP_INPUTS, annotation.to_string());
            });
        }
        cluster.reconcile();
        assert!(all_exist(&cluster, &old), "{annotation}");
        assert_eq!(
            cluster.api.objects[&old[0]].at("/spec").cloned(),
            as_it_was,
            "{annotation}"
        );
    }
}

#[test]
fn slipway_recreates_a_deleted_configuration_that_is_in_use() {
    let (mut cluster, [configuration, ..]) = succeeded();
    cluster.new_pods_start();
    let as_it_was = cluster.api.objects[&configuration].at("/spec").cloned();
    cluster.api.forget(&configuration);
    assert_eq!(cluster.writes(), [format!("Create {configuration}")]);
    assert_eq!(cluster.api.objects[&configuration].at("/spec").cloned(), as_it_was);
}

#[test]
fn a_blackhole_is_deleted_after_its_stand_in_and_a_live_read() {
    let (mut cluster, [_, stand_in, blackhole]) = succeeded();
    cluster.roll();
    cluster.reconcile_until_crash(1);
    cluster.ask(&cluster.plan());
    let planned = cluster.plan();
    let wave = planned
        .waves
        .iter()
        .find(|wave| wave.needs_live_read && !wave.writes.is_empty())
        .expect("a wave that requires a live read");
    assert!(
        wave.writes
            .iter()
            .any(|write| matches!(write, Write::Delete(target) if target.key == stand_in))
    );
    assert!(
        !described(&wave.writes).contains(&format!("Delete {blackhole}")),
        "the stand-in of the blackhole still exists"
    );
    let writes = cluster.writes();
    let position = |text: String| {
        writes
            .iter()
            .position(|write| *write == text)
            .unwrap_or_else(|| panic!("{text}: {writes:?}"))
    };
    assert!(position(format!("Release {stand_in}")) < position(format!("Delete {blackhole}")));
    assert!(position(format!("Delete {blackhole}")) < position(format!("Release {blackhole}")));
}

#[test]
fn objects_that_no_container_reads_are_pruned_without_live_read() {
    let mut cluster = Cluster::enforcing(&points_at("auth"));
    let owner = cluster.observe().expect("the ContourDeployment exists").owner();
    let strays = [Kind::Secret, Kind::Service].map(|kind| Key::new(kind, NAMESPACE, "stray"));
    for key in &strays {
        let metadata = owner.metadata(key.kind, NAMESPACE, &key.name);
        cluster.create(key.kind, json!({"metadata": metadata}));
    }
    let planned = cluster.plan();
    let wave = planned
        .waves
        .iter()
        .find(|wave| !wave.writes.is_empty())
        .expect("a wave");
    assert_eq!(described(&wave.writes), strays.map(|key| format!("Delete {key}")));
    assert!(!wave.needs_live_read);
}

#[test]
fn slipway_keeps_the_finalizer_of_another_user_on_a_stand_in() {
    let (mut cluster, [_, stand_in, blackhole]) = succeeded();
    cluster.api.edit(&stand_in, |object| {
        object
            .metadata
            .finalizers
            .get_or_insert_default()
            .push("example.com/mine".into());
    });
    cluster.roll();
    cluster.reconcile();
    let held = &cluster.api.objects[&stand_in];
    assert_eq!(
        held.metadata.finalizers.as_deref(),
        Some(&["example.com/mine".to_owned()][..])
    );
    assert!(
        cluster.api.objects.contains_key(&blackhole),
        "the stand-in of the blackhole still exists"
    );
    assert_eq!(cluster.writes(), [""; 0]);
}

#[test]
fn a_change_reverted_during_a_rollout_reuses_the_configuration() {
    let mut cluster = Cluster::enforcing(&points_at("auth"));
    let (configuration, stand_in) = (cluster.configuration().key(), id(cluster.stand_in()));
    let spec = cluster
        .observe()
        .expect("the ContourDeployment exists")
        .deployment
        .spec
        .clone();
    cluster.specify(asks_auth_fail_open());
    cluster.reconcile();
    cluster.new_pods_start();
    cluster.specify(serde_json::to_value(spec).expect("JSON"));
    cluster.settle();
    assert_eq!(
        (cluster.configuration().key(), id(cluster.stand_in())),
        (configuration, stand_in)
    );
    assert_eq!(cluster.api.of_kind(Kind::ContourConfiguration).count(), 1);
}
