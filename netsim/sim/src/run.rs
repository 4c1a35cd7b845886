//! A run from its seed to its end.

use std::any::Any;
use std::future::Future;
use std::path::Path;
use std::sync::Arc;

use thiserror::Error;
use weft_netsim_entropy::seed_thread;

use crate::clock::drive;
use crate::seed;
use crate::world::{Shared, World};

/// weft's futures are deep in builds without optimisation.
const STACK: usize = 16 << 20;

/// Why a run has no result.
#[derive(Debug, Error)]
pub enum RunError {
    /// No thread or runtime to run it on.
    #[error("the run cannot start: {0}")]
    Start(#[from] std::io::Error),
    /// What ran in it panicked.
    #[error("{0}")]
    Panicked(String),
}

/// Runs `main` in a world of its own, in virtual time, on a fresh thread. The nodes' files go to `dir`, which
/// the caller makes and removes: its name must not reach any decision.
///
/// # Errors
/// [`RunError::Panicked`] with the panic's message, when `main` panicked.
pub fn run<T, F>(seed: u64, dir: &Path, main: impl FnOnce(World) -> F + Send) -> Result<T, RunError>
where
    T: Send + 'static,
    F: Future<Output = T> + Send + 'static,
{
    let dir = dir.to_owned();
    // Thread-locals of libraries (hash keys, random generators) begin anew with the thread.
    std::thread::scope(|scope| {
        let thread = std::thread::Builder::new()
            .name(format!("world-{seed}"))
            .stack_size(STACK)
            .spawn_scoped(scope, move || {
                seed_thread(seed::derive(seed, &[b"libraries"]));
                let runtime = tokio::runtime::Builder::new_current_thread()
                    .enable_time()
                    .start_paused(true)
                    // A yield must not come back before everything else has run.
                    .event_interval(u32::MAX)
                    .build()?;
                runtime.block_on(in_world(seed, dir, main))
            })?;
        thread
            .join()
            .unwrap_or_else(|panic| Err(RunError::Panicked(message(&*panic))))
    })
}

#[allow(
    clippy::disallowed_methods,
    reason = "the driver belongs to no node: it makes their time"
)]
async fn in_world<T, F>(
    seed: u64,
    dir: std::path::PathBuf,
    main: impl FnOnce(World) -> F,
) -> Result<T, RunError>
where
    T: Send + 'static,
    F: Future<Output = T> + Send + 'static,
{
    let shared = Arc::new(Shared::new(seed, dir));
    let driver = tokio::spawn(drive(shared.clone()));
    let waking = tokio::spawn(shared.wakes.clone().serve());
    let world = World::new(shared.clone());
    let outcome = world.lab().env().spawn(main(world.clone())).await;
    driver.abort();
    waking.abort();
    shared.forget();
    outcome.map_err(|error| {
        let told = match error.try_into_panic() {
            Ok(panic) => message(&*panic),
            Err(error) => error.to_string(),
        };
        RunError::Panicked(told)
    })
}

fn message(panic: &(dyn Any + Send)) -> String {
    panic
        .downcast_ref::<String>()
        .cloned()
        .or_else(|| panic.downcast_ref::<&str>().map(|text| (*text).to_owned()))
        .unwrap_or_else(|| "a panic without a message".to_owned())
}
