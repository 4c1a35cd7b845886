//! What is in the file: two tables, and what is read from and written to them in one transaction.

use std::collections::BTreeMap;

use ::redb::{Database, ReadTransaction, ReadableTable, TableDefinition, WriteTransaction};
use bytes::Bytes;
use weft_env::mutants::{Mutant, broken};

use crate::store::{Change, Entry, Op, Range, Revision, Txn};

/// Key to (revision of its last write, value).
pub(super) const DATA: TableDefinition<'_, &str, (u64, &[u8])> = TableDefinition::new("data");
/// The store's own numbers: its revision and the version of its layout.
pub(super) const META: TableDefinition<'_, &str, u64> = TableDefinition::new("meta");
pub(super) const REVISION: &str = "revision";
const FORMAT: &str = "format";
/// Raised when the layout changes in a way that an older weft would misread.
pub(super) const FORMAT_VERSION: u64 = 1;

/// Makes the tables of a new file; gives the revision, or the unknown layout version of an old one.
pub(super) fn prepare(database: &Database) -> Result<Result<Revision, u64>, ::redb::Error> {
    let txn = database.begin_write()?;
    let revision = {
        txn.open_table(DATA)?;
        let mut meta = txn.open_table(META)?;
        let format = meta.get(FORMAT)?.map(|value| value.value());
        match format {
            None => {
                meta.insert(FORMAT, FORMAT_VERSION)?;
                meta.insert(REVISION, 0)?;
                0
            }
            Some(FORMAT_VERSION) => meta.get(REVISION)?.map_or(0, |value| value.value()),
            Some(unknown) => return Ok(Err(unknown)),
        }
    };
    txn.commit()?;
    Ok(Ok(revision))
}

pub(super) fn get(txn: &ReadTransaction, key: &str) -> Result<Option<Entry>, ::redb::Error> {
    let table = txn.open_table(DATA)?;
    Ok(table.get(key)?.map(|found| {
        let (mod_revision, value) = found.value();
        Entry {
            key: key.to_owned(),
            value: Bytes::copy_from_slice(value),
            mod_revision,
        }
    }))
}

pub(super) fn range(txn: &ReadTransaction, prefix: &str) -> Result<Range, ::redb::Error> {
    let table = txn.open_table(DATA)?;
    let meta = txn.open_table(META)?;
    let mut entries = Vec::new();
    for row in table.range(prefix..)? {
        let (key, found) = row?;
        let key = key.value();
        if !key.starts_with(prefix) {
            break;
        }
        let (mod_revision, value) = found.value();
        entries.push(Entry {
            key: key.to_owned(),
            value: Bytes::copy_from_slice(value),
            mod_revision,
        });
    }
    let revision = meta.get(REVISION)?.map_or(0, |value| value.value());
    Ok(Range { entries, revision })
}

/// `Err(key)` inside: the condition on that key does not hold. `None` for the changes: there were no operations.
pub(super) type Committed = Result<(Revision, Option<Vec<Change>>), String>;

pub(super) fn commit(database: &Database, txn: &Txn) -> Result<Committed, ::redb::Error> {
    let mut write = database.begin_write()?;
    if broken(Mutant::CommitsInMemory) {
        write.set_durability(::redb::Durability::None)?;
    }
    let outcome = apply(&write, txn)?;
    match &outcome {
        Ok((_, Some(_))) => write.commit()?,
        Ok((_, None)) | Err(_) => write.abort()?,
    }
    Ok(outcome)
}

fn apply(write: &WriteTransaction, txn: &Txn) -> Result<Committed, ::redb::Error> {
    let mut table = write.open_table(DATA)?;
    let mut meta = write.open_table(META)?;
    for condition in &txn.conditions {
        let found = table.get(condition.key())?.map(|found| found.value().0);
        if !condition.holds(found) {
            return Ok(Err(condition.key().to_owned()));
        }
    }
    let revision = meta.get(REVISION)?.map_or(0, |value| value.value());
    if txn.ops.is_empty() {
        return Ok(Ok((revision, None)));
    }
    let revision = revision + 1;
    let mut changes: BTreeMap<&str, Option<Bytes>> = BTreeMap::new();
    for op in &txn.ops {
        match op {
            Op::Put(key, value) => {
                table.insert(key.as_str(), (revision, value.as_ref()))?;
                changes.insert(key, Some(value.clone()));
            }
            Op::Delete(key) => {
                let existed = table.remove(key.as_str())?.is_some();
                if existed || changes.contains_key(key.as_str()) {
                    changes.insert(key, None);
                }
            }
        }
    }
    meta.insert(REVISION, revision)?;
    let changes = changes
        .into_iter()
        .map(|(key, value)| Change {
            key: key.to_owned(),
            value,
        })
        .collect();
    Ok(Ok((revision, Some(changes))))
}
