//! The dialling side: presents the current SVID, demands that the peer is who was dialled.

use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::SystemTime;

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
use crate::{Clock, ExpectedPeer, IdentitySource, PeerIdentity, VerifyError, verify_expected};

/// The config of one dial: the peer must be one of `expected`. Nothing is resumed;
/// [`ClientSessions`](super::ClientSessions) does that.
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
    let verifier = Arc::new(peer_verifier(source.clone(), expected, failure));
    let config = builder(key_exchange, clock, verifier, |builder| {
        builder.with_client_cert_resolver(Arc::new(Presenter(source)))
    });
    finish(config, alpn)
}

/// The peer must be one of `expected`, by the bundles of the moment.
pub(super) fn peer_verifier(
    trusted: Arc<IdentitySource>,
    expected: ExpectedPeer,
    failure: Failure,
) -> PeerVerifier {
    PeerVerifier::new(failure, move |chain, now| {
        verify_expected(chain, &trusted.current().bundles, now, &expected)
    })
}

type WantsClientCert = ConfigBuilder<ClientConfig, rustls::client::WantsClientCert>;

/// The part that [`client_config`] and [`join_config`](super::join_config) share.
pub(super) fn builder(
    key_exchange: KeyExchange,
    clock: Clock,
    verifier: Arc<PeerVerifier>,
    client_cert: impl FnOnce(WantsClientCert) -> ClientConfig,
) -> ClientConfig {
    let builder = start(key_exchange, clock);
    // "dangerous" is rustls' word for any verifier but its own; ours is `verify_chain`, and there is no way past it.
    client_cert(
        builder
            .dangerous()
            .with_custom_certificate_verifier(verifier),
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

/// Nothing is resumed.
pub(super) fn finish(mut config: ClientConfig, alpn: &[&[u8]]) -> ClientConfig {
    config.alpn_protocols = protocols(alpn);
    config.resumption = Resumption::disabled();
    config.enable_early_data = false;
    config
}

/// Presents the SVID of this very moment, whatever authorities the server hints at: it is the only one we have.
#[derive(Debug)]
pub(super) struct Presenter(pub(super) Arc<IdentitySource>);

impl ResolvesClientCert for Presenter {
    fn resolve(&self, _hints: &[&[u8]], _schemes: &[SignatureScheme]) -> Option<Arc<CertifiedKey>> {
        Some(self.0.current().svid.certified().clone())
    }

    fn has_certs(&self) -> bool {
        true
    }
}

type Check =
    dyn Fn(&[CertificateDer<'_>], SystemTime) -> Result<PeerIdentity, VerifyError> + Send + Sync;

/// A server verifier around one of our checks, which leaves the reason of a refusal in the slot.
pub(super) struct PeerVerifier {
    check: Box<Check>,
    seen: Mutex<Seen>,
}

/// What a verifier has to tell.
struct Seen {
    failure: Failure,
    peer_not_after: Option<SystemTime>,
}

impl PeerVerifier {
    pub(super) fn new(
        failure: Failure,
        check: impl Fn(&[CertificateDer<'_>], SystemTime) -> Result<PeerIdentity, VerifyError>
        + Send
        + Sync
        + 'static,
    ) -> Self {
        Self {
            check: Box::new(check),
            seen: Mutex::new(Seen {
                failure,
                peer_not_after: None,
            }),
        }
    }

    /// The one check of a chain, which a peer has shown or a session has kept.
    pub(super) fn verify(
        &self,
        chain: &[CertificateDer<'_>],
        now: SystemTime,
    ) -> Result<(), VerifyError> {
        match (self.check)(chain, now) {
            Ok(peer) => {
                self.seen().peer_not_after = Some(peer.not_after);
                Ok(())
            }
            Err(error) => {
                self.failed(&error);
                Err(error)
            }
        }
    }

    /// Tells the next dial of its failures.
    pub(super) fn report_to(&self, failure: Failure) {
        self.seen().failure = failure;
    }

    /// The end of the certificate that was let through last.
    pub(super) fn peer_not_after(&self) -> Option<SystemTime> {
        self.seen().peer_not_after
    }

    fn seen(&self) -> MutexGuard<'_, Seen> {
        // Each change is one field put in place.
        self.seen.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn failed(&self, error: &VerifyError) {
        // A slot that is already full keeps the first failure, which is the cause.
        let _ = self.seen().failure.set(error.clone());
    }

    fn refused(&self, error: VerifyError) -> Error {
        self.failed(&error);
        refuse(&error)
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
        self.verify(&whole_chain(leaf, intermediates), wall(now))
            .map(|()| ServerCertVerified::assertion())
            .map_err(|error| refuse(&error))
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
