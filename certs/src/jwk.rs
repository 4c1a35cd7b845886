//! The text form of bundles: JWK Set and Bundle Map (SPIFFE Trust Domain and Bundle §4, §5; X509-SVID §6).

use std::collections::BTreeMap;
use std::fmt;

use base64::Engine;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use rustls::pki_types::CertificateDer;
use serde::de::{Error as _, MapAccess, Visitor};
use serde::ser::SerializeMap;
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use serde_json::{Map, Value, json};
use x509_parser::public_key::PublicKey;

use crate::error::shown;
use crate::{BundleSet, Error, JwtKey, RevocationList, TrustBundle, TrustDomain, der, jwt_key};

/// A trust domain has a root or two, a few more in the middle of rotations.
const MAX_KEYS: usize = 256;
/// Trust domains in one map.
const MAX_DOMAINS: usize = 1024;
const X509_SVID: &str = "x509-svid";

impl TrustBundle {
    /// The bundle as a SPIFFE JWK Set. The trust domain is not part of it.
    pub fn to_jwks(&self) -> Value {
        json!({
            "spiffe_sequence": self.sequence,
            "keys": self.roots.iter().map(to_jwk).chain(self.jwt_jwks()).collect::<Vec<_>>(),
        })
    }

    /// The keys for JWT-SVIDs alone, as a SPIFFE JWK Set.
    pub fn to_jwt_jwks(&self) -> Value {
        json!({
            "spiffe_sequence": self.sequence,
            "keys": self.jwt_jwks().collect::<Vec<_>>(),
        })
    }

    fn jwt_jwks(&self) -> impl Iterator<Item = Value> {
        self.jwt_keys.iter().map(JwtKey::to_jwk)
    }

    /// Reads a SPIFFE JWK Set as the bundle of this trust domain.
    ///
    /// Elements of unknown use or key type are ignored, as the standard wants; so are members that are not known. A missing `spiffe_sequence` counts as 0.
    ///
    /// # Errors
    /// [`Error::Bundle`] if it is no JWK Set, an element for X509-SVIDs does not hold a certificate, or one for
    /// JWT-SVIDs no key.
    pub fn from_jwks(trust_domain: TrustDomain, jwks: &Value) -> Result<Self, Error> {
        match read(jwks) {
            Ok(Keys {
                sequence,
                roots,
                jwt,
            }) => Ok(Self {
                trust_domain,
                sequence,
                roots,
                jwt_keys: jwt,
            }),
            Err(reason) => Err(Error::Bundle {
                trust_domain,
                reason,
            }),
        }
    }

    /// As [`from_jwks`](Self::from_jwks), from JSON text.
    ///
    /// # Errors
    /// [`Error::Bundle`].
    pub fn from_json(trust_domain: TrustDomain, text: &str) -> Result<Self, Error> {
        match serde_json::from_str(text) {
            Ok(value) => Self::from_jwks(trust_domain, &value),
            Err(e) => Err(Error::Bundle {
                trust_domain,
                reason: format!("it is not JSON: {e}"),
            }),
        }
    }
}

/// What a JWK Set holds.
struct Keys {
    sequence: u64,
    roots: Vec<CertificateDer<'static>>,
    jwt: Vec<JwtKey>,
}

fn read(jwks: &Value) -> Result<Keys, String> {
    let set = jwks.as_object().ok_or("it is not a JSON object")?;
    let sequence = match set.get("spiffe_sequence") {
        None | Some(Value::Null) => 0,
        Some(value) => value
            .as_u64()
            .ok_or("spiffe_sequence is not a whole number")?,
    };
    let keys = set.get("keys").ok_or("the member \"keys\" is missing")?;
    let keys = keys.as_array().ok_or("\"keys\" is not a list")?;
    if keys.len() > MAX_KEYS {
        return Err(format!("it has {} keys, more than {MAX_KEYS}", keys.len()));
    }
    let (mut roots, mut jwt) = (Vec::new(), Vec::new());
    for (index, key) in keys.iter().enumerate() {
        let at = |reason: String| format!("keys[{index}]: {reason}");
        let key = key
            .as_object()
            .ok_or_else(|| at("it is not a JSON object".to_owned()))?;
        match key.get("use").and_then(Value::as_str) {
            Some(jwt_key::USE) => jwt.extend(JwtKey::from_jwk(key).map_err(at)?),
            _ => roots.extend(read_root(key).map_err(at)?),
        }
    }
    Ok(Keys {
        sequence,
        roots,
        jwt,
    })
}

/// One element: a root, nothing (to be ignored), or an error.
fn read_root(jwk: &Map<String, Value>) -> Result<Option<CertificateDer<'static>>, String> {
    let text = |name| jwk.get(name).and_then(Value::as_str);
    if text("use") != Some(X509_SVID) || !matches!(text("kty"), Some("EC" | "RSA" | "OKP")) {
        return Ok(None);
    }
    // X509-SVID §6: one certificate in x5c; of several, the first.
    let first = match jwk.get("x5c") {
        None | Some(Value::Null) => return Ok(None),
        Some(Value::Array(list)) => match list.first() {
            Some(first) => first.as_str().ok_or("x5c[0] is not text")?,
            None => return Ok(None),
        },
        Some(_) => return Err("x5c is not a list".to_owned()),
    };
    let bytes = STANDARD
        .decode(first)
        .map_err(|e| format!("x5c[0] is not base64: {e}"))?;
    let root = CertificateDer::from(bytes);
    der::parse(&root).map_err(|_| "x5c[0] is not an X.509 certificate")?;
    Ok(Some(root))
}

fn to_jwk(root: &CertificateDer<'static>) -> Value {
    let mut jwk = match der::parse(root) {
        Ok(certificate) => key_members(&certificate),
        // A root that cannot be parsed vouches for nobody; readers only look at x5c.
        Err(_) => Map::from_iter([("kty".to_owned(), "EC".into())]),
    };
    jwk.insert("use".to_owned(), X509_SVID.into());
    jwk.insert("x5c".to_owned(), json!([STANDARD.encode(root)]));
    Value::Object(jwk)
}

/// The public key as RFC 7518 §6 writes it, for readers that insist on it.
fn key_members(certificate: &x509_parser::certificate::X509Certificate<'_>) -> Map<String, Value> {
    let b64 = |bytes: &[u8]| Value::from(URL_SAFE_NO_PAD.encode(bytes));
    let unsigned = |bytes: &[u8]| b64(&bytes[bytes.iter().take_while(|b| **b == 0).count()..]);
    let members = match certificate.public_key().parsed() {
        Ok(PublicKey::EC(point)) if point.data().len() % 2 == 1 => {
            let (x, y) = point.data()[1..].split_at(point.data().len() / 2);
            let curve = match x.len() {
                32 => "P-256",
                48 => "P-384",
                _ => "P-521",
            };
            vec![
                ("kty", "EC".into()),
                ("crv", curve.into()),
                ("x", b64(x)),
                ("y", b64(y)),
            ]
        }
        Ok(PublicKey::RSA(key)) => {
            vec![
                ("kty", "RSA".into()),
                ("n", unsigned(key.modulus)),
                ("e", unsigned(key.exponent)),
            ]
        }
        _ => vec![("kty", "OKP".into())],
    };
    members
        .into_iter()
        .map(|(name, value)| (name.to_owned(), value))
        .collect()
}

/// A JWK Set with one more member, `trust_domain`, which readers of plain JWK Sets ignore.
impl Serialize for TrustBundle {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut jwks = self.to_jwks();
        jwks["trust_domain"] = Value::from(self.trust_domain.as_str());
        jwks.serialize(serializer)
    }
}

impl<'de> Deserialize<'de> for TrustBundle {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let jwks = Value::deserialize(deserializer)?;
        let name = jwks.get("trust_domain").and_then(Value::as_str);
        let name = name.ok_or_else(|| D::Error::missing_field("trust_domain"))?;
        let trust_domain = TrustDomain::parse(name).map_err(D::Error::custom)?;
        Self::from_jwks(trust_domain, &jwks).map_err(D::Error::custom)
    }
}

/// What is revoked, by trust domain: a member of the Bundle Map that is weft's own, and that others ignore.
const REVOKED: &str = "weft_revoked";

/// The Bundle Map of Trust Domain and Bundle §5: `{"trust_domains": {"<name>": {JWK Set}}}`, and with it what is
/// revoked, if anything is.
impl Serialize for BundleSet {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let domains: Map<String, Value> = self
            .iter()
            .map(|bundle| (bundle.trust_domain.to_string(), bundle.to_jwks()))
            .collect();
        let revoked: BTreeMap<_, _> = self.revocations().collect();
        let mut map = serializer.serialize_map(None)?;
        map.serialize_entry("trust_domains", &domains)?;
        if !revoked.is_empty() {
            map.serialize_entry(REVOKED, &revoked)?;
        }
        map.end()
    }
}

impl<'de> Deserialize<'de> for BundleSet {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        #[derive(Deserialize)]
        struct BundleMap {
            trust_domains: Domains,
            #[serde(default, rename = "weft_revoked")]
            revoked: BTreeMap<TrustDomain, RevocationList>,
        }
        let map = BundleMap::deserialize(deserializer)?;
        let mut set = map.trust_domains.0;
        for (trust_domain, list) in map.revoked {
            set.revoke(trust_domain, list);
        }
        Ok(set)
    }
}

/// The inner map, read entry by entry because a duplicate name must be an error (§5).
struct Domains(BundleSet);

impl<'de> Deserialize<'de> for Domains {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_map(DomainsVisitor).map(Self)
    }
}

struct DomainsVisitor;

impl<'de> Visitor<'de> for DomainsVisitor {
    type Value = BundleSet;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a map from trust domain names to trust bundles")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<BundleSet, A::Error> {
        let mut set = BundleSet::new();
        while let Some((trust_domain, jwks)) = map.next_entry::<TrustDomain, Value>()? {
            if set.get(&trust_domain).is_some() {
                let name = shown(trust_domain.as_str());
                return Err(A::Error::custom(format!(
                    "the trust domain {name} is given twice"
                )));
            }
            if set.len() == MAX_DOMAINS {
                return Err(A::Error::custom(format!(
                    "more than {MAX_DOMAINS} trust domains"
                )));
            }
            set.insert(TrustBundle::from_jwks(trust_domain, &jwks).map_err(A::Error::custom)?);
        }
        Ok(set)
    }
}

#[cfg(test)]
#[path = "jwk_tests.rs"]
mod tests;
