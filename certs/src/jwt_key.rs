//! Public keys that JWT-SVIDs are checked with, and their form in a trust bundle (JWT-SVID §6, RFC 7517, RFC 7518 §6).

use aws_lc_rs::signature::{self, RsaPublicKeyComponents, UnparsedPublicKey};
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde_json::{Map, Value, json};

use crate::der;

/// What marks such a key in a bundle.
pub(crate) const USE: &str = "jwt-svid";
/// A key's name is a thumbprint or the like.
const MAX_KID: usize = 512;
/// 8192 bits: what the verifier takes at most.
const MAX_RSA: usize = 1024;

/// A public key with its name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct JwtKey {
    kid: String,
    public: Public,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Public {
    /// A point, uncompressed.
    Ec(Curve, Vec<u8>),
    /// Modulus and exponent, without leading zeros.
    Rsa(Vec<u8>, Vec<u8>),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Curve {
    P256,
    P384,
    P521,
}

impl Curve {
    const ALL: [Self; 3] = [Self::P256, Self::P384, Self::P521];

    fn name(self) -> &'static str {
        match self {
            Self::P256 => "P-256",
            Self::P384 => "P-384",
            Self::P521 => "P-521",
        }
    }

    /// Bytes of a coordinate.
    fn size(self) -> usize {
        match self {
            Self::P256 => 32,
            Self::P384 => 48,
            Self::P521 => 66,
        }
    }
}

/// The algorithms of JWT-SVID §3.1: nothing without a signature, nothing with a shared secret.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Algorithm {
    Rs256,
    Rs384,
    Rs512,
    Es256,
    Es384,
    Es512,
    Ps256,
    Ps384,
    Ps512,
}

impl Algorithm {
    pub(crate) fn parse(name: &str) -> Option<Self> {
        Some(match name {
            "RS256" => Self::Rs256,
            "RS384" => Self::Rs384,
            "RS512" => Self::Rs512,
            "ES256" => Self::Es256,
            "ES384" => Self::Es384,
            "ES512" => Self::Es512,
            "PS256" => Self::Ps256,
            "PS384" => Self::Ps384,
            "PS512" => Self::Ps512,
            _ => return None,
        })
    }

    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Rs256 => "RS256",
            Self::Rs384 => "RS384",
            Self::Rs512 => "RS512",
            Self::Es256 => "ES256",
            Self::Es384 => "ES384",
            Self::Es512 => "ES512",
            Self::Ps256 => "PS256",
            Self::Ps384 => "PS384",
            Self::Ps512 => "PS512",
        }
    }

    fn is_rsa(self) -> bool {
        !matches!(self, Self::Es256 | Self::Es384 | Self::Es512)
    }
}

impl JwtKey {
    /// A P-256 key, from its uncompressed point. It is called by its thumbprint (RFC 7638).
    ///
    /// # Errors
    /// In words, if it is no such point.
    pub fn p256(point: &[u8]) -> Result<Self, String> {
        let public = Public::Ec(Curve::P256, checked(Curve::P256, point.to_vec())?);
        let mut key = Self {
            kid: String::new(),
            public,
        };
        // RFC 7638 §3.2: the required members in the order of their names, without spaces.
        let members = Value::Object(key.members()).to_string();
        key.kid = URL_SAFE_NO_PAD.encode(der::sha256(members.as_bytes()));
        Ok(key)
    }

    /// Its name: what `kid` in a token's header says.
    pub fn kid(&self) -> &str {
        &self.kid
    }

    /// The algorithm that it signs with where nothing else is said: the one of its curve; RS256 for RSA.
    pub(crate) fn usual_algorithm(&self) -> Algorithm {
        match &self.public {
            Public::Ec(Curve::P256, _) => Algorithm::Es256,
            Public::Ec(Curve::P384, _) => Algorithm::Es384,
            Public::Ec(Curve::P521, _) => Algorithm::Es512,
            Public::Rsa(..) => Algorithm::Rs256,
        }
    }

    /// Whether it can sign with this algorithm at all.
    pub(crate) fn fits(&self, algorithm: Algorithm) -> bool {
        match &self.public {
            Public::Ec(..) => algorithm == self.usual_algorithm(),
            Public::Rsa(..) => algorithm.is_rsa(),
        }
    }

    /// Whether it made this signature. A key is good for the algorithms of its own kind only.
    pub(crate) fn verifies(&self, algorithm: Algorithm, message: &[u8], signature: &[u8]) -> bool {
        use Algorithm::{Es256, Es384, Es512, Ps256, Ps384, Ps512, Rs256, Rs384, Rs512};
        let ec = |kind, point| UnparsedPublicKey::new(kind, point).verify(message, signature);
        let checked = match (&self.public, algorithm) {
            (Public::Ec(Curve::P256, point), Es256) => {
                ec(&signature::ECDSA_P256_SHA256_FIXED, point)
            }
            (Public::Ec(Curve::P384, point), Es384) => {
                ec(&signature::ECDSA_P384_SHA384_FIXED, point)
            }
            (Public::Ec(Curve::P521, point), Es512) => {
                ec(&signature::ECDSA_P521_SHA512_FIXED, point)
            }
            (Public::Rsa(n, e), _) => {
                let parameters = match algorithm {
                    Rs256 => &signature::RSA_PKCS1_2048_8192_SHA256,
                    Rs384 => &signature::RSA_PKCS1_2048_8192_SHA384,
                    Rs512 => &signature::RSA_PKCS1_2048_8192_SHA512,
                    Ps256 => &signature::RSA_PSS_2048_8192_SHA256,
                    Ps384 => &signature::RSA_PSS_2048_8192_SHA384,
                    Ps512 => &signature::RSA_PSS_2048_8192_SHA512,
                    Es256 | Es384 | Es512 => return false,
                };
                let key = RsaPublicKeyComponents { n, e };
                key.verify(parameters, message, signature)
            }
            (Public::Ec(..), _) => return false,
        };
        checked.is_ok()
    }

    /// The members that make the key, in the order of their names.
    fn members(&self) -> Map<String, Value> {
        let b64 = |bytes: &[u8]| Value::from(URL_SAFE_NO_PAD.encode(bytes));
        let members = match &self.public {
            Public::Ec(curve, point) => {
                let (x, y) = point[1..].split_at(curve.size());
                vec![
                    ("crv", curve.name().into()),
                    ("kty", "EC".into()),
                    ("x", b64(x)),
                    ("y", b64(y)),
                ]
            }
            Public::Rsa(n, e) => vec![("e", b64(e)), ("kty", "RSA".into()), ("n", b64(n))],
        };
        members
            .into_iter()
            .map(|(name, value)| (name.to_owned(), value))
            .collect()
    }

    /// The key as an element of a trust bundle.
    pub(crate) fn to_jwk(&self) -> Value {
        let mut jwk = Value::Object(self.members());
        jwk["kid"] = json!(self.kid);
        jwk["use"] = json!(USE);
        jwk
    }

    /// Reads an element of a trust bundle that is for JWT-SVIDs. `None` for one that is to be ignored: it has no
    /// name (JWT-SVID §6.1), or is of a kind that no JWT-SVID is signed with.
    pub(crate) fn from_jwk(jwk: &Map<String, Value>) -> Result<Option<Self>, String> {
        let text = |name: &str| jwk.get(name).and_then(Value::as_str);
        let bytes = |name: &str| {
            let value = text(name).ok_or_else(|| format!("{name} is missing"))?;
            URL_SAFE_NO_PAD
                .decode(value)
                .map_err(|_| format!("{name} is not base64url"))
        };
        let Some(kid) = text("kid").filter(|kid| !kid.is_empty() && kid.len() <= MAX_KID) else {
            return Ok(None);
        };
        let public = match text("kty") {
            Some("EC") => {
                let name = text("crv").ok_or("crv is missing")?;
                let Some(curve) = Curve::ALL.into_iter().find(|curve| curve.name() == name) else {
                    return Ok(None);
                };
                let point = [vec![4], bytes("x")?, bytes("y")?].concat();
                Public::Ec(curve, checked(curve, point)?)
            }
            Some("RSA") => {
                let (n, e) = (bytes("n")?, bytes("e")?);
                if n.len() > MAX_RSA || e.len() > MAX_RSA || n.is_empty() || e.is_empty() {
                    return Err("it is no RSA key of up to 8192 bits".to_owned());
                }
                Public::Rsa(n, e)
            }
            _ => return Ok(None),
        };
        Ok(Some(Self {
            kid: kid.to_owned(),
            public,
        }))
    }
}

/// A point of this curve, as far as its length tells; the rest is found out when it verifies.
fn checked(curve: Curve, point: Vec<u8>) -> Result<Vec<u8>, String> {
    match point.len() == 1 + 2 * curve.size() && point[0] == 4 {
        true => Ok(point),
        false => Err(format!("it is no point of {}", curve.name())),
    }
}
