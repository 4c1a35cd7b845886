//! Certificates from elsewhere: an issuing CA signed by an offline root, or by somebody else's authority.

use std::time::SystemTime;

use rand::CryptoRng;
use rcgen::{CertificateParams, DistinguishedName, DnType};
use rustls::pki_types::CertificateDer;
use weft_certs::{BundleSet, SpiffeId, TrustBundle, Usage, X509Svid, verify_chain};
use x509_parser::certificate::X509Certificate;
use x509_parser::parse_x509_certificate;

use crate::authority::issuer;
use crate::keys::Signing;
use crate::prepare::{new_key, new_slot};
use crate::when::from_unix;
use crate::{
    Authority, CaConfig, Error, Intent, Journal, KeyStore, KeyType, RESERVED_NAMESPACE, Signer,
    Slot, SlotState, SoftKey, Tier, template,
};

/// Longest chain that is imported, root included.
const MAX_CHAIN: usize = 5;

impl Authority {
    /// Makes a key for an issuing CA and the request for its certificate. The key was intended before
    /// ([`intend`](Self::intend)); it waits for the certificate from now on.
    ///
    /// # Errors
    /// [`Error::Transition`] if the other slot is taken; what the key store says.
    pub fn request_issuing(
        &self,
        keys: &dyn KeyStore,
        rng: &mut dyn CryptoRng,
    ) -> Result<(Journal, Vec<u8>), Error> {
        let slot = self.journal().next_id(Tier::Issuing)?;
        if let Some(earlier) = self.journal().requested() {
            keys.remove(&earlier.key)?;
        }
        let (key, signer) = new_key(self.config(), self.journal(), &slot, keys, rng)?;
        let mut params = CertificateParams::default();
        params.distinguished_name = DistinguishedName::new();
        params
            .distinguished_name
            .push(DnType::CommonName, format!("weft {slot}"));
        let signing = Signing::new(&signer);
        let request = params
            .serialize_request(&signing)
            .map_err(signing.failed("certificate request"))?;
        let journal = self.journal().with_requested(Intent { slot, key });
        Ok((journal, request.der().to_vec()))
    }

    /// Takes the certificate of a request, its issuers and their root, in any order. The root enters the bundle,
    /// prepared; the issuing CA waits under it. A rotation of the root then brings both into use.
    ///
    /// # Errors
    /// [`Error::Import`] with the rule that they break; [`Error::Transition`] if a slot is taken.
    pub fn import_issuing(
        &self,
        certificates: &[CertificateDer<'static>],
        keys: &dyn KeyStore,
        now: SystemTime,
        rng: &mut dyn CryptoRng,
    ) -> Result<Journal, Error> {
        let refuse = |reason: &str| Error::Import {
            reason: reason.to_owned(),
        };
        let requested = self
            .journal()
            .requested()
            .ok_or_else(|| refuse("no request waits for them; make one with `weft ca csr`"))?;
        if certificates.len() > MAX_CHAIN {
            return Err(refuse("there are more than 5 of them"));
        }
        let signer = keys.signer(&requested.key)?;
        let parsed = certificates
            .iter()
            .map(|der| Ok((der, parse(der)?)))
            .collect::<Result<Vec<_>, Error>>()?;
        let own = parsed
            .iter()
            .find(|(_, c)| c.public_key().subject_public_key.data == signer.der_bytes())
            .ok_or_else(|| refuse("none of them has the key of the last request"))?;
        let path = path(own, &parsed).ok_or_else(|| {
            refuse("they do not lead to a root: give the issuing certificate, its issuers and the root")
        })?;
        let needed = now + self.config().max_leaf_ttl * 6;
        if validity(&own.1).1 < needed {
            return Err(refuse(
                "the issuing certificate lives less than 6 times the longest leaf: have it signed for longer",
            ));
        }
        let (root, above) = match path.as_slice() {
            [_, above @ .., root] => (root, above),
            _ => return Err(refuse("the root is missing")),
        };
        let (journal, root) = self.known_root(root, now)?;
        let slot = Slot {
            not_before: validity(&own.1).0,
            above: above.iter().map(|(der, _)| (*der).clone()).collect(),
            ..new_slot(
                journal.next_id(Tier::Issuing)?,
                Some(requested.key.clone()),
                Some(root),
                own.0.clone(),
                validity(&own.1).1,
                now,
            )
        };
        let root = &journal
            .slot(Tier::Root, slot.issuer.as_deref().unwrap_or_default())?
            .certificate;
        probe(self.config(), &slot, root, &signer, now, rng)?;
        journal.with_prepared(Tier::Issuing, slot, now)
    }

    /// The slot of a root from elsewhere; a new one if it is not there yet.
    fn known_root(&self, root: &Read<'_>, now: SystemTime) -> Result<(Journal, String), Error> {
        let journal = self.journal();
        let known = journal
            .slots(Tier::Root)
            .iter()
            .find(|slot| slot.is_live() && slot.certificate == *root.0);
        if let Some(slot) = known {
            return match slot.state {
                SlotState::Old => Err(Error::Import {
                    reason: format!("their root is {}, which is on its way out", slot.id),
                }),
                _ => Ok((journal.clone(), slot.id.clone())),
            };
        }
        let id = journal.next_id(Tier::Root)?;
        let (begin, end) = validity(&root.1);
        let slot = Slot {
            not_before: begin,
            ..new_slot(id.clone(), None, None, root.0.clone(), end, now)
        };
        Ok((journal.with_prepared(Tier::Root, slot, now)?, id))
    }
}

type Read<'a> = (&'a CertificateDer<'static>, X509Certificate<'a>);

fn parse<'a>(der: &'a CertificateDer<'static>) -> Result<X509Certificate<'a>, Error> {
    match parse_x509_certificate(der) {
        Ok(([], certificate)) => Ok(certificate),
        _ => Err(Error::Import {
            reason: "one of them is not a certificate in DER".to_owned(),
        }),
    }
}

fn validity(certificate: &X509Certificate<'_>) -> (SystemTime, SystemTime) {
    let validity = certificate.validity();
    (
        from_unix(validity.not_before.timestamp()),
        from_unix(validity.not_after.timestamp()),
    )
}

/// From the issuing certificate up to a self-issued one, by name. Whether it holds is for [`probe`] to find out.
fn path<'a>(own: &Read<'a>, all: &[Read<'a>]) -> Option<Vec<Read<'a>>> {
    let mut path = vec![own.clone()];
    while path.len() <= all.len() {
        let (_, below) = path.last()?;
        if below.subject() == below.issuer() {
            return Some(path);
        }
        let above = all.iter().find(|(_, c)| c.subject() == below.issuer())?;
        path.push(above.clone());
    }
    None
}

/// Signs a leaf that nobody gets and has it verified as a peer would: whatever is wrong with the chain shows now.
fn probe(
    config: &CaConfig,
    slot: &Slot,
    root: &CertificateDer<'static>,
    signer: &Signer,
    now: SystemTime,
    rng: &mut dyn CryptoRng,
) -> Result<(), Error> {
    let refuse = |reason: String| Error::Import { reason };
    let id = SpiffeId::for_service(&config.trust_domain, RESERVED_NAMESPACE, "probe")
        .map_err(|e| refuse(e.to_string()))?;
    let key = SoftKey::generate(KeyType::P256)?;
    let signing = Signing::new(signer);
    let leaf = template::leaf(&id, now, now + config.min_leaf_ttl, rng)?
        .signed_by(&key, &issuer(slot, &signing)?)
        .map_err(signing.failed("probe"))?;
    let mut chain: Vec<CertificateDer<'static>> = vec![leaf.into(), slot.certificate.clone()];
    chain.extend(slot.above.iter().cloned());
    let bundle = TrustBundle {
        trust_domain: config.trust_domain.clone(),
        sequence: 0,
        roots: vec![root.clone()],
        jwt_keys: Vec::new(),
    };
    let bundles = BundleSet::from(bundle);
    for usage in [Usage::Server, Usage::Client] {
        verify_chain(&chain, &bundles, now, usage)
            .map_err(|e| refuse(format!("a certificate under them would be refused: {e}")))?;
    }
    X509Svid::new(chain, key.pkcs8().clone()).map_err(|e| refuse(e.to_string()))?;
    Ok(())
}

#[cfg(test)]
#[path = "import_tests.rs"]
mod tests;
