//! Keys in memory, for tests and simulations.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::{KeyId, KeyStore, P256Key, Signer};
use crate::Error;

/// Keeps keys for as long as it lives.
#[derive(Debug, Default)]
pub struct MemoryKeyStore(Mutex<BTreeMap<KeyId, Arc<P256Key>>>);

impl MemoryKeyStore {
    /// An empty store.
    pub fn new() -> Self {
        Self::default()
    }

    /// The names of all keys.
    pub fn names(&self) -> Vec<KeyId> {
        self.keys().keys().cloned().collect()
    }

    fn keys(&self) -> MutexGuard<'_, BTreeMap<KeyId, Arc<P256Key>>> {
        // No code that can panic runs under the lock.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl KeyStore for MemoryKeyStore {
    fn generate(&self, id: &KeyId) -> Result<Signer, Error> {
        let key = Arc::new(P256Key::generate()?);
        let mut keys = self.keys();
        if keys.contains_key(id) {
            return Err(Error::KeyExists { key: id.clone() });
        }
        keys.insert(id.clone(), key.clone());
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
}
