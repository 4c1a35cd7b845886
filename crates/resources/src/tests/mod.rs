//! Tests of whole documents.

mod authorization;
mod documents;
mod http_route;
mod listener;
mod round_trip;
mod service_entry;

use crate::{Resource, ResourceError, parse_yaml};

/// The one resource of a text.
fn one(text: &str) -> Resource {
    match parse_yaml(text, "t.yaml") {
        Ok(resources) if resources.len() == 1 => resources.into_iter().next().expect("one"),
        other => panic!("expected one resource of\n{text}\ngot {other:?}"),
    }
}

/// The errors of a text that must have some.
fn errors(text: &str) -> Vec<ResourceError> {
    match parse_yaml(text, "t.yaml") {
        Ok(resources) => panic!("expected errors of\n{text}\ngot {resources:?}"),
        Err(errors) => errors,
    }
}

/// The one error of a text, checked to stand where `needle` first does, which makes sure that its line and column
/// are right.
fn error_at(text: &str, needle: &str) -> ResourceError {
    let errors = errors(text);
    assert_eq!(
        errors.len(),
        1,
        "one error expected of\n{text}\ngot {errors:#?}"
    );
    let error = errors.into_iter().next().expect("one");
    assert_eq!(
        (error.line, error.column),
        place_of(text, needle),
        "{error}\nin\n{text}"
    );
    error
}

fn place_of(text: &str, needle: &str) -> (u64, u64) {
    let at = text
        .find(needle)
        .unwrap_or_else(|| panic!("'{needle}' is not in\n{text}"));
    let before = &text[..at];
    let line = before.matches('\n').count() + 1;
    let column = before.chars().rev().take_while(|c| *c != '\n').count() + 1;
    (line as u64, column as u64)
}

/// An `HTTPRoute` with these lines as its rules, each indented by two.
fn route_with(rules: &str) -> String {
    let indented: String = rules.lines().map(|line| format!("  {line}\n")).collect();
    format!(
        "apiVersion: gateway.networking.k8s.io/v1\nkind: HTTPRoute\nmetadata:\n  name: invoices\n\
         spec:\n  parentRefs:\n  - kind: Service\n    name: invoices\n  rules:\n{indented}"
    )
}
