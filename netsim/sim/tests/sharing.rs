//! Who stands still harms nobody else, and costs what is stated: back-pressure and fair sharing on one connection.
#![allow(clippy::unwrap_used)]

mod support;

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use bytes::Bytes;
use http::{Request, Response};
use support::{Ca, MS, Peer, get, in_world, pair};
use tokio::time::{Instant, sleep, sleep_until, timeout};
use weft_env::BoxFuture;
use weft_netsim::{LinkSpec, Mtu, Queue, Rate};
use weft_transport::{Exchange, Handler, ServerRequest, Target};

const PIECE: usize = 64 * 1024;
static CONTENT: [u8; PIECE] = [7; PIECE];

/// `GET /n` is answered with n bytes, and with the priority that `x-answer` names. `POST /deaf` is answered at once and its content never read; of any other POST
/// the content is read, and its length is the answer.
struct Bytewise;

impl Handler for Bytewise {
    fn handle(&self, mut request: ServerRequest) -> BoxFuture<'_, ()> {
        Box::pin(async move {
            let path = request.request.uri().path()[1..].to_owned();
            let mut head = Response::new(());
            if let Some(own) = request.request.headers().get("x-answer") {
                head.headers_mut().insert("priority", own.clone());
            }
            if path == "deaf" {
                let _ = request.send.send_response(&head).await;
                // Until the caller has gone.
                let _ = request.send.stopped().await;
                return;
            }
            if request.request.method() == http::Method::POST {
                let mut length = 0;
                while let Ok(Some(data)) = request.recv.data().await {
                    length += data.len();
                }
                let text = Bytes::from(length.to_string());
                let _ = request.send.send_response_with(&head, text, true).await;
                return;
            }
            let size: usize = path.parse().unwrap();
            let _ = request.send.send_response(&head).await;
            let _ = send(&mut request.send, size).await;
            let _ = request.send.finish().await;
        })
    }
}

async fn send(
    to: &mut weft_transport::SendStream,
    size: usize,
) -> Result<(), weft_transport::StreamError> {
    let piece = Bytes::from_static(&CONTENT);
    let mut sent = 0;
    while sent < size {
        let next = piece.slice(..PIECE.min(size - sent));
        sent += next.len();
        to.send_data(next).await?;
    }
    Ok(())
}

fn post(path: &str) -> Request<()> {
    let uri = format!("http://invoices.default:80{path}");
    Request::post(uri).body(()).unwrap()
}

/// Asks for more than a stream may carry unread, and reads its head only.
async fn stand_still(client: &Peer, target: &Target) -> Exchange {
    let pool = client.endpoint.pool();
    let request = get("/10000000");
    let asked = pool.request_with(target, &request, Bytes::new(), true);
    let mut exchange = asked.await.unwrap();
    exchange.recv.response().await.unwrap();
    exchange
}

/// Reads an answer of so many bytes.
async fn fetch(client: &Peer, target: &Target, size: usize) {
    let pool = client.endpoint.pool();
    let request = get(&format!("/{size}"));
    let asked = pool.request_with(target, &request, Bytes::new(), true);
    let mut recv = asked.await.unwrap().recv;
    recv.response().await.unwrap();
    let mut bytes = 0;
    while let Some(data) = recv.data().await.unwrap() {
        bytes += data.len();
    }
    assert_eq!(bytes, size);
}

/// So many answers stand unread, each of which could fill a stream's window: sixteen of them fill the connection's.
#[test]
fn readers_that_stand_still_do_not_hold_up_the_others_of_their_connection() {
    in_world(1, |world| async move {
        let link = LinkSpec::ideal(5 * MS);
        let (ca, client, server) = pair(&world, link, Arc::new(Bytewise)).await;
        let target = server.target(&ca, "invoices");
        let mut still = Vec::new();
        for _ in 0..64 {
            still.push(stand_still(&client, &target).await);
        }
        sleep(Duration::from_secs(1)).await;
        let began = world.now();
        for _ in 0..20 {
            let small = timeout(5_000 * MS, fetch(&client, &target, 2_000));
            small.await.expect("a small request waits for nobody");
        }
        let large = timeout(20_000 * MS, fetch(&client, &target, 20_000_000));
        large.await.expect("a large answer flows");
        println!("beside 64 that stand still: {:?}", world.now() - began);
        // Nobody was given up: each of them reads on to its end.
        for mut exchange in still {
            let mut bytes = 0;
            while let Some(data) = exchange.recv.data().await.unwrap() {
                bytes += data.len();
            }
            assert_eq!(bytes, 10_000_000);
        }
        let stats = &client.endpoint.connections()[0];
        assert_eq!(
            client.endpoint.connections().len(),
            1,
            "all on one connection"
        );
        assert!(stats.retired.is_none());
    });
}

/// The same for what is sent up.
#[test]
fn handlers_that_do_not_read_do_not_hold_up_the_others_of_their_connection() {
    in_world(2, |world| async move {
        let link = LinkSpec::ideal(5 * MS);
        let (ca, client, server) = pair(&world, link, Arc::new(Bytewise)).await;
        let (pool, target) = (client.endpoint.pool(), server.target(&ca, "invoices"));
        for _ in 0..64 {
            let (pool, target) = (pool.clone(), target.clone());
            drop(client.tasks.spawn(async move {
                let mut exchange = pool.request(&target, &post("/deaf")).await.unwrap();
                exchange.recv.response().await.unwrap();
                send(&mut exchange.send, 10_000_000).await.unwrap();
            }));
        }
        sleep(Duration::from_secs(1)).await;
        let upload = async {
            let mut exchange = pool.request(&target, &post("/count")).await.unwrap();
            send(&mut exchange.send, 5_000_000).await.unwrap();
            exchange.send.finish().await.unwrap();
            exchange.recv.response().await.unwrap();
            let told = exchange.recv.data().await.unwrap().unwrap();
            assert_eq!(&told[..], b"5000000");
        };
        let done = timeout(20_000 * MS, upload).await;
        done.expect("an upload that is read flows");
    });
}

/// What a stream costs in memory beside its share of the windows: a packet that was taken from QUIC and is not handed
/// on yet, and the books of quinn and ours.
const PACKET: usize = 8_952;
const BOOKS: usize = 4 * 1024;

/// 10,000 answers over four connections that nobody reads, for two minutes: what they hold is what is stated
/// (`docs/adr/0011-standing-readers.md`), the others go on, and none of them is given up.
#[test]
fn ten_thousand_readers_that_stand_still_cost_what_is_stated_and_hold_up_nobody() {
    const SERVERS: usize = 4;
    const EACH: usize = 2_500;
    in_world(3, |world| async move {
        world.set_default_link(LinkSpec::ideal(MS / 2)).unwrap();
        let ca = Ca::new(&world);
        let client = Peer::start(&ca, &world.node("client"), "orders").await;
        let mut servers = Vec::new();
        for n in 0..SERVERS {
            let node = world.node(&format!("server-{n}"));
            let server = Peer::start(&ca, &node, "invoices").await;
            server.endpoint.serve(Arc::new(Bytewise));
            let target = server.target(&ca, "invoices");
            client.endpoint.pool().connection(&target).await.unwrap();
            servers.push((server, target));
        }
        let before = client.process.bytes();
        let mut still = Vec::new();
        for _ in 0..EACH {
            for (_, target) in &servers {
                still.push(stand_still(&client, target).await);
            }
        }
        for round in 0..4 {
            sleep(Duration::from_secs(30)).await;
            for (_, target) in &servers {
                let began = world.now();
                for _ in 0..10 {
                    let small = timeout(1_000 * MS, fetch(&client, target, 2_000));
                    small.await.expect("a small request waits for nobody");
                }
                let small = world.now() - began;
                let large = timeout(20_000 * MS, fetch(&client, target, 5_000_000));
                large.await.expect("a large answer flows");
                println!("{round}: {small:?}, {:?}", world.now() - began);
            }
        }
        let stats = client.endpoint.connections();
        assert_eq!(stats.len(), SERVERS);
        let window = 16 << 20;
        let lent: u64 = stats.iter().map(|link| link.lent).sum();
        let held = client.process.bytes() - before;
        let stated = SERVERS * window + lent as usize + SERVERS * EACH * (PACKET + BOOKS);
        println!("{held} bytes are held, {stated} may be, of which {lent} are lent");
        assert!(held <= stated, "{held} bytes are held, {stated} may be");
        assert!(lent <= 256 << 20);
        for link in &stats {
            assert!(
                link.pressed >= 1 && link.standing_readers >= EACH,
                "{link:?}"
            );
        }
        for (server, _) in &servers {
            let links = server.endpoint.connections();
            assert_eq!(links[0].requests_active, EACH, "somebody was given up");
        }
        for exchange in &mut still[..100] {
            assert!(exchange.recv.data().await.unwrap().is_some());
        }
    });
}

/// 100 Mb/s, 20 ms, a queue of 100 packets.
fn narrow() -> LinkSpec {
    LinkSpec {
        rate: Some(Rate {
            bits_per_second: 100_000_000,
            queue: Queue::Packets(100),
        }),
        mtu: Some(Mtu {
            bytes: 1_500,
            reported: false,
        }),
        ..LinkSpec::ideal(10 * MS)
    }
}

/// What requests for 1 KiB meet beside so many bulks on the same connection: p50, p99 in milliseconds, and the bulks'
/// Mb/s.
fn small_beside(bulks: usize) -> (f64, f64, f64) {
    in_world(4, move |world| async move {
        let (ca, client, server) = pair(&world, narrow(), Arc::new(Bytewise)).await;
        let (pool, target) = (client.endpoint.pool(), server.target(&ca, "invoices"));
        pool.connection(&target).await.unwrap();
        let bytes = Arc::new(AtomicU64::new(0));
        for _ in 0..bulks {
            let (pool, target, bytes) = (pool.clone(), target.clone(), bytes.clone());
            drop(client.tasks.spawn(async move {
                let request = get("/1000000000");
                let asked = pool.request_with(&target, &request, Bytes::new(), true);
                let mut recv = asked.await.unwrap().recv;
                recv.response().await.unwrap();
                while let Ok(Some(data)) = recv.data().await {
                    bytes.fetch_add(data.len() as u64, Ordering::Relaxed);
                }
            }));
        }
        // Beyond slow start.
        sleep(Duration::from_secs(5)).await;
        let (begin, before) = (Instant::now(), bytes.load(Ordering::Relaxed));
        let mut calls = Vec::new();
        for n in 0..1_000 {
            let (pool, target, world) = (pool.clone(), target.clone(), world.clone());
            calls.push(client.tasks.spawn(async move {
                sleep_until(begin + 10 * MS * n).await;
                let due = world.now();
                let request = get("/1024");
                let asked = pool.request_with(&target, &request, Bytes::new(), true);
                let mut recv = asked.await.unwrap().recv;
                recv.response().await.unwrap();
                while recv.data().await.unwrap().is_some() {}
                (world.now() - due).as_secs_f64() * 1e3
            }));
        }
        let mut ms = Vec::new();
        for call in calls {
            ms.push(call.await.unwrap());
        }
        let took = begin.elapsed().as_secs_f64();
        let rate = (bytes.load(Ordering::Relaxed) - before) as f64 * 8.0 / 1e6 / took;
        ms.sort_by(f64::total_cmp);
        (ms[ms.len() / 2], ms[ms.len() * 99 / 100], rate)
    })
}

#[test]
fn small_requests_go_before_bulks_on_their_connection() {
    let (_, alone, _) = small_beside(0);
    for bulks in [1, 8, 64] {
        let (p50, p99, rate) = small_beside(bulks);
        println!(
            "{bulks} bulks: p50 {p50:.1} ms, p99 {p99:.1} ms, {alone:.1} alone; {rate:.1} Mb/s"
        );
        assert!(p99 <= 2.0 * alone, "p99 {p99} ms beside {bulks} bulks");
        assert!(rate >= 92.0, "{bulks} bulks have {rate} Mb/s");
    }
}

/// Two answers of 5 MB, asked for at the same time: when each is whole, in seconds. The fields are of
/// the requests, or of the answers.
fn finish(first: &'static str, second: &'static str, of_answers: bool) -> [f64; 2] {
    in_world(5, move |world| async move {
        let (ca, client, server) = pair(&world, narrow(), Arc::new(Bytewise)).await;
        let (pool, target) = (client.endpoint.pool(), server.target(&ca, "invoices"));
        pool.connection(&target).await.unwrap();
        let begin = world.now();
        let asks = [first, second].map(|priority| {
            let (pool, target, world) = (pool.clone(), target.clone(), world.clone());
            let name = if of_answers { "x-answer" } else { "priority" };
            let mut request = get("/5000000");
            request
                .headers_mut()
                .insert(name, priority.parse().unwrap());
            client.tasks.spawn(async move {
                let asked = pool.request_with(&target, &request, Bytes::new(), true);
                let mut recv = asked.await.unwrap().recv;
                recv.response().await.unwrap();
                while recv.data().await.unwrap().is_some() {}
                (world.now() - begin).as_secs_f64()
            })
        });
        let mut done = [0.0; 2];
        for (done, ask) in done.iter_mut().zip(asks) {
            *done = ask.await.unwrap();
        }
        done
    })
}

/// RFC 9218 §4.1 and §8: the urgent has the link to itself, whoever says so.
#[test]
fn the_urgent_goes_before_the_rest_by_the_word_of_the_client_or_the_server() {
    for of_answers in [false, true] {
        let [later, sooner] = finish("u=5", "u=1", of_answers);
        println!("{sooner:.2} s and {later:.2} s, the word of the server: {of_answers}");
        assert!(sooner < 0.65 * later, "{sooner} s and {later} s");
        let [one, other] = finish("u=5, i", "u=5", of_answers);
        let share = one / other;
        assert!(
            (0.8..1.25).contains(&share),
            "equals share: {one} s, {other} s"
        );
    }
}
