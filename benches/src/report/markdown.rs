//! Tables.

use crate::compare::{Case, Comparison, Row, Traffic};
use crate::load::Outcome;
use crate::micro::Cost;
use crate::pairs::Kind;
use crate::scale::Mesh;
use crate::stats::Spread;

/// What a ratio is taken to.
const BASELINE: Kind = Kind::TlsCopy;

/// Every kind of traffic in a table of its own.
pub(crate) fn comparison(comparison: &Comparison) -> String {
    let mut cases: Vec<Case> = Vec::new();
    for row in &comparison.rows {
        if !cases.contains(&row.case) {
            cases.push(row.case);
        }
    }
    let tables = cases.into_iter().map(|case| {
        let rows: Vec<&Row> = comparison
            .rows
            .iter()
            .filter(|row| row.case == case)
            .collect();
        table(case, &rows)
    });
    tables.collect::<Vec<_>>().join("\n")
}

fn table(case: Case, rows: &[&Row]) -> String {
    let bulk = matches!(case.traffic, Traffic::Bulk { .. });
    let head: &[&str] = if bulk {
        &[
            "pair",
            "Gb/s",
            "CPU s/GB",
            "Gb/s, ratio to TLS copy",
            "RSS MiB",
        ]
    } else {
        &[
            "pair",
            "CPU µs/req",
            "CPU, ratio to TLS copy",
            "req/s",
            "p50 µs",
            "p90",
            "p99",
            "p99.9",
            "RSS MiB",
            "failed",
        ]
    };
    let baseline = rows.iter().find(|row| row.kind == BASELINE).copied();
    let mut text = format!(
        "### {}\n\n| {} |\n|{}\n",
        case.title(),
        head.join(" | "),
        "---|".repeat(head.len())
    );
    for row in rows {
        let cells = if bulk {
            bulk_cells(row, baseline)
        } else {
            request_cells(row, baseline)
        };
        text.push_str(&format!("| {} |\n", cells.join(" | ")));
    }
    text
}

fn request_cells(row: &Row, baseline: Option<&Row>) -> Vec<String> {
    let mut cells = vec![row.kind.title().to_owned()];
    if row.turns.iter().all(Option::is_none) {
        cells.push(format!(
            "not measured: {}",
            row.not_measured.as_deref().unwrap_or("no reason is known")
        ));
        cells.resize(10, String::new());
        return cells;
    }
    let proxies = row.kind != Kind::Direct;
    let cpu = |outcome: &Outcome| outcome.cpu_per_request().filter(|_| proxies);
    cells.push(show(&row.figures(cpu), 1));
    cells.push(ratio(
        row,
        baseline.filter(|_| proxies),
        Outcome::cpu_per_request,
    ));
    cells.push(show(&row.figures(|outcome| Some(outcome.rate())), 0));
    for quantile in [
        |outcome: &Outcome| outcome.latency.map(|latency| latency.p50),
        |outcome: &Outcome| outcome.latency.map(|latency| latency.p90),
        |outcome: &Outcome| outcome.latency.map(|latency| latency.p99),
        |outcome: &Outcome| outcome.latency.map(|latency| latency.p999),
    ] {
        cells.push(median(&row.figures(quantile), 0));
    }
    cells.push(memory(row));
    cells.push(row.errors().to_string());
    cells
}

fn bulk_cells(row: &Row, baseline: Option<&Row>) -> Vec<String> {
    let mut cells = vec![row.kind.title().to_owned()];
    if row.turns.iter().all(Option::is_none) {
        cells.push(format!(
            "not measured: {}",
            row.not_measured.as_deref().unwrap_or("no reason is known")
        ));
        cells.resize(5, String::new());
        return cells;
    }
    let rate = |outcome: &Outcome| Some(outcome.gigabits());
    cells.push(show(&row.figures(rate), 2));
    let proxies = row.kind != Kind::Direct;
    cells.push(show(
        &row.figures(|outcome| outcome.cpu_per_gigabyte().filter(|_| proxies)),
        2,
    ));
    cells.push(ratio(row, baseline, rate));
    cells.push(memory(row));
    cells
}

fn ratio(row: &Row, baseline: Option<&Row>, figure: impl Fn(&Outcome) -> Option<f64>) -> String {
    let ratio = baseline
        .and_then(|baseline| Spread::of_ratios(&row.figures(&figure), &baseline.figures(&figure)));
    ratio.map_or_else(|| "–".to_owned(), |ratio| ratio.show(2))
}

/// A figure of a pair, to that of the TLS copy pair.
pub(crate) fn ratio_of(
    comparison: &Comparison,
    kind: Kind,
    case: Case,
    figure: impl Fn(&Outcome) -> Option<f64>,
) -> String {
    let row = |kind| {
        let mut rows = comparison.rows.iter();
        rows.find(|row| row.kind == kind && row.case == case)
    };
    let Some(above) = row(kind).filter(|row| row.turns.iter().any(Option::is_some)) else {
        return "not measured".to_owned();
    };
    ratio(above, row(BASELINE), figure)
}

fn memory(row: &Row) -> String {
    let rss = row.figures(|outcome| Some(outcome.proxies.rss as f64 / 1_048_576.0));
    match row.kind {
        Kind::Direct => "–".to_owned(),
        _ => median(&rss, 0),
    }
}

fn show(figures: &[Option<f64>], digits: usize) -> String {
    Spread::of(figures.iter().flatten().copied())
        .map_or_else(|| "–".to_owned(), |spread| spread.show(digits))
}

fn median(figures: &[Option<f64>], digits: usize) -> String {
    let spread = Spread::of(figures.iter().flatten().copied());
    spread.map_or_else(
        || "–".to_owned(),
        |spread| format!("{:.digits$}", spread.median),
    )
}

/// The parts by themselves.
pub(crate) fn parts(costs: &[Cost]) -> String {
    let mut text = "| part | µs | instructions |\n|---|---|---|\n".to_owned();
    for cost in costs {
        let us = |spread: Spread| Spread {
            low: spread.low / 1e3,
            median: spread.median / 1e3,
            high: spread.high / 1e3,
            ..spread
        };
        let time = cost.ns.map_or_else(|| "–".to_owned(), |ns| us(ns).show(2));
        let count = match (cost.instructions, cost.by_processor) {
            (None, _) => "not measured".to_owned(),
            (Some(count), false) => count.to_string(),
            (Some(count), true) => format!("{count}, by the processor's features"),
        };
        text.push_str(&format!("| {} | {time} | {count} |\n", cost.name));
    }
    text
}

/// Control node and simulated sidecars.
pub(crate) fn scale(meshes: &[Mesh]) -> String {
    let head = [
        "sidecars",
        "services",
        "push to all receipts, ms",
        "one sidecar p50 / p99, ms",
        "control CPU µs/sidecar",
        "syncs/s",
        "joins/s (refused by the limit)",
        "renewals/s (refused)",
        "CPU µs/renewal",
        "control RSS MiB",
    ];
    let mut text = format!("| {} |\n|{}\n", head.join(" | "), "---|".repeat(head.len()));
    for mesh in meshes {
        let mut cells = vec![mesh.sidecars.to_string(), mesh.services.to_string()];
        match &mesh.found {
            Err(reason) => cells.push(format!("not measured: {reason}")),
            Ok(found) => cells.extend([
                found.push_all_ms.show(1),
                format!("{:.1} / {:.1}", found.push_p50_ms, found.push_p99_ms),
                found.push_cpu_us.show(1),
                format!("{:.0}", found.syncs_per_s),
                format!("{:.0} ({})", found.joins_per_s, found.joins_limited),
                format!("{:.0} ({})", found.renewals_per_s, found.renewals_limited),
                found
                    .renewal_cpu_us
                    .map_or_else(|| "–".to_owned(), |us| format!("{us:.0}")),
                format!("{:.0}", found.rss as f64 / 1_048_576.0),
            ]),
        }
        cells.resize(head.len(), String::new());
        text.push_str(&format!("| {} |\n", cells.join(" | ")));
    }
    text
}
