//! The path of a leaf that a delegate has issued: leaf, delegate, root, and nothing else.
//!
//! `webpki` refuses the delegate's critical extension, as every verifier does that does not know it. So the delegate is
//! held against its rules here, and the leaf then against the delegate as its anchor. These rules are stricter than
//! RFC 5280: the delegate stands right behind the leaf, a root of the bundle itself has signed it, and it may make no
//! other authority.

use rustls::pki_types::CertificateDer;
use webpki::EndEntityCert;
use x509_parser::certificate::X509Certificate;

use crate::path::{PathCheck, PathError, check_validity};
use crate::{Site, SpiffeId, TrustDomain, der};

/// The site whose delegate has issued a leaf; `None` if its issuer is none.
pub(crate) fn site_of(
    issuer: Option<&CertificateDer<'_>>,
    trust_domain: &TrustDomain,
) -> Result<Option<Site>, PathError> {
    let Some(issuer) = issuer else {
        return Ok(None);
    };
    // One that cannot be read at all is for the ordinary rules to refuse.
    let Ok(certificate) = der::parse(issuer) else {
        return Ok(None);
    };
    Site::of(&certificate, trust_domain).map_err(bad)
}

fn bad(reason: &str) -> PathError {
    PathError::Bad(reason.to_owned())
}

impl PathCheck<'_> {
    /// Whether the delegate of `site`, the first of the intermediates, may vouch for the leaf, and a root for it.
    pub(crate) fn under_delegate(
        &self,
        site: &Site,
        id: &SpiffeId,
        roots: &[CertificateDer<'static>],
    ) -> Result<(), PathError> {
        let delegate = self
            .intermediates
            .first()
            .ok_or(PathError::UnknownAuthority)?;
        let certificate = der::parse(delegate).map_err(|e| PathError::Unreadable(e.to_string()))?;
        check_form(&certificate)?;
        if !site.permits(id) {
            return Err(PathError::Bad(format!(
                "the delegate of site {} may not vouch for it",
                site.name()
            )));
        }
        let validity = certificate.validity();
        let (begin, end) = (
            der::system_time(validity.not_before.timestamp()),
            der::system_time(validity.not_after.timestamp()),
        );
        check_validity("issuer", begin, end, self.now)?;
        let key = der::sha256(certificate.public_key().raw).into();
        if self.revoked.is_some_and(|list| list.has_key(&key)) {
            return Err(PathError::RevokedIssuer);
        }
        self.signed_by_root(&certificate, roots)?;
        let leaf = PathCheck {
            leaf: self.leaf,
            intermediates: &[],
            now: self.now,
            usage: self.usage,
            revoked: self.revoked,
        };
        leaf.to_anchors(&[delegate])
    }

    /// RFC 5280 §6.1.3 (a): one of the roots has signed it, which is within its time and may do so.
    fn signed_by_root(
        &self,
        delegate: &X509Certificate<'_>,
        roots: &[CertificateDer<'static>],
    ) -> Result<(), PathError> {
        let mut cause = PathError::UnknownAuthority;
        for der in roots {
            let Ok(root) = der::parse(der) else {
                continue;
            };
            let named = root.subject().as_raw() == delegate.issuer().as_raw();
            if !named || !has_signed(der, delegate) {
                continue;
            }
            let validity = root.validity();
            let live = check_validity(
                "root",
                der::system_time(validity.not_before.timestamp()),
                der::system_time(validity.not_after.timestamp()),
                self.now,
            );
            match live.and_then(|()| check_root(&root)) {
                Ok(()) => return Ok(()),
                Err(why) => cause = why,
            }
        }
        Err(cause)
    }
}

fn has_signed(root: &CertificateDer<'_>, delegate: &X509Certificate<'_>) -> bool {
    let Ok(signer) = EndEntityCert::try_from(root) else {
        return false;
    };
    let signed = delegate.tbs_certificate.as_ref();
    let signature = &delegate.signature_value.data;
    crate::tls::signature_algorithms()
        .all
        .iter()
        .any(|algorithm| {
            signer
                .verify_signature(*algorithm, signed, signature)
                .is_ok()
        })
}

/// What a root with limits of its own would allow is not worked out: it makes no delegates.
fn check_root(root: &X509Certificate<'_>) -> Result<(), PathError> {
    der::check_issuer(root).map_err(bad)?;
    let limited = root
        .name_constraints()
        .map_or(true, |found| found.is_some());
    let no_room = path_length(root).is_some_and(|length| length == 0);
    match limited || no_room {
        true => Err(bad("the root above its delegate may not make one")),
        false => Ok(()),
    }
}

fn path_length(certificate: &X509Certificate<'_>) -> Option<u32> {
    let constraints = certificate.basic_constraints().ok().flatten()?;
    constraints.value.path_len_constraint
}

/// A delegate is a CA of path length 0, without critical extensions that nobody here would look at.
fn check_form(delegate: &X509Certificate<'_>) -> Result<(), PathError> {
    /// Basic constraints, key usage, subject alternative name (RFC 5280 §4.2.1).
    const KNOWN: [&[u8]; 3] = [
        &[0x55, 0x1d, 0x13],
        &[0x55, 0x1d, 0x0f],
        &[0x55, 0x1d, 0x11],
    ];
    der::check_issuer(delegate).map_err(bad)?;
    if path_length(delegate) != Some(0) {
        return Err(bad("its delegate may make other authorities"));
    }
    let strange = delegate.extensions().iter().any(|extension| {
        let oid = extension.oid.as_bytes();
        extension.critical && !Site::is_oid(oid) && !KNOWN.contains(&oid)
    });
    match strange {
        true => Err(bad(
            "its delegate has a critical extension that is not known",
        )),
        false => Ok(()),
    }
}

#[cfg(test)]
#[path = "delegate_tests.rs"]
mod tests;
