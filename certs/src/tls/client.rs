//! The dialling side: presents the current SVID, demands that the peer is who was dialled.

use std::fmt;
use std::sync::Arc;

use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::client::{ResolvesClientCert, Resumption};
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::sign::CertifiedKey;
use rustls::version::TLS13;
use rustls::{
    ClientConfig, ConfigBuilder, DigitallySignedStruct, Error, SignatureScheme, WantsVerifier,
};

use super::{
    Failure, KeyExchange, WallClock, protocols, provider, refuse, verify_handshake, wall,
    whole_chain,
};
use crate::{Clock, ExpectedPeer, IdentitySource, VerifyError, verify_expected};

/// The config of one dial: the peer must be one of `expected`.
///
/// Use it with [`server_name`](super::server_name). If the handshake fails over the peer's certificate, `failure`
/// says why.
pub fn client_config(
    source: Arc<IdentitySource>,
    expected: ExpectedPeer,
    alpn: &[&[u8]],
    key_exchange: KeyExchange,
    clock: Clock,
    failure: Failure,
) -> ClientConfig {
    let trusted = source.clone();
    let verifier = PeerVerifier::new(failure, move |chain, now| {
        verify_expected(chain, &trusted.current().bundles, now, &expected).map(drop)
    });
    let config = builder(key_exchange, clock, verifier, |builder| {
        builder.with_client_cert_resolver(Arc::new(Presenter(source)))
    });
    finish(config, alpn)
}

type WantsClientCert = ConfigBuilder<ClientConfig, rustls::client::WantsClientCert>;

/// The part that [`client_config`] and [`join_config`](super::join_config) share.
pub(super) fn builder(
    key_exchange: KeyExchange,
    clock: Clock,
    verifier: PeerVerifier,
    client_cert: impl FnOnce(WantsClientCert) -> ClientConfig,
) -> ClientConfig {
    let builder = start(key_exchange, clock);
    // "dangerous" is rustls' word for any verifier but its own; ours is `verify_chain`, and there is no way past it.
    client_cert(
        builder
            .dangerous()
            .with_custom_certificate_verifier(Arc::new(verifier)),
    )
}

/// What every client of weft has in common: one provider, one clock, TLS 1.3.
pub(super) fn start(
    key_exchange: KeyExchange,
    clock: Clock,
) -> ConfigBuilder<ClientConfig, WantsVerifier> {
    ClientConfig::builder_with_details(provider(key_exchange), Arc::new(WallClock(clock)))
        .with_protocol_versions(&[&TLS13])
        .expect("the provider has cipher suites for TLS 1.3")
}

pub(super) fn finish(mut config: ClientConfig, alpn: &[&[u8]]) -> ClientConfig {
    config.alpn_protocols = protocols(alpn);
    config.resumption = Resumption::disabled();
    config.enable_early_data = false;
    config
}

/// Presents the SVID of this very moment, whatever authorities the server hints at: it is the only one we have.
#[derive(Debug)]
struct Presenter(Arc<IdentitySource>);

impl ResolvesClientCert for Presenter {
    fn resolve(&self, _hints: &[&[u8]], _schemes: &[SignatureScheme]) -> Option<Arc<CertifiedKey>> {
        Some(self.0.current().svid.certified().clone())
    }

    fn has_certs(&self) -> bool {
        true
    }
}

type Check =
    dyn Fn(&[CertificateDer<'_>], std::time::SystemTime) -> Result<(), VerifyError> + Send + Sync;

/// A server verifier around one of our checks, which leaves the reason of a refusal in the slot.
pub(super) struct PeerVerifier {
    check: Box<Check>,
    failure: Failure,
}

impl PeerVerifier {
    pub(super) fn new(
        failure: Failure,
        check: impl Fn(&[CertificateDer<'_>], std::time::SystemTime) -> Result<(), VerifyError>
        + Send
        + Sync
        + 'static,
    ) -> Self {
        Self {
            check: Box::new(check),
            failure,
        }
    }

    fn refused(&self, error: VerifyError) -> Error {
        let alert = refuse(&error);
        // A slot that is already full keeps the first failure, which is the cause.
        let _ = self.failure.set(error);
        alert
    }
}

impl fmt::Debug for PeerVerifier {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("PeerVerifier")
    }
}

impl ServerCertVerifier for PeerVerifier {
    /// The DNS name is not looked at: a peer is its SPIFFE ID (X509-SVID §5).
    fn verify_server_cert(
        &self,
        leaf: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        _name: &ServerName<'_>,
        _ocsp: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        (self.check)(&whole_chain(leaf, intermediates), wall(now))
            .map(|()| ServerCertVerified::assertion())
            .map_err(|e| self.refused(e))
    }

    fn verify_tls12_signature(
        &self,
        _message: &[u8],
        _certificate: &CertificateDer<'_>,
        _signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        Err(self.refused(VerifyError::BadSignature)) // TLS 1.2 is not compiled in
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_handshake(message, certificate, signature).map_err(|e| self.refused(e))
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        super::signature_algorithms().supported_schemes()
    }
}
