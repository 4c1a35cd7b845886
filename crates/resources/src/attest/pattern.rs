//! Patterns of names: text with `{namespace}`, `{service}` and `*`, each of which stands for one label.
//!
//! What stands for a label is followed by the end or by a character that no label has, so that there is one way to read
//! a text.

use serde::Deserialize;
use serde::de::{Deserializer, Error as _};

use super::shorten;

/// Longest pattern; a URI name has no limit of its own.
const MAX_PATTERN: usize = 1024;
/// Longest DNS label (RFC 1035 §2.3.4).
const MAX_LABEL: usize = 63;

/// A piece of a pattern.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Part {
    Text(String),
    /// `*`.
    Any,
    Namespace,
    Service,
}

/// What texts must look like.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Pattern(Vec<Part>);

/// What is made of what was matched.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Form(Vec<Part>);

/// What the placeholders stand for.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Bindings {
    pub(super) namespace: Option<String>,
    pub(super) service: Option<String>,
}

/// Which placeholders there are.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Placeholders {
    pub(super) namespace: bool,
    pub(super) service: bool,
}

fn in_label(byte: u8) -> bool {
    byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-'
}

fn parts(text: &str) -> Result<Vec<Part>, String> {
    if text.is_empty() || text.len() > MAX_PATTERN {
        return Err("is empty or longer than 1024 characters".to_owned());
    }
    let mut found = Vec::new();
    let mut rest = text;
    while !rest.is_empty() {
        let end = rest.find(['{', '}', '*']).unwrap_or(rest.len());
        if end > 0 {
            found.push(Part::Text(rest[..end].to_owned()));
            rest = &rest[end..];
            continue;
        }
        let known = [
            ("*", Part::Any),
            ("{namespace}", Part::Namespace),
            ("{service}", Part::Service),
        ];
        let (name, part) = known
            .into_iter()
            .find(|(name, _)| rest.starts_with(name))
            .ok_or_else(|| {
                format!(
                    "'{}': the placeholders are {{namespace}}, {{service}} and *",
                    shorten(text)
                )
            })?;
        if found.contains(&part) && part != Part::Any {
            return Err(format!("'{}' has {name} twice", shorten(text)));
        }
        found.push(part);
        rest = &rest[name.len()..];
    }
    Ok(found)
}

fn placeholders(parts: &[Part]) -> Placeholders {
    Placeholders {
        namespace: parts.contains(&Part::Namespace),
        service: parts.contains(&Part::Service),
    }
}

impl Pattern {
    fn parse(text: &str) -> Result<Self, String> {
        let found = parts(text)?;
        for pair in found.windows(2) {
            let ends = match &pair[1] {
                Part::Text(text) => !text.bytes().next().is_some_and(in_label),
                _ => false,
            };
            if !matches!(pair[0], Part::Text(_)) && !ends {
                return Err(format!(
                    "'{}': after a placeholder comes the end, or a character that no name has, such as '.' or '/'",
                    shorten(text)
                ));
            }
        }
        Ok(Self(found))
    }

    pub(super) fn binds(&self) -> Placeholders {
        placeholders(&self.0)
    }

    /// What the placeholders stand for, if the whole text fits.
    pub(super) fn matches(&self, text: &str) -> Option<Bindings> {
        let mut bindings = Bindings::default();
        let mut rest = text;
        for part in &self.0 {
            if let Part::Text(text) = part {
                rest = rest.strip_prefix(text.as_str())?;
                continue;
            }
            let end = rest.bytes().take_while(|b| in_label(*b)).count();
            if !(1..=MAX_LABEL).contains(&end) {
                return None;
            }
            let (label, after) = rest.split_at(end);
            match part {
                Part::Namespace => bindings.namespace = Some(label.to_owned()),
                Part::Service => bindings.service = Some(label.to_owned()),
                Part::Any | Part::Text(_) => {}
            }
            rest = after;
        }
        rest.is_empty().then_some(bindings)
    }
}

impl Form {
    fn parse(text: &str) -> Result<Self, String> {
        let found = parts(text)?;
        match found.contains(&Part::Any) {
            true => Err(format!("'{}': * stands for nothing here", shorten(text))),
            false => Ok(Self(found)),
        }
    }

    pub(super) fn needs(&self) -> Placeholders {
        placeholders(&self.0)
    }

    /// The text, if it has no placeholder.
    pub(super) fn literal(&self) -> Option<&str> {
        match self.0.as_slice() {
            [Part::Text(text)] => Some(text),
            _ => None,
        }
    }

    pub(super) fn fill(&self, bound: &Bindings) -> String {
        let part = |part: &Part| match part {
            Part::Text(text) => text.clone(),
            Part::Any => String::new(),
            Part::Namespace => bound.namespace.clone().unwrap_or_default(),
            Part::Service => bound.service.clone().unwrap_or_default(),
        };
        self.0.iter().map(part).collect()
    }
}

impl<'de> Deserialize<'de> for Pattern {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        Self::parse(&text).map_err(D::Error::custom)
    }
}

impl<'de> Deserialize<'de> for Form {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        Self::parse(&text).map_err(D::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;
    use proptest::prelude::*;

    fn bound(pattern: &str, text: &str) -> Option<(String, String)> {
        let found = Pattern::parse(pattern).unwrap().matches(text)?;
        let part = |part: Option<String>| part.unwrap_or_default();
        Some((part(found.namespace), part(found.service)))
    }

    #[test]
    fn a_placeholder_stands_for_one_label() {
        let pair = |a: &str, b: &str| Some((a.to_owned(), b.to_owned()));
        assert_eq!(
            bound("{service}.{namespace}.example", "db.prod.example"),
            pair("prod", "db")
        );
        assert_eq!(
            bound(
                "spiffe://old/ns/{namespace}/sa/{service}",
                "spiffe://old/ns/a/sa/b"
            ),
            pair("a", "b")
        );
        assert_eq!(bound("host-*.{service}.x", "host-7.db.x"), pair("", "db"));
        assert_eq!(bound("host-7", "host-7"), pair("", ""));
        for (pattern, text) in [
            ("{service}.example", "a.b.example"),
            ("{service}.example", ".example"),
            ("{service}.example", "a.example.evil"),
            ("{service}.example", "A.example"),
            ("spiffe://old/sa/{service}", "spiffe://old/sa/a/b"),
            ("spiffe://old/sa/{service}", "spiffe://old/sa/a?b"),
            ("host-7", "host-77"),
            ("*", "a.b"),
        ] {
            assert_eq!(bound(pattern, text), None, "{pattern} {text}");
        }
        assert_eq!(bound("*", &"a".repeat(64)), None, "longer than a label");
    }

    #[test]
    fn a_pattern_that_could_be_read_in_two_ways_is_refused() {
        for (pattern, word) in [
            ("", "empty"),
            ("{service}{namespace}", "after a placeholder"),
            ("{service}-x", "after a placeholder"),
            ("*{service}", "after a placeholder"),
            ("{service}.{service}", "twice"),
            ("{pod}.x", "the placeholders are"),
            ("{service", "the placeholders are"),
            ("a}", "the placeholders are"),
        ] {
            let said = Pattern::parse(pattern).unwrap_err();
            assert!(said.contains(word), "{pattern}: {said}");
        }
        assert!(Form::parse("x-*").unwrap_err().contains("nothing"));
    }

    proptest! {
        #[test]
        fn what_is_filled_in_is_what_is_read_back(namespace in "[a-z0-9]{1,20}", service in "[a-z0-9-]{1,20}") {
            let text = "spiffe://x/ns/{namespace}/sa/{service}";
            let made = Form::parse(text).unwrap().fill(&Bindings {
                namespace: Some(namespace.clone()),
                service: Some(service.clone()),
            });
            prop_assert_eq!(bound(text, &made), Some((namespace, service)));
        }

        #[test]
        fn any_text_is_read_or_refused(pattern in ".{0,60}", text in ".{0,60}") {
            if let Ok(pattern) = Pattern::parse(&pattern) {
                let _ = pattern.matches(&text);
            }
        }
    }
}
