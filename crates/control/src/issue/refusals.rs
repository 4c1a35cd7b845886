//! How many joins were refused, by reason: for metrics.

use std::collections::BTreeMap;
use std::sync::{Mutex, PoisonError};

/// Reasons that have a label of their own: what strangers send makes no new ones.
const LABELS: [&str; 46] = [
    "account_algorithm",
    "account_audience",
    "account_bad_signature",
    "account_expired",
    "account_issuer",
    "account_malformed",
    "account_not_yet_valid",
    "account_unknown_key",
    "attestation_kind",
    "attestation_off",
    "attestors_unusable",
    "bad_csr",
    "bad_pin",
    "bad_proof",
    "bad_request",
    "challenge_expired",
    "challenge_unknown",
    "challenge_used",
    "challenges_full",
    "clock_skew",
    "conflict",
    "disk_full",
    "issuer_ending",
    "keys_out_of_reach",
    "machine_bad_chain",
    "machine_bad_proof",
    "machine_expired",
    "machine_malformed",
    "machine_not_yet_valid",
    "machine_unfit",
    "machine_unknown_authority",
    "no_rule",
    "old_proof",
    "rate_limited",
    "reserved_identity",
    "revoked",
    "revoked_key",
    "rule_unusable",
    "store",
    "token_expired",
    "token_revoked",
    "token_unknown",
    "token_used",
    "too_large",
    "two_proofs",
    "wrong_pin",
];

/// The counts.
#[derive(Debug, Default)]
pub(crate) struct JoinRefusals(Mutex<BTreeMap<&'static str, u64>>);

impl JoinRefusals {
    /// Counts one.
    pub(crate) fn count(&self, code: &str) {
        let label = LABELS.iter().find(|label| **label == code);
        let label = label.copied().unwrap_or("join_other");
        let mut counts = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        *counts.entry(label).or_default() += 1;
    }

    /// All of them, added to others.
    pub(crate) fn add_to(
        &self,
        mut others: BTreeMap<&'static str, u64>,
    ) -> BTreeMap<&'static str, u64> {
        let counts = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        for (label, count) in counts.iter() {
            *others.entry(label).or_default() += count;
        }
        others
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_not_known_is_counted_under_one_name() {
        let refusals = JoinRefusals::default();
        for code in ["token_used", "a", "b", "token_used"] {
            refusals.count(code);
        }
        let all = refusals.add_to(BTreeMap::from([("expired", 7), ("token_used", 1)]));
        let expected = [("expired", 7), ("join_other", 2), ("token_used", 3)];
        assert_eq!(all.into_iter().collect::<Vec<_>>(), expected);
    }
}
