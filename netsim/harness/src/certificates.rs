//! The certificates and keys that sidecars have had, read from their state directories.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::SystemTime;

use memchr::memmem;
use weft_certs::X509Svid;
use weft_certs::tls::peer_identity;

/// Cheap to clone; clones are the same.
#[derive(Clone, Default)]
pub(crate) struct Certificates {
    known: Arc<Mutex<Known>>,
}

#[derive(Default)]
struct Known {
    dirs: Vec<PathBuf>,
    ends: BTreeMap<String, SystemTime>,
    /// Private keys (PKCS #8 or SEC 1, DER), with the directory that they belong to.
    keys: BTreeSet<(PathBuf, Vec<u8>)>,
}

impl Certificates {
    /// The directories in which to look.
    pub(crate) fn look_in(&self, dirs: Vec<PathBuf>) {
        self.lock().dirs = dirs;
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Known> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The end of a certificate, by its hash. `None`: never seen on a disk.
    pub(crate) fn end(&self, hash: &str) -> Option<SystemTime> {
        if let Some(end) = self.lock().ends.get(hash) {
            return Some(*end);
        }
        self.refresh();
        self.lock().ends.get(hash).copied()
    }

    /// Reads what is on the disks now.
    pub(crate) fn refresh(&self) {
        let dirs = self.lock().dirs.clone();
        for dir in dirs {
            let Some(svid) = read(&dir) else { continue };
            let Ok(peer) = peer_identity(svid.chain()) else {
                continue;
            };
            let mut known = self.lock();
            known.ends.insert(peer.fingerprint, svid.not_after());
            let key = svid.private_key().secret_der().to_vec();
            known.keys.insert((dir, key));
        }
    }

    /// Whose key is in this text, of those seen so far.
    pub(crate) fn owner_of_key_in(&self, text: &[u8]) -> Option<PathBuf> {
        let known = self.lock();
        let mut keys = known.keys.iter();
        keys.find(|(_, key)| {
            secret_of(key).is_some_and(|secret| memmem::find(text, secret).is_some())
        })
        .map(|(home, _)| home.clone())
    }

    /// The keys seen so far, with their homes.
    pub(crate) fn keys(&self) -> Vec<(PathBuf, Vec<u8>)> {
        self.lock().keys.iter().cloned().collect()
    }
}

/// The secret number in a private key: in PKCS #8 of P-256 it follows 36 bytes that are the same for all keys.
pub(crate) fn secret_of(key: &[u8]) -> Option<&[u8]> {
    key.get(36..68)
}

/// The identity in a sidecar's state directory.
pub(crate) fn read(dir: &Path) -> Option<X509Svid> {
    let pem = std::fs::read_to_string(dir.join("svid.pem")).ok()?;
    X509Svid::from_pem(&pem).ok()
}
