//! `weft-netsim profiles`: the links that have a name.

use serde::Serialize;
use weft_netsim::{Jitter, Loss, Profile, Queue};

use crate::args::ProfilesArgs;
use crate::failure::Failure;
use crate::output::show;

/// One row; figures are of one direction, but for the round trip.
#[derive(Debug, Serialize)]
struct Row {
    name: &'static str,
    round_trip_ms: f64,
    bits_per_second: Option<u64>,
    queue_packets: Option<usize>,
    mean_loss: f64,
    bursts: bool,
    jitter_ms: f64,
    reorders: bool,
    outages: usize,
}

/// Lists them.
pub(super) fn list(args: &ProfilesArgs) -> Result<(), Failure> {
    let rows = Profile::ALL.map(row);
    show(args.output, &rows, || table(&rows))
}

fn row(profile: Profile) -> Row {
    let spec = profile.spec();
    let millis = |time: std::time::Duration| time.as_secs_f64() * 1e3;
    let (jitter, reorders) = match spec.jitter {
        Jitter::None => (0.0, false),
        Jitter::InOrder(most) => (millis(most), false),
        Jitter::Reordering(most) => (millis(most), true),
    };
    Row {
        name: profile.name(),
        round_trip_ms: millis(spec.delay * 2),
        bits_per_second: spec.rate.map(|rate| rate.bits_per_second),
        queue_packets: spec.rate.and_then(|rate| match rate.queue {
            Queue::Packets(packets) => Some(packets),
            Queue::Bytes(_) | Queue::Time(_) => None,
        }),
        mean_loss: spec.loss.mean(),
        bursts: matches!(spec.loss, Loss::Bursts { .. }),
        jitter_ms: jitter,
        reorders,
        outages: spec.outages.len(),
    }
}

fn table(rows: &[Row]) -> String {
    let mut text = format!(
        "{:<18}{:>12}{:>14}{:>9}{:>12}  other\n",
        "profile", "round trip", "rate", "queue", "loss"
    );
    for row in rows {
        let rate = row
            .bits_per_second
            .map_or("-".to_owned(), |bits| format!("{} Mb/s", bits / 1_000_000));
        let queue = row.queue_packets.map_or("-".to_owned(), |n| n.to_string());
        let mut other = Vec::new();
        if row.bursts {
            other.push("in bursts".to_owned());
        }
        if row.jitter_ms > 0.0 {
            other.push(format!("jitter to {} ms", row.jitter_ms));
        }
        if row.reorders {
            other.push("reordering".to_owned());
        }
        if row.outages > 0 {
            other.push(format!("down {} times", row.outages));
        }
        text += &format!(
            "{:<18}{:>9} ms{rate:>14}{queue:>9}{:>10.1} %  {}\n",
            row.name,
            row.round_trip_ms,
            row.mean_loss * 100.0,
            other.join(", ")
        );
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_profile_has_a_row_with_its_figures() {
        let rows = Profile::ALL.map(row);
        let text = table(&rows);
        assert_eq!(text.lines().count(), Profile::ALL.len() + 1);
        let lossy = text.lines().find(|line| line.starts_with("lossy")).unwrap();
        for figure in ["80 ms", "100 Mb/s", "200", "1.0 %"] {
            assert!(lossy.contains(figure), "'{lossy}' has '{figure}'");
        }
    }
}
