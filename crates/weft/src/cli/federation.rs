//! Flags of `weft federation`.

use std::path::PathBuf;

use clap::{Args, Subcommand, ValueEnum};
use weft_certs::{SpiffeId, TrustDomain};

use super::{AdminArgs, OutputArgs};

/// How a bundle endpoint shows who it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum ProfileName {
    /// By its SVID
    #[value(name = "https_spiffe")]
    Spiffe,
    /// By a certificate of the web
    #[value(name = "https_web")]
    Web,
}

/// Other meshes whose identities this one accepts.
#[derive(Debug, Subcommand)]
pub(crate) enum FederationCommand {
    Add(Box<AddArgs>),
    /// Accepts a mesh no more, and cuts what its certificates vouched for
    Remove {
        #[command(flatten)]
        admin: AdminArgs,
        /// Its trust domain
        trust_domain: TrustDomain,
    },
    /// Lists the meshes that this one accepts, and how fresh their bundles are
    List {
        #[command(flatten)]
        admin: AdminArgs,
        #[command(flatten)]
        output: OutputArgs,
    },
    /// Fetches a mesh's bundle now, not only at its next turn
    Refresh {
        #[command(flatten)]
        admin: AdminArgs,
        /// Its trust domain
        trust_domain: TrustDomain,
        #[command(flatten)]
        output: OutputArgs,
    },
    /// Prints this mesh's own bundle, for the other side's --bundle
    Bundle {
        #[command(flatten)]
        admin: AdminArgs,
    },
}

/// Accepts the identities of another mesh: its bundle is fetched, kept fresh, and pushed to every sidecar.
///
/// It is one way. Both sides add each other if each is to call the other. Authenticated is not allowed: an
/// AuthorizationPolicy must name the other trust domain in a principal.
#[derive(Debug, Args)]
pub(crate) struct AddArgs {
    #[command(flatten)]
    pub(crate) admin: AdminArgs,

    /// Its trust domain
    pub(crate) trust_domain: TrustDomain,

    /// Where it serves its bundle, such as https://control.partner.example:8443/
    #[arg(long, value_name = "URL")]
    pub(crate) url: String,

    /// How that place shows who it is
    #[arg(
        long,
        value_enum,
        value_name = "PROFILE",
        default_value = "https_spiffe"
    )]
    pub(crate) profile: ProfileName,

    /// https_spiffe: whose SVID must be there [default: the control node of the other mesh, if that is weft's]
    #[arg(long, value_name = "ID")]
    pub(crate) endpoint_id: Option<SpiffeId>,

    /// https_spiffe: the other mesh's bundle as it is now, by which the first fetch knows the right place. A
    /// SPIFFE JWK set (`weft federation bundle` there) or PEM (`weft ca export` there)
    #[arg(long, value_name = "FILE")]
    pub(crate) bundle: Option<PathBuf>,

    /// https_web: authorities to accept (PEM), in place of those that this machine trusts
    #[arg(long, value_name = "FILE")]
    pub(crate) ca: Option<PathBuf>,

    #[command(flatten)]
    pub(crate) output: OutputArgs,
}
