//! GOAWAY (RFC 9114 §5.2), and what a client may conclude from it.

use quinn::VarInt;
use weft_h3::{Code, Config, Error};

use crate::common::*;

#[tokio::test]
async fn a_server_ends_in_two_steps_and_loses_no_request() {
    let pair = pair().await;
    let (mut accept, driver) = weft_h3::server(pair.server.clone(), Config::default());
    let shutdown = accept.shutdown();
    tokio::spawn(driver.run());
    let raw = Raw::new(pair.client.clone()).await;
    let mut control = server_control(&pair.client).await;

    let (_s0, mut first) = raw.open(&headers(&GET)).await;
    let first_pending = within(accept.accept()).await.unwrap().unwrap();
    shutdown.begin();
    assert_eq!(next_goaway(&mut control).await, (1 << 62) - 4);
    let (_s4, mut second) = raw.open(&headers(&GET)).await;
    let second_pending = within(accept.accept())
        .await
        .unwrap()
        .expect("begin refuses nothing");
    shutdown.finish();
    assert_eq!(
        next_goaway(&mut control).await,
        8,
        "the first stream that is not processed"
    );
    assert!(
        within(accept.accept()).await.unwrap().is_none(),
        "accept ends"
    );

    let late = reset_code(raw.exchange(&headers(&GET)).await);
    assert_eq!(late, Code::REQUEST_REJECTED);
    assert_eq!(shutdown.active(), 2);
    for (pending, recv) in [(first_pending, &mut first), (second_pending, &mut second)] {
        let (request, send, body) = within(pending.head()).await.unwrap();
        let answer = tokio::spawn(echo(request, send, body));
        // The client's stream has no end yet: give it one.
        let got = within(recv.read_chunk(100, true)).await.unwrap();
        assert!(got.is_some());
        answer.abort();
    }
    within(shutdown.drained()).await;
}

/// The server's control stream, behind SETTINGS.
async fn server_control(conn: &quinn::Connection) -> (quinn::RecvStream, Vec<u8>) {
    loop {
        let mut stream = within(conn.accept_uni()).await.unwrap();
        let chunk = within(stream.read_chunk(1, true)).await.unwrap().unwrap();
        if chunk.bytes[0] == 0 {
            return (stream, Vec::new());
        }
        // A QPACK stream: dropping it would stop it.
        tokio::spawn(async move { stream.received_reset().await });
    }
}

async fn next_goaway((stream, buffer): &mut (quinn::RecvStream, Vec<u8>)) -> u64 {
    loop {
        // Each frame here is short: type, length of one byte, payload.
        while let Some(frame) = first_frame(buffer) {
            buffer.drain(..frame.1);
            if let (Some(id), _) = frame {
                return id;
            }
        }
        let chunk = within(stream.read_chunk(100, true)).await.unwrap().unwrap();
        buffer.extend_from_slice(&chunk.bytes);
    }
}

/// The id of a GOAWAY at the start of the buffer, and the length of the frame there.
fn first_frame(buffer: &[u8]) -> Option<(Option<u64>, usize)> {
    let integer = |buffer: &[u8]| {
        let len = 1usize << (*buffer.first()? >> 6);
        let bytes = buffer.get(..len)?;
        let value = bytes[1..]
            .iter()
            .fold(u64::from(bytes[0] & 0x3f), |v, b| v << 8 | u64::from(*b));
        Some((value, len))
    };
    let (kind, kind_len) = integer(buffer)?;
    let (len, len_len) = integer(&buffer[kind_len..])?;
    let start = kind_len + len_len;
    let payload = buffer.get(start..start + len as usize)?;
    let id = (kind == 7).then(|| integer(payload).unwrap().0);
    Some((id, start + payload.len()))
}

#[tokio::test]
async fn a_client_sends_nothing_new_to_a_server_that_is_going_away() {
    let pair = pair().await;
    let shutdown = serve(pair.server.clone(), Config::default(), echo);
    let requests = requests(pair.client.clone());
    get_ok(&requests, "/before").await;
    assert!(!requests.is_going_away());
    shutdown.begin();
    within(requests.going_away()).await;
    assert!(requests.is_going_away());
    let error = within(requests.send(&get("/"), true)).await.unwrap_err();
    assert_eq!(error, Error::GoingAway);
    assert!(error.is_unprocessed());
}

#[tokio::test]
async fn a_request_from_the_goaway_id_on_is_safe_to_retry_and_one_below_is_not() {
    let pair = pair().await;
    let requests = requests(pair.client.clone());
    let (_s0, mut processed) = within(requests.send(&get("/0"), true)).await.unwrap();
    let (_s4, mut unprocessed) = within(requests.send(&get("/4"), true)).await.unwrap();
    let start = [frame(SETTINGS, &[]), frame(7, &[4])].concat();
    let raw = Raw::with_control(pair.server.clone(), &start).await;
    within(requests.going_away()).await;
    raw.conn.close(VarInt::from_u32(0x100), b"");
    let error = within(processed.response()).await.unwrap_err();
    assert!(!error.is_unprocessed(), "it may have run: {error:?}");
    let error = within(unprocessed.response()).await.unwrap_err();
    assert!(error.is_unprocessed(), "it did not run: {error:?}");
}

#[tokio::test]
async fn without_a_goaway_any_request_that_was_sent_may_have_run() {
    let pair = pair().await;
    let requests = requests(pair.client.clone());
    let (_send, mut recv) = within(requests.send(&get("/"), true)).await.unwrap();
    pair.server.close(VarInt::from_u32(0x100), b"");
    let error = within(recv.response()).await.unwrap_err();
    assert!(
        !error.is_unprocessed() && error.is_connection(),
        "{error:?}"
    );
    let error = within(requests.send(&get("/"), true)).await.unwrap_err();
    assert!(error.is_unprocessed(), "it was never sent: {error:?}");
}

/// A TLS 1.3 server looks at the client's certificate when the client's handshake is done already, and its
/// first requests are under way.
#[tokio::test]
async fn a_server_that_refuses_the_clients_certificate_processed_nothing() {
    let (own, wanted, other) = (Identity::new(), Identity::new(), Identity::new());
    let server = quinn::Endpoint::server(server_config(&own, Some(&wanted)), any()).unwrap();
    let addr = server.local_addr().unwrap();
    tokio::spawn(async move {
        while let Some(incoming) = server.accept().await {
            assert!(incoming.await.is_err(), "the certificate was accepted");
        }
    });
    let client = quinn::Endpoint::client(any()).unwrap();
    for presented in [None, Some(&other)] {
        let config = client_config(presented, &own);
        let connecting = client.connect_with(config, addr, "localhost").unwrap();
        let conn = within(connecting).await.expect("our handshake is done");
        let requests = requests(conn);
        let error = match within(requests.send(&get("/"), true)).await {
            Ok((_send, mut recv)) => within(recv.response()).await.unwrap_err(),
            Err(error) => error,
        };
        assert!(error.is_unprocessed() && error.is_connection(), "{error:?}");
        let Error::ConnectionClosed { reason, .. } = &error else {
            panic!("{error:?}");
        };
        assert!(error.to_string().contains(&reason.to_string()), "{error}");
    }
}

#[tokio::test]
async fn a_request_that_waits_for_a_stream_learns_that_the_server_is_going_away() {
    let mut transport = quinn::TransportConfig::default();
    transport.max_concurrent_bidi_streams(VarInt::from_u32(1));
    let pair = pair_with(transport).await;
    let shutdown = serve(pair.server.clone(), Config::default(), echo);
    let requests = requests(pair.client.clone());
    let _only = within(requests.send(&get("/"), false)).await.unwrap();
    let next = get("/");
    let mut waiting = Box::pin(requests.send(&next, true));
    assert!(poll_once(waiting.as_mut()).await.is_none());
    shutdown.begin();
    assert_eq!(within(waiting).await.unwrap_err(), Error::GoingAway);
}

#[tokio::test]
async fn a_rejection_that_stops_the_upload_is_safe_to_retry() {
    let pair = pair().await;
    let shutdown = serve(pair.server.clone(), Config::default(), echo);
    let requests = requests(pair.client.clone());
    let post = request(http::Method::POST, "/");
    let (mut send, mut recv) = {
        // Opened before the client can know of the GOAWAY, seen by the server after it.
        shutdown.finish();
        within(requests.send(&post, false)).await.unwrap()
    };
    let error = within(async {
        loop {
            if let Err(error) = send.send_data(bytes(65_536)).await {
                return error;
            }
        }
    })
    .await;
    assert!(error.is_unprocessed(), "{error:?}");
    let error = within(recv.response()).await.unwrap_err();
    assert!(error.is_unprocessed(), "{error:?}");
}

#[tokio::test]
async fn a_dropped_driver_closes_the_connection() {
    let pair = pair().await;
    let (requests, driver) = weft_h3::client(pair.client.clone(), Config::default());
    let running = tokio::spawn(driver.run());
    running.abort();
    let reason = within(pair.server.closed()).await;
    let quinn::ConnectionError::ApplicationClosed(close) = reason else {
        panic!("closed with {reason}");
    };
    assert_eq!(Code::from(close.error_code), Code::NO_ERROR);
    let error = within(requests.send(&get("/"), true)).await.unwrap_err();
    assert!(error.is_unprocessed());
}
