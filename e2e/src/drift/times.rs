//! The durations of repairs: percentiles by perturbation.

use std::collections::BTreeMap;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::numbers::{millis, percentile};

/// Durations in microseconds, by perturbation.
#[derive(Clone, Debug, Default, Deserialize, Serialize)]
pub struct Times(BTreeMap<String, Vec<u64>>);

impl Times {
    /// Adds one duration.
    pub fn note(&mut self, what: &str, time: Duration) {
        let micros = u64::try_from(time.as_micros()).unwrap_or(u64::MAX);
        self.0.entry(what.to_owned()).or_default().push(micros);
    }

    /// Adds the durations of another round.
    pub fn add(&mut self, other: Self) {
        for (what, times) in other.0 {
            self.0.entry(what).or_default().extend(times);
        }
    }

    /// Reports whether no durations are recorded.
    pub fn is_empty(&self) -> bool {
        self.count() == 0
    }

    /// Returns the number of durations.
    pub fn count(&self) -> usize {
        self.0.values().map(Vec::len).sum()
    }

    /// Returns the name and a summary of each perturbation, and of all perturbations together.
    pub fn lines(&self) -> Vec<(String, String)> {
        let all: Vec<u64> = self.0.values().flatten().copied().collect();
        let each = self.0.iter().map(|(what, times)| (what.clone(), line(times)));
        each.chain([("all of them".to_owned(), line(&all))]).collect()
    }
}

fn line(micros: &[u64]) -> String {
    let mut sorted: Vec<_> = micros.iter().copied().map(Duration::from_micros).collect();
    sorted.sort_unstable();
    let [p50, p99, max] = [50, 99, 100].map(|percent| millis(percentile(&sorted, percent)));
    format!(
        "{} repaired; p50 {p50:.1} ms, p99 {p99:.1} ms, max {max:.1} ms",
        sorted.len()
    )
}
