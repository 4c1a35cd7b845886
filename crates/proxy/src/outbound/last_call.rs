//! Requests that have no answer when the sidecar is about to end: they get weft's, rather than a cut.

use std::future::{Future, poll_fn};
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::Poll;

use crate::respond::{Fact, Refusal};

/// Whether a connection of the application is cut soon. hyper polls its requests in the connection's task, which is
/// woken when that is so: they need to look only, and wait for nothing more.
#[derive(Debug, Clone, Default)]
pub(super) struct LastCall(Arc<AtomicBool>);

impl LastCall {
    /// From the next poll on, requests are not waited for.
    pub(super) fn ring(&self) {
        self.0.store(true, Ordering::Relaxed);
    }

    /// Waits for a future, until the call. It is borrowed: taken by value it would have its room twice over, and be
    /// copied from one to the other for each request.
    ///
    /// # Errors
    /// It was not ready by then.
    pub(super) async fn before<F: Future>(
        &self,
        mut future: Pin<&mut F>,
    ) -> Result<F::Output, Refusal> {
        poll_fn(|cx| match future.as_mut().poll(cx) {
            Poll::Ready(value) => Poll::Ready(Ok(value)),
            Poll::Pending if self.0.load(Ordering::Relaxed) => Poll::Ready(Err(stopping())),
            Poll::Pending => Poll::Pending,
        })
        .await
    }
}

fn stopping() -> Refusal {
    Refusal::new(
        Fact::Stopping,
        "this sidecar stops, and the request had no answer when the time for that (--drain) was over: send it again if it may be repeated",
    )
}

#[cfg(test)]
mod tests {
    use std::pin::pin;

    use super::*;

    #[tokio::test]
    async fn what_is_ready_is_given_also_after_the_call() {
        let call = LastCall::default();
        assert_eq!(call.before(pin!(async { 1 })).await.unwrap(), 1);
        call.ring();
        assert_eq!(call.before(pin!(async { 1 })).await.unwrap(), 1);
        let late = call.before(pin!(std::future::pending::<()>())).await;
        assert_eq!(late.unwrap_err().fact, Fact::Stopping);
    }
}
