//! Which plots there are.

use super::All;
use super::bars::{p99, row};
use super::lossy::{found, goodput_mbit};
use super::plot::{Bars, Group, Value};
use crate::compare::{Case, Comparison};
use crate::load::Outcome;
use crate::lossy::{Condition, Lossy, Peer};
use crate::pairs::Kind;
use crate::scale::Mesh;
use crate::stats::Spread;

/// Loss each way, in percent.
const LOSSES: [u32; 3] = [0, 1, 2];

/// File names and plots, as far as there are figures.
pub(super) fn all(all: &All) -> Vec<(&'static str, Bars)> {
    let mut plots = Vec::new();
    if let Some(measured) = &all.lossy {
        plots.push(("lossy-1k.svg", tail(&measured.found, 1)));
        plots.push(("lossy-10k.svg", tail(&measured.found, 10)));
        plots.push(("lossy-bulk.svg", goodput(&measured.found)));
    }
    if let Some(measured) = &all.compare {
        plots.push(("compare-cpu.svg", cpu(&measured.found)));
        plots.push(("compare-bulk.svg", bulk(&measured.found)));
    }
    if let Some(measured) = &all.scale {
        plots.push(("scale-push.svg", push(&measured.found)));
    }
    plots.retain(|(_, bars)| !bars.groups.is_empty());
    plots
}

fn series() -> Vec<String> {
    LOSSES.map(|loss| format!("{loss} % lost")).to_vec()
}

fn ours(kind: Kind) -> bool {
    matches!(kind, Kind::WeftL4 | Kind::WeftL7)
}

/// Groups for all pairs that were under some condition, weft first.
fn groups(lossy: &Lossy, value: impl Fn(Peer, u32) -> Value) -> Vec<Group> {
    let mut peers: Vec<Peer> = lossy.rows.iter().map(|row| row.peer).collect();
    peers.sort_unstable_by_key(|peer| (!ours(peer.kind), *peer));
    peers.dedup();
    let groups = peers.into_iter().map(|peer| Group {
        name: peer.title(),
        ours: ours(peer.kind),
        values: LOSSES.map(|loss| value(peer, loss)).to_vec(),
    });
    let known = |group: &Group| group.values.iter().any(|value| *value != Value::Missing);
    groups.filter(known).collect()
}

fn tail(lossy: &Lossy, size: u64) -> Bars {
    let value = |peer, loss| {
        let Some(row) = row(lossy, peer, |c| *c == Condition::requests(size, loss)) else {
            return Value::Missing;
        };
        let figures: Vec<f64> = found(row).filter_map(p99).collect();
        match figures.iter().any(|figure| !figure.is_finite()) {
            true => Value::Never,
            false => Spread::of(figures).map(|spread| spread.median / 1e3).into(),
        }
    };
    Bars {
        title: format!("p99 over 80 ms and 100 Mb/s: {size} KiB, 200 requests/s"),
        subtitle: "ms, from when a request was due to its whole reply; shorter is better, each step is ten times"
            .into(),
        series: series(),
        groups: groups(lossy, value),
        log: true,
    }
}

fn goodput(lossy: &Lossy) -> Bars {
    let value = |peer, loss| {
        let row = row(lossy, peer, |c| *c == Condition::bulk(loss));
        let spread = row.and_then(|row| Spread::of(found(row).map(goodput_mbit)));
        spread.map(|spread| spread.median).into()
    };
    Bars {
        title: "8 downloads of 10 MB at a time over 80 ms and 100 Mb/s".into(),
        subtitle: "Mb/s that arrived; longer is better".into(),
        series: series(),
        groups: groups(lossy, value),
        log: false,
    }
}

fn median(
    compare: &Comparison,
    kind: Kind,
    case: Case,
    figure: impl Fn(&Outcome) -> Option<f64>,
) -> Option<f64> {
    let mut rows = compare.rows.iter();
    let row = rows.find(|row| row.kind == kind && row.case == case)?;
    Spread::of(row.figures(figure).into_iter().flatten()).map(|spread| spread.median)
}

/// Groups for all kinds of pairs that have a figure in one of the cases.
fn kinds(cases: &[Case], value: impl Fn(Kind, Case) -> Option<f64>) -> Vec<Group> {
    let mut kinds = Kind::all().to_vec();
    kinds.sort_by_key(|kind| !ours(*kind));
    let groups = kinds.into_iter().map(|kind| Group {
        name: kind.title().to_owned(),
        ours: ours(kind),
        values: cases.iter().map(|case| value(kind, *case).into()).collect(),
    });
    let known = |group: &Group| group.values.iter().any(|value| *value != Value::Missing);
    groups.filter(known).collect()
}

fn cpu(compare: &Comparison) -> Bars {
    let cases = [Case::closed(100, 3, 32), Case::closed(100, 20, 32)];
    let value = |kind, case| match kind {
        Kind::Direct => None,
        kind => median(compare, kind, case, Outcome::cpu_per_request),
    };
    Bars {
        title: "CPU of both proxies for one request: 100 B, 32 connections".into(),
        subtitle: "µs, user and system; shorter is better".into(),
        series: vec!["3 header fields".into(), "20 header fields".into()],
        groups: kinds(&cases, value),
        log: false,
    }
}

fn bulk(compare: &Comparison) -> Bars {
    let cases = [Case::bulk(1, 1_500), Case::bulk(1, 8_952)];
    let value = |kind, case| match kind {
        // It would make all others short.
        Kind::Direct => None,
        kind => median(compare, kind, case, |outcome| Some(outcome.gigabits())),
    };
    Bars {
        title: "One TCP stream through a pair on loopback".into(),
        subtitle: "Gb/s; longer is better".into(),
        series: vec!["MTU 1,500".into(), "MTU 8,952".into()],
        groups: kinds(&cases, value),
        log: false,
    }
}

fn push(meshes: &[Mesh]) -> Bars {
    let groups = meshes.iter().filter_map(|mesh| {
        let found = mesh.found.as_ref().ok()?;
        Some(Group {
            name: format!("{} sidecars, {} services", mesh.sidecars, mesh.services),
            ours: true,
            values: vec![
                Value::Figure(found.push_p50_ms),
                Value::Figure(found.push_p99_ms),
                Value::Figure(found.push_all_ms.median),
            ],
        })
    });
    Bars {
        title: "A change of config until it is at the sidecars".into(),
        subtitle: "ms after it was asked for; shorter is better, each step is ten times".into(),
        series: vec![
            "half of them".into(),
            "99 % of them".into(),
            "all receipts are in".into(),
        ],
        groups: groups.collect(),
        log: true,
    }
}
