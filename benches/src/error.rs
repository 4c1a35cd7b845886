//! What can go wrong in a run, in sentences.

use std::io;
use std::path::PathBuf;

/// Result of this program's functions.
pub(crate) type Result<T> = std::result::Result<T, Error>;

/// Why a run, or one row of it, has no figure.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Error {
    /// A program that a row needs is not on this machine.
    #[error("{what} is not installed: {how}")]
    Missing {
        /// What is missing.
        what: &'static str,
        /// What to do about it.
        how: String,
    },
    /// The system refused something.
    #[error("cannot {what}: {source}")]
    Io {
        /// What was tried.
        what: String,
        /// Why it failed.
        #[source]
        source: io::Error,
    },
    /// A process that should run has ended, or never became ready.
    #[error("{name} {what}; its last words: {last}")]
    Process {
        /// Its name.
        name: String,
        /// What happened.
        what: String,
        /// The end of its log.
        last: String,
    },
    /// A command ended with a failure.
    #[error("`{command}` failed: {reason}")]
    Command {
        /// As it was run.
        command: String,
        /// What it said.
        reason: String,
    },
    /// A peer did not speak as expected.
    #[error("unexpected answer: {0}")]
    Protocol(String),
    /// Certificates or TLS settings.
    #[error("cannot set up TLS: {0}")]
    Tls(String),
    /// Parts that need more instructions than before.
    #[error(
        "more than 2 % above the baseline: {0}; mend it, or say why in the commit and write a new baseline with `weft-benches micro --write-baseline benches/instructions.json`"
    )]
    Slower(String),
    /// A file of ours that does not parse.
    #[error("{}: {reason}", path.display())]
    File {
        /// Which.
        path: PathBuf,
        /// Why.
        reason: String,
    },
}

impl Error {
    /// For `map_err`: what was tried when the system refused.
    pub(crate) fn io(what: impl Into<String>) -> impl FnOnce(io::Error) -> Self {
        let what = what.into();
        move |source| Self::Io { what, source }
    }
}
