//! What is revoked, with what the pushed list does not need to say: until when an entry matters. Pure.

use std::collections::BTreeMap;
use std::time::{Duration, SystemTime};

use serde::{Deserialize, Serialize};
use weft_certs::{RevocationList, RevokedIdentity, RootPin, SpiffeId};

use super::issued::{Leaf, SKEW};
use crate::time::unix_s;

/// Most entries: the pushed list stays below half a megabyte.
const MAX_ENTRIES: usize = 4000;
/// Leaves begin this long before they are issued.
const BACKDATE: Duration = Duration::from_secs(60);

/// Everything that is revoked, as stored.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub(crate) struct Ledger {
    edition: u64,
    identities: BTreeMap<SpiffeId, Entry>,
    keys: BTreeMap<RootPin, Entry>,
    serials: BTreeMap<String, Entry>,
}

/// One of them.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
struct Entry {
    /// Of an identity that was readmitted: certificates that begin before this are dead.
    before_unix: Option<u64>,
    /// The entry can be forgotten then; `None`: never.
    until_unix: Option<u64>,
}

/// Why something is not revoked, or not readmitted.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Unmoved {
    #[error("{0} is already revoked")]
    Already(String),
    #[error("{0} is not revoked; `weft cert revoked` lists what is")]
    Not(String),
    #[error(
        "{MAX_ENTRIES} entries are revoked already, which is the limit: replace the issuing CA with `weft ca rotate issuing` and distrust the old one with `weft ca revoke`"
    )]
    Full,
}

/// What to revoke.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Target {
    Identity(SpiffeId),
    Key(RootPin),
    Serial(String),
}

impl std::fmt::Display for Target {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Identity(id) => id.fmt(f),
            Self::Key(key) => key.fmt(f),
            Self::Serial(serial) => write!(f, "serial number {serial}"),
        }
    }
}

impl Target {
    /// Whether a certificate is dead by it.
    pub(crate) fn concerns(&self, leaf: &Leaf) -> bool {
        match self {
            Self::Identity(id) => *id == leaf.id,
            Self::Key(key) => *key == leaf.key,
            Self::Serial(serial) => *serial == leaf.serial,
        }
    }
}

impl Ledger {
    /// At a delegate: what the control node has pushed. It forgets nothing by itself.
    pub(crate) fn followed(list: &RevocationList) -> Self {
        let entry = |before_unix| Entry {
            before_unix,
            until_unix: None,
        };
        Self {
            edition: list.edition,
            identities: list
                .identities
                .iter()
                .map(|(id, revoked)| (id.clone(), entry(revoked.before_unix)))
                .collect(),
            keys: list.keys.iter().map(|key| (*key, entry(None))).collect(),
            serials: list
                .serials
                .iter()
                .map(|serial| (serial.clone(), entry(None)))
                .collect(),
        }
    }

    /// The form that is pushed.
    pub(crate) fn list(&self) -> RevocationList {
        RevocationList {
            edition: self.edition,
            identities: self
                .identities
                .iter()
                .map(|(id, entry)| {
                    let before_unix = entry.before_unix;
                    (id.clone(), RevokedIdentity { before_unix })
                })
                .collect(),
            keys: self.keys.keys().copied().collect(),
            serials: self.serials.keys().cloned().collect(),
        }
    }

    fn len(&self) -> usize {
        self.identities.len() + self.keys.len() + self.serials.len()
    }

    /// With something revoked. Of an identity, the keys of its live certificates are revoked too: they stay dead
    /// when the identity is readmitted.
    pub(crate) fn revoke(&self, target: &Target, live: &[Leaf]) -> Result<Self, Unmoved> {
        let mut next = self.clone();
        let already = match target {
            Target::Identity(id) => {
                let mine = live.iter().filter(|leaf| leaf.id == *id);
                for leaf in mine {
                    next.keys.entry(leaf.key).or_insert(Entry {
                        before_unix: None,
                        until_unix: Some(leaf.not_after_unix + SKEW.as_secs()),
                    });
                }
                let old = next.identities.insert(id.clone(), Entry::default());
                old.is_some_and(|old| old.before_unix.is_none())
            }
            Target::Key(key) => {
                let old = next.keys.insert(*key, Entry::default());
                old.is_some_and(|old| old.until_unix.is_none())
            }
            Target::Serial(serial) => {
                let leaf = live.iter().find(|leaf| leaf.serial == *serial);
                let until_unix = leaf.map(|leaf| leaf.not_after_unix + SKEW.as_secs());
                let entry = Entry {
                    before_unix: None,
                    until_unix,
                };
                next.serials.insert(serial.clone(), entry).is_some()
            }
        };
        if already {
            return Err(Unmoved::Already(target.to_string()));
        }
        if next.len() > MAX_ENTRIES {
            return Err(Unmoved::Full);
        }
        next.edition += 1;
        Ok(next)
    }

    /// With an identity let in again, from `now` on. What it had before stays dead: its keys, and every certificate
    /// that began before.
    pub(crate) fn readmit(
        &self,
        id: &SpiffeId,
        longest_leaf: Duration,
        now: SystemTime,
    ) -> Result<Self, Unmoved> {
        let mut next = self.clone();
        let Some(entry) = next
            .identities
            .get_mut(id)
            .filter(|entry| entry.before_unix.is_none())
        else {
            return Err(Unmoved::Not(id.to_string()));
        };
        *entry = Entry {
            before_unix: Some(unix_s(now - BACKDATE)),
            until_unix: Some(unix_s(now + longest_leaf + SKEW)),
        };
        next.edition += 1;
        Ok(next)
    }

    /// Without what can no longer matter; `None` if all of it can.
    pub(crate) fn pruned(&self, now: SystemTime) -> Option<Self> {
        let now = unix_s(now);
        let matters = |entry: &Entry| entry.until_unix.is_none_or(|until| until > now);
        let mut next = self.clone();
        next.identities.retain(|_, entry| matters(entry));
        next.keys.retain(|_, entry| matters(entry));
        next.serials.retain(|_, entry| matters(entry));
        if next.len() == self.len() {
            return None;
        }
        next.edition += 1;
        Some(next)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::id;
    use std::time::UNIX_EPOCH;

    fn at(seconds: u64) -> SystemTime {
        UNIX_EPOCH + Duration::from_secs(1_800_000_000 + seconds)
    }

    fn leaf(service: &str, n: u8, ends: u64) -> Leaf {
        Leaf {
            serial: format!("0{n}"),
            id: id(service),
            key: RootPin::from([n; 32]),
            issuer: "issuing-1".into(),
            not_after_unix: unix_s(at(ends)),
        }
    }

    #[test]
    fn an_identity_goes_with_its_keys_and_comes_back_without_them() {
        let live = [leaf("a", 1, 600), leaf("a", 2, 3600), leaf("b", 3, 3600)];
        let target = Target::Identity(id("a"));
        let revoked = Ledger::default().revoke(&target, &live).unwrap();
        let list = revoked.list();
        assert_eq!((list.edition, list.keys.len()), (1, 2));
        assert!(list.bars(&id("a")) && !list.bars(&id("b")));
        assert!(matches!(
            revoked.revoke(&target, &live),
            Err(Unmoved::Already(_))
        ));

        let back = revoked
            .readmit(&id("a"), Duration::from_secs(86_400), at(100))
            .unwrap();
        let list = back.list();
        let begins = |issued: u64| at(issued) - BACKDATE;
        let fresh = RootPin::from([9; 32]);
        let of_a = |key: &RootPin, issued| list.denies(&id("a"), key, "09", begins(issued));
        assert_eq!(
            of_a(&fresh, 100),
            None,
            "issued at the readmission or later"
        );
        assert_eq!(of_a(&fresh, 99), Some("identity"));
        assert_eq!(
            of_a(&live[0].key, 200),
            Some("key"),
            "an old key, certified anew"
        );
        assert!(matches!(
            back.readmit(&id("a"), Duration::ZERO, at(0)),
            Err(Unmoved::Not(_))
        ));
        // And it can be revoked once more.
        assert!(back.revoke(&target, &[]).unwrap().list().bars(&id("a")));
    }

    #[test]
    fn entries_go_when_nothing_is_left_that_they_forbid() {
        let live = [leaf("a", 1, 600), leaf("b", 2, 600)];
        let ledger = Ledger::default()
            .revoke(&Target::Identity(id("a")), &live)
            .and_then(|l| l.revoke(&Target::Serial("02".into()), &live))
            .and_then(|l| l.revoke(&Target::Serial("77".into()), &live))
            .and_then(|l| l.revoke(&Target::Key(RootPin::from([7; 32])), &live))
            .unwrap();
        assert_eq!(
            ledger.pruned(at(600)),
            None,
            "clocks differ by some minutes"
        );
        let pruned = ledger.pruned(at(901)).unwrap().list();
        assert_eq!(pruned.keys.len(), 1, "an operator's key stays");
        assert_eq!(
            pruned.serials,
            ["77".to_owned()].into(),
            "an unknown serial stays"
        );
        assert!(
            pruned.bars(&id("a")),
            "an identity stays until it is readmitted"
        );
        assert_eq!(pruned.edition, 5);
    }

    #[test]
    fn the_list_is_bounded() {
        let mut ledger = Ledger::default();
        for n in 0..MAX_ENTRIES {
            ledger = ledger
                .revoke(&Target::Serial(format!("{n:x}")), &[])
                .unwrap();
        }
        let full = ledger.revoke(&Target::Identity(id("a")), &[]);
        assert_eq!(full, Err(Unmoved::Full));
    }
}
