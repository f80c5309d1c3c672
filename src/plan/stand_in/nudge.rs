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

/// How Contour's word on an ExtensionService stands to what is seen of the Services that this names.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Word {
    /// Nothing speaks against it.
    Current,
    /// Not everything is there yet: Contour has to look again when it is.
    Early,
    /// Contour did not find a Service, or its port, and all of them are there by now.
    Outdated(Due),
}

/// Its words on a user's object and on the stand-in.
#[derive(Clone, Debug)]
pub struct Words {
    /// On the user's.
    pub user: Word,
    /// On the stand-in.
    pub stand_in: Word,
}

/// Whose Services it did not find.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum Whose {
    /// The user's object's.
    #[default]
    User,
    /// The stand-in's.
    StandIn,
}

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
#[serde(rename_all = "camelCase", default)]
pub struct Nudge {
    whose: Whose,
    /// The uids that it was given for.
    services: Vec<String>,
    step: u64,
    /// The weights alternate.
    odd: bool,
    /// It has done its work, and the weights are the ordinary ones again. It stays in mind, so that it is not given again as often
    /// as two Contours in a cluster disagree.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    is_over: bool,
}

impl Words {
    /// The nudge that is due.
    pub fn due(&self) -> Option<(Whose, &Due)> {
        [(Whose::User, &self.user), (Whose::StandIn, &self.stand_in)]
            .into_iter()
            .find_map(|(whose, word)| match word {
                Word::Outdated(due) => Some((whose, due)),
                _ => None,
            })
    }

    /// The nudge that is remembered, after this one. A nudge makes a new generation: while Contour has not judged that, it `is_awaited`.
    pub fn nudge(&self, last: Option<Nudge>, is_awaited: bool) -> Option<Nudge> {
        if let Some((whose, due)) = self.due() {
            return Some(due.given(whose, last));
        }
        last.and_then(|last| {
            let word = match last.whose {
                Whose::User => &self.user,
                Whose::StandIn => &self.stand_in,
            };
            let is_over = last.is_over || !is_awaited;
            // What comes later is another occasion.
            let is_forgotten = is_over && *word == Word::Early;
            (!is_forgotten).then_some(Nudge { is_over, ..last })
        })
    }
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
    fn given(&self, whose: Whose, last: Option<Nudge>) -> Nudge {
        match last {
            Some(last) if (last.whose, &last.services, last.step) == (whose, &self.services, self.step) => last,
            last => Nudge {
                whose,
                services: self.services.clone(),
                step: self.step,
                odd: !last.is_some_and(|last| last.odd),
                is_over: false,
            },
        }
    }
}

impl Nudge {
    /// Gives the Services of a stand-in other weights that come to the same. Only proportions count, and where all weights are
    /// zero they are equal (`internal/dag/dag.go`, `ServiceCluster.Rebalance`). Weights too great for that stay as they are.
    pub fn put_into(&self, spec: &mut Map<String, Value>) {
        if self.is_over {
            return;
        }
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

    fn outdated(services: &str, step: u64) -> Word {
        Word::Outdated(Due {
            services: vec![services.to_owned()],
            step,
            next: Duration::ZERO,
        })
    }

    /// The nudge after this one, by the words on the user's object and on the stand-in.
    fn after(last: Option<&Nudge>, user: Word, stand_in: Word) -> Option<Nudge> {
        Words { user, stand_in }.nudge(last.cloned(), false)
    }

    #[test]
    fn each_is_given_once_and_changes_something() {
        use Word::{Current, Early};
        let first = after(None, outdated("a", 0), Early).expect("one is due");
        assert_eq!(after(Some(&first), outdated("a", 0), Current).as_ref(), Some(&first));
        for (user, stand_in) in [
            (outdated("a", 1), Current),
            (outdated("b", 0), Current),
            (Current, outdated("a", 0)),
        ] {
            let next = after(Some(&first), user, stand_in).expect("one is due");
            assert_ne!(next.odd, first.odd);
        }
        assert_eq!(after(None, Current, Current), None);
    }

    #[test]
    fn what_is_over_is_not_given_again_for_the_same_occasion() {
        use Word::{Current, Early};
        for (whose, early) in [(Whose::User, (Early, Current)), (Whose::StandIn, (Current, Early))] {
            let words = |of: Word, other: Word| match whose {
                Whose::User => (of, other),
                Whose::StandIn => (other, of),
            };
            let after = |last: Option<&Nudge>, (user, stand_in)| after(last, user, stand_in);
            let given = after(None, words(outdated("a", 0), Current)).expect("one is due");
            assert!(!given.is_over);
            let over = after(Some(&given), words(Current, Early)).expect("it is remembered");
            assert!(over.is_over);
            assert_eq!(after(Some(&over), words(outdated("a", 0), Early)).as_ref(), Some(&over));
            let next = after(Some(&over), words(outdated("a", 1), Early)).expect("one is due");
            assert!(!next.is_over);
            assert_eq!(after(Some(&over), early), None, "what comes then is another occasion");
        }
    }

    #[test]
    fn while_it_is_awaited_it_is_not_over() {
        let words = |user| Words {
            user,
            stand_in: Word::Current,
        };
        let given = words(outdated("a", 0)).nudge(None, false);
        for user in [Word::Current, Word::Early] {
            assert_eq!(words(user).nudge(given.clone(), true), given);
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
