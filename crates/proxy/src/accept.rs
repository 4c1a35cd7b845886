//! Accepting TCP connections: bounded, and never in a spin.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{OwnedSemaphorePermit, Semaphore, watch};
use tokio_util::sync::CancellationToken;
use weft_env::{Listener, PeerAddr, Stream, Tasks};

use crate::handover::doors::Gate;

/// Wait after a failed accept (such as too many open files), which would fail again at once.
pub(crate) const PAUSE: Duration = Duration::from_millis(50);

/// Runs `serve` as a task for each accepted connection, each holding a place. When all places are taken
/// connections wait in the kernel's queue, and so they do while the gate is not open. Returns on `stop`, or when the
/// gate closes; what was accepted goes on.
pub(crate) async fn each<F>(
    listener: &Listener,
    mut gate: watch::Receiver<Gate>,
    stop: &CancellationToken,
    tasks: &Tasks,
    places: &Arc<Semaphore>,
    what: &'static str,
    serve: impl Fn(Stream, OwnedSemaphorePermit) -> F,
) where
    F: Future<Output = ()> + Send + 'static,
{
    loop {
        let state = tokio::select! {
            biased;
            () = stop.cancelled() => return,
            state = gate.wait_for(|gate| *gate != Gate::Paused) => state.map(|state| *state),
        };
        if !matches!(state, Ok(Gate::Open)) {
            return;
        }
        let (accepted, place) = tokio::select! {
            biased;
            () = stop.cancelled() => return,
            _ = gate.changed() => continue,
            accepted = next(listener, places) => accepted,
        };
        match accepted {
            Ok((stream, _)) => drop(tasks.spawn(serve(stream, place))),
            Err(error) => {
                tracing::warn!(listener = what, %error, "cannot accept a connection");
                tokio::time::sleep(PAUSE).await;
            }
        }
    }
}

async fn next(
    listener: &Listener,
    places: &Arc<Semaphore>,
) -> (std::io::Result<(Stream, PeerAddr)>, OwnedSemaphorePermit) {
    let place = Arc::clone(places)
        .acquire_owned()
        .await
        .expect("the semaphore is never closed");
    (listener.accept().await, place)
}
