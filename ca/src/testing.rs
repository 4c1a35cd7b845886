//! A clock, a seed and an authority for tests.
#![allow(clippy::unwrap_used)]

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use rand::SeedableRng;
use rand::rngs::StdRng;
use weft_certs::{SpiffeId, TrustDomain};

use crate::{Authority, CaConfig, Journal, MemoryKeyStore};

pub(crate) const INVOICES: &str = "spiffe://weft.local/ns/default/sa/invoices";
pub(crate) const CONTROL: &str = "spiffe://weft.local/ns/weft-system/sa/control";

/// The present of the tests: 2027-01-15.
pub(crate) fn now() -> SystemTime {
    UNIX_EPOCH + Duration::from_secs(1_800_000_000)
}

pub(crate) fn hours(n: u64) -> Duration {
    Duration::from_secs(n * 3600)
}

pub(crate) fn days(n: u64) -> Duration {
    hours(24 * n)
}

pub(crate) fn id(text: &str) -> SpiffeId {
    SpiffeId::parse(text).unwrap()
}

pub(crate) fn rng() -> StdRng {
    StdRng::from_seed([7; 32])
}

pub(crate) fn config() -> CaConfig {
    CaConfig::new(TrustDomain::parse("weft.local").unwrap())
}

/// What the shell does after each transition: through the text that the store would hold, and back.
pub(crate) fn reload(journal: &Journal, keys: &MemoryKeyStore) -> Authority {
    let text = serde_json::to_string(journal).unwrap();
    let read: Journal = serde_json::from_str(&text).unwrap();
    assert_eq!(&read, journal, "the journal survives its text form");
    Authority::load(config(), read, keys).unwrap()
}

pub(crate) fn authority() -> (Authority, MemoryKeyStore, StdRng) {
    let (keys, mut rng) = (MemoryKeyStore::new(), rng());
    let journal = Authority::create(&config(), &keys, now(), &mut rng).unwrap();
    (reload(&journal, &keys), keys, rng)
}
