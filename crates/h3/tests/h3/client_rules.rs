//! What our client sends, and what it does with the streams of a server that breaks rules.

use bytes::Bytes;
use http::{Method, Response};
use weft_h3::{Code, Error, RecvStream, Requests, SendStream};

use crate::common::*;

/// Our client, and its server by hand.
struct Case {
    requests: Requests,
    raw: Raw,
    _pair: Pair,
}

impl Case {
    async fn new() -> Self {
        let pair = pair().await;
        Self {
            requests: requests(pair.client.clone()),
            raw: Raw::new(pair.server.clone()).await,
            _pair: pair,
        }
    }

    /// Sends a request and has the server answer it with these bytes and the end of the stream.
    async fn answer(&self, method: Method, bytes: &[u8]) -> (SendStream, RecvStream) {
        let request = if method == Method::CONNECT {
            connect()
        } else {
            request(method, "/")
        };
        let ours = within(self.requests.send(&request, false)).await.unwrap();
        let (mut send, recv) = within(self.raw.conn.accept_bi()).await.unwrap();
        send.write_all(bytes).await.unwrap();
        send.finish().unwrap();
        tokio::spawn(async move {
            let mut recv = recv;
            while let Ok(Some(_)) = recv.read_chunk(usize::MAX, true).await {}
        });
        ours
    }

    async fn head(&self, bytes: &[u8]) -> Result<Response<()>, Error> {
        let (_send, mut recv) = self.answer(Method::GET, bytes).await;
        within(recv.response()).await
    }

    async fn is_alive(&self) {
        let response = self.head(&headers(&[(":status", "200")])).await.unwrap();
        assert_eq!(response.status(), 200);
    }
}

fn ok() -> Vec<u8> {
    headers(&[(":status", "200")])
}

#[tokio::test]
async fn malformed_responses_are_h3_message_error_and_neighbours_survive() {
    let case = Case::new().await;
    let status = (":status", "200");
    let cases: Vec<(&str, Vec<(&str, &str)>)> = vec![
        ("no :status", vec![("server", "x")]),
        ("two :status", vec![status, status]),
        (":status after a field", vec![("server", "x"), status]),
        (":status of two digits", vec![(":status", "20")]),
        ("status 101", vec![(":status", "101")]),
        ("request pseudo", vec![status, (":path", "/")]),
        ("upper case", vec![status, ("Server", "x")]),
        ("connection", vec![status, ("connection", "close")]),
        ("keep-alive", vec![status, ("keep-alive", "5")]),
        (
            "transfer-encoding",
            vec![status, ("transfer-encoding", "chunked")],
        ),
        ("upgrade", vec![status, ("upgrade", "h2c")]),
        ("LF in a value", vec![status, ("x", "a\nb")]),
        ("content-length", vec![status, ("content-length", "5,6")]),
    ];
    for (what, fields) in cases {
        let error = case.head(&headers(&fields)).await.unwrap_err();
        assert!(
            matches!(
                error,
                Error::Malformed {
                    code: Code::MESSAGE_ERROR,
                    ..
                }
            ),
            "{what}: {error:?}"
        );
    }
    let error = case.head(&[]).await.unwrap_err();
    assert!(
        matches!(error, Error::Malformed { .. }),
        "no header at all: {error:?}"
    );
    case.is_alive().await;
}

#[tokio::test]
async fn a_malformed_response_resets_the_request_with_h3_message_error() {
    let case = Case::new().await;
    let (send, mut recv) = within(case.requests.send(&request(Method::POST, "/"), false))
        .await
        .unwrap();
    let (mut raw_send, mut raw_recv) = within(case.raw.conn.accept_bi()).await.unwrap();
    raw_send
        .write_all(&headers(&[("server", "x")]))
        .await
        .unwrap();
    within(recv.response()).await.unwrap_err();
    let stopped = within(raw_send.stopped()).await.unwrap().unwrap();
    assert_eq!(Code::from(stopped), Code::MESSAGE_ERROR);
    drop((send, recv));
    let got = reset_code(within(raw_recv.read_to_end(1 << 16)).await);
    assert_eq!(got, Code::MESSAGE_ERROR);
}

#[tokio::test]
async fn content_that_differs_from_content_length_is_h3_message_error() {
    let case = Case::new().await;
    for (length, content) in [("4", &b"abc"[..]), ("2", b"abc"), ("0", b"x"), ("1", b"")] {
        let mut answer = headers(&[(":status", "200"), ("content-length", length)]);
        if !content.is_empty() {
            answer.extend(frame(DATA, content));
        }
        let (_send, mut recv) = case.answer(Method::GET, &answer).await;
        within(recv.response()).await.unwrap();
        let error = within(read_all(&mut recv)).await.unwrap_err();
        assert_eq!(
            error.code(),
            Some(Code::MESSAGE_ERROR),
            "length {length}, {content:?}"
        );
    }
    case.is_alive().await;
}

#[tokio::test]
async fn responses_without_content_may_announce_its_length() {
    let case = Case::new().await;
    let length = ("content-length", "1000");
    for (method, status) in [
        (Method::HEAD, "200"),
        (Method::GET, "304"),
        (Method::HEAD, "404"),
    ] {
        let answer = headers(&[(":status", status), length]);
        let (_send, mut recv) = case.answer(method.clone(), &answer).await;
        within(recv.response()).await.unwrap();
        assert_eq!(within(recv.data()).await, Ok(None), "{method} {status}");
    }
    for (method, status) in [
        (Method::HEAD, "200"),
        (Method::GET, "304"),
        (Method::GET, "204"),
    ] {
        let answer = [headers(&[(":status", status)]), frame(DATA, b"x")].concat();
        let (_send, mut recv) = case.answer(method.clone(), &answer).await;
        within(recv.response()).await.unwrap();
        let error = within(recv.data()).await.unwrap_err();
        assert_eq!(error.code(), Some(Code::MESSAGE_ERROR), "{method} {status}");
    }
}

#[tokio::test]
async fn interim_responses_are_given_or_passed_over_but_not_without_end() {
    let case = Case::new().await;
    let hints = headers(&[(":status", "103"), ("link", "</a>")]);
    let answer = [headers(&[(":status", "100")]), hints.clone(), ok()].concat();
    let (_send, mut recv) = case.answer(Method::GET, &answer).await;
    for status in [100, 103, 200] {
        assert_eq!(within(recv.next_head()).await.unwrap().status(), status);
    }
    let error = within(recv.next_head()).await.unwrap_err();
    assert!(matches!(error, Error::Unreadable { .. }), "{error:?}");
    assert_eq!(
        within(recv.data()).await,
        Ok(None),
        "the stream is as it was"
    );
    assert_eq!(case.head(&answer).await.unwrap().status(), 200);

    let endless = hints.repeat(100);
    let error = case.head(&endless).await.unwrap_err();
    assert_eq!(error.code(), Some(Code::EXCESSIVE_LOAD));
    case.is_alive().await;
}

#[tokio::test]
async fn an_oversized_response_header_is_an_error_of_its_stream() {
    let case = Case::new().await;
    let value = "v".repeat(70_000);
    let large = headers(&[(":status", "200"), ("x", &value)]);
    let error = case.head(&large).await.unwrap_err();
    assert!(
        matches!(error, Error::TooLarge { limit: 65_536, .. }),
        "{error:?}"
    );
    let announced = [varint(HEADERS), varint(1 << 40)].concat();
    let (_send, mut recv) = case.answer(Method::GET, &announced).await;
    assert!(matches!(
        within(recv.response()).await,
        Err(Error::TooLarge { .. })
    ));
    let trailers = [ok(), large[..].to_vec()].concat();
    let (_send, mut recv) = case.answer(Method::GET, &trailers).await;
    within(recv.response()).await.unwrap();
    assert!(matches!(
        within(recv.trailers()).await,
        Err(Error::TooLarge { .. })
    ));
    case.is_alive().await;
}

#[tokio::test]
async fn responses_that_break_the_framing_close_the_connection() {
    let cases: Vec<(&str, Vec<u8>, Code)> = vec![
        ("DATA first", frame(DATA, b"x"), Code::FRAME_UNEXPECTED),
        (
            "push promise",
            [ok(), frame(5, &[0, 0, 0])].concat(),
            Code::ID_ERROR,
        ),
        (
            "SETTINGS",
            [ok(), frame(4, &[])].concat(),
            Code::FRAME_UNEXPECTED,
        ),
        (
            "end inside DATA",
            [&ok()[..], &[0, 9, 1]].concat(),
            Code::FRAME_ERROR,
        ),
        ("end inside HEADERS", ok()[..5].to_vec(), Code::FRAME_ERROR),
        (
            "dynamic table",
            frame(HEADERS, &[0, 0, 0x80]),
            Code::QPACK_DECOMPRESSION_FAILED,
        ),
    ];
    for (what, bytes, code) in cases {
        let case = Case::new().await;
        let (_send, mut recv) = case.answer(Method::GET, &bytes).await;
        let error = match within(recv.response()).await {
            Ok(_) => within(read_all(&mut recv)).await.unwrap_err(),
            Err(error) => error,
        };
        assert_eq!(error.code(), Some(code), "{what}");
        assert_eq!(case.raw.closed_with().await, code, "{what}");
    }
}

#[tokio::test]
async fn connect_carries_method_and_authority_only_then_data_frames() {
    let case = Case::new().await;
    let (mut send, mut recv) = within(case.requests.send(&connect(), false)).await.unwrap();
    let (mut raw_send, mut raw_recv) = within(case.raw.conn.accept_bi()).await.unwrap();
    // 2xx may not announce a length, and when it does it means nothing.
    let answer = headers(&[(":status", "200"), ("content-length", "0")]);
    raw_send.write_all(&answer).await.unwrap();
    assert_eq!(within(recv.response()).await.unwrap().status(), 200);

    send.send_data(Bytes::from_static(b"up")).await.unwrap();
    let refused = send
        .send_trailers(&http::HeaderMap::new())
        .await
        .unwrap_err();
    assert!(matches!(refused, Error::Unsendable { .. }), "{refused:?}");
    send.finish().await.unwrap();
    let sent = within(raw_recv.read_to_end(1 << 16)).await.unwrap();
    let target = b"invoices.default:5432";
    // HEADERS, length in two bytes, prefix, ":method CONNECT" (static 15), ":authority" by name (static 0).
    let head = [
        &[1, 0x40, 2 + 1 + 2 + 21, 0, 0, 0xc0 | 15, 0x50, 21][..],
        target,
    ]
    .concat();
    assert_eq!(sent, [head, frame(DATA, b"up")].concat());

    raw_send.write_all(&frame(DATA, b"down")).await.unwrap();
    assert_eq!(
        within(recv.data()).await.unwrap().as_deref(),
        Some(&b"down"[..])
    );
    raw_send
        .write_all(&headers(&[("trailer", "x")]))
        .await
        .unwrap();
    let error = within(recv.data()).await.unwrap_err();
    assert_eq!(error.code(), Some(Code::FRAME_UNEXPECTED));
    assert_eq!(case.raw.closed_with().await, Code::FRAME_UNEXPECTED);
}

#[tokio::test]
async fn a_refused_connect_has_an_ordinary_response() {
    let case = Case::new().await;
    let answer = [
        headers(&[(":status", "503"), ("content-length", "4")]),
        frame(DATA, b"full"),
        headers(&[("x-end", "1")]),
    ];
    let (_send, mut recv) = case.answer(Method::CONNECT, &answer.concat()).await;
    assert_eq!(within(recv.response()).await.unwrap().status(), 503);
    assert_eq!(within(read_all(&mut recv)).await.unwrap(), b"full");
    assert_eq!(
        within(recv.trailers()).await.unwrap().unwrap()["x-end"],
        "1"
    );
}

#[tokio::test]
async fn header_and_first_content_leave_in_one_packet_and_are_not_longer_than_the_peer_takes() {
    let pair = pair().await;
    let requests = requests(pair.client.clone());
    // SETTINGS with MAX_FIELD_SECTION_SIZE 200, then GOAWAY far away, to see that both were read.
    let settings = frame(SETTINGS, &[&varint(6)[..], &varint(200)].concat());
    let raw = Raw::with_control(pair.server.clone(), &settings).await;
    let mut large = get("/");
    large
        .headers_mut()
        .insert("x", "v".repeat(200).parse().unwrap());
    let error = within(async {
        loop {
            // SETTINGS may still be on their way.
            match requests.send(&large, true).await {
                Ok(_) => tokio::task::yield_now().await,
                Err(error) => return error,
            }
        }
    })
    .await;
    assert!(
        matches!(error, Error::HeaderTooBig { limit: 200, .. }),
        "{error:?}"
    );
    let body = Bytes::from_static(b"content");
    let last = within(requests.send_with(&request(Method::POST, "/last"), body, true))
        .await
        .unwrap();
    let sent = within(async {
        loop {
            let (_s, mut recv) = raw.conn.accept_bi().await.unwrap();
            if u64::from(recv.id()) == last.0.id() {
                return recv
                    .read_chunk(usize::MAX, true)
                    .await
                    .unwrap()
                    .unwrap()
                    .bytes;
            }
        }
    })
    .await;
    assert!(
        sent.ends_with(&frame(DATA, b"content")),
        "header and content in one chunk"
    );
}
