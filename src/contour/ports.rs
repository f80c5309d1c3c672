//! The ports that Contour and Envoy listen on. Most of them are settings of Contour, whose defaults depend on its version.

use serde_json::Value;

use super::version::Version;
use crate::api::RuntimeSettings;

/// The port of Contour's xDS server. Only Slipway sets `xdsServer`, so the port is always Contour's default.
pub const XDS: i32 = 8001;

/// The port of the shutdown manager in Envoy's pods (`contour envoy shutdown-manager --serve-port`, default; v1.33).
pub const SHUTDOWN_MANAGER: i32 = 8090;

/// The ports that the settings determine.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ports {
    /// Contour: `/healthz`.
    pub contour_health: i32,
    /// Contour: `/metrics`.
    pub contour_metrics: i32,
    /// Contour: pprof and the graph of its state. Contour listens on the loopback interface unless the settings name another address.
    pub contour_debug: i32,
    /// Envoy: HTTP.
    pub envoy_http: i32,
    /// Envoy: HTTPS.
    pub envoy_https: i32,
    /// Envoy: `/stats`.
    pub envoy_metrics: i32,
    /// Envoy: `/ready`.
    pub envoy_health: i32,
}

impl Ports {
    /// Returns the ports for these settings. A setting that is absent or not a valid port number leaves the default of this version;
    /// `preflight` refuses an invalid port number.
    pub fn of(version: Version, settings: &RuntimeSettings) -> Self {
        let default = version.facts().ports;
        let port = |path: &[&str], default| setting(settings, path).and_then(valid).unwrap_or(default);
        Self {
            contour_health: port(&["health", "port"], default.contour_health),
            contour_metrics: port(&["metrics", "port"], default.contour_metrics),
            contour_debug: port(&["debug", "port"], default.contour_debug),
            envoy_http: port(&["envoy", "http", "port"], default.envoy_http),
            envoy_https: port(&["envoy", "https", "port"], default.envoy_https),
            envoy_metrics: port(&["envoy", "metrics", "port"], default.envoy_metrics),
            envoy_health: port(&["envoy", "health", "port"], default.envoy_health),
        }
    }
}

fn setting<'a>(settings: &'a RuntimeSettings, path: &[&str]) -> Option<&'a Value> {
    let (first, rest) = path.split_first()?;
    rest.iter()
        .try_fold(settings.other.get(*first)?, |value, key| value.get(key))
}

/// Returns the value as a port, or None if it is not a valid port. Contour treats 0 as "not set", because it merges its defaults over
/// empty values.
fn valid(value: &Value) -> Option<i32> {
    value
        .as_i64()
        .and_then(|port| u16::try_from(port).ok())
        .filter(|port| *port > 0)
        .map(i32::from)
}

#[cfg(test)]
mod tests {
    use super::Ports;
    use crate::api::RuntimeSettings;
    use crate::contour::version::Version;
    use serde_json::{Value, json};

    fn of(settings: Value) -> Ports {
        Ports::of(
            Version::DEFAULT,
            &serde_json::from_value::<RuntimeSettings>(settings).unwrap(),
        )
    }

    #[test]
    fn ports_without_valid_settings_are_contours_defaults() {
        let defaults = Version::DEFAULT.facts().ports;
        assert_eq!(of(json!({})), defaults);
        assert_eq!(
            of(json!({"health": {"port": 0}, "envoy": {"http": {"port": 70_000}, "https": {"port": "8443"}}})),
            defaults
        );
    }

    #[test]
    fn every_port_follows_its_setting() {
        let ports = of(json!({
            "health": {"port": 1}, "metrics": {"port": 2}, "debug": {"port": 3},
            "envoy": {"http": {"port": 4}, "https": {"port": 5}, "metrics": {"port": 6}, "health": {"port": 7}},
        }));
        let expected = Ports {
            contour_health: 1,
            contour_metrics: 2,
            contour_debug: 3,
            envoy_http: 4,
            envoy_https: 5,
            envoy_metrics: 6,
            envoy_health: 7,
        };
        assert_eq!(ports, expected);
    }
}
