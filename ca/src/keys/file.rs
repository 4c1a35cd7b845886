//! Keys in files: one PEM file per key, mode 0600, in a directory of mode 0700.
//!
//! With a secret each file is sealed: a copy of the disk without the secret is of no use. The directory says by its
//! `seal.json` that its keys are sealed, and whether a secret is the right one.
//!
//! A key that others could have read is not used: whoever could read it could be this authority.

use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::{self, ErrorKind, Read, Write};
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use rustls::pki_types::PrivatePkcs8KeyDer;
use rustls::pki_types::pem::PemObject;
use zeroize::Zeroizing;

use super::{KeyId, KeyStore, KeyType, Signer, SoftKey};
use crate::Error;
use crate::seal::{Keyring, Secret};

/// A key in PEM is 250 bytes, a sealed one 400.
const MAX_FILE: u64 = 16 * 1024;
const PLAIN: &str = "PRIVATE KEY";
const SEALED: &str = "WEFT SEALED PRIVATE KEY";
/// How the keys of a directory are sealed.
const KEYRING: &str = "seal.json";

/// Keeps keys as files. It blocks on the disk, so the shell calls it on a thread that may wait.
#[derive(Debug)]
pub struct FileKeyStore {
    directory: PathBuf,
    keyring: Option<Keyring>,
}

impl FileKeyStore {
    /// Opens the directory, and makes it with mode 0700 if there is none.
    ///
    /// # Errors
    /// [`Error::KeyOwner`] or [`Error::KeyExposed`] if others can get into it; [`Error::KeyIo`].
    pub fn open(directory: impl Into<PathBuf>) -> Result<Self, Error> {
        let directory = directory.into();
        match DirBuilder::new().mode(0o700).create(&directory) {
            Ok(()) => {}
            Err(e) if e.kind() == ErrorKind::AlreadyExists => {}
            Err(source) => {
                return Err(Error::KeyIo {
                    action: "make the key directory",
                    path: directory,
                    source,
                });
            }
        }
        let metadata = fs::metadata(&directory).map_err(io_error("look at", &directory))?;
        if !metadata.is_dir() {
            let source = io::Error::from(ErrorKind::NotADirectory);
            return Err(Error::KeyIo {
                action: "keep keys in",
                path: directory,
                source,
            });
        }
        check_private(&directory, &metadata, "700")?;
        if directory.join(KEYRING).symlink_metadata().is_ok() {
            return Err(Error::KeysSealed { path: directory });
        }
        Ok(Self {
            directory,
            keyring: None,
        })
    }

    /// As [`open`](Self::open), with a secret that seals the keys. An empty directory is sealed with it from now
    /// on; keys that lie there unsealed are sealed now.
    ///
    /// # Errors
    /// [`Error::WrongSecret`], and as [`open`](Self::open).
    pub fn open_sealed(directory: impl Into<PathBuf>, secret: &Secret) -> Result<Self, Error> {
        let directory = directory.into();
        let path = directory.join(KEYRING);
        let keyring = match fs::read(&path) {
            Ok(text) => Some(Keyring::open(&text, secret, &path)?),
            Err(e) if e.kind() == ErrorKind::NotFound => None,
            Err(source) => return Err(io_error("read", &path)(source)),
        };
        if let Some(keyring) = keyring {
            let metadata = fs::metadata(&directory).map_err(io_error("look at", &directory))?;
            check_private(&directory, &metadata, "700")?;
            let store = Self {
                directory,
                keyring: Some(keyring),
            };
            // What a crash left unsealed in the middle of sealing.
            store.seal_plain()?;
            return Ok(store);
        }
        let mut store = Self::open(directory)?;
        let (keyring, text) = Keyring::create(secret)?;
        store.write_whole(&path, ".seal.new", &text)?;
        store.keyring = Some(keyring);
        store.seal_plain()?;
        Ok(store)
    }

    /// Whether the keys of a directory are sealed.
    pub fn is_sealed(directory: &Path) -> bool {
        directory.join(KEYRING).symlink_metadata().is_ok()
    }

    fn seal_plain(&self) -> Result<(), Error> {
        let entries = fs::read_dir(&self.directory).map_err(io_error("read", &self.directory))?;
        for entry in entries {
            let name = entry
                .map_err(io_error("read", &self.directory))?
                .file_name();
            let Some(id) = name
                .to_str()
                .and_then(|name| name.strip_suffix(".key"))
                .and_then(|name| KeyId::new(name).ok())
            else {
                continue;
            };
            let (label, body) = self.read(&id)?;
            if label == PLAIN {
                self.write(&id, &body)?;
            }
        }
        Ok(())
    }

    fn path(&self, id: &KeyId) -> PathBuf {
        self.directory.join(format!("{id}.key"))
    }

    /// Label and content of a key's file.
    fn read(&self, id: &KeyId) -> Result<(String, Zeroizing<Vec<u8>>), Error> {
        let path = self.path(id);
        // The checks are of the file that was opened, not of whatever bears its name a moment later.
        let file = OpenOptions::new()
            .read(true)
            .custom_flags(no_follow())
            .open(&path);
        let file = match file {
            Err(e) if e.kind() == ErrorKind::NotFound => {
                return Err(Error::KeyMissing { key: id.clone() });
            }
            other => other.map_err(io_error("read", &path))?,
        };
        let metadata = file.metadata().map_err(io_error("look at", &path))?;
        check_private(&path, &metadata, "600")?;
        let mut text = Zeroizing::new(String::with_capacity(1024));
        let unusable = || Error::KeyUnusable {
            key: id.clone(),
            reason: "its file does not hold a PRIVATE KEY in PEM",
        };
        match file.take(MAX_FILE).read_to_string(&mut text) {
            Err(error) if error.kind() == ErrorKind::InvalidData => return Err(unusable()),
            read => read.map_err(io_error("read", &path))?,
        };
        from_pem(&text).ok_or_else(unusable)
    }

    /// The PKCS#8 of a key.
    fn pkcs8(&self, id: &KeyId) -> Result<Zeroizing<Vec<u8>>, Error> {
        let (label, body) = self.read(id)?;
        let unusable = |reason| Error::KeyUnusable {
            key: id.clone(),
            reason,
        };
        match (label.as_str(), &self.keyring) {
            (PLAIN, None) => Ok(body),
            (PLAIN, Some(_)) => Err(unusable(
                "it lies there unsealed among sealed keys: who put it there?",
            )),
            (_, None) => Err(unusable("it is sealed, and the directory is not")),
            (_, Some(keyring)) => keyring
                .unseal(id.as_str(), &body)
                .ok_or_else(|| unusable("its file was changed or belongs to another directory")),
        }
    }

    /// Writes a key's file whole, sealed if the directory is.
    fn write(&self, id: &KeyId, pkcs8: &[u8]) -> Result<(), Error> {
        let text = match &self.keyring {
            None => to_pem(PLAIN, pkcs8),
            Some(keyring) => to_pem(SEALED, &keyring.seal(id.as_str(), pkcs8)?),
        };
        self.write_whole(&self.path(id), &format!(".{id}.new"), text.as_bytes())
    }

    fn write_whole(&self, path: &Path, temporary: &str, text: &[u8]) -> Result<(), Error> {
        let temporary = self.directory.join(temporary);
        write_new(&temporary, text).map_err(io_error("write", &temporary))?;
        fs::rename(&temporary, path).map_err(io_error("write", path))?;
        self.sync_directory()
    }

    fn is_there(&self, id: &KeyId) -> Result<(), Error> {
        match self.path(id).symlink_metadata() {
            Ok(_) => Err(Error::KeyExists { key: id.clone() }),
            Err(_) => Ok(()),
        }
    }

    /// Makes renames and removals durable.
    fn sync_directory(&self) -> Result<(), Error> {
        let sync = || File::open(&self.directory)?.sync_all();
        sync().map_err(io_error("write", &self.directory))
    }
}

/// Owner is us, and nobody else has any right.
fn check_private(path: &Path, metadata: &fs::Metadata, fix: &'static str) -> Result<(), Error> {
    let me = rustix::process::geteuid().as_raw();
    let (owner, mode) = (metadata.uid(), metadata.mode() & 0o7777);
    if owner != me {
        return Err(Error::KeyOwner {
            path: path.to_owned(),
            owner,
            me,
        });
    }
    match mode & 0o077 {
        0 => Ok(()),
        _ => Err(Error::KeyExposed {
            path: path.to_owned(),
            mode,
            fix,
        }),
    }
}

fn io_error(action: &'static str, path: &Path) -> impl FnOnce(io::Error) -> Error + use<> {
    let path = path.to_owned();
    move |source| Error::KeyIo {
        action,
        path,
        source,
    }
}

impl KeyStore for FileKeyStore {
    fn generate(&self, id: &KeyId, kind: KeyType) -> Result<Signer, Error> {
        self.is_there(id)?;
        let key = SoftKey::generate(kind)?;
        self.write(id, key.pkcs8())?;
        Ok(Arc::new(key))
    }

    fn signer(&self, id: &KeyId) -> Result<Signer, Error> {
        let key = SoftKey::from_pkcs8(self.pkcs8(id)?).ok_or_else(|| Error::KeyUnusable {
            key: id.clone(),
            reason: "it is not a P-256, P-384 or Ed25519 key",
        })?;
        Ok(Arc::new(key))
    }

    fn export(&self, id: &KeyId) -> Result<Zeroizing<Vec<u8>>, Error> {
        self.pkcs8(id)
    }

    fn import(&self, id: &KeyId, pkcs8: Zeroizing<Vec<u8>>) -> Result<(), Error> {
        self.is_there(id)?;
        let key = SoftKey::from_pkcs8(pkcs8).ok_or_else(|| Error::KeyUnusable {
            key: id.clone(),
            reason: "it is not a private key in PKCS#8",
        })?;
        self.write(id, key.pkcs8())
    }

    fn remove(&self, id: &KeyId) -> Result<(), Error> {
        let path = self.path(id);
        match fs::remove_file(&path) {
            Err(e) if e.kind() == ErrorKind::NotFound => Ok(()),
            Err(source) => Err(Error::KeyIo {
                action: "remove",
                path,
                source,
            }),
            Ok(()) => self.sync_directory(),
        }
    }
}

fn no_follow() -> i32 {
    i32::try_from(rustix::fs::OFlags::NOFOLLOW.bits()).expect("open flags fit in an int")
}

/// A file that did not exist, 0600 from its first moment, on the disk when this returns.
fn write_new(path: &Path, text: &[u8]) -> io::Result<()> {
    match fs::remove_file(path) {
        Err(e) if e.kind() != ErrorKind::NotFound => return Err(e),
        _ => {} // a leftover of a crash; no journal knows its key
    }
    let mut file = OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(path)?;
    file.write_all(text)?;
    file.sync_all()
}

fn to_pem(label: &str, der: &[u8]) -> Zeroizing<String> {
    let body = Zeroizing::new(STANDARD.encode(der));
    let mut text = Zeroizing::new(String::with_capacity(2048));
    text.push_str(&format!("-----BEGIN {label}-----\n"));
    for start in (0..body.len()).step_by(64) {
        text.push_str(&body[start..body.len().min(start + 64)]);
        text.push('\n');
    }
    text.push_str(&format!("-----END {label}-----\n"));
    text
}

/// The first block that holds a key, plain or sealed.
fn from_pem(text: &str) -> Option<(String, Zeroizing<Vec<u8>>)> {
    if let Ok(der) = PrivatePkcs8KeyDer::from_pem_slice(text.as_bytes()) {
        return Some((
            PLAIN.to_owned(),
            Zeroizing::new(der.secret_pkcs8_der().to_vec()),
        ));
    }
    let body = text
        .strip_prefix(&format!("-----BEGIN {SEALED}-----\n"))?
        .strip_suffix(&format!("-----END {SEALED}-----\n"))?;
    let sealed = STANDARD.decode(body.replace('\n', "")).ok()?;
    Some((SEALED.to_owned(), Zeroizing::new(sealed)))
}

#[cfg(test)]
#[path = "file_tests.rs"]
mod tests;
