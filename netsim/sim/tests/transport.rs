//! What QUIC is chosen for, shown to the millisecond: weft's transport on links that misbehave.
#![allow(clippy::unwrap_used)]

mod support;

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use http::Response;
use support::{MS, Ok200, PORT, get, in_world, pair};
use tokio::time::{Instant, sleep, sleep_until, timeout};
use weft_env::BoxFuture;
use weft_netsim::LinkSpec;
use weft_netsim_sim::World;
use weft_transport::{Handler, ServerRequest};

const STREAMS: u64 = 8;
const CHUNKS: u64 = 40;
const CHUNK: usize = 300;
/// So rare that what is under way fits into half of QUIC's first window: the halving after a loss holds up
/// nobody, and what is left to see is who waits for whom.
const PERIOD: u64 = 40;
/// Round trip of the link.
const ROUND_TRIP: Duration = Duration::from_millis(80);

/// Stream *n* sends a chunk every 40 ms, *n* milliseconds after the first: each is a packet of its own.
struct Metronome {
    begin: Instant,
}

impl Handler for Metronome {
    fn handle(&self, mut request: ServerRequest) -> BoxFuture<'_, ()> {
        Box::pin(async move {
            let stream: u64 = request.request.uri().path()[1..].parse().unwrap();
            request
                .send
                .send_response(&Response::new(()))
                .await
                .unwrap();
            for chunk in 0..CHUNKS {
                sleep_until(self.begin + Duration::from_millis(chunk * PERIOD + stream)).await;
                let content = Bytes::from(vec![u8::try_from(chunk).unwrap(); CHUNK]);
                request.send.send_data(content).await.unwrap();
            }
            request.send.finish().await.unwrap();
        })
    }
}

/// When each chunk of each stream has arrived whole, in nanoseconds. The packet with this chunk is lost.
async fn arrivals(world: World, lost: Option<(u64, u64)>) -> BTreeMap<(u64, u64), u64> {
    let begin = Instant::now() + Duration::from_secs(2);
    let link = LinkSpec::ideal(ROUND_TRIP / 2);
    let (ca, client, server) = pair(&world, link, Arc::new(Metronome { begin })).await;
    if let Some((stream, chunk)) = lost {
        let at = begin + Duration::from_millis(chunk * PERIOD + stream);
        let mut dropped = false;
        world.set_filter(&server.node, &client.node, move |content| {
            let this = !dropped && Instant::now() >= at && content.len() > CHUNK;
            dropped |= this;
            !this
        });
    }
    let target = server.target(&ca, "invoices");
    let seen = Arc::new(Mutex::new(BTreeMap::new()));
    let mut readers = Vec::new();
    for stream in 0..STREAMS {
        let pool = client.endpoint.pool();
        let mut exchange = pool
            .request_with(&target, &get(&format!("/{stream}")), Bytes::new(), true)
            .await
            .unwrap();
        let (seen, world) = (seen.clone(), world.clone());
        readers.push(client.tasks.spawn(async move {
            exchange.recv.response().await.unwrap();
            let mut bytes = 0;
            while let Some(data) = exchange.recv.data().await.unwrap() {
                for offset in 1..=data.len() {
                    if (bytes + offset) % CHUNK == 0 {
                        let chunk = ((bytes + offset) / CHUNK - 1) as u64;
                        let now = u64::try_from(world.now().as_nanos()).unwrap();
                        seen.lock().unwrap().insert((stream, chunk), now);
                    }
                }
                bytes += data.len();
            }
        }));
    }
    for reader in readers {
        reader.await.unwrap();
    }
    let seen = seen.lock().unwrap().clone();
    assert_eq!(seen.len() as u64, STREAMS * CHUNKS);
    seen
}

#[test]
fn a_lost_packet_holds_up_the_stream_that_it_belongs_to_and_no_other() {
    let without = in_world(1, |world| arrivals(world, None));
    let (stream, chunk) = (3, 15);
    let with = in_world(1, move |world| arrivals(world, Some((stream, chunk))));
    let tick = u64::try_from(MS.as_nanos()).unwrap();
    for (key, at) in &without {
        let late = with[key].abs_diff(*at);
        if key.0 != stream {
            assert!(late <= tick, "stream and chunk {key:?} moved by {late} ns");
        }
    }
    let late = Duration::from_nanos(with[&(stream, chunk)] - without[&(stream, chunk)]);
    assert!(
        late >= ROUND_TRIP / 2 && late < 3 * ROUND_TRIP,
        "the lost chunk itself came {late:?} late"
    );
    assert!(
        with[&(stream, chunk + 1)] >= with[&(stream, chunk)],
        "what follows on its own stream waits for it"
    );
}

#[test]
fn a_dead_peer_is_known_within_three_seconds() {
    for seed in 0..5 {
        in_world(seed, |world| async move {
            let link = LinkSpec::ideal(5 * MS);
            let (ca, client, server) = pair(&world, link, Arc::new(Ok200)).await;
            let target = server.target(&ca, "invoices");
            let pool = client.endpoint.pool();
            let connection = pool.connection(&target).await.unwrap();
            sleep(Duration::from_millis(1_700)).await;
            // No word is said: the machine is gone.
            world.set_cut(&server.node, &client.node, true);
            world.set_cut(&client.node, &server.node, true);
            let gone = world.now();
            timeout(Duration::from_secs(10), connection.retired())
                .await
                .expect("the peer is never found dead");
            let took = world.now() - gone;
            assert!(took <= Duration::from_secs(3), "it took {took:?}");
            assert!(!pool.is_connected(&target));
        });
    }
}

#[test]
fn after_an_outage_the_next_request_finds_a_new_connection() {
    in_world(3, |world| async move {
        let link = LinkSpec::ideal(20 * MS);
        let (ca, client, server) = pair(&world, link, Arc::new(Ok200)).await;
        let target = server.target(&ca, "invoices");
        let pool = client.endpoint.pool();
        let first = pool.connection(&target).await.unwrap().stats().id;
        world.set_cut(&client.node, &server.node, true);
        sleep(Duration::from_secs(20)).await;
        let during = pool.request(&target, &get("/")).await;
        assert!(during.is_err(), "nothing gets through a cut link");
        world.set_cut(&client.node, &server.node, false);
        // The longest back-off, and a handshake.
        let end = Instant::now() + Duration::from_secs(6);
        let again = loop {
            match pool.connection(&target).await {
                Ok(connection) => break connection,
                Err(error) => assert!(Instant::now() < end, "still not connected: {error}"),
            }
            sleep(100 * MS).await;
        };
        assert_ne!(again.stats().id, first);
        let mut exchange = again
            .request_with(&get("/"), Bytes::new(), true)
            .await
            .unwrap();
        assert_eq!(exchange.recv.response().await.unwrap().status(), 200);
    });
}

/// Answers byte by byte for a second, and counts the addresses that it is asked from.
struct Slow {
    changes: AtomicU64,
}

impl Handler for Slow {
    fn handle(&self, mut request: ServerRequest) -> BoxFuture<'_, ()> {
        Box::pin(async move {
            self.changes.fetch_add(1, Ordering::SeqCst);
            request
                .send
                .send_response(&Response::new(()))
                .await
                .unwrap();
            for _ in 0..100 {
                sleep(10 * MS).await;
                request
                    .send
                    .send_data(Bytes::from_static(b"x"))
                    .await
                    .unwrap();
            }
            request.send.finish().await.unwrap();
        })
    }
}

#[test]
fn streams_outlive_a_nat_that_forgets() {
    in_world(4, |world| async move {
        let handler = Arc::new(Slow {
            changes: AtomicU64::new(0),
        });
        let (ca, client, server) = pair(&world, LinkSpec::ideal(10 * MS), handler.clone()).await;
        let target = server.target(&ca, "invoices");
        let pool = client.endpoint.pool();
        let connection = pool.connection(&target).await.unwrap();
        let mut exchange = connection
            .request_with(&get("/"), Bytes::new(), true)
            .await
            .unwrap();
        assert_eq!(exchange.recv.response().await.unwrap().status(), 200);
        sleep(300 * MS).await;
        let before = server.endpoint.connections()[0].addr;
        let outside = client.node.rebind(PORT);
        let mut bytes = 0;
        while let Some(data) = exchange.recv.data().await.expect("the stream goes on") {
            bytes += data.len();
        }
        assert_eq!(bytes, 100);
        assert!(!connection.is_retired(), "it is still the same connection");
        let links = server.endpoint.connections();
        assert_eq!((links.len(), links[0].addr), (1, outside));
        assert_ne!(before, outside);
        assert_eq!(handler.changes.load(Ordering::SeqCst), 1);
    });
}
