//! A request as decisions see it.

use std::borrow::Cow;

use http::{HeaderMap, Method};

use crate::path::{PathError, normalize_path};

/// The head of a request, its path in normal form. A head whose path has none cannot be made, so no decision
/// can be taken on a path that the application would read differently.
#[derive(Debug, Clone)]
pub struct RequestHead<'r> {
    method: &'r Method,
    path: Cow<'r, str>,
    query: Option<&'r str>,
    headers: &'r HeaderMap,
}

impl<'r> RequestHead<'r> {
    /// From the parts of a request: `path` as it came, without query.
    ///
    /// # Errors
    /// [`PathError`] if the path has no normal form.
    pub fn new(
        method: &'r Method,
        path: &'r str,
        query: Option<&'r str>,
        headers: &'r HeaderMap,
    ) -> Result<Self, PathError> {
        Ok(Self {
            method,
            path: normalize_path(path)?,
            query,
            headers,
        })
    }

    /// From the head of a request.
    ///
    /// # Errors
    /// [`PathError`] if the path has no normal form.
    pub fn of(parts: &'r http::request::Parts) -> Result<Self, PathError> {
        let uri = &parts.uri;
        Self::new(&parts.method, uri.path(), uri.query(), &parts.headers)
    }

    /// The method.
    #[must_use]
    pub fn method(&self) -> &'r Method {
        self.method
    }

    /// The path in normal form.
    #[must_use]
    pub fn path(&self) -> &str {
        &self.path
    }

    /// The path to forward, if it is not the one that came: decisions were made about this spelling.
    #[must_use]
    pub fn rewritten_path(&self) -> Option<&str> {
        match &self.path {
            Cow::Owned(path) => Some(path),
            Cow::Borrowed(_) => None,
        }
    }

    /// The query as it came, without `?`.
    #[must_use]
    pub fn query(&self) -> Option<&'r str> {
        self.query
    }

    /// The headers.
    #[must_use]
    pub fn headers(&self) -> &'r HeaderMap {
        self.headers
    }
}
