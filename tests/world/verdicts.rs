//! When a copy goes bad, and when it comes back.

use std::time::Duration;

use serde_json::json;
use slipway::plan::{Key, Kind};

use crate::cluster::Cluster;
use crate::scene::{asks_auth, auth, is_blackhole, points_at};

fn service() -> Key {
    Key::new(Kind::Service, "auth", "auth")
}

#[test]
fn a_service_that_is_seen_missing_evicts_the_copy_and_its_return_brings_it_back() {
    let mut cluster = Cluster::enforcing(&points_at("auth"));
    cluster.delete(Kind::Service, "auth", "auth");
    assert_eq!(cluster.writes().len(), 1);
    assert!(is_blackhole(cluster.stand_in()));
    assert_eq!(
        cluster.condition("ExtensionServicesAvailable"),
        "False/ExtensionServiceInvalid"
    );
    let spec = json!({"ports": [{"port": 9001}]});
    cluster.make(
        Kind::Service,
        json!({"metadata": {"name": "auth", "namespace": "auth"}, "spec": spec}),
    );
    assert_eq!(cluster.writes().len(), 1);
    assert_eq!(cluster.stand_in().at("/spec"), Some(&points_at("auth")));
}

#[test]
fn contour_is_made_to_look_again_when_a_service_that_it_did_not_find_is_there() {
    let mut cluster = Cluster::waiting_for_auth();
    cluster.make_extension_service("auth", "auth", &points_at("auth"));
    cluster.delete(Kind::Service, "auth", "auth");
    cluster.contour_says(&auth(), Err(("ServiceUnresolvedReference", "not found")));
    cluster.reconcile();
    let nudge = |cluster: &Cluster| cluster.stand_in().at("/spec/services/0/weight").cloned();
    assert_eq!(nudge(&cluster), None, "it is not there");

    let spec = json!({"selector": {"app": "auth"}, "ports": [{"port": 9001}]});
    let service = json!({"metadata": {"name": "auth", "namespace": "auth"}, "spec": spec});
    cluster.make(Kind::Service, service);
    for (wait, weight) in [(0, 1), (4, 1), (1, 2), (600, 1), (600, 2)] {
        cluster.api.now += Duration::from_secs(wait);
        cluster.reconcile();
        assert!(is_blackhole(cluster.stand_in()));
        assert_eq!(nudge(&cluster), Some(json!(weight)), "{wait} s later");
        assert_eq!(cluster.writes(), [""; 0], "once");
    }
    assert_eq!(cluster.plan().look_again, Some(Duration::from_secs(295)));

    cluster.contour_says(&auth(), Err(("TLSUpstreamValidation", "it looked again")));
    cluster.contour_says(&cluster.stand_in().key(), Ok(()));
    assert_eq!(cluster.writes(), [""; 0], "it is not taken back");
    cluster.contour_says(&auth(), Ok(()));
    cluster.reconcile();
    assert_eq!(cluster.stand_in().at("/spec"), Some(&points_at("auth")));
}

#[test]
fn contour_is_made_to_look_again_when_it_did_not_find_a_blackhole_that_is_there_again() {
    let mut without_namespace = Cluster::new();
    without_namespace.specify(asks_auth());
    without_namespace.settle();
    for mut cluster in [Cluster::waiting_for_auth(), without_namespace] {
        let stand_in = cluster.stand_in().clone();
        cluster.contour_says(&stand_in.key(), Err(("ServiceUnresolvedReference", "not found")));
        assert_eq!(cluster.writes().len(), 1);
        assert_eq!(cluster.stand_in().at("/spec/services/0/weight"), Some(&json!(1)));
        cluster.api.now += Duration::from_mins(1);
        assert_eq!(cluster.writes(), [""; 0], "it waits for a word on this");
        cluster.contour_says(&stand_in.key(), Err(("ServiceUnresolvedReference", "not found")));
        assert_eq!(cluster.writes().len(), 1);
        assert_eq!(cluster.stand_in().at("/spec/services/0/weight"), Some(&json!(2)));
        cluster.contour_says(&stand_in.key(), Ok(()));
        assert_eq!(cluster.writes(), [""; 0], "it is not taken back");
    }
}

#[test]
fn contours_that_disagree_for_ever_cause_few_writes() {
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
                cluster.contour_says(of, Err(("ServiceUnresolvedReference", "not found")));
                writes += cluster.writes().len();
                cluster.contour_says(of, Ok(()));
                cluster.contour_says(&stand_in, Ok(()));
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
fn contour_is_made_to_look_again_as_often_as_a_port_is_away() {
    let mut cluster = Cluster::enforcing(&points_at("auth"));
    for round in 0..3 {
        for port in [9002, 9001] {
            cluster.api.edit(&service(), |object| {
                object.content["spec"]["ports"] = json!([{"port": port}]);
            });
            cluster.reconcile();
            cluster.contour_says(&cluster.stand_in().key(), Ok(()));
            cluster.contour_says(&auth(), Err(("ServiceUnresolvedReference", "no such port")));
            cluster.reconcile();
        }
        let weight = cluster.stand_in().at("/spec/services/0/weight");
        assert_eq!(weight, Some(&json!(1)), "{round}");
        cluster.contour_says(&auth(), Ok(()));
        cluster.reconcile();
        assert_eq!(cluster.stand_in().at("/spec"), Some(&points_at("auth")), "{round}");
    }
}

#[test]
fn a_copy_does_not_take_over_the_nudge_of_the_blackhole_before_it() {
    let mut cluster = Cluster::waiting_for_auth();
    cluster.make_extension_service("auth", "auth", &points_at("auth"));
    cluster.contour_says(&auth(), Err(("ServiceUnresolvedReference", "not found")));
    cluster.reconcile();
    assert_eq!(cluster.stand_in().at("/spec/services/0/weight"), Some(&json!(1)));
    cluster.contour_says(&auth(), Ok(()));
    assert_eq!(cluster.writes().len(), 1);
    assert_eq!(cluster.stand_in().at("/spec"), Some(&points_at("auth")));
}

#[test]
fn contour_is_not_made_to_look_again_for_services_that_were_not_read_yet() {
    let mut cluster = Cluster::enforcing(&points_at("auth"));
    cluster.contour_says(&auth(), Err(("ServiceUnresolvedReference", "not found")));
    let mut observed = cluster.observe().expect("it exists");
    observed.references_synced = false;
    assert!(slipway::plan::plan(&observed).is_settled());
    observed.references_synced = true;
    assert!(!slipway::plan::plan(&observed).is_settled());
}

#[test]
fn contour_is_made_to_look_again_also_while_an_older_valid_form_stays_in_use() {
    let mut cluster = Cluster::enforcing(&points_at("auth"));
    cluster.edit_auth(points_at("later"));
    cluster.settle();
    assert_eq!(cluster.stand_in().at("/spec"), Some(&points_at("auth")));
    assert_eq!(
        cluster.condition("ExtensionServicesAvailable"),
        "False/ExtensionServiceInvalid"
    );
    cluster.make_service("auth", "later");
    cluster.settle();
    assert_eq!(cluster.stand_in().at("/spec"), Some(&points_at("later")));
    assert_eq!(cluster.condition("ExtensionServicesAvailable"), "True/AllAvailable");
}

#[test]
fn contour_is_made_to_look_again_by_the_clock_also_while_the_settings_are_refused_or_unchecked() {
    let mut cluster = Cluster::enforcing(&points_at("auth"));
    cluster.edit_auth(points_at("later"));
    cluster.settle();
    cluster.make_service("auth", "later");
    let mut asks = asks_auth();
    asks["runtimeSettings"]["foo"] = 1.into();
    cluster.specify(asks);
    assert_ne!(cluster.plan().questions.len(), 0);
    assert_eq!(cluster.plan().look_again, Some(Duration::from_secs(5)), "unchecked");
    cluster.refuses_settings = Some("unknown field".into());
    cluster.reconcile();
    assert_eq!(cluster.condition("ConfigurationValid"), "False/ConfigurationRefused");
    assert_eq!(cluster.plan().look_again, Some(Duration::from_secs(5)), "refused");
}

#[test]
fn a_port_that_is_seen_missing_evicts_the_copy() {
    let mut cluster = Cluster::enforcing(&points_at("auth"));
    cluster.api.edit(&service(), |object| {
        object.content["spec"]["ports"] = json!([{"port": 9002}]);
    });
    assert_eq!(cluster.writes().len(), 1);
    assert!(is_blackhole(cluster.stand_in()));
}

#[test]
fn a_service_that_becomes_an_external_name_evicts_the_copy() {
    let mut cluster = Cluster::enforcing(&points_at("auth"));
    cluster.api.edit(&service(), |object| {
        object.content["spec"]["type"] = "ExternalName".into();
    });
    assert_eq!(cluster.writes().len(), 1);
    assert!(is_blackhole(cluster.stand_in()));
}

#[test]
fn a_service_that_was_not_read_yet_is_not_missing() {
    let cluster = Cluster::enforcing(&points_at("auth"));
    let mut observed = cluster.observe().expect("it exists");
    observed.services.clear();
    observed.references_synced = false;
    let planned = slipway::plan::plan(&observed);
    assert!(planned.is_settled(), "{:?}", planned.waves);
}

#[test]
fn a_verdict_that_speaks_of_the_judge_and_not_of_the_copy_does_not_evict() {
    let mut cluster = Cluster::enforcing(&points_at("auth"));
    for reason in ["SecretNotValid", "SomethingNew"] {
        for key in [auth(), cluster.stand_in().key()] {
            cluster.contour_says(&key, Err((reason, "a client certificate of mine")));
        }
        assert_eq!(cluster.writes(), [""; 0], "{reason}");
        assert_eq!(cluster.stand_in().at("/spec"), Some(&points_at("auth")), "{reason}");
    }
}

#[test]
fn a_verdict_that_speaks_of_the_copy_evicts_it() {
    for reason in [
        "ServiceUnresolvedReference",
        "UnsupportedServiceType",
        "TLSUpstreamValidation",
        "CACertificateNotDelegated",
    ] {
        let mut cluster = Cluster::enforcing(&points_at("auth"));
        for key in [auth(), cluster.stand_in().key()] {
            cluster.contour_says(&key, Err((reason, "gone")));
        }
        assert_eq!(cluster.writes().len(), 1, "{reason}");
        assert!(is_blackhole(cluster.stand_in()), "{reason}");
    }
}

#[test]
fn a_verdict_on_the_users_object_alone_does_not_evict() {
    let mut cluster = Cluster::enforcing(&points_at("auth"));
    cluster.contour_says(&auth(), Err(("TLSUpstreamValidation", "gone")));
    assert_eq!(cluster.writes(), [""; 0]);
}

#[test]
fn a_verdict_on_an_older_generation_of_the_stand_in_does_not_evict() {
    let mut cluster = Cluster::enforcing(&points_at("auth"));
    let key = cluster.stand_in().key();
    cluster.contour_says(&auth(), Err(("TLSUpstreamValidation", "gone")));
    cluster.contour_says(&key, Err(("TLSUpstreamValidation", "gone")));
    cluster.api.edit(&key, |object| {
        object.content["status"]["conditions"][0]["observedGeneration"] = 0.into();
    });
    assert_eq!(cluster.writes(), [""; 0]);
}

#[test]
fn an_evicted_copy_stays_away_until_contour_says_that_the_users_object_is_valid() {
    let mut cluster = Cluster::enforcing(&points_at("auth"));
    let stand_in = cluster.stand_in().key();
    for key in [auth(), stand_in.clone()] {
        cluster.contour_says(&key, Err(("TLSUpstreamValidation", "gone")));
    }
    cluster.reconcile();
    // The blackhole that stands there now is valid.
    cluster.contour_says(&stand_in, Ok(()));
    assert_eq!(cluster.writes(), [""; 0], "or the two would flip for ever");
    assert!(is_blackhole(cluster.stand_in()));
    let says = |cluster: &Cluster| {
        cluster.status().extension_services[0]
            .message
            .clone()
            .expect("a message")
    };
    let said = says(&cluster);
    assert!(said.contains("is not valid: TLSUpstreamValidation: gone: "), "{said}");
    // Not judged, by anybody, in its present form.
    cluster.edit_auth(points_at("auth2"));
    assert_eq!(cluster.writes(), [""; 0]);
    let said = says(&cluster);
    assert!(
        said.contains("is not valid: what it points at is not usable any more: "),
        "{said}"
    );
    cluster.edit_auth(points_at("auth"));
    assert_eq!(cluster.writes(), [""; 0]);
    cluster.contour_says(&auth(), Ok(()));
    assert_eq!(cluster.writes().len(), 1);
    assert_eq!(cluster.stand_in().at("/spec"), Some(&points_at("auth")));
}
