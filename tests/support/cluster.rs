//! A Kubernetes cluster, as far as its service account tokens go.

use std::time::{SystemTime, UNIX_EPOCH};

use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::rsa::KeySize;
use aws_lc_rs::signature::{
    ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, KeyPair, RSA_PKCS1_SHA256, RsaKeyPair,
    RsaPublicKeyComponents,
};
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde_json::{Value, json};

/// The keys of a cluster.
pub(crate) struct Cluster {
    rsa: RsaKeyPair,
    ec: EcdsaKeyPair,
}

fn b64(bytes: &[u8]) -> String {
    URL_SAFE_NO_PAD.encode(bytes)
}

/// Unix seconds.
pub(crate) fn now() -> u64 {
    SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .unwrap()
        .as_secs()
}

impl Cluster {
    pub(crate) fn new() -> Self {
        Self {
            rsa: RsaKeyPair::generate(KeySize::Rsa2048).unwrap(),
            ec: EcdsaKeyPair::generate(&ECDSA_P256_SHA256_FIXED_SIGNING).unwrap(),
        }
    }

    /// As `kubectl get --raw /openid/v1/jwks` shows them.
    pub(crate) fn jwks(&self) -> Value {
        let parts: RsaPublicKeyComponents<Vec<u8>> = self.rsa.public_key().into();
        let (x, y) = self.ec.public_key().as_ref()[1..].split_at(32);
        json!({"keys": [
            {"use": "sig", "kty": "RSA", "kid": "rsa", "alg": "RS256", "n": b64(&parts.n), "e": b64(&parts.e)},
            {"use": "sig", "kty": "EC", "kid": "ec", "alg": "ES256", "crv": "P-256", "x": b64(x), "y": b64(y)},
        ]})
    }

    /// Signed by the key `kid`, whatever `alg` says.
    pub(crate) fn token(
        &self,
        alg: &str,
        kid: &str,
        account: &str,
        change: impl Fn(&mut Value),
    ) -> String {
        let mut claims = json!({
            "iss": "https://kubernetes.default.svc", "aud": ["weft"],
            "iat": now(), "nbf": now(), "exp": now() + 600,
            "sub": format!("system:serviceaccount:shop:{account}"),
            "kubernetes.io": {
                "namespace": "shop",
                "serviceaccount": {"name": account, "uid": "3"},
                "pod": {"name": format!("{account}-0"), "uid": "a1b2"},
            },
        });
        change(&mut claims);
        let part = |json: Value| b64(json.to_string().as_bytes());
        let signed = format!("{}.{}", part(json!({"alg": alg, "kid": kid})), part(claims));
        let rng = SystemRandom::new();
        let signature = match alg {
            "none" => Vec::new(),
            _ if kid == "ec" => self
                .ec
                .sign(&rng, signed.as_bytes())
                .unwrap()
                .as_ref()
                .to_vec(),
            _ => {
                let mut out = vec![0; self.rsa.public_modulus_len()];
                self.rsa
                    .sign(&RSA_PKCS1_SHA256, &rng, signed.as_bytes(), &mut out)
                    .unwrap();
                out
            }
        };
        format!("{signed}.{}", b64(&signature))
    }
}
