//! Every certificate that may still be in use: who has it, with which key, from which authority, until when.
//!
//! It answers what nothing else can: whether anything live chains to an authority, and which keys an identity has.

use std::time::{Duration, SystemTime};

use serde::{Deserialize, Serialize};
use weft_ca::Issued;
use weft_certs::{RootPin, SpiffeId};

use crate::store::{Store, StoreError, Txn, json};
use crate::time::unix_s;

const PREFIX: &str = "issued/";
/// Clocks of relying parties may be this far apart.
pub(crate) const SKEW: Duration = Duration::from_secs(300);
/// Most that are forgotten at once.
const MAX_FORGOTTEN: usize = 4096;

/// One certificate.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Leaf {
    #[serde(skip)]
    pub(crate) serial: String,
    pub(crate) id: SpiffeId,
    pub(crate) key: RootPin,
    /// The slot that signed it; of a delegate's certificate a root, of what a delegate issued `site-NAME`.
    pub(crate) issuer: String,
    pub(crate) not_after_unix: u64,
}

/// With the record of a certificate that is about to be handed out.
pub(crate) fn remember(txn: Txn, issued: &Issued) -> Txn {
    let leaf = Leaf {
        serial: issued.serial.clone(),
        id: issued.id.clone(),
        key: issued.key,
        issuer: issued.issuer.clone(),
        not_after_unix: unix_s(issued.not_after),
    };
    put_leaf(txn, &leaf)
}

/// With the record of a certificate that somebody else has issued.
pub(crate) fn put_leaf(txn: Txn, leaf: &Leaf) -> Txn {
    txn.put(format!("{PREFIX}{}", leaf.serial), json(leaf))
}

/// Whether the certificate of this serial is known to be one of this identity's.
pub(crate) async fn is_of(
    store: &dyn Store,
    serial: &str,
    id: &SpiffeId,
) -> Result<bool, StoreError> {
    let entry = store.get(&format!("{PREFIX}{serial}")).await?;
    let leaf = entry.and_then(|entry| serde_json::from_slice::<Leaf>(&entry.value).ok());
    Ok(leaf.is_some_and(|leaf| leaf.id == *id))
}

/// All that have not ended at `now`, by any clock that is not too far off.
pub(crate) async fn live(store: &dyn Store, now: SystemTime) -> Result<Vec<Leaf>, StoreError> {
    let now = unix_s(now).saturating_sub(SKEW.as_secs());
    let mut leaves = all(store).await?;
    leaves.retain(|leaf| leaf.not_after_unix > now);
    Ok(leaves)
}

/// Forgets those that have ended.
pub(crate) async fn forget_ended(store: &dyn Store, now: SystemTime) -> Result<usize, StoreError> {
    let now = unix_s(now).saturating_sub(SKEW.as_secs());
    let ended: Vec<Leaf> = all(store)
        .await?
        .into_iter()
        .filter(|leaf| leaf.not_after_unix <= now)
        .take(MAX_FORGOTTEN)
        .collect();
    if ended.is_empty() {
        return Ok(0);
    }
    let txn = ended.iter().fold(Txn::new(), |txn, leaf| {
        txn.delete(format!("{PREFIX}{}", leaf.serial))
    });
    store.commit(txn).await?;
    Ok(ended.len())
}

/// A record that cannot be read is of a later version and vouches for nothing here.
async fn all(store: &dyn Store) -> Result<Vec<Leaf>, StoreError> {
    let range = store.range(PREFIX).await?;
    let leaves = range.entries.iter().filter_map(|entry| {
        let leaf: Leaf = serde_json::from_slice(&entry.value).ok()?;
        let serial = entry.key.strip_prefix(PREFIX)?.to_owned();
        Some(Leaf { serial, ..leaf })
    });
    Ok(leaves.collect())
}
