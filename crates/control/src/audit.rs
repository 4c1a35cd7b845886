//! The audit log in the store. A record is committed in the same transaction as what it records: neither is there
//! without the other.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, SystemTime};

use tokio::time::Instant;
use weft_ca::audit::{Event, Head, Record, append};
use weft_env::Env;

use crate::admin::types::AuditPage;
use crate::error::ControlError;
use crate::issue::RateLimit;
use crate::store::{Condition, Op, Revision, Store, StoreError, Txn, json};
use crate::time::unix_ms;

/// The end of the log.
const HEAD: &str = "audit-head";
const PREFIX: &str = "audit/";
/// Records under one prefix: what one read takes.
const CHUNK: u64 = 1000;
/// Chunks that are kept: a million records, some 300 MB. Older ones go, a whole chunk at a time.
const KEPT_CHUNKS: u64 = 1000;
/// Refusals per second that are recorded one by one: strangers must not fill the disk.
const REFUSALS_PER_S: u32 = 5;

/// Writes the log. Cheap to clone.
#[derive(Clone)]
pub(crate) struct Audit {
    shared: Arc<Shared>,
}

struct Shared {
    env: Env,
    store: Arc<dyn Store>,
    /// Held over a commit, so that records follow each other.
    end: tokio::sync::Mutex<End>,
    refusals: Mutex<(RateLimit, u64)>,
}

#[derive(Clone)]
struct End {
    head: Head,
    /// The revision that wrote it; `None`: it was never written.
    revision: Option<Revision>,
}

impl End {
    async fn read(store: &dyn Store) -> Result<Self, ControlError> {
        let Some(entry) = store.get(HEAD).await? else {
            return Ok(Self {
                head: Head::default(),
                revision: None,
            });
        };
        let head = serde_json::from_slice(&entry.value).map_err(|error| ControlError::Damaged {
            what: format!("the end of the audit log cannot be read: {error}"),
        })?;
        Ok(Self {
            head,
            revision: Some(entry.mod_revision),
        })
    }
}

impl Audit {
    /// Goes on where the log ends.
    pub(crate) async fn load(env: &Env, store: Arc<dyn Store>) -> Result<Self, ControlError> {
        let end = End::read(&*store).await?;
        Ok(Self {
            shared: Arc::new(Shared {
                env: env.clone(),
                store,
                end: tokio::sync::Mutex::new(end),
                refusals: Mutex::new((RateLimit::new(REFUSALS_PER_S, Instant::now()), 0)),
            }),
        })
    }

    /// Commits a transaction together with the records of it.
    pub(crate) async fn commit(
        &self,
        mut txn: Txn,
        events: Vec<Event>,
    ) -> Result<Revision, StoreError> {
        let mut end = self.shared.end.lock().await;
        let now = unix_ms(self.shared.env.wall());
        let mut head = end.head.clone();
        for event in events {
            let (next, record) = append(&head, event, now);
            txn = txn.put(key(record.seq), json(&record));
            txn = self.forget(txn, record.seq);
            head = next;
        }
        let condition = match end.revision {
            Some(revision) => Condition::At(HEAD.to_owned(), revision),
            None => Condition::Absent(HEAD.to_owned()),
        };
        let wrote = head != end.head;
        let txn = match wrote {
            true => txn.when(condition).put(HEAD, json(&head)),
            false => txn,
        };
        match self.shared.store.commit(txn).await {
            Ok(revision) => {
                if wrote {
                    *end = End {
                        head,
                        revision: Some(revision),
                    };
                }
                Ok(revision)
            }
            Err(error) => {
                // It may have been committed for all that: the store knows.
                if let Ok(read) = End::read(&*self.shared.store).await {
                    *end = read;
                }
                Err(error)
            }
        }
    }

    /// The first record of a chunk lets the oldest chunk go.
    fn forget(&self, mut txn: Txn, seq: u64) -> Txn {
        let chunk = seq / CHUNK;
        if !seq.is_multiple_of(CHUNK) || chunk < KEPT_CHUNKS {
            return txn;
        }
        let oldest = (chunk - KEPT_CHUNKS) * CHUNK;
        for old in oldest..oldest + CHUNK {
            txn.ops.push(Op::Delete(key(old)));
        }
        txn
    }

    /// Records something that is not in the store.
    pub(crate) async fn note(&self, event: Event) -> Result<(), StoreError> {
        self.commit(Txn::new(), vec![event]).await.map(drop)
    }

    /// Records a refusal, if there are not too many of them; those left out are counted in the next one.
    pub(crate) async fn refused(&self, event: Event) {
        let omitted = {
            let mut refusals = self
                .shared
                .refusals
                .lock()
                .unwrap_or_else(PoisonError::into_inner);
            match refusals.0.take(Instant::now()) {
                Ok(()) => std::mem::take(&mut refusals.1),
                Err(_) => {
                    refusals.1 += 1;
                    return;
                }
            }
        };
        let event = match omitted {
            0 => event,
            omitted => event.with("refusals_left_out_before", omitted),
        };
        if let Err(error) = self.note(event).await {
            tracing::error!(%error, "a refusal is not in the audit log");
        }
    }

    /// Where the log ends.
    pub(crate) async fn head(&self) -> Head {
        self.shared.end.lock().await.head.clone()
    }

    /// The latest time at which anything was recorded before `at`, by this machine's clock of then. Reads the whole log.
    pub(crate) async fn last_before(
        &self,
        at: SystemTime,
    ) -> Result<Option<SystemTime>, StoreError> {
        let bound = unix_ms(at);
        let (mut after, mut last) = (0, None);
        loop {
            let page = self.page(after).await?;
            let earlier = page.records.iter().map(|record| record.at_unix_ms);
            last = last.max(earlier.filter(|recorded| *recorded < bound).max());
            match page.next {
                Some(next) => after = next,
                None => break,
            }
        }
        Ok(last.map(|ms| SystemTime::UNIX_EPOCH + Duration::from_millis(ms)))
    }

    /// The records after `after`, as many as one read takes.
    pub(crate) async fn page(&self, after: u64) -> Result<AuditPage, StoreError> {
        let head = self.head().await;
        let mut chunk = (after + 1) / CHUNK;
        let oldest = (head.seq / CHUNK).saturating_sub(KEPT_CHUNKS - 1);
        chunk = chunk.max(oldest);
        let range = self.shared.store.range(&chunk_prefix(chunk)).await?;
        let mut records: Vec<Record> = Vec::new();
        for entry in range.entries {
            let record: Record =
                serde_json::from_slice(&entry.value).map_err(|error| StoreError::Corrupt {
                    path: entry.key.clone(),
                    reason: format!("it is not a record of the audit log: {error}"),
                })?;
            if record.seq > after && record.seq <= head.seq {
                records.push(record);
            }
        }
        let last_of_chunk = (chunk + 1) * CHUNK - 1;
        let next = (last_of_chunk < head.seq).then_some(last_of_chunk);
        Ok(AuditPage {
            records,
            next,
            head,
        })
    }
}

fn chunk_prefix(chunk: u64) -> String {
    format!("{PREFIX}{chunk:013}/")
}

fn key(seq: u64) -> String {
    format!("{}{:03}", chunk_prefix(seq / CHUNK), seq % CHUNK)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::RedbStore;
    use weft_ca::audit::{check, check_end};

    #[tokio::test]
    async fn a_record_and_what_it_records_are_there_together_and_over_a_restart() {
        let (env, dir) = (Env::system(), tempfile::tempdir().unwrap());
        let path = dir.path().join("store.redb");
        let store: Arc<dyn Store> = Arc::new(RedbStore::open(&env, &path).await.unwrap());
        let audit = Audit::load(&env, store.clone()).await.unwrap();
        let event = |n: u64| Event::new("test", n, "nobody");
        for n in 1..=1001 {
            let txn = Txn::new().put("x", n.to_string());
            audit.commit(txn, vec![event(n)]).await.unwrap();
        }
        let failing = Txn::new()
            .when(Condition::Absent("x".to_owned()))
            .put("y", "1");
        audit.commit(failing, vec![event(0)]).await.unwrap_err();

        let again = Audit::load(&env, store.clone()).await.unwrap();
        again.note(event(1002)).await.unwrap();
        let mut records = Vec::new();
        let mut after = 0;
        let head = loop {
            let page = again.page(after).await.unwrap();
            records.extend(page.records);
            match page.next {
                Some(next) => after = next,
                None => break page.head,
            }
        };
        assert_eq!(records.len(), 1002, "what failed is not recorded");
        let end = check(&Head::default(), &records).unwrap();
        check_end(&end, &head).unwrap();
        assert_eq!(
            again.page(1001).await.unwrap().records[0].event,
            event(1002)
        );

        // The first writer knows an older end: it may not branch the log off.
        let error = audit.note(event(9)).await.unwrap_err();
        assert!(matches!(error, StoreError::Conflict { .. }), "{error}");
        audit.note(event(9)).await.unwrap();
    }

    #[tokio::test]
    async fn a_flood_of_refusals_is_counted_and_not_written() {
        let (env, dir) = (Env::system(), tempfile::tempdir().unwrap());
        let path = dir.path().join("store.redb");
        let store: Arc<dyn Store> = Arc::new(RedbStore::open(&env, &path).await.unwrap());
        let audit = Audit::load(&env, store).await.unwrap();
        for n in 0..200 {
            audit.refused(Event::new("test", n, "nobody")).await;
        }
        let written = audit.head().await.seq;
        assert!(written < 100, "{written} of 200 were written");
    }
}
