//! A key store whose keys are in a token.

use std::path::Path;
use std::sync::Arc;

use rand::CryptoRng;
use rcgen::{PKCS_ECDSA_P256_SHA256, PKCS_ECDSA_P384_SHA384, PublicKeyData, SignatureAlgorithm};
use weft_ca::{Error as CaError, KeyId, KeyStore, KeyType, Sign, Signer};
use zeroize::Zeroizing;

use crate::ecdsa::Curve;
use crate::pool::{Pool, Stop};
use crate::session::Public;
use crate::token::Token;
use crate::{Place, TokenAccess, TokenFault};

/// Keeps keys in a token. Its calls wait for the token, but not forever.
pub struct TokenKeyStore {
    place: Arc<Place>,
    pool: Pool,
}

impl TokenKeyStore {
    /// For keys that are to be made: goes to the token, and puts on record in the key directory where they are.
    ///
    /// # Errors
    /// [`TokenFault`]: above all that it is not said which token, that it is not there, or that it refuses the PIN.
    pub fn create(
        directory: &Path,
        access: &TokenAccess,
        name: &str,
        rng: &mut dyn CryptoRng,
    ) -> Result<Self, TokenFault> {
        let (Some(module), Some(label)) = (access.module.clone(), access.label.clone()) else {
            return Err(TokenFault::NoPlace);
        };
        let store = Self::open(Place::new(module, label, name, rng), access)?;
        store.place.write(directory)?;
        Ok(store)
    }

    /// For keys that are there. What `access` says of the place goes before what is on record: on another machine the
    /// module may lie elsewhere.
    ///
    /// # Errors
    /// As [`create`](Self::create).
    pub fn open(place: Place, access: &TokenAccess) -> Result<Self, TokenFault> {
        let place = Place {
            module: access.module.clone().unwrap_or(place.module),
            token: access.label.clone().unwrap_or(place.token),
            ..place
        };
        let token = Token::new(
            place.module.clone(),
            place.token.clone(),
            access.pin.clone(),
        );
        let store = Self {
            pool: Pool::new(token)?,
            place: Arc::new(place),
        };
        // What is wrong with module, label or PIN shows now.
        store.pool.run(|_| Ok(())).map_err(|stop| match stop {
            Stop::Fault(fault) => fault,
            _ => store.unexpected(),
        })?;
        Ok(store)
    }

    /// Puts the record of the place into another key directory: a mesh that is restored finds its keys there.
    ///
    /// # Errors
    /// [`TokenFault::Record`].
    pub fn write_record(&self, directory: &Path) -> Result<(), TokenFault> {
        self.place.write(directory)
    }

    /// Destroys every key of this mesh: for one that did not come to be. How many there were.
    ///
    /// # Errors
    /// [`TokenFault`].
    pub fn destroy_all(&self) -> Result<usize, TokenFault> {
        let prefix = self.place.prefix();
        self.pool
            .run(move |session| {
                let ids = session.ids(&prefix)?;
                ids.iter().try_for_each(|id| session.destroy(id))?;
                Ok(ids.len())
            })
            .map_err(|stop| match stop {
                Stop::Fault(fault) => fault,
                _ => self.unexpected(),
            })
    }

    /// Only jobs about one key end otherwise than with a fault.
    fn unexpected(&self) -> TokenFault {
        TokenFault::Refused {
            label: self.pool.label().to_owned(),
            what: "do what it was asked",
            reason: "it speaks of a key that nobody asked for".to_owned(),
        }
    }

    fn fail(&self, key: &KeyId) -> impl Fn(Stop) -> CaError + use<> {
        let (label, key) = (self.pool.label().to_owned(), key.clone());
        move |stop| said(&label, &key, stop)
    }

    fn signer_for(&self, key: &KeyId, public: Public) -> Signer {
        Arc::new(TokenSigner {
            id: self.place.id(key),
            key: key.clone(),
            public,
            pool: self.pool.clone(),
        })
    }
}

fn said(label: &str, key: &KeyId, stop: Stop) -> CaError {
    let (label, key) = (label.to_owned(), key.clone());
    match stop {
        Stop::Fault(fault) => fault.into(),
        Stop::Absent => TokenFault::KeyAbsent { label, key }.into(),
        Stop::Loose => TokenFault::KeyLoose { label, key }.into(),
        Stop::Exists => CaError::KeyExists { key },
    }
}

impl KeyStore for TokenKeyStore {
    fn generate(&self, id: &KeyId, kind: KeyType) -> Result<Signer, CaError> {
        let curve = Curve::of(kind).ok_or(TokenFault::KeyType)?;
        let (object, label) = (self.place.id(id), self.place.label(id));
        let public = self
            .pool
            .run(move |session| session.generate(&object, &label, curve))
            .map_err(self.fail(id))?;
        Ok(self.signer_for(id, public))
    }

    fn signer(&self, id: &KeyId) -> Result<Signer, CaError> {
        let object = self.place.id(id);
        let public = self
            .pool
            .run(move |session| session.public(&object))
            .map_err(self.fail(id))?;
        Ok(self.signer_for(id, public))
    }

    fn remove(&self, id: &KeyId) -> Result<(), CaError> {
        let object = self.place.id(id);
        match self.pool.run(move |session| session.destroy(&object)) {
            Err(Stop::Absent) => Ok(()),
            other => other.map_err(self.fail(id)),
        }
    }

    fn export(&self, id: &KeyId) -> Result<Zeroizing<Vec<u8>>, CaError> {
        Err(CaError::KeyStays {
            key: id.clone(),
            place: format!("the token '{}'", self.pool.label()),
        })
    }

    fn record(&self) -> Option<String> {
        serde_json::to_string(&*self.place).ok()
    }

    fn import(&self, id: &KeyId, _pkcs8: Zeroizing<Vec<u8>>) -> Result<(), CaError> {
        self.export(id).map(drop)
    }
}

/// Signs with one key of a token.
struct TokenSigner {
    key: KeyId,
    id: Vec<u8>,
    public: Public,
    pool: Pool,
}

impl PublicKeyData for TokenSigner {
    fn der_bytes(&self) -> &[u8] {
        &self.public.point
    }

    fn algorithm(&self) -> &'static SignatureAlgorithm {
        match self.public.curve {
            Curve::P256 => &PKCS_ECDSA_P256_SHA256,
            Curve::P384 => &PKCS_ECDSA_P384_SHA384,
        }
    }
}

impl Sign for TokenSigner {
    fn signature(&self, message: &[u8]) -> Result<Vec<u8>, CaError> {
        let (id, digest) = (self.id.clone(), self.public.curve.digest(message));
        let signature = self
            .pool
            .run(move |session| session.sign(&id, &digest))
            .map_err(|stop| said(self.pool.label(), &self.key, stop))?;
        let checked = self
            .public
            .curve
            .checked(&self.public.point, message, &signature);
        checked.ok_or_else(|| {
            TokenFault::Refused {
                label: self.pool.label().to_owned(),
                what: "sign",
                reason: "its signature is not one of this key; replace the token".to_owned(),
            }
            .into()
        })
    }

    fn waits(&self) -> bool {
        true
    }
}
