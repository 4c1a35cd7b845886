//! What a link did.

use serde::Serialize;

use crate::lateness::LatenessReport;
use crate::priority::Priority;

/// What a link did while it ran.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct LinkReport {
    /// The namespace of its end a.
    pub a: String,
    /// The namespace of its end b.
    pub b: String,
    /// How it was scheduled.
    pub priority: Priority,
    /// How long it ran, in seconds.
    pub seconds: f64,
    /// From a to b.
    pub forward: DirectionReport,
    /// From b to a.
    pub backward: DirectionReport,
    /// Why it ended before it was told to, if it did.
    pub ended: Option<String>,
}

impl LinkReport {
    /// Whether more than one packet in a hundred was released more than a millisecond late, or packets were
    /// lost for want of CPU: what was measured over it shows the machine, not the link.
    #[must_use]
    pub fn late(&self) -> bool {
        [&self.forward, &self.backward]
            .into_iter()
            .any(|way| way.lateness.over_1ms > 0.01 || way.lost.device > 0 || way.lost.overflow > 0)
    }
}

/// What one direction did.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct DirectionReport {
    /// Packets that entered.
    pub entered: u64,
    /// Their bytes, IP headers included.
    pub entered_bytes: u64,
    /// Packets that arrived, copies included.
    pub delivered: u64,
    /// Their bytes.
    pub delivered_bytes: u64,
    /// Copies that the link made.
    pub duplicated: u64,
    /// Packets that it damaged.
    pub corrupted: u64,
    /// Packets still under way at the end.
    pub under_way: u64,
    /// Packets that did not arrive.
    pub lost: Losses,
    /// How late packets were released.
    pub lateness: LatenessReport,
}

/// Packets that did not arrive, by cause. The last three are this machine's doing, not the model's.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
pub struct Losses {
    /// Random loss.
    pub random: u64,
    /// No room at the bottleneck.
    pub queue_full: u64,
    /// Larger than the path's MTU.
    pub too_big: u64,
    /// The link was down.
    pub outage: u64,
    /// For nobody that the NAT knows, or without ports that it could read.
    pub nat: u64,
    /// The kernel did not take it at the far end: damaged beyond being a packet, or the device is down.
    pub refused: u64,
    /// More packets under way than the driver holds.
    pub overflow: u64,
    /// Dropped by the device before the link saw them, because it was not read in time.
    pub device: u64,
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::lateness::Lateness;

    #[test]
    fn a_link_is_late_by_its_packets_or_by_what_the_machine_dropped() {
        let way = DirectionReport {
            entered: 100,
            entered_bytes: 0,
            delivered: 100,
            delivered_bytes: 0,
            duplicated: 0,
            corrupted: 0,
            under_way: 0,
            lost: Losses::default(),
            lateness: Lateness::new().report(),
        };
        let good = LinkReport {
            a: "a".into(),
            b: "b".into(),
            priority: Priority::RealTime,
            seconds: 1.0,
            forward: way.clone(),
            backward: way,
            ended: None,
        };
        assert!(!good.late());
        let mut late = good.clone();
        late.backward.lateness.over_1ms = 0.02;
        assert!(late.late());
        let mut dropped = good;
        dropped.forward.lost.device = 1;
        assert!(dropped.late());
    }
}
