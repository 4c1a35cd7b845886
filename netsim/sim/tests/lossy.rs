//! The transport on a cross-region link that loses packets: what a caller waits, and what a bulk gets.
#![allow(clippy::unwrap_used)]

mod support;

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use bytes::Bytes;
use http::Response;
use support::{MS, Peer, get, in_world, pair};
use tokio::time::{Instant, sleep_until};
use weft_env::BoxFuture;
use weft_netsim::{LinkSpec, Loss, Profile};
use weft_transport::{Congestion, Handler, ServerRequest};

/// Answers with as many bytes as the path says.
struct Sized;

const PIECE: usize = 64 * 1024;

impl Handler for Sized {
    fn handle(&self, mut request: ServerRequest) -> BoxFuture<'_, ()> {
        Box::pin(async move {
            let size: usize = request.request.uri().path()[1..].parse().unwrap();
            let piece = Bytes::from(vec![7; PIECE.min(size)]);
            let head = Response::new(());
            let whole = size <= PIECE;
            let first = request.send.send_response_with(&head, piece.clone(), whole);
            let mut sent = first.await.map(|()| PIECE);
            while let Ok(bytes) = sent
                && bytes < size
            {
                let next = piece.slice(..PIECE.min(size - bytes));
                sent = request.send.send_data(next).await.map(|()| bytes + PIECE);
            }
            let _ = request.send.finish().await;
        })
    }
}

/// 100 Mb/s, 80 ms, a queue of 200 packets, and so much loss each way.
fn link(loss: f64) -> LinkSpec {
    let mut spec = Profile::Lossy.spec();
    spec.loss = if loss == 0.0 {
        Loss::None
    } else {
        Loss::Bernoulli(loss)
    };
    spec
}

/// What requests on a fixed schedule met.
struct Calls {
    /// Latencies in milliseconds, sorted.
    ms: Vec<f64>,
    /// Bytes on the wire both ways, and those of them that were copies.
    sent: u64,
    copied: u64,
}

fn open_loop(seed: u64, loss: f64, size: usize, count: u32) -> Calls {
    in_world(seed, move |world| async move {
        let (ca, client, server) = pair(&world, link(loss), Arc::new(Sized)).await;
        let target = server.target(&ca, "invoices");
        client.endpoint.pool().connection(&target).await.unwrap();
        let begin = Instant::now() + Duration::from_secs(1);
        let mut calls = Vec::new();
        for n in 0..count {
            let (pool, target, world) = (client.endpoint.pool(), target.clone(), world.clone());
            calls.push(client.tasks.spawn(async move {
                sleep_until(begin + 5 * MS * n).await;
                let due = world.now();
                let request = get(&format!("/{size}"));
                let exchange = pool
                    .request_with(&target, &request, Bytes::new(), true)
                    .await;
                let mut recv = exchange.unwrap().recv;
                recv.response().await.unwrap();
                while recv.data().await.unwrap().is_some() {}
                (world.now() - due).as_secs_f64() * 1e3
            }));
        }
        let mut all = Vec::new();
        for call in calls {
            all.push(call.await.unwrap());
        }
        // The first two seconds are the window's growth on a new connection.
        let mut ms = all.split_off(400);
        ms.sort_by(f64::total_cmp);
        let both = [&client.endpoint, &server.endpoint];
        let copied: u64 = both.iter().map(|end| end.copied().bytes).sum();
        let connections = both.iter().flat_map(|end| end.connections());
        let sent = connections
            .map(|connection| connection.bytes_sent)
            .sum::<u64>()
            + copied;
        Calls { ms, sent, copied }
    })
}

/// Mb/s of `streams` responses of `size` bytes at the same time, and how many bytes were copied.
fn bulk(seed: u64, loss: f64, streams: u32, size: usize) -> (f64, u64) {
    in_world(seed, move |world| async move {
        let (ca, client, server) = pair(&world, link(loss), Arc::new(Sized)).await;
        let target = server.target(&ca, "invoices");
        client.endpoint.pool().connection(&target).await.unwrap();
        let began = world.now();
        let calls = (0..streams).map(|_| {
            let (pool, target) = (client.endpoint.pool(), target.clone());
            client.tasks.spawn(async move {
                let request = get(&format!("/{size}"));
                let exchange = pool
                    .request_with(&target, &request, Bytes::new(), true)
                    .await;
                let mut recv = exchange.unwrap().recv;
                recv.response().await.unwrap();
                let mut bytes = 0;
                while let Some(data) = recv.data().await.unwrap() {
                    bytes += data.len();
                }
                assert_eq!(bytes, size);
            })
        });
        for call in calls.collect::<Vec<_>>() {
            call.await.unwrap();
        }
        let took = (world.now() - began).as_secs_f64();
        let rate = f64::from(streams) * size as f64 * 8.0 / 1e6 / took;
        (rate, server.endpoint.copied().bytes)
    })
}

fn quantile(sorted: &[f64], q: f64) -> f64 {
    sorted[((sorted.len() - 1) as f64 * q).round() as usize]
}

/// The way there and back, and a little for the server.
const FLOOR: f64 = 80.0;

#[test]
fn small_requests_wait_for_no_retransmission_at_one_and_two_percent_of_loss() {
    for loss in [0.01, 0.02] {
        let calls = open_loop(1, loss, 1_024, 6_400);
        let (p50, p99) = (quantile(&calls.ms, 0.5), quantile(&calls.ms, 0.99));
        println!(
            "{loss}: p50 {p50:.1}, p99 {p99:.1}, p99.9 {:.1} ms",
            quantile(&calls.ms, 0.999)
        );
        assert!(p50 < FLOOR + 1.0, "p50 {p50} ms");
        // Without copies it is two round trips, with CUBIC alone it is seconds.
        assert!(p99 < 1.25 * FLOOR, "p99 {p99} ms at {loss}");
        let extra = calls.copied as f64 / calls.sent as f64;
        assert!(
            extra > 0.2 && extra < 0.55,
            "copies are {extra} of what was sent, at most half"
        );
    }
}

#[test]
fn a_clean_link_has_no_tail_and_costs_no_copy() {
    for size in [1_024, 10_240] {
        let calls = open_loop(1, 0.0, size, 2_000);
        let p99 = quantile(&calls.ms, 0.99);
        assert!(p99 < FLOOR + 2.0, "p99 {p99} ms for {size} bytes");
        assert_eq!(calls.copied, 0);
    }
}

#[test]
fn messages_of_ten_kilobytes_wait_for_one_retransmission_at_most() {
    let calls = open_loop(1, 0.01, 10_240, 4_000);
    let p99 = quantile(&calls.ms, 0.99);
    assert!(p99 < 2.25 * FLOOR, "p99 {p99} ms");
}

#[test]
fn a_bulk_fills_a_link_that_loses_and_is_not_copied() {
    for (loss, least) in [(0.0, 88.0), (0.01, 79.0), (0.02, 76.0)] {
        let (rate, copied) = bulk(1, loss, 8, 10_000_000);
        println!("{loss}: {rate:.1} Mb/s, {copied} bytes copied");
        assert!(rate > least, "{rate} Mb/s at {loss}");
        assert!(copied < 800_000, "{copied} of 80,000,000 bytes");
    }
}

/// Mb/s of two senders on one bottleneck, each with its congestion control, in the second ten seconds.
fn beside(first: Congestion, second: Congestion) -> (f64, f64) {
    in_world(5, move |world| async move {
        world.set_default_link(link(0.0)).unwrap();
        let ca = support::Ca::new(&world);
        let (here, there) = (world.node("client"), world.node("server"));
        let mut counters = Vec::new();
        let mut held = Vec::new();
        for (port, congestion) in [(15_008, first), (15_009, second)] {
            let with = |config: &mut weft_transport::TransportConfig| {
                config.addr.set_port(port);
                config.profile.congestion = congestion;
            };
            let client = Peer::start_with(&ca, &here, "orders", with).await;
            let server = Peer::start_with(&ca, &there, "invoices", with).await;
            server.endpoint.serve(Arc::new(Sized));
            let (pool, target) = (client.endpoint.pool(), server.target(&ca, "invoices"));
            let bytes = Arc::new(AtomicU64::new(0));
            counters.push(bytes.clone());
            drop(client.tasks.spawn(async move {
                let request = get("/1000000000");
                let exchange = pool
                    .request_with(&target, &request, Bytes::new(), true)
                    .await;
                let mut recv = exchange.unwrap().recv;
                recv.response().await.unwrap();
                while let Ok(Some(data)) = recv.data().await {
                    bytes.fetch_add(data.len() as u64, Ordering::Relaxed);
                }
            }));
            held.push((client, server));
        }
        let read = || {
            counters
                .iter()
                .map(|c| c.load(Ordering::Relaxed))
                .collect::<Vec<_>>()
        };
        tokio::time::sleep(Duration::from_secs(20)).await;
        let before = read();
        tokio::time::sleep(Duration::from_secs(20)).await;
        let after = read();
        let rate = |n: usize| (after[n] - before[n]) as f64 * 8.0 / 20.0 / 1e6;
        (rate(0), rate(1))
    })
}

#[test]
fn beside_each_other_and_beside_cubic_a_fair_share_is_taken() {
    use Congestion::{Cubic, Discerning};
    for (first, second) in [
        (Discerning, Discerning),
        (Discerning, Cubic),
        (Cubic, Cubic),
    ] {
        let (one, other) = beside(first, second);
        println!("{first:?} {one:.1} Mb/s beside {second:?} {other:.1} Mb/s");
        assert!(one + other > 85.0, "the link is used: {one} and {other}");
        let share = one / (one + other);
        assert!(
            (0.25..=0.75).contains(&share),
            "{first:?} took {share} beside {second:?}"
        );
    }
}
