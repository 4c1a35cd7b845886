//! The authority as people see it: `weft ca show`, and the audit log's record of each change.

use weft_ca::audit::Event;
use weft_ca::{Error as CaError, Journal, Slot, Tier};
use weft_certs::{RootPin, serial_of};

use super::CaService;
use crate::admin::types::{AuthorityInfo, CaInfo, TokenKeyInfo};
use crate::time::{seconds_left, unix_s};

impl CaService {
    /// What `GET /v1/ca` shows.
    pub(crate) fn info(&self) -> Result<CaInfo, CaError> {
        let authority = self.authority();
        let (journal, now) = (authority.journal(), self.shared.env.wall());
        let slots = [Tier::Root, Tier::Issuing].map(|tier| {
            let slots = journal.slots(tier).iter();
            slots.map(move |slot| AuthorityInfo {
                name: slot.id.clone(),
                role: tier.as_str().to_owned(),
                state: slot.state.to_string(),
                issuer: slot.issuer.clone(),
                tainted: slot.tainted,
                key_here: slot.key.is_some(),
                pin: slot.pin().map(|pin| pin.to_string()).unwrap_or_default(),
                serial: serial(&slot.certificate),
                not_before_unix: unix_s(slot.not_before),
                not_after_unix: unix_s(slot.not_after),
                seconds_left: seconds_left(slot.not_after, now),
            })
        });
        Ok(CaInfo {
            trust_domain: journal.trust_domain().to_string(),
            pin: authority.pin()?.to_string(),
            sequence: journal.sequence(),
            leaf_ttl_s: self.shared.config.leaf_ttl.as_secs(),
            authorities: slots.into_iter().flatten().collect(),
            token_keys: token_keys(journal),
            foreign: foreign(journal),
        })
    }
}

fn foreign(journal: &Journal) -> Vec<String> {
    let pins = journal.foreign().iter().map(RootPin::of);
    pins.filter_map(Result::ok)
        .map(|pin| pin.to_string())
        .collect()
}

fn token_keys(journal: &Journal) -> Vec<TokenKeyInfo> {
    let slots = journal.jwt_slots().iter();
    slots
        .map(|slot| TokenKeyInfo {
            name: slot.id.clone(),
            state: slot.state.to_string(),
            kid: slot
                .public_key()
                .map(|key| key.kid().to_owned())
                .unwrap_or_default(),
            since_unix: unix_s(slot.since),
        })
        .collect()
}

/// The record of each slot that came to another state.
pub(super) fn transitions(before: &Journal, after: &Journal) -> Vec<Event> {
    let state = |journal: &Journal, slot: &Slot| {
        let (_, found) = journal.find(&slot.id).ok()?;
        Some((found.state, found.tainted))
    };
    let mut events = Vec::new();
    for tier in [Tier::Root, Tier::Issuing] {
        for slot in after.slots(tier) {
            if state(before, slot) == Some((slot.state, slot.tainted)) {
                continue;
            }
            let what = match slot.tainted {
                true if slot.is_live() => "authority.tainted".to_owned(),
                _ => format!("authority.{}", slot.state),
            };
            let event = Event::new(&what, &slot.id, "control")
                .with("serial", serial(&slot.certificate))
                .with("sequence", after.sequence());
            events.push(event);
        }
    }
    for slot in after.jwt_slots() {
        let known = before.jwt_slot(&slot.id).ok().map(|slot| slot.state);
        if known != Some(slot.state) {
            let kid = slot.public_key().map(|key| key.kid().to_owned());
            let what = format!("authority.{}", slot.state);
            let event = Event::new(&what, &slot.id, "control")
                .with("kid", kid.unwrap_or_default())
                .with("sequence", after.sequence());
            events.push(event);
        }
    }
    events
}

/// A loaded journal's certificates are readable: `Authority::load` has read them.
fn serial(certificate: &weft_certs::CertificateDer<'_>) -> String {
    serial_of(certificate).unwrap_or_default()
}
