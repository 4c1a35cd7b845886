//! Why something was not measured.

use std::path::Path;

/// A benchmark that could not be carried out.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Error {
    /// Something outside of this package is missing.
    #[error("{what} is not here: {install}")]
    NotHere {
        /// What is missing.
        what: String,
        /// How to get it.
        install: String,
    },
    /// The system refused.
    #[error("{what}: {why}")]
    Io {
        /// What was tried.
        what: String,
        /// The system's answer.
        why: std::io::Error,
    },
    /// Anything else, in a sentence.
    #[error("{0}")]
    Said(String),
}

/// What a step gives back.
pub(crate) type Result<T, E = Error> = std::result::Result<T, E>;

impl Error {
    /// A sentence.
    pub(crate) fn said(text: impl Into<String>) -> Self {
        Self::Said(text.into())
    }

    /// For `map_err` on I/O.
    pub(crate) fn io(what: impl Into<String>) -> impl FnOnce(std::io::Error) -> Self {
        let what = what.into();
        move |why| Self::Io { what, why }
    }

    /// For `map_err` on anything that can be shown.
    pub(crate) fn because<E: std::fmt::Display>(what: &str) -> impl FnOnce(E) -> Self {
        let what = what.to_owned();
        move |why| Self::Said(format!("{what}: {why}"))
    }
}

/// Writes a file with its folders.
pub(crate) fn write(path: &Path, text: &str) -> Result<()> {
    if let Some(folder) = path.parent() {
        std::fs::create_dir_all(folder).map_err(Error::io(format!("make {}", folder.display())))?;
    }
    std::fs::write(path, text).map_err(Error::io(format!("write {}", path.display())))
}
