//! What a route's filters do to headers.

use http::{HeaderMap, HeaderName, HeaderValue};

/// Changes to headers, made in this order: set, add, remove.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct HeaderEdits {
    /// Replace every value of the name.
    pub set: Vec<(HeaderName, HeaderValue)>,
    /// Add to the values of the name.
    pub add: Vec<(HeaderName, HeaderValue)>,
    /// Remove every value of the name.
    pub remove: Vec<HeaderName>,
}

impl HeaderEdits {
    /// Whether there is nothing to do.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }

    /// Changes `headers`.
    pub fn apply(&self, headers: &mut HeaderMap) {
        for (name, value) in &self.set {
            headers.insert(name, value.clone());
        }
        for (name, value) in &self.add {
            headers.append(name, value.clone());
        }
        for name in &self.remove {
            headers.remove(name);
        }
    }
}
