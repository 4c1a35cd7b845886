//! What the authority refuses, each in one sentence.

use std::path::PathBuf;
use std::time::{Duration, SystemTime};

use weft_certs::{SpiffeId, TrustDomain};

use crate::when::rfc3339;
use crate::{KeyId, SlotState};

/// Why the authority cannot be made, loaded, changed, or will not issue.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// Lifetimes that do not fit together.
    #[error("the authority's settings are refused: {reason}")]
    Config {
        /// Which, and what would fit.
        reason: String,
    },
    /// A journal that this authority cannot go on from.
    #[error(
        "the authority's journal cannot be used: {reason}; restore the state directory from a backup"
    )]
    Journal {
        /// What is wrong with it.
        reason: String,
    },
    /// A transition that the slot's state does not allow.
    #[error("{slot} is {state}: {reason}")]
    Transition {
        /// Which slot.
        slot: String,
        /// The state it is in.
        state: SlotState,
        /// What is not possible, and what is.
        reason: &'static str,
    },
    /// No such slot.
    #[error("there is no {slot} among the authorities; `weft ca show` lists them")]
    NoSuchSlot {
        /// What was asked for.
        slot: String,
    },
    /// A root that somebody may still depend on.
    #[error("{slot} cannot be removed before {}: certificates that chain to it may still be in use", rfc3339(*until))]
    StillNeeded {
        /// Which slot.
        slot: String,
        /// When the last of them has ended.
        until: SystemTime,
    },
    /// The issuer ends too soon for what is to be issued under it.
    #[error("{issuer} ends at {}, too soon to issue under it: rotate it with `weft ca rotate`", rfc3339(*not_after))]
    IssuerEnding {
        /// Which slot.
        issuer: String,
        /// Its end.
        not_after: SystemTime,
    },
    /// A certificate request that proves nothing.
    #[error("the certificate request is refused: {reason}")]
    Csr {
        /// What is wrong with it.
        reason: &'static str,
    },
    /// An identity of somebody else's trust domain.
    #[error("{id} is not in trust domain {trust_domain}, which this authority serves")]
    ForeignIdentity {
        /// What was asked for.
        id: SpiffeId,
        /// What this authority serves.
        trust_domain: TrustDomain,
    },
    /// The ID of a trust domain, which only authorities carry.
    #[error("{id} names a trust domain and not a workload: no certificate is issued for it")]
    NotAWorkload {
        /// What was asked for.
        id: SpiffeId,
    },
    /// An identity of the mesh itself.
    #[error("{id} is reserved for weft itself: choose a namespace other than weft-system")]
    ReservedIdentity {
        /// What was asked for.
        id: SpiffeId,
    },
    /// An identity of another site.
    #[error(
        "{id} is not of site {site}, which is all that this delegate may vouch for; `weft ca delegate` says who is"
    )]
    OutsideSite {
        /// What was asked for.
        id: SpiffeId,
        /// The site of the delegate.
        site: String,
    },
    /// Nobody, or too many, for a token to be meant for.
    #[error("the token's audience is refused: {reason}")]
    Audience {
        /// What is wrong with it.
        reason: &'static str,
    },
    /// There is no key for tokens yet.
    #[error("no key signs tokens yet: try again in a moment")]
    NoJwtKey,
    /// A lifetime outside the limits.
    #[error("a lifetime of {} s is outside the limits of {} s to {} s", asked.as_secs(), min.as_secs(), max.as_secs())]
    Lifetime {
        /// What was asked for.
        asked: Duration,
        /// The shortest allowed.
        min: Duration,
        /// The longest allowed.
        max: Duration,
    },
    /// The key store does not have this key.
    #[error(
        "the private key {key} is missing from the key store; restore the state directory from a backup"
    )]
    KeyMissing {
        /// Which key.
        key: KeyId,
    },
    /// There already is a key of this name.
    #[error("there already is a private key {key}: refusing to write over it")]
    KeyExists {
        /// Which key.
        key: KeyId,
    },
    /// A key or its directory that others can reach.
    #[error("{} can be reached by other users (mode {mode:04o}): check who had access, then `chmod {fix} {}`", path.display(), path.display())]
    KeyExposed {
        /// The file or directory.
        path: PathBuf,
        /// Its mode.
        mode: u32,
        /// The mode it should have.
        fix: &'static str,
    },
    /// A key or its directory that belongs to someone else.
    #[error("{} belongs to user {owner}, not to user {me} who runs this: start as its owner, or change its owner", path.display())]
    KeyOwner {
        /// The file or directory.
        path: PathBuf,
        /// Who owns it.
        owner: u32,
        /// Who we are.
        me: u32,
    },
    /// The disk says no.
    #[error("cannot {action} {}: {source}", path.display())]
    KeyIo {
        /// What was tried.
        action: &'static str,
        /// On what.
        path: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
    /// Bytes that are not the key they should be.
    #[error(
        "the private key {key} cannot be used: {reason}; put it back from a copy, or restore a backup into an empty state directory with `weft ca restore`"
    )]
    KeyUnusable {
        /// Which key.
        key: KeyId,
        /// What is wrong with it. Never the key itself.
        reason: &'static str,
    },
    /// A key that its store does not give out, or does not take in.
    #[error(
        "the private key {key} stays where it is: {place} neither gives keys out nor takes any in"
    )]
    KeyStays {
        /// Which key.
        key: KeyId,
        /// The place.
        place: String,
    },
    /// The place of the keys, which is outside of this process, does not do what is asked of it.
    #[error(transparent)]
    KeyPlace(Box<dyn std::error::Error + Send + Sync>),
    /// The place of the keys has more to do than it can.
    #[error(
        "the place of the authority's keys has more to sign than it can: try again in a moment"
    )]
    KeysBusy,
    /// The keys are sealed and no secret was given.
    #[error("the keys in {} are sealed: give the passphrase or key file with --ca-secret-file", path.display())]
    KeysSealed {
        /// The directory.
        path: PathBuf,
    },
    /// The secret is not the one that seals them.
    #[error("the passphrase or key file does not open {}: give the one that it was sealed with", path.display())]
    WrongSecret {
        /// What it should open.
        path: PathBuf,
    },
    /// Sealed data that cannot be read at all.
    #[error("{what} cannot be opened: {reason}")]
    Sealed {
        /// What.
        what: String,
        /// Why not.
        reason: &'static str,
    },
    /// A secret that is easily guessed.
    #[error(
        "the passphrase has {len} bytes: give one of at least 8, or a key file made with: head -c 32 /dev/urandom"
    )]
    WeakSecret {
        /// Its length.
        len: usize,
    },
    /// A root whose key is not on this machine.
    #[error(
        "the key of {slot} is not on this machine: run `weft ca csr`, then `weft ca sign` where the key is, then `weft ca import`"
    )]
    OfflineRoot {
        /// Which slot.
        slot: String,
    },
    /// Certificates from elsewhere that this authority cannot use.
    #[error("the certificates are not imported: {reason}")]
    Import {
        /// What is wrong with them.
        reason: String,
    },
    /// The cryptography failed, which it never should.
    #[error("cannot make the {what}: {reason}")]
    Crypto {
        /// What was being made.
        what: &'static str,
        /// What the library said.
        reason: String,
    },
}

impl Error {
    pub(crate) fn crypto(what: &'static str) -> impl FnOnce(rcgen::Error) -> Self {
        move |e| Self::Crypto {
            what,
            reason: e.to_string(),
        }
    }
}

/// Why a join token is refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum TokenError {
    /// No such token was made.
    #[error(
        "the join token is not known here: check that it is complete and of this mesh, or make one with `weft token create`"
    )]
    Unknown,
    /// Too late.
    #[error("the join token expired at {}: make a new one with `weft token create`", rfc3339(*.at))]
    Expired {
        /// When.
        at: SystemTime,
    },
    /// Second use.
    #[error("the join token was already used at {}: a token is good for one join; if that was not you, look into it, then make a new one with `weft token create`", rfc3339(*.at))]
    Used {
        /// When it was used.
        at: SystemTime,
    },
}

impl TokenError {
    /// A stable label for counters and tests.
    pub fn reason(&self) -> &'static str {
        match self {
            Self::Unknown => "token_unknown",
            Self::Expired { .. } => "token_expired",
            Self::Used { .. } => "token_used",
        }
    }
}
