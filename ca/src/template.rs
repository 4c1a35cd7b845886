//! The certificates that the authority makes: what is in them, tier by tier (X509-SVID §3, §4).

use std::time::SystemTime;

use rand::CryptoRng;
use rcgen::string::Ia5String;
use rcgen::{
    BasicConstraints, CertificateParams, DistinguishedName, DnType, ExtendedKeyUsagePurpose, IsCa,
    KeyUsagePurpose, SanType, SerialNumber,
};
use weft_certs::SpiffeId;

use crate::Error;
use crate::config::BACKDATE;
use crate::when::offset;

/// How many authorities may stand below one (RFC 5280 §4.2.1.9).
#[derive(Debug, Clone, Copy)]
pub(crate) enum Level {
    /// A cross-signed root and its issuing CA.
    Root,
    /// An issuing CA.
    Cross,
    /// Leaves only.
    Issuing,
}

impl Level {
    fn below(self) -> u8 {
        match self {
            Self::Root => 2,
            Self::Cross => 1,
            Self::Issuing => 0,
        }
    }
}

/// A root or an issuing CA: CA, keyCertSign, named after the trust domain; an issuing CA signs leaves only.
pub(crate) fn authority(
    level: Level,
    slot: &str,
    trust_domain: &SpiffeId,
    now: SystemTime,
    not_after: SystemTime,
    rng: &mut dyn CryptoRng,
) -> Result<CertificateParams, Error> {
    let mut params = common(trust_domain, now, not_after, rng)?;
    // The subject tells authorities apart when a path is built; names of people or firms have no place here.
    params
        .distinguished_name
        .push(DnType::CommonName, format!("weft {slot}"));
    params.is_ca = IsCa::Ca(BasicConstraints::Constrained(level.below()));
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    Ok(params)
}

/// A leaf: the SPIFFE ID is its only name, so the subject is empty and the SAN critical.
pub(crate) fn leaf(
    id: &SpiffeId,
    now: SystemTime,
    not_after: SystemTime,
    rng: &mut dyn CryptoRng,
) -> Result<CertificateParams, Error> {
    let mut params = common(id, now, not_after, rng)?;
    // Explicit, because only then does rcgen write the subject key identifier.
    params.is_ca = IsCa::ExplicitNoCa;
    params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    params.extended_key_usages = vec![
        ExtendedKeyUsagePurpose::ServerAuth,
        ExtendedKeyUsagePurpose::ClientAuth,
    ];
    Ok(params)
}

fn common(
    id: &SpiffeId,
    now: SystemTime,
    not_after: SystemTime,
    rng: &mut dyn CryptoRng,
) -> Result<CertificateParams, Error> {
    let mut params = CertificateParams::default();
    params.distinguished_name = DistinguishedName::new();
    params.not_before = offset(now - BACKDATE);
    params.not_after = offset(not_after);
    params.serial_number = Some(serial(rng));
    let uri = Ia5String::try_from(id.as_str()).map_err(Error::crypto("certificate"))?;
    params.subject_alt_names = vec![SanType::URI(uri)];
    params.use_authority_key_identifier_extension = true;
    Ok(params)
}

/// 126 random bits, positive and always 16 bytes long (RFC 5280 §4.1.2.2 allows 20).
fn serial(rng: &mut dyn CryptoRng) -> SerialNumber {
    let mut bytes = [0; 16];
    rng.fill_bytes(&mut bytes);
    bytes[0] = bytes[0] & 0x7f | 0x40;
    SerialNumber::from_slice(&bytes)
}
