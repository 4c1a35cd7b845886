//! Why a control node cannot be made, started or go on.

use std::io;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::SystemTime;

use weft_ca::rfc3339;
use weft_env::DiskError;

use crate::store::StoreError;

/// See the variants: each is one sentence with the cause and, where there is one, the next step.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ControlError {
    /// `init` on a directory that has a state.
    #[error(
        "{dir} already has the state of a mesh; use it with: weft control --state-dir {dir}, or choose another directory",
        dir = dir.display()
    )]
    AlreadyInitialised {
        /// The state directory.
        dir: PathBuf,
    },
    /// `init` on a directory that has something else in it.
    #[error(
        "{dir} is not empty and has no weft state; choose a directory that is empty or does not exist",
        dir = dir.display()
    )]
    NotEmpty {
        /// The directory.
        dir: PathBuf,
    },
    /// `run` without `init`.
    #[error(
        "{dir} has no state of a mesh; make one with: weft init --state-dir {dir}",
        dir = dir.display()
    )]
    NotInitialised {
        /// The state directory.
        dir: PathBuf,
    },
    /// What the bundle endpoint is to present cannot be used.
    #[error(
        "the bundle endpoint has no certificate to present: {reason}; see --bundle-cert and --bundle-key, or leave both out to present the control node's SVID (https_spiffe)"
    )]
    BundleCertificate {
        /// Why.
        reason: String,
    },
    /// Who may join without a token cannot be read.
    #[error(
        "who may join without a token cannot be read: {reason}; mend it, or leave out --attest to let nobody join that way"
    )]
    Attestors {
        /// What is wrong, and where.
        reason: String,
    },
    /// The roots of another provider cannot be read.
    #[error(
        "the roots of another provider of identities cannot be read: {reason}; mend the file of --trust-bundle, or leave it out to trust the mesh's own roots alone"
    )]
    TrustBundle {
        /// What is wrong, and where.
        reason: String,
    },
    /// The path is so long that the admin socket cannot be in it.
    #[error(
        "the path of the state directory {dir} is too long: that of the socket in it has {length} bytes and may have {max}; choose a shorter one with --state-dir",
        dir = dir.display(), max = weft_env::SOCKET_PATH_MAX
    )]
    PathTooLong {
        /// The state directory.
        dir: PathBuf,
        /// Bytes of the socket's path.
        length: usize,
    },
    /// The directory belongs to another user.
    #[error(
        "the state directory {dir} belongs to user {owner}, not to user {me} who runs this; start as its owner, or choose another directory",
        dir = dir.display()
    )]
    NotOwner {
        /// The state directory.
        dir: PathBuf,
        /// Who owns it.
        owner: u32,
        /// Who we are.
        me: u32,
    },
    /// The directory cannot be written or made.
    #[error(
        "the state directory {dir} cannot be used: {reason}; choose another with --state-dir, or change its permissions",
        dir = dir.display()
    )]
    StateDir {
        /// The state directory.
        dir: PathBuf,
        /// Why.
        reason: String,
    },
    /// Another control node runs.
    #[error(
        "another control node uses this state directory, {dir}; stop it first, or choose another directory",
        dir = dir.display()
    )]
    InUse {
        /// The state directory.
        dir: PathBuf,
    },
    /// A setting that cannot be.
    #[error("{0}")]
    Config(String),
    /// A listener could not be opened.
    #[error(
        "cannot listen on {what} {addr}: {reason}; choose another address, or stop what uses it"
    )]
    Listen {
        /// What for.
        what: &'static str,
        /// Where.
        addr: SocketAddr,
        /// Why not.
        reason: String,
    },
    /// The local socket could not be opened.
    #[error("the admin socket cannot be opened: {0}")]
    Socket(#[source] io::Error),
    /// A part without which there is no control node does not work any more: a fault in weft.
    #[error("{0}; start it again, and report this with the lines before it in the log")]
    Broken(#[from] weft_env::Broken),
    /// The ready file could not be written.
    #[error("the ready file cannot be written: {0}; choose another place with --ready-file")]
    ReadyFile(#[source] DiskError),
    /// A file that it needs.
    #[error(transparent)]
    Disk(#[from] DiskError),
    /// A backup that cannot be used.
    #[error("the backup is not usable: {reason}")]
    Backup {
        /// Why.
        reason: String,
    },
    /// What is stored makes no sense.
    #[error("{what}; restore the state directory from a backup")]
    Damaged {
        /// What.
        what: String,
    },
    /// The issuing CA has ended, and no other one can be made.
    #[error(
        "the issuing CA {slot} does not hold by this machine's clock, which says {now} (it ends {at}), and none can be made in its place: {reason}; if the clock is wrong, set it right; with a root elsewhere, set the clock to before that end for as long as its request is made and its answer imported; a root that has ended needs a new mesh: weft init",
        at = rfc3339(*at), now = rfc3339(*now)
    )]
    AuthorityEnded {
        /// Its name.
        slot: String,
        /// Its end.
        at: SystemTime,
        /// What the clock says.
        now: SystemTime,
        /// Why there is none in its place.
        reason: weft_ca::Error,
    },
    /// The clock is behind what this node has seen.
    #[error(
        "this machine's clock says {now}, but the issuing CA {slot} begins to hold at {from}: the clock is behind, set it right and start again; nothing was changed",
        from = rfc3339(*from), now = rfc3339(*now)
    )]
    ClockBehind {
        /// The issuing CA's name.
        slot: String,
        /// Its begin.
        from: SystemTime,
        /// What the clock says.
        now: SystemTime,
    },
    /// The directory, or what it takes, is not that of a delegate.
    #[error("the delegate cannot start: {reason}")]
    NotADelegate {
        /// Why not, and what to do.
        reason: String,
    },
    /// The delegate's certificate has ended.
    #[error(
        "the delegate of site {site} has ended at {at}: make a token with `weft ca delegate create --site {site}` at the control node, and start it with --token-file",
        at = rfc3339(*at)
    )]
    DelegateEnded {
        /// The site.
        site: String,
        /// When.
        at: SystemTime,
    },
    /// Its own fresh certificate does not hold here and now.
    #[error("this node's own certificate cannot be used: {0}")]
    OwnCertificate(#[source] weft_certs::VerifyError),
    /// The store.
    #[error(transparent)]
    Store(StoreError),
    /// The authority.
    #[error(transparent)]
    Ca(#[from] weft_ca::Error),
    /// The mesh endpoint.
    #[error("{0}")]
    Transport(String),
}
