//! Settings of `weft control`.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use super::{LogSettings, default_state_dir};

/// Runs a control node: keeps the config, issues certificates, pushes both to every sidecar.
///
/// Run `weft init` once first. Every flag can also be given as an environment variable (WEFT_STATE_DIR
/// for --state-dir) or as a field of the YAML file named by --config (state-dir: …). A flag wins over the
/// environment, the environment over the file.
#[derive(Debug, Clone, clap::Args)]
#[command(after_help = "Ctrl-C or SIGTERM stops in order; a second one ends the process at once.")]
pub(crate) struct ControlSettings {
    /// YAML file with any of these settings
    #[arg(long, env = "WEFT_CONFIG", value_name = "FILE")]
    pub(crate) config: Option<PathBuf>,

    /// Directory with the store and the authority's keys, made by `weft init`
    #[arg(long, env = "WEFT_STATE_DIR", value_name = "DIR", default_value_os_t = default_state_dir())]
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
        default_value = "127.0.0.1:15020"
    )]
    pub(crate) metrics: SocketAddr,

    /// How long to wait at a stop for requests under way
    #[arg(long, env = "WEFT_DRAIN", value_name = "DURATION", default_value = "5s", value_parser = super::duration)]
    pub(crate) drain: Duration,

    /// Threads that serve; 2 keeps a push going while a certificate is signed
    #[arg(long, env = "WEFT_WORKERS", value_name = "N", default_value_t = 2, value_parser = clap::value_parser!(u16).range(1..=64))]
    pub(crate) workers: u16,

    /// File to write once ready: JSON with the addresses in use (port 0 asks the system for one)
    #[arg(long, env = "WEFT_READY_FILE", value_name = "FILE")]
    pub(crate) ready_file: Option<PathBuf>,

    /// Shifts this process's wall clock by so many seconds: for tests of clocks that disagree
    #[arg(
        long,
        env = "WEFT_CLOCK_OFFSET",
        value_name = "SECONDS",
        hide = true,
        default_value_t = 0,
        allow_negative_numbers = true
    )]
    pub(crate) clock_offset: i64,

    #[command(flatten)]
    pub(crate) log: LogSettings,
}
