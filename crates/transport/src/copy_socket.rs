//! The socket beneath QUIC: it sends some datagrams twice or with parity ([`crate::copies`]), and makes those of peers
//! again that were lost ([`crate::parity`]).

use std::collections::{BTreeSet, VecDeque};
use std::fmt;
use std::io::{self, IoSliceMut};
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll};

use quinn::udp::{RecvMeta, Transmit};
use quinn::{AsyncUdpSocket, UdpPoller};
use tokio::time::{Instant, sleep_until};
use tokio_util::sync::CancellationToken;

use crate::copies::Copies;
use crate::parity::{self, Memory};

/// Datagrams made again that QUIC has not taken yet.
const MOST_READY: usize = 64;

/// A socket that protects against loss, beneath QUIC.
pub(crate) struct CopySocket {
    inner: Arc<dyn AsyncUdpSocket>,
    copies: Arc<Copies>,
    salvage: Arc<Salvage>,
}

/// The receiver's side: what is made again of what peers' parity tells.
#[derive(Default)]
pub(crate) struct Salvage {
    /// Spares the lock where no peer sends parity.
    any: AtomicBool,
    state: Mutex<Salvaging>,
}

#[derive(Default)]
struct Salvaging {
    memory: Memory,
    ready: VecDeque<(Vec<u8>, RecvMeta)>,
}

impl Salvage {
    fn lock(&self) -> MutexGuard<'_, Salvaging> {
        // Each change is one call that does not panic half way.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes parity from these peers alone, from now on.
    pub(crate) fn take_from(&self, peers: BTreeSet<SocketAddr>) {
        let any = !peers.is_empty();
        if any || self.any.load(Ordering::Acquire) {
            self.lock().memory.take_from(peers);
            self.any.store(any, Ordering::Release);
        }
    }

    /// Datagrams that were made again.
    pub(crate) fn made(&self) -> u64 {
        self.lock().memory.made()
    }

    /// The next that was made again.
    fn next(&self, buffer: &mut [u8]) -> Option<RecvMeta> {
        let (datagram, meta) = self.lock().ready.pop_front()?;
        let place = buffer.get_mut(..datagram.len())?;
        place.copy_from_slice(&datagram);
        Some(meta)
    }

    /// Looks through what came into a buffer, and takes parity out of it.
    fn look(&self, buffer: &mut [u8], meta: &mut RecvMeta) {
        let mut state = self.lock();
        if !state.memory.takes_from(meta.addr) {
            return;
        }
        let stride = meta.stride.max(1);
        let (mut at, mut kept) = (0, 0);
        while at < meta.len {
            let end = (at + stride).min(meta.len);
            let datagram = &buffer[at..end];
            let made = if parity::is_parity(datagram) {
                state.memory.parity(meta.addr, datagram)
            } else {
                let made = state.memory.heard(meta.addr, datagram);
                // A shorter one ends a batch, so nothing can move behind it.
                buffer.copy_within(at..end, kept);
                kept += end - at;
                made
            };
            if let Some(made) = made.filter(|_| state.ready.len() < MOST_READY) {
                let meta = RecvMeta {
                    len: made.len(),
                    stride: made.len(),
                    ..*meta
                };
                state.ready.push_back((made, meta));
            }
            at = end;
        }
        meta.len = kept;
    }
}

impl CopySocket {
    pub(crate) fn new(
        inner: Arc<dyn AsyncUdpSocket>,
        copies: Arc<Copies>,
        salvage: Arc<Salvage>,
    ) -> Self {
        Self {
            inner,
            copies,
            salvage,
        }
    }
}

/// Sends copies and parity when they are due, until `stop`.
pub(crate) async fn send(
    socket: Arc<dyn AsyncUdpSocket>,
    copies: Arc<Copies>,
    stop: CancellationToken,
) {
    loop {
        let due = match copies.next(Instant::now()) {
            Ok(copy) => {
                let transmit = Transmit {
                    destination: copy.destination,
                    ecn: copy.ecn,
                    contents: &copy.contents,
                    segment_size: copy.segment_size,
                    src_ip: copy.src_ip,
                };
                // One that the kernel has no room for is not worth waiting for.
                if socket.try_send(&transmit).is_ok() {
                    copies.count(&copy);
                }
                continue;
            }
            Err(due) => due,
        };
        let wait = async {
            match due {
                Some(due) => sleep_until(due).await,
                None => copies.more.notified().await,
            }
        };
        tokio::select! {
            biased;
            () = stop.cancelled() => return,
            () = wait => {}
        }
    }
}

impl AsyncUdpSocket for CopySocket {
    fn create_io_poller(self: Arc<Self>) -> Pin<Box<dyn UdpPoller>> {
        self.inner.clone().create_io_poller()
    }

    fn try_send(&self, transmit: &Transmit<'_>) -> io::Result<()> {
        self.inner.try_send(transmit)?;
        if self.copies.is_any() {
            self.copies.sent(transmit);
        }
        Ok(())
    }

    fn poll_recv(
        &self,
        cx: &mut Context<'_>,
        bufs: &mut [IoSliceMut<'_>],
        meta: &mut [RecvMeta],
    ) -> Poll<io::Result<usize>> {
        if !self.salvage.any.load(Ordering::Acquire) {
            return self.inner.poll_recv(cx, bufs, meta);
        }
        if let (Some(buffer), Some(first)) = (bufs.first_mut(), meta.first_mut())
            && let Some(made) = self.salvage.next(buffer)
        {
            *first = made;
            return Poll::Ready(Ok(1));
        }
        let received = self.inner.poll_recv(cx, bufs, meta);
        if let Poll::Ready(Ok(count)) = &received {
            // A buffer of which nothing is left is passed over by whoever reads it.
            for (buffer, meta) in bufs.iter_mut().zip(&mut *meta).take(*count) {
                self.salvage.look(buffer, meta);
            }
        }
        received
    }

    fn local_addr(&self) -> io::Result<SocketAddr> {
        self.inner.local_addr()
    }

    fn max_transmit_segments(&self) -> usize {
        self.inner.max_transmit_segments()
    }

    fn max_receive_segments(&self) -> usize {
        self.inner.max_receive_segments()
    }

    fn may_fragment(&self) -> bool {
        self.inner.may_fragment()
    }
}

impl fmt::Debug for CopySocket {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("CopySocket")
            .field("inner", &self.inner)
            .finish_non_exhaustive()
    }
}

impl fmt::Debug for Salvage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Salvage")
            .field("made", &self.made())
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn meta(len: usize, stride: usize) -> RecvMeta {
        RecvMeta {
            addr: SocketAddr::from(([10, 0, 0, 1], 15_008)),
            len,
            stride,
            ecn: None,
            dst_ip: None,
        }
    }

    /// Datagrams in one buffer, as the kernel puts them together: all but the last of one length.
    fn batch(datagrams: &[&[u8]]) -> (Vec<u8>, RecvMeta) {
        let buffer = datagrams.concat();
        let meta = meta(buffer.len(), datagrams[0].len());
        (buffer, meta)
    }

    #[test]
    fn parity_is_taken_out_of_a_batch_and_what_it_makes_comes_next() {
        let salvage = Salvage::default();
        salvage.take_from([meta(0, 0).addr].into());
        let sent: Vec<Vec<u8>> = (0..4u8)
            .map(|n| (0..100).map(|at| 0x40 | (at ^ n)).collect())
            .collect();
        let mut group = parity::Group::default();
        for datagram in &sent {
            group.add(datagram);
        }
        let pieces = group.pieces(1);
        assert_eq!((pieces.len(), pieces[0].len()), (2, 100));
        for piece in &pieces {
            let (mut buffer, mut meta) = batch(&[piece]);
            salvage.look(&mut buffer, &mut meta);
            assert_eq!(meta.len, 0, "QUIC sees nothing of it");
        }
        let mut room = vec![0; 1_500];
        assert!(salvage.next(&mut room).is_none());
        // The second is lost, and a piece stands in the middle of a batch.
        let (mut buffer, mut meta) = batch(&[&sent[0], &pieces[0], &sent[2], &sent[3]]);
        salvage.look(&mut buffer, &mut meta);
        let kept = [&sent[0][..], &sent[2], &sent[3]].concat();
        assert_eq!(buffer[..meta.len], kept);
        assert_eq!(meta.stride, 100);
        let made = salvage.next(&mut room).expect("one is made again");
        assert_eq!(room[..made.len], sent[1]);
        assert_eq!((made.addr, made.stride), (meta.addr, 100));
        assert_eq!(salvage.made(), 1);
    }

    #[test]
    fn of_strangers_nothing_is_looked_at() {
        let salvage = Salvage::default();
        let (mut buffer, mut meta) = batch(&[&[parity::MAGIC, [0; 8]].concat()]);
        salvage.look(&mut buffer, &mut meta);
        assert_eq!(meta.len, 16);
    }
}
