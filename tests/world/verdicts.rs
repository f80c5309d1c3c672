//! When a copy goes bad, and when it comes back.

use std::time::Duration;

use serde_json::json;
use slipway::plan::{Key, Kind};

use crate::cluster::Cluster;
use crate::scene::{auth, is_blackhole, points_at};

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
    for (wait, count) in [(0, 1), (4, 1), (1, 2), (600, 5), (600, 5)] {
        cluster.api.now += Duration::from_secs(wait);
        cluster.reconcile();
        assert!(is_blackhole(cluster.stand_in()));
        assert_eq!(nudge(&cluster), Some(json!(count)), "{wait} s later");
        assert_eq!(cluster.writes(), [""; 0], "once");
    }
    assert_eq!(
        cluster.plan().look_again.filter(|wait| *wait < Duration::from_mins(10)),
        None
    );

    cluster.contour_says(&auth(), Err(("TLSUpstreamValidation", "it looked again")));
    cluster.reconcile();
    assert_eq!(nudge(&cluster), None);
    cluster.contour_says(&auth(), Ok(()));
    cluster.reconcile();
    assert_eq!(cluster.stand_in().at("/spec"), Some(&points_at("auth")));
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
    // Not judged, by anybody, in its present form.
    cluster.edit_auth(points_at("auth2"));
    assert_eq!(cluster.writes(), [""; 0]);
    cluster.edit_auth(points_at("auth"));
    assert_eq!(cluster.writes(), [""; 0]);
    cluster.contour_says(&auth(), Ok(()));
    assert_eq!(cluster.writes().len(), 1);
    assert_eq!(cluster.stand_in().at("/spec"), Some(&points_at("auth")));
}
