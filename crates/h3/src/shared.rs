//! What the streams of one connection share, and what the two halves of one stream share.

use std::future::Future;
use std::pin::pin;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};

use quinn::ConnectionError;
use tokio::sync::Notify;

use crate::blocked::Waits;
use crate::core::settings::Settings;
use crate::core::{Fault, Role, goaway};
use crate::credit::{Credit, Meter};
use crate::datagrams::{Channel, Channels};
use crate::priority::{Early, Said};
use crate::turns::Turns;
use crate::{Code, Config, Error, Protocol};

/// Stands for "none" where an id or a code is kept; neither ever has this value.
const NONE: u64 = u64::MAX;

/// State of one connection.
#[derive(Debug)]
pub(crate) struct Shared {
    pub(crate) conn: quinn::Connection,
    pub(crate) config: Config,
    pub(crate) role: Role,
    peer_settings: OnceLock<Settings>,
    peer_settings_seen: Notify,
    settings_sent: AtomicBool,
    /// `None` when datagrams are switched off.
    pub(crate) channels: Option<Channels>,
    peer_goaway: AtomicU64,
    peer_goaway_seen: Notify,
    local: Mutex<goaway::Local>,
    pub(crate) local_changed: Notify,
    active: AtomicUsize,
    /// Requests that ever were.
    requests: AtomicU64,
    idle: Notify,
    pub(crate) waits: Waits,
    pub(crate) credit: Credit,
    pub(crate) early: Early,
    pub(crate) turns: Turns,
    fault: OnceLock<(Code, &'static str)>,
    /// Set once anybody has met the connection's end.
    lost: AtomicBool,
}

impl Shared {
    pub(crate) fn new(conn: quinn::Connection, config: Config, role: Role) -> Arc<Self> {
        Arc::new(Self {
            conn,
            config,
            role,
            peer_settings: OnceLock::new(),
            peer_settings_seen: Notify::new(),
            settings_sent: AtomicBool::new(false),
            channels: Channels::new(config.datagram_buffer),
            peer_goaway: AtomicU64::new(NONE),
            peer_goaway_seen: Notify::new(),
            local: Mutex::new(goaway::Local::default()),
            local_changed: Notify::new(),
            active: AtomicUsize::new(0),
            requests: AtomicU64::new(0),
            idle: Notify::new(),
            waits: Waits::default(),
            credit: Credit::new(config.windows),
            early: Early::default(),
            turns: Turns::default(),
            fault: OnceLock::new(),
            lost: AtomicBool::new(false),
        })
    }

    /// Closes the connection because of what the peer did.
    pub(crate) fn fail(&self, code: Code, reason: &'static str) -> Error {
        if self.fault.set((code, reason)).is_ok() {
            tracing::debug!(%code, reason, peer = %self.conn.remote_address(), "closing the HTTP/3 connection");
            self.close(code, reason);
        }
        Error::Protocol { code, reason }
    }

    /// Closes the connection, unless it has ended: quinn would forget why.
    pub(crate) fn close(&self, code: Code, reason: &'static str) {
        if self.conn.close_reason().is_none() {
            self.conn.close(code.into(), reason.as_bytes());
        }
    }

    /// The error of a connection that ended: our own reason, when we closed it.
    pub(crate) fn closed(&self, reason: ConnectionError, unprocessed: bool) -> Error {
        self.lost.store(true, Ordering::Release);
        let unprocessed =
            unprocessed || is_handshake_refused(self.role, &reason, self.peer_settings().is_some());
        match self.fault.get() {
            Some((code, reason)) if !unprocessed => Error::Protocol {
                code: *code,
                reason,
            },
            _ => Error::ConnectionClosed {
                reason,
                unprocessed,
            },
        }
    }

    /// Whether anybody has met the connection's end.
    pub(crate) fn is_lost(&self) -> bool {
        self.lost.load(Ordering::Acquire)
    }

    /// The peer's SETTINGS, once they have arrived.
    pub(crate) fn peer_settings(&self) -> Option<&Settings> {
        self.peer_settings.get()
    }

    pub(crate) fn set_peer_settings(&self, settings: Settings) {
        // A second SETTINGS frame is an error of the connection: it does not come this far.
        let _ = self.peer_settings.set(settings);
        self.peer_settings_seen.notify_waiters();
    }

    /// Waits for the peer's SETTINGS.
    pub(crate) async fn settled(&self) -> Result<&Settings, Error> {
        tokio::select! {
            biased;
            settings = changed(&self.peer_settings_seen, || self.peer_settings()) => Ok(settings),
            reason = self.conn.closed() => Err(self.closed(reason, true)),
        }
    }

    /// Largest field section that the peer takes; no limit until its SETTINGS arrive.
    pub(crate) fn peer_limit(&self) -> u64 {
        let settings = self.peer_settings();
        settings.map_or(u64::MAX, |s| s.max_field_section_size)
    }

    pub(crate) fn set_settings_sent(&self) {
        self.settings_sent.store(true, Ordering::Release);
    }

    pub(crate) fn is_settings_sent(&self) -> bool {
        self.settings_sent.load(Ordering::Acquire)
    }

    /// The peer's GOAWAY: requests from this id on are not processed.
    pub(crate) fn set_peer_goaway(&self, id: u64) {
        self.peer_goaway.fetch_min(id, Ordering::AcqRel);
        self.peer_goaway_seen.notify_waiters();
    }

    pub(crate) fn is_peer_going_away(&self) -> bool {
        self.peer_goaway.load(Ordering::Acquire) != NONE
    }

    /// Whether the peer said that it does not process the request on stream `id`.
    pub(crate) fn is_unprocessed(&self, id: u64) -> bool {
        self.role == Role::Client && id >= self.peer_goaway.load(Ordering::Acquire)
    }

    /// Completes when the peer has sent a GOAWAY.
    pub(crate) async fn peer_going_away(&self) {
        until(&self.peer_goaway_seen, || self.is_peer_going_away()).await;
    }

    /// Our own GOAWAY. The lock is held for the few lines of a caller, never across an await.
    pub(crate) fn local(&self) -> MutexGuard<'_, goaway::Local> {
        self.local.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Completes when new requests are refused.
    pub(crate) async fn local_finished(&self) {
        until(&self.local_changed, || self.local().is_finished()).await;
    }

    /// Requests under way.
    pub(crate) fn active(&self) -> usize {
        self.active.load(Ordering::Acquire)
    }

    /// A number that changes when requests come, and when streams are sent on that the peer gives credit for.
    pub(crate) fn work(&self) -> u64 {
        let requests = self.requests.load(Ordering::Relaxed);
        requests.wrapping_add(self.credit.work())
    }

    /// Completes when no request is under way.
    pub(crate) async fn idle(&self) {
        until(&self.idle, || self.active() == 0).await;
    }

    /// The peer's QUIC stream, as one request.
    pub(crate) fn stream(self: &Arc<Self>, id: u64) -> Arc<Stream> {
        self.active.fetch_add(1, Ordering::AcqRel);
        self.requests.fetch_add(1, Ordering::Relaxed);
        let stream = Arc::new(Stream {
            shared: Arc::clone(self),
            id,
            abort: AtomicU64::new(NONE),
            datagrams: self.channels.as_ref().map(|c| c.open(id)),
            meter: Meter::new(&self.credit),
            said: Said::default(),
        });
        self.credit.opened(&stream);
        if self.role == Role::Server {
            self.early.take(id, &stream.said);
        }
        stream
    }
}

/// Whether the server ended the connection by a TLS alert before it said anything in HTTP/3. In TLS 1.3 a
/// client has finished the handshake before the server looks at its certificate (RFC 8446 §4.4.2), and a
/// server processes nothing before that (RFC 9001 §5.7).
fn is_handshake_refused(role: Role, reason: &ConnectionError, settled: bool) -> bool {
    // RFC 9000 §20.1: CRYPTO_ERROR.
    const ALERTS: std::ops::RangeInclusive<u64> = 0x100..=0x1ff;
    let ConnectionError::ConnectionClosed(close) = reason else {
        return false;
    };
    role == Role::Client && !settled && ALERTS.contains(&u64::from(close.error_code))
}

/// Waits until `done`, which changes only before `notify` is notified.
async fn until(notify: &Notify, done: impl Fn() -> bool) {
    changed(notify, || done().then_some(())).await;
}

/// Waits until there is a value, which comes only before `notify` is notified.
pub(crate) async fn changed<T>(notify: &Notify, value: impl Fn() -> Option<T>) -> T {
    loop {
        let mut notified = pin!(notify.notified());
        notified.as_mut().enable();
        if let Some(value) = value() {
            return value;
        }
        notified.await;
    }
}

/// State of one request, held by both halves of its stream.
#[derive(Debug)]
pub(crate) struct Stream {
    pub(crate) shared: Arc<Shared>,
    pub(crate) id: u64,
    /// The code with which the receiving half found the message at fault: the sending half goes with it.
    abort: AtomicU64,
    /// Where its datagrams wait; `None` when they are switched off.
    pub(crate) datagrams: Option<Arc<Channel>>,
    pub(crate) meter: Meter,
    pub(crate) said: Said,
}

impl Stream {
    /// The request's header is known: which protocol it names, if any.
    pub(crate) fn set_protocol(&self, protocol: Option<&Protocol>) {
        if let Some(channel) = &self.datagrams {
            channel.set_meaning(protocol.is_some_and(Protocol::may_have_datagrams));
        }
    }

    /// The error for a fault in the peer's bytes; closes the connection when it reaches that far.
    pub(crate) fn fail(&self, fault: Fault) -> Error {
        match fault {
            Fault::Connection { code, reason } => self.shared.fail(code, reason),
            Fault::Stream { code, rule } => {
                self.abort.store(code.value(), Ordering::Release);
                Error::Malformed { code, rule }
            }
            Fault::TooLarge => {
                self.abort
                    .store(Code::EXCESSIVE_LOAD.value(), Ordering::Release);
                Error::TooLarge {
                    limit: self.shared.config.max_field_section_size,
                    fields: self.shared.config.max_fields,
                }
            }
        }
    }

    /// What to reset the sending half with when nobody says anything else.
    pub(crate) fn abort_code(&self) -> Option<Code> {
        match self.abort.load(Ordering::Acquire) {
            NONE => None,
            code => Some(Code::new(code)),
        }
    }

    /// The error for a stream that the peer reset.
    pub(crate) fn peer_reset(&self, code: Code) -> Error {
        let rejected = code == Code::REQUEST_REJECTED && self.shared.role == Role::Client;
        Error::PeerReset {
            code,
            unprocessed: rejected || self.shared.is_unprocessed(self.id),
        }
    }

    /// The error for a stream whose connection ended.
    pub(crate) fn closed(&self, reason: ConnectionError) -> Error {
        let unprocessed = self.shared.is_unprocessed(self.id);
        self.shared.closed(reason, unprocessed)
    }
}

impl Drop for Stream {
    fn drop(&mut self) {
        self.meter.empty(&self.shared.credit);
        self.shared.credit.closed(self.id);
        if let Some(channels) = &self.shared.channels {
            channels.close(self.id);
        }
        if self.shared.active.fetch_sub(1, Ordering::AcqRel) == 1 {
            self.shared.idle.notify_waiters();
        }
    }
}

/// What [`SendStream::stopped`](crate::SendStream::stopped) gives, apart from the stream's borrow.
pub(crate) fn stopped(
    stream: Arc<Stream>,
    inner: &quinn::SendStream,
) -> impl Future<Output = Result<Option<Code>, Error>> + Send + use<> {
    let stopped = inner.stopped();
    async move {
        match stopped.await {
            Ok(code) => Ok(code.map(Code::from)),
            Err(quinn::StoppedError::ConnectionLost(reason)) => Err(stream.closed(reason)),
            Err(quinn::StoppedError::ZeroRttRejected) => Err(Error::GoingAway),
        }
    }
}

#[cfg(test)]
mod tests {
    use quinn::{ConnectionClose, TransportErrorCode};

    use super::*;

    #[test]
    fn only_a_tls_alert_before_the_servers_settings_means_unprocessed() {
        let closed = |error_code| {
            ConnectionError::ConnectionClosed(ConnectionClose {
                error_code,
                frame_type: None,
                reason: bytes::Bytes::new(),
            })
        };
        let certificate_required = closed(TransportErrorCode::crypto(116));
        let internal = closed(TransportErrorCode::INTERNAL_ERROR);
        let timeout = ConnectionError::TimedOut;
        for (role, reason, settled, expected) in [
            (Role::Client, &certificate_required, false, true),
            (Role::Client, &certificate_required, true, false),
            (Role::Server, &certificate_required, false, false),
            (Role::Client, &internal, false, false),
            (Role::Client, &timeout, false, false),
        ] {
            let got = is_handshake_refused(role, reason, settled);
            assert_eq!(got, expected, "{role:?}, {reason}, settled: {settled}");
        }
    }
}
