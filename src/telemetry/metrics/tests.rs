//! Tests of the metrics. They parse the text of a scrape.

use std::collections::BTreeMap;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, Time};

use super::*;
use crate::api::{ExtensionServiceState, ExtensionServiceStatus, Role, Traffic};

fn at(second: i64) -> Timestamp {
    Timestamp::from_second(1_000_000 + second).unwrap()
}

fn ext_auth(name: &str, state: ExtensionServiceState, traffic: Traffic) -> ExtensionServiceStatus {
    ExtensionServiceStatus {
        role: Role::GlobalExternalAuthorization,
        namespace: "auth".to_owned(),
        name: name.to_owned(),
        state,
        since: Time(at(0)),
        fail_open: Some(false),
        traffic,
        stand_in: None,
        message: None,
    }
}

fn condition(type_: &str, status: &str) -> Condition {
    Condition {
        type_: type_.to_owned(),
        status: status.to_owned(),
        reason: "Reason".to_owned(),
        message: String::new(),
        observed_generation: Some(1),
        last_transition_time: Time(at(0)),
    }
}

fn status(services: impl IntoIterator<Item = ExtensionServiceStatus>) -> ContourDeploymentStatus {
    ContourDeploymentStatus {
        extension_services: services.into_iter().collect(),
        ..ContourDeploymentStatus::default()
    }
}

/// The samples of a scrape: the name with sorted labels, and the value.
struct Scrape(BTreeMap<String, f64>);

impl Scrape {
    fn of(metrics: &Metrics, now: Timestamp) -> Self {
        let text = metrics.encode(now);
        assert!(text.ends_with("# EOF\n"));
        let mut samples = BTreeMap::new();
        for line in text.lines().filter(|line| !line.starts_with('#')) {
            let (series, value) = line.rsplit_once(' ').unwrap();
            let before = samples.insert(normalized(series), value.parse().unwrap());
            assert_eq!(before, None, "{series} occurs twice");
        }
        Self(samples)
    }

    #[track_caller]
    fn value(&self, series: &str) -> f64 {
        *self
            .0
            .get(&normalized(series))
            .unwrap_or_else(|| panic!("no {series} among {:#?}", self.0.keys()))
    }

    /// Returns the value of a family for `auth/<name>` as global external authorization of `projectcontour/edge`.
    #[track_caller]
    fn ext_auth(&self, family: &str, name: &str, more: &str) -> f64 {
        self.value(&format!(
            "slipway_extension_service_{family}{}",
            ext_auth_labels(name, more)
        ))
    }

    fn series_with(&self, part: &str) -> Vec<&str> {
        self.0
            .keys()
            .map(String::as_str)
            .filter(|series| series.contains(part))
            .collect()
    }
}

fn ext_auth_labels(name: &str, more: &str) -> String {
    format!(
        "{{contourdeployment_namespace=\"projectcontour\",contourdeployment=\"edge\",role=\"GlobalExternalAuthorization\",\
         extension_service_namespace=\"auth\",extension_service=\"{name}\"{more}}}"
    )
}

fn normalized(series: &str) -> String {
    match series.strip_suffix('}').and_then(|series| series.split_once('{')) {
        Some((name, labels)) => {
            let mut labels: Vec<_> = labels.split(',').collect();
            labels.sort_unstable();
            format!("{name}{{{}}}", labels.join(","))
        }
        None => series.to_owned(),
    }
}

/// Asserts that two values are equal. All times in these tests are whole seconds, so the tolerance only covers rounding.
#[track_caller]
fn assert_same(left: f64, right: f64) {
    assert!((left - right).abs() < 1e-9, "{left} is not {right}");
}

#[test]
fn only_an_available_service_counts_as_available() {
    for state in ExtensionServiceState::ALL {
        let metrics = Metrics::new();
        metrics.observe_status(
            "projectcontour",
            "edge",
            &status([ext_auth("auth", state, Traffic::Denied)]),
            at(0),
        );
        let scrape = Scrape::of(&metrics, at(0));
        let available = f64::from(u8::from(state == ExtensionServiceState::Available));
        assert_same(scrape.ext_auth("available", "auth", ""), available);
        for other in ExtensionServiceState::ALL {
            let expected = f64::from(u8::from(state == other));
            assert_same(
                scrape.ext_auth("state", "auth", &format!(",state=\"{other:?}\"")),
                expected,
            );
        }
    }
}

#[test]
fn seconds_advance_between_observations() {
    let metrics = Metrics::new();
    let missing = status([ext_auth("auth", ExtensionServiceState::Missing, Traffic::Denied)]);
    metrics.observe_status("projectcontour", "edge", &missing, at(0));
    assert_same(
        Scrape::of(&metrics, at(0)).ext_auth("denied_seconds_total", "auth", ""),
        0.0,
    );
    assert_same(
        Scrape::of(&metrics, at(15)).ext_auth("denied_seconds_total", "auth", ""),
        15.0,
    );
    assert_same(
        Scrape::of(&metrics, at(30)).ext_auth("denied_seconds_total", "auth", ""),
        30.0,
    );
    metrics.observe_status("projectcontour", "edge", &missing, at(40));
    let scrape = Scrape::of(&metrics, at(45));
    assert_same(scrape.ext_auth("denied_seconds_total", "auth", ""), 45.0);
    assert_same(scrape.ext_auth("unchecked_seconds_total", "auth", ""), 0.0);
}

#[test]
fn seconds_count_the_effect_on_traffic_and_not_the_state() {
    let metrics = Metrics::new();
    let observe = |state, traffic, second| {
        metrics.observe_status(
            "projectcontour",
            "edge",
            &status([ext_auth("auth", state, traffic)]),
            at(second),
        );
    };
    observe(ExtensionServiceState::Available, Traffic::Enforced, 0);
    observe(ExtensionServiceState::Missing, Traffic::Denied, 100);
    observe(ExtensionServiceState::Missing, Traffic::AllowedUnchecked, 107);
    observe(ExtensionServiceState::Available, Traffic::Enforced, 120);
    let scrape = Scrape::of(&metrics, at(1000));
    assert_same(scrape.ext_auth("denied_seconds_total", "auth", ""), 7.0);
    assert_same(scrape.ext_auth("unchecked_seconds_total", "auth", ""), 13.0);
}

#[test]
fn unsampled_traces_count_as_neither_unchecked_nor_denied() {
    let metrics = Metrics::new();
    let tracing = ExtensionServiceStatus {
        role: Role::Tracing,
        fail_open: None,
        ..ext_auth("collector", ExtensionServiceState::Missing, Traffic::NotSampled)
    };
    metrics.observe_status("projectcontour", "edge", &status([tracing]), at(0));
    let scrape = Scrape::of(&metrics, at(60));
    let seconds = scrape.series_with("_seconds_total");
    assert_eq!(seconds.len(), 2, "{seconds:?}");
    for series in seconds {
        assert!(series.contains("role=\"Tracing\""), "{series}");
        assert_same(scrape.0[series], 0.0);
    }
}

#[test]
fn metrics_count_each_transition_but_not_the_first_observation() {
    let metrics = Metrics::new();
    let observe = |state, second| {
        metrics.observe_status(
            "projectcontour",
            "edge",
            &status([ext_auth("auth", state, Traffic::Denied)]),
            at(second),
        );
    };
    observe(ExtensionServiceState::Missing, 0);
    observe(ExtensionServiceState::Missing, 1);
    observe(ExtensionServiceState::Available, 2);
    observe(ExtensionServiceState::Available, 3);
    observe(ExtensionServiceState::Missing, 4);
    observe(ExtensionServiceState::Available, 5);
    let scrape = Scrape::of(&metrics, at(6));
    let transitions = |to: &str| scrape.ext_auth("transitions_total", "auth", &format!(",to=\"{to}\""));
    assert_same(transitions("Missing"), 1.0);
    assert_same(transitions("Available"), 2.0);
    assert_same(transitions("NoEndpoints"), 0.0);
}

#[test]
fn a_renamed_reference_drops_its_old_series() {
    let metrics = Metrics::new();
    let observe = |name, second| {
        let status = status([ext_auth(name, ExtensionServiceState::Missing, Traffic::Denied)]);
        metrics.observe_status("projectcontour", "edge", &status, at(second));
    };
    observe("old", 0);
    observe("new", 10);
    let scrape = Scrape::of(&metrics, at(15));
    assert_eq!(scrape.series_with("name=\"old\""), [""; 0]);
    assert_same(scrape.ext_auth("denied_seconds_total", "new", ""), 5.0);
}

#[test]
fn a_removed_role_drops_only_its_own_series() {
    let metrics = Metrics::new();
    let auth = ext_auth("auth", ExtensionServiceState::Missing, Traffic::Denied);
    let limit = ExtensionServiceStatus {
        role: Role::RateLimit,
        ..auth.clone()
    };
    metrics.observe_status("projectcontour", "edge", &status([limit, auth.clone()]), at(0));
    assert_ne!(Scrape::of(&metrics, at(0)).series_with("RateLimit"), [""; 0]);
    metrics.observe_status("projectcontour", "edge", &status([auth]), at(10));
    let scrape = Scrape::of(&metrics, at(10));
    assert_eq!(scrape.series_with("RateLimit"), [""; 0]);
    assert_same(scrape.ext_auth("denied_seconds_total", "auth", ""), 10.0);
}

#[test]
fn only_present_conditions_have_samples_one_for_each_status() {
    let metrics = Metrics::new();
    let with = |conditions| ContourDeploymentStatus {
        conditions,
        ..ContourDeploymentStatus::default()
    };
    let both = vec![condition("Ready", "False"), condition("Reconciling", "True")];
    metrics.observe_status("projectcontour", "edge", &with(both), at(0));
    let value = |scrape: &Scrape, type_: &str, status: &str| {
        scrape.value(&format!(
            "slipway_contourdeployment_condition{{type=\"{type_}\",status=\"{status}\",\
             contourdeployment_namespace=\"projectcontour\",contourdeployment=\"edge\"}}"
        ))
    };
    let scrape = Scrape::of(&metrics, at(0));
    assert_same(value(&scrape, "Ready", "True"), 0.0);
    assert_same(value(&scrape, "Ready", "False"), 1.0);
    assert_same(value(&scrape, "Ready", "Unknown"), 0.0);
    assert_same(value(&scrape, "Reconciling", "True"), 1.0);
    metrics.observe_status("projectcontour", "edge", &with(vec![condition("Ready", "True")]), at(1));
    let scrape = Scrape::of(&metrics, at(1));
    assert_same(value(&scrape, "Ready", "True"), 1.0);
    assert_same(value(&scrape, "Ready", "False"), 0.0);
    assert_eq!(scrape.series_with("Reconciling"), [""; 0]);
}

#[test]
fn a_deleted_contourdeployment_has_no_series() {
    let metrics = Metrics::new();
    let service = ext_auth("auth", ExtensionServiceState::Missing, Traffic::Denied);
    let status = ContourDeploymentStatus {
        conditions: vec![condition("Ready", "False")],
        ..status([service])
    };
    metrics.observe_status("projectcontour", "edge", &status, at(0));
    metrics.observe_status("elsewhere", "edge", &status, at(0));
    metrics.reconciled(
        "projectcontour",
        "edge",
        ReconcileOutcome::Error("Forbidden"),
        Duration::from_millis(3),
    );
    metrics.forget("projectcontour", "edge");
    metrics.reconciled(
        "projectcontour",
        "edge",
        ReconcileOutcome::Success,
        Duration::from_millis(3),
    );
    let scrape = Scrape::of(&metrics, at(1));
    assert_eq!(
        scrape.series_with("contourdeployment_namespace=\"projectcontour\""),
        [""; 0]
    );
    assert_ne!(scrape.series_with("contourdeployment_namespace=\"elsewhere\""), [""; 0]);
}

#[test]
fn metrics_count_reconciles_and_show_the_last_one_by_object() {
    let metrics = Metrics::new();
    let failed =
        "slipway_contourdeployment_reconcile_failed{contourdeployment_namespace=\"ns\",contourdeployment=\"edge\"}";
    let scrape = Scrape::of(&metrics, at(0));
    assert_same(scrape.value("slipway_reconciles_total{outcome=\"success\"}"), 0.0);
    assert_same(scrape.value("slipway_reconciles_total{outcome=\"error\"}"), 0.0);
    metrics.reconciled(
        "ns",
        "edge",
        ReconcileOutcome::Error("Timeout"),
        Duration::from_millis(700),
    );
    let scrape = Scrape::of(&metrics, at(0));
    assert_same(scrape.value("slipway_reconciles_total{outcome=\"error\"}"), 1.0);
    assert_same(scrape.value("slipway_reconcile_errors_total{reason=\"Timeout\"}"), 1.0);
    assert_same(scrape.value(failed), 1.0);
    metrics.reconciled("ns", "edge", ReconcileOutcome::Success, Duration::from_millis(3));
    let scrape = Scrape::of(&metrics, at(0));
    assert_same(scrape.value("slipway_reconciles_total{outcome=\"success\"}"), 1.0);
    assert_same(scrape.value(failed), 0.0);
    assert_same(scrape.value("slipway_reconcile_duration_seconds_count"), 2.0);
    assert_same(scrape.value("slipway_reconcile_duration_seconds_sum"), 0.703);
    assert_same(
        scrape.value("slipway_reconcile_duration_seconds_bucket{le=\"0.005\"}"),
        1.0,
    );
    assert_same(
        scrape.value("slipway_reconcile_duration_seconds_bucket{le=\"1.0\"}"),
        2.0,
    );
}

#[test]
fn metrics_count_writes_and_watch_errors_by_kind() {
    let metrics = Metrics::new();
    metrics.wrote("Deployment", "apply", WriteOutcome::Success);
    metrics.wrote("Deployment", "apply", WriteOutcome::Stale);
    metrics.wrote("Deployment", "apply", WriteOutcome::Error("Forbidden"));
    metrics.watch_failed("Pod");
    metrics.objects_in_backoff(3);
    let scrape = Scrape::of(&metrics, at(0));
    assert_same(
        scrape.value("slipway_writes_total{kind=\"Deployment\",verb=\"apply\",outcome=\"success\"}"),
        1.0,
    );
    assert_same(
        scrape.value("slipway_writes_total{kind=\"Deployment\",verb=\"apply\",outcome=\"error\"}"),
        1.0,
    );
    assert_same(
        scrape.value("slipway_writes_total{kind=\"Deployment\",verb=\"apply\",outcome=\"stale\"}"),
        1.0,
    );
    let errors = "slipway_write_errors_total{kind=\"Deployment\",verb=\"apply\",reason=\"Forbidden\"}";
    assert_same(scrape.value(errors), 1.0);
    assert_eq!(scrape.series_with("write_errors").len(), 1);
    assert_same(scrape.value("slipway_watch_errors_total{kind=\"Pod\"}"), 1.0);
    assert_same(scrape.value("slipway_objects_in_backoff"), 3.0);
}

#[test]
fn policy_metric_follows_the_installation() {
    let metrics = Metrics::new();
    let series = "slipway_admission_policy_installed{policy=\"slipway-marks\"}";
    for (installed, expected) in [(true, 1.0), (false, 0.0), (true, 1.0)] {
        metrics.admission_policy("slipway-marks", installed);
        assert_same(Scrape::of(&metrics, at(0)).value(series), expected);
    }
}

#[test]
fn build_metric_shows_the_version() {
    let series = format!("slipway_build_info{{version=\"{}\"}}", env!("CARGO_PKG_VERSION"));
    assert_same(Scrape::of(&Metrics::new(), at(0)).value(&series), 1.0);
}

/// Returns the alerts of `config/prometheus`: name and expression.
fn alerts() -> Vec<(String, String)> {
    let file = concat!(env!("CARGO_MANIFEST_DIR"), "/config/prometheus/prometheusrule.yaml");
    let rules: serde_json::Value = serde_saphyr::from_str(&std::fs::read_to_string(file).unwrap()).unwrap();
    let text = |value: &serde_json::Value| value.as_str().unwrap().to_owned();
    let rules = rules["spec"]["groups"][0]["rules"].as_array().unwrap();
    rules
        .iter()
        .map(|rule| (text(&rule["alert"]), text(&rule["expr"])))
        .collect()
}

#[test]
fn the_alert_on_a_missing_operator_has_namespace_and_job() {
    // PromQL's `absent` derives labels only from a plain selector.
    let selector = "up{namespace=\"slipway-system\", job=\"slipway\"}";
    let expected = format!("absent({selector}) or max by (namespace, job) ({selector}) == 0");
    let (_, down) = alerts().into_iter().find(|(name, _)| name == "SlipwayDown").unwrap();
    assert_eq!(down, expected);
}

#[test]
fn alerts_name_only_existing_metrics() {
    let metrics = Metrics::new();
    let service = ext_auth("auth", ExtensionServiceState::Missing, Traffic::Denied);
    let status = ContourDeploymentStatus {
        conditions: vec![condition("Ready", "False")],
        ..status([service])
    };
    metrics.observe_status("projectcontour", "edge", &status, at(0));
    let scrape = Scrape::of(&metrics, at(0));
    for (alert, expression) in alerts() {
        let words = expression.split(|c: char| !c.is_ascii_alphanumeric() && c != '_');
        for name in words.filter(|word| word.starts_with("slipway_")) {
            let series = scrape.series_with(&format!("{name}{{"));
            assert!(!series.is_empty(), "{alert}: metric {name} does not exist");
        }
    }
}
