//! An identity from elsewhere: the Workload API of another SPIFFE provider, in place of the mesh's own CA
//! (`docs/adr/0013-identity-from-elsewhere.md`).
//!
//! `first` is the start, `follow` what comes after it. Here is whom such a sidecar trusts: what the provider says and
//! what the control node says, together.

mod first;
mod follow;

use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::SystemTime;

use weft_certs::{BundleSet, IdentitySource, TrustBundle, VerifyError};
use weft_workload::{Provided, Subscription};

pub(crate) use first::{First, begin};
pub(crate) use follow::Follow;

/// Where the identity comes from, and the two that say whom to trust.
pub(crate) struct Provider {
    socket: PathBuf,
    sets: Mutex<Sets>,
    /// The stream that the first identity came by, until it is followed.
    begun: Mutex<Option<Subscription>>,
}

/// The last word of each.
#[derive(Debug, Clone, Default)]
struct Sets {
    /// Of the provider: the whole of it with each message.
    provided: BundleSet,
    /// Of the control node, with what is revoked.
    pushed: BundleSet,
}

/// The address of a provider, as operators and other tools write it.
pub(crate) fn address(socket: &Path) -> String {
    format!("unix://{}", socket.display())
}

impl Provider {
    fn new(socket: PathBuf, begun: Subscription, provided: BundleSet, pushed: BundleSet) -> Self {
        Self {
            socket,
            sets: Mutex::new(Sets { provided, pushed }),
            begun: Mutex::new(Some(begun)),
        }
    }

    /// Its address.
    pub(crate) fn address(&self) -> String {
        address(&self.socket)
    }

    /// What the control node said: what outlives this process, since the provider is asked again at each start.
    pub(crate) fn pushed(&self) -> BundleSet {
        self.sets().pushed.clone()
    }

    /// Takes the control node's word in. False if it is what it was.
    ///
    /// # Errors
    /// Why it is not followed; everything stays as it was.
    pub(crate) fn push(
        &self,
        pushed: BundleSet,
        identity: &IdentitySource,
        now: SystemTime,
    ) -> Result<bool, VerifyError> {
        let mut sets = self.sets();
        if sets.pushed == pushed {
            return Ok(false);
        }
        identity.replace_bundles(merged(&sets.provided, &pushed), now)?;
        sets.pushed = pushed;
        Ok(true)
    }

    /// Takes a message of the provider in: SVID and bundles in one step, if they fit together.
    ///
    /// # Errors
    /// Why it is not used; everything stays as it was.
    pub(crate) fn provide(
        &self,
        provided: Provided,
        identity: &IdentitySource,
        now: SystemTime,
    ) -> Result<(), VerifyError> {
        let Provided { svid, bundles } = provided;
        let mut sets = self.sets();
        let next = merged(&bundles, &sets.pushed);
        let current = identity.current();
        let same_svid = current.svid.chain() == svid.chain();
        match (same_svid, *current.bundles == next) {
            (true, true) => {}
            // Connections of an SVID that is in use already are not due for replacement.
            (true, false) => identity.replace_bundles(next, now)?,
            (false, true) => identity.replace_svid(svid, now)?,
            (false, false) => identity.replace(svid, next, now)?,
        }
        sets.provided = bundles;
        Ok(())
    }

    /// The stream that the first identity came by, once.
    fn begun(&self) -> Option<Subscription> {
        let mut begun = self.begun.lock().unwrap_or_else(PoisonError::into_inner);
        begun.take()
    }

    fn sets(&self) -> MutexGuard<'_, Sets> {
        // Each of the two is put in place whole.
        self.sets.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Both together: in each trust domain the roots that either names. Edition, keys of tokens and what is revoked are the
/// control node's: a provider says nothing of them here.
fn merged(provided: &BundleSet, pushed: &BundleSet) -> BundleSet {
    let mut all = pushed.clone();
    for bundle in provided.iter() {
        let with = match pushed.get(&bundle.trust_domain) {
            Some(known) => with_roots(known, bundle),
            None => bundle.clone(),
        };
        all.insert(with);
    }
    all
}

fn with_roots(known: &TrustBundle, more: &TrustBundle) -> TrustBundle {
    let mut bundle = known.clone();
    for root in &more.roots {
        if !bundle.roots.contains(root) {
            bundle.roots.push(root.clone());
        }
    }
    bundle
}

#[cfg(test)]
mod tests {
    use super::*;
    use weft_ca::{Authority, CaConfig, MemoryKeyStore, make_csr};
    use weft_certs::{CertificateDer, RevocationList, SpiffeId, TrustDomain, X509Svid};
    use weft_env::Env;

    fn td(name: &str) -> TrustDomain {
        TrustDomain::parse(name).unwrap()
    }

    fn bundle(name: &str, sequence: u64, roots: &[&str]) -> TrustBundle {
        let der = |root: &&str| CertificateDer::from(root.as_bytes().to_vec());
        TrustBundle {
            trust_domain: td(name),
            sequence,
            roots: roots.iter().map(der).collect(),
            jwt_keys: Vec::new(),
        }
    }

    #[test]
    fn a_root_is_trusted_for_as_long_as_one_of_the_two_names_it() {
        let provided: BundleSet = [bundle("mesh", 0, &["a", "b"]), bundle("friend", 0, &["f"])]
            .into_iter()
            .collect();
        let mut pushed: BundleSet = [bundle("mesh", 7, &["c", "a"]), bundle("ally", 3, &["x"])]
            .into_iter()
            .collect();
        pushed.revoke(td("mesh"), RevocationList::default());
        let all = merged(&provided, &pushed);
        assert_eq!(
            all.get(&td("mesh")),
            Some(&bundle("mesh", 7, &["c", "a", "b"]))
        );
        assert_eq!(all.get(&td("friend")), Some(&bundle("friend", 0, &["f"])));
        assert_eq!(all.get(&td("ally")), Some(&bundle("ally", 3, &["x"])));
        assert!(all.revoked(&td("mesh")).is_some());

        // Workload API §4.4: what a message does not name is withdrawn.
        let later = merged(&BundleSet::from(bundle("mesh", 0, &["b"])), &pushed);
        assert_eq!(
            later.get(&td("mesh")),
            Some(&bundle("mesh", 7, &["c", "a", "b"]))
        );
        assert_eq!(later.get(&td("friend")), None);
        let without = merged(&provided, &BundleSet::new());
        assert_eq!(without, provided);
    }

    fn authority() -> Authority {
        let (config, keys) = (CaConfig::new(td("mesh")), MemoryKeyStore::new());
        let mut rng = Env::system().rng("test");
        let now = Env::system().wall();
        let journal = Authority::create(&config, &keys, now, &mut rng).unwrap();
        Authority::load(config, journal, &keys).unwrap()
    }

    fn svid(by: &Authority) -> X509Svid {
        let id = SpiffeId::parse("spiffe://mesh/ns/default/sa/orders").unwrap();
        let (new, mut rng) = (make_csr(Some(&id)).unwrap(), Env::system().rng("test"));
        let issued = by.issue(&new.csr, &id, None, Env::system().wall(), &mut rng);
        X509Svid::new(issued.unwrap().chain, new.key).unwrap()
    }

    fn provided(svid: X509Svid, by: &Authority) -> Provided {
        let bundles = BundleSet::from(by.bundle());
        Provided { svid, bundles }
    }

    #[test]
    fn svid_and_bundles_are_swapped_together_or_not_at_all() {
        let (first, second, mesh) = (authority(), authority(), authority());
        let now = Env::system().wall();
        let bundles = BundleSet::from(first.bundle());
        let identity = IdentitySource::new(svid(&first), bundles.clone());
        let provider = Provider {
            socket: "/run/provider.sock".into(),
            sets: Mutex::new(Sets {
                provided: bundles,
                pushed: BundleSet::new(),
            }),
            begun: Mutex::new(None),
        };
        let pushed = BundleSet::from(mesh.bundle());
        assert!(provider.push(pushed.clone(), &identity, now).unwrap());
        assert!(!provider.push(pushed.clone(), &identity, now).unwrap());
        let roots = || {
            let known = identity.current().bundles.clone();
            known.get(&td("mesh")).unwrap().roots.clone()
        };
        let of = |by: &Authority| by.bundle().roots[0].clone();
        assert_eq!(roots(), [of(&mesh), of(&first)]);

        // An SVID that the bundles which came with it do not vouch for.
        let before = identity.current();
        let torn = provided(svid(&second), &first);
        provider.provide(torn, &identity, now).unwrap_err();
        assert!(std::sync::Arc::ptr_eq(&before, &identity.current()));

        // The next root along with an SVID under it; the old one is withdrawn.
        provider
            .provide(provided(svid(&second), &second), &identity, now)
            .unwrap();
        assert_eq!(roots(), [of(&mesh), of(&second)]);
        let generation = identity.current().generation;
        assert_eq!(generation, before.generation + 1);

        // The same SVID once more is no new one: its connections stay.
        let same = Provided {
            svid: (*identity.current().svid).clone(),
            bundles: [second.bundle(), bundle("friend", 0, &["f"])]
                .into_iter()
                .collect(),
        };
        provider.provide(same, &identity, now).unwrap();
        assert_eq!(identity.current().generation, generation);
        assert!(identity.current().bundles.get(&td("friend")).is_some());
        assert_eq!(provider.pushed(), pushed);
    }
}
