//! What ends the whole connection, on either side, and with which code.

use quinn::VarInt;
use weft_h3::{Code, Config, Error};

use crate::common::*;

/// Bytes of a request stream that lose the connection.
#[tokio::test]
async fn frames_that_break_the_framing_close_the_connection() {
    let get = headers(&GET);
    let cases: Vec<(&str, Vec<u8>, Code)> = vec![
        (
            "DATA before HEADERS",
            frame(DATA, b"x"),
            Code::FRAME_UNEXPECTED,
        ),
        ("SETTINGS", frame(4, &[]), Code::FRAME_UNEXPECTED),
        ("GOAWAY", frame(7, &[0]), Code::FRAME_UNEXPECTED),
        ("CANCEL_PUSH", frame(3, &[0]), Code::FRAME_UNEXPECTED),
        ("MAX_PUSH_ID", frame(13, &[0]), Code::FRAME_UNEXPECTED),
        ("PUSH_PROMISE", frame(5, &[0]), Code::FRAME_UNEXPECTED),
        ("HTTP/2 PRIORITY", frame(2, &[]), Code::FRAME_UNEXPECTED),
        ("HTTP/2 PING", frame(6, &[]), Code::FRAME_UNEXPECTED),
        (
            "HTTP/2 WINDOW_UPDATE",
            frame(8, &[]),
            Code::FRAME_UNEXPECTED,
        ),
        ("HTTP/2 CONTINUATION", frame(9, &[]), Code::FRAME_UNEXPECTED),
        (
            "DATA after trailers",
            [get.clone(), headers(&[("x", "y")]), frame(DATA, b"x")].concat(),
            Code::FRAME_UNEXPECTED,
        ),
        (
            "HEADERS in a CONNECT",
            [
                headers(&[(":method", "CONNECT"), (":authority", "a:1")]),
                headers(&[("x", "y")]),
            ]
            .concat(),
            Code::FRAME_UNEXPECTED,
        ),
        ("end inside HEADERS", get[..9].to_vec(), Code::FRAME_ERROR),
        (
            "end inside DATA",
            [&get[..], &varint(DATA), &varint(100), b"short"].concat(),
            Code::FRAME_ERROR,
        ),
        (
            "end inside a frame head",
            [&get[..], &[0x40]].concat(),
            Code::FRAME_ERROR,
        ),
        (
            "dynamic table",
            frame(HEADERS, &[2, 0, 0x80]),
            Code::QPACK_DECOMPRESSION_FAILED,
        ),
        (
            "broken Huffman",
            frame(HEADERS, &[0, 0, 0x51, 0x84, 0xff, 0xff, 0xff, 0xff]),
            Code::QPACK_DECOMPRESSION_FAILED,
        ),
        (
            "no field section prefix",
            frame(HEADERS, &[]),
            Code::QPACK_DECOMPRESSION_FAILED,
        ),
    ];
    for (what, bytes, code) in cases {
        let pair = pair().await;
        serve(pair.server.clone(), Config::default(), echo);
        let raw = Raw::new(pair.client.clone()).await;
        let (mut send, _recv) = raw.open(&bytes).await;
        let _ = send.finish();
        assert_eq!(raw.closed_with().await, code, "{what}");
    }
}

/// A truncated frame whose end comes in a later packet must not look like a clean end.
#[tokio::test]
async fn a_truncated_frame_with_a_late_end_is_no_clean_end() {
    let pair = pair().await;
    let (started, mut first) = tokio::sync::mpsc::channel(1);
    let (result, mut seen) = tokio::sync::mpsc::channel(1);
    serve(
        pair.server.clone(),
        Config::default(),
        move |_, _send, mut recv| {
            let (started, result) = (started.clone(), result.clone());
            async move {
                started.send(recv.data().await).await.unwrap();
                let second = recv.data().await;
                result.send((second, recv.trailers().await)).await.unwrap();
            }
        },
    );
    let raw = Raw::new(pair.client.clone()).await;
    let start = [headers(&GET), varint(DATA), varint(100), b"short".to_vec()].concat();
    let (mut send, _recv) = raw.open(&start).await;
    let first = within(first.recv()).await.unwrap();
    assert_eq!(first.unwrap().as_deref(), Some(&b"short"[..]));
    send.finish().unwrap();
    let (second, trailers) = within(seen.recv()).await.unwrap();
    for error in [second.unwrap_err(), trailers.unwrap_err()] {
        assert_eq!(error.code(), Some(Code::FRAME_ERROR), "{error:?}");
    }
}

/// Bytes of unidirectional streams that lose the connection, whichever role we have.
#[tokio::test]
async fn critical_streams_are_guarded() {
    let settings = frame(SETTINGS, &[]);
    let control = |frames: &[Vec<u8>]| [&[0][..], &settings, &frames.concat()].concat();
    let all = |bytes: &[u8]| vec![bytes.to_vec()];
    let cases: Vec<(&str, Vec<Vec<u8>>, Code)> = vec![
        (
            "missing SETTINGS",
            all(&[0, 0x21, 0]),
            Code::MISSING_SETTINGS,
        ),
        ("GOAWAY first", all(&[0, 7, 1, 0]), Code::MISSING_SETTINGS),
        (
            "second SETTINGS",
            vec![control(std::slice::from_ref(&settings))],
            Code::FRAME_UNEXPECTED,
        ),
        (
            "DATA on control",
            vec![control(&[frame(DATA, b"")])],
            Code::FRAME_UNEXPECTED,
        ),
        (
            "HEADERS on control",
            vec![control(&[headers(&GET)])],
            Code::FRAME_UNEXPECTED,
        ),
        (
            "HTTP/2 PING on control",
            vec![control(&[frame(6, &[])])],
            Code::FRAME_UNEXPECTED,
        ),
        ("setting 2", all(&[0, 4, 2, 2, 0]), Code::SETTINGS_ERROR),
        ("setting 3", all(&[0, 4, 2, 3, 0]), Code::SETTINGS_ERROR),
        ("setting 4", all(&[0, 4, 2, 4, 0]), Code::SETTINGS_ERROR),
        ("setting 5", all(&[0, 4, 2, 5, 0]), Code::SETTINGS_ERROR),
        (
            "duplicate setting",
            all(&[0, 4, 4, 6, 1, 6, 1]),
            Code::SETTINGS_ERROR,
        ),
        (
            "H3_DATAGRAM 2",
            all(&[0, 4, 2, 0x33, 2]),
            Code::SETTINGS_ERROR,
        ),
        ("SETTINGS cut short", all(&[0, 4, 1, 6]), Code::FRAME_ERROR),
        (
            "CANCEL_PUSH",
            vec![control(&[frame(3, &[0])])],
            Code::ID_ERROR,
        ),
        (
            "GOAWAY of two integers",
            vec![control(&[frame(7, &[0, 0])])],
            Code::FRAME_ERROR,
        ),
        (
            "rising GOAWAY",
            vec![control(&[frame(7, &[4]), frame(7, &[8])])],
            Code::ID_ERROR,
        ),
        (
            "second control stream",
            vec![control(&[]), vec![0]],
            Code::STREAM_CREATION_ERROR,
        ),
        (
            "second encoder stream",
            vec![vec![2], vec![2]],
            Code::STREAM_CREATION_ERROR,
        ),
        (
            "second decoder stream",
            vec![vec![3], vec![3]],
            Code::STREAM_CREATION_ERROR,
        ),
        (
            "table capacity",
            all(&[2, 0x3f, 0x80, 1]),
            Code::QPACK_ENCODER_STREAM_ERROR,
        ),
        (
            "insertion",
            all(&[2, 0xc0, 0]),
            Code::QPACK_ENCODER_STREAM_ERROR,
        ),
        (
            "acknowledgement",
            all(&[3, 0x80]),
            Code::QPACK_DECODER_STREAM_ERROR,
        ),
        (
            "insert count",
            all(&[3, 0x01]),
            Code::QPACK_DECODER_STREAM_ERROR,
        ),
    ];
    for (what, streams, code) in cases {
        for ours_is_server in [true, false] {
            let pair = pair().await;
            let conn = ours(&pair, ours_is_server);
            let mut open = Vec::new();
            for bytes in &streams {
                let mut stream = conn.open_uni().await.unwrap();
                stream.write_all(bytes).await.unwrap();
                open.push(stream);
            }
            let raw = closed_with(&conn).await;
            assert_eq!(raw, code, "{what}, we are the server: {ours_is_server}");
        }
    }
}

/// Runs our endpoint on one side and gives the other side's connection.
fn ours(pair: &Pair, ours_is_server: bool) -> quinn::Connection {
    if ours_is_server {
        serve(pair.server.clone(), Config::default(), echo);
        pair.client.clone()
    } else {
        let _ = requests(pair.client.clone());
        pair.server.clone()
    }
}

async fn closed_with(conn: &quinn::Connection) -> Code {
    match within(conn.closed()).await {
        quinn::ConnectionError::ApplicationClosed(close) => Code::from(close.error_code),
        other => panic!("closed with {other}"),
    }
}

#[tokio::test]
async fn a_finished_critical_stream_is_h3_closed_critical_stream() {
    for kind in [0u8, 2, 3] {
        for ours_is_server in [true, false] {
            let pair = pair().await;
            let conn = ours(&pair, ours_is_server);
            let mut stream = conn.open_uni().await.unwrap();
            let start: &[u8] = if kind == 0 { &[0, 4, 0] } else { &[kind] };
            stream.write_all(start).await.unwrap();
            stream.finish().unwrap();
            let got = closed_with(&conn).await;
            assert_eq!(got, Code::CLOSED_CRITICAL_STREAM, "stream type {kind}");
        }
    }
}

#[tokio::test]
async fn a_reset_critical_stream_is_h3_closed_critical_stream() {
    let pair = pair().await;
    let requests = requests(pair.client.clone());
    let start = [frame(SETTINGS, &[]), frame(7, &[0])].concat();
    let mut raw = Raw::with_control(pair.server.clone(), &start).await;
    // A reset may overtake a stream's type: wait until it was read.
    within(requests.going_away()).await;
    raw.control.reset(VarInt::from_u32(0x100)).unwrap();
    assert_eq!(raw.closed_with().await, Code::CLOSED_CRITICAL_STREAM);
}

#[tokio::test]
async fn asking_us_to_stop_a_critical_stream_is_h3_closed_critical_stream() {
    for ours_is_server in [true, false] {
        for nth in 0..3 {
            let pair = pair().await;
            let conn = ours(&pair, ours_is_server);
            let mut streams = Vec::new();
            for _ in 0..3 {
                streams.push(within(conn.accept_uni()).await.unwrap());
            }
            streams[nth].stop(VarInt::from_u32(0)).unwrap();
            assert_eq!(closed_with(&conn).await, Code::CLOSED_CRITICAL_STREAM);
        }
    }
}

#[tokio::test]
async fn pushes_are_refused() {
    // To a server, by a client.
    let pair1 = pair().await;
    let conn = ours(&pair1, true);
    let mut push = conn.open_uni().await.unwrap();
    push.write_all(&[1, 0]).await.unwrap();
    assert_eq!(closed_with(&conn).await, Code::STREAM_CREATION_ERROR);
    // To a client that never allowed one.
    let pair2 = pair().await;
    let conn = ours(&pair2, false);
    let mut push = conn.open_uni().await.unwrap();
    push.write_all(&[1, 0]).await.unwrap();
    assert_eq!(closed_with(&conn).await, Code::ID_ERROR);
}

#[tokio::test]
async fn max_push_id_is_taken_from_clients_only() {
    let pair1 = pair().await;
    serve(pair1.server.clone(), Config::default(), echo);
    let rising = [frame(SETTINGS, &[]), frame(13, &[1]), frame(13, &[9])].concat();
    let mut raw = Raw::with_control(pair1.client.clone(), &rising).await;
    raw.is_alive().await;
    raw.control.write_all(&frame(13, &[8])).await.unwrap();
    assert_eq!(raw.closed_with().await, Code::ID_ERROR, "it went down");

    let pair2 = pair().await;
    let conn = ours(&pair2, false);
    let _raw = Raw::with_control(
        conn.clone(),
        &[frame(SETTINGS, &[]), frame(13, &[1])].concat(),
    )
    .await;
    assert_eq!(closed_with(&conn).await, Code::FRAME_UNEXPECTED);
}

#[tokio::test]
async fn a_bidirectional_stream_of_a_server_is_h3_stream_creation_error() {
    let pair = pair().await;
    let conn = ours(&pair, false);
    let (mut send, _recv) = conn.open_bi().await.unwrap();
    send.write_all(b"x").await.unwrap();
    assert_eq!(closed_with(&conn).await, Code::STREAM_CREATION_ERROR);
}

#[tokio::test]
async fn every_stream_learns_why_the_connection_was_closed() {
    let pair = pair().await;
    let requests = requests(pair.client.clone());
    let (_send, mut recv) = within(requests.send(&get("/"), true)).await.unwrap();
    let (_s, _r) = within(pair.server.accept_bi()).await.unwrap();
    let _raw = Raw::with_control(pair.server.clone(), &frame(7, &[0])).await;
    let error = within(recv.response()).await.unwrap_err();
    assert!(
        matches!(
            error,
            Error::Protocol {
                code: Code::MISSING_SETTINGS,
                ..
            }
        ),
        "{error:?}"
    );
    assert!(!error.is_unprocessed() && error.is_connection());
}

#[tokio::test]
async fn ours_starts_with_settings_and_opens_both_qpack_streams() {
    for ours_is_server in [true, false] {
        let pair = pair().await;
        let conn = ours(&pair, ours_is_server);
        let (mut starts, mut open) = (Vec::new(), Vec::new());
        for _ in 0..3 {
            let mut stream = within(conn.accept_uni()).await.unwrap();
            let piece = within(stream.read_chunk(100, true)).await.unwrap().unwrap();
            starts.push(piece.bytes);
            // Dropping it would stop a critical stream.
            open.push(stream);
        }
        starts.sort_unstable();
        assert_eq!(starts[0][..2], [0, SETTINGS as u8]);
        assert_eq!((&starts[1][..], &starts[2][..]), (&[2u8][..], &[3u8][..]));
    }
}
