//! The persisted state of a stand-in is an annotation. Any user with write access may have written anything to the annotation.

use proptest::prelude::{Just, ProptestConfig, Strategy, any, prop_assert, prop_assert_ne, prop_oneof, proptest};
use serde_json::json;
use slipway::api::Traffic;
use slipway::api::vocabulary::annotations;
use slipway::plan::Kind;

use super::cluster::Cluster;
use super::scene::{is_blackhole, points_at, points_at_with_timeout};

/// Overwrites the persisted state of the planned stand-in, and settles.
fn with_memory(mut cluster: Cluster, text: &str) -> Cluster {
    let key = cluster.stand_in().key();
    cluster.api.edit(&key, |object| {
        object.annotate(annotations::PERSISTED_STATE, text.to_owned());
    });
    cluster.settle();
    cluster
}

fn garbage() -> Vec<String> {
    let mut table: Vec<String> = [
        "",
        "null",
        "{",
        "[]",
        "1",
        "\"\"",
        "{\"salt\":-1}",
        "{\"salt\":99999999999}",
        "\u{0}",
        "{\"retired\":1}",
    ]
    .map(str::to_owned)
    .into();
    table.extend(
        [
            json!({}),
            json!({"salt": 7}),
            json!({"retired": true}),
            json!({"withdrawn": true, "reference": ["auth", "auth"]}),
            json!({"reference": ["auth"]}),
            json!({"reference": ["", ""]}),
            json!({"reference": ["auth", "other"]}),
            json!({"pinned": {"response": "s"}, "reference": ["auth", "auth"]}),
            json!({"pinned": {"response": "1h", "subjectName": "x"}, "reference": ["auth", "auth"]}),
            json!({"pinned": null, "reference": ["auth", "auth"]}),
            json!({"proven": {"uid": "", "generation": 0, "spec": {}}, "reference": ["auth", "auth"]}),
            json!({"proven": {"uid": "u", "generation": 1, "spec": {"services": 1, "timeoutPolicy": []}}, "reference": ["auth", "auth"]}),
            json!({"proven": {"uid": "u", "generation": 1, "spec": []}, "reference": ["auth", "auth"]}),
        ]
        .map(|value| value.to_string()),
    );
    table
}

#[test]
fn garbage_state_without_a_service_keeps_the_blackhole() {
    for text in garbage() {
        let cluster = with_memory(Cluster::waiting_for_auth(), &text);
        assert!(is_blackhole(cluster.stand_in()), "{text}");
        assert_eq!(
            cluster.stand_in().at("/spec/timeoutPolicy"),
            None,
            "{text}: no spec has ever set a timeout"
        );
        assert_eq!(
            cluster.status().extension_services[0].traffic,
            Traffic::Denied,
            "{text}"
        );
    }
}

#[test]
fn garbage_state_keeps_an_enforced_service_enforced() {
    for text in garbage() {
        let cluster = with_memory(Cluster::enforcing(&points_at("auth")), &text);
        assert_eq!(cluster.stand_in().at("/spec"), Some(&points_at("auth")), "{text}");
        assert_eq!(
            cluster.status().extension_services[0].traffic,
            Traffic::Enforced,
            "{text}"
        );
        assert_eq!(cluster.stand_ins().len(), 1, "{text}: {:?}", cluster.stand_ins());
    }
}

#[test]
fn slipway_distrusts_the_name_of_a_stand_in_without_state() {
    for spec in [points_at("auth"), points_at_with_timeout("auth", "500ms")] {
        let mut cluster = Cluster::enforcing(&spec);
        let key = cluster.stand_in().key();
        cluster
            .api
            .edit(&key, |object| drop(object.metadata.annotations.take()));
        cluster.reconcile();
        assert_ne!(cluster.stand_in().key(), key, "{spec}");
    }
}

#[test]
fn a_stand_in_in_use_without_state_follows_its_roles_reference() {
    let mut cluster = Cluster::new();
    for namespace in ["auth", "limits"] {
        cluster.create_service(namespace, namespace);
        cluster.create_extension_service(namespace, namespace, &points_at(namespace));
    }
    cluster.specify(json!({"runtimeSettings": {
        "globalExtAuth": {"extensionRef": {"namespace": "auth", "name": "auth"}},
        "rateLimitService": {"extensionService": {"namespace": "limits", "name": "limits"}, "domain": "edge"},
    }}));
    cluster.settle();
    for (role, service) in [("ext-auth", "auth"), ("rate-limit", "limits")] {
        let stand_ins = || cluster.api.of_kind(Kind::ExtensionService);
        let its = |object: &&slipway::plan::Object| object.name().starts_with(&format!("edge-{role}-"));
        let key = stand_ins().find(its).expect("a stand-in").key();
        cluster
            .api
            .edit(&key, |object| drop(object.metadata.annotations.take()));
        cluster.reconcile();
        assert_eq!(
            cluster.api.objects[&key].at("/spec"),
            Some(&points_at(service)),
            "{role}"
        );
    }
}

fn damaged() -> impl Strategy<Value = String> {
    let memory = json!({"salt": 0, "pinned": {}, "reference": ["auth", "auth"], "proven": {"uid": "u", "generation": 1, "spec": {}}});
    let text = memory.to_string();
    let cut =
        (0..text.len(), any::<char>()).prop_map(move |(at, char)| format!("{}{char}{}", &text[..at], &text[at + 1..]));
    prop_oneof![Just(String::new()), ".{0,40}", cut]
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 24, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn no_written_state_lets_a_request_pass_unchecked(text in damaged()) {
        let cluster = with_memory(Cluster::waiting_for_auth(), &text);
        prop_assert!(is_blackhole(cluster.stand_in()));
        prop_assert_ne!(cluster.status().extension_services[0].traffic, Traffic::AllowedUnchecked);
        prop_assert!(cluster.api.of_kind(Kind::ExtensionService).count() <= 1);
    }
}
