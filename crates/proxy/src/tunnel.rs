//! A byte stream between a local socket and the mesh (RFC 9114 §4.4): half-closes and resets pass through
//! in both directions.
//!
//! | here | there |
//! |---|---|
//! | local FIN | stream ended |
//! | stream ended | local FIN |
//! | local RST or error | stream reset and stopped with H3_CONNECT_ERROR |
//! | stream reset or stopped, connection lost | local RST, other direction reset |

use std::io::{self, IoSlice};
use std::pin::Pin;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::{Context, Poll};

use bytes::{Buf, Bytes, BytesMut};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, ReadBuf};
use weft_env::Stream;
use weft_transport::{Code, RecvStream, SendStream, StreamError};

/// Read from a local socket at a time. With what QUIC's windows hold this bounds a tunnel's memory.
const READ: usize = 64 * 1024;
/// Pieces of received data that go into one vectored write.
const PIECES: usize = 16;

/// How a tunnel ended before both directions were closed.
#[derive(Debug)]
pub(crate) enum Broken {
    /// The local socket failed or was reset.
    Local(io::Error),
    /// The mesh side was reset, stopped or lost.
    Mesh(StreamError),
}

impl std::fmt::Display for Broken {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Local(error) => write!(f, "the local connection broke: {error}"),
            Self::Mesh(error) => write!(f, "the tunnel broke: {error}"),
        }
    }
}

/// Where the bytes carried are counted.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Counters<'a> {
    pub(crate) to_mesh: &'a AtomicU64,
    pub(crate) to_local: &'a AtomicU64,
}

/// Carries bytes both ways until both directions have ended or one of them broke. `early` came from the
/// local socket before. Bytes are counted while they are carried.
///
/// If this is dropped in between, both ends are reset: half a stream must never look like a whole one.
pub(crate) async fn carry(
    stream: Stream,
    early: Bytes,
    mut send: SendStream,
    mut recv: RecvStream,
    count: Counters<'_>,
) -> Result<(), Broken> {
    let (mut reader, mut writer) = tokio::io::split(ResetUnlessClean(Some(stream)));
    let both = tokio::try_join!(
        to_mesh(&mut reader, early, &mut send, count.to_mesh),
        to_local(&mut recv, &mut writer, count.to_local),
    );
    let whole = reader.unsplit(writer);
    match both {
        Ok(((), ())) => {
            whole.close();
            Ok(())
        }
        Err(broken) => {
            send.reset(Code::CONNECT_ERROR);
            recv.stop(Code::CONNECT_ERROR);
            Err(broken)
        }
    }
}

async fn to_mesh(
    reader: &mut (impl AsyncRead + Unpin),
    early: Bytes,
    send: &mut SendStream,
    count: &AtomicU64,
) -> Result<(), Broken> {
    let mut next = early;
    let stopped = send.stopped();
    tokio::pin!(stopped);
    let mut buffer = BytesMut::new();
    loop {
        if !next.is_empty() {
            count.fetch_add(next.len() as u64, Ordering::Relaxed);
            send.send_data(next).await.map_err(Broken::Mesh)?;
        }
        buffer.reserve(READ);
        let read = tokio::select! {
            biased;
            read = reader.read_buf(&mut buffer) => read.map_err(Broken::Local)?,
            // Who reads no more has left, even if nothing is being sent to it.
            stopped = &mut stopped => {
                let error = match stopped {
                    Ok(code) => StreamError::stopped(code.unwrap_or(Code::CONNECT_ERROR)),
                    Err(error) => error,
                };
                return Err(Broken::Mesh(error));
            }
        };
        if read == 0 {
            return send.finish().await.map_err(Broken::Mesh);
        }
        next = buffer.split().freeze();
    }
}

async fn to_local(
    recv: &mut RecvStream,
    writer: &mut (impl AsyncWrite + Unpin),
    count: &AtomicU64,
) -> Result<(), Broken> {
    let mut pieces = [const { Bytes::new() }; PIECES];
    loop {
        let filled = recv
            .data_vectored(&mut pieces)
            .await
            .map_err(Broken::Mesh)?;
        if filled == 0 {
            return writer.shutdown().await.map_err(Broken::Local);
        }
        let pieces = &mut pieces[..filled];
        let bytes: usize = pieces.iter().map(Bytes::len).sum();
        write_all(writer, pieces).await.map_err(Broken::Local)?;
        count.fetch_add(bytes as u64, Ordering::Relaxed);
    }
}

/// Writes all pieces, as many as possible in one system call.
async fn write_all(
    writer: &mut (impl AsyncWrite + Unpin),
    mut pieces: &mut [Bytes],
) -> io::Result<()> {
    while !pieces.is_empty() {
        let mut slices = [IoSlice::new(&[]); PIECES];
        for (slice, piece) in slices.iter_mut().zip(pieces.iter()) {
            *slice = IoSlice::new(piece);
        }
        let mut written = writer.write_vectored(&slices[..pieces.len()]).await?;
        if written == 0 {
            return Err(io::ErrorKind::WriteZero.into());
        }
        let mut done = 0;
        for piece in pieces.iter_mut() {
            let step = written.min(piece.len());
            piece.advance(step);
            written -= step;
            if !piece.is_empty() {
                break;
            }
            done += 1;
        }
        pieces = &mut pieces[done..];
    }
    Ok(())
}

/// A socket that is reset when it goes, unless both directions came to their end.
pub(crate) struct ResetUnlessClean(pub(crate) Option<Stream>);

impl ResetUnlessClean {
    /// Closes it as TCP does at a proper end.
    pub(crate) fn close(mut self) {
        drop(self.0.take());
    }

    fn inner(self: Pin<&mut Self>) -> Pin<&mut Stream> {
        let stream = self.get_mut().0.as_mut();
        Pin::new(stream.expect("taken only when it is dropped or closed"))
    }
}

impl Drop for ResetUnlessClean {
    fn drop(&mut self) {
        if let Some(stream) = self.0.take() {
            stream.reset();
        }
    }
}

impl AsyncRead for ResetUnlessClean {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        self.inner().poll_read(cx, buf)
    }
}

impl AsyncWrite for ResetUnlessClean {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        self.inner().poll_write(cx, buf)
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        self.inner().poll_write_vectored(cx, bufs)
    }

    fn is_write_vectored(&self) -> bool {
        self.0.as_ref().is_some_and(AsyncWrite::is_write_vectored)
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.inner().poll_flush(cx)
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.inner().poll_shutdown(cx)
    }
}
