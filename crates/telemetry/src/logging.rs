//! Where `tracing` events go: standard error, as text for people or JSON for machines.

use std::io;
use std::str::FromStr;
use std::time::Duration;

use tracing_subscriber::EnvFilter;

use crate::sink::Sink;

/// Of the process, as standard error is.
static SINK: Sink = Sink::new();

/// How log lines are written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum LogFormat {
    /// A line for people.
    #[default]
    Text,
    /// One JSON object a line.
    Json,
}

impl FromStr for LogFormat {
    type Err = LoggingError;

    fn from_str(text: &str) -> Result<Self, LoggingError> {
        match text {
            "text" => Ok(Self::Text),
            "json" => Ok(Self::Json),
            other => Err(LoggingError::Format(other.to_owned())),
        }
    }
}

/// Why logging could not be set up.
#[derive(Debug, thiserror::Error)]
pub enum LoggingError {
    /// The format has no such name.
    #[error("log format '{0}' is unknown: use text or json")]
    Format(String),
    /// The filter cannot be read.
    #[error(
        "log filter '{filter}' cannot be read: {cause}; an example is info,weft_proxy=debug,access=off"
    )]
    Filter {
        /// The filter as given.
        filter: String,
        /// What is wrong in it.
        cause: String,
    },
    /// The thread that writes could not be started.
    #[error("the thread that writes the log cannot be started: {0}; raise the limit of processes")]
    Thread(io::Error),
    /// A subscriber is there already.
    #[error("logging is set up already in this process")]
    Twice,
}

/// Whether a filter can be used: a level, or levels by target.
///
/// # Errors
/// [`LoggingError::Filter`] says why not.
pub fn check_filter(filter: &str) -> Result<(), LoggingError> {
    read_filter(filter).map(drop)
}

fn read_filter(filter: &str) -> Result<EnvFilter, LoggingError> {
    // A lone word that is no level would be taken for a target, and switch everything else off.
    let lone = !filter.contains(['=', ',', '[', ':']) && !filter.starts_with("weft");
    let fail = |cause: String| LoggingError::Filter {
        filter: filter.to_owned(),
        cause,
    };
    if lone
        && filter
            .parse::<tracing::level_filters::LevelFilter>()
            .is_err()
    {
        return Err(fail(
            "it is not a level: error, warn, info, debug, trace or off".to_owned(),
        ));
    }
    EnvFilter::try_new(filter).map_err(|cause| fail(cause.to_string()))
}

/// Sends the events that `filter` lets through to standard error. Once per process. A line that cannot be written, to a
/// full disk or a closed pipe, is lost and harms nobody; nor does one whose reader stands still: a megabyte waits for it.
///
/// # Errors
/// [`LoggingError`] if the filter is malformed, logging is set up already, or no thread can be had.
pub fn init_logging(format: LogFormat, filter: &str) -> Result<(), LoggingError> {
    let parsed = read_filter(filter)?;
    let builder = tracing_subscriber::fmt()
        .with_env_filter(parsed)
        // It would tell standard error, with a panic where that is what fails.
        .log_internal_errors(false)
        .with_writer(&SINK);
    let set = match format {
        LogFormat::Text => {
            let terminal = io::IsTerminal::is_terminal(&io::stderr());
            builder.with_ansi(terminal).try_init()
        }
        // There is one span at most: which sidecar of a process it is.
        LogFormat::Json => {
            let json = builder.json().flatten_event(true);
            json.with_span_list(false).try_init()
        }
    };
    set.map_err(|_| LoggingError::Twice)?;
    std::thread::Builder::new()
        .name("weft-log".to_owned())
        .spawn(move || SINK.write_to(io::stderr(), format))
        .map(drop)
        .map_err(LoggingError::Thread)
}

/// Waits until every line so far is written, at a process's end. `false`: after this time some are not, and whoever
/// writes to standard error now may wait for ever.
pub fn flush_logging(within: Duration) -> bool {
    SINK.flush(within)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bad_filter_or_format_is_named_with_an_example() {
        let error = init_logging(LogFormat::Text, "chatty").unwrap_err();
        assert!(
            error.to_string().contains("'chatty'") || error.to_string().contains("chatty"),
            "{error}"
        );
        let error = init_logging(LogFormat::Text, "weft=loud")
            .unwrap_err()
            .to_string();
        assert!(
            error.contains("weft=loud") && error.contains("access=off"),
            "{error}"
        );
        assert!(
            "xml"
                .parse::<LogFormat>()
                .unwrap_err()
                .to_string()
                .contains("text or json")
        );
    }
}
