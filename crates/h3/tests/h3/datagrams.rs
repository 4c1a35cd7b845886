//! HTTP datagrams (RFC 9297).

use bytes::Bytes;
use http::{Method, Request, Response};
use weft_h3::{Code, Config, Error, Protocol, RecvStream, SendStream};

use crate::common::*;

/// A protocol of our own, whose datagrams are echoed until the stream ends.
fn echoing() -> Request<()> {
    Request::builder()
        .method(Method::CONNECT)
        .uri("https://echo.default:80/")
        .extension(Protocol::new("x-echo").unwrap())
        .body(())
        .unwrap()
}

const ECHOING: [(&str, &str); 5] = [
    (":method", "CONNECT"),
    (":protocol", "x-echo"),
    (":scheme", "https"),
    (":authority", "echo.default:80"),
    (":path", "/"),
];

async fn echo_datagrams(request: Request<()>, mut send: SendStream, mut recv: RecvStream) {
    if request.method() != Method::CONNECT {
        return echo(request, send, recv).await;
    }
    let mut datagrams = recv.datagrams().unwrap();
    send.send_response(&Response::new(())).await.unwrap();
    loop {
        tokio::select! {
            datagram = datagrams.recv() => match datagram {
                Some(datagram) => datagrams.send(&datagram).unwrap(),
                None => break,
            },
            data = recv.data() => match data {
                Ok(Some(_)) => {}
                _ => break,
            },
        }
    }
    let _ = send.finish().await;
}

async fn raw_client() -> (Raw, Pair) {
    let pair = pair().await;
    serve(pair.server.clone(), all_on(), echo_datagrams);
    (
        Raw::with_control(pair.client.clone(), &offers_all()).await,
        pair,
    )
}

fn datagram(raw: &Raw, quarter: u64, payload: &[u8]) {
    let frame = [&varint(quarter)[..], payload].concat();
    raw.conn.send_datagram(frame.into()).unwrap();
}

/// Opens an echoing request and waits for its answer's header.
async fn open(raw: &Raw) -> (quinn::SendStream, quinn::RecvStream) {
    let (send, mut recv) = raw.open(&headers(&ECHOING)).await;
    within(recv.read_chunk(1000, true)).await.unwrap().unwrap();
    (send, recv)
}

#[tokio::test]
async fn datagrams_go_both_ways_each_to_its_own_request() {
    let pair = pair().await;
    serve(pair.server.clone(), all_on(), echo_datagrams);
    let requests = requests_with(pair.client.clone(), all_on());
    get_ok(&requests, "/first").await;
    let mut open = Vec::new();
    for _ in 0..3 {
        let (send, mut recv) = within(requests.send(&echoing(), false)).await.unwrap();
        within(recv.response()).await.unwrap();
        let datagrams = recv.datagrams().unwrap();
        open.push((send, recv, datagrams));
    }
    for (number, (_, _, datagrams)) in open.iter_mut().enumerate() {
        let sent = vec![number as u8; number * 100];
        datagrams.send(&sent).unwrap();
        assert_eq!(within(datagrams.recv()).await.unwrap(), sent);
    }
    for (send, recv, datagrams) in &mut open {
        within(send.finish()).await.unwrap();
        assert_eq!(within(recv.data()).await.unwrap(), None);
        assert_eq!(within(datagrams.recv()).await, None, "the stream has ended");
        let error = datagrams.send(b"late").unwrap_err();
        assert!(matches!(error, Error::Unsendable { .. }), "{error:?}");
    }
}

#[tokio::test]
async fn a_datagram_without_a_valid_quarter_stream_id_is_h3_datagram_error() {
    let above = varint(1 << 60);
    for frame in [&[][..], &[0x40], &above] {
        for ours_is_server in [true, false] {
            let pair = pair().await;
            let conn = if ours_is_server {
                serve(pair.server.clone(), all_on(), echo_datagrams);
                pair.client.clone()
            } else {
                let _ = requests_with(pair.client.clone(), all_on());
                pair.server.clone()
            };
            let raw = Raw::with_control(conn, &offers_all()).await;
            raw.conn
                .send_datagram(Bytes::copy_from_slice(frame))
                .unwrap();
            assert_eq!(
                raw.closed_with().await,
                Code::DATAGRAM_ERROR,
                "{frame:02x?}"
            );
        }
    }
}

#[tokio::test]
async fn a_datagram_on_a_request_that_has_none_aborts_it_and_neighbours_survive() {
    let (raw, _pair) = raw_client().await;
    let post = headers(&get_but(&[(":method", "POST")]));
    let (mut send, mut recv) = raw.open(&post).await;
    within(recv.read_chunk(1000, true)).await.unwrap().unwrap();
    datagram(&raw, 0, b"x");
    let rest = within(recv.read_to_end(1000)).await;
    assert_eq!(reset_code(rest), Code::DATAGRAM_ERROR);
    let stopped = within(send.stopped()).await.unwrap();
    assert_eq!(stopped.map(Code::from), Some(Code::DATAGRAM_ERROR));
    send.reset(quinn::VarInt::from_u32(0x10c)).unwrap();
    raw.is_alive().await;
}

#[tokio::test]
async fn a_datagram_on_a_websocket_aborts_it() {
    let pair = pair().await;
    serve(pair.server.clone(), all_on(), echo);
    let raw = Raw::with_control(pair.client.clone(), &offers_all()).await;
    let mut fields = ECHOING;
    fields[1].1 = "websocket";
    let (_send, mut recv) = raw.open(&headers(&fields)).await;
    within(recv.read_chunk(1000, true)).await.unwrap().unwrap();
    datagram(&raw, 0, b"x");
    let rest = within(recv.read_to_end(1000)).await;
    assert_eq!(reset_code(rest), Code::DATAGRAM_ERROR);
}

#[tokio::test]
async fn a_servers_datagram_on_a_plain_request_aborts_it() {
    let pair = pair().await;
    let requests = requests_with(pair.client.clone(), all_on());
    let raw = Raw::with_control(pair.server.clone(), &offers_all()).await;
    let (_send, mut recv) = within(requests.send(&get("/"), true)).await.unwrap();
    let (_s, _r) = within(raw.conn.accept_bi()).await.unwrap();
    datagram(&raw, 0, b"x");
    let error = within(recv.response()).await.unwrap_err();
    assert_eq!(error.code(), Some(Code::DATAGRAM_ERROR), "{error:?}");
    assert!(!error.is_connection());
    assert!(recv.datagrams().is_err());
}

#[tokio::test]
async fn datagrams_for_streams_that_do_not_exist_are_dropped_in_silence() {
    let (raw, _pair) = raw_client().await;
    // Before the request, and for one that never comes.
    datagram(&raw, 0, b"early");
    datagram(&raw, 1000, b"never");
    datagram(&raw, (1 << 60) - 1, b"never");
    let (mut send, mut recv) = open(&raw).await;
    datagram(&raw, 0, b"now");
    let got = within(raw.conn.read_datagram()).await.unwrap();
    let early = [0, b'e', b'a', b'r', b'l', b'y'];
    // It may have overtaken nothing: then it was for a stream that was there already.
    let got = if got[..] == early {
        within(raw.conn.read_datagram()).await.unwrap()
    } else {
        got
    };
    assert_eq!(got[..], [0, b'n', b'o', b'w']);
    send.finish().unwrap();
    let end = within(recv.read_to_end(1000)).await.unwrap();
    assert!(end.is_empty(), "a clean end");
    // And after the end.
    datagram(&raw, 0, b"late");
    raw.is_alive().await;
}

#[tokio::test]
async fn nothing_is_sent_unless_both_sides_said_that_they_take_datagrams() {
    // The peer did not.
    for said in [settings(&[(8, 1)]), settings(&[(8, 1), (0x33, 0)])] {
        let pair = pair().await;
        let requests = requests_with(pair.client.clone(), all_on());
        let raw = Raw::with_control(pair.server.clone(), &said).await;
        let (_send, recv) = within(requests.send(&echoing(), false)).await.unwrap();
        let datagrams = recv.datagrams().unwrap();
        assert!(!datagrams.is_offered());
        let error = datagrams.send(b"x").unwrap_err();
        assert!(matches!(error, Error::NotOffered { .. }), "{error:?}");
        let received = poll_once(Box::pin(raw.conn.read_datagram())).await;
        assert!(received.is_none(), "a datagram was sent");
    }
    // We did not.
    let pair = pair().await;
    let requests = requests(pair.client.clone());
    let _raw = Raw::with_control(pair.server.clone(), &offers_all()).await;
    let (_send, recv) = within(requests.send(&echoing(), false)).await.unwrap();
    let error = recv.datagrams().unwrap_err();
    assert!(matches!(error, Error::Unreadable { .. }), "{error:?}");
}

/// The default: QUIC may have let them in, but HTTP/3 was not told.
#[tokio::test]
async fn without_datagrams_in_the_configuration_they_have_no_effect() {
    let pair = pair().await;
    serve(pair.server.clone(), Config::default(), echo);
    let raw = Raw::new(pair.client.clone()).await;
    for _ in 0..100 {
        raw.conn.send_datagram(Bytes::new()).unwrap();
    }
    raw.is_alive().await;
}

#[tokio::test]
async fn a_datagram_that_fits_into_no_packet_is_refused() {
    let pair = pair().await;
    serve(pair.server.clone(), all_on(), echo_datagrams);
    let requests = requests_with(pair.client.clone(), all_on());
    let (_send, recv) = within(requests.send(&echoing(), false)).await.unwrap();
    let error = recv.datagrams().unwrap().send(&[0; 65_536]).unwrap_err();
    assert!(
        matches!(error, Error::DatagramTooBig { size: 65_537, limit } if limit > 1000),
        "{error:?}"
    );
}

#[tokio::test]
async fn datagrams_that_nobody_takes_are_bounded() {
    let pair = pair().await;
    let (dropped, mut seen) = tokio::sync::mpsc::channel(1);
    let config = Config {
        datagram_buffer: 5000,
        ..all_on()
    };
    serve(pair.server.clone(), config, move |_, mut send, mut recv| {
        let dropped = dropped.clone();
        async move {
            let mut datagrams = recv.datagrams().unwrap();
            send.send_response(&Response::new(())).await.unwrap();
            // Content comes when all datagrams were sent.
            recv.data().await.unwrap().unwrap();
            while datagrams.dropped() == 0 {
                tokio::task::yield_now().await;
            }
            let mut kept = 0;
            while let Some(Some(datagram)) = poll_once(Box::pin(datagrams.recv())).await {
                kept += datagram.len();
            }
            dropped.send(kept).await.unwrap();
        }
    });
    let raw = Raw::with_control(pair.client.clone(), &offers_all()).await;
    let (mut send, mut recv) = raw.open(&headers(&ECHOING)).await;
    within(recv.read_chunk(1000, true)).await.unwrap().unwrap();
    for _ in 0..1000 {
        let frame = [&[0][..], &[7; 900]].concat();
        within(raw.conn.send_datagram_wait(frame.into()))
            .await
            .unwrap();
    }
    send.write_all(&frame(DATA, b"now")).await.unwrap();
    let kept = within(seen.recv()).await.unwrap();
    assert!((900..=5000).contains(&kept), "{kept} bytes were kept");
}
