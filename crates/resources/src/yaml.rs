//! Reads the resources of a YAML text, and says exactly what is wrong with each.

use std::collections::BTreeMap;

use serde_saphyr::{MergeKeyPolicy, MessageFormatter, Options, UserMessageFormatter};

use crate::document::resource_from;
use crate::error::ResourceError;
use crate::node::{MAX_DEPTH, Node};
use crate::resource::Resource;

/// Largest text that is read, in bytes.
pub const MAX_INPUT: usize = 1024 * 1024;
/// Most documents in one text.
pub const MAX_DOCUMENTS: usize = 1000;

/// Reads every resource of `text`, which may hold several documents. `origin` (a file name, or such) is
/// shown in errors.
///
/// JSON is YAML, and read as well. Aliases are followed within limits; merge keys (`<<`) are refused, as
/// are duplicate keys. A text without any resource gives an empty list.
///
/// # Errors
/// At least one error of each document that has one; then nothing of the text is used. In a document that
/// has the right shape, everything that breaks a rule.
///
/// # Examples
/// ```
/// let text = "
/// apiVersion: gateway.networking.k8s.io/v1
/// kind: HTTPRoute
/// metadata: {name: invoices}
/// spec:
///   parentRefs: [{kind: Service, name: invoices}]
///   rules:
///   - timeouts: {request: 5 s}
///     backendRefs: [{name: invoices}]
/// ";
/// let errors = weft_resources::parse_yaml(text, "routes.yaml").unwrap_err();
/// assert!(errors[0].to_string().starts_with(
///     "routes.yaml:8:25: spec.rules[0].timeouts.request: '5 s' is not a duration"
/// ));
/// ```
pub fn parse_yaml(text: &str, origin: &str) -> Result<Vec<Resource>, Vec<ResourceError>> {
    let whole = |line: u64, reason: String| ResourceError {
        origin: origin.to_owned(),
        line,
        column: u64::from(line > 0),
        path: String::new(),
        reason,
    };
    if text.len() > MAX_INPUT {
        let reason = format!(
            "is {} bytes long, at most {MAX_INPUT} (1 MiB) are read: split it into several files",
            text.len()
        );
        return Err(vec![whole(0, reason)]);
    }
    let mut resources = Vec::new();
    let mut errors = Vec::new();
    let mut seen = BTreeMap::new();
    let mut documents = 0;
    for (offset, part) in split(text) {
        let nodes = match read_nodes(part) {
            Ok(nodes) => nodes,
            Err(error) => {
                errors.push(syntax_error(&error, origin, offset));
                continue;
            }
        };
        for node in nodes {
            documents += 1;
            if documents > MAX_DOCUMENTS {
                errors.push(whole(
                    offset + node.place.line,
                    format!("there are more than {MAX_DOCUMENTS} documents"),
                ));
                return Err(errors);
            }
            match resource_from(&node, origin, offset) {
                Err(found) => errors.extend(found),
                Ok(resource) => {
                    let line = offset + node.place.line;
                    match seen.insert(resource.key(), line) {
                        Some(first) => errors.push(whole(
                            line,
                            format!("{} is defined twice, first on line {first}", resource.key()),
                        )),
                        None => resources.push(resource),
                    }
                }
            }
        }
    }
    if errors.is_empty() {
        Ok(resources)
    } else {
        Err(errors)
    }
}

/// The documents of a text, each with the number of lines before it. One that is broken must not hide the
/// others, so they are parsed one by one. `---` at the start of a line always begins a document, also
/// within a scalar (YAML 1.2 §9.1.2).
fn split(text: &str) -> Vec<(u64, &str)> {
    let mut parts = Vec::new();
    let (mut start, mut start_line) = (0, 0);
    let (mut at, mut line) = (0, 0);
    for full in text.split_inclusive('\n') {
        let marker = full
            .strip_prefix("---")
            .is_some_and(|rest| rest.is_empty() || rest.starts_with([' ', '\t', '\r', '\n']));
        if marker && at > start {
            parts.push((start_line, &text[start..at]));
            (start, start_line) = (at, line);
        }
        at += full.len();
        line += 1;
    }
    parts.push((start_line, &text[start..]));
    parts.retain(|(_, part)| !is_blank(part));
    parts
}

/// Nothing but comments, directives and markers. A directive may stand alone here because the marker after
/// it begins the next part.
fn is_blank(part: &str) -> bool {
    part.lines().all(|line| {
        let line = line.trim();
        line.is_empty() || line.starts_with(['#', '%']) || line == "---" || line == "..."
    })
}

pub(crate) fn read_nodes(part: &str) -> Result<Vec<Node>, serde_saphyr::Error> {
    let options = serde_saphyr::options! {
        budget: serde_saphyr::budget! {
            max_depth: MAX_DEPTH,
            flow_nesting_limit: MAX_DEPTH,
            max_events: 200_000,
            max_nodes: 100_000,
            max_aliases: 100,
            max_anchors: 100,
            max_recorded_anchor_events: 10_000,
            max_documents: MAX_DOCUMENTS + 1,
            max_total_scalar_bytes: MAX_INPUT,
        },
        alias_limits: serde_saphyr::alias_limits! {
            max_total_replayed_events: 10_000,
            max_replay_stack_depth: 8,
        },
        merge_keys: MergeKeyPolicy::Error,
        strict_booleans: true,
        leading_zero_numbers_as_strings: true,
        underscored_numbers_as_strings: true,
        with_snippet: false,
    };
    let options: Options = options;
    serde_saphyr::from_multiple_with_options(part, options)
}

/// Without what the parser shows of its own insides.
fn readable(said: &str) -> String {
    match said.split_once(" { ") {
        Some(_) => "YAML: it has more aliases, depth or nodes than are read".to_owned(),
        None => format!("YAML: {said}"),
    }
}

pub(crate) fn syntax_error(
    error: &serde_saphyr::Error,
    origin: &str,
    offset: u64,
) -> ResourceError {
    let place = error.location();
    ResourceError {
        origin: origin.to_owned(),
        line: place.map_or(offset + 1, |place| offset + place.line()),
        column: place.map_or(1, |place| place.column()),
        path: String::new(),
        reason: readable(&UserMessageFormatter.format_message(error)),
    }
}
