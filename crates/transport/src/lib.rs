//! QUIC endpoint, connection pool, tunnels between identities.
mod config;
mod error;
mod lifetime;
mod quic;
mod refusal;
pub use config::*;
pub use error::*;
pub use refusal::*;
pub use lifetime::EndReason;
