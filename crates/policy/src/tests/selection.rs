//! Which rule is chosen: the tables of the Gateway API's conformance tests.

use super::{ask, http_route, outcome, snapshot};

const SERVICES: [&str; 5] = ["invoices", "one", "two", "three", "four"];

/// Each request with the backend, or status, that it must get.
fn check(rules: &[(&str, &str)], requests: &[(&str, &str)]) {
    let snapshot = snapshot(&SERVICES, &http_route("default/r", rules));
    for (request, expected) in requests {
        let got = outcome(&snapshot, "default", request);
        let got = got.strip_suffix(".default").unwrap_or(&got);
        assert_eq!(got, *expected, "{request} by {rules:?}");
    }
}

#[test]
fn exact_goes_before_prefix_and_longer_prefix_before_shorter() {
    check(
        &[
            ("{path: {type: Exact, value: /match}}", "one"),
            ("{path: {type: Exact, value: /match/exact}}", "two"),
            ("{path: {value: /match/}}", "three"),
            ("{path: {value: /match/prefix/}}", "one"),
            ("{path: {value: /match/prefix/one}}", "two"),
        ],
        &[
            ("GET /match", "one"),
            ("GET /match/", "three"),
            ("GET /match/exact", "two"),
            ("GET /match/exact/", "three"),
            ("GET /match/any", "three"),
            ("GET /match/prefix/any", "one"),
            ("GET /match/prefix/one/any", "two"),
            ("GET /match/prefix/onetwo", "one"),
            ("GET /matching", "404"),
            ("GET /", "404"),
        ],
    );
}

#[test]
fn exact_is_exact() {
    check(
        &[("{path: {type: Exact, value: /abc}}", "one")],
        &[
            ("GET /abc", "one"),
            ("GET /abc?x", "one"),
            ("GET /abc/", "404"),
            ("GET /ABC", "404"),
            ("GET /abcd", "404"),
        ],
    );
}

#[test]
fn a_prefix_is_of_whole_segments_and_its_last_slash_is_ignored() {
    for value in ["/abc", "/abc/"] {
        check(
            &[(&format!("{{path: {{value: {value}}}}}"), "one")],
            &[
                ("GET /abc", "one"),
                ("GET /abc/", "one"),
                ("GET /abc/def", "one"),
                ("GET /abcd", "404"),
                ("GET /x/abc", "404"),
            ],
        );
    }
    check(
        &[
            ("{path: {value: /v2}}", "two"),
            ("{path: {value: /}}", "one"),
        ],
        &[
            ("GET /v2", "two"),
            ("GET /v2/example", "two"),
            ("GET /v2example", "one"),
            ("GET /", "one"),
        ],
    );
}

#[test]
fn equivalent_spellings_of_a_path_cannot_go_around_a_rule() {
    check(
        &[
            ("{path: {value: /admin}}", "two"),
            ("{path: {value: /}}", "one"),
        ],
        &[
            ("GET //admin", "two"),
            ("GET /x/../admin/", "two"),
            ("GET /%61dmin/x", "two"),
            ("GET /./admin", "two"),
            ("GET /x/admin", "one"),
        ],
    );
    check(
        &[("{path: {type: Exact, value: '/%7Ea'}}", "one")],
        &[("GET /~a", "one"), ("GET /%7ea", "one")],
    );
}

#[test]
fn regular_expressions_fit_whole_values_and_stand_between_exact_and_prefix() {
    check(
        &[
            ("{path: {value: /a/long/prefix}}", "one"),
            ("{path: {type: RegularExpression, value: '/a/.*'}}", "two"),
            (
                "{path: {type: RegularExpression, value: '/a/[0-9]+/x'}}",
                "three",
            ),
            ("{path: {type: Exact, value: /a/1}}", "four"),
        ],
        &[
            ("GET /a/1", "four"),
            ("GET /a/1/x", "three"),
            ("GET /a/1/xy", "two"),
            ("GET /b/a/1", "404"),
            ("GET /a/long/prefix", "two"),
        ],
    );
    check(
        &[("{path: {type: RegularExpression, value: '/a|/b'}}", "one")],
        &[
            ("GET /a", "one"),
            ("GET /b", "one"),
            ("GET /ab", "404"),
            ("GET /a/b", "404"),
        ],
    );
}

#[test]
fn path_goes_before_header_and_header_before_query() {
    check(
        &[
            ("{path: {value: /path5}}", "one"),
            ("{queryParams: [{name: animal, value: hydra}]}", "two"),
            ("{headers: [{name: version, value: four}]}", "three"),
        ],
        &[
            ("GET /path5?animal=hydra", "one"),
            ("GET /path5?animal=hydra version=four", "one"),
            ("GET /other?animal=hydra version=four", "three"),
            ("GET /other?animal=hydra", "two"),
            ("GET /other", "404"),
        ],
    );
}

#[test]
fn method_goes_before_headers() {
    check(
        &[
            (
                "{headers: [{name: a, value: '1'}, {name: b, value: '1'}]}",
                "one",
            ),
            ("{method: POST}", "two"),
        ],
        &[
            ("POST / a=1 b=1", "two"),
            ("GET / a=1 b=1", "one"),
            ("GET / a=1", "404"),
        ],
    );
}

#[test]
fn more_headers_go_before_fewer_and_more_parameters_before_fewer() {
    check(
        &[
            ("{headers: [{name: version, value: one}]}", "one"),
            (
                "{headers: [{name: version, value: one}, {name: color, value: blue}]}",
                "two",
            ),
            ("{queryParams: [{name: a, value: '1'}]}", "three"),
            (
                "{queryParams: [{name: a, value: '1'}, {name: b, value: '1'}]}",
                "four",
            ),
        ],
        &[
            ("GET / version=one", "one"),
            ("GET / version=one color=blue", "two"),
            ("GET / version=one color=red", "one"),
            ("GET /?a=1", "three"),
            ("GET /?a=1&b=1", "four"),
            ("GET /?b=1&a=1 version=one", "one"),
        ],
    );
}

#[test]
fn a_header_match_beats_the_bare_prefix() {
    check(
        &[
            ("{path: {value: /}}", "one"),
            ("{headers: [{name: Version, value: two}]}", "two"),
        ],
        &[
            ("GET /", "one"),
            ("GET / version=two", "two"),
            ("GET / VERSION=two", "two"),
            ("GET / version=Two", "one"),
        ],
    );
}

#[test]
fn of_equal_header_names_in_a_match_the_first_counts() {
    check(
        &[(
            "{headers: [{name: a, value: '1'}, {name: A, value: '2'}]}",
            "one",
        )],
        &[("GET / a=1", "one"), ("GET / a=2", "404")],
    );
}

#[test]
fn a_repeated_header_is_one_joined_by_commas() {
    check(
        &[
            ("{headers: [{name: a, value: '1,2'}]}", "one"),
            (
                "{headers: [{name: a, type: RegularExpression, value: '.*3.*'}]}",
                "two",
            ),
        ],
        &[
            ("GET / a=1 a=2", "one"),
            ("GET / a=1", "404"),
            ("GET / a=1 a=3", "two"),
        ],
    );
}

#[test]
fn parameters_match_in_name_and_value_by_letter_case_and_the_first_value_counts() {
    check(
        &[
            ("{queryParams: [{name: animal, value: whale}]}", "one"),
            ("{queryParams: [{name: a b, value: 'c&d'}]}", "two"),
        ],
        &[
            ("GET /?animal=whale", "one"),
            ("GET /?x=y&animal=whale", "one"),
            ("GET /?ANIMAL=whale", "404"),
            ("GET /?animal=Whale", "404"),
            ("GET /?animal=whales", "404"),
            ("GET /?animal=whale&animal=dog", "one"),
            ("GET /?animal=dog&animal=whale", "404"),
            ("GET /?anim%61l=wh%61le", "one"),
            ("GET /?a+b=c%26d", "two"),
            ("GET /?animal", "404"),
            ("GET /", "404"),
        ],
    );
}

#[test]
fn a_rule_matches_if_one_of_its_matches_does_and_a_match_if_all_of_it_does() {
    check(
        &[(
            "{path: {value: /a}, method: GET, headers: [{name: h, value: '1'}]}, {path: {value: /b}}",
            "one",
        )],
        &[
            ("GET /a h=1", "one"),
            ("POST /a h=1", "404"),
            ("GET /a", "404"),
            ("POST /b", "one"),
        ],
    );
}

#[test]
fn equals_are_ordered_by_namespace_and_name_then_by_rule() {
    let later = http_route("default/b", &[("{}", "one")]);
    let earlier = http_route("default/a", &[("{}", "two"), ("{}", "three")]);
    let snapshot = snapshot(&SERVICES, &format!("{later}{earlier}"));
    let decision = ask(&snapshot, "default", "GET /").unwrap();
    assert_eq!(&*decision.rule, "HTTPRoute/default/a#0");
    assert_eq!(decision.backends[0].service.to_string(), "two.default");
}

#[test]
fn precedence_is_over_all_routes_of_the_service_together() {
    let one = http_route(
        "default/a",
        &[
            ("{path: {value: /x}}", "one"),
            ("{path: {type: Exact, value: /z}}", "four"),
        ],
    );
    let two = http_route(
        "default/b",
        &[
            ("{path: {value: /x/y}}", "two"),
            ("{path: {value: /z}}", "three"),
        ],
    );
    let snapshot = snapshot(&SERVICES, &format!("{one}{two}"));
    for (request, expected) in [
        ("GET /x", "one"),
        ("GET /x/y", "two"),
        ("GET /z", "four"),
        ("GET /z/", "three"),
    ] {
        assert_eq!(
            outcome(&snapshot, "default", request),
            format!("{expected}.default"),
            "{request}"
        );
    }
}
