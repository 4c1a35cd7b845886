//! `weft ca` with files: export, csr, sign, import, backup, restore, and evidence that is checked away from the mesh.

use std::path::{Path, PathBuf};
use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use rustls::pki_types::CertificateSigningRequestDer;
use rustls::pki_types::pem::PemObject;
use weft_ca::KeyType;
use weft_ca::offline::OfflineRoot;
use weft_certs::{CertificateDer, RootPin, TrustDomain, certificates, to_pem};
use weft_control::{
    AdminClient, AdminError, Anchor, BackupRequest, ImportRequest, open_keys, verify_evidence,
};
use weft_env::{Env, Mode};

use super::admin::{date, failed};
use super::cert_files::bundles;
use super::secret;
use crate::cli::{AdminArgs, KeyArgs};
use crate::failure::{Failure, chain};
use crate::output::{self, Format};

/// Larger than any file of certificates or evidence.
const MAX: usize = 16 * 1024 * 1024;
/// Larger than any backup.
const MAX_BACKUP: usize = 2 * 1024 * 1024 * 1024;
/// An offline root is replaced by people, and seldom.
const OFFLINE_TTL: Duration = Duration::from_secs(20 * 365 * 24 * 3600);

pub(super) async fn read(path: &Path, max: usize) -> Result<Vec<u8>, Failure> {
    let path = path.to_owned();
    let read = Env::system().disk(move |disk| disk.read(&path, max)).await;
    read.map_err(|error| Failure::because("read the file", &error))
}

async fn write(path: &Path, bytes: Vec<u8>) -> Result<(), Failure> {
    let path = path.to_owned();
    let env = Env::system();
    let written = env.disk(move |disk| disk.write_atomic(&path, &bytes, Mode::Secret));
    written
        .await
        .map_err(|error| Failure::because("write the file", &error))
}

pub(super) async fn export(client: &AdminClient) -> Result<(), Failure> {
    let bundle = client.bundle().await.map_err(failed)?;
    output::line(&bundle.roots.iter().map(to_pem).collect::<String>())
}

pub(super) async fn csr(client: &AdminClient) -> Result<(), Failure> {
    let reply = client.csr_ca().await.map_err(failed)?;
    output::line(&pem("CERTIFICATE REQUEST", &reply.csr))
}

fn pem(label: &str, base64: &str) -> String {
    let mut text = format!("-----BEGIN {label}-----\n");
    for start in (0..base64.len()).step_by(64) {
        text.push_str(&base64[start..base64.len().min(start + 64)]);
        text.push('\n');
    }
    text + &format!("-----END {label}-----\n")
}

/// What makes a root that is not there yet.
pub(super) struct NewRoot {
    pub(super) trust_domain: TrustDomain,
    pub(super) key_type: KeyType,
}

pub(super) async fn sign(
    dir: PathBuf,
    csr: &Path,
    new: NewRoot,
    ttl: Duration,
    keys: &KeyArgs,
) -> Result<(), Failure> {
    let text = read(csr, MAX).await?;
    let request = CertificateSigningRequestDer::from_pem_slice(&text).map_err(|_| {
        Failure::new(
            "sign the request",
            format!("{} has no CERTIFICATE REQUEST block", csr.display()),
            "give the file that `weft ca csr` printed",
        )
    })?;
    let request = request.as_ref().to_vec();
    let access = secret::of_keys(keys).await?;
    let env = Env::system();
    let (now, mut rng) = (env.wall(), env.rng("offline-root"));
    let fail =
        |error: &(dyn std::error::Error + 'static)| Failure::because("sign the request", error);
    let signed = env.disk(move |disk| {
        disk.create_dir_private(&dir, &["root.json"])
            .map_err(|e| fail(&e))?;
        let name = new.trust_domain.to_string();
        let store = open_keys(&dir.join("keys"), &access, &name, &mut rng).map_err(|e| fail(&e))?;
        let record = dir.join("root.json");
        let mut root = match disk.read_optional(&record, MAX).map_err(|e| fail(&e))? {
            Some(text) => serde_json::from_slice(&text).map_err(|e| fail(&e))?,
            None => {
                let NewRoot {
                    trust_domain,
                    key_type,
                } = new;
                OfflineRoot::create(trust_domain, key_type, OFFLINE_TTL, &*store, now, &mut rng)
                    .map_err(|e| fail(&e))?
            }
        };
        let issuing = root
            .sign(&request, ttl, &*store, now, &mut rng)
            .map_err(|e| fail(&e))?;
        let json = serde_json::to_vec_pretty(&root).map_err(|e| fail(&e))?;
        disk.write_atomic(&record, &json, Mode::Secret)
            .map_err(|e| fail(&e))?;
        Ok::<_, Failure>(to_pem(&issuing) + &to_pem(root.certificate()))
    });
    output::line(&signed.await?)
}

pub(super) async fn import(
    client: &AdminClient,
    file: &Path,
) -> Result<weft_control::SlotReply, Failure> {
    let found = certificates(&read(file, MAX).await?)
        .map_err(|error| Failure::because("import the certificates", &error))?;
    let request = ImportRequest {
        certificates: found.iter().map(|der| STANDARD.encode(der)).collect(),
    };
    client.import_ca(&request).await.map_err(failed)
}

pub(super) async fn backup(
    admin: &AdminArgs,
    file: &Path,
    secret_file: &Path,
    keys: &KeyArgs,
) -> Result<(), Failure> {
    if file.exists() {
        return Err(Failure::new(
            "back up",
            format!("{} is there already", file.display()),
            "choose another name: a backup is never written over",
        ));
    }
    let env = Env::system();
    let (text, report) = match AdminClient::connect(&env, &admin.state_dir).await {
        Ok(client) => {
            let request = BackupRequest {
                secret: STANDARD.encode(&*secret::bytes(secret_file).await?),
            };
            let made = client.backup(&request).await.map_err(failed)?;
            let text = serde_json::to_vec_pretty(&made.sealed)
                .map_err(|error| Failure::because("back up", &error))?;
            (text, made.report)
        }
        Err(AdminError::NotRunning { .. }) => {
            let (keys, secret) = (
                secret::of_keys(keys).await?,
                secret::read(secret_file).await?,
            );
            let made = weft_control::backup(&env, &admin.state_dir, keys, secret).await;
            made.map_err(|error| Failure::because("back up", &error))?
        }
        Err(error) => return Err(failed(error)),
    };
    let len = text.len();
    write(file, text).await?;
    output::line(&format!(
        "{} bytes in {}; without the secret it is of no use, so keep the two apart",
        len,
        file.display()
    ))?;
    match report.token {
        None => Ok(()),
        Some(token) => output::line(&format!(
            "the authority's private keys are not in it: they cannot leave the token '{token}'. If that token is lost, \
             so is the authority, and every sidecar joins a new mesh; keep a copy by the means of the token's maker"
        )),
    }
}

pub(super) async fn restore(
    admin: &AdminArgs,
    file: &Path,
    secret_file: &Path,
    keys: &KeyArgs,
) -> Result<(), Failure> {
    let text = read(file, MAX_BACKUP).await?;
    let (keys, secret) = (
        secret::of_keys(keys).await?,
        secret::read(secret_file).await?,
    );
    let env = Env::system();
    let restored = weft_control::restore(&env, &admin.state_dir, keys, text, secret).await;
    let report = restored.map_err(|error| Failure::because("restore", &error))?;
    let (keys, pin) = match &report.token {
        None => {
            let keys = output::counted(report.keys, "key is", "keys are");
            (format!("{keys} in {}", dir(admin)), "")
        }
        Some(token) => (
            format!(
                "the record of its keys, which the token '{token}' has, are in {}",
                dir(admin)
            ),
            " --pkcs11-pin-file FILE",
        ),
    };
    output::line(&format!(
        "trust domain {}: {} entries and {keys}\nnext: weft control --state-dir {}{pin}",
        report.trust_domain,
        report.entries,
        dir(admin)
    ))
}

fn dir(admin: &AdminArgs) -> std::path::Display<'_> {
    admin.state_dir.display()
}

/// Checks evidence by a pin or a bundle.
pub(super) async fn check(
    file: &Path,
    pin: Option<RootPin>,
    bundle: Option<&Path>,
    format: Format,
) -> Result<(), Failure> {
    let anchor = match (pin, bundle) {
        (Some(pin), _) => Anchor::Pin(pin),
        (None, Some(bundle)) => {
            let roots: Vec<CertificateDer<'static>> = bundles(bundle, None)
                .await?
                .iter()
                .flat_map(|bundle| bundle.roots.clone())
                .collect();
            Anchor::Roots(roots)
        }
        (None, None) => {
            return Err(Failure::usage(
                "check evidence: give the root's --pin, or a --bundle that has it",
            ));
        }
    };
    let text = read(file, MAX).await?;
    let evidence = verify_evidence(&text, &anchor).map_err(|error| {
        Failure::new(
            "check evidence",
            chain(&error),
            "compare with `weft ca evidence` on the control node",
        )
    })?;
    output::show(format, &evidence, || {
        format!(
            "proved: rotation {} of the {} authority of {}, over at {}\n  renewed: {}\n  left behind: {}\n",
            evidence.rotation,
            evidence.role,
            evidence.trust_domain,
            date(evidence.finished_unix_ms / 1000),
            evidence.renewed.len(),
            match evidence.missing.is_empty() {
                true => "nobody".to_owned(),
                false => evidence.missing.join(", "),
            }
        )
    })
}
