//! The handle that everything else holds.

use std::future::Future;
use std::io;
use std::net::SocketAddr;
use std::os::fd::OwnedFd;
use std::panic::Location;
use std::path::{Path, PathBuf};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};
use std::time::SystemTime;

use tokio::sync::oneshot;
use tokio::task::JoinHandle;

use crate::platform::{BoxFuture, TaskGate};
use crate::{
    Channel, ChannelListener, Disk, Listener, Platform, Rng, SharedUdp, Stream, SystemPlatform,
    handed, system, udp,
};

/// One node's access to the world. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Env {
    platform: Arc<dyn Platform>,
}

impl Env {
    /// The real world: sockets, clock, randomness and files of the operating system.
    #[must_use]
    pub fn system() -> Self {
        Self::new(Arc::new(SystemPlatform::new()))
    }

    /// A node on another platform, such as a simulator's.
    #[must_use]
    pub fn new(platform: Arc<dyn Platform>) -> Self {
        Self { platform }
    }

    /// The wall clock of this node: for certificate times, logs and records. Durations are measured with
    /// [`tokio::time::Instant`].
    #[must_use]
    pub fn wall(&self) -> SystemTime {
        self.platform.wall()
    }

    /// [`Env::wall`] as a function, in the form that `weft_certs` takes.
    #[must_use]
    pub fn clock(&self) -> Arc<dyn Fn() -> SystemTime + Send + Sync> {
        let env = self.clone();
        Arc::new(move || env.wall())
    }

    /// A stream of cryptographically secure random numbers for one purpose. Each purpose has its own
    /// stream, so that one more draw here changes nothing there when a run is repeated from a seed.
    #[must_use]
    pub fn rng(&self, purpose: &'static str) -> Rng {
        Rng::from_seed(self.platform.seed(purpose))
    }

    /// Opens a TCP connection with `TCP_NODELAY` set. It waits as long as the operating system does:
    /// callers put their own timeout around it.
    ///
    /// # Errors
    /// Names the address and the cause; the [`io::ErrorKind`] is that of the cause.
    pub async fn connect(&self, addr: SocketAddr) -> io::Result<Stream> {
        self.platform.connect(addr).await
    }

    /// Opens a connection to a Unix socket.
    ///
    /// # Errors
    /// Names the path and the cause.
    pub async fn connect_unix(&self, path: &Path) -> io::Result<Stream> {
        self.platform.connect_unix(path.to_owned()).await
    }

    /// Listens on a TCP address; port 0 lets the system choose.
    ///
    /// # Errors
    /// Names the address and the cause, such as "address in use".
    pub async fn listen(&self, addr: SocketAddr) -> io::Result<Listener> {
        self.platform.listen(addr).await
    }

    /// Listens on a Unix socket with mode 0600. A socket file that a dead process left is replaced; one
    /// that somebody listens on is not.
    ///
    /// # Errors
    /// [`io::ErrorKind::AddrInUse`] when another process listens there; else names the path and the cause.
    pub async fn listen_unix(&self, path: &Path) -> io::Result<Listener> {
        self.platform.listen_unix(path.to_owned()).await
    }

    /// Binds the UDP socket of a QUIC endpoint, with 4 MiB buffers asked of the kernel; `[::]` takes
    /// IPv4 too.
    ///
    /// # Errors
    /// Names the address and the cause, such as "address in use".
    pub fn bind_udp(&self, addr: SocketAddr) -> io::Result<Arc<dyn quinn::AsyncUdpSocket>> {
        self.platform.bind_udp(addr)
    }

    /// The user that this process runs as.
    #[must_use]
    pub fn own_uid() -> u32 {
        rustix::process::geteuid().as_raw()
    }

    /// Whether sockets can be given to another process. Where they cannot, what concerns that is
    /// [`io::ErrorKind::Unsupported`].
    #[must_use]
    pub fn hands_over(&self) -> bool {
        self.platform.hands_over()
    }

    fn handing<T>(&self, act: impl FnOnce() -> io::Result<T>) -> io::Result<T> {
        match self.hands_over() {
            true => act(),
            false => Err(handed::unsupported()),
        }
    }

    /// Binds the UDP socket of a QUIC endpoint as [`bind_udp`](Self::bind_udp) does, to be shared with another
    /// process later.
    ///
    /// # Errors
    /// Names the address and the cause.
    pub fn bind_shared_udp(&self, addr: SocketAddr) -> io::Result<SharedUdp> {
        self.handing(|| {
            udp::bind(addr)
                .and_then(SharedUdp::new)
                .map_err(|e| system::named("bind UDP", addr, &e))
        })
    }

    /// A UDP socket that another process has shared.
    ///
    /// # Errors
    /// When it is something else.
    pub fn adopt_udp(&self, fd: OwnedFd) -> io::Result<SharedUdp> {
        self.handing(|| SharedUdp::adopt(fd))
    }

    /// A listener that another process has shared; `path` names the file of a Unix socket, which stays that
    /// process's until [`Listener::own`].
    ///
    /// # Errors
    /// When it is something else.
    pub fn adopt_listener(&self, fd: OwnedFd, path: Option<PathBuf>) -> io::Result<Listener> {
        self.handing(|| handed::adopt_listener(fd, path))
    }

    /// Opens the socket on which other processes of this user reach this one, mode 0600. The caller holds the lock
    /// of the directory: what socket is there is a dead process's, and is replaced.
    ///
    /// # Errors
    /// Names the path and the cause.
    pub fn listen_channel(&self, path: &Path) -> io::Result<ChannelListener> {
        self.handing(|| ChannelListener::bind(path.to_owned()))
    }

    /// The socket of [`listen_channel`](Self::listen_channel), shared by another process.
    ///
    /// # Errors
    /// When it is something else.
    pub fn adopt_channel_listener(&self, fd: OwnedFd, path: &Path) -> io::Result<ChannelListener> {
        self.handing(|| ChannelListener::adopt(fd, path.to_owned()))
    }

    /// Begins a channel to the process that listens there.
    ///
    /// # Errors
    /// [`io::ErrorKind::NotFound`] or [`io::ErrorKind::ConnectionRefused`] when there is none.
    pub fn connect_channel(&self, path: &Path) -> io::Result<Channel> {
        self.handing(|| Channel::connect(path))
    }

    /// A channel with one end for this process and one to give away.
    ///
    /// # Errors
    /// Such as too many open files.
    pub fn channel_pair(&self) -> io::Result<(Channel, OwnedFd)> {
        self.handing(Channel::pair)
    }

    /// One end of a channel that another process has given.
    ///
    /// # Errors
    /// When it is something else.
    pub fn adopt_channel(&self, fd: OwnedFd) -> io::Result<Channel> {
        self.handing(|| Channel::adopt(fd))
    }

    /// Tells the process manager, if there is one, how the process does: `READY=1`, `STOPPING=1`, `MAINPID=…`
    /// (`sd_notify(3)`).
    pub fn tell_supervisor(&self, text: &str) {
        self.platform.tell_supervisor(text);
    }

    /// The addresses of a host name (or of an address in text), each with `port`. Never empty.
    ///
    /// # Errors
    /// Names the host and the cause; a lookup is given up after a few seconds.
    pub async fn resolve(&self, host: &str, port: u16) -> io::Result<Vec<SocketAddr>> {
        self.platform.resolve(host.to_owned(), port).await
    }

    /// The runtime to build a [`quinn::Endpoint`] with.
    #[must_use]
    pub fn quinn_runtime(&self) -> Arc<dyn quinn::Runtime> {
        self.platform.quinn_runtime()
    }

    /// Runs a closure over the node's files, off the threads that carry traffic.
    ///
    /// A panic of the closure goes on in the caller. Once begun, the closure runs to its end even if the
    /// returned future is dropped.
    pub async fn disk<T, F>(&self, job: F) -> T
    where
        T: Send + 'static,
        F: FnOnce(&Disk) -> T + Send + 'static,
    {
        let disk = self.platform.disk();
        let (done, result) = oneshot::channel();
        let job = move || {
            let outcome = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| job(&disk)));
            // Nobody waits any more: the work itself is done, its result is not needed.
            let _ = done.send(outcome);
        };
        self.platform.run_disk(Box::new(job)).await;
        match result.await {
            Ok(Ok(value)) => value,
            Ok(Err(panic)) => std::panic::resume_unwind(panic),
            // The runtime is going down and dropped the job; this task will not be polled again.
            Err(_) => std::future::pending().await,
        }
    }

    /// Runs a future as a task of this node. Prefer a [`Tasks`](crate::Tasks) owner, which also ends it.
    ///
    /// # Panics
    /// Outside a tokio runtime.
    #[track_caller]
    pub fn spawn<F>(&self, future: F) -> JoinHandle<F::Output>
    where
        F: Future + Send + 'static,
        F::Output: Send + 'static,
    {
        match self.platform.task_gate() {
            None => spawn_on_tokio(future),
            Some(gate) => {
                let task = spawn_on_tokio(Gated {
                    inner: Box::pin(future),
                    gate: gate.clone(),
                    wakers: None,
                });
                gate.spawned(task.abort_handle(), Location::caller());
                task
            }
        }
    }
}

#[allow(
    clippy::disallowed_methods,
    reason = "the seam: Env::spawn is what others use instead"
)]
fn spawn_on_tokio<F>(future: F) -> JoinHandle<F::Output>
where
    F: Future + Send + 'static,
    F::Output: Send + 'static,
{
    tokio::spawn(future)
}

/// A task that runs only while its node does.
struct Gated<T> {
    inner: BoxFuture<'static, T>,
    gate: Arc<dyn TaskGate>,
    /// The runtime's waker, and what the gate has made of it.
    wakers: Option<(Waker, Waker)>,
}

impl<T> Future for Gated<T> {
    type Output = T;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<T> {
        if !self.gate.may_run(cx) {
            return Poll::Pending;
        }
        let this = &mut *self;
        let known = this
            .wakers
            .take()
            .filter(|(own, _)| own.will_wake(cx.waker()));
        let (_, waker) = this
            .wakers
            .insert(known.unwrap_or_else(|| (cx.waker().clone(), this.gate.waker(cx.waker()))));
        this.inner.as_mut().poll(&mut Context::from_waker(waker))
    }
}
