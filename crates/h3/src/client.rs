//! The client's side of a connection.

use std::pin::pin;
use std::sync::Arc;

use bytes::Bytes;
use http::{Method, Request};

use crate::asked::Asked;
use crate::core::{Role, outgoing};
use crate::driver::Driver;
use crate::recv::RecvStream;
use crate::send::SendStream;
use crate::shared::Shared;
use crate::{Blocked, Config, Error, Protocol, Standing};

/// Speaks HTTP/3 as a client on `conn`. The owner spawns [`Driver::run`]; requests may be sent at once.
pub fn client(conn: quinn::Connection, config: Config) -> (Requests, Driver) {
    let shared = Shared::new(conn, config, Role::Client);
    let requests = Requests {
        shared: Arc::clone(&shared),
    };
    (requests, Driver::new(shared))
}

/// Sends requests on one connection. Cheap to clone; all clones are equal.
///
/// Requests are independent of each other: one that is slow, cancelled or malformed takes nothing from its
/// neighbours, and no queue of ours stands between a stream and QUIC.
#[derive(Debug, Clone)]
pub struct Requests {
    shared: Arc<Shared>,
}

impl Requests {
    /// Sends a request header, and with `end` also the end of the request. Returns when QUIC has taken it
    /// over; waits while the peer allows no further stream.
    ///
    /// CONNECT needs only an authority with a port in its URI; with a [`Protocol`] among its extensions it is
    /// an extended CONNECT, needs a whole URI, and waits for the server's SETTINGS. For other methods the URI's scheme is
    /// `https` when it has none, and the `Host` field stands in for a missing authority.
    ///
    /// # Errors
    /// [`Error::GoingAway`] when the peer takes no new requests, [`Error::Unsendable`] and
    /// [`Error::HeaderTooBig`] for a header that may not be sent, [`Error::NotOffered`] for an extended
    /// CONNECT to a server that does not take any, and the connection's end. The request is
    /// safe to send elsewhere when [`Error::is_unprocessed`] says so.
    pub async fn send(
        &self,
        request: &Request<()>,
        end: bool,
    ) -> Result<(SendStream, RecvStream), Error> {
        self.send_with(request, Bytes::new(), end).await
    }

    /// Whether the connection has ended, as far as any of its requests has met that end: others would meet it, too.
    pub fn is_lost(&self) -> bool {
        self.shared.is_lost()
    }

    /// As [`send`](Self::send), with the first piece of content (may be empty) in the same write. The
    /// content is not copied.
    ///
    /// # Errors
    /// As [`send`](Self::send).
    pub async fn send_with(
        &self,
        request: &Request<()>,
        content: Bytes,
        end: bool,
    ) -> Result<(SendStream, RecvStream), Error> {
        let shared = &self.shared;
        if shared.is_peer_going_away() {
            return Err(Error::GoingAway);
        }
        let protocol = request.extensions().get::<Protocol>();
        // RFC 9220 §3: not before the server has said that it takes it.
        if protocol.is_some() && !shared.settled().await?.enable_connect_protocol {
            let what = "extended CONNECT";
            return Err(Error::NotOffered { what });
        }
        let mut head = outgoing::request(request, shared.peer_limit())?;
        if !content.is_empty() {
            outgoing::data_head(content.len(), &mut head);
        }
        let opening = pin!(shared.conn.open_bi());
        let opened = tokio::select! {
            biased;
            opened = shared.waits.watch(opening) => opened,
            // A peer that is leaving gives no more streams: do not wait for them.
            () = shared.peer_going_away() => return Err(Error::GoingAway),
        };
        let (send, recv) = opened.map_err(|reason| shared.closed(reason, true))?;
        let stream = shared.stream(send.id().into());
        stream.set_protocol(protocol);
        stream.said.request(request.headers());
        let tunnel = request.method() == Method::CONNECT;
        let recv = RecvStream::new(recv, Arc::clone(&stream), Asked::from(request.method()));
        let mut send = SendStream::request(send, stream, [head.into(), content], tunnel);
        match send.flush().await {
            Ok(()) if end => send.finish().await?,
            Ok(()) => {}
            // The response says why, and is there or on its way (RFC 9114 §4.1).
            Err(Error::Stopped { code }) if code.is_no_error() => {}
            Err(error) => return Err(error),
        }
        Ok((send, recv))
    }

    /// Whether the peer has said that it takes no new requests: open another connection.
    pub fn is_going_away(&self) -> bool {
        self.shared.is_peer_going_away()
    }

    /// Completes when the peer says that it takes no new requests. Never, if it does not.
    pub async fn going_away(&self) {
        self.shared.peer_going_away().await;
    }

    /// Completes when no request is under way.
    pub async fn drained(&self) {
        self.shared.idle().await;
    }

    /// Requests under way: sent, and one of their two halves still held by somebody.
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
