//! One root and one P-256 leaf per side, for every pair but weft, which has a CA of its own.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use rcgen::{
    BasicConstraints, CertificateParams, CertifiedIssuer, DnType, ExtendedKeyUsagePurpose, IsCa,
    KeyPair, KeyUsagePurpose, PKCS_ECDSA_P256_SHA256, SanType,
};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::WebPkiClientVerifier;
use rustls::{ClientConfig, RootCertStore, ServerConfig};

use crate::error::{Error, Result};

/// The name that every server certificate has, beside its SPIFFE ID.
pub(crate) const SERVER_NAME: &str = "echo.bench";

/// PEM files of a run.
#[derive(Debug, Clone)]
pub(crate) struct Certs {
    dir: PathBuf,
}

impl Certs {
    /// Makes a root, and leaves for the sides `a` and `b`, in `dir`.
    pub(crate) fn create(dir: &Path) -> Result<Self> {
        let certs = Self {
            dir: dir.to_owned(),
        };
        certs.write_all().map(|()| certs)
    }

    /// Those made before in `dir`.
    pub(crate) fn in_dir(dir: &Path) -> Self {
        Self {
            dir: dir.to_owned(),
        }
    }

    /// Where they are.
    pub(crate) fn dir(&self) -> &Path {
        &self.dir
    }

    fn write_all(&self) -> Result<()> {
        let mut params = CertificateParams::default();
        params
            .distinguished_name
            .push(DnType::CommonName, "bench root");
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign];
        let key = KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256).map_err(tls)?;
        let root = CertifiedIssuer::self_signed(params, key).map_err(tls)?;
        self.write("root.pem", &root.pem())?;
        for side in ["a", "b"] {
            let key = KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256).map_err(tls)?;
            let leaf = leaf(side)?.signed_by(&key, &root).map_err(tls)?;
            self.write(&format!("{side}.pem"), &leaf.pem())?;
            self.write(&format!("{side}.key"), &key.serialize_pem())?;
            // HAProxy wants both in one file.
            let both = format!("{}{}", leaf.pem(), key.serialize_pem());
            self.write(&format!("{side}.both.pem"), &both)?;
        }
        Ok(())
    }

    fn write(&self, name: &str, text: &str) -> Result<()> {
        let path = self.dir.join(name);
        std::fs::write(&path, text).map_err(Error::io(format!("write {}", path.display())))
    }

    fn roots(&self) -> Result<RootCertStore> {
        let mut roots = RootCertStore::empty();
        let root = CertificateDer::from_pem_file(self.dir.join("root.pem")).map_err(tls)?;
        roots.add(root).map_err(tls)?;
        Ok(roots)
    }

    fn identity(
        &self,
        side: &str,
    ) -> Result<(Vec<CertificateDer<'static>>, PrivateKeyDer<'static>)> {
        let cert = CertificateDer::from_pem_file(self.dir.join(format!("{side}.pem")));
        let key = PrivateKeyDer::from_pem_file(self.dir.join(format!("{side}.key")));
        Ok((vec![cert.map_err(tls)?], key.map_err(tls)?))
    }

    /// TLS 1.3 that demands a client certificate.
    pub(crate) fn server_config(&self, side: &str, alpn: &[&[u8]]) -> Result<Arc<ServerConfig>> {
        let verifier = WebPkiClientVerifier::builder(Arc::new(self.roots()?))
            .build()
            .map_err(tls)?;
        let (chain, key) = self.identity(side)?;
        let mut config = ServerConfig::builder_with_protocol_versions(&[&rustls::version::TLS13])
            .with_client_cert_verifier(verifier)
            .with_single_cert(chain, key)
            .map_err(tls)?;
        config.alpn_protocols = alpn.iter().map(|name| name.to_vec()).collect();
        Ok(Arc::new(config))
    }

    /// TLS 1.3 with a client certificate.
    pub(crate) fn client_config(&self, side: &str, alpn: &[&[u8]]) -> Result<Arc<ClientConfig>> {
        let (chain, key) = self.identity(side)?;
        let mut config = ClientConfig::builder_with_protocol_versions(&[&rustls::version::TLS13])
            .with_root_certificates(self.roots()?)
            .with_client_auth_cert(chain, key)
            .map_err(tls)?;
        config.alpn_protocols = alpn.iter().map(|name| name.to_vec()).collect();
        Ok(Arc::new(config))
    }
}

fn leaf(side: &str) -> Result<CertificateParams> {
    let mut params = CertificateParams::new(vec![SERVER_NAME.to_owned()]).map_err(tls)?;
    let id = format!("spiffe://bench.local/ns/default/sa/{side}");
    params
        .subject_alt_names
        .push(SanType::URI(id.as_str().try_into().map_err(tls)?));
    params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    params.extended_key_usages = vec![
        ExtendedKeyUsagePurpose::ServerAuth,
        ExtendedKeyUsagePurpose::ClientAuth,
    ];
    Ok(params)
}

fn tls(error: impl std::fmt::Display) -> Error {
    Error::Tls(error.to_string())
}
