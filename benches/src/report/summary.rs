//! The short tables of the READMEs.

use super::bars::{self, p99, row};
use super::lossy::found;
use super::{All, markdown};
use crate::compare::{Case, Comparison};
use crate::load::Outcome;
use crate::lossy::{Condition, Lossy, Peer};
use crate::pairs::{Congestion, Kind};
use crate::stats::Spread;

/// The table of a name; nothing if there are no figures for it.
pub(super) fn table(name: &str, all: &All) -> Option<String> {
    match name {
        "loss" => all.lossy.as_ref().map(|measured| loss(&measured.found)),
        "cost" => all.compare.as_ref().map(|measured| cost(&measured.found)),
        "bars" => Some(bars::table(all)),
        _ => None,
    }
}

fn loss(lossy: &Lossy) -> String {
    let other = |kind, congestion| Peer {
        kind,
        congestion: Some(congestion),
    };
    let peers = [
        Peer::weft(Kind::WeftL7),
        Peer::weft(Kind::WeftL4),
        other(Kind::EnvoyH3, Congestion::Bbr),
        other(Kind::EnvoyH2, Congestion::Bbr),
        other(Kind::EnvoyH2, Congestion::Cubic),
        other(Kind::TlsCopy, Congestion::Cubic),
    ];
    let mut text = "\
| p99 in ms over 80 ms, 100 Mb/s | 1 KiB, no loss | 1 % lost | 2 % lost | 10 KiB, no loss | 1 % lost | 2 % lost |
|---|---|---|---|---|---|---|
"
    .to_owned();
    for peer in peers {
        let cells = [1, 10]
            .into_iter()
            .flat_map(|size| [0, 1, 2].map(|loss| (size, loss)));
        let cells = cells.map(|(size, loss)| tail(lossy, peer, size, loss));
        let cells: Vec<String> = cells.collect();
        text.push_str(&format!("| {} | {} |\n", peer.title(), cells.join(" | ")));
    }
    if text.contains('†') {
        text.push_str("\n† Of turns whose proxies were short of CPU on the machine that measured: to be read with care.\n");
    }
    text
}

fn tail(lossy: &Lossy, peer: Peer, size: u64, loss: u32) -> String {
    let row = row(lossy, peer, |c| *c == Condition::requests(size, loss));
    let turns: Vec<_> = row.into_iter().flat_map(found).collect();
    let mark = match turns.iter().any(|turn| turn.late) {
        true => " †",
        false => "",
    };
    let figures: Vec<f64> = turns.into_iter().filter_map(p99).collect();
    if figures.iter().any(|figure| !figure.is_finite()) {
        return format!("never caught up{mark}");
    }
    let spread = Spread::of(figures);
    spread.map_or_else(
        || "not measured".to_owned(),
        |spread| format!("{:.0}{mark}", spread.median / 1e3),
    )
}

fn cost(compare: &Comparison) -> String {
    let kinds = [
        Kind::TlsCopy,
        Kind::WeftL4,
        Kind::WeftL7,
        Kind::H2Pair,
        Kind::EnvoyH2,
        Kind::EnvoyH3,
        Kind::NginxTcp,
        Kind::NginxHttp,
        Kind::HaproxyTcp,
        Kind::HaproxyH2,
    ];
    let cpu = Outcome::cpu_per_request;
    let rate = |outcome: &Outcome| Some(outcome.gigabits());
    let mut text = "\
| to the TCP+TLS copy pair, on loopback | CPU of a request, 3 fields | 20 fields | bulk Gb/s, MTU 1,500 | MTU 8,952 |
|---|---|---|---|---|
"
    .to_owned();
    for kind in kinds {
        let bulk = |mtu| match kind.carries_tcp() {
            true => markdown::ratio_of(compare, kind, Case::bulk(1, mtu), rate),
            false => "–".to_owned(),
        };
        let cells = [
            markdown::ratio_of(compare, kind, Case::closed(100, 3, 32), cpu),
            markdown::ratio_of(compare, kind, Case::closed(100, 20, 32), cpu),
            bulk(1_500),
            bulk(8_952),
        ];
        text.push_str(&format!("| {} | {} |\n", kind.title(), cells.join(" | ")));
    }
    text
}
