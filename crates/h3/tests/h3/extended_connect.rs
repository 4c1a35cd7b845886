//! Extended CONNECT (RFC 8441, RFC 9220).

use bytes::Bytes;
use http::{Method, Request, Response, StatusCode};
use weft_h3::{Code, Config, Error, Protocol, RecvStream, SendStream};

use crate::common::*;

fn websocket() -> Request<()> {
    Request::builder()
        .method(Method::CONNECT)
        .uri("https://chat.default:80/socket")
        .extension(Protocol::WEBSOCKET)
        .body(())
        .unwrap()
}

const EXTENDED: [(&str, &str); 5] = [
    (":method", "CONNECT"),
    (":protocol", "websocket"),
    (":scheme", "https"),
    (":authority", "chat.default:80"),
    (":path", "/socket"),
];

fn extended_but<'a>(without: &str, and: &[(&'a str, &'a str)]) -> Vec<(&'a str, &'a str)> {
    let kept = EXTENDED.iter().filter(|f| f.0 != without);
    kept.chain(and).copied().collect()
}

/// Knows WebSocket only, and echoes there.
async fn websocket_only(request: Request<()>, mut send: SendStream, recv: RecvStream) {
    if request.extensions().get() == Some(&Protocol::WEBSOCKET)
        || request.method() != Method::CONNECT
    {
        return echo(request, send, recv).await;
    }
    // RFC 9220 §3.
    let mut response = Response::new(());
    *response.status_mut() = StatusCode::NOT_IMPLEMENTED;
    let _ = send.send_response_with(&response, Bytes::new(), true).await;
}

async fn raw_client() -> (Raw, Pair) {
    let pair = pair().await;
    serve(pair.server.clone(), all_on(), websocket_only);
    (Raw::new(pair.client.clone()).await, pair)
}

#[tokio::test]
async fn a_client_waits_for_the_setting_before_it_sends_an_extended_connect() {
    let pair = pair().await;
    let requests = requests(pair.client.clone());
    let request = websocket();
    let mut sending = Box::pin(requests.send(&request, false));
    assert!(poll_once(sending.as_mut()).await.is_none());
    let mut accepted = Box::pin(pair.server.accept_bi());
    assert!(poll_once(accepted.as_mut()).await.is_none(), "it was sent");
    let _raw = Raw::with_control(pair.server.clone(), &settings(&[(8, 1)])).await;
    let (_send, _recv) = within(sending).await.unwrap();
    let (_s, mut stream) = within(accepted).await.unwrap();
    let head = within(stream.read_chunk(1000, true))
        .await
        .unwrap()
        .unwrap();
    for text in [
        &b":protocol"[..],
        b"websocket",
        b"chat.default:80",
        b"/socket",
    ] {
        let found = head.bytes.windows(text.len()).any(|w| w == text);
        assert!(found, "{:?} is missing", String::from_utf8_lossy(text));
    }
}

#[tokio::test]
async fn to_a_server_without_the_setting_no_extended_connect_is_sent() {
    for bytes in [settings(&[]), settings(&[(8, 0)])] {
        let pair = pair().await;
        let requests = requests(pair.client.clone());
        let _raw = Raw::with_control(pair.server.clone(), &bytes).await;
        let error = within(requests.send(&websocket(), false))
            .await
            .unwrap_err();
        assert!(matches!(error, Error::NotOffered { .. }), "{error:?}");
        assert!(error.is_unprocessed() && !error.is_connection());
    }
}

#[tokio::test]
async fn a_client_that_waits_for_the_setting_learns_that_the_connection_ended() {
    let pair = pair().await;
    let requests = requests(pair.client.clone());
    let request = websocket();
    let mut sending = Box::pin(requests.send(&request, false));
    assert!(poll_once(sending.as_mut()).await.is_none());
    pair.server.close(quinn::VarInt::from_u32(0x100), b"");
    let error = within(sending).await.unwrap_err();
    assert!(error.is_unprocessed() && error.is_connection(), "{error:?}");
}

#[tokio::test]
async fn a_websocket_is_a_tunnel_both_ways() {
    let pair = pair().await;
    serve(pair.server.clone(), all_on(), websocket_only);
    let requests = requests(pair.client.clone());
    let (mut send, mut recv) = within(requests.send(&websocket(), false)).await.unwrap();
    let response = within(recv.response()).await.unwrap();
    assert_eq!(response.status(), StatusCode::OK);
    assert_eq!(response.headers()["x-path"], "/socket");
    for message in [&b"one"[..], b"two"] {
        within(send.send_data(Bytes::from_static(message)))
            .await
            .unwrap();
        let back = within(recv.data()).await.unwrap().unwrap();
        assert_eq!(back, message);
    }
    let trailers = http::HeaderMap::new();
    let error = within(send.send_trailers(&trailers)).await.unwrap_err();
    assert!(matches!(error, Error::Unsendable { .. }), "{error:?}");
    within(send.finish()).await.unwrap();
    assert_eq!(within(recv.data()).await.unwrap(), None);
}

/// RFC 9220 §3: a TCP connection that is reset is H3_REQUEST_CANCELLED.
#[tokio::test]
async fn a_websocket_that_is_cancelled_tells_h3_request_cancelled() {
    let pair = pair().await;
    let (seen, mut result) = tokio::sync::mpsc::channel(1);
    serve(
        pair.server.clone(),
        all_on(),
        move |_, mut send, mut recv| {
            let seen = seen.clone();
            async move {
                send.send_response(&Response::new(())).await.unwrap();
                seen.send(recv.data().await).await.unwrap();
            }
        },
    );
    let requests = requests(pair.client.clone());
    let (mut send, mut recv) = within(requests.send(&websocket(), false)).await.unwrap();
    within(recv.response()).await.unwrap();
    send.reset(Code::REQUEST_CANCELLED);
    let error = within(result.recv()).await.unwrap().unwrap_err();
    assert_eq!(error.code(), Some(Code::REQUEST_CANCELLED));
}

#[tokio::test]
async fn an_unknown_protocol_is_shown_to_the_handler_who_answers_501() {
    let pair = pair().await;
    serve(pair.server.clone(), all_on(), websocket_only);
    let requests = requests(pair.client.clone());
    let mut request = websocket();
    request
        .extensions_mut()
        .insert(Protocol::new("x-unheard-of/2").unwrap());
    let (_send, mut recv) = within(requests.send(&request, false)).await.unwrap();
    let response = within(recv.response()).await.unwrap();
    assert_eq!(response.status(), StatusCode::NOT_IMPLEMENTED);
    assert_eq!(within(recv.data()).await.unwrap(), None);
}

#[tokio::test]
async fn malformed_extended_connects_are_h3_message_error_and_neighbours_survive() {
    let (raw, _pair) = raw_client().await;
    let cases: Vec<(&str, Vec<(&str, &str)>)> = vec![
        ("no :scheme", extended_but(":scheme", &[])),
        ("no :path", extended_but(":path", &[])),
        ("an empty :path", extended_but(":path", &[(":path", "")])),
        (":path *", extended_but(":path", &[(":path", "*")])),
        ("no authority", extended_but(":authority", &[])),
        ("twice", extended_but("", &[(":protocol", "websocket")])),
        ("empty", extended_but(":protocol", &[(":protocol", "")])),
        (
            "no token",
            extended_but(":protocol", &[(":protocol", "a b")]),
        ),
        (
            "not ASCII",
            extended_but(":protocol", &[(":protocol", "ü")]),
        ),
        ("GET", extended_but(":method", &[(":method", "GET")])),
        ("no method", extended_but(":method", &[])),
        ("after a regular field", {
            let mut fields = extended_but(":protocol", &[("a", "b")]);
            fields.push((":protocol", "websocket"));
            fields
        }),
        ("upgrade", extended_but("", &[("upgrade", "websocket")])),
    ];
    for (what, fields) in cases {
        let got = reset_code(raw.exchange(&headers(&fields)).await);
        assert_eq!(got, Code::MESSAGE_ERROR, "{what}");
    }
    let plain = [(":method", "CONNECT"), (":authority", "a:1")];
    let answer = raw.exchange(&headers(&plain)).await.unwrap();
    assert!(!answer.is_empty(), "plain CONNECT still works");
    raw.is_alive().await;
}

#[tokio::test]
async fn protocol_is_malformed_when_it_was_not_offered() {
    let pair = pair().await;
    serve(pair.server.clone(), Config::default(), echo);
    let raw = Raw::new(pair.client.clone()).await;
    let got = reset_code(raw.exchange(&headers(&EXTENDED)).await);
    assert_eq!(got, Code::MESSAGE_ERROR);
    raw.is_alive().await;
}

#[tokio::test]
async fn a_header_inside_an_extended_connect_is_h3_frame_unexpected() {
    let (raw, _pair) = raw_client().await;
    let _stream = raw
        .open(&[headers(&EXTENDED), headers(&[("x", "y")])].concat())
        .await;
    assert_eq!(raw.closed_with().await, Code::FRAME_UNEXPECTED);
}

#[tokio::test]
async fn only_a_server_that_offers_it_announces_extended_connect() {
    let off = Config {
        grease: false,
        ..Config::default()
    };
    let on = Config {
        grease: false,
        ..all_on()
    };
    for (ours_is_server, config, expected) in [
        (true, on, [&[8u8, 1][..], &[0x33, 1]].concat()),
        (false, on, vec![0x33, 1]),
        (true, off, vec![]),
        (false, off, vec![]),
    ] {
        let pair = pair().await;
        let conn = if ours_is_server {
            serve(pair.server.clone(), config, echo);
            pair.client.clone()
        } else {
            let _ = requests_with(pair.client.clone(), config);
            pair.server.clone()
        };
        let mut stream = within(conn.accept_uni()).await.unwrap();
        let start = within(stream.read_chunk(100, true)).await.unwrap().unwrap();
        // Type, frame type, length, MAX_FIELD_SECTION_SIZE in four bytes; then what is of interest.
        assert_eq!(start.bytes[..2], [0, 4]);
        assert_eq!(start.bytes[8..], expected, "server: {ours_is_server}");
    }
}
