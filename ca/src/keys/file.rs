//! Keys in files: one PKCS#8 PEM file per key, mode 0600, in a directory of mode 0700.
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

use super::{KeyId, KeyStore, P256Key, Signer};
use crate::Error;

/// A P-256 key in PEM is 250 bytes.
const MAX_FILE: u64 = 16 * 1024;

/// Keeps keys as files. It blocks on the disk, so the shell calls it on a thread that may wait.
#[derive(Debug)]
pub struct FileKeyStore {
    directory: PathBuf,
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
        Ok(Self { directory })
    }

    fn path(&self, id: &KeyId) -> PathBuf {
        self.directory.join(format!("{id}.key"))
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
    fn generate(&self, id: &KeyId) -> Result<Signer, Error> {
        let path = self.path(id);
        if path.symlink_metadata().is_ok() {
            return Err(Error::KeyExists { key: id.clone() });
        }
        let key = P256Key::generate()?;
        let temporary = self.directory.join(format!(".{id}.new"));
        write_new(&temporary, &to_pem(&key)).map_err(io_error("write", &temporary))?;
        fs::rename(&temporary, &path).map_err(io_error("write", &path))?;
        self.sync_directory()?;
        Ok(Arc::new(key))
    }

    fn signer(&self, id: &KeyId) -> Result<Signer, Error> {
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
        check_private(
            &path,
            &file.metadata().map_err(io_error("look at", &path))?,
            "600",
        )?;
        let mut text = Zeroizing::new(String::with_capacity(1024));
        file.take(MAX_FILE)
            .read_to_string(&mut text)
            .map_err(io_error("read", &path))?;
        let unusable = |reason| Error::KeyUnusable {
            key: id.clone(),
            reason,
        };
        let der = PrivatePkcs8KeyDer::from_pem_slice(text.as_bytes())
            .map_err(|_| unusable("its file does not hold a PRIVATE KEY in PEM"))?;
        let pkcs8 = Zeroizing::new(der.secret_pkcs8_der().to_vec());
        let key = P256Key::from_pkcs8(pkcs8).ok_or_else(|| unusable("it is not a P-256 key"))?;
        Ok(Arc::new(key))
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
fn write_new(path: &Path, text: &str) -> io::Result<()> {
    match fs::remove_file(path) {
        Err(e) if e.kind() != ErrorKind::NotFound => return Err(e),
        _ => {} // a leftover of a crash; no journal knows its key
    }
    let mut file = OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(path)?;
    file.write_all(text.as_bytes())?;
    file.sync_all()
}

fn to_pem(key: &P256Key) -> Zeroizing<String> {
    let body = Zeroizing::new(STANDARD.encode(key.pkcs8().as_slice()));
    let mut text = Zeroizing::new(String::with_capacity(1024));
    text.push_str("-----BEGIN PRIVATE KEY-----\n");
    for start in (0..body.len()).step_by(64) {
        text.push_str(&body[start..body.len().min(start + 64)]);
        text.push('\n');
    }
    text.push_str("-----END PRIVATE KEY-----\n");
    text
}

#[cfg(test)]
#[path = "file_tests.rs"]
mod tests;
