//! The machine, but with a clock that can be wrong, or break, which stands for any fault in weft's own code.

use std::io;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, SystemTime};

use weft_env::{BoxFuture, Disk, Listener, Platform, Stream, SystemPlatform};

/// The machine. Whoever asks for the time once `broken` is set panics.
#[derive(Debug, Default)]
pub struct Faulty {
    inner: SystemPlatform,
    pub broken: AtomicBool,
    /// Seconds.
    pub ahead: AtomicU64,
}

impl Platform for Faulty {
    fn wall(&self) -> SystemTime {
        assert!(!self.broken.load(Ordering::SeqCst), "the clock is broken");
        self.inner.wall() + Duration::from_secs(self.ahead.load(Ordering::SeqCst))
    }
    fn seed(&self, purpose: &'static str) -> [u8; 32] {
        self.inner.seed(purpose)
    }
    fn connect(&self, addr: SocketAddr) -> BoxFuture<'_, io::Result<Stream>> {
        self.inner.connect(addr)
    }
    fn connect_unix(&self, path: PathBuf) -> BoxFuture<'_, io::Result<Stream>> {
        self.inner.connect_unix(path)
    }
    fn listen(&self, addr: SocketAddr) -> BoxFuture<'_, io::Result<Listener>> {
        self.inner.listen(addr)
    }
    fn listen_unix(&self, path: PathBuf) -> BoxFuture<'_, io::Result<Listener>> {
        self.inner.listen_unix(path)
    }
    fn bind_udp(&self, addr: SocketAddr) -> io::Result<Arc<dyn quinn::AsyncUdpSocket>> {
        self.inner.bind_udp(addr)
    }
    fn resolve(&self, host: String, port: u16) -> BoxFuture<'_, io::Result<Vec<SocketAddr>>> {
        self.inner.resolve(host, port)
    }
    fn quinn_runtime(&self) -> Arc<dyn quinn::Runtime> {
        self.inner.quinn_runtime()
    }
    fn disk(&self) -> Disk {
        self.inner.disk()
    }
    fn run_disk(&self, job: Box<dyn FnOnce() + Send>) -> BoxFuture<'_, ()> {
        self.inner.run_disk(job)
    }
}
