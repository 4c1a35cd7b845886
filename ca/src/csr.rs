//! Certificate requests (PKCS #10): making one, and what the authority takes from one.

use aws_lc_rs::signature::{
    ECDSA_P256_SHA256_ASN1, ECDSA_P384_SHA384_ASN1, ED25519, UnparsedPublicKey,
    VerificationAlgorithm,
};
use rcgen::string::Ia5String;
use rcgen::{
    CertificateParams, DistinguishedName, PublicKeyData, SanType, SignatureAlgorithm,
    SubjectPublicKeyInfo,
};
use weft_certs::{RootPin, SpiffeId};
use x509_parser::certification_request::X509CertificationRequest;
use x509_parser::prelude::FromDer;
use zeroize::Zeroizing;

use crate::{Error, KeyType, SoftKey};

/// A request for one P-256 key is 300 bytes.
const MAX_CSR: usize = 16 * 1024;

/// A kind of key, and the one way in which it may sign a request (RFC 5758 §3.2, RFC 8410 §3).
struct Kind {
    key: &'static SignatureAlgorithm,
    oid: &'static str,
    verify: &'static dyn VerificationAlgorithm,
}

fn kinds() -> [Kind; 3] {
    [
        Kind {
            key: &rcgen::PKCS_ECDSA_P256_SHA256,
            oid: "1.2.840.10045.4.3.2",
            verify: &ECDSA_P256_SHA256_ASN1,
        },
        Kind {
            key: &rcgen::PKCS_ECDSA_P384_SHA384,
            oid: "1.2.840.10045.4.3.3",
            verify: &ECDSA_P384_SHA384_ASN1,
        },
        Kind {
            key: &rcgen::PKCS_ED25519,
            oid: "1.3.101.112",
            verify: &ED25519,
        },
    ]
}

/// A fresh key and the request that proves its possession.
pub struct NewKey {
    /// The request, DER.
    pub csr: Vec<u8>,
    /// The private key, PKCS#8 DER; it goes into the SVID together with the chain that comes back.
    pub key: Zeroizing<Vec<u8>>,
}

impl std::fmt::Debug for NewKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("NewKey")
            .field("csr", &self.csr.len())
            .field("key", &"redacted")
            .finish()
    }
}

/// Makes a P-256 key and a request for it. Each SVID gets a key of its own, made where it is used.
///
/// The hint is written into the request for people who read it; the authority decides by what it attested.
///
/// # Errors
/// [`Error::Crypto`], which does not happen on a healthy system.
pub fn make_csr(hint: Option<&SpiffeId>) -> Result<NewKey, Error> {
    let key = SoftKey::generate(KeyType::P256)?;
    let mut params = CertificateParams::default();
    params.distinguished_name = DistinguishedName::new();
    if let Some(id) = hint {
        let uri = Ia5String::try_from(id.as_str()).map_err(Error::crypto("certificate request"))?;
        params.subject_alt_names = vec![SanType::URI(uri)];
    }
    let request = params
        .serialize_request(&key)
        .map_err(Error::crypto("certificate request"))?;
    Ok(NewKey {
        csr: request.der().to_vec(),
        key: key.pkcs8().clone(),
    })
}

/// The public key of a request whose sender has proven to hold the private one. Nothing else is taken from it.
pub(crate) fn verified_key(csr: &[u8]) -> Result<SubjectPublicKeyInfo, Error> {
    let refuse = |reason| Error::Csr { reason };
    if csr.len() > MAX_CSR {
        return Err(refuse("it is larger than 16 KiB"));
    }
    let (rest, request) = X509CertificationRequest::from_der(csr)
        .map_err(|_| refuse("it is not a PKCS #10 request in DER"))?;
    if !rest.is_empty() {
        return Err(refuse("there are bytes behind it"));
    }
    let info = &request.certification_request_info;
    let unknown = || refuse("its key is not a P-256, P-384 or Ed25519 key");
    let key = SubjectPublicKeyInfo::from_der(info.subject_pki.raw).map_err(|_| unknown())?;
    let kind = kinds()
        .into_iter()
        .find(|kind| kind.key == key.algorithm())
        .ok_or_else(unknown)?;
    if request.signature_algorithm.algorithm.to_id_string() != kind.oid {
        return Err(refuse("it is not signed in the way that fits its key"));
    }
    // RFC 2986 §3: signed with the very key that is to be certified.
    UnparsedPublicKey::new(kind.verify, key.der_bytes())
        .verify(info.raw, &request.signature_value.data)
        .map_err(|_| refuse("its signature does not prove possession of the key"))?;
    Ok(key)
}

/// SHA-256 of the public key of a request whose sender has proven to hold the private one.
///
/// # Errors
/// [`Error::Csr`].
pub fn key_of_request(csr: &[u8]) -> Result<RootPin, Error> {
    let key = verified_key(csr)?;
    let digest =
        aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA256, &key.subject_public_key_info());
    let hash: [u8; 32] = digest
        .as_ref()
        .try_into()
        .expect("SHA-256 is 32 bytes long");
    Ok(RootPin::from(hash))
}

#[cfg(test)]
#[path = "csr_tests.rs"]
mod tests;
