//! What is known of one connection, for status, metrics and the question "is it the network?".

use std::fmt;
use std::net::SocketAddr;
use std::time::{Duration, SystemTime};

use weft_certs::PeerIdentity;

use crate::{Carrier, Congestion, Direction, EndReason, Negotiated};

/// Which kind of path this is, by what it showed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Measured {
    /// A data centre: a round trip below 5 ms, and no loss to speak of.
    Dc,
    /// A longer one that loses nothing.
    Wan,
    /// It loses 0.2 to 15 % with no queue.
    Lossy,
    /// Packets wait in a queue: it carries as much as it can.
    Full,
    /// It loses more than 15 %.
    Broken,
}

impl fmt::Display for Measured {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Dc => "dc",
            Self::Wan => "wan",
            Self::Lossy => "lossy",
            Self::Full => "full",
            Self::Broken => "broken",
        })
    }
}

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
    /// What its handshake agreed on.
    pub negotiated: Negotiated,
    /// Name of the profile that it follows.
    pub profile: &'static str,
    /// What the path shows, whatever the profile; `None` over TCP, whose packets are the kernel's.
    pub measured: Option<Measured>,
    /// How loss is answered on it now; `None` over TCP.
    pub congestion: Option<Congestion>,
    /// Whether small datagrams to this address are sent twice now.
    pub copying: bool,
    /// Smoothed round-trip time.
    pub rtt: Duration,
    /// The shortest round trip so far: what is above it is waiting in queues.
    pub min_rtt: Duration,
    /// Share of the packets sent in the last ten seconds that was lost, 0 to 1; `None` if too few were sent to tell.
    pub recent_loss: Option<f64>,
    /// Losses after which the sender slowed down, and those that it took for chance.
    pub congestion_events: u64,
    /// See `congestion_events`; of [`Congestion::Discerning`] only.
    pub random_losses: u64,
    /// How long nothing has arrived, to a second. On a path that is alive it is less than two.
    pub silent: Duration,
    /// Times that the path's MTU shrank under us.
    pub black_holes: u64,
    /// Changes of the path's addresses, at most one counted a second.
    pub migrations: u64,
    /// Time in which at least one stream waited to be allowed to send, since the connection was opened.
    pub blocked: Duration,
    /// Streams that wait now.
    pub blocked_streams: usize,
    /// Times that the peer's credit was used up, of a stream or of the connection: it reads slowly, or its windows
    /// are small for this path. Waiting without that is waiting for the network.
    pub out_of_credit: u64,
    /// Readers on this side that were handed something and have not come back for more, where there were many lately.
    pub standing_readers: usize,
    /// Times that the peer was asked to send less ahead of readers that stand still.
    pub pressed: u64,
    /// Bytes by which the connection's window is larger for their sake.
    pub lent: u64,
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
