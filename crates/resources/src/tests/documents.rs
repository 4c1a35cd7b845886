//! Texts, documents and envelopes.

use std::collections::BTreeSet;

use super::{error_at, errors, one, route_with};
use crate::{Kind, MAX_INPUT, Resource, ResourceKey, parse_yaml};

#[test]
fn an_error_is_shown_with_file_line_column_path_and_reason() {
    let error = error_at(&route_with("- timeouts:\n    request: 5 s"), "5 s");
    assert_eq!(
        error.to_string(),
        "t.yaml:11:16: spec.rules[0].timeouts.request: '5 s' is not a duration: write 1 to 4 numbers of up to 5 \
         digits, each with h, m, s or ms, such as 5s, 250ms or 1h30m"
    );
}

#[test]
fn the_envelope_is_checked_at_its_fields() {
    for (text, needle, reason) in [
        ("kind: HTTPRoute\n", "kind", "field 'apiVersion' is missing"),
        ("apiVersion: v1\n", "apiVersion", "field 'kind' is missing"),
        (
            "apiVersion: weft.dev/v1\nkind: HttpRoute\n",
            "HttpRoute",
            "did you mean 'HTTPRoute'?",
        ),
        (
            "apiVersion: v1\nkind: Pod\n",
            "Pod",
            "known are HTTPRoute, AuthorizationPolicy, OutboundListener",
        ),
        (
            "apiVersion: gateway.networking.k8s.io/v1beta1\nkind: HTTPRoute\n",
            "gateway",
            "expected gateway.networking.k8s.io/v1",
        ),
        (
            "apiVersion: weft.dev/v1\nkind: AuthorizationPolicy\nspec: {}\n",
            "apiVersion",
            "field 'metadata' is missing",
        ),
        (
            "apiVersion: weft.dev/v1\nkind: AuthorizationPolicy\nmetadata: {name: a}\n",
            "apiVersion",
            "field 'spec' is missing",
        ),
        (
            "apiVersion: weft.dev/v1\nkind: AuthorizationPolicy\nmetadata: {name: A_b}\nspec: {}\n",
            "A_b",
            "not the name of a resource",
        ),
        (
            "apiVersion: weft.dev/v1\nkind: AuthorizationPolicy\nmetadata: {name: a, namespace: x.y}\nspec: {}\n",
            "x.y",
            "is not a name",
        ),
        (
            "apiVersion: weft.dev/v1\nkind: AuthorizationPolicy\nmetadata: {name: a, uid: b}\nspec: {}\n",
            "uid",
            "unknown field 'uid'",
        ),
        (
            "apiVersion: weft.dev/v1\nkind: AuthorizationPolicy\nmetadata: {name: a}\nspec: {}\nstatus: {}\n",
            "status",
            "unknown field 'status'",
        ),
        (
            "apiVersion: weft.dev/v1\nkind: AuthorizationPolicy\nmetadata: {name: 1}\nspec: {}\n",
            "1}",
            "put it in quotes",
        ),
        ("- a\n", "- a", "a resource is a map"),
        ("hello\n", "hello", "a resource is a map"),
    ] {
        let error = error_at(text, needle);
        assert!(
            error.reason.contains(reason),
            "expected '{reason}', got {error}"
        );
    }
}

#[test]
fn yaml_that_is_broken_says_where() {
    for (text, line) in [
        ("a: [1, 2\n", 2),
        ("a: 'x\n", 2),
        ("a: b\na: c\n", 2),
        ("a:\n\t- b\n", 2),
        ("a: *nowhere\n", 1),
        ("a: {<<: {b: c}}\n", 1),
        ("? [a]\n: b\n", 1),
        ("a: \u{1}\n", 1),
    ] {
        let errors = errors(text);
        assert_eq!(errors.len(), 1, "{errors:?}");
        assert!(
            errors[0].line >= 1 && errors[0].line <= line,
            "{text:?}: {}",
            errors[0]
        );
        assert!(errors[0].reason.starts_with("YAML: "), "{}", errors[0]);
        assert!(!errors[0].reason.contains('\n'), "{}", errors[0]);
    }
}

#[test]
fn every_document_reports_its_own_error_at_its_own_line() {
    let good = route_with("- {}");
    let broken = "a: [1";
    let wrong = route_with("- timeouts: {request: soon}");
    let text = format!("# comment\n---\n{broken}\n---\n{good}---\n{wrong}...\n---\n{wrong}");
    let errors = errors(&text);
    assert_eq!(errors.len(), 3, "{errors:#?}");
    assert!(errors[0].line == 3 || errors[0].line == 4, "{}", errors[0]);
    let lines: Vec<usize> = text
        .lines()
        .enumerate()
        .filter(|(_, line)| line.contains("soon"))
        .map(|(index, _)| index + 1)
        .collect();
    assert_eq!(errors[1].line as usize, lines[0]);
    assert_eq!(errors[2].line as usize, lines[1]);
}

#[test]
fn several_documents_in_all_their_spellings_are_read() {
    let first = route_with("- {}");
    let second = first.replace("name: invoices", "name: other");
    for text in [
        format!("{first}---\n{second}"),
        format!("---\n{first}---\n{second}---\n"),
        format!("%YAML 1.2\n---\n{first}...\n{second}"),
        format!("---\r\n{}---\r\n{second}", first.replace('\n', "\r\n")),
        format!(
            "\n# one\n--- # two\n{first}--- {}",
            serde_json::to_string(&one(&second)).unwrap()
        ),
    ] {
        let resources = parse_yaml(&text, "t.yaml").unwrap_or_else(|e| panic!("{text}\n{e:?}"));
        let names: Vec<&str> = resources
            .iter()
            .map(|r| r.metadata().name.as_str())
            .collect();
        assert_eq!(names, ["invoices", "other"], "{text}");
    }
}

#[test]
fn a_text_without_resources_is_an_empty_list() {
    for text in [
        "",
        "\n",
        "# nothing\n",
        "---\n---\n",
        "---\n...\n",
        "--- ~\n",
        "---",
    ] {
        assert_eq!(parse_yaml(text, "t.yaml"), Ok(Vec::new()), "{text:?}");
    }
}

#[test]
fn a_resource_defined_twice_is_refused() {
    let text = format!("{0}---\n{0}", route_with("- {}"));
    let errors = errors(&text);
    assert_eq!(
        errors[0].reason,
        "HTTPRoute/default/invoices is defined twice, first on line 1"
    );
    assert_eq!(errors[0].line, 12);
}

#[test]
fn aliases_are_followed() {
    let resource = one(&route_with(
        "- backendRefs: &b [{name: a}]\n- matches: [{path: {value: /x}}]\n  backendRefs: *b",
    ));
    let Resource::HttpRoute(route) = resource else {
        panic!("expected an HTTPRoute")
    };
    assert_eq!(
        route.spec.rules[0].backend_refs,
        route.spec.rules[1].backend_refs
    );
}

#[test]
fn bombs_and_giants_are_refused() {
    let mut bomb = "a: &a [x, x, x, x, x, x, x, x, x]\n".to_owned();
    for (name, before) in ('b'..='j').zip('a'..) {
        let refs = vec![format!("*{before}"); 9].join(", ");
        bomb.push_str(&format!("{name}: &{name} [{refs}]\n"));
    }
    for text in [
        bomb,
        "[".repeat(10_000),
        "a: ".repeat(10_000),
        format!("{}a", "- ".repeat(5_000)),
        "a".repeat(MAX_INPUT + 1),
        "--- {}\n".repeat(1_001),
        format!("a: [{}]", "1,".repeat(300_000)),
    ] {
        assert!(!errors(&text).is_empty());
    }
}

#[test]
fn a_giant_is_told_the_limit_and_what_to_do() {
    let told = &errors(&"a".repeat(MAX_INPUT + 1))[0];
    let text = told.to_string();
    assert!(
        text.contains("at most 1048576 (1 MiB) are read: split it into several files"),
        "{text}"
    );
}

#[test]
fn keys_are_text_and_back() {
    let key = one(&route_with("- {}")).key();
    assert_eq!(key.to_string(), "HTTPRoute/default/invoices");
    assert_eq!("HTTPRoute/default/invoices".parse::<ResourceKey>(), Ok(key));
    for text in [
        "",
        "HTTPRoute",
        "HTTPRoute/a",
        "HTTPRoute/a/b/c",
        "Pod/a/b",
        "HTTPRoute/A/b",
        "HTTPRoute/a/",
    ] {
        assert!(text.parse::<ResourceKey>().is_err(), "{text}");
    }
}

#[test]
fn kinds_are_known_by_what_people_type() {
    for (text, kind) in [
        ("httproute", Some(Kind::HttpRoute)),
        ("HTTPRoutes", Some(Kind::HttpRoute)),
        ("authorizationpolicies", Some(Kind::AuthorizationPolicy)),
        ("OutboundListener", Some(Kind::OutboundListener)),
        ("pods", None),
    ] {
        assert_eq!(Kind::from_command(text), kind, "{text}");
    }
}

#[test]
fn every_example_of_the_reference_is_valid_and_every_kind_has_one() {
    let text = include_str!("../../../../docs/resources.md");
    let mut kinds = BTreeSet::new();
    for part in text.split("```yaml\n").skip(1) {
        let (yaml, _) = part.split_once("```").expect("it ends");
        let resource = one(yaml);
        kinds.insert(resource.kind().to_string());
    }
    let all: BTreeSet<_> = Kind::ALL.iter().map(ToString::to_string).collect();
    assert_eq!(kinds, all);
}
