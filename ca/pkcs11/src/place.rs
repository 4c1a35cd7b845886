//! Where the keys of a mesh are: a small file in its key directory says which token, and which of the keys in it.
//!
//! It has no secret. It is written before the first key is made, so that keys of an attempt that was cut off can be
//! found and destroyed.

use std::fs::{self, OpenOptions};
use std::io::{ErrorKind, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use rand::CryptoRng;
use serde::{Deserialize, Serialize};
use weft_ca::KeyId;

use crate::TokenFault;

const FILE: &str = "pkcs11.json";
/// Bytes by which a mesh knows its own keys among those of others in the same token.
pub(crate) const MESH: usize = 8;

/// Which token, and whose keys in it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Place {
    /// The vendor's library.
    pub module: PathBuf,
    /// The token's label.
    pub token: String,
    /// What keys are named after, for people: the trust domain.
    pub name: String,
    /// By what keys are found: 8 bytes in hex, drawn once.
    pub mesh: String,
}

impl Place {
    pub(crate) fn new(module: PathBuf, token: String, name: &str, rng: &mut dyn CryptoRng) -> Self {
        let mut mesh = [0; MESH];
        rng.fill_bytes(&mut mesh);
        let mesh = format!("{:016x}", u64::from_be_bytes(mesh));
        Self {
            module,
            token,
            name: name.to_owned(),
            mesh,
        }
    }

    fn mesh(&self) -> Option<[u8; MESH]> {
        match self.mesh.len() == 2 * MESH {
            true => u64::from_str_radix(&self.mesh, 16)
                .ok()
                .map(u64::to_be_bytes),
            false => None,
        }
    }

    /// How the `CKA_ID` of every key of this mesh begins.
    pub(crate) fn prefix(&self) -> [u8; MESH] {
        self.mesh().expect("a place is checked when it is read")
    }

    /// The `CKA_ID` of a key: the mesh, then the name's hash, as some tokens take few bytes only.
    pub(crate) fn id(&self, key: &KeyId) -> Vec<u8> {
        let hash = aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA256, key.as_str().as_bytes());
        [&self.prefix(), &hash.as_ref()[..8]].concat()
    }

    /// The `CKA_LABEL` of a key, by which people know it.
    pub(crate) fn label(&self, key: &KeyId) -> String {
        format!("{} {key}", self.name)
    }

    /// Reads a record.
    ///
    /// # Errors
    /// What is wrong with it.
    pub fn parse(text: &[u8]) -> Result<Self, String> {
        serde_json::from_slice::<Self>(text)
            .map_err(|e| format!("cannot be read: {e}; restore it from a backup"))?
            .check()
    }

    fn check(self) -> Result<Self, String> {
        match self.mesh() {
            Some(_) => Ok(self),
            None => {
                Err("has a mesh that is not 8 bytes in hex; restore it from a backup".to_owned())
            }
        }
    }

    /// Puts the record into a key directory.
    pub(crate) fn write(&self, directory: &Path) -> Result<(), TokenFault> {
        let path = directory.join(FILE);
        let fail = |reason: String| TokenFault::Record {
            path: path.clone(),
            reason,
        };
        let text = serde_json::to_vec_pretty(self).map_err(|e| fail(e.to_string()))?;
        let write = || {
            let temporary = directory.join(".pkcs11.new");
            let mut file = OpenOptions::new()
                .write(true)
                .create(true)
                .truncate(true)
                .mode(0o600)
                .open(&temporary)?;
            file.write_all(&text)?;
            file.sync_all()?;
            fs::rename(&temporary, &path)?;
            fs::File::open(directory)?.sync_all()
        };
        write().map_err(|e: std::io::Error| fail(format!("cannot be written: {e}")))
    }
}

/// The place that a key directory names; `None` if its keys are files.
///
/// # Errors
/// [`TokenFault::Record`].
pub fn recorded(directory: &Path) -> Result<Option<Place>, TokenFault> {
    let path = directory.join(FILE);
    let fail = |reason| TokenFault::Record {
        path: path.clone(),
        reason,
    };
    match fs::read(&path) {
        Err(e) if e.kind() == ErrorKind::NotFound => Ok(None),
        Err(e) => Err(fail(format!("cannot be read: {e}"))),
        Ok(text) => Place::parse(&text).map(Some).map_err(fail),
    }
}
