//! How a running process starts its successor.

use std::ffi::OsString;
use std::io;
use std::process::Stdio;

use tokio::process::{Child, Command};

/// A command line: that of this process, so that what is installed under its name now is started with the same
/// settings.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Program {
    /// Name or path of the program.
    pub program: OsString,
    /// Its arguments.
    pub args: Vec<OsString>,
    /// Environment variables that it does not get.
    pub without: Vec<OsString>,
}

impl Program {
    /// Starts it with this process's streams and directory.
    ///
    /// # Errors
    /// Such as: there is no such program.
    pub(super) fn start(&self) -> io::Result<Child> {
        let mut command = Command::new(&self.program);
        command.args(&self.args).stdin(Stdio::null());
        for name in &self.without {
            command.env_remove(name);
        }
        command.spawn()
    }
}
