//! The vendor's library. A process has one of each, however many stores use it: PKCS#11 knows applications, not users
//! of a library.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError, RwLock};

use cryptoki::context::{CInitializeArgs, CInitializeFlags, Pkcs11};
use cryptoki::error::{Error, RvError};

use crate::TokenFault;

static LOADED: Mutex<BTreeMap<PathBuf, Arc<Module>>> = Mutex::new(BTreeMap::new());

/// A library that is loaded and started.
pub(crate) struct Module {
    context: Pkcs11,
    /// Shared by those who are in the library, exclusive for who starts it anew: nobody may be in it then.
    gate: RwLock<()>,
    /// Counts its starts: handles of an earlier one mean nothing, or something else.
    starts: AtomicU64,
}

impl Module {
    /// Loads it, unless that was done.
    pub(crate) fn load(path: &Path) -> Result<Arc<Self>, TokenFault> {
        if !path.exists() {
            return Err(TokenFault::ModuleMissing {
                path: path.to_owned(),
            });
        }
        let unusable = |error: &Error| TokenFault::ModuleUnusable {
            path: path.to_owned(),
            reason: reason(error),
        };
        let mut loaded = LOADED.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(module) = loaded.get(path) {
            return Ok(module.clone());
        }
        let context = Pkcs11::new(path).map_err(|e| unusable(&e))?;
        start(&context).map_err(|e| unusable(&e))?;
        let module = Arc::new(Self {
            context,
            gate: RwLock::new(()),
            starts: AtomicU64::new(1),
        });
        loaded.insert(path.to_owned(), module.clone());
        Ok(module)
    }

    /// Which start this is.
    pub(crate) fn starts(&self) -> u64 {
        self.starts.load(Ordering::Acquire)
    }

    /// Goes into the library.
    pub(crate) fn enter<T>(&self, work: impl FnOnce(&Pkcs11) -> T) -> T {
        let _in = self.gate.read().unwrap_or_else(PoisonError::into_inner);
        work(&self.context)
    }

    /// Ends and starts it: many libraries look for tokens only then. Every session is gone after it. Does nothing while
    /// somebody is in it, who may be stuck there.
    pub(crate) fn restart(&self) -> Result<(), Error> {
        let Ok(_alone) = self.gate.try_write() else {
            return Ok(());
        };
        self.starts.fetch_add(1, Ordering::AcqRel);
        // One that does not end in order is started all the same, or says why not.
        let _ = self.context.clone().finalize();
        start(&self.context)
    }
}

fn start(context: &Pkcs11) -> Result<(), Error> {
    match context.initialize(CInitializeArgs::new(CInitializeFlags::OS_LOCKING_OK)) {
        Err(Error::Pkcs11(RvError::CryptokiAlreadyInitialized, _)) => Ok(()),
        other => other,
    }
}

/// What the library says, without the words around it.
pub(crate) fn reason(error: &Error) -> String {
    match error {
        Error::Pkcs11(code, function) => format!("{function:?} gives {code:?}"),
        Error::LibraryLoading(error) => error.to_string(),
        Error::MissingSymbol(name) => format!("it has no {name}"),
        other => other.to_string(),
    }
}
