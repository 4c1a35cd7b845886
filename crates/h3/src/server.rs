//! The server's side of a connection.

use std::sync::Arc;

use http::{Request, Response, StatusCode};

use crate::asked::Asked;
use crate::core::Role;
use crate::driver::Driver;
use crate::recv::RecvStream;
use crate::send::SendStream;
use crate::shared::Shared;
use crate::{Blocked, Code, Config, Error, Standing};

/// Speaks HTTP/3 as a server on `conn`. The owner spawns [`Driver::run`] and calls [`Accept::accept`] in a
/// loop, with a task of its own for each request.
pub fn server(conn: quinn::Connection, config: Config) -> (Accept, Driver) {
    let shared = Shared::new(conn, config, Role::Server);
    let accept = Accept {
        shared: Arc::clone(&shared),
    };
    (accept, Driver::new(shared))
}

/// Takes the requests of one connection.
#[derive(Debug)]
pub struct Accept {
    shared: Arc<Shared>,
}

impl Accept {
    /// The next request stream; its header is not read yet. `None` after [`Shutdown::finish`]: requests
    /// that still arrive are rejected by the [`Driver`].
    ///
    /// # Errors
    /// The connection's end.
    pub async fn accept(&mut self) -> Result<Option<Pending>, Error> {
        loop {
            let accepted = tokio::select! {
                biased;
                () = self.shared.local_finished() => return Ok(None),
                accepted = self.shared.conn.accept_bi() => accepted,
            };
            let (send, recv) = accepted.map_err(|reason| self.shared.closed(reason, false))?;
            if let Some(pending) = admit(&self.shared, send, recv) {
                return Ok(Some(pending));
            }
        }
    }

    /// Requests under way.
    pub fn active(&self) -> usize {
        self.shared.active()
    }

    /// A handle that ends the connection gracefully.
    pub fn shutdown(&self) -> Shutdown {
        Shutdown {
            shared: Arc::clone(&self.shared),
        }
    }
}

/// Takes a stream in, or rejects it when our GOAWAY excludes it.
pub(crate) fn admit(
    shared: &Arc<Shared>,
    mut send: quinn::SendStream,
    mut recv: quinn::RecvStream,
) -> Option<Pending> {
    let id = send.id().into();
    if !shared.local().admit(id) {
        // RFC 9114 §5.2. They fail only when the stream is already gone.
        let _ = send.reset(Code::REQUEST_REJECTED.into());
        let _ = recv.stop(Code::REQUEST_REJECTED.into());
        return None;
    }
    let stream = shared.stream(id);
    Some(Pending {
        recv: RecvStream::new(recv, Arc::clone(&stream), Asked::Other),
        send: SendStream::pending(send, stream),
    })
}

/// A request stream whose header is still to be read, which may take as long as the client likes: do it in
/// the request's own task, with a deadline. Dropped, it is rejected as unprocessed.
#[derive(Debug)]
pub struct Pending {
    send: SendStream,
    recv: RecvStream,
}

impl Pending {
    /// Reads the request's header.
    ///
    /// # Errors
    /// [`Error::Malformed`]: the stream was reset. [`Error::TooLarge`]: 431 was sent. Also what the client
    /// did to the stream, and the connection's end. In no case is there anything left to answer.
    pub async fn head(mut self) -> Result<(Request<()>, SendStream, RecvStream), Error> {
        match self.recv.request().await {
            Ok(request) => {
                self.send
                    .accepted(request.method() == http::Method::CONNECT);
                Ok((request, self.send, self.recv))
            }
            Err(error @ Error::TooLarge { .. }) => {
                let mut answer = Response::new(());
                *answer.status_mut() = StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE;
                // When it cannot be sent, the drop resets the stream.
                let _ = self
                    .send
                    .send_response_with(&answer, bytes::Bytes::new(), true)
                    .await;
                Err(error)
            }
            Err(error) => Err(error),
        }
    }

    /// The QUIC stream's id.
    pub fn id(&self) -> u64 {
        self.send.id()
    }
}

/// Ends a server's connection in two steps (RFC 9114 §5.2), so that no request is lost: [`begin`], wait a
/// round trip, [`finish`], wait for [`drained`] or a deadline, close.
///
/// [`begin`]: Self::begin
/// [`finish`]: Self::finish
/// [`drained`]: Self::drained
#[derive(Debug, Clone)]
pub struct Shutdown {
    shared: Arc<Shared>,
}

impl Shutdown {
    /// First step: tells the client to send new requests elsewhere; those that it sends are still taken.
    pub fn begin(&self) {
        self.shared.local().begin();
        self.shared.local_changed.notify_waiters();
    }

    /// Second step: tells the client the first request that is not processed. Every request from it on is
    /// rejected as safe to retry, and [`Accept::accept`] ends.
    pub fn finish(&self) {
        self.shared.local().finish();
        self.shared.local_changed.notify_waiters();
    }

    /// Completes when no request is under way.
    pub async fn drained(&self) {
        self.shared.idle().await;
    }

    /// Requests under way: accepted, and one of their two halves still held by somebody.
    pub fn active(&self) -> usize {
        self.shared.active()
    }
    /// How long streams of this connection, of either side's opening, had to wait until they could send.
    pub fn blocked(&self) -> Blocked {
        self.shared.waits.seen()
    }

    /// Whether the peer has said that it takes parity ([`Config::parity`]).
    pub fn peer_takes_parity(&self) -> bool {
        self.shared.peer_settings().is_some_and(|s| s.parity)
    }

    /// How its readers stand.
    pub fn standing(&self) -> Standing {
        self.shared.credit.standing()
    }
}
