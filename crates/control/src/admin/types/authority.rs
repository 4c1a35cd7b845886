//! The authority: what there is, and what is done to it by hand.

use serde::{Deserialize, Serialize};

/// Reply of `GET /v1/ca`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct CaInfo {
    /// Trust domain that it speaks for.
    pub trust_domain: String,
    /// The root's pin.
    pub pin: String,
    /// Edition of the trust bundle.
    pub sequence: u64,
    /// Life of leaf certificates, seconds.
    pub leaf_ttl_s: u64,
    /// Roots and issuing certificates, in this order, oldest first.
    pub authorities: Vec<AuthorityInfo>,
    /// Keys for tokens (JWT-SVIDs), oldest first; none until the first token is wanted.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub token_keys: Vec<TokenKeyInfo>,
    /// Keys of the roots of another provider of identities, which are trusted beside these (`--trust-bundle`).
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub foreign: Vec<String>,
}

/// A key for tokens.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct TokenKeyInfo {
    /// Its name, such as `jwt-1`.
    pub name: String,
    /// `prepared`, `active`, `old` or `removed`.
    pub state: String,
    /// What tokens call it.
    pub kid: String,
    /// Since when it is in that state, Unix seconds.
    pub since_unix: u64,
}

/// A certificate of the authority.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct AuthorityInfo {
    /// Its name, such as `issuing-2`.
    #[serde(default)]
    pub name: String,
    /// The root above it; of an issuing CA only.
    #[serde(default)]
    pub issuer: Option<String>,
    /// Whether its key may be in other hands.
    #[serde(default)]
    pub tainted: bool,
    /// Whether its key is on this machine; that of an offline root is not.
    #[serde(default)]
    pub key_here: bool,
    /// SHA-256 of its public key.
    #[serde(default)]
    pub pin: String,
    /// `root` or `issuing`.
    pub role: String,
    /// `prepared`, `active`, `old` or `removed`.
    pub state: String,
    /// Serial, hexadecimal.
    pub serial: String,
    /// Begin of validity, Unix seconds.
    pub not_before_unix: u64,
    /// End of validity, Unix seconds.
    pub not_after_unix: u64,
    /// Life left, seconds; below zero: expired.
    pub seconds_left: i64,
}

/// Names an authority.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct SlotRequest {
    /// Its name, such as `root-1`.
    pub slot: String,
    /// Do it even if connected sidecars are cut off by it; they are named.
    pub allow_missing: bool,
}

/// `POST /v1/ca/activate`
pub type ActivateRequest = SlotRequest;

/// What was done to authorities, and at whose cost.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SlotReply {
    /// The authorities.
    pub slots: Vec<String>,
    /// Sidecars that were left behind: `service/instance`.
    pub left_behind: Vec<String>,
}

/// Reply of `POST /v1/ca/csr`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct CsrReply {
    /// PKCS#10 request, DER in standard base64.
    pub csr: String,
}

/// `POST /v1/ca/import`
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ImportRequest {
    /// The issuing certificate, its issuers and the root, in any order: DER in standard base64.
    pub certificates: Vec<String>,
}

/// `POST /v1/ca/backup`
#[derive(Serialize, Deserialize)]
pub struct BackupRequest {
    /// The passphrase, or the content of a key file: base64.
    pub secret: String,
}

/// Reply to `POST /v1/ca/backup`
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct BackupReply {
    /// What is in it.
    pub report: crate::BackupReport,
    /// The backup: a sealed document.
    pub sealed: serde_json::Value,
}

impl std::fmt::Debug for BackupRequest {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("BackupRequest(redacted)")
    }
}
