//! Properties: what was read is written and read again as the same; nothing makes the reader panic.

use proptest::prelude::*;

use super::route_with;
use crate::{Resource, parse_yaml};

/// A rule, as YAML in one line, mostly valid.
fn rule() -> impl Strategy<Value = String> {
    let path = prop_oneof![
        Just(String::new()),
        "(/[a-z0-9.]{0,3}){1,3}".prop_map(|p| format!("path: {{type: Exact, value: '{p}'}}, ")),
        "/[a-z]{0,3}/?".prop_map(|p| format!("path: {{value: '{p}'}}, ")),
        "/[a-z]{0,3}(\\[0-9\\]\\+)?"
            .prop_map(|p| format!("path: {{type: RegularExpression, value: '{p}'}}, ")),
    ];
    let headers = prop::collection::vec("[A-Za-z-]{1,5}", 0..3).prop_map(|names| {
        let items: Vec<String> = names
            .iter()
            .map(|n| format!("{{name: '{n}', value: '{n}'}}"))
            .collect();
        format!("headers: [{}]", items.join(", "))
    });
    let timeouts = (0_u32..90, 1_u32..90).prop_map(|(request, extra)| {
        format!(
            "{{request: {}s, backendRequest: {request}s}}",
            request + extra
        )
    });
    let backends =
        prop::collection::vec(("[a-z]{1,4}", 0_u32..100, prop::option::of(1_u16..)), 0..3);
    (path, headers, timeouts, backends, 1_u32..5).prop_map(|(path, headers, timeouts, backends, attempts)| {
        let backends: Vec<String> = backends
            .iter()
            .map(|(name, weight, port)| match port {
                Some(port) => format!("{{name: {name}x, weight: {weight}, port: {port}}}"),
                None => format!("{{name: {name}x, weight: {weight}}}"),
            })
            .collect();
        format!(
            "- {{matches: [{{{path}{headers}}}], timeouts: {timeouts}, retry: {{attempts: {attempts}, codes: [503]}}, backendRefs: [{}]}}",
            backends.join(", ")
        )
    })
}

proptest! {
    #[test]
    fn what_was_read_is_written_and_read_again(rules in prop::collection::vec(rule(), 1..4)) {
        let text = route_with(&rules.join("\n"));
        // Some generated paths are not allowed (`//`, `/.`): those must be refused, and no more.
        if let Ok(resources) = parse_yaml(&text, "t.yaml") {
            let resource = &resources[0];
            prop_assert_eq!(resource.validate(), Ok(()));
            prop_assert_eq!(Resource::from_json(&resource.to_json()), Ok(resource.clone()));
            let yaml = resource.to_yaml().unwrap();
            prop_assert_eq!(parse_yaml(&yaml, "t.yaml"), Ok(resources.clone()));
            let json = serde_json::to_string(resource).unwrap();
            prop_assert_eq!(&serde_json::from_str::<Resource>(&json).unwrap(), resource);
        }
    }

    #[test]
    fn any_text_is_read_or_refused_at_a_place_within_it(text in "(\\PC|[\n:{}\\[\\]&*!|>'\"%@`,?#-]|  |---\n){0,80}") {
        if let Err(errors) = parse_yaml(&text, "t.yaml") {
            prop_assert!(!errors.is_empty());
            for error in errors {
                prop_assert!(error.line >= 1 && error.line as usize <= text.lines().count() + 1, "{}", error);
            }
        }
    }

    #[test]
    fn a_resource_with_one_character_changed_is_read_or_refused(at in 0_usize..220, with in "[ -~\n]") {
        let mut text = route_with("- timeouts: {request: 5s}\n  matches:\n  - path: {type: Exact, value: /a}\n  backendRefs:\n  - name: b");
        let at = at % text.len();
        text.replace_range(at..=at, &with);
        let _ = parse_yaml(&text, "t.yaml");
    }
}
