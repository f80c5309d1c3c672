//! Percentiles of durations, and the formatting of numbers.

use std::time::Duration;

/// Returns the smallest value that at least `percent` of 100 sorted values do not exceed (nearest rank); zero for no values.
pub fn percentile(sorted: &[Duration], percent: usize) -> Duration {
    let rank = (sorted.len() * percent).div_ceil(100).saturating_sub(1);
    sorted.get(rank).copied().unwrap_or_default()
}

/// Returns the median of unsorted values.
pub fn median(values: &[Duration]) -> Duration {
    let mut sorted = values.to_vec();
    sorted.sort_unstable();
    percentile(&sorted, 50)
}

/// Returns seconds for arithmetic.
pub fn seconds(duration: Duration) -> f64 {
    duration.as_secs_f64()
}

/// Returns milliseconds, rounded to one decimal.
pub fn millis(duration: Duration) -> f64 {
    (seconds(duration) * 10_000.0).round() / 10.0
}

/// Formats all values in milliseconds: `12.5, 13.0`.
pub fn list(values: &[Duration]) -> String {
    let each: Vec<_> = values.iter().map(|value| format!("{:.1}", millis(*value))).collect();
    each.join(", ")
}

/// Formats bytes as mebibytes: `14.2 MiB`.
pub fn mebibytes(bytes: u64) -> String {
    #[allow(clippy::cast_precision_loss)] // Far below 2^52.
    let mebibytes = bytes as f64 / f64::from(1 << 20);
    format!("{mebibytes:.1} MiB")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn percentile_returns_one_of_the_values() {
        let values: Vec<_> = (1..=200).map(Duration::from_millis).collect();
        assert_eq!(percentile(&values, 50), Duration::from_millis(100));
        assert_eq!(percentile(&values, 99), Duration::from_millis(198));
        assert_eq!(percentile(&values, 100), Duration::from_millis(200));
        assert_eq!(percentile(&values[..1], 99), values[0]);
        assert_eq!(percentile(&[], 50), Duration::ZERO);
    }

    #[test]
    fn median_accepts_unsorted_values() {
        let values = [9, 1, 5].map(Duration::from_millis);
        assert_eq!(median(&values), Duration::from_millis(5));
    }
}
