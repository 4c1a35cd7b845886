//! Our client against our server: what happens to one request never touches another.

use bytes::Bytes;
use http::{HeaderMap, Method, Response};
use quinn::VarInt;
use tokio::sync::mpsc;
use weft_h3::{Code, Config, Error, Requests};

use crate::common::*;

async fn both<F, H>(handler: H) -> (Requests, Pair)
where
    H: Fn(http::Request<()>, weft_h3::SendStream, weft_h3::RecvStream) -> F
        + Clone
        + Send
        + 'static,
    F: Future<Output = ()> + Send + 'static,
{
    let pair = pair().await;
    serve(pair.server.clone(), Config::default(), handler);
    (requests(pair.client.clone()), pair)
}

#[tokio::test]
async fn content_and_trailers_go_both_ways() {
    let (requests, _pair) = both(echo).await;
    let post = request(Method::POST, "/echo");
    let (mut send, mut recv) = within(requests.send(&post, false)).await.unwrap();
    let body = bytes(300_000);
    let sending = async {
        for piece in body.chunks(70_001) {
            send.send_data(body.slice_ref(piece)).await.unwrap();
        }
        let mut trailers = HeaderMap::new();
        trailers.insert("grpc-status", "0".parse().unwrap());
        send.send_trailers(&trailers).await.unwrap();
        send.finish().await.unwrap();
    };
    let receiving = async {
        let response = recv.response().await.unwrap();
        assert_eq!(response.headers()["x-method"], "POST");
        let back = read_all(&mut recv).await.unwrap();
        (back, recv.trailers().await.unwrap())
    };
    let ((), (back, trailers)) = within(async { tokio::join!(sending, receiving) }).await;
    assert_eq!(back, body);
    assert_eq!(trailers.unwrap()["grpc-status"], "0");
    assert_eq!(recv.data().await, Ok(None), "the end stays the end");
}

#[tokio::test]
async fn many_pieces_are_read_in_one_step() {
    let (requests, _pair) = both(echo).await;
    let body = bytes(500_000);
    let post = request(Method::POST, "/echo");
    let (_send, mut recv) = within(requests.send_with(&post, body.clone(), true))
        .await
        .unwrap();
    within(recv.response()).await.unwrap();
    let mut back = Vec::new();
    let mut pieces = vec![Bytes::new(); 16];
    loop {
        let count = within(recv.data_vectored(&mut pieces)).await.unwrap();
        if count == 0 {
            break;
        }
        back.extend(pieces[..count].concat());
    }
    assert_eq!(back, body);
}

#[tokio::test]
async fn the_end_of_a_request_without_content_is_known_at_once() {
    let (seen, mut was_end) = mpsc::channel(1);
    let (requests, _pair) = both(move |_, mut send, recv| {
        let seen = seen.clone();
        async move {
            seen.send(recv.is_end()).await.unwrap();
            let _ = send
                .send_response_with(&Response::new(()), Bytes::new(), true)
                .await;
        }
    })
    .await;
    for end in [true, false] {
        let _open = within(requests.send(&get("/"), end)).await.unwrap();
        assert_eq!(within(was_end.recv()).await, Some(end));
    }
}

#[tokio::test]
async fn a_dropped_or_panicking_handler_resets_its_stream_and_neighbours_survive() {
    let (requests, _pair) = both(|request, mut send, recv| async move {
        match request.uri().path() {
            "/drop" => drop((send, recv)),
            "/panic" => panic!("a handler's own fault (expected in this test)"),
            "/half" => {
                send.send_response(&Response::new(())).await.unwrap();
                send.send_data(Bytes::from_static(b"half")).await.unwrap();
            }
            _ => echo(request, send, recv).await,
        }
    })
    .await;
    let neighbour = within(requests.send(&request(Method::POST, "/neighbour"), false)).await;
    let (mut neighbour_send, mut neighbour_recv) = neighbour.unwrap();
    for path in ["/drop", "/panic", "/half"] {
        let (_send, mut recv) = within(requests.send(&get(path), true)).await.unwrap();
        // A reset may overtake the header and content of "/half"; it must never look like a clean end.
        let error = match within(recv.response()).await {
            Ok(_) => within(read_all(&mut recv)).await.unwrap_err(),
            Err(error) => error,
        };
        let code = Code::INTERNAL_ERROR;
        assert_eq!(
            error,
            Error::PeerReset {
                code,
                unprocessed: false
            },
            "{path}"
        );
        get_ok(&requests, "/after").await;
    }
    neighbour_send
        .send_data(Bytes::from_static(b"still here"))
        .await
        .unwrap();
    neighbour_send.finish().await.unwrap();
    within(neighbour_recv.response()).await.unwrap();
    assert_eq!(
        within(read_all(&mut neighbour_recv)).await.unwrap(),
        b"still here"
    );
}

#[tokio::test]
async fn a_client_that_cancels_in_the_middle_of_a_send_costs_only_its_own_stream() {
    let (errors, mut seen) = mpsc::channel(1);
    let pair = pair_with(narrow()).await;
    serve(
        pair.server.clone(),
        Config::default(),
        move |request, send, mut recv| {
            let errors = errors.clone();
            async move {
                if request.uri().path() == "/stuck" {
                    // Reads only after the client has got stuck, and then sees that it is gone.
                    let first = recv.data().await;
                    assert!(first.is_ok());
                    errors.send(None).await.unwrap();
                    let error = read_all(&mut recv).await.unwrap_err();
                    errors.send(Some(error)).await.unwrap();
                    drop(send);
                } else {
                    echo(request, send, recv).await;
                }
            }
        },
    );
    let requests = requests(pair.client.clone());
    let post = request(Method::POST, "/stuck");
    let (mut send, recv) = within(requests.send(&post, false)).await.unwrap();
    {
        let mut sending = Box::pin(send.send_data(bytes(1 << 20)));
        tokio::select! {
            biased;
            sent = &mut sending => panic!("1 MiB cannot fit a window of 16 KiB: {sent:?}"),
            started = within(seen.recv()) => assert_eq!(started, Some(None)),
        }
    }
    drop((send, recv));
    let error = within(seen.recv()).await.unwrap().unwrap();
    let code = Code::REQUEST_CANCELLED;
    assert_eq!(
        error,
        Error::PeerReset {
            code,
            unprocessed: false
        }
    );
    get_ok(&requests, "/after").await;
}

#[tokio::test]
async fn a_send_that_was_cancelled_goes_on_where_it_stopped() {
    let pair = pair_with(narrow()).await;
    serve(pair.server.clone(), Config::default(), echo);
    let requests = requests(pair.client.clone());
    let post = request(Method::POST, "/echo");
    let (mut send, mut recv) = within(requests.send(&post, false)).await.unwrap();
    let body = bytes(200_000);
    // Nobody reads the echo: the send gets stuck, and its future is thrown away.
    let stuck = poll_once(Box::pin(send.send_data(body.slice(..150_000)))).await;
    assert!(stuck.is_none());
    let sending = async {
        send.send_data(body.slice(150_000..)).await.unwrap();
        send.finish().await.unwrap();
    };
    let receiving = async {
        recv.response().await.unwrap();
        read_all(&mut recv).await.unwrap()
    };
    let ((), back) = within(async { tokio::join!(sending, receiving) }).await;
    assert_eq!(back, body);
}

#[tokio::test]
async fn a_send_waits_while_nobody_reads() {
    let pair = pair_with(narrow()).await;
    let (held, mut streams) = mpsc::channel(1);
    serve(
        pair.server.clone(),
        Config::default(),
        move |_, send, recv| {
            let held = held.clone();
            async move { held.send((send, recv)).await.unwrap() }
        },
    );
    let requests = requests(pair.client.clone());
    let (mut send, _recv) = within(requests.send(&request(Method::POST, "/"), false))
        .await
        .unwrap();
    let (_s, mut reading) = within(streams.recv()).await.unwrap();
    let mut sent = 0;
    while poll_once(Box::pin(send.send_data(bytes(4096))))
        .await
        .is_some()
    {
        sent += 1;
        assert!(sent <= 12, "{sent} pieces of 4 KiB went into 48 KiB");
        tokio::task::yield_now().await;
    }
    let drain = async { while reading.data().await.unwrap().is_some() {} };
    within(async { tokio::join!(drain, async { send.finish().await.unwrap() }) }).await;
}

#[tokio::test]
async fn stopping_while_a_read_is_pending_gives_no_panic() {
    let (codes, mut seen) = mpsc::channel(1);
    let (requests, _pair) = both(move |_, mut send, _recv| {
        let codes = codes.clone();
        async move {
            send.send_response(&Response::new(())).await.unwrap();
            codes.send(send.stopped().await).await.unwrap();
            let error = send
                .send_data(Bytes::from_static(b"late"))
                .await
                .unwrap_err();
            assert_eq!(
                error,
                Error::Stopped {
                    code: Code::CONNECT_ERROR
                }
            );
        }
    })
    .await;
    let (_send, mut recv) = within(requests.send(&get("/"), true)).await.unwrap();
    within(recv.response()).await.unwrap();
    assert!(poll_once(Box::pin(recv.data())).await.is_none());
    recv.stop(Code::CONNECT_ERROR);
    assert!(matches!(
        within(recv.data()).await,
        Err(Error::Unreadable { .. })
    ));
    let stopped = within(seen.recv()).await.unwrap();
    assert_eq!(stopped, Ok(Some(Code::CONNECT_ERROR)));
}

#[tokio::test]
async fn a_tunnel_is_half_closed_in_each_direction_in_turn() {
    let (requests, _pair) = both(|request, mut send, mut recv| async move {
        assert_eq!(request.method(), Method::CONNECT);
        assert_eq!(request.uri().authority().unwrap(), "invoices.default:5432");
        send.send_response(&Response::new(())).await.unwrap();
        let got = read_all(&mut recv).await.unwrap();
        // The client has half-closed; our direction lives on.
        send.send_data(format!("{} bytes", got.len()).into())
            .await
            .unwrap();
        send.finish().await.unwrap();
    })
    .await;
    let (mut send, mut recv) = within(requests.send(&connect(), false)).await.unwrap();
    assert_eq!(within(recv.response()).await.unwrap().status(), 200);
    within(send.send_data(bytes(100_000))).await.unwrap();
    // RFC 9114 §4.4.
    let trailers = within(send.send_trailers(&HeaderMap::new())).await;
    assert!(matches!(trailers, Err(Error::Unsendable { .. })));
    within(send.finish()).await.unwrap();
    assert_eq!(within(read_all(&mut recv)).await.unwrap(), b"100000 bytes");
}

#[tokio::test]
async fn a_reset_tunnel_tells_both_directions_h3_connect_error() {
    let (requests, _pair) = both(|_, mut send, mut recv| async move {
        send.send_response(&Response::new(())).await.unwrap();
        send.send_data(Bytes::from_static(b"x")).await.unwrap();
        recv.data().await.unwrap();
        // The TCP connection behind it was reset.
        send.reset(Code::CONNECT_ERROR);
        recv.stop(Code::CONNECT_ERROR);
    })
    .await;
    let (mut send, mut recv) = within(requests.send(&connect(), false)).await.unwrap();
    within(recv.response()).await.unwrap();
    within(recv.data()).await.unwrap();
    let stopped = send.stopped();
    send.send_data(Bytes::from_static(b"y")).await.unwrap();
    let error = within(recv.data()).await.unwrap_err();
    assert_eq!(error.code(), Some(Code::CONNECT_ERROR));
    assert_eq!(within(stopped).await, Ok(Some(Code::CONNECT_ERROR)));
}

/// RFC 9000 §3.5, in both roles.
#[tokio::test]
async fn stop_sending_is_told_to_the_sender_and_answered_with_a_reset() {
    let code = VarInt::from_u32(0x10f);
    // Our client's half.
    let pair1 = pair().await;
    let requests = requests(pair1.client.clone());
    let raw = Raw::new(pair1.server.clone()).await;
    let (mut send, _recv) = within(requests.send(&connect(), false)).await.unwrap();
    let (_s, mut stopped) = within(raw.conn.accept_bi()).await.unwrap();
    stopped.stop(code).unwrap();
    assert_eq!(
        stopped_with(&mut send).await,
        [Some(Code::CONNECT_ERROR); 2]
    );
    drop(send);
    within(has_reset(&raw.conn)).await;
    // Our server's half.
    let pair2 = pair().await;
    let (told, mut heard) = mpsc::channel(1);
    serve(
        pair2.server.clone(),
        Config::default(),
        move |_, mut send, _recv| {
            let told = told.clone();
            async move {
                send.send_response(&Response::new(())).await.unwrap();
                told.send(stopped_with(&mut send).await).await.unwrap();
            }
        },
    );
    let raw = Raw::new(pair2.client.clone()).await;
    let request = headers(&[(":method", "CONNECT"), (":authority", "a:1")]);
    let (_send, mut recv) = raw.open(&request).await;
    within(recv.read_chunk(1000, true)).await.unwrap().unwrap();
    recv.stop(code).unwrap();
    let heard = within(heard.recv()).await.unwrap();
    assert_eq!(heard, [Some(Code::CONNECT_ERROR); 2]);
    within(has_reset(&raw.conn)).await;
}

/// What a sender is told when it waits, and when it writes.
async fn stopped_with(send: &mut weft_h3::SendStream) -> [Option<Code>; 2] {
    let waited = within(send.stopped()).await.unwrap();
    let wrote = within(send.send_data(bytes(10))).await.unwrap_err();
    assert!(matches!(wrote, Error::Stopped { .. }), "{wrote:?}");
    [waited, wrote.code()]
}

/// Waits until the peer has sent a RESET_STREAM.
async fn has_reset(conn: &quinn::Connection) {
    while conn.stats().frame_rx.reset_stream == 0 {
        tokio::task::yield_now().await;
    }
}

#[tokio::test]
async fn an_early_answer_stops_the_rest_of_the_request() {
    let (requests, _pair) = both(|_, mut send, recv| async move {
        let mut response = Response::new(());
        *response.status_mut() = http::StatusCode::PAYLOAD_TOO_LARGE;
        send.send_response_with(&response, Bytes::from_static(b"no"), true)
            .await
            .unwrap();
        drop(recv);
    })
    .await;
    let (mut send, mut recv) = within(requests.send(&request(Method::POST, "/"), false))
        .await
        .unwrap();
    let error = within(async {
        loop {
            if let Err(error) = send.send_data(bytes(65_536)).await {
                return error;
            }
        }
    })
    .await;
    assert_eq!(
        error,
        Error::Stopped {
            code: Code::NO_ERROR
        }
    );
    drop(send);
    assert_eq!(within(recv.response()).await.unwrap().status(), 413);
    assert_eq!(within(read_all(&mut recv)).await.unwrap(), b"no");
}

#[tokio::test]
async fn a_request_that_was_not_looked_at_is_rejected_as_safe_to_retry() {
    let pair = pair().await;
    let (mut accept, driver) = weft_h3::server(pair.server.clone(), Config::default());
    tokio::spawn(driver.run());
    let requests = requests(pair.client.clone());
    let (_send, mut recv) = within(requests.send(&get("/"), true)).await.unwrap();
    drop(within(accept.accept()).await.unwrap());
    let error = within(recv.response()).await.unwrap_err();
    assert_eq!(error.code(), Some(Code::REQUEST_REJECTED));
    assert!(error.is_unprocessed());
}

#[tokio::test]
async fn messages_in_the_wrong_order_are_refused_and_harm_nothing() {
    let (requests, _pair) = both(|_, mut send, _recv| async move {
        let unsendable = |r: Result<(), Error>| matches!(r, Err(Error::Unsendable { .. }));
        assert!(unsendable(send.send_data(Bytes::from_static(b"x")).await));
        assert!(unsendable(send.finish().await));
        assert!(unsendable(send.send_interim(&Response::new(())).await));
        let mut interim = Response::new(());
        *interim.status_mut() = http::StatusCode::EARLY_HINTS;
        assert!(unsendable(send.send_response(&interim).await));
        let bad = Response::builder()
            .header("connection", "close")
            .body(())
            .unwrap();
        assert!(unsendable(send.send_response(&bad).await));
        send.send_interim(&interim).await.unwrap();
        let good = Response::builder().header("x-path", "/").body(()).unwrap();
        send.send_response(&good).await.unwrap();
        assert!(unsendable(send.send_response(&good).await));
        send.send_trailers(&HeaderMap::new()).await.unwrap();
        assert!(unsendable(send.send_data(Bytes::from_static(b"x")).await));
        send.finish().await.unwrap();
    })
    .await;
    get_ok(&requests, "/").await;
}

#[tokio::test]
async fn active_requests_are_counted_until_both_halves_are_gone() {
    let (requests, _pair) = both(echo).await;
    assert_eq!(requests.active(), 0);
    let (send, recv) = within(requests.send(&get("/"), true)).await.unwrap();
    assert_eq!(requests.active(), 1);
    drop(send);
    assert_eq!(requests.active(), 1);
    drop(recv);
    assert_eq!(requests.active(), 0);
}

/// RFC 9114 §9: types of one's own are an extension, and who does not know one goes on.
#[tokio::test]
async fn messages_aside_pass_whole_in_both_directions_and_are_skipped_by_who_does_not_want_them() {
    const KIND: u64 = 0x3765_6674;
    const LIMIT: usize = 1000;
    let Pair { client, server, .. } = pair().await;
    let (_requests, at_client) = weft_h3::client(client.clone(), Config::default());
    let (_accept, at_server) = weft_h3::server(server.clone(), Config::default());
    let (at_client, mut to_client) = at_client.with_aside(KIND);
    tokio::spawn(at_client.run());
    let unaware = tokio::spawn(at_server.run());
    for (kind, len, wanted) in [(KIND, 0, true), (KIND + 1, 10, false), (KIND, LIMIT, true)] {
        let sent = within(weft_h3::send_aside(&server, kind, &bytes(len))).await;
        sent.unwrap();
        if wanted {
            let message = within(to_client.next(LIMIT)).await.unwrap();
            assert_eq!(message, bytes(len));
        }
    }
    // Too long: skipped, and what follows arrives.
    let (long, short) = (bytes(LIMIT + 1), bytes(1));
    let sending = async {
        let _ = weft_h3::send_aside(&server, KIND, &long).await;
        weft_h3::send_aside(&server, KIND, &short).await
    };
    let (sent, message) = within(async { tokio::join!(sending, to_client.next(LIMIT)) }).await;
    sent.unwrap();
    assert_eq!(message.unwrap(), short);
    let sent = within(weft_h3::send_aside(&client, KIND, b"hello")).await;
    sent.expect("the server did not ask for any, and goes on");
    assert!(!unaware.is_finished(), "the connection goes on");
}
