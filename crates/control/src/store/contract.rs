//! What every store must do, as one function: an implementation that passes it can carry weft.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use tokio::time::timeout;

use super::{Condition, Revision, Store, StoreError, Transaction, Txn, Watch};

/// A watcher must see a commit within this time; generous, as it is only there to turn a hang into a failure.
const PROMPT: Duration = Duration::from_secs(10);

/// Checks an empty store against the contract, rule by rule.
///
/// # Errors
/// The first rule that does not hold, in words. For tests: it writes and deletes under `contract/`.
pub async fn store_contract(store: Arc<dyn Store>) -> Result<(), String> {
    an_empty_store_is_at_its_revision(&*store).await?;
    writes_are_read_back_with_their_revision(&*store).await?;
    ranges_are_sorted_and_stop_at_the_prefix(&*store).await?;
    conditions_decide_and_failure_changes_nothing(&*store).await?;
    one_of_two_racing_writers_wins(store.clone()).await?;
    a_watch_sees_whole_transactions_in_order(&*store).await?;
    a_watch_from_a_range_misses_nothing(store.clone()).await?;
    limits_are_kept(&*store).await
}

fn ensure(holds: bool, rule: &str) -> Result<(), String> {
    if holds { Ok(()) } else { Err(rule.to_owned()) }
}

fn words(error: StoreError) -> String {
    error.to_string()
}

async fn next(watch: &mut dyn Watch) -> Result<Transaction, String> {
    match timeout(PROMPT, watch.next()).await {
        Ok(Ok(transaction)) => Ok(transaction),
        Ok(Err(end)) => Err(format!("a watch ended: {end}")),
        Err(_) => Err("a watch did not see a commit in time".to_owned()),
    }
}

async fn an_empty_store_is_at_its_revision(store: &dyn Store) -> Result<(), String> {
    let range = store.range("contract/").await.map_err(words)?;
    ensure(
        range.entries.is_empty(),
        "the contract needs an empty store",
    )?;
    let same = store.commit(Txn::new()).await.map_err(words)?;
    ensure(
        same == range.revision,
        "a transaction without operations does not raise the revision",
    )
}

async fn writes_are_read_back_with_their_revision(store: &dyn Store) -> Result<(), String> {
    let before = store.range("").await.map_err(words)?.revision;
    let first = store
        .commit(Txn::new().put("contract/a", "1").put("contract/b", "2"))
        .await
        .map_err(words)?;
    ensure(first > before, "a commit raises the revision")?;
    let second = store
        .commit(Txn::new().put("contract/b", "3").delete("contract/none"))
        .await
        .map_err(words)?;
    ensure(second > first, "each commit raises the revision")?;
    let a = store.get("contract/a").await.map_err(words)?;
    let b = store.get("contract/b").await.map_err(words)?;
    ensure(
        a.is_some_and(|a| a.value == "1" && a.mod_revision == first),
        "a key keeps the revision that last wrote it",
    )?;
    ensure(
        b.is_some_and(|b| b.value == "3" && b.mod_revision == second),
        "a key has its latest value",
    )?;
    ensure(
        store.get("contract/none").await.map_err(words)?.is_none(),
        "an absent key is none",
    )
}

async fn ranges_are_sorted_and_stop_at_the_prefix(store: &dyn Store) -> Result<(), String> {
    let revision = store
        .commit(
            Txn::new()
                .put("contract/p/b", "")
                .put("contract/p/a", "")
                .put("contract/p\u{10ffff}", "")
                .put("contract/q", ""),
        )
        .await
        .map_err(words)?;
    let range = store.range("contract/p/").await.map_err(words)?;
    let keys: Vec<&str> = range.entries.iter().map(|e| e.key.as_str()).collect();
    ensure(
        keys == ["contract/p/a", "contract/p/b"],
        "a range has exactly the keys with its prefix, in order",
    )?;
    ensure(
        range.revision == revision,
        "a range says at which revision it was taken",
    )
}

async fn conditions_decide_and_failure_changes_nothing(store: &dyn Store) -> Result<(), String> {
    let revision = store
        .commit(Txn::new().put("contract/c", "1"))
        .await
        .map_err(words)?;
    let key = || "contract/c".to_owned();
    let refused = [
        Condition::Absent(key()),
        Condition::At(key(), revision - 1),
        Condition::At("contract/none".into(), revision),
        Condition::Exists("contract/none".into()),
    ];
    for condition in refused {
        let failed = condition.key().to_owned();
        let txn = Txn::new()
            .when(Condition::Exists(key()))
            .when(condition.clone())
            .put("contract/c", "2")
            .put("contract/new", "2")
            .delete("contract/a");
        let reply = store.commit(txn).await;
        ensure(
            reply == Err(StoreError::Conflict { key: failed }),
            &format!("{condition:?} must be refused by name"),
        )?;
    }
    let after = store.range("contract/").await.map_err(words)?;
    ensure(
        after.revision == revision && !after.entries.iter().any(|e| e.key == "contract/new"),
        "a refused transaction changes nothing",
    )?;
    let txn = Txn::new()
        .when(Condition::At(key(), revision))
        .when(Condition::Absent("contract/new".into()))
        .delete("contract/c");
    ensure(
        store.commit(txn).await.is_ok_and(|r| r > revision),
        "a transaction whose conditions hold is committed",
    )
}

async fn one_of_two_racing_writers_wins(store: Arc<dyn Store>) -> Result<(), String> {
    let attempt = |value: &'static str| {
        let store = store.clone();
        async move {
            let txn = Txn::new()
                .when(Condition::Absent("contract/race".into()))
                .put("contract/race", value);
            store.commit(txn).await
        }
    };
    let (one, two) = tokio::join!(attempt("one"), attempt("two"));
    ensure(
        one.is_ok() != two.is_ok(),
        "of two racing writers exactly one wins",
    )
}

async fn a_watch_sees_whole_transactions_in_order(store: &dyn Store) -> Result<(), String> {
    let from = store.range("").await.map_err(words)?.revision;
    let mut early = store.watch("contract/w/", from);
    let first = store
        .commit(
            Txn::new()
                .put("contract/w/b", "1")
                .put("contract/w/a", "1")
                .put("contract/other", "1"),
        )
        .await
        .map_err(words)?;
    store
        .commit(Txn::new().put("contract/other", "2"))
        .await
        .map_err(words)?;
    let third = store
        .commit(Txn::new().delete("contract/w/a").put("contract/w/b", "2"))
        .await
        .map_err(words)?;
    let mut late = store.watch("contract/w/", from);
    for watch in [&mut early, &mut late] {
        let seen = next(&mut **watch).await?;
        ensure(
            seen.revision == first
                && seen.changes.len() == 2
                && seen.changes[0].key == "contract/w/a",
            "a watch gives a whole transaction, of its prefix only, in the order of keys",
        )?;
        let seen = next(&mut **watch).await?;
        ensure(
            seen.revision == third
                && seen.changes[0].value.is_none()
                && seen.changes[1].value == Some(Bytes::from("2")),
            "a watch skips what is not of its prefix, and shows removals",
        )?;
    }
    Ok(())
}

async fn a_watch_from_a_range_misses_nothing(store: Arc<dyn Store>) -> Result<(), String> {
    const WRITES: u64 = 50;
    let range = store.range("contract/m/").await.map_err(words)?;
    let mut watch = store.watch("contract/m/", range.revision);
    let writer = async {
        for i in 0..WRITES {
            let txn = Txn::new().put("contract/m/x", i.to_string());
            store.commit(txn).await.map_err(words)?;
        }
        Ok::<(), String>(())
    };
    let reader = async {
        let mut last: Revision = range.revision;
        for i in 0..WRITES {
            let seen = next(&mut *watch).await?;
            ensure(seen.revision > last, "a watch goes forward")?;
            ensure(
                seen.changes[0].value == Some(Bytes::from(i.to_string())),
                "a watch misses no transaction and repeats none",
            )?;
            last = seen.revision;
        }
        Ok(())
    };
    let (written, read) = tokio::join!(writer, reader);
    written.and(read)
}

async fn limits_are_kept(store: &dyn Store) -> Result<(), String> {
    let big = vec![0_u8; super::MAX_VALUE + 1];
    let reply = store.commit(Txn::new().put("contract/big", big)).await;
    ensure(
        matches!(reply, Err(StoreError::Invalid(_))),
        "a value over the limit is refused",
    )?;
    let reply = store.commit(Txn::new().put("", "x")).await;
    ensure(
        matches!(reply, Err(StoreError::Invalid(_))),
        "an empty key is refused",
    )
}
