use std::sync::Arc;

use prost::Message;
use rcgen::{CertificateParams, IsCa, KeyPair, KeyUsagePurpose, SanType};
use weft_certs::{BundleSet, CertificateDer, TrustDomain, X509Svid};

use super::*;
use crate::proto::sds::SpiffeValidator;

const ORDERS: &str = "spiffe://weft.local/ns/default/sa/orders";

fn root(domain: &str) -> TrustBundle {
    let key = KeyPair::generate().unwrap();
    let mut params = CertificateParams::default();
    params.is_ca = IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
    let root: CertificateDer<'static> = params.self_signed(&key).unwrap().into();
    TrustBundle {
        trust_domain: TrustDomain::parse(domain).unwrap(),
        sequence: 1,
        roots: vec![root],
        jwt_keys: Vec::new(),
    }
}

/// `orders`, which trusts these domains. What it has is only packed here, never judged.
fn identity(domains: &[&str]) -> Identity {
    let key = KeyPair::generate().unwrap();
    let mut params = CertificateParams::default();
    params.subject_alt_names = vec![SanType::URI(ORDERS.try_into().unwrap())];
    params.is_ca = IsCa::ExplicitNoCa;
    params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    let leaf = params.self_signed(&key).unwrap().into();
    let bundles: BundleSet = domains.iter().map(|domain| root(domain)).collect();
    Identity {
        svid: Arc::new(X509Svid::new(vec![leaf], key.serialize_der()).unwrap()),
        bundles: Arc::new(bundles),
        generation: 1,
        bundle_generation: 1,
    }
}

fn asked(identity: &Identity, names: &[&str], how: Validation) -> Result<Vec<Secret>, Unknown> {
    let names: Vec<String> = names.iter().map(|&name| name.to_owned()).collect();
    let packed = secrets(identity, &names, how)?;
    let read = |any: Any| {
        assert_eq!(
            any.type_url,
            format!("type.googleapis.com/{}", kind::SECRET)
        );
        Secret::decode(any.value).unwrap()
    };
    Ok(packed.into_iter().map(read).collect())
}

/// The trust domains that a validation context knows.
fn domains(secret: &Secret) -> Vec<String> {
    let context = secret.validation_context.as_ref().unwrap();
    assert_eq!(context.trusted_ca, None);
    let extension = context.custom_validator_config.as_ref().unwrap();
    assert_eq!(extension.name, SPIFFE_VALIDATOR);
    let config = extension.typed_config.clone().unwrap();
    let config = SpiffeValidator::decode(config.value).unwrap();
    let bundles = config.trust_domains.iter();
    bundles
        .map(|domain| {
            let pem = domain.trust_bundle.as_ref().unwrap();
            assert!(
                pem.inline_bytes
                    .starts_with(b"-----BEGIN CERTIFICATE-----\n")
            );
            domain.name.clone()
        })
        .collect()
}

#[test]
fn the_svid_is_called_default_or_by_its_id() {
    let identity = identity(&["weft.local"]);
    for name in ["default", ORDERS] {
        let found = asked(&identity, &[name], Validation::Spiffe).unwrap();
        assert_eq!(found.len(), 1);
        assert_eq!(found[0].name, name);
        assert_eq!(found[0].validation_context, None);
        let tls = found[0].tls_certificate.as_ref().unwrap();
        let chain = &tls.certificate_chain.as_ref().unwrap().inline_bytes;
        let key = &tls.private_key.as_ref().unwrap().inline_bytes;
        let both = [chain.as_ref(), key.as_ref()].concat();
        let read = X509Svid::from_pem(std::str::from_utf8(&both).unwrap()).unwrap();
        assert_eq!(read.serial(), identity.svid.serial());
    }
}

#[test]
fn roots_are_called_rootca_all_or_by_their_trust_domains_id() {
    let identity = identity(&["weft.local", "other.example"]);
    let cases: [(&str, &[&str]); 4] = [
        ("ROOTCA", &["weft.local"]),
        ("spiffe://weft.local", &["weft.local"]),
        ("spiffe://other.example", &["other.example"]),
        ("ALL", &["other.example", "weft.local"]),
    ];
    for (name, expected) in cases {
        let found = asked(&identity, &[name], Validation::Spiffe).unwrap();
        assert_eq!(found.len(), 1, "{name}");
        assert_eq!(found[0].name, name);
        assert_eq!(domains(&found[0]), expected, "{name}");
    }
}

#[test]
fn no_name_means_everything_by_its_id() {
    let identity = identity(&["weft.local", "other.example"]);
    let found = asked(&identity, &[], Validation::Spiffe).unwrap();
    let names: Vec<_> = found.iter().map(|secret| secret.name.as_str()).collect();
    assert_eq!(
        names,
        [ORDERS, "spiffe://other.example", "spiffe://weft.local"]
    );
}

#[test]
fn an_unknown_name_spoils_the_whole_answer() {
    let identity = identity(&["weft.local"]);
    for name in [
        "rootca",
        "other",
        "",
        "spiffe://other.example",
        "spiffe://weft.local/ns/default/sa/invoices",
    ] {
        let answer = asked(&identity, &["default", name], Validation::Spiffe);
        assert_eq!(answer, Err(Unknown(vec![name.to_owned()])));
    }
}

#[test]
fn workload_api_4_6_roots_of_two_trust_domains_are_never_one_list() {
    let one = identity(&["weft.local"]);
    for name in ["ROOTCA", "ALL", "spiffe://weft.local"] {
        let found = asked(&one, &[name], Validation::Plain).unwrap();
        let context = found[0].validation_context.as_ref().unwrap();
        assert!(context.trusted_ca.is_some(), "{name}");
        assert_eq!(context.custom_validator_config, None);
    }
    let two = identity(&["weft.local", "other.example"]);
    assert!(asked(&two, &["ROOTCA"], Validation::Plain).is_ok());
    assert!(asked(&two, &["ALL"], Validation::Plain).is_err());
}
