//! A private key in memory.

use std::fmt;
use std::str::FromStr;

use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::signature::{
    ECDSA_P256_SHA256_ASN1_SIGNING, ECDSA_P384_SHA384_ASN1_SIGNING, EcdsaKeyPair,
    EcdsaSigningAlgorithm, Ed25519KeyPair, KeyPair,
};
use rcgen::{
    PKCS_ECDSA_P256_SHA256, PKCS_ECDSA_P384_SHA384, PKCS_ED25519, PublicKeyData,
    SignatureAlgorithm, SigningKey,
};
use serde::{Deserialize, Serialize};
use zeroize::Zeroizing;

use super::Sign;
use crate::Error;

/// Kind of a private key. P-256 unless there is a reason: every peer and every module knows it.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum KeyType {
    /// ECDSA on P-256, with SHA-256.
    #[default]
    P256,
    /// ECDSA on P-384, with SHA-384.
    P384,
    /// Ed25519.
    Ed25519,
}

impl FromStr for KeyType {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text.to_ascii_lowercase().as_str() {
            "p256" | "p-256" => Ok(Self::P256),
            "p384" | "p-384" => Ok(Self::P384),
            "ed25519" => Ok(Self::Ed25519),
            _ => Err("a key is of type p256, p384 or ed25519".to_owned()),
        }
    }
}

impl fmt::Display for KeyType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::P256 => "p256",
            Self::P384 => "p384",
            Self::Ed25519 => "ed25519",
        })
    }
}

/// A private key in memory, for authorities and for the identities of nodes.
///
/// The bytes are wiped when dropped; `Debug` shows nothing of them.
pub struct SoftKey {
    kind: KeyType,
    pair: Pair,
    pkcs8: Zeroizing<Vec<u8>>,
}

enum Pair {
    Ecdsa(EcdsaKeyPair),
    Ed25519(Ed25519KeyPair),
}

impl SoftKey {
    /// Makes a new key from the system's randomness.
    ///
    /// # Errors
    /// [`Error::Crypto`], which does not happen on a healthy system.
    pub fn generate(kind: KeyType) -> Result<Self, Error> {
        let failed = |reason: &str| Error::Crypto {
            what: "private key",
            reason: reason.to_owned(),
        };
        let rng = SystemRandom::new();
        let document = match kind {
            KeyType::P256 => EcdsaKeyPair::generate_pkcs8(&ECDSA_P256_SHA256_ASN1_SIGNING, &rng),
            KeyType::P384 => EcdsaKeyPair::generate_pkcs8(&ECDSA_P384_SHA384_ASN1_SIGNING, &rng),
            KeyType::Ed25519 => Ed25519KeyPair::generate_pkcs8(&rng),
        }
        .map_err(|_| failed("the system gives no randomness"))?;
        let pkcs8 = Zeroizing::new(document.as_ref().to_vec());
        Self::from_pkcs8(pkcs8).ok_or_else(|| failed("the new key cannot be read back"))
    }

    /// Reads PKCS#8; `None` if it is a key of no known kind.
    pub fn from_pkcs8(pkcs8: Zeroizing<Vec<u8>>) -> Option<Self> {
        let ecdsa = |algorithm: &'static EcdsaSigningAlgorithm| {
            EcdsaKeyPair::from_pkcs8(algorithm, &pkcs8).map(Pair::Ecdsa)
        };
        let (kind, pair) = if let Ok(pair) = ecdsa(&ECDSA_P256_SHA256_ASN1_SIGNING) {
            (KeyType::P256, pair)
        } else if let Ok(pair) = ecdsa(&ECDSA_P384_SHA384_ASN1_SIGNING) {
            (KeyType::P384, pair)
        } else {
            let pair = Ed25519KeyPair::from_pkcs8(&pkcs8).ok()?;
            (KeyType::Ed25519, Pair::Ed25519(pair))
        };
        Some(Self { kind, pair, pkcs8 })
    }

    /// Of which kind it is.
    pub fn kind(&self) -> KeyType {
        self.kind
    }

    /// The key as PKCS#8 DER.
    pub fn pkcs8(&self) -> &Zeroizing<Vec<u8>> {
        &self.pkcs8
    }
}

impl fmt::Debug for SoftKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "SoftKey({}, redacted)", self.kind)
    }
}

impl PublicKeyData for SoftKey {
    fn der_bytes(&self) -> &[u8] {
        match &self.pair {
            Pair::Ecdsa(pair) => pair.public_key().as_ref(),
            Pair::Ed25519(pair) => pair.public_key().as_ref(),
        }
    }

    fn algorithm(&self) -> &'static SignatureAlgorithm {
        match self.kind {
            KeyType::P256 => &PKCS_ECDSA_P256_SHA256,
            KeyType::P384 => &PKCS_ECDSA_P384_SHA384,
            KeyType::Ed25519 => &PKCS_ED25519,
        }
    }
}

impl Sign for SoftKey {
    fn signature(&self, message: &[u8]) -> Result<Vec<u8>, Error> {
        self.sign(message).map_err(Error::crypto("signature"))
    }
}

impl SigningKey for SoftKey {
    fn sign(&self, message: &[u8]) -> Result<Vec<u8>, rcgen::Error> {
        match &self.pair {
            Pair::Ecdsa(pair) => pair
                .sign(&SystemRandom::new(), message)
                .map(|signature| signature.as_ref().to_vec())
                .map_err(|_| rcgen::Error::RemoteKeyError),
            Pair::Ed25519(pair) => Ok(pair.sign(message).as_ref().to_vec()),
        }
    }
}
