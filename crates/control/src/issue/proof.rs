//! Who enforces a revocation, by their own word. Pure.

use crate::admin::types::{Proof, ProofReceipt};
use crate::registry::Table;

/// Every sidecar that is known, sorted into those that enforce this edition and those that have not said so. `asleep`
/// are identities with certificates and no connection: they learn of it before they are let in again.
pub(crate) fn proof(table: &Table, edition: u64, arrived_unix_ms: u64, asleep: &[String]) -> Proof {
    let mut proof = Proof {
        edition,
        receipts: Vec::new(),
        absent: Vec::new(),
        asleep: asleep.to_vec(),
    };
    for sidecar in table.iter() {
        match sidecar.trust() {
            Some(trust) if trust.revoked >= edition && sidecar.is_live() => {
                proof.receipts.push(ProofReceipt {
                    sidecar: sidecar.label(),
                    refused_from_unix_ms: trust.in_force_unix_ms,
                    cut: trust.cut.saturating_sub(sidecar.cut_before),
                    after_ms: sidecar.trust_unix_ms.saturating_sub(arrived_unix_ms),
                });
            }
            _ => proof.absent.push(sidecar.label()),
        }
    }
    proof
}

#[cfg(test)]
mod tests {
    #![allow(clippy::disallowed_methods)]

    use super::*;
    use crate::registry::{Arrival, hear};
    use crate::testing;
    use weft_wire::{Report, TrustReport};

    #[test]
    fn only_those_who_say_so_and_are_connected_count() {
        let mut table = Table::default();
        for (instance, revoked) in [
            ("old", Some(1)),
            ("new", Some(2)),
            ("gone", Some(2)),
            ("mute", None),
        ] {
            let epoch = table
                .arrive(&Arrival {
                    identity: &testing::id("invoices"),
                    not_after_unix: 1,
                    remote: "127.0.0.1".parse().unwrap(),
                    hello: &testing::hello(instance),
                    unix_ms: 1,
                })
                .unwrap();
            let sidecar = table.live_mut(instance, epoch).unwrap();
            for (edition, cut, at) in [(1, 5, 900), (revoked.unwrap_or(0), 7, 1250)] {
                let trust = revoked.map(|_| TrustReport {
                    revoked: edition,
                    cut,
                    in_force_unix_ms: at,
                    ..TrustReport::default()
                });
                hear(
                    sidecar,
                    Report {
                        trust,
                        ..Report::default()
                    },
                    at,
                );
            }
            if instance == "gone" {
                table.lose(instance, epoch, tokio::time::Instant::now(), 1);
            }
        }
        let proof = proof(&table, 2, 1000, &["spiffe://weft.local/x".to_owned()]);
        assert_eq!(proof.receipts.len(), 1);
        let receipt = &proof.receipts[0];
        assert_eq!(receipt.sidecar, "invoices.default/new");
        assert_eq!(
            (receipt.cut, receipt.after_ms, receipt.refused_from_unix_ms),
            (2, 250, 1250)
        );
        assert_eq!(
            proof.absent,
            [
                "invoices.default/gone",
                "invoices.default/mute",
                "invoices.default/old"
            ]
        );
        assert_eq!(proof.asleep.len(), 1);
    }
}
