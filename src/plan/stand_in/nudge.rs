//! Contour does not look again at an ExtensionService when a Service that it names comes, or gets its port, later: of Services it
//! heeds those that Ingresses, HTTPProxies and routes name (v1.33, `internal/dag/cache.go`, `serviceTriggersRebuild`). It looks at
//! everything again when the generation of any ExtensionService changes (`internal/k8s/helpers.go`, `IsObjectEqual`). So a stand-in
//! that points at nothing is changed in a way that means nothing.

use std::time::Duration;

use jiff::Timestamp;

/// Contour's own view may be behind: if it still says the same it is nudged again after these times, counted from when the last of
/// what it needs was made. (A port that an old Service gets has no time of its own: there the only nudge is the first.)
const AGAIN: [Duration; 4] = [
    Duration::from_secs(5),
    Duration::from_secs(15),
    Duration::from_mins(1),
    Duration::from_mins(5),
];

/// A nudge that is due.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Nudge {
    /// Which it is, from 1.
    pub count: u32,
    /// When the next one is due.
    pub next: Option<Duration>,
}

impl Nudge {
    /// The one that is due, if Contour's word is out of date since then.
    pub fn at(since: Timestamp, now: Timestamp) -> Self {
        let passed = Duration::try_from(now.duration_since(since)).unwrap_or(Duration::ZERO);
        let (over, left): (Vec<Duration>, Vec<Duration>) = AGAIN.iter().partition(|wait| **wait <= passed);
        Self {
            count: u32::try_from(over.len() + 1).unwrap_or(u32::MAX),
            next: left.first().map(|wait| wait.saturating_sub(passed)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_is_due_at_once_and_each_later_one_after_a_longer_time() {
        let since: Timestamp = "2026-01-01T00:00:00Z".parse().expect("a time");
        let due = |seconds: u64| {
            let Nudge { count, next } = Nudge::at(since, since + Duration::from_secs(seconds));
            (count, next.map(|next| next.as_secs()))
        };
        assert_eq!(due(0), (1, Some(5)));
        assert_eq!(due(5), (2, Some(10)));
        assert_eq!(due(59), (3, Some(1)));
        assert_eq!(due(300), (5, None));
        let before = since - Duration::from_secs(9);
        assert_eq!(Nudge::at(since, before).count, 1, "a clock that is behind");
    }
}
