//! What an endpoint is built from. Every number says why it is what it is.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use weft_certs::tls::{ClientAuth, KeyExchange};
use weft_certs::{ExpectedPeer, IdentitySource, RootPin, SpiffeId};

use crate::{Pins, Profile, Relay};

/// The application protocol of the mesh (RFC 9114 §3.1).
pub const ALPN: &[u8] = b"h3";

/// How to build an [`Endpoint`](crate::Endpoint).
#[derive(Clone, Debug)]
pub struct TransportConfig {
    /// The one address for both roles, UDP and TCP; port 0 lets the system choose.
    pub addr: SocketAddr,
    /// Who this node is and whom it trusts; read anew in every handshake.
    pub identity: Arc<IdentitySource>,
    /// Whether clients must present an SVID.
    pub client_auth: ClientAuth,
    /// Settings for the kind of network that most peers are on.
    pub profile: Profile,
    /// Those of peers on another kind.
    pub pins: Pins,
    /// Whether a peer without post-quantum key exchange is spoken to.
    pub key_exchange: KeyExchange,
    /// How soon the accepting side knows that a peer is gone.
    pub liveness: Liveness,
    /// What a peer may take.
    pub limits: Limits,
    /// Whether TCP is answered on the port of the same number, and dialled where UDP does not pass.
    pub fallback: bool,
    /// Kept over restarts, it lets peers of a process that was killed know at their next packet that their
    /// connection is gone (stateless reset, RFC 9000 §10.3), and not only when it has been silent for the
    /// idle timeout. `None`: a random one.
    pub reset_key: Option<ResetKey>,
    /// The socket, where it may be given to another process later; `None`: one of its own at `addr`.
    pub relay: Option<Relay>,
}

/// The secret behind stateless resets. Who has it can end this node's connections.
#[derive(Clone, Copy)]
pub struct ResetKey(pub [u8; 32]);

impl std::fmt::Debug for ResetKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("ResetKey(redacted)")
    }
}

impl TransportConfig {
    /// The endpoint of a sidecar: nobody without an SVID, profile `auto`.
    #[must_use]
    pub fn new(addr: SocketAddr, identity: Arc<IdentitySource>) -> Self {
        Self {
            addr,
            identity,
            client_auth: ClientAuth::Required,
            profile: Profile::auto(),
            pins: Pins::default(),
            key_exchange: KeyExchange::Preferred,
            liveness: Liveness::SIDECAR,
            limits: Limits::default(),
            fallback: true,
            reset_key: None,
            relay: None,
        }
    }

    /// The endpoint of a control node: clients without an SVID come in (to join, nothing else).
    #[must_use]
    pub fn control(addr: SocketAddr, identity: Arc<IdentitySource>) -> Self {
        Self {
            client_auth: ClientAuth::Optional,
            liveness: Liveness::CONTROL,
            ..Self::new(addr, identity)
        }
    }
}

/// How soon a dead peer is known, without a probe per request.
///
/// The idle timeout in force is the smaller of both ends' (RFC 9000 §10.1).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Liveness {
    /// A connection on which nothing arrives for this long is lost.
    pub idle_timeout: Duration,
    /// A sign of life is sent after this much silence; well below half of the idle timeout, so that one
    /// lost packet does not end a connection.
    pub keep_alive: Duration,
}

impl Liveness {
    /// Between sidecars: a dead instance is known within three seconds. The idle timeout begins anew with the
    /// first packet that is sent into the silence (RFC 9000 §10.1), so both figures count: 2.95 s.
    pub const SIDECAR: Self = Self {
        idle_timeout: Duration::from_millis(2_250),
        keep_alive: Duration::from_millis(700),
    };
    /// To and at a control node: thousands of mostly silent connections, none of them urgent.
    pub const CONTROL: Self = Self {
        idle_timeout: Duration::from_secs(10),
        keep_alive: Duration::from_secs(3),
    };
}

/// What peers may take of this node.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Accepted connections at one time; more are refused at once. An idle one costs a control node about 150 kB.
    pub max_connections: usize,
    /// Handshakes under way at one time, each about a millisecond of CPU; more are refused at once. From
    /// half of it on, a client must first prove that it owns its address (RFC 9000 §8.1.2).
    pub max_handshakes: usize,
    /// An accepted connection whose handshake takes longer is cut.
    pub handshake_timeout: Duration,
    /// A request whose header takes longer to arrive is rejected.
    pub header_timeout: Duration,
    /// A dial that takes longer has failed.
    pub dial_timeout: Duration,
    /// Requests under way at one time on one connection; a new one begins with 64 places (at most) and gets more as they
    /// are used.
    pub max_requests: u32,
    /// Memory, in bytes, that all connections together may lend to readers that stand still, so that these do not hold
    /// up the others of their connection. Beside it each connection may hold its window.
    pub max_lent: u64,
    /// The largest header section taken from a peer, in bytes (RFC 9114 §4.2.2).
    pub max_header_bytes: u64,
    /// A pooled connection without requests for this long is closed.
    pub pool_idle: Duration,
    /// First and longest wait after a failed dial; each further failure doubles it (full jitter).
    pub dial_backoff: (Duration, Duration),
    /// Targets whose failed dials are remembered.
    pub max_remembered_failures: usize,
    /// Sessions that may be resumed, for dials and for accepted connections each; zero resumes nothing. One costs about
    /// 2 kB.
    pub max_sessions: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            max_connections: 10_000,
            max_handshakes: 512,
            handshake_timeout: Duration::from_secs(5),
            header_timeout: Duration::from_secs(10),
            dial_timeout: Duration::from_secs(2),
            max_requests: 4_096,
            max_lent: 256 << 20,
            max_header_bytes: 64 << 10,
            pool_idle: Duration::from_secs(300),
            dial_backoff: (Duration::from_millis(100), Duration::from_secs(5)),
            max_remembered_failures: 4_096,
            max_sessions: 10_000,
        }
    }
}

/// Whom to dial, and who must answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Target {
    /// Where.
    pub addr: SocketAddr,
    /// The identities that the peer may have.
    pub expected: ExpectedPeer,
    /// How soon to know that it is gone. Not part of what tells two targets apart.
    pub liveness: Liveness,
}

impl Target {
    /// A sidecar.
    #[must_use]
    pub fn new(addr: SocketAddr, expected: impl Into<ExpectedPeer>) -> Self {
        Self {
            addr,
            expected: expected.into(),
            liveness: Liveness::SIDECAR,
        }
    }

    /// A control node.
    #[must_use]
    pub fn control(addr: SocketAddr, expected: impl Into<ExpectedPeer>) -> Self {
        Self {
            liveness: Liveness::CONTROL,
            ..Self::new(addr, expected)
        }
    }
}

/// What a node knows before it has an identity.
#[derive(Clone, Debug)]
pub struct JoinConfig {
    /// The key that the root must have.
    pub pin: RootPin,
    /// Who must answer: the control node.
    pub expected: SpiffeId,
    /// Whether a control node without post-quantum key exchange is spoken to.
    pub key_exchange: KeyExchange,
    /// Whether TCP is tried where UDP brings no answer.
    pub fallback: bool,
}
