//! The results of Slipway's last write of each object, as far as this process knows them. The API server's answer may differ from the write
//! (webhooks, defaults), a write may be refused, and another user may keep reverting a change. From these results the plan decides which
//! values to accept, and what to retry and when. A new process knows no results and tries every write once.

use std::collections::BTreeMap;
use std::time::Duration;

use jiff::Timestamp;

use super::backoff::{BackoffSchedule, CALM};
use super::compare::{self, Differences};
use super::failure::{Failure, FailureCause};
use super::object::{Key, Kind, NamespacedName, Object};
use super::write::Write;
use crate::api::vocabulary::annotations;

/// A request without a final answer (for example, because a webhook does not answer) counts as refused after failing for this time.
const PATIENCE: Duration = Duration::from_mins(1);

/// The schedule after a failure that a retry may resolve.
const TRANSIENT: BackoffSchedule = BackoffSchedule {
    free: 0,
    first: Duration::from_millis(200),
    longest: Duration::from_mins(1),
};

/// The schedule after a refusal. A successful retry in the service's namespace makes Contour roll out.
const REFUSED: BackoffSchedule = BackoffSchedule {
    free: 0,
    first: Duration::from_secs(5),
    longest: Duration::from_mins(5),
};

/// The schedule after a refused update of an object that decides on traffic. The next update leaves out what others added to the object,
/// and may succeed.
const REFUSED_UPDATE: BackoffSchedule = BackoffSchedule { free: 1, ..REFUSED };

/// The schedule after another client changed Slipway's own write.
const OVERRULED: BackoffSchedule = BackoffSchedule {
    free: 0,
    first: Duration::from_secs(1),
    longest: Duration::from_mins(1),
};

/// The schedule against repeated changes. Many manual changes are reverted immediately.
const CONTESTED: BackoffSchedule = BackoffSchedule {
    free: 20,
    first: Duration::from_secs(1),
    longest: Duration::from_mins(1),
};

/// The same schedule for objects that decide on traffic, which must not stay changed for long.
const DECISIVE: BackoffSchedule = BackoffSchedule {
    longest: Duration::from_secs(2),
    ..CONTESTED
};

/// The last attempt for each object.
#[derive(Clone, Debug, Default)]
pub struct Attempts(BTreeMap<Key, Attempt>);

/// The last of consecutive writes of one object with the same desired content and the same kind of result.
#[derive(Clone, Debug)]
struct Attempt {
    /// The hash of the desired content. Empty: the object is to be deleted.
    wanted: String,
    came_to: AttemptResult,
    /// The time of the first answer.
    first: Timestamp,
    /// The time of the last answer.
    last: Timestamp,
    /// The number of writes.
    count: u32,
}

#[derive(Clone, Debug)]
enum AttemptResult {
    /// The API server accepted the write, except for these fields, with their values in the answer.
    Taken(Differences),
    /// The write failed.
    Failed { failure: Failure, creates: bool },
}

/// The reason why nothing is created in a namespace for now.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refusal {
    /// The message for the user.
    pub message: String,
    /// The time until the next retry.
    pub wait: Duration,
}

impl Attempts {
    /// Records an accepted write, with the API server's answer if there is one. Returns whether every field that must have Slipway's value
    /// has that value. If not, nothing that depends on the object may proceed.
    pub fn taken(&mut self, write: &Write, answer: Option<&Object>, now: Timestamp) -> bool {
        match write {
            Write::Create(sent) | Write::Apply { object: sent, .. } | Write::Replace(sent) => {
                let differences = answer
                    .map(|answer| compare::differences(sent, answer))
                    .unwrap_or_default();
                let wanted = sent.annotation(annotations::APPLIED).unwrap_or_default();
                let is_ours = !differences.values().any(|found| found.must_be_ours);
                self.note(sent.key(), wanted, AttemptResult::Taken(differences), now);
                return is_ours;
            }
            Write::Delete(target) | Write::Release(target) => {
                // The result of the creation is kept, because another creation would have the same result.
                let is_about_its_end = |attempt: &Attempt| attempt.wanted.is_empty();
                if self.0.get(&target.key).is_some_and(is_about_its_end) {
                    self.0.remove(&target.key);
                }
            }
            Write::Hold(_) => {}
        }
        true
    }

    /// Records a failed write.
    pub fn failed(&mut self, write: &Write, failure: Failure, now: Timestamp) {
        let creates = matches!(write, Write::Create(_));
        let wanted = match write {
            Write::Create(sent) | Write::Apply { object: sent, .. } | Write::Replace(sent) => {
                sent.annotation(annotations::APPLIED).unwrap_or_default()
            }
            Write::Delete(_) | Write::Release(_) | Write::Hold(_) => "",
        };
        let key = failure.key.clone();
        self.note(key, wanted, AttemptResult::Failed { failure, creates }, now);
    }

    fn note(&mut self, key: Key, wanted: &str, came_to: AttemptResult, now: Timestamp) {
        let last = self.0.get(&key).filter(|last| {
            last.wanted == wanted
                && since(last.last, now) < CALM
                && std::mem::discriminant(&last.came_to) == std::mem::discriminant(&came_to)
        });
        let attempt = Attempt {
            wanted: wanted.to_owned(),
            came_to,
            first: last.map_or(now, |last| last.first),
            last: now,
            count: last.map_or(1, |last| last.count.saturating_add(1)),
        };
        self.0.retain(|_, attempt| {
            // An accepted result is kept for the life of the process. Without the result, the object would be written again.
            matches!(attempt.came_to, AttemptResult::Taken(_)) || since(attempt.last, now) < CALM
        });
        self.0.insert(key, attempt);
    }

    /// Returns the fields in which the answer to the last write of this content differed from the write, with the answer's values.
    pub fn overruled(&self, key: &Key, wanted: &str) -> Option<&Differences> {
        match self.0.get(key)? {
            Attempt {
                wanted: before,
                came_to: AttemptResult::Taken(fields),
                ..
            } if before == wanted => Some(fields),
            _ => None,
        }
    }

    /// Returns the time for which this write of an object has to wait, or None.
    pub fn wait(&self, key: &Key, wanted: &str, is_decisive: bool, now: Timestamp) -> Option<Duration> {
        let attempt = self.0.get(key).filter(|attempt| attempt.wanted == wanted)?;
        let pace = match &attempt.came_to {
            AttemptResult::Failed { failure, .. } if failure.cause == FailureCause::Transient => TRANSIENT,
            AttemptResult::Failed { creates: false, .. } if is_decisive => REFUSED_UPDATE,
            AttemptResult::Failed { .. } => REFUSED,
            AttemptResult::Taken(fields) if fields.values().any(|found| found.must_be_ours) => OVERRULED,
            AttemptResult::Taken(_) if is_decisive => DECISIVE,
            AttemptResult::Taken(_) => CONTESTED,
        };
        remaining(attempt, pace, now)
    }

    /// Returns the failure of the last write of this content to an object, if that write failed.
    pub fn failure(&self, key: &Key, wanted: &str) -> Option<&Failure> {
        match self.0.get(key).filter(|attempt| attempt.wanted == wanted)? {
            Attempt {
                came_to: AttemptResult::Failed { failure, .. },
                ..
            } => Some(failure),
            Attempt { .. } => None,
        }
    }

    /// Reports whether the next update of an object leaves out what others added to the object. Updates after a refusal alternate, because
    /// an addition of another user may be required for the update to be accepted (for example, a label that a policy requires).
    pub fn leaves_others_out(&self, key: &Key) -> bool {
        let is_refused_update = |attempt: &Attempt| {
            let is_update = matches!(attempt.came_to, AttemptResult::Failed { creates: false, .. });
            is_update && is_final(attempt) && !attempt.wanted.is_empty() && attempt.count % 2 == 1
        };
        self.0.get(key).is_some_and(is_refused_update)
    }

    /// Reports whether the plan no longer waits for the deletion of an object, because the deletion was refused for good.
    pub fn gave_up(&self, key: &Key) -> bool {
        let attempt = self.0.get(key).filter(|attempt| attempt.wanted.is_empty());
        attempt.is_some_and(is_final)
    }

    /// Reports whether another client changed Slipway's write of this stand-in or its blackhole.
    pub fn is_overruled(&self, NamespacedName { namespace, name }: &NamespacedName) -> bool {
        [Kind::ExtensionService, Kind::Service].into_iter().any(|kind| {
            let key = Key::new(kind, namespace, name);
            match self.0.get(&key).map(|attempt| &attempt.came_to) {
                Some(AttemptResult::Taken(fields)) => fields.values().any(|found| found.must_be_ours),
                _ => false,
            }
        })
    }

    /// Returns the reason why nothing is created in a namespace for now, if there is one: the last creation there was refused, or another
    /// client changed the created object.
    pub fn refusal(&self, namespace: &str, now: Timestamp) -> Option<Refusal> {
        let in_it = self.0.iter().filter(|(key, _)| key.namespace == namespace);
        let refusals = in_it.filter_map(|(key, attempt)| {
            let message = match &attempt.came_to {
                AttemptResult::Failed { failure, creates: true } if is_final(attempt) => {
                    format!("{key}: {}", failure.message)
                }
                AttemptResult::Taken(fields) => {
                    let (field, _) = fields.iter().find(|(_, found)| found.must_be_ours)?;
                    format!("{key}: a mutating webhook or policy changes {field}; exempt the object from the webhook or policy")
                }
                AttemptResult::Failed { .. } => return None,
            };
            let wait = remaining(attempt, REFUSED, now)?;
            Some(Refusal { message, wait })
        });
        refusals.max_by_key(|refusal| refusal.wait)
    }
}

/// Reports whether an immediate retry is useless.
fn is_final(attempt: &Attempt) -> bool {
    match &attempt.came_to {
        AttemptResult::Taken(_) => false,
        AttemptResult::Failed { failure, .. } => {
            failure.cause != FailureCause::Transient || since(attempt.first, attempt.last) >= PATIENCE
        }
    }
}

fn remaining(attempt: &Attempt, pace: BackoffSchedule, now: Timestamp) -> Option<Duration> {
    let left = pace.after(attempt.count).checked_sub(since(attempt.last, now))?;
    (!left.is_zero()).then_some(left)
}

fn since(time: Timestamp, now: Timestamp) -> Duration {
    Duration::try_from(now.duration_since(time)).unwrap_or(Duration::ZERO)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::plan::Target;

    fn stand_in(services: &str) -> Object {
        let metadata = json!({
            "namespace": "auth", "name": "edge-ext-auth-0000000000", "annotations": {annotations::APPLIED: "wanted"},
        });
        let object = json!({"metadata": metadata, "spec": {"services": [{"name": services, "port": 9}]}});
        Object::from_json(Kind::ExtensionService, object).expect("an object")
    }

    fn failure(cause: FailureCause) -> Failure {
        let message = "no".to_owned();
        Failure {
            key: stand_in("one").key(),
            cause,
            message,
        }
    }

    fn at(seconds: i64) -> Timestamp {
        Timestamp::from_second(1_800_000_000 + seconds).expect("a time")
    }

    #[test]
    fn only_a_finally_refused_creation_blocks_its_namespace() {
        let (create, replace) = (Write::Create(stand_in("one")), Write::Replace(stand_in("one")));
        let delete = Write::Delete(Target::of(&stand_in("one")));
        for (write, cause, tells) in [
            (&create, FailureCause::Refused, true),
            (&create, FailureCause::Forbidden, true),
            (&create, FailureCause::Collision, true),
            (&create, FailureCause::Transient, false),
            (&replace, FailureCause::Refused, false),
            (&delete, FailureCause::Forbidden, false),
        ] {
            let mut attempts = Attempts::default();
            attempts.failed(write, failure(cause), at(0));
            assert_eq!(attempts.refusal("auth", at(1)).is_some(), tells, "{cause:?}");
            assert_eq!(attempts.refusal("alice", at(1)), None, "{cause:?}");
            assert_eq!(
                attempts.refusal("auth", at(6)),
                None,
                "{cause:?}: the creation is retried"
            );
        }
    }

    #[test]
    fn an_unanswered_request_counts_as_refused_after_a_minute() {
        let create = Write::Create(stand_in("one"));
        let delete = Write::Delete(Target::of(&stand_in("one")));
        for (seconds, is_final) in [(59, false), (60, true)] {
            let mut attempts = Attempts::default();
            for time in [0, seconds] {
                attempts.failed(&create, failure(FailureCause::Transient), at(time));
            }
            assert_eq!(attempts.refusal("auth", at(seconds)).is_some(), is_final, "{seconds}");
            let mut attempts = Attempts::default();
            for time in [0, seconds] {
                attempts.failed(&delete, failure(FailureCause::Transient), at(time));
            }
            assert_eq!(attempts.gave_up(&stand_in("one").key()), is_final, "{seconds}");
        }
    }

    #[test]
    fn every_other_update_after_a_refusal_leaves_others_out() {
        let (key, replace) = (stand_in("one").key(), Write::Replace(stand_in("one")));
        let mut attempts = Attempts::default();
        let mut found = vec![attempts.leaves_others_out(&key)];
        for second in 0..4 {
            attempts.failed(&replace, failure(FailureCause::Refused), at(second));
            found.push(attempts.leaves_others_out(&key));
        }
        assert_eq!(found, [false, true, false, true, false]);
        for (write, cause) in [
            (Write::Create(stand_in("one")), FailureCause::Refused),
            (Write::Delete(Target::of(&stand_in("one"))), FailureCause::Refused),
            (replace, FailureCause::Transient),
        ] {
            let mut attempts = Attempts::default();
            attempts.failed(&write, failure(cause), at(0));
            assert!(!attempts.leaves_others_out(&key), "{write:?}");
        }
    }

    #[test]
    fn only_a_refused_deletion_is_given_up() {
        let key = stand_in("one").key();
        let mut attempts = Attempts::default();
        attempts.failed(&Write::Create(stand_in("one")), failure(FailureCause::Refused), at(0));
        assert!(!attempts.gave_up(&key), "the object was to be created");
        let delete = Write::Delete(Target::of(&stand_in("one")));
        attempts.failed(&delete, failure(FailureCause::Forbidden), at(0));
        assert!(attempts.gave_up(&key));
        attempts.taken(&delete, None, at(1));
        assert!(!attempts.gave_up(&key), "the deletion was accepted");
    }

    #[test]
    fn an_overruled_stand_in_is_known_until_a_write_is_accepted() {
        let id = NamespacedName::new("auth", "edge-ext-auth-0000000000");
        let (create, key) = (Write::Create(stand_in("one")), stand_in("one").key());
        let mut attempts = Attempts::default();
        assert!(
            !attempts.taken(&create, Some(&stand_in("evil")), at(0)),
            "the answer does not have Slipway's content"
        );
        assert!(attempts.is_overruled(&id) && attempts.refusal("auth", at(1)).is_some());
        assert!(
            attempts
                .overruled(&key, "wanted")
                .is_some_and(|fields| !fields.is_empty())
        );
        assert_eq!(attempts.overruled(&key, "other"), None);
        // An accepted deletion does not show that the next creation would be accepted unchanged.
        attempts.taken(&Write::Delete(Target::of(&stand_in("evil"))), None, at(2));
        assert!(attempts.is_overruled(&id));
        // A later write of another object does not show that either.
        let mut other = stand_in("one");
        other.metadata.name = Some("edge-ext-auth-1111111111".to_owned());
        let refused = Failure {
            key: other.key(),
            ..failure(FailureCause::Refused)
        };
        attempts.failed(&Write::Create(other), refused, at(3600));
        assert!(attempts.is_overruled(&id));
        assert!(
            attempts.taken(&create, Some(&stand_in("one")), at(3601)),
            "the answer has Slipway's content"
        );
        assert!(!attempts.is_overruled(&id));
    }
}
