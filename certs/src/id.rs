//! SPIFFE IDs and trust domains (SPIFFE-ID §2).
//!
//! The standard calls scheme and trust domain "case-insensitive" but allows only lower case in them: like
//! go-spiffe we refuse upper case, so that two IDs are the same if and only if their bytes are.

use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::Error;
use crate::error::shown;

const SCHEME: &str = "spiffe://";
/// SPIFFE-ID §2.3: 2048 bytes must be supported, more should not be emitted. We refuse more.
const MAX_ID: usize = 2048;
/// SPIFFE-ID §2.1.
const MAX_TRUST_DOMAIN: usize = 255;

/// The name of a realm with its own authority, such as `weft.local` (SPIFFE-ID §2.1).
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct TrustDomain(Arc<str>);

impl TrustDomain {
    /// Reads a bare name (`weft.local`) or takes the trust domain out of any SPIFFE ID.
    ///
    /// # Errors
    /// [`Error::TrustDomain`] or [`Error::Id`] with the rule that the text breaks.
    pub fn parse(text: &str) -> Result<Self, Error> {
        if text.starts_with(SCHEME) {
            return SpiffeId::parse(text).map(|id| id.trust_domain);
        }
        check_trust_domain(text).map_err(|reason| Error::TrustDomain {
            text: shown(text),
            reason,
        })?;
        Ok(Self(text.into()))
    }

    /// The bare name.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The ID of the trust domain itself, `spiffe://weft.local`, which authorities carry.
    pub fn id(&self) -> SpiffeId {
        SpiffeId {
            text: format!("{SCHEME}{self}").into(),
            trust_domain: self.clone(),
        }
    }
}

/// A SPIFFE ID: `spiffe://<trust domain>[/segment]*`.
///
/// ```
/// # use weft_certs::{SpiffeId, TrustDomain};
/// let td = TrustDomain::parse("weft.local")?;
/// let id = SpiffeId::for_service(&td, "default", "invoices")?;
/// assert_eq!(id.to_string(), "spiffe://weft.local/ns/default/sa/invoices");
/// assert_eq!(id.service(), Some(("default", "invoices")));
/// # Ok::<(), weft_certs::Error>(())
/// ```
#[derive(Clone)]
pub struct SpiffeId {
    text: Arc<str>,
    trust_domain: TrustDomain,
}

impl SpiffeId {
    /// Reads an ID. One without a path is legal: it names the trust domain.
    ///
    /// # Errors
    /// [`Error::Id`] with the rule of SPIFFE-ID §2 that the text breaks.
    pub fn parse(text: &str) -> Result<Self, Error> {
        let fail = |reason| Error::Id {
            text: shown(text),
            reason,
        };
        if text.len() > MAX_ID {
            return Err(fail("it is longer than 2048 bytes"));
        }
        let rest = text
            .strip_prefix(SCHEME)
            .ok_or_else(|| fail("it must begin with spiffe://, in lower case"))?;
        let (name, path) = rest.split_at(rest.find('/').unwrap_or(rest.len()));
        check_trust_domain(name).map_err(fail)?;
        check_path(path).map_err(fail)?;
        Ok(Self {
            text: text.into(),
            trust_domain: TrustDomain(name.into()),
        })
    }

    /// The ID of a service: `spiffe://<td>/ns/<namespace>/sa/<name>`.
    ///
    /// # Errors
    /// [`Error::Id`] if a part is not one path segment. Names that `weft-resources` has validated always are.
    pub fn for_service(
        trust_domain: &TrustDomain,
        namespace: &str,
        name: &str,
    ) -> Result<Self, Error> {
        let text = format!("{SCHEME}{trust_domain}/ns/{namespace}/sa/{name}");
        let id = Self::parse(&text)?;
        if id.service() != Some((namespace, name)) {
            return Err(Error::Id {
                text: shown(&text),
                reason: "namespace and service name are one path segment each",
            });
        }
        Ok(id)
    }

    /// The trust domain.
    pub fn trust_domain(&self) -> &TrustDomain {
        &self.trust_domain
    }

    /// The path with its leading slash; empty for the ID of a trust domain.
    pub fn path(&self) -> &str {
        &self.text[SCHEME.len() + self.trust_domain.0.len()..]
    }

    /// Namespace and name, if the path is `/ns/<namespace>/sa/<name>` and nothing else.
    pub fn service(&self) -> Option<(&str, &str)> {
        let mut segments = self.path().split('/');
        let parts = [
            segments.next()?,
            segments.next()?,
            segments.next()?,
            segments.next()?,
            segments.next()?,
        ];
        match (parts, segments.next()) {
            (["", "ns", namespace, "sa", name], None) => Some((namespace, name)),
            _ => None,
        }
    }

    /// The whole ID as text.
    pub fn as_str(&self) -> &str {
        &self.text
    }
}

fn check_trust_domain(name: &str) -> Result<(), &'static str> {
    let legal = |b: u8| matches!(b, b'a'..=b'z' | b'0'..=b'9' | b'.' | b'-' | b'_');
    match name.len() {
        0 => return Err("the trust domain is empty"),
        len if len > MAX_TRUST_DOMAIN => return Err("the trust domain is longer than 255 bytes"),
        _ => {}
    }
    match name.bytes().all(legal) {
        true => Ok(()),
        false => {
            Err("a trust domain has only lower case letters, digits, dots, dashes and underscores")
        }
    }
}

fn check_path(path: &str) -> Result<(), &'static str> {
    let legal = |b: u8| matches!(b, b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'.' | b'-' | b'_');
    // The text before the first slash is the trust domain, so the first piece is always empty.
    for segment in path.split('/').skip(1) {
        match segment {
            "" => return Err("a path segment is empty (no trailing or double slash)"),
            "." | ".." => return Err("a path segment may not be . or .."),
            _ if !segment.bytes().all(legal) => {
                return Err(
                    "a path has only letters, digits, dots, dashes and underscores between its slashes",
                );
            }
            _ => {}
        }
    }
    Ok(())
}

impl PartialEq for SpiffeId {
    fn eq(&self, other: &Self) -> bool {
        self.text == other.text
    }
}

impl Eq for SpiffeId {}

impl PartialOrd for SpiffeId {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for SpiffeId {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        self.text.cmp(&other.text)
    }
}

impl std::hash::Hash for SpiffeId {
    fn hash<H: std::hash::Hasher>(&self, state: &mut H) {
        self.text.hash(state);
    }
}

/// Text forms, the same for both types: `Display`, `Debug`, `FromStr`, serde as a string.
macro_rules! text_forms {
    ($name:ident) => {
        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(self.as_str())
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(self.as_str())
            }
        }

        impl FromStr for $name {
            type Err = Error;

            fn from_str(text: &str) -> Result<Self, Error> {
                Self::parse(text)
            }
        }

        impl Serialize for $name {
            fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                serializer.serialize_str(self.as_str())
            }
        }

        impl<'de> Deserialize<'de> for $name {
            fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                let text = std::borrow::Cow::<'de, str>::deserialize(deserializer)?;
                Self::parse(&text).map_err(serde::de::Error::custom)
            }
        }
    };
}

text_forms!(TrustDomain);
text_forms!(SpiffeId);

#[cfg(test)]
#[path = "id_tests.rs"]
mod tests;
