//! Waiting for a condition, with a deadline, and with words for what was seen last.

use std::time::Duration;

use anyhow::bail;
use tokio::time::{Instant, sleep_until, timeout_at};

use crate::narration::say;

/// One look at the thing that is waited for.
#[derive(Debug)]
pub enum Look<T> {
    /// It is so; this was seen.
    Reached(T),
    /// It is not so yet; this is what is to be seen instead.
    NotYet(String),
}

impl<T> Look<T> {
    /// The same look at something else.
    pub fn map<U>(self, into: impl FnOnce(T) -> U) -> Look<U> {
        match self {
            Self::Reached(seen) => Look::Reached(into(seen)),
            Self::NotYet(seen) => Look::NotYet(seen),
        }
    }
}

impl Look<()> {
    /// [`Look::Reached`] if `reached`, else `seen`.
    pub fn when(reached: bool, seen: impl Into<String>) -> Self {
        if reached {
            Self::Reached(())
        } else {
            Self::NotYet(seen.into())
        }
    }
}

/// What is waited for, how long, and how often one looks.
#[derive(Clone, Debug)]
pub struct Wait {
    what: String,
    limit: Duration,
    pace: Duration,
    voice: Voice,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Voice {
    SaysEachChange,
    Silent,
}

impl Wait {
    /// Waits for `what` (a clause: "Contour is available"), a minute at most, looking five times a second.
    pub fn for_it(what: impl Into<String>) -> Self {
        Self {
            what: what.into(),
            limit: Duration::from_mins(1),
            pace: Duration::from_millis(200),
            voice: Voice::SaysEachChange,
        }
    }

    /// Another limit.
    #[must_use]
    pub fn within(mut self, limit: Duration) -> Self {
        self.limit = limit;
        self
    }

    /// Another time between looks.
    #[must_use]
    pub fn every(mut self, pace: Duration) -> Self {
        self.pace = pace;
        self
    }

    /// Does not print what it sees on the way.
    #[must_use]
    pub fn silently(mut self) -> Self {
        self.voice = Voice::Silent;
        self
    }

    /// Looks until the condition is reached.
    ///
    /// An error of the look itself ends the wait at once: what may be wrong on the way is a [`Look::NotYet`]. When time
    /// is up the error names the last thing seen.
    pub async fn until<T>(self, mut look: impl AsyncFnMut() -> anyhow::Result<Look<T>>) -> anyhow::Result<T> {
        let Self {
            what,
            limit,
            pace,
            voice,
        } = self;
        let start = Instant::now();
        let deadline = start + limit;
        let mut seen = String::from("nothing yet");
        loop {
            let next = Instant::now() + pace;
            match timeout_at(deadline, Box::pin(look())).await {
                Ok(Ok(Look::Reached(value))) => {
                    if voice == Voice::SaysEachChange {
                        say(format!("{what} (after {:.2} s)", start.elapsed().as_secs_f64()));
                    }
                    return Ok(value);
                }
                Ok(Ok(Look::NotYet(now))) => {
                    if now != seen && voice == Voice::SaysEachChange {
                        say(format!("  … {now}"));
                    }
                    seen = now;
                }
                Ok(Err(error)) => return Err(error.context(format!("while waiting until {what}"))),
                Err(_) => bail!(
                    "not within {} s: {what}; the last look took too long, before it: {seen}",
                    limit.as_secs_f64()
                ),
            }
            if next >= deadline {
                bail!("not within {} s: {what}; seen last: {seen}", limit.as_secs_f64());
            }
            sleep_until(next).await;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn short() -> Wait {
        Wait::for_it("the count is three")
            .within(Duration::from_millis(200))
            .every(Duration::from_millis(1))
            .silently()
    }

    #[tokio::test]
    async fn a_wait_ends_with_what_was_reached() {
        let mut count = 0;
        let reached = short()
            .until(async || {
                count += 1;
                Ok(if count == 3 {
                    Look::Reached(count)
                } else {
                    Look::NotYet(format!("{count}"))
                })
            })
            .await;
        assert_eq!(reached.expect("it is reached"), 3);
    }

    #[tokio::test]
    async fn a_wait_that_fails_says_what_was_seen_last() {
        let error = short()
            .until(async || Ok(Look::when(false, "the count is one")))
            .await
            .expect_err("never reached");
        let text = error.to_string();
        assert!(
            text.contains("the count is three") && text.contains("seen last: the count is one"),
            "{text}"
        );
    }

    #[tokio::test]
    async fn a_look_that_hangs_does_not_outlast_the_limit() {
        let error = short()
            .until(async || std::future::pending::<anyhow::Result<Look<()>>>().await)
            .await;
        assert!(
            error
                .expect_err("never reached")
                .to_string()
                .contains("the last look took too long")
        );
    }

    #[tokio::test]
    async fn an_error_of_the_look_ends_the_wait_at_once() {
        let mut looks = 0;
        let error = short()
            .until::<()>(async || {
                looks += 1;
                bail!("no such thing")
            })
            .await;
        assert!(format!("{:#}", error.expect_err("an error")).contains("no such thing"));
        assert_eq!(looks, 1);
    }
}
