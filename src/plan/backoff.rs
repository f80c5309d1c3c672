//! How soon something that was done is done again.

use std::time::Duration;

/// After so long without it the next time counts as the first again.
pub const CALM: Duration = Duration::from_mins(10);

/// So many times at once, then after `first`, doubling up to `longest`.
#[derive(Clone, Copy, Debug)]
pub struct BackoffSchedule {
    /// So many times follow the first at once.
    pub free: u32,
    /// The first wait.
    pub first: Duration,
    /// The longest.
    pub longest: Duration,
}

impl BackoffSchedule {
    /// The wait after this many times.
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
    fn waits_begin_after_those_that_are_free_and_double_up_to_the_longest() {
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
