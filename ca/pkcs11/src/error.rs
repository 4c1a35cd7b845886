//! What goes wrong with tokens, each in one sentence with the next step.

use std::path::PathBuf;

use weft_ca::{Error as CaError, KeyId};

/// Why a token does not do what is asked of it.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum TokenFault {
    /// No library at this path.
    #[error(
        "there is no PKCS#11 module at {}: install the one of your token (SoftHSM2 on Debian: apt-get install softhsm2, then /usr/lib/softhsm/libsofthsm2.so), or correct --pkcs11-module", path.display()
    )]
    ModuleMissing {
        /// The path.
        path: PathBuf,
    },
    /// A file that is no module, or one that does not start.
    #[error(
        "{} cannot be used as a PKCS#11 module: {reason}; see its configuration, or correct --pkcs11-module", path.display()
    )]
    ModuleUnusable {
        /// The path.
        path: PathBuf,
        /// What the loader or the module says.
        reason: String,
    },
    /// No token of this label.
    #[error(
        "there is no token '{label}' behind {}: it has {found}; plug it in, start its service, or correct --pkcs11-token", module.display()
    )]
    NoToken {
        /// What was looked for.
        label: String,
        /// Where.
        module: PathBuf,
        /// The labels that are there, in words.
        found: String,
    },
    /// More than one token of this label.
    #[error(
        "{count} tokens behind {} have the label '{label}': give each its own", module.display()
    )]
    Ambiguous {
        /// The label.
        label: String,
        /// Where.
        module: PathBuf,
        /// How many.
        count: usize,
    },
    /// The PIN is wrong.
    #[error(
        "the token '{label}' refuses the PIN, and allows few wrong ones before it locks itself: correct the PIN before you start again; until then it is not tried again"
    )]
    WrongPin {
        /// The token.
        label: String,
    },
    /// Too many wrong PINs.
    #[error(
        "the PIN of the token '{label}' is locked after too many wrong ones: its security officer can set a new one"
    )]
    PinLocked {
        /// The token.
        label: String,
    },
    /// One more wrong PIN locks the token.
    #[error(
        "one more wrong PIN locks the token '{label}', so weft does not try: log in once with the token's own tool, which starts the count again"
    )]
    LastAttempt {
        /// The token.
        label: String,
    },
    /// A token that asks for a PIN, and none was given.
    #[error("the token '{label}' wants a PIN: give it with --pkcs11-pin-file")]
    NoPin {
        /// The token.
        label: String,
    },
    /// It was there, and is not now.
    #[error(
        "the token '{label}' is not to be reached ({reason}): nothing is signed until it is back; see that it is plugged in and its service runs"
    )]
    Gone {
        /// The token.
        label: String,
        /// What the module says.
        reason: String,
    },
    /// It does not answer in time.
    #[error(
        "the token '{label}' did not answer within {seconds} s: nothing is signed until it does; see its service and the network to it"
    )]
    NoAnswer {
        /// The token.
        label: String,
        /// How long was waited.
        seconds: u64,
    },
    /// More is asked of it than it can do.
    #[error("the token '{label}' has more to sign than it can: try again in a moment")]
    Busy {
        /// The token.
        label: String,
    },
    /// It is there and says no.
    #[error("the token '{label}' cannot {what}: {reason}")]
    Refused {
        /// The token.
        label: String,
        /// What was asked.
        what: &'static str,
        /// What the module says.
        reason: String,
    },
    /// A key that should be in it is not.
    #[error(
        "the token '{label}' does not have the private key {key}: is it the token that this mesh was made with, or a whole copy of it?"
    )]
    KeyAbsent {
        /// The token.
        label: String,
        /// The key.
        key: KeyId,
    },
    /// A key that the token would give away.
    #[error(
        "the private key {key} could be taken out of the token '{label}', so it is not used: the token does not keep keys as it is told to"
    )]
    KeyLoose {
        /// The token.
        label: String,
        /// The key.
        key: KeyId,
    },
    /// A kind of key that tokens do not make.
    #[error("keys in a token are of type p256 or p384, not ed25519: choose with --key-type")]
    KeyType,
    /// A new place, and it is not said where.
    #[error(
        "it is not said which token the new keys go into: give both --pkcs11-module and --pkcs11-token"
    )]
    NoPlace,
    /// The record of the place cannot be read or written.
    #[error("{} {reason}", path.display())]
    Record {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        reason: String,
    },
}

impl From<TokenFault> for CaError {
    fn from(fault: TokenFault) -> Self {
        Self::KeyPlace(Box::new(fault))
    }
}
