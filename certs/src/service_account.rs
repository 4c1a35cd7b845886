//! Tokens of Kubernetes service accounts, as the kubelet projects them into a pod: a proof of who joins.
//!
//! Read as strictly as a JWT-SVID. They are checked with the cluster's public keys, which it shows as a JWK Set
//! (`kubectl get --raw /openid/v1/jwks`), and nothing is asked of the cluster.

use std::time::SystemTime;

use serde::Deserialize;
use serde_json::Value;

use crate::error::shown;
use crate::jwt::{Token, malformed};
use crate::jwt_key::Algorithm;
use crate::{JwtError, JwtKey};

/// A cluster has two keys in the middle of a rotation.
const MAX_KEYS: usize = 64;
/// A name in Kubernetes is a DNS subdomain.
const MAX_NAME: usize = 253;

/// The keys of a cluster, each with the one algorithm that it signs with.
#[derive(Debug, Clone)]
pub struct TokenKeys(Vec<(JwtKey, Algorithm)>);

impl TokenKeys {
    /// Reads a JWK Set (RFC 7517). Keys that are not for signatures, have no name, or are of a kind that no such token
    /// is signed with, are skipped.
    ///
    /// # Errors
    /// In words, if it is no JWK Set or no key is left.
    pub fn parse(json: &[u8]) -> Result<Self, String> {
        let set: Value =
            serde_json::from_slice(json).map_err(|error| format!("it is not JSON: {error}"))?;
        let keys = set.get("keys").and_then(Value::as_array);
        let keys = keys.ok_or("it is not a JWK Set: there is no list \"keys\"")?;
        if keys.len() > MAX_KEYS {
            return Err(format!("it has {} keys, more than {MAX_KEYS}", keys.len()));
        }
        let mut found = Vec::new();
        for (index, jwk) in keys.iter().enumerate() {
            let at = |reason: String| format!("keys[{index}]: {reason}");
            let jwk = jwk
                .as_object()
                .ok_or_else(|| at("it is not a JSON object".to_owned()))?;
            // RFC 7517 §4.2: what it is for, if that is said.
            if !matches!(jwk.get("use").and_then(Value::as_str), None | Some("sig")) {
                continue;
            }
            let Some(key) = JwtKey::from_jwk(jwk).map_err(at)? else {
                continue;
            };
            let algorithm = match jwk.get("alg").and_then(Value::as_str) {
                None => Some(key.usual_algorithm()),
                Some(name) => Algorithm::parse(name).filter(|algorithm| key.fits(*algorithm)),
            };
            found.extend(algorithm.map(|algorithm| (key, algorithm)));
        }
        match found.is_empty() {
            true => Err("it has no key with a \"kid\" that signs RS, ES or PS".to_owned()),
            false => Ok(Self(found)),
        }
    }
}

/// Whom a token stands for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ServiceAccount {
    /// Namespace of the service account, and of the pod.
    pub namespace: String,
    /// Name of the service account.
    pub name: String,
    /// Name of the pod.
    pub pod: String,
    /// The pod's unique id.
    pub pod_uid: String,
    /// The node that it runs on, if the token says so.
    pub node: Option<String>,
    /// The token's own id (`jti`), if it has one.
    pub id: Option<String>,
    /// When it was made. What does not say so may be as old as can be: 1970.
    pub issued: SystemTime,
}

/// Why a token is refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ServiceAccountError {
    /// It is not a token of a service account in a pod.
    #[error("it is not a projected token of a service account: {0}")]
    Malformed(String),
    /// No such key in the key file.
    #[error("it is signed with the key {0:?}, which the cluster's key file does not have")]
    UnknownKey(String),
    /// Another algorithm than the key's.
    #[error("its algorithm is {found}, that of the key is {expected}")]
    WrongAlgorithm {
        /// What its header says.
        found: &'static str,
        /// What its key signs with.
        expected: &'static str,
    },
    /// Of another cluster.
    #[error("its issuer is {found:?}, expected {expected:?}")]
    Issuer {
        /// What it says.
        found: String,
        /// What was asked for.
        expected: String,
    },
    /// What is wrong with signed tokens of any kind.
    #[error(transparent)]
    Token(JwtError),
}

impl ServiceAccountError {
    /// A stable label for counters and tests.
    #[must_use]
    pub fn reason(&self) -> &'static str {
        match self {
            Self::Malformed(_) => "account_malformed",
            Self::UnknownKey(_) => "account_unknown_key",
            Self::WrongAlgorithm { .. } | Self::Token(JwtError::Algorithm(_)) => {
                "account_algorithm"
            }
            Self::Issuer { .. } => "account_issuer",
            Self::Token(JwtError::Expired { .. }) => "account_expired",
            Self::Token(JwtError::NotYetValid { .. }) => "account_not_yet_valid",
            Self::Token(JwtError::Audience(_)) => "account_audience",
            Self::Token(_) => "account_bad_signature",
        }
    }
}

impl From<JwtError> for ServiceAccountError {
    fn from(error: JwtError) -> Self {
        match error {
            JwtError::Malformed(reason) => Self::Malformed(reason),
            other => Self::Token(other),
        }
    }
}

/// The claim `kubernetes.io` of a projected token.
#[derive(Deserialize)]
struct Bound {
    namespace: String,
    serviceaccount: Named,
    #[serde(default)]
    pod: Option<Object>,
    #[serde(default)]
    node: Option<Named>,
}

#[derive(Deserialize)]
struct Named {
    name: String,
}

#[derive(Deserialize)]
struct Object {
    name: String,
    uid: String,
}

/// Checks a token of this issuer for this audience at `now`.
///
/// # Errors
/// Why it is to be refused.
pub fn verify_service_account(
    token: &str,
    issuer: &str,
    audience: &str,
    keys: &TokenKeys,
    now: SystemTime,
) -> Result<ServiceAccount, ServiceAccountError> {
    let token = Token::parse(token)?;
    let key = keys.0.iter().find(|(key, _)| key.kid() == token.kid);
    let (key, algorithm) = key.ok_or_else(|| ServiceAccountError::UnknownKey(shown(&token.kid)))?;
    // RFC 8725 §3.1: the key decides on the algorithm, not the token.
    if *algorithm != token.algorithm {
        return Err(ServiceAccountError::WrongAlgorithm {
            found: token.algorithm.name(),
            expected: algorithm.name(),
        });
    }
    token.check_signed_by(key)?;
    let found = text(&token, "iss")?;
    if found != issuer {
        return Err(ServiceAccountError::Issuer {
            found: shown(found),
            expected: issuer.to_owned(),
        });
    }
    token.check_times(now)?;
    token.check_audience(audience)?;
    account(&token)
}

fn text<'t>(token: &'t Token<'_>, name: &str) -> Result<&'t str, JwtError> {
    let found = token.claims.get(name).and_then(Value::as_str);
    found.ok_or_else(|| malformed(format!("it has no {name}")))
}

fn account(token: &Token<'_>) -> Result<ServiceAccount, ServiceAccountError> {
    let bad = |reason: String| ServiceAccountError::Malformed(reason);
    let claim = token.claims.get("kubernetes.io").ok_or_else(|| {
        bad("it has no claim kubernetes.io, as tokens from Secrets and those of others".to_owned())
    })?;
    let bound = Bound::deserialize(claim)
        .map_err(|error| bad(format!("its claim kubernetes.io: {error}")))?;
    let pod = bound
        .pod
        .ok_or_else(|| bad("it is not bound to a pod".to_owned()))?;
    let (namespace, name) = (bound.namespace, bound.serviceaccount.name);
    let names = [&namespace, &name, &pod.name, &pod.uid];
    let fit = |text: &str| {
        !text.is_empty()
            && text.len() <= MAX_NAME
            && text
                .bytes()
                .all(|b| matches!(b, b'a'..=b'z' | b'0'..=b'9' | b'-' | b'.'))
    };
    if !names.iter().all(|text| fit(text)) {
        return Err(bad("a name in its claim kubernetes.io is none".to_owned()));
    }
    let subject = format!("system:serviceaccount:{namespace}:{name}");
    if text(token, "sub")? != subject {
        return Err(bad(
            "its subject is not the service account of its claim kubernetes.io".to_owned(),
        ));
    }
    let id = token.claims.get("jti").and_then(Value::as_str).map(shown);
    Ok(ServiceAccount {
        namespace,
        name,
        pod: pod.name,
        pod_uid: pod.uid,
        node: bound.node.map(|node| shown(&node.name)),
        id,
        issued: token.time("iat")?.unwrap_or(SystemTime::UNIX_EPOCH),
    })
}

#[cfg(test)]
#[path = "service_account_tests.rs"]
mod tests;
