//! Backoff schedules: how soon an action is repeated.

use std::time::Duration;

/// After this time without the action, the next occurrence counts as the first.
pub const CALM: Duration = Duration::from_mins(10);

/// A number of immediate repetitions, then waits that start at `first` and double up to `longest`.
#[derive(Clone, Copy, Debug)]
pub struct BackoffSchedule {
    /// The number of immediate repetitions.
    pub free: u32,
    /// The first wait.
    pub first: Duration,
    /// The longest wait.
    pub longest: Duration,
}

impl BackoffSchedule {
    /// Returns the wait after this many occurrences.
    pub fn after(self, count: u32) -> Duration {
        let Some(doublings) = count.checked_sub(self.free + 1) else {
            return Duration::ZERO;
        };
        let factor = 2_u32.saturating_pow(doublings);
        self.first.saturating_mul(factor).min(self.longest)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waits_start_after_the_free_repetitions_and_double() {
        let seconds = Duration::from_secs;
        let pace = BackoffSchedule {
            free: 4,
            first: seconds(10),
            longest: seconds(300),
        };
        let waits: Vec<_> = (0..12).map(|count| pace.after(count).as_secs()).collect();
        assert_eq!(waits, [0, 0, 0, 0, 0, 10, 20, 40, 80, 160, 300, 300]);
        assert_eq!(pace.after(u32::MAX), pace.longest);
    }
}
