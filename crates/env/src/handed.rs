//! Sockets that one process gives to another: on the operating system only, a simulation has none to give.

use std::io;
use std::net::UdpSocket;
use std::os::fd::{AsFd, OwnedFd};
use std::path::PathBuf;
use std::sync::Arc;

use quinn::{AsyncUdpSocket, Runtime as _};
use rustix::net::{AddressFamily, SocketType, sockopt};
use tokio::net::TcpListener;

use crate::stream::ListenerKind;
use crate::unix::OwnedUnixListener;
use crate::{Listener, udp};

/// A UDP socket that another process may hold too. Whatever arrives is read by whichever reads first.
#[derive(Debug)]
pub struct SharedUdp {
    handle: UdpSocket,
    socket: Arc<dyn AsyncUdpSocket>,
}

impl SharedUdp {
    pub(crate) fn new(handle: UdpSocket) -> io::Result<Self> {
        handle.set_nonblocking(true)?;
        let socket = quinn::TokioRuntime.wrap_udp_socket(handle.try_clone()?)?;
        let socket = Arc::new(udp::SplitBatches(socket));
        Ok(Self { handle, socket })
    }

    pub(crate) fn adopt(fd: OwnedFd) -> io::Result<Self> {
        if sockopt::socket_type(&fd)? != SocketType::DGRAM {
            return Err(wrong("a UDP socket"));
        }
        Self::new(fd.into())
    }

    /// The socket, for a QUIC endpoint of this process.
    #[must_use]
    pub fn socket(&self) -> Arc<dyn AsyncUdpSocket> {
        self.socket.clone()
    }

    /// The socket once more, for another process.
    ///
    /// # Errors
    /// Such as too many open files.
    pub fn share(&self) -> io::Result<OwnedFd> {
        self.handle.as_fd().try_clone_to_owned()
    }
}

/// A listener that another process has shared; `path` if it is a Unix socket.
pub(crate) fn adopt_listener(fd: OwnedFd, path: Option<PathBuf>) -> io::Result<Listener> {
    if !sockopt::socket_acceptconn(&fd)? {
        return Err(wrong("a listening socket"));
    }
    let unix = sockopt::socket_domain(&fd)? == AddressFamily::UNIX;
    let kind = match path {
        Some(path) if unix => ListenerKind::Unix(OwnedUnixListener::adopt(fd, path)?),
        None if !unix => {
            let listener = std::net::TcpListener::from(fd);
            listener.set_nonblocking(true)?;
            ListenerKind::Tcp(TcpListener::from_std(listener)?)
        }
        _ => return Err(wrong("a socket of the kind that was announced")),
    };
    Ok(Listener(kind))
}

fn wrong(what: &str) -> io::Error {
    io::Error::new(
        io::ErrorKind::InvalidData,
        format!("what the other process gave is not {what}"),
    )
}

pub(crate) fn unsupported() -> io::Error {
    io::Error::new(
        io::ErrorKind::Unsupported,
        "sockets can be given to another process on a real machine only",
    )
}
