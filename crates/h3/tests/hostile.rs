//! Peers that want to do harm, at the level of HTTP/3. Each attack meets a limit: the memory that it takes is
//! bounded, and requests of others are answered while it goes on.
//!
//! A process of its own, one attack at a time, so that its memory can be looked at.

#![allow(clippy::disallowed_methods, reason = "tests run on the real system")]
#![allow(clippy::unwrap_used, reason = "tests")]

#[path = "h3/common.rs"]
#[allow(dead_code, reason = "shared with the other tests")]
mod common;

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use bytes::Bytes;
use common::*;
use http::{Method, Request, Response};
use quinn::VarInt;
use tokio::sync::{Mutex, MutexGuard};
use weft_h3::{Code, Config, RecvStream, Requests, SendStream, Shutdown};

/// What an attack may cost, whatever it sends: each of them has at least twice as much to send. What HTTP/3
/// itself may keep is far less, and exactly bounded in the tests of the core; the rest is room for QUIC (3 MB
/// to receive into at each endpoint, windows of 1.25 MB, packets on their way to a task that has to wait for
/// a busy machine) and for the allocator.
const MEMORY: usize = 96 << 20;
const MUCH: usize = 256 << 20;

/// A server under attack, and somebody else who uses it meanwhile.
struct Scene {
    raw: Raw,
    server: Shutdown,
    neighbour: Requests,
    _pairs: [Pair; 2],
    memory: usize,
    _alone: MutexGuard<'static, ()>,
}

impl Scene {
    async fn new() -> Self {
        static ALONE: Mutex<()> = Mutex::const_new(());
        let alone = ALONE.lock().await;
        let (attacked, other) = (pair().await, pair().await);
        let server = serve(attacked.server.clone(), all_on(), handle);
        serve(other.server.clone(), all_on(), handle);
        let neighbour = requests(other.client.clone());
        get_ok(&neighbour, "/before").await;
        Self {
            raw: Raw::with_control(attacked.client.clone(), &offers_all()).await,
            server,
            neighbour,
            _pairs: [attacked, other],
            memory: resident(),
            _alone: alone,
        }
    }

    /// The neighbour is served, and memory is within its bound.
    async fn is_calm(&self, attack: &str) {
        get_ok(&self.neighbour, "/neighbour").await;
        let grown = resident().saturating_sub(self.memory);
        assert!(grown < MEMORY, "{attack}: {grown} bytes more are in use");
    }
}

async fn handle(request: Request<()>, send: SendStream, mut recv: RecvStream) {
    if request.uri().path() == "/upload" {
        while let Ok(Some(_)) = recv.data().await {}
        drop(recv.trailers().await);
        return;
    }
    echo(request, send, recv).await;
}

/// Resident memory of this process in bytes.
fn resident() -> usize {
    let statm = std::fs::read_to_string("/proc/self/statm").unwrap();
    let pages: usize = statm.split(' ').nth(1).unwrap().parse().unwrap();
    pages * 4096
}

/// Writes a piece again and again until so many bytes are out, or the server has had enough.
async fn pour(stream: &mut quinn::SendStream, piece: &[u8], total: usize) {
    for _ in 0..total / piece.len() {
        if within(stream.write_all(piece)).await.is_err() {
            return;
        }
    }
}

/// Requests that are reset at once (as in CVE-2023-44487). QUIC's limit holds: a stream is given back only
/// when both sides are done with it, so no more than 100 handlers ever run.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn rapid_resets_run_no_more_handlers_than_streams_are_allowed() {
    let scene = Scene::new().await;
    let request = headers(&get_but(&[(":method", "POST")]));
    let mut most = 0;
    for round in 0..20_000 {
        let (mut send, _recv) = within(scene.raw.open(&request)).await;
        let _ = send.reset(VarInt::from_u32(0x10c));
        most = most.max(scene.server.active());
        if round % 5000 == 0 {
            scene.is_calm("rapid resets").await;
        }
    }
    assert!((1..=100).contains(&most), "{most} requests at a time");
    scene.is_calm("rapid resets").await;
    scene.raw.is_alive().await;
    within(scene.server.drained()).await;
}

/// The same before the header is complete: nothing is handed to a handler.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn streams_that_are_reset_before_their_header_reach_no_handler() {
    let scene = Scene::new().await;
    for _ in 0..10_000 {
        let (mut send, _recv) = within(scene.raw.open(&[HEADERS as u8, 0x40])).await;
        let _ = send.reset(VarInt::from_u32(0x10c));
    }
    scene.is_calm("resets before the header").await;
    scene.raw.is_alive().await;
    within(scene.server.drained()).await;
}

/// Slow headers on every stream that QUIC allows: each keeps what it has sent, up to 64 KiB.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn headers_that_never_end_keep_no_more_than_the_limit_on_each_stream() {
    let scene = Scene::new().await;
    let start = [varint(HEADERS), varint(65_536), vec![0; 65_000]].concat();
    let mut open = Vec::new();
    for _ in 0..100 {
        open.push(within(scene.raw.open(&start)).await);
    }
    // The 101st waits for QUIC's credit.
    let mut next = Box::pin(scene.raw.conn.open_bi());
    assert!(poll_once(next.as_mut()).await.is_none());
    scene.is_calm("100 headers that never end").await;
    for (send, _) in &mut open {
        send.reset(VarInt::from_u32(0x10c)).unwrap();
    }
    within(next).await.unwrap();
}

/// Header and trailer frames of any announced length are refused by it.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn endless_headers_and_trailers_are_refused_by_their_length() {
    let scene = Scene::new().await;
    let endless = [varint(HEADERS), varint((1 << 62) - 1)].concat();
    for _ in 0..200 {
        let (mut send, mut recv) = scene.raw.open(&endless).await;
        pour(&mut send, &[0; 10_000], 1 << 20).await;
        let answer = within(recv.read_to_end(1000)).await.unwrap();
        assert!(answer.ends_with(b"431"), "{answer:02x?}");
        let _ = send.reset(VarInt::from_u32(0x10c));
    }
    let upload = headers(&get_but(&[(":method", "POST"), (":path", "/upload")]));
    for _ in 0..200 {
        let (mut send, mut recv) = scene.raw.open(&[&upload[..], &endless].concat()).await;
        pour(&mut send, &[0; 10_000], 1 << 20).await;
        let reset = reset_code(within(recv.read_to_end(1000)).await);
        assert_eq!(reset, Code::EXCESSIVE_LOAD);
        let _ = send.reset(VarInt::from_u32(0x10c));
    }
    scene.is_calm("endless headers").await;
    scene.raw.is_alive().await;
}

/// Few bytes on the wire that are many fields, or long ones: indexed lines, Huffman strings, cookies.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn qpack_bombs_are_refused_before_they_unfold() {
    let scene = Scene::new().await;
    // One byte each: entry 17 is `:method: GET`, entry 58 has 25 + 44 bytes: together 4 MB.
    let get = [&[0u8, 0][..], &[0xc0 | 17; 60_000]].concat();
    let longest = [&[0u8, 0][..], &[0xc0 | 58; 60_000]].concat();
    // A literal name and a Huffman string (H = 1) of 20,000 bytes, which is 32,000 times '0', RFC 7541's
    // shortest code; its length has a prefix of seven bits.
    let coded = [&[0x21, b'x', 0xff, 0xa1, 0x9b, 0x01][..], &[0; 20_000]].concat();
    let huffman = [&[0, 0][..], &coded.repeat(3)].concat();
    let cookies = headers(&vec![("cookie", "a"); 5000]);
    for (what, bytes) in [
        ("GET", frame(HEADERS, &get)),
        ("longest entry", frame(HEADERS, &longest)),
        ("Huffman", frame(HEADERS, &huffman)),
        ("cookies", cookies),
    ] {
        for _ in 0..100 {
            let result = scene.raw.exchange(&bytes).await;
            match result {
                Ok(answer) => assert!(answer.ends_with(b"431"), "{what}: {answer:02x?}"),
                // Pseudo-headers out of place: seen before the limit is reached.
                Err(_) => assert_eq!(reset_code(result), Code::MESSAGE_ERROR, "{what}"),
            }
        }
        scene.is_calm(what).await;
    }
    scene.raw.is_alive().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn settings_without_bound_are_h3_excessive_load() {
    let pair = pair().await;
    let scene = Scene::new().await;
    for len in [4097, 1 << 20, (1 << 62) - 1] {
        for ours_is_server in [true, false] {
            let pair = connected(pair.endpoints.clone()).await;
            let conn = if ours_is_server {
                serve(pair.server.clone(), Config::default(), echo);
                pair.client.clone()
            } else {
                let _ = requests(pair.client.clone());
                pair.server.clone()
            };
            let start = [varint(SETTINGS), varint(len)].concat();
            let mut raw = Raw::with_control(conn, &start).await;
            pour(&mut raw.control, &[0x40; 10_000], 1 << 20).await;
            assert_eq!(raw.closed_with().await, Code::EXCESSIVE_LOAD, "{len} bytes");
        }
    }
    scene.is_calm("SETTINGS").await;
}

/// Frames that must be ignored, and nothing else (RFC 9114 §10.5).
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn unknown_frames_without_end_are_h3_excessive_load() {
    for flood in [
        frame(0x21, &[]),
        frame(0x21, &[7; 1000]),
        frame(DATA, &[]),
        [varint(0x21), varint(1 << 61), vec![7; 10_000]].concat(),
    ] {
        for behind in [Vec::new(), headers(&get_but(&[(":path", "/upload")]))] {
            let scene = Scene::new().await;
            // An empty DATA frame before the header is worse than idle.
            let expected = match flood[0] {
                0 if behind.is_empty() => Code::FRAME_UNEXPECTED,
                _ => Code::EXCESSIVE_LOAD,
            };
            let (mut send, _recv) = scene.raw.open(&behind).await;
            pour(&mut send, &flood, MUCH).await;
            assert_eq!(scene.raw.closed_with().await, expected);
            scene.is_calm("unknown frames").await;
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn control_frames_without_end_are_h3_excessive_load() {
    for spam in [
        frame(7, &[0]),
        frame(13, &[1]),
        frame(0xf0700, b"\0u=1"),
        frame(0x21, &[7; 1000]),
        // Credit: changes of mind, what nobody asked for, streams that are not there.
        frame(0x3765_6675, &[0, 1, 7]),
        frame(0x3765_6675, &[1, 7]),
        frame(0x3765_6675, &[2, 0, 63]),
        frame(0x3765_6675, &[9]),
    ] {
        let mut scene = Scene::new().await;
        pour(&mut scene.raw.control, &spam.repeat(100), MUCH).await;
        assert_eq!(scene.raw.closed_with().await, Code::EXCESSIVE_LOAD);
        scene.is_calm("control frames").await;
    }
}

/// RFC 9218 §7.1: a client may reprioritize each of its requests, for as long as it likes.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn priority_updates_beside_requests_are_no_attack() {
    let mut scene = Scene::new().await;
    let updates = frame(0xf0700, b"\0u=1").repeat(1000);
    for _ in 0..100 {
        scene.raw.control.write_all(&updates).await.unwrap();
        scene.raw.is_alive().await;
    }
}

/// Unidirectional streams of unknown types, and ones whose type never comes.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn floods_of_unidirectional_streams_are_stopped_or_wait() {
    let scene = Scene::new().await;
    for n in 0..10_000u64 {
        let mut stream = within(scene.raw.uni(&varint(0x1f * n + 0x21))).await;
        let _ = stream.reset(VarInt::from_u32(0));
    }
    scene.raw.is_alive().await;
    let mut open = Vec::new();
    // Three are used by HTTP/3, of which a raw client opens one.
    while let Some(stream) = poll_once(Box::pin(scene.raw.conn.open_uni())).await {
        let mut stream = stream.unwrap();
        stream.write_all(&[0x40]).await.unwrap();
        open.push(stream);
        assert!(open.len() <= 100, "{} streams without a type", open.len());
    }
    scene.is_calm("streams without a type").await;
    scene.raw.is_alive().await;
}

/// A server that never gives a final response.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn interim_responses_without_end_cost_the_request_only() {
    let scene = Scene::new().await;
    let pair = pair().await;
    let requests = requests(pair.client.clone());
    let raw = Raw::new(pair.server.clone()).await;
    let (_send, mut recv) = within(requests.send(&get("/"), true)).await.unwrap();
    let (mut answer, _request) = within(raw.conn.accept_bi()).await.unwrap();
    let interim = headers(&[(":status", "103"), ("link", "</style.css>")]);
    tokio::spawn(async move { pour(&mut answer, &interim, MUCH).await });
    let error = within(recv.response()).await.unwrap_err();
    assert_eq!(error.code(), Some(Code::EXCESSIVE_LOAD));
    assert!(!error.is_connection());
    scene.is_calm("interim responses").await;
}

/// Datagrams for requests whose handlers do not look at them, and for none.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn datagram_floods_are_bounded() {
    let scene = Scene::new().await;
    let connect = headers(&[
        (":method", "CONNECT"),
        (":protocol", "x-silent"),
        (":scheme", "https"),
        (":authority", "a:1"),
        (":path", "/"),
    ]);
    let mut open = Vec::new();
    for _ in 0..50 {
        open.push(scene.raw.open(&connect).await);
    }
    for n in 0..300_000u64 {
        let datagram = [&varint(n % 50 + n % 2 * 1_000_000)[..], &[7; 1000]].concat();
        let sent = scene.raw.conn.send_datagram_wait(datagram.into());
        within(sent).await.unwrap();
        if n % 500 == 0 {
            // No faster than QUIC takes them in: what waits there is not what this is about.
            scene.raw.is_alive().await;
        }
    }
    scene.is_calm("datagrams").await;
}

/// A client that does not read its answers stops its handlers, and nobody else's.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn answers_that_nobody_reads_wait_in_their_handlers() {
    let scene = Scene::new().await;
    let pair = pair().await;
    let sent = Arc::new(AtomicUsize::new(0));
    let counted = Arc::clone(&sent);
    serve(
        pair.server.clone(),
        Config::default(),
        move |_, mut send, _| {
            let sent = Arc::clone(&counted);
            async move {
                send.send_response(&Response::new(())).await.unwrap();
                while send
                    .send_data(Bytes::from_static(&[0; 65_536]))
                    .await
                    .is_ok()
                {
                    sent.fetch_add(65_536, Ordering::Relaxed);
                }
            }
        },
    );
    let requests = requests(pair.client.clone());
    let mut open = Vec::new();
    for _ in 0..100 {
        open.push(
            within(requests.send(&request(Method::GET, "/"), true))
                .await
                .unwrap(),
        );
    }
    scene.is_calm("answers that nobody reads").await;
    let before = sent.load(Ordering::Relaxed);
    scene.is_calm("answers that nobody reads").await;
    assert!(
        before < 64 << 20,
        "{before} bytes were taken from the handlers"
    );
}
