//! Checks settings before Slipway applies anything. The checks find settings that make Contour exit at its start, that make Envoy refuse
//! its configuration, or that make the API server refuse Contour's Deployment. The ContourConfiguration CRD (v1.33) accepts all of these
//! settings. A dry run finds what the CRD refuses (unknown fields, wrong types), so the checks here skip such values.
//!
//! Sources, all Contour v1.33.8: `apis/projectcontour/v1alpha1/contourconfig_helpers.go` (`Validate`, after the defaults of
//! `internal/contourconfig/contourconfiguration.go` are applied), `ParseTimeoutPolicy` in the same file,
//! `cmd/contour/serve.go`, `internal/httpsvc/http.go`, `internal/envoy/v3`, `internal/dag/policy.go`.

mod access_log;
mod arguments;
mod endpoint;
mod size;

pub use arguments::GRACE_PERIOD;

use std::collections::BTreeSet;

use serde_json::{Map, Value};

use super::duration;
use super::version::Version;
use crate::api::ContourDeploymentSpec;

/// Returns one message for each problem, with the path of the field. The result is empty if Contour and Envoy accept the settings.
pub fn check(spec: &ContourDeploymentSpec) -> Vec<String> {
    let settings = serde_json::to_value(&spec.runtime_settings).expect("settings are JSON");
    let mut check = Check {
        version: Version::for_image(spec.contour.image.as_deref()),
        settings: &settings,
        problems: Vec::new(),
    };
    timeouts(&mut check);
    unsigned_numbers(&mut check);
    tls(&mut check, "envoy.listener.tls");
    // Contour does not check these settings, and Envoy refuses the clusters that have invalid ones.
    tls(&mut check, "envoy.cluster.upstreamTLS");
    words(&mut check);
    access_log::check(&mut check);
    endpoint::check(&mut check);
    tracing(&mut check);
    rate_limits(&mut check);
    headers(&mut check);
    size::check(&mut check);
    let version = check.version;
    [check.problems, arguments::check(version, spec)].concat()
}

/// The settings, and the problems found in them.
struct Check<'a> {
    version: Version,
    settings: &'a Value,
    problems: Vec<String>,
}

impl<'a> Check<'a> {
    /// Returns the value at a path such as `envoy.http.port`, or None if it is absent.
    fn value(&self, path: &str) -> Option<&'a Value> {
        path.split('.').try_fold(self.settings, |value, key| value.get(key))
    }

    fn text(&self, path: &str) -> Option<&'a str> {
        self.value(path)?.as_str()
    }

    /// Returns a text that is not empty, or None. Contour applies its defaults over empty texts.
    fn nonempty_text(&self, path: &str) -> Option<&'a str> {
        self.text(path).filter(|text| !text.is_empty())
    }

    fn items(&self, path: &str) -> impl Iterator<Item = &'a Value> + use<'a> {
        self.value(path).and_then(Value::as_array).into_iter().flatten()
    }

    fn texts(&self, path: &str) -> impl Iterator<Item = &'a str> + use<'a> {
        self.items(path).filter_map(Value::as_str)
    }

    fn fields(&self, path: &str) -> Option<&'a Map<String, Value>> {
        self.value(path)?.as_object()
    }

    fn refuse(&mut self, path: &str, why: impl std::fmt::Display) {
        self.problems.push(format!("spec.runtimeSettings.{path}: {why}"));
    }
}

fn timeouts(check: &mut Check) {
    let fields = [
        // If this field is invalid, the HTTPS virtual hosts of HTTPProxies disappear (`internal/dag/httpproxy_processor.go`).
        "globalExtAuth.responseTimeout",
        "envoy.timeouts.requestTimeout",
        "envoy.timeouts.connectionIdleTimeout",
        "envoy.timeouts.streamIdleTimeout",
        "envoy.timeouts.maxConnectionDuration",
        "envoy.timeouts.delayedCloseTimeout",
        "envoy.timeouts.connectionShutdownGracePeriod",
    ];
    for field in fields {
        if let Some(Err(problem)) = check.text(field).map(duration::parse) {
            check.refuse(field, problem);
        }
    }
    let field = "envoy.timeouts.connectTimeout";
    if let Some(Err(problem)) = check.text(field).map(duration::parse_finite) {
        check.refuse(field, problem);
    }
}

/// Checks numbers that are unsigned in Contour but may be negative in the CRD. Contour can't decode a ContourConfiguration with a negative
/// one.
fn unsigned_numbers(check: &mut Check) {
    let limits = [
        "maxConnections",
        "maxPendingRequests",
        "maxRequests",
        "maxRetries",
        "perHostMaxConnections",
    ];
    let limits = limits.map(|limit| format!("envoy.cluster.circuitBreakers.{limit}"));
    for field in limits
        .iter()
        .map(String::as_str)
        .chain(["envoy.network.numTrustedHops", "tracing.maxPathTagLength"])
    {
        if let Some(number) = check
            .value(field)
            .and_then(Value::as_i64)
            .filter(|number| u32::try_from(*number).is_err())
        {
            check.refuse(field, format_args!("{number} is not between 0 and {}", u32::MAX));
        }
    }
}

fn tls(check: &mut Check, path: &str) {
    let mut version = |field: &str, default| {
        let field = format!("{path}.{field}");
        let version = check.nonempty_text(&field).unwrap_or(default);
        if !["1.2", "1.3"].contains(&version) {
            check.refuse(
                &field,
                format_args!("{version:?} is not a TLS version; it must be 1.2 or 1.3"),
            );
        }
        version
    };
    let minimum = version("minimumProtocolVersion", "1.2");
    let maximum = version("maximumProtocolVersion", "1.3");
    if (minimum, maximum) == ("1.3", "1.2") {
        check.refuse(
            &format!("{path}.minimumProtocolVersion"),
            "1.3 is greater than maximumProtocolVersion, 1.2",
        );
    }
    let ciphers = check.version.facts().ciphers;
    let field = format!("{path}.cipherSuites");
    for suite in check.texts(&field).filter(|suite| !is_cipher_suite(ciphers, suite)) {
        check.refuse(
            &field,
            format_args!("{suite:?} is not a cipher suite that Contour accepts"),
        );
    }
}

/// Reports whether a text is a known cipher, or a group of known ciphers of equal preference, `[a|b]`.
fn is_cipher_suite(ciphers: &[&str], suite: &str) -> bool {
    match suite.strip_prefix('[').and_then(|group| group.strip_suffix(']')) {
        Some(group) => group.split('|').all(|cipher| ciphers.contains(&cipher)),
        None => ciphers.contains(&suite),
    }
}

/// Checks fields that accept one of a few words.
fn words(check: &mut Check) {
    let field = "envoy.defaultHTTPVersions";
    for version in check
        .texts(field)
        .filter(|version| !["HTTP/1.1", "HTTP/2"].contains(version))
    {
        check.refuse(
            field,
            format_args!("{version:?} is not an HTTP version that Contour accepts; it must be HTTP/1.1 or HTTP/2"),
        );
    }
    let field = "envoy.cluster.dnsLookupFamily";
    if let Some(family) = check
        .nonempty_text(field)
        .filter(|family| !["auto", "v4", "v6", "all"].contains(family))
    {
        check.refuse(field, format_args!("{family:?} is not one of auto, v4, v6 and all"));
    }
}

fn tracing(check: &mut Check) {
    let field = "tracing.overallSampling";
    if let Some(text) = check.text(field) {
        // Envoy accepts 0 to 100. Contour treats 0 as 100.
        if !text
            .parse::<f64>()
            .is_ok_and(|percentage| (0.0..=100.0).contains(&percentage))
        {
            check.refuse(field, format_args!("{text:?} is not a decimal number from 0 to 100"));
        }
    }
    let field = "tracing.customTags";
    let mut names = BTreeSet::new();
    for tag in check.items(field) {
        let text = |key: &str| tag.get(key).and_then(Value::as_str).filter(|text| !text.is_empty());
        let name = text("tagName").unwrap_or_default();
        if name.is_empty() {
            check.refuse(field, "a tag has no tagName");
        } else if !names.insert(name) {
            check.refuse(field, format_args!("two tags have the name {name:?}"));
        }
        if text("literal").is_some() == text("requestHeaderName").is_some() {
            check.refuse(
                field,
                format_args!("tag {name:?} must have exactly one of literal and requestHeaderName"),
            );
        }
        // Envoy validates `type.tracing.v3.CustomTag.Header.name` as HTTP_HEADER_NAME, not strict.
        if text("requestHeaderName").is_some_and(|header| header.contains(['\0', '\r', '\n'])) {
            check.refuse(
                field,
                format_args!("the requestHeaderName of tag {name:?} is not the name of a header"),
            );
        }
    }
}

fn rate_limits(check: &mut Check) {
    let field = "rateLimitService.domain";
    if check.value("rateLimitService").is_some() && check.nonempty_text(field).is_none() {
        check.refuse(field, "it must not be empty, because Envoy would refuse all listeners");
    }
    // If this policy is invalid, every HTTPProxy without a policy of its own becomes invalid (`internal/dag/policy.go`).
    let field = "rateLimitService.defaultGlobalRateLimitPolicy.descriptors";
    let kinds = [
        "genericKey",
        "requestHeader",
        "requestHeaderValueMatch",
        "remoteAddress",
    ];
    for descriptor in check.items(field) {
        for entry in descriptor
            .get("entries")
            .and_then(Value::as_array)
            .into_iter()
            .flatten()
        {
            if kinds
                .iter()
                .filter(|kind| entry.get(**kind).is_some_and(|value| !value.is_null()))
                .count()
                != 1
            {
                check.refuse(
                    field,
                    format_args!("an entry must have exactly one of {}", kinds.join(", ")),
                );
            }
        }
    }
}

/// Checks the default header policies. A policy that Contour can't use makes every HTTPProxy invalid (`internal/dag/policy.go`,
/// `headersPolicyService`).
fn headers(check: &mut Check) {
    for policy in ["policy.requestHeaders", "policy.responseHeaders"] {
        let (set, remove) = (format!("{policy}.set"), format!("{policy}.remove"));
        let names = check
            .fields(&set)
            .into_iter()
            .flatten()
            .map(|(name, _)| (&set, name.as_str()));
        let names: Vec<_> = names.chain(check.texts(&remove).map(|name| (&remove, name))).collect();
        for (field, name) in names {
            if name.is_empty() || !name.chars().all(|c| c.is_ascii_alphanumeric() || c == '-') {
                check.refuse(
                    field,
                    format_args!("{name:?} is not the name of a header (letters, digits and '-')"),
                );
            }
        }
        for (name, value) in check
            .fields(&set)
            .into_iter()
            .flatten()
            .filter(|(name, _)| name.eq_ignore_ascii_case("host"))
        {
            if policy == "policy.responseHeaders" {
                check.refuse(&set, format_args!("{name} can't be set in responses"));
            } else if value.as_str().is_some_and(takes_a_header) {
                check.refuse(&set, format_args!("{name} can't be copied from another header here"));
            }
        }
    }
}

/// Reports whether a value contains `%REQ(<header>)%`.
fn takes_a_header(value: &str) -> bool {
    value.match_indices("%REQ(").any(|(start, prefix)| {
        let rest = &value[start + prefix.len()..];
        let end = rest
            .find(|c: char| !c.is_ascii_alphanumeric() && c != '-')
            .unwrap_or(rest.len());
        end > 0 && rest[end..].starts_with(")%")
    })
}

#[cfg(test)]
mod tests;
