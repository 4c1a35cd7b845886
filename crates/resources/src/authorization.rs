//! `AuthorizationPolicy` of `weft.dev/v1`: who may call what. The shape and meaning are those of Istio's,
//! with one difference: without any ALLOW policy for a service, nobody may call it.

use std::fmt;

use serde::de::{self, Deserializer};
use serde::ser::Serializer;
use serde::{Deserialize, Serialize};

use crate::error::Checker;
use crate::name::shorten;
use crate::reference::TargetRef;

/// Who may, or may not, call what.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields, rename_all = "camelCase")]
#[derive(Default)]
pub struct AuthorizationPolicySpec {
    /// The services that it protects. Without it, all of the policy's namespace.
    #[serde(deserialize_with = "some", skip_serializing_if = "Vec::is_empty")]
    pub target_refs: Vec<TargetRef>,
    /// What a match means.
    pub action: Action,
    /// Any of these. Without any, nothing matches; a rule `{}` matches everything.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub rules: Vec<AuthorizationRule>,
}

/// What a match means. DENY goes before ALLOW.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "UPPERCASE")]
pub enum Action {
    /// A match may pass, unless another policy denies it.
    #[default]
    Allow,
    /// A match may not pass, whatever else says.
    Deny,
}

/// Matches if one of `from` and one of `to` do. What is left out matches everything.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct AuthorizationRule {
    /// Who calls.
    #[serde(deserialize_with = "some", skip_serializing_if = "Vec::is_empty")]
    pub from: Vec<From>,
    /// What is called.
    #[serde(deserialize_with = "some", skip_serializing_if = "Vec::is_empty")]
    pub to: Vec<To>,
}

/// Who calls.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct From {
    /// Its description.
    pub source: Source,
}

/// Everything given must hold; in a list, one of its elements.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields, rename_all = "camelCase")]
pub struct Source {
    /// SPIFFE IDs, `spiffe://td/ns/x/sa/y` or without the scheme as Istio writes them.
    #[serde(deserialize_with = "some", skip_serializing_if = "Vec::is_empty")]
    pub principals: Vec<Pattern>,
    /// SPIFFE IDs that do not match.
    #[serde(deserialize_with = "some", skip_serializing_if = "Vec::is_empty")]
    pub not_principals: Vec<Pattern>,
    /// Namespaces.
    #[serde(deserialize_with = "some", skip_serializing_if = "Vec::is_empty")]
    pub namespaces: Vec<Pattern>,
}

/// What is called.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct To {
    /// Its description.
    pub operation: Operation,
}

/// Everything given must hold; in a list, one of its elements. Methods and paths are HTTP's: on a TCP port
/// an ALLOW that names them never matches, and a DENY is read as if they were not there.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields, rename_all = "camelCase")]
pub struct Operation {
    /// Methods, such as `GET`.
    #[serde(deserialize_with = "some", skip_serializing_if = "Vec::is_empty")]
    pub methods: Vec<Pattern>,
    /// Methods that do not match.
    #[serde(deserialize_with = "some", skip_serializing_if = "Vec::is_empty")]
    pub not_methods: Vec<Pattern>,
    /// Paths without query, compared in normal form.
    #[serde(deserialize_with = "some", skip_serializing_if = "Vec::is_empty")]
    pub paths: Vec<Pattern>,
    /// Paths that do not match.
    #[serde(deserialize_with = "some", skip_serializing_if = "Vec::is_empty")]
    pub not_paths: Vec<Pattern>,
    /// Ports of the service.
    #[serde(deserialize_with = "some", skip_serializing_if = "Vec::is_empty")]
    pub ports: Vec<Port>,
}

/// An empty list would mean "everybody" where its author may well have meant "nobody": refused.
fn some<'de, D, T>(deserializer: D) -> Result<Vec<T>, D::Error>
where
    D: Deserializer<'de>,
    T: Deserialize<'de>,
{
    let list = Vec::<T>::deserialize(deserializer)?;
    if list.is_empty() {
        return Err(de::Error::custom(
            "is an empty list, which would match everything: leave the field out, or name what should match",
        ));
    }
    Ok(list)
}

/// A text with at most one `*`, at its start or its end: exact, `prefix*`, `*suffix`, or `*` for anything
/// that is not empty.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(transparent)]
pub struct Pattern(String);

impl Pattern {
    /// Checks the place of the wildcard.
    ///
    /// # Errors
    /// The reason, if the text is empty, too long, or has a `*` elsewhere.
    pub fn new(text: &str) -> Result<Self, PatternError> {
        const MAX: usize = 2048;
        let inner = text
            .strip_prefix('*')
            .or_else(|| text.strip_suffix('*'))
            .unwrap_or(text);
        if text.is_empty() || text.len() > MAX || inner.contains('*') {
            return Err(PatternError(shorten(text)));
        }
        Ok(Self(text.to_owned()))
    }

    /// As written.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Whether it is exactly one text.
    #[must_use]
    pub fn is_exact(&self) -> bool {
        !self.0.contains('*')
    }

    /// Whether `text` fits.
    #[must_use]
    pub fn matches(&self, text: &str) -> bool {
        match (self.0.strip_suffix('*'), self.0.strip_prefix('*')) {
            (Some(""), _) => !text.is_empty(),
            (Some(prefix), _) => text.starts_with(prefix),
            (None, Some(suffix)) => text.ends_with(suffix),
            (None, None) => text == self.0,
        }
    }
}

/// A text that is not a pattern.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("'{0}' is not a pattern: a '*' may stand only once, at the start or at the end")]
pub struct PatternError(String);

impl<'de> Deserialize<'de> for Pattern {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        Self::new(&text).map_err(de::Error::custom)
    }
}

impl fmt::Display for Pattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// A port. Read from a number, or from a string as Istio writes it; written as a string.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Port(pub u16);

impl Serialize for Port {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(&self.0)
    }
}

impl<'de> Deserialize<'de> for Port {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Visitor;

        impl de::Visitor<'_> for Visitor {
            type Value = Port;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a port from 1 to 65535")
            }

            fn visit_u64<E: de::Error>(self, number: u64) -> Result<Port, E> {
                match u16::try_from(number) {
                    Ok(port) if port > 0 => Ok(Port(port)),
                    _ => Err(E::invalid_value(de::Unexpected::Unsigned(number), &self)),
                }
            }

            fn visit_i64<E: de::Error>(self, number: i64) -> Result<Port, E> {
                match u64::try_from(number) {
                    Ok(number) => self.visit_u64(number),
                    Err(_) => Err(E::invalid_value(de::Unexpected::Signed(number), &self)),
                }
            }

            fn visit_str<E: de::Error>(self, text: &str) -> Result<Port, E> {
                let digits = !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit());
                match text.parse() {
                    Ok(port) if digits && port > 0 => Ok(Port(port)),
                    _ => Err(E::invalid_value(de::Unexpected::Str(text), &self)),
                }
            }
        }

        deserializer.deserialize_any(Visitor)
    }
}

impl AuthorizationPolicySpec {
    pub(crate) fn check(&self, c: &mut Checker) {
        c.at_most("targetRefs", &self.target_refs, 16);
        c.each("targetRefs", &self.target_refs, |c, target| target.check(c));
        c.at_most("rules", &self.rules, 512);
        c.each("rules", &self.rules, |c, rule| {
            c.each("from", &rule.from, |c, from| {
                c.field("source", |c| from.source.check(c));
            });
            c.each("to", &rule.to, |c, to| {
                c.field("operation", |c| to.operation.check(c));
            });
        });
    }
}

impl Source {
    fn check(&self, c: &mut Checker) {
        if *self == Self::default() {
            c.problem("says nothing: name principals, notPrincipals or namespaces");
        }
        let principal = |c: &mut Checker, pattern: &Pattern| {
            let bare = pattern
                .as_str()
                .strip_prefix("spiffe://")
                .unwrap_or(pattern.as_str());
            let strange = |c: char| !c.is_ascii_alphanumeric() && !"._-/*".contains(c);
            let broken = bare.starts_with('/') || bare.contains(strange);
            if broken || pattern.is_exact() && !bare.contains('/') {
                c.problem(format!(
                    "'{pattern}' is not a SPIFFE ID: expected spiffe://<trust domain>/ns/<namespace>/sa/<service>"
                ));
            }
        };
        c.each("principals", &self.principals, principal);
        c.each("notPrincipals", &self.not_principals, principal);
    }
}

impl Operation {
    fn check(&self, c: &mut Checker) {
        if *self == Self::default() {
            c.problem("says nothing: name methods, notMethods, paths, notPaths or ports");
        }
        let path = |c: &mut Checker, pattern: &Pattern| {
            let text = pattern.as_str();
            if text.contains(['{', '}']) {
                c.problem(format!("'{text}' is a path template, which is not supported: use a '*' at the start or end"));
            } else if !text.starts_with(['/', '*']) {
                c.problem(format!("'{text}' can never match: a path starts with '/'"));
            } else if text.contains(['?', '#']) {
                c.problem(format!(
                    "'{text}' can never match: a path ends before '?' and '#'"
                ));
            }
        };
        c.each("paths", &self.paths, path);
        c.each("notPaths", &self.not_paths, path);
        let method = |c: &mut Checker, pattern: &Pattern| {
            if pattern.as_str().bytes().any(|b| b.is_ascii_lowercase()) {
                c.problem(format!(
                    "'{pattern}' can never match: methods are upper-case"
                ));
            }
        };
        c.each("methods", &self.methods, method);
        c.each("notMethods", &self.not_methods, method);
    }
}
