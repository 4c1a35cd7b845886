//! The dyn seam between weft and the world.

use std::fmt::Debug;
use std::future::Future;
use std::io;
use std::net::SocketAddr;
use std::panic::Location;
use std::path::PathBuf;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Waker};
use std::time::SystemTime;

use tokio::task::AbortHandle;

use crate::{Disk, Listener, Stream};

/// A future that a trait object can return.
pub type BoxFuture<'a, T> = Pin<Box<dyn Future<Output = T> + Send + 'a>>;

/// What weft asks of the world it runs in. One value stands for one node.
///
/// Implementations run on a tokio runtime: the monotonic clock and timers are always tokio's.
pub trait Platform: Debug + Send + Sync + 'static {
    /// The wall clock of this node.
    fn wall(&self) -> SystemTime;

    /// A fresh seed of a random stream. A simulator derives it from its own seed, the node, the purpose
    /// and how often that purpose asked before.
    fn seed(&self, purpose: &'static str) -> [u8; 32];

    /// Opens a TCP connection.
    fn connect(&self, addr: SocketAddr) -> BoxFuture<'_, io::Result<Stream>>;

    /// Opens a connection to a Unix socket.
    fn connect_unix(&self, path: PathBuf) -> BoxFuture<'_, io::Result<Stream>>;

    /// Listens on a TCP address.
    fn listen(&self, addr: SocketAddr) -> BoxFuture<'_, io::Result<Listener>>;

    /// Listens on a Unix socket that only the owner may use.
    fn listen_unix(&self, path: PathBuf) -> BoxFuture<'_, io::Result<Listener>>;

    /// Binds the UDP socket of a QUIC endpoint.
    fn bind_udp(&self, addr: SocketAddr) -> io::Result<Arc<dyn quinn::AsyncUdpSocket>>;

    /// Looks a host name up.
    fn resolve(&self, host: String, port: u16) -> BoxFuture<'_, io::Result<Vec<SocketAddr>>>;

    /// Timers, tasks and time for quinn.
    fn quinn_runtime(&self) -> Arc<dyn quinn::Runtime>;

    /// The files of this node.
    fn disk(&self) -> Disk;

    /// Runs a job that may block. The future ends when the job has run.
    fn run_disk(&self, job: Box<dyn FnOnce() + Send>) -> BoxFuture<'_, ()>;

    /// Whether sockets of this platform can be given to another process: those of the operating system can.
    fn hands_over(&self) -> bool {
        false
    }

    /// Tells the process manager, if there is one, how the process does (`sd_notify(3)`).
    fn tell_supervisor(&self, _text: &str) {}

    /// A gate that every task of this node passes on each poll; `None` where tasks just run.
    fn task_gate(&self) -> Option<Arc<dyn TaskGate>> {
        None
    }
}

/// Lets a simulator pause and kill the tasks of one node.
pub trait TaskGate: Send + Sync + 'static {
    /// Whether a task may be polled now. An implementation that says no keeps the waker and wakes it
    /// when the node goes on.
    fn may_run(&self, cx: &mut Context<'_>) -> bool;

    /// What wakes a task, made of what wakes it on its runtime: a simulator decides the order in which tasks run
    /// that were woken at the same time.
    fn waker(&self, task: &Waker) -> Waker {
        task.clone()
    }

    /// Tells of a task that was spawned, and where in the code, so that it can be aborted with its node and counted.
    fn spawned(&self, task: AbortHandle, at: &'static Location<'static>);
}
