//! What the endpoint of one process reads from: the socket itself, or what the process that reads it passes on.

use std::fmt;
use std::io::{self, IoSlice, IoSliceMut};
use std::net::SocketAddr;
use std::os::fd::OwnedFd;
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, AtomicU8, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker};

use arc_swap::ArcSwap;
use quinn::udp::{RecvMeta, Transmit};
use quinn::{AsyncUdpSocket, UdpPoller};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;
use weft_env::{Channel, Env, SharedUdp};

use super::frame::{self, HEAD};
use super::{Earlier, Tag};

/// Who reads the socket.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub(super) enum Role {
    /// This process, also for earlier ones.
    Reads,
    /// Nobody: it is being given away.
    Paused,
    /// Another process, which passes on what is for this one.
    Follows,
    /// This process, and perhaps others that were left alone too: each takes its own packets only.
    Orphaned,
}

impl Role {
    fn from_number(number: u8) -> Self {
        match number {
            0 => Self::Reads,
            1 => Self::Paused,
            2 => Self::Follows,
            _ => Self::Orphaned,
        }
    }
}

/// An earlier process that still has connections.
#[derive(Debug)]
pub(super) struct Past {
    tag: Tag,
    pid: u32,
    version: String,
    channel: Channel,
}

impl Past {
    pub(super) fn adopt(env: &Env, earlier: Earlier) -> io::Result<Arc<Self>> {
        Ok(Arc::new(Self {
            tag: earlier.tag,
            pid: earlier.pid,
            version: earlier.version,
            channel: env.adopt_channel(earlier.channel)?,
        }))
    }
}

/// The socket of [`Relay`](super::Relay).
pub(super) struct RelaySocket {
    udp: SharedUdp,
    socket: Arc<dyn AsyncUdpSocket>,
    tag: Tag,
    role: AtomicU8,
    /// The role, for whoever accepts connections of TCP.
    turn: watch::Sender<Role>,
    /// Of the endpoint, to be woken when the role changes.
    waker: Mutex<Option<Waker>>,
    past: ArcSwap<Vec<Arc<Past>>>,
    /// Spares a look at each packet once no earlier process is left.
    any_past: AtomicBool,
    /// Where packets come from once another process reads.
    inbox: Mutex<Option<Arc<Channel>>>,
    orphaned: CancellationToken,
    /// Datagrams that were not passed on, because the other process reads too slowly.
    lost: AtomicU64,
}

impl RelaySocket {
    pub(super) fn reading(udp: SharedUdp, tag: Tag) -> Self {
        Self::new(udp, tag, Role::Reads, Vec::new())
    }

    pub(super) fn waiting(udp: SharedUdp, tag: Tag, past: Vec<Arc<Past>>) -> Self {
        Self::new(udp, tag, Role::Paused, past)
    }

    fn new(udp: SharedUdp, tag: Tag, role: Role, past: Vec<Arc<Past>>) -> Self {
        Self {
            socket: udp.socket(),
            udp,
            tag,
            role: AtomicU8::new(role as u8),
            turn: watch::Sender::new(role),
            waker: Mutex::new(None),
            any_past: AtomicBool::new(!past.is_empty()),
            past: ArcSwap::from_pointee(past),
            inbox: Mutex::new(None),
            orphaned: CancellationToken::new(),
            lost: AtomicU64::new(0),
        }
    }

    pub(super) fn tag(&self) -> Tag {
        self.tag
    }

    pub(super) fn share(&self) -> io::Result<OwnedFd> {
        self.udp.share()
    }

    pub(super) fn orphaned(&self) -> CancellationToken {
        self.orphaned.clone()
    }

    /// Those that are not gone, for the process that comes next.
    pub(super) fn share_past(&self) -> io::Result<Vec<Earlier>> {
        self.forget_gone();
        let share = |past: &Arc<Past>| {
            Ok(Earlier {
                tag: past.tag,
                pid: past.pid,
                version: past.version.clone(),
                channel: past.channel.share()?,
            })
        };
        self.past.load().iter().map(share).collect()
    }

    pub(super) fn past(&self) -> Vec<(u32, String)> {
        self.forget_gone();
        let past = self.past.load();
        past.iter().map(|p| (p.pid, p.version.clone())).collect()
    }

    /// Packets for a process that is gone are answered by this one: the peer learns at once that its connection is.
    fn forget_gone(&self) {
        if self.any_past.load(Ordering::Acquire) {
            self.set_past(|past| !past.channel.is_closed());
        }
    }

    fn set_past(&self, keep: impl Fn(&Past) -> bool) {
        self.past.rcu(|past| {
            let kept = past.iter().filter(|past| keep(past));
            kept.cloned().collect::<Vec<_>>()
        });
        self.any_past
            .store(!self.past.load().is_empty(), Ordering::Release);
    }

    /// Sets where packets will come from.
    pub(super) fn expect(&self, inbox: Channel) {
        *lock(&self.inbox) = Some(Arc::new(inbox));
    }

    pub(super) fn follow(&self) {
        self.set_past(|_| false);
        self.set_role(Role::Follows);
    }

    pub(super) fn set_role(&self, role: Role) {
        self.role.store(role as u8, Ordering::SeqCst);
        self.turn.send_replace(role);
        if let Some(waker) = lock(&self.waker).take() {
            waker.wake();
        }
    }

    pub(super) fn turn(&self) -> watch::Receiver<Role> {
        self.turn.subscribe()
    }

    fn role(&self) -> Role {
        Role::from_number(self.role.load(Ordering::SeqCst))
    }

    /// Passes on what is for earlier processes, and leaves the rest in place.
    fn pass_on(&self, bufs: &mut [IoSliceMut<'_>], metas: &mut [RecvMeta]) {
        if !self.any_past.load(Ordering::Acquire) {
            return;
        }
        let past = self.past.load();
        let mut gone = false;
        for (buf, meta) in bufs.iter_mut().zip(metas) {
            let whose = |datagram: &[u8]| {
                let tag = Tag::of(datagram)?;
                past.iter().position(|past| past.tag == tag)
            };
            let (stride, whole) = (meta.stride, *meta);
            meta.len = split(&mut buf[..whole.len], stride, whose, |index, batch| {
                let head = frame::encode(&whole, stride);
                let parts = [IoSlice::new(&head), IoSlice::new(batch)];
                if let Err(error) = past[index].channel.try_send(&parts) {
                    gone |= error.kind() != io::ErrorKind::WouldBlock;
                    // As good as lost on the way: QUIC sends it again.
                    self.lost.fetch_add(1, Ordering::Relaxed);
                }
            });
        }
        if gone {
            self.forget_gone();
        }
    }

    /// Drops what is not this process's own.
    fn keep_own(&self, bufs: &mut [IoSliceMut<'_>], metas: &mut [RecvMeta]) {
        for (buf, meta) in bufs.iter_mut().zip(metas) {
            let whose = |datagram: &[u8]| (Tag::of(datagram) != Some(self.tag)).then_some(0);
            meta.len = split(&mut buf[..meta.len], meta.stride, whose, |_, _| {});
        }
    }

    /// Takes what the process that reads has passed on.
    fn poll_inbox(
        &self,
        cx: &mut Context<'_>,
        bufs: &mut [IoSliceMut<'_>],
        metas: &mut [RecvMeta],
    ) -> Poll<io::Result<usize>> {
        let inbox = lock(&self.inbox).clone();
        let Some(inbox) = inbox else {
            return Poll::Pending;
        };
        let mut filled = 0;
        while filled < bufs.len().min(metas.len()) {
            let mut head = [0; HEAD];
            match inbox.poll_recv(cx, &mut head, &mut bufs[filled]) {
                Poll::Ready(Ok(Some(read))) => {
                    if let Some(meta) = frame::decode(&head, read.saturating_sub(HEAD)) {
                        metas[filled] = meta;
                        filled += 1;
                    }
                }
                Poll::Ready(Ok(None) | Err(_)) => {
                    self.role.store(Role::Orphaned as u8, Ordering::SeqCst);
                    self.orphaned.cancel();
                    break;
                }
                Poll::Pending if filled == 0 => return Poll::Pending,
                Poll::Pending => break,
            }
        }
        Poll::Ready(Ok(filled))
    }
}

/// Goes through the datagrams of a batch. Those that `whose` gives a number are taken out, neighbours of one number
/// together; the others move up. Gives the length of what stays.
fn split(
    batch: &mut [u8],
    stride: usize,
    whose: impl Fn(&[u8]) -> Option<usize>,
    mut take: impl FnMut(usize, &[u8]),
) -> usize {
    let stride = stride.max(1);
    let (mut kept, mut at) = (0, 0);
    while at < batch.len() {
        let mut end = (at + stride).min(batch.len());
        match whose(&batch[at..end]) {
            None => {
                batch.copy_within(at..end, kept);
                kept += end - at;
            }
            Some(number) => {
                while end < batch.len() {
                    let next = (end + stride).min(batch.len());
                    if whose(&batch[end..next]) != Some(number) {
                        break;
                    }
                    end = next;
                }
                take(number, &batch[at..end]);
            }
        }
        at = end;
    }
    kept
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // One value, replaced whole.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl AsyncUdpSocket for RelaySocket {
    fn create_io_poller(self: Arc<Self>) -> Pin<Box<dyn UdpPoller>> {
        self.socket.clone().create_io_poller()
    }

    fn try_send(&self, transmit: &Transmit<'_>) -> io::Result<()> {
        self.socket.try_send(transmit)
    }

    fn poll_recv(
        &self,
        cx: &mut Context<'_>,
        bufs: &mut [IoSliceMut<'_>],
        metas: &mut [RecvMeta],
    ) -> Poll<io::Result<usize>> {
        loop {
            let role = self.role();
            let polled = match role {
                Role::Reads | Role::Orphaned => self.socket.poll_recv(cx, bufs, metas),
                Role::Paused => Poll::Pending,
                Role::Follows => self.poll_inbox(cx, bufs, metas),
            };
            match polled {
                Poll::Pending => {
                    *lock(&self.waker) = Some(cx.waker().clone());
                    // It may have changed before there was a waker to wake.
                    if self.role() == role {
                        return Poll::Pending;
                    }
                }
                Poll::Ready(Ok(filled)) => {
                    let (bufs, metas) = (&mut bufs[..filled], &mut metas[..filled]);
                    match role {
                        Role::Reads => self.pass_on(bufs, metas),
                        Role::Orphaned => self.keep_own(bufs, metas),
                        Role::Paused | Role::Follows => {}
                    }
                    return Poll::Ready(Ok(filled));
                }
                failed @ Poll::Ready(Err(_)) => return failed,
            }
        }
    }

    fn local_addr(&self) -> io::Result<SocketAddr> {
        self.socket.local_addr()
    }

    fn max_transmit_segments(&self) -> usize {
        self.socket.max_transmit_segments()
    }

    fn max_receive_segments(&self) -> usize {
        self.socket.max_receive_segments()
    }

    fn may_fragment(&self) -> bool {
        self.socket.may_fragment()
    }
}

impl fmt::Debug for RelaySocket {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RelaySocket")
            .field("tag", &self.tag)
            .field("role", &self.role())
            .field("lost", &self.lost.load(Ordering::Relaxed))
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_mixed_batch_is_taken_apart_and_what_stays_moves_up() {
        // First byte: whose; 9 is ours. Batches are of three bytes, the last datagram is shorter.
        type Taken<'a> = &'a [(usize, &'a [u8])];
        let cases: [(&[u8], &[u8], Taken<'_>); 5] = [
            (b"9aa9bb9c", b"9aa9bb9c", &[]),
            (b"1aa1bb1c", b"", &[(1, b"1aa1bb1c")]),
            (b"9aa1bb9c", b"9aa9c", &[(1, b"1bb")]),
            (
                b"1aa2bb9cc1d",
                b"9cc",
                &[(1, b"1aa"), (2, b"2bb"), (1, b"1d")],
            ),
            (b"", b"", &[]),
        ];
        for (batch, stays, taken) in cases {
            let mut buffer = batch.to_vec();
            let mut seen = Vec::new();
            let whose = |d: &[u8]| (d[0] != b'9').then(|| usize::from(d[0] - b'0'));
            let kept = split(&mut buffer, 3, whose, |number, bytes| {
                seen.push((number, bytes.to_vec()));
            });
            assert_eq!(&buffer[..kept], stays);
            let taken: Vec<_> = taken.iter().map(|(n, b)| (*n, b.to_vec())).collect();
            assert_eq!(seen, taken);
        }
    }
}
