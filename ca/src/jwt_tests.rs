use std::time::UNIX_EPOCH;

use proptest::prelude::*;
use weft_certs::{BundleSet, JwtError, verify_jwt_svid};

use super::*;
use crate::MemoryKeyStore;
use crate::testing::{CONTROL, INVOICES, authority, days, hours, id, now, reload};

fn minutes(n: u64) -> Duration {
    Duration::from_secs(60 * n)
}

/// With a first key, which signs.
fn with_key() -> (Authority, MemoryKeyStore) {
    let (authority, keys, _) = authority();
    let journal = authority.prepare_jwt(&keys, now()).unwrap();
    let authority = reload(&journal, &keys);
    let journal = authority.journal().activate_jwt("jwt-1", now()).unwrap();
    (reload(&journal, &keys), keys)
}

fn audience() -> Vec<String> {
    vec!["billing".to_owned()]
}

fn check(token: &str, authority: &Authority, at: SystemTime) -> Result<SpiffeId, JwtError> {
    let bundles = BundleSet::from(authority.bundle());
    verify_jwt_svid(token, "billing", &bundles, at).map(|svid| svid.id)
}

#[test]
fn a_token_is_for_the_attested_identity_and_ends_after_five_minutes() {
    let (authority, _) = with_key();
    let issued = authority
        .issue_jwt(&id(INVOICES), &audience(), now())
        .unwrap();
    assert_eq!(issued.expires, now() + minutes(5));
    assert_eq!(issued.key, "jwt-1");
    assert_eq!(check(&issued.token, &authority, now()), Ok(id(INVOICES)));
    let late = check(&issued.token, &authority, now() + minutes(6));
    assert!(matches!(late, Err(JwtError::Expired { .. })), "{late:?}");
}

#[test]
fn a_token_is_made_for_workloads_of_this_trust_domain_and_for_somebody() {
    let (authority, _) = with_key();
    let issue = |name: &str, audience: &[String]| authority.issue_jwt(&id(name), audience, now());
    assert!(matches!(
        issue(CONTROL, &audience()),
        Err(Error::ReservedIdentity { .. })
    ));
    assert!(matches!(
        issue("spiffe://other.example/x", &audience()),
        Err(Error::ForeignIdentity { .. })
    ));
    assert!(matches!(
        issue("spiffe://weft.local", &audience()),
        Err(Error::NotAWorkload { .. })
    ));
    for bad in [
        vec![],
        vec![String::new()],
        vec!["x".to_owned(); 17],
        vec!["x".repeat(1025)],
    ] {
        let refused = issue(INVOICES, &bad);
        assert!(matches!(refused, Err(Error::Audience { .. })), "{bad:?}");
    }
    assert!(issue(INVOICES, &vec!["x".repeat(1024); 16]).is_ok());
}

#[test]
fn without_a_key_there_is_no_token_and_the_journal_is_as_it_was_before_there_were_any() {
    let (authority, keys, _) = authority();
    let refused = authority.issue_jwt(&id(INVOICES), &audience(), now());
    assert!(matches!(refused, Err(Error::NoJwtKey)));
    assert_eq!(authority.journal().jwt_due(now() + days(1000)), None);
    let text = serde_json::to_string(authority.journal()).unwrap();
    assert!(!text.contains("jwt"), "{text}");
    // A prepared key signs nothing either.
    let prepared = reload(&authority.prepare_jwt(&keys, now()).unwrap(), &keys);
    let refused = prepared.issue_jwt(&id(INVOICES), &audience(), now());
    assert!(matches!(refused, Err(Error::NoJwtKey)));
}

#[test]
fn federation_4_1_a_key_is_published_before_it_signs_and_until_its_last_token_has_ended() {
    let (mut authority, keys) = with_key();
    let first = authority.journal().sequence();
    let published = |authority: &Authority| {
        let keys = authority.bundle().jwt_keys;
        keys.iter()
            .map(|key| key.kid().to_owned())
            .collect::<Vec<_>>()
    };
    let one = published(&authority);
    assert_eq!(one.len(), 1);
    assert_eq!(
        authority.journal().jwt_due(now() + days(6) - hours(1)),
        None
    );

    // A day before the first key's week is over.
    let at = now() + days(6);
    assert_eq!(authority.journal().jwt_due(at), Some(JwtDue::Prepare));
    authority = reload(&authority.prepare_jwt(&keys, at).unwrap(), &keys);
    let both = published(&authority);
    assert_eq!((both.len(), &both[..1]), (2, &one[..]));
    assert_eq!(authority.journal().sequence(), first + 1);
    let token = authority.issue_jwt(&id(INVOICES), &audience(), at).unwrap();
    assert_eq!(token.key, "jwt-1", "the new one does not sign yet");
    assert_eq!(authority.journal().jwt_due(at + hours(23)), None);

    let at = now() + days(7);
    let due = authority.journal().jwt_due(at);
    assert_eq!(due, Some(JwtDue::Activate("jwt-2".to_owned())));
    let last = authority.issue_jwt(&id(INVOICES), &audience(), at).unwrap();
    authority = reload(
        &authority.journal().activate_jwt("jwt-2", at).unwrap(),
        &keys,
    );
    assert_eq!(published(&authority), both);
    assert_eq!(
        authority.journal().sequence(),
        first + 1,
        "nobody need hear"
    );
    let token = authority.issue_jwt(&id(INVOICES), &audience(), at).unwrap();
    assert_eq!(token.key, "jwt-2");
    for issued in [&last, &token] {
        assert!(check(&issued.token, &authority, at + minutes(4)).is_ok());
    }

    assert_eq!(authority.journal().jwt_due(at + minutes(9)), None);
    let at = at + minutes(10);
    let due = authority.journal().jwt_due(at);
    assert_eq!(due, Some(JwtDue::Retire("jwt-1".to_owned())));
    authority = reload(&authority.journal().retire_jwt("jwt-1", at).unwrap(), &keys);
    assert_eq!(published(&authority), both[1..]);
    assert_eq!(authority.journal().sequence(), first + 2);
    assert!(matches!(
        keys.signer(&KeyId::new("jwt-1").unwrap()),
        Err(Error::KeyMissing { .. })
    ));
    assert_eq!(authority.journal().jwt_due(at), None);
}

#[test]
fn a_key_in_other_hands_is_taken_out_of_the_bundle_at_once() {
    let (authority, keys) = with_key();
    let stolen = authority
        .issue_jwt(&id(INVOICES), &audience(), now())
        .unwrap();
    assert!(authority.journal().retire_jwt("jwt-1", now()).is_err());
    let authority = reload(&authority.prepare_jwt(&keys, now()).unwrap(), &keys);
    let journal = authority.journal().activate_jwt("jwt-2", now()).unwrap();
    let journal = journal.retire_jwt("jwt-1", now()).unwrap();
    let authority = reload(&journal, &keys);
    let refused = check(&stolen.token, &authority, now());
    assert!(matches!(refused, Err(JwtError::UnknownKey { .. })));
}

#[test]
fn a_backup_takes_the_keys_along() {
    let (authority, keys) = with_key();
    let named = |journal: &Journal| {
        let keys = journal.keys().map(KeyId::as_str);
        keys.filter(|key| key.starts_with("jwt"))
            .map(str::to_owned)
            .collect::<Vec<_>>()
    };
    assert_eq!(named(authority.journal()), ["jwt-1"]);
    let authority = reload(&authority.prepare_jwt(&keys, now()).unwrap(), &keys);
    assert_eq!(named(authority.journal()), ["jwt-1", "jwt-2"]);
    let journal = authority.journal().retire_jwt("jwt-2", now()).unwrap();
    assert_eq!(named(&journal), ["jwt-1"]);
}

#[test]
fn transitions_that_are_none_are_refused() {
    let (authority, keys) = with_key();
    let journal = authority.journal();
    assert!(
        journal.activate_jwt("jwt-1", now()).is_err(),
        "it is active"
    );
    assert!(matches!(
        journal.activate_jwt("jwt-9", now()),
        Err(Error::NoSuchSlot { .. })
    ));
    let prepared = reload(&authority.prepare_jwt(&keys, now()).unwrap(), &keys);
    assert!(prepared.prepare_jwt(&keys, now()).is_err(), "one waits");
    let discarded = prepared.journal().retire_jwt("jwt-2", now()).unwrap();
    assert!(discarded.retire_jwt("jwt-2", now()).is_err(), "it is gone");
    let again = reload(&discarded, &keys);
    let next = again.prepare_jwt(&keys, now()).unwrap();
    assert!(next.jwt_slot("jwt-3").is_ok(), "numbers are not used twice");
}

#[test]
fn a_key_that_a_crash_left_behind_makes_room() {
    let (authority, keys) = with_key();
    // Made, and the journal with it was never stored.
    authority.prepare_jwt(&keys, now()).unwrap();
    let journal = authority.prepare_jwt(&keys, now()).unwrap();
    let authority = reload(&journal, &keys);
    let journal = authority.journal().activate_jwt("jwt-2", now()).unwrap();
    let authority = reload(&journal, &keys);
    let issued = authority
        .issue_jwt(&id(INVOICES), &audience(), now())
        .unwrap();
    assert!(check(&issued.token, &authority, now()).is_ok());
}

#[test]
fn keys_that_are_published_have_a_bound() {
    let (mut authority, keys) = with_key();
    for n in 2..=MAX_LIVE {
        authority = reload(&authority.prepare_jwt(&keys, now()).unwrap(), &keys);
        let journal = authority.journal();
        let next = journal.activate_jwt(&format!("jwt-{n}"), now()).unwrap();
        authority = reload(&next, &keys);
    }
    assert!(authority.prepare_jwt(&keys, now()).is_err());
}

proptest! {
    #[test]
    fn rfc_7518_3_4_a_signature_keeps_its_numbers(
        r in proptest::collection::vec(any::<u8>(), 1..=32),
        s in proptest::collection::vec(any::<u8>(), 1..=32),
    ) {
        // DER as a signer writes it: no zeros in front but the one that keeps a number positive.
        let number = |digits: &[u8]| {
            let zeros = digits.iter().take_while(|b| **b == 0).count().min(digits.len() - 1);
            let mut content = digits[zeros..].to_vec();
            if content[0] >= 0x80 {
                content.insert(0, 0);
            }
            let mut out = vec![2, u8::try_from(content.len()).unwrap()];
            out.extend(content);
            out
        };
        let inner = [number(&r), number(&s)].concat();
        let mut der = vec![0x30, u8::try_from(inner.len()).unwrap()];
        der.extend(&inner);
        let padded = |digits: &[u8]| [vec![0; 32 - digits.len()], digits.to_vec()].concat();
        let expected = [padded(&r), padded(&s)].concat();
        prop_assert_eq!(fixed(&der).map(|f| f.to_vec()), Some(expected));
        for cut in 0..der.len() {
            prop_assert_eq!(fixed(&der[..cut]), None);
        }
        der.push(0);
        prop_assert_eq!(fixed(&der), None);
    }

    #[test]
    fn any_bytes_are_a_signature_or_not_and_never_a_panic(der in proptest::collection::vec(any::<u8>(), 0..80)) {
        let _ = fixed(&der);
    }
}

#[test]
fn the_clock_before_a_key_was_made_asks_for_nothing() {
    let (authority, _) = with_key();
    assert_eq!(authority.journal().jwt_due(UNIX_EPOCH), None);
}
