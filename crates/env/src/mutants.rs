//! Variants of weft that are broken on purpose, to prove that the simulator's checks notice (docs/netsim.md).
//!
//! Without the feature `mutants` nothing is ever broken, and the compiler removes the places where it could be. One
//! is chosen for the whole program while it runs, so that one build has them all.

use std::fmt;
use std::str::FromStr;

use thiserror::Error;

macro_rules! mutants {
    ($($(#[doc = $doc:literal])+ $variant:ident = $name:literal,)+) => {
        /// What is broken.
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        pub enum Mutant {
            $($(#[doc = $doc])+ $variant,)+
        }

        impl Mutant {
            /// All of them.
            pub const ALL: &'static [Self] = &[$(Self::$variant,)+];

            /// Its name on the command line.
            #[must_use]
            pub fn name(self) -> &'static str {
                match self {
                    $(Self::$variant => $name,)+
                }
            }
        }
    };
}

mutants! {
    /// A POST that may have been processed is tried again.
    RetriesAPost = "retries-a-post",
    /// The number of a revision is in force a while before its rules are.
    AppliesInTwoSteps = "applies-in-two-steps",
    /// Connections outlive the certificates that they were made with.
    ForgetsExpiry = "forgets-expiry",
    /// A connection outlives the revocation of its peer.
    ForgetsRevocation = "forgets-revocation",
    /// A renewal is put off by the wall clock, which may be ahead at that moment.
    WaitsByTheWallClock = "waits-by-the-wall-clock",
    /// Each lost link to a control node leaves behind a task that waits for ever.
    LeaksAtReconnect = "leaks-at-reconnect",
    /// A sidecar takes the whole of a request's content into its memory, however long it is.
    ReadsAhead = "reads-ahead",
    /// A sidecar acknowledges config before it is on its disk.
    AcknowledgesUnsaved = "acknowledges-unsaved",
    /// The control node says that config is stored before it is on its disk.
    CommitsInMemory = "commits-in-memory",
    /// The certificate that an application is told of is the one that the caller claims.
    BelievesTheCaller = "believes-the-caller",
    /// A join token is good for more than one identity.
    KeepsTokens = "keeps-tokens",
    /// An answer of weft's own does not say who gave it and why.
    HidesTheReason = "hides-the-reason",
    /// A request whose connection breaks is never answered.
    DropsInSilence = "drops-in-silence",
    /// A private key is logged.
    LogsItsKey = "logs-its-key",
}

impl fmt::Display for Mutant {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// There is no mutant of that name.
#[derive(Debug, Error)]
#[error("there is no mutant '{0}'; there are {all}", all = names())]
pub struct NoSuchMutant(String);

fn names() -> String {
    let names: Vec<_> = Mutant::ALL.iter().map(|mutant| mutant.name()).collect();
    names.join(", ")
}

impl FromStr for Mutant {
    type Err = NoSuchMutant;

    fn from_str(name: &str) -> Result<Self, NoSuchMutant> {
        let found = Self::ALL.iter().find(|mutant| mutant.name() == name);
        found.copied().ok_or_else(|| NoSuchMutant(name.to_owned()))
    }
}

/// Whether this build can be broken.
pub const CAN_BE_BROKEN: bool = cfg!(feature = "mutants");

#[cfg(feature = "mutants")]
mod chosen {
    use std::sync::{PoisonError, RwLock};

    use super::Mutant;

    static CHOSEN: RwLock<Option<Mutant>> = RwLock::new(None);

    /// Breaks this program so from now on, or not at all.
    pub fn activate(mutant: Option<Mutant>) {
        *CHOSEN.write().unwrap_or_else(PoisonError::into_inner) = mutant;
    }

    /// The one that was chosen.
    pub fn active() -> Option<Mutant> {
        *CHOSEN.read().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether weft is to be broken so.
    pub fn broken(mutant: Mutant) -> bool {
        active() == Some(mutant)
    }
}

#[cfg(feature = "mutants")]
pub use chosen::{activate, active, broken};

/// Whether weft is to be broken so: never in this build.
#[cfg(not(feature = "mutants"))]
#[inline(always)]
#[must_use]
pub const fn broken(_: Mutant) -> bool {
    false
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_mutant_has_a_name_of_its_own() {
        for mutant in Mutant::ALL {
            assert_eq!(mutant.name().parse::<Mutant>().unwrap(), *mutant);
        }
        let error = "nothing".parse::<Mutant>().unwrap_err().to_string();
        assert!(error.contains("retries-a-post"), "{error}");
    }

    #[cfg(not(feature = "mutants"))]
    #[test]
    fn nothing_is_broken_without_the_feature() {
        assert!(Mutant::ALL.iter().all(|mutant| !broken(*mutant)));
    }
}
