//! Where tokens come from: a seam, because the control node that makes them is the sidecar's business.

use std::time::SystemTime;

use weft_env::BoxFuture;
use zeroize::Zeroizing;

/// A token that was made for the sidecar's identity.
#[derive(Clone)]
pub struct Token {
    /// The JWT-SVID.
    pub token: Zeroizing<String>,
    /// Until when it is good.
    pub expires: SystemTime,
}

impl std::fmt::Debug for Token {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Token")
            .field("token", &"<redacted>")
            .field("expires", &self.expires)
            .finish()
    }
}

/// Why there is no token.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum NoToken {
    /// The audience cannot be one.
    #[error("{0}")]
    BadAudience(String),
    /// The identity gets none.
    #[error("{0}")]
    Denied(String),
    /// Not now.
    #[error("{0}")]
    Unavailable(String),
}

/// Makes tokens for the sidecar's identity.
pub trait TokenSource: Send + Sync + 'static {
    /// A token for this audience.
    fn token(&self, audience: Vec<String>) -> BoxFuture<'_, Result<Token, NoToken>>;
}
