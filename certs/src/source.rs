//! The live identity of a node: what every handshake reads, and what rotation replaces.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::SystemTime;

use arc_swap::ArcSwap;
use tokio::sync::watch;

use crate::{BundleSet, VerifyError, X509Svid};

/// One consistent state: an SVID and the bundles that vouch for it.
#[derive(Debug, Clone)]
pub struct Identity {
    /// Who we are.
    pub svid: Arc<X509Svid>,
    /// Whom we trust.
    pub bundles: Arc<BundleSet>,
    /// Grows when the SVID is replaced: connections made under an older one are due for replacement.
    pub generation: u64,
    /// Grows when the bundles are replaced.
    pub bundle_generation: u64,
}

/// Holds the current [`Identity`]. Readers never wait; a change is whole or does not happen.
///
/// A new bundle never makes anyone ask for a new SVID: the two rotate apart (ca-ops §10.7).
pub struct IdentitySource {
    current: ArcSwap<Identity>,
    changes: watch::Sender<u64>,
    /// Only writers take it, for the few lines of read, check, store.
    writing: Mutex<()>,
}

impl IdentitySource {
    /// Starts with an SVID and bundles, as they are. A saved SVID may have expired while the node was down and is
    /// needed all the same to say so; whoever wants to know first calls [`X509Svid::validate`].
    pub fn new(svid: X509Svid, bundles: BundleSet) -> Arc<Self> {
        let identity = Identity {
            svid: Arc::new(svid),
            bundles: Arc::new(bundles),
            generation: 1,
            bundle_generation: 1,
        };
        Arc::new(Self {
            current: ArcSwap::from_pointee(identity),
            changes: watch::Sender::new(0),
            writing: Mutex::new(()),
        })
    }

    /// The identity at this moment. Read it once per decision.
    pub fn current(&self) -> Arc<Identity> {
        self.current.load_full()
    }

    /// Replaces the SVID, if the present bundles vouch for it at `now`.
    ///
    /// # Errors
    /// Why not; the old SVID stays in use.
    pub fn replace_svid(&self, svid: X509Svid, now: SystemTime) -> Result<(), VerifyError> {
        self.change(|old| {
            svid.validate(&old.bundles, now)?;
            Ok(Identity {
                svid: Arc::new(svid),
                generation: old.generation + 1,
                ..old.clone()
            })
        })
    }

    /// Replaces all bundles, if they still vouch for the present SVID. An SVID that has expired is judged as of
    /// its last second, so that a node whose renewal is late still learns whom to trust; one that is revoked is
    /// judged as if it were not, for the same reason.
    ///
    /// # Errors
    /// Why not; the old bundles stay in use.
    pub fn replace_bundles(&self, bundles: BundleSet, now: SystemTime) -> Result<(), VerifyError> {
        self.change(|old| {
            let roots = bundles.without_revocations();
            old.svid.validate(&roots, now.min(old.svid.not_after()))?;
            Ok(Identity {
                bundles: Arc::new(bundles),
                bundle_generation: old.bundle_generation + 1,
                ..old.clone()
            })
        })
    }

    /// Replaces both in one step, if they fit together at `now`.
    ///
    /// # Errors
    /// Why not; nothing changes.
    pub fn replace(
        &self,
        svid: X509Svid,
        bundles: BundleSet,
        now: SystemTime,
    ) -> Result<(), VerifyError> {
        self.change(|old| {
            svid.validate(&bundles, now)?;
            Ok(Identity {
                svid: Arc::new(svid),
                bundles: Arc::new(bundles),
                generation: old.generation + 1,
                bundle_generation: old.bundle_generation + 1,
            })
        })
    }

    /// Tells of every change. The value counts changes of either kind; what changed is in
    /// [`current`](Self::current).
    pub fn subscribe(&self) -> watch::Receiver<u64> {
        self.changes.subscribe()
    }

    fn change(
        &self,
        next: impl FnOnce(&Identity) -> Result<Identity, VerifyError>,
    ) -> Result<(), VerifyError> {
        // The lock guards no data of its own, so a writer that panicked left nothing half done.
        let _writing = self.writing.lock().unwrap_or_else(PoisonError::into_inner);
        let next = next(&self.current.load())?;
        self.current.store(Arc::new(next));
        self.changes.send_modify(|count| *count += 1);
        Ok(())
    }
}

impl std::fmt::Debug for IdentitySource {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("IdentitySource")
            .field(&self.current.load())
            .finish()
    }
}

#[cfg(test)]
#[path = "source_tests.rs"]
mod tests;
