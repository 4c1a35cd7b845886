//! A connection to the application that is read to its end even when nothing more can be written.
//!
//! An application may answer and close before it has taken the whole request. What is still being sent then fails, while
//! the answer lies there, unread; hyper ends the exchange at the first failed write and would lose it (RFC 9112 §9.5
//! asks a client to watch for such an answer).

use std::io::{self, ErrorKind, IoSlice};
use std::pin::Pin;
use std::task::{Context, Poll};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use weft_env::Stream;

#[derive(Debug)]
pub(super) struct Patient {
    stream: Stream,
    /// The application takes nothing more: the rest of the request is thrown away. Reading ends soon, by an answer or
    /// without, for the connection is dead.
    deaf: bool,
}

impl Patient {
    pub(super) fn new(stream: Stream) -> Self {
        Self {
            stream,
            deaf: false,
        }
    }

    fn written(&mut self, length: usize, outcome: io::Result<usize>) -> io::Result<usize> {
        match outcome {
            Err(error) if is_closed(&error) => {
                self.deaf = true;
                Ok(length)
            }
            other => other,
        }
    }
}

fn is_closed(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        ErrorKind::BrokenPipe | ErrorKind::ConnectionReset
    )
}

impl AsyncRead for Patient {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_read(cx, buf)
    }
}

impl AsyncWrite for Patient {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        if self.deaf {
            return Poll::Ready(Ok(buf.len()));
        }
        let written = Pin::new(&mut self.stream).poll_write(cx, buf);
        written.map(|outcome| self.written(buf.len(), outcome))
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let length = bufs.iter().map(|buf| buf.len()).sum();
        if self.deaf {
            return Poll::Ready(Ok(length));
        }
        let written = Pin::new(&mut self.stream).poll_write_vectored(cx, bufs);
        written.map(|outcome| self.written(length, outcome))
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        if self.deaf {
            return Poll::Ready(Ok(()));
        }
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}
