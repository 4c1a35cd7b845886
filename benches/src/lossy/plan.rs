//! Which links, which traffic, which pairs.

use serde::{Deserialize, Serialize};

use super::{LossyArgs, Part, Peers};
use crate::pairs::{Congestion, Kind};

/// The link of all figures with a given loss: 80 ms, 100 Mb/s, a queue of 200 packets.
const LINK: &str = "cross-region";
/// Loss each way, in percent.
const LOSSES: [u32; 3] = [0, 1, 2];
/// The other links that have a name (docs/netsim.md).
const OTHERS: [&str; 7] = [
    "lan",
    "cross-az",
    "intercontinental",
    "bursty",
    "satellite",
    "flaky",
    "wifi",
];
const KIB: u64 = 1024;
/// Requests a second.
const RATE: u32 = 200;
/// Replies of bulk traffic: so large that their begin does not matter.
const BULK: u64 = 10_000_000;
const STREAMS: u32 = 8;

/// A link and the traffic over it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Condition {
    /// Profile of the link.
    pub(crate) profile: String,
    /// Independent loss each way in percent, in place of the profile's.
    pub(crate) loss: Option<u32>,
    pub(crate) load: Load,
}

/// The traffic.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Load {
    /// GETs at fixed moments.
    Requests { size: u64, rate: u32 },
    /// GETs of large replies, a few at a time.
    Bulk { size: u64, streams: u32 },
}

/// A pair, and what its congestion control is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub(crate) struct Peer {
    pub(crate) kind: Kind,
    /// `None`: its own, which nobody chooses (weft).
    pub(crate) congestion: Option<Congestion>,
}

impl Peer {
    /// Its name in tables.
    pub(crate) fn title(self) -> String {
        match self.congestion {
            Some(Congestion::Cubic) => format!("{}, CUBIC", self.kind.title()),
            Some(Congestion::Bbr) => format!("{}, BBR", self.kind.title()),
            None => self.kind.title().to_owned(),
        }
    }

    /// weft's own.
    pub(crate) fn weft(kind: Kind) -> Self {
        Self {
            kind,
            congestion: None,
        }
    }
}

impl Condition {
    fn new(profile: &str, loss: Option<u32>, load: Load) -> Self {
        Self {
            profile: profile.to_owned(),
            loss,
            load,
        }
    }

    /// Requests for so many KiB, with so much loss each way in percent.
    pub(crate) fn requests(kib: u64, loss: u32) -> Self {
        let load = Load::Requests {
            size: kib * KIB,
            rate: RATE,
        };
        Self::new(LINK, Some(loss), load)
    }

    /// Large replies, with so much loss each way in percent.
    pub(crate) fn bulk(loss: u32) -> Self {
        let load = Load::Bulk {
            size: BULK,
            streams: STREAMS,
        };
        Self::new(LINK, Some(loss), load)
    }

    /// The link in words.
    pub(crate) fn link(&self) -> String {
        match self.loss {
            None => self.profile.clone(),
            Some(0) => format!("{}, no loss", self.profile),
            Some(loss) => format!("{}, {loss} % lost each way", self.profile),
        }
    }

    /// Link and traffic in words.
    pub(crate) fn title(&self) -> String {
        match self.load {
            Load::Requests { size, rate } => format!(
                "{}: {} KiB, {rate} requests/s at fixed moments",
                self.link(),
                size / KIB
            ),
            Load::Bulk { size, streams } => format!(
                "{}: {streams} downloads of {} MB at a time",
                self.link(),
                size / 1_000_000
            ),
        }
    }

    /// How many turns it counts as: bulk has a link full of packets.
    pub(super) fn weight(&self) -> u32 {
        match self.load {
            Load::Requests { .. } => 1,
            Load::Bulk { .. } => 2,
        }
    }
}

/// All conditions that were asked for.
pub(super) fn conditions(args: &LossyArgs) -> Vec<Condition> {
    let mut conditions = Vec::new();
    if args.part.contains(&Part::Loss) {
        for kib in &args.kib {
            conditions.extend(LOSSES.map(|loss| Condition::requests(*kib, loss)));
        }
    }
    if args.part.contains(&Part::Bulk) {
        let losses: &[u32] = if args.quick { &[1] } else { &LOSSES };
        conditions.extend(losses.iter().map(|loss| Condition::bulk(*loss)));
    }
    if args.part.contains(&Part::Profiles) && !args.quick {
        let load = Load::Requests {
            size: KIB,
            rate: RATE,
        };
        conditions.extend(OTHERS.map(|profile| Condition::new(profile, None, load)));
    }
    conditions
}

/// All pairs that were asked for. Every one whose congestion control can be chosen comes with each of the two.
pub(super) fn peers(args: &LossyArgs) -> Vec<Peer> {
    let main = [Kind::TlsCopy, Kind::H2Pair, Kind::EnvoyH2, Kind::EnvoyH3];
    let quick = [Kind::TlsCopy, Kind::EnvoyH2, Kind::EnvoyH3];
    let rest = [
        Kind::Direct,
        Kind::NginxTcp,
        Kind::NginxHttp,
        Kind::HaproxyTcp,
        Kind::HaproxyH2,
    ];
    let kinds: Vec<Kind> = match args.peers {
        _ if args.quick => quick.to_vec(),
        Peers::All => main.into_iter().chain(rest).collect(),
        Peers::Main => main.to_vec(),
        Peers::Rest => rest.to_vec(),
    };
    let both = kinds.into_iter().flat_map(|kind| {
        [Congestion::Cubic, Congestion::Bbr].map(|congestion| Peer {
            kind,
            congestion: Some(congestion),
        })
    });
    let weft = match args.peers {
        Peers::Rest => Vec::new(),
        _ => vec![Peer::weft(Kind::WeftL4), Peer::weft(Kind::WeftL7)],
    };
    let asked = |peer: &Peer| args.pair.is_empty() || args.pair.contains(&peer.kind);
    both.chain(weft).filter(asked).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn titles_say_everything_that_differs() {
        assert_eq!(
            Condition::requests(1, 2).title(),
            "cross-region, 2 % lost each way: 1 KiB, 200 requests/s at fixed moments"
        );
        let peer = Peer {
            kind: Kind::EnvoyH3,
            congestion: Some(Congestion::Bbr),
        };
        assert_eq!(peer.title(), "Envoy HTTP/3, BBR");
    }
}
