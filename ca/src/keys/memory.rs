//! Keys in memory, for tests and simulations.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use zeroize::Zeroizing;

use super::{KeyId, KeyStore, KeyType, Signer, SoftKey};
use crate::Error;

/// Keeps keys for as long as it lives.
#[derive(Debug, Default)]
pub struct MemoryKeyStore(Mutex<BTreeMap<KeyId, Arc<SoftKey>>>);

impl MemoryKeyStore {
    /// An empty store.
    pub fn new() -> Self {
        Self::default()
    }

    /// The names of all keys.
    pub fn names(&self) -> Vec<KeyId> {
        self.keys().keys().cloned().collect()
    }

    fn insert(&self, id: &KeyId, key: Arc<SoftKey>) -> Result<(), Error> {
        let mut keys = self.keys();
        if keys.contains_key(id) {
            return Err(Error::KeyExists { key: id.clone() });
        }
        keys.insert(id.clone(), key);
        Ok(())
    }

    fn keys(&self) -> MutexGuard<'_, BTreeMap<KeyId, Arc<SoftKey>>> {
        // No code that can panic runs under the lock.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl KeyStore for MemoryKeyStore {
    fn generate(&self, id: &KeyId, kind: KeyType) -> Result<Signer, Error> {
        let key = Arc::new(SoftKey::generate(kind)?);
        self.insert(id, key.clone())?;
        Ok(key)
    }

    fn signer(&self, id: &KeyId) -> Result<Signer, Error> {
        let key = self.keys().get(id).cloned();
        Ok(key.ok_or_else(|| Error::KeyMissing { key: id.clone() })?)
    }

    fn remove(&self, id: &KeyId) -> Result<(), Error> {
        self.keys().remove(id);
        Ok(())
    }

    fn export(&self, id: &KeyId) -> Result<Zeroizing<Vec<u8>>, Error> {
        let key = self.keys().get(id).cloned();
        key.map(|key| key.pkcs8().clone())
            .ok_or_else(|| Error::KeyMissing { key: id.clone() })
    }

    fn import(&self, id: &KeyId, pkcs8: Zeroizing<Vec<u8>>) -> Result<(), Error> {
        let key = SoftKey::from_pkcs8(pkcs8).ok_or_else(|| Error::KeyUnusable {
            key: id.clone(),
            reason: "it is not a private key in PKCS#8",
        })?;
        self.insert(id, Arc::new(key))
    }
}
