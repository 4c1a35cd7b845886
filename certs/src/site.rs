//! What a delegate may vouch for: an extension of its certificate, under the signature of the root.
//!
//! Name constraints on URIs stop at the host, which of a SPIFFE ID is the trust domain (RFC 5280 §4.2.1.10): they cannot
//! say "this site". So the list is an extension of weft's own. It is critical: a verifier that does not know it must
//! refuse the chain (RFC 5280 §4.2) instead of taking the delegate for an authority over the whole trust domain.

use std::fmt;

use rustls::pki_types::CertificateDer;
use x509_parser::certificate::X509Certificate;
use x509_parser::der_parser::asn1_rs::{FromDer, Sequence, Utf8String};

use crate::error::shown;
use crate::{Error, SpiffeId, TrustDomain, der};

/// `2.25.3821200007047063965`: under the arc of numbers that nobody hands out (ITU-T X.667), drawn at random.
const OID: [u64; 3] = [2, 25, 3_821_200_007_047_063_965];
/// The same, as it stands in a certificate.
const OID_DER: [u8; 10] = [0x69, 0xb5, 0x83, 0xe8, 0xa5, 0x92, 0xde, 0x8a, 0xd3, 0x1d];
/// A DNS label less the prefix that its identity has.
const MAX_NAME: usize = 48;
/// A site with more is better named by its namespaces.
const MAX_PERMITTED: usize = 256;
/// Of the extension. All peers of the site send it in each handshake.
const MAX_BYTES: usize = 16 * 1024;
/// Nobody but the mesh itself is in it.
const SYSTEM: &str = "/ns/weft-system";

/// A site, and the identities that its delegate may vouch for. Deny by default: nobody else.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Site {
    name: String,
    trust_domain: TrustDomain,
    permitted: Vec<Permit>,
}

/// One identity, or all below a path.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Permit {
    One(SpiffeId),
    /// Without the `/*` that it is written with.
    Below(SpiffeId),
}

impl Permit {
    /// `spiffe://td/path`, or `spiffe://td/path/*` for all that is below.
    fn parse(text: &str) -> Result<Self, Error> {
        let fail = |reason| Error::Site {
            text: shown(text),
            reason,
        };
        let Some(above) = text.strip_suffix("/*") else {
            let id = SpiffeId::parse(text)?;
            return match (id.path().is_empty(), is_system(&id)) {
                (true, _) => Err(fail(
                    "it names a trust domain: write the path of an identity, or a path with /* behind it",
                )),
                (_, true) => Err(fail("the namespace weft-system is weft's own")),
                _ => Ok(Self::One(id)),
            };
        };
        let id = SpiffeId::parse(above)?;
        // `/*` and `/ns/*` would hold weft-system too, and are no site.
        if id.path().split('/').skip(1).count() < 2 {
            return Err(fail(
                "it is as good as the whole trust domain: name a namespace, as in spiffe://td/ns/site/*",
            ));
        }
        match is_system(&id) {
            true => Err(fail("the namespace weft-system is weft's own")),
            false => Ok(Self::Below(id)),
        }
    }

    fn holds(&self, id: &SpiffeId) -> bool {
        match self {
            Self::One(one) => one == id,
            Self::Below(above) => id
                .as_str()
                .strip_prefix(above.as_str())
                .is_some_and(|rest| rest.starts_with('/')),
        }
    }

    fn trust_domain(&self) -> &TrustDomain {
        match self {
            Self::One(id) | Self::Below(id) => id.trust_domain(),
        }
    }
}

impl fmt::Display for Permit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::One(id) => fmt::Display::fmt(id, f),
            Self::Below(above) => write!(f, "{above}/*"),
        }
    }
}

fn is_system(id: &SpiffeId) -> bool {
    id.path()
        .strip_prefix(SYSTEM)
        .is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
}

/// The identity of the delegate of a site.
///
/// # Errors
/// [`Error::Site`] for what is no name of a site.
pub fn delegate_id(trust_domain: &TrustDomain, site: &str) -> Result<SpiffeId, Error> {
    check_name(site)?;
    SpiffeId::parse(&format!("spiffe://{trust_domain}{SYSTEM}/sa/site-{site}"))
}

fn check_name(name: &str) -> Result<(), Error> {
    let legal = |b: u8| matches!(b, b'a'..=b'z' | b'0'..=b'9' | b'-');
    let good = (1..=MAX_NAME).contains(&name.len())
        && name.bytes().all(legal)
        && !name.starts_with('-')
        && !name.ends_with('-');
    match good {
        true => Ok(()),
        false => Err(Error::Site {
            text: shown(name),
            reason: "the name of a site has up to 48 lower case letters, digits and dashes",
        }),
    }
}

impl Site {
    /// A site of this trust domain with those that its delegate may vouch for: SPIFFE IDs, and paths with `/*` for all
    /// below. The delegate itself is always among them.
    ///
    /// # Errors
    /// [`Error::Site`], [`Error::Id`] for what is too wide, foreign or malformed.
    pub fn new(
        name: &str,
        trust_domain: &TrustDomain,
        permitted: &[impl AsRef<str>],
    ) -> Result<Self, Error> {
        check_name(name)?;
        let fail = |text: &str, reason| Error::Site {
            text: shown(text),
            reason,
        };
        if permitted.is_empty() {
            return Err(fail(name, "nobody is permitted, so it would be of no use"));
        }
        if permitted.len() > MAX_PERMITTED {
            return Err(fail(name, "more than 256 are permitted: name namespaces"));
        }
        let mut site = Self {
            name: name.to_owned(),
            trust_domain: trust_domain.clone(),
            permitted: Vec::with_capacity(permitted.len()),
        };
        for text in permitted.iter().map(AsRef::as_ref) {
            let permit = Permit::parse(text)?;
            if permit.trust_domain() != trust_domain {
                return Err(fail(text, "it is of another trust domain"));
            }
            if !site.permitted.contains(&permit) {
                site.permitted.push(permit);
            }
        }
        match site.to_der().len() <= MAX_BYTES {
            true => Ok(site),
            false => Err(fail(
                name,
                "what is permitted has more than 16 KiB: name namespaces",
            )),
        }
    }

    /// Its name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The identity of its delegate.
    pub fn delegate(&self) -> SpiffeId {
        delegate_id(&self.trust_domain, &self.name).expect("the name was checked")
    }

    /// Whether its delegate may vouch for this identity.
    pub fn permits(&self, id: &SpiffeId) -> bool {
        if is_system(id) {
            return *id == self.delegate();
        }
        self.permitted.iter().any(|permit| permit.holds(id))
    }

    /// Those whom it permits, as they are written.
    pub fn permitted(&self) -> Vec<String> {
        self.permitted.iter().map(Permit::to_string).collect()
    }

    /// The extension's identifier, for whoever makes a certificate.
    pub fn oid() -> &'static [u64] {
        &OID
    }

    /// The extension's value: a SEQUENCE of UTF8String, the name first.
    pub fn to_der(&self) -> Vec<u8> {
        let mut body = Vec::new();
        push_tlv(&mut body, 0x0c, self.name.as_bytes());
        for permit in &self.permitted {
            push_tlv(&mut body, 0x0c, permit.to_string().as_bytes());
        }
        let mut out = Vec::with_capacity(body.len() + 5);
        push_tlv(&mut out, 0x30, &body);
        out
    }

    fn from_der(trust_domain: &TrustDomain, value: &[u8]) -> Result<Self, &'static str> {
        const MALFORMED: &str = "the list of its delegate cannot be read";
        if value.len() > MAX_BYTES {
            return Err("the list of its delegate is too long");
        }
        let (rest, list) = Sequence::from_der(value).map_err(|_| MALFORMED)?;
        let mut left: &[u8] = &list.content;
        let mut texts = Vec::new();
        while !left.is_empty() {
            let (after, text) = Utf8String::from_der(left).map_err(|_| MALFORMED)?;
            texts.push(text.string());
            left = after;
        }
        let (name, permitted) = texts.split_first().ok_or(MALFORMED)?;
        match rest.is_empty() {
            true => Self::new(name, trust_domain, permitted)
                .map_err(|_| "the list of its delegate names what no delegate may vouch for"),
            false => Err(MALFORMED),
        }
    }

    /// The site whose delegate a certificate makes of its owner; `None` for any other certificate.
    ///
    /// # Errors
    /// Why one that says so is not to be taken for it.
    pub(crate) fn of(
        certificate: &X509Certificate<'_>,
        trust_domain: &TrustDomain,
    ) -> Result<Option<Self>, &'static str> {
        let mut found = certificate
            .extensions()
            .iter()
            .filter(|extension| extension.oid.as_bytes() == OID_DER);
        let Some(extension) = found.next() else {
            return Ok(None);
        };
        if found.next().is_some() {
            return Err("its delegate has two lists");
        }
        // Those who do not know it were not told to refuse: not what our authority makes.
        if !extension.critical {
            return Err("the list of its delegate is not critical");
        }
        Self::from_der(trust_domain, extension.value).map(Some)
    }

    /// The same of a certificate in DER, for who shows it. `None` also for one that cannot be read.
    pub fn of_certificate(
        certificate: &CertificateDer<'_>,
        trust_domain: &TrustDomain,
    ) -> Option<Self> {
        Self::of(&der::parse(certificate).ok()?, trust_domain)
            .ok()
            .flatten()
    }

    /// Whether the extension is this one.
    pub(crate) fn is_oid(bytes: &[u8]) -> bool {
        bytes == OID_DER
    }
}

/// DER's definite lengths (X.690 §8.1.3); nothing here is longer than 65,535 bytes.
fn push_tlv(out: &mut Vec<u8>, tag: u8, content: &[u8]) {
    out.push(tag);
    let length = content.len();
    let bytes = u32::try_from(length).unwrap_or(u32::MAX).to_be_bytes();
    match length {
        0..0x80 => out.push(bytes[3]),
        0x80..0x100 => out.extend([0x81, bytes[3]]),
        0x100..0x1_0000 => out.extend([0x82, bytes[2], bytes[3]]),
        _ => {
            out.push(0x84);
            out.extend(bytes);
        }
    }
    out.extend_from_slice(content);
}

#[cfg(test)]
#[path = "site_tests.rs"]
mod tests;
