//! The time to wait after a failed reconcile, for each ContourDeployment. kube has no such back-off: its error policy is not informed of
//! successes.
//!
//! A thousand ContourDeployments may fail together, for example because the cluster has no free addresses. They must not overload the API
//! server. So the longest wait grows with the number of ContourDeployments that have failed for some time. If one of them succeeds, or
//! another ContourDeployment is deleted, the cause may be gone for the others. Then the ContourDeployments that have waited longest are
//! woken, a few at a time.

use std::collections::HashMap;
use std::hash::{BuildHasher, RandomState};
use std::sync::Mutex;
use std::time::{Duration, Instant};

use crate::plan::NamespacedName;

/// The wait after the first failure. Each further failure doubles the wait.
const FIRST: Duration = Duration::from_millis(200);

/// The longest wait of a ContourDeployment, if no others fail.
const LONGEST: Duration = Duration::from_mins(1);

/// The number of failures in a row after which a ContourDeployment belongs to the crowd. The waits before this number add up to 6 s.
const LASTING: u32 = 5;

/// The share of time of each ContourDeployment in the crowd. A retry sends about three requests that fail, so that the whole crowd causes
/// at most five failing requests a second.
const SHARE: Duration = Duration::from_millis(600);

/// The number of ContourDeployments that one success wakes. Each of these wakes as many if it succeeds.
const WOKEN: usize = 8;

/// The ContourDeployments that fail.
#[derive(Default)]
pub struct Backoff {
    failing: Mutex<HashMap<NamespacedName, Failures>>,
    seed: RandomState,
}

/// The failures of one ContourDeployment.
struct Failures {
    /// The failures in a row.
    count: u32,
    /// The time of the last failure, or of the last time that the success of another ContourDeployment woke this one.
    last: Instant,
}

impl Backoff {
    /// Counts a failure and returns the time to wait.
    pub fn next(&self, whose: &NamespacedName) -> Duration {
        let mut failing = self.failing.lock().expect("nobody panics with the lock");
        let now = Instant::now();
        let failures = failing.entry(whose.clone()).or_insert(Failures { count: 0, last: now });
        let delay = FIRST.saturating_mul(1 << failures.count.min(16));
        failures.count = failures.count.saturating_add(1);
        failures.last = now;
        let is_lasting = failures.count > LASTING;
        let crowd = failing.values().filter(|failures| failures.count > LASTING).count();
        let shared = SHARE.saturating_mul(u32::try_from(crowd).unwrap_or(u32::MAX));
        let delay = delay.min(LONGEST);
        self.jittered(if is_lasting { delay.max(shared) } else { delay })
    }

    /// Forgets the failures of a ContourDeployment that has succeeded. Returns the others to retry now.
    pub fn succeeded(&self, whose: &NamespacedName) -> Vec<NamespacedName> {
        let mut failing = self.failing.lock().expect("nobody panics with the lock");
        match failing.remove(whose) {
            Some(_) => wake(&mut failing),
            None => Vec::new(),
        }
    }

    /// Forgets a deleted ContourDeployment. Returns the others to retry now, because they may lack what the deleted one used.
    pub fn deleted(&self, whose: &NamespacedName) -> Vec<NamespacedName> {
        let mut failing = self.failing.lock().expect("nobody panics with the lock");
        failing.remove(whose);
        wake(&mut failing)
    }

    /// Returns the number of ContourDeployments that have failed and not succeeded since.
    pub fn len(&self) -> usize {
        self.failing.lock().expect("nobody panics with the lock").len()
    }

    /// Returns a duration that differs by up to a fifth, so that reconciles that started together drift apart.
    pub fn jittered(&self, duration: Duration) -> Duration {
        let random = self.seed.hash_one(Instant::now()) % 401;
        duration.mul_f64(0.8 + f64::from(u32::try_from(random).unwrap_or_default()) / 1000.0)
    }
}

/// Returns the members of the crowd that have waited longest.
fn wake(failing: &mut HashMap<NamespacedName, Failures>) -> Vec<NamespacedName> {
    let mut crowd: Vec<_> = failing
        .iter()
        .filter(|(_, failures)| failures.count > LASTING)
        .map(|(whose, failures)| (failures.last, whose.clone()))
        .collect();
    crowd.sort();
    let woken: Vec<_> = crowd.into_iter().take(WOKEN).map(|(_, whose)| whose).collect();
    let now = Instant::now();
    for whose in &woken {
        if let Some(failures) = failing.get_mut(whose) {
            failures.last = now;
        }
    }
    woken
}

#[cfg(test)]
mod tests {
    use super::*;

    fn id(number: usize) -> NamespacedName {
        NamespacedName::new("edge", format!("edge-{number}"))
    }

    /// Lets this number of ContourDeployments fail this number of times, in turns.
    fn failing(many: usize, times: u32) -> Backoff {
        let backoff = Backoff::default();
        for _ in 0..times {
            for number in 0..many {
                backoff.next(&id(number));
            }
        }
        backoff
    }

    #[test]
    fn a_thousand_failing_ones_retry_at_most_twice_a_second() {
        let backoff = failing(1000, 12);
        let retries: f64 = (0..1000)
            .map(|number| 1.0 / backoff.next(&id(number)).as_secs_f64())
            .sum();
        assert!(retries < 2.0, "{retries} retries a second");
    }

    #[test]
    fn the_wait_of_a_single_failing_one_doubles_up_to_a_minute() {
        let backoff = Backoff::default();
        let waits: Vec<f64> = (0..14).map(|_| backoff.next(&id(0)).as_secs_f64()).collect();
        for (round, wait) in (0..).zip(&waits) {
            let expected = (0.2 * f64::powi(2.0, round)).min(60.0);
            assert!((0.79..1.21).contains(&(wait / expected)), "{round}: {wait}");
        }
    }

    #[test]
    fn a_new_failure_does_not_wait_for_the_crowd() {
        let backoff = failing(1000, 12);
        assert!(backoff.next(&id(5000)) < Duration::from_secs(1));
    }

    #[test]
    fn a_success_wakes_a_few_others_and_each_only_once() {
        let backoff = failing(100, 12);
        let first = backoff.succeeded(&id(0));
        let second = backoff.deleted(&id(5000));
        assert_eq!((first.len(), second.len()), (WOKEN, WOKEN));
        assert!(
            first.iter().all(|whose| !second.contains(whose)),
            "{first:?} {second:?}"
        );
        assert!(backoff.succeeded(&id(5000)).is_empty(), "it had not failed");
        assert!(
            failing(100, 3).succeeded(&id(0)).is_empty(),
            "the others retry soon anyway"
        );
        assert_eq!(backoff.len(), 99);
    }
}
