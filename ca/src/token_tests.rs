#![allow(clippy::unwrap_used)]

use proptest::prelude::*;

use super::*;
use crate::testing::{INVOICES, id, now, rng};

const MINUTES_10: Duration = Duration::from_secs(600);

fn made() -> (JoinToken, TokenRecord) {
    let token = JoinToken::generate(&mut rng());
    let record = TokenRecord::new(&token, id(INVOICES), MINUTES_10, now()).unwrap();
    (token, record)
}

#[test]
fn a_token_is_good_for_one_join() {
    let (token, record) = made();
    let used = record.redeem(&token, now()).unwrap();
    assert_eq!(used.used, Some(now()));
    assert_eq!(used.spiffe_id, id(INVOICES));
    assert_eq!(
        used.redeem(&token, now() + Duration::from_secs(1)),
        Err(TokenError::Used { at: now() })
    );
}

#[test]
fn a_token_ends_at_its_expiry() {
    let (token, record) = made();
    assert!(
        record
            .redeem(&token, now() + MINUTES_10 - Duration::from_secs(1))
            .is_ok()
    );
    let at = now() + MINUTES_10;
    let error = record.redeem(&token, at).unwrap_err();
    assert_eq!(error, TokenError::Expired { at });
    assert!(
        error.to_string().contains("2027-01-15T08:10:00Z"),
        "{error}"
    );
}

#[test]
fn a_token_lives_a_week_at_most() {
    let token = JoinToken::generate(&mut rng());
    for (ttl, ok) in [
        (Duration::ZERO, false),
        (SHORTEST, true),
        (LONGEST, true),
        (Duration::MAX, false),
    ] {
        assert_eq!(
            TokenRecord::new(&token, id(INVOICES), ttl, now()).is_ok(),
            ok,
            "{ttl:?}"
        );
    }
}

#[test]
fn another_token_is_unknown() {
    let (_, record) = made();
    let mut rng = rng();
    JoinToken::generate(&mut rng);
    assert_eq!(
        record.redeem(&JoinToken::generate(&mut rng), now()),
        Err(TokenError::Unknown)
    );
}

#[test]
fn nothing_but_the_hash_is_kept() {
    let (token, record) = made();
    let text = serde_json::to_string(&record).unwrap();
    let secret = token.reveal().strip_prefix(PREFIX).unwrap();
    assert_eq!(secret.len(), 32);
    assert!(
        !text.contains(secret) && text.contains(&token.key()),
        "{text}"
    );
    assert_eq!(serde_json::from_str::<TokenRecord>(&text).unwrap(), record);
    let used = record.redeem(&token, now()).unwrap();
    assert_eq!(
        serde_json::from_str::<TokenRecord>(&serde_json::to_string(&used).unwrap()).unwrap(),
        used
    );
    assert_eq!(format!("{token:?}"), "JoinToken(redacted)");
}

#[test]
fn a_token_survives_its_text() {
    let (token, record) = made();
    let read = JoinToken::parse(&format!(" {}\n", token.reveal())).unwrap();
    assert!(record.redeem(&read, now()).is_ok());
    let secret = token.reveal();
    for bad in [
        "",
        "weft-join-",
        &secret[1..],
        &secret[..40],
        &format!("{secret}0"),
        &secret.to_uppercase(),
    ] {
        assert_eq!(
            JoinToken::parse(bad).unwrap_err(),
            TokenError::Unknown,
            "{bad:?}"
        );
    }
}

#[test]
fn each_refusal_has_a_reason_of_its_own() {
    let at = now();
    let reasons = [
        TokenError::Unknown,
        TokenError::Expired { at },
        TokenError::Used { at },
    ]
    .map(|e| e.reason());
    assert_eq!(reasons, ["token_unknown", "token_expired", "token_used"]);
}

proptest! {
    #[test]
    fn parsing_never_panics(text in "\\PC*") {
        let _ = JoinToken::parse(&text);
        let _ = JoinToken::parse(&format!("{PREFIX}{text}"));
    }
}
