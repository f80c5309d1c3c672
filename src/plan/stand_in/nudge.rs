//! Nudges: changes of a stand-in without a meaning, which make Contour reconcile all ExtensionServices.
//!
//! Contour does not reconcile an ExtensionService when a Service that the ExtensionService names is created or gets its port later. Contour
//! observes only Services that Ingresses, HTTPProxies and routes name (v1.33, `internal/dag/cache.go`, `serviceTriggersRebuild`). Contour
//! also sends a verdict only once, after a reconciliation. A verdict that is lost, because the Contour is not the leader or cannot write,
//! is not sent again (`internal/k8s/status.go`). Contour reconciles all ExtensionServices and reports verdicts when the generation of any
//! ExtensionService changes (`internal/k8s/helpers.go`, `IsObjectEqual`).

use std::time::Duration;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

/// The times of repeated nudges, counted from when Contour could have reported another verdict. A nudge is repeated if it had no effect,
/// because Contour's own cache may lag behind, or the next verdict may be lost, too.
const AGAIN: [Duration; 4] = [
    Duration::from_secs(5),
    Duration::from_secs(15),
    Duration::from_mins(1),
    Duration::from_mins(5),
];

/// The interval of the nudges after the last of these times.
const FOR_EVER: Duration = Duration::from_mins(10);

/// The greatest weight that the CRD accepts (format int32).
const GREATEST: u32 = i32::MAX.unsigned_abs();

/// The subject of a nudge, and the time when the nudge is due.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Due {
    /// The subject of the nudge.
    about: Vec<String>,
    /// The number of the nudge that is due, from 0. None: the first nudge is not due yet.
    step: Option<u64>,
    /// The time until the next nudge is due.
    pub next: Duration,
}

/// A nudge that was given.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Nudge {
    about: Vec<String>,
    step: u64,
    /// Alternates between nudges, to select other weights.
    odd: bool,
}

impl Due {
    /// Returns the nudge for Services that Contour has not found, although all of them have existed since `since`. `uids` are the uids of
    /// the Services. The first nudge is due immediately.
    pub fn for_services(uids: Vec<String>, since: Timestamp, now: Timestamp) -> Self {
        let (over, next) = place(since, now);
        Self {
            about: uids,
            step: Some(over),
            next,
        }
    }

    /// Returns the nudge for an object in one generation on which Contour has reported no verdict since `since`. The first nudge is due
    /// after the first of the times.
    pub fn for_silence(uid: &str, generation: i64, since: Timestamp, now: Timestamp) -> Self {
        let (over, next) = place(since, now);
        Self {
            about: vec![format!("{uid}@{generation}"), since.to_string()],
            step: over.checked_sub(1),
            next,
        }
    }

    /// Reports whether a nudge is due.
    pub fn is_due(&self) -> bool {
        self.step.is_some()
    }

    /// Returns the nudge that is due, or the last nudge if the two are the same. Returns None if no nudge is due.
    pub fn given(&self, last: Option<Nudge>) -> Option<Nudge> {
        let step = self.step?;
        match last {
            Some(last) if (&last.about, last.step) == (&self.about, step) => Some(last),
            last => Some(Nudge {
                about: self.about.clone(),
                step,
                odd: !last.is_some_and(|last| last.odd),
            }),
        }
    }
}

/// Returns how many of the times have passed, and the time until the next one.
fn place(since: Timestamp, now: Timestamp) -> (u64, Duration) {
    let passed = Duration::try_from(now.duration_since(since)).unwrap_or(Duration::ZERO);
    let over = AGAIN.iter().take_while(|wait| **wait <= passed).count();
    let (more, next) = if let Some(wait) = AGAIN.get(over) {
        (0, wait.saturating_sub(passed))
    } else {
        let passed = passed.saturating_sub(AGAIN[AGAIN.len() - 1]).as_secs();
        let left = FOR_EVER.as_secs() - passed % FOR_EVER.as_secs();
        (passed / FOR_EVER.as_secs(), Duration::from_secs(left))
    };
    (over as u64 + more, next)
}

impl Nudge {
    /// Sets other weights with the same proportions on the Services of a stand-in. Contour uses only the proportions, and treats weights
    /// that are all zero as equal (`internal/dag/dag.go`, `ServiceCluster.Rebalance`). Weights that are too great to be multiplied stay
    /// unchanged.
    pub fn put_into(&self, spec: &mut Map<String, Value>) {
        let Some(services) = spec.get_mut("services").and_then(Value::as_array_mut) else {
            return;
        };
        let (weight_for_all, factor) = if self.odd { (1, 2) } else { (2, 3) };
        let weight = |service: &Value| service.get("weight").and_then(Value::as_i64).unwrap_or(0);
        let are_zero = services.iter().all(|service| weight(service) == 0);
        let other = |service: &Value| match weight(service) {
            0 if are_zero => Some(weight_for_all),
            weight => weight
                .checked_mul(factor)
                .and_then(|weight| u32::try_from(weight).ok())
                .filter(|weight| *weight <= GREATEST),
        };
        let Some(others) = services.iter().map(other).collect::<Option<Vec<u32>>>() else {
            return;
        };
        for (service, weight) in services.iter_mut().filter_map(Value::as_object_mut).zip(others) {
            service.insert("weight".to_owned(), weight.into());
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn nudges_have_growing_intervals_and_silence_delays_the_first() {
        let since: Timestamp = "2026-01-01T00:00:00Z".parse().expect("a time");
        for (passed, for_services, for_silence, next) in [
            (0, 0, None, 5),
            (4, 0, None, 1),
            (5, 1, Some(0), 10),
            (59, 2, Some(1), 1),
            (300, 4, Some(3), 600),
            (899, 4, Some(3), 1),
            (900, 5, Some(4), 600),
            (3600, 9, Some(8), 300),
            (-9, 0, None, 5), // a clock that lags behind
        ] {
            let now = since + jiff::SignedDuration::from_secs(passed);
            let due = Due::for_services(vec!["a uid".to_owned()], since, now);
            assert_eq!((due.step, due.next.as_secs()), (Some(for_services), next), "{passed} s");
            let due = Due::for_silence("a uid", 1, since, now);
            assert_eq!((due.step, due.next.as_secs()), (for_silence, next), "{passed} s");
            assert_eq!(due.is_due(), for_silence.is_some());
        }
    }

    #[test]
    fn each_nudge_is_given_once_and_changes_the_weights() {
        let since: Timestamp = "2026-01-01T00:00:00Z".parse().expect("a time");
        let silence = |generation, passed| {
            let now = since + Duration::from_secs(passed);
            Due::for_silence("a uid", generation, since, now)
        };
        assert_eq!(silence(1, 4).given(None), None);
        let first = silence(1, 5).given(None).expect("the nudge is due");
        assert_eq!(silence(1, 14).given(Some(first.clone())), Some(first.clone()));
        let services = Due::for_services(vec!["a uid".to_owned()], since, since);
        let later = since + Duration::from_mins(1);
        let anew = Due::for_silence("a uid", 1, later, later + Duration::from_secs(5));
        for other in [silence(1, 15), silence(2, 5), anew, services] {
            let next = other.given(Some(first.clone())).expect("the nudge is due");
            assert_ne!(next.odd, first.odd);
        }
    }

    #[test]
    fn a_nudge_keeps_the_proportions_of_the_weights() {
        let greatest = i32::MAX;
        for (weights, odd, even) in [
            (json!([null]), json!([1]), json!([2])),
            (json!([null, 0]), json!([1, 1]), json!([2, 2])),
            (json!([10, null, 30]), json!([20, 0, 60]), json!([30, 0, 90])),
            (json!([greatest, 1]), json!([greatest, 1]), json!([greatest, 1])),
            (json!([i64::MAX, 1]), json!([i64::MAX, 1]), json!([i64::MAX, 1])),
            (json!([]), json!([]), json!([])),
        ] {
            for (is_odd, given) in [(true, odd), (false, even)] {
                let services = weights.as_array().expect("a list").iter().map(|weight| match weight {
                    Value::Null => json!({"name": "auth"}),
                    weight => json!({"name": "auth", "weight": weight}),
                });
                let mut spec = Map::from_iter([("services".to_owned(), services.collect())]);
                let nudge = Nudge {
                    odd: is_odd,
                    ..Nudge::default()
                };
                nudge.put_into(&mut spec);
                let services = spec["services"].as_array().expect("a list");
                let now: Value = services.iter().map(|service| service["weight"].clone()).collect();
                assert_eq!(now, given, "{weights}");
            }
        }
        for strange in [json!({}), json!({"services": [true]}), json!({"services": {}})] {
            let mut spec = strange.as_object().expect("an object").clone();
            Nudge::default().put_into(&mut spec);
            assert_eq!(Value::Object(spec), strange);
        }
    }
}
