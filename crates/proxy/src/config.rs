//! What a sidecar is told at its start.

use std::net::{Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::time::Duration;

use weft_certs::{RootPin, TrustDomain};
use weft_transport::{KeyExchange, Profile};

/// The trust domain of a mesh whose operator has chosen none.
pub const DEFAULT_TRUST_DOMAIN: &str = "weft.local";

/// Settings of one sidecar. [`SidecarConfig::new`] gives the defaults; fields are plain.
#[derive(Debug, Clone)]
pub struct SidecarConfig {
    /// Where identity, trust bundles, last snapshot and instance id are kept. Mode 0700, one process.
    pub state_dir: PathBuf,
    /// Trust domain of the mesh. The control node must prove to be of it when the sidecar joins, and a saved identity
    /// must be of it. `None`: that of the saved identity, and `weft.local` to join.
    pub trust_domain: Option<TrustDomain>,
    /// Control nodes as `host:port`, tried in this order and then round again.
    pub control: Vec<String>,
    /// Who stands in for the control nodes while none can be reached: the delegate of this sidecar's site.
    pub delegate: Option<Delegate>,
    /// The mesh's root. Needed to join. Afterwards it may be left out, or stay as it was then.
    pub pin: Option<RootPin>,
    /// Where a one-time token comes from. Needed to join, not afterwards.
    pub token: TokenSource,
    /// What proves who this sidecar is in place of a token, now and whenever its identity has ended.
    pub attestor: Option<Attestor>,
    /// Unix socket of the SPIFFE Workload API that the identity comes from, in place of the mesh's own CA.
    pub identity: Option<PathBuf>,
    /// What the application serves.
    pub apps: Vec<AppPort>,
    /// UDP address of the mesh side.
    pub mesh_listen: SocketAddr,
    /// Address at which other sidecars reach this one, if it is not the address that the control node
    /// sees. Port 0 stands for the port of `mesh_listen`.
    pub advertise: Option<SocketAddr>,
    /// Address of the HTTP proxy for the own application. Who can reach it speaks with this sidecar's
    /// identity: keep it on loopback.
    pub outbound_listen: SocketAddr,
    /// Local ports that lead to TCP services.
    pub tcp_listeners: Vec<TcpListener>,
    /// Address of `/metrics`, `/healthz` and `/readyz`.
    pub metrics_listen: SocketAddr,
    /// The SPIFFE Workload API for programs on this machine, if it is wanted.
    pub workload: Option<WorkloadApi>,
    /// How long the application may leave a connection to `outbound_listen` without the whole head of a request, be it
    /// idle between two of them.
    pub head_timeout: Duration,
    /// How long requests under way may take to end after a stop.
    pub drain_deadline: Duration,
    /// How long streams under way may go on after a new process has taken over. They end sooner with the certificates
    /// that they began under.
    pub upgrade_drain: Duration,
    /// Take the place of the sidecar that runs on `state_dir`, if one does.
    pub take_over: bool,
    /// How this process starts its successor when it is asked to ([`crate::upgrade`]).
    pub program: Option<crate::Program>,
    /// The kind of network that most peers are on.
    pub profile: Profile,
    /// Services on another kind.
    pub peer_profiles: Vec<PeerProfile>,
    /// Whether peers without post-quantum key exchange are spoken to, the control node included.
    pub key_exchange: KeyExchange,
    /// Whether TCP is answered on the mesh port, and dialled where UDP does not pass (HBONE's form of HTTP/2).
    pub tcp_fallback: bool,
    /// A file to write once the sidecar can serve; see [`crate::Ready`].
    pub ready_file: Option<PathBuf>,
}

/// The delegate of a site: it issues certificates for it while no control node can be reached.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Delegate {
    /// Name of the site, as the control node has authorized it.
    pub site: String,
    /// Where it is, as `host:port`, tried in this order.
    pub addresses: Vec<String>,
}

/// One port of the own application.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AppPort {
    /// How its traffic is carried.
    pub protocol: weft_wire::Protocol,
    /// The port that callers name.
    pub port: u16,
    /// Where the application listens.
    pub addr: SocketAddr,
}

/// The SPIFFE Workload API of a sidecar: other programs get its identity.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WorkloadApi {
    /// Path of the Unix socket.
    pub socket: PathBuf,
    /// Who may have the identity. Nobody, if this is empty.
    pub allow: Vec<weft_workload::Entry>,
}

/// A local port that leads to a TCP service.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TcpListener {
    /// The local address. Port 0 lets the system choose.
    pub listen: SocketAddr,
    /// The service with its port, such as `ledger:5432` or `ledger.team:5432`.
    pub backend: String,
}

/// What kind of network a service is on, seen from here.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PeerProfile {
    /// Its name, such as `ledger` or `ledger.team`.
    pub service: String,
    /// The profile of connections to and from it.
    pub profile: Profile,
}

/// What proves who a sidecar is. The files are read at each join, as they may have been replaced.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Attestor {
    /// The machine's own certificate, of an authority that the control node accepts.
    X509Pop {
        /// Certificates (PEM, the machine's own first).
        chain: PathBuf,
        /// Its private key (PEM).
        key: PathBuf,
    },
    /// The token of a Kubernetes service account.
    K8s {
        /// File that the kubelet keeps fresh.
        token: PathBuf,
    },
}

/// Where the one-time join token comes from.
#[derive(Clone, Default)]
pub enum TokenSource {
    /// There is none: the sidecar starts only from a saved identity.
    #[default]
    None,
    /// A file whose text is the token. Read only to join.
    File(PathBuf),
    /// The token itself.
    Value(String),
}

impl std::fmt::Debug for TokenSource {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::None => f.write_str("None"),
            Self::File(path) => f.debug_tuple("File").field(path).finish(),
            Self::Value(_) => f.write_str("Value(redacted)"),
        }
    }
}

impl SidecarConfig {
    /// The defaults, with the ports that users meet: 15008 (mesh), 15001 (outbound), 15020 (metrics).
    #[must_use]
    pub fn new(state_dir: PathBuf, trust_domain: impl Into<Option<TrustDomain>>) -> Self {
        let local = |port| SocketAddr::from((Ipv4Addr::LOCALHOST, port));
        Self {
            state_dir,
            trust_domain: trust_domain.into(),
            control: Vec::new(),
            delegate: None,
            pin: None,
            token: TokenSource::None,
            attestor: None,
            identity: None,
            apps: Vec::new(),
            mesh_listen: SocketAddr::from((Ipv4Addr::UNSPECIFIED, 15008)),
            advertise: None,
            outbound_listen: local(15001),
            tcp_listeners: Vec::new(),
            metrics_listen: local(15020),
            workload: None,
            head_timeout: Duration::from_secs(60),
            drain_deadline: Duration::from_secs(10),
            upgrade_drain: Duration::from_secs(3600),
            take_over: false,
            program: None,
            profile: Profile::auto(),
            peer_profiles: Vec::new(),
            key_exchange: KeyExchange::Preferred,
            tcp_fallback: true,
            ready_file: None,
        }
    }
}
