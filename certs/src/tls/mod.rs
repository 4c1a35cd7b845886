//! rustls configs for the mesh: TLS 1.3, mutual, post-quantum hybrid key exchange preferred.
//!
//! Each reads the [`IdentitySource`](crate::IdentitySource) in every handshake, so that rotation needs no new
//! config. None of them can be built without verification. There is no early data, and sessions are resumed only by
//! [`ClientSessions`] and [`ServerSessions`], whose configs come with the check of what a ticket would hide: whether
//! the peer's SVID is still valid.

mod client;
mod federation;
mod join;
mod resumption;
mod server;

use std::sync::Arc;
use std::time::UNIX_EPOCH;

use rustls::crypto::{CryptoProvider, WebPkiSupportedAlgorithms, aws_lc_rs};
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::time_provider::TimeProvider;
use rustls::{AlertDescription, CertificateError, DigitallySignedStruct, SupportedCipherSuite};

pub use client::client_config;
pub use federation::{
    spiffe_endpoint_client, spiffe_endpoint_server, web_endpoint_client, web_endpoint_server,
};
pub use join::join_config;
pub use resumption::{ClientSessions, Recheck, Refused, Resumable, ServerSessions};
pub use server::{ClientAuth, Observer, server_config};

use crate::{Clock, PeerIdentity, SpiffeId, VerifyError, der};

/// The failure that a client config's verifier leaves for the code that dialled: rustls and QUIC pass on only an
/// alert number.
pub type Failure = Arc<std::sync::OnceLock<VerifyError>>;

/// The identity behind an already verified connection, from the chain that TLS kept.
///
/// # Errors
/// [`VerifyError::NoCertificate`] for a peer that joined without one.
pub fn peer_identity(chain: &[CertificateDer<'_>]) -> Result<PeerIdentity, VerifyError> {
    let leaf_der = chain.first().ok_or(VerifyError::NoCertificate)?;
    let leaf = der::leaf(leaf_der)?;
    Ok(PeerIdentity {
        id: leaf.id,
        serial: leaf.serial,
        not_after: leaf.not_after,
        fingerprint: der::hex(&der::sha256(leaf_der)),
    })
}

/// The name to ask for in the handshake (SNI): a hash of the expected ID under a domain that nobody resolves. It
/// lets a node with several identities choose one, and shows no name to the network.
pub fn server_name(expected: &SpiffeId) -> ServerName<'static> {
    let digest = der::sha256(expected.as_str().as_bytes());
    let name = format!("{}.id.weft.internal", der::hex(&digest[..16]));
    ServerName::try_from(name).expect("hexadecimal digits and a fixed suffix are a DNS name")
}

/// What a TLS alert from the other side says about our certificate, as a label of [`VerifyError::reason`].
///
/// In TLS 1.3 a server refuses a client's certificate after the client's handshake is complete: the dialler hears of
/// it only as an alert. `None` for alerts that are not about certificates.
pub fn alert_reason(alert: u8) -> Option<&'static str> {
    // RFC 8446 §6; the other direction is in `refuse`.
    match alert {
        42 => Some("not_an_svid"),
        44 => Some("revoked"),
        45 => Some("expired"),
        46 => Some("bad_chain"),
        48 => Some("unknown_authority"),
        49 => Some("wrong_identity"),
        51 => Some("bad_signature"),
        116 => Some("no_certificate"),
        _ => None,
    }
}

/// The error that makes rustls send the alert which fits.
fn refuse(error: &VerifyError) -> rustls::Error {
    let error = match error {
        VerifyError::NoCertificate => return rustls::Error::NoCertificatesPresented,
        VerifyError::BadCertificate { .. } | VerifyError::NotAnSvid { .. } => {
            CertificateError::BadEncoding
        }
        VerifyError::UnknownTrustDomain { .. }
        | VerifyError::UnknownAuthority { .. }
        | VerifyError::WrongPin { .. } => CertificateError::UnknownIssuer,
        VerifyError::Expired { .. } => CertificateError::Expired,
        VerifyError::NotYetValid { .. } => CertificateError::NotValidYet,
        VerifyError::Revoked { .. } => CertificateError::Revoked,
        VerifyError::WrongIdentity { .. } | VerifyError::OtherRole { .. } => {
            CertificateError::ApplicationVerificationFailure
        }
        VerifyError::BadSignature => CertificateError::BadSignature,
        VerifyError::BadChain { .. } => {
            CertificateError::Other(rustls::OtherError(Arc::new(error.clone())))
        }
    };
    rustls::Error::InvalidCertificate(error)
}

/// The alert that rustls makes of it.
fn alert(error: &VerifyError) -> AlertDescription {
    match refuse(error) {
        rustls::Error::InvalidCertificate(error) => error.into(),
        _ => AlertDescription::CertificateRequired,
    }
}

/// Which key exchanges a node takes part in. What was recorded today is read once a quantum computer exists, unless
/// the keys came from the hybrid.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum KeyExchange {
    /// X25519MLKEM768 first, then X25519 and the NIST curves: with peers that have no hybrid too.
    #[default]
    Preferred,
    /// X25519MLKEM768 and nothing else: a peer without it is refused.
    Required,
}

/// Always this provider, never the process default, which anyone could have set. Its first key exchange group is
/// X25519MLKEM768 (feature `prefer-post-quantum`).
fn provider(key_exchange: KeyExchange) -> Arc<CryptoProvider> {
    let mut provider = aws_lc_rs::default_provider();
    let order = cipher_order(has_aes());
    provider.cipher_suites = order.to_vec();
    if key_exchange == KeyExchange::Required {
        provider.kx_groups = vec![aws_lc_rs::kx_group::X25519MLKEM768];
    }
    Arc::new(provider)
}

/// AES of 128 bits first where the CPU has instructions for it: the fastest there, and no weaker link than the keys
/// around it. Elsewhere ChaCha20, which is as fast in software and has no tables to be spied on.
fn cipher_order(has_aes: bool) -> [SupportedCipherSuite; 3] {
    use aws_lc_rs::cipher_suite::{
        TLS13_AES_128_GCM_SHA256 as AES_128, TLS13_AES_256_GCM_SHA384 as AES_256,
        TLS13_CHACHA20_POLY1305_SHA256 as CHACHA20,
    };
    match has_aes {
        true => [AES_128, AES_256, CHACHA20],
        false => [CHACHA20, AES_128, AES_256],
    }
}

/// Whether the CPU has instructions for AES and for the multiplication of GCM.
fn has_aes() -> bool {
    #[cfg(target_arch = "x86_64")]
    return std::arch::is_x86_feature_detected!("aes")
        && std::arch::is_x86_feature_detected!("pclmulqdq");
    #[cfg(target_arch = "aarch64")]
    return std::arch::is_aarch64_feature_detected!("aes")
        && std::arch::is_aarch64_feature_detected!("pmull");
    #[cfg(not(any(target_arch = "x86_64", target_arch = "aarch64")))]
    return false;
}

/// Signature algorithms for certificates and handshakes.
pub(crate) fn signature_algorithms() -> WebPkiSupportedAlgorithms {
    // The provider's table is static; the provider itself is a few vectors of pointers to it.
    static ALGORITHMS: std::sync::OnceLock<WebPkiSupportedAlgorithms> = std::sync::OnceLock::new();
    *ALGORITHMS.get_or_init(|| aws_lc_rs::default_provider().signature_verification_algorithms)
}

/// RFC 8446 §4.4.3: the proof that the peer holds the key of its leaf.
fn verify_handshake(
    message: &[u8],
    certificate: &CertificateDer<'_>,
    signature: &DigitallySignedStruct,
) -> Result<rustls::client::danger::HandshakeSignatureValid, VerifyError> {
    rustls::crypto::verify_tls13_signature(message, certificate, signature, &signature_algorithms())
        .map_err(|_| VerifyError::BadSignature)
}

fn whole_chain<'a>(
    leaf: &CertificateDer<'a>,
    rest: &[CertificateDer<'a>],
) -> Vec<CertificateDer<'a>> {
    std::iter::once(leaf).chain(rest).cloned().collect()
}

fn protocols(alpn: &[&[u8]]) -> Vec<Vec<u8>> {
    alpn.iter().map(|name| name.to_vec()).collect()
}

fn wall(now: UnixTime) -> std::time::SystemTime {
    UNIX_EPOCH + std::time::Duration::from_secs(now.as_secs())
}

/// The node's own wall clock for rustls.
struct WallClock(Clock);

impl TimeProvider for WallClock {
    fn current_time(&self) -> Option<UnixTime> {
        let since = (self.0)().duration_since(UNIX_EPOCH).ok()?;
        Some(UnixTime::since_unix_epoch(since))
    }
}

impl std::fmt::Debug for WallClock {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("WallClock")
    }
}

#[cfg(test)]
#[path = "../tls_tests.rs"]
mod tests;
