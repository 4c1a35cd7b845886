//! What sidecars have said of their trust and their certificates, as a rotation needs to know it.

use std::time::SystemTime;

use weft_ca::{Journal, Slot, Tier};
use weft_certs::serial_of;

use super::plan::Milestone;
use super::tracker::ends_here;
use crate::admin::types::Seen;
use crate::registry::{Sidecar, Table};
use crate::time::unix_ms;

/// The issuing CAs under a root.
pub(super) fn children_of(journal: &Journal, root: &str) -> Vec<Slot> {
    let issuing = journal.slots(Tier::Issuing).iter();
    issuing
        .filter(|slot| slot.issuer.as_deref() == Some(root))
        .cloned()
        .collect()
}

/// A live sidecar whose certificate is from one of these.
pub(super) fn chained(table: &Table, authorities: &[Slot]) -> Option<Seen> {
    let serials: Vec<String> = authorities
        .iter()
        .filter_map(|slot| serial_of(&slot.certificate).ok())
        .collect();
    let found = table
        .iter()
        .find(|s| s.is_live() && serials.iter().any(|serial| serial == s.issuer()))?;
    Some(seen(found, found.heard_unix_ms))
}

/// A sidecar that something was heard of.
pub(super) fn seen(sidecar: &Sidecar, at_unix_ms: u64) -> Seen {
    Seen {
        sidecar: sidecar.label(),
        at_unix_ms,
    }
}

/// Who trusts the bundle of this edition, by their own word; or, of those that do not say, has acknowledged the
/// revision that brought it.
pub(super) fn trusting(table: &Table, revision: u64, sequence: u64, now: SystemTime) -> Milestone {
    let mut milestone = Milestone {
        at_unix_ms: unix_ms(now),
        ..Milestone::default()
    };
    for sidecar in table.iter().filter(|sidecar| sidecar.is_live()) {
        let said = sidecar.trust().map(|trust| trust.sequence >= sequence);
        let acked = sidecar.acked.as_ref();
        let trusts =
            said.unwrap_or_else(|| acked.is_some_and(|acked| acked.ack.revision >= revision));
        match trusts {
            true => milestone.by.push(seen(sidecar, sidecar.trust_unix_ms)),
            false => milestone.missing.push(sidecar.label()),
        }
    }
    milestone
}

/// Who has a certificate from the authority of this serial, of those whose certificates end at one of `ours`.
pub(super) fn under(table: &Table, serial: &str, ours: &[String], now: SystemTime) -> Milestone {
    let mut milestone = Milestone {
        at_unix_ms: unix_ms(now),
        ..Milestone::default()
    };
    let concerned = |sidecar: &&Sidecar| sidecar.is_live() && ends_here(sidecar, ours);
    for sidecar in table.iter().filter(concerned) {
        match sidecar.issuer() == serial {
            true => milestone.by.push(seen(sidecar, sidecar.heard_unix_ms)),
            false => milestone.missing.push(sidecar.label()),
        }
    }
    milestone
}
