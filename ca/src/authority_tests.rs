//! What is issued, looked at with other eyes: `weft-certs`, a parser, and openssl where there is one.
#![allow(clippy::unwrap_used)]

use std::collections::BTreeSet;

use rcgen::{
    BasicConstraints, CertificateParams, ExtendedKeyUsagePurpose, IsCa, KeyUsagePurpose, SanType,
};
use weft_certs::{BundleSet, CertificateDer, TrustDomain, Usage, X509Svid, verify_chain};
use x509_parser::certificate::X509Certificate;
use x509_parser::extensions::{GeneralName, ParsedExtension};

use super::*;
use crate::testing::{CONTROL, INVOICES, authority, config, days, hours, id, now, reload};
use crate::{MemoryKeyStore, SoftKey, make_csr};

fn issue(ca: &Authority, ttl: Option<Duration>, at: SystemTime) -> Result<Issued, Error> {
    let request = make_csr(None).unwrap();
    ca.issue(
        &request.csr,
        &id(INVOICES),
        ttl,
        at,
        &mut crate::testing::rng(),
    )
}

fn parsed<'a>(der: &'a CertificateDer<'_>) -> X509Certificate<'a> {
    parse_x509_certificate(der).unwrap().1
}

#[test]
fn what_is_issued_is_a_valid_svid_for_its_key() {
    let (ca, _, mut rng) = authority();
    let request = make_csr(None).unwrap();
    let issued = ca
        .issue(&request.csr, &id(INVOICES), None, now(), &mut rng)
        .unwrap();
    let svid = X509Svid::new(issued.chain.clone(), request.key).unwrap();
    svid.validate(&ca.bundle().into(), now()).unwrap();
    assert_eq!(svid.id(), &id(INVOICES));
    assert_eq!(
        (svid.serial(), svid.not_after()),
        (issued.serial.as_str(), issued.not_after)
    );
    assert_eq!(
        (svid.not_before(), issued.not_before),
        (now() - BACKDATE, now() - BACKDATE)
    );
    assert_eq!(issued.not_after, now() + hours(1));
    assert!(ca.pin().unwrap().matches(&issued.root));
}

#[test]
fn clocks_five_minutes_apart_accept_a_leaf_or_say_why() {
    let (ca, _, _) = authority();
    let bundles = BundleSet::from(ca.bundle());
    let issued = issue(&ca, None, now()).unwrap();
    let check = |at| verify_chain(&issued.chain, &bundles, at, Usage::Client).map(drop);
    check(now() - Duration::from_secs(60)).unwrap();
    check(now() + Duration::from_secs(300)).unwrap();
    assert_eq!(
        check(now() - Duration::from_secs(300))
            .unwrap_err()
            .reason(),
        "not_yet_valid"
    );
}

#[test]
fn a_leaf_has_the_extensions_of_x509_svid() {
    let (ca, _, _) = authority();
    let issued = issue(&ca, None, now()).unwrap();
    let leaf = parsed(&issued.chain[0]);
    let usage = leaf.key_usage().unwrap().unwrap();
    assert!(
        usage.critical && usage.value.flags == 1,
        "digitalSignature and nothing else, critical"
    );
    let purposes = leaf.extended_key_usage().unwrap().unwrap().value;
    assert!(purposes.server_auth && purposes.client_auth && !purposes.any);
    let names = leaf.subject_alternative_name().unwrap().unwrap();
    assert!(names.critical && leaf.subject().iter().count() == 0);
    assert_eq!(names.value.general_names, [GeneralName::URI(INVOICES)]);
    assert!(!leaf.is_ca());
    assert_eq!(leaf.raw_serial().len(), 16);
    assert!(leaf.raw_serial()[0] & 0x80 == 0, "positive");
    assert_eq!(authority_key(&leaf), subject_key(&parsed(&issued.chain[1])));
    assert_eq!(
        authority_key(&parsed(&issued.chain[1])),
        subject_key(&parsed(&issued.root))
    );
    assert!(subject_key(&leaf).is_some());
}

fn subject_key(certificate: &X509Certificate<'_>) -> Option<Vec<u8>> {
    certificate
        .extensions()
        .iter()
        .find_map(|ext| match ext.parsed_extension() {
            ParsedExtension::SubjectKeyIdentifier(key) => Some(key.0.to_vec()),
            _ => None,
        })
}

fn authority_key(certificate: &X509Certificate<'_>) -> Option<Vec<u8>> {
    certificate
        .extensions()
        .iter()
        .find_map(|ext| match ext.parsed_extension() {
            ParsedExtension::AuthorityKeyIdentifier(key) => {
                key.key_identifier.as_ref().map(|key| key.0.to_vec())
            }
            _ => None,
        })
}

#[test]
fn authorities_are_cas_of_the_trust_domain() {
    let (ca, _, _) = authority();
    let issued = issue(&ca, None, now()).unwrap();
    for (der, path_len) in [(&issued.root, 2), (&issued.chain[1], 0)] {
        let certificate = parsed(der);
        let constraints = certificate.basic_constraints().unwrap().unwrap();
        assert!(constraints.critical && constraints.value.ca);
        assert_eq!(constraints.value.path_len_constraint, Some(path_len));
        let usage = certificate.key_usage().unwrap().unwrap();
        assert!(usage.critical && usage.value.key_cert_sign() && !usage.value.digital_signature());
        let names = certificate.subject_alternative_name().unwrap().unwrap();
        assert_eq!(
            names.value.general_names,
            [GeneralName::URI("spiffe://weft.local")]
        );
        assert!(
            certificate.subject().iter().count() > 0,
            "an issuer has a name (RFC 5280 §4.1.2.4)"
        );
    }
}

#[test]
fn of_a_request_only_the_key_counts() {
    let (ca, _, mut rng) = authority();
    let key = SoftKey::generate(crate::KeyType::P256).unwrap();
    let mut params = CertificateParams::default();
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    params.extended_key_usages = vec![ExtendedKeyUsagePurpose::CodeSigning];
    params.subject_alt_names = vec![SanType::URI(CONTROL.try_into().unwrap())];
    let csr = params.serialize_request(&key).unwrap();
    let issued = ca
        .issue(csr.der(), &id(INVOICES), None, now(), &mut rng)
        .unwrap();
    let svid = X509Svid::new(issued.chain, key.pkcs8().clone()).unwrap();
    assert_eq!(svid.id(), &id(INVOICES));
}

#[test]
fn a_request_without_proof_of_possession_gets_nothing() {
    let (ca, _, mut rng) = authority();
    let mut csr = make_csr(None).unwrap().csr;
    *csr.last_mut().unwrap() ^= 1;
    assert!(matches!(
        ca.issue(&csr, &id(INVOICES), None, now(), &mut rng),
        Err(Error::Csr { .. })
    ));
}

#[test]
fn names_of_others_are_not_given() {
    let (ca, _, mut rng) = authority();
    let csr = make_csr(None).unwrap().csr;
    let mut refused = |name: &str| {
        ca.issue(&csr, &id(name), None, now(), &mut rng)
            .unwrap_err()
    };
    assert!(matches!(
        refused("spiffe://other/ns/default/sa/x"),
        Error::ForeignIdentity { .. }
    ));
    assert!(matches!(
        refused("spiffe://weft.local"),
        Error::NotAWorkload { .. }
    ));
    assert!(matches!(refused(CONTROL), Error::ReservedIdentity { .. }));
    assert!(matches!(
        refused("spiffe://weft.local/ns/weft-system"),
        Error::ReservedIdentity { .. }
    ));
    let issued = ca
        .issue_reserved(&csr, &id(CONTROL), None, now(), &mut rng)
        .unwrap();
    assert_eq!(issued.id, id(CONTROL));
    let foreign = id("spiffe://other/ns/weft-system/sa/control");
    assert!(matches!(
        ca.issue_reserved(&csr, &foreign, None, now(), &mut rng),
        Err(Error::ForeignIdentity { .. })
    ));
    assert!(!is_reserved(&id(
        "spiffe://weft.local/ns/weft-system2/sa/x"
    )));
}

#[test]
fn a_lifetime_has_limits() {
    let (ca, _, _) = authority();
    for (ttl, ok) in [
        (299, false),
        (300, true),
        (86_400, true),
        (86_401, false),
        (0, false),
        (u64::MAX / 2, false),
    ] {
        let issued = issue(&ca, Some(Duration::from_secs(ttl)), now());
        assert_eq!(issued.is_ok(), ok, "{ttl} s");
        if let Ok(issued) = issued {
            assert_eq!(issued.not_after, now() + Duration::from_secs(ttl));
        }
    }
}

#[test]
fn a_leaf_ends_before_its_issuer_or_is_not_issued() {
    let (ca, _, _) = authority();
    let end = now() + days(30);
    let margin = Duration::from_secs(60);
    let issued = issue(&ca, Some(hours(24)), end - hours(2)).unwrap();
    assert_eq!(
        issued.not_after,
        end - margin,
        "cut to the issuer's end, less a margin"
    );
    let five = Duration::from_secs(300);
    assert!(
        issue(&ca, None, end - margin - five).is_ok(),
        "five minutes are left"
    );
    for late in [
        end - margin - five + Duration::from_secs(1),
        end,
        end + hours(1),
    ] {
        let error = issue(&ca, None, late).unwrap_err();
        assert!(matches!(error, Error::IssuerEnding { .. }), "{error}");
        assert!(error.to_string().contains("weft ca rotate"), "{error}");
    }
}

#[test]
fn serials_never_repeat() {
    let (ca, _, mut rng) = authority();
    let csr = make_csr(None).unwrap().csr;
    let mut serial = || {
        ca.issue(&csr, &id(INVOICES), None, now(), &mut rng)
            .unwrap()
            .serial
    };
    let serials: BTreeSet<_> = (0..50).map(|_| serial()).collect();
    assert_eq!(serials.len(), 50);
}

#[test]
fn settings_that_do_not_fit_together_are_refused() {
    let keys = MemoryKeyStore::new();
    let verdict = |change: &dyn Fn(&mut CaConfig)| {
        let mut config = config();
        change(&mut config);
        Authority::create(&config, &keys, now(), &mut crate::testing::rng())
            .map(drop)
            .map_err(|e| e.to_string())
    };
    let s = Duration::from_secs;
    type Change<'a> = &'a dyn Fn(&mut CaConfig);
    let refused: [(Change<'_>, &str); 10] = [
        (
            &|c| c.issuing_ttl = hours(24) * 6 - s(1),
            "less than 6 times",
        ),
        (&|c| c.max_leaf_ttl = hours(25), "between 5 s and 24 h"),
        (&|c| c.min_leaf_ttl = s(4), "between 5 s and 24 h"),
        (&|c| c.max_leaf_ttl = hours(25), "give --max-leaf-ttl"),
        (&|c| c.min_leaf_ttl = s(4), "give --leaf-ttl"),
        (&|c| c.leaf_ttl = hours(25), "give --leaf-ttl"),
        (&|c| c.leaf_ttl = s(299), "outside its limits"),
        (&|c| c.leaf_ttl = hours(25), "outside its limits"),
        (&|c| c.root_ttl = days(59), "less than twice"),
        (&|c| c.root_ttl = Duration::MAX, "more than 100 years"),
    ];
    for (change, expected) in refused {
        let text = verdict(change).expect_err(expected);
        assert!(text.contains(expected), "expected {expected:?}: {text}");
    }
    assert!(
        keys.names().is_empty(),
        "nothing is made under settings that are refused"
    );
    verdict(&|c| c.issuing_ttl = hours(24) * 6).unwrap();
}

#[test]
fn a_test_can_live_in_seconds() {
    let (keys, mut rng) = (MemoryKeyStore::new(), crate::testing::rng());
    let s = Duration::from_secs;
    let config = CaConfig {
        leaf_ttl: s(10),
        min_leaf_ttl: s(5),
        max_leaf_ttl: s(20),
        issuing_ttl: s(120),
        root_ttl: s(3600),
        ..CaConfig::new(TrustDomain::parse("weft.local").unwrap())
    };
    let at = now() + Duration::from_millis(700);
    let journal = Authority::create(&config, &keys, at, &mut rng).unwrap();
    let ca = Authority::load(config, journal, &keys).unwrap();
    for ttl in [None, Some(s(5)), Some(s(20))] {
        let issued = issue(&ca, ttl, at).unwrap();
        verify_chain(&issued.chain, &ca.bundle().into(), at, Usage::Server).unwrap();
    }
}

#[test]
fn leaves_of_before_and_after_a_rotation_are_good_at_the_same_time() {
    let (ca, keys, mut rng) = authority();
    let before = issue(&ca, None, now()).unwrap();
    let ca = reload(&ca.prepare_issuing(&keys, now(), &mut rng).unwrap(), &keys);
    let between = issue(&ca, None, now()).unwrap();
    assert_eq!(between.issuer, "issuing-1", "a prepared CA signs nothing");
    let ca = reload(&ca.activate_issuing("issuing-2", now()).unwrap(), &keys);
    let after = issue(&ca, None, now()).unwrap();
    assert_eq!(after.issuer, "issuing-2");
    assert_ne!(before.chain[1], after.chain[1]);
    let ca = reload(&ca.retire_issuing("issuing-1", now()).unwrap(), &keys);
    for issued in [before, between, after] {
        verify_chain(&issued.chain, &ca.bundle().into(), now(), Usage::Server).unwrap();
    }
}

#[test]
fn a_root_rotation_is_never_seen_by_relying_parties() {
    let (ca, keys, mut rng) = authority();
    let old = issue(&ca, None, now()).unwrap();
    let first: BundleSet = ca.bundle().into();
    let ca = reload(&ca.prepare_root(&keys, now(), &mut rng).unwrap(), &keys);
    let ca = reload(&ca.activate_root("root-2", now()).unwrap(), &keys);
    let still_old = issue(&ca, None, now()).unwrap();
    let ca = reload(&ca.prepare_issuing(&keys, now(), &mut rng).unwrap(), &keys);
    let ca = reload(&ca.activate_issuing("issuing-2", now()).unwrap(), &keys);
    let new = issue(&ca, None, now()).unwrap();
    assert!(ca.pin().unwrap().matches(&new.root));
    for issued in [&old, &still_old, &new] {
        verify_chain(&issued.chain, &ca.bundle().into(), now(), Usage::Server).unwrap();
    }
    // Who slept through all of it knows the first root only, and gets in by the cross-signed second.
    for issued in [&still_old, &new] {
        verify_chain(&issued.chain, &first, now(), Usage::Server).unwrap();
    }
    assert_eq!(new.chain.len(), 3, "leaf, issuing, cross");
    let strangers: BundleSet = authority().0.bundle().into();
    assert_eq!(
        verify_chain(&new.chain, &strangers, now(), Usage::Server)
            .unwrap_err()
            .reason(),
        "unknown_authority"
    );
}

#[test]
fn nobody_builds_on_a_root_that_is_tainted_or_gone() {
    let (ca, keys, mut rng) = authority();
    let first: BundleSet = ca.bundle().into();
    let ca = reload(&ca.prepare_root(&keys, now(), &mut rng).unwrap(), &keys);
    let ca = reload(&ca.activate_root("root-2", now()).unwrap(), &keys);
    let ca = reload(&ca.prepare_issuing(&keys, now(), &mut rng).unwrap(), &keys);
    let ca = reload(&ca.activate_issuing("issuing-2", now()).unwrap(), &keys);
    let active = ca.journal().taint(Tier::Root, "root-2", now()).unwrap_err();
    assert!(active.to_string().contains("--now"), "{active}");
    let ca = reload(
        &ca.journal().taint(Tier::Root, "root-1", now()).unwrap(),
        &keys,
    );
    let issued = issue(&ca, None, now()).unwrap();
    assert_eq!(issued.chain.len(), 2, "no cross certificate any more");
    let refused = verify_chain(&issued.chain, &first, now(), Usage::Server).unwrap_err();
    assert_eq!(refused.reason(), "unknown_authority");

    let ca = reload(&ca.retire_issuing("issuing-1", now()).unwrap(), &keys);
    let gone = ca
        .journal()
        .retire_now(Tier::Root, "root-1", now())
        .unwrap();
    let ca = reload(&gone, &keys);
    assert_eq!(
        ca.bundle().roots.len(),
        1,
        "at once, whoever is left behind"
    );
}

#[test]
fn keys_of_every_kind_issue_and_are_issued_for() {
    for kind in [
        crate::KeyType::P256,
        crate::KeyType::P384,
        crate::KeyType::Ed25519,
    ] {
        let (keys, mut rng) = (MemoryKeyStore::new(), crate::testing::rng());
        let config = CaConfig {
            key_type: kind,
            ..config()
        };
        let journal = Authority::create(&config, &keys, now(), &mut rng).unwrap();
        let ca = Authority::load(config, journal, &keys).unwrap();
        let key = SoftKey::generate(kind).unwrap();
        let csr = CertificateParams::default()
            .serialize_request(&key)
            .unwrap();
        let issued = ca
            .issue(csr.der(), &id(INVOICES), None, now(), &mut rng)
            .unwrap();
        let svid = X509Svid::new(issued.chain, key.pkcs8().clone()).unwrap();
        svid.validate(&ca.bundle().into(), now()).unwrap();
        assert_eq!(svid.key_pin(), issued.key, "{kind}");
    }
}

#[test]
fn an_issuing_ca_ends_before_its_root_or_is_not_made() {
    let (ca, keys, mut rng) = authority();
    let root_end = now() + config().root_ttl;
    let journal = ca
        .prepare_issuing(&keys, root_end - days(8), &mut rng)
        .unwrap();
    assert!(journal.prepared(Tier::Issuing).unwrap().not_after < root_end);
    let error = ca
        .prepare_issuing(&keys, root_end - days(5), &mut rng)
        .unwrap_err();
    assert!(matches!(error, Error::IssuerEnding { .. }), "{error}");
}

#[test]
fn a_missing_key_is_named() {
    let (ca, keys, _) = authority();
    let key = ca.journal().active(Tier::Issuing).unwrap().key.clone();
    keys.remove(&key.unwrap()).unwrap();
    let text = Authority::load(config(), ca.journal().clone(), &keys)
        .unwrap_err()
        .to_string();
    assert!(
        text.contains("issuing-1-") && text.contains("missing"),
        "{text}"
    );
}

/// Another implementation's verdict. It has to be run where it is installed.
#[test]
#[allow(clippy::disallowed_methods)]
fn openssl_accepts_what_is_issued() {
    let Ok(found) = std::process::Command::new("openssl")
        .arg("version")
        .output()
    else {
        return;
    };
    assert!(found.status.success());
    let (ca, _, mut rng) = authority();
    let request = make_csr(Some(&id(INVOICES))).unwrap();
    let issued = ca
        .issue(&request.csr, &id(INVOICES), None, now(), &mut rng)
        .unwrap();
    let directory = tempfile::tempdir().unwrap();
    let write = |name: &str, label: &str, ders: &[&[u8]]| {
        use base64::Engine;
        let block = |der: &&[u8]| {
            let body = base64::engine::general_purpose::STANDARD.encode(der);
            let lines: Vec<_> = body
                .as_bytes()
                .chunks(64)
                .map(|line| std::str::from_utf8(line).unwrap())
                .collect();
            format!(
                "-----BEGIN {label}-----\n{}\n-----END {label}-----\n",
                lines.join("\n")
            )
        };
        std::fs::write(
            directory.path().join(name),
            ders.iter().map(block).collect::<String>(),
        )
        .unwrap();
    };
    write("root.pem", "CERTIFICATE", &[&issued.root]);
    write("issuing.pem", "CERTIFICATE", &[&issued.chain[1]]);
    write("leaf.pem", "CERTIFICATE", &[&issued.chain[0]]);
    let (later, from_first) = after_a_root_rotation();
    write("first.pem", "CERTIFICATE", &[&from_first]);
    write("later.pem", "CERTIFICATE", &[&later.chain[0]]);
    write(
        "cross.pem",
        "CERTIFICATE",
        &[&later.chain[1], &later.chain[2]],
    );
    write("csr.pem", "CERTIFICATE REQUEST", &[&request.csr]);
    let run = |arguments: &str| {
        let output = std::process::Command::new("openssl")
            .args(arguments.split(' '))
            .current_dir(directory.path())
            .output()
            .unwrap();
        let text = String::from_utf8_lossy(&output.stdout).into_owned()
            + &String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "openssl {arguments}: {text}");
        text
    };
    for purpose in ["sslserver", "sslclient"] {
        run(&format!(
            "verify -x509_strict -attime 1800000000 -purpose {purpose} -CAfile root.pem -untrusted issuing.pem leaf.pem"
        ));
    }
    run("verify -x509_strict -attime 1800000000 -CAfile first.pem -untrusted cross.pem later.pem");
    run("req -in csr.pem -verify -noout");
    let text = run("x509 -in leaf.pem -noout -text");
    assert!(
        text.contains(&format!("URI:{INVOICES}"))
            && text.contains("X509v3 Subject Alternative Name: critical"),
        "{text}"
    );
}

/// What is issued under a second root, and the root before it.
fn after_a_root_rotation() -> (Issued, CertificateDer<'static>) {
    let (ca, keys, mut rng) = authority();
    let first = ca.bundle().roots[0].clone();
    let ca = reload(&ca.prepare_root(&keys, now(), &mut rng).unwrap(), &keys);
    let ca = reload(&ca.activate_root("root-2", now()).unwrap(), &keys);
    let ca = reload(&ca.prepare_issuing(&keys, now(), &mut rng).unwrap(), &keys);
    let ca = reload(&ca.activate_issuing("issuing-2", now()).unwrap(), &keys);
    (issue(&ca, None, now()).unwrap(), first)
}
