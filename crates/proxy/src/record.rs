//! What is known about one request or tunnel while it runs; counted and logged once, when it ends,
//! however it ends.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use http::{HeaderValue, Method, StatusCode, Uri};
use tokio::time::Instant;
use weft_telemetry::{
    AccessEntry, Edge, HttpExchange, Protocol, Side, TcpConnection, Telemetry, access,
};

use weft_transport::{Carrier, Exchange, Negotiated};

use crate::node::{Deadline, Face};
use crate::request_id;
use crate::respond::{Refusal, Speaker};

/// The record of one exchange. Dropping it writes it: a future that is cancelled because the caller left
/// is told like any other end.
#[derive(Debug)]
pub(crate) struct Record {
    telemetry: Telemetry,
    side: Side,
    node: Arc<str>,
    deadline: Deadline,
    protocol: Protocol,
    opened: bool,
    started: Instant,
    request_id: HeaderValue,
    method: Method,
    target: Uri,
    revision: u64,
    /// Where it is counted; none if the request named no service.
    pub(crate) edge: Option<Edge>,
    /// Canonical `service.namespace:port`.
    pub(crate) authority: Arc<str>,
    /// SPIFFE ID of the other end.
    pub(crate) peer: Arc<str>,
    /// What carries it in the mesh; none while nothing does.
    pub(crate) carrier: Option<Carrier>,
    /// What decided.
    pub(crate) rule: Arc<str>,
    pub(crate) attempts: u32,
    /// What the connection in use agreed on.
    pub(crate) negotiated: Negotiated,
    /// Body bytes towards the called. Shared with whoever sends them.
    pub(crate) sent: Arc<AtomicU64>,
    /// Body bytes towards the caller.
    pub(crate) received: AtomicU64,
    code: u16,
    reason: String,
    failed: bool,
    ended: bool,
}

/// What is known from the start.
pub(crate) struct Opening<'a> {
    pub(crate) telemetry: &'a Telemetry,
    pub(crate) face: &'a Face,
    pub(crate) protocol: Protocol,
    pub(crate) request_id: HeaderValue,
    pub(crate) method: Method,
    pub(crate) target: Uri,
    pub(crate) revision: u64,
}

impl Record {
    pub(crate) fn open(opening: Opening<'_>, none: &Arc<str>) -> Self {
        Self {
            telemetry: opening.telemetry.clone(),
            side: opening.face.side,
            node: Arc::clone(&opening.face.node),
            deadline: opening.face.deadline.clone(),
            opened: false,
            protocol: opening.protocol,
            started: Instant::now(),
            request_id: opening.request_id,
            method: opening.method,
            target: opening.target,
            revision: opening.revision,
            edge: None,
            authority: Arc::clone(none),
            peer: Arc::clone(none),
            carrier: None,
            rule: Arc::clone(none),
            attempts: 0,
            negotiated: Negotiated::default(),
            sent: Arc::new(AtomicU64::new(0)),
            received: AtomicU64::new(0),
            code: 0,
            reason: String::new(),
            failed: false,
            ended: false,
        }
    }

    /// When the request arrived.
    pub(crate) fn started(&self) -> Instant {
        self.started
    }

    /// The id that both sides log.
    pub(crate) fn request_id(&self) -> &str {
        request_id::text(&self.request_id)
    }

    /// Who speaks when weft answers this request by itself.
    pub(crate) fn speaker(&self) -> Speaker<'_> {
        Speaker {
            node: &self.node,
            side: self.side.as_str(),
            revision: self.revision,
            request_id: self.request_id(),
            tunnel: self.method == Method::CONNECT,
        }
    }

    /// A connection of the mesh took it, whatever comes of it there.
    pub(crate) fn carried(&mut self, exchange: &Exchange) {
        self.negotiated = exchange.negotiated;
        self.carrier = Some(exchange.recv.carrier());
    }

    /// A TCP connection begins.
    pub(crate) fn tcp_opened(&mut self) {
        if let Some(edge) = &self.edge {
            edge.tcp_opened();
            self.opened = true;
        }
    }

    /// Body bytes came from the called.
    pub(crate) fn took(&self, bytes: usize) {
        self.received.fetch_add(bytes as u64, Ordering::Relaxed);
    }

    /// An answer of the other end is passed on.
    pub(crate) fn answered(&mut self, status: StatusCode) {
        self.code = status.as_u16();
    }

    /// The answer is another node's own; its words. A refusal of its is none of the called.
    pub(crate) fn answered_for(&mut self, said: String) {
        self.failed = self.code >= 400;
        self.reason = said;
    }

    /// Weft answers by itself: counts the reason and keeps the sentence. Whatever the status, the called did not
    /// answer, and the caller did not get what it asked for: a failure of the edge.
    pub(crate) fn refused(&mut self, refusal: &Refusal) {
        self.code = self.speaker().status(refusal).as_u16();
        self.failed = true;
        self.reason.clone_from(&refusal.details);
        if let Some(rule) = &refusal.rule {
            self.rule = Arc::clone(rule);
        }
        self.telemetry.refused(self.side, refusal.fact.reason());
        // There is nothing to be broken off: the answer is one piece.
        self.ended = true;
    }

    /// It broke off after it had begun to be answered.
    pub(crate) fn broke_off(&mut self, reason: impl Into<String>) {
        self.failed = true;
        self.ended = true;
        self.reason = reason.into();
    }

    /// The caller took no more. Not a failure of the called.
    pub(crate) fn left(&mut self, how: String) {
        self.ended = true;
        self.reason = format!("the caller left: {how}");
    }

    /// It went to its proper end.
    pub(crate) fn ended(&mut self) {
        self.ended = true;
    }

    fn write(&self) {
        let duration = self.started.elapsed();
        let sent = self.sent.load(Ordering::Relaxed);
        let received = self.received.load(Ordering::Relaxed);
        match (&self.edge, self.protocol) {
            (Some(edge), Protocol::Http) => edge.http(HttpExchange {
                code: self.code,
                duration,
                request_bytes: sent,
                response_bytes: received,
                failed: self.failed,
            }),
            (Some(edge), Protocol::Tcp) => {
                if !self.opened {
                    // Refused: it counts as one that began and failed.
                    edge.tcp_opened();
                }
                edge.tcp_closed(TcpConnection {
                    duration,
                    sent_bytes: sent,
                    received_bytes: received,
                    failed: self.failed,
                });
            }
            (None, _) => {}
        }
        access(&AccessEntry {
            request_id: self.request_id(),
            side: self.side,
            protocol: self.protocol,
            transport: self.carrier.map_or("", Carrier::label),
            peer: &self.peer,
            authority: &self.authority,
            method: self.method.as_str(),
            path: self.target.path(),
            code: self.code,
            duration,
            sent_bytes: sent,
            received_bytes: received,
            key_exchange: self.negotiated.key_exchange,
            cipher: self.negotiated.cipher,
            attempts: self.attempts,
            rule: &self.rule,
            revision: self.revision,
            reason: &self.reason,
        });
    }
}

impl Drop for Record {
    fn drop(&mut self) {
        if !self.ended && self.reason.is_empty() {
            self.reason.push_str(if self.deadline.passed() {
                "broken off: this sidecar stopped, and the drain was over"
            } else {
                "broken off: the caller left"
            });
        }
        self.write();
    }
}
