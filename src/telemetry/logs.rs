//! Logs, to standard error: standard output belongs to the commands that print something.

use std::io::{self, IsTerminal};

use tracing_subscriber::EnvFilter;
use tracing_subscriber::filter::ParseError;
use tracing_subscriber::util::{SubscriberInitExt, TryInitError};

/// What a line of the log looks like.
#[derive(clap::ValueEnum, Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum LogFormat {
    /// One JSON object for each event.
    #[default]
    Json,
    /// For people.
    Text,
}

/// Why there is no log.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The filter is not one.
    #[error("the log filter {filter:?} is not valid")]
    Filter {
        /// What was given.
        filter: String,
        /// What is wrong with it.
        source: ParseError,
    },
    /// Something else in the process takes the events already.
    #[error("logging was set up twice")]
    Taken(#[from] TryInitError),
}

/// Sends the events of the process to standard error. The filter is a level or a list of `target=level`
/// (`tracing_subscriber::EnvFilter`).
pub fn init(format: LogFormat, filter: &str) -> Result<(), Error> {
    let filter = EnvFilter::try_new(filter).map_err(|source| Error::Filter {
        filter: filter.to_owned(),
        source,
    })?;
    let subscriber = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(io::stderr);
    match format {
        LogFormat::Json => subscriber
            .json()
            .flatten_event(true)
            .with_span_list(false)
            .finish()
            .try_init()?,
        LogFormat::Text => subscriber.with_ansi(io::stderr().is_terminal()).finish().try_init()?,
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_filter_that_is_not_one_is_named_in_the_error() {
        let error = init(LogFormat::Text, "slipway=loud").expect_err("no such level");
        assert_eq!(error.to_string(), "the log filter \"slipway=loud\" is not valid");
    }
}
