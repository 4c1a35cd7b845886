//! The two places where this program writes to its terminal.

use std::io::Write;

/// A line of the result, on standard output.
pub(crate) fn line(text: &str) {
    // A reader that has gone away wants no more lines.
    let _ = writeln!(std::io::stdout().lock(), "{text}");
}

/// A remark about the run, on standard error.
pub(crate) fn note(text: &str) {
    let _ = writeln!(std::io::stderr().lock(), "{text}");
}
