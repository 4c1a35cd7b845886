//! A connection that we dialled, whose peer is verified.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::Request;
use weft_certs::PeerIdentity;

use crate::lifetime::EndReason;
use crate::registry::{Flow, Link};
use crate::{
    Carrier, ConnectionStats, DialError, Negotiated, RecvStream, RequestError, SendStream,
    StreamError, tcp,
};

/// A connection to a verified peer. Clones are the same connection.
///
/// It ends by the endpoint's doing, not when the last clone is dropped, except for one that
/// [`join_connection`](crate::join_connection) made.
#[derive(Clone, Debug)]
pub struct Connection {
    inner: Arc<Inner>,
}

/// The requests of either kind of connection.
#[derive(Clone, Debug)]
pub(crate) enum Requests {
    Quic(weft_h3::Requests),
    Tcp(tcp::Requests),
}

impl Requests {
    /// Tells how many are under way.
    pub(crate) fn counter(&self) -> Box<dyn Fn() -> usize + Send + Sync> {
        match self.clone() {
            Self::Quic(requests) => Box::new(move || requests.active()),
            Self::Tcp(requests) => Box::new(move || requests.active()),
        }
    }

    /// Whether the connection has ended. Whoever met that end looks for another one at once, before the task that keeps
    /// this one has struck it off.
    fn is_lost(&self) -> bool {
        match self {
            Self::Quic(requests) => requests.is_lost(),
            Self::Tcp(requests) => requests.is_lost(),
        }
    }

    /// Tells how their streams stand.
    pub(crate) fn flow(&self) -> Box<dyn Fn() -> Flow + Send + Sync> {
        match self.clone() {
            Self::Quic(requests) => Box::new(move || Flow {
                blocked: requests.blocked(),
                standing: requests.standing(),
                takes_parity: requests.peer_takes_parity(),
            }),
            Self::Tcp(_) => Box::new(Flow::default),
        }
    }

    async fn send_with(
        &self,
        request: &Request<()>,
        content: Bytes,
        end: bool,
    ) -> Result<(SendStream, RecvStream), StreamError> {
        Ok(match self {
            Self::Quic(requests) => {
                let (send, recv) = requests.send_with(request, content, end).await?;
                (send.into(), recv.into())
            }
            Self::Tcp(requests) => {
                let (send, recv) = requests.send_with(request, content, end).await?;
                (send.into(), recv.into())
            }
        })
    }

    /// Completes when the peer says that it takes no new requests.
    pub(crate) async fn going_away(&self) {
        match self {
            Self::Quic(requests) => requests.going_away().await,
            Self::Tcp(requests) => requests.going_away().await,
        }
    }

    /// Completes when no request is under way.
    pub(crate) async fn drained(&self) {
        match self {
            Self::Quic(requests) => requests.drained().await,
            Self::Tcp(requests) => requests.drained().await,
        }
    }
}

#[derive(Debug)]
struct Inner {
    link: Arc<Link>,
    requests: Requests,
    /// Nobody but its holders looks after it.
    orphan: bool,
}

impl Drop for Inner {
    fn drop(&mut self) {
        if self.orphan {
            self.link.close(EndReason::Idle);
        }
    }
}

/// One request under way: our half of its stream and the peer's.
#[derive(Debug)]
pub struct Exchange {
    /// Carries the rest of the request.
    pub send: SendStream,
    /// Brings the response.
    pub recv: RecvStream,
    /// What the handshake of the connection agreed on.
    pub negotiated: Negotiated,
}

impl Connection {
    pub(crate) fn new(link: Arc<Link>, requests: Requests) -> Self {
        Self {
            inner: Arc::new(Inner {
                link,
                requests,
                orphan: false,
            }),
        }
    }

    /// One that is closed when its last clone goes.
    pub(crate) fn orphan(link: Arc<Link>, requests: Requests) -> Self {
        Self {
            inner: Arc::new(Inner {
                link,
                requests,
                orphan: true,
            }),
        }
    }

    /// Sends a request's header; the rest of it and its response are in the [`Exchange`]. Waits while the
    /// peer allows no further request.
    ///
    /// # Errors
    /// [`RequestError`]; safe to send elsewhere if [`RequestError::is_unprocessed`] says so.
    pub async fn request(&self, request: &Request<()>) -> Result<Exchange, RequestError> {
        self.request_with(request, Bytes::new(), false).await
    }

    /// As [`request`](Self::request), with the first piece of the body (may be empty) in the same write, and
    /// with `end` the end of the request.
    ///
    /// # Errors
    /// As [`request`](Self::request).
    pub async fn request_with(
        &self,
        request: &Request<()>,
        content: Bytes,
        end: bool,
    ) -> Result<Exchange, RequestError> {
        let Inner { link, requests, .. } = &*self.inner;
        // Held until the layer below counts the request: in no moment in between does the connection look idle.
        let _opening = link
            .load
            .begin()
            .ok_or_else(|| self.lost().unwrap_or(RequestError::Retired))?;
        match requests.send_with(request, content, end).await {
            Ok((send, recv)) => {
                link.load.count();
                Ok(Exchange {
                    send,
                    recv,
                    negotiated: link.negotiated,
                })
            }
            Err(error) if error.is_connection() => {
                Err(self.lost().unwrap_or(RequestError::Stream(error)))
            }
            Err(error) => Err(RequestError::Stream(error)),
        }
    }

    /// Why the peer ended the connection, if it never let us in.
    fn lost(&self) -> Option<RequestError> {
        self.rejection().map(RequestError::Dial)
    }

    /// Set when the peer refused our certificate, of which we hear only after the handshake.
    pub(crate) fn rejection(&self) -> Option<DialError> {
        self.inner.link.wire.rejection()
    }

    /// Completes when the connection takes no more requests: another one is due.
    pub async fn retired(&self) {
        self.inner.link.retired.cancelled().await;
    }

    /// Whether it takes no more requests.
    #[must_use]
    pub fn is_retired(&self) -> bool {
        self.inner.link.load.is_retired()
    }

    /// Whether new requests of an identity of this generation may use it.
    pub(crate) fn is_usable(&self, generation: u64) -> bool {
        self.inner.link.terms.generation == generation
            && !self.is_retired()
            && !self.inner.requests.is_lost()
    }

    pub(crate) fn id(&self) -> u64 {
        self.inner.link.id
    }

    pub(crate) fn link(&self) -> &Arc<Link> {
        &self.inner.link
    }

    pub(crate) fn requests(&self) -> &Requests {
        &self.inner.requests
    }

    /// The peer's address now.
    #[must_use]
    pub fn remote(&self) -> SocketAddr {
        self.inner.link.remote()
    }

    /// What carries it.
    #[must_use]
    pub fn carrier(&self) -> Carrier {
        self.inner.link.wire.carrier()
    }

    /// The smoothed round-trip time of its path.
    #[must_use]
    pub fn rtt(&self) -> Duration {
        self.inner.link.wire.rtt()
    }

    /// Who is at the other end.
    #[must_use]
    pub fn peer(&self) -> Option<&PeerIdentity> {
        self.inner.link.peer.as_ref()
    }

    /// What is known of it now.
    #[must_use]
    pub fn stats(&self) -> ConnectionStats {
        self.inner.link.stats()
    }
}
