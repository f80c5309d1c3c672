//! Logs. They go to standard error, because commands print their results to standard output.

use std::io::{self, IsTerminal};

use tracing_subscriber::EnvFilter;
use tracing_subscriber::filter::ParseError;
use tracing_subscriber::util::{SubscriberInitExt, TryInitError};

/// The format of the log lines.
#[derive(clap::ValueEnum, Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum LogFormat {
    /// One JSON object for each event.
    #[default]
    Json,
    /// Text for human readers.
    Text,
}

/// The reason why logging could not be set up.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The filter is invalid.
    #[error("the log filter {filter:?} is invalid")]
    Filter {
        /// The text of the filter.
        filter: String,
        /// The parser's error.
        source: ParseError,
    },
    /// The process already has a subscriber for events.
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
    fn init_names_an_invalid_filter_in_its_error() {
        let error = init(LogFormat::Text, "slipway=loud").expect_err("no such level");
        assert_eq!(error.to_string(), "the log filter \"slipway=loud\" is invalid");
    }
}
