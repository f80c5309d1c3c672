//! The content of the status. Slipway does not write an unchanged status again.

use std::time::Duration;

use serde_json::json;
use slipway::api::{ContourDeploymentStatus, ExtensionServiceState, Traffic};
use slipway::plan::{Key, Kind};

use super::cluster::Cluster;
use super::scene::{asks_auth, asks_auth_fail_open, auth, points_at};

/// Returns a cluster in which `auth/auth` has this state, with this value of `failOpen` and of `readiness`.
fn in_state(state: ExtensionServiceState, fail_open: bool, readiness: &str) -> Cluster {
    let mut cluster = Cluster::new();
    let mut spec = asks_auth();
    spec["runtimeSettings"]["globalExtAuth"]["failOpen"] = fail_open.into();
    spec["extensionServices"] = json!({"readiness": readiness});
    cluster.specify(spec);
    cluster.create_service("auth", "auth");
    if state == ExtensionServiceState::Blocked {
        cluster.full.insert("auth".to_owned());
    }
    cluster.settle();
    if state != ExtensionServiceState::Missing {
        cluster.create_extension_service("auth", "auth", &points_at("auth"));
    }
    match state {
        ExtensionServiceState::Missing | ExtensionServiceState::Blocked | ExtensionServiceState::Pending => {}
        ExtensionServiceState::Invalid => cluster.contour_writes_verdict(&auth(), Err(("TLSUpstreamValidation", "no"))),
        ExtensionServiceState::NoEndpoints => {
            cluster.contour_writes_verdict(&auth(), Ok(()));
            cluster.api.forget(&Key::new(Kind::EndpointSlice, "auth", "auth-x"));
        }
        ExtensionServiceState::Available => cluster.contour_writes_verdict(&auth(), Ok(())),
    }
    cluster.reconcile();
    cluster
}

#[test]
fn conditions_follow_state_fail_open_and_readiness() {
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
                assert_eq!(cluster.condition("Reconciling"), "", "{case}: no change is in progress");
                assert_eq!(cluster.condition("Stalled"), "", "{case}: no failure exists");
                assert_eq!(
                    status.extension_services_available.as_deref(),
                    Some(if available { "1/1" } else { "0/1" })
                );
            }
        }
    }
}

/// Runs a cluster through many situations and calls `check` with the status after each of them.
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
    step(&mut cluster, &Cluster::new_pods_start);
    step(&mut cluster, &|cluster| cluster.create_service("auth", "auth"));
    step(&mut cluster, &Cluster::roll);
    step(&mut cluster, &|cluster| {
        cluster.create_extension_service("auth", "auth", &points_at("auth"));
    });
    step(&mut cluster, &Cluster::contour_judges);
    step(&mut cluster, &|cluster| {
        cluster.forbidden_name = Some("edge-envoy".into());
    });
    step(&mut cluster, &|cluster| {
        let mut spec = asks_auth();
        spec["envoy"] = json!({"logLevel": "debug"});
        cluster.specify(spec);
    });
    for _ in 0..6 {
        step(&mut cluster, &|_| ());
    }
    step(&mut cluster, &|cluster| cluster.forbidden_name = None);
    step(&mut cluster, &|cluster| {
        cluster.refuses_settings = Some("no".into());
        cluster.specify(json!({"runtimeSettings": {"foo": 1}}));
    });
    step(&mut cluster, &|cluster| cluster.specify(asks_auth()));
    step(&mut cluster, &|cluster| cluster.delete(Kind::Namespace, "", "auth"));
    step(&mut cluster, &Cluster::new_pods_start);
    step(&mut cluster, &Cluster::roll);
    step(&mut cluster, &|cluster| {
        cluster.delete(Kind::ContourDeployment, "projectcontour", "edge");
    });
}

#[test]
fn every_status_has_all_condition_types_with_the_generation() {
    let mut seen = 0;
    life(|cluster, status| {
        seen += 1;
        let generation = cluster.api.objects[&super::cluster::deployment_key()]
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
fn a_transition_time_changes_only_with_the_status() {
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
fn ready_reconciling_and_stalled_exclude_each_other() {
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
fn an_unchanged_status_is_not_written_again_and_emits_no_events() {
    life(|cluster, status| {
        // After a failure, the status of the next plan does not include the failure.
        if cluster.forbidden_name.is_none() {
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
fn unchecked_settings_are_reported_with_the_last_known_state() {
    let mut cluster = Cluster::enforcing(&points_at("auth"));
    let before = cluster.status();
    cluster.specify(asks_auth_fail_open());
    for (secrets_synced, says) in [
        (true, "the API server has not checked the configuration yet"),
        (
            false,
            "Slipway has not read the Secrets of namespace projectcontour yet",
        ),
    ] {
        let mut observed = cluster.observe().expect("the ContourDeployment exists");
        observed.secrets_synced = secrets_synced;
        let status = slipway::plan::plan(&observed).status;
        assert_eq!(status.observed_generation, Some(2));
        for (type_, expected) in [
            ("Ready", "False"),
            ("ConfigurationValid", "Unknown"),
            ("Reconciling", "True"),
        ] {
            let condition = status.conditions.iter().find(|condition| condition.type_ == type_);
            let condition = condition.unwrap_or_else(|| panic!("{type_} exists"));
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
fn stalled_persists_and_a_new_failure_starts_as_reconciling() {
    let mut cluster = Cluster::new();
    cluster.specify(asks_auth());
    cluster.forbidden_name = Some("edge-envoy".into());
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
    cluster.forbidden_name = None;
    let foreign_service = json!({"metadata": {"name": "edge-envoy", "namespace": "projectcontour"}});
    cluster.create(Kind::Service, foreign_service);
    assert_eq!(told(&mut cluster, 1), on_its_way("NameCollision"));
    assert_eq!(told(&mut cluster, 30), stalled("NameCollision"));
}

#[test]
fn a_new_reference_restarts_the_time_of_a_missing_service() {
    let reference = |namespace: &str, name: &str| {
        json!({"runtimeSettings": {
            "globalExtAuth": {"extensionRef": {"namespace": namespace, "name": name}}
        }})
    };
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
fn a_long_condition_message_is_truncated() {
    let mut cluster = Cluster::new();
    cluster.refuses_settings = Some("ü".repeat(5000));
    cluster.specify(asks_auth());
    cluster.reconcile();
    let status = cluster.status();
    let ready = status
        .conditions
        .iter()
        .find(|condition| condition.type_ == "Ready")
        .expect("the condition exists");
    assert_eq!(ready.message.chars().count(), 1025);
}
