//! What is wrong with a resource, and where.

use std::fmt;

use serde::{Deserialize, Serialize};

/// One thing wrong with what an operator wrote.
///
/// Shown as `routes.yaml:12:7: spec.rules[0].timeouts.request: '5 s' is not a duration: …`.
/// Input that has no lines (JSON from the store or the wire) has line 0 and column 0.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
pub struct ResourceError {
    /// File, or what else the text came from.
    pub origin: String,
    /// Line of the field at fault, from 1. 0 if there are no lines.
    pub line: u64,
    /// Column of the field at fault in characters, from 1. 0 if there are no lines.
    pub column: u64,
    /// The field at fault, such as `spec.rules[0].timeouts.request`. Empty for the whole document.
    pub path: String,
    /// Why, in one sentence.
    pub reason: String,
}

impl fmt::Display for ResourceError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if !self.origin.is_empty() {
            write!(f, "{}:", self.origin)?;
        }
        if self.line > 0 {
            write!(f, "{}:{}:", self.line, self.column)?;
        }
        if !self.origin.is_empty() || self.line > 0 {
            f.write_str(" ")?;
        }
        if !self.path.is_empty() {
            write!(f, "{}: ", self.path)?;
        }
        f.write_str(&self.reason)
    }
}

/// One step from a document's root to a field.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Step {
    Key(String),
    Index(usize),
}

/// `spec.rules[0].matches[1].path`.
pub(crate) fn show_path(steps: &[Step]) -> String {
    let mut out = String::new();
    for step in steps {
        match step {
            Step::Key(key) => {
                if !out.is_empty() {
                    out.push('.');
                }
                out.push_str(&crate::name::shorten(key));
            }
            Step::Index(index) => out.push_str(&format!("[{index}]")),
        }
    }
    out
}

/// What a check of a whole resource found wrong.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Problem {
    pub(crate) path: Vec<Step>,
    pub(crate) reason: String,
}

/// Collects problems while a check walks down a resource.
#[derive(Debug, Default)]
pub(crate) struct Checker {
    path: Vec<Step>,
    problems: Vec<Problem>,
}

impl Checker {
    /// Runs `check` one field down.
    pub(crate) fn field(&mut self, key: &str, check: impl FnOnce(&mut Self)) {
        self.path.push(Step::Key(key.to_owned()));
        check(self);
        self.path.pop();
    }

    /// Runs `check` on each element of the list `key`.
    pub(crate) fn each<'t, T>(
        &mut self,
        key: &str,
        list: &'t [T],
        mut check: impl FnMut(&mut Self, &'t T),
    ) {
        self.field(key, |c| {
            for (index, item) in list.iter().enumerate() {
                c.path.push(Step::Index(index));
                check(c, item);
                c.path.pop();
            }
        });
    }

    /// Notes a problem with the field reached.
    pub(crate) fn problem(&mut self, reason: impl Into<String>) {
        self.problems.push(Problem {
            path: self.path.clone(),
            reason: reason.into(),
        });
    }

    /// Notes a problem with `key` of the field reached.
    pub(crate) fn problem_at(&mut self, key: &str, reason: impl Into<String>) {
        self.field(key, |c| c.problem(reason));
    }

    /// Notes the error of a check on `key`, if it is one.
    pub(crate) fn require<E: fmt::Display>(&mut self, key: &str, result: Result<(), E>) {
        if let Err(error) = result {
            self.problem_at(key, error.to_string());
        }
    }

    /// Notes a problem if the list `key` is longer than the Gateway API allows.
    pub(crate) fn at_most<T>(&mut self, key: &str, list: &[T], limit: usize) {
        if list.len() > limit {
            self.problem_at(
                key,
                format!("has {} elements, at most {limit} are allowed", list.len()),
            );
        }
    }

    pub(crate) fn into_problems(self) -> Vec<Problem> {
        self.problems
    }
}
