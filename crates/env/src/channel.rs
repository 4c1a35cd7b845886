//! Messages between two processes of this machine, each whole and with a file descriptor if need be: how one
//! process gives its sockets to another.
//!
//! The sockets are `SOCK_SEQPACKET`: messages keep their bounds and their order, and the end of the other process
//! is seen at once.

use std::fs;
use std::io::{self, IoSlice, IoSliceMut};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll, ready};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::net::{
    AddressFamily, RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, ReturnFlags,
    SendAncillaryBuffer, SendAncillaryMessage, SendFlags, Shutdown, SocketAddrUnix, SocketFlags,
    SocketType, accept_with, bind, connect, listen, recvmsg, sendmsg, shutdown, socket_with,
    socketpair, sockopt,
};
use tokio::io::unix::AsyncFd;

use crate::PeerCred;
use crate::unix::{ensure_unused, named, temporary_name};

/// The largest message that [`Channel::recv`] takes, in bytes.
pub const MAX_MESSAGE: usize = 64 * 1024;
/// Connections that wait to be accepted.
const BACKLOG: i32 = 8;
/// Room for packets that the other process has not read yet. The kernel may give less.
const BUFFER_BYTES: usize = 4 << 20;

const FLAGS: SocketFlags = SocketFlags::NONBLOCK.union(SocketFlags::CLOEXEC);

/// One end of a channel. When it is dropped the other end sees it.
#[derive(Debug)]
pub struct Channel(AsyncFd<OwnedFd>);

/// A message, with the descriptor that came along.
#[derive(Debug)]
pub struct Message {
    /// Its bytes; never none.
    pub bytes: Vec<u8>,
    /// A file that the sender has shared.
    pub fd: Option<OwnedFd>,
}

impl Channel {
    /// Two ends: one to use here, one to give to another process.
    ///
    /// # Errors
    /// Such as too many open files.
    pub(crate) fn pair() -> io::Result<(Self, OwnedFd)> {
        let (here, there) = socketpair(AddressFamily::UNIX, SocketType::SEQPACKET, FLAGS, None)?;
        for end in [&here, &there] {
            // Less room is slower and not wrong.
            let _ = sockopt::set_socket_send_buffer_size(end, BUFFER_BYTES);
        }
        Ok((Self::adopt(here)?, there))
    }

    /// An end that another process has given.
    pub(crate) fn adopt(fd: OwnedFd) -> io::Result<Self> {
        watched(fd).map(Self)
    }

    pub(crate) fn connect(path: &Path) -> io::Result<Self> {
        let connected = (|| {
            let address = SocketAddrUnix::new(path)?;
            let socket = socket_with(AddressFamily::UNIX, SocketType::SEQPACKET, FLAGS, None)?;
            connect(&socket, &address)?;
            Self::adopt(socket)
        })();
        connected.map_err(|cause| named("connect to", path, &cause))
    }

    /// The process that connected, from the kernel.
    ///
    /// # Errors
    /// When the kernel does not tell.
    pub fn peer_cred(&self) -> io::Result<PeerCred> {
        let cred = sockopt::socket_peercred(self.0.get_ref())?;
        Ok(PeerCred {
            uid: cred.uid.as_raw(),
            gid: cred.gid.as_raw(),
            pid: Some(cred.pid.as_raw_nonzero().get()),
        })
    }

    /// The same end once more, to be given to another process.
    ///
    /// # Errors
    /// Such as too many open files.
    pub fn share(&self) -> io::Result<OwnedFd> {
        self.0.get_ref().try_clone()
    }

    /// Sends a message, waiting for room. A file goes along.
    ///
    /// # Errors
    /// [`io::ErrorKind::BrokenPipe`] when the other end is gone or reads no more.
    pub async fn send(&self, bytes: &[u8], fd: Option<BorrowedFd<'_>>) -> io::Result<()> {
        loop {
            let mut guard = self.0.writable().await?;
            if let Ok(sent) =
                guard.try_io(|socket| send(socket.as_fd(), &[IoSlice::new(bytes)], fd))
            {
                return sent;
            }
        }
    }

    /// Sends a message made of parts, if there is room for it now.
    ///
    /// # Errors
    /// [`io::ErrorKind::WouldBlock`] without room; [`io::ErrorKind::BrokenPipe`] when the other end is gone.
    pub fn try_send(&self, parts: &[IoSlice<'_>]) -> io::Result<()> {
        send(self.0.get_ref().as_fd(), parts, None)
    }

    /// The next message; `None` when the other end is gone. Cancel safe.
    ///
    /// # Errors
    /// [`io::ErrorKind::InvalidData`] for one above [`MAX_MESSAGE`]; what else the kernel says.
    pub async fn recv(&self) -> io::Result<Option<Message>> {
        loop {
            let mut guard = self.0.readable().await?;
            if let Ok(received) = guard.try_io(|socket| receive(socket.as_fd())) {
                return received;
            }
        }
    }

    /// A message that is here already, also after [`stop_receiving`](Self::stop_receiving).
    ///
    /// # Errors
    /// As [`recv`](Self::recv); [`io::ErrorKind::WouldBlock`] when there is none.
    pub fn try_recv(&self) -> io::Result<Option<Message>> {
        receive(self.0.get_ref().as_fd())
    }

    /// From now on the other end cannot send: what it has sent before is all there is. So both can agree on what
    /// was said.
    pub fn stop_receiving(&self) {
        // It fails only where nothing is connected, and then nothing comes either.
        let _ = shutdown(self.0.get_ref(), Shutdown::Read);
    }

    /// Reads a message into two buffers, and gives its length; `None` when the other end is gone. One that does not
    /// fit is skipped.
    ///
    /// # Errors
    /// What the kernel says.
    pub fn poll_recv(
        &self,
        cx: &mut Context<'_>,
        head: &mut [u8],
        body: &mut [u8],
    ) -> Poll<io::Result<Option<usize>>> {
        loop {
            let mut guard = ready!(self.0.poll_read_ready(cx))?;
            let read = guard.try_io(|socket| {
                let mut parts = [IoSliceMut::new(head), IoSliceMut::new(body)];
                let mut none = RecvAncillaryBuffer::default();
                Ok(recvmsg(socket, &mut parts, &mut none, RecvFlags::empty())?)
            });
            match read {
                Ok(Ok(read)) if read.flags.contains(ReturnFlags::TRUNC) => {}
                Ok(Ok(read)) => {
                    return Poll::Ready(Ok(Some(read.bytes).filter(|bytes| *bytes > 0)));
                }
                Ok(Err(error)) if error.kind() == io::ErrorKind::ConnectionReset => {
                    return Poll::Ready(Ok(None));
                }
                Ok(Err(error)) => return Poll::Ready(Err(error)),
                Err(_would_block) => {}
            }
        }
    }

    /// Whether the other end is gone.
    #[must_use]
    pub fn is_closed(&self) -> bool {
        let mut fds = [PollFd::new(self.0.get_ref(), PollFlags::empty())];
        // A hang-up is told whether it was asked for or not.
        matches!(poll(&mut fds, Some(&Timespec::default())), Ok(1..))
    }
}

/// tokio's safe way to watch a descriptor asks for one that stays the same while it is watched.
#[allow(
    deprecated,
    reason = "an `OwnedFd` that is neither replaced nor closed while it is watched is what the unsafe `register` asks for"
)]
fn watched(fd: OwnedFd) -> io::Result<AsyncFd<OwnedFd>> {
    AsyncFd::new(fd)
}

fn send(
    socket: BorrowedFd<'_>,
    parts: &[IoSlice<'_>],
    fd: Option<BorrowedFd<'_>>,
) -> io::Result<()> {
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
    let mut along = SendAncillaryBuffer::new(&mut space);
    let fds: Vec<BorrowedFd<'_>> = fd.into_iter().collect();
    if !fds.is_empty() {
        along.push(SendAncillaryMessage::ScmRights(&fds));
    }
    sendmsg(socket, parts, &mut along, SendFlags::NOSIGNAL)?;
    Ok(())
}

fn receive(socket: BorrowedFd<'_>) -> io::Result<Option<Message>> {
    let mut bytes = vec![0; MAX_MESSAGE];
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
    let mut along = RecvAncillaryBuffer::new(&mut space);
    let read = recvmsg(
        socket,
        &mut [IoSliceMut::new(&mut bytes)],
        &mut along,
        RecvFlags::CMSG_CLOEXEC,
    );
    let read = match read {
        Ok(read) => read,
        // The other end went with messages of ours unread.
        Err(rustix::io::Errno::CONNRESET) => return Ok(None),
        Err(errno) => return Err(errno.into()),
    };
    let fd = along.drain().find_map(|message| match message {
        RecvAncillaryMessage::ScmRights(mut fds) => fds.next(),
        _ => None,
    });
    if read
        .flags
        .intersects(ReturnFlags::TRUNC | ReturnFlags::CTRUNC)
    {
        return Err(io::Error::new(
            io::ErrorKind::InvalidData,
            "a message is larger than any that weft sends",
        ));
    }
    bytes.truncate(read.bytes);
    Ok((read.bytes > 0).then_some(Message { bytes, fd }))
}

/// A socket on which channels begin, for the own user only (mode 0600).
#[derive(Debug)]
pub struct ChannelListener {
    socket: AsyncFd<OwnedFd>,
    path: PathBuf,
    /// Whether the name goes with this.
    owned: AtomicBool,
}

impl ChannelListener {
    /// Whoever calls this holds the lock of the directory: a socket that is there is a dead process's.
    pub(crate) fn bind(path: PathBuf) -> io::Result<Self> {
        ensure_unused(&path)?;
        let temporary = temporary_name(&path);
        let bound = (|| {
            let address = SocketAddrUnix::new(&temporary)?;
            // Checked before anything is made: the final name may be the longer one.
            SocketAddrUnix::new(&path)?;
            let socket = socket_with(AddressFamily::UNIX, SocketType::SEQPACKET, FLAGS, None)?;
            bind(&socket, &address)?;
            fs::set_permissions(&temporary, fs::Permissions::from_mode(0o600))?;
            listen(&socket, BACKLOG)?;
            fs::rename(&temporary, &path)?;
            watched(socket)
        })();
        match bound {
            Ok(socket) => Ok(Self {
                socket,
                path,
                owned: AtomicBool::new(true),
            }),
            Err(cause) => {
                let _ = fs::remove_file(&temporary);
                Err(named("listen on", &path, &cause))
            }
        }
    }

    pub(crate) fn adopt(fd: OwnedFd, path: PathBuf) -> io::Result<Self> {
        Ok(Self {
            socket: watched(fd)?,
            path,
            owned: AtomicBool::new(false),
        })
    }

    /// Waits for the next channel. Cancel safe.
    ///
    /// # Errors
    /// Such as too many open files.
    pub async fn accept(&self) -> io::Result<Channel> {
        loop {
            let mut guard = self.socket.readable().await?;
            let accepted = guard.try_io(|socket| Ok(accept_with(socket, FLAGS)?));
            if let Ok(accepted) = accepted {
                return accepted.and_then(Channel::adopt);
            }
        }
    }

    /// The socket once more, for another process.
    ///
    /// # Errors
    /// Such as too many open files.
    pub fn share(&self) -> io::Result<OwnedFd> {
        self.socket.get_ref().try_clone()
    }

    /// Says whether its name in the file system goes when this is dropped: it belongs to one process at a time.
    pub fn own(&self, owned: bool) {
        self.owned.store(owned, Ordering::Relaxed);
    }
}

impl Drop for ChannelListener {
    fn drop(&mut self) {
        if *self.owned.get_mut() {
            let _ = fs::remove_file(&self.path);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::io::{Read, Seek, Write};

    use super::*;
    use crate::Env;

    #[tokio::test]
    async fn a_message_arrives_whole_with_its_file_and_the_end_is_seen() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("c.sock");
        let env = Env::system();
        let listener = env.listen_channel(&path).unwrap();
        assert_eq!(
            fs::metadata(&path).unwrap().permissions().mode() & 0o777,
            0o600
        );
        let here = env.connect_channel(&path).unwrap();
        let there = listener.accept().await.unwrap();
        let me = rustix::process::geteuid().as_raw();
        assert_eq!(there.peer_cred().unwrap().uid, me);

        let mut file = tempfile::tempfile().unwrap();
        file.write_all(b"shared").unwrap();
        here.send(b"one", Some(file.as_fd())).await.unwrap();
        here.send(b"two", None).await.unwrap();
        let first = there.recv().await.unwrap().unwrap();
        assert_eq!(first.bytes, b"one");
        let mut received = fs::File::from(first.fd.unwrap());
        let mut text = String::new();
        received.rewind().unwrap();
        received.read_to_string(&mut text).unwrap();
        assert_eq!(text, "shared");
        let second = there.recv().await.unwrap().unwrap();
        assert_eq!(
            (second.bytes.as_slice(), second.fd.is_none()),
            (&b"two"[..], true)
        );

        assert!(!there.is_closed());
        drop(here);
        assert!(there.recv().await.unwrap().is_none());
        assert!(there.is_closed());
        let error = there.send(b"x", None).await.unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::BrokenPipe);
        drop(listener);
        assert!(!path.exists(), "the name goes with its owner");
    }

    #[tokio::test]
    async fn after_the_reader_has_stopped_both_sides_know_what_was_said() {
        let (here, there) = Channel::pair().unwrap();
        let there = Channel::adopt(there).unwrap();
        there.send(b"in time", None).await.unwrap();
        here.stop_receiving();
        let late = there.send(b"too late", None).await.unwrap_err();
        assert_eq!(late.kind(), io::ErrorKind::BrokenPipe);
        assert_eq!(here.try_recv().unwrap().unwrap().bytes, b"in time");
        assert!(here.try_recv().unwrap().is_none());
    }

    #[tokio::test]
    async fn a_packet_is_read_into_two_buffers_and_one_that_does_not_fit_is_skipped() {
        let (here, there) = Channel::pair().unwrap();
        let there = Channel::adopt(there).unwrap();
        there.try_send(&[IoSlice::new(&[7; 40])]).unwrap();
        there
            .try_send(&[IoSlice::new(b"head"), IoSlice::new(b"body")])
            .unwrap();
        let (mut head, mut body) = ([0; 4], [0; 16]);
        let read = std::future::poll_fn(|cx| here.poll_recv(cx, &mut head, &mut body));
        assert_eq!(read.await.unwrap(), Some(8));
        assert_eq!((&head, &body[..4]), (b"head", &b"body"[..]));
        drop(there);
        let read = std::future::poll_fn(|cx| here.poll_recv(cx, &mut head, &mut body));
        assert_eq!(read.await.unwrap(), None);
    }
}
