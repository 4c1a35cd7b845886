//! The authority itself: a journal, the key that signs leaves, and what can be asked of them.

use std::time::{Duration, SystemTime};

use rand::CryptoRng;
use rcgen::{Issuer, PublicKeyData};
use weft_certs::{RootPin, Site, SpiffeId, TrustBundle};
use x509_parser::parse_x509_certificate;

use crate::config::BACKDATE;
use crate::issue::{check_identity, leaf_end};
use crate::keys::Signing;
use crate::when::whole;
use crate::{
    CaConfig, Error, Issued, Journal, KeyId, KeyStore, Signer, Slot, Tier, csr, is_reserved, jwt,
    prepare, template,
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
    /// Key of the tokens that it makes.
    jwt_signer: Option<Signer>,
    /// What it is confined to, if it is a delegate.
    site: Option<Site>,
}

impl std::fmt::Debug for Authority {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Authority")
            .field("config", &self.config)
            .finish_non_exhaustive()
    }
}

impl Authority {
    /// The certificate by which those who know only the root before this one find their way to it; as long as that
    /// one is in the bundle and in nobody else's hands.
    fn cross<'a>(&self, root: &'a Slot) -> Option<&'a rustls::pki_types::CertificateDer<'static>> {
        let cross = root.cross.as_ref()?;
        let by = self.journal.slot(Tier::Root, &cross.by).ok()?;
        (by.is_live() && !by.tainted).then_some(&cross.certificate)
    }

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
        let journal = prepare::root(config, &journal, keys, now, rng)?;
        let journal = journal.activate(Tier::Root, "root-1", now)?;
        let journal = prepare::issuing(config, &journal, keys, now, rng)?;
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
            if let (false, Some(key)) = (slot.is_live(), &slot.key) {
                keys.remove(key)?;
            }
        }
        jwt::forget(&journal, keys)?;
        let active = journal.active(Tier::Issuing)?;
        let site = Site::of_certificate(&active.certificate, &config.trust_domain);
        let signer = signer_of(active, keys)?;
        let jwt_signer = jwt::signer(&journal, keys)?;
        Ok(Self {
            config,
            journal,
            signer,
            jwt_signer,
            site,
        })
    }

    /// The settings.
    pub fn config(&self) -> &CaConfig {
        &self.config
    }

    /// What it is confined to, if it is a delegate.
    pub fn site(&self) -> Option<&Site> {
        self.site.as_ref()
    }

    /// Whether this authority may name anybody so: what is confined to a site does not go beyond it, though peers would
    /// refuse what it issued anyhow.
    ///
    /// # Errors
    /// [`Error::OutsideSite`].
    pub fn check_site(&self, id: &SpiffeId) -> Result<(), Error> {
        match &self.site {
            Some(site) if !site.permits(id) => Err(Error::OutsideSite {
                id: id.clone(),
                site: site.name().to_owned(),
            }),
            _ => Ok(()),
        }
    }

    /// Whether to sign may wait for something outside of this process ([`Sign::waits`](crate::Sign::waits)).
    pub fn waits(&self) -> bool {
        self.signer.waits()
    }

    /// What signs tokens, if anything does yet.
    pub(crate) fn jwt_signer(&self) -> Option<&Signer> {
        self.jwt_signer.as_ref()
    }

    /// The journal that this was loaded from.
    pub fn journal(&self) -> &Journal {
        &self.journal
    }

    /// [`Journal::bundle`].
    pub fn bundle(&self) -> TrustBundle {
        self.journal.bundle()
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
    /// [`Error::ForeignIdentity`], [`Error::NotAWorkload`], [`Error::OutsideSite`], [`Error::Csr`],
    /// [`Error::Lifetime`], [`Error::IssuerEnding`].
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
        self.check_site(attested)?;
        let key = csr::verified_key(csr)?;
        let slot = self.journal.active(Tier::Issuing)?;
        let not_after = leaf_end(&self.config, slot, ttl, now)?;
        let params = template::leaf(attested, now, not_after, rng)?;
        let serial = params
            .serial_number
            .as_ref()
            .map(|serial| hex(serial.as_ref()))
            .unwrap_or_default();
        let signing = Signing::new(&self.signer);
        let leaf = params
            .signed_by(&key, &issuer(slot, &signing)?)
            .map_err(signing.failed("leaf certificate"))?;
        let root = self
            .journal
            .slot(Tier::Root, slot.issuer.as_deref().unwrap_or_default())?;
        let mut chain = vec![leaf.into(), slot.certificate.clone()];
        chain.extend(slot.above.iter().cloned());
        chain.extend(self.cross(root).cloned());
        Ok(Issued {
            id: attested.clone(),
            chain,
            key: RootPin::from(sha256(&key.subject_public_key_info())),
            root: root.certificate.clone(),
            serial,
            not_before: whole(now - BACKDATE),
            not_after,
            issuer: slot.id.clone(),
        })
    }

    /// Whether this issuing CA has begun, and has enough of its life left for a leaf.
    pub fn can_sign(&self, slot: &Slot, now: SystemTime) -> bool {
        slot.not_before <= now && leaf_end(&self.config, slot, None, now).is_ok()
    }

    /// The first half of making an authority or a request: the journal that names the key to come. Persist it, then
    /// go on with [`prepare_root`](Self::prepare_root) or the like.
    ///
    /// # Errors
    /// [`Error::Transition`] if the tier's other slot is taken.
    pub fn intend(&self, tier: Tier, rng: &mut dyn CryptoRng) -> Result<Journal, Error> {
        let slot = self.journal.next_id(tier)?;
        self.journal.with_intent(tier, key_id(&slot, rng)?)
    }

    /// Takes back an intent that a crash left behind, with the key if there is one.
    ///
    /// # Errors
    /// What the key store says.
    pub fn roll_back(&self, keys: &dyn KeyStore) -> Result<Journal, Error> {
        if let Some(intent) = self.journal.intent() {
            keys.remove(&intent.key)?;
        }
        Ok(self.journal.without_intent())
    }

    /// Makes the next root, which enters the bundle at once and signs nothing until it is activated. The present root
    /// signs it too, for those who sleep through its coming.
    ///
    /// # Errors
    /// [`Error::Transition`] if the other slot is taken; what the key store says.
    pub fn prepare_root(
        &self,
        keys: &dyn KeyStore,
        now: SystemTime,
        rng: &mut dyn CryptoRng,
    ) -> Result<Journal, Error> {
        prepare::root(&self.config, &self.journal, keys, now, rng)
    }

    /// Makes the next issuing CA under the active root.
    ///
    /// # Errors
    /// [`Error::Transition`] if the other slot is taken; [`Error::IssuerEnding`] if the root ends too soon;
    /// [`Error::OfflineRoot`] if the root's key is elsewhere; what the key store says.
    pub fn prepare_issuing(
        &self,
        keys: &dyn KeyStore,
        now: SystemTime,
        rng: &mut dyn CryptoRng,
    ) -> Result<Journal, Error> {
        prepare::issuing(&self.config, &self.journal, keys, now, rng)
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

/// The signer of a slot, after a check that it is the key which the certificate names.
pub(crate) fn signer_of(slot: &Slot, keys: &dyn KeyStore) -> Result<Signer, Error> {
    let key = slot.key.as_ref().ok_or_else(|| Error::OfflineRoot {
        slot: slot.id.clone(),
    })?;
    let signer = keys.signer(key)?;
    let certificate = parse_x509_certificate(&slot.certificate).map(|(_, certificate)| certificate);
    let named =
        certificate.is_ok_and(|c| c.public_key().subject_public_key.data == signer.der_bytes());
    match named {
        true => Ok(signer),
        false => Err(Error::KeyUnusable {
            key: key.clone(),
            reason: "it is not the key of its certificate",
        }),
    }
}

/// The slot's name and some randomness: if a crash loses the journal entry, its key must not stand in the way of the
/// next attempt.
pub(crate) fn key_id(slot: &str, rng: &mut dyn CryptoRng) -> Result<KeyId, Error> {
    let mut bytes = [0; 4];
    rng.fill_bytes(&mut bytes);
    KeyId::new(format!("{slot}-{}", hex(&bytes)))
}

pub(crate) fn issuer<'a>(
    slot: &Slot,
    signing: &'a Signing<'a>,
) -> Result<Issuer<'static, &'a Signing<'a>>, Error> {
    Issuer::from_ca_cert_der(&slot.certificate, signing).map_err(Error::crypto("issuer"))
}

fn sha256(bytes: &[u8]) -> [u8; 32] {
    let digest = aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA256, bytes);
    let mut out = [0; 32];
    out.copy_from_slice(digest.as_ref());
    out
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
