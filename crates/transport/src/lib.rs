//! QUIC between identities: one endpoint, its pool of connections, requests and tunnels on them.
//!
//! Whoever holds a [`Connection`] knows who is at the other end: none exists whose peer was not verified, and
//! none outlives the certificates that vouched for it. What a request means, which instance of a service it
//! goes to and whether it may be answered is not decided here: this crate knows identities, not services.
//!
//! ```text
//!   Pool ── target ──▶ Connection ── request ──▶ Exchange          Handler ◀── ServerRequest
//!    │  (dial, back off)    │                                          ▲
//!    ▼                      ▼                                          │
//!   Endpoint: one UDP socket, both roles ═══ HTTP/3 over QUIC, mutual TLS ═══ accept
//!    │        (where UDP does not pass: HTTP/2 over TCP, mutual TLS)
//!    │
//!    └─ warden: retires and cuts connections with the certificates' lives
//! ```
//!
//! It stands on `weft-h3` (frames), `weft-certs` (who may speak) and `weft-env` (sockets, clocks, tasks).

mod accept;
mod backlog;
mod backoff;
mod config;
mod congestion;
mod connection;
mod copies;
mod copy_socket;
mod core;
mod dial;
mod endpoint;
mod error;
mod fallback;
mod join;
mod lifetime;
mod load;
mod parity;
mod paths;
mod places;
mod pool;
mod probe;
mod profile;
mod quic;
mod race;
mod refusal;
mod registry;
mod relay;
mod renewal;
mod session;
mod stats;
mod steer;
mod stream;
mod tally;
mod tcp;
mod warden;
mod wire;

pub use accept::{Handler, ServerRequest};
pub use config::{ALPN, JoinConfig, Limits, Liveness, ResetKey, Target, TransportConfig};
pub use connection::{Connection, Exchange};
pub use copies::Copied;
pub use core::Enforced;
pub use endpoint::Endpoint;
pub use error::{DialError, RequestError, TransportError};
pub use fallback::FallbackStats;
pub use join::join_connection;
pub use lifetime::EndReason;
pub use pool::Pool;
pub use profile::{Congestion, Copying, Pins, Profile};
pub use refusal::{Direction, Refusal};
pub use relay::{Earlier, Given, Relay, Tag};
pub use session::Negotiated;
pub use stats::{ConnectionStats, Measured};
pub use stream::{RecvStream, SendStream, StreamError};
pub use weft_certs::tls::KeyExchange;
pub use weft_h3::Code;
pub use wire::Carrier;
