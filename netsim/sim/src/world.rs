//! The world: nodes, links between them, and what is still to come.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::{Path as FsPath, PathBuf};
use std::sync::atomic::AtomicU64;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::Waker;
use std::time::Duration;

use tokio::sync::Notify;
use tokio::time::Instant;
use weft_netsim::{Fate, Link, LinkSpec, SpecError};
use weft_netsim_heap::Outside;

use crate::clock::elapsed_ns;
use crate::event::{Datagram, Event, NodeId};
use crate::node::{Node, NodeState};
use crate::process::Process;
use crate::trace::{Hashes, Trace};
use crate::wakes::Wakes;
use crate::{seed, tcp, udp};

/// IPv4 and UDP headers, which count on a link.
pub(crate) const UDP_HEADERS: usize = 28;
/// Delay of the loopback interface.
const LOOPBACK_NS: u64 = 20_000;

/// Decides whether a datagram passes a path, from its payload.
type Filter = Box<dyn FnMut(&[u8]) -> bool + Send>;

/// Sees a payload.
type Tap = Box<dyn FnMut(&[u8]) + Send>;

/// One direction between two nodes.
pub(crate) struct Path {
    link: Link,
    cut: bool,
    filter: Option<Filter>,
}

pub(crate) struct State {
    pub(crate) nodes: Vec<NodeState>,
    pub(crate) addresses: BTreeMap<IpAddr, NodeId>,
    /// Outside addresses of sockets behind a NAT.
    pub(crate) outside: BTreeMap<SocketAddr, (NodeId, u16)>,
    pub(crate) next_outside: u16,
    paths: BTreeMap<(NodeId, NodeId), Path>,
    default_link: LinkSpec,
    events: BTreeMap<(u64, u64), Event>,
    sequence: u64,
    pub(crate) trace: Trace,
    /// Sees every datagram between nodes.
    tap: Option<Tap>,
    /// How often each random stream was asked for.
    pub(crate) draws: BTreeMap<String, u64>,
    pub(crate) counters: Counters,
}

/// What has passed, counted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counters {
    /// Datagrams sent from node to node.
    pub sent: u64,
    /// Datagrams lost on the way: at random, to full queues, to partitions and outages.
    pub lost: u64,
    /// Datagrams that reached a socket.
    pub delivered: u64,
    /// Datagrams that reached a node on which nobody had the port.
    pub unreachable: u64,
    /// Datagrams that found their socket's buffer full.
    pub overflowed: u64,
    /// The fullest that a socket's buffer has been, in datagrams.
    pub fullest_socket: usize,
}

pub(crate) struct Shared {
    pub(crate) seed: u64,
    pub(crate) start: Instant,
    pub(crate) dir: PathBuf,
    /// Something new is to come.
    pub(crate) changed: Notify,
    pub(crate) polls: Arc<AtomicU64>,
    pub(crate) wakes: Arc<Wakes>,
    state: Mutex<State>,
}

impl Shared {
    pub(crate) fn new(seed: u64, dir: PathBuf) -> Self {
        let state = State {
            nodes: Vec::new(),
            addresses: BTreeMap::new(),
            outside: BTreeMap::new(),
            next_outside: 0,
            paths: BTreeMap::new(),
            default_link: LinkSpec::ideal(Duration::from_micros(100)),
            events: BTreeMap::new(),
            sequence: 0,
            trace: Trace::new(),
            tap: None,
            draws: BTreeMap::new(),
            counters: Counters::default(),
        };
        Self {
            seed,
            start: Instant::now(),
            dir,
            changed: Notify::new(),
            polls: Arc::default(),
            wakes: Wakes::new(seed::derive_u64(seed, &[b"wakes"])),
            state: Mutex::new(state),
        }
    }

    pub(crate) fn state(&self) -> MutexGuard<'_, State> {
        // One thread; a panic ends the run.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Lets go of what may hold the world in its turn: a run would leave its memory behind.
    pub(crate) fn forget(&self) {
        let (tap, paths, events) = {
            let mut state = self.state();
            (
                state.tap.take(),
                std::mem::take(&mut state.paths),
                std::mem::take(&mut state.events),
            )
        };
        drop((tap, paths, events));
    }

    pub(crate) fn now_ns(&self) -> u64 {
        elapsed_ns(self.start)
    }

    pub(crate) fn next_due(&self) -> Option<u64> {
        self.state().events.keys().next().map(|(due, _)| *due)
    }

    /// Enters an event, and wakes the driver if it now comes first.
    pub(crate) fn schedule(&self, state: &mut State, due: u64, event: Event) {
        let first = state.events.keys().next().is_none_or(|(at, _)| due < *at);
        state.sequence += 1;
        state.events.insert((due, state.sequence), event);
        if first {
            self.changed.notify_one();
        }
    }

    /// Delivers all that is due.
    pub(crate) fn deliver(self: &Arc<Self>, now: u64) {
        let _outside = Outside::step();
        loop {
            let event = {
                let mut state = self.state();
                match state.events.first_entry() {
                    Some(first) if first.key().0 <= now => first.remove(),
                    _ => return,
                }
            };
            match event {
                Event::Datagram {
                    node,
                    port,
                    datagram,
                } => wake(udp::arrive(self, node, port, datagram)),
                Event::Segment { pipe, number } => tcp::arrive(self, &pipe, number),
                Event::Resend { pipe, number } => tcp::resend(self, &pipe, number),
                Event::Acked { pipe, bytes } => wake(tcp::acked(&pipe, bytes)),
            }
        }
    }

    /// Sends a datagram on its way.
    pub(crate) fn transmit(
        &self,
        from: NodeId,
        source: SocketAddr,
        to: SocketAddr,
        ecn: Option<quinn::udp::EcnCodepoint>,
        content: &[u8],
    ) {
        // From here on the kernel holds it.
        let _outside = Outside::step();
        let now = self.now_ns();
        let mut state = self.state();
        let Some((node, port)) = state.owner(from, to) else {
            return;
        };
        let datagram = |flipped: Option<usize>| {
            let mut content = content.to_vec();
            // The headers come first on the wire; a bit of theirs leaves the payload as it was.
            if let Some(bit) = flipped.and_then(|bit| bit.checked_sub(UDP_HEADERS * 8))
                && let Some(byte) = content.get_mut(bit / 8)
            {
                *byte ^= 1 << (bit % 8);
            }
            let event = Datagram {
                from: source,
                content,
                ecn,
            };
            Event::Datagram {
                node,
                port,
                datagram: event,
            }
        };
        if node == from {
            let event = datagram(None);
            return self.schedule(&mut state, now + LOOPBACK_NS, event);
        }
        let fate = state.pass(self.seed, from, node, now, content, UDP_HEADERS);
        state.count(fate);
        let line = format!(
            "{now} {source} > {to} {} {}",
            content.len(),
            told(fate.as_ref())
        );
        state.trace.datagram(&line, content);
        if let Some(mut tap) = state.tap.take() {
            // It may look at the world, which it finds unlocked.
            drop(state);
            tap(content);
            state = self.state();
            state.tap = Some(tap);
        }
        let Some(Fate::Delivered(delivery)) = fate else {
            return;
        };
        for arrival in [Some(delivery.first), delivery.second]
            .into_iter()
            .flatten()
        {
            let event = datagram(arrival.flipped_bit);
            self.schedule(&mut state, ns(arrival.at), event);
        }
    }
}

fn wake(waker: Option<Waker>) {
    if let Some(waker) = waker {
        waker.wake();
    }
}

pub(crate) fn ns(duration: Duration) -> u64 {
    u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)
}

fn told(fate: Option<&Fate>) -> String {
    match fate {
        None => "cut".to_owned(),
        Some(Fate::Lost(cause)) => format!("lost {cause:?}"),
        Some(Fate::Delivered(delivery)) => {
            let copy = if delivery.second.is_some() {
                " twice"
            } else {
                ""
            };
            format!("at {}{copy}", delivery.first.at.as_nanos())
        }
    }
}

impl State {
    /// Who has an address, as seen from a node.
    fn owner(&self, from: NodeId, to: SocketAddr) -> Option<(NodeId, u16)> {
        if let Some(inside) = self.outside.get(&to) {
            return Some(*inside);
        }
        let ip = to.ip().to_canonical();
        if ip.is_loopback() {
            return Some((from, to.port()));
        }
        self.addresses.get(&ip).map(|node| (*node, to.port()))
    }

    pub(crate) fn node_at(&self, from: NodeId, to: SocketAddr) -> Option<NodeId> {
        self.owner(from, to).map(|(node, _)| node)
    }

    /// The path between two nodes, made on first use.
    pub(crate) fn path(&mut self, seed: u64, from: NodeId, to: NodeId) -> &mut Path {
        let spec = &self.default_link;
        let nodes = &self.nodes;
        self.paths.entry((from, to)).or_insert_with(|| {
            let names = [nodes[from.0].name.as_bytes(), nodes[to.0].name.as_bytes()];
            let own = seed::derive_u64(seed, &[b"link", names[0], names[1]]);
            Path {
                link: Link::new(spec.clone(), own).expect("specs are checked when they are set"),
                cut: false,
                filter: None,
            }
        })
    }

    /// What becomes of a packet; `None` where the path is cut.
    pub(crate) fn pass(
        &mut self,
        seed: u64,
        from: NodeId,
        to: NodeId,
        now: u64,
        content: &[u8],
        headers: usize,
    ) -> Option<Fate> {
        let path = self.path(seed, from, to);
        if path.cut {
            return None;
        }
        if let Some(filter) = &mut path.filter
            && !filter(content)
        {
            return None;
        }
        Some(
            path.link
                .send(Duration::from_nanos(now), content.len() + headers),
        )
    }

    pub(crate) fn is_cut(&mut self, seed: u64, from: NodeId, to: NodeId) -> bool {
        self.path(seed, from, to).cut
    }

    pub(crate) fn delay_ns(&mut self, seed: u64, from: NodeId, to: NodeId) -> u64 {
        ns(self.path(seed, from, to).link.spec().delay)
    }

    fn count(&mut self, fate: Option<Fate>) {
        self.counters.sent += 1;
        if !matches!(fate, Some(Fate::Delivered(_))) {
            self.counters.lost += 1;
        }
    }
}

/// A world. Cheap to clone.
#[derive(Clone)]
pub struct World {
    pub(crate) shared: Arc<Shared>,
    /// Whoever runs the world, as a process of no node.
    lab: Process,
}

impl std::fmt::Debug for World {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("World")
            .field("seed", &self.shared.seed)
            .field("now", &self.now())
            .finish_non_exhaustive()
    }
}

impl World {
    pub(crate) fn new(shared: Arc<Shared>) -> Self {
        let node = Node::create(&shared, "lab", IpAddr::V4(Ipv4Addr::new(10, 255, 0, 1)));
        let lab = node.process("main");
        Self { shared, lab }
    }

    /// Adds a machine with the next address of 10.0.0.0/16.
    #[must_use]
    pub fn node(&self, name: &str) -> Node {
        let number = u16::try_from(self.shared.state().nodes.len()).unwrap_or(u16::MAX);
        let [high, low] = number.to_be_bytes();
        Node::create(
            &self.shared,
            name,
            IpAddr::V4(Ipv4Addr::new(10, 0, high, low)),
        )
    }

    /// The process in which the one who runs the world acts.
    #[must_use]
    pub fn lab(&self) -> &Process {
        &self.lab
    }

    /// Virtual time since the start.
    #[must_use]
    pub fn now(&self) -> Duration {
        Duration::from_nanos(self.shared.now_ns())
    }

    /// The seed of the run.
    #[must_use]
    pub fn seed(&self) -> u64 {
        self.shared.seed
    }

    /// A directory of the run, for the state of the nodes. Removed after it.
    #[must_use]
    pub fn dir(&self) -> &FsPath {
        &self.shared.dir
    }

    /// What links are like that nobody set.
    ///
    /// # Errors
    /// [`SpecError`] for impossible figures.
    pub fn set_default_link(&self, spec: LinkSpec) -> Result<(), SpecError> {
        spec.check()?;
        self.shared.state().default_link = spec;
        Ok(())
    }

    /// Changes the link from one node to another, one way. Packets under way stay as they are.
    ///
    /// # Errors
    /// [`SpecError`] for impossible figures.
    pub fn set_link(&self, from: &Node, to: &Node, spec: LinkSpec) -> Result<(), SpecError> {
        let mut state = self.shared.state();
        state
            .path(self.shared.seed, from.id(), to.id())
            .link
            .change(spec)
    }

    /// Lets nothing pass from one node to another, one way, or everything again.
    pub fn set_cut(&self, from: &Node, to: &Node, cut: bool) {
        let mut state = self.shared.state();
        state.path(self.shared.seed, from.id(), to.id()).cut = cut;
    }

    /// Asks `passes` about each datagram from one node to another, before the link does.
    pub fn set_filter(
        &self,
        from: &Node,
        to: &Node,
        passes: impl FnMut(&[u8]) -> bool + Send + 'static,
    ) {
        let mut state = self.shared.state();
        state.path(self.shared.seed, from.id(), to.id()).filter = Some(Box::new(passes));
    }

    /// Shows `tap` each datagram that a node sends to another one, whatever becomes of it.
    pub fn set_tap(&self, tap: impl FnMut(&[u8]) + Send + 'static) {
        self.shared.state().tap = Some(Box::new(tap));
    }

    /// Exchanges the addresses of two nodes, as when machines are replaced. Links follow the nodes.
    pub fn swap_addresses(&self, one: &Node, other: &Node) {
        let mut state = self.shared.state();
        let (a, b) = (one.id(), other.id());
        let (ip_a, ip_b) = (state.nodes[a.0].ip, state.nodes[b.0].ip);
        (state.nodes[a.0].ip, state.nodes[b.0].ip) = (ip_b, ip_a);
        state.addresses.insert(ip_b, a);
        state.addresses.insert(ip_a, b);
    }

    /// Notes something that the run decided, for the hash of decisions. The time is added.
    pub fn decided(&self, what: &str) {
        let line = format!("{} {what}", self.shared.now_ns());
        self.shared.state().trace.decision(&line);
    }

    /// The hashes of what has happened so far.
    #[must_use]
    pub fn hashes(&self) -> Hashes {
        self.shared.state().trace.hashes()
    }

    /// Keeps what is hashed (but payloads) line by line from now on, to find the first difference of two runs.
    pub fn keep_lines(&self) {
        self.shared.state().trace.keep_lines();
    }

    /// The lines kept so far.
    #[must_use]
    pub fn take_lines(&self) -> Vec<String> {
        self.shared.state().trace.take_lines()
    }

    /// What has passed so far.
    #[must_use]
    pub fn counters(&self) -> Counters {
        self.shared.state().counters
    }

    /// Whether the randomness of the libraries below is under the seed, so that payloads repeat too: known once
    /// a key was made or a handshake done.
    #[must_use]
    pub fn repeats_payloads(&self) -> bool {
        weft_netsim_entropy::draws() > 0
    }
}
