//! What somebody altered is put right and succeeded, and who keeps altering it does not keep Contour rolling.

use std::time::Duration;

use serde_json::json;
use slipway::api::Traffic;
use slipway::api::vocabulary::annotations;
use slipway::plan::{Key, Kind, Object, Owner, bears_our_name};

use crate::cluster::{Cluster, NAMESPACE, captured, described};
use crate::scene::{asks_auth, auth, is_blackhole, points_at, points_at_with_timeout, remembered};

/// Somebody switches checking off, in the configuration that Contour's Deployment names. Returns its key.
fn alter_configuration(cluster: &mut Cluster) -> Key {
    let key = cluster.configuration().key();
    cluster.api.edit(&key, |object| {
        object.content["spec"]["globalExtAuth"]["authPolicy"] = json!({"disabled": true});
    });
    key
}

#[test]
fn an_altered_configuration_is_put_right_and_contour_is_rolled_to_a_successor_of_the_same_content() {
    let mut cluster = Cluster::enforcing(&points_at("auth"));
    let as_it_was = cluster.configuration().at("/spec").cloned();
    let altered = alter_configuration(&mut cluster);
    cluster.reconcile();
    assert_eq!(cluster.api.objects[&altered].at("/spec").cloned(), as_it_was);
    let successor = cluster.configuration().clone();
    assert_ne!(successor.key(), altered);
    assert_eq!(successor.at("/spec").cloned(), as_it_was);
    assert_eq!(cluster.condition("Degraded"), "True/ConfigurationAltered");
    assert_eq!(
        cluster.status().extension_services[0].traffic,
        Traffic::Unknown,
        "a Contour that started meanwhile may not ask"
    );
    cluster.settle();
    assert!(!cluster.api.objects.contains_key(&altered));
    assert_eq!(cluster.configuration().key(), successor.key(), "and nothing rolls back");
    assert_eq!(cluster.condition("Ready"), "True/AsSpecified");
    assert_eq!(cluster.status().extension_services[0].traffic, Traffic::Enforced);
}

#[test]
fn a_configuration_that_somebody_is_deleting_is_succeeded() {
    let mut cluster = Cluster::enforcing(&points_at("auth"));
    let key = cluster.configuration().key();
    cluster.api.edit(&key, |object| {
        object.metadata.finalizers = Some(vec!["example.com/mine".into()]);
    });
    cluster.delete(key.kind, &key.namespace, &key.name);
    cluster.reconcile();
    assert_ne!(cluster.configuration().key(), key);
}

#[test]
fn a_configuration_that_somebody_deleted_may_have_been_altered_before_and_is_succeeded() {
    let mut cluster = Cluster::enforcing(&points_at("auth"));
    let deleted = cluster.configuration().key();
    cluster.api.forget(&deleted);
    cluster.reconcile();
    assert_ne!(cluster.configuration().key(), deleted);
    assert!(
        cluster.api.objects.contains_key(&deleted),
        "a container that starts again before the rollout needs it"
    );
    cluster.settle();
    assert!(!cluster.api.objects.contains_key(&deleted));
    assert_eq!(cluster.condition("Ready"), "True/AsSpecified");
}

#[test]
fn a_configuration_that_somebody_deleted_is_succeeded_also_if_the_operator_is_killed_after_it_was_made_again() {
    for survived in 0.. {
        let mut cluster = Cluster::enforcing(&points_at("auth"));
        let deleted = cluster.configuration().key();
        cluster.api.forget(&deleted);
        cluster.reconcile_until_crash(survived);
        let is_rolled = captured(cluster.contour())["configuration"] != deleted.name.as_str();
        cluster.settle();
        assert_ne!(cluster.configuration().key(), deleted, "killed after {survived} writes");
        assert!(!cluster.api.objects.contains_key(&deleted));
        assert_eq!(cluster.condition("Ready"), "True/AsSpecified");
        if is_rolled {
            assert!(survived > 1, "one that was made again, and then its successor");
            return;
        }
    }
}

#[test]
fn who_keeps_altering_configurations_makes_contour_roll_ever_less_often() {
    let mut cluster = Cluster::enforcing(&points_at("auth"));
    alter_configuration(&mut cluster);
    cluster.settle();
    let second = alter_configuration(&mut cluster);
    cluster.settle();
    assert_eq!(
        cluster.configuration().key(),
        second,
        "it is new, and stays for a while"
    );
    assert_eq!(cluster.plan().look_again, Some(Duration::from_secs(5)));
    assert_eq!(cluster.condition("Degraded"), "True/ConfigurationAltered");
    cluster.api.now += Duration::from_secs(5);
    cluster.settle();
    assert_ne!(cluster.configuration().key(), second);
    assert_eq!(cluster.condition("Degraded"), "False/Healthy");
}

#[test]
fn a_configuration_that_follows_a_successor_is_another_name_even_if_the_content_was_there_before() {
    let mut cluster = Cluster::enforcing(&points_at("auth"));
    let first = alter_configuration(&mut cluster);
    cluster.settle();
    let spec = cluster.observe().expect("it exists").deployment.spec.clone();
    cluster.specify(crate::scene::asks_auth_fail_open());
    cluster.settle();
    cluster.specify(serde_json::to_value(spec).expect("JSON"));
    cluster.settle();
    assert_ne!(cluster.configuration().key(), first, "the salt is not forgotten");
}

/// The namespace of the authorization service goes and comes.
fn flap(cluster: &mut Cluster) {
    cluster.delete(Kind::Namespace, "", "auth");
    cluster.settle();
    cluster.make_namespace("auth");
    cluster.settle();
}

#[test]
fn a_namespace_that_comes_and_goes_makes_contour_roll_ever_less_often_and_is_never_held() {
    let mut cluster = Cluster::waiting_for_auth();
    for _ in 0..2 {
        flap(&mut cluster);
        assert_eq!(cluster.stand_in().namespace(), "auth");
    }
    cluster.delete(Kind::Namespace, "", "auth");
    cluster.settle();
    assert_eq!(cluster.api.get(Kind::Namespace, "", "auth"), None, "nothing holds it");
    assert_eq!(cluster.stand_in().namespace(), NAMESPACE);
    cluster.make_namespace("auth");
    cluster.settle();
    assert_eq!(
        cluster.stand_in().namespace(),
        NAMESPACE,
        "the stand-in stays for a while"
    );
    assert_eq!(cluster.plan().look_again, Some(Duration::from_secs(10)));
    cluster.api.now += Duration::from_secs(10);
    cluster.settle();
    assert_eq!(cluster.stand_in().namespace(), "auth");
    cluster.api.now += Duration::from_mins(10);
    flap(&mut cluster);
    assert_eq!(
        cluster.stand_in().namespace(),
        "auth",
        "after a calm time nobody has to wait"
    );
}

#[test]
fn a_stand_in_that_has_to_stay_is_enforced_with_the_new_facts_all_the_same() {
    let mut cluster = Cluster::enforcing(&points_at_with_timeout("auth", "1s"));
    for seconds in 2..8 {
        let spec = points_at_with_timeout("auth", &format!("{seconds}s"));
        cluster.edit_auth(spec.clone());
        cluster.contour_says(&auth(), Ok(()));
        cluster.settle();
        assert_eq!(cluster.stand_in().at("/spec"), Some(&spec));
    }
    let memory = remembered(cluster.stand_in());
    assert_eq!(
        (&memory["pinned"]["response"], &memory["moves"]),
        (&json!("6s"), &json!(5))
    );
    cluster.api.now += Duration::from_secs(10);
    cluster.settle();
    assert_eq!(remembered(cluster.stand_in())["pinned"]["response"], "7s");
}

#[test]
fn a_stand_in_that_has_to_stay_stays_for_its_own_role() {
    let mut cluster = Cluster::enforcing(&points_at_with_timeout("auth", "1s"));
    let auth_and_tracing = json!({"namespace": "auth", "name": "auth"});
    cluster.specify(json!({"runtimeSettings": {
        "globalExtAuth": {"extensionRef": auth_and_tracing}, "tracing": {"extensionService": auth_and_tracing},
    }}));
    for seconds in 2..8 {
        cluster.edit_auth(points_at_with_timeout("auth", &format!("{seconds}s")));
        cluster.contour_says(&auth(), Ok(()));
        cluster.settle();
        for service in cluster.status().extension_services {
            let stand_in = service.stand_in.expect("a stand-in").name;
            let of_the_role = format!("edge-{}-", service.role.slug());
            assert!(
                stand_in.starts_with(&of_the_role),
                "{stand_in} for {}",
                service.role.slug()
            );
        }
    }
}

#[test]
fn a_stand_in_that_somebody_deleted_with_its_finalizer_while_an_old_container_may_read_it_is_made_again() {
    for before in [points_at("auth"), points_at_with_timeout("auth", "500ms")] {
        let mut cluster = Cluster::enforcing(&before);
        let old = cluster.stand_in().key();
        cluster.edit_auth(points_at_with_timeout("auth", "900ms"));
        cluster.contour_says(&auth(), Ok(()));
        cluster.reconcile();
        cluster.pods_come();
        assert_ne!(cluster.stand_in().key(), old);
        cluster.api.forget(&old);
        cluster.reconcile();
        assert_eq!(
            cluster.api.objects[&old].at("/spec"),
            Some(&points_at_with_timeout("auth", "900ms")),
            "and it is enforced"
        );
        assert_eq!(remembered(&cluster.api.objects[&old])["tainted"], true);
        cluster.settle();
        assert!(!cluster.api.objects.contains_key(&old));
    }
}

#[test]
fn a_stand_in_that_was_made_again_is_not_planned_again_though_it_bears_the_name_that_would_be() {
    let mut cluster = Cluster::enforcing(&points_at("auth"));
    let old = cluster.stand_in().key();
    cluster.edit_auth(points_at_with_timeout("auth", "900ms"));
    cluster.contour_says(&auth(), Ok(()));
    cluster.reconcile();
    cluster.pods_come();
    cluster.delete(Kind::ExtensionService, "auth", "auth");
    cluster.reconcile();
    cluster.api.forget(&old);
    cluster.reconcile();
    assert!(is_blackhole(&cluster.api.objects[&old]));
    cluster.make_extension_service("auth", "auth", &points_at("auth"));
    cluster.contour_says(&auth(), Ok(()));
    cluster.reconcile();
    assert_ne!(
        cluster.stand_in().key(),
        old,
        "nobody knows what a container captured there"
    );
    assert_eq!(cluster.stand_in().at("/spec"), Some(&points_at("auth")));
}

#[test]
fn a_stand_in_without_labels_is_known_by_its_name_and_its_salt_is_not_forgotten() {
    let mut cluster = Cluster::enforcing(&points_at("auth"));
    let first = cluster.stand_in().key();
    cluster.delete(first.kind, &first.namespace, &first.name);
    cluster.settle();
    let second = cluster.stand_in().clone();
    assert_eq!(remembered(&second)["salt"], 1);
    cluster.api.edit(&second.key(), |object| object.metadata.labels = None);
    let bare = &cluster.api.objects[&second.key()];
    let deployment = cluster.observe().expect("it exists").deployment;
    assert!(bears_our_name(&Owner::of(&deployment.metadata), bare));
    assert_eq!(cluster.writes(), [format!("Replace {}", second.key())]);
    assert_eq!(cluster.stand_in().metadata.labels, second.metadata.labels);
}

#[test]
fn a_stand_in_of_another_s_name_or_memory_is_not_taken_for_ours() {
    let cluster = Cluster::enforcing(&points_at("auth"));
    let mut deployment = cluster.observe().expect("it exists").deployment.metadata.clone();
    deployment.namespace = Some("elsewhere".into());
    assert!(!bears_our_name(&Owner::of(&deployment), cluster.stand_in()));
    let mut forged = cluster.stand_in().clone();
    forged.metadata.name = Some("edge-ext-auth-0123456789".into());
    deployment.namespace = Some(NAMESPACE.into());
    assert!(!bears_our_name(&Owner::of(&deployment), &forged));
}

#[test]
fn what_a_pod_says_that_it_has_captured_makes_nothing_where_no_stand_in_belongs() {
    let mut cluster = Cluster::enforcing(&points_at("auth"));
    cluster.make_namespace("kube-system");
    let mut said = captured(cluster.contour());
    said["standIns"] = json!(["kube-system/edge-ext-auth-0123456789"]);
    let pod = cluster.contour_pods().next().expect("a pod").key();
    cluster
        .api
        .edit(&pod, |pod| pod.annotate(annotations::CAPTURED, said.to_string()));
    cluster.settle();
    let there = |object: &&Object| object.namespace() == "kube-system";
    assert_eq!(cluster.api.objects.values().filter(there).count(), 0);
}

#[test]
fn while_a_spec_is_refused_what_somebody_deletes_of_what_ran_is_made_again_on_the_last_good_configuration() {
    let mut cluster = Cluster::enforcing(&points_at("auth"));
    let (configuration, template) = (cluster.configuration().key(), cluster.template());
    cluster.refuses_settings = Some("spec.foo: unknown".into());
    cluster.specify(json!({
        "contour": {"logLevel": "debug"},
        "runtimeSettings": {"foo": 1, "globalExtAuth": {"extensionRef": {"namespace": "auth", "name": "auth"}, "failOpen": true}},
    }));
    cluster.settle();
    assert_eq!(cluster.template(), template, "nothing of it is applied");
    for (kind, name) in [
        (Kind::Deployment, "edge-contour"),
        (Kind::DaemonSet, "edge-envoy"),
        (Kind::Service, "edge-envoy"),
        (Kind::Service, "edge-contour"),
    ] {
        cluster.delete(kind, NAMESPACE, name);
        cluster.settle();
        assert!(cluster.api.get(kind, NAMESPACE, name).is_some(), "{kind} {name}");
    }
    assert_eq!(cluster.configuration().key(), configuration);
    assert_eq!(cluster.condition("ConfigurationValid"), "False/ConfigurationRefused");
    assert_eq!(cluster.writes(), [""; 0]);
}

/// Rolled to a specification that references nothing any more; and the stand-in that was used before.
fn without_its_reference() -> (Cluster, Key) {
    let mut cluster = Cluster::enforcing(&points_at("auth"));
    let stand_in = cluster.stand_in().key();
    cluster.specify(json!({"runtimeSettings": {}}));
    cluster.reconcile();
    cluster.roll();
    (cluster, stand_in)
}

#[test]
fn what_was_on_its_way_out_when_a_spec_is_refused_goes() {
    let (mut cluster, stand_in) = without_its_reference();
    while !cluster.api.objects[&stand_in].is_terminating() {
        assert_ne!(cluster.reconcile_until_crash(1), [], "nothing is left to be written");
    }
    cluster.refuses_settings = Some("spec.foo: unknown".into());
    cluster.specify(json!({"runtimeSettings": {"foo": 1}}));
    cluster.settle();
    assert!(!cluster.api.objects.contains_key(&stand_in));
}

#[test]
fn what_was_not_on_its_way_out_when_a_spec_is_refused_stays() {
    let (mut cluster, stand_in) = without_its_reference();
    let told = cluster.reconcile_until_crash(1);
    assert_eq!(
        described(&told),
        [format!("Replace {}", cluster.configuration().key())],
        "it is rolled out"
    );
    cluster.refuses_settings = Some("spec.foo: unknown".into());
    cluster.specify(json!({"runtimeSettings": {"foo": 1}}));
    cluster.settle();
    assert!(!cluster.api.objects[&stand_in].is_terminating());
    assert!(
        cluster.plan().look_again.is_some(),
        "its certificates are renewed all the same"
    );
}

#[test]
fn a_configuration_that_was_never_rolled_out_completely_is_not_the_last_good_one() {
    let mut cluster = Cluster::new();
    cluster.make_service("auth", "auth");
    cluster.specify(asks_auth());
    cluster.reconcile();
    cluster.refuses_settings = Some("spec.foo: unknown".into());
    cluster.specify(json!({"runtimeSettings": {"foo": 1}}));
    cluster.delete(Kind::Deployment, NAMESPACE, "edge-contour");
    cluster.settle();
    assert!(cluster.api.get(Kind::Deployment, NAMESPACE, "edge-contour").is_none());
}

#[test]
fn missing_crds_hold_no_namespace_a_blackhole_whose_stand_in_is_gone_is_let_go() {
    let mut cluster = Cluster::enforcing(&points_at("auth"));
    let stand_in = cluster.stand_in().clone();
    assert!(!is_blackhole(&stand_in));
    cluster.missing_crds = vec!["extensionservices.projectcontour.io".into()];
    cluster.delete(Kind::Namespace, "", "auth");
    cluster.namespaces_end();
    let blackhole = Key::new(Kind::Service, "auth", stand_in.name());
    let expected = [stand_in.key(), blackhole].map(|key| format!("Release {key}"));
    assert_eq!(cluster.writes(), expected, "in this order");
    cluster.namespaces_end();
    assert_eq!(cluster.api.get(Kind::Namespace, "", "auth"), None);
}
