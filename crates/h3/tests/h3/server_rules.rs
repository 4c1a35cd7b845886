//! What our server does with the streams of a client that breaks rules.

use weft_h3::{Code, Config, Error};

use crate::common::*;

async fn raw_client() -> (Raw, Pair) {
    let pair = pair().await;
    serve(pair.server.clone(), Config::default(), echo);
    (Raw::new(pair.client.clone()).await, pair)
}

#[tokio::test]
async fn malformed_requests_are_h3_message_error_and_neighbours_survive() {
    let (raw, _pair) = raw_client().await;
    let connect = [(":method", "CONNECT"), (":authority", "a:1")];
    let cases: Vec<(&str, Vec<(&str, &str)>)> = vec![
        ("no pseudo-headers", vec![("accept", "x")]),
        ("no :method", GET[1..].to_vec()),
        ("GET without :path", GET[..3].to_vec()),
        ("GET with an empty :path", get_but(&[(":path", "")])),
        ("no :scheme", vec![GET[0], GET[2], GET[3]]),
        ("no authority", vec![GET[0], GET[1], GET[3]]),
        ("duplicate :method", [&GET[..1], &GET[..]].concat()),
        ("duplicate :path", [&GET[..], &GET[3..]].concat()),
        ("pseudo after regular", [&[("a", "b")], &GET[..]].concat()),
        ("unknown pseudo", get_but(&[(":foo", "bar")])),
        ("response pseudo", get_but(&[(":status", "200")])),
        ("upper case", get_but(&[("X-Upper", "1")])),
        ("empty name", get_but(&[("", "1")])),
        ("connection", get_but(&[("connection", "close")])),
        ("keep-alive", get_but(&[("keep-alive", "5")])),
        (
            "proxy-connection",
            get_but(&[("proxy-connection", "close")]),
        ),
        (
            "transfer-encoding",
            get_but(&[("transfer-encoding", "chunked")]),
        ),
        ("upgrade", get_but(&[("upgrade", "h2c")])),
        ("te", get_but(&[("te", "gzip")])),
        ("NUL in a value", get_but(&[("x", "a\0b")])),
        ("CR in a value", get_but(&[("x", "a\rb")])),
        ("LF in a value", get_but(&[("x", "a\nb")])),
        ("host differs", get_but(&[("host", "other:80")])),
        (
            "user information",
            get_but(&[(":authority", "me@invoices:80")]),
        ),
        ("content-length", get_but(&[("content-length", "+5")])),
        ("CONNECT with :scheme", [&connect[..], &GET[1..2]].concat()),
        ("CONNECT with :path", [&connect[..], &GET[3..]].concat()),
        (
            "CONNECT with both",
            [&connect[..], &GET[1..2], &GET[3..]].concat(),
        ),
        ("CONNECT without :authority", connect[..1].to_vec()),
        (
            "CONNECT without a port",
            vec![connect[0], (":authority", "a")],
        ),
        (
            ":protocol",
            [
                &connect[..],
                &[(":protocol", "websocket")],
                &GET[1..2],
                &GET[3..],
            ]
            .concat(),
        ),
    ];
    for (what, fields) in cases {
        let got = reset_code(raw.exchange(&headers(&fields)).await);
        assert_eq!(got, Code::MESSAGE_ERROR, "{what}");
    }
    raw.is_alive().await;
}

#[tokio::test]
async fn connect_with_method_and_authority_only_is_accepted() {
    let (raw, _pair) = raw_client().await;
    let request = headers(&[
        (":method", "CONNECT"),
        (":authority", "invoices.default:5432"),
    ]);
    let (mut send, mut recv) = raw.open(&[request, frame(DATA, b"ping")].concat()).await;
    send.finish().unwrap();
    let answer = within(recv.read_to_end(1 << 16)).await.unwrap();
    assert!(answer.ends_with(&frame(DATA, b"ping")), "{answer:02x?}");
}

#[tokio::test]
async fn content_that_differs_from_content_length_is_h3_message_error() {
    let (raw, _pair) = raw_client().await;
    for (length, content) in [("4", &b"abc"[..]), ("2", b"abc"), ("0", b"x"), ("1", b"")] {
        let mut request = headers(&get_but(&[("content-length", length)]));
        if !content.is_empty() {
            request.extend(frame(DATA, content));
        }
        let got = reset_code(raw.exchange(&request).await);
        assert_eq!(
            got,
            Code::MESSAGE_ERROR,
            "content-length {length}, {content:?}"
        );
    }
    raw.is_alive().await;
}

#[tokio::test]
async fn malformed_trailers_are_h3_message_error() {
    let (raw, _pair) = raw_client().await;
    for field in [(":path", "/"), ("Upper", "x"), ("connection", "close")] {
        let request = [headers(&GET), frame(DATA, b"x"), headers(&[field])].concat();
        assert_eq!(
            reset_code(raw.exchange(&request).await),
            Code::MESSAGE_ERROR,
            "{field:?}"
        );
    }
    raw.is_alive().await;
}

#[tokio::test]
async fn a_request_that_ends_before_its_header_is_h3_request_incomplete() {
    let (raw, _pair) = raw_client().await;
    assert_eq!(
        reset_code(raw.exchange(&[]).await),
        Code::REQUEST_INCOMPLETE
    );
    let only_grease = frame(0x21, b"grease");
    assert_eq!(
        reset_code(raw.exchange(&only_grease).await),
        Code::REQUEST_INCOMPLETE
    );
    raw.is_alive().await;
}

#[tokio::test]
async fn an_oversized_request_header_is_answered_431() {
    let (raw, _pair) = raw_client().await;
    let value = "v".repeat(70_000);
    let many: Vec<_> = get_but(&(0..150).map(|_| ("x", "y")).collect::<Vec<_>>());
    for fields in [get_but(&[("x-large", &value)]), many] {
        let answer = raw.exchange(&headers(&fields)).await.expect("an answer");
        // HEADERS, length in two bytes, prefix, ":status" by name (static index 24), "431".
        let expected = [&[0x01, 0x40, 8, 0, 0, 0x5f, 24 - 15, 3][..], b"431"].concat();
        assert_eq!(answer, expected);
    }
    raw.is_alive().await;
}

#[tokio::test]
async fn a_header_frame_without_end_is_answered_431_and_not_kept() {
    let (raw, _pair) = raw_client().await;
    let announced = [varint(HEADERS), varint(1 << 40)].concat();
    let (mut send, mut recv) = raw.open(&announced).await;
    let answer = within(recv.read_to_end(1 << 16)).await.unwrap();
    assert!(answer.ends_with(b"431"), "{answer:02x?}");
    let stopped = within(send.stopped()).await.unwrap();
    assert_eq!(stopped.map(Code::from), Some(Code::NO_ERROR));
    // The peer is told to stop; what it had sent on is not waited for.
    let _ = send.reset(0u32.into());
    raw.is_alive().await;
}

#[tokio::test]
async fn unknown_frames_and_streams_are_ignored() {
    let (raw, _pair) = raw_client().await;
    let grease = frame(0x1f * 9 + 0x21, &[7; 5000]);
    let request = [
        &grease,
        &headers(&GET),
        &grease,
        &frame(DATA, b"body"),
        &grease,
    ]
    .map(Vec::as_slice)
    .concat();
    let answer = raw.exchange(&request).await.unwrap();
    assert!(answer.ends_with(&frame(DATA, b"body")));
    for n in 0..300u64 {
        let mut stream = raw.uni(&varint(0x1f * n + 0x21)).await;
        let stopped = within(stream.stopped()).await.unwrap();
        assert_eq!(
            stopped.map(Code::from),
            Some(Code::STREAM_CREATION_ERROR),
            "stream {n}"
        );
        let _ = stream.reset(0u32.into());
    }
    let mut ended = raw.conn.open_uni().await.unwrap();
    ended.finish().unwrap();
    raw.is_alive().await;
}

#[tokio::test]
async fn trailers_after_part_of_the_content_give_no_panic() {
    let pair = pair().await;
    serve(
        pair.server.clone(),
        Config::default(),
        |_, mut send, mut recv| async move {
            // Reads one piece at most, then asks for the trailers.
            let first = recv.data().await;
            let trailers = recv.trailers().await;
            let text = format!("{}|{trailers:?}", first.is_ok());
            let answer = http::Response::builder()
                .header("x-path", text)
                .body(())
                .unwrap();
            let _ = send
                .send_response_with(&answer, bytes::Bytes::new(), true)
                .await;
        },
    );
    let raw = Raw::new(pair.client.clone()).await;
    let pieces: Vec<u8> = (0..50).flat_map(|_| frame(DATA, &[1; 3000])).collect();
    let request = [headers(&GET), pieces, headers(&[("x-end", "yes")])].concat();
    let answer = raw.exchange(&request).await.unwrap();
    let text = String::from_utf8_lossy(&answer);
    assert!(
        text.contains("true|Ok(Some({\"x-end\": \"yes\"}))"),
        "{text}"
    );
}

#[tokio::test]
async fn an_endless_header_read_is_bounded_by_its_owner_and_rejects_when_dropped() {
    let pair = pair().await;
    let (mut accept, driver) = weft_h3::server(pair.server.clone(), Config::default());
    tokio::spawn(driver.run());
    let raw = Raw::new(pair.client.clone()).await;
    let (_send, mut recv) = raw.open(&headers(&GET)[..9]).await;
    let pending = within(accept.accept()).await.unwrap().unwrap();
    let mut head = Box::pin(pending.head());
    let first = poll_once(head.as_mut()).await;
    assert!(first.is_none(), "the header is not complete");
    drop(head);
    let got = reset_code(within(recv.read_to_end(100)).await);
    assert_eq!(got, Code::REQUEST_REJECTED);
}

#[tokio::test]
async fn the_handler_sees_which_rule_a_request_broke() {
    let pair = pair().await;
    let (mut accept, driver) = weft_h3::server(pair.server.clone(), Config::default());
    tokio::spawn(driver.run());
    let raw = Raw::new(pair.client.clone()).await;
    let _open = raw.open(&headers(&get_but(&[("te", "gzip")]))).await;
    let pending = within(accept.accept()).await.unwrap().unwrap();
    let error = within(pending.head()).await.unwrap_err();
    let Error::Malformed { code, rule } = &error else {
        panic!("{error:?}");
    };
    assert_eq!((*code, rule.contains("te")), (Code::MESSAGE_ERROR, true));
    assert!(!error.is_unprocessed() && !error.is_connection());
}
