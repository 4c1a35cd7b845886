//! The pin of a root: how a joiner recognises the authority before it trusts anything.

use std::fmt;
use std::str::FromStr;

use rustls::pki_types::CertificateDer;
use serde::{Deserialize, Serialize};

use crate::error::shown;
use crate::{Error, VerifyError, der};

const PREFIX: &str = "sha256:";

/// SHA-256 of a root's SubjectPublicKeyInfo, as text `sha256:<64 hexadecimal digits>`.
///
/// The pin is of the key, not of the certificate: it survives a root that is renewed with the same key.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(into = "String", try_from = "String")]
pub struct RootPin([u8; 32]);

impl RootPin {
    /// The pin of this certificate's key.
    ///
    /// # Errors
    /// [`VerifyError::BadCertificate`] if it is not a certificate.
    pub fn of(certificate: &CertificateDer<'_>) -> Result<Self, VerifyError> {
        der::spki_sha256(certificate).map(Self)
    }

    /// Whether this certificate has the pinned key.
    pub fn matches(&self, certificate: &CertificateDer<'_>) -> bool {
        Self::of(certificate).is_ok_and(|pin| pin == *self)
    }

    /// Reads `sha256:<64 hexadecimal digits>`; upper case digits are accepted.
    ///
    /// # Errors
    /// [`Error::Pin`].
    pub fn parse(text: &str) -> Result<Self, Error> {
        let bytes = text.strip_prefix(PREFIX).and_then(unhex);
        bytes
            .map(Self)
            .ok_or_else(|| Error::Pin { text: shown(text) })
    }
}

fn unhex(digits: &str) -> Option<[u8; 32]> {
    if digits.len() != 64 || !digits.is_ascii() {
        return None;
    }
    let nibble = |b: u8| {
        char::from(b)
            .to_digit(16)
            .and_then(|n| u8::try_from(n).ok())
    };
    let mut bytes = [0; 32];
    for (byte, pair) in bytes.iter_mut().zip(digits.as_bytes().chunks_exact(2)) {
        *byte = nibble(pair[0])? << 4 | nibble(pair[1])?;
    }
    Some(bytes)
}

impl fmt::Display for RootPin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{PREFIX}{}", der::hex(&self.0))
    }
}

impl fmt::Debug for RootPin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl FromStr for RootPin {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self, Error> {
        Self::parse(text)
    }
}

impl From<[u8; 32]> for RootPin {
    fn from(hash: [u8; 32]) -> Self {
        Self(hash)
    }
}

impl From<RootPin> for String {
    fn from(pin: RootPin) -> Self {
        pin.to_string()
    }
}

impl TryFrom<String> for RootPin {
    type Error = Error;

    fn try_from(text: String) -> Result<Self, Error> {
        Self::parse(&text)
    }
}
