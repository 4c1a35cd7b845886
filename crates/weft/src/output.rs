//! What a command says on standard output: tables for people, JSON and YAML for programs.

use std::io::{self, Write};

use clap::ValueEnum;
use serde::Serialize;

use crate::failure::Failure;

/// Form of a command's output.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Format {
    /// Aligned columns, for people
    Table,
    /// One JSON document
    Json,
    /// YAML
    Yaml,
}

/// Writes a line. A reader that has gone (`weft get | head`) ends the program quietly, as is the custom.
pub(crate) fn line(text: &str) -> Result<(), Failure> {
    match write(text) {
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => std::process::exit(0),
        written => written.map_err(unwritten),
    }
}

/// The same, for a command that has more to do than to be read: there a reader that has gone is a failure.
pub(crate) fn line_of(what: &str, text: &str) -> Result<(), Failure> {
    write(text).map_err(|error| match error.kind() {
        io::ErrorKind::BrokenPipe => Failure::new(
            what,
            "whoever read its output has gone",
            "it ended there and took everything down; send the output to a file to read a part of it",
        ),
        _ => unwritten(error),
    })
}

fn write(text: &str) -> io::Result<()> {
    let mut out = io::stdout().lock();
    out.write_all(text.as_bytes())?;
    if !text.ends_with('\n') {
        out.write_all(b"\n")?;
    }
    out.flush()
}

fn unwritten(error: io::Error) -> Failure {
    Failure::new("write to standard output", error, "check where it goes")
}

/// So many of a noun, each form with what agrees with it: "1 token is void", "2 tokens are void".
pub(crate) fn counted(count: usize, one: &str, many: &str) -> String {
    format!("{count} {}", if count == 1 { one } else { many })
}

/// Writes `value` as JSON or YAML, or for a table what `table` makes.
pub(crate) fn show<T: Serialize>(
    format: Format,
    value: &T,
    table: impl FnOnce() -> String,
) -> Result<(), Failure> {
    match format {
        Format::Table => line(&table()),
        Format::Json => {
            let text = serde_json::to_string_pretty(value)
                .map_err(|error| Failure::because("write the result as JSON", &error))?;
            line(&text)
        }
        Format::Yaml => {
            let text = serde_saphyr::to_string(value)
                .map_err(|error| Failure::because("write the result as YAML", &error))?;
            line(&text)
        }
    }
}

/// Rows under headings, columns two spaces apart, no trailing blanks. With no row: `nothing`.
pub(crate) struct Table {
    head: Vec<&'static str>,
    rows: Vec<Vec<String>>,
    nothing: &'static str,
}

impl Table {
    pub(crate) fn new(head: &[&'static str], nothing: &'static str) -> Self {
        Self {
            head: head.to_vec(),
            rows: Vec::new(),
            nothing,
        }
    }

    pub(crate) fn row<const N: usize>(&mut self, cells: [String; N]) {
        debug_assert_eq!(N, self.head.len());
        self.rows.push(cells.to_vec());
    }

    pub(crate) fn render(&self) -> String {
        if self.rows.is_empty() {
            return self.nothing.to_owned();
        }
        let head: Vec<String> = self.head.iter().map(|cell| (*cell).to_owned()).collect();
        let width = |column: usize| {
            std::iter::once(&head)
                .chain(&self.rows)
                .map(|row| row[column].chars().count())
                .max()
                .unwrap_or(0)
        };
        let widths: Vec<usize> = (0..head.len()).map(width).collect();
        let mut out = String::new();
        for row in std::iter::once(&head).chain(&self.rows) {
            let mut text = String::new();
            for (cell, width) in row.iter().zip(&widths) {
                text.push_str(cell);
                let pad = width - cell.chars().count() + 2;
                text.extend(std::iter::repeat_n(' ', pad));
            }
            out.push_str(text.trim_end());
            out.push('\n');
        }
        out
    }
}

/// A span of time as people say it: the two largest units, such as `59m 12s`; below a second in ms.
pub(crate) fn span(duration: std::time::Duration) -> String {
    let total = duration.as_secs();
    let (days, hours, minutes, seconds) = (
        total / 86400,
        total / 3600 % 24,
        total / 60 % 60,
        total % 60,
    );
    match (days, hours, minutes, seconds) {
        (0, 0, 0, 0) => format!("{}ms", duration.as_millis()),
        (0, 0, 0, s) => format!("{s}s"),
        (0, 0, m, s) => format!("{m}m {s}s"),
        (0, h, m, _) => format!("{h}h {m}m"),
        (d, h, _, _) => format!("{d}d {h}h"),
    }
}

/// Microseconds as milliseconds with as many decimals as help.
pub(crate) fn millis(us: u64) -> String {
    #[allow(clippy::cast_precision_loss, reason = "shown with three digits")]
    let ms = us as f64 / 1000.0;
    if ms < 10.0 {
        format!("{ms:.2} ms")
    } else {
        format!("{ms:.1} ms")
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    #[test]
    fn one_is_singular_and_none_is_plural() {
        let told = |count| counted(count, "token is void", "tokens are void");
        assert_eq!(told(0), "0 tokens are void");
        assert_eq!(told(1), "1 token is void");
        assert_eq!(told(2), "2 tokens are void");
    }

    #[test]
    fn columns_are_as_wide_as_their_widest_cell() {
        let mut table = Table::new(&["NAME", "KIND"], "nothing yet");
        assert_eq!(table.render(), "nothing yet");
        table.row(["a→b".to_owned(), "x".to_owned()]);
        table.row(["longer".to_owned(), String::new()]);
        assert_eq!(table.render(), "NAME    KIND\na→b     x\nlonger\n");
    }

    #[test]
    fn spans_show_their_two_largest_units() {
        for (ms, text) in [
            (12, "12ms"),
            (7_000, "7s"),
            (61_000, "1m 1s"),
            (3_600_000, "1h 0m"),
            (864_000_000, "10d 0h"),
        ] {
            assert_eq!(span(Duration::from_millis(ms)), text);
        }
        assert_eq!(millis(1234), "1.23 ms");
        assert_eq!(millis(12_345), "12.3 ms");
    }
}
