//! What the demo found: a step's checks and figures, the line for people, the document for programs.

use std::time::Duration;

use serde::Serialize;
use serde_json::{Map, Value};

use super::load::round;

/// The result of one step, made of observations. It holds when none of them contradicts.
#[derive(Debug, Default)]
pub(super) struct Findings {
    figure: String,
    proves: &'static str,
    detail: Map<String, Value>,
    contradicted: Vec<String>,
}

impl Findings {
    /// Findings of a step, and what it proves if they hold.
    pub(super) fn of(proves: &'static str) -> Self {
        Self {
            proves,
            ..Self::default()
        }
    }

    /// One observation: `statement` is what was expected, with the values that were seen.
    pub(super) fn check(&mut self, holds: bool, statement: impl Into<String>) {
        if !holds {
            self.contradicted.push(statement.into());
        }
    }

    /// The measured figure on the step's line.
    pub(super) fn figure(&mut self, figure: impl Into<String>) {
        self.figure = figure.into();
    }

    /// A field of the step's detail.
    pub(super) fn detail(&mut self, key: &str, value: impl Serialize) {
        let value = serde_json::to_value(value).unwrap_or(Value::Null);
        self.detail.insert(key.to_owned(), value);
    }
}

/// One step as it stands in the document.
#[derive(Debug, Serialize)]
pub(super) struct Step {
    pub(super) name: &'static str,
    pub(super) ok: bool,
    ms: f64,
    detail: Map<String, Value>,
    #[serde(skip)]
    figure: String,
    #[serde(skip)]
    proves: String,
}

impl Step {
    /// A step that ran, with its findings or the error that ended it.
    pub(super) fn ran(name: &'static str, took: Duration, found: Result<Findings, String>) -> Self {
        let mut step = Self {
            name,
            ok: false,
            ms: round(took),
            detail: Map::new(),
            figure: String::new(),
            proves: String::new(),
        };
        match found {
            Ok(findings) => {
                step.ok = findings.contradicted.is_empty();
                step.detail = findings.detail;
                step.figure = findings.figure;
                findings.proves.clone_into(&mut step.proves);
                if !step.ok {
                    step.proves = format!("expected {}", findings.contradicted.join("; "));
                    let expected = Value::from(findings.contradicted);
                    step.detail.insert("contradicted".to_owned(), expected);
                }
            }
            Err(error) => {
                step.proves = error.clone();
                step.detail.insert("error".to_owned(), Value::from(error));
            }
        }
        step
    }

    /// A step that was not tried, because one before it failed or the demo was interrupted.
    pub(super) fn skipped(name: &'static str, because: &str) -> Self {
        let reason = format!("not tried, because {because}");
        Self::ran(name, Duration::ZERO, Err(reason))
    }

    /// Names the processes that have ended meanwhile: they are why it failed.
    pub(super) fn blame(&mut self, fallen: Vec<String>) {
        if fallen.is_empty() {
            return;
        }
        self.proves = format!("{}: {}", fallen.join("; "), self.proves);
        self.detail.insert("fallen".to_owned(), Value::from(fallen));
    }

    /// The step's line: mark, name, figure, what it proves.
    pub(super) fn line(&self, colour: bool) -> String {
        let (mark, paint) = if self.ok {
            ("✓", "\u{1b}[32m")
        } else {
            ("✗", "\u{1b}[31m")
        };
        let mark = if colour {
            format!("{paint}{mark}\u{1b}[0m")
        } else {
            mark.to_owned()
        };
        let figure = if self.figure.is_empty() {
            format!("{:.0} ms", self.ms)
        } else {
            self.figure.clone()
        };
        format!("{mark} {:<13}{figure:<26} {}", self.name, self.proves)
    }
}

/// The whole document of `weft demo -o json`.
#[derive(Debug, Serialize)]
pub(super) struct Document {
    pub(super) version: &'static str,
    pub(super) steps: Vec<Step>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_step_is_ok_only_by_what_was_observed() {
        let mut findings = Findings::of("it works");
        findings.check(true, "one is one");
        findings.figure("1.0 ms");
        let step = Step::ran("request", Duration::from_millis(3), Ok(findings));
        assert!(step.ok);
        assert_eq!(
            step.line(false),
            format!("✓ request      {:<26} it works", "1.0 ms")
        );

        let mut findings = Findings::of("it works");
        findings.check(false, "status 200, saw 503");
        let step = Step::ran("request", Duration::ZERO, Ok(findings));
        assert!(!step.ok);
        assert!(step.line(false).ends_with("expected status 200, saw 503"));
        assert_eq!(step.detail["contradicted"][0], "status 200, saw 503");

        let mut failed = Step::ran("x", Duration::ZERO, Err("no answer".into()));
        assert!(!failed.ok);
        failed.blame(Vec::new());
        assert!(failed.line(false).ends_with(" no answer"));
        failed.blame(vec!["the process orders has ended (signal: 9)".to_owned()]);
        let line = failed.line(false);
        assert!(
            line.ends_with("the process orders has ended (signal: 9): no answer"),
            "{line}"
        );
        assert!(!Step::skipped("x", "'join' failed").ok);
    }
}
