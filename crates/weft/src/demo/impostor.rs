//! A QUIC client that is not weft: it dials a sidecar with whatever certificate it likes, or none, and tells
//! how the sidecar took it. It does not check whom it dials, because an attacker would not.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use quinn::crypto::rustls::QuicClientConfig;
use quinn::{ConnectionError, EndpointConfig};
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{CryptoProvider, aws_lc_rs};
use rustls::pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer, ServerName, UnixTime};
use rustls::{DigitallySignedStruct, SignatureScheme};
use weft_ca::{Authority, CaConfig, MemoryKeyStore, make_csr};
use weft_certs::{SpiffeId, TrustDomain, tls};
use weft_env::Env;

use crate::failure::chain;

/// A refusal comes within round trips; longer than this is a hang, which must not be.
const PATIENCE: Duration = Duration::from_secs(5);

/// A certificate chain and its key.
pub(super) struct Credentials {
    chain: Vec<CertificateDer<'static>>,
    key: PrivateKeyDer<'static>,
}

impl Credentials {
    /// A certificate with a name of the mesh, of an authority that the mesh does not know.
    pub(super) fn of_another_ca(env: &Env, name: &str) -> Result<Self, String> {
        let failed = |error: &dyn std::error::Error| error.to_string();
        let id: SpiffeId = name.parse().map_err(|error| failed(&error))?;
        let domain: TrustDomain = id.trust_domain().clone();
        let config = CaConfig::new(domain);
        let keys = MemoryKeyStore::new();
        let (now, mut rng) = (env.wall(), env.rng("demo-impostor"));
        let journal =
            Authority::create(&config, &keys, now, &mut rng).map_err(|error| failed(&error))?;
        let authority = Authority::load(config, journal, &keys).map_err(|error| failed(&error))?;
        let new = make_csr(Some(&id)).map_err(|error| failed(&error))?;
        let issued = authority
            .issue(&new.csr, &id, None, now, &mut rng)
            .map_err(|error| failed(&error))?;
        Ok(Self {
            chain: issued.chain,
            key: PrivatePkcs8KeyDer::from(new.key.to_vec()).into(),
        })
    }
}

/// How a sidecar took a dial: the reason of its refusal, or `None` if it let the dialler in.
pub(super) async fn dial(
    env: &Env,
    target: SocketAddr,
    target_id: &str,
    credentials: Option<Credentials>,
) -> Result<Option<String>, String> {
    let id: SpiffeId = target_id
        .parse()
        .map_err(|error| format!("'{target_id}' is no identity: {error}"))?;
    let local = SocketAddr::from(([127, 0, 0, 1], 0));
    let socket = env
        .bind_udp(local)
        .map_err(|error| format!("cannot open a UDP socket: {error}"))?;
    let endpoint = quinn::Endpoint::new_with_abstract_socket(
        EndpointConfig::default(),
        None,
        socket,
        env.quinn_runtime(),
    )
    .map_err(|error| format!("cannot start QUIC: {error}"))?;
    let config = quinn::ClientConfig::new(Arc::new(config(credentials)?));
    let name = tls::server_name(&id).to_str().into_owned();
    let connecting = endpoint
        .connect_with(config, target, &name)
        .map_err(|error| format!("cannot dial: {error}"))?;
    let outcome = async {
        // The client's handshake is over before the server has seen its certificate (RFC 8446 §4.6.1):
        // whether it was taken shows in what follows.
        match connecting.await {
            Ok(connection) => connection.closed().await,
            Err(error) => error,
        }
    };
    let taken = match tokio::time::timeout(PATIENCE, outcome).await {
        Ok(error @ ConnectionError::ConnectionClosed(_)) => Some(chain(&error)),
        Ok(error) => return Err(format!("no clean refusal but: {}", chain(&error))),
        Err(_) => None,
    };
    endpoint.close(0_u32.into(), b"");
    Ok(taken)
}

fn config(credentials: Option<Credentials>) -> Result<QuicClientConfig, String> {
    let provider = Arc::new(aws_lc_rs::default_provider());
    let builder = rustls::ClientConfig::builder_with_provider(Arc::clone(&provider))
        .with_protocol_versions(&[&rustls::version::TLS13])
        .map_err(|error| format!("no TLS 1.3: {error}"))?
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(AnyServer(provider)));
    let mut config = match credentials {
        None => builder.with_no_client_auth(),
        Some(mine) => builder
            .with_client_auth_cert(mine.chain, mine.key)
            .map_err(|error| format!("cannot use the certificate: {error}"))?,
    };
    config.alpn_protocols = vec![b"h3".to_vec()];
    QuicClientConfig::try_from(config).map_err(|error| format!("no QUIC: {error}"))
}

/// Takes every server. Only an impostor does.
#[derive(Debug)]
struct AnyServer(Arc<CryptoProvider>);

impl ServerCertVerifier for AnyServer {
    fn verify_server_cert(
        &self,
        _end_entity: &CertificateDer<'_>,
        _intermediates: &[CertificateDer<'_>],
        _server_name: &ServerName<'_>,
        _ocsp_response: &[u8],
        _now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _message: &[u8],
        _cert: &CertificateDer<'_>,
        _dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        Ok(HandshakeSignatureValid::assertion())
    }

    fn verify_tls13_signature(
        &self,
        _message: &[u8],
        _cert: &CertificateDer<'_>,
        _dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        Ok(HandshakeSignatureValid::assertion())
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.signature_verification_algorithms.supported_schemes()
    }
}
