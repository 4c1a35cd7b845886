//! One TCP connection as the endpoint knows it: its counters, and the means to end it.

use std::io::{self, IoSlice};
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, OnceLock};
use std::task::{Context, Poll};
use std::time::Duration;

use rustls::AlertDescription;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;

use super::dial::alert_in;
use crate::Negotiated;

/// The state that a connection's streams, its driver and its [`Link`](crate::registry::Link) share.
#[derive(Debug)]
pub(crate) struct TcpWire {
    remote: SocketAddr,
    negotiated: OnceLock<Negotiated>,
    local: Option<SocketAddr>,
    /// Cancelled to end the connection now.
    cut: CancellationToken,
    /// Cancelled when it has ended.
    closed: CancellationToken,
    /// Why it ended; the first reason wins.
    lost: OnceLock<String>,
    /// The TLS alert that the peer ended it with.
    alert: OnceLock<AlertDescription>,
    /// Cancelled when the peer takes no new requests.
    going_away: CancellationToken,
    sent: AtomicU64,
    received: AtomicU64,
    rtt_us: AtomicU64,
    active: AtomicUsize,
    /// Requests that were given up before their answer was whole.
    abandoned: AtomicU64,
    idle: Notify,
}

impl TcpWire {
    pub(super) fn new(remote: SocketAddr, local: Option<SocketAddr>) -> Arc<Self> {
        Arc::new(Self {
            remote,
            negotiated: OnceLock::new(),
            local,
            cut: CancellationToken::new(),
            closed: CancellationToken::new(),
            lost: OnceLock::new(),
            alert: OnceLock::new(),
            going_away: CancellationToken::new(),
            sent: AtomicU64::new(0),
            received: AtomicU64::new(0),
            rtt_us: AtomicU64::new(0),
            active: AtomicUsize::new(0),
            abandoned: AtomicU64::new(0),
            idle: Notify::new(),
        })
    }

    /// The TLS handshake is done.
    pub(super) fn agreed(&self, tls: &rustls::CommonState) {
        let _ = self.negotiated.set(Negotiated::of(tls));
    }

    /// What it agreed on.
    pub(crate) fn negotiated(&self) -> Negotiated {
        self.negotiated.get().copied().unwrap_or_default()
    }

    pub(crate) fn remote(&self) -> SocketAddr {
        self.remote
    }

    /// The address that an accepted one was dialled at.
    pub(super) fn local(&self) -> Option<SocketAddr> {
        self.local
    }

    /// Ends it, whatever is under way.
    pub(crate) fn close(&self, reason: &str) {
        let _ = self.lost.set(reason.to_owned());
        self.cut.cancel();
    }

    /// Completes when it is to end now.
    pub(super) async fn cut(&self) {
        self.cut.cancelled().await;
    }

    /// It has ended.
    pub(super) fn ended(&self, reason: String) {
        let _ = self.lost.set(reason);
        self.going_away.cancel();
        self.closed.cancel();
    }

    pub(super) fn lost(&self) -> Option<String> {
        self.lost.get().cloned()
    }

    pub(crate) fn is_closed(&self) -> bool {
        self.closed.is_cancelled()
    }

    /// Completes when it has ended.
    pub(crate) async fn closed(&self) {
        self.closed.cancelled().await;
    }

    /// Keeps what the peer said in TLS: above it only a text is left.
    pub(super) fn broke(&self, error: &io::Error) {
        if let Some(alert) = alert_in(error) {
            let _ = self.alert.set(alert);
        }
    }

    pub(super) fn alert(&self) -> Option<AlertDescription> {
        self.alert.get().copied()
    }

    pub(super) fn abandon(&self) {
        self.abandoned.fetch_add(1, Ordering::Relaxed);
    }

    pub(super) fn abandoned(&self) -> u64 {
        self.abandoned.load(Ordering::Relaxed)
    }

    pub(super) fn goes_away(&self) {
        self.going_away.cancel();
    }

    pub(super) fn is_going_away(&self) -> bool {
        self.going_away.is_cancelled()
    }

    pub(super) async fn going_away(&self) {
        self.going_away.cancelled().await;
    }

    /// The smoothed round-trip time; zero until it was measured.
    pub(crate) fn rtt(&self) -> Duration {
        Duration::from_micros(self.rtt_us.load(Ordering::Relaxed))
    }

    /// Takes a sample in, as RFC 6298 §2 smooths it.
    pub(super) fn measured(&self, sample: Duration) {
        let sample = u64::try_from(sample.as_micros()).unwrap_or(u64::MAX).max(1);
        let smoothed = match self.rtt_us.load(Ordering::Relaxed) {
            0 => sample,
            before => before - before / 8 + sample / 8,
        };
        self.rtt_us.store(smoothed, Ordering::Relaxed);
    }

    /// Bytes of HTTP/2 sent.
    pub(crate) fn sent(&self) -> u64 {
        self.sent.load(Ordering::Relaxed)
    }

    /// Bytes of HTTP/2 received.
    pub(crate) fn received(&self) -> u64 {
        self.received.load(Ordering::Relaxed)
    }

    /// Requests under way.
    pub(crate) fn active(&self) -> usize {
        self.active.load(Ordering::Acquire)
    }

    pub(super) fn begin(&self) {
        self.active.fetch_add(1, Ordering::AcqRel);
    }

    pub(super) fn end(&self) {
        if self.active.fetch_sub(1, Ordering::AcqRel) == 1 {
            self.idle.notify_waiters();
        }
    }

    /// Completes when no request is under way.
    pub(super) async fn drained(&self) {
        loop {
            let mut idle = std::pin::pin!(self.idle.notified());
            idle.as_mut().enable();
            if self.active() == 0 {
                return;
            }
            idle.await;
        }
    }
}

/// A byte stream whose bytes are counted on its wire.
#[derive(Debug)]
pub(super) struct Counted<S> {
    inner: S,
    wire: Arc<TcpWire>,
}

impl<S> Counted<S> {
    pub(super) fn new(inner: S, wire: Arc<TcpWire>) -> Self {
        Self { inner, wire }
    }

    fn wrote(&self, poll: Poll<io::Result<usize>>) -> Poll<io::Result<usize>> {
        if let Poll::Ready(Ok(count)) = &poll {
            self.wire.sent.fetch_add(*count as u64, Ordering::Relaxed);
        }
        poll
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Counted<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = buf.filled().len();
        let poll = Pin::new(&mut self.inner).poll_read(cx, buf);
        let read = (buf.filled().len() - before) as u64;
        self.wire.received.fetch_add(read, Ordering::Relaxed);
        if let Poll::Ready(Err(error)) = &poll {
            self.wire.broke(error);
        }
        poll
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Counted<S> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        let poll = Pin::new(&mut self.inner).poll_write(cx, buf);
        self.wrote(poll)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let poll = Pin::new(&mut self.inner).poll_write_vectored(cx, bufs);
        self.wrote(poll)
    }

    fn is_write_vectored(&self) -> bool {
        self.inner.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_shutdown(cx)
    }
}
