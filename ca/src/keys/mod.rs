//! Where the authority's private keys live: a seam, so that a hardware module or a cloud KMS can stand there.

mod file;
mod memory;
mod sign;
mod soft;

use serde::{Deserialize, Serialize};
use std::fmt;
use zeroize::Zeroizing;

pub use file::FileKeyStore;
pub use memory::MemoryKeyStore;
pub(crate) use sign::Signing;
pub use sign::{Sign, Signer};
pub use soft::{KeyType, SoftKey};

use crate::Error;

/// The name of a key in its store, such as `issuing-2`. It is also a file name: lower case letters, digits, dashes.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(into = "String", try_from = "String")]
pub struct KeyId(String);

impl KeyId {
    /// Takes a name.
    ///
    /// # Errors
    /// [`Error::Journal`] for one that could leave the directory or confuse a shell.
    pub fn new(name: impl Into<String>) -> Result<Self, Error> {
        let name = name.into();
        let legal = |b: u8| matches!(b, b'a'..=b'z' | b'0'..=b'9' | b'-');
        match (1..=64).contains(&name.len()) && name.bytes().all(legal) && !name.starts_with('-') {
            true => Ok(Self(name)),
            false => Err(Error::Journal {
                reason: "it has a key name with characters that keys do not have".into(),
            }),
        }
    }

    /// The name.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for KeyId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl From<KeyId> for String {
    fn from(id: KeyId) -> Self {
        id.0
    }
}

impl TryFrom<String> for KeyId {
    type Error = Error;

    fn try_from(name: String) -> Result<Self, Error> {
        Self::new(name)
    }
}

/// Holds private keys by name. Synchronous: the shell calls it where blocking is allowed.
pub trait KeyStore: Send + Sync {
    /// Makes a key, keeps it durably, and returns its signer.
    ///
    /// # Errors
    /// [`Error::KeyExists`], or what the store's medium says.
    fn generate(&self, id: &KeyId, kind: KeyType) -> Result<Signer, Error>;

    /// The signer of a key that was made earlier.
    ///
    /// # Errors
    /// [`Error::KeyMissing`]; or that the key is not safe to use.
    fn signer(&self, id: &KeyId) -> Result<Signer, Error>;

    /// Destroys a key. One that is not there counts as destroyed.
    ///
    /// # Errors
    /// What the store's medium says.
    fn remove(&self, id: &KeyId) -> Result<(), Error>;

    /// The key itself, PKCS#8, for a backup.
    ///
    /// # Errors
    /// [`Error::KeyMissing`]; [`Error::KeyStays`] if the store does not give keys out.
    fn export(&self, id: &KeyId) -> Result<Zeroizing<Vec<u8>>, Error>;

    /// Puts a key from a backup in its place.
    ///
    /// # Errors
    /// [`Error::KeyExists`]; [`Error::KeyUnusable`] if it is no key; [`Error::KeyStays`] if the store takes none in.
    fn import(&self, id: &KeyId, pkcs8: Zeroizing<Vec<u8>>) -> Result<(), Error>;

    /// Of keys that never leave their place: the text by which the place is found again, for a backup. `None`: keys can
    /// be exported.
    fn record(&self) -> Option<String> {
        None
    }
}
