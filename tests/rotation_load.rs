//! Leaves, issuing CA and root are replaced while requests and tunnels go on: nothing fails, nothing is cut.

#![allow(
    clippy::disallowed_methods,
    clippy::unwrap_used,
    reason = "tests stand outside Env, and a panic is how they fail"
)]

mod support;

use std::collections::BTreeMap;
use std::io::Write;
use std::time::{Duration, Instant};

use support::load::{Load, Tunnels, tcp_echo};
use support::shop::Shop;

/// What is promised is 500; the plan is a little above, so that the average stays there.
const PROMISED_PER_S: u32 = 500;
const PLANNED_PER_S: u32 = 600;
/// Between two acts, so that each has traffic of its own before and after it.
const BETWEEN: u32 = 600;
const ROUNDS: usize = 2;
const TUNNELS: usize = 8;

/// Each act, in the order of the hierarchy from below.
const ACTS: [(&str, &[&str]); 3] = [
    ("leaves", &["cert", "rotate", "--all"]),
    ("issuing CA", &["ca", "rotate", "issuing", "--now"]),
    ("root", &["ca", "rotate", "root", "--now"]),
];

/// Serial and issuer of each sidecar's certificate, by instance.
fn certificates(shop: &Shop) -> BTreeMap<String, (String, String)> {
    let status = shop.world.admin(&["status", "-o", "json"]).json();
    let text = |value: &serde_json::Value| value.as_str().unwrap().to_owned();
    let sidecars = status["sidecars"].as_array().unwrap().iter();
    sidecars
        .map(|s| {
            (
                text(&s["instance"]),
                (text(&s["serial"]), text(&s["issuer"])),
            )
        })
        .collect()
}

/// What signs now: a root and an issuing CA.
fn active(shop: &Shop) -> Vec<String> {
    let shown = shop.world.admin(&["ca", "show", "-o", "json"]).json();
    let all = shown["authorities"].as_array().unwrap().iter();
    all.filter(|a| a["state"] == "active")
        .map(|a| a["name"].as_str().unwrap().to_owned())
        .collect()
}

/// Past the capture of `cargo test`: these figures are wanted from a run that succeeds.
fn report(line: &str) {
    let _ = writeln!(std::io::stderr(), "rotation under load: {line}");
}

#[test]
fn leaf_issuing_and_root_are_rotated_in_turn_and_no_request_fails_and_no_tunnel_is_cut() {
    let echo = tcp_echo();
    let shop = Shop::with(2, &[], Some(echo));
    let listener = shop.orders.ready["tcp"][0].as_str().unwrap();
    let tunnels = Tunnels::open(listener.parse().unwrap(), TUNNELS);
    let load = Load::at_rate(shop.orders.addr("outbound"), 8, PLANNED_PER_S);

    let mut took: BTreeMap<&str, Vec<Duration>> = BTreeMap::new();
    for _ in 0..ROUNDS {
        for (act, command) in ACTS {
            load.goes_on_for(BETWEEN);
            let before = certificates(&shop);
            let began = Instant::now();
            shop.world.admin(command).ok();
            took.entry(act).or_default().push(began.elapsed());
            let after = certificates(&shop);
            for (instance, (serial, issuer)) in &before {
                let (new_serial, new_issuer) = &after[instance];
                assert_ne!(serial, new_serial, "{instance} after the rotation of {act}");
                assert_eq!(issuer == new_issuer, act == "leaves", "{instance}: {act}");
            }
        }
    }
    load.goes_on_for(BETWEEN);

    let account = load.end();
    let rounds = tunnels.end();
    for (act, times) in &took {
        report(&format!("{act}: rotated in {times:.1?}"));
    }
    report(&format!(
        "{} requests in {:.1?}, {:.0} per second, {} failed; {:.1?} at the median, {:.1?} at 99 %, {:.1?} the slowest",
        account.asked,
        account.took,
        account.per_second(),
        account.failed,
        account.quantile(0.5),
        account.quantile(0.99),
        account.quantile(1.0)
    ));
    report(&format!("{TUNNELS} tunnels, rounds: {rounds:?}"));
    assert_eq!(
        account.failed, 0,
        "of {}: {:?}",
        account.asked, account.failures
    );
    let rounds = rounds.expect("no tunnel is cut");
    assert!(rounds.iter().all(|&rounds| rounds > 10), "{rounds:?}");
    assert!(
        account.per_second() >= f64::from(PROMISED_PER_S),
        "{:.0} per second",
        account.per_second()
    );
    // Each round makes a new root with an issuing CA, after another issuing CA.
    let expected = [
        format!("root-{}", 1 + ROUNDS),
        format!("issuing-{}", 1 + 2 * ROUNDS),
    ];
    assert_eq!(active(&shop), expected);
    let evidence = shop.world.admin(&["ca", "evidence", "-o", "json"]).json();
    assert_eq!(evidence.as_array().unwrap().len(), 2 * ROUNDS, "{evidence}");
    shop.world.admin(&["ca", "audit", "--verify"]).ok();
}
