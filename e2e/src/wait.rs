//! Waiting for a condition until a deadline. The error describes the state that was observed last.

use std::time::Duration;

use anyhow::bail;
use tokio::time::{Instant, sleep_until, timeout_at};

use crate::narration::say;

/// One observation of the state that a [`Wait`] waits for.
#[derive(Debug)]
pub enum Look<T> {
    /// The condition holds; this value was observed.
    Reached(T),
    /// The condition does not hold yet; the text describes the present state.
    NotYet(String),
}

impl<T> Look<T> {
    /// Converts the value of [`Look::Reached`].
    pub fn map<U>(self, into: impl FnOnce(T) -> U) -> Look<U> {
        match self {
            Self::Reached(seen) => Look::Reached(into(seen)),
            Self::NotYet(seen) => Look::NotYet(seen),
        }
    }
}

impl Look<()> {
    /// Returns [`Look::Reached`] if `reached`, else [`Look::NotYet`] with `seen`.
    pub fn when(reached: bool, seen: impl Into<String>) -> Self {
        if reached {
            Self::Reached(())
        } else {
            Self::NotYet(seen.into())
        }
    }
}

/// The condition, the time limit, and the interval between observations.
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
    /// Waits for `what` (a clause: "Contour is available"). The limit is one minute; the interval is 200 ms.
    pub fn for_it(what: impl Into<String>) -> Self {
        Self {
            what: what.into(),
            limit: Duration::from_mins(1),
            pace: Duration::from_millis(200),
            voice: Voice::SaysEachChange,
        }
    }

    /// Sets the time limit.
    #[must_use]
    pub fn within(mut self, limit: Duration) -> Self {
        self.limit = limit;
        self
    }

    /// Sets the interval between observations.
    #[must_use]
    pub fn every(mut self, pace: Duration) -> Self {
        self.pace = pace;
        self
    }

    /// Suppresses the progress messages.
    #[must_use]
    pub fn silently(mut self) -> Self {
        self.voice = Voice::Silent;
        self
    }

    /// Observes the state until the condition holds.
    ///
    /// An error of the observation ends the wait immediately; a state that may still change is a [`Look::NotYet`]. When the time
    /// limit expires, the error describes the last observed state.
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
                    "not within {} s: {what}; the last observation timed out; before that: {seen}",
                    limit.as_secs_f64()
                ),
            }
            if next >= deadline {
                bail!("not within {} s: {what}; last observed: {seen}", limit.as_secs_f64());
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
    async fn wait_returns_the_observed_value() {
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
    async fn error_describes_the_last_observed_state() {
        let error = short()
            .until(async || Ok(Look::when(false, "the count is one")))
            .await
            .expect_err("never reached");
        let text = error.to_string();
        assert!(
            text.contains("the count is three") && text.contains("last observed: the count is one"),
            "{text}"
        );
    }

    #[tokio::test]
    async fn hanging_observation_does_not_outlast_the_limit() {
        let error = short()
            .until(async || std::future::pending::<anyhow::Result<Look<()>>>().await)
            .await;
        assert!(
            error
                .expect_err("never reached")
                .to_string()
                .contains("the last observation timed out")
        );
    }

    #[tokio::test]
    async fn error_of_the_observation_ends_the_wait_immediately() {
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
