//! What clients send.

use std::convert::Infallible;
use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};

static ZEROS: [u8; 32 * 1_024] = [0; 32 * 1_024];

/// A body that is made while it is sent: however long, it takes no memory of the client's.
#[derive(Debug)]
pub(crate) struct Content {
    text: &'static str,
    /// Bytes that are still to come after the text.
    more: u64,
}

impl Content {
    /// These words.
    pub(crate) fn of(text: &'static str) -> Self {
        Self { text, more: 0 }
    }

    /// So many bytes.
    pub(crate) fn long(bytes: u64) -> Self {
        Self {
            text: "",
            more: bytes,
        }
    }

    pub(crate) fn is_long(&self) -> bool {
        self.more > 0
    }
}

impl Body for Content {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        _: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        let next = if self.text.is_empty() {
            let count = self.more.min(ZEROS.len() as u64);
            self.more -= count;
            &ZEROS[..count as usize]
        } else {
            std::mem::take(&mut self.text).as_bytes()
        };
        let frame = Frame::data(Bytes::from_static(next));
        Poll::Ready((!next.is_empty()).then_some(Ok(frame)))
    }

    fn is_end_stream(&self) -> bool {
        self.text.is_empty() && self.more == 0
    }

    fn size_hint(&self) -> SizeHint {
        SizeHint::with_exact(self.text.len() as u64 + self.more)
    }
}

#[cfg(test)]
mod tests {
    use http_body_util::BodyExt;

    use super::*;

    #[tokio::test]
    async fn it_is_as_long_as_it_says() {
        for (content, length) in [
            (Content::of(""), 0),
            (Content::of("a body"), 6),
            (Content::long(100_000), 100_000),
        ] {
            assert_eq!(content.size_hint().exact(), Some(length));
            assert_eq!(content.is_long(), length > 6);
            let whole = content.collect().await.unwrap().to_bytes();
            assert_eq!(whole.len() as u64, length);
        }
    }
}
