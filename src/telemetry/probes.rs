//! The state behind the kubelet's probes: whether the process is alive, and whether it is ready to act.

use std::collections::BTreeMap;
use std::pin::pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

/// The parts of the process that must be ready before the process counts as ready. Clones share the state.
#[derive(Clone, Debug)]
pub struct Readiness(Arc<Mutex<BTreeMap<&'static str, bool>>>);

impl Readiness {
    /// Returns a state in which the process waits for all of these parts.
    pub fn new(parts: impl IntoIterator<Item = &'static str>) -> Self {
        Self(Arc::new(Mutex::new(
            parts.into_iter().map(|part| (part, false)).collect(),
        )))
    }

    /// Sets whether a part is ready. An unknown part is added, and readiness depends on it from then on.
    pub fn set(&self, part: &'static str, there: bool) {
        self.0
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .insert(part, there);
    }

    /// Removes a part, so that readiness no longer depends on it. For a kind that the API server does not serve there is no store to
    /// fill. `set` adds the part again.
    pub fn exempt(&self, part: &'static str) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).remove(part);
    }

    /// Returns the parts that are not ready, in alphabetical order. The process is ready if the result is empty.
    pub fn missing(&self) -> Vec<&'static str> {
        let parts = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        parts
            .iter()
            .filter(|(_, there)| !**there)
            .map(|(part, _)| *part)
            .collect()
    }
}

/// The heartbeat of the loop that drives the controller. Clones share the heartbeat.
///
/// A failed probe makes the kubelet restart the process. So the probe must fail only for problems that a restart fixes: a loop that is
/// permanently stuck, by a deadlock or a call that blocks its thread. A restart does not fix an unavailable API server, a failed watch or
/// a failed reconcile; it would only add the load of filling every store again. So the heartbeat means that the loop runs, not that it
/// makes progress.
#[derive(Clone, Debug)]
pub struct Liveness {
    last: Arc<Mutex<Instant>>,
    deadline: Duration,
}

impl Liveness {
    /// Returns a heartbeat that is alive as long as at most `deadline` passes between two beats. The first period starts now.
    pub fn new(deadline: Duration) -> Self {
        Self {
            last: Arc::new(Mutex::new(Instant::now())),
            deadline,
        }
    }

    /// Records a beat now.
    pub fn beat(&self) {
        self.beat_at(Instant::now());
    }

    fn beat_at(&self, now: Instant) {
        *self.last.lock().unwrap_or_else(PoisonError::into_inner) = now;
    }

    /// Runs a future to completion and beats while the future runs, four times in each deadline.
    ///
    /// The same task polls the future and the timer, so a future that blocks its thread stops the beat. Each beat also polls the future, so
    /// that a lost wake-up costs one period instead of a restart.
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

    /// Reports whether the last beat is at most the deadline old at `now`.
    pub fn is_alive(&self, now: Instant) -> bool {
        self.silence(now) <= self.deadline
    }

    /// Returns the time from the last beat to `now`.
    pub fn silence(&self, now: Instant) -> Duration {
        // The last beat may be later than `now`, because the caller read the clock earlier.
        now.saturating_duration_since(*self.last.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn readiness_requires_every_part() {
        let readiness = Readiness::new(["Pod", "Deployment"]);
        assert_eq!(readiness.missing(), ["Deployment", "Pod"]);
        readiness.set("Pod", true);
        assert_eq!(readiness.missing(), ["Deployment"]);
        readiness.set("Deployment", true);
        assert!(readiness.missing().is_empty());
    }

    #[test]
    fn a_lost_part_makes_the_process_unready_again() {
        let readiness = Readiness::new(["Pod"]);
        readiness.set("Pod", true);
        readiness.set("Pod", false);
        assert_eq!(readiness.missing(), ["Pod"]);
    }

    #[test]
    fn readiness_ignores_an_exempt_part_until_it_is_set_again() {
        let readiness = Readiness::new(["ExtensionService"]);
        readiness.exempt("ExtensionService");
        assert!(readiness.missing().is_empty());
        readiness.set("ExtensionService", false);
        assert_eq!(readiness.missing(), ["ExtensionService"]);
    }

    #[test]
    fn liveness_ends_when_the_deadline_passes_without_a_beat() {
        let liveness = Liveness::new(Duration::from_mins(1));
        let start = Instant::now();
        liveness.beat_at(start);
        assert!(liveness.is_alive(start + Duration::from_mins(1)));
        assert!(!liveness.is_alive(start + Duration::from_secs(61)));
        liveness.beat_at(start + Duration::from_secs(61));
        assert!(liveness.is_alive(start + Duration::from_secs(61)));
        assert!(liveness.is_alive(start), "the last beat is later than now");
    }

    #[tokio::test]
    async fn beat_while_beats_while_the_future_runs() {
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
            .expect("the liveness beats");
        assert_eq!(output, "output");
    }
}
