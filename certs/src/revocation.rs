//! What an operator has revoked: identities, keys and serial numbers, never fingerprints.
//!
//! A fingerprint is of bytes that an attacker can vary: an ECDSA signature has a twin that is as good (ca-ops §7).
//! A key, a serial number and an identity are under the authority's signature.

use std::collections::{BTreeMap, BTreeSet};
use std::time::SystemTime;

use serde::{Deserialize, Serialize};

use crate::{RootPin, SpiffeId, der};

/// Everything that is revoked in one trust domain. Its text form is JSON; members of later versions are skipped.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct RevocationList {
    /// Grows with each change; receipts name it.
    pub edition: u64,
    /// Identities, each with the certificates that are dead.
    pub identities: BTreeMap<SpiffeId, RevokedIdentity>,
    /// SHA-256 of public keys, as `sha256:<hexadecimal>`. An authority's key stands for all that it signed.
    pub keys: BTreeSet<RootPin>,
    /// Serial numbers of leaves, lower case hexadecimal.
    pub serials: BTreeSet<String>,
}

/// Which certificates of an identity are dead.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct RevokedIdentity {
    /// Unix seconds: those that begin before this. `None`: all, also those that were never issued.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub before_unix: Option<u64>,
}

impl RevocationList {
    /// Whether nothing is revoked.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.identities.is_empty() && self.keys.is_empty() && self.serials.is_empty()
    }

    /// How many entries it has.
    #[must_use]
    pub fn len(&self) -> usize {
        self.identities.len() + self.keys.len() + self.serials.len()
    }

    /// Whether this key is revoked.
    #[must_use]
    pub fn has_key(&self, key: &RootPin) -> bool {
        self.keys.contains(key)
    }

    /// Whether this identity gets no certificate at all.
    #[must_use]
    pub fn bars(&self, id: &SpiffeId) -> bool {
        self.identities
            .get(id)
            .is_some_and(|entry| entry.before_unix.is_none())
    }

    /// By what a leaf that begins at `not_before` is dead, if it is.
    #[must_use]
    pub fn denies(
        &self,
        id: &SpiffeId,
        key: &RootPin,
        serial: &str,
        not_before: SystemTime,
    ) -> Option<&'static str> {
        if self.revokes_issued(id, not_before) {
            Some("identity")
        } else if self.has_key(key) {
            Some("key")
        } else if self.serials.contains(serial) {
            Some("serial number")
        } else {
            None
        }
    }

    /// Whether what was issued to this identity at `at`, a certificate or a token, is dead by its name.
    #[must_use]
    pub fn revokes_issued(&self, id: &SpiffeId, at: SystemTime) -> bool {
        let begins = der::seconds(at);
        let dead = |entry: &RevokedIdentity| entry.before_unix.is_none_or(|end| begins < end);
        self.identities.get(id).is_some_and(dead)
    }

    pub(crate) fn names(&self, leaf: &der::Leaf) -> Option<&'static str> {
        self.denies(&leaf.id, &leaf.key, &leaf.serial, leaf.not_before)
    }
}

#[cfg(test)]
#[path = "revocation_tests.rs"]
mod tests;
