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
use weft_netsim::{LinkSpec, Loss, Mtu, Profile};
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

/// The same with packets as the Internet carries them: others are lost.
fn internet(loss: f64) -> LinkSpec {
    let mtu = Some(Mtu {
        bytes: 1_500,
        reported: false,
    });
    LinkSpec { mtu, ..link(loss) }
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
    /// Bytes on the wire both ways, and those of them that were copies, and parity.
    sent: u64,
    copied: u64,
    parity: u64,
    /// Datagrams made again.
    made: u64,
}

fn open_loop(seed: u64, link: LinkSpec, size: usize, count: u32) -> Calls {
    in_world(seed, move |world| async move {
        let (ca, client, server) = pair(&world, link, Arc::new(Sized)).await;
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
        let all = || both.iter().map(|end| end.copied());
        let copied: u64 = all().map(|end| end.bytes).sum();
        let parity: u64 = all().map(|end| end.parity_bytes).sum();
        let made = all().map(|end| end.made).sum();
        let connections = both.iter().flat_map(|end| end.connections());
        let sent = connections
            .map(|connection| connection.bytes_sent)
            .sum::<u64>()
            + copied
            + parity;
        Calls {
            ms,
            sent,
            copied,
            parity,
            made,
        }
    })
}

/// Mb/s of `streams` responses of `size` bytes at the same time, and how many bytes were copied.
fn bulk(seed: u64, link: LinkSpec, streams: u32, size: usize) -> (f64, u64) {
    in_world(seed, move |world| async move {
        let (ca, client, server) = pair(&world, link, Arc::new(Sized)).await;
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
        let beside = server.endpoint.copied();
        (rate, beside.bytes + beside.parity_bytes)
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
        let calls = open_loop(1, link(loss), 1_024, 6_400);
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
        let calls = open_loop(1, internet(0.0), size, 2_000);
        let p99 = quantile(&calls.ms, 0.99);
        assert!(p99 < FLOOR + 2.0, "p99 {p99} ms for {size} bytes");
        assert_eq!((calls.copied, calls.parity), (0, 0));
    }
}

/// One of a message's eight packets is lost now and then, two of them hardly ever.
#[test]
fn messages_of_ten_kilobytes_wait_for_no_retransmission_at_one_percent() {
    for (loss, most) in [(0.01, 1.1), (0.02, 2.25)] {
        let calls = open_loop(1, internet(loss), 10_240, 6_400);
        let at = |q| quantile(&calls.ms, q);
        let share = calls.parity as f64 / (calls.sent - calls.parity) as f64;
        println!(
            "{loss}: p50 {:.1}, p98 {:.1}, p99 {:.1}, p99.9 {:.1} ms; {} made again, parity {:.1} %",
            at(0.5),
            at(0.98),
            at(0.99),
            at(0.999),
            calls.made,
            share * 100.0
        );
        assert!(at(0.99) < most * FLOOR, "p99 {} ms at {loss}", at(0.99));
        assert!(calls.made > 100, "{} made again", calls.made);
        assert!(share < 0.15, "parity is {share} of what was sent");
    }
}

#[test]
fn a_bulk_fills_a_link_that_loses_and_is_not_copied() {
    for (name, link, least) in [
        ("0", link(0.0), 88.0),
        ("1 %", link(0.01), 79.0),
        ("2 %", link(0.02), 76.0),
        ("0, packets of 1,500", internet(0.0), 85.0),
        ("1 %, packets of 1,500", internet(0.01), 70.0),
    ] {
        let (rate, beside) = bulk(1, link, 8, 10_000_000);
        println!("{name}: {rate:.1} Mb/s, {beside} bytes of copies and parity");
        assert!(rate > least, "{rate} Mb/s at {name}");
        assert!(beside < 800_000, "{beside} beside 80,000,000 bytes");
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
