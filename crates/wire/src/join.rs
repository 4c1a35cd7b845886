//! The short requests: joining, renewing, tokens, and why not.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use serde_json::Value;

/// Body of [`crate::PATH_JOIN`]: a certificate request, and either a token or an attestation that says for whom.
#[derive(Clone, Default, Serialize, Deserialize)]
pub struct JoinRequest {
    /// The one-time token; empty where there is an attestation.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub token: String,
    /// PKCS#10 request, DER in standard base64. Only its public key and signature count.
    pub csr: String,
    /// The joiner's wall clock, milliseconds since 1970: a certificate that does not hold by it is not made, and the
    /// token stays good. Absent from joiners that do not say it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub now_unix_ms: Option<u64>,
    /// What proves who the joiner is, in place of a token.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub attestation: Option<Attestation>,
}

impl std::fmt::Debug for JoinRequest {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("JoinRequest")
            .field("token", &"<redacted>")
            .field("attestation", &self.attestation)
            .finish_non_exhaustive()
    }
}

/// A proof of who a joiner is that was not made for it by this mesh.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "lowercase")]
pub enum Attestation {
    /// A machine's certificate of another authority.
    X509Pop(MachineProof),
    /// A token of a Kubernetes service account.
    K8s {
        /// The token, as the kubelet wrote it.
        token: String,
    },
    /// A kind of a later version: refused.
    #[serde(other)]
    Unknown,
}

impl std::fmt::Debug for Attestation {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::X509Pop(proof) => std::fmt::Debug::fmt(proof, f),
            Self::K8s { .. } => f.write_str("K8s(redacted)"),
            Self::Unknown => f.write_str("Unknown"),
        }
    }
}

/// A machine's certificate, and a signature by its key.
///
/// Signed is, in DSSE's encoding with the type `application/vnd.weft.join`: trust domain, pin, challenge, and
/// `sha256:<hex>` of the certificate request's DER, each followed by a newline.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct MachineProof {
    /// Certificates, leaf first, DER in standard base64; at most 10.
    pub chain: Vec<String>,
    /// The pin by which the joiner has recognised the control node, `sha256:<hex>`.
    pub pin: String,
    /// What the control node chose.
    pub challenge: String,
    /// The signature, standard base64.
    pub signature: String,
}

/// Reply to a request for a challenge.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ChallengeResponse {
    /// To be signed, as it is.
    pub challenge: String,
    /// For how long it is good, milliseconds.
    pub good_for_ms: u64,
}

/// Reply to a join.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct JoinResponse {
    /// Certificates, leaf first, DER in standard base64.
    pub chain: Vec<String>,
    /// Trust bundles: trust domain to SPIFFE bundle (JWK Set).
    pub bundles: BTreeMap<String, Value>,
}

/// Reply to [`crate::PATH_BUNDLE`].
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct BundleResponse {
    /// Trust bundles: trust domain to SPIFFE bundle (JWK Set). The mesh's own is among them.
    pub bundles: BTreeMap<String, Value>,
}

/// Body of [`crate::PATH_RENEW`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RenewRequest {
    /// PKCS#10 request, DER in standard base64.
    pub csr: String,
}

/// Reply to a renewal: the same as to a join.
pub type RenewResponse = JoinResponse;

/// Body of [`crate::PATH_JWT`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct JwtRequest {
    /// Whom the token is for.
    pub audience: Vec<String>,
}

/// Reply to it.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct JwtResponse {
    /// The token.
    pub token: String,
    /// Until when it is good, Unix seconds.
    pub expires_unix: u64,
}

impl std::fmt::Debug for JwtResponse {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("JwtResponse")
            .field("token", &"<redacted>")
            .field("expires_unix", &self.expires_unix)
            .finish()
    }
}

/// Body of a refusal on the control paths.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Problem {
    /// A stable word for programs, such as `token_used`.
    pub code: String,
    /// One sentence for people: the cause and the next step.
    pub message: String,
    /// When to try again, seconds, where that helps.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub retry_after_s: Option<u64>,
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(json: &str) -> JoinRequest {
        serde_json::from_str(json).unwrap()
    }

    #[test]
    fn a_join_with_a_token_is_as_it_was_before_there_were_attestations() {
        let old = r#"{"token":"weft-join-1","csr":"AA==","now_unix_ms":5}"#;
        let request = read(old);
        assert_eq!(request.attestation, None);
        assert_eq!(serde_json::to_string(&request).unwrap(), old);
    }

    #[test]
    fn kinds_and_fields_of_later_versions_are_tolerated() {
        let request = read(r#"{"csr":"","attestation":{"kind":"k8s","token":"t","later":1}}"#);
        let token = "t".to_owned();
        assert_eq!(request.attestation, Some(Attestation::K8s { token }));
        assert!(request.token.is_empty());
        let request = read(r#"{"csr":"","attestation":{"kind":"tpm","quote":{}},"later":1}"#);
        assert_eq!(request.attestation, Some(Attestation::Unknown));
        let proof = MachineProof {
            chain: vec!["AA==".into()],
            ..MachineProof::default()
        };
        let request = JoinRequest {
            attestation: Some(Attestation::X509Pop(proof)),
            ..JoinRequest::default()
        };
        let text = serde_json::to_string(&request).unwrap();
        assert!(
            text.contains(r#""kind":"x509pop","chain":["AA=="]"#),
            "{text}"
        );
        assert_eq!(read(&text).attestation, request.attestation);
    }

    #[test]
    fn no_secret_is_shown() {
        let secret = "s3cret".to_owned();
        let request = JoinRequest {
            token: secret.clone(),
            attestation: Some(Attestation::K8s { token: secret }),
            ..JoinRequest::default()
        };
        assert!(!format!("{request:?}").contains("s3cret"));
    }
}
