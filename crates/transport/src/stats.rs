//! What is known of one connection, for status, metrics and the question "is it the network?".

use std::net::SocketAddr;
use std::time::{Duration, SystemTime};

use weft_certs::PeerIdentity;

use crate::{Carrier, Direction, EndReason};

/// One connection at one moment.
#[derive(Clone, Debug)]
pub struct ConnectionStats {
    /// Tells it apart from the others of this endpoint.
    pub id: u64,
    /// Who dialled.
    pub direction: Direction,
    /// Who is at the other end; `None` for one that joins.
    pub peer: Option<PeerIdentity>,
    /// What carries it. Of a TCP connection the kernel keeps packets, losses, MTU and window to itself: they are 0.
    pub carrier: Carrier,
    /// The application protocol that the handshake agreed on.
    pub alpn: String,
    /// The peer's address now: it may move.
    pub addr: SocketAddr,
    /// When its handshake was done, by the wall clock.
    pub opened: SystemTime,
    /// Time since then.
    pub age: Duration,
    /// Generation of the SVID that we presented on it.
    pub generation: u64,
    /// Why it takes no more requests, if so.
    pub retired: Option<EndReason>,
    /// Requests under way.
    pub requests_active: usize,
    /// Requests since it was opened.
    pub requests_carried: u64,
    /// Smoothed round-trip time.
    pub rtt: Duration,
    /// Packets declared lost by this side.
    pub lost_packets: u64,
    /// Packets sent by this side.
    pub sent_packets: u64,
    /// UDP payload that the path carries, in bytes.
    pub mtu: u16,
    /// Bytes that may be under way.
    pub congestion_window: u64,
    /// UDP payload sent, in bytes; over TCP that of TLS.
    pub bytes_sent: u64,
    /// UDP payload received, in bytes; over TCP that of TLS.
    pub bytes_received: u64,
}
