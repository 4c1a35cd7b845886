//! Settings of `weft sidecar`.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use weft_certs::{RootPin, TrustDomain};

use super::{
    AppSpec, PeerProfileSpec, ProcessSettings, ProfileName, TcpListen, WireSettings,
    sidecar_state_dir,
};

/// Runs the sidecar of one service instance, or those of several with one --config each: carries its calls into the mesh and
/// the mesh's calls to it.
///
/// The first start joins with a one-time token (`weft token create`), the machine's own certificate or a Kubernetes
/// service account, and the pinned root (`weft ca show`);
/// later starts use the identity saved in the state directory. With --identity it comes from another SPIFFE provider. Every flag can also be given as an
/// environment variable (WEFT_CONTROL for --control) or as a field of the YAML file named by --config
/// (control: …). A flag wins over the environment, the environment over the file.
#[derive(Debug, Clone, clap::Args)]
#[command(after_help = "\
Ways for the application to call a service (with --outbound 127.0.0.1:15001):
  as an HTTP proxy:   curl -x http://127.0.0.1:15001 http://invoices/
  by Host:            curl -H 'Host: invoices' http://127.0.0.1:15001/
  a TCP port:         --tcp-listen 127.0.0.1:5432=invoices:5432

Several services, each with its own identity, in one process:
  weft sidecar --control 10.0.0.1:15008 --pin sha256:… --config orders.yaml --config invoices.yaml
  where each file has at least state-dir, listen, outbound and metrics of its own.

Ctrl-C or SIGTERM drains and stops; a second one ends the process at once.
`weft upgrade` replaces the running program by the installed one, without losing a request.")]
pub(crate) struct SidecarSettings {
    /// Directory for this instance's identity and last snapshot; one for each sidecar
    #[arg(long, env = "WEFT_STATE_DIR", value_name = "DIR", default_value_os_t = sidecar_state_dir())]
    pub(crate) state_dir: PathBuf,

    /// The control node; several are tried in turn
    #[arg(
        long,
        env = "WEFT_CONTROL",
        value_name = "HOST:PORT",
        value_delimiter = ',',
        value_parser = control
    )]
    pub(crate) control: Vec<String>,

    /// Name of the site that this sidecar is in, if the site has a delegate (`weft ca delegate`)
    #[arg(long, env = "WEFT_SITE", value_name = "NAME", requires = "delegate")]
    pub(crate) site: Option<String>,

    /// The delegate of the site; several addresses are tried in turn. It is asked only while no control node can be
    /// reached: to join, and when two thirds of the certificate's life are over
    #[arg(
        long,
        env = "WEFT_DELEGATE",
        value_name = "HOST:PORT",
        value_delimiter = ',',
        value_parser = control,
        requires = "site"
    )]
    pub(crate) delegate: Vec<String>,

    /// Trust domain of the mesh, as given to `weft init` [default: weft.local; later that of the saved identity]
    #[arg(long, env = "WEFT_TRUST_DOMAIN", value_name = "NAME")]
    pub(crate) trust_domain: Option<TrustDomain>,

    /// Hash of the mesh's root certificate, as `weft init` and `weft ca show` print it (needed at the
    /// first start; may stay)
    #[arg(long, env = "WEFT_PIN", value_name = "sha256:HEX")]
    pub(crate) pin: Option<RootPin>,

    #[command(flatten)]
    pub(crate) join: JoinSettings,

    /// A port of the application: http on service port 80, or tcp on the application's own port number,
    /// unless said otherwise. May be given several times; in the environment with commas between
    #[arg(
        long,
        env = "WEFT_APP",
        value_name = "[http/|tcp/][PORT=]HOST:PORT",
        value_delimiter = ','
    )]
    pub(crate) app: Vec<AppSpec>,

    /// Address and UDP port on which other sidecars reach this one
    #[arg(
        long,
        env = "WEFT_LISTEN",
        value_name = "ADDR",
        default_value = "0.0.0.0:15008"
    )]
    pub(crate) listen: SocketAddr,

    /// Address at which other sidecars reach this one, if it is not the one that the control node sees
    /// (behind NAT)
    #[arg(long, env = "WEFT_ADVERTISE", value_name = "ADDR")]
    pub(crate) advertise: Option<SocketAddr>,

    /// Address for the application's calls: an HTTP proxy, and plain HTTP by Host
    #[arg(
        long,
        env = "WEFT_OUTBOUND",
        value_name = "ADDR",
        default_value = "127.0.0.1:15001"
    )]
    pub(crate) outbound: SocketAddr,

    /// A local port bound to a TCP service, such as 127.0.0.1:5432=invoices:5432. May be given several
    /// times
    #[arg(
        long,
        env = "WEFT_TCP_LISTEN",
        value_name = "ADDR=SERVICE[.NS]:PORT",
        value_delimiter = ','
    )]
    pub(crate) tcp_listen: Vec<TcpListen>,

    /// Address for metrics, /healthz and /readyz
    #[arg(
        long,
        env = "WEFT_METRICS",
        value_name = "ADDR",
        default_value = "127.0.0.1:15020"
    )]
    pub(crate) metrics: SocketAddr,

    /// Unix socket of the SPIFFE Workload API and of Envoy's secret discovery, for other programs on this
    /// machine
    #[arg(long, env = "WEFT_WORKLOAD_SOCKET", value_name = "PATH", value_parser = weft_workload::socket_path)]
    pub(crate) workload_socket: Option<PathBuf>,

    /// Who may have this sidecar's identity from the workload socket: parts among uid=N, gid=N,
    /// unit=NAME.service and exe=/PATH, with spaces between, all of which must fit. May be given several
    /// times; nobody gets anything without
    #[arg(
        long,
        env = "WEFT_WORKLOAD_ALLOW",
        value_name = "PART[ PART]",
        value_delimiter = ','
    )]
    pub(crate) workload_allow: Vec<weft_workload::Entry>,

    /// Kind of network that most peers are on
    #[arg(
        long,
        env = "WEFT_PROFILE",
        value_name = "PROFILE",
        value_enum,
        default_value = "auto"
    )]
    pub(crate) profile: ProfileName,

    /// A service on another kind of network, such as ledger=lossy. May be given several times
    #[arg(
        long,
        env = "WEFT_PEER_PROFILE",
        value_name = "SERVICE[.NS]=PROFILE",
        value_delimiter = ','
    )]
    pub(crate) peer_profile: Vec<PeerProfileSpec>,

    #[command(flatten)]
    pub(crate) wire: WireSettings,

    /// How long to wait at a stop for requests under way
    #[arg(long, env = "WEFT_DRAIN", value_name = "DURATION", default_value = "10s", value_parser = super::duration)]
    pub(crate) drain: Duration,

    /// Take the place of the sidecar that runs on the state directory, without losing a request; start as usual if
    /// none does. `weft upgrade` starts the new process with this
    #[arg(
        long,
        env = "WEFT_TAKEOVER",
        value_name = "true|false",
        action = clap::ArgAction::Set,
        num_args = 0..=1,
        require_equals = true,
        default_value_t = false,
        default_missing_value = "true"
    )]
    pub(crate) takeover: bool,

    /// How long the old process of an upgrade goes on with connections that do not end, such as TCP tunnels. None
    /// lives longer than the certificates that it began with
    #[arg(long, env = "WEFT_UPGRADE_DRAIN", value_name = "DURATION", default_value = "1h", value_parser = super::duration)]
    pub(crate) upgrade_drain: Duration,

    /// Threads that carry traffic; 0 serves on one thread without a scheduler, the cheapest for most services
    #[arg(long, env = "WEFT_WORKERS", value_name = "N", default_value_t = 0, value_parser = |text: &str| super::whole::<u16>(text, 0..=64))]
    pub(crate) workers: u16,

    /// YAML file with any of these settings. Given several times, this process is the sidecar of several services: a file for
    /// each, and what flags and environment say holds for all
    #[arg(
        long,
        env = "WEFT_CONFIG",
        value_name = "FILE",
        value_delimiter = ',',
        help_heading = "The process"
    )]
    pub(crate) config: Vec<PathBuf>,

    #[command(flatten, next_help_heading = "The process")]
    pub(crate) process: ProcessSettings,
}

/// What proves who this sidecar is: one of a token, a machine's certificate and a service account; or who says so in
/// place of the mesh.
#[derive(Debug, Clone, clap::Args)]
pub(crate) struct JoinSettings {
    /// File with the one-time join token (first start only)
    #[arg(long, env = "WEFT_TOKEN_FILE", value_name = "FILE")]
    pub(crate) token_file: Option<PathBuf>,

    /// The same as a credential of systemd: the file of this name in $CREDENTIALS_DIRECTORY (LoadCredential=)
    #[arg(long, env = "WEFT_TOKEN_CREDENTIAL", value_name = "NAME")]
    pub(crate) token_credential: Option<String>,

    /// In place of a token: the machine's own certificate (PEM, its issuers behind it), of an authority that the control
    /// node accepts (--attest there)
    #[arg(
        long,
        env = "WEFT_MACHINE_CERT",
        value_name = "FILE",
        requires = "machine_key"
    )]
    pub(crate) machine_cert: Option<PathBuf>,

    /// Private key (PEM) of --machine-cert
    #[arg(
        long,
        env = "WEFT_MACHINE_KEY",
        value_name = "FILE",
        requires = "machine_cert"
    )]
    pub(crate) machine_key: Option<PathBuf>,

    /// In place of a token: file with the token of the pod's Kubernetes service account, as the kubelet projects it
    #[arg(long, env = "WEFT_K8S_TOKEN", value_name = "FILE")]
    pub(crate) k8s_token: Option<PathBuf>,

    /// Have the identity from this SPIFFE Workload API (SPIRE's agent, another sidecar) in place of the mesh's CA: at each
    /// start, and each new certificate. No key of it is written to disk
    #[arg(long, env = "WEFT_IDENTITY", value_name = "unix:///PATH", value_parser = provider)]
    pub(crate) identity: Option<PathBuf>,
}

/// As [`weft_workload::socket_path`], for whoever asks there.
fn provider(text: &str) -> Result<PathBuf, String> {
    if text.starts_with("tcp:") {
        return Err("only Unix sockets are asked, over which nobody else can answer: write it as unix:///PATH".to_owned());
    }
    weft_workload::socket_path(text)
}

/// Checks `HOST:PORT` and keeps it as text: names are resolved at each connect, not once.
pub(super) fn control(text: &str) -> Result<String, String> {
    super::host_port(text).map(|_| text.to_owned())
}
