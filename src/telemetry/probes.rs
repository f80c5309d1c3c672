//! What the kubelet asks: does this process still run, and has it seen enough to act.

use std::collections::BTreeMap;
use std::pin::pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

/// The parts of the process that must be there before it counts as ready. A clone is the same registry.
#[derive(Clone, Debug)]
pub struct Readiness(Arc<Mutex<BTreeMap<&'static str, bool>>>);

impl Readiness {
    /// Waits for all of these parts.
    pub fn new(parts: impl IntoIterator<Item = &'static str>) -> Self {
        Self(Arc::new(Mutex::new(
            parts.into_iter().map(|part| (part, false)).collect(),
        )))
    }

    /// Says whether a part is there. A part that was not known until now is waited for from now on.
    pub fn set(&self, part: &'static str, there: bool) {
        self.0
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .insert(part, there);
    }

    /// Waits for a part no longer: there is no store to fill for a kind that the API server does not serve. `set` brings
    /// it back.
    pub fn exempt(&self, part: &'static str) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).remove(part);
    }

    /// The parts that are not there, in alphabetical order; none means ready.
    pub fn missing(&self) -> Vec<&'static str> {
        let parts = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        parts
            .iter()
            .filter(|(_, there)| !**there)
            .map(|(part, _)| *part)
            .collect()
    }
}

/// Whether the loop that drives the controller is still being run. A clone is the same pulse.
///
/// A probe that fails makes the kubelet start the process anew, so it must fail only for what that cures: a loop that is
/// stuck for good (a deadlock, a call that blocks its thread). An API server that doesn't answer, a watch that fails, a
/// reconcile that goes wrong are not cured by a restart, which would only add the load of filling every store again.
/// So the pulse says "I am being run", never "I got something done".
#[derive(Clone, Debug)]
pub struct Liveness {
    last: Arc<Mutex<Instant>>,
    deadline: Duration,
}

impl Liveness {
    /// Alive from now on, for as long as no more than `deadline` passes between two beats.
    pub fn new(deadline: Duration) -> Self {
        Self {
            last: Arc::new(Mutex::new(Instant::now())),
            deadline,
        }
    }

    /// The loop was just being run.
    pub fn beat(&self) {
        self.beat_at(Instant::now());
    }

    fn beat_at(&self, now: Instant) {
        *self.last.lock().unwrap_or_else(PoisonError::into_inner) = now;
    }

    /// Runs a future to its end and beats as long as it is being run, four times in each deadline.
    ///
    /// Both are polled by the same task: a future that blocks stops the beat. It is polled at each beat, too, so that a
    /// wake-up that was lost costs one period, not the process.
    pub async fn beat_while<F: Future>(&self, future: F) -> F::Output {
        let mut future = pin!(future);
        let mut beats = tokio::time::interval(self.deadline / 4);
        loop {
            tokio::select! {
                output = &mut future => return output,
                _ = beats.tick() => self.beat(),
            }
        }
    }

    /// Whether the last beat was at most the deadline ago.
    pub fn is_alive(&self, now: Instant) -> bool {
        self.silence(now) <= self.deadline
    }

    /// The time since the last beat.
    pub fn silence(&self, now: Instant) -> Duration {
        // The last beat may be later than `now`, which the caller took before.
        now.saturating_duration_since(*self.last.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_is_ready_when_every_part_is_there() {
        let readiness = Readiness::new(["Pod", "Deployment"]);
        assert_eq!(readiness.missing(), ["Deployment", "Pod"]);
        readiness.set("Pod", true);
        assert_eq!(readiness.missing(), ["Deployment"]);
        readiness.set("Deployment", true);
        assert!(readiness.missing().is_empty());
    }

    #[test]
    fn a_part_that_is_lost_makes_it_unready_again() {
        let readiness = Readiness::new(["Pod"]);
        readiness.set("Pod", true);
        readiness.set("Pod", false);
        assert_eq!(readiness.missing(), ["Pod"]);
    }

    #[test]
    fn a_part_that_is_exempt_is_not_waited_for_until_it_comes_back() {
        let readiness = Readiness::new(["ExtensionService"]);
        readiness.exempt("ExtensionService");
        assert!(readiness.missing().is_empty());
        readiness.set("ExtensionService", false);
        assert_eq!(readiness.missing(), ["ExtensionService"]);
    }

    #[test]
    fn it_is_alive_until_the_deadline_has_passed_since_the_last_beat() {
        let liveness = Liveness::new(Duration::from_mins(1));
        let start = Instant::now();
        liveness.beat_at(start);
        assert!(liveness.is_alive(start + Duration::from_mins(1)));
        assert!(!liveness.is_alive(start + Duration::from_secs(61)));
        liveness.beat_at(start + Duration::from_secs(61));
        assert!(liveness.is_alive(start + Duration::from_secs(61)));
        assert!(liveness.is_alive(start), "a beat that is later than the question");
    }

    #[tokio::test]
    async fn a_future_that_is_being_run_beats() {
        let liveness = Liveness::new(Duration::from_hours(1));
        let stale = Instant::now().checked_sub(Duration::from_millis(1)).unwrap();
        liveness.beat_at(stale);
        let until_it_beats = async {
            while *liveness.last.lock().unwrap() == stale {
                tokio::task::yield_now().await;
            }
            "output"
        };
        let run = liveness.beat_while(until_it_beats);
        let output = tokio::time::timeout(Duration::from_secs(10), run)
            .await
            .expect("it beats");
        assert_eq!(output, "output");
    }
}
