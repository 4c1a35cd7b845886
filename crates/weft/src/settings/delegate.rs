//! Settings of `weft delegate`.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use weft_certs::{RootPin, TrustDomain};

use super::{ProcessSettings, WireSettings, delegate_state_dir};

/// Runs the delegate of a site: issues certificates for the site, and lets sidecars in there, while no control node can be
/// reached.
///
/// The first start needs the token and the pin that `weft ca delegate create` prints at the control node. While that can be
/// reached, the delegate renews its certificate, keeps what is pushed, and reports all that it did. `weft token create`
/// and `weft ca audit` with its state directory work here too. Every flag can also be given as an environment variable
/// (WEFT_STATE_DIR for --state-dir) or as a field of the YAML file named by --config (state-dir: …). A flag wins over the
/// environment, the environment over the file.
#[derive(Debug, Clone, clap::Args)]
#[command(after_help = "Ctrl-C or SIGTERM stops in order; a second one ends the process at once.")]
pub(crate) struct DelegateSettings {
    /// Directory for the delegate's key, certificate and store
    #[arg(long, env = "WEFT_STATE_DIR", value_name = "DIR", default_value_os_t = delegate_state_dir())]
    pub(crate) state_dir: PathBuf,

    /// The control node that it stands in for; several are tried in turn
    #[arg(
        long,
        env = "WEFT_CONTROL",
        value_name = "HOST:PORT",
        value_delimiter = ',',
        value_parser = super::sidecar::control
    )]
    pub(crate) control: Vec<String>,

    /// Trust domain of the mesh, as given to `weft init`
    #[arg(
        long,
        env = "WEFT_TRUST_DOMAIN",
        value_name = "NAME",
        default_value = "weft.local"
    )]
    pub(crate) trust_domain: TrustDomain,

    /// Hash of the mesh's root certificate (needed with a token; may stay)
    #[arg(long, env = "WEFT_PIN", value_name = "sha256:HEX")]
    pub(crate) pin: Option<RootPin>,

    /// File with the token of `weft ca delegate create` (first start, and after the delegate's certificate has ended)
    #[arg(long, env = "WEFT_TOKEN_FILE", value_name = "FILE")]
    pub(crate) token_file: Option<PathBuf>,

    /// Address and UDP port on which the site's sidecars reach it
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

    /// Threads that serve
    #[arg(long, env = "WEFT_WORKERS", value_name = "N", default_value_t = 2, value_parser = |text: &str| super::whole::<u16>(text, 1..=64))]
    pub(crate) workers: u16,

    #[command(flatten, next_help_heading = "The delegate's key")]
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
