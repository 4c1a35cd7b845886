//! An SVID as PEM: how it is saved, and how other tools read it (RFC 7468).

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use rustls::pki_types::pem::{self, PemObject};
use rustls::pki_types::{CertificateDer, PrivatePkcs8KeyDer};
use zeroize::Zeroizing;

use crate::{Error, X509Svid};

/// A saved SVID is a few kilobytes; whatever is larger is not one.
const MAX_PEM: usize = 256 * 1024;
/// Leaf, issuing CAs, root: ten is already generous.
const MAX_CERTIFICATES: usize = 10;

impl X509Svid {
    /// Chain (leaf first) and PKCS#8 key in one PEM text. It holds the private key: store it with mode 0600.
    pub fn to_pem(&self) -> Zeroizing<String> {
        let mut text = Zeroizing::new(String::with_capacity(8 * 1024));
        for certificate in self.chain() {
            push_block(&mut text, "CERTIFICATE", certificate.as_ref());
        }
        push_block(&mut text, "PRIVATE KEY", self.private_key().secret_der());
        text
    }

    /// Only the chain, which is not secret.
    pub fn chain_pem(&self) -> String {
        let mut text = String::new();
        for certificate in self.chain() {
            push_block(&mut text, "CERTIFICATE", certificate.as_ref());
        }
        text
    }

    /// Only the private key (PKCS#8): never to be shown or logged.
    pub fn key_pem(&self) -> Zeroizing<String> {
        // Room for the whole of it: a text that grows would leave copies behind.
        let mut text = Zeroizing::new(String::with_capacity(4 * 1024));
        push_block(&mut text, "PRIVATE KEY", self.private_key().secret_der());
        text
    }

    /// Reads what [`to_pem`](Self::to_pem) wrote, or a chain and a PKCS#8 key from elsewhere.
    ///
    /// # Errors
    /// [`Error::Pem`] if the text does not hold certificates and exactly one key; else as [`X509Svid::new`].
    pub fn from_pem(text: &str) -> Result<Self, Error> {
        let fail = |reason: &str| Error::Pem {
            reason: reason.to_owned(),
        };
        if text.len() > MAX_PEM {
            return Err(fail("it is larger than 256 KiB"));
        }
        let mut chain = Vec::new();
        for certificate in CertificateDer::pem_slice_iter(text.as_bytes()) {
            chain.push(certificate.map_err(|e| fail(&words(&e)))?);
            if chain.len() > MAX_CERTIFICATES {
                return Err(fail("it has more than 10 certificates"));
            }
        }
        if chain.is_empty() {
            return Err(fail("it has no CERTIFICATE block"));
        }
        let mut keys = PrivatePkcs8KeyDer::pem_slice_iter(text.as_bytes());
        let key = match (keys.next(), keys.next()) {
            (Some(Ok(key)), None) => Zeroizing::new(key.secret_pkcs8_der().to_vec()),
            (Some(Ok(_)), Some(_)) => return Err(fail("it has more than one PRIVATE KEY block")),
            (Some(Err(e)), _) => return Err(fail(&words(&e))),
            (None, _) => return Err(fail("it has no PRIVATE KEY block (PKCS#8)")),
        };
        Self::new(chain, key)
    }
}

/// The parser's own words show its bytes.
fn words(error: &pem::Error) -> String {
    match error {
        pem::Error::MissingSectionEnd { .. } => "a block of it is cut off".to_owned(),
        pem::Error::IllegalSectionStart { .. } => "a block of it begins wrongly".to_owned(),
        pem::Error::Base64Decode(_) => "a block of it is not Base64".to_owned(),
        other => other.to_string(),
    }
}

/// RFC 7468 §3: lines of 64 characters.
pub(crate) fn push_block(text: &mut String, label: &str, der: &[u8]) {
    let body = Zeroizing::new(STANDARD.encode(der));
    text.push_str(&format!("-----BEGIN {label}-----\n"));
    for start in (0..body.len()).step_by(64) {
        text.push_str(&body[start..body.len().min(start + 64)]);
        text.push('\n');
    }
    text.push_str(&format!("-----END {label}-----\n"));
}
