//! An X509-SVID: a certificate chain and the private key of its leaf.

use std::fmt;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use rustls::pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer};
use rustls::sign::CertifiedKey;
use zeroize::Zeroizing;

use crate::{BundleSet, Error, SpiffeId, Usage, VerifyError, der, verify};

/// How far issuers set the begin of a leaf back, for peers whose clocks are behind (`weft-ca`).
const BACKDATED: Duration = Duration::from_secs(60);

/// A PKCS#8 private key in DER. Wiped from memory when dropped; never shown.
#[derive(Clone)]
pub struct PrivateKey(Zeroizing<Vec<u8>>);

impl PrivateKey {
    /// The PKCS#8 bytes, for whoever has to store or load the key.
    pub fn secret_der(&self) -> &[u8] {
        &self.0
    }
}

impl From<Zeroizing<Vec<u8>>> for PrivateKey {
    fn from(der: Zeroizing<Vec<u8>>) -> Self {
        Self(der)
    }
}

impl From<Vec<u8>> for PrivateKey {
    fn from(der: Vec<u8>) -> Self {
        Self(Zeroizing::new(der))
    }
}

impl fmt::Debug for PrivateKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("PrivateKey(redacted)")
    }
}

/// An identity that can be presented: the chain to send (leaf first, root not needed) and its key.
///
/// One that exists has passed the leaf rules of X509-SVID, and its key fits its leaf. Whether a trust bundle
/// vouches for it is another question: [`X509Svid::validate`].
#[derive(Clone)]
pub struct X509Svid {
    leaf: der::Leaf,
    chain: Vec<CertificateDer<'static>>,
    key: PrivateKey,
    certified: Arc<CertifiedKey>,
}

impl X509Svid {
    /// Takes a chain (leaf first, then its issuers) and the leaf's private key in PKCS#8 DER.
    ///
    /// # Errors
    /// [`Error::Svid`] if the chain breaks a rule of X509-SVID; [`Error::Key`] if the key cannot be read or is not
    /// the leaf's.
    pub fn new(
        chain: Vec<CertificateDer<'static>>,
        key: impl Into<PrivateKey>,
    ) -> Result<Self, Error> {
        let key = key.into();
        let leaf = der::leaf(chain.first().ok_or(VerifyError::NoCertificate)?)?;
        for issuer in &chain[1..] {
            der::check_issuer(&der::parse(issuer)?).map_err(|reason| VerifyError::BadChain {
                id: leaf.id.clone(),
                reason: reason.to_owned(),
            })?;
        }
        let certified = certified(&leaf.id, &chain, &key)?;
        Ok(Self {
            leaf,
            chain,
            key,
            certified,
        })
    }

    /// Checks that the bundles vouch for this identity at `now`, as a server and as a client: to be done before
    /// it is presented to anyone.
    ///
    /// # Errors
    /// What a peer with the same bundles would answer.
    pub fn validate(&self, bundles: &BundleSet, now: SystemTime) -> Result<(), VerifyError> {
        verify::verify_chain(&self.chain, bundles, now, Usage::Server)?;
        verify::verify_chain(&self.chain, bundles, now, Usage::Client).map(drop)
    }

    /// Who this is.
    pub fn id(&self) -> &SpiffeId {
        &self.leaf.id
    }

    /// The chain as it is sent: leaf first.
    pub fn chain(&self) -> &[CertificateDer<'static>] {
        &self.chain
    }

    /// The private key.
    pub fn private_key(&self) -> &PrivateKey {
        &self.key
    }

    /// Begin of the leaf's validity, a little before its issue.
    pub fn not_before(&self) -> SystemTime {
        self.leaf.not_before
    }

    /// End of the leaf's validity.
    pub fn not_after(&self) -> SystemTime {
        self.leaf.not_after
    }

    /// Half of the life that was left when it was issued: to be renewed so long before its end. Issuers set its
    /// begin back a little, and of a short life that little is most: counting it would make a leaf of a minute
    /// due at the moment of its issue.
    pub fn half_life(&self) -> Duration {
        let life = self.not_after().duration_since(self.not_before());
        let life = life.unwrap_or_default();
        let left = life.checked_sub(BACKDATED).filter(|left| !left.is_zero());
        left.unwrap_or(life) / 2
    }

    /// The leaf's serial number in lower case hexadecimal.
    pub fn serial(&self) -> &str {
        &self.leaf.serial
    }

    /// SHA-256 of the leaf's public key: what a revocation by key names.
    pub fn key_pin(&self) -> crate::RootPin {
        self.leaf.key
    }

    /// Serial number of the certificate that issued the leaf; `None` if the chain has the leaf only.
    pub fn issuer_serial(&self) -> Option<String> {
        der::serial_of(self.chain.get(1)?).ok()
    }

    /// What rustls presents.
    pub(crate) fn certified(&self) -> &Arc<CertifiedKey> {
        &self.certified
    }
}

fn certified(
    id: &SpiffeId,
    chain: &[CertificateDer<'static>],
    key: &PrivateKey,
) -> Result<Arc<CertifiedKey>, Error> {
    let fail = |reason: String| Error::Key {
        id: id.clone(),
        reason,
    };
    let der = PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(key.secret_der()));
    let signer = rustls::crypto::aws_lc_rs::sign::any_supported_type(&der)
        .map_err(|_| fail("it is not a PKCS#8 key of a kind that is supported".to_owned()))?;
    let certified = CertifiedKey::new(chain.to_vec(), signer);
    certified
        .keys_match()
        .map_err(|_| fail("it is not the key of the certificate".to_owned()))?;
    Ok(Arc::new(certified))
}

impl fmt::Debug for X509Svid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("X509Svid")
            .field("id", &self.leaf.id)
            .field("serial", &self.leaf.serial)
            .field("not_after", &der::rfc3339(self.leaf.not_after))
            .field("chain", &format_args!("{} certificates", self.chain.len()))
            .field("key", &self.key)
            .finish()
    }
}

#[cfg(test)]
#[path = "svid_tests.rs"]
mod tests;
