//! The effect of Contour's verdicts and of the user's Services on a copy: when Slipway withdraws the copy, and when Slipway
//! restores the copy.

use std::time::Duration;

use serde_json::json;
use slipway::plan::{Key, Kind, Write};

use super::cluster::Cluster;
use super::scene::{asks_auth, auth, is_blackhole, points_at};

fn service() -> Key {
    Key::new(Kind::Service, "auth", "auth")
}

#[test]
fn a_missing_service_withdraws_the_copy_until_it_returns() {
    let mut cluster = Cluster::enforcing(&points_at("auth"));
    cluster.delete(Kind::Service, "auth", "auth");
    assert_eq!(cluster.writes().len(), 1);
    assert!(is_blackhole(cluster.stand_in()));
    assert_eq!(
        cluster.condition("ExtensionServicesAvailable"),
        "False/ExtensionServiceInvalid"
    );
    let spec = json!({"ports": [{"port": 9001}]});
    cluster.create(
        Kind::Service,
        json!({"metadata": {"name": "auth", "namespace": "auth"}, "spec": spec}),
    );
    assert_eq!(cluster.writes().len(), 1);
    assert_eq!(cluster.stand_in().at("/spec"), Some(&points_at("auth")));
}

#[test]
fn slipway_nudges_contour_when_an_unresolved_service_exists() {
    let mut cluster = Cluster::waiting_for_auth();
    cluster.create_extension_service("auth", "auth", &points_at("auth"));
    cluster.delete(Kind::Service, "auth", "auth");
    cluster.contour_writes_verdict(&auth(), Err(("ServiceUnresolvedReference", "not found")));
    cluster.reconcile();
    let nudge = |cluster: &Cluster| cluster.stand_in().at("/spec/services/0/weight").cloned();
    assert_eq!(nudge(&cluster), None, "the Service does not exist");

    let spec = json!({"selector": {"app": "auth"}, "ports": [{"port": 9001}]});
    let service = json!({"metadata": {"name": "auth", "namespace": "auth"}, "spec": spec});
    cluster.create(Kind::Service, service);
    for (wait, weight) in [(0, 1), (4, 1), (1, 2), (600, 1), (600, 2)] {
        cluster.api.now += Duration::from_secs(wait);
        cluster.reconcile();
        assert!(is_blackhole(cluster.stand_in()));
        assert_eq!(nudge(&cluster), Some(json!(weight)), "{wait} s later");
        assert_eq!(cluster.writes(), [""; 0], "one nudge");
    }
    assert_eq!(cluster.plan().requeue_after, Some(Duration::from_secs(295)));

    cluster.contour_writes_verdict(&auth(), Err(("TLSUpstreamValidation", "judged again")));
    cluster.contour_writes_verdict(&cluster.stand_in().key(), Ok(()));
    assert_eq!(cluster.writes(), [""; 0], "Slipway keeps the weight");
    cluster.contour_writes_verdict(&auth(), Ok(()));
    cluster.reconcile();
    assert_eq!(cluster.stand_in().at("/spec"), Some(&points_at("auth")));
}

#[test]
fn slipway_nudges_contour_when_an_unresolved_blackhole_exists() {
    let mut without_namespace = Cluster::new();
    without_namespace.specify(asks_auth());
    without_namespace.settle();
    for mut cluster in [Cluster::waiting_for_auth(), without_namespace] {
        let stand_in = cluster.stand_in().clone();
        cluster.contour_writes_verdict(&stand_in.key(), Err(("ServiceUnresolvedReference", "not found")));
        assert_eq!(cluster.writes().len(), 1);
        assert_eq!(cluster.stand_in().at("/spec/services/0/weight"), Some(&json!(1)));
        cluster.api.now += Duration::from_mins(1);
        assert_eq!(cluster.writes(), [""; 0], "Slipway waits for a verdict on the nudge");
        cluster.contour_writes_verdict(&stand_in.key(), Err(("ServiceUnresolvedReference", "not found")));
        assert_eq!(cluster.writes().len(), 1);
        assert_eq!(cluster.stand_in().at("/spec/services/0/weight"), Some(&json!(2)));
        cluster.contour_writes_verdict(&stand_in.key(), Ok(()));
        assert_eq!(cluster.writes(), [""; 0], "Slipway keeps the weight");
    }
}

#[test]
fn contours_that_always_disagree_cause_few_writes() {
    let enforcing = Cluster::enforcing(&points_at("auth"));
    let stand_in = enforcing.stand_in().key();
    for (mut cluster, of) in [
        (Cluster::waiting_for_auth(), &stand_in),
        (enforcing.clone(), &stand_in),
        (enforcing, &auth()),
    ] {
        let disagree = |cluster: &mut Cluster| {
            let mut writes = 0;
            for _ in 0..10 {
                cluster.contour_writes_verdict(of, Err(("ServiceUnresolvedReference", "not found")));
                writes += cluster.writes().len();
                cluster.contour_writes_verdict(of, Ok(()));
                cluster.contour_writes_verdict(&stand_in, Ok(()));
                writes += cluster.writes().len();
            }
            writes
        };
        assert_eq!(disagree(&mut cluster), 1, "{of:?}");
        cluster.api.now += Duration::from_mins(10);
        assert_eq!(disagree(&mut cluster), 1, "{of:?}, later");
    }
}

#[test]
fn slipway_nudges_contour_each_time_a_port_was_missing() {
    let mut cluster = Cluster::enforcing(&points_at("auth"));
    for round in 0..3 {
        for port in [9002, 9001] {
            cluster.api.edit(&service(), |object| {
                object.content["spec"]["ports"] = json!([{"port": port}]);
            });
            cluster.reconcile();
            cluster.contour_writes_verdict(&cluster.stand_in().key(), Ok(()));
            cluster.contour_writes_verdict(&auth(), Err(("ServiceUnresolvedReference", "no such port")));
            cluster.reconcile();
        }
        let weight = cluster.stand_in().at("/spec/services/0/weight");
        assert_eq!(weight, Some(&json!(1)), "{round}");
        cluster.contour_writes_verdict(&auth(), Ok(()));
        cluster.reconcile();
        assert_eq!(cluster.stand_in().at("/spec"), Some(&points_at("auth")), "{round}");
    }
}

#[test]
fn a_copy_does_not_inherit_the_nudge_of_its_blackhole() {
    let mut cluster = Cluster::waiting_for_auth();
    cluster.create_extension_service("auth", "auth", &points_at("auth"));
    cluster.contour_writes_verdict(&auth(), Err(("ServiceUnresolvedReference", "not found")));
    cluster.reconcile();
    assert_eq!(cluster.stand_in().at("/spec/services/0/weight"), Some(&json!(1)));
    cluster.contour_writes_verdict(&auth(), Ok(()));
    assert_eq!(cluster.writes().len(), 1);
    assert_eq!(cluster.stand_in().at("/spec"), Some(&points_at("auth")));
}

#[test]
fn slipway_does_not_nudge_contour_for_services_not_yet_read() {
    let mut cluster = Cluster::enforcing(&points_at("auth"));
    cluster.contour_writes_verdict(&auth(), Err(("ServiceUnresolvedReference", "not found")));
    let mut observed = cluster.observe().expect("the ContourDeployment exists");
    observed.references_synced = false;
    assert!(slipway::plan::plan(&observed).is_settled());
    observed.references_synced = true;
    assert!(!slipway::plan::plan(&observed).is_settled());
}

#[test]
fn slipway_nudges_contour_while_a_former_copy_is_in_use() {
    let mut cluster = Cluster::enforcing(&points_at("auth"));
    cluster.edit_auth(points_at("later"));
    cluster.settle();
    assert_eq!(cluster.stand_in().at("/spec"), Some(&points_at("auth")));
    assert_eq!(
        cluster.condition("ExtensionServicesAvailable"),
        "False/ExtensionServiceInvalid"
    );
    cluster.create_service("auth", "later");
    cluster.settle();
    assert_eq!(cluster.stand_in().at("/spec"), Some(&points_at("later")));
    assert_eq!(cluster.condition("ExtensionServicesAvailable"), "True/AllAvailable");
}

#[test]
fn slipway_nudges_contour_while_settings_are_not_accepted() {
    let mut cluster = Cluster::enforcing(&points_at("auth"));
    cluster.edit_auth(points_at("later"));
    cluster.settle();
    cluster.create_service("auth", "later");
    let mut asks = asks_auth();
    asks["runtimeSettings"]["foo"] = 1.into();
    cluster.specify(asks);
    assert_ne!(cluster.plan().questions.len(), 0);
    assert_eq!(cluster.plan().requeue_after, Some(Duration::from_secs(5)), "unchecked");
    cluster.refuses_settings = Some("unknown field".into());
    cluster.reconcile();
    assert_eq!(cluster.condition("ConfigurationValid"), "False/ConfigurationRefused");
    assert_eq!(cluster.plan().requeue_after, Some(Duration::from_secs(5)), "refused");
}

#[test]
fn a_missing_port_withdraws_the_copy() {
    let mut cluster = Cluster::enforcing(&points_at("auth"));
    cluster.api.edit(&service(), |object| {
        object.content["spec"]["ports"] = json!([{"port": 9002}]);
    });
    assert_eq!(cluster.writes().len(), 1);
    assert!(is_blackhole(cluster.stand_in()));
}

#[test]
fn a_service_that_becomes_an_external_name_withdraws_the_copy() {
    let mut cluster = Cluster::enforcing(&points_at("auth"));
    cluster.api.edit(&service(), |object| {
        object.content["spec"]["type"] = "ExternalName".into();
    });
    assert_eq!(cluster.writes().len(), 1);
    assert!(is_blackhole(cluster.stand_in()));
}

#[test]
fn a_service_not_yet_read_does_not_count_as_missing() {
    let cluster = Cluster::enforcing(&points_at("auth"));
    let mut observed = cluster.observe().expect("the ContourDeployment exists");
    observed.services.clear();
    observed.references_synced = false;
    let planned = slipway::plan::plan(&observed);
    assert!(planned.is_settled(), "{:?}", planned.waves);
}

#[test]
fn a_verdict_about_contours_own_state_does_not_withdraw_a_copy() {
    let mut cluster = Cluster::enforcing(&points_at("auth"));
    for reason in ["SecretNotValid", "SomethingNew"] {
        for key in [auth(), cluster.stand_in().key()] {
            cluster.contour_writes_verdict(&key, Err((reason, "a client certificate of mine")));
        }
        assert_eq!(cluster.writes(), [""; 0], "{reason}");
        assert_eq!(cluster.stand_in().at("/spec"), Some(&points_at("auth")), "{reason}");
    }
}

#[test]
fn a_verdict_about_the_copy_withdraws_the_copy() {
    for reason in [
        "ServiceUnresolvedReference",
        "UnsupportedServiceType",
        "TLSUpstreamValidation",
        "CACertificateNotDelegated",
    ] {
        let mut cluster = Cluster::enforcing(&points_at("auth"));
        for key in [auth(), cluster.stand_in().key()] {
            cluster.contour_writes_verdict(&key, Err((reason, "gone")));
        }
        assert_eq!(cluster.writes().len(), 1, "{reason}");
        assert!(is_blackhole(cluster.stand_in()), "{reason}");
    }
}

#[test]
fn a_verdict_on_the_users_object_alone_does_not_withdraw() {
    let mut cluster = Cluster::enforcing(&points_at("auth"));
    cluster.contour_writes_verdict(&auth(), Err(("TLSUpstreamValidation", "gone")));
    assert_eq!(cluster.writes(), [""; 0]);
}

#[test]
fn a_stale_verdict_on_the_stand_in_does_not_withdraw() {
    let mut cluster = Cluster::enforcing(&points_at("auth"));
    let key = cluster.stand_in().key();
    cluster.contour_writes_verdict(&auth(), Err(("TLSUpstreamValidation", "gone")));
    cluster.contour_writes_verdict(&key, Err(("TLSUpstreamValidation", "gone")));
    cluster.api.edit(&key, |object| {
        object.content["status"]["conditions"][0]["observedGeneration"] = 0.into();
    });
    assert_eq!(cluster.writes(), [""; 0]);
}

#[test]
fn a_withdrawn_copy_returns_only_with_a_valid_verdict() {
    let mut cluster = Cluster::enforcing(&points_at("auth"));
    let stand_in = cluster.stand_in().key();
    for key in [auth(), stand_in.clone()] {
        cluster.contour_writes_verdict(&key, Err(("TLSUpstreamValidation", "gone")));
    }
    cluster.reconcile();
    // The blackhole that the stand-in points at now is valid.
    cluster.contour_writes_verdict(&stand_in, Ok(()));
    assert_eq!(
        cluster.writes(),
        [""; 0],
        "otherwise copy and blackhole would alternate forever"
    );
    assert!(is_blackhole(cluster.stand_in()));
    let says = |cluster: &Cluster| {
        cluster.status().extension_services[0]
            .message
            .clone()
            .expect("a message")
    };
    let said = says(&cluster);
    assert!(said.contains("is not valid: TLSUpstreamValidation: gone: "), "{said}");
    // No Contour has judged the current spec.
    cluster.edit_auth(points_at("auth2"));
    assert_eq!(cluster.writes(), [""; 0]);
    let said = says(&cluster);
    assert!(
        said.contains("is not valid: a Service or CA certificate that it references is no longer usable: "),
        "{said}"
    );
    cluster.edit_auth(points_at("auth"));
    assert_eq!(cluster.writes(), [""; 0]);
    cluster.contour_writes_verdict(&auth(), Ok(()));
    assert_eq!(cluster.writes().len(), 1);
    assert_eq!(cluster.stand_in().at("/spec"), Some(&points_at("auth")));
}

/// Returns the weight of the first Service of the stand-in.
fn weight(cluster: &Cluster) -> Option<serde_json::Value> {
    cluster.stand_in().at("/spec/services/0/weight").cloned()
}

fn reconcile_after_seconds(cluster: &mut Cluster, seconds: u64) {
    cluster.api.now += Duration::from_secs(seconds);
    cluster.reconcile();
}

#[test]
fn a_lost_verdict_is_nudged_for_until_the_service_is_enforced() {
    let mut cluster = Cluster::waiting_for_auth();
    cluster.create_extension_service("auth", "auth", &points_at("auth"));
    for (wait, nudged) in [
        (4, None),
        (1, Some(json!(1))),
        (10, Some(json!(2))),
        (5, Some(json!(2))),
    ] {
        cluster.contour_loses_its_verdicts();
        reconcile_after_seconds(&mut cluster, wait);
        assert!(is_blackhole(cluster.stand_in()));
        assert_eq!(weight(&cluster), nudged, "{wait} s later");
        assert_eq!(
            cluster.condition("ExtensionServicesAvailable"),
            "False/ExtensionServicePending"
        );
    }
    assert_eq!(cluster.plan().requeue_after, Some(Duration::from_secs(40)));
    reconcile_after_seconds(&mut cluster, 40);
    cluster.settle();
    assert_eq!(cluster.stand_in().at("/spec"), Some(&points_at("auth")));
    assert_eq!(cluster.condition("Ready"), "True/AsSpecified");
}

#[test]
fn a_lost_verdict_on_an_edit_is_reported_and_nudged_for() {
    let mut cluster = Cluster::enforcing(&points_at("auth"));
    cluster.api.now += Duration::from_hours(1);
    let mut edited = points_at("auth");
    edited["protocol"] = "h2".into();
    cluster.edit_auth(edited.clone());
    cluster.contour_loses_its_verdicts();
    assert_eq!(cluster.writes(), [""; 0], "Contour has some time to judge");
    assert_eq!(cluster.plan().requeue_after, Some(Duration::from_secs(5)));
    assert_eq!(cluster.condition("Degraded"), "False/Healthy");

    reconcile_after_seconds(&mut cluster, 5);
    assert_eq!(cluster.stand_in().at("/spec/protocol"), Some(&json!("h2c")));
    assert_eq!(weight(&cluster), Some(json!(1)));
    assert_eq!(cluster.condition("Degraded"), "True/ExtensionServicePending");
    let service = &cluster.status().extension_services[0];
    let says =
        "Contour has not judged the current spec of ExtensionService auth/auth; its last valid spec stays in use";
    assert_eq!(service.message.as_deref(), Some(says));

    cluster.settle();
    assert_eq!(cluster.stand_in().at("/spec/protocol"), Some(&json!("h2")));
    assert_eq!(cluster.condition("Degraded"), "False/Healthy");
}

#[test]
fn a_lost_verdict_on_a_trial_is_nudged_for() {
    let mut cluster = with_verdict_on_predecessor(&points_at("auth"));
    cluster.api.now += Duration::from_hours(1);
    cluster.reconcile();
    assert_eq!(trials(&cluster).len(), 1);
    assert_eq!(
        weight(&cluster),
        None,
        "an object that Contour never judges is no reason for a nudge"
    );
    cluster.contour_loses_its_verdicts();
    reconcile_after_seconds(&mut cluster, 4);
    assert_eq!(weight(&cluster), None);
    reconcile_after_seconds(&mut cluster, 1);
    assert_eq!(weight(&cluster), Some(json!(1)));
    cluster.settle();
    assert_eq!(cluster.stand_in().at("/spec/protocol"), Some(&json!("h2c")));
    assert_eq!(cluster.condition("Ready"), "True/AsSpecified");
}

#[test]
fn slipway_nudges_only_a_contour_that_was_ready_for_5_seconds() {
    let mut cluster = Cluster::waiting_for_auth();
    let contour = cluster.contour().key();
    let is_heard = |cluster: &mut Cluster, ready: u32| {
        let since = cluster.api.now.to_string();
        cluster.api.edit(&contour, |object| {
            object.content["status"]["readyReplicas"] = ready.into();
            object.content["status"]["conditions"][0]["lastTransitionTime"] = since.into();
        });
    };
    is_heard(&mut cluster, 0);
    cluster.create_extension_service("auth", "auth", &points_at("auth"));
    reconcile_after_seconds(&mut cluster, 3600);
    assert_eq!(weight(&cluster), None, "no Contour is ready");
    for (ready, nudged) in [(1, json!(1)), (2, json!(2))] {
        let before = weight(&cluster);
        is_heard(&mut cluster, ready);
        reconcile_after_seconds(&mut cluster, 4);
        assert_eq!(weight(&cluster), before, "{ready} ready");
        reconcile_after_seconds(&mut cluster, 1);
        assert_eq!(weight(&cluster), Some(nudged), "{ready} ready");
    }
}

/// Returns a cluster in which `auth/auth` bears the verdict on another object of its name, about a generation two later.
fn with_verdict_on_predecessor(spec: &serde_json::Value) -> Cluster {
    let mut cluster = Cluster::waiting_for_auth();
    create_with_verdict_on_predecessor(&mut cluster, spec);
    cluster
}

fn create_with_verdict_on_predecessor(cluster: &mut Cluster, spec: &serde_json::Value) {
    cluster.create_extension_service("auth", "auth", spec);
    cluster.contour_writes_verdict_on_predecessor(&auth(), 2);
}

fn trials(cluster: &Cluster) -> Vec<Key> {
    let objects = cluster.api.of_kind(Kind::ExtensionService);
    let trials = objects.filter(|object| object.name().starts_with("edge-trial-"));
    trials.map(slipway::plan::Object::key).collect()
}

#[test]
fn an_object_that_contour_never_judges_is_tried_and_enforced() {
    let mut cluster = with_verdict_on_predecessor(&points_at("auth"));
    cluster.reconcile();
    assert!(is_blackhole(cluster.stand_in()), "the verdict is about another object");
    cluster.settle();
    assert_eq!(cluster.stand_in().at("/spec"), Some(&points_at("auth")));
    assert_eq!(cluster.condition("Ready"), "True/AsSpecified");
    let first = trials(&cluster);
    assert_eq!(first.len(), 1);

    let mut edited = points_at("auth");
    edited["protocol"] = "h2".into();
    cluster.edit_auth(edited.clone());
    cluster.reconcile();
    let last_valid = points_at("auth");
    assert_eq!(
        cluster.stand_in().at("/spec"),
        Some(&last_valid),
        "Contour has not judged the edit yet"
    );
    cluster.settle();
    assert_eq!(cluster.stand_in().at("/spec"), Some(&edited));
    let second = trials(&cluster);
    assert_eq!(second.len(), 1);
    assert_ne!(second, first, "no trial reuses a name");

    cluster.edit_auth(points_at("auth"));
    cluster.contour_judges();
    cluster.settle();
    assert_eq!(cluster.stand_in().at("/spec"), Some(&points_at("auth")));
    assert_eq!(trials(&cluster), [], "Contour judges the user's object again");
}

#[test]
fn a_failed_trial_is_reported_and_nudged_for() {
    let mut cluster = with_verdict_on_predecessor(&points_at("missing"));
    cluster.settle();
    assert!(is_blackhole(cluster.stand_in()));
    let message = cluster.status().extension_services[0]
        .message
        .clone()
        .expect("a message");
    let says = "Contour reports that ExtensionService auth/auth is not valid: ServiceUnresolvedReference: ";
    assert!(message.starts_with(says), "{message}");
    cluster.create_service("auth", "missing");
    cluster.settle();
    assert_eq!(cluster.stand_in().at("/spec"), Some(&points_at("missing")));
}

#[test]
fn a_trial_that_another_user_altered_proves_nothing() {
    let mut cluster = with_verdict_on_predecessor(&points_at("auth"));
    cluster.reconcile();
    let trial = trials(&cluster).remove(0);
    cluster.contour_writes_verdict(&trial, Err(("TLSUpstreamValidation", "no")));
    cluster
        .api
        .edit(&trial, |object| object.content["spec"]["protocol"] = "h2".into());
    cluster.contour_writes_verdict(&trial, Ok(()));
    cluster.reconcile();
    assert!(is_blackhole(cluster.stand_in()));
    assert_eq!(
        cluster.api.objects[&trial].at("/spec"),
        Some(&points_at("auth")),
        "Slipway repairs the trial"
    );
}

#[test]
fn no_trial_is_created_in_a_terminating_namespace() {
    let mut cluster = with_verdict_on_predecessor(&points_at("auth"));
    cluster.settle();
    cluster.api.edit(&auth(), |object| {
        object.metadata.finalizers = Some(vec!["example.com/mine".into()]);
    });
    cluster.delete(Kind::Namespace, "", "auth");
    cluster.settle();
    assert_eq!(trials(&cluster), []);
    assert!(
        cluster.api.objects.contains_key(&auth()),
        "the finalizer of another user keeps the object"
    );
    assert_eq!(
        cluster.stand_in().namespace(),
        "projectcontour",
        "Contour uses a stand-in at home"
    );
    assert_eq!(
        cluster.condition("Ready"),
        "False/ExtensionServiceInvalid",
        "the Service is gone"
    );
}

#[test]
fn one_trial_serves_all_roles_and_is_deleted_with_its_object() {
    let auth_and_tracing = json!({"namespace": "auth", "name": "auth"});
    let asks_twice = json!({"runtimeSettings": {
        "globalExtAuth": {"extensionRef": auth_and_tracing}, "tracing": {"extensionService": auth_and_tracing},
    }});
    let everything_goes: [fn(&mut Cluster); 4] = [
        |cluster| cluster.delete(Kind::ExtensionService, "auth", "auth"),
        |cluster| cluster.delete(Kind::Namespace, "", "auth"),
        |cluster| cluster.specify(json!({})),
        |cluster| cluster.delete(Kind::ContourDeployment, "projectcontour", "edge"),
    ];
    for (number, goes) in everything_goes.into_iter().enumerate() {
        let mut cluster = Cluster::waiting_for_auth();
        cluster.specify(asks_twice.clone());
        cluster.settle();
        create_with_verdict_on_predecessor(&mut cluster, &points_at("auth"));
        let waves = cluster.plan().waves.into_iter();
        let created = waves
            .flat_map(|wave| wave.writes)
            .filter(|write| matches!(write, Write::Create(object) if object.name().starts_with("edge-trial-")));
        assert_eq!(created.count(), 1, "one trial for both roles");
        cluster.settle();
        assert_eq!(cluster.status().extension_services_available.as_deref(), Some("2/2"));
        assert_eq!(trials(&cluster).len(), 1);
        goes(&mut cluster);
        cluster.settle();
        assert_eq!(trials(&cluster), [], "case {number}");
    }
}
