//! The keys that JWT-SVIDs are signed with: each is in the bundle before it signs, and after.
//!
//! They are apart from the tiers of certificates: no certificate is below or above them. There are none until somebody
//! wants a token.

use std::time::{Duration, SystemTime};

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use weft_certs::{JwtKey, SpiffeId, jwt_signing_input, jwt_with_signature};

use crate::issue::check_identity;
use crate::when::{self, whole};
use crate::{Authority, Error, Journal, KeyId, KeyStore, KeyType, Signer, SlotState, is_reserved};

/// How long a token is good. Short: nothing takes it back but a revocation of its identity.
pub const TOKEN_TTL: Duration = Duration::from_secs(300);
/// How long a key signs.
const SIGNS_FOR: Duration = Duration::from_secs(7 * 24 * 3600);
/// How long it is published before it signs by schedule: whoever asks for bundles now and then has it by then
/// (Federation §4.1: several refresh hints).
const AHEAD: Duration = Duration::from_secs(24 * 3600);
/// How long it stays published after it has signed last: its last token has ended, on clocks that differ.
const STAYS: Duration = Duration::from_secs(TOKEN_TTL.as_secs() + 300);
/// Keys that are published at the same time.
const MAX_LIVE: usize = 8;
/// Audiences of one token, and bytes of each.
const MAX_AUDIENCES: usize = 16;
const MAX_AUDIENCE: usize = 1024;

/// One key.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct JwtSlot {
    /// Its name, such as `jwt-2`.
    pub id: String,
    /// Where in its life it is.
    pub state: SlotState,
    /// Since when.
    #[serde(with = "when")]
    pub since: SystemTime,
    /// The name of its private half.
    pub key: KeyId,
    /// Its public half: a point of P-256, uncompressed.
    #[serde(with = "point")]
    pub public: Vec<u8>,
}

impl JwtSlot {
    /// As it is in the bundle; `None` only in a damaged journal, which is not loaded.
    pub fn public_key(&self) -> Option<JwtKey> {
        JwtKey::p256(&self.public).ok()
    }

    fn is_live(&self) -> bool {
        self.state != SlotState::Removed
    }
}

/// All of them.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct JwtSlots {
    /// How many there ever were: numbers are not used twice.
    made: u64,
    slots: Vec<JwtSlot>,
}

impl JwtSlots {
    pub(crate) fn is_unused(&self) -> bool {
        self.made == 0
    }

    pub(crate) fn live(&self) -> impl Iterator<Item = &JwtSlot> {
        self.slots.iter().filter(|slot| slot.is_live())
    }

    fn in_state(&self, state: SlotState) -> Option<&JwtSlot> {
        self.slots.iter().find(|slot| slot.state == state)
    }

    /// What a loaded journal must be.
    pub(crate) fn check(&self) -> Result<(), Error> {
        let single = |state| self.slots.iter().filter(|s| s.state == state).count() <= 1;
        let readable = self.slots.iter().all(|slot| slot.public_key().is_some());
        match single(SlotState::Active) && single(SlotState::Prepared) && readable {
            true => Ok(()),
            false => Err(Error::Journal {
                reason: "its keys for tokens contradict each other or cannot be read".to_owned(),
            }),
        }
    }
}

/// What the schedule asks for next.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum JwtDue {
    /// The next key, so that everybody has it in time.
    Prepare,
    /// This one signs from now on.
    Activate(String),
    /// Nothing that this one signed is good any more.
    Retire(String),
}

/// A token that was made.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct IssuedJwt {
    /// The token.
    pub token: String,
    /// Until when.
    pub expires: SystemTime,
    /// The key that signed it.
    pub key: String,
}

impl Journal {
    /// The keys for tokens, oldest first, with some that are removed.
    pub fn jwt_slots(&self) -> &[JwtSlot] {
        &self.jwt.slots
    }

    /// The key that signs tokens, if there is one yet.
    pub fn active_jwt(&self) -> Option<&JwtSlot> {
        self.jwt.in_state(SlotState::Active)
    }

    /// The key that is published and does not sign yet.
    pub fn prepared_jwt(&self) -> Option<&JwtSlot> {
        self.jwt.in_state(SlotState::Prepared)
    }

    /// What the schedule asks for at `now`. Nothing, as long as nobody wanted a token.
    pub fn jwt_due(&self, now: SystemTime) -> Option<JwtDue> {
        let since = |slot: &JwtSlot| now.duration_since(slot.since).unwrap_or_default();
        let old = self.jwt.slots.iter().find(|slot| {
            // Prepared keys that were discarded are removed at once; old ones wait.
            slot.state == SlotState::Old && since(slot) >= STAYS
        });
        if let Some(old) = old {
            return Some(JwtDue::Retire(old.id.clone()));
        }
        let active = self.active_jwt()?;
        match self.prepared_jwt() {
            None if since(active) + AHEAD >= SIGNS_FOR => Some(JwtDue::Prepare),
            Some(next) if since(active) >= SIGNS_FOR && since(next) >= AHEAD => {
                Some(JwtDue::Activate(next.id.clone()))
            }
            _ => None,
        }
    }

    /// Makes a prepared key the one that signs; the one that did stays published.
    ///
    /// # Errors
    /// [`Error::Transition`] if it is not prepared, [`Error::NoSuchSlot`].
    pub fn activate_jwt(&self, id: &str, now: SystemTime) -> Result<Self, Error> {
        let slot = self.jwt_slot(id)?;
        if slot.state != SlotState::Prepared {
            return Err(transition(slot, "only a prepared key can be activated"));
        }
        let mut next = self.clone();
        if let Some(active) = self.active_jwt() {
            next.set_jwt(&active.id, SlotState::Old, now);
        }
        next.set_jwt(id, SlotState::Active, now);
        Ok(next)
    }

    /// Takes a key out of the bundle, whatever it signed: tokens of it are refused from then on.
    ///
    /// # Errors
    /// [`Error::Transition`] for the one that signs and one that is gone; [`Error::NoSuchSlot`].
    pub fn retire_jwt(&self, id: &str, now: SystemTime) -> Result<Self, Error> {
        let slot = self.jwt_slot(id)?;
        match slot.state {
            SlotState::Active => {
                let reason = "prepare and activate its successor before removing it";
                return Err(transition(slot, reason));
            }
            SlotState::Removed => return Err(transition(slot, "there is nothing left to remove")),
            SlotState::Prepared | SlotState::Old => {}
        }
        let mut next = self.clone();
        next.set_jwt(id, SlotState::Removed, now);
        next.sequence += 1;
        crate::slot::forget_removed(&mut next.jwt.slots, JwtSlot::is_live);
        Ok(next)
    }

    /// The key of this name.
    ///
    /// # Errors
    /// [`Error::NoSuchSlot`].
    pub fn jwt_slot(&self, id: &str) -> Result<&JwtSlot, Error> {
        let found = self.jwt.slots.iter().find(|slot| slot.id == id);
        found.ok_or_else(|| Error::NoSuchSlot {
            slot: id.to_owned(),
        })
    }

    fn set_jwt(&mut self, id: &str, state: SlotState, now: SystemTime) {
        if let Some(slot) = self.jwt.slots.iter_mut().find(|slot| slot.id == id) {
            slot.state = state;
            slot.since = whole(now);
        }
        self.note(id, state, now);
    }
}

impl Authority {
    /// Makes the next key for tokens. It enters the bundle and signs nothing until it is activated.
    ///
    /// # Errors
    /// [`Error::Transition`] if one is prepared already, or too many old ones are still published; what the key store
    /// says.
    pub fn prepare_jwt(&self, keys: &dyn KeyStore, now: SystemTime) -> Result<Journal, Error> {
        let journal = self.journal();
        if let Some(waiting) = journal.prepared_jwt() {
            let reason = "activate it or remove it before preparing another";
            return Err(transition(waiting, reason));
        }
        if let (true, Some(oldest)) = (
            journal.jwt.live().count() >= MAX_LIVE,
            journal.jwt.live().next(),
        ) {
            let reason =
                "too many keys for tokens are still published: wait until the oldest have ended";
            return Err(transition(oldest, reason));
        }
        let id = format!("jwt-{}", journal.jwt.made + 1);
        let key = KeyId::new(id.clone())?;
        // One that a crash left behind was never published: its number is still free.
        keys.remove(&key)?;
        // JWT-SVID validators all know ES256, whatever the certificates are signed with.
        let signer = keys.generate(&key, KeyType::P256)?;
        let mut next = journal.clone();
        next.jwt.made += 1;
        next.jwt.slots.push(JwtSlot {
            id: id.clone(),
            state: SlotState::Prepared,
            since: whole(now),
            key,
            public: signer.der_bytes().to_vec(),
        });
        next.sequence += 1;
        next.note(&id, SlotState::Prepared, now);
        Ok(next)
    }

    /// Makes a token for an identity that the caller has attested.
    ///
    /// # Errors
    /// [`Error::NoJwtKey`] if none signs yet; [`Error::Audience`]; [`Error::ReservedIdentity`],
    /// [`Error::ForeignIdentity`], [`Error::NotAWorkload`].
    pub fn issue_jwt(
        &self,
        attested: &SpiffeId,
        audience: &[String],
        now: SystemTime,
    ) -> Result<IssuedJwt, Error> {
        if is_reserved(attested) {
            return Err(Error::ReservedIdentity {
                id: attested.clone(),
            });
        }
        check_identity(attested, self.config())?;
        check_audience(audience)?;
        let slot = self.journal().active_jwt().ok_or(Error::NoJwtKey)?;
        let signer = self.jwt_signer().ok_or(Error::NoJwtKey)?;
        let kid = slot.public_key().ok_or(Error::NoJwtKey)?.kid().to_owned();
        let expires = whole(now + TOKEN_TTL);
        let input = jwt_signing_input(&kid, attested, audience, now, expires);
        let signature = signer.signature(input.as_bytes())?;
        let signature = fixed(&signature).ok_or(Error::Crypto {
            what: "token",
            reason: "the key's signature is not one of P-256".to_owned(),
        })?;
        Ok(IssuedJwt {
            token: jwt_with_signature(&input, &signature),
            expires,
            key: slot.id.clone(),
        })
    }
}

/// The signer of the active key, after a check that it is the key that is published.
pub(crate) fn signer(journal: &Journal, keys: &dyn KeyStore) -> Result<Option<Signer>, Error> {
    let Some(slot) = journal.active_jwt() else {
        return Ok(None);
    };
    let signer = keys.signer(&slot.key)?;
    match signer.der_bytes() == slot.public {
        true => Ok(Some(signer)),
        false => Err(Error::KeyUnusable {
            key: slot.key.clone(),
            reason: "it is not the key that is published",
        }),
    }
}

/// Destroys the keys of removed slots.
pub(crate) fn forget(journal: &Journal, keys: &dyn KeyStore) -> Result<(), Error> {
    let removed = journal.jwt.slots.iter().filter(|slot| !slot.is_live());
    removed
        .map(|slot| &slot.key)
        .try_for_each(|key| keys.remove(key))
}

fn check_audience(audience: &[String]) -> Result<(), Error> {
    let fail = |reason| Err(Error::Audience { reason });
    if audience.is_empty() {
        fail("it names nobody")
    } else if audience.len() > MAX_AUDIENCES {
        fail("it names more than 16")
    } else if audience.iter().any(String::is_empty) {
        fail("a name in it is empty")
    } else if audience.iter().any(|one| one.len() > MAX_AUDIENCE) {
        fail("a name in it is longer than 1024 bytes")
    } else {
        Ok(())
    }
}

/// RFC 7518 §3.4: a signature is r and s, 32 bytes each. Keys give it in DER (RFC 3279 §2.2.3).
fn fixed(der: &[u8]) -> Option<[u8; 64]> {
    let (inner, rest) = element(der, 0x30)?;
    let (r, inner) = element(inner, 0x02)?;
    let (s, inner) = element(inner, 0x02)?;
    if !rest.is_empty() || !inner.is_empty() {
        return None;
    }
    let mut fixed = [0; 64];
    for (number, place) in [r, s].into_iter().zip(fixed.chunks_exact_mut(32)) {
        let digits = number.strip_prefix(&[0]).unwrap_or(number);
        let start = place.len().checked_sub(digits.len())?;
        place[start..].copy_from_slice(digits);
    }
    Some(fixed)
}

/// The content of a DER element with a length of one byte, and what follows it.
fn element(der: &[u8], tag: u8) -> Option<(&[u8], &[u8])> {
    match der {
        [found, len, rest @ ..] if *found == tag && *len < 0x80 => {
            rest.split_at_checked(usize::from(*len))
        }
        _ => None,
    }
}

fn transition(slot: &JwtSlot, reason: &'static str) -> Error {
    Error::Transition {
        slot: slot.id.clone(),
        state: slot.state,
        reason,
    }
}

mod point {
    use super::{Deserialize, Deserializer, Engine, STANDARD, Serializer};

    pub(super) fn serialize<S: Serializer>(bytes: &[u8], serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&STANDARD.encode(bytes))
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(
        deserializer: D,
    ) -> Result<Vec<u8>, D::Error> {
        let text = String::deserialize(deserializer)?;
        STANDARD.decode(text).map_err(serde::de::Error::custom)
    }
}

#[cfg(test)]
#[path = "jwt_tests.rs"]
mod tests;
