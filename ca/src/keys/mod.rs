//! Where the authority's private keys live: a seam, so that a hardware module or a cloud KMS can stand there.

mod file;
mod memory;

use std::fmt;
use std::sync::Arc;

use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::signature::{ECDSA_P256_SHA256_ASN1_SIGNING, EcdsaKeyPair, KeyPair};
use rcgen::{PKCS_ECDSA_P256_SHA256, PublicKeyData, SignatureAlgorithm, SigningKey};
use serde::{Deserialize, Serialize};
use zeroize::Zeroizing;

pub use file::FileKeyStore;
pub use memory::MemoryKeyStore;

use crate::Error;

/// The name of a key in its store, such as `issuing-2`. It is also a file name: lower case letters, digits, dashes.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(into = "String", try_from = "String")]
pub struct KeyId(String);

impl KeyId {
    /// Takes a name.
    ///
    /// # Errors
    /// [`Error::Journal`] for one that could leave the directory or confuse a shell.
    pub fn new(name: impl Into<String>) -> Result<Self, Error> {
        let name = name.into();
        let legal = |b: u8| matches!(b, b'a'..=b'z' | b'0'..=b'9' | b'-');
        match (1..=64).contains(&name.len()) && name.bytes().all(legal) && !name.starts_with('-') {
            true => Ok(Self(name)),
            false => Err(Error::Journal {
                reason: "it has a key name with characters that keys do not have".into(),
            }),
        }
    }

    /// The name.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for KeyId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl From<KeyId> for String {
    fn from(id: KeyId) -> Self {
        id.0
    }
}

impl TryFrom<String> for KeyId {
    type Error = Error;

    fn try_from(name: String) -> Result<Self, Error> {
        Self::new(name)
    }
}

/// Something that signs with one private key and shows the public one.
pub type Signer = Arc<dyn SigningKey + Send + Sync>;

/// Holds private keys by name. Synchronous: the shell calls it where blocking is allowed.
pub trait KeyStore: Send + Sync {
    /// Makes a P-256 key, keeps it durably, and returns its signer.
    ///
    /// # Errors
    /// [`Error::KeyExists`], or what the store's medium says.
    fn generate(&self, id: &KeyId) -> Result<Signer, Error>;

    /// The signer of a key that was made earlier.
    ///
    /// # Errors
    /// [`Error::KeyMissing`]; or that the key is not safe to use.
    fn signer(&self, id: &KeyId) -> Result<Signer, Error>;

    /// Destroys a key. One that is not there counts as destroyed.
    ///
    /// # Errors
    /// What the store's medium says.
    fn remove(&self, id: &KeyId) -> Result<(), Error>;
}

/// A P-256 private key in memory, for authorities and for the identities of nodes.
///
/// The bytes are wiped when dropped; `Debug` shows nothing of them.
pub struct P256Key {
    pair: EcdsaKeyPair,
    pkcs8: Zeroizing<Vec<u8>>,
}

impl P256Key {
    /// Makes a new key from the system's randomness.
    ///
    /// # Errors
    /// [`Error::Crypto`], which does not happen on a healthy system.
    pub fn generate() -> Result<Self, Error> {
        let failed = |reason: String| Error::Crypto {
            what: "private key",
            reason,
        };
        let document =
            EcdsaKeyPair::generate_pkcs8(&ECDSA_P256_SHA256_ASN1_SIGNING, &SystemRandom::new())
                .map_err(|e| failed(e.to_string()))?;
        let pkcs8 = Zeroizing::new(document.as_ref().to_vec());
        Self::from_pkcs8(pkcs8).ok_or_else(|| failed("the new key cannot be read back".to_owned()))
    }

    /// Reads PKCS#8; `None` if it is not a P-256 key.
    pub fn from_pkcs8(pkcs8: Zeroizing<Vec<u8>>) -> Option<Self> {
        let pair = EcdsaKeyPair::from_pkcs8(&ECDSA_P256_SHA256_ASN1_SIGNING, &pkcs8).ok()?;
        Some(Self { pair, pkcs8 })
    }

    /// The key as PKCS#8 DER.
    pub fn pkcs8(&self) -> &Zeroizing<Vec<u8>> {
        &self.pkcs8
    }
}

impl fmt::Debug for P256Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("P256Key(redacted)")
    }
}

impl PublicKeyData for P256Key {
    fn der_bytes(&self) -> &[u8] {
        self.pair.public_key().as_ref()
    }

    fn algorithm(&self) -> &'static SignatureAlgorithm {
        &PKCS_ECDSA_P256_SHA256
    }
}

impl SigningKey for P256Key {
    fn sign(&self, message: &[u8]) -> Result<Vec<u8>, rcgen::Error> {
        let signature = self.pair.sign(&SystemRandom::new(), message);
        signature
            .map(|s| s.as_ref().to_vec())
            .map_err(|_| rcgen::Error::RemoteKeyError)
    }
}
