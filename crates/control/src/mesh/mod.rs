//! The mesh side: an endpoint for sidecars, and for those who want to become one.

mod paths;

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use http::{HeaderValue, Response, StatusCode, header};
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;
use weft_certs::{IdentitySource, PeerIdentity};
use weft_env::{BoxFuture, Env, Tasks};
use weft_transport::{
    Endpoint, Handler, KeyExchange, Pool, RecvStream, ResetKey, SendStream, ServerRequest,
    TransportConfig,
};
use weft_wire::MAX_BODY;

use crate::error::ControlError;
use crate::node::{Handshakes, Node, Refusals};
use crate::problem::Reject;
use crate::push::{Ending, Inlet, Messages, Outlet};
use paths::{
    Purpose, allowed, bundle, challenge, delegate, follow, greet, join, jwt, purpose, renew, report,
};

/// Time for a short request's body to arrive, and for its answer to be taken.
const SHORT: Duration = Duration::from_secs(10);

/// Where sidecars connect to.
pub(crate) struct Mesh {
    endpoint: Endpoint,
    /// Ends the sync streams, before the connections are drained.
    sessions: CancellationToken,
}

/// What is asked of a connection.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Wire {
    pub(crate) key_exchange: KeyExchange,
    /// Whether TCP is answered too, and dialled where UDP brings no answer.
    pub(crate) tcp_fallback: bool,
}

impl Mesh {
    /// Opens the endpoint; nobody is answered before [`serve`](Self::serve).
    pub(crate) async fn bind(
        env: &Env,
        tasks: &Tasks,
        addr: SocketAddr,
        identity: Arc<IdentitySource>,
        reset_key: ResetKey,
        wire: Wire,
    ) -> Result<Self, ControlError> {
        let mut config = TransportConfig::control(addr, identity);
        config.reset_key = Some(reset_key);
        config.key_exchange = wire.key_exchange;
        config.fallback = wire.tcp_fallback;
        let endpoint = Endpoint::bind(config, env, &tasks.child())
            .await
            .map_err(|error| ControlError::Transport(error.to_string()))?;
        Ok(Self {
            endpoint,
            sessions: tasks.token().child_token(),
        })
    }

    pub(crate) fn local_addr(&self) -> SocketAddr {
        self.endpoint.local_addr()
    }

    /// For a delegate, which dials its control node.
    pub(crate) fn pool(&self) -> Pool {
        self.endpoint.pool()
    }

    pub(crate) fn refusals(&self) -> Refusals {
        let endpoint = self.endpoint.clone();
        Arc::new(move || endpoint.refusals())
    }

    pub(crate) fn handshakes(&self) -> Handshakes {
        let endpoint = self.endpoint.clone();
        Arc::new(move || endpoint.handshakes())
    }

    pub(crate) fn serve(&self, node: Arc<Node>) {
        self.endpoint.serve(Arc::new(Control {
            node,
            sessions: self.sessions.clone(),
        }));
    }

    /// Ends the sync streams, so that sidecars look for another control node, and then the connections.
    pub(crate) async fn drain(&self, deadline: Duration) {
        self.sessions.cancel();
        self.endpoint.drain(deadline).await;
    }
}

struct Control {
    node: Arc<Node>,
    sessions: CancellationToken,
}

impl Handler for Control {
    fn handle(&self, request: ServerRequest) -> BoxFuture<'_, ()> {
        Box::pin(async move {
            let ServerRequest {
                peer,
                remote,
                request,
                mut send,
                recv,
                ..
            } = request;
            let purpose = purpose(request.method(), request.uri(), peer)
                .and_then(|purpose| allowed(&self.node, purpose));
            let answer = match purpose {
                Ok(Purpose::Join) => match read(recv).await {
                    Ok(body) => join(&self.node, &body, remote).await,
                    Err(reject) => Err(reject),
                },
                Ok(Purpose::Challenge) => match read(recv).await {
                    Ok(_) => challenge(&self.node, remote).await,
                    Err(reject) => Err(reject),
                },
                Ok(Purpose::Bundle) => match read(recv).await {
                    Ok(_) => bundle(&self.node),
                    Err(reject) => Err(reject),
                },
                Ok(Purpose::Renew(peer)) => match read(recv).await {
                    Ok(body) => renew(&self.node, &body, &peer, remote).await,
                    Err(reject) => Err(reject),
                },
                Ok(Purpose::Jwt(peer)) => match read(recv).await {
                    Ok(body) => jwt(&self.node, &body, &peer).await,
                    Err(reject) => Err(reject),
                },
                Ok(Purpose::Delegate(peer)) => match read(recv).await {
                    Ok(body) => delegate(&self.node, &body, peer.as_ref(), remote).await,
                    Err(reject) => Err(reject),
                },
                Ok(Purpose::Report(peer)) => match read(recv).await {
                    Ok(body) => report(&self.node, &body, &peer, remote).await,
                    Err(reject) => Err(reject),
                },
                Ok(Purpose::Follow(peer)) => match read(recv).await {
                    Ok(body) => follow(&self.node, &body, &peer).await,
                    Err(reject) => Err(reject),
                },
                Ok(Purpose::Sync(peer)) => return self.sync(peer, remote, send, recv).await,
                Err(reject) => Err(reject),
            };
            let reply = answer.map_or_else(|reject| refused(&reject), |body| (ok(), body));
            send_whole(&mut send, reply).await;
        })
    }
}

impl Control {
    async fn sync(
        &self,
        peer: PeerIdentity,
        remote: SocketAddr,
        mut send: SendStream,
        recv: RecvStream,
    ) {
        let mut messages = Messages::new(Incoming(recv));
        let attended = match greet(&self.node, &mut messages, &peer, remote).await {
            Ok(attended) => attended,
            Err(reject) => return send_whole(&mut send, refused(&reject)).await,
        };
        if let Err(error) = send.send_response(&ok()).await {
            tracing::debug!(%error, "a sync stream broke at its start");
            return;
        }
        let mut outlet = Outgoing(send);
        let ending = attended
            .attend(messages, &mut outlet, self.sessions.clone())
            .await;
        if !matches!(ending, Ending::Lost(_)) {
            let _ = timeout(SHORT, outlet.0.finish()).await;
        }
    }
}

struct Incoming(RecvStream);

impl Inlet for Incoming {
    async fn next(&mut self) -> Result<Option<Bytes>, String> {
        self.0.data().await.map_err(|error| error.to_string())
    }
}

struct Outgoing(SendStream);

impl Outlet for Outgoing {
    async fn send(&mut self, frame: Bytes) -> Result<(), String> {
        let sent = self.0.send_data(frame).await;
        sent.map_err(|error| error.to_string())
    }
}

/// A body of at most [`MAX_BODY`] bytes.
async fn read(mut recv: RecvStream) -> Result<Bytes, Reject> {
    let body = async {
        let mut body = BytesMut::new();
        loop {
            match recv.data().await {
                Ok(None) => return Ok(body.freeze()),
                Ok(Some(piece)) if body.len() + piece.len() > MAX_BODY => {
                    return Err(Reject::bad_request(
                        "too_large",
                        format!("the request has more than {MAX_BODY} bytes"),
                    ));
                }
                Ok(Some(piece)) => body.extend_from_slice(&piece),
                Err(error) => {
                    let message = format!("the request broke off: {error}");
                    return Err(Reject::bad_request("broken", message));
                }
            }
        }
    };
    timeout(SHORT, body).await.unwrap_or_else(|_| {
        Err(Reject::new(
            StatusCode::REQUEST_TIMEOUT,
            "timeout",
            "the request did not arrive in time",
        ))
    })
}

fn ok() -> Response<()> {
    let mut response = Response::new(());
    let json = HeaderValue::from_static("application/json");
    response.headers_mut().insert(header::CONTENT_TYPE, json);
    response
}

fn refused(reject: &Reject) -> (Response<()>, Vec<u8>) {
    let mut response = ok();
    *response.status_mut() = reject.status;
    if let Some(seconds) = reject.problem.retry_after_s {
        let after = HeaderValue::from(seconds);
        response.headers_mut().insert(header::RETRY_AFTER, after);
    }
    (response, reject.body())
}

async fn send_whole(send: &mut SendStream, (head, body): (Response<()>, Vec<u8>)) {
    let sent = timeout(SHORT, async {
        send.send_response_with(&head, Bytes::from(body), true)
            .await
    });
    match sent.await {
        Ok(Ok(())) => {}
        Ok(Err(error)) => tracing::debug!(%error, "an answer was not taken"),
        Err(_) => tracing::debug!("an answer was not taken in time"),
    }
}
