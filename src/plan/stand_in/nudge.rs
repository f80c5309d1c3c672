//! Contour does not look again at an ExtensionService when a Service that it names comes, or gets its port, later: of Services it
//! heeds those that Ingresses, HTTPProxies and routes name (v1.33, `internal/dag/cache.go`, `serviceTriggersRebuild`). It looks at
//! everything again when the generation of any ExtensionService changes (`internal/k8s/helpers.go`, `IsObjectEqual`). So a stand-in
//! is changed in a way that means nothing.

use std::time::Duration;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

/// Contour's own view may be behind: if it still says the same it is nudged again after these times, counted from when the last of
/// what it needs was made.
const AGAIN: [Duration; 4] = [
    Duration::from_secs(5),
    Duration::from_secs(15),
    Duration::from_mins(1),
    Duration::from_mins(5),
];

/// After the last of them it is nudged every so often.
const FOR_EVER: Duration = Duration::from_mins(10);

/// The greatest weight that the CRD takes (format int32).
const GREATEST: u32 = i32::MAX.unsigned_abs();

/// A nudge is due.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Due {
    /// The uids of the Services that Contour has not found.
    pub services: Vec<String>,
    /// Which it is for these Services, from 0.
    pub step: u64,
    /// When the next one is due.
    pub next: Duration,
}

/// A nudge that was given.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Nudge {
    services: Vec<String>,
    step: u64,
    /// The weights alternate.
    odd: bool,
}

impl Due {
    /// The one that is due for these Services, which are all there since then.
    pub fn at(services: Vec<String>, since: Timestamp, now: Timestamp) -> Self {
        let passed = Duration::try_from(now.duration_since(since)).unwrap_or(Duration::ZERO);
        let over = AGAIN.iter().take_while(|wait| **wait <= passed).count();
        let (more, next) = if let Some(wait) = AGAIN.get(over) {
            (0, wait.saturating_sub(passed))
        } else {
            let passed = passed.saturating_sub(AGAIN[AGAIN.len() - 1]).as_secs();
            let left = FOR_EVER.as_secs() - passed % FOR_EVER.as_secs();
            (passed / FOR_EVER.as_secs(), Duration::from_secs(left))
        };
        let step = over as u64 + more;
        Self { services, step, next }
    }

    /// It is given, unless the last one was just this.
    pub fn given(self, last: Option<Nudge>) -> Nudge {
        match last {
            Some(last) if (&last.services, last.step) == (&self.services, self.step) => last,
            last => Nudge {
                services: self.services,
                step: self.step,
                odd: !last.is_some_and(|last| last.odd),
            },
        }
    }
}

impl Nudge {
    /// Gives the Services of a stand-in other weights that come to the same. Only proportions count, and where all weights are
    /// zero they are equal (`internal/dag/dag.go`, `ServiceCluster.Rebalance`). Weights too great for that stay as they are.
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

    fn services() -> Vec<String> {
        vec!["a uid".to_owned()]
    }

    #[test]
    fn the_first_is_due_at_once_and_each_later_one_after_a_longer_time() {
        let since: Timestamp = "2026-01-01T00:00:00Z".parse().expect("a time");
        let due = |seconds: u64| {
            let due = Due::at(services(), since, since + Duration::from_secs(seconds));
            (due.step, due.next.as_secs())
        };
        assert_eq!(due(0), (0, 5));
        assert_eq!(due(5), (1, 10));
        assert_eq!(due(59), (2, 1));
        assert_eq!(due(300), (4, 600));
        assert_eq!(due(899), (4, 1));
        assert_eq!(due(900), (5, 600));
        assert_eq!(due(3600), (9, 300));
        let before = since - Duration::from_secs(9);
        assert_eq!(Due::at(services(), since, before).step, 0, "a clock that is behind");
    }

    #[test]
    fn each_is_given_once_and_changes_something() {
        let due = |services: Vec<String>, step| Due {
            services,
            step,
            next: Duration::ZERO,
        };
        let first = due(services(), 0).given(None);
        assert_eq!(due(services(), 0).given(Some(first.clone())), first);
        let second = due(services(), 1).given(Some(first.clone()));
        let of_others = due(vec!["another uid".to_owned()], 0).given(Some(first.clone()));
        for next in [second, of_others] {
            assert_ne!(next.odd, first.odd);
        }
    }

    #[test]
    fn other_weights_come_to_the_same() {
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
