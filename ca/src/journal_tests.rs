#![allow(clippy::unwrap_used)]

use super::*;
use crate::slot::KEPT_REMOVED;
use crate::testing::{authority, config, days, hours, now, reload};

fn states(journal: &Journal, tier: Tier) -> Vec<(&str, SlotState)> {
    journal
        .slots(tier)
        .iter()
        .map(|slot| (slot.id.as_str(), slot.state))
        .collect()
}

#[test]
fn an_issuing_ca_goes_from_prepared_through_active_and_old_to_removed() {
    use SlotState::{Active, Old, Prepared, Removed};
    let (ca, keys, mut rng) = authority();
    assert_eq!(states(ca.journal(), Tier::Issuing), [("issuing-1", Active)]);

    let ca = reload(&ca.prepare_issuing(&keys, now(), &mut rng).unwrap(), &keys);
    assert_eq!(
        states(ca.journal(), Tier::Issuing),
        [("issuing-1", Active), ("issuing-2", Prepared)]
    );
    let ca = reload(&ca.activate_issuing("issuing-2", now()).unwrap(), &keys);
    assert_eq!(
        states(ca.journal(), Tier::Issuing),
        [("issuing-1", Old), ("issuing-2", Active)]
    );
    assert_eq!(keys.names().len(), 3);
    let ca = reload(&ca.retire_issuing("issuing-1", now()).unwrap(), &keys);
    assert_eq!(
        states(ca.journal(), Tier::Issuing),
        [("issuing-1", Removed), ("issuing-2", Active)]
    );
    assert_eq!(
        keys.names().len(),
        2,
        "the key of a removed slot is destroyed"
    );

    let log: Vec<_> = ca
        .journal()
        .log()
        .iter()
        .map(|entry| (entry.slot.as_str(), entry.state))
        .collect();
    let tail = [
        ("issuing-2", Prepared),
        ("issuing-1", Old),
        ("issuing-2", Active),
        ("issuing-1", Removed),
    ];
    assert_eq!(log[log.len() - 4..], tail);
}

#[test]
fn transitions_that_the_state_does_not_allow_are_refused_and_change_nothing() {
    let (ca, keys, mut rng) = authority();
    let text = |result: Result<Journal, Error>| result.unwrap_err().to_string();
    assert!(
        text(ca.activate_issuing("issuing-1", now()))
            .contains("issuing-1 is active: only a prepared")
    );
    assert!(text(ca.retire_issuing("issuing-1", now())).contains("activate its successor"));
    assert!(text(ca.activate_issuing("issuing-9", now())).contains("there is no issuing-9"));
    assert!(text(ca.retire_issuing("root-1", now())).contains("there is no root-1"));

    let ca = reload(&ca.prepare_issuing(&keys, now(), &mut rng).unwrap(), &keys);
    let before = keys.names();
    assert!(
        text(ca.prepare_issuing(&keys, now(), &mut rng))
            .contains("issuing-2 is prepared: activate it or retire")
    );
    assert_eq!(keys.names(), before, "no key is made for what is refused");

    // A prepared one can be discarded; its number is not used again.
    let ca = reload(&ca.retire_issuing("issuing-2", now()).unwrap(), &keys);
    assert!(text(ca.retire_issuing("issuing-2", now())).contains("nothing left to retire"));
    let ca = reload(&ca.prepare_issuing(&keys, now(), &mut rng).unwrap(), &keys);
    assert_eq!(
        ca.journal().prepared(Tier::Issuing).unwrap().id,
        "issuing-3"
    );
}

#[test]
fn the_bundle_changes_with_the_roots_only() {
    let (ca, keys, mut rng) = authority();
    assert_eq!((ca.bundle().sequence, ca.bundle().roots.len()), (1, 1));
    let ca = reload(&ca.prepare_issuing(&keys, now(), &mut rng).unwrap(), &keys);
    let ca = reload(&ca.activate_issuing("issuing-2", now()).unwrap(), &keys);
    assert_eq!(
        ca.bundle().sequence,
        1,
        "an issuing CA is not in the bundle"
    );
    let ca = reload(&ca.prepare_root(&keys, now(), &mut rng).unwrap(), &keys);
    assert_eq!(
        (ca.bundle().sequence, ca.bundle().roots.len()),
        (2, 2),
        "trusted before it is used"
    );
    let ca = reload(&ca.activate_root("root-2", now()).unwrap(), &keys);
    assert_eq!(
        (ca.bundle().sequence, ca.bundle().roots.len()),
        (2, 2),
        "trusted after it is used"
    );
}

#[test]
fn a_root_stays_until_nothing_live_chains_to_it() {
    let (ca, keys, mut rng) = authority();
    let first_pin = ca.pin().unwrap();
    let ca = reload(&ca.prepare_root(&keys, now(), &mut rng).unwrap(), &keys);
    let ca = reload(&ca.activate_root("root-2", now()).unwrap(), &keys);
    assert_ne!(ca.pin().unwrap(), first_pin);
    let refusal = |ca: &crate::Authority, at| ca.retire_root("root-1", at).unwrap_err();
    assert!(
        refusal(&ca, now())
            .to_string()
            .contains("issuing authority under it"),
        "issuing-1 still signs"
    );

    let ca = reload(&ca.prepare_issuing(&keys, now(), &mut rng).unwrap(), &keys);
    let switched = now() + hours(1);
    let ca = reload(&ca.activate_issuing("issuing-2", switched).unwrap(), &keys);
    assert!(
        refusal(&ca, switched + days(9))
            .to_string()
            .contains("issuing authority under it"),
        "issuing-1 is old"
    );
    let ca = reload(
        &ca.retire_issuing("issuing-1", switched + hours(2)).unwrap(),
        &keys,
    );

    // The last leaf may have been signed at the switch, and lives for a day.
    let until = switched + days(1) + SKEW;
    let Error::StillNeeded { until: told, .. } = refusal(&ca, until - Duration::from_secs(1))
    else {
        panic!("a leaf under root-1 may still live")
    };
    assert_eq!(told, until);
    let ca = reload(&ca.retire_root("root-1", until).unwrap(), &keys);
    assert_eq!((ca.bundle().sequence, ca.bundle().roots.len()), (3, 1));
    assert!(!ca.bundle().has_pin(&first_pin));
    assert_eq!(keys.names().len(), 2);
}

#[test]
fn the_schedule_prepares_at_half_and_activates_at_a_sixth() {
    let (ca, keys, mut rng) = authority();
    let due = |ca: &crate::Authority, at| ca.journal().due(Tier::Issuing, at);
    assert_eq!(due(&ca, now()), None);
    assert_eq!(due(&ca, now() + days(14)), None);
    assert_eq!(due(&ca, now() + days(16)), Some(Due::Prepare));
    let at = now() + days(16);
    let ca = reload(&ca.prepare_issuing(&keys, at, &mut rng).unwrap(), &keys);
    assert_eq!(due(&ca, at), None);
    assert_eq!(
        due(&ca, now() + days(26)),
        Some(Due::Activate("issuing-2".to_owned()))
    );
    assert_eq!(
        due(&ca, now() + days(99)),
        Some(Due::Activate("issuing-2".to_owned())),
        "late is better than never"
    );
}

#[test]
fn years_of_rotations_do_not_grow_the_journal() {
    let (mut ca, keys, mut rng) = authority();
    for n in 2..80 {
        let at = now() + days(n);
        ca = reload(&ca.prepare_issuing(&keys, at, &mut rng).unwrap(), &keys);
        ca = reload(
            &ca.activate_issuing(&format!("issuing-{n}"), at).unwrap(),
            &keys,
        );
        ca = reload(
            &ca.retire_issuing(&format!("issuing-{}", n - 1), at)
                .unwrap(),
            &keys,
        );
    }
    assert_eq!(ca.journal().slots(Tier::Issuing).len(), 1 + KEPT_REMOVED);
    assert_eq!(ca.journal().log().len(), KEPT_LOG);
    assert_eq!(keys.names().len(), 2);
    assert_eq!(
        ca.journal().slots(Tier::Root)[0].signed_until,
        Some(now() + days(79))
    );
}

#[test]
fn a_damaged_journal_is_refused_with_what_is_wrong() {
    let (ca, keys, mut rng) = authority();
    let journal = ca.prepare_issuing(&keys, now(), &mut rng).unwrap();
    let value = serde_json::to_value(&journal).unwrap();
    let verdict = |change: &dyn Fn(&mut serde_json::Value)| {
        let mut damaged = value.clone();
        change(&mut damaged);
        let journal: Journal = match serde_json::from_value(damaged) {
            Ok(journal) => journal,
            Err(error) => return error.to_string(),
        };
        crate::Authority::load(config(), journal, &keys)
            .unwrap_err()
            .to_string()
    };
    type Change<'a> = &'a dyn Fn(&mut serde_json::Value);
    let cases: [(Change<'_>, &str); 8] = [
        (&|j| j["version"] = 9.into(), "version 9"),
        (
            &|j| j["trust_domain"] = "other".into(),
            "trust domain other",
        ),
        (
            &|j| j["issuing"][0]["state"] = "old".into(),
            "no active issuing",
        ),
        (
            &|j| j["issuing"][1]["state"] = "active".into(),
            "more than one active issuing",
        ),
        (
            &|j| j["issuing"][0]["issuer"] = "root-7".into(),
            "signed by \"root-7\"",
        ),
        (
            &|j| j["roots"][0]["certificate"] = "AAAA".into(),
            "certificate of root-1",
        ),
        (
            &|j| j["issuing"][0]["key"] = "../../etc/passwd".into(),
            "key name",
        ),
        (
            &|j| j["issuing"][0]["key"] = j["roots"][0]["key"].clone(),
            "not the key of its certificate",
        ),
    ];
    for (change, expected) in cases {
        let text = verdict(change);
        assert!(text.contains(expected), "expected {expected:?}: {text}");
    }
}

#[test]
fn an_intent_is_carried_out_with_its_key_or_rolled_back() {
    let (ca, keys, mut rng) = authority();
    let before = keys.names();
    let ca = reload(&ca.intend(Tier::Root, &mut rng).unwrap(), &keys);
    let key = ca.journal().intent().unwrap().key.clone();
    assert!(ca.journal().keys().any(|k| *k == key));

    // The crash comes after the key was made and before the journal says so.
    ca.prepare_root(&keys, now(), &mut rng).unwrap();
    assert!(keys.names().contains(&key));
    let resumed = reload(&ca.prepare_root(&keys, now(), &mut rng).unwrap(), &keys);
    let slot = resumed.journal().prepared(Tier::Root).unwrap();
    assert_eq!(slot.key.as_ref(), Some(&key));
    assert!(resumed.journal().intent().is_none());

    let back = reload(&ca.roll_back(&keys).unwrap(), &keys);
    assert_eq!(keys.names(), before);
    assert!(back.journal().intent().is_none() && back.journal().prepared(Tier::Root).is_none());
}

#[test]
fn a_tier_has_two_slots() {
    let (ca, keys, mut rng) = authority();
    let ca = reload(&ca.prepare_root(&keys, now(), &mut rng).unwrap(), &keys);
    let ca = reload(&ca.activate_root("root-2", now()).unwrap(), &keys);
    let error = ca.prepare_root(&keys, now(), &mut rng).unwrap_err();
    assert!(
        error
            .to_string()
            .contains("root-1 is old: it must be removed"),
        "{error}"
    );
}

#[test]
fn a_crash_between_key_and_journal_does_not_stand_in_the_way() {
    let (ca, keys, mut rng) = authority();
    let lost = ca.prepare_issuing(&keys, now(), &mut rng).unwrap();
    let again = ca.prepare_issuing(&keys, now(), &mut rng).unwrap();
    assert_ne!(
        lost.prepared(Tier::Issuing).unwrap().key,
        again.prepared(Tier::Issuing).unwrap().key
    );
    reload(&again, &keys);
}

#[test]
fn roots_of_another_provider_are_in_the_bundle_for_as_long_as_they_are_named() {
    let (ca, keys, _) = authority();
    let before = ca.bundle();
    let (other, _, _) = authority();
    let root = other.bundle().roots[0].clone();
    let own = before.roots[0].clone();

    let next = ca.journal().with_foreign(vec![root.clone(), own.clone()]);
    let with = reload(&next, &keys).bundle();
    assert_eq!(with.roots, [own, root.clone()], "each root once");
    assert_eq!(with.sequence, before.sequence + 1);

    let same = next.with_foreign(next.foreign().to_vec());
    assert_eq!(same, next, "nothing has changed, and the edition says so");
    let gone = next.with_foreign(Vec::new());
    assert_eq!(gone.bundle().roots, before.roots);
    assert_eq!(gone.sequence(), before.sequence + 2);
}
