//! What a delegate of a site and the control node say to each other.

use serde::{Deserialize, Serialize};
use serde_json::Value;

/// Body of [`crate::PATH_DELEGATE`]: a delegate that is to be made, by a token, or that renews its certificate, by the
/// certificate of its connection.
#[derive(Clone, Default, Serialize, Deserialize)]
pub struct DelegateRequest {
    /// The one-time token; empty on a renewal.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub token: String,
    /// PKCS#10 request, DER in standard base64. Only its public key and signature count.
    pub csr: String,
}

impl std::fmt::Debug for DelegateRequest {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("DelegateRequest")
            .field("token", &"<redacted>")
            .finish_non_exhaustive()
    }
}

/// Reply to it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct DelegateResponse {
    /// Name of the site.
    pub site: String,
    /// The delegate's certificate, DER in standard base64. Its list says for whom it may vouch.
    pub certificate: String,
    /// The root that signed it, the same.
    pub root: String,
    /// The trust bundle (JWK Set).
    pub bundle: Value,
    /// How it is to issue.
    pub terms: DelegateTerms,
}

/// The lives of certificates in the mesh, and the rate at which they are signed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct DelegateTerms {
    /// Life of a sidecar's certificate, seconds.
    pub leaf_ttl_s: u64,
    /// The longest, seconds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max_leaf_ttl_s: Option<u64>,
    /// Life of an issuing CA, seconds.
    pub issuing_ttl_s: u64,
    /// Life of a root, seconds.
    pub root_ttl_s: u64,
    /// Certificates per second.
    pub certificates_per_s: u32,
}

/// Body of [`crate::PATH_DELEGATE_REPORT`]: what the delegate did, as its audit log has it. Without records it asks how far
/// the control node has come.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct DelegateReport {
    /// Records of the log in their order. Those that the control node has already are skipped there.
    pub records: Vec<Value>,
}

/// Reply to it.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct DelegateReportReply {
    /// Number of the last record that the control node has.
    pub taken: u64,
    /// SHA-256 of the key of the root that signs now, `sha256:<hex>`: a delegate under another one renews.
    pub root: String,
}

/// Body of [`crate::PATH_DELEGATE_FOLLOW`]. The answer is a frame with one `update`, or nothing.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct DelegateFollow {
    /// The revision that the delegate has; none: everything is wanted.
    pub revision: Option<u64>,
}
