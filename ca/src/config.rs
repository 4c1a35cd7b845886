//! The lifetimes of the three tiers, and the rules that tie them together (ca-ops §1, §10).

use std::time::Duration;

use weft_certs::TrustDomain;

use crate::{Error, KeyType};

const HOUR: Duration = Duration::from_secs(3600);
const DAY: Duration = Duration::from_secs(24 * 3600);

/// No leaf lives longer: a day is the longest that a stolen key may be of use.
const LONGEST_LEAF: Duration = DAY;
/// Below this a certificate ends before its owner could renew it. Only tests go there.
const SHORTEST_LEAF: Duration = Duration::from_secs(5);
/// An issuing CA lives at least this many times the longest leaf, so that it can be prepared at half of its life
/// and replaced at five sixths without cutting any leaf short.
const ISSUING_TO_LEAF: u32 = 6;
/// Longer than any root should live, and well within what X.509 can write.
const LONGEST_ROOT: Duration = Duration::from_secs(100 * 365 * 24 * 3600);
/// Leaves begin a little in the past, for peers whose clocks are behind.
pub const BACKDATE: Duration = Duration::from_secs(60);

/// How long certificates live.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CaConfig {
    /// The trust domain that the authority serves.
    pub trust_domain: TrustDomain,
    /// Life of a root; 10 years. Roots are replaced by people.
    pub root_ttl: Duration,
    /// Life of an issuing CA; 30 days.
    pub issuing_ttl: Duration,
    /// Life of a leaf when nothing else is asked for; 1 hour.
    pub leaf_ttl: Duration,
    /// The shortest life of a leaf; 5 minutes. An issuer that has less left issues nothing. Tests may go down to 5 s.
    pub min_leaf_ttl: Duration,
    /// The longest life of a leaf; 24 hours.
    pub max_leaf_ttl: Duration,
    /// Kind of the keys of authorities; P-256.
    pub key_type: KeyType,
}

impl CaConfig {
    /// The defaults for this trust domain.
    pub fn new(trust_domain: TrustDomain) -> Self {
        Self {
            trust_domain,
            root_ttl: DAY * 3652,
            issuing_ttl: DAY * 30,
            leaf_ttl: HOUR,
            min_leaf_ttl: Duration::from_secs(300),
            max_leaf_ttl: LONGEST_LEAF,
            key_type: KeyType::default(),
        }
    }

    /// Checks that the lifetimes fit together; [`Authority`](crate::Authority) calls it.
    ///
    /// # Errors
    /// [`Error::Config`] with the first that does not.
    pub fn validate(&self) -> Result<(), Error> {
        let refuse = |reason: String| Err(Error::Config { reason });
        let s = |d: Duration| format!("{} s", d.as_secs());
        if self.max_leaf_ttl > LONGEST_LEAF {
            return refuse(format!(
                "certificates of sidecars live between 5 s and 24 h, and the longest life is to be {}: \
                 give --max-leaf-ttl in these limits",
                s(self.max_leaf_ttl)
            ));
        }
        // A leaf lifetime below the shortest one lowers it: `weft init --leaf-ttl 4s` comes here.
        if self.min_leaf_ttl < SHORTEST_LEAF {
            return refuse(format!(
                "certificates of sidecars live between 5 s and 24 h, and --leaf-ttl would make it {}: \
                 give --leaf-ttl in these limits",
                s(self.min_leaf_ttl)
            ));
        }
        if !(self.min_leaf_ttl..=self.max_leaf_ttl).contains(&self.leaf_ttl) {
            let limits = format!("{} to {}", s(self.min_leaf_ttl), s(self.max_leaf_ttl));
            return refuse(format!(
                "the leaf lifetime {} is outside its limits of {limits}: give --leaf-ttl in \
                 these, or another --max-leaf-ttl, which is at most 24 h and a sixth of --issuing-ttl",
                s(self.leaf_ttl)
            ));
        }
        let needed = self.max_leaf_ttl * ISSUING_TO_LEAF;
        if self.issuing_ttl < needed {
            return refuse(format!(
                "the issuing CA's lifetime {} is less than 6 times the longest leaf lifetime: \
                 it must be at least {}, or the longest leaf lifetime at most {}",
                s(self.issuing_ttl),
                s(needed),
                s(self.issuing_ttl / ISSUING_TO_LEAF),
            ));
        }
        if self.root_ttl > LONGEST_ROOT {
            return refuse(
                "the root's lifetime is more than 100 years: give a shorter --root-ttl".to_owned(),
            );
        }
        if self.root_ttl / 2 < self.issuing_ttl {
            return refuse(format!(
                "the root's lifetime {} is less than twice the issuing CA's lifetime {}: give --root-ttl of \
                 {} or more, or a shorter --issuing-ttl",
                s(self.root_ttl),
                s(self.issuing_ttl),
                s(self.issuing_ttl * 2)
            ));
        }
        Ok(())
    }

    /// How much earlier than its issuer a leaf ends, so that no leaf is ever seen to outlive it: a minute, or less
    /// where the issuer itself is short-lived.
    pub(crate) fn margin(&self) -> Duration {
        Duration::from_secs(60).min(self.issuing_ttl / 100)
    }
}
