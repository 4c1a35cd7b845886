//! The accepting side: presents the current SVID, demands one of the peer.

use std::fmt;
use std::sync::{Arc, OnceLock};
use std::time::SystemTime;

use rustls::pki_types::{CertificateDer, UnixTime};
use rustls::server::danger::{ClientCertVerified, ClientCertVerifier};
use rustls::server::{ClientHello, NoServerSessionStorage, ResolvesServerCert};
use rustls::sign::CertifiedKey;
use rustls::version::TLS13;
use rustls::{
    ConfigBuilder, DigitallySignedStruct, DistinguishedName, Error, ServerConfig, SignatureScheme,
    WantsVerifier,
};

use super::{
    KeyExchange, WallClock, protocols, provider, refuse, verify_handshake, wall, whole_chain,
};
use crate::{Clock, IdentitySource, PeerIdentity, Usage, VerifyError, verify_chain};

/// Whether a client must present an SVID.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ClientAuth {
    /// No SVID, no connection. What every sidecar asks for.
    Required,
    /// A client without one is let in, for the join request only: the control node's setting. One that does
    /// present a certificate must present a good one.
    Optional,
}

/// Is told of each refusal, for counters and logs.
pub type Observer = Arc<dyn Fn(&VerifyError) + Send + Sync>;

/// The config of the accepting side. Nothing is resumed; [`ServerSessions`](super::ServerSessions) does that.
///
/// The observer hears of every certificate that was refused. A missing certificate is refused by rustls itself
/// before any verifier: the connection ends with [`rustls::Error::NoCertificatesPresented`], alert 116.
pub fn server_config(
    source: Arc<IdentitySource>,
    client_auth: ClientAuth,
    alpn: &[&[u8]],
    key_exchange: KeyExchange,
    clock: Clock,
    observer: Observer,
) -> ServerConfig {
    let verifier = Arc::new(ClientVerifier::new(source.clone(), client_auth, observer));
    verifying(source, verifier, alpn, key_exchange, clock)
}

pub(super) fn verifying(
    source: Arc<IdentitySource>,
    verifier: Arc<ClientVerifier>,
    alpn: &[&[u8]],
    key_exchange: KeyExchange,
    clock: Clock,
) -> ServerConfig {
    let config = start(key_exchange, clock)
        .with_client_cert_verifier(verifier)
        .with_cert_resolver(Arc::new(Presenter(source)));
    finish(config, alpn)
}

/// What every server of weft has in common: one provider, one clock, TLS 1.3.
pub(super) fn start(
    key_exchange: KeyExchange,
    clock: Clock,
) -> ConfigBuilder<ServerConfig, WantsVerifier> {
    ServerConfig::builder_with_details(provider(key_exchange), Arc::new(WallClock(clock)))
        .with_protocol_versions(&[&TLS13])
        .expect("the provider has cipher suites for TLS 1.3")
}

/// Nothing of a connection outlives it.
pub(super) fn finish(mut config: ServerConfig, alpn: &[&[u8]]) -> ServerConfig {
    config.alpn_protocols = protocols(alpn);
    config.session_storage = Arc::new(NoServerSessionStorage {});
    config.send_tls13_tickets = 0;
    config.max_early_data_size = 0;
    config
}

/// Presents the SVID of this very moment.
#[derive(Debug)]
pub(super) struct Presenter(pub(super) Arc<IdentitySource>);

impl ResolvesServerCert for Presenter {
    fn resolve(&self, _hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        Some(self.0.current().svid.certified().clone())
    }
}

pub(super) struct ClientVerifier {
    source: Arc<IdentitySource>,
    client_auth: ClientAuth,
    observer: Observer,
    /// Whom it has let through.
    peer: OnceLock<PeerIdentity>,
}

impl ClientVerifier {
    pub(super) fn new(
        source: Arc<IdentitySource>,
        client_auth: ClientAuth,
        observer: Observer,
    ) -> Self {
        Self {
            source,
            client_auth,
            observer,
            peer: OnceLock::new(),
        }
    }

    /// The one check of a chain, which a client has shown or a session has kept.
    pub(super) fn verify(
        &self,
        chain: &[CertificateDer<'_>],
        now: SystemTime,
    ) -> Result<(), VerifyError> {
        let identity = self.source.current();
        let verdict = verify_chain(chain, &identity.bundles, now, Usage::Client);
        match verdict {
            Ok(peer) => {
                let _ = self.peer.set(peer);
                Ok(())
            }
            Err(error) => {
                (self.observer)(&error);
                Err(error)
            }
        }
    }

    /// The first whom it has let through: of a verifier of one connection, its client.
    pub(super) fn peer(&self) -> Option<&PeerIdentity> {
        self.peer.get()
    }

    fn refused(&self, error: VerifyError) -> Error {
        (self.observer)(&error);
        refuse(&error)
    }
}

impl fmt::Debug for ClientVerifier {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ClientVerifier")
            .field("client_auth", &self.client_auth)
            .finish_non_exhaustive()
    }
}

impl ClientCertVerifier for ClientVerifier {
    fn client_auth_mandatory(&self) -> bool {
        self.client_auth == ClientAuth::Required
    }

    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        &[]
    }

    fn verify_client_cert(
        &self,
        leaf: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        now: UnixTime,
    ) -> Result<ClientCertVerified, Error> {
        self.verify(&whole_chain(leaf, intermediates), wall(now))
            .map(|()| ClientCertVerified::assertion())
            .map_err(|error| refuse(&error))
    }

    fn verify_tls12_signature(
        &self,
        _message: &[u8],
        _certificate: &CertificateDer<'_>,
        _signature: &DigitallySignedStruct,
    ) -> Result<rustls::client::danger::HandshakeSignatureValid, Error> {
        Err(self.refused(VerifyError::BadSignature)) // TLS 1.2 is not compiled in
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<rustls::client::danger::HandshakeSignatureValid, Error> {
        verify_handshake(message, certificate, signature).map_err(|e| self.refused(e))
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        super::signature_algorithms().supported_schemes()
    }
}
