//! Reading certificates: the rules of an X509-SVID leaf and of an issuer, and small conversions.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use rustls::pki_types::CertificateDer;
use x509_parser::certificate::X509Certificate;
use x509_parser::extensions::GeneralName;

use crate::{RootPin, SpiffeId, VerifyError};

/// What a leaf says of itself, once it has passed the leaf rules.
#[derive(Debug, Clone)]
pub(crate) struct Leaf {
    pub(crate) id: SpiffeId,
    pub(crate) serial: String,
    pub(crate) not_before: SystemTime,
    pub(crate) not_after: SystemTime,
    /// SHA-256 of its public key, as pins are made.
    pub(crate) key: RootPin,
}

/// Parses one certificate, with nothing behind it.
pub(crate) fn parse<'a>(der: &'a CertificateDer<'_>) -> Result<X509Certificate<'a>, VerifyError> {
    let bad = |reason: String| VerifyError::BadCertificate { reason };
    let (rest, certificate) =
        x509_parser::parse_x509_certificate(der.as_ref()).map_err(|e| bad(format!("{e}")))?;
    match rest.is_empty() {
        true => Ok(certificate),
        false => Err(bad("there are bytes behind the certificate".to_owned())),
    }
}

/// Checks the leaf rules of X509-SVID §2 to §4 and yields the identity. Says nothing about trust or time.
pub(crate) fn leaf(der: &CertificateDer<'_>) -> Result<Leaf, VerifyError> {
    let certificate = parse(der)?;
    let id = leaf_id(&certificate)?;
    check_leaf_usage(&certificate)?;
    Ok(Leaf {
        id,
        serial: serial(&certificate),
        not_before: system_time(certificate.validity().not_before.timestamp()),
        not_after: system_time(certificate.validity().not_after.timestamp()),
        key: RootPin::from(sha256(certificate.public_key().raw)),
    })
}

/// Lower case hexadecimal, without the zero that only says that the number is positive.
fn serial(certificate: &X509Certificate<'_>) -> String {
    let raw = certificate.raw_serial();
    hex(raw.strip_prefix(&[0]).unwrap_or(raw))
}

/// Serial number of any certificate, leaf or authority, in lower case hexadecimal.
///
/// # Errors
/// [`VerifyError::BadCertificate`] if it is not a certificate.
pub fn serial_of(certificate: &CertificateDer<'_>) -> Result<String, VerifyError> {
    parse(certificate).map(|certificate| serial(&certificate))
}

/// Certificates in DER one behind the other, as the Workload API carries chains and bundles (SPIFFE Workload API §4).
///
/// # Errors
/// [`VerifyError::BadCertificate`] if a part of it is none.
pub fn concatenated(mut bytes: &[u8]) -> Result<Vec<CertificateDer<'static>>, VerifyError> {
    let mut certificates = Vec::new();
    while !bytes.is_empty() {
        let (rest, _) = x509_parser::parse_x509_certificate(bytes).map_err(|error| {
            VerifyError::BadCertificate {
                reason: error.to_string(),
            }
        })?;
        let (one, _) = bytes.split_at(bytes.len() - rest.len());
        certificates.push(CertificateDer::from(one.to_vec()));
        bytes = rest;
    }
    Ok(certificates)
}

/// End of the validity of any certificate.
///
/// # Errors
/// [`VerifyError::BadCertificate`] if it is not a certificate.
pub fn not_after_of(certificate: &CertificateDer<'_>) -> Result<SystemTime, VerifyError> {
    parse(certificate).map(|found| system_time(found.validity().not_after.timestamp()))
}

/// X509-SVID §2: exactly one URI SAN, of any scheme; §3.1: a SPIFFE ID with a path.
fn leaf_id(certificate: &X509Certificate<'_>) -> Result<SpiffeId, VerifyError> {
    let not = |reason: &str| VerifyError::NotAnSvid {
        reason: reason.to_owned(),
    };
    let names = certificate
        .subject_alternative_name()
        .map_err(|e| VerifyError::BadCertificate {
            reason: format!("subject alternative name: {e}"),
        })?
        .ok_or_else(|| not("it has no subject alternative name"))?;
    let mut uris = names
        .value
        .general_names
        .iter()
        .filter_map(|name| match name {
            GeneralName::URI(uri) => Some(Ok(*uri)),
            // RFC 5280 §4.2.1.6: [6] is the URI; the parser could not read this one.
            GeneralName::Invalid(tag, _) if tag.0 == 6 => {
                Some(Err(not("its URI name is not text")))
            }
            _ => None,
        });
    let uri = uris.next().ok_or_else(|| not("it has no URI name"))??;
    if uris.next().is_some() {
        return Err(not("it has more than one URI name"));
    }
    let id = SpiffeId::parse(uri).map_err(|e| not(&e.to_string()))?;
    if id.path().is_empty() {
        return Err(not(
            "its SPIFFE ID has no path, so it names a trust domain and not a workload",
        ));
    }
    // RFC 5280 §4.1.2.6: without a subject, the names must not be overlooked.
    if certificate.subject().as_raw().len() <= 2 && !names.critical {
        return Err(not(
            "its subject is empty and its subject alternative name is not critical",
        ));
    }
    Ok(id)
}

/// X509-SVID §4.1 basic constraints, §4.3 key usage, §4.4 extended key usage.
fn check_leaf_usage(certificate: &X509Certificate<'_>) -> Result<(), VerifyError> {
    let bad = |e| VerifyError::BadCertificate {
        reason: format!("extensions: {e}"),
    };
    let not = |reason: &str| {
        Err(VerifyError::NotAnSvid {
            reason: reason.to_owned(),
        })
    };
    if certificate
        .basic_constraints()
        .map_err(bad)?
        .is_some_and(|ext| ext.value.ca)
    {
        return not("it is a CA certificate");
    }
    let Some(usage) = certificate.key_usage().map_err(bad)? else {
        return not("it has no key usage");
    };
    if !usage.critical {
        return not("its key usage is not critical");
    }
    if !usage.value.digital_signature() {
        return not("its key usage lacks digitalSignature");
    }
    if usage.value.key_cert_sign() {
        return not("its key usage has keyCertSign");
    }
    if usage.value.crl_sign() {
        return not("its key usage has cRLSign");
    }
    match certificate.extended_key_usage().map_err(bad)? {
        Some(ext) if !(ext.value.server_auth && ext.value.client_auth) => {
            not("its extended key usage is not both serverAuth and clientAuth")
        }
        _ => Ok(()),
    }
}

/// Whether a certificate may sign others: CA and keyCertSign (X509-SVID §3.2, §4.3). The reason if not.
pub(crate) fn check_issuer(certificate: &X509Certificate<'_>) -> Result<(), &'static str> {
    let ca = certificate
        .basic_constraints()
        .ok()
        .flatten()
        .is_some_and(|ext| ext.value.ca);
    let signs = certificate
        .key_usage()
        .ok()
        .flatten()
        .is_some_and(|ext| ext.value.key_cert_sign());
    match (ca, signs) {
        (true, true) => Ok(()),
        (false, _) => Err("an issuer in it is not a CA"),
        (true, false) => Err("an issuer in it may not sign certificates (keyCertSign)"),
    }
}

/// SHA-256 of the SubjectPublicKeyInfo: what a pin is made of.
pub(crate) fn spki_sha256(der: &CertificateDer<'_>) -> Result<[u8; 32], VerifyError> {
    Ok(sha256(parse(der)?.public_key().raw))
}

pub(crate) fn sha256(bytes: &[u8]) -> [u8; 32] {
    let digest = aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA256, bytes);
    digest.as_ref().try_into().expect("SHA-256 is 32 bytes")
}

pub(crate) fn hex(bytes: &[u8]) -> String {
    use std::fmt::Write;
    bytes
        .iter()
        .fold(String::with_capacity(bytes.len() * 2), |mut text, byte| {
            let _ = write!(text, "{byte:02x}");
            text
        })
}

/// Seconds since 1970 as a time. Before 1970 counts as 1970: no certificate of ours is that old.
pub(crate) fn system_time(seconds: i64) -> SystemTime {
    UNIX_EPOCH + Duration::from_secs(u64::try_from(seconds).unwrap_or(0))
}

/// Whole seconds since 1970, the unit of certificates.
pub(crate) fn seconds(time: SystemTime) -> u64 {
    time.duration_since(UNIX_EPOCH)
        .map_or(0, |since| since.as_secs())
}

/// A time as people read it in messages.
pub(crate) fn rfc3339(time: SystemTime) -> String {
    let seconds = i64::try_from(seconds(time)).unwrap_or(i64::MAX);
    time::OffsetDateTime::from_unix_timestamp(seconds)
        .ok()
        .and_then(|t| {
            t.format(&time::format_description::well_known::Rfc3339)
                .ok()
        })
        .unwrap_or_else(|| format!("{seconds} s after 1970"))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;
    use crate::testing::Ca;

    #[test]
    fn workload_api_4_certificates_one_behind_the_other_come_apart_and_rests_are_refused() {
        let (one, two) = (Ca::root("weft.local"), Ca::root("other.example"));
        let both = [one.der.as_ref(), two.der.as_ref()].concat();
        assert_eq!(concatenated(&both).unwrap(), [one.der, two.der]);
        assert_eq!(concatenated(&[]).unwrap(), []);
        for bad in [
            &both[..both.len() - 1],
            &both[1..],
            &[&both[..], &[0]].concat(),
        ] {
            assert!(concatenated(bad).is_err());
        }
    }
}
