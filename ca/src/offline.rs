//! The side of a root whose key never is on a machine of the mesh: it signs requests for issuing CAs.
//!
//! `weft ca csr` on the control node, `weft ca sign` where the root is, `weft ca import` on the control node.

use std::time::{Duration, SystemTime};

use rand::CryptoRng;
use rustls::pki_types::CertificateDer;
use serde::{Deserialize, Serialize};
use weft_certs::{RootPin, TrustDomain};

use crate::authority::{issuer, signer_of};
use crate::keys::Signing;
use crate::prepare::new_slot;
use crate::template::Level;
use crate::when::{self, whole};
use crate::{Error, KeyId, KeyStore, KeyType, Slot, csr, template};

/// What is kept beside the root's key: its certificate.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct OfflineRoot {
    trust_domain: TrustDomain,
    root: Slot,
    /// What it signed, for the record.
    signed: Vec<SignedIssuing>,
}

/// One issuing CA that the root signed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SignedIssuing {
    /// When.
    #[serde(with = "when")]
    pub at: SystemTime,
    /// End of it.
    #[serde(with = "when")]
    pub not_after: SystemTime,
    /// SHA-256 of its key.
    pub key: RootPin,
}

impl OfflineRoot {
    /// Makes the key and its certificate. Persist the result.
    ///
    /// # Errors
    /// What the key store says.
    pub fn create(
        trust_domain: TrustDomain,
        kind: KeyType,
        ttl: Duration,
        keys: &dyn KeyStore,
        now: SystemTime,
        rng: &mut dyn CryptoRng,
    ) -> Result<Self, Error> {
        let (key, not_after) = (KeyId::new("offline-root")?, whole(now + ttl));
        let name = trust_domain.id();
        let signer = keys.generate(&key, kind)?;
        let signing = Signing::new(&signer);
        let certificate =
            template::authority(Level::Root, "offline-root", &name, now, not_after, rng)?
                .self_signed(&signing)
                .map_err(signing.failed("root certificate"))?;
        let id = "offline-root".to_owned();
        Ok(Self {
            trust_domain,
            root: new_slot(id, Some(key), None, certificate.into(), not_after, now),
            signed: Vec::new(),
        })
    }

    /// The root's certificate.
    pub fn certificate(&self) -> &CertificateDer<'static> {
        &self.root.certificate
    }

    /// Its trust domain.
    pub fn trust_domain(&self) -> &TrustDomain {
        &self.trust_domain
    }

    /// What it signed so far.
    pub fn signed(&self) -> &[SignedIssuing] {
        &self.signed
    }

    /// Signs an issuing CA for the key of a request, whose sender proves to hold it. Of the request only the key
    /// counts. Persist the root's new record before the certificate is handed out.
    ///
    /// # Errors
    /// [`Error::Csr`]; [`Error::IssuerEnding`] if the root ends before `ttl` is over; what the key store says.
    pub fn sign(
        &mut self,
        request: &[u8],
        ttl: Duration,
        keys: &dyn KeyStore,
        now: SystemTime,
        rng: &mut dyn CryptoRng,
    ) -> Result<CertificateDer<'static>, Error> {
        let key = csr::verified_key(request)?;
        let not_after = whole(now + ttl);
        if not_after >= self.root.not_after {
            return Err(Error::IssuerEnding {
                issuer: self.root.id.clone(),
                not_after: self.root.not_after,
            });
        }
        let signer = signer_of(&self.root, keys)?;
        let signing = Signing::new(&signer);
        let mut bytes = [0; 4];
        rng.fill_bytes(&mut bytes);
        let name = format!("issuing-{:08x}", u32::from_be_bytes(bytes));
        let certificate: CertificateDer<'static> = template::authority(
            Level::Issuing,
            &name,
            &self.trust_domain.id(),
            now,
            not_after,
            rng,
        )?
        .signed_by(&key, &issuer(&self.root, &signing)?)
        .map_err(signing.failed("issuing certificate"))?
        .into();
        let key = RootPin::of(&certificate).map_err(|e| Error::Import {
            reason: e.to_string(),
        })?;
        self.signed.push(SignedIssuing {
            at: whole(now),
            not_after,
            key,
        });
        Ok(certificate)
    }
}
