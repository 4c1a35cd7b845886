//! How a command fails: one sentence with what failed, why, and what to do; and the exit code.

use std::error::Error;
use std::fmt;
use std::process::ExitCode;

/// A command that could not do its work. Shown as one sentence after `weft: `.
#[derive(Debug)]
pub(crate) struct Failure {
    sentence: String,
    usage: bool,
}

impl Failure {
    /// What failed, why, and what to do about it.
    pub(crate) fn new(what: impl fmt::Display, why: impl fmt::Display, next: &str) -> Self {
        Self::said(format!("{what}: {why}; {next}"))
    }

    /// A sentence that a lower crate has already put together, next step included.
    pub(crate) fn said(sentence: impl Into<String>) -> Self {
        Self {
            sentence: sentence.into(),
            usage: false,
        }
    }

    /// The command line or the settings make no sense: exit code 2.
    pub(crate) fn usage(sentence: impl Into<String>) -> Self {
        Self {
            sentence: sentence.into(),
            usage: true,
        }
    }

    /// What failed, and the whole chain of causes of `error`.
    pub(crate) fn because(what: impl fmt::Display, error: &(dyn Error + 'static)) -> Self {
        Self::said(format!("{what}: {}", chain(error)))
    }

    /// The same, with which of several it is about after the name of the role.
    pub(crate) fn of(mut self, role: &str, name: &str) -> Self {
        if let Some(rest) = self.sentence.strip_prefix(role) {
            self.sentence = format!("{role}: {name}{rest}");
        }
        self
    }

    /// 1 for a failure, 2 for wrong usage.
    pub(crate) fn exit_code(&self) -> ExitCode {
        ExitCode::from(if self.usage { 2 } else { 1 })
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.sentence)
    }
}

/// The message of an error and of its causes, leaving out a cause that its parent repeats already.
pub(crate) fn chain(error: &(dyn Error + 'static)) -> String {
    let mut text = error.to_string();
    let mut parent = error;
    while let Some(error) = parent.source() {
        // These say in words of their own what the system says in its.
        if parent.is::<weft_env::DiskError>() {
            break;
        }
        let next = error.to_string();
        if !text.contains(&next) {
            text.push_str(": ");
            text.push_str(&next);
        }
        parent = error;
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug, thiserror::Error)]
    #[error("cannot read the key")]
    struct Outer(#[source] std::io::Error);

    #[test]
    fn causes_are_joined_into_one_sentence() {
        let failure = Failure::because(
            "start the sidecar",
            &Outer(std::io::Error::other("no disk")),
        );
        assert_eq!(
            failure.to_string(),
            "start the sidecar: cannot read the key: no disk"
        );
        let of_one = Failure::usage("sidecar: no control node").of("sidecar", "orders");
        assert_eq!(of_one.to_string(), "sidecar: orders: no control node");
        assert_eq!(
            Failure::new("read x", "it is gone", "give another file").to_string(),
            "read x: it is gone; give another file"
        );
    }
}
