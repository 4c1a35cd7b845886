//! The async runtimes that the roles run on (docs/adr/0003-runtime-threading.md).

use std::future::Future;

use crate::failure::Failure;

/// Runs a future to its end on this thread, or with `workers` threads if that is not 0.
pub(crate) fn block_on<F: Future>(workers: u16, future: F) -> Result<F::Output, Failure> {
    let mut builder = if workers == 0 {
        tokio::runtime::Builder::new_current_thread()
    } else {
        let mut builder = tokio::runtime::Builder::new_multi_thread();
        builder.worker_threads(usize::from(workers));
        builder
    };
    let runtime = builder.enable_all().build().map_err(|error| {
        Failure::new(
            "start the runtime",
            error,
            "raise the limits of open files and threads",
        )
    })?;
    let output = runtime.block_on(future);
    // What is left are blocking jobs that nobody waits for any more.
    runtime.shutdown_background();
    Ok(output)
}
