//! Many requests on one connection.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use http::Method;
use weft_h3::Config;

use crate::common::*;

const REQUESTS: u64 = 20_000;
const IN_FLIGHT: u64 = 32;

/// 20,000 requests, 32 in flight: none fails, none gets another's answer, and nothing stays behind.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn twenty_thousand_requests_on_one_connection() {
    let mut transport = quinn::TransportConfig::default();
    transport.max_concurrent_bidi_streams(quinn::VarInt::from_u32(256));
    let pair = pair_with(transport).await;
    let shutdown = serve(pair.server.clone(), Config::default(), echo);
    let requests = requests(pair.client.clone());
    let next = Arc::new(AtomicU64::new(0));
    let workers: Vec<_> = (0..IN_FLIGHT)
        .map(|_| {
            let (requests, next) = (requests.clone(), Arc::clone(&next));
            tokio::spawn(async move {
                loop {
                    let number = next.fetch_add(1, Ordering::Relaxed);
                    if number >= REQUESTS {
                        return;
                    }
                    one(&requests, number).await;
                }
            })
        })
        .collect();
    for worker in workers {
        worker.await.unwrap();
    }
    assert_eq!(requests.active(), 0);
    within(shutdown.drained()).await;
}

async fn one(requests: &weft_h3::Requests, number: u64) {
    let path = format!("/request/{number}");
    let mut post = request(Method::POST, &path);
    for (name, value) in [
        ("user-agent", "soak"),
        ("accept", "*/*"),
        ("content-type", "application/json"),
        ("x-request-id", path.as_str()),
        (
            "traceparent",
            "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01",
        ),
    ] {
        post.headers_mut().insert(name, value.parse().unwrap());
    }
    let body = bytes((number % 3000) as usize);
    let sent = within(requests.send_with(&post, body.clone(), true)).await;
    let (_send, mut recv) = sent.unwrap();
    let response = within(recv.response()).await.unwrap();
    assert_eq!(response.headers()["x-path"], path.as_str());
    assert_eq!(within(read_all(&mut recv)).await.unwrap(), body);
}
