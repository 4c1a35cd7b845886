#![allow(clippy::unwrap_used)]

use proptest::prelude::*;
use rcgen::{
    BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, KeyUsagePurpose,
    SanType,
};

use super::*;
use crate::testing::{Ca, hours, now, td};

const NAME: &str = "spiffe://machines.example/db-7";

fn machine(change: impl FnOnce(&mut CertificateParams)) -> Result<Machine, MachineError> {
    let root = Ca::root("machines.example");
    let chain = root.issuing().chain_with(NAME, change);
    verify_machine(&chain, std::slice::from_ref(&root.der), now())
}

fn refused(change: impl FnOnce(&mut CertificateParams)) -> &'static str {
    machine(change).unwrap_err().reason()
}

#[test]
fn a_certificate_of_a_known_authority_says_who_the_machine_is() {
    let seen = machine(|params| {
        params
            .distinguished_name
            .push(DnType::CommonName, "db-7.Example");
        let dns = "DB-7.example".try_into().unwrap();
        params.subject_alt_names.push(SanType::DnsName(dns));
    })
    .unwrap();
    assert_eq!(seen.uris, [NAME]);
    assert_eq!(seen.dns, ["db-7.example"]);
    assert_eq!(seen.common_name.as_deref(), Some("db-7.Example"));
    assert_eq!(seen.fingerprint.len(), "sha256:".len() + 64);
    let two = machine(|params| {
        params.distinguished_name.push(DnType::CommonName, "a");
        params
            .distinguished_name
            .push(DnType::CustomDnType(vec![2, 5, 4, 3]), "b");
    });
    assert_eq!(two.unwrap().common_name, None, "which of two names it is");
}

#[test]
fn what_is_no_machine_of_a_known_authority_is_refused() {
    let (good, other) = (Ca::root("machines.example"), Ca::root("machines.example"));
    let chain = good.issuing().chain(NAME);
    let check = |roots: &[CertificateDer<'static>], at| {
        verify_machine(&chain, roots, at).map_err(|error| error.reason())
    };
    check(std::slice::from_ref(&good.der), now()).unwrap();
    assert_eq!(
        check(std::slice::from_ref(&other.der), now()),
        Err("machine_unknown_authority"),
        "an authority of the same name is another one"
    );
    assert_eq!(check(&[], now()), Err("machine_unknown_authority"));
    let (early, late) = (now() - hours(2), now() + hours(2));
    assert_eq!(
        check(std::slice::from_ref(&good.der), late),
        Err("machine_expired")
    );
    assert_eq!(
        check(std::slice::from_ref(&good.der), early),
        Err("machine_not_yet_valid")
    );
    let long = vec![chain[0].clone(); MAX_CHAIN + 1];
    let error = verify_machine(&long, std::slice::from_ref(&good.der), now()).unwrap_err();
    assert_eq!(error.reason(), "machine_bad_chain");
    assert_eq!(
        verify_machine(&[], &[], now()).unwrap_err().reason(),
        "machine_malformed"
    );
}

#[test]
fn a_leaf_must_be_one_that_may_sign_for_its_machine() {
    let unfit = "machine_unfit";
    assert_eq!(refused(|p| p.key_usages.clear()), unfit);
    assert_eq!(
        refused(|p| p.key_usages = vec![KeyUsagePurpose::KeyEncipherment]),
        unfit
    );
    assert_eq!(
        refused(|p| p.key_usages.push(KeyUsagePurpose::KeyCertSign)),
        unfit
    );
    assert_eq!(
        refused(|p| p.is_ca = IsCa::Ca(BasicConstraints::Unconstrained)),
        unfit
    );
    let purposes = |all: &[ExtendedKeyUsagePurpose]| {
        let all = all.to_vec();
        machine(|p| p.extended_key_usages = all).map_err(|error| error.reason())
    };
    purposes(&[]).unwrap();
    purposes(&[ExtendedKeyUsagePurpose::ServerAuth]).unwrap();
    purposes(&[ExtendedKeyUsagePurpose::ClientAuth]).unwrap();
    assert_eq!(
        purposes(&[ExtendedKeyUsagePurpose::CodeSigning]),
        Err(unfit)
    );
}

#[test]
fn an_issuer_that_may_not_sign_certificates_makes_no_machine() {
    let root = Ca::root("machines.example");
    let lame = root.issuing_with(|p| p.key_usages = vec![KeyUsagePurpose::DigitalSignature]);
    let error = verify_machine(&lame.chain(NAME), std::slice::from_ref(&root.der), now());
    assert!(matches!(error, Err(MachineError::BadChain(_))), "{error:?}");
}

struct Joiner {
    machine: MachineIdentity,
}

impl Joiner {
    fn new() -> Self {
        let (chain, key) = Ca::root("machines.example").leaf_with(NAME, |_| {});
        let pem: String = chain.iter().map(crate::to_pem).collect();
        let mut text = String::new();
        crate::pem::push_block(&mut text, "PRIVATE KEY", &key);
        Self {
            machine: MachineIdentity::from_pem(pem.as_bytes(), text.as_bytes()).unwrap(),
        }
    }
}

#[test]
fn a_proof_is_good_for_its_own_statement_alone() {
    let joiner = Joiner::new();
    let (domain, foreign) = (td("weft.local"), td("other.local"));
    let (pin, other_pin) = (RootPin::from([1; 32]), RootPin::from([2; 32]));
    let statement = JoinStatement {
        trust_domain: &domain,
        pin: &pin,
        challenge: "one",
        csr: b"request",
    };
    let signature = joiner.machine.prove(&statement).unwrap();
    let leaf = &joiner.machine.chain()[0];
    check_proof(leaf, &statement, &signature).unwrap();
    for other in [
        JoinStatement {
            trust_domain: &foreign,
            ..statement
        },
        JoinStatement {
            pin: &other_pin,
            ..statement
        },
        JoinStatement {
            challenge: "two",
            ..statement
        },
        JoinStatement {
            csr: b"of another key",
            ..statement
        },
    ] {
        assert_eq!(
            check_proof(leaf, &other, &signature),
            Err(MachineError::BadProof)
        );
    }
    let another = Joiner::new();
    assert_eq!(
        check_proof(&another.machine.chain()[0], &statement, &signature),
        Err(MachineError::BadProof)
    );
}

#[test]
fn a_key_of_another_certificate_is_noticed_before_it_is_sent() {
    let (chain, _) = Ca::root("machines.example").leaf_with(NAME, |_| {});
    let (_, key) = Ca::root("machines.example").leaf_with(NAME, |_| {});
    let pem = crate::to_pem(&chain[0]);
    let mut text = String::new();
    crate::pem::push_block(&mut text, "PRIVATE KEY", &key);
    let said = MachineIdentity::from_pem(pem.as_bytes(), text.as_bytes()).unwrap_err();
    assert!(said.contains("not that of the first certificate"), "{said}");
    let said = MachineIdentity::from_pem(pem.as_bytes(), b"nothing").unwrap_err();
    assert!(said.contains("no private key"), "{said}");
}

proptest! {
    #[test]
    fn no_bytes_in_the_place_of_a_chain_or_a_signature_do_harm(
        junk in proptest::collection::vec(any::<u8>(), 0..600),
        at in 0_usize..2000,
        flip in 1_u8..,
    ) {
        static WORLD: std::sync::OnceLock<(CertificateDer<'static>, Vec<CertificateDer<'static>>)> =
            std::sync::OnceLock::new();
        let (root, chain) = WORLD.get_or_init(|| {
            let root = Ca::root("machines.example");
            let chain = root.issuing().chain(NAME);
            (root.der.clone(), chain)
        });
        let roots = std::slice::from_ref(root);
        prop_assert!(verify_machine(&[CertificateDer::from(junk.clone())], roots, now()).is_err());
        // One byte of the leaf changed: its issuer has not signed that.
        let mut bytes = chain[0].to_vec();
        let place = at % bytes.len();
        bytes[place] ^= flip;
        let mut changed = chain.clone();
        changed[0] = CertificateDer::from(bytes);
        prop_assert!(verify_machine(&changed, roots, now()).is_err());
        let (domain, pin) = (td("weft.local"), RootPin::from([1; 32]));
        let statement = JoinStatement {
            trust_domain: &domain,
            pin: &pin,
            challenge: "one",
            csr: b"request",
        };
        prop_assert!(check_proof(&chain[0], &statement, &junk).is_err());
    }
}
