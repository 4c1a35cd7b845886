//! Settings that every long-running role has.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use weft_env::{Env, SystemPlatform};

use super::LogSettings;
use crate::failure::Failure;

/// How the process of a role runs, whichever it is.
#[derive(Debug, Clone, clap::Args)]
pub(crate) struct ProcessSettings {
    /// File to write once ready: JSON with the addresses in use (port 0 asks the system for one)
    #[arg(long, env = "WEFT_READY_FILE", value_name = "FILE")]
    pub(crate) ready_file: Option<PathBuf>,

    /// Shifts this process's wall clock by so many seconds: for tests of clocks that disagree
    #[arg(
        long,
        env = "WEFT_CLOCK_OFFSET",
        value_name = "SECONDS",
        hide = true,
        default_value_t = 0,
        allow_negative_numbers = true
    )]
    pub(crate) clock_offset: i64,

    #[command(flatten)]
    pub(crate) log: LogSettings,
}

impl ProcessSettings {
    /// Starts logging, and gives the process its access to the world.
    pub(crate) fn start(&self) -> Result<Env, Failure> {
        self.log.start()?;
        self.check()?;
        let platform = SystemPlatform::new()
            .with_wall_offset(self.clock_offset)
            .with_supervisor(std::env::var_os("NOTIFY_SOCKET").filter(|name| !name.is_empty()));
        Ok(Env::new(Arc::new(platform)))
    }

    /// What would make the work of a start vain.
    pub(crate) fn check(&self) -> Result<(), Failure> {
        self.ready_file.as_deref().map_or(Ok(()), check_place)
    }
}

/// The ready file comes last, when much is done that a wrong path would make vain.
fn check_place(file: &Path) -> Result<(), Failure> {
    let dir = match file.parent() {
        Some(dir) if !dir.as_os_str().is_empty() => dir,
        Some(_) | None => Path::new("."),
    };
    if dir.is_dir() {
        return Ok(());
    }
    Err(Failure::new(
        format!("write the ready file {}", file.display()),
        format!("there is no directory {}", dir.display()),
        "make it, or name another file with --ready-file",
    ))
}
