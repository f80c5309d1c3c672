//! How long to wait after a failure, by ContourDeployment; kube has nothing of that kind (its error policy is not told of
//! successes).

use std::collections::HashMap;
use std::hash::{BuildHasher, RandomState};
use std::sync::Mutex;
use std::time::Duration;

use crate::plan::NamespacedName;

const FIRST: Duration = Duration::from_millis(200);
const LONGEST: Duration = Duration::from_mins(1);

/// The failures in a row.
#[derive(Default)]
pub struct Backoff {
    failures: Mutex<HashMap<NamespacedName, u32>>,
    seed: RandomState,
}

impl Backoff {
    /// The time to wait after one more failure.
    pub fn next(&self, whose: &NamespacedName) -> Duration {
        let mut failures = self.failures.lock().expect("nobody panics with the lock");
        let count = failures.entry(whose.clone()).or_default();
        let delay = FIRST.saturating_mul(1 << (*count).min(16)).min(LONGEST);
        *count += 1;
        self.jittered(delay)
    }

    /// It succeeded, or is gone.
    pub fn reset(&self, whose: &NamespacedName) {
        self.failures.lock().expect("nobody panics with the lock").remove(whose);
    }

    /// How many have failed and not succeeded since.
    pub fn len(&self) -> usize {
        self.failures.lock().expect("nobody panics with the lock").len()
    }

    /// A duration that differs by up to a fifth, so that what started together does not stay together.
    pub fn jittered(&self, duration: Duration) -> Duration {
        let random = self.seed.hash_one(std::time::Instant::now()) % 401;
        duration.mul_f64(0.8 + f64::from(u32::try_from(random).unwrap_or_default()) / 1000.0)
    }
}
