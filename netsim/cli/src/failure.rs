//! How a command fails: one sentence with a next step, and the exit code.

use std::process::ExitCode;

/// Why a command ends.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Failure {
    /// The command line or the mesh file makes no sense.
    #[error("{0}")]
    Usage(String),
    /// Namespaces, devices or links could not be had.
    #[error(transparent)]
    Link(#[from] weft_netsim_tun::Error),
    /// A file or process that the command needs.
    #[error("cannot {what}: {source}; {next}")]
    Io {
        /// What was tried.
        what: String,
        /// The system's answer.
        source: std::io::Error,
        /// What to do about it.
        next: &'static str,
    },
    /// The self-test found that the link does not keep its promises.
    #[error("{0}")]
    Failed(String),
}

impl Failure {
    /// For `map_err`.
    pub(crate) fn io(
        what: impl Into<String>,
        next: &'static str,
    ) -> impl FnOnce(std::io::Error) -> Self {
        move |source| Self::Io {
            what: what.into(),
            source,
            next,
        }
    }

    /// 2 for wrong usage, 1 for any other failure.
    pub(crate) fn exit_code(&self) -> ExitCode {
        match self {
            Self::Usage(_) => ExitCode::from(2),
            Self::Link(_) | Self::Io { .. } | Self::Failed(_) => ExitCode::FAILURE,
        }
    }
}
