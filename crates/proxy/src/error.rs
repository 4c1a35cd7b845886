//! Why a sidecar does not start or does not go on: one sentence each, with the next step.

use std::io;
use std::path::PathBuf;

use weft_certs::{SpiffeId, TrustDomain, VerifyError};
use weft_env::DiskError;
use weft_workload::ProviderError;

/// Why [`crate::run`] gave up.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// Settings that contradict each other or name something impossible.
    #[error("{0}")]
    Config(String),
    /// The Workload API's socket cannot be opened.
    #[error(transparent)]
    Workload(#[from] weft_workload::Error),
    /// The state directory cannot be used.
    #[error("the state directory {} cannot be used: {source}{}", dir.display(), next_step(source))]
    StateDir {
        /// The directory.
        dir: PathBuf,
        /// What went wrong on which file.
        source: DiskError,
    },
    /// The state directory is a control node's.
    #[error("{} is the state directory of a control node: give the sidecar one of its own with --state-dir", dir.display())]
    ControlDir {
        /// The directory.
        dir: PathBuf,
    },
    /// A file of the state directory holds what it should not.
    #[error("{} is damaged ({reason}): {remedy}", path.display())]
    Damaged {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        reason: String,
        /// What to do.
        remedy: &'static str,
    },
    /// Nothing saved and no token.
    #[error(
        "there is no identity in {} and no join token: make one with `weft token create --service NAME` on the control node and pass it with --token-file, or join with --machine-cert or --k8s-token", dir.display()
    )]
    NoToken {
        /// The state directory.
        dir: PathBuf,
    },
    /// A token but no pin.
    #[error(
        "joining needs the root's pin, so that the token goes to the right mesh only: pass --pin with what `weft ca show` prints"
    )]
    NoPin,
    /// The token file cannot be read.
    #[error(
        "the join token cannot be read: {0}; make one with `weft token create --service NAME` on the control node and name its file with --token-file"
    )]
    TokenFile(DiskError),
    /// The token is empty or much too long.
    #[error("{0} does not hold a join token: make one with `weft token create`")]
    TokenText(String),
    /// The machine's certificate or its key cannot be used.
    #[error(
        "this machine cannot show its certificate: {reason}; name its chain with --machine-cert and its key with --machine-key"
    )]
    Machine {
        /// Why not. Never the key itself.
        reason: String,
    },
    /// The token of the service account cannot be used.
    #[error(
        "the service account token cannot be read: {reason}; project one into the pod and name its file with --k8s-token"
    )]
    Account {
        /// Why not.
        reason: String,
    },
    /// The saved SVID is of no use any more.
    #[error(
        "the saved identity {id} {cause}, and there is no join token: make one with `weft token create` on the control node and pass it with --token-file"
    )]
    SavedIdentity {
        /// Whose it is.
        id: SpiffeId,
        /// Such as "expired at …".
        cause: String,
    },
    /// The settings are of another mesh than the saved identity.
    #[error(
        "{setting} is not of the mesh that {id} in {} belongs to: leave it out to go on there, or give another --state-dir, with a token, to join another mesh", dir.display()
    )]
    OtherMesh {
        /// The setting.
        setting: String,
        /// Whose the saved identity is.
        id: SpiffeId,
        /// The state directory.
        dir: PathBuf,
    },
    /// No identity came from the provider.
    #[error("no identity from {address}: {cause}; {next_step}")]
    NoIdentity {
        /// Its address.
        address: String,
        /// Why not.
        cause: ProviderError,
        /// What to do.
        next_step: &'static str,
    },
    /// The provider has taken the identity back.
    #[error(
        "the identity {id} from {address} may not be used any more, and this sidecar stops: {cause}; {next_step}, and start it again"
    )]
    Withdrawn {
        /// Whose it was.
        id: SpiffeId,
        /// The provider's address.
        address: String,
        /// What the provider says.
        cause: ProviderError,
        /// What to do.
        next_step: &'static str,
    },
    /// What the provider gives does not hold here and now.
    #[error("the identity from {address} cannot be used: {cause}")]
    ProvidedSvid {
        /// The provider's address.
        address: String,
        /// The rule that it breaks.
        cause: VerifyError,
    },
    /// The provider is of another trust domain than the settings say.
    #[error(
        "{address} gives the identity {id}, which is not of the trust domain {trust_domain}: leave --trust-domain out, or name a provider of that trust domain with --identity"
    )]
    ForeignProvider {
        /// The provider's address.
        address: String,
        /// The identity.
        id: SpiffeId,
        /// What the settings say.
        trust_domain: TrustDomain,
    },
    /// There is a key of the mesh's own CA, which is not to lie around unused.
    #[error(
        "{}/svid.pem is an identity of the mesh's own CA, with its key: remove it to have the identity from --identity, or give another --state-dir", dir.display()
    )]
    KeyOnDisk {
        /// The state directory.
        dir: PathBuf,
    },
    /// No control node answered.
    #[error(
        "no control node can be reached ({tried}): check the address, that `weft control` runs there, and that UDP or TCP gets through to it"
    )]
    Unreachable {
        /// Each address with what happened.
        tried: String,
    },
    /// What answered is not the control node of this mesh. The token was not sent.
    #[error("{addr} is not the control node of this mesh: {cause}; the token was not sent")]
    WrongControl {
        /// The address that was dialled.
        addr: String,
        /// What its certificate shows.
        cause: String,
    },
    /// By this machine's clock, the certificate of what answered does not hold. The token was not sent.
    #[error(
        "the certificate of {addr} does not hold by this machine's clock: {cause}; nothing was sent"
    )]
    ClockOff {
        /// The address that was dialled.
        addr: String,
        /// What its certificate says, and what the clock.
        cause: String,
    },
    /// A control node answered and refused.
    #[error("the control node {addr} refused: {message}")]
    Refused {
        /// The control node.
        addr: String,
        /// A stable word, such as `token_used`.
        code: String,
        /// The control node's sentence.
        message: String,
    },
    /// What a control node sent makes no sense.
    #[error(
        "the control node {addr} answered with something unusable: {reason}; are both of the same version?"
    )]
    BadAnswer {
        /// The control node.
        addr: String,
        /// What was wrong.
        reason: String,
    },
    /// The new SVID is not valid here and now.
    #[error("the certificate from {addr} cannot be used: {cause}")]
    BadSvid {
        /// The control node.
        addr: String,
        /// The rule that it breaks; a clock that is off shows here.
        cause: String,
    },
    /// A local port cannot be opened.
    #[error("{what}: {source}; choose another address, or stop what uses it")]
    Listen {
        /// Which listener.
        what: &'static str,
        /// Names the address and the cause.
        source: io::Error,
    },
    /// The QUIC endpoint cannot be made.
    #[error("the mesh endpoint cannot start: {0}; stop what uses the address, or choose another")]
    Endpoint(String),
    /// The running sidecar does not give its place to this process. It goes on.
    #[error("this process does not take over: {0}; the running sidecar goes on")]
    TakeOver(String),
    /// Another sidecar of this process cannot start, so this one does not either.
    #[error("another sidecar of this process cannot start: {0}")]
    Group(String),
    /// The running sidecar was not upgraded. It goes on.
    #[error("the sidecar goes on as it is: {0}")]
    Upgrade(String),
    /// There is no sidecar to upgrade.
    #[error(
        "no sidecar answers ({source}); start it with `weft sidecar`, or name its state directory with --state-dir"
    )]
    NoSidecar {
        /// Names the socket and the cause.
        source: io::Error,
    },
    /// A part without which there is no sidecar does not work any more: a fault in weft.
    #[error("{0}; start it again, and report this with the lines before it in the log")]
    Broken(#[from] weft_env::Broken),
    /// The ready file cannot be written.
    #[error("the ready file cannot be written: {0}; choose another place with --ready-file")]
    ReadyFile(DiskError),
}

/// What to do about a directory, where the reason does not say it already.
fn next_step(source: &DiskError) -> &'static str {
    match source {
        DiskError::Io { .. } => "; give it room and rights, or choose another with --state-dir",
        _ => "",
    }
}
