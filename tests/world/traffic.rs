//! The traffic that the status reports follows the running configuration, not the desired configuration.

use slipway::api::Traffic;
use slipway::plan::{Key, Kind};

use super::cluster::Cluster;
use super::scene::{asks_auth, asks_auth_fail_open, asks_everything, auth, points_at};

fn traffic(cluster: &Cluster) -> Traffic {
    cluster.status().extension_services[0].traffic
}

#[test]
fn traffic_stays_unchecked_until_every_unchecked_pod_is_gone() {
    let mut cluster = Cluster::new();
    cluster.create_service("auth", "auth");
    cluster.create_extension_service("auth", "auth", &points_at("auth"));
    cluster.specify(serde_json::json!({}));
    cluster.settle();
    cluster.specify(asks_auth());
    cluster.reconcile();
    assert_eq!(
        traffic(&cluster),
        Traffic::AllowedUnchecked,
        "the old configuration is in use"
    );
    cluster.new_pods_start();
    cluster.reconcile();
    assert_eq!(traffic(&cluster), Traffic::AllowedUnchecked, "an old pod runs");
    cluster.old_pods_terminate();
    cluster.reconcile();
    assert_eq!(
        traffic(&cluster),
        Traffic::AllowedUnchecked,
        "an old pod is Terminating"
    );
    cluster.terminating_pods_end();
    cluster.reconcile();
    assert_eq!(traffic(&cluster), Traffic::Enforced);
}

#[test]
fn a_change_of_fail_open_takes_effect_when_it_is_rolled_out() {
    for (from, to, before, after) in [
        (
            asks_auth(),
            asks_auth_fail_open(),
            Traffic::Denied,
            Traffic::AllowedUnchecked,
        ),
        (
            asks_auth_fail_open(),
            asks_auth(),
            Traffic::AllowedUnchecked,
            Traffic::Denied,
        ),
    ] {
        let mut cluster = Cluster::new();
        cluster.specify(from);
        cluster.settle();
        cluster.specify(to);
        cluster.reconcile();
        assert_eq!(traffic(&cluster), before);
        let status = cluster.status();
        let message = status.extension_services[0]
            .message
            .as_deref()
            .expect("a message with the reason");
        assert!(message.ends_with("(until the current spec is rolled out)"), "{message}");
        cluster.settle();
        assert_eq!(traffic(&cluster), after);
    }
}

#[test]
fn traffic_is_denied_while_no_contour_runs() {
    let mut cluster = Cluster::new();
    cluster.specify(asks_auth_fail_open());
    cluster.reconcile();
    assert_eq!(traffic(&cluster), Traffic::Denied);
    let message = cluster.status().extension_services[0]
        .message
        .clone()
        .expect("a message with the reason");
    assert!(!message.contains("failOpen is false"), "{message}");
}

#[test]
fn a_service_stays_enforced_after_an_invalid_edit() {
    let mut cluster = Cluster::enforcing(&points_at("auth"));
    assert_eq!(traffic(&cluster), Traffic::Enforced);
    cluster.edit_auth(points_at("other"));
    cluster.contour_writes_verdict(&auth(), Err(("ServiceUnresolvedReference", "no")));
    cluster.reconcile();
    assert_eq!(traffic(&cluster), Traffic::Enforced, "the last valid copy is in use");
    assert_eq!(cluster.condition("Ready"), "True/AsSpecified");
    assert_eq!(cluster.condition("Degraded"), "True/ExtensionServiceInvalid");
}

#[test]
fn a_service_without_a_ready_endpoint_is_not_enforced() {
    let mut cluster = Cluster::enforcing(&points_at("auth"));
    cluster.api.forget(&Key::new(Kind::EndpointSlice, "auth", "auth-x"));
    cluster.reconcile();
    assert_eq!(traffic(&cluster), Traffic::Denied);
    assert_eq!(cluster.condition("Ready"), "False/ExtensionServiceNoEndpoints");
}

#[test]
fn each_role_reports_its_own_traffic() {
    let mut cluster = Cluster::new();
    cluster.specify(asks_everything());
    cluster.settle();
    let status = cluster.status();
    let told: Vec<_> = status
        .extension_services
        .iter()
        .map(|service| service.traffic)
        .collect();
    assert_eq!(told, [Traffic::AllowedUnchecked, Traffic::Denied, Traffic::NotSampled]);
    let words: Vec<_> = status
        .extension_services
        .iter()
        .filter_map(|service| service.message.as_deref())
        .collect();
    assert!(
        words[0].ends_with(": requests pass without authorization (failOpen is true)"),
        "{}",
        words[0]
    );
    assert!(
        words[1].ends_with(": rate-limited requests are denied (failOpen is false)"),
        "{}",
        words[1]
    );
    assert!(words[2].ends_with(": requests are not traced"), "{}", words[2]);
    assert_eq!(status.extension_services_available.as_deref(), Some("0/3"));
}
