//! Delegates of sites.

use serde::{Deserialize, Serialize};

/// `POST /v1/ca/delegates`
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct DelegateCreate {
    /// Name of the site.
    pub site: String,
    /// For whom it may vouch: SPIFFE IDs, and paths with `/*` for all below.
    pub permitted: Vec<String>,
    /// Life of its certificate, seconds.
    pub ttl_s: u64,
    /// How long its token may be used, seconds.
    pub token_ttl_s: u64,
}

/// A delegate that may come. This is the only time that its token is shown.
#[derive(Clone, Serialize, Deserialize)]
pub struct DelegateCreated {
    /// Name of the site.
    pub site: String,
    /// The delegate's identity.
    pub spiffe_id: String,
    /// For whom it may vouch.
    pub permitted: Vec<String>,
    /// The token: a secret.
    pub token: String,
    /// End of its use, Unix seconds.
    pub expires_unix: u64,
    /// The root's pin, which the delegate needs too.
    pub pin: String,
}

impl std::fmt::Debug for DelegateCreated {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("DelegateCreated")
            .field("site", &self.site)
            .field("token", &"<redacted>")
            .finish_non_exhaustive()
    }
}

/// How a delegate fares.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum DelegateState {
    /// Authorized; it has not come yet.
    Awaited,
    /// It has a certificate.
    Active,
    /// Its certificate has ended.
    Ended,
    /// An operator has ended it.
    Revoked,
}

/// A delegate, as `GET /v1/ca/delegates` lists it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct DelegateInfo {
    /// Name of the site.
    pub site: String,
    /// How it fares.
    pub state: DelegateState,
    /// For whom it may vouch.
    pub permitted: Vec<String>,
    /// Life of its certificates, seconds.
    pub ttl_s: u64,
    /// SHA-256 of its key: what a revocation names.
    pub key: Option<String>,
    /// Serial of its newest certificate, hexadecimal.
    pub serial: Option<String>,
    /// End of that, Unix seconds.
    pub not_after_unix: Option<u64>,
    /// When it was last heard of, Unix seconds.
    pub heard_unix: Option<u64>,
    /// Records of its audit log that are here.
    pub records: u64,
}
