//! Good inputs to start from.

use http::{HeaderMap, Method, Request, Response, StatusCode};

use crate::Protocol;
use crate::core::credit::Word;
use crate::core::frame::kind;
use crate::core::{capsule, datagram, outgoing, settings, varint};

/// Requests with content and trailers, tunnels, and responses with an interim one before them.
pub(super) fn messages() -> Vec<Vec<u8>> {
    let mut request = Request::new(());
    *request.uri_mut() = "https://invoices.default:80/a?b=c".parse().unwrap();
    let headers = request.headers_mut();
    headers.insert("content-length", 5.into());
    headers.insert("x-request-id", "0123".parse().unwrap());
    headers.append("cookie", "a=1".parse().unwrap());
    headers.append("cookie", "b=2".parse().unwrap());
    let mut post = outgoing::request(&request, u64::MAX).unwrap();
    outgoing::data_head(5, &mut post);
    post.extend_from_slice(b"hello");
    let mut trailers = HeaderMap::new();
    trailers.insert("grpc-status", 0.into());
    post.extend(outgoing::trailers(&trailers, u64::MAX).unwrap());

    let mut connect = Request::new(());
    *connect.method_mut() = Method::CONNECT;
    *connect.uri_mut() = "invoices.default:5432".parse().unwrap();
    let mut tunnel = outgoing::request(&connect, u64::MAX).unwrap();
    outgoing::data_head(3, &mut tunnel);
    tunnel.extend_from_slice(b"abc");

    *connect.uri_mut() = "https://chat.default/socket".parse().unwrap();
    connect.extensions_mut().insert(Protocol::WEBSOCKET);
    let extended = outgoing::request(&connect, u64::MAX).unwrap();

    let mut answer = Response::new(());
    *answer.status_mut() = StatusCode::EARLY_HINTS;
    let mut response = outgoing::response(&answer, u64::MAX).unwrap();
    *answer.status_mut() = StatusCode::OK;
    response.extend(outgoing::response(&answer, u64::MAX).unwrap());
    varint::encode(0x21, &mut response);
    response.extend_from_slice(&[3, 1, 2, 3]);
    vec![post, tunnel, extended, response]
}

/// Only the field sections of the messages.
pub(super) fn sections() -> Vec<Vec<u8>> {
    let mut all: Vec<_> = messages().iter().map(|m| m[3..].to_vec()).collect();
    // A Huffman-coded value: `:authority: www.example.com` (RFC 7541 §C.4.1).
    let mut coded = vec![0, 0, 0x50, 0x8c];
    coded.extend_from_slice(HUFFMAN);
    all.push(coded);
    all
}

const HUFFMAN: &[u8] = &[
    0xf1, 0xe3, 0xc2, 0xe5, 0xf2, 0x3a, 0x6b, 0xa0, 0xab, 0x90, 0xf4, 0xff,
];

pub(super) fn huffman() -> Vec<Vec<u8>> {
    vec![HUFFMAN.to_vec(), vec![0xff, 0xff, 0xff, 0xfc], vec![0x07]]
}

pub(super) fn settings() -> Vec<Vec<u8>> {
    let ours = settings::Settings {
        max_field_section_size: 65_536,
        enable_connect_protocol: true,
        h3_datagram: true,
        parity: true,
    };
    let mut frame = Vec::new();
    settings::encode(&ours, true, &mut frame);
    vec![frame.split_off(2), vec![1, 0, 7, 0]]
}

pub(super) fn control() -> Vec<Vec<u8>> {
    let mut all = Vec::new();
    settings::encode(&settings::Settings::default(), true, &mut all);
    let mut first = all.clone();
    let (away, push) = (kind::GOAWAY as u8, kind::MAX_PUSH_ID as u8);
    all.extend_from_slice(&[away, 1, 8, 0x21, 2, 0, 0, away, 1, 4]);
    first.extend_from_slice(&[push, 1, 1, push, 1, 9]);
    varint::encode(kind::PRIORITY_UPDATE, &mut first);
    first.extend_from_slice(b"\x09\x04u=1, i;x");
    Word::Grant {
        stream: 8,
        limit: 70_000,
    }
    .encode(&mut first);
    vec![all, first]
}

pub(super) fn instructions() -> Vec<Vec<u8>> {
    vec![
        vec![0x20, 0x20],
        vec![0x40, 0x44, 0x7f, 0x80, 0x01],
        vec![0x3f, 0xe1, 0x1f],
    ]
}

pub(super) fn capsules() -> Vec<Vec<u8>> {
    let mut all = Vec::new();
    for payload in [&b"\0packet"[..], b"\0", b"\x04unknown"] {
        capsule::datagram_head(payload.len(), &mut all);
        all.extend_from_slice(payload);
    }
    varint::encode(0x2f, &mut all);
    all.extend_from_slice(&[3, 1, 2, 3]);
    let mut large = Vec::new();
    capsule::datagram_head(100, &mut large);
    large.resize(110, 0);
    vec![all, large]
}

pub(super) fn datagrams() -> Vec<Vec<u8>> {
    [0, 4, 1 << 20, (1 << 62) - 4]
        .map(|id| datagram::encode(id, [&[0], b"payload"]))
        .to_vec()
}

pub(super) fn templates() -> Vec<Vec<u8>> {
    [
        "https://a:443/.well-known/masque/udp/{target_host}/{target_port}/",
        "https://a/m?h={target_host}&p={target_port}",
        "https://a/m{?target_host,x,target_port}",
        "https://a/{target_port,target_host}{&y}",
    ]
    .map(|text| text.as_bytes().to_vec())
    .to_vec()
}

pub(super) fn paths() -> Vec<Vec<u8>> {
    [
        "/.well-known/masque/udp/192.0.2.6/443/",
        "/.well-known/masque/udp/2001%3Adb8%3A%3A42/65535/",
        "/.well-known/masque/udp/a.b-c_d/1/",
        "/m?target_host=a&target_port=53",
    ]
    .map(|text| text.as_bytes().to_vec())
    .to_vec()
}
