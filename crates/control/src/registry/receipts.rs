//! Which sidecars have a revision in force, refuse it, or have not answered. Pure.

use std::collections::BTreeMap;

use tokio::time::Instant;

use super::{Sidecar, Table};
use crate::admin::types::{GoneSidecar, NackInfo, Receipt, Straggler, WaitReply};
use crate::store::Revision;

/// Sorts every sidecar into one of three, also those whose connection broke a moment ago: they may carry traffic
/// by what they know, and are expected back. `arrived` is when the revision became visible to sessions.
pub(crate) fn receipts(table: &Table, revision: Revision, arrived: Option<Instant>) -> WaitReply {
    let mut reply = WaitReply {
        revision,
        receipts: Vec::new(),
        nacks: Vec::new(),
        stragglers: Vec::new(),
        gone: Vec::new(),
    };
    let has_it = |sidecar: &Sidecar| {
        let acked = sidecar.acked.as_ref();
        acked.is_some_and(|acked| acked.ack.revision >= revision)
    };
    reply.gone = table
        .lost()
        .filter(|sidecar| !has_it(sidecar))
        .map(|sidecar| GoneSidecar {
            instance: sidecar.instance.clone(),
            service: sidecar.service.to_string(),
            since_unix_ms: sidecar.since_unix_ms,
        })
        .collect();
    for sidecar in table.iter() {
        if let Some(nack) = nack_info(sidecar).filter(|nack| nack.revision >= revision) {
            reply.nacks.push(nack);
            continue;
        }
        match &sidecar.acked {
            Some(acked) if acked.ack.revision >= revision => reply.receipts.push(Receipt {
                instance: sidecar.instance.clone(),
                service: sidecar.service.to_string(),
                revision: acked.ack.revision,
                in_force_unix_ms: acked.ack.in_force_unix_ms,
                took_us: acked.ack.took_us,
                after_ms: arrived.map(|arrived| millis(arrived, acked.received)),
                unsaved: sidecar.unsaved.clone(),
            }),
            acked => reply.stragglers.push(Straggler {
                instance: sidecar.instance.clone(),
                service: sidecar.service.to_string(),
                acked_revision: acked.as_ref().map(|acked| acked.ack.revision),
                connected: sidecar.is_live(),
            }),
        }
    }
    reply
}

/// Those who were lost while somebody waited for them: their grace may end before the wait does, which is no
/// receipt. Who said goodbye is not among them. Pure.
#[derive(Debug, Default)]
pub(crate) struct Lost(BTreeMap<String, Straggler>);

impl Lost {
    /// Adds to a reply those that the table has forgotten since.
    pub(crate) fn add_to(&mut self, reply: &mut WaitReply) {
        for (instance, straggler) in &self.0 {
            let known = reply.stragglers.iter().any(|s| s.instance == *instance)
                || reply.receipts.iter().any(|r| r.instance == *instance)
                || reply.nacks.iter().any(|n| n.instance == *instance);
            if !known {
                reply.stragglers.push(straggler.clone());
            }
        }
        let missing = |instance: &str| reply.stragglers.iter().any(|s| s.instance == *instance);
        reply.gone.retain(|gone| !missing(&gone.instance));
        self.0 = reply
            .stragglers
            .iter()
            .filter(|straggler| !straggler.connected)
            .map(|straggler| (straggler.instance.clone(), straggler.clone()))
            .collect();
    }
}

/// The refusal that a sidecar stands by.
pub(crate) fn nack_info(sidecar: &Sidecar) -> Option<NackInfo> {
    sidecar.nack.as_ref().map(|nack| NackInfo {
        instance: sidecar.instance.clone(),
        service: sidecar.service.to_string(),
        revision: nack.revision,
        running: nack.running,
        key: nack.key.clone(),
        reason: nack.reason.clone(),
    })
}

/// Milliseconds with three decimals.
fn millis(from: Instant, to: Instant) -> f64 {
    let micros = to.saturating_duration_since(from).as_micros();
    // Far below 2^52 microseconds (142 years): exact.
    micros as f64 / 1000.0
}

#[cfg(test)]
mod tests {
    #![allow(clippy::disallowed_methods)]

    use std::time::Duration;

    use super::*;
    use crate::registry::{Arrival, acknowledge};
    use crate::testing;
    use weft_wire::{Ack, Nack};

    fn ack(revision: u64) -> Ack {
        Ack {
            revision,
            in_force_unix_ms: 5,
            took_us: 6,
            unsaved: None,
        }
    }

    #[test]
    fn every_sidecar_is_a_receipt_a_nack_or_a_straggler() {
        let start = Instant::now();
        let mut table = Table::default();
        for instance in ["newer", "exact", "nacks", "older", "silent", "gone"] {
            let epoch = table
                .arrive(&Arrival {
                    identity: &testing::id("invoices"),
                    not_after_unix: 1,
                    remote: "127.0.0.1".parse().unwrap(),
                    hello: &testing::hello(instance),
                    unix_ms: 1,
                })
                .unwrap();
            let received = start + Duration::from_micros(2500);
            let sidecar = table.live_mut(instance, epoch).unwrap();
            match instance {
                "newer" => acknowledge(sidecar, ack(12), received),
                "exact" => acknowledge(sidecar, ack(10), received),
                "older" => acknowledge(sidecar, ack(9), received),
                "nacks" => {
                    acknowledge(sidecar, ack(9), received);
                    sidecar.nack = Some(Nack {
                        revision: 11,
                        running: Some(9),
                        key: None,
                        reason: "no".into(),
                    });
                }
                "gone" => {
                    table.lose(instance, epoch, start, 1);
                }
                _ => {}
            }
        }
        let reply = receipts(&table, 10, Some(start));
        let receipt: Vec<&str> = reply.receipts.iter().map(|r| &*r.instance).collect();
        assert_eq!(receipt, ["exact", "newer"]);
        assert_eq!(reply.receipts[0].after_ms, Some(2.5));
        assert_eq!(reply.nacks.len(), 1);
        assert_eq!(reply.nacks[0].running, Some(9));
        let late: Vec<&str> = reply.stragglers.iter().map(|s| &*s.instance).collect();
        assert_eq!(late, ["gone", "older", "silent"]);
        assert_eq!(reply.stragglers.iter().filter(|s| !s.connected).count(), 1);
        assert!(!reply.is_complete());
    }

    #[test]
    fn who_is_lost_and_forgotten_while_one_waits_is_missing_and_who_left_is_not() {
        let start = Instant::now();
        let mut table = Table::default();
        let mut epochs = BTreeMap::new();
        for instance in ["lost", "leaves"] {
            let arrival = Arrival {
                identity: &testing::id("invoices"),
                not_after_unix: 1,
                remote: "127.0.0.1".parse().unwrap(),
                hello: &testing::hello(instance),
                unix_ms: 1,
            };
            epochs.insert(instance, table.arrive(&arrival).unwrap());
        }
        let mut lost = Lost::default();
        let missing = |table: &Table, lost: &mut Lost| {
            let mut reply = receipts(table, 10, None);
            lost.add_to(&mut reply);
            let names = reply.stragglers.iter().map(|s| s.instance.clone());
            names.collect::<Vec<_>>()
        };
        assert_eq!(missing(&table, &mut lost), ["leaves", "lost"]);
        table.lose("lost", epochs["lost"], start, 1);
        table.leave("leaves", epochs["leaves"]);
        assert_eq!(missing(&table, &mut lost), ["lost"]);
        table.expire(start + Duration::from_secs(60), Duration::from_secs(15));
        assert_eq!(
            missing(&table, &mut lost),
            ["lost"],
            "forgotten, and still missing"
        );
        // Who begins to wait later is told, and does not wait.
        let later = receipts(&table, 10, None);
        assert!(later.is_complete());
        let gone: Vec<&str> = later.gone.iter().map(|gone| &*gone.instance).collect();
        assert_eq!(gone, ["lost"]);
        let mut reply = receipts(&table, 10, None);
        lost.add_to(&mut reply);
        assert!(reply.gone.is_empty(), "not told twice: {reply:?}");
    }

    #[test]
    fn without_sidecars_nothing_is_missing() {
        assert!(receipts(&Table::default(), 10, None).is_complete());
    }
}
