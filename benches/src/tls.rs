//! Certificates and TLS settings of the peers: P-256, mutual, the same kind as weft's.

use std::path::Path;
use std::sync::Arc;

use rcgen::{
    BasicConstraints, CertificateParams, DnType, IsCa, Issuer, KeyPair, KeyUsagePurpose,
    PKCS_ECDSA_P256_SHA256,
};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::WebPkiClientVerifier;
use rustls::{ClientConfig, RootCertStore, ServerConfig};

use crate::error::{Error, Result, write};

/// The name in every peer's certificate.
pub(crate) const NAME: &str = "peer.weft.test";

/// Writes `ca.pem`, `cert.pem`, `key.pem` and `both.pem` (certificate, then key) into a folder.
pub(crate) fn make(dir: &Path) -> Result<()> {
    let failed = Error::because::<rcgen::Error>;
    let ca_key = KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256).map_err(failed("make a key"))?;
    let mut ca = CertificateParams::default();
    ca.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    ca.key_usages = vec![KeyUsagePurpose::KeyCertSign];
    ca.distinguished_name
        .push(DnType::CommonName, "weft-benches");
    let ca_cert = ca.self_signed(&ca_key).map_err(failed("sign the root"))?;
    let issuer = Issuer::new(ca, ca_key);
    let key = KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256).map_err(failed("make a key"))?;
    let leaf = CertificateParams::new([NAME.to_owned()])
        .and_then(|params| params.signed_by(&key, &issuer))
        .map_err(failed("sign a leaf"))?;
    let (cert, key) = (leaf.pem(), key.serialize_pem());
    write(&dir.join("ca.pem"), &ca_cert.pem())?;
    write(&dir.join("both.pem"), &format!("{cert}{key}"))?;
    write(&dir.join("cert.pem"), &cert)?;
    write(&dir.join("key.pem"), &key)
}

struct Loaded {
    roots: Arc<RootCertStore>,
    cert: CertificateDer<'static>,
    key: PrivateKeyDer<'static>,
}

fn load(dir: &Path) -> Result<Loaded> {
    let said = |name: &str| {
        let name = format!("read {}", dir.join(name).display());
        move |error: rustls::pki_types::pem::Error| Error::said(format!("{name}: {error}"))
    };
    let ca = CertificateDer::from_pem_file(dir.join("ca.pem")).map_err(said("ca.pem"))?;
    let cert = CertificateDer::from_pem_file(dir.join("cert.pem")).map_err(said("cert.pem"))?;
    let key = PrivateKeyDer::from_pem_file(dir.join("key.pem")).map_err(said("key.pem"))?;
    let mut roots = RootCertStore::empty();
    roots.add(ca).map_err(Error::because("take the root"))?;
    Ok(Loaded {
        roots: Arc::new(roots),
        cert,
        key,
    })
}

/// The calling side.
pub(crate) fn client(dir: &Path, alpn: Option<&str>) -> Result<Arc<ClientConfig>> {
    let loaded = load(dir)?;
    let mut config = ClientConfig::builder()
        .with_root_certificates(loaded.roots)
        .with_client_auth_cert(vec![loaded.cert], loaded.key)
        .map_err(Error::because("set TLS up"))?;
    config.alpn_protocols = alpn.iter().map(|name| name.as_bytes().to_vec()).collect();
    Ok(Arc::new(config))
}

/// The called side.
pub(crate) fn server(dir: &Path, alpn: Option<&str>) -> Result<Arc<ServerConfig>> {
    let loaded = load(dir)?;
    let clients = WebPkiClientVerifier::builder(loaded.roots)
        .build()
        .map_err(Error::because("verify clients"))?;
    let mut config = ServerConfig::builder()
        .with_client_cert_verifier(clients)
        .with_single_cert(vec![loaded.cert], loaded.key)
        .map_err(Error::because("set TLS up"))?;
    config.alpn_protocols = alpn.iter().map(|name| name.as_bytes().to_vec()).collect();
    Ok(Arc::new(config))
}
