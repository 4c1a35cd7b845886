//! The errors of the crate: [`Error`] for material of our own, [`VerifyError`] for what a peer presents.

use std::time::SystemTime;

use crate::der::rfc3339;
use crate::{RootPin, SpiffeId, TrustDomain};

/// Something that should have been an identity, a key, a bundle or a pin is not one.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// Not a SPIFFE ID.
    #[error("{text:?} is not a SPIFFE ID: {reason}")]
    Id {
        /// What was given, cut to a readable length.
        text: String,
        /// The rule it breaks.
        reason: &'static str,
    },
    /// Not a trust domain name.
    #[error("{text:?} is not a trust domain: {reason}")]
    TrustDomain {
        /// What was given, cut to a readable length.
        text: String,
        /// The rule it breaks.
        reason: &'static str,
    },
    /// Not a root pin.
    #[error(
        "{text:?} is not a root pin: expected sha256:<64 hexadecimal digits>, as `weft ca show` prints it"
    )]
    Pin {
        /// What was given, cut to a readable length.
        text: String,
    },
    /// A certificate chain that breaks the X509-SVID rules, or that the trust bundle does not vouch for.
    #[error("this is not a usable X509-SVID: {0}")]
    Svid(#[from] VerifyError),
    /// A private key that is of no use.
    #[error("the private key of {id} cannot be used: {reason}")]
    Key {
        /// Whose key it is.
        id: SpiffeId,
        /// What is wrong with it. Never the key itself.
        reason: String,
    },
    /// Not a site, or one that would be too wide.
    #[error("{text:?} is not for a site: {reason}")]
    Site {
        /// What was given, cut to a readable length.
        text: String,
        /// The rule it breaks.
        reason: &'static str,
    },
    /// PEM text without what was looked for.
    #[error("the PEM text cannot be read: {reason}")]
    Pem {
        /// What is missing or broken.
        reason: String,
    },
    /// Not a SPIFFE trust bundle.
    #[error("the trust bundle of {trust_domain} cannot be read: {reason}")]
    Bundle {
        /// Whose bundle it is.
        trust_domain: TrustDomain,
        /// What is wrong with it.
        reason: String,
    },
}

/// Why a peer is refused.
///
/// [`reason`](Self::reason) is the stable label for counters; the text says it to a person. It is `Clone` so that
/// a verifier deep inside a handshake can leave it in a slot for the code that dialled.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum VerifyError {
    /// The peer sent no certificate at all.
    #[error("the peer presented no certificate")]
    NoCertificate,
    /// Bytes that are not an X.509 certificate, or one that contradicts itself.
    #[error("the peer's certificate cannot be read: {reason}")]
    BadCertificate {
        /// What the parser said.
        reason: String,
    },
    /// A certificate that is not an X509-SVID (X509-SVID §2 to §5).
    #[error("the peer's certificate is not an X509-SVID: {reason}")]
    NotAnSvid {
        /// The rule it breaks.
        reason: String,
    },
    /// No bundle for the trust domain of the leaf.
    #[error("no trust bundle for trust domain {trust_domain}, which {id} belongs to")]
    UnknownTrustDomain {
        /// Who the peer claims to be.
        id: SpiffeId,
        /// The trust domain that is not known here.
        trust_domain: TrustDomain,
    },
    /// No path to a root of the bundle.
    #[error("the certificate of {id} was not issued by an authority of its trust domain")]
    UnknownAuthority {
        /// Who the peer claims to be.
        id: SpiffeId,
    },
    /// A path exists, but an issuer in it may not issue.
    #[error("the certificate chain of {id} is not acceptable: {reason}")]
    BadChain {
        /// Who the peer claims to be.
        id: SpiffeId,
        /// The rule that the chain breaks.
        reason: String,
    },
    /// The leaf or one of its issuers has expired.
    #[error("the {what} of {id} expired at {}, it is now {}: check the clocks of both machines, then whether the peer can renew", rfc3339(*not_after), rfc3339(*now))]
    Expired {
        /// Who the peer claims to be.
        id: SpiffeId,
        /// `certificate`, `issuer` or `root`.
        what: &'static str,
        /// End of validity.
        not_after: SystemTime,
        /// The time it was checked against.
        now: SystemTime,
    },
    /// The leaf or one of its issuers is not valid yet.
    #[error("the {what} of {id} is valid from {}, it is now {}: check the clocks of both machines and of the authority", rfc3339(*not_before), rfc3339(*now))]
    NotYetValid {
        /// Who the peer claims to be.
        id: SpiffeId,
        /// `certificate`, `issuer` or `root`.
        what: &'static str,
        /// Begin of validity.
        not_before: SystemTime,
        /// The time it was checked against.
        now: SystemTime,
    },
    /// An operator has revoked it.
    #[error(
        "the certificate of {id} is revoked by its {by}: if that was a mistake, `weft cert readmit` lets the identity in again, with a new certificate"
    )]
    Revoked {
        /// Who the peer claims to be.
        id: SpiffeId,
        /// What the revocation names: `identity`, `key`, `serial number` or `issuer's key`.
        by: &'static str,
    },
    /// A valid identity, but not one that this connection is for.
    #[error("the peer is {presented}, expected {expected}")]
    WrongIdentity {
        /// Who was expected, in words.
        expected: String,
        /// Who answered.
        presented: SpiffeId,
    },
    /// No certificate in the chain has the pinned key.
    #[error(
        "the peer's authority does not have the pinned key {pin}: compare it with `weft ca show` on the control node"
    )]
    WrongPin {
        /// The pin that was given.
        pin: RootPin,
    },
    /// Without the pinned key, and by its own word not the node that was called.
    #[error("it calls itself {claimed}, not {expected}")]
    OtherRole {
        /// Who it says that it is; nothing of it was verified.
        claimed: SpiffeId,
        /// Who was called.
        expected: SpiffeId,
    },
    /// The peer does not hold the key of the certificate it showed.
    #[error("the peer did not prove that it holds the key of its certificate")]
    BadSignature,
}

impl VerifyError {
    /// A stable label for counters and tests.
    pub fn reason(&self) -> &'static str {
        match self {
            Self::NoCertificate => "no_certificate",
            Self::BadCertificate { .. } => "bad_certificate",
            Self::NotAnSvid { .. } => "not_an_svid",
            Self::UnknownTrustDomain { .. } => "unknown_trust_domain",
            Self::UnknownAuthority { .. } => "unknown_authority",
            Self::BadChain { .. } => "bad_chain",
            Self::Expired { .. } => "expired",
            Self::NotYetValid { .. } => "not_yet_valid",
            Self::Revoked { .. } => "revoked",
            Self::WrongIdentity { .. } => "wrong_identity",
            Self::WrongPin { .. } => "wrong_pin",
            Self::OtherRole { .. } => "wrong_identity",
            Self::BadSignature => "bad_signature",
        }
    }
}

/// Cuts foreign text for an error message: enough to recognise, never a page of it.
pub(crate) fn shown(text: &str) -> String {
    const LONGEST: usize = 120;
    match text.char_indices().nth(LONGEST) {
        Some((cut, _)) => format!("{}…", &text[..cut]),
        None => text.to_owned(),
    }
}
