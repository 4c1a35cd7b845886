//! Settings of `weft control`.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use weft_control::{BundleEndpoint, WebCertificate};

use super::{ProcessSettings, WireSettings, control_state_dir};

/// Runs a control node: keeps the config, issues certificates, pushes both to every sidecar.
///
/// Run `weft init` once first. Every flag can also be given as an environment variable (WEFT_STATE_DIR
/// for --state-dir) or as a field of the YAML file named by --config (state-dir: …). A flag wins over the
/// environment, the environment over the file.
#[derive(Debug, Clone, clap::Args)]
#[command(after_help = "Ctrl-C or SIGTERM stops in order; a second one ends the process at once.")]
pub(crate) struct ControlSettings {
    /// Directory with the store and the authority's keys, made by `weft init`
    #[arg(long, env = "WEFT_STATE_DIR", value_name = "DIR", default_value_os_t = control_state_dir())]
    pub(crate) state_dir: PathBuf,

    /// Address and UDP port on which sidecars reach this node
    #[arg(
        long,
        env = "WEFT_LISTEN",
        value_name = "ADDR",
        default_value = "0.0.0.0:15008"
    )]
    pub(crate) listen: SocketAddr,

    /// Address for metrics, /healthz and /readyz
    #[arg(
        long,
        env = "WEFT_METRICS",
        value_name = "ADDR",
        default_value = "127.0.0.1:15010"
    )]
    pub(crate) metrics: SocketAddr,

    #[command(flatten)]
    pub(crate) wire: WireSettings,

    /// How long to wait at a stop for requests under way
    #[arg(long, env = "WEFT_DRAIN", value_name = "DURATION", default_value = "5s", value_parser = super::duration)]
    pub(crate) drain: Duration,

    /// Threads that serve; 2 keeps a push going while a certificate is signed
    #[arg(long, env = "WEFT_WORKERS", value_name = "N", default_value_t = 2, value_parser = |text: &str| super::whole::<u16>(text, 1..=64))]
    pub(crate) workers: u16,

    /// YAML file that says who joins with a machine's certificate (x509pop) or a Kubernetes service account (k8s) in place
    /// of a token, and as what; nobody does without. Changes of it are taken up within seconds
    #[arg(long, env = "WEFT_ATTEST", value_name = "FILE")]
    pub(crate) attest: Option<PathBuf>,

    /// File with the roots (PEM, or a SPIFFE JWK set) of another provider of identities in this trust domain, such as SPIRE,
    /// for sidecars with --identity: the mesh trusts them beside its own. Nobody else is trusted without. Changes of it are
    /// taken up within seconds
    #[arg(long, env = "WEFT_TRUST_BUNDLE", value_name = "FILE")]
    pub(crate) trust_bundle: Option<PathBuf>,

    #[command(flatten, next_help_heading = "Federation")]
    pub(crate) bundle: BundleSettings,

    #[command(flatten, next_help_heading = "The authority's keys")]
    pub(crate) keys: crate::cli::KeyArgs,

    /// YAML file with any of these settings
    #[arg(
        long,
        env = "WEFT_CONFIG",
        value_name = "FILE",
        help_heading = "The process"
    )]
    pub(crate) config: Option<PathBuf>,

    #[command(flatten, next_help_heading = "The process")]
    pub(crate) process: ProcessSettings,
}

/// Where other meshes fetch this one's trust bundle.
#[derive(Debug, Clone, clap::Args)]
pub(crate) struct BundleSettings {
    /// Address and TCP port of an HTTPS bundle endpoint, for other meshes that are to accept this one
    #[arg(long, env = "WEFT_BUNDLE_LISTEN", value_name = "ADDR")]
    pub(crate) bundle_listen: Option<SocketAddr>,

    /// Certificates (PEM, leaf first) to present there as https_web; without, the control node's SVID (https_spiffe)
    #[arg(
        long,
        env = "WEFT_BUNDLE_CERT",
        value_name = "FILE",
        requires = "bundle_key"
    )]
    pub(crate) bundle_cert: Option<PathBuf>,

    /// Key (PEM) of --bundle-cert
    #[arg(
        long,
        env = "WEFT_BUNDLE_KEY",
        value_name = "FILE",
        requires = "bundle_cert"
    )]
    pub(crate) bundle_key: Option<PathBuf>,

    /// How often the others are asked to fetch it
    #[arg(long, env = "WEFT_BUNDLE_REFRESH", value_name = "DURATION", default_value = "5m", value_parser = refresh)]
    pub(crate) bundle_refresh: Duration,
}

impl BundleSettings {
    /// The endpoint, if there is to be one.
    pub(crate) fn endpoint(self) -> Option<BundleEndpoint> {
        let web = self.bundle_cert.zip(self.bundle_key);
        Some(BundleEndpoint {
            listen: self.bundle_listen?,
            web: web.map(|(chain, key)| WebCertificate { chain, key }),
            refresh_hint: self.bundle_refresh,
        })
    }
}

/// The hint is in whole seconds, and others do not go below one.
fn refresh(text: &str) -> Result<Duration, String> {
    let duration = super::duration(text)?;
    match duration.as_secs() {
        1..=86_400 => Ok(Duration::from_secs(duration.as_secs())),
        _ => Err("give 1s to 24h".to_owned()),
    }
}
