//! What the control node pushes, kept at the delegate: the site's sidecars get it from there while it is an island.
//!
//! Config and trust stand under the same keys as at the control node. Instances and services of the mesh stand under
//! [`UPSTREAM`]: what is pushed on is the site's own sidecars, laid over those.

use std::collections::BTreeMap;

use bytes::Bytes;
use serde_json::Value;
use weft_wire::{ControlMessage, FrameReader, Update};

use crate::store::{Entry, MAX_OPS, Op, Store, StoreError, Txn, json};

/// Where instances and services are that the control node told of.
pub(crate) const UPSTREAM: &str = "upstream/";
/// What a whole update replaces.
const PLACES: [&str; 3] = ["config/", "trust/", UPSTREAM];
/// Changes in one transaction.
const AT_ONCE: usize = MAX_OPS / 4;

/// Where a pushed key stands here; `None`: a key of a later version, which is not kept.
fn place(key: &str) -> Option<String> {
    let head = key.split('/').next()?;
    match head {
        "config" | "trust" => Some(key.to_owned()),
        "endpoint" | "service" => Some(format!("{UPSTREAM}{key}")),
        _ => None,
    }
}

/// What turns the stored entries into what an update says. Pure.
fn changes(update: &Update, stored: &[Entry]) -> Vec<Op> {
    let wanted: BTreeMap<String, &Value> = update
        .set
        .iter()
        .filter_map(|(key, value)| Some((place(key)?, value)))
        .collect();
    let known: BTreeMap<&str, &Bytes> = stored
        .iter()
        .map(|entry| (entry.key.as_str(), &entry.value))
        .collect();
    let mut ops = Vec::new();
    for (key, value) in &wanted {
        let value = Bytes::from(json(value));
        if known.get(key.as_str()) != Some(&&value) {
            ops.push(Op::Put(key.clone(), value));
        }
    }
    let gone: Vec<String> = match update.whole {
        true => known
            .keys()
            .filter(|key| !wanted.contains_key(**key))
            .map(|key| (*key).to_owned())
            .collect(),
        false => update
            .unset
            .iter()
            .filter_map(|key| place(key))
            .filter(|key| known.contains_key(key.as_str()))
            .collect(),
    };
    ops.extend(gone.into_iter().map(Op::Delete));
    ops
}

/// What came of a frame.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Followed {
    /// The control node's revision that is here now.
    pub(super) revision: u64,
    /// How many keys have changed.
    pub(super) changed: usize,
}

/// Takes the frame of one update into the store.
///
/// # Errors
/// Why not, in one sentence; part of it may be stored, and is stored again with the next whole update.
pub(super) async fn take(store: &dyn Store, frame: &[u8]) -> Result<Followed, String> {
    let mut reader = FrameReader::new();
    reader.push(frame);
    let message = reader.next_message::<ControlMessage>();
    let message = message.map_err(|error| error.to_string())?;
    let Some(ControlMessage::Update(update)) = message else {
        return Err("what was to be followed is no update".to_owned());
    };
    let stored = all(store).await.map_err(|error| error.to_string())?;
    let ops = changes(&update, &stored);
    for part in ops.chunks(AT_ONCE) {
        let txn = Txn {
            ops: part.to_vec(),
            ..Txn::new()
        };
        let committed = store.commit(txn).await;
        committed.map_err(|error| error.to_string())?;
    }
    Ok(Followed {
        revision: update.revision,
        changed: ops.len(),
    })
}

/// Forgets an instance that has said goodbye, whatever the control node told of it before. Once that is back it is told
/// anew.
///
/// # Errors
/// [`StoreError`].
pub(crate) async fn forget(store: &dyn Store, instance: &str) -> Result<(), StoreError> {
    let end = format!("/{instance}");
    let known = store.range(&format!("{UPSTREAM}endpoint/")).await?;
    let mut txn = Txn::new();
    for entry in known.entries.iter().filter(|e| e.key.ends_with(&end)) {
        txn = txn.delete(&entry.key);
    }
    match txn.ops.is_empty() {
        true => Ok(()),
        false => store.commit(txn).await.map(drop),
    }
}

async fn all(store: &dyn Store) -> Result<Vec<Entry>, StoreError> {
    let mut entries = Vec::new();
    for prefix in PLACES {
        entries.extend(store.range(prefix).await?.entries);
    }
    Ok(entries)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn update(whole: bool, set: &[&str], unset: &[&str]) -> Update {
        Update {
            revision: 7,
            whole,
            set: set
                .iter()
                .map(|key| ((*key).to_owned(), json!(1)))
                .collect(),
            unset: unset.iter().map(|key| (*key).to_owned()).collect(),
        }
    }

    fn entry(key: &str) -> Entry {
        Entry {
            key: key.to_owned(),
            value: Bytes::from_static(b"1"),
            mod_revision: 1,
        }
    }

    fn told(ops: &[Op]) -> Vec<String> {
        let text = |op: &Op| match op {
            Op::Put(key, _) => format!("+{key}"),
            Op::Delete(key) => format!("-{key}"),
        };
        ops.iter().map(text).collect()
    }

    #[test]
    fn a_whole_update_replaces_all_and_a_change_only_what_it_names() {
        let stored = [
            entry("config/HTTPRoute/default/a"),
            entry("trust/weft.local"),
            entry("upstream/endpoint/default/orders/1"),
        ];
        let set = ["trust/weft.local", "endpoint/default/orders/2", "later/x"];
        assert_eq!(
            told(&changes(&update(true, &set, &[]), &stored)),
            [
                "+upstream/endpoint/default/orders/2",
                "-config/HTTPRoute/default/a",
                "-upstream/endpoint/default/orders/1"
            ]
        );
        let unset = ["endpoint/default/orders/1", "endpoint/default/orders/9"];
        assert_eq!(
            told(&changes(&update(false, &set, &unset), &stored)),
            [
                "+upstream/endpoint/default/orders/2",
                "-upstream/endpoint/default/orders/1"
            ]
        );
        assert!(changes(&update(false, &[], &[]), &stored).is_empty());
    }
}
