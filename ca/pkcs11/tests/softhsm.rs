//! The key store on SoftHSM2, as Debian has it.
//!
//! SoftHSM2 finds its tokens by an environment variable that is read when the library starts, and a process has one of
//! these: each test runs itself again, in a process of its own.

#![allow(
    clippy::disallowed_methods,
    clippy::print_stdout,
    clippy::unwrap_used,
    reason = "tests stand outside Env, and a panic is how they fail"
)]

mod support;

use std::time::{Duration, SystemTime};

use cryptoki::object::{Attribute, AttributeInfo, AttributeType, ObjectClass};
use rand::SeedableRng;
use rand::rngs::StdRng;
use support::{Lab, PIN, in_lab};
use weft_ca::{Authority, CaConfig, Error, KeyId, KeyStore, KeyType, Signer, Tier, make_csr};
use weft_certs::{BundleSet, SpiffeId, TrustDomain, Usage, verify_chain};
use weft_pkcs11::{TokenFault, TokenKeyStore, recorded};

fn id(name: &str) -> KeyId {
    KeyId::new(name).unwrap()
}

#[track_caller]
fn refused<T>(result: Result<T, Error>, words: &[&str]) {
    let Err(error) = result else {
        panic!("expected a refusal with {words:?}")
    };
    let text = error.to_string();
    for word in words {
        assert!(text.contains(word), "expected '{word}' in '{text}'");
    }
}

#[test]
fn an_authority_lives_in_a_token_and_its_keys_rotate_there() {
    in_lab(
        "an_authority_lives_in_a_token_and_its_keys_rotate_there",
        |lab| {
            for kind in [KeyType::P256, KeyType::P384] {
                let (store, now) = (lab.store(&kind.to_string()), SystemTime::now());
                let mut rng = StdRng::from_seed([9; 32]);
                let mut config = CaConfig::new(TrustDomain::parse("weft.local").unwrap());
                config.key_type = kind;
                let load = |journal| Authority::load(config.clone(), journal, &store).unwrap();
                let check = |authority: &Authority, rng: &mut StdRng| {
                    let sidecar = SpiffeId::parse("spiffe://weft.local/ns/default/sa/a").unwrap();
                    let csr = make_csr(None).unwrap().csr;
                    let issued = authority.issue(&csr, &sidecar, None, now, rng).unwrap();
                    let bundles = BundleSet::from(authority.bundle());
                    verify_chain(&issued.chain, &bundles, now, Usage::Server).unwrap();
                };
                let mut authority =
                    load(Authority::create(&config, &store, now, &mut rng).unwrap());
                assert!(authority.waits());
                check(&authority, &mut rng);

                // Root and issuing CA in turn: prepared → active → old → removed. What is removed is destroyed.
                let before: Vec<KeyId> = authority.journal().keys().cloned().collect();
                authority = load(authority.prepare_root(&store, now, &mut rng).unwrap());
                authority = load(authority.activate_root("root-2", now).unwrap());
                authority = load(authority.prepare_issuing(&store, now, &mut rng).unwrap());
                authority = load(authority.activate_issuing("issuing-2", now).unwrap());
                check(&authority, &mut rng);
                let later = now + Duration::from_secs(40 * 24 * 3600);
                authority = load(authority.retire_issuing("issuing-1", later).unwrap());
                authority = load(authority.retire_root("root-1", later).unwrap());
                assert_eq!(authority.journal().slots(Tier::Root).len(), 2);
                for key in before {
                    refused(store.signer(&key), &["does not have the private key"]);
                }
                // A key for tokens beside them.
                authority = load(authority.prepare_jwt(&store, now).unwrap());
                authority = load(authority.journal().activate_jwt("jwt-1", now).unwrap());
                let audience = ["somebody".to_owned()];
                let sidecar = SpiffeId::parse("spiffe://weft.local/ns/default/sa/a").unwrap();
                authority.issue_jwt(&sidecar, &audience, now).unwrap();
                assert_eq!(store.destroy_all().unwrap(), 3, "root-2, issuing-2, jwt-1");
            }
        },
    );
}

#[test]
fn a_key_cannot_be_taken_out_by_any_means() {
    in_lab("a_key_cannot_be_taken_out_by_any_means", |lab| {
        let store = lab.store("keys");
        store.generate(&id("root-1"), KeyType::P256).unwrap();
        refused(
            store.export(&id("root-1")),
            &["stays where it is", "'mesh'"],
        );
        let into = store.import(&id("root-2"), vec![0; 4].into());
        refused(into, &["stays where it is"]);
        refused(
            store.generate(&id("root-1"), KeyType::P256),
            &["refusing to write over"],
        );
        refused(
            store.generate(&id("root-2"), KeyType::Ed25519),
            &["p256 or p384"],
        );

        // Asked directly, by the standard's own words.
        let session = lab.session();
        let ours = [Attribute::Class(ObjectClass::PRIVATE_KEY)];
        let found = session.find_objects(&ours).unwrap();
        let [key] = found.as_slice() else {
            panic!("expected one private key, saw {found:?}")
        };
        let wanted = [
            AttributeType::Label,
            AttributeType::Sensitive,
            AttributeType::AlwaysSensitive,
            AttributeType::Extractable,
            AttributeType::NeverExtractable,
            AttributeType::Private,
            AttributeType::Local,
        ];
        assert_eq!(
            session.get_attributes(*key, &wanted).unwrap(),
            [
                Attribute::Label(b"weft.local root-1".to_vec()),
                Attribute::Sensitive(true),
                Attribute::AlwaysSensitive(true),
                Attribute::Extractable(false),
                Attribute::NeverExtractable(true),
                Attribute::Private(true),
                Attribute::Local(true),
            ]
        );
        let value = session.get_attribute_info(*key, &[AttributeType::Value]);
        assert!(matches!(value.unwrap()[..], [AttributeInfo::Sensitive]));
        assert!(
            session
                .update_attributes(*key, &[Attribute::Extractable(true)])
                .is_err(),
            "what is kept stays kept"
        );
    });
}

#[test]
fn a_key_that_could_be_taken_out_is_not_used() {
    in_lab("a_key_that_could_be_taken_out_is_not_used", |lab| {
        let store = lab.store("keys");
        let made = store.generate(&id("root-1"), KeyType::P256).unwrap();
        let session = lab.session();
        let class = |class| session.find_objects(&[Attribute::Class(class)]).unwrap()[0];
        let (private, public) = (
            class(ObjectClass::PRIVATE_KEY),
            class(ObjectClass::PUBLIC_KEY),
        );
        // Somebody puts another pair in its place, of the same name, that can be taken out.
        let told = session
            .get_attributes(private, &[AttributeType::Id, AttributeType::Label])
            .unwrap();
        session.destroy_object(private).unwrap();
        session.destroy_object(public).unwrap();
        let name = [&[Attribute::Token(true)], &told[..]].concat();
        let params = Attribute::EcParams(vec![6, 8, 0x2a, 0x86, 0x48, 0xce, 0x3d, 3, 1, 7]);
        let loose = [
            Attribute::Sign(true),
            Attribute::Sensitive(false),
            Attribute::Extractable(true),
        ];
        session
            .generate_key_pair(
                &cryptoki::mechanism::Mechanism::EccKeyPairGen,
                &[&name[..], &[params]].concat(),
                &[&name[..], &loose].concat(),
            )
            .unwrap();
        let words = ["could be taken out", "root-1"];
        refused(store.signer(&id("root-1")), &words);
        refused(made.signature(b"x"), &words);
    });
}

#[test]
fn a_token_that_is_gone_says_so_and_is_found_again() {
    in_lab("a_token_that_is_gone_says_so_and_is_found_again", |lab| {
        let store = lab.store("keys");
        let root = store.generate(&id("root-1"), KeyType::P256).unwrap();
        let back = |root: &Signer| {
            // The store rests for a second after a failure.
            support::eventually(|| root.signature(b"x").ok());
        };
        for whole in [true, false] {
            let away = lab.pull_out(whole);
            for _ in 0..3 {
                let words = ["'mesh'", "it is plugged in", "it has no token"];
                let Err(error) = root.signature(b"x") else {
                    panic!("a token that is gone signed")
                };
                let text = error.to_string();
                assert!(words.iter().any(|word| text.contains(word)), "{text}");
            }
            // What is not found in a token that is gone is not gone itself.
            assert!(store.remove(&id("root-1")).is_err());
            assert!(store.generate(&id("root-2"), KeyType::P256).is_err());
            assert!(store.signer(&id("root-1")).is_err());
            away.put_back();
            back(&root);
        }
        // Another token of the same module comes and goes without harm to this one.
        lab.init_token("other");
        root.signature(b"x").unwrap();
        store.remove(&id("root-1")).unwrap();
        store.remove(&id("root-1")).unwrap();
        refused(
            root.signature(b"x"),
            &["does not have the private key root-1"],
        );
    });
}

#[test]
fn a_wrong_pin_is_tried_once() {
    in_lab("a_wrong_pin_is_tried_once", |lab| {
        let dir = lab.directory("keys");
        let wrong = lab.create(&dir, &lab.access("mesh", "0000"));
        let fault = wrong.map(drop).unwrap_err();
        let label = "mesh".to_owned();
        assert_eq!(fault, TokenFault::WrongPin { label });
        assert!(fault.to_string().contains("few wrong ones"), "{fault}");
        assert_eq!(recorded(&dir).unwrap(), None, "nothing is left behind");

        // A PIN that is changed in mid-life is refused once, and not tried again, even if it fits again.
        let store = lab.store("keys");
        let root = store.generate(&id("root-1"), KeyType::P256).unwrap();
        lab.change_pin(PIN, "9999-user");
        let away = lab.pull_out(true);
        assert!(root.signature(b"x").is_err());
        away.put_back();
        support::eventually(|| match root.signature(b"x") {
            Err(error) if error.to_string().contains("refuses the PIN") => Some(()),
            _ => None,
        });
        lab.change_pin("9999-user", PIN);
        refused(root.signature(b"x"), &["refuses the PIN"]);
        let place = recorded(&dir).unwrap().unwrap();
        let fresh = TokenKeyStore::open(place, &lab.access("mesh", PIN)).unwrap();
        fresh
            .signer(&id("root-1"))
            .unwrap()
            .signature(b"x")
            .unwrap();
    });
}

#[test]
fn what_is_wrong_with_the_place_is_said() {
    in_lab("what_is_wrong_with_the_place_is_said", |lab| {
        let dir = lab.directory("keys");
        for label in ["other", "twin", "twin"] {
            lab.init_token(label);
        }
        let failing = |change: &dyn Fn(&mut weft_pkcs11::TokenAccess), words: &[&str]| {
            let mut access = lab.access("mesh", PIN);
            change(&mut access);
            let fault = lab.create(&dir, &access).map(drop).unwrap_err();
            refused(Err::<(), _>(fault.into()), words);
        };
        failing(
            &|access| access.module = Some("/nowhere/p11.so".into()),
            &[
                "no PKCS#11 module at /nowhere/p11.so",
                "apt-get install softhsm2",
            ],
        );
        failing(
            &|access| access.module = Some("/etc/passwd".into()),
            &["/etc/passwd cannot be used as a PKCS#11 module"],
        );
        failing(
            &|access| access.label = Some("nobody".to_owned()),
            &["no token 'nobody'", "'mesh'", "'other'", "--pkcs11-token"],
        );
        failing(
            &|access| access.pin = None,
            &["wants a PIN", "--pkcs11-pin-file"],
        );
        failing(&|access| access.label = None, &["--pkcs11-token"]);

        failing(
            &|access| access.label = Some("twin".to_owned()),
            &["2 tokens", "'twin'"],
        );
    });
}

#[test]
fn meshes_in_one_token_do_not_see_each_others_keys() {
    in_lab("meshes_in_one_token_do_not_see_each_others_keys", |lab| {
        let (a, b) = (lab.store("a"), lab.store("b"));
        let made = a.generate(&id("jwt-1"), KeyType::P256).unwrap();
        refused(b.signer(&id("jwt-1")), &["does not have the private key"]);
        b.remove(&id("jwt-1")).unwrap();
        b.generate(&id("jwt-1"), KeyType::P384).unwrap();
        assert_eq!(b.destroy_all().unwrap(), 1);
        made.signature(b"x").unwrap();
    });
}

#[test]
fn many_sign_at_once() {
    in_lab("many_sign_at_once", |lab: &Lab| {
        let store = lab.store("keys");
        let root = store.generate(&id("root-1"), KeyType::P256).unwrap();
        std::thread::scope(|scope| {
            for worker in 0..16_u8 {
                let root = &root;
                scope.spawn(move || {
                    for message in 0..25_u8 {
                        root.signature(&[worker, message]).unwrap();
                    }
                });
            }
        });
    });
}
