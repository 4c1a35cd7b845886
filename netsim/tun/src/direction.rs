//! One direction of a running link: the model, and the packets under way.

use std::cmp::Ordering;
use std::collections::BinaryHeap;
use std::time::Duration;

use weft_netsim::{Arrival, Fate, Link, LossCause};

use crate::lateness::Lateness;
use crate::packet::flip;
use crate::report::{DirectionReport, Losses};

/// Packets and bytes that one direction holds at most: a minute of delay without a rate would hold any number.
const MAX_PACKETS: usize = 1 << 18;
const MAX_BYTES: usize = 1 << 28;
/// Buffers kept for packets to come.
const MAX_SPARE: usize = 4096;

/// One direction of a link.
#[derive(Debug)]
pub(crate) struct Direction {
    link: Link,
    under_way: BinaryHeap<Waiting>,
    bytes: usize,
    sequence: u64,
    spare: Vec<Vec<u8>>,
    counts: Counts,
    lateness: Lateness,
}

#[derive(Debug, Default)]
struct Counts {
    entered: u64,
    entered_bytes: u64,
    delivered: u64,
    delivered_bytes: u64,
    duplicated: u64,
    corrupted: u64,
    lost: Losses,
}

/// What becomes of a packet now.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Verdict {
    /// It is under way; [`Direction::launch`] it.
    Arrives(Arrival, Option<Arrival>),
    /// It is lost, and nobody hears of it.
    Lost,
    /// It is lost, and the sender is told the largest size that passes.
    TellSender(usize),
}

impl Direction {
    pub(crate) fn new(link: Link) -> Self {
        Self {
            link,
            under_way: BinaryHeap::new(),
            bytes: 0,
            sequence: 0,
            spare: Vec::new(),
            counts: Counts::default(),
            lateness: Lateness::new(),
        }
    }

    /// A packet enters.
    pub(crate) fn judge(&mut self, now: Duration, bytes: usize) -> Verdict {
        self.counts.entered += 1;
        self.counts.entered_bytes += bytes as u64;
        let lost = &mut self.counts.lost;
        match self.link.send(now, bytes) {
            Fate::Delivered(delivery) => {
                return Verdict::Arrives(delivery.first, delivery.second);
            }
            Fate::Lost(LossCause::Random) => lost.random += 1,
            Fate::Lost(LossCause::QueueFull) => lost.queue_full += 1,
            Fate::Lost(LossCause::Outage) => lost.outage += 1,
            Fate::Lost(LossCause::TooBig(told)) => {
                lost.too_big += 1;
                if let Some(mtu) = told {
                    return Verdict::TellSender(mtu);
                }
            }
        }
        Verdict::Lost
    }

    /// Sends a packet on its way, to be released at its arrival.
    pub(crate) fn launch(&mut self, packet: &[u8], first: Arrival, second: Option<Arrival>) {
        self.put(packet, first);
        if let Some(second) = second {
            self.counts.duplicated += 1;
            self.put(packet, second);
        }
    }

    fn put(&mut self, packet: &[u8], arrival: Arrival) {
        if self.under_way.len() >= MAX_PACKETS || self.bytes + packet.len() > MAX_BYTES {
            self.counts.lost.overflow += 1;
            return;
        }
        let mut bytes = self.spare.pop().unwrap_or_default();
        bytes.clear();
        bytes.extend_from_slice(packet);
        if let Some(bit) = arrival.flipped_bit {
            self.counts.corrupted += 1;
            flip(&mut bytes, bit);
        }
        self.bytes += bytes.len();
        self.sequence += 1;
        self.under_way.push(Waiting {
            at: arrival.at,
            sequence: self.sequence,
            bytes,
        });
    }

    /// When the next packet is due.
    pub(crate) fn next_due(&self) -> Option<Duration> {
        self.under_way.peek().map(|waiting| waiting.at)
    }

    /// Hands the next packet to `deliver` if it is due at `now`; whether there was one.
    pub(crate) fn release(
        &mut self,
        now: Duration,
        deliver: impl FnOnce(&mut Vec<u8>) -> Release,
    ) -> bool {
        if self.next_due().is_none_or(|at| at > now) {
            return false;
        }
        let Some(mut waiting) = self.under_way.pop() else {
            return false;
        };
        self.bytes -= waiting.bytes.len();
        self.lateness.record(now.saturating_sub(waiting.at));
        match deliver(&mut waiting.bytes) {
            Release::Delivered => {
                self.counts.delivered += 1;
                self.counts.delivered_bytes += waiting.bytes.len() as u64;
            }
            Release::Refused => self.counts.lost.refused += 1,
            Release::NoMapping => self.counts.lost.nat += 1,
        }
        if self.spare.len() < MAX_SPARE {
            self.spare.push(waiting.bytes);
        }
        true
    }

    /// A packet that the NAT did not let enter.
    pub(crate) fn lost_to_nat(&mut self) {
        self.counts.lost.nat += 1;
    }

    /// What happened so far.
    pub(crate) fn report(&self, dropped_by_device: u64) -> DirectionReport {
        let counts = &self.counts;
        DirectionReport {
            entered: counts.entered,
            entered_bytes: counts.entered_bytes,
            delivered: counts.delivered,
            delivered_bytes: counts.delivered_bytes,
            duplicated: counts.duplicated,
            corrupted: counts.corrupted,
            under_way: self.under_way.len() as u64,
            lost: Losses {
                device: dropped_by_device,
                ..counts.lost
            },
            lateness: self.lateness.report(),
        }
    }
}

/// How a release ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Release {
    /// The kernel took it.
    Delivered,
    /// The kernel did not: the device is down, or damage made it no packet at all.
    Refused,
    /// The NAT knows nobody inside for it.
    NoMapping,
}

/// A packet under way; the heap's greatest is the one that is due first.
#[derive(Debug)]
struct Waiting {
    at: Duration,
    sequence: u64,
    bytes: Vec<u8>,
}

impl Ord for Waiting {
    fn cmp(&self, other: &Self) -> Ordering {
        (other.at, other.sequence).cmp(&(self.at, self.sequence))
    }
}

impl PartialOrd for Waiting {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl PartialEq for Waiting {
    fn eq(&self, other: &Self) -> bool {
        self.cmp(other) == Ordering::Equal
    }
}

impl Eq for Waiting {}

#[cfg(test)]
mod tests {
    use super::*;
    use weft_netsim::{LinkSpec, Loss};

    const MS: Duration = Duration::from_millis(1);

    fn direction(spec: LinkSpec) -> Direction {
        Direction::new(Link::new(spec, 1).unwrap())
    }

    fn pass(direction: &mut Direction, now: Duration, packet: &[u8]) -> Verdict {
        let verdict = direction.judge(now, packet.len());
        if let Verdict::Arrives(first, second) = verdict {
            direction.launch(packet, first, second);
        }
        verdict
    }

    #[test]
    fn packets_are_released_at_their_time_in_order_and_their_lateness_is_counted() {
        let mut direction = direction(LinkSpec::ideal(10 * MS));
        pass(&mut direction, Duration::ZERO, b"one");
        pass(&mut direction, Duration::ZERO, b"two");
        pass(&mut direction, 5 * MS, b"three");
        assert_eq!(direction.next_due(), Some(10 * MS));
        let mut got = Vec::new();
        let mut release = |direction: &mut Direction, now| {
            direction.release(now, |packet| {
                got.push(String::from_utf8(packet.clone()).unwrap());
                Release::Delivered
            })
        };
        assert!(!release(&mut direction, 9 * MS), "too early");
        assert!(release(&mut direction, 12 * MS));
        assert!(release(&mut direction, 12 * MS));
        assert!(!release(&mut direction, 12 * MS), "the third is not due");
        assert!(release(&mut direction, 15 * MS));
        assert_eq!(got, ["one", "two", "three"]);
        let report = direction.report(7);
        assert_eq!((report.entered, report.delivered), (3, 3));
        assert_eq!(report.lost.device, 7);
        assert!((report.lateness.max_ms - 2.0).abs() < 0.01, "{report:?}");
        assert!((report.lateness.over_1ms - 2.0 / 3.0).abs() < 1e-9);
    }

    #[test]
    fn every_loss_is_counted_under_its_cause() {
        let mut direction = direction(LinkSpec {
            loss: Loss::Bernoulli(1.0),
            ..LinkSpec::ideal(MS)
        });
        assert_eq!(pass(&mut direction, MS, b"x"), Verdict::Lost);
        direction.lost_to_nat();
        let lost = direction.report(0).lost;
        assert_eq!((lost.random, lost.nat), (1, 1));
    }

    #[test]
    fn what_is_under_way_is_bounded() {
        let mut direction = direction(LinkSpec::ideal(60_000 * MS));
        for _ in 0..MAX_PACKETS + 3 {
            pass(&mut direction, Duration::ZERO, b"x");
        }
        let report = direction.report(0);
        assert_eq!(report.under_way, MAX_PACKETS as u64);
        assert_eq!(report.lost.overflow, 3);
    }

    #[test]
    fn copies_and_damage_are_counted_and_only_the_first_is_damaged() {
        let mut direction = direction(LinkSpec {
            duplicate: 1.0,
            corrupt: 1.0,
            ..LinkSpec::ideal(MS)
        });
        pass(&mut direction, Duration::ZERO, &[0; 8]);
        let mut seen = Vec::new();
        while direction.release(MS, |packet| {
            seen.push(packet.iter().map(|byte| byte.count_ones()).sum::<u32>());
            Release::Delivered
        }) {}
        assert_eq!(seen, [1, 0]);
        let report = direction.report(0);
        assert_eq!((report.duplicated, report.corrupted), (1, 1));
    }
}
