//! Delegates: authorities of one site, made beforehand, that issue while the control node cannot be reached.
//!
//! The control node's side certifies the key of a delegate under the root. At the delegate that certificate stands in the
//! place of the issuing CA, under a root whose key is elsewhere: what issues there is the same [`Authority`], within the
//! list that is in the certificate ([`Site`]).

use std::time::{Duration, SystemTime};

use rand::CryptoRng;
use rcgen::{CertificateParams, CustomExtension, DistinguishedName, DnType};
use rustls::pki_types::CertificateDer;
use weft_certs::{Site, TrustBundle};
use x509_parser::parse_x509_certificate;

use crate::authority::{issuer, signer_of};
use crate::keys::Signing;
use crate::prepare::new_slot;
use crate::template::Level;
use crate::when::{from_unix, whole};
use crate::{
    Authority, Error, Journal, KeyId, KeyStore, KeyType, Slot, SlotState, Tier, csr, template,
};

/// The shortest life of a delegate's certificate: it must be renewed, too.
pub const SHORTEST_DELEGATE: Duration = Duration::from_secs(60);
/// The longest: so long can a site be cut off, and so long is a stolen delegate of use to a thief who keeps the site's
/// sidecars from learning that it is revoked.
pub const LONGEST_DELEGATE: Duration = Duration::from_secs(30 * 24 * 3600);

impl Authority {
    /// Certifies the key of a request as the delegate of a site, under the active root. Of the request only the key
    /// counts. It ends with the root if not sooner.
    ///
    /// # Errors
    /// [`Error::Lifetime`]; [`Error::Csr`]; [`Error::OfflineRoot`]; [`Error::IssuerEnding`]; what the key store says.
    pub fn certify_delegate(
        &self,
        request: &[u8],
        site: &Site,
        ttl: Duration,
        keys: &dyn KeyStore,
        now: SystemTime,
        rng: &mut dyn CryptoRng,
    ) -> Result<CertificateDer<'static>, Error> {
        check_life(ttl)?;
        let domain = &self.config().trust_domain;
        if *site.delegate().trust_domain() != *domain {
            return Err(Error::ForeignIdentity {
                id: site.delegate(),
                trust_domain: domain.clone(),
            });
        }
        let key = csr::verified_key(request)?;
        let root = self.journal().active(Tier::Root)?;
        let end = whole((now + ttl).min(root.not_after - self.config().margin()));
        if end < now + SHORTEST_DELEGATE.min(ttl) - Duration::from_secs(1) {
            return Err(Error::IssuerEnding {
                issuer: root.id.clone(),
                not_after: root.not_after,
            });
        }
        let signer = signer_of(root, keys)?;
        let signing = Signing::new(&signer);
        let name = format!("site {}", site.name());
        let mut params = template::authority(Level::Issuing, &name, &domain.id(), now, end, rng)?;
        let mut list = CustomExtension::from_oid_content(Site::oid(), site.to_der());
        list.set_criticality(true);
        params.custom_extensions.push(list);
        let certificate = params
            .signed_by(&key, &issuer(root, &signing)?)
            .map_err(signing.failed("delegate's certificate"))?;
        Ok(certificate.into())
    }
}

/// Whether a delegate may live so long.
///
/// # Errors
/// [`Error::Lifetime`].
pub fn check_life(ttl: Duration) -> Result<(), Error> {
    match (SHORTEST_DELEGATE..=LONGEST_DELEGATE).contains(&ttl) {
        true => Ok(()),
        false => Err(Error::Lifetime {
            asked: ttl,
            min: SHORTEST_DELEGATE,
            max: LONGEST_DELEGATE,
        }),
    }
}

/// At the delegate: the request for its certificate. The key is made if it is not there yet, and never leaves the store.
///
/// # Errors
/// What the key store says.
pub fn delegate_request(keys: &dyn KeyStore, key: &KeyId, kind: KeyType) -> Result<Vec<u8>, Error> {
    let signer = match keys.signer(key) {
        Err(Error::KeyMissing { .. }) => keys.generate(key, kind)?,
        other => other?,
    };
    let signing = Signing::new(&signer);
    let mut params = CertificateParams::default();
    params.distinguished_name = DistinguishedName::new();
    params
        .distinguished_name
        .push(DnType::CommonName, "weft delegate");
    let request = params
        .serialize_request(&signing)
        .map_err(signing.failed("certificate request"))?;
    Ok(request.der().to_vec())
}

impl Journal {
    /// At the delegate: its certificate in the place of the issuing CA, under the roots of the mesh, none of whose keys is
    /// here. `root` is the one that signed it.
    ///
    /// # Errors
    /// [`Error::Import`] if the certificate is not that of a delegate, or `root` is not in the bundle.
    pub fn of_delegate(
        bundle: &TrustBundle,
        root: &CertificateDer<'static>,
        certificate: CertificateDer<'static>,
        key: &KeyId,
        now: SystemTime,
    ) -> Result<Self, Error> {
        let refuse = |reason: &str| Error::Import {
            reason: reason.to_owned(),
        };
        let site = Site::of_certificate(&certificate, &bundle.trust_domain)
            .ok_or_else(|| refuse("the certificate is not that of a delegate"))?;
        let mut journal = Self::empty(bundle.trust_domain.clone());
        let mut above = None;
        for (index, der) in bundle.roots.iter().enumerate() {
            let id = format!("root-{}", index + 1);
            let active = der == root;
            if active {
                above = Some(id.clone());
            }
            let slot = slot(id, None, None, der, now)?;
            journal.push(
                Tier::Root,
                Slot {
                    state: match active {
                        true => SlotState::Active,
                        false => SlotState::Old,
                    },
                    ..slot
                },
            );
        }
        let above = above.ok_or_else(|| {
            refuse("the root that signed the delegate is not in the mesh's trust bundle")
        })?;
        let id = format!("site-{}", site.name());
        let slot = slot(id, Some(key.clone()), Some(above), &certificate, now)?;
        journal.push(
            Tier::Issuing,
            Slot {
                state: SlotState::Active,
                ..slot
            },
        );
        journal.sequence = bundle.sequence;
        Ok(journal)
    }
}

fn slot(
    id: String,
    key: Option<KeyId>,
    issuer: Option<String>,
    der: &CertificateDer<'static>,
    now: SystemTime,
) -> Result<Slot, Error> {
    let (_, parsed) = parse_x509_certificate(der).map_err(|e| Error::Import {
        reason: e.to_string(),
    })?;
    let validity = parsed.validity();
    let end = from_unix(validity.not_after.timestamp());
    let begin = from_unix(validity.not_before.timestamp());
    Ok(Slot {
        not_before: begin,
        ..new_slot(id, key, issuer, der.clone(), end, now)
    })
}

#[cfg(test)]
#[path = "delegate_tests.rs"]
mod tests;
