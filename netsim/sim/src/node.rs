//! Machines.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use crate::event::NodeId;
use crate::process::Process;
use crate::tcp::Backlog;
use crate::udp::Inbox;
use crate::world::Shared;

/// The wall clock of every node at the start of a run: 1 January 2026. A clock of the past would make no
/// difference, but logs read better so.
const BEGIN: Duration = Duration::from_secs(1_767_225_600);
/// First port that the system chooses.
const FIRST_FREE_PORT: u16 = 49_152;

pub(crate) struct NodeState {
    pub(crate) name: String,
    pub(crate) ip: IpAddr,
    /// How far the wall clock is ahead, in nanoseconds.
    pub(crate) wall_ahead: i128,
    pub(crate) disk_delay: Duration,
    pub(crate) disk_full: bool,
    next_port: u16,
    pub(crate) udp: BTreeMap<u16, Arc<Inbox>>,
    pub(crate) tcp: BTreeMap<u16, Arc<Backlog>>,
    pub(crate) unix: BTreeMap<PathBuf, Arc<Backlog>>,
    /// Ports that others see under another address.
    pub(crate) nat: BTreeMap<u16, SocketAddr>,
}

impl NodeState {
    /// A port that nobody has, of the range that systems choose from.
    pub(crate) fn free_port(&mut self) -> Option<u16> {
        let range = usize::from(u16::MAX - FIRST_FREE_PORT);
        for _ in 0..range {
            let port = self.next_port;
            self.next_port = port.checked_add(1).unwrap_or(FIRST_FREE_PORT);
            if !self.udp.contains_key(&port) && !self.tcp.contains_key(&port) {
                return Some(port);
            }
        }
        None
    }

    /// Whether a socket of this node can have the address.
    pub(crate) fn has(&self, ip: IpAddr) -> bool {
        ip.is_unspecified() || ip.is_loopback() || ip == self.ip
    }
}

/// A machine: an address, a wall clock, a disk. Cheap to clone.
#[derive(Clone)]
pub struct Node {
    pub(crate) shared: Arc<Shared>,
    id: NodeId,
    name: Arc<str>,
}

impl std::fmt::Debug for Node {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("Node").field(&self.name).finish()
    }
}

impl Node {
    pub(crate) fn create(shared: &Arc<Shared>, name: &str, ip: IpAddr) -> Self {
        let mut state = shared.state();
        let id = NodeId(state.nodes.len());
        state.nodes.push(NodeState {
            name: name.to_owned(),
            ip,
            wall_ahead: 0,
            disk_delay: Duration::ZERO,
            disk_full: false,
            next_port: FIRST_FREE_PORT,
            udp: BTreeMap::new(),
            tcp: BTreeMap::new(),
            unix: BTreeMap::new(),
            nat: BTreeMap::new(),
        });
        state.addresses.insert(ip, id);
        Self {
            shared: shared.clone(),
            id,
            name: name.into(),
        }
    }

    /// Which one it is.
    #[must_use]
    pub fn id(&self) -> NodeId {
        self.id
    }

    /// Its name.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Its address, now.
    #[must_use]
    pub fn ip(&self) -> IpAddr {
        self.shared.state().nodes[self.id.0].ip
    }

    /// Starts a process: a new life, with nothing of an earlier one of that name but the disk.
    #[must_use]
    pub fn process(&self, name: &str) -> Process {
        Process::start(self, name)
    }

    /// Its wall clock.
    #[must_use]
    pub fn wall(&self) -> SystemTime {
        let elapsed = i128::from(self.shared.now_ns());
        let ahead = self.shared.state().nodes[self.id.0].wall_ahead;
        let since_begin = elapsed + ahead;
        let by =
            Duration::from_nanos(u64::try_from(since_begin.unsigned_abs()).unwrap_or(u64::MAX));
        let begin = SystemTime::UNIX_EPOCH + BEGIN;
        if since_begin < 0 {
            begin.checked_sub(by).unwrap_or(SystemTime::UNIX_EPOCH)
        } else {
            begin + by
        }
    }

    /// Sets the wall clock so many milliseconds ahead of the true time, or behind it.
    pub fn set_wall_ahead(&self, ms: i64) {
        self.shared.state().nodes[self.id.0].wall_ahead = i128::from(ms) * 1_000_000;
    }

    /// Every job on the disk takes this long from now on.
    pub fn set_disk_delay(&self, delay: Duration) {
        self.shared.state().nodes[self.id.0].disk_delay = delay;
    }

    /// Every write to the disk fails from now on for want of room, or none any more.
    pub fn set_disk_full(&self, full: bool) {
        self.shared.state().nodes[self.id.0].disk_full = full;
    }

    /// Gives the UDP port a new address outside, as a NAT does that has forgotten its mapping. From now on
    /// peers see datagrams come from there, and only what is sent there arrives.
    pub fn rebind(&self, port: u16) -> SocketAddr {
        let mut state = self.shared.state();
        state.next_outside += 1;
        let number = state.next_outside;
        let outside = SocketAddr::from((Ipv4Addr::new(198, 51, 100, 1), 1_024 + number));
        if let Some(before) = state.nodes[self.id.0].nat.insert(port, outside) {
            state.outside.remove(&before);
        }
        state.outside.insert(outside, (self.id, port));
        outside
    }
}
