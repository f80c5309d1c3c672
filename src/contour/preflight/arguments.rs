//! Checks the fields that become arguments of Contour, Envoy and the shutdown manager. Each of these programs exits on an argument that it
//! does not understand.

use std::time::Duration;

use super::super::duration;
use super::super::version::{FlagValue, Version};
use crate::api::{ContourDeploymentSpec, LeaderElection, Shutdown};

/// The defaults of `contour serve` (`cmd/contour/serve.go`, v1.33).
const LEASE_DURATION: Duration = Duration::from_secs(15);
const RENEW_DEADLINE: Duration = Duration::from_secs(10);
const RETRY_PERIOD: Duration = Duration::from_secs(2);

/// The upper bound of a drain, in seconds, unless the user sets another one.
pub const GRACE_PERIOD: i64 = 300;

/// Returns one message for each problem, with the path of the field.
pub fn check(version: Version, spec: &ContourDeploymentSpec) -> Vec<String> {
    let mut problems = Vec::new();
    leader_election(&spec.contour.leader_election, &mut problems);
    shutdown(&spec.envoy.shutdown, &mut problems);
    flags(version, &spec.envoy.extra_args, &mut problems);
    problems
}

/// Parses a duration. An invalid one is a problem, and counts as the default.
fn time(field: &str, text: Option<&str>, default: Duration, problems: &mut Vec<String>) -> Duration {
    let parsed = text.map_or(Ok(default), duration::parse_finite);
    parsed.unwrap_or_else(|problem| {
        problems.push(format!("{field}: {problem}"));
        default
    })
}

/// client-go refuses other relations, and Contour exits (`tools/leaderelection/leaderelection.go`, `NewLeaderElector`, client-go 0.34).
fn leader_election(election: &LeaderElection, problems: &mut Vec<String>) {
    let field = "spec.contour.leaderElection";
    let mut time = |name: &str, text: &Option<String>, default| {
        time(&format!("{field}.{name}"), text.as_deref(), default, problems)
    };
    let lease = time("leaseDuration", &election.lease_duration, LEASE_DURATION);
    let renew = time("renewDeadline", &election.renew_deadline, RENEW_DEADLINE);
    let retry = time("retryPeriod", &election.retry_period, RETRY_PERIOD);
    // client-go computes with floating-point numbers: JitterFactor is 1.2.
    if lease < Duration::from_secs(1) {
        problems.push(format!(
            "{field}.leaseDuration: it must be at least 1s, because a Lease stores whole seconds"
        ));
    }
    if lease <= renew {
        problems.push(format!(
            "{field}: leaseDuration ({lease:?}) must be longer than renewDeadline ({renew:?})"
        ));
    }
    if retry.is_zero() {
        problems.push(format!("{field}.retryPeriod: it must be longer than 0"));
    }
    if renew <= retry.mul_f64(1.2) {
        problems.push(format!(
            "{field}: renewDeadline ({renew:?}) must be longer than 1.2 times retryPeriod ({retry:?})"
        ));
    }
}

fn shutdown(shutdown: &Shutdown, problems: &mut Vec<String>) {
    let field = "spec.envoy.shutdown";
    let mut time = |name: &str, text: &Option<String>, default| {
        time(&format!("{field}.{name}"), text.as_deref(), default, problems)
    };
    let delay = time("drainDelay", &shutdown.drain_delay, Duration::ZERO);
    let check = time("checkDelay", &shutdown.check_delay, Duration::ZERO);
    let interval = time("checkInterval", &shutdown.check_interval, Duration::from_secs(5));
    if interval.is_zero() {
        problems.push(format!("{field}.checkInterval: it must be longer than 0"));
    }
    let grace = shutdown.grace_period_seconds.unwrap_or(GRACE_PERIOD);
    let grace = Duration::from_secs(u64::try_from(grace).unwrap_or_default());
    if delay.saturating_add(check) >= grace {
        problems.push(format!(
            "{field}: drainDelay ({delay:?}) and checkDelay ({check:?}) together must be shorter than gracePeriodSeconds ({grace:?}), \
             or Envoy is killed before it has drained"
        ));
    }
}

fn flags(version: Version, arguments: &[String], problems: &mut Vec<String>) {
    let known = version.facts().envoy_flags;
    let mut seen = Vec::new();
    for (index, argument) in arguments.iter().enumerate() {
        let (flag, value) = match argument.split_once('=') {
            Some((flag, value)) => (flag, Some(value)),
            None => (argument.as_str(), None),
        };
        let problem = match known.iter().find(|(name, _)| *name == flag) {
            None => {
                let names: Vec<_> = known.iter().map(|(name, _)| *name).collect();
                Some(format!(
                    "{flag:?} is not one of the supported flags {}",
                    names.join(", ")
                ))
            }
            Some(_) if seen.contains(&flag) => Some(format!("{flag} must not occur twice")),
            Some((_, expected)) => expected.problem(value).map(|problem| format!("{flag} {problem}")),
        };
        seen.push(flag);
        problems.extend(problem.map(|problem| format!("spec.envoy.extraArgs[{index}]: {problem}")));
    }
}

impl FlagValue {
    /// Returns what is wrong with a value.
    fn problem(self, value: Option<&str>) -> Option<String> {
        match (self, value) {
            (Self::None, None) => None,
            (Self::None, Some(_)) => Some("has no value".to_owned()),
            (_, None | Some("")) => Some("needs a value: --flag=value".to_owned()),
            // Kubernetes replaces `$(NAME)` in an argument.
            (_, Some(value)) if value.contains(|c: char| c.is_control()) || value.contains("$(") => {
                Some("must not contain control characters or $(".to_owned())
            }
            (Self::Number(greatest), Some(value)) => {
                let digits = value.bytes().all(|byte| byte.is_ascii_digit());
                let is_number = digits && value.parse::<u32>().is_ok_and(|number| number <= greatest);
                (!is_number).then(|| format!("needs a number from 0 to {greatest}, not {value:?}"))
            }
            (Self::OneOf(texts), Some(value)) => {
                (!texts.contains(&value)).then(|| format!("needs one of {}, not {value:?}", texts.join(", ")))
            }
            (Self::Text, Some(_)) => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn problems(spec: &Value) -> Vec<String> {
        let spec = serde_json::from_value(spec.clone()).expect("a spec");
        check(Version::DEFAULT, &spec)
    }

    #[test]
    fn check_names_the_field_that_would_stop_a_program() {
        let election = |value: Value| json!({"contour": {"leaderElection": value}});
        let shutdown = |value: Value| json!({"envoy": {"shutdown": value}});
        let flags = |value: Value| json!({"envoy": {"extraArgs": value}});
        for (spec, message) in [
            (
                election(json!({"leaseDuration": "soon"})),
                "spec.contour.leaderElection.leaseDuration: \"soon\" is not a Go duration",
            ),
            (
                election(json!({"leaseDuration": "500ms", "renewDeadline": "400ms", "retryPeriod": "1ms"})),
                "at least 1s",
            ),
            (
                election(json!({"leaseDuration": "10s"})),
                "leaseDuration (10s) must be longer than renewDeadline (10s)",
            ),
            (
                election(json!({"renewDeadline": "2s"})),
                "renewDeadline (2s) must be longer than 1.2 times retryPeriod (2s)",
            ),
            (
                election(json!({"retryPeriod": "0s"})),
                "spec.contour.leaderElection.retryPeriod: it must be longer than 0",
            ),
            (
                shutdown(json!({"drainDelay": "-1s"})),
                "spec.envoy.shutdown.drainDelay: \"-1s\" is negative",
            ),
            (
                shutdown(json!({"checkInterval": "0"})),
                "spec.envoy.shutdown.checkInterval: it must be longer than 0",
            ),
            (
                shutdown(json!({"drainDelay": "5m"})),
                "must be shorter than gracePeriodSeconds (300s)",
            ),
            (
                shutdown(json!({"checkDelay": "3s", "drainDelay": "2s", "gracePeriodSeconds": 5})),
                "shorter than gracePeriodSeconds (5s)",
            ),
            (
                flags(json!(["--config-yaml={}"])),
                "spec.envoy.extraArgs[0]: \"--config-yaml\" is not one of the supported flags --concurrency, ",
            ),
            (
                flags(json!(["--cpuset-threads", "--concurrency=x"])),
                "spec.envoy.extraArgs[1]: --concurrency needs a number",
            ),
            (flags(json!(["--concurrency=1025"])), "needs a number from 0 to 1024"),
            (
                flags(json!(["--drain-time-s=4294967296"])),
                "needs a number from 0 to 4294967295",
            ),
            (flags(json!(["--concurrency=+1"])), "needs a number"),
            (
                flags(json!(["--concurrency=1", "--concurrency=2"])),
                "spec.envoy.extraArgs[1]: --concurrency must not occur twice",
            ),
            (flags(json!(["--concurrency"])), "--concurrency needs a value"),
            (flags(json!(["--concurrency 1"])), "\"--concurrency 1\" is not one"),
            (flags(json!(["--cpuset-threads=1"])), "--cpuset-threads has no value"),
            (
                flags(json!(["--drain-strategy=later"])),
                "--drain-strategy needs one of gradual, immediate",
            ),
            (flags(json!(["--service-zone=$(ENVOY_POD_NAME)"])), "must not contain"),
            (flags(json!(["--log-format="])), "--log-format needs a value"),
        ] {
            let problems = problems(&spec);
            assert!(
                problems.len() == 1 && problems[0].contains(message),
                "{spec}: {problems:?}"
            );
        }
    }

    #[test]
    fn check_accepts_what_the_programs_understand() {
        for spec in [
            json!({}),
            json!({"contour": {"leaderElection": {"leaseDuration": "60s", "renewDeadline": "40s", "retryPeriod": "5s"}}}),
            json!({"contour": {"leaderElection": {"renewDeadline": "2401ms"}}}),
            json!({"envoy": {"shutdown": {"drainDelay": "10s", "checkDelay": "60s", "checkInterval": "500ms", "gracePeriodSeconds": 71}}}),
            json!({"envoy": {"extraArgs": ["--concurrency=0", "--drain-strategy=immediate", "--log-format=[%T] %v=x", "--cpuset-threads"]}}),
        ] {
            assert_eq!(problems(&spec), [""; 0], "{spec}");
        }
    }
}
