//! The certificates and keys that sidecars have had, read from their state directories.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::SystemTime;

use memchr::memmem::Finder;
use weft_certs::X509Svid;
use weft_certs::tls::peer_identity;

/// Cheap to clone; clones are the same.
#[derive(Clone, Default)]
pub(crate) struct Certificates {
    known: Arc<Mutex<Known>>,
}

#[derive(Default)]
struct Known {
    /// With what was read there last.
    dirs: Vec<(PathBuf, String)>,
    ends: BTreeMap<String, SystemTime>,
    /// Private keys (PKCS #8 or SEC 1, DER), with the directory that they belong to, and what looks for each: every
    /// datagram is searched for all of them.
    keys: BTreeMap<(PathBuf, Vec<u8>), Option<Finder<'static>>>,
}

impl Certificates {
    /// The directories in which to look.
    pub(crate) fn look_in(&self, dirs: Vec<PathBuf>) {
        self.lock().dirs = dirs.into_iter().map(|dir| (dir, String::new())).collect();
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
        let mut known = self.lock();
        let Known { dirs, ends, keys } = &mut *known;
        for (dir, before) in dirs {
            let Some(pem) = pem(dir).filter(|pem| pem != before) else {
                continue;
            };
            let Ok(svid) = X509Svid::from_pem(&pem) else {
                continue;
            };
            *before = pem;
            let Ok(peer) = peer_identity(svid.chain()) else {
                continue;
            };
            ends.insert(peer.fingerprint, svid.not_after());
            let key = svid.private_key().secret_der().to_vec();
            let finder = secret_of(&key).map(|secret| Finder::new(secret).into_owned());
            keys.insert((dir.clone(), key), finder);
        }
    }

    /// Whose key is in this text, of those seen so far.
    pub(crate) fn owner_of_key_in(&self, text: &[u8]) -> Option<PathBuf> {
        let known = self.lock();
        let mut keys = known.keys.iter();
        keys.find(|(_, finder)| {
            let found = finder.as_ref().map(|finder| finder.find(text));
            found.flatten().is_some()
        })
        .map(|((home, _), _)| home.clone())
    }

    /// The keys seen so far, with their homes.
    pub(crate) fn keys(&self) -> Vec<(PathBuf, Vec<u8>)> {
        self.lock().keys.keys().cloned().collect()
    }
}

/// The secret number in a private key: in PKCS #8 of P-256 it follows 36 bytes that are the same for all keys.
pub(crate) fn secret_of(key: &[u8]) -> Option<&[u8]> {
    key.get(36..68)
}

/// The identity in a sidecar's state directory.
pub(crate) fn read(dir: &Path) -> Option<X509Svid> {
    X509Svid::from_pem(&pem(dir)?).ok()
}

fn pem(dir: &Path) -> Option<String> {
    std::fs::read_to_string(dir.join("svid.pem")).ok()
}
