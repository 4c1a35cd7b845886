//! Pieces that are there already, taken together.

use std::future::poll_fn;
use std::task::{Context, Poll};

use bytes::Bytes;

/// Fills `pieces` from the front with what `poll` has ready, at least one, and tells how many; 0 at the end. For a
/// vectored write of what arrived in many packets.
///
/// # Errors
/// As `poll`; pieces that came before an error are given first, so `poll` must tell it again.
pub async fn gather<E>(
    pieces: &mut [Bytes],
    mut poll: impl FnMut(&mut Context<'_>) -> Poll<Result<Option<Bytes>, E>>,
) -> Result<usize, E> {
    poll_fn(|cx| {
        let mut count = 0;
        while count < pieces.len() {
            match poll(cx) {
                Poll::Ready(Ok(Some(piece))) => pieces[count] = piece,
                Poll::Ready(Ok(None)) => break,
                Poll::Ready(Err(_)) | Poll::Pending if count > 0 => break,
                Poll::Ready(Err(error)) => return Poll::Ready(Err(error)),
                Poll::Pending => return Poll::Pending,
            }
            count += 1;
        }
        Poll::Ready(Ok(count))
    })
    .await
}
