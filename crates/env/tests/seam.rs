//! A second platform, in memory: proves that nothing above the seam needs the operating system.
#![allow(clippy::disallowed_methods, clippy::unwrap_used)]

use std::collections::BTreeMap;
use std::io;
use std::net::SocketAddr;
use std::panic::Location;
use std::path::{Path, PathBuf};
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll, Waker};
use std::time::{Duration, SystemTime};

use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, DuplexStream, ReadBuf};
use tokio::sync::mpsc;
use tokio::task::AbortHandle;
use weft_env::{
    BoxFuture, Disk, DiskGate, DiskOp, Env, Listener, Mode, PeerAddr, Platform, SimListener,
    SimStream, Stream, TaskGate, Tasks,
};

type Arrivals = mpsc::Sender<(Stream, PeerAddr)>;

#[derive(Debug, Default)]
struct MemoryPlatform {
    listeners: Mutex<BTreeMap<SocketAddr, Arrivals>>,
    draws: Mutex<BTreeMap<&'static str, u8>>,
    gate: Option<Arc<Gate>>,
    full_disk: bool,
}

#[derive(Debug)]
struct MemoryStream {
    inner: DuplexStream,
    local: SocketAddr,
    peer: SocketAddr,
}

impl AsyncRead for MemoryStream {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_read(cx, buf)
    }
}

impl AsyncWrite for MemoryStream {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.inner).poll_write(cx, buf)
    }
    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_flush(cx)
    }
    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_shutdown(cx)
    }
}

impl SimStream for MemoryStream {
    fn reset(self: Box<Self>) {}
    fn peer_addr(&self) -> Option<SocketAddr> {
        Some(self.peer)
    }
    fn local_addr(&self) -> Option<SocketAddr> {
        Some(self.local)
    }
}

#[derive(Debug)]
struct MemoryListener {
    addr: SocketAddr,
    arrivals: tokio::sync::Mutex<mpsc::Receiver<(Stream, PeerAddr)>>,
}

impl SimListener for MemoryListener {
    fn accept(&self) -> BoxFuture<'_, io::Result<(Stream, PeerAddr)>> {
        Box::pin(async move {
            let arrived = self.arrivals.lock().await.recv().await;
            arrived.ok_or_else(|| io::ErrorKind::NotConnected.into())
        })
    }
    fn local_addr(&self) -> io::Result<SocketAddr> {
        Ok(self.addr)
    }
}

#[derive(Debug, Default)]
struct Gate {
    paused: AtomicBool,
    spawned: AtomicUsize,
    waiting: Mutex<Vec<Waker>>,
    aborts: Mutex<Vec<AbortHandle>>,
}

impl TaskGate for Gate {
    fn may_run(&self, cx: &mut Context<'_>) -> bool {
        if self.paused.load(Ordering::SeqCst) {
            self.waiting.lock().unwrap().push(cx.waker().clone());
            return false;
        }
        true
    }
    fn spawned(&self, task: AbortHandle, at: &'static Location<'static>) {
        assert_eq!(
            at.file(),
            file!(),
            "the place is that of whoever spawns, through a `Tasks` too"
        );
        self.spawned.fetch_add(1, Ordering::SeqCst);
        self.aborts.lock().unwrap().push(task);
    }
}

struct FullDisk;

impl DiskGate for FullDisk {
    fn before(&self, op: DiskOp, _path: &Path) -> io::Result<()> {
        match op {
            DiskOp::Write => Err(io::ErrorKind::StorageFull.into()),
            _ => Ok(()),
        }
    }
}

impl Platform for MemoryPlatform {
    fn wall(&self) -> SystemTime {
        SystemTime::UNIX_EPOCH + Duration::from_secs(1_000_000_000)
    }
    fn seed(&self, purpose: &'static str) -> [u8; 32] {
        let mut draws = self.draws.lock().unwrap();
        let drawn = draws.entry(purpose).or_default();
        *drawn += 1;
        let mut seed = [0; 32];
        seed[0] = *drawn;
        seed[1..=purpose.len()].copy_from_slice(purpose.as_bytes());
        seed
    }
    fn connect(&self, addr: SocketAddr) -> BoxFuture<'_, io::Result<Stream>> {
        Box::pin(async move {
            let target = self.listeners.lock().unwrap().get(&addr).cloned();
            let target = target.ok_or(io::ErrorKind::ConnectionRefused)?;
            let local = SocketAddr::from(([10, 0, 0, 1], 40_000));
            let (near, far) = tokio::io::duplex(1024);
            let far = MemoryStream {
                inner: far,
                local: addr,
                peer: local,
            };
            let arrival = (Stream::Sim(Box::new(far)), PeerAddr::Tcp(local));
            target
                .send(arrival)
                .await
                .map_err(|_| io::ErrorKind::ConnectionRefused)?;
            Ok(Stream::Sim(Box::new(MemoryStream {
                inner: near,
                local,
                peer: addr,
            })))
        })
    }
    fn connect_unix(&self, _: PathBuf) -> BoxFuture<'_, io::Result<Stream>> {
        Box::pin(async { Err(io::ErrorKind::Unsupported.into()) })
    }
    fn listen(&self, addr: SocketAddr) -> BoxFuture<'_, io::Result<Listener>> {
        let (arrivals, inbox) = mpsc::channel(8);
        self.listeners.lock().unwrap().insert(addr, arrivals);
        let listener = MemoryListener {
            addr,
            arrivals: tokio::sync::Mutex::new(inbox),
        };
        Box::pin(async move { Ok(Listener::sim(Box::new(listener))) })
    }
    fn listen_unix(&self, _: PathBuf) -> BoxFuture<'_, io::Result<Listener>> {
        Box::pin(async { Err(io::ErrorKind::Unsupported.into()) })
    }
    fn bind_udp(&self, _: SocketAddr) -> io::Result<Arc<dyn quinn::AsyncUdpSocket>> {
        Err(io::ErrorKind::Unsupported.into())
    }
    fn resolve(&self, _: String, port: u16) -> BoxFuture<'_, io::Result<Vec<SocketAddr>>> {
        Box::pin(async move { Ok(vec![SocketAddr::from(([10, 0, 0, 2], port))]) })
    }
    fn quinn_runtime(&self) -> Arc<dyn quinn::Runtime> {
        Arc::new(quinn::TokioRuntime)
    }
    fn disk(&self) -> Disk {
        if self.full_disk {
            Disk::gated(Arc::new(FullDisk))
        } else {
            Disk::system()
        }
    }
    fn run_disk(&self, job: Box<dyn FnOnce() + Send>) -> BoxFuture<'_, ()> {
        job();
        Box::pin(std::future::ready(()))
    }
    fn task_gate(&self) -> Option<Arc<dyn TaskGate>> {
        self.gate.clone().map(|gate| gate as _)
    }
}

#[tokio::test(flavor = "current_thread", start_paused = true)]
async fn streams_of_a_simulated_network_carry_bytes_both_ways() {
    let env = Env::new(Arc::new(MemoryPlatform::default()));
    let addr = env.resolve("invoices", 80).await.unwrap()[0];
    let listener = env.listen(addr).await.unwrap();
    assert_eq!(listener.local_addr().unwrap(), addr);
    let echo = env.spawn(async move {
        let (mut stream, peer) = listener.accept().await.unwrap();
        let mut said = String::new();
        stream.read_to_string(&mut said).await.unwrap();
        stream
            .write_all(said.to_uppercase().as_bytes())
            .await
            .unwrap();
        peer
    });
    let mut stream = env.connect(addr).await.unwrap();
    assert_eq!(stream.peer_addr(), Some(addr));
    stream.write_all(b"weft").await.unwrap();
    stream.shutdown().await.unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.unwrap();
    assert_eq!(answer, "WEFT");
    assert_eq!(echo.await.unwrap().tcp(), stream.local_addr());
}

#[tokio::test(flavor = "current_thread", start_paused = true)]
async fn clock_and_randomness_come_from_the_platform() {
    let draw = || {
        let env = Env::new(Arc::new(MemoryPlatform::default()));
        let (mut a, mut b) = (env.rng("retry"), env.rng("dial"));
        (
            env.wall(),
            a.next_u64(),
            b.next_u64(),
            env.rng("retry").next_u64(),
        )
    };
    let (first, again) = (draw(), draw());
    assert_eq!(first, again, "the same seed gives the same run");
    assert_ne!(first.1, first.2, "each purpose has its own stream");
    assert_ne!(
        first.1, first.3,
        "a second stream of a purpose is another one"
    );
}

#[tokio::test(flavor = "current_thread", start_paused = true)]
async fn a_paused_node_does_not_run_and_goes_on_later() {
    let gate = Arc::new(Gate::default());
    let platform = MemoryPlatform {
        gate: Some(gate.clone()),
        ..MemoryPlatform::default()
    };
    let tasks = Tasks::new(&Env::new(Arc::new(platform)));
    gate.paused.store(true, Ordering::SeqCst);
    let task = tasks.spawn(async { 7 });
    for _ in 0..10 {
        tokio::task::yield_now().await;
    }
    assert!(!task.is_finished(), "a task of a paused node must not run");
    gate.paused.store(false, Ordering::SeqCst);
    gate.waiting.lock().unwrap().drain(..).for_each(Waker::wake);
    assert_eq!(task.await.unwrap(), 7);
    assert_eq!(gate.spawned.load(Ordering::SeqCst), 1);
}

#[tokio::test(flavor = "current_thread", start_paused = true)]
async fn a_killed_node_loses_its_tasks() {
    let gate = Arc::new(Gate::default());
    let platform = MemoryPlatform {
        gate: Some(gate.clone()),
        ..MemoryPlatform::default()
    };
    let tasks = Tasks::new(&Env::new(Arc::new(platform)));
    let task = tasks.spawn(std::future::pending::<()>());
    gate.aborts
        .lock()
        .unwrap()
        .drain(..)
        .for_each(|task| task.abort());
    assert!(task.await.unwrap_err().is_cancelled());
    assert!(tasks.is_empty());
}

#[tokio::test(flavor = "current_thread", start_paused = true)]
async fn a_full_disk_leaves_the_old_file_and_is_named() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("state");
    std::fs::write(&path, "old").unwrap();
    let env = Env::new(Arc::new(MemoryPlatform {
        full_disk: true,
        ..MemoryPlatform::default()
    }));
    let target = path.clone();
    let error = env
        .disk(move |disk| disk.write_atomic(&target, b"new", Mode::Secret))
        .await
        .unwrap_err();
    let message = error.to_string();
    assert!(
        message.contains("the disk is full") && message.contains("state"),
        "{message}"
    );
    assert_eq!(std::fs::read(&path).unwrap(), b"old");
}

#[tokio::test(flavor = "current_thread", start_paused = true)]
async fn an_essential_task_that_ends_unasked_is_told_to_every_owner_above() {
    let env = Env::system();
    let told = async |tasks: &Tasks| {
        let told = tokio::time::timeout(Duration::from_secs(1), tasks.broken()).await;
        told.ok().map(|broken| broken.to_string())
    };

    let panics = Tasks::new(&env);
    drop(panics.spawn(async { panic!("of no importance") }));
    assert_eq!(told(&panics).await, None, "not every task is essential");
    let below = panics.child().child();
    drop(below.spawn_essential("the port", async {
        tokio::task::yield_now().await;
        panic!("no {}", "sense")
    }));
    let said = "the port has stopped working (panic: no sense)";
    assert_eq!(told(&panics).await.as_deref(), Some(said));

    let ends = Tasks::new(&env);
    drop(ends.spawn_essential("the link", async {}));
    let said = "the link has stopped working (it ended too early)";
    assert_eq!(told(&ends).await.as_deref(), Some(said));

    let obeys = Tasks::new(&env);
    let stop = obeys.token();
    drop(obeys.spawn_essential("the port", async move { stop.cancelled().await }));
    assert!(obeys.shutdown(Duration::from_secs(1)).await);
    assert_eq!(told(&obeys).await, None, "it was told to end");
}
