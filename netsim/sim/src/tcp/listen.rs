//! Who accepts streams, and how one connects.

use std::collections::VecDeque;
use std::future::poll_fn;
use std::io::{self, ErrorKind};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Poll, Waker};
use std::time::Duration;

use tokio::time::sleep;
use weft_env::{BoxFuture, Listener, PeerAddr, SimListener, Stream};
use weft_netsim::Fate;

use super::stream::pair;
use crate::event::NodeId;
use crate::gate::Gate;
use crate::names::refused;
use crate::node::Node;

/// Streams that wait to be accepted, as in a kernel's queue.
const BACKLOG: usize = 128;
/// A SYN without its headers has no content.
const SYN_HEADERS: usize = 60;
/// First wait for an answer to a SYN; doubles each time, as Linux does.
const SYN_RETRY: Duration = Duration::from_secs(1);
const SYN_TRIES: u32 = 6;

/// Where one listens.
pub(crate) enum Place {
    Tcp(SocketAddr),
    Unix(PathBuf),
}

/// A listening socket.
pub(crate) struct Backlog {
    gate: Arc<Gate>,
    state: Mutex<Queue>,
}

#[derive(Default)]
struct Queue {
    waiting: VecDeque<(Stream, PeerAddr)>,
    closed: bool,
    acceptors: Vec<Waker>,
}

impl Backlog {
    fn lock(&self) -> MutexGuard<'_, Queue> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn belongs_to(&self, gate: &Arc<Gate>) -> bool {
        Arc::ptr_eq(&self.gate, gate)
    }

    /// Nobody accepts any more; what waited is closed.
    pub(crate) fn close(&self) {
        let waiting = {
            let mut queue = self.lock();
            queue.closed = true;
            std::mem::take(&mut queue.waiting)
        };
        drop(waiting);
    }

    /// Gives the stream back if it is not taken.
    fn offer(&self, stream: Stream, peer: PeerAddr) -> Result<(), Stream> {
        let acceptors = {
            let mut queue = self.lock();
            if queue.closed || queue.waiting.len() >= BACKLOG {
                return Err(stream);
            }
            queue.waiting.push_back((stream, peer));
            std::mem::take(&mut queue.acceptors)
        };
        acceptors.into_iter().for_each(Waker::wake);
        Ok(())
    }
}

pub(crate) fn listen(node: &Node, gate: &Arc<Gate>, place: Place) -> io::Result<Listener> {
    let mut state = node.shared.state();
    let machine = &mut state.nodes[node.id().0];
    let backlog = Arc::new(Backlog {
        gate: gate.clone(),
        state: Mutex::default(),
    });
    let place = match place {
        Place::Unix(path) => {
            if machine.unix.contains_key(&path) {
                let whom = path.display().to_string();
                return Err(refused("listen on", whom, ErrorKind::AddrInUse));
            }
            machine.unix.insert(path.clone(), backlog.clone());
            Place::Unix(path)
        }
        Place::Tcp(addr) => {
            if !machine.has(addr.ip()) {
                return Err(refused("listen on", addr, ErrorKind::AddrNotAvailable));
            }
            let port = match addr.port() {
                0 => machine.free_port(),
                port => Some(port).filter(|port| !machine.tcp.contains_key(port)),
            };
            let port = port.ok_or_else(|| refused("listen on", addr, ErrorKind::AddrInUse))?;
            machine.tcp.insert(port, backlog.clone());
            Place::Tcp(SocketAddr::new(addr.ip(), port))
        }
    };
    Ok(Listener::sim(Box::new(Listening {
        node: node.clone(),
        place,
        backlog,
    })))
}

struct Listening {
    node: Node,
    place: Place,
    backlog: Arc<Backlog>,
}

impl std::fmt::Debug for Listening {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Listening")
            .field("node", &self.node)
            .finish_non_exhaustive()
    }
}

impl SimListener for Listening {
    fn accept(&self) -> BoxFuture<'_, io::Result<(Stream, PeerAddr)>> {
        Box::pin(poll_fn(|cx| {
            let mut queue = self.backlog.lock();
            if let Some(arrived) = queue.waiting.pop_front() {
                return Poll::Ready(Ok(arrived));
            }
            queue.acceptors.push(cx.waker().clone());
            Poll::Pending
        }))
    }

    fn local_addr(&self) -> io::Result<SocketAddr> {
        match &self.place {
            Place::Tcp(addr) => Ok(*addr),
            Place::Unix(_) => Err(io::Error::new(
                ErrorKind::Unsupported,
                "a Unix socket has a path and no address",
            )),
        }
    }
}

impl Drop for Listening {
    fn drop(&mut self) {
        {
            let mut state = self.node.shared.state();
            let machine = &mut state.nodes[self.node.id().0];
            let own = |known: &Arc<Backlog>| Arc::ptr_eq(known, &self.backlog);
            // After a kill the place may be a later life's.
            match &self.place {
                Place::Tcp(addr) if machine.tcp.get(&addr.port()).is_some_and(own) => {
                    machine.tcp.remove(&addr.port());
                }
                Place::Unix(path) if machine.unix.get(path).is_some_and(own) => {
                    machine.unix.remove(path);
                }
                Place::Tcp(_) | Place::Unix(_) => {}
            }
        }
        self.backlog.close();
    }
}

pub(crate) fn connect_unix(node: &Node, path: &Path) -> io::Result<Stream> {
    let backlog = node.shared.state().nodes[node.id().0]
        .unix
        .get(path)
        .cloned();
    let failed = |kind| refused("connect to", path.display(), kind);
    let backlog = backlog.ok_or_else(|| failed(ErrorKind::NotFound))?;
    let (near, far) = pair(&node.shared, (node.id(), None), (node.id(), None));
    match backlog.offer(far, PeerAddr::Unix) {
        Ok(()) => Ok(near),
        Err(_) => Err(failed(ErrorKind::ConnectionRefused)),
    }
}

pub(crate) async fn connect(node: &Node, addr: SocketAddr) -> io::Result<Stream> {
    let failed = |kind| refused("connect to", addr, kind);
    for attempt in 0..SYN_TRIES {
        let Some(to) = node.shared.state().node_at(node.id(), addr) else {
            // Nobody has the address: no answer at all, as beyond a router.
            sleep(SYN_RETRY * (1 << attempt)).await;
            continue;
        };
        if cross(node, node.id(), to).await {
            let backlog = listener(node, to, addr);
            if cross(node, to, node.id()).await {
                let backlog = backlog.ok_or_else(|| failed(ErrorKind::ConnectionRefused))?;
                return open(node, to, addr, &backlog)
                    .ok_or_else(|| failed(ErrorKind::ConnectionRefused));
            }
        }
        sleep(SYN_RETRY * (1 << attempt)).await;
    }
    Err(failed(ErrorKind::TimedOut))
}

fn listener(node: &Node, to: NodeId, addr: SocketAddr) -> Option<Arc<Backlog>> {
    let state = node.shared.state();
    state.nodes[to.0].tcp.get(&addr.port()).cloned()
}

/// Whether a packet without content gets across; waits until it has.
async fn cross(node: &Node, from: NodeId, to: NodeId) -> bool {
    if from == to {
        return true;
    }
    let shared = &node.shared;
    let now = shared.now_ns();
    let fate = shared
        .state()
        .pass(shared.seed, from, to, now, &[], SYN_HEADERS);
    let Some(Fate::Delivered(delivery)) = fate else {
        return false;
    };
    sleep(delivery.first.at.saturating_sub(Duration::from_nanos(now))).await;
    true
}

fn open(node: &Node, to: NodeId, addr: SocketAddr, backlog: &Backlog) -> Option<Stream> {
    let local = {
        let mut state = node.shared.state();
        let machine = &mut state.nodes[node.id().0];
        let ip = if addr.ip().is_loopback() {
            addr.ip()
        } else {
            machine.ip
        };
        SocketAddr::new(ip, machine.free_port()?)
    };
    let (near, far) = pair(&node.shared, (node.id(), Some(local)), (to, Some(addr)));
    backlog.offer(far, PeerAddr::Tcp(local)).ok()?;
    Some(near)
}
