//! Byte streams: TCP, Unix sockets, and what a simulator puts in their place.

use std::fmt;
use std::io::{self, IoSlice};
use std::net::SocketAddr;
use std::os::fd::{AsFd, OwnedFd};
use std::pin::Pin;
use std::task::{Context, Poll};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpListener, TcpStream, UnixStream};

use crate::platform::BoxFuture;
use crate::unix::OwnedUnixListener;

/// A connected byte stream. An enum and not a trait object, so that TCP keeps its file descriptor.
#[non_exhaustive]
pub enum Stream {
    /// TCP, with `TCP_NODELAY` set.
    Tcp(TcpStream),
    /// A Unix socket.
    Unix(UnixStream),
    /// A simulated stream.
    Sim(Box<dyn SimStream>),
}

/// A byte stream of another platform.
pub trait SimStream: AsyncRead + AsyncWrite + Unpin + Send + fmt::Debug {
    /// Closes the stream as TCP does with RST.
    fn reset(self: Box<Self>);

    /// The address of the peer; `None` for a stand-in of a Unix socket.
    fn peer_addr(&self) -> Option<SocketAddr>;

    /// The address of this end; `None` for a stand-in of a Unix socket.
    fn local_addr(&self) -> Option<SocketAddr>;
}

/// Who is at the other end of a Unix socket, from the kernel.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PeerCred {
    /// User id of the process that connected.
    pub uid: u32,
    /// Its group id: the primary one only.
    pub gid: u32,
    /// Its process id, where the kernel tells.
    pub pid: Option<i32>,
}

/// Where an accepted stream comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PeerAddr {
    /// A TCP address.
    Tcp(SocketAddr),
    /// A process on this machine, through a Unix socket.
    Unix,
}

impl PeerAddr {
    /// The TCP address, if it is one.
    #[must_use]
    pub fn tcp(self) -> Option<SocketAddr> {
        match self {
            Self::Tcp(addr) => Some(addr),
            Self::Unix => None,
        }
    }
}

impl fmt::Display for PeerAddr {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tcp(addr) => addr.fmt(f),
            Self::Unix => f.write_str("local socket"),
        }
    }
}

impl Stream {
    /// Closes with RST where the stream is TCP (`SO_LINGER` 0), so that the peer sees an error and not a
    /// clean end. A Unix socket is closed.
    pub fn reset(self) {
        match self {
            Self::Tcp(stream) => {
                // It fails only on a socket that is gone already.
                let _ = stream.set_zero_linger();
            }
            Self::Unix(_) => {}
            Self::Sim(stream) => stream.reset(),
        }
    }

    /// The TCP address of the peer; `None` for a Unix socket or a socket that is gone.
    #[must_use]
    pub fn peer_addr(&self) -> Option<SocketAddr> {
        match self {
            Self::Tcp(stream) => stream.peer_addr().ok(),
            Self::Unix(_) => None,
            Self::Sim(stream) => stream.peer_addr(),
        }
    }

    /// The TCP address of this end; `None` for a Unix socket or a socket that is gone.
    #[must_use]
    pub fn local_addr(&self) -> Option<SocketAddr> {
        match self {
            Self::Tcp(stream) => stream.local_addr().ok(),
            Self::Unix(_) => None,
            Self::Sim(stream) => stream.local_addr(),
        }
    }

    /// The process at the other end of a Unix socket; `None` for anything else.
    #[must_use]
    pub fn peer_cred(&self) -> Option<PeerCred> {
        match self {
            Self::Unix(stream) => {
                let cred = stream.peer_cred().ok()?;
                Some(PeerCred {
                    uid: cred.uid(),
                    gid: cred.gid(),
                    pid: cred.pid(),
                })
            }
            Self::Tcp(_) | Self::Sim(_) => None,
        }
    }
}

/// The same call on whichever stream it is.
macro_rules! on_each {
    ($this:expr, $stream:ident => $call:expr) => {
        match $this.get_mut() {
            Stream::Tcp($stream) => $call,
            Stream::Unix($stream) => $call,
            Stream::Sim($stream) => $call,
        }
    };
}

impl AsyncRead for Stream {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        on_each!(self, stream => Pin::new(stream).poll_read(cx, buf))
    }
}

impl AsyncWrite for Stream {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        on_each!(self, stream => Pin::new(stream).poll_write(cx, buf))
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        on_each!(self, stream => Pin::new(stream).poll_write_vectored(cx, bufs))
    }

    fn is_write_vectored(&self) -> bool {
        match self {
            Self::Tcp(_) | Self::Unix(_) => true,
            Self::Sim(stream) => stream.is_write_vectored(),
        }
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        on_each!(self, stream => Pin::new(stream).poll_flush(cx))
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        on_each!(self, stream => Pin::new(stream).poll_shutdown(cx))
    }
}

impl fmt::Debug for Stream {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tcp(stream) => stream.fmt(f),
            Self::Unix(stream) => stream.fmt(f),
            Self::Sim(stream) => stream.fmt(f),
        }
    }
}

/// A socket that accepts streams.
#[derive(Debug)]
pub struct Listener(pub(crate) ListenerKind);

#[derive(Debug)]
pub(crate) enum ListenerKind {
    Tcp(TcpListener),
    Unix(OwnedUnixListener),
    Sim(Box<dyn SimListener>),
}

/// A listener of another platform.
pub trait SimListener: Send + Sync + fmt::Debug {
    /// Waits for the next stream. Cancel safe.
    fn accept(&self) -> BoxFuture<'_, io::Result<(Stream, PeerAddr)>>;

    /// The address that it listens on.
    fn local_addr(&self) -> io::Result<SocketAddr>;
}

impl Listener {
    /// A listener of another platform.
    #[must_use]
    pub fn sim(listener: Box<dyn SimListener>) -> Self {
        Self(ListenerKind::Sim(listener))
    }

    /// The socket once more, for another process that is to listen too.
    ///
    /// # Errors
    /// [`io::ErrorKind::Unsupported`] in a simulation; such as too many open files.
    pub fn share(&self) -> io::Result<OwnedFd> {
        match &self.0 {
            ListenerKind::Tcp(listener) => listener.as_fd().try_clone_to_owned(),
            ListenerKind::Unix(listener) => listener.share(),
            ListenerKind::Sim(_) => Err(crate::handed::unsupported()),
        }
    }

    /// Says whether the file of a Unix socket goes when this is dropped: it belongs to one process at a time.
    pub fn own(&self, owned: bool) {
        if let ListenerKind::Unix(listener) = &self.0 {
            listener.own(owned);
        }
    }

    /// Waits for the next stream. Cancel safe.
    ///
    /// # Errors
    /// Such as too many open files: the listener itself goes on, but a caller that tries again at once
    /// spins, so it should wait a moment.
    pub async fn accept(&self) -> io::Result<(Stream, PeerAddr)> {
        match &self.0 {
            ListenerKind::Tcp(listener) => {
                let (stream, peer) = listener.accept().await?;
                stream.set_nodelay(true)?;
                Ok((Stream::Tcp(stream), PeerAddr::Tcp(peer)))
            }
            ListenerKind::Unix(listener) => {
                Ok((Stream::Unix(listener.accept().await?), PeerAddr::Unix))
            }
            ListenerKind::Sim(listener) => listener.accept().await,
        }
    }

    /// The TCP address that it listens on.
    ///
    /// # Errors
    /// [`io::ErrorKind::Unsupported`] for a Unix socket.
    pub fn local_addr(&self) -> io::Result<SocketAddr> {
        match &self.0 {
            ListenerKind::Tcp(listener) => listener.local_addr(),
            ListenerKind::Unix(_) => Err(io::Error::new(
                io::ErrorKind::Unsupported,
                "a Unix socket has a path and no address",
            )),
            ListenerKind::Sim(listener) => listener.local_addr(),
        }
    }
}
