use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::rsa::KeySize;
use aws_lc_rs::signature::{
    self, EcdsaKeyPair, EcdsaSigningAlgorithm, KeyPair, RsaKeyPair, RsaPublicKeyComponents,
};
use proptest::prelude::*;
use serde_json::json;

use super::*;
use crate::testing::{INVOICES, now, td};
use crate::{JwtKey, RevocationList, RevokedIdentity, TrustBundle};

const AUDIENCE: &str = "billing";

/// A key pair of one of the kinds.
enum Pair {
    Ec(EcdsaKeyPair),
    Rsa(RsaKeyPair, &'static dyn signature::RsaEncoding),
}

/// An issuer with one key per algorithm.
struct Issuer {
    pairs: Vec<(&'static str, Pair)>,
    bundles: BundleSet,
}

fn b64(bytes: &[u8]) -> String {
    URL_SAFE_NO_PAD.encode(bytes)
}

fn ec(algorithm: &'static EcdsaSigningAlgorithm) -> EcdsaKeyPair {
    EcdsaKeyPair::generate(algorithm).unwrap()
}

impl Pair {
    fn jwk(&self, kid: &str) -> Value {
        match self {
            Self::Ec(pair) => {
                let (x, y) =
                    pair.public_key().as_ref()[1..].split_at(pair.public_key().as_ref().len() / 2);
                let crv = match x.len() {
                    32 => "P-256",
                    48 => "P-384",
                    _ => "P-521",
                };
                json!({"use": "jwt-svid", "kid": kid, "kty": "EC", "crv": crv, "x": b64(x), "y": b64(y)})
            }
            Self::Rsa(pair, _) => {
                let parts: RsaPublicKeyComponents<Vec<u8>> = pair.public_key().into();
                json!({"use": "jwt-svid", "kid": kid, "kty": "RSA", "n": b64(&parts.n), "e": b64(&parts.e)})
            }
        }
    }

    fn sign(&self, message: &str) -> Vec<u8> {
        let rng = SystemRandom::new();
        match self {
            Self::Ec(pair) => {
                let signature = pair.sign(&rng, message.as_bytes()).unwrap();
                signature.as_ref().to_vec()
            }
            Self::Rsa(pair, encoding) => {
                let mut signature = vec![0; pair.public_modulus_len()];
                pair.sign(*encoding, &rng, message.as_bytes(), &mut signature)
                    .unwrap();
                signature
            }
        }
    }
}

impl Issuer {
    fn new(pairs: Vec<(&'static str, Pair)>) -> Self {
        let keys: Vec<Value> = pairs.iter().map(|(name, pair)| pair.jwk(name)).collect();
        let jwks = json!({"keys": keys});
        let bundle = TrustBundle::from_jwks(td("weft.local"), &jwks).unwrap();
        let bundles = bundle.into();
        Self { pairs, bundles }
    }

    /// With one ES256 key, called ES256.
    fn es256() -> Self {
        Self::new(vec![(
            "ES256",
            Pair::Ec(ec(&signature::ECDSA_P256_SHA256_FIXED_SIGNING)),
        )])
    }

    fn token(&self, header: &Value, claims: &Value) -> String {
        self.token_of(&header.to_string(), &claims.to_string(), 0)
    }

    fn token_of(&self, header: &str, claims: &str, pair: usize) -> String {
        let signed = format!("{}.{}", b64(header.as_bytes()), b64(claims.as_bytes()));
        let signature = self.pairs[pair].1.sign(&signed);
        format!("{signed}.{}", b64(&signature))
    }

    fn check(&self, token: &str) -> Result<JwtSvid, JwtError> {
        verify_jwt_svid(token, AUDIENCE, &self.bundles, now())
    }
}

fn header() -> Value {
    json!({"alg": "ES256", "kid": "ES256", "typ": "JWT"})
}

fn at(seconds: i64) -> i64 {
    i64::try_from(der::seconds(now())).unwrap() + seconds
}

fn claims() -> Value {
    json!({"sub": INVOICES, "aud": [AUDIENCE, "other"], "exp": at(300), "iat": at(0)})
}

fn with(mut value: Value, name: &str, member: Value) -> Value {
    value[name] = member;
    value
}

fn without(mut value: Value, name: &str) -> Value {
    value.as_object_mut().unwrap().remove(name);
    value
}

#[test]
fn jwt_svid_3_1_each_of_the_nine_algorithms_is_taken_with_its_own_kind_of_key_only() {
    let rsa = || RsaKeyPair::generate(KeySize::Rsa2048).unwrap();
    let pairs = vec![
        (
            "ES256",
            Pair::Ec(ec(&signature::ECDSA_P256_SHA256_FIXED_SIGNING)),
        ),
        (
            "ES384",
            Pair::Ec(ec(&signature::ECDSA_P384_SHA384_FIXED_SIGNING)),
        ),
        (
            "ES512",
            Pair::Ec(ec(&signature::ECDSA_P521_SHA512_FIXED_SIGNING)),
        ),
        ("RS256", Pair::Rsa(rsa(), &signature::RSA_PKCS1_SHA256)),
        ("RS384", Pair::Rsa(rsa(), &signature::RSA_PKCS1_SHA384)),
        ("RS512", Pair::Rsa(rsa(), &signature::RSA_PKCS1_SHA512)),
        ("PS256", Pair::Rsa(rsa(), &signature::RSA_PSS_SHA256)),
        ("PS384", Pair::Rsa(rsa(), &signature::RSA_PSS_SHA384)),
        ("PS512", Pair::Rsa(rsa(), &signature::RSA_PSS_SHA512)),
    ];
    let issuer = Issuer::new(pairs);
    for (index, (name, _)) in issuer.pairs.iter().enumerate() {
        for (claimed, _) in &issuer.pairs {
            let header = json!({"alg": claimed, "kid": name}).to_string();
            let token = issuer.token_of(&header, &claims().to_string(), index);
            let found = issuer.check(&token);
            match claimed == name {
                true => assert_eq!(found.unwrap().id.as_str(), INVOICES, "{name}"),
                false => assert_eq!(found, Err(JwtError::BadSignature), "{name} as {claimed}"),
            }
        }
    }
}

#[test]
fn what_an_issuer_makes_is_taken() {
    let pair = ec(&signature::ECDSA_P256_SHA256_FIXED_SIGNING);
    let key = JwtKey::p256(pair.public_key().as_ref()).unwrap();
    let kid = key.kid().to_owned();
    let mut bundle = Issuer::es256()
        .bundles
        .get(&td("weft.local"))
        .unwrap()
        .clone();
    bundle.jwt_keys.push(key);
    // As it is stored and pushed.
    let bundle = TrustBundle::from_jwks(td("weft.local"), &bundle.to_jwks()).unwrap();
    assert_eq!(bundle.jwt_keys.len(), 2);
    let id = SpiffeId::parse(INVOICES).unwrap();
    let end = now() + Duration::from_secs(300);
    let audience = vec![AUDIENCE.to_owned()];
    let input = jwt_signing_input(&kid, &id, &audience, now(), end);
    let signature = pair.sign(&SystemRandom::new(), input.as_bytes()).unwrap();
    let signature = signature.as_ref().try_into().unwrap();
    let token = jwt_with_signature(&input, &signature);
    let svid = verify_jwt_svid(&token, AUDIENCE, &bundle.into(), now()).unwrap();
    assert_eq!((svid.id, svid.expires), (id, end));
    assert_eq!(svid.claims["aud"], json!([AUDIENCE]));
}

#[test]
fn rfc_7638_a_key_is_called_by_its_thumbprint() {
    // The members in order, hashed by hand.
    let pair = ec(&signature::ECDSA_P256_SHA256_FIXED_SIGNING);
    let key = JwtKey::p256(pair.public_key().as_ref()).unwrap();
    let jwk = Pair::Ec(pair).jwk("");
    let text = format!(
        r#"{{"crv":"P-256","kty":"EC","x":{},"y":{}}}"#,
        jwk["x"], jwk["y"]
    );
    assert_eq!(key.kid(), b64(&der::sha256(text.as_bytes())));
    for bad in [&[][..], &[4; 64], &[2; 65]] {
        assert!(JwtKey::p256(bad).is_err());
    }
}

#[test]
fn jwt_svid_2_a_token_has_three_parts_of_base64url() {
    let issuer = Issuer::es256();
    let good = issuer.token(&header(), &claims());
    assert!(issuer.check(&good).is_ok());
    let (signed, signature) = good.rsplit_once('.').unwrap();
    let cases = [
        String::new(),
        ".".to_owned(),
        "..".to_owned(),
        signed.to_owned(),
        format!("{signed}."),
        format!("{good}."),
        format!("{good}.x"),
        format!(".{good}"),
        format!("{good}="),
        format!(" {good}"),
        format!("{good}\n"),
        format!("{signed}.{signature}A"),
        good.replace('.', ":"),
        // JSON serialization (RFC 7515 §7.2) is not compact.
        json!({"payload": "", "signatures": []}).to_string(),
        "a".repeat(MAX_TOKEN + 1),
    ];
    for token in cases {
        let found = issuer.check(&token);
        assert!(
            matches!(found, Err(JwtError::Malformed(_) | JwtError::BadSignature)),
            "{token:?}: {found:?}"
        );
    }
}

#[test]
fn jwt_svid_2_1_algorithms_without_a_signature_or_with_a_shared_secret_are_refused() {
    let issuer = Issuer::es256();
    for name in [
        "none", "None", "HS256", "HS384", "HS512", "EdDSA", "es256", "",
    ] {
        let token = issuer.token(&with(header(), "alg", json!(name)), &claims());
        assert_eq!(
            issuer.check(&token),
            Err(JwtError::Algorithm(name.to_owned()))
        );
    }
    let none = format!(
        "{}.{}.",
        b64(br#"{"alg":"none","kid":"ES256"}"#),
        b64(claims().to_string().as_bytes())
    );
    assert!(issuer.check(&none).is_err());
}

#[test]
fn jwt_svid_2_the_header_has_alg_kid_and_typ_and_nothing_else() {
    let issuer = Issuer::es256();
    for good in [
        header(),
        without(header(), "typ"),
        with(header(), "typ", json!("JOSE")),
    ] {
        assert!(issuer.check(&issuer.token(&good, &claims())).is_ok());
    }
    let bad = [
        with(header(), "typ", json!("jwt")),
        with(header(), "typ", json!("at+jwt")),
        with(header(), "typ", json!(1)),
        without(header(), "alg"),
        without(header(), "kid"),
        with(header(), "kid", json!("")),
        with(header(), "kid", json!(7)),
        with(header(), "jku", json!("https://example.com/keys")),
        with(header(), "jwk", json!({})),
        with(header(), "x5c", json!([])),
        with(header(), "x5u", json!("")),
        with(header(), "crit", json!([])),
        with(header(), "b64", json!(false)),
        with(header(), "zip", json!("DEF")),
        json!([]),
        json!("header"),
    ];
    for header in bad {
        let found = issuer.check(&issuer.token(&header, &claims()));
        assert!(matches!(found, Err(JwtError::Malformed(_))), "{header}");
    }
    let twice = r#"{"alg":"none","kid":"ES256","alg":"ES256"}"#;
    let found = issuer.check(&issuer.token_of(twice, &claims().to_string(), 0));
    assert!(matches!(found, Err(JwtError::Malformed(_))), "{found:?}");
}

#[test]
fn jwt_svid_3_1_the_subject_is_the_id_of_a_workload() {
    let issuer = Issuer::es256();
    let subjects = [
        Value::Null,
        json!(1),
        json!(""),
        json!("invoices"),
        json!("https://weft.local/invoices"),
        json!("spiffe://weft.local"),
        json!("spiffe://weft.local/"),
        json!("SPIFFE://weft.local/invoices"),
        json!([INVOICES]),
    ];
    for subject in subjects {
        let found = issuer.check(&issuer.token(&header(), &with(claims(), "sub", subject.clone())));
        assert!(matches!(found, Err(JwtError::Subject(_))), "{subject}");
    }
    let found = issuer.check(&issuer.token(&header(), &without(claims(), "sub")));
    assert!(matches!(found, Err(JwtError::Subject(_))));
}

#[test]
fn jwt_svid_3_2_a_token_is_for_its_audience_only() {
    let issuer = Issuer::es256();
    let check = |aud: Value| issuer.check(&issuer.token(&header(), &with(claims(), "aud", aud)));
    for good in [json!(AUDIENCE), json!([AUDIENCE]), json!(["x", AUDIENCE])] {
        assert!(check(good.clone()).is_ok(), "{good}");
    }
    for other in [json!("Billing"), json!(["other"]), json!([]), json!("")] {
        let found = check(other.clone());
        assert!(matches!(found, Err(JwtError::Audience(_))), "{other}");
    }
    for bad in [Value::Null, json!(1), json!([AUDIENCE, 1]), json!({})] {
        let found = check(bad.clone());
        assert!(matches!(found, Err(JwtError::Malformed(_))), "{bad}");
    }
    let none = issuer.check(&issuer.token(&header(), &without(claims(), "aud")));
    assert!(matches!(none, Err(JwtError::Malformed(_))));
    let empty = issuer.token(&header(), &with(claims(), "aud", json!("")));
    let found = verify_jwt_svid(&empty, "", &issuer.bundles, now());
    assert!(matches!(found, Err(JwtError::Audience(_))), "nobody's name");
}

#[test]
fn jwt_svid_3_3_a_token_ends() {
    let issuer = Issuer::es256();
    let check = |exp: Value| issuer.check(&issuer.token(&header(), &with(claims(), "exp", exp)));
    for good in [json!(at(1)), json!(at(-29)), json!(at(60) as f64 + 0.5)] {
        assert!(check(good.clone()).is_ok(), "{good}");
    }
    for past in [json!(at(-30)), json!(at(-3600)), json!(0)] {
        let found = check(past.clone());
        assert!(matches!(found, Err(JwtError::Expired { .. })), "{past}");
    }
    let text = json!(at(60).to_string());
    for bad in [Value::Null, text, json!(-1), json!(1e300), json!([])] {
        let found = check(bad.clone());
        assert!(matches!(found, Err(JwtError::Malformed(_))), "{bad}");
    }
    let none = issuer.check(&issuer.token(&header(), &without(claims(), "exp")));
    assert!(matches!(none, Err(JwtError::Malformed(_))));
}

#[test]
fn rfc_7519_4_1_5_a_token_from_the_future_is_not_good_yet() {
    let issuer = Issuer::es256();
    for name in ["nbf", "iat"] {
        let check = |value| issuer.check(&issuer.token(&header(), &with(claims(), name, value)));
        assert!(
            check(json!(at(30))).is_ok(),
            "{name}: clocks differ a little"
        );
        let found = check(json!(at(31)));
        assert!(matches!(found, Err(JwtError::NotYetValid { .. })), "{name}");
        let found = check(json!("soon"));
        assert!(matches!(found, Err(JwtError::Malformed(_))), "{name}");
    }
}

#[test]
fn jwt_svid_4_1_the_key_is_one_of_the_subjects_own_trust_domain() {
    let issuer = Issuer::es256();
    let unknown = issuer.token(&with(header(), "kid", json!("ES384")), &claims());
    assert!(matches!(
        issuer.check(&unknown),
        Err(JwtError::UnknownKey { .. })
    ));
    let foreign = "spiffe://other.example/invoices";
    let token = issuer.token(&header(), &with(claims(), "sub", json!(foreign)));
    assert_eq!(
        issuer.check(&token),
        Err(JwtError::UnknownTrustDomain(td("other.example")))
    );
    // Another domain is trusted too, and its key has the same name.
    let other = Issuer::es256();
    let mut both = issuer.bundles.clone();
    let mut bundle = other.bundles.get(&td("weft.local")).unwrap().clone();
    bundle.trust_domain = td("other.example");
    both.insert(bundle);
    let found = verify_jwt_svid(&token, AUDIENCE, &both, now());
    assert_eq!(found, Err(JwtError::BadSignature), "keys are never pooled");
    let own = other.token(&header(), &with(claims(), "sub", json!(foreign)));
    assert!(verify_jwt_svid(&own, AUDIENCE, &both, now()).is_ok());
}

#[test]
fn a_revoked_identitys_tokens_are_refused_like_its_certificates() {
    let issuer = Issuer::es256();
    let revoked = |before_unix| {
        let mut list = RevocationList::default();
        let id = SpiffeId::parse(INVOICES).unwrap();
        list.identities.insert(id, RevokedIdentity { before_unix });
        let mut bundles = issuer.bundles.clone();
        bundles.revoke(td("weft.local"), list);
        bundles
    };
    let check = |claims: &Value, bundles: &BundleSet| {
        verify_jwt_svid(&issuer.token(&header(), claims), AUDIENCE, bundles, now()).is_ok()
    };
    let issued = der::seconds(now());
    assert!(!check(&claims(), &revoked(None)));
    assert!(!check(&claims(), &revoked(Some(issued + 1))));
    assert!(check(&claims(), &revoked(Some(issued))));
    assert!(!check(&without(claims(), "iat"), &revoked(Some(1))));
}

#[test]
fn a_name_that_stands_twice_is_refused() {
    let issuer = Issuer::es256();
    let text = claims().to_string();
    let twice = text.replacen('{', r#"{"sub":"spiffe://weft.local/x","#, 1);
    let found = issuer.check(&issuer.token_of(&header().to_string(), &twice, 0));
    assert!(matches!(found, Err(JwtError::Malformed(_))), "{found:?}");
}

#[test]
fn jwt_svid_6_elements_without_a_name_or_of_an_unknown_kind_are_ignored_and_broken_ones_are_errors()
{
    let pair = Pair::Ec(ec(&signature::ECDSA_P256_SHA256_FIXED_SIGNING));
    let good = pair.jwk("a");
    let read = |key: Value| {
        TrustBundle::from_jwks(td("weft.local"), &json!({"keys": [good.clone(), key]}))
            .map(|bundle| bundle.jwt_keys.len())
    };
    for ignored in [
        without(good.clone(), "kid"),
        with(good.clone(), "kid", json!("")),
        with(good.clone(), "kid", json!("k".repeat(513))),
        with(good.clone(), "kty", json!("oct")),
        with(good.clone(), "kty", json!("OKP")),
        with(good.clone(), "crv", json!("secp256k1")),
        with(good.clone(), "use", json!("JWT-SVID")),
        with(good.clone(), "use", json!("wit-svid")),
        without(good.clone(), "use"),
    ] {
        assert_eq!(read(ignored.clone()), Ok(1), "{ignored}");
    }
    for broken in [
        with(good.clone(), "x", json!("!")),
        with(good.clone(), "x", json!("AAAA")),
        without(good.clone(), "y"),
        without(good.clone(), "crv"),
        json!({"use": "jwt-svid", "kid": "r", "kty": "RSA", "n": "", "e": "AQAB"}),
    ] {
        assert!(read(broken.clone()).is_err(), "{broken}");
    }
}

proptest! {
    #[test]
    fn no_text_makes_the_reader_panic(text in "\\PC*") {
        let issuer = BundleSet::new();
        prop_assert!(verify_jwt_svid(&text, AUDIENCE, &issuer, now()).is_err());
    }

    #[test]
    fn parts_of_any_bytes_are_refused(
        header in proptest::collection::vec(any::<u8>(), 0..64),
        claims in proptest::collection::vec(any::<u8>(), 0..64),
    ) {
        let token = format!("{}.{}.{}", b64(&header), b64(&claims), b64(&[0; 64]));
        prop_assert!(verify_jwt_svid(&token, AUDIENCE, &BundleSet::new(), now()).is_err());
    }

    #[test]
    fn a_token_with_one_character_changed_is_refused(position in any::<prop::sample::Index>(), to in any::<u8>()) {
        static GOOD: std::sync::LazyLock<(Issuer, String)> = std::sync::LazyLock::new(|| {
            let issuer = Issuer::es256();
            let token = issuer.token(&header(), &claims());
            (issuer, token)
        });
        let (issuer, token) = &*GOOD;
        let mut changed = token.clone().into_bytes();
        let at = position.index(changed.len());
        prop_assume!(changed[at] != to);
        changed[at] = to;
        if let Ok(changed) = String::from_utf8(changed) {
            prop_assert!(issuer.check(&changed).is_err(), "{changed}");
        }
    }
}
