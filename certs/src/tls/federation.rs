//! Bundle endpoints of federation (SPIFFE Federation §5): HTTPS over TCP, where the client shows no certificate.
//!
//! Two profiles: by `https_spiffe` the server presents its SVID, by `https_web` a certificate of the Web PKI.

use std::fmt;
use std::sync::Arc;

use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::{ClientConfig, ConfigBuilder, RootCertStore, ServerConfig};

use super::client::{PeerVerifier, builder};
use super::server::Presenter;
use super::{Failure, KeyExchange, client, server};
use crate::{BundleSet, Clock, Error, ExpectedPeer, IdentitySource, SpiffeId, verify_expected};

/// `https_spiffe`, as client: the server must be `expected`, by these bundles.
pub fn spiffe_endpoint_client(
    bundles: BundleSet,
    expected: SpiffeId,
    alpn: &[&[u8]],
    clock: Clock,
    failure: Failure,
) -> ClientConfig {
    let expected = ExpectedPeer::One(expected);
    let verifier = Arc::new(PeerVerifier::new(failure, move |chain, now| {
        verify_expected(chain, &bundles, now, &expected)
    }));
    let config = builder(KeyExchange::Preferred, clock, verifier, |builder| {
        builder.with_no_client_auth()
    });
    client::finish(config, alpn)
}

/// `https_web`, as client: the server's certificate must be for the host's name, by these roots.
///
/// # Errors
/// [`Error::Pem`] if none of the roots can be used.
pub fn web_endpoint_client(
    roots: &[CertificateDer<'static>],
    alpn: &[&[u8]],
    clock: Clock,
) -> Result<ClientConfig, Error> {
    let mut store = RootCertStore::empty();
    let (usable, _) = store.add_parsable_certificates(roots.iter().cloned());
    if usable == 0 {
        return Err(Error::Pem {
            reason: "there is no root certificate in it".to_owned(),
        });
    }
    let config = client::start(KeyExchange::Preferred, clock)
        .with_root_certificates(store)
        .with_no_client_auth();
    Ok(client::finish(config, alpn))
}

/// `https_spiffe`, as server: presents the SVID of the moment of each handshake.
pub fn spiffe_endpoint_server(
    source: Arc<IdentitySource>,
    alpn: &[&[u8]],
    clock: Clock,
) -> ServerConfig {
    server::finish(
        unasked(clock).with_cert_resolver(Arc::new(Presenter(source))),
        alpn,
    )
}

/// `https_web`, as server: presents this chain (PEM, leaf first) with its key (PEM).
///
/// # Errors
/// [`Error::Pem`] if they cannot be read or do not fit each other.
pub fn web_endpoint_server(
    chain: &[u8],
    key: &[u8],
    alpn: &[&[u8]],
    clock: Clock,
) -> Result<ServerConfig, Error> {
    let broken = |what: &str, error: &dyn fmt::Display| Error::Pem {
        reason: format!("{what}: {error}"),
    };
    let chain = CertificateDer::pem_slice_iter(chain)
        .collect::<Result<Vec<_>, _>>()
        .map_err(|error| broken("the certificates", &error))?;
    let key = PrivateKeyDer::from_pem_slice(key).map_err(|error| broken("the key", &error))?;
    let config = unasked(clock).with_single_cert(chain, key);
    config
        .map(|config| server::finish(config, alpn))
        .map_err(|error| broken("certificate and key", &error))
}

type WantsCertificate = ConfigBuilder<ServerConfig, rustls::server::WantsServerCert>;

/// Federation §5.2.1: the server MUST NOT ask for a client's certificate.
fn unasked(clock: Clock) -> WantsCertificate {
    server::start(KeyExchange::Preferred, clock).with_no_client_auth()
}
