//! A machine's own certificate, of an authority that is not the mesh's, as a proof of who joins.
//!
//! It is no SVID: only the path to a root of the operator's choice, its time and its use are judged here. What it is
//! allowed to become is for the operator's rules. The joiner signs a [`JoinStatement`] with the certificate's key.

use std::fmt;
use std::sync::Arc;
use std::time::SystemTime;

use rustls::SignatureScheme;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::sign::{CertifiedKey, SigningKey};
use webpki::EndEntityCert;
use x509_parser::certificate::X509Certificate;
use x509_parser::extensions::GeneralName;
use zeroize::Zeroizing;

use crate::path::{MAX_CHAIN, PathCheck, PathError, check_validity};
use crate::signed::encoded;
use crate::{RootPin, TrustDomain, Usage, der};

/// What is signed is of this kind, and never good for anything else (DSSE's encoding).
const STATEMENT: &str = "application/vnd.weft.join";
/// In the order of preference; a machine's key fits one of them.
const SCHEMES: [SignatureScheme; 7] = [
    SignatureScheme::ECDSA_NISTP256_SHA256,
    SignatureScheme::ECDSA_NISTP384_SHA384,
    SignatureScheme::ECDSA_NISTP521_SHA512,
    SignatureScheme::ED25519,
    SignatureScheme::RSA_PSS_SHA256,
    SignatureScheme::RSA_PSS_SHA384,
    SignatureScheme::RSA_PSS_SHA512,
];
/// Names of one certificate that are looked at; a machine has a few.
const MAX_NAMES: usize = 64;

/// What a joiner signs: that it wants this one key certified, by this mesh, on this one occasion. Nobody can use the
/// signature elsewhere, for another key, or again.
#[derive(Debug, Clone, Copy)]
pub struct JoinStatement<'a> {
    /// The mesh.
    pub trust_domain: &'a TrustDomain,
    /// The root by which the joiner has recognised the control node.
    pub pin: &'a RootPin,
    /// What the control node chose, good for one use.
    pub challenge: &'a str,
    /// The certificate request, DER.
    pub csr: &'a [u8],
}

impl JoinStatement<'_> {
    fn bytes(&self) -> Vec<u8> {
        let csr = der::hex(&der::sha256(self.csr));
        let (domain, pin, challenge) = (self.trust_domain, self.pin, self.challenge);
        encoded(
            STATEMENT,
            format!("{domain}\n{pin}\n{challenge}\nsha256:{csr}\n").as_bytes(),
        )
    }
}

/// A machine's certificate with its key, in the hands of the joiner.
#[derive(Clone)]
pub struct MachineIdentity {
    chain: Vec<CertificateDer<'static>>,
    key: Arc<dyn SigningKey>,
}

impl fmt::Debug for MachineIdentity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("MachineIdentity")
            .field("chain", &format_args!("{} certificates", self.chain.len()))
            .finish_non_exhaustive()
    }
}

impl MachineIdentity {
    /// From a chain (PEM, leaf first) and the leaf's private key (PEM: PKCS#8, SEC1 or PKCS#1, not encrypted).
    ///
    /// # Errors
    /// In words, without a word of the key.
    pub fn from_pem(chain: &[u8], key: &[u8]) -> Result<Self, String> {
        let chain = crate::certificates(chain).map_err(|error| error.to_string())?;
        let key = PrivateKeyDer::from_pem_slice(key)
            .map(Zeroizing::new)
            .map_err(|_| "there is no private key in PEM, not encrypted, in the key file")?;
        let key = rustls::crypto::aws_lc_rs::sign::any_supported_type(&key)
            .map_err(|_| "the private key is not of a kind that is supported (EC, RSA, Ed25519)")?;
        CertifiedKey::new(chain.clone(), Arc::clone(&key))
            .keys_match()
            .map_err(|_| "the private key is not that of the first certificate")?;
        Ok(Self { chain, key })
    }

    /// The chain as it is sent: leaf first.
    #[must_use]
    pub fn chain(&self) -> &[CertificateDer<'static>] {
        &self.chain
    }

    /// Signs a statement.
    ///
    /// # Errors
    /// In words, which does not happen with a key that [`from_pem`](Self::from_pem) takes.
    pub fn prove(&self, statement: &JoinStatement<'_>) -> Result<Vec<u8>, String> {
        let signer = self
            .key
            .choose_scheme(&SCHEMES)
            .ok_or("the private key is of no kind that can sign here")?;
        signer
            .sign(&statement.bytes())
            .map_err(|error| format!("the private key does not sign: {error}"))
    }
}

/// What a machine's certificate says, once a root vouches for it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Machine {
    /// URI names, as they stand there.
    pub uris: Vec<String>,
    /// DNS names, in lower case.
    pub dns: Vec<String>,
    /// The subject's common name, if it has exactly one.
    pub common_name: Option<String>,
    /// SHA-256 of the certificate, as `sha256:<64 hexadecimal digits>`.
    pub fingerprint: String,
    /// SHA-256 of its public key.
    pub key: RootPin,
    /// Its serial number, lower case hexadecimal.
    pub serial: String,
}

/// Why a machine's certificate is of no use.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum MachineError {
    /// Bytes that are no certificate, or none at all.
    #[error("the machine's certificate cannot be read: {0}")]
    Malformed(String),
    /// A certificate for something else.
    #[error("the machine's certificate is not one to join with: {0}")]
    Unfit(&'static str),
    /// No path to a root that the operator named.
    #[error("the machine's certificate was not issued by an authority that is accepted here")]
    UnknownAuthority,
    /// There is a path, but not an acceptable one.
    #[error("the chain of the machine's certificate is not acceptable: {0}")]
    BadChain(String),
    /// It, or an issuer of it, has ended.
    #[error("the machine's {what} expired at {}, it is now {}", der::rfc3339(*not_after), der::rfc3339(*now))]
    Expired {
        /// `certificate`, `issuer` or `root`.
        what: &'static str,
        /// Its end.
        not_after: SystemTime,
        /// The time that it was checked against.
        now: SystemTime,
    },
    /// It, or an issuer of it, has not begun.
    #[error("the machine's {what} is valid from {} only, it is now {}", der::rfc3339(*not_before), der::rfc3339(*now))]
    NotYetValid {
        /// `certificate`, `issuer` or `root`.
        what: &'static str,
        /// Its begin.
        not_before: SystemTime,
        /// The time that it was checked against.
        now: SystemTime,
    },
    /// The signature is of another statement or another key.
    #[error("the joiner did not prove that it holds the key of the machine's certificate")]
    BadProof,
}

impl MachineError {
    /// A stable label for counters and tests.
    #[must_use]
    pub fn reason(&self) -> &'static str {
        match self {
            Self::Malformed(_) => "machine_malformed",
            Self::Unfit(_) => "machine_unfit",
            Self::UnknownAuthority => "machine_unknown_authority",
            Self::BadChain(_) => "machine_bad_chain",
            Self::Expired { .. } => "machine_expired",
            Self::NotYetValid { .. } => "machine_not_yet_valid",
            Self::BadProof => "machine_bad_proof",
        }
    }
}

impl From<PathError> for MachineError {
    fn from(error: PathError) -> Self {
        match error {
            PathError::Unreadable(reason) => Self::Malformed(reason),
            PathError::UnknownAuthority => Self::UnknownAuthority,
            PathError::Bad(reason) => Self::BadChain(reason),
            PathError::Expired {
                what,
                not_after,
                now,
            } => Self::Expired {
                what,
                not_after,
                now,
            },
            PathError::NotYetValid {
                what,
                not_before,
                now,
            } => Self::NotYetValid {
                what,
                not_before,
                now,
            },
            PathError::RevokedIssuer => Self::BadChain("an issuer's key is revoked".to_owned()),
        }
    }
}

/// Checks a chain (leaf first) against the roots of an operator's choice. Says nothing about who presents it: that is
/// [`check_proof`].
///
/// # Errors
/// The first rule that it breaks.
pub fn verify_machine(
    chain: &[CertificateDer<'_>],
    roots: &[CertificateDer<'static>],
    now: SystemTime,
) -> Result<Machine, MachineError> {
    let malformed = |reason: String| MachineError::Malformed(reason);
    let (leaf_der, intermediates) = chain
        .split_first()
        .ok_or_else(|| malformed("there is none".to_owned()))?;
    if chain.len() > MAX_CHAIN {
        let reason = format!("it has more than {MAX_CHAIN} certificates");
        return Err(MachineError::BadChain(reason));
    }
    let leaf = der::parse(leaf_der).map_err(|error| malformed(error.to_string()))?;
    let usage = usage(&leaf)?;
    let validity = leaf.validity();
    check_validity(
        "certificate",
        der::system_time(validity.not_before.timestamp()),
        der::system_time(validity.not_after.timestamp()),
        now,
    )?;
    let check = PathCheck {
        leaf: leaf_der,
        intermediates,
        now,
        usage,
        revoked: None,
    };
    check.to_roots(roots)?;
    describe(leaf_der, &leaf)
}

/// Whether the holder of the leaf's key made this signature of the statement.
///
/// # Errors
/// [`MachineError::BadProof`].
pub fn check_proof(
    leaf: &CertificateDer<'_>,
    statement: &JoinStatement<'_>,
    signature: &[u8],
) -> Result<(), MachineError> {
    let leaf = EndEntityCert::try_from(leaf).map_err(|_| MachineError::BadProof)?;
    let message = statement.bytes();
    let supported = crate::tls::signature_algorithms();
    let mine = supported
        .mapping
        .iter()
        .filter(|(scheme, _)| SCHEMES.contains(scheme));
    let good = mine
        .flat_map(|(_, algorithms)| algorithms.iter())
        .any(|algorithm| {
            leaf.verify_signature(*algorithm, &message, signature)
                .is_ok()
        });
    good.then_some(()).ok_or(MachineError::BadProof)
}

/// RFC 5280 §4.2.1.3, §4.2.1.9, §4.2.1.12: a leaf whose key may sign, and may speak for the machine in TLS, in either
/// role. The role that the whole path must allow.
fn usage(leaf: &X509Certificate<'_>) -> Result<Usage, MachineError> {
    let bad = |e| MachineError::Malformed(format!("extensions: {e}"));
    let unfit = |reason| Err(MachineError::Unfit(reason));
    if leaf
        .basic_constraints()
        .map_err(bad)?
        .is_some_and(|ext| ext.value.ca)
    {
        return unfit("it is a CA certificate");
    }
    match leaf.key_usage().map_err(bad)? {
        None => return unfit("it has no key usage, and needs digitalSignature"),
        Some(usage) if !usage.value.digital_signature() => {
            return unfit("its key usage lacks digitalSignature");
        }
        Some(usage) if usage.value.key_cert_sign() => {
            return unfit("its key usage has keyCertSign");
        }
        Some(_) => {}
    }
    match leaf.extended_key_usage().map_err(bad)? {
        None => Ok(Usage::Client),
        Some(ext) if ext.value.client_auth => Ok(Usage::Client),
        Some(ext) if ext.value.server_auth => Ok(Usage::Server),
        Some(_) => unfit("its extended key usage has neither clientAuth nor serverAuth"),
    }
}

fn describe(der: &CertificateDer<'_>, leaf: &X509Certificate<'_>) -> Result<Machine, MachineError> {
    let names = leaf
        .subject_alternative_name()
        .map_err(|e| MachineError::Malformed(format!("subject alternative name: {e}")))?;
    let names = names
        .map(|ext| ext.value.general_names.as_slice())
        .unwrap_or_default();
    if names.len() > MAX_NAMES {
        return Err(MachineError::Unfit("it has more than 64 names"));
    }
    let (mut uris, mut dns) = (Vec::new(), Vec::new());
    for name in names {
        match name {
            GeneralName::URI(uri) => uris.push((*uri).to_owned()),
            GeneralName::DNSName(name) => dns.push(name.to_ascii_lowercase()),
            _ => {}
        }
    }
    let mut common = leaf.subject().iter_common_name();
    let common_name = match (common.next(), common.next()) {
        (Some(one), None) => one.as_str().ok().map(str::to_owned),
        _ => None,
    };
    Ok(Machine {
        uris,
        dns,
        common_name,
        fingerprint: format!("sha256:{}", der::hex(&der::sha256(der))),
        key: RootPin::from(der::sha256(leaf.public_key().raw)),
        serial: der::serial_of(der).unwrap_or_default(),
    })
}

#[cfg(test)]
#[path = "machine_tests.rs"]
mod tests;
