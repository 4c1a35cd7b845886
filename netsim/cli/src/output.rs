//! What a command says: results on standard output, notes on standard error.

use std::io::{self, Write};

use serde::Serialize;
use weft_netsim_tun::{DirectionReport, LatenessReport, LinkReport};

use crate::args::Format;
use crate::failure::Failure;

/// Writes a result. A reader that has gone ends the program quietly, as is the custom.
pub(crate) fn result(text: &str) -> Result<(), Failure> {
    let mut out = io::stdout().lock();
    match writeln!(out, "{}", text.trim_end()).and_then(|()| out.flush()) {
        Err(error) if error.kind() != io::ErrorKind::BrokenPipe => Err(Failure::io(
            "write to standard output",
            "check where it goes",
        )(error)),
        _ => Ok(()),
    }
}

/// Writes a result as JSON, or as the lines that `table` makes.
pub(crate) fn show<T: Serialize>(
    format: Format,
    value: &T,
    table: impl FnOnce() -> String,
) -> Result<(), Failure> {
    match format {
        Format::Table => result(&table()),
        Format::Json => result(&json(value)?),
    }
}

/// A value as JSON.
pub(crate) fn json<T: Serialize>(value: &T) -> Result<String, Failure> {
    serde_json::to_string_pretty(value).map_err(|error| {
        Failure::io("write the result as JSON", "report this as a bug")(error.into())
    })
}

/// Writes a note; where nobody listens, nobody misses it.
pub(crate) fn note(text: &str) {
    let _ = writeln!(io::stderr().lock(), "{}", text.trim_end());
}

/// What links did, beside the bare timer of the same time.
#[derive(Debug, Serialize)]
pub(crate) struct RunReport {
    /// Whether a measurement over these links is to be repeated.
    pub(crate) late: bool,
    /// The links.
    pub(crate) links: Vec<LinkReport>,
    /// How late a bare timer was.
    pub(crate) bare_timer: LatenessReport,
}

impl RunReport {
    pub(crate) fn new(links: Vec<LinkReport>, bare_timer: LatenessReport) -> Self {
        Self {
            late: links.iter().any(LinkReport::late),
            links,
            bare_timer,
        }
    }

    /// Lines for people.
    pub(crate) fn table(&self) -> String {
        let mut text = String::new();
        for link in &self.links {
            for (from, to, way) in [
                (&link.a, &link.b, &link.forward),
                (&link.b, &link.a, &link.backward),
            ] {
                text += &format!("{from} -> {to}: {}\n", way_in_words(way));
            }
            if let Some(why) = &link.ended {
                text += &format!("{} - {} ended early: {why}\n", link.a, link.b);
            }
        }
        text += &format!("bare timer: {}\n", lateness_in_words(&self.bare_timer));
        if self.late {
            text += "LATE: this machine took the CPU away for too long; what was measured here \
                     shows the machine, repeat it\n";
        }
        text
    }
}

fn way_in_words(way: &DirectionReport) -> String {
    let lost = &way.lost;
    let causes: Vec<String> = [
        ("at random", lost.random),
        ("queue full", lost.queue_full),
        ("too big", lost.too_big),
        ("outage", lost.outage),
        ("NAT", lost.nat),
        ("refused by the kernel", lost.refused),
        ("too many under way", lost.overflow),
        ("device not read in time", lost.device),
    ]
    .iter()
    .filter(|(_, count)| *count > 0)
    .map(|(cause, count)| format!("{count} {cause}"))
    .collect();
    let lost = if causes.is_empty() {
        "none lost".to_owned()
    } else {
        format!("lost: {}", causes.join(", "))
    };
    format!(
        "{} packets in, {} out; {lost}; released late: {}",
        way.entered,
        way.delivered,
        lateness_in_words(&way.lateness)
    )
}

/// Percentiles in one line.
pub(crate) fn lateness_in_words(late: &LatenessReport) -> String {
    if late.count == 0 {
        return "nothing measured".to_owned();
    }
    format!(
        "p50 {:.3} p99 {:.3} p99.9 {:.3} max {:.3} ms",
        late.p50_ms, late.p99_ms, late.p999_ms, late.max_ms
    )
}
