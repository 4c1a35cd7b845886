//! What we send: never what a peer would have to refuse, and the same as what was asked for.

use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue, Method, Request, Response};
use proptest::prelude::*;

use super::frame::{HeadReader, kind};
use super::incoming;
use super::outgoing::{self, Unsendable};
use super::qpack::decode::{Limits, decode};
use crate::Protocol;

const WIDE: Limits = Limits {
    size: 1 << 28,
    fields: 10_000,
};

fn block(frame: Vec<u8>) -> Bytes {
    let mut bytes = Bytes::from(frame);
    let head = HeadReader::default()
        .read(&mut bytes)
        .expect("a frame head");
    assert_eq!((head.kind, head.len), (kind::HEADERS, bytes.len() as u64));
    bytes
}

fn names(block: &Bytes) -> Vec<String> {
    let mut out = Vec::new();
    decode(block, WIDE, |line| {
        out.push(String::from_utf8_lossy(line.name.as_bytes()).into_owned());
        Ok(())
    })
    .expect("ours decodes");
    out
}

fn request(method: Method, uri: &str) -> Request<()> {
    Request::builder().method(method).uri(uri).body(()).unwrap()
}

#[test]
fn connect_is_sent_with_method_and_authority_only() {
    let mut connect = request(Method::CONNECT, "invoices.default:5432");
    connect
        .headers_mut()
        .insert("x-request-id", HeaderValue::from_static("7"));
    let frame = outgoing::request(&connect, u64::MAX).unwrap();
    assert_eq!(
        names(&block(frame)),
        [":method", ":authority", "x-request-id"]
    );
}

/// RFC 8441 §4.
#[test]
fn extended_connect_is_sent_with_all_five_pseudo_headers() {
    let mut connect = request(Method::CONNECT, "https://chat.default/socket?a=b");
    connect.extensions_mut().insert(Protocol::WEBSOCKET);
    let block = block(outgoing::request(&connect, u64::MAX).unwrap());
    assert_eq!(
        names(&block),
        [":method", ":authority", ":scheme", ":path", ":protocol"]
    );
    let (back, _) = incoming::request(&block, WIDE, true).unwrap();
    assert_eq!(back.extensions().get(), Some(&Protocol::WEBSOCKET));
    assert_eq!(back.uri(), connect.uri());

    let mut get = request(Method::GET, "https://chat.default/socket");
    get.extensions_mut().insert(Protocol::WEBSOCKET);
    assert!(outgoing::request(&get, u64::MAX).is_err(), "only CONNECT");
}

#[test]
fn other_methods_are_sent_with_all_four_pseudo_headers_first() {
    for (uri, scheme, path) in [
        ("https://a:80/x?y=1", "https", "/x?y=1"),
        ("http://a", "http", "/"),
    ] {
        let mut get = request(Method::GET, uri);
        get.headers_mut()
            .insert("accept", HeaderValue::from_static("*/*"));
        let block = block(outgoing::request(&get, u64::MAX).unwrap());
        assert_eq!(
            names(&block),
            [":method", ":authority", ":scheme", ":path", "accept"]
        );
        let (back, _) = incoming::request(&block, WIDE, true).unwrap();
        assert_eq!(back.uri().scheme_str(), Some(scheme));
        assert_eq!(back.uri().path_and_query().unwrap().as_str(), path);
    }
}

#[test]
fn what_a_peer_would_call_malformed_is_not_sent() {
    let with = |name: &'static str, value: &'static str| {
        let mut request = request(Method::GET, "https://a:80/");
        request
            .headers_mut()
            .insert(name, HeaderValue::from_static(value));
        outgoing::request(&request, u64::MAX)
    };
    for (name, value) in [
        ("connection", "close"),
        ("keep-alive", "5"),
        ("proxy-connection", "close"),
        ("transfer-encoding", "chunked"),
        ("upgrade", "websocket"),
        ("te", "gzip"),
        ("host", "b:80"),
    ] {
        assert!(
            matches!(with(name, value), Err(Unsendable::Rule(_))),
            "{name}: {value}"
        );
    }
    for (name, value) in [("te", "trailers"), ("host", "a:80"), ("host", "A:80")] {
        assert!(with(name, value).is_ok(), "{name}: {value}");
    }
    let no_port = request(Method::CONNECT, "invoices");
    assert!(outgoing::request(&no_port, u64::MAX).is_err());
    let no_authority = request(Method::GET, "/path");
    assert!(outgoing::request(&no_authority, u64::MAX).is_err());
    let mut switching = Response::new(());
    *switching.status_mut() = http::StatusCode::SWITCHING_PROTOCOLS;
    assert!(outgoing::response(&switching, u64::MAX).is_err());
}

#[test]
fn host_is_sent_as_authority_only() {
    let mut request = request(Method::GET, "/path");
    request
        .headers_mut()
        .insert("host", HeaderValue::from_static("a:80"));
    let block = block(outgoing::request(&request, u64::MAX).unwrap());
    assert_eq!(names(&block), [":method", ":authority", ":scheme", ":path"]);
}

#[test]
fn nothing_larger_than_the_peer_takes_is_sent() {
    let response = Response::builder().header("x", "12345").body(()).unwrap();
    let size = (7 + 3 + 32) + (1 + 5 + 32);
    assert!(outgoing::response(&response, size).is_ok());
    assert_eq!(
        outgoing::response(&response, size - 1),
        Err(Unsendable::TooLarge {
            size,
            limit: size - 1
        })
    );
}

#[test]
fn long_sections_have_a_wide_length() {
    for len in [16_000, 16_300, 16_383, 16_400, 100_000] {
        let value = HeaderValue::from_str(&"v".repeat(len)).unwrap();
        let response = Response::builder()
            .header("x", value.clone())
            .body(())
            .unwrap();
        let block = block(outgoing::response(&response, u64::MAX).unwrap());
        let (back, _) = incoming::response(&block, WIDE).unwrap();
        assert_eq!(back.headers()["x"], value);
    }
}

prop_compose! {
    fn headers()(fields in proptest::collection::vec(
        ("[a-z][a-z0-9_-]{0,30}", proptest::collection::vec(prop_oneof![0x20u8..0x7f, 0x80u8..=0xff], 0..200)),
        0..40,
    )) -> HeaderMap {
        let mut map = HeaderMap::new();
        for (name, value) in fields {
            let special = ["te", "host", "cookie", "upgrade", "connection", "content-length"];
            if !special.contains(&name.as_str()) {
                let name = HeaderName::from_bytes(name.as_bytes()).unwrap();
                map.append(name, HeaderValue::from_bytes(&value).unwrap());
            }
        }
        map
    }
}

proptest! {
    #[test]
    fn a_response_arrives_as_it_was_sent(headers in headers(), status in 200u16..=999) {
        let mut response = Response::new(());
        *response.status_mut() = http::StatusCode::from_u16(status).unwrap();
        *response.headers_mut() = headers;
        let block = block(outgoing::response(&response, u64::MAX).unwrap());
        let (back, _) = incoming::response(&block, WIDE).unwrap();
        prop_assert_eq!(back.status(), response.status());
        prop_assert_eq!(back.headers(), response.headers());
    }

    #[test]
    fn a_request_arrives_as_it_was_sent(headers in headers(), method in "[A-Z]{1,10}", path in "(/[a-zA-Z0-9%._~-]{0,10}){1,5}(\\?[a-z=&%0-9]{0,20})?") {
        let mut request = Request::new(());
        *request.method_mut() = Method::from_bytes(method.as_bytes()).unwrap();
        *request.uri_mut() = format!("https://invoices.default:80{path}").parse().unwrap();
        *request.headers_mut() = headers;
        prop_assume!(request.method() != Method::CONNECT);
        let block = block(outgoing::request(&request, u64::MAX).unwrap());
        let (back, _) = incoming::request(&block, WIDE, true).unwrap();
        prop_assert_eq!(back.method(), request.method());
        prop_assert_eq!(back.uri(), request.uri());
        prop_assert_eq!(back.headers(), request.headers());
    }
}
