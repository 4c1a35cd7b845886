//! The pairs: what stands between client and server, one kind at a time.

mod envoy;
mod haproxy;
mod nginx;
pub(crate) mod own;
mod ports;
mod template;
mod weft;

pub(crate) use envoy::program as envoy_program;

use std::io;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use clap::ValueEnum;
use serde::{Deserialize, Serialize};
use tokio::time::Instant;

use crate::certs::Certs;
use crate::error::{Error, Result};
use crate::load::{Client, Workload, grpc};
use crate::process::{Place, Process, READY};

/// Longest wait for the first reply, over links with a round trip of most of a second.
const ATTEMPT: Duration = Duration::from_secs(5);

/// A kind of pair.
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, ValueEnum, Serialize, Deserialize,
)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Kind {
    /// Nothing: the client calls the server
    Direct,
    /// TCP+TLS copy pair: a small program of this package
    TlsCopy,
    /// HTTP/2 over TLS pair: a small program of this package
    H2Pair,
    /// weft, TCP streams
    WeftL4,
    /// weft, HTTP requests
    WeftL7,
    /// Envoy pair, HTTP/2 with mutual TLS
    EnvoyH2,
    /// Envoy pair, HTTP/3 with mutual TLS
    EnvoyH3,
    /// nginx pair, TCP in mutual TLS
    NginxTcp,
    /// nginx pair, HTTP/1.1 in mutual TLS
    NginxHttp,
    /// HAProxy pair, TCP in mutual TLS
    HaproxyTcp,
    /// HAProxy pair, HTTP/2 with mutual TLS
    HaproxyH2,
}

impl Kind {
    /// Its name in tables.
    pub(crate) fn title(self) -> &'static str {
        match self {
            Self::Direct => "direct",
            Self::TlsCopy => "TCP+TLS copy pair",
            Self::H2Pair => "HTTP/2 pair",
            Self::WeftL4 => "weft L4",
            Self::WeftL7 => "weft L7",
            Self::EnvoyH2 => "Envoy HTTP/2",
            Self::EnvoyH3 => "Envoy HTTP/3",
            Self::NginxTcp => "nginx TCP+TLS",
            Self::NginxHttp => "nginx HTTP/1.1+TLS",
            Self::HaproxyTcp => "HAProxy TCP+TLS",
            Self::HaproxyH2 => "HAProxy HTTP/2",
        }
    }

    /// Whether it carries any TCP stream, and so bulk.
    pub(crate) fn carries_tcp(self) -> bool {
        matches!(
            self,
            Self::Direct | Self::TlsCopy | Self::WeftL4 | Self::NginxTcp | Self::HaproxyTcp
        )
    }

    /// Whether a row says what becomes of gRPC with it: those that carry it, and weft, which should.
    pub(crate) fn is_asked_for_grpc(self) -> bool {
        !matches!(self, Self::H2Pair | Self::NginxHttp)
    }

    /// All of them.
    pub(crate) fn all() -> &'static [Self] {
        Self::value_variants()
    }
}

/// Where a pair is put up.
#[derive(Debug, Clone)]
pub(crate) struct Site {
    /// Folder of the run.
    pub(crate) dir: PathBuf,
    /// The client's side.
    pub(crate) a: Place,
    /// The server's side.
    pub(crate) b: Place,
    /// The server, on side b.
    pub(crate) server: SocketAddr,
    /// Certificates of all pairs but weft.
    pub(crate) certs: Certs,
    /// The binary of weft.
    pub(crate) weft: PathBuf,
    /// Congestion control that is asked of QUIC peers that can be told.
    pub(crate) congestion: Congestion,
    /// Whether client and server speak HTTP/2 in the clear, not HTTP/1.1.
    pub(crate) grpc: bool,
}

/// A congestion control.
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, ValueEnum, Serialize, Deserialize,
)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Congestion {
    Cubic,
    Bbr,
}

impl Congestion {
    /// As the kernel calls it.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Cubic => "cubic",
            Self::Bbr => "bbr",
        }
    }
}

/// A pair that runs. Dropping it ends its processes.
#[derive(Debug)]
pub(crate) struct Pair {
    /// Where the client's traffic goes in.
    pub(crate) entry: SocketAddr,
    /// `Host` of requests.
    pub(crate) host: String,
    /// Its two proxies: what is measured.
    pub(crate) proxies: Vec<Process>,
    /// What else it needs, such as a control node: not on the path of a request.
    pub(crate) others: Vec<Process>,
    /// How long its first request took, connections and handshakes included; nothing if an earlier try may
    /// have made them.
    pub(crate) first: Option<Duration>,
}

impl Pair {
    /// Puts up a pair and waits until a request has come through.
    pub(crate) async fn start(kind: Kind, site: &Site) -> Result<Self> {
        let dir = site.dir.join(kind.title().replace([' ', '/'], "-"));
        std::fs::create_dir_all(&dir).map_err(Error::io(format!("make {}", dir.display())))?;
        let mut pair = match kind {
            Kind::Direct => Self::of(site.server, Vec::new()),
            Kind::TlsCopy => own::start("copy", site, &dir).await?,
            Kind::H2Pair => own::start("h2", site, &dir).await?,
            Kind::WeftL4 | Kind::WeftL7 => weft::start(kind, site, &dir).await?,
            Kind::EnvoyH2 | Kind::EnvoyH3 => envoy::start(kind, site, &dir)?,
            Kind::NginxTcp | Kind::NginxHttp => nginx::start(kind, site, &dir)?,
            Kind::HaproxyTcp | Kind::HaproxyH2 => haproxy::start(kind, site, &dir)?,
        };
        pair.first_request(site.grpc).await?;
        Ok(pair)
    }

    /// Two proxies, of which the client speaks to one at `entry`, and nothing else.
    fn of(entry: SocketAddr, proxies: Vec<Process>) -> Self {
        Self {
            entry,
            host: "echo".into(),
            proxies,
            others: Vec::new(),
            first: None,
        }
    }

    /// What the client asks this pair for.
    pub(crate) fn workload(&self, size: u64, fields: usize) -> Workload {
        Workload {
            host: self.host.clone(),
            size,
            fields,
        }
    }

    /// Ids of the proxies and their workers.
    pub(crate) fn pids(&self) -> Vec<u32> {
        self.proxies.iter().flat_map(Process::family).collect()
    }

    /// Asks until a whole reply has come.
    async fn first_request(&mut self, grpc: bool) -> Result<()> {
        let deadline = Instant::now() + READY;
        let workload = self.workload(100, 3);
        let arrived = Arc::default();
        let mut fresh = true;
        loop {
            let asked = Instant::now();
            let attempt = async {
                if grpc {
                    return grpc::one_call(self.entry, &workload).await;
                }
                let mut client = Client::connect(self.entry, &workload, &arrived).await?;
                client.exchange().await
            };
            let refused = match tokio::time::timeout(ATTEMPT, attempt).await {
                Ok(Ok(())) => {
                    self.first = fresh.then(|| asked.elapsed());
                    return Ok(());
                }
                Ok(Err(error)) => error,
                Err(_) => Error::Protocol(format!("no reply within {ATTEMPT:?}")),
            };
            // Where nobody listens yet, nothing was made.
            fresh &= matches!(&refused, Error::Io { source, .. } if source.kind() == io::ErrorKind::ConnectionRefused);
            if Instant::now() > deadline {
                return Err(refused);
            }
            for process in self.proxies.iter_mut().chain(&mut self.others) {
                process.wait_a_little().await?;
            }
        }
    }
}

/// A folder for one process of a pair.
fn folder(dir: &Path, name: &str) -> Result<PathBuf> {
    let path = dir.join(name);
    std::fs::create_dir_all(&path).map_err(Error::io(format!("make {}", path.display())))?;
    Ok(path)
}
