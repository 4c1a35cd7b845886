//! The command line of identities: `weft ca …` and `weft cert …`.

use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, Subcommand, ValueEnum};

use super::{AdminArgs, OutputArgs};
use crate::settings::duration;

/// A duration, also in days (`30d`), as certificates are counted in.
pub(super) fn days(text: &str) -> Result<Duration, String> {
    match text.strip_suffix('d').map(str::parse::<u64>) {
        Some(Ok(days)) if days <= 36_500 => Ok(Duration::from_secs(days * 86_400)),
        _ => duration(text),
    }
}

/// Where the authority's keys are, and what opens them. The PIN of a token is never an argument: others see those.
#[derive(Debug, Clone, Args)]
pub(crate) struct KeyArgs {
    /// File with the passphrase or key that seals the authority's private keys (mode 0600); without it they lie
    /// unsealed, readable by their owner only
    #[arg(long, env = "WEFT_CA_SECRET_FILE", value_name = "FILE")]
    pub(crate) ca_secret_file: Option<PathBuf>,

    /// Library of a PKCS#11 token that the authority's keys are made in and never leave, such as
    /// /usr/lib/softhsm/libsofthsm2.so; said once, when they are made
    #[arg(
        long,
        env = "WEFT_PKCS11_MODULE",
        value_name = "FILE",
        conflicts_with = "ca_secret_file"
    )]
    pub(crate) pkcs11_module: Option<PathBuf>,

    /// Label of that token; said once, when the keys are made
    #[arg(
        long,
        env = "WEFT_PKCS11_TOKEN",
        value_name = "LABEL",
        conflicts_with = "ca_secret_file"
    )]
    pub(crate) pkcs11_token: Option<String>,

    /// File with the PIN of that token (mode 0600); or the PIN is in the variable WEFT_PKCS11_PIN
    #[arg(
        long,
        env = "WEFT_PKCS11_PIN_FILE",
        value_name = "FILE",
        conflicts_with = "ca_secret_file"
    )]
    pub(crate) pkcs11_pin_file: Option<PathBuf>,
}

/// What seals a backup.
#[derive(Debug, Clone, Args)]
pub(crate) struct BackupSecret {
    /// File with the passphrase or key that seals the backup (mode 0600)
    #[arg(long, value_name = "FILE")]
    pub(crate) secret_file: PathBuf,
}

/// What can be prepared.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Preparable {
    /// Signs the certificates of sidecars
    Issuing,
    /// Signs issuing authorities; in the trust bundle
    Root,
    /// A key that signs tokens (JWT-SVIDs); in the trust bundle
    Jwt,
}

impl Preparable {
    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Self::Issuing => "issuing",
            Self::Root => "root",
            Self::Jwt => "jwt",
        }
    }
}

/// An authority's role.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Role {
    /// Signs the certificates of sidecars
    Issuing,
    /// Signs issuing authorities; in the trust bundle
    Root,
}

impl Role {
    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Self::Issuing => "issuing",
            Self::Root => "root",
        }
    }
}

/// Certificates of sidecars.
#[derive(Debug, Subcommand)]
pub(crate) enum CertCommand {
    /// Lists every sidecar's certificate: identity, serial, issuer, remaining life
    Show {
        #[command(flatten)]
        admin: AdminArgs,
        #[command(flatten)]
        output: OutputArgs,
    },
    /// Has sidecars take new certificates now; requests under way are not disturbed
    #[command(
        override_usage = "weft cert rotate [OPTIONS] <--all | --service <NAME[.NAMESPACE]> | --instance <INSTANCE>>..."
    )]
    Rotate {
        #[command(flatten)]
        admin: AdminArgs,
        /// Every sidecar
        #[arg(
            long,
            required_unless_present_any = ["service", "instance"],
            conflicts_with_all = ["service", "instance"]
        )]
        all: bool,
        /// Only sidecars of this service. May be given several times
        #[arg(long, value_name = "NAME[.NAMESPACE]")]
        service: Vec<String>,
        /// Only this instance (see `weft status`). May be given several times
        #[arg(long, value_name = "INSTANCE")]
        instance: Vec<String>,
        /// How long to wait for all of them
        #[arg(long, value_name = "DURATION", default_value = "30s", value_parser = duration)]
        timeout: Duration,
        #[command(flatten)]
        output: OutputArgs,
    },
    /// Ends an identity, a key or one certificate everywhere within two seconds: handshakes are refused, live
    /// connections cut, and of an identity its unused join tokens are void
    Revoke {
        #[command(flatten)]
        admin: AdminArgs,
        #[command(flatten)]
        target: RevokeTarget,
        /// Why, for the audit log
        #[arg(long, value_name = "TEXT")]
        reason: Option<String>,
        /// Wait for the receipt of every sidecar (refused since when, connections cut); exit 1 and name those
        /// whose receipt is missing
        #[arg(long)]
        prove: bool,
        /// How long --prove waits
        #[arg(long, value_name = "DURATION", default_value = "10s", value_parser = duration)]
        timeout: Duration,
        #[command(flatten)]
        output: OutputArgs,
    },
    /// Lets a revoked identity in again, with a new token; what it had before stays dead
    Readmit {
        #[command(flatten)]
        admin: AdminArgs,
        /// The identity
        #[arg(long, value_name = "ID")]
        spiffe_id: String,
    },
    /// Lists what is revoked
    Revoked {
        #[command(flatten)]
        admin: AdminArgs,
        #[command(flatten)]
        output: OutputArgs,
    },
    /// Holds the certificates of a file against a trust bundle, as a peer would, and says which rule fails
    Verify {
        /// Certificate chain, leaf first: PEM, or one certificate in DER
        file: PathBuf,
        /// Trust bundle: PEM of roots (`weft ca export`), a sidecar's bundles.json, or a SPIFFE JWK set
        #[arg(long, value_name = "FILE")]
        bundle: PathBuf,
        #[command(flatten)]
        output: OutputArgs,
    },
    /// Shows what is in the certificates of a file, and which rule of X509-SVID a leaf breaks
    Inspect {
        /// Certificates: PEM, or one in DER
        file: PathBuf,
        #[command(flatten)]
        output: OutputArgs,
    },
}

/// One of the three.
#[derive(Debug, Args)]
#[group(required = true, multiple = false)]
pub(crate) struct RevokeTarget {
    /// An identity, with every certificate and token of it
    #[arg(long, value_name = "ID")]
    pub(crate) spiffe_id: Option<String>,
    /// One certificate, by its serial number (see `weft cert show`)
    #[arg(long, value_name = "HEX")]
    pub(crate) serial: Option<String>,
    /// A key, by its hash (see `weft cert inspect`): every certificate that has or will have it
    #[arg(long, value_name = "sha256:HEX")]
    pub(crate) key: Option<String>,
}

/// Delegates of sites.
#[derive(Debug, Subcommand)]
pub(crate) enum DelegateCommand {
    /// Authorizes the delegate of a site and prints the token with which it comes, once; for one that there is, a new list
    /// and life, and another token
    Create {
        #[command(flatten)]
        admin: AdminArgs,
        /// Name of the site
        #[arg(long, value_name = "NAME")]
        site: String,
        /// For whom it may vouch: a SPIFFE ID, or a path with /* for all below, such as
        /// spiffe://weft.local/ns/paris/*. May be given several times
        #[arg(long, value_name = "ID|PATH/*", required = true)]
        allow: Vec<String>,
        /// Life of its certificate: so long the site may be cut off. 1m to 30d
        #[arg(long, value_name = "DURATION", default_value = "7d", value_parser = days)]
        ttl: Duration,
        /// How long the token may be used
        #[arg(long, value_name = "DURATION", default_value = "10m", value_parser = days)]
        token_ttl: Duration,
        #[command(flatten)]
        output: OutputArgs,
    },
    /// Lists delegates: state, end of the certificate, when last heard of, for whom
    List {
        #[command(flatten)]
        admin: AdminArgs,
        #[command(flatten)]
        output: OutputArgs,
    },
    /// Ends a delegate by its key: nobody accepts it, nor anything that it ever issued
    Revoke {
        #[command(flatten)]
        admin: AdminArgs,
        /// Name of the site
        site: String,
        #[command(flatten)]
        output: OutputArgs,
    },
}

/// The authority.
#[derive(Debug, Subcommand)]
pub(crate) enum CaCommand {
    /// Shows root and issuing certificates, and the root's pin
    Show {
        #[command(flatten)]
        admin: AdminArgs,
        #[command(flatten)]
        output: OutputArgs,
    },
    /// Replaces an authority and every certificate under it, without a failed request
    ///
    /// A new root signs nothing before every connected sidecar trusts it, and the old one stays trusted until nothing
    /// chains to it. May be interrupted (Ctrl-C): the control node goes on, and the same command shows it again.
    Rotate {
        #[command(flatten)]
        admin: AdminArgs,
        /// Which
        #[arg(value_enum, default_value_t = Role::Issuing)]
        role: Role,
        /// Drop the old one as soon as no connected sidecar needs it, without waiting for the certificates of those
        /// that are not connected
        #[arg(long)]
        now: bool,
        /// Say what would be done, and do nothing
        #[arg(long)]
        dry_run: bool,
        /// Go on without connected sidecars that do not follow in time; they are named
        #[arg(long)]
        allow_missing: bool,
        /// How long to wait for every sidecar
        #[arg(long, value_name = "DURATION", default_value = "60s", value_parser = duration)]
        timeout: Duration,
        #[command(flatten)]
        output: OutputArgs,
    },
    /// Makes the next authority of a role; it signs nothing yet, and a root is trusted from now on
    Prepare {
        #[command(flatten)]
        admin: AdminArgs,
        /// Which
        #[arg(value_enum)]
        role: Preparable,
        #[command(flatten)]
        output: OutputArgs,
    },
    /// Has a prepared authority sign; a root, or a key for tokens, only once every connected sidecar trusts it
    Activate {
        #[command(flatten)]
        admin: AdminArgs,
        /// Its name, such as root-2 (see `weft ca show`)
        slot: String,
        /// Leave behind those that do not trust it yet; they are named
        #[arg(long)]
        allow_missing: bool,
        #[command(flatten)]
        output: OutputArgs,
    },
    /// Notes that an authority's key may be in other hands: nothing is built on it any more
    Taint {
        #[command(flatten)]
        admin: AdminArgs,
        /// Its name, such as root-1 (see `weft ca show`)
        slot: String,
        #[command(flatten)]
        output: OutputArgs,
    },
    /// Distrusts an authority and all that it ever signed, at once
    Revoke {
        #[command(flatten)]
        admin: AdminArgs,
        /// Its name, such as issuing-1 (see `weft ca show`)
        slot: String,
        /// Do it even if connected sidecars are cut off; they are named
        #[arg(long)]
        allow_missing: bool,
        #[command(flatten)]
        output: OutputArgs,
    },
    /// Authorizes, lists and ends delegates, which issue for one site while no control node can be reached
    #[command(subcommand)]
    Delegate(DelegateCommand),
    /// Shows the signed proof of finished rotations, or checks one (offline)
    Evidence {
        #[command(flatten)]
        admin: AdminArgs,
        /// Print the signed document of this rotation, to be kept elsewhere
        number: Option<u64>,
        /// Check a document: needs --pin or --bundle, and no control node
        #[arg(long, value_name = "FILE", conflicts_with = "number")]
        check: Option<PathBuf>,
        /// The root's pin to check against
        #[arg(long, value_name = "sha256:HEX", requires = "check")]
        pin: Option<weft_certs::RootPin>,
        /// The trust bundle to check against
        #[arg(long, value_name = "FILE", requires = "check", conflicts_with = "pin")]
        bundle: Option<PathBuf>,
        #[command(flatten)]
        output: OutputArgs,
    },
    /// Shows the audit log: every certificate, refusal, token, rotation and revocation
    Audit {
        #[command(flatten)]
        admin: AdminArgs,
        /// Check that no record was changed, left out or put in between
        #[arg(long)]
        verify: bool,
        /// Only records younger than this (1h, 30d)
        #[arg(long, value_name = "DURATION", value_parser = days)]
        since: Option<Duration>,
        #[command(flatten)]
        output: OutputArgs,
    },
    /// Prints the roots of the trust bundle as PEM
    Export {
        #[command(flatten)]
        admin: AdminArgs,
    },
    /// Makes the key of the next issuing authority and prints the request that an offline root is to sign
    Csr {
        #[command(flatten)]
        admin: AdminArgs,
    },
    /// Signs such a request, on a machine that never joins the mesh; makes the root if there is none yet
    Sign {
        /// Directory of the offline root's key and certificate
        #[arg(long, value_name = "DIR")]
        root_dir: PathBuf,
        /// The request, as `weft ca csr` prints it
        #[arg(long, value_name = "FILE")]
        csr: PathBuf,
        /// Trust domain of a root that is made now
        #[arg(long, value_name = "NAME", default_value = "weft.local")]
        trust_domain: weft_certs::TrustDomain,
        /// Kind of key of a root that is made now
        #[arg(long, value_name = "p256|p384|ed25519", default_value = "p256")]
        key_type: weft_ca::KeyType,
        /// Life of the issuing certificate
        #[arg(long, value_name = "DURATION", default_value = "90d", value_parser = days)]
        ttl: Duration,
        #[command(flatten)]
        keys: KeyArgs,
    },
    /// Takes the certificates that answer a request; `weft ca rotate root` then brings them into use
    Import {
        #[command(flatten)]
        admin: AdminArgs,
        /// PEM of the issuing certificate, its issuers and their root
        file: PathBuf,
        #[command(flatten)]
        output: OutputArgs,
    },
    /// Writes the whole state of the control node, sealed, into one file; it may run meanwhile
    Backup {
        #[command(flatten)]
        admin: AdminArgs,
        /// File to write; must not exist
        file: PathBuf,
        #[command(flatten)]
        secret: BackupSecret,
        #[command(flatten)]
        keys: KeyArgs,
    },
    /// Makes a control node's state directory from a backup
    Restore {
        #[command(flatten)]
        admin: AdminArgs,
        /// The backup
        file: PathBuf,
        #[command(flatten)]
        secret: BackupSecret,
        #[command(flatten)]
        keys: KeyArgs,
    },
}
