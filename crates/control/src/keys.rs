//! Where the authority's private keys are and how they are reached: files, sealed or not, or a token.
//!
//! The key directory says which: `seal.json` in it that its files are sealed, `pkcs11.json` that the keys are in a token.

use std::fs;
use std::path::Path;
use std::sync::Arc;

use weft_ca::{Error as CaError, FileKeyStore, KeyStore, Secret};
use weft_env::Rng;
use weft_pkcs11::{Place, TokenAccess, TokenKeyStore, recorded};

/// What is given to reach the keys. Nothing: they are files that are not sealed.
#[derive(Debug, Clone, Default)]
pub struct KeyAccess {
    /// What seals them, as files.
    pub secret: Option<Arc<Secret>>,
    /// The token that they are in.
    pub token: Option<TokenAccess>,
}

/// Why the keys and what was given do not fit together.
#[derive(Debug, thiserror::Error)]
enum Misfit {
    #[error(
        "the authority's keys are in the token '{token}': give its PIN with --pkcs11-pin-file, or in WEFT_PKCS11_PIN"
    )]
    InToken { token: String },
    #[error(
        "the authority's keys in {dir} are files, and a token takes none in: start without --pkcs11-token and the like; to have keys in a token, make the mesh with them"
    )]
    InFiles { dir: String },
    #[error("cannot look into the key directory {dir}: {source}")]
    Directory { dir: String, source: std::io::Error },
}

impl From<Misfit> for CaError {
    fn from(misfit: Misfit) -> Self {
        Self::KeyPlace(Box::new(misfit))
    }
}

/// Opens the keys of a directory. One that has none yet is made, for what is given; keys in a token are then named after
/// `name`, for people who look into it. It blocks.
///
/// # Errors
/// What the store says; that keys in a token need its PIN, or that keys in files cannot be in a token.
pub fn open_keys(
    directory: &Path,
    access: &KeyAccess,
    name: &str,
    rng: &mut Rng,
) -> Result<Arc<dyn KeyStore>, CaError> {
    let Some(token) = &access.token else {
        if let Some(place) = recorded(directory)? {
            return Err(Misfit::InToken { token: place.token }.into());
        }
        return Ok(Arc::new(match &access.secret {
            Some(secret) => FileKeyStore::open_sealed(directory, secret)?,
            None => FileKeyStore::open(directory)?,
        }));
    };
    if let Some(place) = recorded(directory)? {
        return Ok(Arc::new(TokenKeyStore::open(place, token)?));
    }
    check_empty(directory)?;
    // Makes the directory, for its owner only.
    FileKeyStore::open(directory)?;
    let store = TokenKeyStore::create(directory, token, name, rng)?;
    Ok(Arc::new(store))
}

fn check_empty(directory: &Path) -> Result<(), CaError> {
    let dir = || directory.display().to_string();
    match fs::read_dir(directory).map(|mut entries| entries.next().is_some()) {
        Ok(false) => Ok(()),
        Ok(true) => Err(Misfit::InFiles { dir: dir() }.into()),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(()),
        Err(source) => Err(Misfit::Directory { dir: dir(), source }.into()),
    }
}

/// Destroys the keys in a token that a mesh has left there which did not come to be. What cannot be destroyed is told.
pub(crate) fn discard(directory: &Path, access: &KeyAccess) {
    let (Ok(Some(place)), Some(token)) = (recorded(directory), &access.token) else {
        return;
    };
    let name = place.token.clone();
    match TokenKeyStore::open(place, token).and_then(|store| store.destroy_all()) {
        Ok(0) => {}
        Ok(keys) => tracing::info!(
            token = name,
            keys,
            "keys of an attempt that failed are destroyed"
        ),
        Err(error) => {
            tracing::warn!(token = name, %error, "keys of an attempt that failed may still be in the token");
        }
    }
}

/// For a backup whose keys are in a token: opens them there, and puts on record in an empty directory where they are.
///
/// # Errors
/// As [`open_keys`].
pub(crate) fn reopen(
    directory: &Path,
    place: Place,
    access: &KeyAccess,
) -> Result<Arc<dyn KeyStore>, CaError> {
    let Some(token) = &access.token else {
        return Err(Misfit::InToken { token: place.token }.into());
    };
    let store = TokenKeyStore::open(place, token)?;
    FileKeyStore::open(directory)?;
    store.write_record(directory)?;
    Ok(Arc::new(store))
}
