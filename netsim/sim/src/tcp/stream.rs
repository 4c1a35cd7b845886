//! One end of a stream.

use std::io::{self, ErrorKind};
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use weft_env::{SimStream, Stream};

use super::pipe::{Pipe, Read, Write};
use crate::event::NodeId;
use crate::world::Shared;

pub(crate) struct End {
    shared: Arc<Shared>,
    incoming: Arc<Pipe>,
    outgoing: Arc<Pipe>,
    local: Option<SocketAddr>,
    peer: Option<SocketAddr>,
}

/// Both ends of a new stream: of `from`, which connected, and of `to`. No addresses: a Unix socket.
pub(crate) fn pair(
    shared: &Arc<Shared>,
    (from, from_addr): (NodeId, Option<SocketAddr>),
    (to, to_addr): (NodeId, Option<SocketAddr>),
) -> (Stream, Stream) {
    let (there, back) = (Pipe::new(from, to), Pipe::new(to, from));
    let near = End {
        shared: shared.clone(),
        incoming: back.clone(),
        outgoing: there.clone(),
        local: from_addr,
        peer: to_addr,
    };
    let far = End {
        shared: shared.clone(),
        incoming: there,
        outgoing: back,
        local: to_addr,
        peer: from_addr,
    };
    (Stream::Sim(Box::new(near)), Stream::Sim(Box::new(far)))
}

impl std::fmt::Debug for End {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("End")
            .field("local", &self.local)
            .field("peer", &self.peer)
            .finish_non_exhaustive()
    }
}

fn reset() -> io::Error {
    io::Error::new(ErrorKind::ConnectionReset, "connection reset by peer")
}

impl AsyncRead for End {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        if buf.remaining() == 0 {
            return Poll::Ready(Ok(()));
        }
        match self.incoming.read(buf.initialize_unfilled(), cx.waker()) {
            Read::Bytes(count) => {
                buf.advance(count);
                Poll::Ready(Ok(()))
            }
            Read::End => Poll::Ready(Ok(())),
            Read::Reset => Poll::Ready(Err(reset())),
            Read::Wait => Poll::Pending,
        }
    }
}

impl AsyncWrite for End {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        data: &[u8],
    ) -> Poll<io::Result<usize>> {
        if self.incoming.is_reset() {
            return Poll::Ready(Err(reset()));
        }
        match self.outgoing.write(&self.shared, data, cx.waker()) {
            Write::Taken(count) => Poll::Ready(Ok(count)),
            Write::Reset => Poll::Ready(Err(reset())),
            Write::Wait => Poll::Pending,
        }
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.outgoing.finish(&self.shared);
        Poll::Ready(Ok(()))
    }
}

impl SimStream for End {
    fn reset(self: Box<Self>) {
        self.outgoing.reset(&self.shared);
        self.incoming.break_off();
    }

    fn peer_addr(&self) -> Option<SocketAddr> {
        self.peer
    }

    fn local_addr(&self) -> Option<SocketAddr> {
        self.local
    }
}

/// What close(2) does: an end, or a reset if something was left unread.
impl Drop for End {
    fn drop(&mut self) {
        if self.incoming.abandon() {
            self.outgoing.reset(&self.shared);
        } else {
            self.outgoing.finish(&self.shared);
        }
    }
}
