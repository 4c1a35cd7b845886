//! The project's bars: what was promised, what was measured.

use super::All;
use super::lossy::{found, goodput_mbit};
use crate::compare::{Case, Comparison};
use crate::load::Outcome;
use crate::lossy::{Condition, Found, Lossy, Peer, Row};
use crate::pairs::{Congestion, Kind};
use crate::scale::Mesh;
use crate::stats::Spread;

/// MTU of a usual path, and of one within a data centre.
const MTU: u32 = 1_500;
const JUMBO: u32 = 8_952;
const MIB: f64 = 1_048_576.0;
/// Rate of the link of the figures with loss, Mb/s.
const LINK_MBIT: f64 = 100.0;
/// Its round trip, ms.
const RTT_MS: f64 = 80.0;

/// A promise, and what became of it.
#[derive(Debug, Clone)]
pub(crate) struct Bar {
    what: &'static str,
    bar: &'static str,
    /// Figures in words; nothing if there are none.
    measured: Option<String>,
    holds: bool,
}

/// A figure and whether it is good enough.
type Judged = Option<(String, bool)>;

impl Bar {
    fn new(what: &'static str, bar: &'static str, parts: impl IntoIterator<Item = Judged>) -> Self {
        let parts: Vec<(String, bool)> = parts.into_iter().flatten().collect();
        let texts: Vec<&str> = parts.iter().map(|(text, _)| text.as_str()).collect();
        Self {
            what,
            bar,
            measured: (!parts.is_empty()).then(|| texts.join("; ")),
            holds: parts.iter().all(|(_, holds)| *holds),
        }
    }
}

/// All of them as a table.
pub(crate) fn table(all: &All) -> String {
    let mut text = "| | bar | measured | |\n|---|---|---|---|\n".to_owned();
    for bar in bars(all) {
        let (measured, verdict) = match (&bar.measured, bar.holds) {
            (None, _) => ("not measured", ""),
            (Some(measured), true) => (measured.as_str(), "holds"),
            (Some(measured), false) => (measured.as_str(), "**falls short**"),
        };
        text.push_str(&format!(
            "| {} | {} | {measured} | {verdict} |\n",
            bar.what, bar.bar
        ));
    }
    text.push_str(
        "\n† Of turns that were short of CPU: to be read with care (docs/performance/lossy.md).\n",
    );
    text
}

fn bars(all: &All) -> Vec<Bar> {
    let mut bars = Vec::new();
    bars.extend(of_pairs(
        all.compare.as_ref().map(|measured| &measured.found),
    ));
    bars.extend(of_bad_links(
        all.lossy.as_ref().map(|measured| &measured.found),
    ));
    bars.extend(of_the_rest(all));
    bars
}

fn of_pairs(compare: Option<&Comparison>) -> Vec<Bar> {
    let cpu = |kind, below, most| {
        [3, 20].map(|fields| {
            let ratio = ratio(
                compare?,
                Case::closed(100, fields, 32),
                kind,
                below,
                Outcome::cpu_per_request,
            );
            judged(ratio?, most, |text| format!("{text} with {fields} fields"))
        })
    };
    let p50 = |kind, most| {
        let case = Case::closed(100, 20, 1);
        let p50 = |outcome: &Outcome| outcome.latency.map(|latency| latency.p50);
        let ratio = ratio(compare?, case, kind, Kind::TlsCopy, p50)?;
        let added = difference(compare?, case, kind, Kind::Direct, p50)?;
        let name = kind.title();
        judged(ratio, most, |text| {
            format!("{name}: {text} (+{added:.0} µs over direct)")
        })
    };
    let bulk = |mtu, least: f64| {
        let rate = |outcome: &Outcome| Some(outcome.gigabits());
        let ratio = ratio(
            compare?,
            Case::bulk(1, mtu),
            Kind::WeftL4,
            Kind::TlsCopy,
            rate,
        )?;
        Some((ratio.show(2), ratio.median >= least))
    };
    vec![
        Bar::new(
            "L4 pair, 32 connections, 100 B, CPU per request vs TLS copy pair",
            "≤ 0.75",
            cpu(Kind::WeftL4, Kind::TlsCopy, 0.75),
        ),
        Bar::new(
            "L7 pair, the same",
            "≤ 1.0",
            cpu(Kind::WeftL7, Kind::TlsCopy, 1.0),
        ),
        Bar::new(
            "L7 pair vs Envoy pair, HTTP/2",
            "≤ 0.10",
            cpu(Kind::WeftL7, Kind::EnvoyH2, 0.10),
        ),
        Bar::new(
            "one connection, 100 B, 20 fields, p50 vs TLS copy pair",
            "≤ 1.2 L4, ≤ 1.6 L7",
            [p50(Kind::WeftL4, 1.2), p50(Kind::WeftL7, 1.6)],
        ),
        Bar::new(
            "bulk, one stream, MTU 1,500, vs TLS copy pair",
            "≥ 0.9",
            [bulk(MTU, 0.9)],
        ),
        Bar::new(
            "bulk, one stream, MTU 8,952, vs TLS copy pair",
            "≥ 1.5",
            [bulk(JUMBO, 1.5)],
        ),
    ]
}

fn judged(ratio: Spread, most: f64, text: impl FnOnce(String) -> String) -> Judged {
    Some((text(ratio.show(2)), ratio.median <= most))
}

fn figures(
    compare: &Comparison,
    case: Case,
    kind: Kind,
    figure: impl Fn(&Outcome) -> Option<f64>,
) -> Option<Vec<Option<f64>>> {
    let mut rows = compare.rows.iter();
    let row = rows.find(|row| row.kind == kind && row.case == case)?;
    Some(row.figures(figure))
}

fn ratio(
    compare: &Comparison,
    case: Case,
    above: Kind,
    below: Kind,
    figure: impl Fn(&Outcome) -> Option<f64>,
) -> Option<Spread> {
    let above = figures(compare, case, above, &figure)?;
    Spread::of_ratios(&above, &figures(compare, case, below, &figure)?)
}

fn difference(
    compare: &Comparison,
    case: Case,
    above: Kind,
    below: Kind,
    figure: impl Fn(&Outcome) -> Option<f64>,
) -> Option<f64> {
    let above = figures(compare, case, above, &figure)?;
    let below = figures(compare, case, below, &figure)?;
    let pairs = above.iter().zip(&below);
    Spread::of(pairs.filter_map(|(above, below)| Some((*above)? - (*below)?))).map(|s| s.median)
}

fn of_bad_links(lossy: Option<&Lossy>) -> Vec<Bar> {
    let ours = Peer::weft(Kind::WeftL7);
    let other = |kind, congestion| Peer {
        kind,
        congestion: Some(congestion),
    };
    let own = |size, loss| {
        let ratio = p99_ratio(lossy?, (ours, loss), (ours, 0), size)?;
        Some((format!("{} at {loss} %", show(ratio)), ratio <= 1.25))
    };
    let beside = |size, loss, peer: Peer, most: f64| {
        let ratio = p99_ratio(lossy?, (ours, loss), (peer, loss), size)?;
        let mark = mark(lossy, &Condition::requests(size, loss));
        Some((format!("{} at {loss} %{mark}", show(ratio)), ratio <= most))
    };
    let h2_cubic = other(Kind::EnvoyH2, Congestion::Cubic);
    let h2_bbr = other(Kind::EnvoyH2, Congestion::Bbr);
    let h3_bbr = other(Kind::EnvoyH3, Congestion::Bbr);
    let share = |kind, loss| {
        let row = row(lossy?, Peer::weft(kind), |c| *c == Condition::bulk(loss))?;
        let share = Spread::of(found(row).map(goodput_mbit))?.median / LINK_MBIT;
        Some((
            format!(
                "{} {share:.2} at {loss} %{}",
                kind.title(),
                mark(lossy, &Condition::bulk(loss))
            ),
            share >= 0.85,
        ))
    };
    let extra = |size, loss, most: f64| {
        let extra = extra_bytes(lossy?, ours, size, loss)?;
        Some((
            format!("{size} KiB: {:.0} % at {loss} %", extra * 100.0),
            extra <= most,
        ))
    };
    let first = |kind| {
        let row = row(lossy?, Peer::weft(kind), |c| {
            *c == Condition::requests(1, 0)
        })?;
        let trips = Spread::of(found(row).filter_map(|found| found.first_ms))?.median / RTT_MS;
        Some((format!("{} {trips:.2} RTT", kind.title()), trips <= 2.2))
    };
    vec![
        Bar::new(
            "80 ms link, 1 KiB, p99 with 1 % and 2 % loss vs its own without",
            "≤ 1.25",
            [own(1, 1), own(1, 2)],
        ),
        Bar::new(
            "the same vs Envoy HTTP/2, CUBIC",
            "≤ 0.05",
            [beside(1, 1, h2_cubic, 0.05), beside(1, 2, h2_cubic, 0.05)],
        ),
        Bar::new(
            "the same vs Envoy HTTP/2, BBR",
            "≤ 0.4",
            [beside(1, 1, h2_bbr, 0.4), beside(1, 2, h2_bbr, 0.4)],
        ),
        Bar::new(
            "the same vs Envoy HTTP/3, BBR",
            "≤ 0.55",
            [beside(1, 1, h3_bbr, 0.55), beside(1, 2, h3_bbr, 0.55)],
        ),
        Bar::new(
            "10 KiB, p99 vs Envoy HTTP/3, BBR",
            "≤ 0.5",
            [beside(10, 1, h3_bbr, 0.5), beside(10, 2, h3_bbr, 0.5)],
        ),
        Bar::new(
            "no loss, p99 vs Envoy HTTP/2, CUBIC",
            "≤ 1.05",
            [1, 10].map(|size| {
                let ratio = p99_ratio(lossy?, (ours, 0), (h2_cubic, 0), size)?;
                let mark = mark(lossy, &Condition::requests(size, 0));
                Some((
                    format!("{} with {size} KiB{mark}", show(ratio)),
                    ratio <= 1.05,
                ))
            }),
        ),
        Bar::new(
            "bulk there at 1 % and 2 %, share of the link's rate",
            "≥ 0.85",
            [Kind::WeftL4, Kind::WeftL7]
                .into_iter()
                .flat_map(|kind| [share(kind, 1), share(kind, 2)]),
        ),
        Bar::new(
            "bytes on the link beyond those without loss",
            "≤ 100 % below 10 Mb/s (1 KiB), ≤ 15 % above (10 KiB)",
            [
                extra(1, 1, 1.0),
                extra(1, 2, 1.0),
                extra(10, 1, 0.15),
                extra(10, 2, 0.15),
            ],
        ),
        Bar::new(
            "new connection and first reply at 80 ms",
            "2 RTT",
            [first(Kind::WeftL7), first(Kind::WeftL4)],
        ),
        Bar::new("the same, resumed", "1 RTT", []),
    ]
}

fn show(ratio: f64) -> String {
    match ratio {
        f64::INFINITY => "never caught up".to_owned(),
        0.0 => "0 (the other never caught up)".to_owned(),
        ratio => format!("{ratio:.2}"),
    }
}

/// Marks figures of turns that were short of CPU.
fn mark(lossy: Option<&Lossy>, condition: &Condition) -> &'static str {
    let rows = lossy.into_iter().flat_map(|lossy| &lossy.rows);
    let mut of_it = rows
        .filter(|row| row.condition == *condition)
        .flat_map(found);
    match of_it.any(|found| found.late) {
        true => " †",
        false => "",
    }
}

/// A pair under a condition.
pub(super) fn row(lossy: &Lossy, peer: Peer, is: impl Fn(&Condition) -> bool) -> Option<&Row> {
    let mut rows = lossy.rows.iter();
    rows.find(|row| row.peer == peer && is(&row.condition))
}

/// The p99 of a turn, µs; infinite if it never caught up.
pub(super) fn p99(found: &Found) -> Option<f64> {
    match found.caught_up() {
        true => found.outcome.latency.map(|latency| latency.p99),
        false => Some(f64::INFINITY),
    }
}

/// Of two pairs at two losses: the median over seeds that both have.
fn p99_ratio(lossy: &Lossy, above: (Peer, u32), below: (Peer, u32), size: u64) -> Option<f64> {
    let row = |(peer, loss)| row(lossy, peer, |c| *c == Condition::requests(size, loss));
    let (above, below) = (row(above)?, row(below)?);
    let mut ratios = Vec::new();
    for turn in &above.turns {
        let other = below.turns.iter().find(|other| other.seed == turn.seed);
        if let (Ok(one), Some(Ok(other))) = (&turn.found, other.map(|other| &other.found)) {
            ratios.push(p99(one)? / p99(other)?);
        }
    }
    // What never caught up once is no good, whatever the other seeds say.
    match ratios.iter().any(|ratio| !ratio.is_finite()) {
        true => Some(f64::INFINITY),
        false => Spread::of(ratios).map(|spread| spread.median),
    }
}

fn extra_bytes(lossy: &Lossy, peer: Peer, size: u64, loss: u32) -> Option<f64> {
    let bytes = |loss| {
        let row = row(lossy, peer, |c| *c == Condition::requests(size, loss))?;
        Spread::of(found(row).map(|found| found.link_bytes as f64)).map(|spread| spread.median)
    };
    Some(bytes(loss)? / bytes(0)? - 1.0)
}

fn of_the_rest(all: &All) -> Vec<Bar> {
    let compare = all.compare.as_ref().map(|measured| &measured.found);
    let idle = || {
        let idle = compare?.idle.get(&Kind::WeftL7)?;
        let mib = *idle as f64 / MIB;
        Some((format!("idle {mib:.0}"), mib <= 12.0))
    };
    let busy = || {
        let rss = |outcome: &Outcome| Some(outcome.proxies.rss_largest as f64 / MIB);
        let mib = figures(compare?, Case::open(100, 20, 1_000), Kind::WeftL7, rss)?;
        let mib = Spread::of(mib.into_iter().flatten())?.median;
        Some((format!("1,000 req/s {mib:.0}"), mib <= 20.0))
    };
    let scale = all.scale.as_ref().map(|measured| &measured.found);
    vec![
        Bar::new("idle memory per peer connection", "≤ 32 KiB", []),
        Bar::new(
            "sidecar RSS, MiB: idle / 1,000 req/s",
            "≤ 12 / 20",
            [idle(), busy()],
        ),
        Bar::new(
            "push of one change to 10,000 sidecars: p99 / CPU for each",
            "≤ 1 s / ≤ 20 µs",
            [scale.and_then(|meshes| push(meshes))],
        ),
        Bar::new(
            "certificates signed, a second and core",
            "≥ 5,000",
            [signing(all)],
        ),
    ]
}

fn push(meshes: &[Mesh]) -> Judged {
    let found = meshes
        .iter()
        .filter_map(|mesh| Some((mesh, mesh.found.as_ref().ok()?)));
    let (mesh, found) = found.max_by_key(|(mesh, _)| mesh.sidecars)?;
    let cpu = found.push_cpu_us.median;
    let text = format!(
        "{} sidecars: {:.0} ms / {cpu:.0} µs",
        mesh.sidecars, found.push_p99_ms
    );
    let all_of_them = mesh.sidecars >= 10_000;
    Some((
        text,
        all_of_them && found.push_p99_ms <= 1_000.0 && cpu <= 20.0,
    ))
}

fn signing(all: &All) -> Judged {
    let costs = all.micro.as_ref()?.found.iter();
    let issue = costs.clone().find(|cost| cost.name == "SVID issue")?;
    let a_second = 1e9 / issue.ns?.median;
    Some((format!("{a_second:.0}"), a_second >= 5_000.0))
}
