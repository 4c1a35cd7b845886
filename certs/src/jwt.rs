//! JWT-SVIDs: an identity as a token, for where TLS ends before the service (JWT-SVID).
//!
//! Reading is strict: what the standard does not name is refused, so that no two readers can take the same token for
//! two things.

use std::collections::BTreeMap;
use std::fmt;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde::de::{Error as _, MapAccess, Visitor};
use serde::{Deserialize, Deserializer, Serialize};
use serde_json::Value;

use crate::error::shown;
use crate::jwt_key::Algorithm;
use crate::{BundleSet, JwtKey, SpiffeId, TrustDomain, der};

/// A token is a few hundred bytes; with many audiences and claims of others a few thousand.
const MAX_TOKEN: usize = 16 * 1024;
/// Clocks are this far apart (JWT-SVID §3.3 allows a small leeway).
const LEEWAY: Duration = Duration::from_secs(30);

/// A token that was checked.
#[derive(Debug, Clone, PartialEq)]
pub struct JwtSvid {
    /// Whose it is.
    pub id: SpiffeId,
    /// Until when.
    pub expires: SystemTime,
    /// Everything that it says.
    pub claims: BTreeMap<String, Value>,
}

/// Why a token is refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum JwtError {
    /// It is not a signed token in the compact form.
    #[error("it is not a JWT-SVID: {0}")]
    Malformed(String),
    /// Its algorithm is none of those that the standard knows.
    #[error("its algorithm {0:?} is not one of RS, ES or PS with 256, 384 or 512")]
    Algorithm(String),
    /// Its subject is not a workload.
    #[error("its subject is not the SPIFFE ID of a workload: {0}")]
    Subject(String),
    /// No bundle for its trust domain.
    #[error("no trust bundle for trust domain {0}, which its subject belongs to")]
    UnknownTrustDomain(TrustDomain),
    /// No such key in the bundle.
    #[error("the trust bundle of {trust_domain} has no key {kid:?}")]
    UnknownKey {
        /// Whose bundle.
        trust_domain: TrustDomain,
        /// The key that the token names.
        kid: String,
    },
    /// The signature is of another token or another key.
    #[error("its signature does not fit")]
    BadSignature,
    /// It has ended.
    #[error("it expired at {}, it is now {}", der::rfc3339(*expires), der::rfc3339(*now))]
    Expired {
        /// When it ended.
        expires: SystemTime,
        /// The time that it was checked against.
        now: SystemTime,
    },
    /// It has not begun.
    #[error("it is good from {} only, it is now {}: check the clocks", der::rfc3339(*from), der::rfc3339(*now))]
    NotYetValid {
        /// When it begins.
        from: SystemTime,
        /// The time that it was checked against.
        now: SystemTime,
    },
    /// It is for others.
    #[error("it is not for the audience {0:?}")]
    Audience(String),
    /// An operator has revoked the identity.
    #[error("the identity {0} is revoked")]
    Revoked(SpiffeId),
}

/// JWT-SVID §2: nothing else may be set. Serde refuses what stands twice.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Header {
    alg: String,
    #[serde(default)]
    kid: Option<String>,
    #[serde(default)]
    typ: Option<String>,
}

/// What every JWT-SVID says (JWT-SVID §3), and when.
#[derive(Debug, Serialize)]
struct Claims<'a> {
    sub: &'a SpiffeId,
    aud: &'a [String],
    exp: u64,
    iat: u64,
}

/// The part of a token that is signed, for an issuer: ES256 with the key of this name. `expires` and `now` count in
/// whole seconds.
pub fn jwt_signing_input(
    kid: &str,
    id: &SpiffeId,
    audience: &[String],
    now: SystemTime,
    expires: SystemTime,
) -> String {
    let header = serde_json::json!({"alg": "ES256", "kid": kid, "typ": "JWT"});
    let claims = Claims {
        sub: id,
        aud: audience,
        exp: der::seconds(expires),
        iat: der::seconds(now),
    };
    let claims = serde_json::to_string(&claims).expect("claims have string keys only");
    let part = |json: String| URL_SAFE_NO_PAD.encode(json);
    format!("{}.{}", part(header.to_string()), part(claims))
}

/// The whole token, from its signed part and the signature: 64 bytes, r and s (RFC 7518 §3.4).
pub fn jwt_with_signature(signing_input: &str, signature: &[u8; 64]) -> String {
    format!("{signing_input}.{}", URL_SAFE_NO_PAD.encode(signature))
}

/// Checks a token for one audience at `now`, against the bundle of its subject's own trust domain.
///
/// # Errors
/// Why it is to be refused.
pub fn verify_jwt_svid(
    token: &str,
    audience: &str,
    bundles: &BundleSet,
    now: SystemTime,
) -> Result<JwtSvid, JwtError> {
    let token = Token::parse(token)?;
    let id = token.subject()?;
    token.check_signature(&id, bundles)?;
    let expires = token.check_times(now)?;
    token.check_audience(audience)?;
    token.check_revocation(&id, bundles)?;
    Ok(JwtSvid {
        id,
        expires,
        claims: token.claims,
    })
}

/// A token that was read, and not believed yet.
pub(crate) struct Token<'t> {
    pub(crate) algorithm: Algorithm,
    pub(crate) kid: String,
    pub(crate) claims: BTreeMap<String, Value>,
    signed: &'t str,
    signature: Vec<u8>,
}

pub(crate) fn malformed(reason: impl Into<String>) -> JwtError {
    JwtError::Malformed(reason.into())
}

impl<'t> Token<'t> {
    pub(crate) fn parse(text: &'t str) -> Result<Self, JwtError> {
        if text.len() > MAX_TOKEN {
            return Err(malformed("it is longer than 16 KiB"));
        }
        let parts: Vec<&str> = text.split('.').collect();
        let [header, claims, signature] = parts[..] else {
            return Err(malformed("it has not three parts"));
        };
        let decode = |part: &str, what: &str| {
            URL_SAFE_NO_PAD
                .decode(part)
                .map_err(|_| malformed(format!("its {what} is not base64url")))
        };
        let header: Header = serde_json::from_slice(&decode(header, "header")?)
            .map_err(|error| malformed(format!("its header: {error}")))?;
        let algorithm =
            Algorithm::parse(&header.alg).ok_or_else(|| JwtError::Algorithm(shown(&header.alg)))?;
        if !matches!(header.typ.as_deref(), None | Some("JWT" | "JOSE")) {
            return Err(malformed("its type is neither JWT nor JOSE"));
        }
        let kid = header.kid.filter(|kid| !kid.is_empty());
        let kid = kid.ok_or_else(|| malformed("its header names no key"))?;
        let Once(claims) = serde_json::from_slice(&decode(claims, "body")?)
            .map_err(|error| malformed(format!("its body: {error}")))?;
        Ok(Self {
            algorithm,
            kid,
            claims,
            signed: &text[..text.len() - signature.len() - 1],
            signature: decode(signature, "signature")?,
        })
    }

    fn subject(&self) -> Result<SpiffeId, JwtError> {
        let subject = self.claims.get("sub").and_then(Value::as_str);
        let subject = subject.ok_or_else(|| JwtError::Subject("there is none".to_owned()))?;
        let id = SpiffeId::parse(subject).map_err(|e| JwtError::Subject(e.to_string()))?;
        match id.path().is_empty() {
            true => Err(JwtError::Subject("it is a trust domain".to_owned())),
            false => Ok(id),
        }
    }

    fn check_signature(&self, id: &SpiffeId, bundles: &BundleSet) -> Result<(), JwtError> {
        let trust_domain = id.trust_domain();
        let bundle = bundles
            .get(trust_domain)
            .ok_or_else(|| JwtError::UnknownTrustDomain(trust_domain.clone()))?;
        let key = bundle.jwt_keys.iter().find(|key| key.kid() == self.kid);
        let key = key.ok_or_else(|| JwtError::UnknownKey {
            trust_domain: trust_domain.clone(),
            kid: shown(&self.kid),
        })?;
        self.check_signed_by(key)
    }

    pub(crate) fn check_signed_by(&self, key: &JwtKey) -> Result<(), JwtError> {
        match key.verifies(self.algorithm, self.signed.as_bytes(), &self.signature) {
            true => Ok(()),
            false => Err(JwtError::BadSignature),
        }
    }

    /// RFC 7519 §4.1.4 to §4.1.6; the end.
    pub(crate) fn check_times(&self, now: SystemTime) -> Result<SystemTime, JwtError> {
        let expires = self
            .time("exp")?
            .ok_or_else(|| malformed("it does not say when it expires"))?;
        if expires + LEEWAY <= now {
            return Err(JwtError::Expired { expires, now });
        }
        for name in ["nbf", "iat"] {
            if let Some(from) = self.time(name)?.filter(|from| *from > now + LEEWAY) {
                return Err(JwtError::NotYetValid { from, now });
            }
        }
        Ok(expires)
    }

    /// RFC 7519 §2, NumericDate: seconds since 1970, which may have a fraction.
    pub(crate) fn time(&self, name: &str) -> Result<Option<SystemTime>, JwtError> {
        let Some(value) = self.claims.get(name) else {
            return Ok(None);
        };
        let seconds = value
            .as_f64()
            .and_then(|s| Duration::try_from_secs_f64(s).ok());
        let time = seconds.and_then(|since| UNIX_EPOCH.checked_add(since));
        // Some room, so that sums with it cannot overflow.
        let time = time.filter(|time| time.checked_add(LEEWAY * 2).is_some());
        time.map(Some)
            .ok_or_else(|| malformed(format!("{name} is not a time")))
    }

    /// RFC 7519 §4.1.3: one name, or a list.
    pub(crate) fn check_audience(&self, audience: &str) -> Result<(), JwtError> {
        let meant = match self.claims.get("aud") {
            Some(Value::String(one)) => one == audience,
            Some(Value::Array(several)) => {
                if !several.iter().all(Value::is_string) {
                    return Err(malformed("its audience is not a list of names"));
                }
                several.iter().any(|one| one == audience)
            }
            _ => return Err(malformed("it has no audience")),
        };
        match meant && !audience.is_empty() {
            true => Ok(()),
            false => Err(JwtError::Audience(shown(audience))),
        }
    }

    fn check_revocation(&self, id: &SpiffeId, bundles: &BundleSet) -> Result<(), JwtError> {
        let Some(list) = bundles.revoked(id.trust_domain()) else {
            return Ok(());
        };
        // What does not say when it was issued may be as old as can be.
        let issued = self.time("iat")?.unwrap_or(UNIX_EPOCH);
        match list.revokes_issued(id, issued) {
            true => Err(JwtError::Revoked(id.clone())),
            false => Ok(()),
        }
    }
}

/// A JSON object in which no name stands twice.
struct Once(BTreeMap<String, Value>);

impl<'de> Deserialize<'de> for Once {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Names;
        impl<'de> Visitor<'de> for Names {
            type Value = BTreeMap<String, Value>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a JSON object")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
                let mut found = BTreeMap::new();
                while let Some((name, value)) = map.next_entry::<String, Value>()? {
                    if found.insert(name, value).is_some() {
                        return Err(A::Error::custom("a name stands twice"));
                    }
                }
                Ok(found)
            }
        }
        deserializer.deserialize_map(Names).map(Self)
    }
}

#[cfg(test)]
#[path = "jwt_tests.rs"]
mod tests;
