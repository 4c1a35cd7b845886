//! The authority itself: a journal, the key that signs leaves, and what can be asked of them.

use std::time::{Duration, SystemTime};

use rand::CryptoRng;
use rcgen::Issuer;
use weft_certs::{RootPin, SpiffeId, TrustBundle};
use x509_parser::parse_x509_certificate;

use crate::config::BACKDATE;
use crate::issue::{check_identity, leaf_end};
use crate::when::whole;
use crate::{
    CaConfig, Error, Issued, Journal, KeyId, KeyStore, Signer, Slot, SlotState, Tier, csr,
    is_reserved, template,
};

/// An authority, loaded from its journal. It does not change: a transition yields the next [`Journal`], which is
/// persisted and then loaded.
///
/// ```
/// # use weft_ca::{Authority, CaConfig, MemoryKeyStore, make_csr};
/// # use weft_certs::{SpiffeId, TrustDomain};
/// # use rand::SeedableRng;
/// # let now = std::time::UNIX_EPOCH + std::time::Duration::from_secs(1_800_000_000);
/// # let mut rng = rand::rngs::StdRng::from_seed([7; 32]);
/// let config = CaConfig::new(TrustDomain::parse("weft.local")?);
/// let keys = MemoryKeyStore::new();
/// let journal = Authority::create(&config, &keys, now, &mut rng)?;
/// // … the caller persists the journal …
/// let authority = Authority::load(config, journal, &keys)?;
///
/// let id = SpiffeId::parse("spiffe://weft.local/ns/default/sa/invoices")?;
/// let request = make_csr(Some(&id))?;
/// let issued = authority.issue(&request.csr, &id, None, now, &mut rng)?;
/// assert_eq!(issued.not_after, now + std::time::Duration::from_secs(3600));
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub struct Authority {
    config: CaConfig,
    journal: Journal,
    /// Key of the active issuing CA. The root's key is fetched only when an issuing CA is made.
    signer: Signer,
}

impl std::fmt::Debug for Authority {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Authority")
            .field("config", &self.config)
            .finish_non_exhaustive()
    }
}

impl Authority {
    /// Makes root and issuing CA of a new trust domain, both active. Persist the journal, then
    /// [`load`](Self::load) it.
    ///
    /// # Errors
    /// [`Error::Config`], or what the key store says.
    pub fn create(
        config: &CaConfig,
        keys: &dyn KeyStore,
        now: SystemTime,
        rng: &mut dyn CryptoRng,
    ) -> Result<Journal, Error> {
        config.validate()?;
        let journal = Journal::empty(config.trust_domain.clone());
        let journal = prepare_root(config, &journal, keys, now, rng)?;
        let journal = journal.activate(Tier::Root, "root-1", now)?;
        let journal = prepare_issuing(config, &journal, keys, now, rng)?;
        journal.activate(Tier::Issuing, "issuing-1", now)
    }

    /// Goes on from a journal that was persisted. Keys of slots that it says are removed are destroyed: it is the
    /// proof that nothing needs them any more.
    ///
    /// # Errors
    /// [`Error::Config`]; [`Error::Journal`] if it is damaged or of another trust domain; or that the active key is
    /// missing, exposed or not the one that the certificate names.
    pub fn load(config: CaConfig, journal: Journal, keys: &dyn KeyStore) -> Result<Self, Error> {
        config.validate()?;
        journal.check(&config.trust_domain)?;
        for slot in journal
            .slots(Tier::Root)
            .iter()
            .chain(journal.slots(Tier::Issuing))
        {
            slot.pin()?;
            if !slot.is_live() {
                keys.remove(&slot.key)?;
            }
        }
        let signer = signer_of(journal.active(Tier::Issuing)?, keys)?;
        Ok(Self {
            config,
            journal,
            signer,
        })
    }

    /// The settings.
    pub fn config(&self) -> &CaConfig {
        &self.config
    }

    /// The journal that this was loaded from.
    pub fn journal(&self) -> &Journal {
        &self.journal
    }

    /// Whom to trust: all roots but removed ones, so that a root is known before and after its use.
    pub fn bundle(&self) -> TrustBundle {
        let live = self
            .journal
            .slots(Tier::Root)
            .iter()
            .filter(|slot| slot.is_live());
        TrustBundle {
            trust_domain: self.config.trust_domain.clone(),
            sequence: self.journal.sequence(),
            roots: live.map(|slot| slot.certificate.clone()).collect(),
        }
    }

    /// The pin of the active root, for joiners.
    ///
    /// # Errors
    /// None for a loaded authority.
    pub fn pin(&self) -> Result<RootPin, Error> {
        self.journal.active(Tier::Root)?.pin()
    }

    /// Issues a leaf for an identity that the caller has attested. Of the request only the key counts.
    ///
    /// # Errors
    /// [`Error::ReservedIdentity`] for weft's own identities (see [`issue_reserved`](Self::issue_reserved)),
    /// [`Error::ForeignIdentity`], [`Error::NotAWorkload`], [`Error::Csr`], [`Error::Lifetime`],
    /// [`Error::IssuerEnding`].
    pub fn issue(
        &self,
        csr: &[u8],
        attested: &SpiffeId,
        ttl: Option<Duration>,
        now: SystemTime,
        rng: &mut dyn CryptoRng,
    ) -> Result<Issued, Error> {
        match is_reserved(attested) {
            true => Err(Error::ReservedIdentity {
                id: attested.clone(),
            }),
            false => self.issue_reserved(csr, attested, ttl, now, rng),
        }
    }

    /// As [`issue`](Self::issue), for weft's own identities too: the control node certifies itself.
    ///
    /// # Errors
    /// As [`issue`](Self::issue) but for [`Error::ReservedIdentity`].
    pub fn issue_reserved(
        &self,
        csr: &[u8],
        attested: &SpiffeId,
        ttl: Option<Duration>,
        now: SystemTime,
        rng: &mut dyn CryptoRng,
    ) -> Result<Issued, Error> {
        check_identity(attested, &self.config)?;
        let key = csr::verified_key(csr)?;
        let slot = self.journal.active(Tier::Issuing)?;
        let not_after = leaf_end(&self.config, slot, ttl, now)?;
        let params = template::leaf(attested, now, not_after, rng)?;
        let serial = params
            .serial_number
            .as_ref()
            .map(|serial| hex(serial.as_ref()))
            .unwrap_or_default();
        let leaf = params
            .signed_by(&key, &issuer(slot, &self.signer)?)
            .map_err(Error::crypto("leaf certificate"))?;
        let root = self
            .journal
            .slot(Tier::Root, slot.issuer.as_deref().unwrap_or_default())?;
        Ok(Issued {
            id: attested.clone(),
            chain: vec![leaf.into(), slot.certificate.clone()],
            root: root.certificate.clone(),
            serial,
            not_before: whole(now - BACKDATE),
            not_after,
            issuer: slot.id.clone(),
        })
    }

    /// Makes the next root, which enters the bundle at once and signs nothing until it is activated.
    ///
    /// # Errors
    /// [`Error::Transition`] if one is already prepared; what the key store says.
    pub fn prepare_root(
        &self,
        keys: &dyn KeyStore,
        now: SystemTime,
        rng: &mut dyn CryptoRng,
    ) -> Result<Journal, Error> {
        prepare_root(&self.config, &self.journal, keys, now, rng)
    }

    /// Makes the next issuing CA under the active root.
    ///
    /// # Errors
    /// [`Error::Transition`] if one is already prepared; [`Error::IssuerEnding`] if the root ends too soon; what
    /// the key store says.
    pub fn prepare_issuing(
        &self,
        keys: &dyn KeyStore,
        now: SystemTime,
        rng: &mut dyn CryptoRng,
    ) -> Result<Journal, Error> {
        prepare_issuing(&self.config, &self.journal, keys, now, rng)
    }

    /// [`Journal::activate`] for an issuing CA.
    ///
    /// # Errors
    /// As there.
    pub fn activate_issuing(&self, id: &str, now: SystemTime) -> Result<Journal, Error> {
        self.journal.activate(Tier::Issuing, id, now)
    }

    /// [`Journal::retire`] for an issuing CA. Its key is destroyed when the journal is loaded.
    ///
    /// # Errors
    /// As there.
    pub fn retire_issuing(&self, id: &str, now: SystemTime) -> Result<Journal, Error> {
        self.journal.retire(Tier::Issuing, id, &self.config, now)
    }

    /// [`Journal::activate`] for a root. Issuing CAs that are prepared from now on are signed by it.
    ///
    /// # Errors
    /// As there.
    pub fn activate_root(&self, id: &str, now: SystemTime) -> Result<Journal, Error> {
        self.journal.activate(Tier::Root, id, now)
    }

    /// [`Journal::retire`] for a root: it leaves the bundle.
    ///
    /// # Errors
    /// As there.
    pub fn retire_root(&self, id: &str, now: SystemTime) -> Result<Journal, Error> {
        self.journal.retire(Tier::Root, id, &self.config, now)
    }
}

fn prepare_root(
    config: &CaConfig,
    journal: &Journal,
    keys: &dyn KeyStore,
    now: SystemTime,
    rng: &mut dyn CryptoRng,
) -> Result<Journal, Error> {
    let id = journal.next_id(Tier::Root)?;
    let not_after = whole(now + config.root_ttl);
    let params = template::authority(
        Tier::Root,
        &id,
        &config.trust_domain.id(),
        now,
        not_after,
        rng,
    )?;
    let key = key_id(&id, rng)?;
    let signer = keys.generate(&key)?;
    let certificate = params
        .self_signed(&&*signer)
        .map_err(Error::crypto("root certificate"))?
        .into();
    let slot = new_slot(id, key, None, certificate, not_after, now);
    journal.with_prepared(Tier::Root, slot, now)
}

fn prepare_issuing(
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
    let params = template::authority(
        Tier::Issuing,
        &id,
        &config.trust_domain.id(),
        now,
        not_after,
        rng,
    )?;
    let key = key_id(&id, rng)?;
    let signer = keys.generate(&key)?;
    let certificate = params
        .signed_by(&&*signer, &issuer(root, &root_signer)?)
        .map_err(Error::crypto("issuing certificate"))?;
    let slot = new_slot(
        id,
        key,
        Some(root.id.clone()),
        certificate.into(),
        not_after,
        now,
    );
    journal.with_prepared(Tier::Issuing, slot, now)
}

fn new_slot(
    id: String,
    key: KeyId,
    issuer: Option<String>,
    certificate: rustls::pki_types::CertificateDer<'static>,
    not_after: SystemTime,
    now: SystemTime,
) -> Slot {
    let (since, not_before) = (whole(now), whole(now - BACKDATE));
    Slot {
        id,
        state: SlotState::Prepared,
        since,
        issuer,
        signed_until: None,
        key,
        not_before,
        not_after,
        certificate,
    }
}

/// The slot's name and some randomness: if a crash loses the journal entry, its key must not stand in the way of the
/// next attempt.
fn key_id(slot: &str, rng: &mut dyn CryptoRng) -> Result<KeyId, Error> {
    let mut bytes = [0; 4];
    rng.fill_bytes(&mut bytes);
    KeyId::new(format!("{slot}-{}", hex(&bytes)))
}

/// The signer of a slot, after a check that it is the key which the certificate names.
fn signer_of(slot: &Slot, keys: &dyn KeyStore) -> Result<Signer, Error> {
    let signer = keys.signer(&slot.key)?;
    let certificate = parse_x509_certificate(&slot.certificate).map(|(_, certificate)| certificate);
    let named =
        certificate.is_ok_and(|c| c.public_key().subject_public_key.data == signer.der_bytes());
    match named {
        true => Ok(signer),
        false => Err(Error::KeyUnusable {
            key: slot.key.clone(),
            reason: "it is not the key of its certificate",
        }),
    }
}

fn issuer<'a>(
    slot: &Slot,
    signer: &'a Signer,
) -> Result<Issuer<'static, &'a (dyn rcgen::SigningKey + Send + Sync)>, Error> {
    Issuer::from_ca_cert_der(&slot.certificate, &**signer).map_err(Error::crypto("issuer"))
}

fn hex(bytes: &[u8]) -> String {
    use std::fmt::Write;
    bytes.iter().fold(String::new(), |mut text, byte| {
        let _ = write!(text, "{byte:02x}");
        text
    })
}

#[cfg(test)]
#[path = "authority_tests.rs"]
mod tests;
