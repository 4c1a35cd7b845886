//! UDP sockets.

use std::collections::VecDeque;
use std::io::{self, ErrorKind, IoSliceMut};
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker};

use quinn::udp::{RecvMeta, Transmit};
use quinn::{AsyncUdpSocket, UdpPoller};

use crate::event::{Datagram, NodeId};
use crate::gate::Gate;
use crate::names::refused;
use crate::node::Node;
use crate::world::Shared;

/// What a socket's buffer holds: about the 4 MiB that weft asks a kernel for, in full packets.
const BUFFER: usize = 2_800;
/// Packets that quinn may hand over as one send, as with GSO.
const BATCH: usize = 10;

/// Where datagrams for one port wait.
pub(crate) struct Inbox {
    gate: Arc<Gate>,
    state: Mutex<Waiting>,
}

#[derive(Default)]
struct Waiting {
    datagrams: VecDeque<Datagram>,
    reader: Option<Waker>,
}

impl Inbox {
    fn lock(&self) -> MutexGuard<'_, Waiting> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn belongs_to(&self, gate: &Arc<Gate>) -> bool {
        Arc::ptr_eq(&self.gate, gate)
    }
}

/// A datagram has reached a node. Gives back whom to wake.
pub(crate) fn arrive(
    shared: &Shared,
    node: NodeId,
    port: u16,
    datagram: Datagram,
) -> Option<Waker> {
    let mut state = shared.state();
    let Some(inbox) = state.nodes[node.0].udp.get(&port).cloned() else {
        state.counters.unreachable += 1;
        return None;
    };
    let mut waiting = inbox.lock();
    if waiting.datagrams.len() >= BUFFER {
        state.counters.overflowed += 1;
        return None;
    }
    waiting.datagrams.push_back(datagram);
    state.counters.delivered += 1;
    let fullest = &mut state.counters.fullest_socket;
    *fullest = (*fullest).max(waiting.datagrams.len());
    waiting.reader.take()
}

pub(crate) fn bind(
    node: &Node,
    gate: &Arc<Gate>,
    addr: SocketAddr,
) -> io::Result<Arc<dyn AsyncUdpSocket>> {
    let mut state = node.shared.state();
    let machine = &mut state.nodes[node.id().0];
    let failed = |kind| Err(refused("bind UDP", addr, kind));
    if !machine.has(addr.ip()) {
        return failed(ErrorKind::AddrNotAvailable);
    }
    let port = match addr.port() {
        0 => machine.free_port(),
        port => Some(port).filter(|port| !machine.udp.contains_key(port)),
    };
    let Some(port) = port else {
        return failed(ErrorKind::AddrInUse);
    };
    let inbox = Arc::new(Inbox {
        gate: gate.clone(),
        state: Mutex::default(),
    });
    machine.udp.insert(port, inbox.clone());
    Ok(Arc::new(SimUdp {
        node: node.clone(),
        addr: SocketAddr::new(addr.ip(), port),
        inbox,
    }))
}

struct SimUdp {
    node: Node,
    addr: SocketAddr,
    inbox: Arc<Inbox>,
}

impl std::fmt::Debug for SimUdp {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("SimUdp").field(&self.addr).finish()
    }
}

impl Drop for SimUdp {
    fn drop(&mut self) {
        let mut state = self.node.shared.state();
        let bound = &mut state.nodes[self.node.id().0].udp;
        // After a kill the port may be a later life's.
        if bound
            .get(&self.addr.port())
            .is_some_and(|inbox| Arc::ptr_eq(inbox, &self.inbox))
        {
            bound.remove(&self.addr.port());
        }
    }
}

impl SimUdp {
    /// The address that peers see.
    fn source(&self, to: SocketAddr) -> SocketAddr {
        let state = self.node.shared.state();
        let machine = &state.nodes[self.node.id().0];
        if let Some(outside) = machine.nat.get(&self.addr.port()) {
            return *outside;
        }
        let ip = if to.ip().is_loopback() {
            to.ip()
        } else {
            machine.ip
        };
        SocketAddr::new(ip, self.addr.port())
    }
}

impl AsyncUdpSocket for SimUdp {
    fn create_io_poller(self: Arc<Self>) -> Pin<Box<dyn UdpPoller>> {
        Box::pin(AlwaysWritable)
    }

    fn try_send(&self, transmit: &Transmit<'_>) -> io::Result<()> {
        if self.inbox.gate.is_fenced() {
            // The process is dead: nothing of it leaves the machine.
            return Ok(());
        }
        let source = self.source(transmit.destination);
        let size = transmit.segment_size.unwrap_or(transmit.contents.len());
        for piece in transmit.contents.chunks(size.max(1)) {
            let to = transmit.destination;
            let shared = &self.node.shared;
            shared.transmit(self.node.id(), source, to, transmit.ecn, piece);
        }
        Ok(())
    }

    fn poll_recv(
        &self,
        cx: &mut Context<'_>,
        bufs: &mut [IoSliceMut<'_>],
        meta: &mut [RecvMeta],
    ) -> Poll<io::Result<usize>> {
        let mut waiting = self.inbox.lock();
        let mut taken = 0;
        for (buf, meta) in bufs.iter_mut().zip(meta) {
            let Some(datagram) = waiting.datagrams.pop_front() else {
                break;
            };
            let len = datagram.content.len().min(buf.len());
            buf[..len].copy_from_slice(&datagram.content[..len]);
            *meta = RecvMeta {
                addr: datagram.from,
                len,
                stride: len,
                ecn: datagram.ecn,
                dst_ip: None,
            };
            taken += 1;
        }
        if taken == 0 {
            waiting.reader = Some(cx.waker().clone());
            return Poll::Pending;
        }
        Poll::Ready(Ok(taken))
    }

    fn local_addr(&self) -> io::Result<SocketAddr> {
        Ok(self.addr)
    }

    fn max_transmit_segments(&self) -> usize {
        BATCH
    }

    fn may_fragment(&self) -> bool {
        false
    }
}

#[derive(Debug)]
struct AlwaysWritable;

impl UdpPoller for AlwaysWritable {
    fn poll_writable(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }
}
