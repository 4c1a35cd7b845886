//! The short self-test: it passes here, and says what it measured.

#![allow(clippy::unwrap_used, clippy::print_stderr, reason = "a test")]

#[allow(dead_code, reason = "shared with the other tests")]
mod support;

use support::{netsim, possible};

/// A shared machine may be away for a while; a link that does not keep its promises fails every time.
const ATTEMPTS: u32 = 3;

#[test]
fn links_keep_their_promises_on_this_machine() {
    if !possible() {
        return;
    }
    let mut findings = serde_json::Value::Null;
    for attempt in 1..=ATTEMPTS {
        let output = netsim()
            .args(["selftest", "--quick", "-o", "json"])
            .output()
            .unwrap();
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        findings = serde_json::from_slice(&output.stdout).unwrap_or_else(|_| panic!("{said}"));
        let passed = findings["passed"].as_bool().unwrap();
        assert_eq!(output.status.code(), Some(i32::from(!passed)), "{said}");
        if passed {
            break;
        }
        eprintln!("attempt {attempt}: {said}");
    }
    assert_eq!(findings["passed"], true, "{findings:#}");
    let checks = findings["checks"].as_array().unwrap();
    assert_eq!(checks.len(), 10, "{findings:#}");
    assert!(findings["bare_timer"]["count"].as_u64().unwrap() > 100);
}
