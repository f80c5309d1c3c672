//! Objects that an editor of the service's namespace makes as large as the API server allows do not block changes of a stand-in.

use std::time::Duration;

use serde_json::{Value, json};
use slipway::api::Traffic;
use slipway::plan::Kind;

use super::api_server::MOST_ANNOTATIONS;
use super::cluster::Cluster;
use super::scene::{auth, is_blackhole, persisted_state, points_at};

/// Returns a spec that Contour accepts and that is too large for an annotation.
fn huge() -> Value {
    let service = json!({"name": "auth", "port": 9001});
    json!({"protocol": "h2c", "services": vec![service; 10_000]})
}

#[test]
fn a_stand_in_with_full_annotations_loses_those_of_other_users() {
    let mut cluster = Cluster::enforcing(&points_at("auth"));
    let stand_in = cluster.stand_in().key();
    cluster.api.edit(&stand_in, |object| {
        let annotations = object.metadata.annotations.get_or_insert_default();
        let full: usize = annotations.iter().map(|(key, value)| key.len() + value.len()).sum();
        annotations.insert("pad".to_owned(), "x".repeat(MOST_ANNOTATIONS - full - "pad".len()));
        object
            .metadata
            .labels
            .get_or_insert_default()
            .insert("theirs".to_owned(), String::new());
    });
    cluster.delete(Kind::Service, "auth", "auth");
    cluster.reconcile();
    assert!(is_blackhole(cluster.stand_in()));
    assert_eq!(cluster.stand_in().key(), stand_in);
    assert_eq!(cluster.stand_in().annotation("pad"), None);
    assert_eq!(cluster.stand_in().label("theirs"), None);
    cluster.settle();
    assert_eq!(cluster.status().extension_services[0].traffic, Traffic::Denied);
    cluster
        .api
        .edit(&stand_in, |object| object.annotate("theirs", "small".to_owned()));
    cluster.delete(Kind::EndpointSlice, "auth", "auth-x");
    cluster.create_service("auth", "auth");
    cluster.contour_writes_verdict(&auth(), Ok(()));
    cluster.settle();
    assert!(!is_blackhole(cluster.stand_in()));
    assert_eq!(
        cluster.stand_in().annotation("theirs"),
        Some("small"),
        "a small annotation of another user remains"
    );
}

#[test]
fn an_extension_service_too_large_to_copy_is_reported_invalid() {
    let mut cluster = Cluster::waiting_for_auth();
    cluster.create_extension_service("auth", "auth", &huge());
    cluster.contour_writes_verdict(&auth(), Ok(()));
    cluster.settle();
    assert!(is_blackhole(cluster.stand_in()));
    assert_eq!(cluster.condition("Degraded"), "True/ExtensionServiceInvalid");
    let message = cluster.status().extension_services[0]
        .message
        .clone()
        .expect("a message");
    assert!(message.contains("larger than 64 KiB"), "{message}");
}

#[test]
fn an_edit_too_large_to_copy_keeps_the_last_usable_copy() {
    let mut cluster = Cluster::enforcing(&points_at("auth"));
    cluster.edit_auth(huge());
    cluster.contour_writes_verdict(&auth(), Ok(()));
    cluster.settle();
    assert_eq!(cluster.stand_in().at("/spec"), Some(&points_at("auth")));
    assert_eq!(cluster.condition("Degraded"), "True/ExtensionServiceInvalid");
    cluster.delete(Kind::Service, "auth", "auth");
    cluster.settle();
    assert!(is_blackhole(cluster.stand_in()));
    assert_eq!(persisted_state(cluster.stand_in())["withdrawn"], true);
    cluster.delete(Kind::EndpointSlice, "auth", "auth-x");
    cluster.create_service("auth", "auth");
    cluster.settle();
    assert!(
        is_blackhole(cluster.stand_in()),
        "Contour's verdict is about another spec than the copy"
    );
    cluster.edit_auth(points_at("auth"));
    cluster.contour_writes_verdict(&auth(), Ok(()));
    cluster.settle();
    assert_eq!(cluster.stand_in().at("/spec"), Some(&points_at("auth")));
}

#[test]
fn traffic_is_unknown_while_a_bad_stand_in_cannot_be_written() {
    let mut cluster = Cluster::enforcing(&points_at("auth"));
    let stand_in = cluster.stand_in().key();
    cluster.forbidden_name = Some(stand_in.name.clone());
    cluster.delete(Kind::Service, "auth", "auth");
    cluster.contour_writes_verdict(&stand_in, Err(("ServiceUnresolvedReference", "no Service")));
    cluster.settle();
    assert!(!is_blackhole(cluster.stand_in()));
    assert_eq!(cluster.status().extension_services[0].traffic, Traffic::Unknown);
    cluster.forbidden_name = None;
    cluster.api.now += Duration::from_secs(10);
    cluster.settle();
    assert!(is_blackhole(cluster.stand_in()));
    assert_eq!(cluster.status().extension_services[0].traffic, Traffic::Denied);
}
