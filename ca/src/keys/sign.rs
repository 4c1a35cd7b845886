//! What signs: a private key behind its public half.

use std::cell::RefCell;
use std::sync::Arc;

use rcgen::{PublicKeyData, SignatureAlgorithm, SigningKey};

use crate::Error;

/// Signs with one private key, wherever that is, and shows the public one.
pub trait Sign: PublicKeyData + Send + Sync {
    /// Signs a message with the key's algorithm. ECDSA signatures are in DER (RFC 3279 §2.2.3).
    ///
    /// # Errors
    /// What the key's place says.
    fn signature(&self, message: &[u8]) -> Result<Vec<u8>, Error>;

    /// Whether a signature may wait for something outside of this process: then it is not for a thread that serves
    /// others meanwhile.
    fn waits(&self) -> bool {
        false
    }
}

/// A signer, shared.
pub type Signer = Arc<dyn Sign>;

/// A signer as rcgen takes it. rcgen's errors do not say why a key did not sign, so that is kept here.
pub(crate) struct Signing<'a> {
    key: &'a dyn Sign,
    failure: RefCell<Option<Error>>,
}

impl<'a> Signing<'a> {
    pub(crate) fn new(key: &'a Signer) -> Self {
        Self {
            key: &**key,
            failure: RefCell::new(None),
        }
    }

    /// What to say when rcgen failed to make something: the key's own reason, if it was the key.
    pub(crate) fn failed(&self, what: &'static str) -> impl FnOnce(rcgen::Error) -> Error {
        move |error| match self.failure.take() {
            Some(reason) => reason,
            None => Error::crypto(what)(error),
        }
    }
}

impl PublicKeyData for Signing<'_> {
    fn der_bytes(&self) -> &[u8] {
        self.key.der_bytes()
    }

    fn algorithm(&self) -> &'static SignatureAlgorithm {
        self.key.algorithm()
    }
}

impl SigningKey for Signing<'_> {
    fn sign(&self, message: &[u8]) -> Result<Vec<u8>, rcgen::Error> {
        self.key.signature(message).map_err(|reason| {
            *self.failure.borrow_mut() = Some(reason);
            rcgen::Error::RemoteKeyError
        })
    }
}
