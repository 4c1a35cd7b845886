//! A peer whose readers stand still (docs/adr/0011-standing-readers.md), by hand.

use std::time::Duration;

use bytes::Bytes;
use http::{Request, Response};
use tokio::sync::mpsc;
use weft_h3::{Code, Config, Error, RecvStream, SendStream};

use crate::common::{GET, Pair, Raw, frame, headers, pair, serve, varint, within};

const CREDIT: u64 = 0x3765_6675;
const LENGTH: usize = 1_000_000;

fn press(epoch: u64, first: u64) -> Vec<u8> {
    frame(CREDIT, &[varint(0), varint(epoch), varint(first)].concat())
}

fn grant(stream: u64, limit: u64) -> Vec<u8> {
    frame(CREDIT, &[varint(2), varint(stream), varint(limit)].concat())
}

/// A server that answers with a megabyte, and how that went.
fn bulk(pair: &Pair) -> mpsc::Receiver<Result<(), Error>> {
    let (told, results) = mpsc::channel(8);
    let handler = move |_: Request<()>, mut send: SendStream, _recv: RecvStream| {
        let told = told.clone();
        async move {
            let (head, content) = (Response::new(()), Bytes::from(vec![7; LENGTH]));
            let sent = send.send_response_with(&head, content, true).await;
            told.send(sent).await.unwrap();
        }
    };
    serve(pair.server.clone(), Config::default(), handler);
    results
}

/// Reads until nothing has come for a while.
async fn read_dry(recv: &mut quinn::RecvStream) -> usize {
    let mut bytes = 0;
    let silence = Duration::from_millis(300);
    while let Ok(chunk) = tokio::time::timeout(silence, recv.read_chunk(LENGTH, true)).await {
        match chunk.unwrap() {
            Some(chunk) => bytes += chunk.bytes.len(),
            None => break,
        }
    }
    bytes
}

/// Reads the server's control stream until it has said `wanted`. It must be kept.
async fn says(conn: &quinn::Connection, wanted: &[u8]) -> quinn::RecvStream {
    let mut control = loop {
        let mut stream = within(conn.accept_uni()).await.unwrap();
        let mut kind = [0];
        within(stream.read_exact(&mut kind)).await.unwrap();
        if kind == [0] {
            break stream;
        }
    };
    let mut said = Vec::new();
    while !said.windows(wanted.len()).any(|part| part == wanted) {
        let chunk = within(control.read_chunk(100, true)).await.unwrap();
        said.extend_from_slice(&chunk.unwrap().bytes);
    }
    control
}

#[tokio::test]
async fn a_stream_sends_what_a_peer_under_pressure_allows_and_all_when_that_is_over() {
    let pair = pair().await;
    let mut results = bulk(&pair);
    let mut raw = Raw::new(pair.client.clone()).await;
    raw.control.write_all(&press(7, 10_000)).await.unwrap();
    let _control = says(&pair.client, &frame(CREDIT, &[1, 7])).await;
    let (_send, mut recv) = raw.open(&headers(&GET)).await;
    assert_eq!(read_dry(&mut recv).await, 10_000);
    raw.control.write_all(&grant(0, 25_000)).await.unwrap();
    assert_eq!(read_dry(&mut recv).await, 15_000);
    // What is said again, or of streams that are not there, changes nothing.
    for useless in [grant(0, 25_000), grant(0, 3), grant(4_000, 1 << 40)] {
        raw.control.write_all(&useless).await.unwrap();
    }
    assert_eq!(read_dry(&mut recv).await, 0);
    // Anew: so much more than it has sent.
    raw.control.write_all(&press(8, 500)).await.unwrap();
    assert_eq!(read_dry(&mut recv).await, 500);
    raw.control.write_all(&press(9, 0)).await.unwrap();
    assert!(read_dry(&mut recv).await > LENGTH - 25_500);
    within(results.recv()).await.unwrap().unwrap();
}

#[tokio::test]
async fn who_waits_for_credit_hears_that_nobody_wants_the_rest() {
    let pair = pair().await;
    let mut results = bulk(&pair);
    let mut raw = Raw::new(pair.client.clone()).await;
    raw.control.write_all(&press(1, 10_000)).await.unwrap();
    let _control = says(&pair.client, &frame(CREDIT, &[1, 1])).await;
    let (_send, mut recv) = raw.open(&headers(&GET)).await;
    assert_eq!(read_dry(&mut recv).await, 10_000);
    recv.stop(Code::REQUEST_CANCELLED.into()).unwrap();
    let error = within(results.recv()).await.unwrap().unwrap_err();
    assert_eq!(error.code(), Some(Code::REQUEST_CANCELLED), "{error}");
    // The neighbours live.
    raw.control.write_all(&press(2, 0)).await.unwrap();
    let (_send, mut recv) = raw.open(&headers(&GET)).await;
    assert!(read_dry(&mut recv).await > LENGTH);
}

#[tokio::test]
async fn credit_that_is_malformed_closes_the_connection() {
    for (payload, code) in [
        (vec![0], Code::FRAME_ERROR),
        (vec![0, 1, 2, 3], Code::FRAME_ERROR),
        (vec![2, 0x40], Code::FRAME_ERROR),
        (vec![], Code::FRAME_ERROR),
        (vec![7; 25], Code::FRAME_ERROR),
        // A stream that the server opened, one that is unidirectional.
        (vec![2, 1, 9], Code::ID_ERROR),
        (vec![2, 2, 9], Code::ID_ERROR),
    ] {
        let pair = pair().await;
        let _results = bulk(&pair);
        let mut raw = Raw::new(pair.client.clone()).await;
        raw.control
            .write_all(&frame(CREDIT, &payload))
            .await
            .unwrap();
        assert_eq!(raw.closed_with().await, code, "{payload:?}");
    }
    let pair = pair().await;
    let _results = bulk(&pair);
    let raw = Raw::new(pair.client.clone()).await;
    let _stream = raw.open(&[press(1, 9), headers(&GET)].concat()).await;
    assert_eq!(
        raw.closed_with().await,
        Code::FRAME_UNEXPECTED,
        "on a request"
    );
}
