//! SIGTERM and Ctrl-C: the first stops in order, the second ends the process at once.

use std::time::Duration;

use tokio::signal::unix::{SignalKind, signal};
use tokio_util::sync::CancellationToken;
use weft_env::Env;

use crate::failure::Failure;

/// Exit code of a process that a second signal ended: what shells report for SIGINT.
const INTERRUPTED: i32 = 130;
/// What is left to log then gets this long.
const LAST_WORDS: Duration = Duration::from_millis(100);

/// A token that the first SIGTERM or SIGINT cancels.
pub(crate) fn stop_token(env: &Env) -> Result<CancellationToken, Failure> {
    let listen = |kind| {
        signal(kind).map_err(|error| {
            Failure::new("listen for signals", error, "raise the limit of open files")
        })
    };
    let mut interrupt = listen(SignalKind::interrupt())?;
    let mut terminate = listen(SignalKind::terminate())?;
    let token = CancellationToken::new();
    let cancel = token.clone();
    drop(env.spawn(async move {
        loop {
            tokio::select! {
                biased;
                _ = terminate.recv() => {}
                _ = interrupt.recv() => {}
            }
            if cancel.is_cancelled() {
                weft_telemetry::flush_logging(LAST_WORDS);
                std::process::exit(INTERRUPTED);
            }
            cancel.cancel();
        }
    }));
    Ok(token)
}
