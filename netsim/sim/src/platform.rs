//! What a process sees of the world.

use std::future::Future;
use std::io::{self, ErrorKind};
use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::task::{Context, Poll};
use std::time::{Instant, SystemTime};

use tokio::time::{Sleep, sleep};
use weft_env::{BoxFuture, Disk, Env, Listener, Platform, Stream, TaskGate};

use crate::disk::Faults;
use crate::gate::Gate;
use crate::names::{dead, refused};
use crate::node::Node;
use crate::seed;
use crate::tcp::{self, Place};
use crate::udp;
use crate::world::Shared;

/// The platform of one life of a process.
pub(crate) struct SimPlatform {
    node: Node,
    process: Arc<str>,
    gate: Arc<Gate>,
    crash_in: Arc<AtomicU32>,
}

impl std::fmt::Debug for SimPlatform {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("SimPlatform").field(&self.process).finish()
    }
}

impl SimPlatform {
    pub(crate) fn new(node: Node, process: Arc<str>, gate: Arc<Gate>) -> Self {
        Self {
            node,
            process,
            gate,
            crash_in: Arc::default(),
        }
    }

    pub(crate) fn shared(&self) -> &Arc<Shared> {
        &self.node.shared
    }

    pub(crate) fn crash_at(&self, number: u32) {
        self.crash_in.store(number, Ordering::Relaxed);
    }

    /// Gives back the ports of this life.
    pub(crate) fn close_sockets(&self) {
        let mut state = self.shared().state();
        let node = &mut state.nodes[self.node.id().0];
        node.udp.retain(|_, inbox| !inbox.belongs_to(&self.gate));
        let mut closed = Vec::new();
        let mut keep = |backlog: &Arc<tcp::Backlog>| {
            let own = backlog.belongs_to(&self.gate);
            if own {
                closed.push(backlog.clone());
            }
            !own
        };
        node.tcp.retain(|_, backlog| keep(backlog));
        node.unix.retain(|_, backlog| keep(backlog));
        drop(state);
        // Streams that nobody has accepted are reset, which takes the world's lock.
        closed.iter().for_each(|backlog| backlog.close());
    }

    fn alive(&self) -> io::Result<()> {
        if self.gate.is_fenced() {
            Err(dead())
        } else {
            Ok(())
        }
    }
}

impl Platform for SimPlatform {
    fn wall(&self) -> SystemTime {
        self.node.wall()
    }

    fn seed(&self, purpose: &'static str) -> [u8; 32] {
        let stream = format!("{} {purpose}", self.process);
        let mut state = self.shared().state();
        let drawn = state.draws.entry(stream.clone()).or_default();
        *drawn += 1;
        let number = drawn.to_le_bytes();
        seed::derive(self.shared().seed, &[b"env", stream.as_bytes(), &number])
    }

    fn connect(&self, addr: SocketAddr) -> BoxFuture<'_, io::Result<Stream>> {
        Box::pin(async move {
            self.alive()?;
            tcp::connect(&self.node, addr).await
        })
    }

    fn connect_unix(&self, path: PathBuf) -> BoxFuture<'_, io::Result<Stream>> {
        Box::pin(async move {
            self.alive()?;
            tcp::connect_unix(&self.node, &path)
        })
    }

    fn listen(&self, addr: SocketAddr) -> BoxFuture<'_, io::Result<Listener>> {
        let bound = self
            .alive()
            .and_then(|()| tcp::listen(&self.node, &self.gate, Place::Tcp(addr)));
        Box::pin(std::future::ready(bound))
    }

    fn listen_unix(&self, path: PathBuf) -> BoxFuture<'_, io::Result<Listener>> {
        let bound = self
            .alive()
            .and_then(|()| tcp::listen(&self.node, &self.gate, Place::Unix(path)));
        Box::pin(std::future::ready(bound))
    }

    fn bind_udp(&self, addr: SocketAddr) -> io::Result<Arc<dyn quinn::AsyncUdpSocket>> {
        self.alive()?;
        udp::bind(&self.node, &self.gate, addr)
    }

    fn resolve(&self, host: String, port: u16) -> BoxFuture<'_, io::Result<Vec<SocketAddr>>> {
        let found = host.parse::<IpAddr>().ok().or_else(|| {
            let state = self.shared().state();
            let node = state.nodes.iter().find(|node| node.name == host);
            node.map(|node| node.ip)
        });
        let answer = found
            .map(|ip| vec![SocketAddr::new(ip, port)])
            .ok_or_else(|| refused("resolve", host, ErrorKind::NotFound));
        Box::pin(std::future::ready(answer))
    }

    fn quinn_runtime(&self) -> Arc<dyn quinn::Runtime> {
        let env = Env::new(Arc::new(Self {
            node: self.node.clone(),
            process: self.process.clone(),
            gate: self.gate.clone(),
            crash_in: self.crash_in.clone(),
        }));
        Arc::new(SimRuntime { env })
    }

    fn disk(&self) -> Disk {
        Disk::gated(Arc::new(Faults {
            shared: self.shared().clone(),
            node: self.node.id(),
            gate: self.gate.clone(),
            crash_in: self.crash_in.clone(),
        }))
    }

    fn run_disk(&self, job: Box<dyn FnOnce() + Send>) -> BoxFuture<'_, ()> {
        Box::pin(async move {
            let delay = self.shared().state().nodes[self.node.id().0].disk_delay;
            if self.gate.is_fenced() {
                return std::future::pending().await;
            }
            // Inline: the order of completion would vary with threads. What is slow is slow in virtual time.
            job();
            if !delay.is_zero() {
                sleep(delay).await;
            }
            if self.gate.is_fenced() {
                std::future::pending().await
            }
        })
    }

    fn task_gate(&self) -> Option<Arc<dyn TaskGate>> {
        Some(self.gate.clone())
    }
}

/// Timers, tasks and time for quinn.
#[derive(Debug)]
struct SimRuntime {
    env: Env,
}

impl quinn::Runtime for SimRuntime {
    fn new_timer(&self, at: Instant) -> Pin<Box<dyn quinn::AsyncTimer>> {
        Box::pin(SimTimer(Box::pin(tokio::time::sleep_until(at.into()))))
    }

    fn spawn(&self, future: Pin<Box<dyn Future<Output = ()> + Send>>) {
        // It ends with the endpoint, or with the process.
        drop(self.env.spawn(future));
    }

    fn wrap_udp_socket(
        &self,
        _: std::net::UdpSocket,
    ) -> io::Result<Arc<dyn quinn::AsyncUdpSocket>> {
        Err(ErrorKind::Unsupported.into())
    }

    fn now(&self) -> Instant {
        tokio::time::Instant::now().into_std()
    }
}

#[derive(Debug)]
struct SimTimer(Pin<Box<Sleep>>);

impl quinn::AsyncTimer for SimTimer {
    fn reset(mut self: Pin<&mut Self>, at: Instant) {
        self.0.as_mut().reset(at.into());
    }

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        Future::poll(self.0.as_mut(), cx)
    }
}
