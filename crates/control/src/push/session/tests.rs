#![allow(clippy::disallowed_methods)]

use std::sync::Arc;

use tokio::sync::mpsc;
use weft_env::Env;
use weft_wire::{Ack, Nack, Renew, Report, Update};

use super::*;
use crate::registry::{Arrival, receipts};
use crate::store::{RedbStore, Store, Txn};
use crate::testing;

const PROMPT: Duration = Duration::from_secs(20);

struct FakeIn(mpsc::Receiver<Bytes>);

impl Inlet for FakeIn {
    async fn next(&mut self) -> Result<Option<Bytes>, String> {
        Ok(self.0.recv().await)
    }
}

struct FakeOut(mpsc::Sender<Bytes>);

impl Outlet for FakeOut {
    async fn send(&mut self, frame: Bytes) -> Result<(), String> {
        self.0.send(frame).await.map_err(|_| "gone".to_owned())
    }
}

/// A control node's push side over a real store.
struct Bench {
    _dir: tempfile::TempDir,
    env: Env,
    store: Arc<dyn Store>,
    feed: Feed,
    registry: Registry,
    stop: CancellationToken,
}

/// A sidecar without network.
struct Fake {
    to_control: mpsc::Sender<Bytes>,
    from_control: mpsc::Receiver<Bytes>,
    reader: FrameReader,
    ending: weft_env::JoinHandle<Ending>,
}

impl Bench {
    async fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let env = Env::system();
        let store = RedbStore::open(&env, &dir.path().join("store.redb"))
            .await
            .unwrap();
        let store: Arc<dyn Store> = Arc::new(store);
        store
            .commit(
                Txn::new()
                    .put("config/A/default/x", "1")
                    .put("token/t", "2"),
            )
            .await
            .unwrap();
        let feed = Feed::load(&*store).await.unwrap();
        let stop = CancellationToken::new();
        env.spawn(feed.clone().follow(store.clone(), stop.clone()));
        Self {
            _dir: dir,
            env,
            store,
            feed,
            registry: Registry::new(Duration::from_secs(60), crate::testing::clock()),
            stop,
        }
    }

    /// `room`: frames that fit between control node and sidecar.
    async fn connect(&self, instance: &str, room: usize) -> Fake {
        let (to_control, inlet) = mpsc::channel(16);
        let (outlet, from_control) = mpsc::channel(room);
        let hello = testing::hello(instance);
        let frame = weft_wire::encode(&SidecarMessage::Hello(hello)).unwrap();
        to_control.send(frame).await.unwrap();
        let mut messages = Messages::new(FakeIn(inlet));
        let hello = messages.greeting().await.unwrap();
        let registered = self
            .registry
            .arrive(&Arrival {
                identity: &testing::id("invoices"),
                not_after_unix: 1,
                remote: "127.0.0.1".parse().unwrap(),
                hello: &hello,
                unix_ms: 1,
            })
            .unwrap();
        let session = Session {
            registry: self.registry.clone(),
            feed: self.feed.clone(),
            instance: instance.to_owned(),
            registered,
        };
        let stop = self.stop.clone();
        let run = async move { session.run(messages, &mut FakeOut(outlet), stop).await };
        Fake {
            to_control,
            from_control,
            reader: FrameReader::new(),
            ending: self.env.spawn(run),
        }
    }

    async fn put(&self, key: &str, value: &str) -> Revision {
        let txn = Txn::new().put(key, value.to_owned());
        self.store.commit(txn).await.unwrap()
    }

    async fn until(&self, reached: impl Fn(&crate::registry::Table) -> bool) {
        let mut changes = self.registry.subscribe();
        while !self.registry.read(&reached) {
            timeout(PROMPT, changes.changed())
                .await
                .expect("the registry changes in time")
                .unwrap();
        }
    }
}

impl Fake {
    async fn next(&mut self) -> ControlMessage {
        loop {
            if let Some(message) = self.reader.next_message().unwrap() {
                return message;
            }
            let bytes = timeout(PROMPT, self.from_control.recv()).await;
            let bytes = bytes.expect("a message in time").expect("the session runs");
            self.reader.push(&bytes);
        }
    }

    async fn update(&mut self) -> Update {
        match self.next().await {
            ControlMessage::Update(update) => update,
            other => panic!("expected an update: {other:?}"),
        }
    }

    async fn say(&self, message: SidecarMessage) {
        let frame = weft_wire::encode(&message).unwrap();
        self.to_control.send(frame).await.unwrap();
    }

    async fn ended(self) -> Ending {
        timeout(PROMPT, self.ending).await.unwrap().unwrap()
    }
}

#[tokio::test]
async fn first_everything_then_what_changed() {
    let bench = Bench::new().await;
    let mut fake = bench.connect("a1", 8).await;
    let first = fake.update().await;
    assert!(first.whole);
    assert_eq!(first.set.len(), 1, "tokens are not pushed: {first:?}");

    let revision = bench.put("config/A/default/y", "3").await;
    let second = fake.update().await;
    assert!(!second.whole);
    assert_eq!((second.revision, second.set.len()), (revision, 1));

    bench.put("token/u", "4").await;
    let revision = bench.put("config/A/default/y", "5").await;
    assert_eq!(
        fake.update().await.revision,
        revision,
        "no update for a token"
    );
    bench.stop.cancel();
    assert_eq!(fake.ended().await, Ending::Stopped);
}

#[tokio::test]
async fn a_slow_sidecar_gets_the_newest_state_and_never_a_backlog() {
    let bench = Bench::new().await;
    let mut fake = bench.connect("slow", 1).await;
    let mut last = 0;
    for round in 0..200 {
        let key = format!("config/A/default/k{}", round % 3);
        last = bench.put(&key, &round.to_string()).await;
    }
    let mut revisions = bench.feed.subscribe();
    timeout(PROMPT, revisions.wait_for(|seen| *seen >= last))
        .await
        .unwrap()
        .unwrap();
    let (mut updates, mut known) = (0, std::collections::BTreeMap::new());
    loop {
        let update = fake.update().await;
        known.extend(update.set);
        updates += 1;
        if update.revision == last {
            break;
        }
    }
    assert!(updates <= 4, "{updates} updates for 200 revisions");
    assert_eq!(known["config/A/default/k1"], 199);
    bench.stop.cancel();
}

#[tokio::test]
async fn acks_nacks_and_reports_reach_the_registry() {
    let bench = Bench::new().await;
    let mut fake = bench.connect("a1", 8).await;
    fake.update().await;
    let revision = bench.put("config/A/default/x", "9").await;
    fake.update().await;
    fake.say(SidecarMessage::Ack(Ack {
        revision,
        in_force_unix_ms: 5,
        took_us: 6,
        unsaved: None,
    }))
    .await;
    bench
        .until(|table| receipts(table, revision, None).is_complete())
        .await;
    let reply = bench
        .registry
        .read(|table| receipts(table, revision, bench.feed.arrived(revision)));
    assert!(reply.receipts[0].after_ms.is_some(), "{reply:?}");

    fake.say(SidecarMessage::Nack(Nack {
        revision: revision + 1,
        running: Some(revision),
        key: None,
        reason: "port in use".into(),
    }))
    .await;
    bench
        .until(|table| !receipts(table, revision + 1, None).nacks.is_empty())
        .await;
    fake.say(SidecarMessage::Report(Box::new(Report {
        serial: "07".into(),
        issuer: "08".into(),
        ..Report::default()
    })))
    .await;
    bench
        .until(|table| table.iter().any(|s| s.serial == "07" && s.issuer() == "08"))
        .await;
    fake.say(SidecarMessage::Unknown).await;
    fake.say(SidecarMessage::Goodbye).await;
    assert_eq!(fake.ended().await, Ending::Goodbye);
}

#[tokio::test]
async fn a_request_to_renew_reaches_the_sidecar() {
    let bench = Bench::new().await;
    let mut fake = bench.connect("a1", 8).await;
    fake.update().await;
    let renew = Renew {
        reason: "test".into(),
        within_ms: 10,
    };
    bench
        .registry
        .ask_to_renew(&["a1".into(), "nobody".into()], &renew);
    assert_eq!(fake.next().await, ControlMessage::Renew(renew));
    drop(fake.to_control);
    let ending = timeout(PROMPT, fake.ending).await.unwrap().unwrap();
    assert!(matches!(ending, Ending::Lost(_)), "{ending:?}");
}

#[tokio::test]
async fn a_later_connection_of_the_same_instance_takes_over() {
    let bench = Bench::new().await;
    let first = bench.connect("a1", 8).await;
    let mut second = bench.connect("a1", 8).await;
    assert_eq!(first.ended().await, Ending::Replaced);
    assert!(second.update().await.whole);
    bench.stop.cancel();
}

#[tokio::test]
async fn whatever_does_not_begin_with_a_hello_is_refused() {
    let ack = weft_wire::encode(&SidecarMessage::Goodbye).unwrap();
    let huge = Bytes::from_static(&[0xff, 0xff, 0xff, 0xff]);
    let cut = ack.slice(..6);
    for first in [ack, huge, cut] {
        let (sender, inlet) = mpsc::channel(1);
        sender.send(first).await.unwrap();
        drop(sender);
        assert!(Messages::new(FakeIn(inlet)).greeting().await.is_err());
    }
}

#[tokio::test(start_paused = true)]
async fn a_silent_peer_is_given_up() {
    let (_sender, inlet) = mpsc::channel(1);
    let reply = Messages::new(FakeIn(inlet)).greeting().await;
    assert!(reply.unwrap_err().contains("no hello"));
}
