#![allow(clippy::disallowed_methods)]

use std::io;
use std::sync::atomic::{AtomicBool, Ordering};

use ::redb::StorageBackend;

use super::*;
use crate::store::{Condition, WatchEnd, store_contract};

async fn open(dir: &Path) -> Result<RedbStore, StoreError> {
    RedbStore::open(&Env::system(), &dir.join("store.redb")).await
}

#[tokio::test]
async fn redb_keeps_the_contract() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path()).await.unwrap();
    store_contract(Arc::new(store)).await.unwrap();
}

#[tokio::test]
async fn a_restart_keeps_keys_and_revision_and_forgets_the_history() {
    let dir = tempfile::tempdir().unwrap();
    let before = {
        let store = open(dir.path()).await.unwrap();
        store.commit(Txn::new().put("a", "1")).await.unwrap();
        store
            .commit(Txn::new().put("b", "2").delete("a"))
            .await
            .unwrap()
    };
    let store = open(dir.path()).await.unwrap();
    let range = store.range("").await.unwrap();
    assert_eq!(range.revision, before);
    assert_eq!(range.entries.len(), 1);
    assert_eq!(range.entries[0].mod_revision, before);

    let mut behind = store.watch("", before - 1);
    assert_eq!(
        behind.next().await,
        Err(WatchEnd::Compacted { from: before - 1 })
    );
    let mut current = store.watch("", before);
    let after = store.commit(Txn::new().put("c", "3")).await.unwrap();
    assert!(after > before);
    assert_eq!(current.next().await.unwrap().revision, after);
}

#[tokio::test]
async fn the_file_is_for_its_owner_only_even_if_it_was_not() {
    let dir = tempfile::tempdir().unwrap();
    let mode = || {
        let metadata = std::fs::metadata(dir.path().join("store.redb")).unwrap();
        metadata.permissions().mode() & 0o777
    };
    drop(open(dir.path()).await.unwrap());
    assert_eq!(mode(), 0o600);
    let loose = Permissions::from_mode(0o644);
    std::fs::set_permissions(dir.path().join("store.redb"), loose).unwrap();
    drop(open(dir.path()).await.unwrap());
    assert_eq!(mode(), 0o600);
}

#[tokio::test]
async fn a_watch_ends_when_the_store_is_closed() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path()).await.unwrap();
    let mut watch = store.watch("", 0);
    drop(store);
    assert_eq!(watch.next().await, Err(WatchEnd::Closed));
}

#[tokio::test]
async fn a_second_opener_is_told_that_another_control_node_uses_it() {
    let dir = tempfile::tempdir().unwrap();
    let _first = open(dir.path()).await.unwrap();
    let Err(error) = open(dir.path()).await else {
        panic!("the second must be refused");
    };
    assert!(matches!(error, StoreError::InUse { .. }), "{error}");
    assert!(
        error
            .to_string()
            .contains("another control node uses this state directory")
    );
}

#[tokio::test]
async fn a_file_that_is_not_a_store_is_called_corrupt() {
    let dir = tempfile::tempdir().unwrap();
    std::fs::write(dir.path().join("store.redb"), vec![7_u8; 8192]).unwrap();
    let Err(error) = open(dir.path()).await else {
        panic!("garbage must be refused");
    };
    assert!(matches!(error, StoreError::Corrupt { .. }), "{error}");
    assert!(error.to_string().contains("store.redb"), "{error}");
}

#[tokio::test]
async fn a_truncated_store_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("store.redb");
    {
        let store = open(dir.path()).await.unwrap();
        let big = vec![1_u8; 200_000];
        store.commit(Txn::new().put("a", big)).await.unwrap();
    }
    let len = std::fs::metadata(&path).unwrap().len();
    std::fs::File::options()
        .write(true)
        .open(&path)
        .unwrap()
        .set_len(len / 3)
        .unwrap();
    assert!(open(dir.path()).await.is_err());
}

#[tokio::test]
async fn a_changed_byte_is_found_when_the_store_is_opened() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("store.redb");
    {
        let store = open(dir.path()).await.unwrap();
        let value = b"a value to be found again".to_vec();
        store.commit(Txn::new().put("a", value)).await.unwrap();
    }
    let mut bytes = std::fs::read(&path).unwrap();
    let at = bytes
        .windows(25)
        .position(|window| window == b"a value to be found again")
        .unwrap();
    bytes[at] ^= 1;
    std::fs::write(&path, bytes).unwrap();
    let Err(error) = open(dir.path()).await else {
        panic!("a damaged page must be refused");
    };
    assert!(matches!(error, StoreError::Corrupt { .. }), "{error}");
}

/// A disk that can be filled up.
#[derive(Debug)]
struct FullDisk {
    inner: Arc<::redb::backends::InMemoryBackend>,
    full: Arc<AtomicBool>,
}

impl FullDisk {
    fn check(&self) -> io::Result<()> {
        if self.full.load(Ordering::SeqCst) {
            return Err(io::Error::from(ErrorKind::StorageFull));
        }
        Ok(())
    }
}

impl StorageBackend for FullDisk {
    fn len(&self) -> io::Result<u64> {
        self.inner.len()
    }

    fn read(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
        self.inner.read(offset, out)
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        self.check()?;
        self.inner.set_len(len)
    }

    fn sync_data(&self) -> io::Result<()> {
        self.check()?;
        self.inner.sync_data()
    }

    fn write(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        self.check()?;
        self.inner.write(offset, data)
    }
}

#[tokio::test]
async fn a_full_disk_refuses_the_write_and_loses_nothing() {
    let inner = Arc::new(::redb::backends::InMemoryBackend::new());
    let full = Arc::new(AtomicBool::new(false));
    let (disk, filled) = (inner.clone(), full.clone());
    let opener: Opener = Box::new(move || {
        Database::builder().create_with_backend(FullDisk {
            inner: disk.clone(),
            full: filled.clone(),
        })
    });
    let store = RedbStore::open_with(&Env::system(), "store.redb".into(), opener)
        .await
        .unwrap();
    let first = store.commit(Txn::new().put("a", "1")).await.unwrap();
    let mut watch = store.watch("", first);

    full.store(true, Ordering::SeqCst);
    let refused = store.commit(Txn::new().put("a", "2").put("b", "2")).await;
    assert!(
        matches!(refused, Err(StoreError::DiskFull { .. })),
        "{refused:?}"
    );

    full.store(false, Ordering::SeqCst);
    let range = store.range("").await.unwrap();
    assert_eq!((range.revision, range.entries.len()), (first, 1));
    assert_eq!(range.entries[0].value, "1");
    let second = store
        .commit(
            Txn::new()
                .when(Condition::At("a".into(), first))
                .put("a", "3"),
        )
        .await
        .unwrap();
    let seen = watch.next().await.unwrap();
    assert_eq!(seen.revision, second, "the refused write was never shown");
    assert_eq!(seen.changes[0].value, Some(Bytes::from("3")));
}

#[tokio::test]
async fn a_damaged_page_is_told_and_no_panic_whichever_it_is() {
    const PAGE: usize = 4096;
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("store.redb");
    {
        let store = open(dir.path()).await.unwrap();
        store.commit(Txn::new().put("config/a", "1")).await.unwrap();
    }
    let whole = std::fs::read(&file).unwrap();
    let (env, mut told) = (Env::system(), 0);
    for page in 0..whole.len() / PAGE {
        let mut damaged = whole.clone();
        damaged[page * PAGE..page * PAGE + 64].fill(0xa5);
        std::fs::write(&file, damaged).unwrap();
        let peeked = RedbStore::peek(&env, &file, "config/a").await;
        let found = match open(dir.path()).await {
            Ok(store) => store.range("").await.map(drop),
            Err(error) => Err(error),
        };
        match found {
            // A page that is not in use, or one that can be made again.
            Ok(()) => assert_ne!(peeked, Some(false), "page {page}"),
            Err(StoreError::Corrupt { .. } | StoreError::Io { .. }) => told += 1,
            Err(other) => panic!("page {page}: {other}"),
        }
    }
    assert!(told > 0);
}
