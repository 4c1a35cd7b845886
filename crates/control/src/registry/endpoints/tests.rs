#![allow(clippy::disallowed_methods)]

use super::*;
use crate::registry::Arrival;
use crate::store::{Op, RedbStore, Watch};
use crate::testing;
use tokio::time::timeout;
use weft_env::Env;

fn entry(key: &str, value: &str) -> Entry {
    Entry {
        key: key.into(),
        value: Bytes::from(value.to_owned()),
        mod_revision: 1,
    }
}

#[test]
fn only_what_differs_is_written() {
    let wanted = BTreeMap::from([
        ("endpoint/a".to_owned(), Bytes::from("1")),
        ("endpoint/b".to_owned(), Bytes::from("2")),
        ("endpoint/new".to_owned(), Bytes::from("3")),
    ]);
    let stored = [
        entry("endpoint/a", "1"),
        entry("endpoint/b", "old"),
        entry("endpoint/gone", "x"),
    ];
    let txn = difference(Txn::new(), &wanted, &stored);
    assert_eq!(
        txn.ops,
        [
            Op::Delete("endpoint/gone".into()),
            Op::Put("endpoint/b".into(), Bytes::from("2")),
            Op::Put("endpoint/new".into(), Bytes::from("3")),
        ]
    );
}

struct Bench {
    _dir: tempfile::TempDir,
    store: Arc<dyn Store>,
    registry: Registry,
    watch: Box<dyn Watch>,
    stop: CancellationToken,
}

/// A registry with its keeper over a store that has `stored` endpoints from before.
async fn bench(stored: &[(&str, &EndpointRecord)], grace: Duration) -> Bench {
    let dir = tempfile::tempdir().unwrap();
    let env = Env::system();
    let store = RedbStore::open(&env, &dir.path().join("store.redb"))
        .await
        .unwrap();
    let mut txn = Txn::new();
    for (key, record) in stored {
        txn = txn.put(*key, serde_json::to_vec(record).unwrap());
    }
    let from = store.commit(txn).await.unwrap();
    let store: Arc<dyn Store> = Arc::new(store);
    let registry = Registry::new(grace, crate::testing::clock());
    restore(&registry, &*store, 1).await.unwrap();
    let stop = CancellationToken::new();
    env.spawn(keep_endpoints(
        registry.clone(),
        store.clone(),
        stop.clone(),
    ));
    let watch = store.watch(PREFIX, from);
    Bench {
        _dir: dir,
        store,
        registry,
        watch,
        stop,
    }
}

impl Bench {
    async fn next(&mut self) -> Vec<(String, bool)> {
        let transaction = timeout(Duration::from_secs(20), self.watch.next())
            .await
            .expect("the endpoints change in time")
            .unwrap();
        transaction
            .changes
            .into_iter()
            .map(|change| (change.key, change.value.is_some()))
            .collect()
    }

    fn arrive(&self, service: &str, instance: &str) -> crate::registry::Epoch {
        let hello = testing::hello(instance);
        self.registry
            .arrive(&Arrival {
                identity: &testing::id(service),
                not_after_unix: 1,
                remote: "127.0.0.1".parse().unwrap(),
                hello: &hello,
                unix_ms: 1,
            })
            .unwrap()
            .epoch
    }
}

#[tokio::test]
async fn endpoints_follow_hello_and_goodbye() {
    let mut bench = bench(&[], Duration::from_secs(60)).await;
    let epoch = bench.arrive("invoices", "a1");
    let key = "endpoint/default/invoices/a1".to_owned();
    assert_eq!(bench.next().await, [(key.clone(), true)]);
    bench.registry.leave("a1", epoch);
    assert_eq!(bench.next().await, [(key, false)]);
    bench.stop.cancel();
}

#[tokio::test]
async fn a_lost_sidecar_is_removed_after_the_grace() {
    let mut bench = bench(&[], Duration::from_millis(50)).await;
    let epoch = bench.arrive("invoices", "a1");
    assert!(bench.next().await[0].1);
    bench.registry.lose("a1", epoch, 2);
    let key = "endpoint/default/invoices/a1".to_owned();
    assert_eq!(bench.next().await, [(key, false)]);
    bench.stop.cancel();
}

#[tokio::test]
async fn a_restart_keeps_endpoints_and_drops_those_that_do_not_come_back() {
    let record = testing::endpoint("invoices");
    let stored = [
        ("endpoint/default/invoices/back", &record),
        ("endpoint/default/invoices/lost", &record),
    ];
    let mut bench = bench(&stored, Duration::from_millis(300)).await;
    let now = bench.store.range(PREFIX).await.unwrap();
    assert_eq!(now.entries.len(), 2, "nothing is removed at the start");
    bench.arrive("invoices", "back");
    let mut gone = Vec::new();
    while gone.is_empty() {
        gone = bench.next().await;
        gone.retain(|(_, present)| !present);
    }
    assert_eq!(gone, [("endpoint/default/invoices/lost".to_owned(), false)]);
    let now = bench.store.range(PREFIX).await.unwrap();
    assert_eq!(now.entries.len(), 1);
    bench.stop.cancel();
}

#[test]
fn a_delegates_own_sidecars_lie_over_what_it_was_told() {
    let service = |gone: Option<u64>| {
        let record = ServiceRecord {
            ports: Vec::new(),
            gone_unix: gone,
        };
        serde_json::to_string(&record).unwrap()
    };
    let upstream = [
        entry("upstream/endpoint/a", "told"),
        entry("upstream/endpoint/b", "told"),
        entry("upstream/service/down-here", &service(None)),
        entry("upstream/service/up-here", &service(Some(5))),
    ];
    let mut endpoints = BTreeMap::from([
        ("endpoint/a".to_owned(), Bytes::from("own")),
        ("endpoint/c".to_owned(), Bytes::from("own")),
    ]);
    lay_over(&mut endpoints, &upstream, "endpoint/");
    let text =
        |map: &BTreeMap<String, Bytes>, key: &str| String::from_utf8(map[key].to_vec()).unwrap();
    assert_eq!(endpoints.len(), 3);
    for (key, expected) in [("a", "own"), ("b", "told"), ("c", "own")] {
        assert_eq!(text(&endpoints, &format!("endpoint/{key}")), expected);
    }
    let mut services = BTreeMap::from([
        (
            "service/down-here".to_owned(),
            Bytes::from(service(Some(9))),
        ),
        ("service/up-here".to_owned(), Bytes::from(service(None))),
    ]);
    lay_over(&mut services, &upstream, "service/");
    assert_eq!(text(&services, "service/down-here"), service(None));
    assert_eq!(text(&services, "service/up-here"), service(None));
}
