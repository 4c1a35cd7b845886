//! The real world.

use std::ffi::OsString;
use std::fmt::Display;
use std::io;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use quinn::Runtime as _;
use rand::TryRng as _;
use tokio::net::{TcpListener, TcpStream};
use tokio::time::timeout;

use crate::platform::BoxFuture;
use crate::stream::ListenerKind;
use crate::{Disk, Listener, Platform, Stream, supervisor, udp, unix};

/// A resolver that answers later than this is as good as down.
const RESOLVE_TIMEOUT: Duration = Duration::from_secs(5);

/// The operating system's sockets, clock, randomness and files, on tokio.
#[derive(Clone, Debug, Default)]
pub struct SystemPlatform {
    wall_offset_s: i64,
    supervisor: Option<OsString>,
}

impl SystemPlatform {
    /// The platform of a real process.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Names the socket of the process manager (`NOTIFY_SOCKET` of `sd_notify(3)`), which is told how the process
    /// does.
    #[must_use]
    pub fn with_supervisor(mut self, socket: Option<OsString>) -> Self {
        self.supervisor = socket;
        self
    }

    /// Shifts the wall clock by so many seconds, as on a machine whose clock is wrong.
    #[must_use]
    pub fn with_wall_offset(mut self, seconds: i64) -> Self {
        self.wall_offset_s = seconds;
        self
    }
}

#[allow(
    clippy::disallowed_methods,
    reason = "the seam: Env is what others use instead"
)]
impl Platform for SystemPlatform {
    fn wall(&self) -> SystemTime {
        let now = SystemTime::now();
        let by = Duration::from_secs(self.wall_offset_s.unsigned_abs());
        let shifted = if self.wall_offset_s < 0 {
            now.checked_sub(by)
        } else {
            now.checked_add(by)
        };
        shifted.unwrap_or(now)
    }

    fn seed(&self, _purpose: &'static str) -> [u8; 32] {
        let mut seed = [0; 32];
        rand::rngs::SysRng
            .try_fill_bytes(&mut seed)
            .expect("getrandom(2) does not fail on a booted system");
        seed
    }

    fn connect(&self, addr: SocketAddr) -> BoxFuture<'_, io::Result<Stream>> {
        Box::pin(async move {
            let stream = TcpStream::connect(addr)
                .await
                .map_err(|e| named("connect to", addr, &e))?;
            stream.set_nodelay(true)?;
            Ok(Stream::Tcp(stream))
        })
    }

    fn connect_unix(&self, path: PathBuf) -> BoxFuture<'_, io::Result<Stream>> {
        Box::pin(async move { Ok(Stream::Unix(unix::connect(&path).await?)) })
    }

    fn listen(&self, addr: SocketAddr) -> BoxFuture<'_, io::Result<Listener>> {
        Box::pin(async move {
            let listener = TcpListener::bind(addr)
                .await
                .map_err(|e| named("listen on", addr, &e))?;
            Ok(Listener(ListenerKind::Tcp(listener)))
        })
    }

    fn listen_unix(&self, path: PathBuf) -> BoxFuture<'_, io::Result<Listener>> {
        Box::pin(async move { Ok(Listener(ListenerKind::Unix(unix::listen(path).await?))) })
    }

    fn bind_udp(&self, addr: SocketAddr) -> io::Result<Arc<dyn quinn::AsyncUdpSocket>> {
        udp::bind(addr)
            .and_then(|socket| quinn::TokioRuntime.wrap_udp_socket(socket))
            .map(|socket| Arc::new(udp::SplitBatches(socket)) as _)
            .map_err(|e| named("bind UDP", addr, &e))
    }

    fn resolve(&self, host: String, port: u16) -> BoxFuture<'_, io::Result<Vec<SocketAddr>>> {
        Box::pin(async move {
            let lookup = tokio::net::lookup_host((host.as_str(), port));
            let found: Vec<_> = match timeout(RESOLVE_TIMEOUT, lookup).await {
                Ok(result) => result.map_err(|e| named("resolve", &host, &e))?.collect(),
                Err(_) => {
                    let cause =
                        io::Error::new(io::ErrorKind::TimedOut, "no answer from the resolver");
                    return Err(named("resolve", &host, &cause));
                }
            };
            if found.is_empty() {
                let cause = io::Error::new(io::ErrorKind::NotFound, "the name has no address");
                return Err(named("resolve", &host, &cause));
            }
            Ok(found)
        })
    }

    fn quinn_runtime(&self) -> Arc<dyn quinn::Runtime> {
        Arc::new(quinn::TokioRuntime)
    }

    fn disk(&self) -> Disk {
        Disk::system()
    }

    fn run_disk(&self, job: Box<dyn FnOnce() + Send>) -> BoxFuture<'_, ()> {
        Box::pin(async move {
            // The job catches its own panics; an error here means that the runtime is going down.
            let _ = tokio::task::spawn_blocking(job).await;
        })
    }

    fn hands_over(&self) -> bool {
        true
    }

    fn tell_supervisor(&self, text: &str) {
        if let Some(socket) = &self.supervisor
            && let Err(error) = supervisor::tell(socket, text)
        {
            tracing::warn!(socket = %socket.display(), %error, text, "the process manager cannot be told");
        }
    }
}

pub(crate) fn named(what: &str, whom: impl Display, cause: &io::Error) -> io::Error {
    let reason = match cause.kind() {
        io::ErrorKind::AddrInUse => "address in use".to_owned(),
        io::ErrorKind::AddrNotAvailable => {
            "no interface of this machine has that address".to_owned()
        }
        io::ErrorKind::PermissionDenied => "permission denied".to_owned(),
        io::ErrorKind::ConnectionRefused => "connection refused".to_owned(),
        _ => cause.to_string(),
    };
    io::Error::new(cause.kind(), format!("cannot {what} {whom}: {reason}"))
}
