//! The series of a referenced ExtensionService: a state machine whose inputs are statuses with their times, and whose outputs are samples.
//! The state machine reads no clock, so that tests do not wait.

use std::fmt;
use std::time::Duration;

use jiff::Timestamp;
use prometheus_client::encoding::{DescriptorEncoder, NoLabelSet};
use prometheus_client::metrics::MetricType;
use prometheus_client::registry::Unit;

use crate::api::{ExtensionServiceState, ExtensionServiceStatus, Role, Traffic};

/// The labels of the ContourDeployment that a series belongs to.
pub(super) type OwnerLabels<'a> = [(&'static str, &'a str); 2];

/// The largest backward step of the time that counts as an observation overtaken by a scrape. A larger step counts as a clock that was set
/// back.
const OVERTAKEN: Duration = Duration::from_mins(1);

/// The current effect on requests, and the time until which it has been counted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Exposure {
    traffic: Traffic,
    since: Timestamp,
}

impl Exposure {
    /// Returns the exposure counted until `now`, and the time that this call adds.
    ///
    /// A counter must not decrease and must not count a span twice. A `now` that is slightly earlier than the last one belongs to an
    /// observation overtaken by a scrape, and adds nothing. A `now` that is much earlier means that the clock was set back. The counter
    /// continues from there; otherwise it would stop until the clock catches up.
    fn advance(self, now: Timestamp) -> (Self, Duration) {
        let elapsed = now.duration_since(self.since);
        let since = if elapsed.is_negative() && elapsed.unsigned_abs() <= OVERTAKEN {
            self.since
        } else {
            now
        };
        (Self { since, ..self }, Duration::try_from(elapsed).unwrap_or_default())
    }
}

/// The series of one referenced ExtensionService.
#[derive(Debug)]
pub(super) struct Series {
    role: Role,
    namespace: String,
    name: String,
    state: ExtensionServiceState,
    /// The number of transitions to each state, in the order of `ExtensionServiceState::ALL`.
    transitions: [u64; ExtensionServiceState::ALL.len()],
    exposure: Exposure,
    unchecked: Duration,
    denied: Duration,
}

impl Series {
    /// Returns a series that starts at zero. An earlier process has counted the time before.
    fn new(status: &ExtensionServiceStatus, now: Timestamp) -> Self {
        Self {
            role: status.role,
            namespace: status.namespace.clone(),
            name: status.name.clone(),
            state: status.state,
            transitions: [0; ExtensionServiceState::ALL.len()],
            exposure: Exposure {
                traffic: status.traffic,
                since: now,
            },
            unchecked: Duration::ZERO,
            denied: Duration::ZERO,
        }
    }

    fn is_of(&self, status: &ExtensionServiceStatus) -> bool {
        self.role == status.role && self.namespace == status.namespace && self.name == status.name
    }

    fn observe(&mut self, status: &ExtensionServiceStatus, now: Timestamp) {
        self.advance(now);
        self.exposure.traffic = status.traffic;
        if self.state != status.state {
            self.state = status.state;
            self.transitions[position(status.state)] += 1;
        }
    }

    /// Counts the time until `now`.
    pub(super) fn advance(&mut self, now: Timestamp) {
        let elapsed;
        (self.exposure, elapsed) = self.exposure.advance(now);
        match self.exposure.traffic {
            // An unknown effect counts as the worst one.
            Traffic::AllowedUnchecked | Traffic::Unknown => self.unchecked += elapsed,
            Traffic::Denied => self.denied += elapsed,
            // Without a tracing service no request passes that should be denied, and no request is denied.
            Traffic::Enforced | Traffic::NotSampled => {}
        }
    }
}

fn position(state: ExtensionServiceState) -> usize {
    ExtensionServiceState::ALL
        .iter()
        .position(|other| *other == state)
        .expect("ALL holds every state")
}

/// Returns the series after this status. Series of removed references are dropped.
pub(super) fn observe(before: Vec<Series>, statuses: &[ExtensionServiceStatus], now: Timestamp) -> Vec<Series> {
    let mut before = before;
    statuses
        .iter()
        .map(|status| match before.iter().position(|series| series.is_of(status)) {
            Some(index) => {
                let mut series = before.swap_remove(index);
                series.observe(status, now);
                series
            }
            None => Series::new(status, now),
        })
        .collect()
}

/// Writes the samples grouped by family, as the format requires.
pub(super) fn encode<'a, I>(encoder: &mut DescriptorEncoder<'_>, all: I) -> fmt::Result
where
    I: Iterator<Item = (OwnerLabels<'a>, &'a Series)> + Clone,
{
    let roles = Role::ALL.map(|role| (role, role.to_string()));
    let states = ExtensionServiceState::ALL.map(|state| (state, format!("{state:?}")));
    let labels = |owner: OwnerLabels<'a>, series: &'a Series| {
        let role = roles
            .iter()
            .find(|(role, _)| *role == series.role)
            .map_or("", |(_, label)| label.as_str());
        (
            owner,
            [
                ("role", role),
                ("extension_service_namespace", series.namespace.as_str()),
                ("extension_service", series.name.as_str()),
            ],
        )
    };

    let mut family = encoder.encode_descriptor(
        "slipway_extension_service_available",
        "Whether the referenced ExtensionService is valid and has a ready endpoint.",
        None,
        MetricType::Gauge,
    )?;
    for (owner, series) in all.clone() {
        let available = u64::from(series.state == ExtensionServiceState::Available);
        family.encode_family(&labels(owner, series))?.encode_gauge(&available)?;
    }

    let mut family = encoder.encode_descriptor(
        "slipway_extension_service_state",
        "The state of the referenced ExtensionService: 1 for the current state, 0 for the others.",
        None,
        MetricType::Gauge,
    )?;
    for (owner, series) in all.clone() {
        for (state, label) in &states {
            let labels = (labels(owner, series), [("state", label.as_str())]);
            family
                .encode_family(&labels)?
                .encode_gauge(&u64::from(series.state == *state))?;
        }
    }

    let mut family = encoder.encode_descriptor(
        "slipway_extension_service_transitions",
        "Number of times that the referenced ExtensionService entered this state.",
        None,
        MetricType::Counter,
    )?;
    for (owner, series) in all.clone() {
        for ((_, label), count) in states.iter().zip(series.transitions) {
            let labels = (labels(owner, series), [("to", label.as_str())]);
            family
                .encode_family(&labels)?
                .encode_counter::<NoLabelSet, _, u64>(&count, None)?;
        }
    }

    let mut family = encoder.encode_descriptor(
        "slipway_extension_service_unchecked",
        "Time for which requests passed unchecked by the referenced ExtensionService, or for which that is unknown.",
        Some(&Unit::Seconds),
        MetricType::Counter,
    )?;
    for (owner, series) in all.clone() {
        let seconds = series.unchecked.as_secs_f64();
        family
            .encode_family(&labels(owner, series))?
            .encode_counter::<NoLabelSet, _, u64>(&seconds, None)?;
    }

    let mut family = encoder.encode_descriptor(
        "slipway_extension_service_denied",
        "Time for which requests were denied without a check by the referenced ExtensionService.",
        Some(&Unit::Seconds),
        MetricType::Counter,
    )?;
    for (owner, series) in all {
        let seconds = series.denied.as_secs_f64();
        family
            .encode_family(&labels(owner, series))?
            .encode_counter::<NoLabelSet, _, u64>(&seconds, None)?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(1_000_000 + second).unwrap()
    }

    #[test]
    fn exposure_counts_each_span_once() {
        let exposure = Exposure {
            traffic: Traffic::Denied,
            since: at(0),
        };
        let (exposure, first) = exposure.advance(at(10));
        let (exposure, second) = exposure.advance(at(10));
        let (_, third) = exposure.advance(at(25));
        assert_eq!([first, second, third].map(|span| span.as_secs()), [10, 0, 15]);
    }

    #[test]
    fn exposure_counts_no_span_twice_after_an_overtaken_observation() {
        let exposure = Exposure {
            traffic: Traffic::Denied,
            since: at(10),
        };
        let (exposure, overtaken) = exposure.advance(at(9));
        let (_, next) = exposure.advance(at(12));
        assert_eq!([overtaken, next].map(|span| span.as_secs()), [0, 2]);
    }

    #[test]
    fn exposure_continues_after_the_clock_is_set_back() {
        let exposure = Exposure {
            traffic: Traffic::Denied,
            since: at(7200),
        };
        let (exposure, back) = exposure.advance(at(0));
        let (_, next) = exposure.advance(at(30));
        assert_eq!([back, next].map(|span| span.as_secs()), [0, 30]);
    }
}
