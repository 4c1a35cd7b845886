//! A new key, and the request for a certificate of it.

use std::collections::BTreeMap;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use rcgen::{CertificateParams, DistinguishedName, KeyPair, PKCS_ECDSA_P256_SHA256};
use serde_json::Value;
use weft_certs::{BundleSet, CertificateDer, PrivateKey, TrustBundle, TrustDomain, X509Svid};
use weft_wire::JoinResponse;
use zeroize::Zeroizing;

/// A key that has no certificate yet. It never leaves this process but into the state directory.
pub(crate) struct Pending {
    key: PrivateKey,
    /// PKCS#10 in standard base64, as the wire carries it.
    pub(crate) csr: String,
    /// The same as DER.
    pub(crate) der: Vec<u8>,
}

impl Pending {
    /// Makes a key pair (P-256) and signs a request with it. The request names nobody: who it is for
    /// follows from the token or from the connection.
    pub(crate) fn generate() -> Result<Self, String> {
        let pair = KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256).map_err(|e| e.to_string())?;
        let mut params = CertificateParams::default();
        params.distinguished_name = DistinguishedName::new();
        let request = params.serialize_request(&pair).map_err(|e| e.to_string())?;
        Ok(Self {
            csr: STANDARD.encode(request.der()),
            der: request.der().to_vec(),
            key: PrivateKey::from(Zeroizing::new(pair.serialize_der())),
        })
    }

    /// The SVID that the answer makes of the key, and the bundles that came along. The reason if the
    /// answer is not one.
    pub(crate) fn complete(self, answer: &JoinResponse) -> Result<(X509Svid, BundleSet), String> {
        let chain = answer
            .chain
            .iter()
            .map(|der| STANDARD.decode(der).map(CertificateDer::from))
            .collect::<Result<Vec<_>, _>>()
            .map_err(|error| format!("a certificate is not base64: {error}"))?;
        let svid = X509Svid::new(chain, self.key).map_err(|error| error.to_string())?;
        Ok((svid, bundles(&answer.bundles)?))
    }
}

/// The trust bundles of an answer.
pub(crate) fn bundles(jwks: &BTreeMap<String, Value>) -> Result<BundleSet, String> {
    jwks.iter()
        .map(|(name, jwks)| {
            let domain = TrustDomain::parse(name)?;
            TrustBundle::from_jwks(domain, jwks)
        })
        .collect::<Result<_, weft_certs::Error>>()
        .map_err(|error| error.to_string())
}
