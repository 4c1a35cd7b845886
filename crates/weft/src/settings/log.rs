//! How a role logs.

use clap::ValueEnum;

use crate::failure::Failure;

/// Settings of the log, the same for every role. Logs go to standard error.
#[derive(Debug, Clone, PartialEq, Eq, clap::Args)]
pub(crate) struct LogSettings {
    /// Form of the log lines
    #[arg(long, env = "WEFT_LOG_FORMAT", value_name = "FORMAT", value_enum, default_value_t = LogFormat::Text)]
    pub(crate) log_format: LogFormat,

    /// What to log: a level (error, warn, info, debug, trace), or levels by target such as
    /// 'info,weft_transport=debug'
    #[arg(
        long,
        env = "WEFT_LOG_LEVEL",
        value_name = "LEVEL",
        default_value = "info",
        value_parser = level
    )]
    pub(crate) log_level: String,
}

fn level(text: &str) -> Result<String, String> {
    weft_telemetry::check_filter(text)
        .map(|()| text.to_owned())
        .map_err(|error| error.to_string())
}

/// Form of a log line.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum LogFormat {
    /// For people.
    Text,
    /// One JSON object a line, for machines.
    Json,
}

impl LogSettings {
    /// Sends logs where the settings say, from now on.
    pub(crate) fn start(&self) -> Result<(), Failure> {
        let format = match self.log_format {
            LogFormat::Text => weft_telemetry::LogFormat::Text,
            LogFormat::Json => weft_telemetry::LogFormat::Json,
        };
        weft_telemetry::init_logging(format, &self.log_level)
            .map_err(|error| Failure::usage(error.to_string()))
    }
}
