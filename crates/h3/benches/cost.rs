//! What one request costs, both ends together, in user-mode instructions: our layer, the `h3` crate, and bare
//! QUIC streams that carry as many bytes, on the same connection in one process.
//!
//! ```console
//! cargo bench -p weft-h3 --bench cost
//! ```
//!
//! Needs valgrind. Instructions do not depend on what else the machine does; two runs of different length are
//! subtracted, so that what a connection costs is not counted.

#![allow(clippy::disallowed_methods, reason = "runs on the real system")]
#![allow(clippy::unwrap_used, clippy::print_stdout, reason = "a measurement")]

#[path = "../tests/h3/common.rs"]
#[allow(dead_code, reason = "shared with the tests")]
mod common;

use std::process::Command;

use bytes::{Buf, Bytes};
use common::{Pair, pair_with, request, requests, serve, varint};
use http::{HeaderMap, Method, Response};
use weft_h3::Config;

const STACKS: [&str; 3] = ["weft-h3", "h3", "raw"];
const FIELDS: [usize; 2] = [3, 13];
/// Lengths of the two runs.
const RUNS: [u64; 2] = [500, 2500];
const IN_FLIGHT: u64 = 32;
const CONTENT: &[u8] = &[b'x'; 100];

fn main() {
    let args: Vec<String> = std::env::args().skip(1).collect();
    if let [stack, fields, count] = &args[..] {
        return run(stack, fields.parse().unwrap(), count.parse().unwrap());
    }
    println!("instructions per request, both ends, {IN_FLIGHT} in flight, 100 bytes each way");
    for fields in FIELDS {
        for stack in STACKS {
            let [short, long] = RUNS.map(|count| instructions(stack, fields, count));
            let each = (long - short) / (RUNS[1] - RUNS[0]);
            println!("{stack:8} {fields:2} fields each way: {each:7}");
        }
    }
}

/// Runs this program again under callgrind.
fn instructions(stack: &str, fields: usize, count: u64) -> u64 {
    let output = Command::new("valgrind")
        .args(["--tool=callgrind", "--callgrind-out-file=/dev/null"])
        .arg(std::env::current_exe().unwrap())
        .args([stack, &fields.to_string(), &count.to_string()])
        .output()
        .expect("valgrind is installed");
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{said}");
    let total = said
        .lines()
        .find_map(|line| line.split_once("Collected : "));
    total
        .expect("callgrind tells a sum")
        .1
        .trim()
        .parse()
        .unwrap()
}

fn run(stack: &str, fields: usize, count: u64) {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap();
    runtime.block_on(async {
        let mut transport = quinn::TransportConfig::default();
        transport.max_concurrent_bidi_streams(quinn::VarInt::from_u32(256));
        let pair = pair_with(transport).await;
        match stack {
            "weft-h3" => ours(&pair, fields, count).await,
            "h3" => theirs(&pair, fields, count).await,
            "raw" => raw(&pair, fields, count).await,
            _ => panic!("unknown stack {stack}"),
        }
    });
}

/// The first three, or all: what a request in a mesh carries.
fn headers(fields: usize) -> HeaderMap {
    let all = [
        ("content-type", "application/json"),
        ("user-agent", "orders/1.4.2"),
        ("x-request-id", "0af76519-16cd-43dd-8448-eb211c80319c"),
        ("accept", "application/json"),
        ("accept-encoding", "gzip, br"),
        (
            "authorization",
            "Bearer eyJhbGciOiJFUzI1NiJ9.eyJzdWIiOiJvcmRlcnMifQ",
        ),
        ("cookie", "session=38afes7a8; region=eu-central"),
        (
            "traceparent",
            "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01",
        ),
        ("tracestate", "vendor=00f067aa0ba902b7"),
        ("x-forwarded-for", "10.1.2.3"),
        ("x-forwarded-proto", "https"),
        ("x-tenant", "acme-industries"),
        ("cache-control", "no-cache"),
    ];
    all.into_iter()
        .take(fields)
        .map(|(n, v)| (n.parse().unwrap(), v.parse().unwrap()))
        .collect::<HeaderMap>()
}

fn post(fields: usize) -> http::Request<()> {
    let mut post = request(Method::POST, "/v1/invoices?open=1");
    *post.headers_mut() = headers(fields);
    post
}

fn answer(fields: usize) -> Response<()> {
    let mut answer = Response::new(());
    *answer.headers_mut() = headers(fields);
    answer
}

/// `count` calls of `one`, some in flight at a time.
async fn spread<F>(count: u64, one: impl Fn() -> F)
where
    F: Future<Output = ()> + Send + 'static,
{
    let mut tasks = tokio::task::JoinSet::new();
    for _ in 0..count {
        if tasks.len() as u64 == IN_FLIGHT {
            tasks.join_next().await.unwrap().unwrap();
        }
        tasks.spawn(one());
    }
    while let Some(done) = tasks.join_next().await {
        done.unwrap();
    }
}

async fn ours(pair: &Pair, fields: usize, count: u64) {
    let template = answer(fields);
    serve(
        pair.server.clone(),
        Config::default(),
        move |_, mut send, mut recv| {
            let answer = template.clone();
            async move {
                while recv.data().await.unwrap().is_some() {}
                let content = Bytes::from_static(CONTENT);
                send.send_response_with(&answer, content, true)
                    .await
                    .unwrap();
            }
        },
    );
    let requests = requests(pair.client.clone());
    let post = post(fields);
    spread(count, || {
        let (requests, post) = (requests.clone(), post.clone());
        async move {
            let content = Bytes::from_static(CONTENT);
            let (_send, mut recv) = requests.send_with(&post, content, true).await.unwrap();
            let response = recv.response().await.unwrap();
            assert_eq!(response.status(), 200);
            let mut read = 0;
            while let Some(piece) = recv.data().await.unwrap() {
                read += piece.len();
            }
            assert_eq!(read, CONTENT.len());
        }
    })
    .await;
}

async fn theirs(pair: &Pair, fields: usize, count: u64) {
    let conn = pair.server.clone();
    let template = answer(fields);
    tokio::spawn(async move {
        let mut server: h3::server::Connection<_, Bytes> =
            h3::server::Connection::new(h3_quinn::Connection::new(conn))
                .await
                .unwrap();
        while let Ok(Some(resolver)) = server.accept().await {
            let answer = template.clone();
            tokio::spawn(async move {
                let (_request, mut stream) = resolver.resolve_request().await.unwrap();
                while stream.recv_data().await.unwrap().is_some() {}
                stream.send_response(answer).await.unwrap();
                stream.send_data(Bytes::from_static(CONTENT)).await.unwrap();
                stream.finish().await.unwrap();
            });
        }
    });
    let conn = h3_quinn::Connection::new(pair.client.clone());
    let (mut driver, requests) = h3::client::new(conn).await.unwrap();
    tokio::spawn(async move { std::future::poll_fn(|cx| driver.poll_close(cx)).await });
    let post = post(fields);
    spread(count, || {
        let (mut requests, post) = (requests.clone(), post.clone());
        async move {
            let mut stream = requests.send_request(post).await.unwrap();
            stream.send_data(Bytes::from_static(CONTENT)).await.unwrap();
            stream.finish().await.unwrap();
            let response = stream.recv_response().await.unwrap();
            assert_eq!(response.status(), 200);
            let mut read = 0;
            while let Some(piece) = stream.recv_data().await.unwrap() {
                read += piece.remaining();
            }
            assert_eq!(read, CONTENT.len());
        }
    })
    .await;
}

/// As many bytes as ours would send, built once.
async fn raw(pair: &Pair, fields: usize, count: u64) {
    let message = |extra: usize| {
        let section: usize = headers(fields)
            .iter()
            .map(|(n, v)| n.as_str().len() + v.len() + 3)
            .sum();
        Bytes::from([varint(1), vec![0; extra + section + CONTENT.len()]].concat())
    };
    let (request, answer) = (message(60), message(6));
    let conn = pair.server.clone();
    tokio::spawn(async move {
        while let Ok((mut send, mut recv)) = conn.accept_bi().await {
            let answer = answer.clone();
            tokio::spawn(async move {
                while recv.read_chunk(usize::MAX, true).await.unwrap().is_some() {}
                send.write_chunk(answer).await.unwrap();
                send.finish().unwrap();
            });
        }
    });
    spread(count, || {
        let (conn, request) = (pair.client.clone(), request.clone());
        async move {
            let (mut send, mut recv) = conn.open_bi().await.unwrap();
            send.write_chunk(request).await.unwrap();
            send.finish().unwrap();
            while recv.read_chunk(usize::MAX, true).await.unwrap().is_some() {}
        }
    })
    .await;
}
