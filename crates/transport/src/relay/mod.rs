//! One UDP socket, several processes: while a new process takes over, the old one still has connections.
//!
//! Both hold the same socket, and one of them reads it. Every connection ID that a process gives out begins with
//! its [`Tag`], so whoever reads sees whose a packet is: its own it takes, those of an earlier process it passes
//! on, and what begins a connection is its own too. All of them send directly.
//!
//! ```text
//!             ┌──────────── process 3: reads ─────────────┐
//!   socket ──▶│ tag 3, or none of ours ──▶ its endpoint   │
//!             │ tag 2 ──▶ channel ──▶ process 2 (draining)│
//!             │ tag 1 ──▶ channel ──▶ process 1 (draining)│
//!             └────────────────────────────────────────────┘
//! ```
//!
//! `tag` and `frame` are pure, `socket` is what an endpoint reads from.

mod frame;
mod socket;
mod tag;

use std::fmt;
use std::io;
use std::net::SocketAddr;
use std::os::fd::OwnedFd;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use quinn::AsyncUdpSocket;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;
use weft_env::{Env, Listener};

use crate::endpoint::beside;

use socket::{Past, RelaySocket, Role};
pub use tag::Tag;

/// A socket that can be given to another process, with what belongs to it. Clones are the same socket.
#[derive(Clone)]
pub struct Relay {
    env: Env,
    socket: Arc<RelaySocket>,
    /// The TCP listener beside it, until another process has taken over.
    listener: Arc<Mutex<Option<Arc<Listener>>>>,
}

/// Whether it is this process that takes what begins.
pub(crate) struct Turn(watch::Receiver<Role>);

impl Turn {
    /// Waits until it is, or never will be: then this is false.
    pub(crate) async fn comes(&mut self) -> bool {
        let decided = self.0.wait_for(|role| *role != Role::Paused).await;
        decided.is_ok_and(|role| *role == Role::Reads)
    }

    /// Waits for a change.
    pub(crate) async fn changed(&mut self) {
        // Without a sender there is no endpoint.
        let _ = self.0.changed().await;
    }
}

/// An earlier process that still has connections on this socket.
#[derive(Debug)]
pub struct Earlier {
    /// What its connection IDs begin with.
    pub tag: Tag,
    /// Its process id.
    pub pid: u32,
    /// The version of its program.
    pub version: String,
    /// Where its packets go.
    pub channel: OwnedFd,
}

/// What another process needs to go on with the socket.
#[derive(Debug)]
pub struct Given {
    /// The socket itself.
    pub udp: OwnedFd,
    /// The TCP listener on the same port, if there is one.
    pub tcp: Option<OwnedFd>,
    /// What this process's connection IDs begin with.
    pub tag: Tag,
    /// Where packets of this process's connections go from then on.
    pub channel: OwnedFd,
    /// The processes before this one.
    pub earlier: Vec<Earlier>,
}

impl Relay {
    /// Opens the socket, with a TCP listener beside it if `tcp`, and reads it from the start.
    ///
    /// # Errors
    /// Names the address and the cause; [`io::ErrorKind::Unsupported`] in a simulation.
    pub async fn open(env: &Env, addr: SocketAddr, tcp: bool) -> io::Result<Self> {
        let (udp, tcp) = if tcp {
            let (udp, tcp) = beside(env, addr, |at| env.bind_shared_udp(at)).await?;
            (udp, Some(tcp))
        } else {
            (env.bind_shared_udp(addr)?, None)
        };
        let tag = Tag::draw(&mut env.rng("quic-tag"), &[]);
        let socket = RelaySocket::reading(udp, tag);
        Ok(Self::new(env, socket, tcp))
    }

    /// Goes on with the socket of another process, whose earlier ones these are, itself included. Nothing is read
    /// before [`resume`](Self::resume).
    ///
    /// # Errors
    /// When what was given is not what it should be.
    pub fn adopt(
        env: &Env,
        (udp, tcp): (OwnedFd, Option<OwnedFd>),
        earlier: Vec<Earlier>,
    ) -> io::Result<Self> {
        let udp = env.adopt_udp(udp)?;
        let tcp = tcp.map(|tcp| env.adopt_listener(tcp, None)).transpose()?;
        let taken: Vec<Tag> = earlier.iter().map(|earlier| earlier.tag).collect();
        let tag = Tag::draw(&mut env.rng("quic-tag"), &taken);
        let past = earlier
            .into_iter()
            .map(|earlier| Past::adopt(env, earlier))
            .collect::<Result<_, _>>()?;
        let socket = RelaySocket::waiting(udp, tag, past);
        Ok(Self::new(env, socket, tcp.map(Arc::new)))
    }

    fn new(env: &Env, socket: RelaySocket, listener: Option<Arc<Listener>>) -> Self {
        Self {
            env: env.clone(),
            socket: Arc::new(socket),
            listener: Arc::new(Mutex::new(listener)),
        }
    }

    /// Whether TCP is answered beside the socket, whatever the process before this one did.
    ///
    /// # Errors
    /// The port is another's on TCP.
    pub async fn answer_tcp(&self, wanted: bool) -> io::Result<()> {
        if !wanted {
            self.held().take();
        } else if self.listener().is_none() {
            let listener = self.env.listen(self.socket.local_addr()?).await?;
            self.held().replace(Arc::new(listener));
        }
        Ok(())
    }

    /// The TCP listener beside the socket.
    pub(crate) fn listener(&self) -> Option<Arc<Listener>> {
        self.held().clone()
    }

    fn held(&self) -> MutexGuard<'_, Option<Arc<Listener>>> {
        // One value, replaced whole.
        self.listener.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Tells whoever accepts connections of TCP when to.
    pub(crate) fn turn(&self) -> Turn {
        Turn(self.socket.turn())
    }

    /// What an endpoint reads from.
    pub(crate) fn socket(&self) -> Arc<dyn AsyncUdpSocket> {
        self.socket.clone()
    }

    /// What this process's connection IDs begin with.
    #[must_use]
    pub fn tag(&self) -> Tag {
        self.socket.tag()
    }

    /// Makes ready to give the socket away: call [`pause`](Self::pause) and [`follow`](Self::follow) once the other
    /// process has it all.
    ///
    /// # Errors
    /// Such as too many open files.
    pub fn give(&self) -> io::Result<Given> {
        let (here, channel) = self.env.channel_pair()?;
        let listener = self.listener();
        let given = Given {
            udp: self.socket.share()?,
            tcp: listener.map(|listener| listener.share()).transpose()?,
            tag: self.tag(),
            channel,
            earlier: self.socket.share_past()?,
        };
        self.socket.expect(here);
        Ok(given)
    }

    /// Reads and accepts nothing from now on: packets and connections wait in the kernel.
    pub fn pause(&self) {
        self.socket.set_role(Role::Paused);
    }

    /// Reads the socket, from now on or again.
    pub fn resume(&self) {
        self.socket.set_role(Role::Reads);
    }

    /// Another process reads now: takes what it passes on, and leaves earlier processes to it.
    pub fn follow(&self) {
        self.socket.follow();
        self.held().take();
    }

    /// Cancelled when the process that read for this one is gone. This one reads again by then, and takes its own
    /// packets only.
    #[must_use]
    pub fn orphaned(&self) -> CancellationToken {
        self.socket.orphaned()
    }

    /// Process id and version of the earlier processes that still have connections.
    #[must_use]
    pub fn earlier(&self) -> Vec<(u32, String)> {
        self.socket.past()
    }
}

impl fmt::Debug for Relay {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Relay")
            .field("tag", &self.tag())
            .finish_non_exhaustive()
    }
}
