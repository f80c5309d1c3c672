//! What came of our own last write of each object, as far as this process knows. The API server's answer may differ from what was
//! written (webhooks, defaults), a write may be refused, and somebody may change an object back again and again: from this the plan
//! decides what is taken as it is, and what is tried again, and when. A new process knows nothing, and tries everything once.

use std::collections::BTreeMap;
use std::time::Duration;

use jiff::Timestamp;

use super::backoff::{BackoffSchedule, CALM};
use super::compare::{self, Differences};
use super::failure::{Failure, FailureCause};
use super::object::{Key, Kind, NamespacedName, Object};
use super::write::Write;
use crate::api::vocabulary::annotations;

/// A request without a final answer (a webhook that does not answer, say) counts as refused when it has failed for so long.
const PATIENCE: Duration = Duration::from_mins(1);

/// What may go right at the next try.
const TRANSIENT: BackoffSchedule = BackoffSchedule {
    free: 0,
    first: Duration::from_millis(200),
    longest: Duration::from_mins(1),
};

/// What was refused. Trying again in the service's namespace makes Contour roll if it works.
const REFUSED: BackoffSchedule = BackoffSchedule {
    free: 0,
    first: Duration::from_secs(5),
    longest: Duration::from_mins(5),
};

/// An update that was refused, of what decides on traffic: the next one, without what others put on the object, may go through.
const REFUSED_UPDATE: BackoffSchedule = BackoffSchedule { free: 1, ..REFUSED };

/// What somebody changes in our own write.
const OVERRULED: BackoffSchedule = BackoffSchedule {
    free: 0,
    first: Duration::from_secs(1),
    longest: Duration::from_mins(1),
};

/// What somebody changes again and again. Many a change by hand is put right at once.
const CONTESTED: BackoffSchedule = BackoffSchedule {
    free: 20,
    first: Duration::from_secs(1),
    longest: Duration::from_mins(1),
};

/// The same of what decides on traffic: it must not stay changed for long.
const DECISIVE: BackoffSchedule = BackoffSchedule {
    longest: Duration::from_secs(2),
    ..CONTESTED
};

/// By object.
#[derive(Clone, Debug, Default)]
pub struct Attempts(BTreeMap<Key, Attempt>);

/// The last of some writes of one object that wanted the same and came to the same.
#[derive(Clone, Debug)]
struct Attempt {
    /// Hash of what was wanted; empty: that it goes.
    wanted: String,
    came_to: AttemptResult,
    /// When the first of them was answered.
    first: Timestamp,
    /// When the last of them was.
    last: Timestamp,
    /// How many there were.
    count: u32,
}

#[derive(Clone, Debug)]
enum AttemptResult {
    /// The API server took it, but for these fields, which had this value in its answer.
    Taken(Differences),
    /// It did not.
    Failed { failure: Failure, creates: bool },
}

/// Why nothing is made in a namespace for now.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refusal {
    /// In words.
    pub message: String,
    /// How long until it is tried again.
    pub wait: Duration,
}

impl Attempts {
    /// Notes that a write was taken, with the API server's answer if it has one. Returns whether what must be ours is as it was written;
    /// if not, nothing may go by it.
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
                // What came of making it stays known: the same would come of it again.
                let is_about_its_end = |attempt: &Attempt| attempt.wanted.is_empty();
                if self.0.get(&target.key).is_some_and(is_about_its_end) {
                    self.0.remove(&target.key);
                }
            }
            Write::Hold(_) => {}
        }
        true
    }

    /// Notes that a write failed.
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
            // What was taken is remembered as long as the process lives, or it would be written again.
            matches!(attempt.came_to, AttemptResult::Taken(_)) || since(attempt.last, now) < CALM
        });
        self.0.insert(key, attempt);
    }

    /// The fields in which the answer to the last write that wanted this differed from it, with the answer's values.
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

    /// How long this write of an object has to wait yet, if it has to.
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

    /// Why the last write of an object that wanted this failed, if it did.
    pub fn failure(&self, key: &Key, wanted: &str) -> Option<&Failure> {
        match self.0.get(key).filter(|attempt| attempt.wanted == wanted)? {
            Attempt {
                came_to: AttemptResult::Failed { failure, .. },
                ..
            } => Some(failure),
            Attempt { .. } => None,
        }
    }

    /// Whether the next update of an object leaves out what others put on it: the last one was refused. Every other one does, because others
    /// may have put something on the object without which it is refused, too (a label that a policy requires).
    pub fn leaves_others_out(&self, key: &Key) -> bool {
        let is_refused_update = |attempt: &Attempt| {
            let is_update = matches!(attempt.came_to, AttemptResult::Failed { creates: false, .. });
            is_update && is_final(attempt) && !attempt.wanted.is_empty() && attempt.count % 2 == 1
        };
        self.0.get(key).is_some_and(is_refused_update)
    }

    /// Whether an object that is to go, and can't be made to, is not waited for any longer.
    pub fn gave_up(&self, key: &Key) -> bool {
        let attempt = self.0.get(key).filter(|attempt| attempt.wanted.is_empty());
        attempt.is_some_and(is_final)
    }

    /// Whether somebody changed this stand-in or its blackhole as we wrote it.
    pub fn is_overruled(&self, NamespacedName { namespace, name }: &NamespacedName) -> bool {
        [Kind::ExtensionService, Kind::Service].into_iter().any(|kind| {
            let key = Key::new(kind, namespace, name);
            match self.0.get(&key).map(|attempt| &attempt.came_to) {
                Some(AttemptResult::Taken(fields)) => fields.values().any(|found| found.must_be_ours),
                _ => false,
            }
        })
    }

    /// Why nothing is made in a namespace for now, if that is so: the last creation there was refused, or what came of it is not ours.
    pub fn refusal(&self, namespace: &str, now: Timestamp) -> Option<Refusal> {
        let in_it = self.0.iter().filter(|(key, _)| key.namespace == namespace);
        let refusals = in_it.filter_map(|(key, attempt)| {
            let message = match &attempt.came_to {
                AttemptResult::Failed { failure, creates: true } if is_final(attempt) => {
                    format!("{key}: {}", failure.message)
                }
                AttemptResult::Taken(fields) => {
                    let (field, _) = fields.iter().find(|(_, found)| found.must_be_ours)?;
                    format!("{key}: something between Slipway and the API server changes {field}")
                }
                AttemptResult::Failed { .. } => return None,
            };
            let wait = remaining(attempt, REFUSED, now)?;
            Some(Refusal { message, wait })
        });
        refusals.max_by_key(|refusal| refusal.wait)
    }
}

/// Whether trying again at once is of no use.
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
    fn only_a_creation_that_was_refused_for_good_tells_that_nothing_is_made_in_a_namespace() {
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
            assert_eq!(attempts.refusal("auth", at(6)), None, "{cause:?}: it is tried again");
        }
    }

    #[test]
    fn what_has_no_final_answer_counts_as_refused_when_that_has_lasted_for_a_minute() {
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
    fn every_other_update_after_a_refused_one_leaves_out_what_others_put_on_the_object() {
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
    fn only_what_is_to_go_and_is_refused_is_given_up() {
        let key = stand_in("one").key();
        let mut attempts = Attempts::default();
        attempts.failed(&Write::Create(stand_in("one")), failure(FailureCause::Refused), at(0));
        assert!(!attempts.gave_up(&key), "it was to be made");
        let delete = Write::Delete(Target::of(&stand_in("one")));
        attempts.failed(&delete, failure(FailureCause::Forbidden), at(0));
        assert!(attempts.gave_up(&key));
        attempts.taken(&delete, None, at(1));
        assert!(!attempts.gave_up(&key), "it was taken");
    }

    #[test]
    fn a_stand_in_that_somebody_changes_as_it_is_made_is_known_until_it_is_as_it_was_written() {
        let id = NamespacedName::new("auth", "edge-ext-auth-0000000000");
        let (create, key) = (Write::Create(stand_in("one")), stand_in("one").key());
        let mut attempts = Attempts::default();
        assert!(
            !attempts.taken(&create, Some(&stand_in("evil")), at(0)),
            "it is not ours"
        );
        assert!(attempts.is_overruled(&id) && attempts.refusal("auth", at(1)).is_some());
        assert!(
            attempts
                .overruled(&key, "wanted")
                .is_some_and(|fields| !fields.is_empty())
        );
        assert_eq!(attempts.overruled(&key, "other"), None);
        // To delete it does not tell that the next one would be taken.
        attempts.taken(&Write::Delete(Target::of(&stand_in("evil"))), None, at(2));
        assert!(attempts.is_overruled(&id));
        // Nor does another write, much later.
        let mut other = stand_in("one");
        other.metadata.name = Some("edge-ext-auth-1111111111".to_owned());
        let refused = Failure {
            key: other.key(),
            ..failure(FailureCause::Refused)
        };
        attempts.failed(&Write::Create(other), refused, at(3600));
        assert!(attempts.is_overruled(&id));
        assert!(attempts.taken(&create, Some(&stand_in("one")), at(3601)), "it is ours");
        assert!(!attempts.is_overruled(&id));
    }
}
