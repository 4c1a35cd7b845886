#![allow(clippy::unwrap_used)]

use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::rsa::KeySize;
use aws_lc_rs::signature::{self, EcdsaKeyPair, KeyPair, RsaKeyPair, RsaPublicKeyComponents};
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use proptest::prelude::*;
use serde_json::json;

use super::*;
use crate::der;
use crate::testing::now;

const ISSUER: &str = "https://kubernetes.default.svc.cluster.local";
const AUDIENCE: &str = "weft";

fn b64(bytes: &[u8]) -> String {
    URL_SAFE_NO_PAD.encode(bytes)
}

/// A cluster with an RSA and an EC key.
struct Cluster {
    rsa: RsaKeyPair,
    ec: EcdsaKeyPair,
}

impl Cluster {
    fn new() -> Self {
        Self {
            rsa: RsaKeyPair::generate(KeySize::Rsa2048).unwrap(),
            ec: EcdsaKeyPair::generate(&signature::ECDSA_P256_SHA256_FIXED_SIGNING).unwrap(),
        }
    }

    fn jwks(&self) -> Value {
        let parts: RsaPublicKeyComponents<Vec<u8>> = self.rsa.public_key().into();
        let (x, y) = self.ec.public_key().as_ref()[1..].split_at(32);
        json!({"keys": [
            {"use": "sig", "kid": "rsa", "kty": "RSA", "alg": "RS256", "n": b64(&parts.n), "e": b64(&parts.e)},
            {"use": "sig", "kid": "ec", "kty": "EC", "crv": "P-256", "x": b64(x), "y": b64(y)},
        ]})
    }

    fn keys(&self) -> TokenKeys {
        TokenKeys::parse(self.jwks().to_string().as_bytes()).unwrap()
    }

    fn sign(&self, kid: &str, message: &[u8]) -> Vec<u8> {
        let rng = SystemRandom::new();
        if kid == "ec" {
            return self.ec.sign(&rng, message).unwrap().as_ref().to_vec();
        }
        let mut signature = vec![0; self.rsa.public_modulus_len()];
        self.rsa
            .sign(&signature::RSA_PKCS1_SHA256, &rng, message, &mut signature)
            .unwrap();
        signature
    }

    fn token(&self, alg: &str, kid: &str, claims: &Value) -> String {
        let header = json!({"alg": alg, "kid": kid});
        let signed = format!(
            "{}.{}",
            b64(header.to_string().as_bytes()),
            b64(claims.to_string().as_bytes())
        );
        format!("{signed}.{}", b64(&self.sign(kid, signed.as_bytes())))
    }

    fn check(&self, token: &str) -> Result<ServiceAccount, ServiceAccountError> {
        verify_service_account(token, ISSUER, AUDIENCE, &self.keys(), now())
    }

    fn refused(&self, claims: &Value) -> &'static str {
        let token = self.token("ES256", "ec", claims);
        self.check(&token).unwrap_err().reason()
    }
}

fn at(seconds: i64) -> i64 {
    i64::try_from(der::seconds(now())).unwrap() + seconds
}

/// As the kubelet gets it from the API server.
fn claims() -> Value {
    json!({
        "aud": [AUDIENCE],
        "exp": at(3600),
        "iat": at(0),
        "nbf": at(0),
        "iss": ISSUER,
        "jti": "d0f1",
        "kubernetes.io": {
            "namespace": "shop",
            "node": {"name": "node-1", "uid": "1"},
            "pod": {"name": "invoices-7", "uid": "5fa9-22"},
            "serviceaccount": {"name": "invoices", "uid": "8c"},
        },
        "sub": "system:serviceaccount:shop:invoices",
    })
}

fn with(name: &str, member: Value) -> Value {
    let mut value = claims();
    value[name] = member;
    value
}

fn bound(name: &str, member: Value) -> Value {
    let mut value = claims();
    value["kubernetes.io"][name] = member;
    value
}

fn without(name: &str) -> Value {
    let mut value = claims();
    value.as_object_mut().unwrap().remove(name);
    value
}

#[test]
fn a_projected_token_says_whose_it_is_whatever_key_signed_it() {
    let cluster = Cluster::new();
    for (alg, kid) in [("RS256", "rsa"), ("ES256", "ec")] {
        let account = cluster.check(&cluster.token(alg, kid, &claims())).unwrap();
        assert_eq!(
            (account.namespace.as_str(), account.name.as_str()),
            ("shop", "invoices")
        );
        assert_eq!(
            (account.pod.as_str(), account.pod_uid.as_str()),
            ("invoices-7", "5fa9-22")
        );
        assert_eq!(account.node.as_deref(), Some("node-1"));
        assert_eq!(account.id.as_deref(), Some("d0f1"));
        assert_eq!(account.issued, now());
    }
}

#[test]
fn the_key_decides_on_the_algorithm() {
    let cluster = Cluster::new();
    for alg in ["none", "HS256", "None", ""] {
        let token = cluster.token(alg, "rsa", &claims());
        assert_eq!(
            cluster.check(&token).unwrap_err().reason(),
            "account_algorithm",
            "{alg}"
        );
    }
    for (alg, kid) in [
        ("PS256", "rsa"),
        ("RS512", "rsa"),
        ("RS256", "ec"),
        ("ES256", "rsa"),
    ] {
        let token = cluster.token(alg, kid, &claims());
        assert_eq!(
            cluster.check(&token).unwrap_err().reason(),
            "account_algorithm",
            "{alg} {kid}"
        );
    }
    let token = cluster.token("ES256", "other", &claims());
    assert_eq!(
        cluster.check(&token).unwrap_err().reason(),
        "account_unknown_key"
    );
    let of_another = Cluster::new().token("ES256", "ec", &claims());
    assert_eq!(
        cluster.check(&of_another).unwrap_err().reason(),
        "account_bad_signature"
    );
    // Without any signature.
    let token = cluster.token("ES256", "ec", &claims());
    let bare = &token[..=token.rfind('.').unwrap()];
    assert_eq!(
        cluster.check(bare).unwrap_err().reason(),
        "account_bad_signature"
    );
}

#[test]
fn a_token_for_others_of_others_or_of_another_time_is_refused() {
    let cluster = Cluster::new();
    assert_eq!(
        cluster.refused(&with("aud", json!(["https://kubernetes.default.svc"]))),
        "account_audience"
    );
    assert_eq!(
        cluster.refused(&with("iss", json!("https://elsewhere"))),
        "account_issuer"
    );
    assert_eq!(
        cluster.refused(&with("exp", json!(at(-31)))),
        "account_expired"
    );
    assert_eq!(
        cluster.refused(&with("nbf", json!(at(31)))),
        "account_not_yet_valid"
    );
    assert_eq!(
        cluster.refused(&with("iat", json!(at(31)))),
        "account_not_yet_valid"
    );
    for leeway in [with("exp", json!(at(-29))), with("nbf", json!(at(29)))] {
        cluster
            .check(&cluster.token("ES256", "ec", &leeway))
            .unwrap();
    }
    for name in ["aud", "iss", "exp", "sub", "kubernetes.io"] {
        assert_eq!(
            cluster.refused(&without(name)),
            "account_malformed",
            "{name}"
        );
    }
}

#[test]
fn a_token_that_is_not_of_a_pod_or_contradicts_itself_is_refused() {
    let cluster = Cluster::new();
    for claims in [
        bound("pod", Value::Null),
        bound("pod", json!({"name": "x"})),
        bound("namespace", json!("other")),
        bound("serviceaccount", json!({"name": "other"})),
        bound("serviceaccount", json!({"name": "in\nvoices"})),
        with("sub", json!("system:serviceaccount:shop")),
        with("kubernetes.io", json!("shop")),
    ] {
        assert_eq!(cluster.refused(&claims), "account_malformed", "{claims}");
    }
}

#[test]
fn a_key_file_without_a_key_that_can_be_used_is_refused() {
    let parse = |json: Value| TokenKeys::parse(json.to_string().as_bytes()).unwrap_err();
    let ec =
        json!({"kid": "a", "kty": "EC", "crv": "P-256", "x": b64(&[1; 32]), "y": b64(&[2; 32])});
    let but = |name: &str, value: Value| {
        let mut jwk = ec.clone();
        jwk[name] = value;
        json!({"keys": [jwk]})
    };
    assert!(parse(json!([])).contains("keys"));
    assert!(parse(json!({"keys": []})).contains("no key"));
    for unusable in [
        but("use", json!("enc")),
        but("kid", Value::Null),
        but("alg", json!("RS256")),
        but("alg", json!("HS256")),
        but("kty", json!("oct")),
    ] {
        assert!(parse(unusable).contains("no key"));
    }
    assert!(parse(but("x", json!("?"))).starts_with("keys[0]: x"));
    TokenKeys::parse(json!({"keys": [ec]}).to_string().as_bytes()).unwrap();
}

proptest! {
    #[test]
    fn nothing_that_was_not_signed_gets_in(text in "[A-Za-z0-9_.-]{0,200}", cut in 0_usize..1000, to in any::<char>()) {
        static WORLD: std::sync::OnceLock<(Cluster, String)> = std::sync::OnceLock::new();
        let (cluster, token) = WORLD.get_or_init(|| {
            let cluster = Cluster::new();
            let token = cluster.token("ES256", "ec", &claims());
            (cluster, token)
        });
        prop_assert!(cluster.check(&text).is_err());
        // Any one character of a good one replaced, but by one that stands for the same bits.
        let (payload_end, at) = (token.rfind('.').unwrap(), cut % token.len());
        let mut changed: Vec<char> = token.chars().collect();
        if changed[at] != to && at < payload_end {
            changed[at] = to;
            let changed: String = changed.into_iter().collect();
            prop_assert!(cluster.check(&changed).is_err(), "{changed}");
        }
        prop_assert!(TokenKeys::parse(text.as_bytes()).is_err());
    }
}
