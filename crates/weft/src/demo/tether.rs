//! Ties the demo's processes to the demo: they end when it ends, however it ends.
//!
//! Every process that the demo starts carries the demo's process id in a hidden variable. At its start it
//! asks the kernel to be killed when its parent dies, and then looks whether the parent is still there:
//! it may have died in between. A separate process removes the temporary folder once the demo is gone.

use std::io::Read;
use std::path::Path;
use std::time::Duration;

use rustix::process::{Signal, getppid, set_parent_process_death_signal};

use crate::failure::Failure;

/// Names the demo's process id to the processes that it starts.
pub(crate) const PARENT: &str = "WEFT_DEMO_PARENT";

/// What the demo's folders are called; nothing else is ever swept.
pub(super) const DIR_PREFIX: &str = "weft-demo-";

/// Ties this process to its demo, if one started it.
pub(crate) fn hold() -> Result<(), Failure> {
    let Ok(parent) = std::env::var(PARENT) else {
        return Ok(());
    };
    set_parent_process_death_signal(Some(Signal::KILL)).map_err(|error| {
        Failure::new(
            "tie this process to the demo",
            error,
            "start it without WEFT_DEMO_PARENT",
        )
    })?;
    if getppid().is_some_and(|pid| pid.as_raw_nonzero().to_string() == parent) {
        Ok(())
    } else {
        Err(Failure::said("the demo that started this process is gone"))
    }
}

/// Waits for standard input to end (the demo holds its other end), then removes the demo's folder.
pub(crate) async fn sweep(dir: &Path) -> Result<(), Failure> {
    let named = dir
        .file_name()
        .is_some_and(|name| name.to_string_lossy().starts_with(DIR_PREFIX));
    if !named {
        return Err(Failure::usage(format!(
            "{} is not a folder of a demo",
            dir.display()
        )));
    }
    let mut rest = Vec::new();
    // Whatever ends the pipe, an error too, means that the demo is gone.
    let _ = std::io::stdin().lock().read_to_end(&mut rest);
    // The demo's children die at the same moment; one may be writing a last file.
    for _ in 0..100 {
        match std::fs::remove_dir_all(dir) {
            Ok(()) => return Ok(()),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(()),
            Err(_) => tokio::time::sleep(Duration::from_millis(20)).await,
        }
    }
    Err(Failure::said(format!(
        "{} could not be removed",
        dir.display()
    )))
}
