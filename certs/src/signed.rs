//! Documents signed with an SVID, such as the evidence of a rotation: checkable offline, by the mesh's root alone.
//!
//! The form is DSSE (Dead Simple Signing Envelope 1.0): what is signed is the type and the body with their lengths,
//! so that a signature of one kind of document is never good for another. The chain, with its root, goes along.

use std::time::SystemTime;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use rustls::SignatureScheme;
use rustls::pki_types::CertificateDer;
use serde::{Deserialize, Serialize};
use webpki::EndEntityCert;

use crate::{BundleSet, ExpectedPeer, PeerIdentity, VerifyError, X509Svid, verify_expected};

/// In the order of preference; an SVID's key fits one of them.
const SCHEMES: [SignatureScheme; 3] = [
    SignatureScheme::ECDSA_NISTP256_SHA256,
    SignatureScheme::ECDSA_NISTP384_SHA384,
    SignatureScheme::ED25519,
];
/// Larger than any document that weft signs.
const MAX_PAYLOAD: usize = 16 * 1024 * 1024;

/// A DSSE envelope.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SignedDocument {
    /// What kind of document it is.
    #[serde(rename = "payloadType")]
    pub payload_type: String,
    /// The document, base64.
    payload: String,
    signatures: Vec<Signature>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct Signature {
    sig: String,
    /// Leaf, issuers and root of the signer: DER in base64.
    chain: Vec<String>,
}

/// Why a document is not to be believed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum SignedError {
    /// It is not of the expected kind.
    #[error("it is a document of type {found:?}, expected {expected:?}")]
    WrongType {
        /// What was asked for.
        expected: String,
        /// What it is.
        found: String,
    },
    /// It is not an envelope with one signature.
    #[error("it is not a signed document: {0}")]
    Malformed(&'static str),
    /// The signer is not to be trusted.
    #[error("its signer is not to be believed: {0}")]
    Signer(#[from] VerifyError),
    /// The signature is of another document, or of another key.
    #[error("its signature does not fit: it was changed after it was signed")]
    BadSignature,
    /// The key cannot sign.
    #[error("it cannot be signed: {0}")]
    Unsigned(&'static str),
}

impl SignedDocument {
    /// Signs a document with the key of an SVID. With a `root`, which goes along, a pin is enough to check it.
    ///
    /// # Errors
    /// [`SignedError::Unsigned`], which does not happen with a key that TLS takes.
    pub fn sign(
        payload_type: &str,
        payload: &[u8],
        svid: &X509Svid,
        root: Option<&CertificateDer<'_>>,
    ) -> Result<Self, SignedError> {
        let signer = svid
            .certified()
            .key
            .choose_scheme(&SCHEMES)
            .ok_or(SignedError::Unsigned("its key is of no known kind"))?;
        let signature = signer
            .sign(&encoded(payload_type, payload))
            .map_err(|_| SignedError::Unsigned("its key does not sign"))?;
        let mut chain: Vec<String> = svid
            .chain()
            .iter()
            .map(|der| STANDARD.encode(der))
            .collect();
        if let Some(root) = root.map(|root| STANDARD.encode(root))
            && !chain.contains(&root)
        {
            chain.push(root);
        }
        Ok(Self {
            payload_type: payload_type.to_owned(),
            payload: STANDARD.encode(payload),
            signatures: vec![Signature {
                sig: STANDARD.encode(signature),
                chain,
            }],
        })
    }

    /// Reads an envelope. Nothing of it is checked yet.
    ///
    /// # Errors
    /// [`SignedError::Malformed`].
    pub fn parse(json: &[u8]) -> Result<Self, SignedError> {
        serde_json::from_slice(json).map_err(|_| SignedError::Malformed("it is not an envelope"))
    }

    /// Its text form.
    pub fn to_json(&self) -> Vec<u8> {
        serde_json::to_vec(self).expect("the envelope has string keys only")
    }

    /// The document, not checked: to find out what to check it against.
    ///
    /// # Errors
    /// [`SignedError::Malformed`].
    pub fn unverified(&self) -> Result<Vec<u8>, SignedError> {
        if self.payload.len() > MAX_PAYLOAD {
            return Err(SignedError::Malformed("it is too large"));
        }
        STANDARD
            .decode(&self.payload)
            .map_err(|_| SignedError::Malformed("its payload is not base64"))
    }

    /// The certificates that came along, leaf first.
    ///
    /// # Errors
    /// [`SignedError::Malformed`].
    pub fn chain(&self) -> Result<Vec<CertificateDer<'static>>, SignedError> {
        self.signature()?
            .chain
            .iter()
            .map(|text| STANDARD.decode(text).map(CertificateDer::from))
            .collect::<Result<_, _>>()
            .map_err(|_| SignedError::Malformed("a certificate is not base64"))
    }

    fn signature(&self) -> Result<&Signature, SignedError> {
        match self.signatures.as_slice() {
            [one] => Ok(one),
            _ => Err(SignedError::Malformed("it must have one signature")),
        }
    }

    /// Checks type, signer and signature as of `at`, the time at which it says it was signed, and gives back the
    /// document.
    ///
    /// # Errors
    /// [`SignedError`].
    pub fn verify(
        &self,
        payload_type: &str,
        bundles: &BundleSet,
        at: SystemTime,
        expected: &ExpectedPeer,
    ) -> Result<(Vec<u8>, PeerIdentity), SignedError> {
        if self.payload_type != payload_type {
            return Err(SignedError::WrongType {
                expected: payload_type.to_owned(),
                found: crate::error::shown(&self.payload_type),
            });
        }
        let payload = self.unverified()?;
        let chain = self.chain()?;
        let signer = verify_expected(&chain, bundles, at, expected)?;
        let leaf = chain
            .first()
            .and_then(|leaf| EndEntityCert::try_from(leaf).ok())
            .ok_or(SignedError::Malformed("its signer has no certificate"))?;
        let signature = STANDARD
            .decode(&self.signature()?.sig)
            .map_err(|_| SignedError::Malformed("its signature is not base64"))?;
        let message = encoded(payload_type, &payload);
        let good = crate::tls::signature_algorithms()
            .all
            .iter()
            .any(|algorithm| {
                leaf.verify_signature(*algorithm, &message, &signature)
                    .is_ok()
            });
        match good {
            true => Ok((payload, signer)),
            false => Err(SignedError::BadSignature),
        }
    }
}

/// DSSE's pre-authentication encoding: `DSSEv1 <len> <type> <len> <body>`.
pub(crate) fn encoded(payload_type: &str, payload: &[u8]) -> Vec<u8> {
    let mut out = format!(
        "DSSEv1 {} {payload_type} {} ",
        payload_type.len(),
        payload.len()
    )
    .into_bytes();
    out.extend_from_slice(payload);
    out
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;
    use crate::testing::{Ca, INVOICES, ORDERS, hours, id, now};

    const KIND: &str = "application/vnd.weft.test+json";

    #[test]
    fn a_signed_document_is_believed_only_whole_of_its_kind_and_from_its_signer() {
        let root = Ca::root("weft.local");
        let issuing = root.issuing();
        let document =
            SignedDocument::sign(KIND, b"{\"n\":1}", &issuing.svid(INVOICES), Some(&root.der))
                .unwrap();
        let read = SignedDocument::parse(&document.to_json()).unwrap();
        let expected = ExpectedPeer::One(id(INVOICES));
        let check =
            |document: &SignedDocument, kind: &str, bundles: &BundleSet, who: &ExpectedPeer| {
                document
                    .verify(kind, bundles, now(), who)
                    .map(|(body, _)| body)
            };
        let bundles = root.bundles();
        assert_eq!(
            check(&read, KIND, &bundles, &expected).unwrap(),
            b"{\"n\":1}"
        );
        assert_eq!(read.chain().unwrap().len(), 3, "leaf, issuing and root");

        let changed = SignedDocument {
            payload: STANDARD.encode(b"{\"n\":2}"),
            ..read.clone()
        };
        assert_eq!(
            check(&changed, KIND, &bundles, &expected),
            Err(SignedError::BadSignature)
        );
        assert!(matches!(
            check(&read, "application/other", &bundles, &expected),
            Err(SignedError::WrongType { .. })
        ));
        let renamed = SignedDocument {
            payload_type: "application/other".into(),
            ..read.clone()
        };
        assert_eq!(
            check(&renamed, "application/other", &bundles, &expected),
            Err(SignedError::BadSignature),
            "the type is signed too"
        );
        assert!(matches!(
            check(&read, KIND, &Ca::root("weft.local").bundles(), &expected),
            Err(SignedError::Signer(VerifyError::UnknownAuthority { .. }))
        ));
        assert!(matches!(
            check(&read, KIND, &bundles, &ExpectedPeer::One(id(ORDERS))),
            Err(SignedError::Signer(VerifyError::WrongIdentity { .. }))
        ));
        assert!(matches!(
            read.verify(KIND, &bundles, now() + hours(2), &expected),
            Err(SignedError::Signer(VerifyError::Expired { .. }))
        ));
    }
}
