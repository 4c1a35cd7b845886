//! CONNECT-UDP (RFC 9298), with real UDP sockets behind the server.

use std::net::{Ipv4Addr, SocketAddr};

use bytes::Bytes;
use http::{Request, Response, StatusCode};
use tokio::net::UdpSocket;
use weft_h3::{
    Code, Config, Error, Protocol, RecvStream, Requests, SendStream, UdpAnswer, UdpSender,
    UdpTarget, UdpTemplate,
};

use crate::common::*;

fn template() -> UdpTemplate {
    UdpTemplate::well_known("proxy.default:443".parse().unwrap())
}

/// A UDP socket that sends back what it gets.
pub(crate) async fn udp_echo() -> SocketAddr {
    let socket = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
    let addr = socket.local_addr().unwrap();
    tokio::spawn(async move {
        let mut packet = vec![0; 65_536];
        loop {
            let (len, from) = socket.recv_from(&mut packet).await.unwrap();
            let _ = socket.send_to(&packet[..len], from).await;
        }
    });
    addr
}

/// A UDP proxy: what a layer above would do, without its policy.
pub(crate) async fn proxy(request: Request<()>, mut send: SendStream, recv: RecvStream) {
    let target = match template().target(&request) {
        Ok(target) => target,
        Err(_) => {
            let mut response = Response::new(());
            let known = request.extensions().get() == Some(&Protocol::CONNECT_UDP);
            *response.status_mut() = if known {
                StatusCode::BAD_REQUEST
            } else {
                StatusCode::NOT_IMPLEMENTED
            };
            let _ = send.send_response_with(&response, Bytes::new(), true).await;
            return;
        }
    };
    let socket = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
    socket.connect(target.to_string()).await.unwrap();
    let (mut out, mut back) = UdpSender::accept(send, recv).await.unwrap();
    let mut packet = vec![0; 65_536];
    loop {
        tokio::select! {
            payload = back.recv() => match payload {
                Ok(Some(payload)) => {
                    let _ = socket.send(&payload).await;
                }
                Ok(None) => break,
                Err(_) => return,
            },
            len = socket.recv(&mut packet) => match len {
                Ok(len) => drop(out.send(&packet[..len]).await),
                Err(_) => return,
            },
        }
    }
    let _ = out.finish().await;
}

async fn client_with(config: Config) -> (Requests, Pair) {
    let pair = pair().await;
    serve(pair.server.clone(), all_on(), proxy);
    (requests_with(pair.client.clone(), config), pair)
}

async fn raw_client() -> (Raw, Pair) {
    let pair = pair().await;
    serve(pair.server.clone(), all_on(), proxy);
    let raw = Raw::with_control(pair.client.clone(), &offers_all()).await;
    (raw, pair)
}

fn asks(path: &str) -> Vec<u8> {
    headers(&[
        (":method", "CONNECT"),
        (":protocol", "connect-udp"),
        (":scheme", "https"),
        (":authority", "proxy.default:443"),
        (":path", path),
        ("capsule-protocol", "?1"),
    ])
}

fn path_to(addr: SocketAddr) -> String {
    format!("/.well-known/masque/udp/{}/{}/", addr.ip(), addr.port())
}

fn target(addr: SocketAddr) -> UdpTarget {
    UdpTarget::new(&addr.ip().to_string(), addr.port()).unwrap()
}

#[tokio::test]
async fn packets_go_to_the_target_and_back() {
    let addr = udp_echo().await;
    let (requests, _pair) = client_with(all_on()).await;
    let answer = within(requests.connect_udp(&template(), &target(addr)))
        .await
        .unwrap();
    let UdpAnswer::Open(mut send, mut recv) = answer else {
        panic!("refused: {answer:?}");
    };
    // RFC 9298 §5: a payload may be empty.
    for payload in [&b"ping"[..], b"", &[9; 1000]] {
        within(send.send(payload)).await.unwrap();
        assert_eq!(within(recv.recv()).await.unwrap().as_deref(), Some(payload));
    }
    within(send.finish()).await.unwrap();
    assert_eq!(within(recv.recv()).await.unwrap(), None);
}

/// RFC 9297 §3.5: a peer without QUIC datagrams gets and sends capsules.
#[tokio::test]
async fn without_quic_datagrams_packets_go_as_capsules() {
    let addr = udp_echo().await;
    let (requests, _pair) = client_with(Config::default()).await;
    let answer = within(requests.connect_udp(&template(), &target(addr)))
        .await
        .unwrap();
    let UdpAnswer::Open(mut send, mut recv) = answer else {
        panic!("refused: {answer:?}");
    };
    for payload in [&b"ping"[..], b"", &[9; 5000]] {
        within(send.send(payload)).await.unwrap();
        assert_eq!(within(recv.recv()).await.unwrap().as_deref(), Some(payload));
    }
}

#[tokio::test]
async fn a_packet_that_fits_into_no_datagram_is_not_turned_into_a_capsule() {
    let addr = udp_echo().await;
    let (requests, _pair) = client_with(all_on()).await;
    let answer = within(requests.connect_udp(&template(), &target(addr)))
        .await
        .unwrap();
    let UdpAnswer::Open(mut send, _recv) = answer else {
        panic!("refused: {answer:?}");
    };
    for len in [60_000, 65_528] {
        let error = within(send.send(&vec![0; len])).await.unwrap_err();
        assert!(matches!(error, Error::DatagramTooBig { .. }), "{error:?}");
    }
}

#[tokio::test]
async fn datagrams_of_context_0_are_packets_and_others_are_dropped() {
    let addr = udp_echo().await;
    let (raw, _pair) = raw_client().await;
    let (_send, mut recv) = raw.open(&asks(&path_to(addr))).await;
    within(recv.read_chunk(1000, true)).await.unwrap().unwrap();
    for context in [4u8, 1, 2, 0] {
        let frame = vec![0, context, b'c', context];
        raw.conn.send_datagram(frame.into()).unwrap();
    }
    let got = within(raw.conn.read_datagram()).await.unwrap();
    assert_eq!(got[..], [0, 0, b'c', 0], "context 0 comes back, alone");
    // Context 0 and nothing behind it is an empty packet.
    raw.conn.send_datagram(vec![0, 0].into()).unwrap();
    let got = within(raw.conn.read_datagram()).await.unwrap();
    assert_eq!(got[..], [0, 0]);
}

#[tokio::test]
async fn broken_payloads_abort_the_stream_and_neighbours_survive() {
    let addr = udp_echo().await;
    let capsule = |value: &[u8]| [&[0][..], &varint(value.len() as u64), value].concat();
    let long = capsule(&[0; 65_529]);
    let cases: [(&str, Vec<u8>, bool, Code); 3] = [
        ("above 65527 bytes", long, false, Code::DATAGRAM_ERROR),
        ("no context id", capsule(&[]), false, Code::MESSAGE_ERROR),
        ("an end inside", vec![0, 9, 0, 1], true, Code::MESSAGE_ERROR),
    ];
    let (raw, _pair) = raw_client().await;
    for (what, bytes, end, code) in cases {
        let (mut send, mut recv) = raw.open(&asks(&path_to(addr))).await;
        let data = frame(DATA, &bytes);
        // The server may stop reading before it has all.
        let _ = send.write_all(&data).await;
        if end {
            send.finish().unwrap();
        }
        let rest = within(recv.read_to_end(1000)).await;
        assert_eq!(reset_code(rest), code, "{what}");
    }
    // In a QUIC datagram.
    let (send, mut recv) = raw.open(&asks(&path_to(addr))).await;
    within(recv.read_chunk(1000, true)).await.unwrap().unwrap();
    let frame = varint(u64::from(send.id()) / 4);
    raw.conn.send_datagram(frame.into()).unwrap();
    let rest = within(recv.read_to_end(1000)).await;
    assert_eq!(reset_code(rest), Code::MESSAGE_ERROR, "no context id");
    raw.is_alive().await;
}

#[tokio::test]
async fn bad_targets_are_answered_400_and_other_protocols_501() {
    let (raw, _pair) = raw_client().await;
    let at = |host: &str, port: &str| format!("/.well-known/masque/udp/{host}/{port}/");
    for path in [
        at("a", "0"),
        at("a", "65536"),
        at("", "53"),
        at("%5B::1%5D", "53"),
        "/.well-known/masque/udp/a/".to_owned(),
        "/".to_owned(),
    ] {
        let answer = raw.exchange(&asks(&path)).await.unwrap();
        // Indexed in the static table: `:status 400` is entry 67.
        assert_eq!(answer[3..], [0, 0, 0xff, 4], "{path}: {answer:02x?}");
    }
    let unknown = headers(&[
        (":method", "CONNECT"),
        (":protocol", "connect-ip"),
        (":scheme", "https"),
        (":authority", "proxy.default:443"),
        (":path", "/"),
    ]);
    let answer = raw.exchange(&unknown).await.unwrap();
    assert!(answer.ends_with(b"501"), "{answer:02x?}");
}

/// The client's side of RFC 9298 §3.5 and RFC 9297 §3.2.
#[tokio::test]
async fn answers_that_speak_of_content_are_malformed_and_others_than_2xx_refuse() {
    let pair = pair().await;
    let requests = requests_with(pair.client.clone(), all_on());
    let raw = Raw::with_control(pair.server.clone(), &offers_all()).await;
    let target = UdpTarget::new("a", 53).unwrap();
    let template = template();
    let answer = async |fields: &[(&str, &str)]| {
        let asked = requests.connect_udp(&template, &target);
        let answered = async {
            let (mut send, recv) = raw.conn.accept_bi().await.unwrap();
            send.write_all(&headers(fields)).await.unwrap();
            (send, recv)
        };
        within(async { tokio::join!(asked, answered) }).await.0
    };
    for fields in [
        &[(":status", "200"), ("content-length", "5")][..],
        &[(":status", "200"), ("content-type", "text/plain")],
        &[(":status", "204")],
        &[(":status", "205")],
        &[(":status", "206")],
    ] {
        let error = answer(fields).await.unwrap_err();
        assert_eq!(error.code(), Some(Code::MESSAGE_ERROR), "{fields:?}");
    }
    for status in ["300", "403", "501", "502"] {
        let got = answer(&[(":status", status)]).await.unwrap();
        let UdpAnswer::Refused(response, _) = got else {
            panic!("{status} opened a tunnel");
        };
        assert_eq!(response.status().as_str(), status);
    }
    let opened = answer(&[(":status", "200"), ("capsule-protocol", "?1")]).await;
    assert!(matches!(opened, Ok(UdpAnswer::Open(..))), "{opened:?}");
}
