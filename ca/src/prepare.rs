//! Making roots and issuing CAs.

use std::time::{Duration, SystemTime};

use rand::CryptoRng;
use rustls::pki_types::CertificateDer;

use crate::authority::{issuer, key_id, signer_of};
use crate::config::BACKDATE;
use crate::keys::Signing;
use crate::template::Level;
use crate::when::whole;
use crate::{
    CaConfig, Cross, Error, Journal, KeyId, KeyStore, Signer, Slot, SlotState, Tier, template,
};

/// With the next root, prepared.
pub(crate) fn root(
    config: &CaConfig,
    journal: &Journal,
    keys: &dyn KeyStore,
    now: SystemTime,
    rng: &mut dyn CryptoRng,
) -> Result<Journal, Error> {
    let id = journal.next_id(Tier::Root)?;
    let not_after = whole(now + config.root_ttl);
    let name = config.trust_domain.id();
    let (key, signer) = new_key(config, journal, &id, keys, rng)?;
    let signing = Signing::new(&signer);
    let certificate = template::authority(Level::Root, &id, &name, now, not_after, rng)?
        .self_signed(&signing)
        .map_err(signing.failed("root certificate"))?
        .into();
    let cross = cross(config, journal, keys, &id, &signer, now, rng)?;
    let slot = Slot {
        cross,
        ..new_slot(id, Some(key), None, certificate, not_after, now)
    };
    journal.with_prepared(Tier::Root, slot, now)
}

/// The next root's key under the present root, if that one's key is here and to be trusted. It lives as long as the
/// present root.
fn cross(
    config: &CaConfig,
    journal: &Journal,
    keys: &dyn KeyStore,
    id: &str,
    signer: &Signer,
    now: SystemTime,
    rng: &mut dyn CryptoRng,
) -> Result<Option<Cross>, Error> {
    let Ok(present) = journal.active(Tier::Root) else {
        return Ok(None);
    };
    if present.tainted || present.key.is_none() {
        return Ok(None);
    }
    let present_signer = signer_of(present, keys)?;
    let name = config.trust_domain.id();
    let end = present.not_after.min(whole(now + config.root_ttl));
    let signing = Signing::new(&present_signer);
    let certificate = template::authority(Level::Cross, id, &name, now, end, rng)?
        .signed_by(&&**signer, &issuer(present, &signing)?)
        .map_err(signing.failed("cross certificate"))?;
    Ok(Some(Cross {
        by: present.id.clone(),
        certificate: certificate.into(),
    }))
}

/// With the next issuing CA under the active root, prepared.
pub(crate) fn issuing(
    config: &CaConfig,
    journal: &Journal,
    keys: &dyn KeyStore,
    now: SystemTime,
    rng: &mut dyn CryptoRng,
) -> Result<Journal, Error> {
    let id = journal.next_id(Tier::Issuing)?;
    let root = journal.active(Tier::Root)?;
    let not_after = whole((now + config.issuing_ttl).min(root.not_after - config.margin()));
    if not_after < now + config.max_leaf_ttl * 6 - Duration::from_secs(1) {
        return Err(Error::IssuerEnding {
            issuer: root.id.clone(),
            not_after: root.not_after,
        });
    }
    let root_signer = signer_of(root, keys)?;
    let name = config.trust_domain.id();
    let (key, signer) = new_key(config, journal, &id, keys, rng)?;
    let signing = Signing::new(&root_signer);
    let certificate = template::authority(Level::Issuing, &id, &name, now, not_after, rng)?
        .signed_by(&&*signer, &issuer(root, &signing)?)
        .map_err(signing.failed("issuing certificate"))?;
    let root = Some(root.id.clone());
    let slot = new_slot(id, Some(key), root, certificate.into(), not_after, now);
    journal.with_prepared(Tier::Issuing, slot, now)
}

/// The intended key, made now; one that a crash left behind has certified nothing and makes room.
pub(crate) fn new_key(
    config: &CaConfig,
    journal: &Journal,
    slot: &str,
    keys: &dyn KeyStore,
    rng: &mut dyn CryptoRng,
) -> Result<(KeyId, Signer), Error> {
    let key = match journal.intent() {
        Some(intent) if intent.slot == slot => {
            keys.remove(&intent.key)?;
            intent.key.clone()
        }
        _ => key_id(slot, rng)?,
    };
    let signer = keys.generate(&key, config.key_type)?;
    Ok((key, signer))
}

pub(crate) fn new_slot(
    id: String,
    key: Option<KeyId>,
    issuer: Option<String>,
    certificate: CertificateDer<'static>,
    not_after: SystemTime,
    now: SystemTime,
) -> Slot {
    Slot {
        id,
        state: SlotState::Prepared,
        since: whole(now),
        issuer,
        signed_until: None,
        key,
        tainted: false,
        not_before: whole(now - BACKDATE),
        not_after,
        certificate,
        cross: None,
        above: Vec::new(),
    }
}
