//! Against the `h3` crate, an implementation that is not ours, in both roles.

use bytes::{Buf, Bytes};
use http::{HeaderMap, Method, Request, Response};
use weft_h3::{Code, Config};

use crate::common::*;

type TheirRequests = h3::client::SendRequest<h3_quinn::OpenStreams, Bytes>;
type TheirStream = h3::server::RequestStream<h3_quinn::BidiStream<Bytes>, Bytes>;

/// h3's client on `conn`.
async fn their_client(conn: quinn::Connection) -> TheirRequests {
    let (mut driver, requests) = h3::client::builder()
        .send_grease(true)
        .build(h3_quinn::Connection::new(conn))
        .await
        .unwrap();
    tokio::spawn(async move { std::future::poll_fn(|cx| driver.poll_close(cx)).await });
    requests
}

/// h3's server on `conn`, echoing.
fn their_server(conn: quinn::Connection) {
    tokio::spawn(async move {
        let mut server: h3::server::Connection<_, Bytes> = h3::server::builder()
            .send_grease(true)
            .build(h3_quinn::Connection::new(conn))
            .await
            .unwrap();
        while let Ok(Some(resolver)) = server.accept().await {
            tokio::spawn(async move {
                let (request, stream) = resolver.resolve_request().await.unwrap();
                their_echo(request, stream).await;
            });
        }
    });
}

async fn their_echo(request: Request<()>, mut stream: TheirStream) {
    let response = Response::builder()
        .header("x-method", request.method().as_str())
        .header("x-path", request.uri().path())
        .header("x-seen", request.headers().len())
        .body(())
        .unwrap();
    stream.send_response(response).await.unwrap();
    while let Some(mut piece) = stream.recv_data().await.unwrap() {
        let piece = piece.copy_to_bytes(piece.remaining());
        stream.send_data(piece).await.unwrap();
    }
    if let Some(trailers) = stream.recv_trailers().await.unwrap() {
        stream.send_trailers(trailers).await.unwrap();
    }
    stream.finish().await.unwrap();
}

fn trailers() -> HeaderMap {
    let mut trailers = HeaderMap::new();
    trailers.insert("grpc-status", "0".parse().unwrap());
    trailers.insert("x-checksum", "cafe".parse().unwrap());
    trailers
}

/// A request of h3's client, its response, content and trailers.
async fn their_exchange(
    requests: &mut TheirRequests,
    request: Request<()>,
    body: Bytes,
) -> (Response<()>, Vec<u8>, Option<HeaderMap>) {
    let mut stream = requests.send_request(request).await.unwrap();
    if !body.is_empty() {
        stream.send_data(body).await.unwrap();
        stream.send_trailers(trailers()).await.unwrap();
    }
    stream.finish().await.unwrap();
    let response = stream.recv_response().await.unwrap();
    let mut back = Vec::new();
    while let Some(mut piece) = stream.recv_data().await.unwrap() {
        back.extend_from_slice(&piece.copy_to_bytes(piece.remaining()));
    }
    (response, back, stream.recv_trailers().await.unwrap())
}

#[tokio::test]
async fn their_client_gets_and_posts_to_our_server() {
    let pair = pair().await;
    serve(pair.server.clone(), Config::default(), echo);
    let mut client = within(their_client(pair.client.clone())).await;
    let mut plain = get("/get");
    plain.headers_mut().insert("cookie", "a=1".parse().unwrap());
    plain
        .headers_mut()
        .insert("x-custom", "Huffman-coded by h3: \"~\"".parse().unwrap());
    let (response, body, end) = within(their_exchange(&mut client, plain, Bytes::new())).await;
    assert_eq!(
        (response.status(), &response.headers()["x-path"]),
        (http::StatusCode::OK, &"/get".parse().unwrap())
    );
    assert!(body.is_empty() && end.is_none());

    let sent = bytes(20_000);
    let post = request(Method::POST, "/post");
    let (_, body, end) = within(their_exchange(&mut client, post, sent.clone())).await;
    assert_eq!(body, sent);
    assert_eq!(end, Some(trailers()));
}

#[tokio::test]
async fn our_client_gets_and_posts_to_their_server() {
    let pair = pair().await;
    their_server(pair.server.clone());
    let requests = requests(pair.client.clone());
    get_ok(&requests, "/get").await;
    let sent = bytes(200_000);
    let post = request(Method::POST, "/post");
    let (mut send, mut recv) = within(requests.send(&post, false)).await.unwrap();
    let sending = async {
        send.send_data(sent.clone()).await.unwrap();
        send.send_trailers(&trailers()).await.unwrap();
        send.finish().await.unwrap();
    };
    let receiving = async {
        let response = recv.response().await.unwrap();
        let body = read_all(&mut recv).await.unwrap();
        (response, body, recv.trailers().await.unwrap())
    };
    let ((), (response, body, end)) = within(async { tokio::join!(sending, receiving) }).await;
    assert_eq!(response.headers()["x-method"], "POST");
    assert_eq!(body, sent);
    assert_eq!(end, Some(trailers()));
}

#[tokio::test]
async fn thirty_two_of_their_requests_at_once() {
    let pair = pair().await;
    serve(pair.server.clone(), Config::default(), echo);
    let client = within(their_client(pair.client.clone())).await;
    let tasks: Vec<_> = (0..32)
        .map(|n| {
            let mut client = client.clone();
            tokio::spawn(async move {
                let path = format!("/{n}");
                let sent = bytes(n * 1000 + 1);
                let post = request(Method::POST, &path);
                let (response, body, _) =
                    within(their_exchange(&mut client, post, sent.clone())).await;
                assert_eq!(response.headers()["x-path"], path.as_str());
                assert_eq!(body, sent);
            })
        })
        .collect();
    for task in tasks {
        task.await.unwrap();
    }
}

#[tokio::test]
async fn thirty_two_of_our_requests_at_once() {
    let pair = pair().await;
    their_server(pair.server.clone());
    let requests = requests(pair.client.clone());
    let tasks: Vec<_> = (0..32)
        .map(|n| {
            let requests = requests.clone();
            tokio::spawn(async move {
                let sent = bytes(n * 1000 + 1);
                let post = request(Method::POST, &format!("/{n}"));
                let (_send, mut recv) = within(requests.send_with(&post, sent.clone(), true))
                    .await
                    .unwrap();
                let response = within(recv.response()).await.unwrap();
                assert_eq!(response.headers()["x-path"], format!("/{n}").as_str());
                assert_eq!(within(read_all(&mut recv)).await.unwrap(), sent);
            })
        })
        .collect();
    for task in tasks {
        task.await.unwrap();
    }
}

#[tokio::test]
async fn our_tunnel_passes_their_server() {
    let pair = pair().await;
    their_server(pair.server.clone());
    let requests = requests(pair.client.clone());
    let (mut send, mut recv) = within(requests.send(&connect(), false)).await.unwrap();
    let response = within(recv.response()).await.unwrap();
    assert_eq!(response.headers()["x-method"], "CONNECT");
    within(send.send_data(Bytes::from_static(b"ping")))
        .await
        .unwrap();
    assert_eq!(
        within(recv.data()).await.unwrap().as_deref(),
        Some(&b"ping"[..])
    );
    within(send.finish()).await.unwrap();
    assert_eq!(within(recv.data()).await.unwrap(), None);
}

/// h3's own CONNECT carries `:scheme` and `:path` (RFC 9114 §4.4 forbids both): refused, and only it.
#[tokio::test]
async fn their_malformed_connect_is_refused_and_neighbours_survive() {
    let pair = pair().await;
    serve(pair.server.clone(), Config::default(), echo);
    let mut client = within(their_client(pair.client.clone())).await;
    let mut stream = within(client.send_request(connect())).await.unwrap();
    let error = within(stream.recv_response()).await.unwrap_err();
    let text = format!("{error:?}");
    assert!(
        text.contains("MESSAGE") || text.contains(&Code::MESSAGE_ERROR.value().to_string()),
        "{text}"
    );
    let (response, _, _) = within(their_exchange(&mut client, get("/after"), Bytes::new())).await;
    assert_eq!(response.status(), 200);
}

/// A handler that drops its stream cost h3's client the whole connection when h3's server did it.
#[tokio::test]
async fn their_client_survives_our_dropped_handler() {
    let pair = pair().await;
    serve(
        pair.server.clone(),
        Config::default(),
        |request, send, recv| async move {
            if request.uri().path() == "/drop" {
                drop((send, recv));
            } else {
                echo(request, send, recv).await;
            }
        },
    );
    let mut client = within(their_client(pair.client.clone())).await;
    for _ in 0..10 {
        let mut stream = within(client.send_request(get("/drop"))).await.unwrap();
        within(stream.recv_response()).await.unwrap_err();
        let (response, _, _) =
            within(their_exchange(&mut client, get("/after"), Bytes::new())).await;
        assert_eq!(response.status(), 200);
    }
}
