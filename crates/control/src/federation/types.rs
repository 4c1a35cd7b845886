//! What is known of another mesh, as it is stored and shown.

use serde::{Deserialize, Serialize};
use serde_json::Value;
use weft_certs::{SpiffeId, TrustDomain};

/// How the bundle endpoint of another mesh shows that it is the right one (SPIFFE Federation §5.2).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "type", rename_all = "snake_case")]
pub enum Profile {
    /// By a certificate of the Web PKI for the host in its URL.
    HttpsWeb {
        /// PEM of the authorities to accept, in place of those that this machine trusts.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        ca: Option<String>,
    },
    /// By its SVID.
    HttpsSpiffe {
        /// Whose SVID.
        endpoint_spiffe_id: SpiffeId,
    },
}

impl Profile {
    /// As the standard calls it.
    #[must_use]
    pub fn as_str(&self) -> &'static str {
        match self {
            Self::HttpsWeb { .. } => "https_web",
            Self::HttpsSpiffe { .. } => "https_spiffe",
        }
    }
}

/// Another mesh whose identities this one accepts: never inferred, always told by an operator (§7.2).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Relation {
    /// Its trust domain.
    pub trust_domain: TrustDomain,
    /// Where its bundle is: an `https` URL without user information.
    pub url: String,
    /// How that place shows who it is.
    pub profile: Profile,
}

/// `POST /v1/federation`
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct FederateRequest {
    /// The other mesh.
    #[serde(flatten)]
    pub relation: Relation,
    /// Its bundle, a SPIFFE JWK set, as somebody trusted brought it: what the first fetch by `https_spiffe` needs.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub bundle: Option<Value>,
}

/// A fetch that failed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct FetchFailure {
    /// When, Unix seconds.
    pub at_unix: u64,
    /// Why, in one sentence.
    pub reason: String,
}

/// Another mesh with how it stands.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct FederationInfo {
    /// What the operator said.
    #[serde(flatten)]
    pub relation: Relation,
    /// Edition of the bundle in force (`spiffe_sequence`); `None`: there is none yet.
    pub sequence: Option<u64>,
    /// How many roots it has.
    pub roots: usize,
    /// Seconds between two fetches.
    pub refresh_s: u64,
    /// The last fetch that went well, since the control node started. Unix seconds.
    pub fetched_unix: Option<u64>,
    /// The last fetch, if it failed.
    pub failed: Option<FetchFailure>,
}
