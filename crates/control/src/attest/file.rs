//! The file of `--attest` and those that it names. They are read again after a second, so that a change of a rule, of a
//! root or of a cluster's keys is in force without a restart, and a crowd does not keep the disk busy.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;
use weft_certs::{CertificateDer, TokenKeys};
use weft_env::{Disk, Env};
use weft_resources::{ClusterAttestor, MachineAttestor, parse_attestors};

use crate::problem::Reject;

/// Larger than any of these files.
const MAX_FILE: usize = 1024 * 1024;
/// How long what was read is good.
const FRESH: Duration = Duration::from_secs(1);

/// Everything that the files say.
pub(super) struct Loaded {
    pub(super) machines: Vec<Machines>,
    pub(super) clusters: Vec<Cluster>,
}

/// An authority of machines.
pub(super) struct Machines {
    pub(super) rules: MachineAttestor,
    pub(super) roots: Vec<CertificateDer<'static>>,
}

/// A cluster.
pub(super) struct Cluster {
    pub(super) rules: ClusterAttestor,
    pub(super) keys: TokenKeys,
}

/// What was read, or why it could not be.
pub(super) struct Cached {
    read: Result<Arc<Loaded>, Reject>,
    at: Instant,
}

impl Cached {
    pub(super) fn new(loaded: Arc<Loaded>, at: Instant) -> Self {
        Self {
            read: Ok(loaded),
            at,
        }
    }

    pub(super) fn fresh(&self, now: Instant) -> Option<Result<Arc<Loaded>, Reject>> {
        let age = now.saturating_duration_since(self.at);
        (age < FRESH).then(|| self.read.clone())
    }

    pub(super) fn put(&mut self, read: Result<Arc<Loaded>, Reject>, at: Instant) {
        *self = Self { read, at };
    }
}

/// Reads all of it; in words if something cannot be used.
pub(super) async fn load(env: &Env, path: &Path) -> Result<Loaded, String> {
    let path = path.to_owned();
    env.disk(move |disk| read(disk, &path)).await
}

fn read(disk: &Disk, path: &Path) -> Result<Loaded, String> {
    let bytes = content(disk, path)?;
    let origin = path.display().to_string();
    let text = String::from_utf8(bytes).map_err(|_| format!("{origin} is not text"))?;
    let attestors = parse_attestors(&text, &origin).map_err(|errors| {
        let said: Vec<String> = errors.iter().map(ToString::to_string).collect();
        said.join("; ")
    })?;
    let beside = |name: &str| -> PathBuf { path.parent().unwrap_or(Path::new("")).join(name) };
    let machines = attestors.x509pop.into_iter().map(|rules| {
        let file = beside(&rules.ca_file);
        let roots = roots(&content(disk, &file)?)
            .map_err(|reason| unusable(&rules.name, &file, &reason))?;
        Ok(Machines { rules, roots })
    });
    let clusters = attestors.k8s.into_iter().map(|rules| {
        let file = beside(&rules.jwks_file);
        let keys = TokenKeys::parse(&content(disk, &file)?)
            .map_err(|reason| unusable(&rules.name, &file, &reason))?;
        Ok(Cluster { rules, keys })
    });
    Ok(Loaded {
        machines: machines.collect::<Result<_, String>>()?,
        clusters: clusters.collect::<Result<_, String>>()?,
    })
}

fn content(disk: &Disk, path: &Path) -> Result<Vec<u8>, String> {
    disk.read(path, MAX_FILE).map_err(|error| error.to_string())
}

fn unusable(attestor: &str, file: &Path, reason: &str) -> String {
    format!("{} of attestor {attestor}: {reason}", file.display())
}

/// The roots of a PEM file. Anything else in the place of a certificate would be a root that is not there.
fn roots(pem: &[u8]) -> Result<Vec<CertificateDer<'static>>, String> {
    let roots = weft_certs::certificate_list(pem).map_err(|error| error.to_string())?;
    for root in &roots {
        weft_certs::serial_of(root).map_err(|_| "a block in it is no certificate".to_owned())?;
    }
    Ok(roots)
}
