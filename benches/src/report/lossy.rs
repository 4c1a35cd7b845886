//! Tables of what was found over bad links.

use crate::lossy::{Condition, Found, Load, Lossy, Peer, Row};
use crate::stats::Spread;

/// All of it: a table for each kind of traffic, a column for each link.
pub(crate) fn tables(lossy: &Lossy) -> String {
    let mut loads: Vec<(Load, bool)> = Vec::new();
    for row in &lossy.rows {
        let group = group(&row.condition);
        if !loads.contains(&group) {
            loads.push(group);
        }
    }
    let tables = loads.into_iter().map(|of| table(lossy, of));
    tables.collect::<Vec<_>>().join("\n")
}

/// Conditions of the same table: one traffic, with a given loss or over the other links.
fn group(condition: &Condition) -> (Load, bool) {
    (condition.load, condition.loss.is_some())
}

fn table(lossy: &Lossy, of: (Load, bool)) -> String {
    let rows = || lossy.rows.iter().filter(|row| group(&row.condition) == of);
    let (mut conditions, mut peers): (Vec<&Condition>, Vec<Peer>) = (Vec::new(), Vec::new());
    for row in rows() {
        if !conditions.contains(&&row.condition) {
            conditions.push(&row.condition);
        }
        if !peers.contains(&row.peer) {
            peers.push(row.peer);
        }
    }
    peers.sort_unstable();
    let heads: Vec<String> = conditions.iter().map(|c| c.link()).collect();
    let mut text = format!(
        "### {}\n\n{}\n\n| pair | {} |\n|---|{}\n",
        heading(of),
        explanation(of.0),
        heads.join(" | "),
        "---|".repeat(heads.len())
    );
    for peer in peers {
        let cell = |condition: &&Condition| {
            let row = rows().find(|row| row.peer == peer && row.condition == **condition);
            row.map_or_else(|| "–".to_owned(), cell)
        };
        let cells: Vec<String> = conditions.iter().map(cell).collect();
        text.push_str(&format!("| {} | {} |\n", peer.title(), cells.join(" | ")));
    }
    text
}

fn heading((load, given_loss): (Load, bool)) -> String {
    let link = match given_loss {
        true => "80 ms, 100 Mb/s",
        false => "the other links",
    };
    match load {
        Load::Requests { size, rate } => {
            format!("{} KiB, {rate} requests/s, {link}", size / 1024)
        }
        Load::Bulk { size, streams } => {
            format!("{streams} downloads of {} MB, {link}", size / 1_000_000)
        }
    }
}

fn explanation(load: Load) -> &'static str {
    match load {
        Load::Requests { .. } => {
            "p50 / p99 / p99.9 in ms, medians over the seeds, in brackets the range of the p99."
        }
        Load::Bulk { .. } => {
            "Goodput in Mb/s: bytes of bodies that arrived, median over the seeds (range)."
        }
    }
}

/// What one pair did under one condition, in words.
fn cell(row: &Row) -> String {
    let found: Vec<&Found> = found(row).collect();
    if found.is_empty() {
        let reason = row.turns.iter().find_map(|turn| turn.found.as_ref().err());
        return format!(
            "not measured: {}",
            reason.map_or("no reason is known", String::as_str)
        );
    }
    let mut text = match row.condition.load {
        Load::Requests { .. } => percentiles(&found),
        Load::Bulk { .. } => range(found.iter().map(|found| goodput_mbit(found)), 1),
    };
    let errors: u64 = found.iter().map(|found| found.outcome.errors).sum();
    if errors > 0 {
        text.push_str(&format!(", {errors} failed"));
    }
    if found.iter().any(|found| found.late) {
        text.push_str(" †");
    }
    text
}

fn percentiles(found: &[&Found]) -> String {
    let caught_up: Vec<&&Found> = found.iter().filter(|found| found.caught_up()).collect();
    if caught_up.is_empty() {
        return "never caught up".to_owned();
    }
    let median = |figure: fn(&crate::load::Latency) -> f64| {
        let values = caught_up.iter().filter_map(|found| found.outcome.latency);
        Spread::of(values.map(|latency| figure(&latency) / 1e3)).map_or(f64::NAN, |s| s.median)
    };
    let p99 = caught_up.iter().filter_map(|found| found.outcome.latency);
    let mut text = format!(
        "{} / {} / {}",
        ms(median(|l| l.p50)),
        range(p99.map(|latency| latency.p99 / 1e3), 0),
        ms(median(|l| l.p999))
    );
    if caught_up.len() < found.len() {
        let never = found.len() - caught_up.len();
        text.push_str(&format!("; {never} of {} never caught up", found.len()));
    }
    text
}

/// Milliseconds, with a digit more where they are few.
fn ms(value: f64) -> String {
    match value < 10.0 {
        true => format!("{value:.2}"),
        false => format!("{value:.0}"),
    }
}

fn range(values: impl Iterator<Item = f64>, digits: usize) -> String {
    let values: Vec<f64> = values.collect();
    let Some(spread) = Spread::of(values.iter().copied()) else {
        return "–".to_owned();
    };
    let digits = if spread.median < 10.0 { 2 } else { digits };
    let (low, high) = values.iter().fold((f64::MAX, f64::MIN), |(low, high), v| {
        (low.min(*v), high.max(*v))
    });
    match values.len() {
        1 => format!("{:.digits$}", spread.median),
        _ => format!(
            "{:.digits$} ({low:.digits$}–{high:.digits$})",
            spread.median
        ),
    }
}

/// The turns of a row that found something.
pub(crate) fn found(row: &Row) -> impl Iterator<Item = &Found> {
    row.turns.iter().filter_map(|turn| turn.found.as_ref().ok())
}

/// Mb/s of bodies.
pub(crate) fn goodput_mbit(found: &Found) -> f64 {
    found.outcome.gigabits() * 1e3
}
