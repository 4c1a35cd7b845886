//! Which failures are tried again.

use std::sync::Arc;
use std::time::Duration;

use http::Method;

use crate::retry::{Failure, RetryDecision, RetryPolicy, decide, is_idempotent};

const GIVE_UP: RetryDecision = RetryDecision::GiveUp;
const ELSEWHERE: RetryDecision = RetryDecision::Retry {
    after: Duration::ZERO,
    elsewhere_only: true,
};
const AGAIN: RetryDecision = RetryDecision::Retry {
    after: Duration::ZERO,
    elsewhere_only: false,
};
const ASKED: RetryDecision = RetryDecision::Retry {
    after: Duration::from_millis(25),
    elsewhere_only: false,
};

fn asked(retries: u32, codes: &[u16]) -> RetryPolicy {
    RetryPolicy {
        retries,
        backoff: Duration::from_millis(25),
        codes: Arc::from(codes),
        asked_for: true,
    }
}

#[test]
fn rfc_9110_idempotent_methods() {
    for (method, idempotent) in [
        (Method::GET, true),
        (Method::HEAD, true),
        (Method::OPTIONS, true),
        (Method::TRACE, true),
        (Method::PUT, true),
        (Method::DELETE, true),
        (Method::POST, false),
        (Method::PATCH, false),
        (Method::CONNECT, false),
        (Method::from_bytes(b"BREW").unwrap(), false),
    ] {
        assert_eq!(is_idempotent(&method), idempotent, "{method}");
    }
}

#[test]
fn by_default_only_what_is_safe_goes_to_another_endpoint_at_once() {
    let policy = RetryPolicy::default();
    for (failure, idempotent, expected) in [
        (Failure::ConnectFailed, true, ELSEWHERE),
        (Failure::ConnectFailed, false, ELSEWHERE),
        (Failure::Refused, true, AGAIN),
        (Failure::Refused, false, AGAIN),
        (Failure::ResetBeforeResponse, true, ELSEWHERE),
        (Failure::ResetBeforeResponse, false, GIVE_UP),
        (Failure::BackendTimeout, true, GIVE_UP),
        (Failure::Status(503), true, GIVE_UP),
    ] {
        assert_eq!(
            decide(&policy, 1, failure, idempotent, true),
            expected,
            "{failure:?}, idempotent {idempotent}"
        );
        assert_eq!(
            decide(&policy, 1, failure, idempotent, false),
            GIVE_UP,
            "{failure:?} and the body is gone"
        );
    }
}

#[test]
fn by_default_there_are_two_retries() {
    let decisions = [1, 2, 3].map(|attempts| {
        decide(
            &RetryPolicy::default(),
            attempts,
            Failure::Refused,
            false,
            true,
        )
    });
    assert_eq!(decisions, [AGAIN, AGAIN, GIVE_UP]);
}

#[test]
fn gep_1731_a_stanza_adds_its_codes_and_backend_timeouts() {
    let policy = asked(1, &[500, 502]);
    for (failure, expected) in [
        (Failure::ConnectFailed, ASKED),
        (Failure::Refused, ASKED),
        (Failure::ResetBeforeResponse, ASKED),
        (Failure::BackendTimeout, ASKED),
        (Failure::Status(500), ASKED),
        (Failure::Status(502), ASKED),
        (Failure::Status(503), GIVE_UP),
        (Failure::Status(404), GIVE_UP),
    ] {
        assert_eq!(
            decide(&policy, 1, failure, true, true),
            expected,
            "{failure:?}"
        );
    }
}

#[test]
fn a_stanza_does_not_make_a_processed_post_safe() {
    let policy = asked(3, &[500]);
    for (failure, expected) in [
        (Failure::ConnectFailed, ASKED),
        (Failure::Refused, ASKED),
        (Failure::ResetBeforeResponse, GIVE_UP),
        (Failure::BackendTimeout, GIVE_UP),
        (Failure::Status(500), GIVE_UP),
    ] {
        assert_eq!(
            decide(&policy, 1, failure, false, true),
            expected,
            "{failure:?}"
        );
    }
}

/// Attempts until the answer, when the first `failing` ones fail so.
fn play(policy: &RetryPolicy, failing: u32, failure: Failure) -> (u32, bool) {
    let mut attempts = 1;
    while attempts <= failing {
        if decide(policy, attempts, failure, true, true) == GIVE_UP {
            return (attempts, false);
        }
        attempts += 1;
    }
    (attempts, true)
}

#[test]
fn gep_1731_attempts_are_retries_after_the_first() {
    for (policy, failing, failure, expected) in [
        (asked(3, &[500]), 2, Failure::Status(500), (3, true)),
        (asked(3, &[500]), 3, Failure::Status(500), (4, true)),
        (asked(3, &[500]), 4, Failure::Status(500), (4, false)),
        (asked(3, &[500]), 1, Failure::Status(503), (1, false)),
        (asked(2, &[]), 2, Failure::BackendTimeout, (3, true)),
        (asked(2, &[]), 3, Failure::BackendTimeout, (3, false)),
    ] {
        assert_eq!(
            play(&policy, failing, failure),
            expected,
            "{policy:?}, {failing} x {failure:?}"
        );
    }
}

#[test]
fn a_stanza_is_read() {
    let text = "{codes: [503], attempts: 4, backoff: 50ms}";
    let resources = weft_resources::parse_yaml(
        &format!(
            "apiVersion: gateway.networking.k8s.io/v1\nkind: HTTPRoute\nmetadata: {{name: r}}\nspec: {{parentRefs: \
             [{{kind: Service, name: invoices}}], rules: [{{retry: {text}, backendRefs: [{{name: invoices}}]}}]}}"
        ),
        "t.yaml",
    )
    .unwrap();
    let snapshot =
        crate::Snapshot::compile(1, &resources, super::endpoints(&["invoices"])).unwrap();
    let policy = super::ask(&snapshot, "default", "GET /").unwrap().retry;
    assert_eq!((policy.retries, policy.asked_for), (4, true));
    assert_eq!(
        (policy.backoff, &*policy.codes),
        (Duration::from_millis(50), &[503][..])
    );
}
