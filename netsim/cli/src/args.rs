//! The command line.

use std::net::Ipv4Addr;
use std::path::PathBuf;

use clap::{Args, Parser, Subcommand, ValueEnum};
use weft_netsim::Profile;

use crate::overrides::Overrides;
use crate::units::Span;

/// Bad networks on demand: links with delay, loss, a bottleneck, between network namespaces; and a whole mesh in
/// virtual time under random faults
#[derive(Debug, Parser)]
#[command(name = "weft-netsim", version, max_term_width = 100)]
pub(crate) struct Cli {
    #[command(subcommand)]
    pub(crate) command: Command,
}

/// The subcommands. Another one is a variant here, a module in `command` that calls its library, and a line in
/// `command::run`; only those that build real links ask for root.
#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Join two namespaces by a link, until interrupted
    Link(Box<LinkArgs>),
    /// Build the mesh of a file, run a command in it, remove everything
    Run(RunArgs),
    /// Measure whether links keep their promises on this machine
    Selftest(SelftestArgs),
    /// Run a small mesh in virtual time under random faults, seed after seed, and check what must hold
    Fuzz(FuzzArgs),
    /// Prove that `fuzz` finds faults: break weft on purpose, and count the seeds until it is noticed
    #[cfg(feature = "mutants")]
    Mutants(MutantsArgs),
    /// List the links that have a name
    Profiles(ProfilesArgs),
    /// The process that removes what a run left
    #[command(name = crate::lease::WATCH, hide = true)]
    Watch {
        /// The run
        id: String,
    },
}

/// Form of a command's output.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Format {
    /// Lines for people
    Table,
    /// One JSON document
    Json,
}

#[derive(Debug, Args)]
pub(crate) struct LinkArgs {
    /// What the link is like; `weft-netsim profiles` lists them
    #[arg(long)]
    pub(crate) profile: Profile,
    /// Namespace of one end (`ip netns add NS` makes one)
    #[arg(long, value_name = "NS")]
    pub(crate) a: String,
    /// Namespace of the other end
    #[arg(long, value_name = "NS")]
    pub(crate) b: String,
    /// Address of end a
    #[arg(long, value_name = "IP", default_value = "10.77.0.1")]
    pub(crate) a_address: Ipv4Addr,
    /// Address of end b
    #[arg(long, value_name = "IP", default_value = "10.77.0.2")]
    pub(crate) b_address: Ipv4Addr,
    /// Name of the device at both ends
    #[arg(long, value_name = "NAME", default_value = "weft0")]
    pub(crate) device: String,
    /// MTU of the two devices, which both ends know
    #[arg(long, value_name = "BYTES", default_value_t = crate::mesh_file::default_mtu())]
    pub(crate) mtu: u32,
    /// Where all chance comes from: the same seed loses the same packets
    #[arg(long, default_value_t = crate::mesh_file::default_seed())]
    pub(crate) seed: u64,
    /// Put end a behind a NAT that forgets its mappings so often, such as 30s
    #[arg(long, value_name = "TIME")]
    pub(crate) nat_rebind: Option<Span>,
    /// End by itself after this time
    #[arg(long, value_name = "TIME")]
    pub(crate) duration: Option<Span>,
    /// Form of the report at the end
    #[arg(short, long, value_enum, default_value_t = Format::Table)]
    pub(crate) output: Format,
    #[command(flatten)]
    pub(crate) overrides: Overrides,
}

#[derive(Debug, Args)]
#[command(after_help = "\
The command finds these variables, and so does all that it starts (NODE in capitals, '-' as '_'):
  WEFT_NODES      the nodes' names
  WEFT_IP_NODE    the node's address
  WEFT_NS_NODE    the node's namespace
  WEFT_IN_NODE    the words that run a command there: $WEFT_IN_A curl http://$WEFT_IP_B:8080/
  WEFT_NETSIM_RUN the run; processes that carry it end with the run

The exit code is the command's.")]
pub(crate) struct RunArgs {
    /// Nodes and links, in YAML (docs/netsim.md)
    pub(crate) mesh: PathBuf,
    /// Run the command in this node's namespace instead of this machine's own
    #[arg(long = "in", value_name = "NODE")]
    pub(crate) node: Option<String>,
    /// In place of the file's seeds: this for the first link, one more for each further
    #[arg(long)]
    pub(crate) seed: Option<u64>,
    /// Write what the links did as JSON into this file
    #[arg(long, value_name = "FILE")]
    pub(crate) report: Option<PathBuf>,
    /// Say nothing about the links at the end
    #[arg(short, long)]
    pub(crate) quiet: bool,
    /// The command and its arguments
    #[arg(last = true, required = true)]
    pub(crate) command: Vec<String>,
}

#[derive(Debug, Args)]
pub(crate) struct SelftestArgs {
    /// A few seconds with fewer packets instead of a minute
    #[arg(long)]
    pub(crate) quick: bool,
    /// Where all chance comes from
    #[arg(long, default_value_t = 1)]
    pub(crate) seed: u64,
    /// Form of the result
    #[arg(short, long, value_enum, default_value_t = Format::Table)]
    pub(crate) output: Format,
}

#[derive(Debug, Args)]
#[command(after_help = "\
Each seed is a mesh (a control node, three services with two instances each), its requests and its faults. A seed
that breaks a promise ends in a timeline, the promise, and the command that runs it again: a seed repeats to the byte
with the same build. The exit code is 1 if any seed failed.")]
pub(crate) struct FuzzArgs {
    /// How many seeds
    #[arg(long, default_value_t = 200)]
    pub(crate) seeds: u64,
    /// How many at a time
    #[arg(long, default_value_t = 2, value_parser = clap::value_parser!(u16).range(1..))]
    pub(crate) jobs: u16,
    /// The first seed
    #[arg(long, default_value_t = 0)]
    pub(crate) first: u64,
    /// Faults in each run
    #[arg(long, default_value_t = weft_netsim_harness::Settings::default().faults)]
    pub(crate) faults: u32,
    /// Go on after a seed that failed
    #[arg(long)]
    pub(crate) keep_going: bool,
    /// Print the whole timeline of a seed that failed, not only its end
    #[arg(long)]
    pub(crate) timeline: bool,
    /// Break weft on purpose (`weft-netsim mutants` runs them all)
    #[cfg(feature = "mutants")]
    #[arg(long, value_name = "NAME", env = "WEFT_MUTANT")]
    pub(crate) mutant: Option<weft_netsim_harness::Mutant>,
}

#[cfg(feature = "mutants")]
#[derive(Debug, Args)]
pub(crate) struct MutantsArgs {
    /// Only these
    pub(crate) names: Vec<weft_netsim_harness::Mutant>,
    /// Seeds in which each must be noticed
    #[arg(long, default_value_t = 1_000)]
    pub(crate) seeds: u64,
    /// The one seed that is known to notice each, and others only where that one does not any more: quick enough for every change
    #[arg(long, conflicts_with = "seeds")]
    pub(crate) known: bool,
    /// How many seeds at a time
    #[arg(long, default_value_t = 2, value_parser = clap::value_parser!(u16).range(1..))]
    pub(crate) jobs: u16,
}

#[derive(Debug, Args)]
pub(crate) struct ProfilesArgs {
    /// Form of the list
    #[arg(short, long, value_enum, default_value_t = Format::Table)]
    pub(crate) output: Format,
}
