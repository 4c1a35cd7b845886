//! The command line: every subcommand and its flags. What they do is in `command` and `demo`.

use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, Parser, Subcommand};

mod federation;
mod identity;

pub(crate) use federation::{AddArgs, FederationCommand, ProfileName};
pub(crate) use identity::{CaCommand, CertCommand, DelegateCommand, KeyArgs, Role as CaRole};

use crate::demo::DemoArgs;
use crate::demo_app::DemoAppArgs;
use crate::output::Format;
use crate::settings::{
    ControlSettings, DelegateSettings, Sidecars, control_state_dir, duration, sidecar_state_dir,
    whole,
};

/// A zero-trust network for services on many machines, over QUIC.
///
/// See it work in half a minute: `weft demo`. On your machines: `weft init` and `weft control` on one,
/// `weft token create` there, and `weft sidecar` beside each service.
#[derive(Debug, Parser)]
#[command(
    name = "weft",
    version,
    propagate_version = true,
    arg_required_else_help = true,
    max_term_width = 100,
    after_help = "\
Exit codes: 0 done, 1 failed (one sentence says what, why and what to do), 2 wrong usage.
Logs and errors go to standard error, results to standard output."
)]
pub(crate) struct Cli {
    #[command(subcommand)]
    pub(crate) command: Role,
}

/// What weft is asked to be or to do.
#[derive(Debug, Subcommand)]
pub(crate) enum Role {
    Init(InitArgs),
    Control(Box<ControlSettings>),
    /// Makes and lists one-time join tokens
    #[command(subcommand)]
    Token(TokenCommand),
    Sidecar(Sidecars),
    Delegate(Box<DelegateSettings>),
    Upgrade(UpgradeArgs),
    Apply(ApplyArgs),
    Get(GetArgs),
    Delete(DeleteArgs),
    /// Shows and renews the certificates of sidecars
    #[command(subcommand)]
    Cert(CertCommand),
    /// Shows and rotates the authority that signs them
    #[command(subcommand)]
    Ca(CaCommand),
    /// Accepts the identities of other meshes
    #[command(subcommand)]
    Federation(FederationCommand),
    Status(StatusArgs),
    Top(TopArgs),
    Demo(DemoArgs),
    Version(VersionArgs),
    Completions(CompletionsArgs),
    #[command(hide = true)]
    DemoApp(DemoAppArgs),
    /// Removes a directory once standard input ends: the demo's clean-up, should the demo be killed
    #[command(hide = true)]
    DemoSweep {
        dir: PathBuf,
    },
}

/// Where the control node is found: its socket is in its state directory.
#[derive(Debug, Clone, Args)]
pub(crate) struct AdminArgs {
    /// State directory of the control node on this machine
    #[arg(long, env = "WEFT_STATE_DIR", value_name = "DIR", default_value_os_t = control_state_dir())]
    pub(crate) state_dir: PathBuf,
}

impl Role {
    /// Adds what the command line says with another settings file.
    pub(crate) fn join(&mut self, other: Self) {
        // Only sidecars take several.
        if let (Self::Sidecar(all), Self::Sidecar(mut more)) = (self, other) {
            all.each.append(&mut more.each);
        }
    }
}

/// How a list is shown.
#[derive(Debug, Clone, Copy, Args)]
pub(crate) struct OutputArgs {
    /// Form of the output
    #[arg(short, long, value_enum, value_name = "FORMAT", default_value_t = Format::Table)]
    pub(crate) output: Format,
}

/// Makes a mesh: its state directory, root and issuing authority. Prints the root's pin.
///
/// The pin is the hash by which sidecars know the right mesh when they join; it is not a secret.
#[derive(Debug, Args)]
pub(crate) struct InitArgs {
    /// Directory to make; must be empty or not exist
    #[arg(long, env = "WEFT_STATE_DIR", value_name = "DIR", default_value_os_t = control_state_dir())]
    pub(crate) state_dir: PathBuf,

    /// Trust domain of all identities: a name of your own, fixed for the life of the mesh
    #[arg(
        long,
        env = "WEFT_TRUST_DOMAIN",
        value_name = "NAME",
        default_value = "weft.local"
    )]
    pub(crate) trust_domain: weft_certs::TrustDomain,

    /// Life of the certificates of sidecars: at most 24h; below 5m, down to 5s, is for tests
    #[arg(long, value_name = "DURATION", default_value = "1h", value_parser = duration)]
    pub(crate) leaf_ttl: Duration,

    /// Longest life that a certificate of a sidecar may have [default: 24h, or a sixth of --issuing-ttl]
    #[arg(long, value_name = "DURATION", value_parser = duration)]
    pub(crate) max_leaf_ttl: Option<Duration>,

    /// Life of the issuing certificate; at least 6 times the longest life of a sidecar's
    #[arg(long, value_name = "DURATION", default_value = "30d", value_parser = identity::days)]
    pub(crate) issuing_ttl: Duration,

    /// Life of the root
    #[arg(long, value_name = "DURATION", default_value = "3652d", value_parser = identity::days)]
    pub(crate) root_ttl: Duration,

    /// Kind of the authority's keys
    #[arg(long, value_name = "p256|p384|ed25519", default_value = "p256")]
    pub(crate) key_type: weft_ca::KeyType,

    /// Certificates that the authority signs per second; beyond it, it says when to come back
    #[arg(long, value_name = "N", default_value_t = 50, value_parser = |text: &str| whole::<u32>(text, 1..=10_000))]
    pub(crate) certificates_per_second: u32,

    #[command(flatten)]
    pub(crate) keys: KeyArgs,

    #[command(flatten)]
    pub(crate) output: OutputArgs,
}

/// One-time join tokens.
#[derive(Debug, Subcommand)]
pub(crate) enum TokenCommand {
    /// Makes a token with which one sidecar may join as a service, once
    Create {
        #[command(flatten)]
        admin: AdminArgs,
        /// The service that the sidecar will stand for
        #[arg(long, value_name = "NAME")]
        service: String,
        /// Namespace of the service
        #[arg(long, value_name = "NAME", default_value = "default")]
        namespace: String,
        /// How long the token may be used
        #[arg(long, value_name = "DURATION", default_value = "10m", value_parser = identity::days)]
        ttl: Duration,
        #[command(flatten)]
        output: OutputArgs,
    },
    /// Takes an unused token back: whoever holds it cannot join with it any more
    Revoke {
        #[command(flatten)]
        admin: AdminArgs,
        /// Its id, or how it begins, as `weft token list` shows it
        id: String,
    },
    /// Lists tokens: for whom, how long, used or not. Never the token itself, which is not kept
    List {
        #[command(flatten)]
        admin: AdminArgs,
        #[command(flatten)]
        output: OutputArgs,
    },
}

/// Replaces a running sidecar by the program that is installed now, without losing a request.
///
/// The sidecar starts its own command line again. The new process takes over its ports, its identity and its config;
/// the old one finishes what is under way, and ends. If the new one cannot start, the old one goes on, and this says
/// why and exits with 1. A process that serves several services is replaced as a whole, whichever of them is named.
#[derive(Debug, Args)]
pub(crate) struct UpgradeArgs {
    /// State directory of the sidecar on this machine
    #[arg(long, env = "WEFT_STATE_DIR", value_name = "DIR", default_value_os_t = sidecar_state_dir())]
    pub(crate) state_dir: PathBuf,

    #[command(flatten)]
    pub(crate) output: OutputArgs,
}

/// Writes resources to the mesh: routes, policies, listeners.
///
/// All resources of one call are taken together or not at all. Faults of the file are found before
/// anything is sent and shown with file, line and column.
#[derive(Debug, Args)]
pub(crate) struct ApplyArgs {
    #[command(flatten)]
    pub(crate) admin: AdminArgs,

    /// File or directory (all its .yaml, .yml and .json) with resources, or - for standard input. May be
    /// given several times
    #[arg(short, long, value_name = "FILE|DIR|-", required = true)]
    pub(crate) file: Vec<PathBuf>,

    /// Wait until every live sidecar has the change in force; exit 1 and name those that refused or did
    /// not answer
    #[arg(long)]
    pub(crate) wait: bool,

    /// How long --wait waits
    #[arg(long, value_name = "DURATION", default_value = "10s", value_parser = duration)]
    pub(crate) timeout: Duration,

    #[command(flatten)]
    pub(crate) output: OutputArgs,
}

/// Shows resources.
#[derive(Debug, Args)]
#[command(
    after_help = "Kinds: HTTPRoute, AuthorizationPolicy, OutboundListener, ServiceEntry (any case, plural too)."
)]
pub(crate) struct GetArgs {
    #[command(flatten)]
    pub(crate) admin: AdminArgs,

    /// Only this kind
    pub(crate) kind: Option<String>,

    /// Only this name
    #[arg(requires = "kind")]
    pub(crate) name: Option<String>,

    /// Only this namespace
    #[arg(short, long, value_name = "NAME")]
    pub(crate) namespace: Option<String>,

    #[command(flatten)]
    pub(crate) output: OutputArgs,
}

/// Removes one resource, or all of a file: all or none.
#[derive(Debug, Args)]
#[command(
    override_usage = "weft delete [OPTIONS] <KIND> <NAME>\n       weft delete [OPTIONS] --file <FILE|DIR|->..."
)]
pub(crate) struct DeleteArgs {
    #[command(flatten)]
    pub(crate) admin: AdminArgs,

    /// Kind of the resource, such as HTTPRoute
    #[arg(required_unless_present = "file", requires = "name")]
    pub(crate) kind: Option<String>,

    /// Its name
    pub(crate) name: Option<String>,

    /// Its namespace
    #[arg(short, long, value_name = "NAME", default_value = "default")]
    pub(crate) namespace: String,

    /// File or directory as `weft apply` takes it: removes the resources that it names. May be given several times
    #[arg(short, long, value_name = "FILE|DIR|-", conflicts_with_all = ["kind", "namespace"])]
    pub(crate) file: Vec<PathBuf>,

    /// Wait until every live sidecar has the change in force
    #[arg(long)]
    pub(crate) wait: bool,

    /// How long --wait waits
    #[arg(long, value_name = "DURATION", default_value = "10s", value_parser = duration)]
    pub(crate) timeout: Duration,

    #[command(flatten)]
    pub(crate) output: OutputArgs,
}

/// Shows every sidecar: identity, version, revision in force or why it was refused, certificate,
/// connections, round-trip time.
#[derive(Debug, Args)]
pub(crate) struct StatusArgs {
    #[command(flatten)]
    pub(crate) admin: AdminArgs,
    /// Every path between sidecars, seen from both ends: is it the network? Round trip, loss, MTU, window, bytes,
    /// waiting, moves, profile, key exchange
    #[arg(long, conflicts_with = "expiring")]
    pub(crate) paths: bool,
    /// Only certificates and authorities that end within this time; exit 1 if there is one
    #[arg(long, value_name = "DURATION", value_parser = identity::days)]
    pub(crate) expiring: Option<Duration>,
    #[command(flatten)]
    pub(crate) output: OutputArgs,
}

/// Shows every edge (source → destination): requests, success rate, p50, p90, p99.
#[derive(Debug, Args)]
pub(crate) struct TopArgs {
    #[command(flatten)]
    pub(crate) admin: AdminArgs,
    #[command(flatten)]
    pub(crate) output: OutputArgs,
}

/// Prints the version.
#[derive(Debug, Args)]
pub(crate) struct VersionArgs {
    #[command(flatten)]
    pub(crate) output: OutputArgs,
}

/// Prints a completion script for a shell.
#[derive(Debug, Args)]
#[command(after_help = "For bash: weft completions bash > /etc/bash_completion.d/weft")]
pub(crate) struct CompletionsArgs {
    /// The shell
    #[arg(value_enum)]
    pub(crate) shell: clap_complete::Shell,
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory;

    #[test]
    fn the_command_line_is_consistent() {
        Cli::command().debug_assert();
    }

    #[test]
    fn usage_shows_what_one_must_choose_from() {
        let mut cli = Cli::command();
        cli.build();
        let usage = |path: &[&str]| {
            let mut command = &cli;
            for name in path {
                command = command.find_subcommand(name).expect("the command is there");
            }
            command.clone().render_usage().to_string()
        };
        let rotate = usage(&["cert", "rotate"]);
        for choice in ["--all", "--service", "--instance"] {
            assert!(rotate.contains(choice), "{choice} in {rotate}");
        }
        let delete = usage(&["delete"]);
        for choice in ["<KIND> <NAME>", "--file <FILE|DIR|->"] {
            assert!(delete.contains(choice), "{choice} in {delete}");
        }
    }

    #[test]
    fn every_visible_command_and_flag_has_a_help_text() {
        fn visit(command: &clap::Command) {
            if command.is_hide_set() {
                return;
            }
            assert!(command.get_about().is_some(), "{}", command.get_name());
            for arg in command.get_arguments() {
                assert!(
                    arg.get_help().is_some(),
                    "{} of {}",
                    arg.get_id(),
                    command.get_name()
                );
            }
            command.get_subcommands().for_each(visit);
        }
        visit(&Cli::command());
    }
}
