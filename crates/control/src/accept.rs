//! The accept loop that the node's small servers share: so many connections at once, each a task, until the node stops.

use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::Semaphore;
use tokio::time::sleep;
use weft_env::{Listener, Stream, Tasks};

/// Pause after a failed accept, such as too many open files.
const PAUSE: Duration = Duration::from_millis(100);

/// Hands each connection to `serve`, whose work becomes a task; `None` lets it go. Above `most` at once, connections
/// are closed unanswered. Ends with `tasks`.
pub(crate) async fn each<W>(
    listener: Listener,
    (what, most): (&'static str, usize),
    tasks: Tasks,
    serve: impl Fn(Stream) -> Option<W>,
) where
    W: Future<Output = ()> + Send + 'static,
{
    let stop = tasks.token();
    let slots = Arc::new(Semaphore::new(most));
    // Said once for each time that it is full, not for each connection: anybody may bring those.
    let mut full = false;
    loop {
        let accepted = tokio::select! {
            biased;
            () = stop.cancelled() => return,
            accepted = listener.accept() => accepted,
        };
        let stream = match accepted {
            Ok((stream, _)) => stream,
            Err(error) => {
                tracing::warn!(%error, what, "no connection can be accepted");
                sleep(PAUSE).await;
                continue;
            }
        };
        let Ok(slot) = slots.clone().try_acquire_owned() else {
            if !std::mem::replace(&mut full, true) {
                tracing::warn!(what, most, "too many connections at once");
            }
            continue;
        };
        full = false;
        if let Some(work) = serve(stream) {
            tasks.spawn(async move {
                let _slot = slot;
                work.await;
            });
        }
    }
}
