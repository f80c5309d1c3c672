//! How long repairs took: percentiles, by what was done.

use std::collections::BTreeMap;
use std::time::Duration;

use serde::{Deserialize, Serialize};

/// Times in microseconds, by what was done.
#[derive(Clone, Debug, Default, Deserialize, Serialize)]
pub struct Times(BTreeMap<String, Vec<u64>>);

impl Times {
    /// One more.
    pub fn note(&mut self, what: &str, time: Duration) {
        let micros = u64::try_from(time.as_micros()).unwrap_or(u64::MAX);
        self.0.entry(what.to_owned()).or_default().push(micros);
    }

    /// Those of another round.
    pub fn add(&mut self, other: Self) {
        for (what, times) in other.0 {
            self.0.entry(what).or_default().extend(times);
        }
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.count() == 0
    }

    /// How many there are.
    pub fn count(&self) -> usize {
        self.0.values().map(Vec::len).sum()
    }

    /// For each thing that was done, and for all of them together: how many times, and a line about them.
    pub fn lines(&self) -> Vec<(String, String)> {
        let all: Vec<u64> = self.0.values().flatten().copied().collect();
        let each = self.0.iter().map(|(what, times)| (what.clone(), line(times)));
        each.chain([("all of them".to_owned(), line(&all))]).collect()
    }
}

fn line(micros: &[u64]) -> String {
    let mut sorted = micros.to_vec();
    sorted.sort_unstable();
    let [p50, p99, max] = [50, 99, 100].map(|percent| percentile(&sorted, percent).as_secs_f64() * 1000.0);
    format!(
        "{} repaired; p50 {p50:.1} ms, p99 {p99:.1} ms, max {max:.1} ms",
        sorted.len()
    )
}

/// The smallest value that so many of a hundred do not exceed.
fn percentile(sorted: &[u64], percent: usize) -> Duration {
    let rank = (sorted.len() * percent).div_ceil(100).max(1);
    Duration::from_micros(sorted.get(rank - 1).copied().unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_percentile_is_one_of_the_values() {
        let sorted: Vec<u64> = (1..=200).collect();
        let micros = |percent| percentile(&sorted, percent).as_micros();
        assert_eq!((micros(50), micros(99), micros(100)), (100, 198, 200));
        assert_eq!(percentile(&[7], 99).as_micros(), 7);
    }
}
