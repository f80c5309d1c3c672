//! What the status says, and that it says it once.

use std::time::Duration;

use serde_json::json;
use slipway::api::{ContourDeploymentStatus, ExtensionServiceState, Traffic};
use slipway::plan::{Key, Kind};

use crate::cluster::Cluster;
use crate::scene::{asks_auth, asks_auth_fail_open, auth, points_at};

/// A cluster in which `auth/auth` is in this state, `failOpen` is this and readiness that.
fn in_state(state: ExtensionServiceState, fail_open: bool, readiness: &str) -> Cluster {
    let mut cluster = Cluster::new();
    let mut spec = asks_auth();
    spec["runtimeSettings"]["globalExtAuth"]["failOpen"] = fail_open.into();
    spec["extensionServices"] = json!({"readiness": readiness});
    cluster.specify(spec);
    cluster.make_service("auth", "auth");
    if state == ExtensionServiceState::Blocked {
        cluster.full.insert("auth".to_owned());
    }
    cluster.settle();
    if state != ExtensionServiceState::Missing {
        cluster.make_extension_service("auth", "auth", &points_at("auth"));
    }
    match state {
        ExtensionServiceState::Missing | ExtensionServiceState::Blocked | ExtensionServiceState::Pending => {}
        ExtensionServiceState::Invalid => cluster.contour_says(&auth(), Err(("TLSUpstreamValidation", "no"))),
        ExtensionServiceState::NoEndpoints => {
            cluster.contour_says(&auth(), Ok(()));
            cluster.api.forget(&Key::new(Kind::EndpointSlice, "auth", "auth-x"));
        }
        ExtensionServiceState::Available => cluster.contour_says(&auth(), Ok(())),
    }
    cluster.reconcile();
    cluster
}

#[test]
fn ready_degraded_and_traffic_follow_state_fail_open_and_readiness() {
    use ExtensionServiceState::{Available, Blocked, Invalid, Missing, NoEndpoints, Pending};
    for state in [Missing, Blocked, Pending, Invalid, NoEndpoints, Available] {
        for fail_open in [false, true] {
            for readiness in ["Required", "Tolerated"] {
                let case = format!("{state:?}, failOpen {fail_open}, {readiness}");
                let cluster = in_state(state, fail_open, readiness);
                let reason = format!("ExtensionService{state:?}");
                let available = state == Available;
                let (traffic, ready) = match (available, fail_open, readiness) {
                    (true, _, _) => (Traffic::Enforced, "True/AsSpecified".to_owned()),
                    (false, true, _) => (Traffic::AllowedUnchecked, "True/AsSpecified".to_owned()),
                    (false, false, "Tolerated") => (Traffic::Denied, "True/AsSpecified".to_owned()),
                    (false, false, _) => (Traffic::Denied, format!("False/{reason}")),
                };
                let status = cluster.status();
                let service = &status.extension_services[0];
                assert_eq!((service.state, service.traffic), (state, traffic), "{case}");
                assert_eq!(cluster.condition("Ready"), ready, "{case}");
                let degraded = if available {
                    "False/Healthy".to_owned()
                } else {
                    format!("True/{reason}")
                };
                assert_eq!(cluster.condition("Degraded"), degraded, "{case}");
                assert_eq!(cluster.condition("Reconciling"), "", "{case}: nothing is on its way");
                assert_eq!(cluster.condition("Stalled"), "", "{case}: no deadline runs");
                assert_eq!(
                    status.extension_services_available.as_deref(),
                    Some(if available { "1/1" } else { "0/1" })
                );
            }
        }
    }
}

/// Situations from a long life; `check` sees the status of each.
fn life(mut check: impl FnMut(&Cluster, &ContourDeploymentStatus)) {
    let mut cluster = Cluster::new();
    let mut step = |cluster: &mut Cluster, change: &dyn Fn(&mut Cluster)| {
        cluster.api.now += Duration::from_millis(7_500);
        change(cluster);
        cluster.reconcile();
        check(cluster, &cluster.status());
    };
    step(&mut cluster, &|cluster| {
        cluster.missing_crds = vec!["extensionservices.projectcontour.io".into()];
        cluster.specify(asks_auth());
    });
    step(&mut cluster, &|cluster| cluster.missing_crds.clear());
    step(&mut cluster, &Cluster::pods_come);
    step(&mut cluster, &|cluster| cluster.make_service("auth", "auth"));
    step(&mut cluster, &Cluster::roll);
    step(&mut cluster, &|cluster| {
        cluster.make_extension_service("auth", "auth", &points_at("auth"));
    });
    step(&mut cluster, &Cluster::contour_judges);
    step(&mut cluster, &|cluster| cluster.forbids = Some("edge-envoy".into()));
    step(&mut cluster, &|cluster| {
        let mut spec = asks_auth();
        spec["envoy"] = json!({"logLevel": "debug"});
        cluster.specify(spec);
    });
    for _ in 0..6 {
        step(&mut cluster, &|_| ());
    }
    step(&mut cluster, &|cluster| cluster.forbids = None);
    step(&mut cluster, &|cluster| {
        cluster.refuses_settings = Some("no".into());
        cluster.specify(json!({"runtimeSettings": {"foo": 1}}));
    });
    step(&mut cluster, &|cluster| cluster.specify(asks_auth()));
    step(&mut cluster, &|cluster| cluster.delete(Kind::Namespace, "", "auth"));
    step(&mut cluster, &Cluster::pods_come);
    step(&mut cluster, &Cluster::roll);
    step(&mut cluster, &|cluster| {
        cluster.delete(Kind::ContourDeployment, "projectcontour", "edge");
    });
}

#[test]
fn every_condition_carries_the_generation_and_every_type_is_there_from_the_first_visit_on() {
    let mut seen = 0;
    life(|cluster, status| {
        seen += 1;
        let generation = cluster.api.objects[&crate::cluster::deployment_key()]
            .metadata
            .generation;
        assert_eq!(status.observed_generation, generation);
        for condition in &status.conditions {
            assert_eq!(condition.observed_generation, generation, "{}", condition.type_);
            assert!(
                !condition.reason.is_empty() && !condition.message.is_empty(),
                "{condition:?}"
            );
        }
        let types = [
            "Ready",
            "Degraded",
            "ExtensionServicesAvailable",
            "ContourAvailable",
            "EnvoyAvailable",
            "ConfigurationValid",
        ];
        for type_ in types {
            assert_eq!(
                status
                    .conditions
                    .iter()
                    .filter(|condition| condition.type_ == type_)
                    .count(),
                1,
                "{type_}"
            );
        }
    });
    assert!(seen > 15);
}

#[test]
fn a_transition_time_moves_with_the_status_and_only_with_it() {
    let mut before: Option<ContourDeploymentStatus> = None;
    life(|cluster, status| {
        for condition in &status.conditions {
            let earlier = before
                .iter()
                .flat_map(|status| &status.conditions)
                .find(|other| other.type_ == condition.type_);
            let expected = match earlier {
                Some(other) if other.status == condition.status => other.last_transition_time.0,
                _ => jiff::Timestamp::from_second(cluster.api.now.as_second()).expect("a time"),
            };
            assert_eq!(condition.last_transition_time.0, expected, "{}", condition.type_);
        }
        for service in &status.extension_services {
            let earlier = before
                .iter()
                .flat_map(|status| &status.extension_services)
                .find(|other| other.role == service.role);
            if let Some(other) = earlier {
                assert_eq!(
                    other.since == service.since,
                    other.state == service.state,
                    "{service:?}"
                );
            }
        }
        before = Some(status.clone());
    });
}

#[test]
fn nothing_is_ever_both_reconciling_and_stalled_and_ready_goes_with_neither() {
    life(|cluster, _| {
        let [ready, reconciling, stalled] = ["Ready", "Reconciling", "Stalled"].map(|type_| cluster.condition(type_));
        assert!(
            reconciling.is_empty() || stalled.is_empty(),
            "{reconciling} and {stalled}"
        );
        if ready.starts_with("True") {
            assert!(
                reconciling.is_empty() && stalled.is_empty(),
                "{ready}, {reconciling}{stalled}"
            );
        }
    });
}

#[test]
fn a_status_that_was_written_is_not_written_again_and_tells_nothing_twice() {
    life(|cluster, status| {
        // After a failure the next plan says how it is without the failure.
        if cluster.forbids.is_none() {
            let mut later = cluster.clone();
            later.api.now += Duration::from_hours(1);
            let planned = later.plan();
            let renews = planned.waves.iter().any(|wave| !wave.writes.is_empty());
            if !renews && !later.contour_pods().any(slipway::plan::Object::is_terminating) {
                assert_eq!(planned.status, *status);
                assert_eq!(planned.events, []);
            }
        }
    });
}

#[test]
fn until_the_settings_are_checked_the_status_says_so_and_keeps_what_was_seen_last() {
    let mut cluster = Cluster::enforcing(&points_at("auth"));
    let before = cluster.status();
    cluster.specify(asks_auth_fail_open());
    for (secrets_synced, says) in [
        (true, "the configuration has not been checked yet"),
        (false, "the Secrets of namespace projectcontour have not been read yet"),
    ] {
        let mut observed = cluster.observe().expect("it exists");
        observed.secrets_synced = secrets_synced;
        let status = slipway::plan::plan(&observed).status;
        assert_eq!(status.observed_generation, Some(2));
        for (type_, expected) in [
            ("Ready", "False"),
            ("ConfigurationValid", "Unknown"),
            ("Reconciling", "True"),
        ] {
            let condition = status.conditions.iter().find(|condition| condition.type_ == type_);
            let condition = condition.unwrap_or_else(|| panic!("{type_} is there"));
            let (status, reason) = (condition.status.as_str(), condition.reason.as_str());
            assert_eq!((status, reason), (expected, "ConfigurationUnchecked"), "{type_}");
            assert_eq!(condition.message, says, "{type_}");
        }
        assert_eq!(status.extension_services, before.extension_services);
        assert_eq!(
            (status.contour, status.envoy),
            (before.contour.clone(), before.envoy.clone())
        );
    }
}

#[test]
fn a_failure_that_is_a_person_s_turn_stays_that_and_another_one_is_a_change_on_its_way_first() {
    let mut cluster = Cluster::new();
    cluster.specify(asks_auth());
    cluster.forbids = Some("edge-envoy".into());
    let told = |cluster: &mut Cluster, seconds| {
        cluster.api.now += Duration::from_secs(seconds);
        cluster.reconcile();
        (cluster.condition("Reconciling"), cluster.condition("Stalled"))
    };
    let on_its_way = |reason: &str| (format!("True/{reason}"), String::new());
    let stalled = |reason: &str| (String::new(), format!("True/{reason}"));
    assert_eq!(told(&mut cluster, 0), on_its_way("Forbidden"));
    assert_eq!(told(&mut cluster, 29), on_its_way("Forbidden"));
    assert_eq!(told(&mut cluster, 1), stalled("Forbidden"));
    assert_eq!(told(&mut cluster, 1), stalled("Forbidden"));
    cluster.forbids = None;
    let of_somebody = json!({"metadata": {"name": "edge-envoy", "namespace": "projectcontour"}});
    cluster.make(Kind::Service, of_somebody);
    assert_eq!(told(&mut cluster, 1), on_its_way("NameCollision"));
    assert_eq!(told(&mut cluster, 30), stalled("NameCollision"));
}

#[test]
fn since_when_a_service_is_missing_begins_anew_with_another_reference() {
    let reference = |namespace: &str, name: &str| json!({"runtimeSettings": {"globalExtAuth": {"extensionRef": {"namespace": namespace, "name": name}}}});
    for (namespace, name) in [("auth", "other"), ("other", "auth")] {
        let mut cluster = Cluster::waiting_for_auth();
        let since = |cluster: &Cluster| cluster.status().extension_services[0].since.0;
        let before = since(&cluster);
        cluster.api.now += Duration::from_mins(1);
        cluster.settle();
        assert_eq!(since(&cluster), before);
        cluster.specify(reference(namespace, name));
        cluster.settle();
        assert_ne!(since(&cluster), before, "{namespace}/{name}");
    }
}

#[test]
fn a_long_message_is_cut_to_what_fits_a_screen() {
    let mut cluster = Cluster::new();
    cluster.refuses_settings = Some("ü".repeat(5000));
    cluster.specify(asks_auth());
    cluster.reconcile();
    let status = cluster.status();
    let ready = status
        .conditions
        .iter()
        .find(|condition| condition.type_ == "Ready")
        .expect("it is there");
    assert_eq!(ready.message.chars().count(), 1025);
}
