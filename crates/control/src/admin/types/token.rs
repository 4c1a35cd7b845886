//! Join tokens.

use serde::{Deserialize, Serialize};

/// `POST /v1/tokens`
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct TokenRequest {
    /// Namespace of the service.
    pub namespace: String,
    /// The service whose identity the bearer gets.
    pub service: String,
    /// How long the token may be used, seconds.
    pub ttl_s: u64,
}

/// A new token. This is the only time that it is shown.
#[derive(Clone, Serialize, Deserialize)]
pub struct TokenCreated {
    /// The token itself: a secret.
    pub token: String,
    /// The identity it is good for.
    pub spiffe_id: String,
    /// End of its use, Unix seconds.
    pub expires_unix: u64,
    /// The root's pin, which the joiner needs too.
    pub pin: String,
}

impl std::fmt::Debug for TokenCreated {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("TokenCreated")
            .field("token", &"<redacted>")
            .field("spiffe_id", &self.spiffe_id)
            .field("expires_unix", &self.expires_unix)
            .finish_non_exhaustive()
    }
}

/// Whether a token can still be used.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum TokenState {
    /// It can.
    Unused,
    /// Its one use is over.
    Used,
    /// Nobody used it in time.
    Expired,
    /// An operator took it back.
    Revoked,
}

/// A token as `GET /v1/tokens` lists it: never the token itself, which is not kept.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct TokenInfo {
    /// First digits of its hash: tells tokens apart, good for nothing else.
    pub id: String,
    /// The identity it is good for.
    pub spiffe_id: String,
    /// When it was made, Unix seconds.
    pub created_unix: u64,
    /// End of its use, Unix seconds.
    pub expires_unix: u64,
    /// Whether it can still be used.
    pub state: TokenState,
    /// When it was used, Unix seconds.
    pub used_unix: Option<u64>,
    /// Address that used it.
    pub used_by: Option<String>,
}
