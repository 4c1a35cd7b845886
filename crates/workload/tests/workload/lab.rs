//! An authority, and a sidecar's identity behind a socket.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use rcgen::{
    BasicConstraints, CertificateParams, DistinguishedName, DnType, ExtendedKeyUsagePurpose, IsCa,
    Issuer, KeyPair, KeyUsagePurpose, SanType,
};
use tokio::time::timeout;
use weft_certs::{
    BundleSet, CertificateDer, IdentitySource, RevocationList, TrustBundle, TrustDomain, X509Svid,
};
use weft_env::{Env, Tasks};
use weft_workload::{Entry, Workload, WorkloadSocket};

use crate::tokens::Signer;

/// Whatever a test waits for happens within this time, or the test fails.
pub const PROMPT: Duration = Duration::from_secs(20);
pub const HOUR: Duration = Duration::from_secs(3600);
pub const INVOICES: &str = "spiffe://weft.local/ns/default/sa/invoices";

/// Waits, with the deadline.
pub async fn within<T>(what: impl Future<Output = T>) -> T {
    timeout(PROMPT, what).await.expect("it took too long")
}

pub fn in_an_hour() -> SystemTime {
    SystemTime::now() + HOUR
}

pub fn td(name: &str) -> TrustDomain {
    TrustDomain::parse(name).unwrap()
}

/// An authority of any tier.
pub struct Ca {
    pub der: CertificateDer<'static>,
    key: KeyPair,
    above: Vec<CertificateDer<'static>>,
}

impl Ca {
    pub fn root(domain: &str) -> Self {
        let key = KeyPair::generate().unwrap();
        let der = ca_params("root", domain).self_signed(&key).unwrap().into();
        let above = Vec::new();
        Self { der, key, above }
    }

    pub fn issuing(&self) -> Self {
        let key = KeyPair::generate().unwrap();
        let params = ca_params("issuing", "weft.local");
        let der: CertificateDer<'static> = params.signed_by(&key, &self.issuer()).unwrap().into();
        let above = vec![der.clone()];
        Self { der, key, above }
    }

    fn issuer(&self) -> Issuer<'static, &KeyPair> {
        Issuer::from_ca_cert_der(&self.der, &self.key).unwrap()
    }

    pub fn svid(&self, id: &str, end: SystemTime) -> X509Svid {
        let key = KeyPair::generate().unwrap();
        let mut params = CertificateParams::default();
        params.distinguished_name = DistinguishedName::new();
        params.subject_alt_names = vec![SanType::URI(id.try_into().unwrap())];
        params.is_ca = IsCa::ExplicitNoCa;
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.extended_key_usages = vec![
            ExtendedKeyUsagePurpose::ServerAuth,
            ExtendedKeyUsagePurpose::ClientAuth,
        ];
        params.use_authority_key_identifier_extension = true;
        params.not_before = (SystemTime::now() - HOUR).into();
        params.not_after = end.into();
        let leaf = params.signed_by(&key, &self.issuer()).unwrap().into();
        let mut chain = vec![leaf];
        chain.extend(self.above.iter().cloned());
        X509Svid::new(chain, key.serialize_der()).unwrap()
    }
}

fn ca_params(name: &str, domain: &str) -> CertificateParams {
    let mut params = CertificateParams::default();
    params.distinguished_name = DistinguishedName::new();
    params
        .distinguished_name
        .push(DnType::CommonName, format!("{name} {domain}"));
    params.subject_alt_names = vec![SanType::URI(
        format!("spiffe://{domain}").try_into().unwrap(),
    )];
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign];
    params.use_authority_key_identifier_extension = true;
    params.not_before = (SystemTime::now() - HOUR).into();
    params.not_after = (SystemTime::now() + HOUR * 24).into();
    params
}

/// The bundle of one trust domain.
pub fn bundle(domain: &str, roots: &[&Ca]) -> TrustBundle {
    TrustBundle {
        trust_domain: td(domain),
        sequence: 1,
        roots: roots.iter().map(|ca| ca.der.clone()).collect(),
        jwt_keys: Vec::new(),
    }
}

/// An entry that fits the process of this test.
pub fn me() -> Entry {
    format!("uid={}", rustix::process::geteuid().as_raw())
        .parse()
        .unwrap()
}

/// A sidecar, as far as the socket sees it.
pub struct Lab {
    pub root: Ca,
    pub issuing: Ca,
    pub identity: Arc<IdentitySource>,
    /// Makes tokens, as a control node does.
    pub signer: Arc<Signer>,
    pub socket: PathBuf,
    pub tasks: Tasks,
    _dir: tempfile::TempDir,
}

impl Lab {
    /// With the identity of `invoices`, for the process of this test.
    pub async fn new() -> Self {
        Self::with(vec![me()], in_an_hour()).await
    }

    pub async fn with(allow: Vec<Entry>, end: SystemTime) -> Self {
        let root = Ca::root("weft.local");
        let issuing = root.issuing();
        let signer = Arc::new(Signer::new(INVOICES));
        let mut own = bundle("weft.local", &[&root]);
        own.jwt_keys.push(signer.key());
        let bundles = BundleSet::from(own);
        let identity = IdentitySource::new(issuing.svid(INVOICES, end), bundles);
        let dir = tempfile::tempdir().unwrap();
        let socket = dir.path().join("run/workload.sock");
        let env = Env::system();
        let tasks = Tasks::new(&env);
        let open = WorkloadSocket::open(&env, &socket).await.unwrap();
        let workload = Workload {
            identity: Arc::clone(&identity),
            allow,
            tokens: signer.clone(),
        };
        drop(tasks.spawn(open.serve(workload, tasks.child())));
        Self {
            signer,
            root,
            issuing,
            identity,
            socket,
            tasks,
            _dir: dir,
        }
    }

    /// As `SPIFFE_ENDPOINT_SOCKET` has it.
    pub fn address(&self) -> String {
        format!("unix://{}", self.socket.display())
    }

    pub fn serial(&self) -> String {
        self.identity.current().svid.serial().to_owned()
    }

    /// Another SVID with another key.
    pub fn rotate(&self) {
        let next = self.issuing.svid(INVOICES, in_an_hour());
        self.identity.replace_svid(next, SystemTime::now()).unwrap();
    }

    /// These bundles besides the own one.
    pub fn trust(&self, others: impl IntoIterator<Item = TrustBundle>) {
        let mut own = bundle("weft.local", &[&self.root]);
        own.jwt_keys.push(self.signer.key());
        let mut bundles = BundleSet::from(own);
        others.into_iter().for_each(|other| bundles.insert(other));
        self.identity
            .replace_bundles(bundles, SystemTime::now())
            .unwrap();
    }

    /// The identity itself is revoked.
    pub fn revoke(&self) {
        let mut bundles = BundleSet::clone(&self.identity.current().bundles);
        let list: RevocationList = serde_json::from_value(serde_json::json!({
            "serials": [self.serial()],
        }))
        .unwrap();
        bundles.revoke(td("weft.local"), list);
        self.identity
            .replace_bundles(bundles, SystemTime::now())
            .unwrap();
    }
}
