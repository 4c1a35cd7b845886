//! Errors of sockets in the words that the operating system's seam uses.

use std::fmt::Display;
use std::io::{self, ErrorKind};

pub(crate) fn refused(what: &str, whom: impl Display, kind: ErrorKind) -> io::Error {
    let reason = match kind {
        ErrorKind::AddrInUse => "address in use",
        ErrorKind::AddrNotAvailable => "no interface of this machine has that address",
        ErrorKind::ConnectionRefused => "connection refused",
        ErrorKind::TimedOut => "timed out",
        ErrorKind::NotFound => "no such file or directory",
        _ => "the process has ended",
    };
    io::Error::new(kind, format!("cannot {what} {whom}: {reason}"))
}

/// What a process that was killed meets wherever it turns, in the moment before its tasks are gone.
pub(crate) fn dead() -> io::Error {
    io::Error::new(ErrorKind::NotConnected, "the process was killed")
}
