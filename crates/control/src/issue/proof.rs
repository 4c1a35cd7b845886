//! Who enforces a revocation, by their own word.

use std::collections::BTreeSet;

use weft_certs::RevocationList;

use super::CaService;
use super::issued::{self, Leaf};
use crate::admin::types::{Proof, ProofReceipt};
use crate::error::ControlError;
use crate::registry::{Sidecar, Table};

/// Whose links a list ends. They are cut off at once, with or without a last word, so none is waited for.
pub(crate) struct Ended {
    list: RevocationList,
    /// Serial numbers of certificates with a revoked key.
    by_key: BTreeSet<String>,
}

impl Ended {
    /// By the newest list, and all certificates that have not expired.
    pub(crate) fn by(list: RevocationList, live: &[Leaf]) -> Self {
        let revoked = live.iter().filter(|leaf| list.has_key(&leaf.key));
        let by_key = revoked.map(|leaf| leaf.serial.clone()).collect();
        Self { list, by_key }
    }

    fn ends(&self, sidecar: &Sidecar) -> bool {
        self.list.bars(&sidecar.identity)
            || self.list.serials.contains(&sidecar.serial)
            || self.by_key.contains(&sidecar.serial)
    }
}

/// Whom the list in force ends.
pub(crate) async fn ended(ca: &CaService) -> Result<Ended, ControlError> {
    let live = issued::live(&**ca.store(), ca.wall()).await?;
    Ok(Ended::by(ca.ledger().list(), &live))
}

/// Every sidecar that is known, sorted into those that enforce this edition, those that are ended by it, and those that
/// have not said so. `asleep` are identities with certificates and no connection: they learn of it before they are let
/// in again.
pub(crate) fn proof(
    table: &Table,
    (edition, arrived_unix_ms): (u64, u64),
    ended: &Ended,
    asleep: &[String],
) -> Proof {
    let mut proof = Proof {
        edition,
        receipts: Vec::new(),
        ended: Vec::new(),
        absent: Vec::new(),
        asleep: asleep.to_vec(),
    };
    for sidecar in table.iter() {
        match sidecar.trust() {
            _ if ended.ends(sidecar) => proof.ended.push(sidecar.label()),
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
    use weft_certs::RevokedIdentity;
    use weft_wire::{Report, TrustReport};

    #[test]
    fn only_those_who_say_so_and_are_connected_count() {
        let mut table = Table::default();
        for (instance, revoked) in [
            ("old", Some(1)),
            ("new", Some(2)),
            ("gone", Some(2)),
            ("mute", None),
            // One that said it before it was cut off, and one that had no time to.
            ("ended-by-key", Some(2)),
            ("ended-by-serial", None),
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
                        serial: instance.to_owned(),
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
        let key = weft_certs::RootPin::parse(&format!("sha256:{}", "ab".repeat(32))).unwrap();
        let list = RevocationList {
            keys: [key].into(),
            serials: ["ended-by-serial".to_owned()].into(),
            ..RevocationList::default()
        };
        let leaf = Leaf {
            serial: "ended-by-key".to_owned(),
            id: testing::id("invoices"),
            key,
            issuer: String::new(),
            not_after_unix: 1,
        };
        let ended = Ended::by(list, &[leaf]);
        let asleep = ["spiffe://weft.local/x".to_owned()];
        let proof = proof(&table, (2, 1000), &ended, &asleep);
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
        assert_eq!(
            proof.ended,
            [
                "invoices.default/ended-by-key",
                "invoices.default/ended-by-serial"
            ]
        );
        let barred = RevocationList {
            identities: [(testing::id("invoices"), RevokedIdentity::default())].into(),
            ..RevocationList::default()
        };
        let proof = super::proof(&table, (2, 1000), &Ended::by(barred, &[]), &asleep);
        assert_eq!((proof.ended.len(), proof.absent.len()), (6, 0));
    }
}
