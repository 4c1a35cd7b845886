//! Messages beside the requests: each a unidirectional stream of a type of the owner's own.
//!
//! Such types are an extension point (RFC 9114 §9): a peer that does not know one stops the stream and goes on. They
//! are no requests, so that they pass in both directions and also after GOAWAY.

use bytes::Bytes;
use quinn::RecvStream;
use tokio::sync::mpsc;

use crate::core::varint;
use crate::{Code, Error};

/// Messages whose stream has begun and that nobody has read yet.
const WAITING: usize = 4;

/// A stream of a peer whose type was read, and the first bytes of its content.
pub(crate) type Begun = (RecvStream, Bytes);

/// Where a driver puts streams of one type.
#[derive(Debug)]
pub(crate) struct Outlet {
    pub(crate) kind: u64,
    pub(crate) streams: mpsc::Sender<Begun>,
}

/// The peer's messages of one type.
#[derive(Debug)]
pub struct Aside {
    streams: mpsc::Receiver<Begun>,
}

impl Aside {
    pub(crate) fn new(kind: u64) -> (Self, Outlet) {
        let (sender, streams) = mpsc::channel(WAITING);
        let outlet = Outlet {
            kind,
            streams: sender,
        };
        (Self { streams }, outlet)
    }

    /// The next whole message of at most `limit` bytes; longer ones and those that break off are skipped. `None` at
    /// the connection's end.
    pub async fn next(&mut self, limit: usize) -> Option<Vec<u8>> {
        loop {
            let (mut stream, first) = self.streams.recv().await?;
            let Some(room) = limit.checked_sub(first.len()) else {
                stop(&mut stream);
                continue;
            };
            match stream.read_to_end(room).await {
                Ok(rest) => return Some([&first[..], &rest[..]].concat()),
                Err(_) => stop(&mut stream),
            }
        }
    }
}

/// Fails only for a stream that has ended.
pub(crate) fn stop(stream: &mut RecvStream) {
    let _ = stream.stop(Code::STREAM_CREATION_ERROR.into());
}

/// Sends a message on a stream of type `kind`, and returns when the peer's QUIC has all of it or wants no more: whether
/// the peer has a use for it is not known. `kind` must not be one that HTTP/3 or QPACK gives a meaning to, and at most 2^62 - 1.
///
/// # Errors
/// The connection's end.
pub async fn send_aside(
    connection: &quinn::Connection,
    kind: u64,
    message: &[u8],
) -> Result<(), Error> {
    let closed = |reason| Error::ConnectionClosed {
        reason,
        unprocessed: false,
    };
    let mut stream = connection.open_uni().await.map_err(closed)?;
    let mut first = Vec::with_capacity(varint::MAX_LEN);
    varint::encode(kind, &mut first);
    // Writing fails when the peer stops the stream, or at the connection's end, which `stopped` tells.
    if stream.write_all(&first).await.is_ok() && stream.write_all(message).await.is_ok() {
        let _ = stream.finish();
    }
    match stream.stopped().await {
        Ok(_) => Ok(()),
        Err(_) => Err(closed(connection.closed().await)),
    }
}
