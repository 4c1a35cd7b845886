//! What is still to come.

use std::net::SocketAddr;
use std::sync::Arc;

use crate::tcp::Pipe;

/// A node of the world, in the order of their making.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct NodeId(pub(crate) usize);

/// Something that happens at its time.
pub(crate) enum Event {
    /// A datagram reaches a node.
    Datagram {
        node: NodeId,
        port: u16,
        datagram: Datagram,
    },
    /// A piece of a TCP stream arrives.
    Segment { pipe: Arc<Pipe>, number: u64 },
    /// The sender of a TCP stream sends a lost piece again.
    Resend { pipe: Arc<Pipe>, number: u64 },
    /// The sender of a TCP stream hears that a piece has arrived.
    Acked { pipe: Arc<Pipe>, bytes: usize },
}

pub(crate) struct Datagram {
    pub(crate) from: SocketAddr,
    pub(crate) content: Vec<u8>,
    pub(crate) ecn: Option<quinn::udp::EcnCodepoint>,
}
