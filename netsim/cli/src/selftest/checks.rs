//! The promises, and how each is measured.

use std::collections::BTreeSet;
use std::time::Duration;

use indicatif::ProgressBar;
use serde::Serialize;
use weft_netsim::{Fate, Link, LinkSpec, Loss, Profile, Queue, Rate};
use weft_netsim_tun::{LatenessReport, LinkReport, Priority, Side, seed_of};

use super::stage::Stage;
use super::traffic::{Arrival, HEADERS, Stream};
use crate::failure::Failure;

/// One promise, asked and measured.
#[derive(Debug, Serialize)]
pub(crate) struct Check {
    /// What was measured, with its unit.
    pub(crate) name: String,
    /// What it should be.
    pub(crate) asked: f64,
    /// What it was.
    pub(crate) measured: f64,
    /// By how much it may differ.
    pub(crate) within: f64,
    /// Whether it did not differ by more.
    pub(crate) passed: bool,
    /// What else is worth knowing.
    pub(crate) note: Option<String>,
    /// How late the link released the packets of this check.
    pub(crate) lateness: LatenessReport,
    /// How its thread was scheduled.
    pub(crate) priority: Priority,
}

impl Check {
    fn new(
        name: impl Into<String>,
        asked: f64,
        within: f64,
        measured: f64,
        link: &LinkReport,
    ) -> Self {
        let dropped = link.forward.lost.device;
        Self {
            name: name.into(),
            asked,
            measured,
            within,
            passed: keeps(asked, within, measured),
            note: (dropped > 0).then(|| {
                format!("{dropped} packets were dropped before the link: it was kept from the CPU")
            }),
            lateness: link.forward.lateness,
            priority: link.priority,
        }
    }
}

/// Whether a figure is what was asked. One that is no number (nothing came) is not.
fn keeps(asked: f64, within: f64, measured: f64) -> bool {
    (measured - asked).abs() <= within
}

/// How much is measured.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Extent {
    loss_packets: u32,
    rate_for: Duration,
    delay_packets: u32,
}

impl Extent {
    /// What the promises say: 200,000 packets.
    pub(crate) const FULL: Self = Self {
        loss_packets: 200_000,
        rate_for: Duration::from_secs(4),
        delay_packets: 5_000,
    };
    /// Enough to notice that something is broken.
    pub(crate) const QUICK: Self = Self {
        loss_packets: 10_000,
        rate_for: Duration::from_millis(500),
        delay_packets: 500,
    };
}

const MS: Duration = Duration::from_millis(1);
/// Rates that are promised, in Mb/s.
const RATES: [u64; 3] = [10, 100, 300];
/// Percentage points by which independent loss may differ.
const LOSS_WITHIN: f64 = 0.1;
/// The same for bursts, of which 200,000 packets hold four times fewer independent draws: four standard
/// deviations of the model itself. That the packets are the model's own is checked exactly.
const BURST_WITHIN: f64 = 0.25;
/// Share of a rate by which it may differ.
const RATE_WITHIN: f64 = 0.02;
/// The median error of a delay, in milliseconds.
const DELAY_WITHIN_MS: f64 = 0.3;

/// Measures everything.
///
/// # Errors
/// As [`Stage::play`].
pub(crate) fn all(
    stage: &Stage,
    extent: &Extent,
    bar: &ProgressBar,
) -> Result<Vec<Check>, Failure> {
    // Three runs with independent loss, one with bursts, the rates, the delay.
    bar.set_length(3 + 1 + RATES.len() as u64 + 1);
    let mut checks = loss(stage, extent, bar)?;
    checks.extend(bursts(stage, extent, bar)?);
    for megabits in RATES {
        checks.push(rate(stage, extent, megabits, bar)?);
    }
    checks.push(delay(stage, extent, bar)?);
    Ok(checks)
}

fn step(bar: &ProgressBar, what: &'static str) {
    bar.set_message(what);
    bar.tick();
}

/// Small packets in quick succession: 20,000 a second.
fn loss_stream(extent: &Extent) -> Stream {
    Stream {
        packets: extent.loss_packets,
        bytes: 100,
        interval: Duration::from_micros(50),
        patience: 300 * MS,
    }
}

/// A link that loses, and does nothing else but delay.
fn losing(loss: Loss) -> LinkSpec {
    LinkSpec {
        loss,
        ..LinkSpec::ideal(5 * MS)
    }
}

fn lost(stream: &Stream, arrivals: &[Arrival]) -> BTreeSet<u32> {
    let came: BTreeSet<u32> = arrivals.iter().map(|arrival| arrival.number).collect();
    (0..stream.packets).filter(|n| !came.contains(n)).collect()
}

/// What the pure model loses of the same packets.
fn lost_by_model(spec: &LinkSpec, seed: u64, stream: &Stream) -> Result<BTreeSet<u32>, Failure> {
    let mut link = Link::new(spec.clone(), seed_of(seed, Side::A))
        .map_err(|error| Failure::Link(error.into()))?;
    Ok((0..stream.packets)
        .filter(|_| matches!(link.send(Duration::ZERO, stream.bytes), Fate::Lost(_)))
        .collect())
}

fn percent(part: usize, whole: u32) -> f64 {
    100.0 * part as f64 / f64::from(whole)
}

/// What is promised of 200,000 packets, for this many: fewer scatter more, by the root of their number.
fn scaled(within: f64, stream: &Stream) -> f64 {
    within * (f64::from(Extent::FULL.loss_packets) / f64::from(stream.packets)).sqrt()
}

fn differing(a: &BTreeSet<u32>, b: &BTreeSet<u32>) -> f64 {
    a.symmetric_difference(b).count() as f64
}

fn loss(stage: &Stage, extent: &Extent, bar: &ProgressBar) -> Result<Vec<Check>, Failure> {
    step(bar, "loss");
    let spec = losing(Profile::Lossy.spec().loss);
    let stream = loss_stream(extent);
    let run = |seed| {
        let (arrivals, report) = stage.play(&spec, seed, &stream)?;
        bar.inc(1);
        Ok::<_, Failure>((lost(&stream, &arrivals), report))
    };
    let seed = stage.seed();
    let (first, report) = run(seed)?;
    let (again, second_report) = run(seed)?;
    let (other, other_report) = run(seed.wrapping_add(1))?;
    let model = lost_by_model(&spec, seed, &stream)?;
    let asked = 100.0 * spec.loss.mean();
    let share = percent(first.len(), stream.packets);
    Ok(vec![
        Check::new(
            "independent loss, %",
            asked,
            scaled(LOSS_WITHIN, &stream),
            share,
            &report,
        ),
        Check::new(
            "lost other than the model says, packets",
            0.0,
            0.0,
            differing(&first, &model),
            &report,
        ),
        Check::new(
            "same seed again: lost others, packets",
            0.0,
            0.0,
            differing(&first, &again),
            &second_report,
        ),
        Check::new(
            "another seed loses others (1: yes)",
            1.0,
            0.0,
            f64::from(u8::from(other != first)),
            &other_report,
        ),
    ])
}

fn bursts(stage: &Stage, extent: &Extent, bar: &ProgressBar) -> Result<Vec<Check>, Failure> {
    step(bar, "bursts");
    let spec = losing(Profile::Bursty.spec().loss);
    let stream = loss_stream(extent);
    let seed = stage.seed();
    let (arrivals, report) = stage.play(&spec, seed, &stream)?;
    bar.inc(1);
    let lost = lost(&stream, &arrivals);
    let model = lost_by_model(&spec, seed, &stream)?;
    Ok(vec![
        Check::new(
            "loss in bursts, %",
            100.0 * spec.loss.mean(),
            scaled(BURST_WITHIN, &stream),
            percent(lost.len(), stream.packets),
            &report,
        ),
        Check::new(
            "bursts other than the model says, packets",
            0.0,
            0.0,
            differing(&lost, &model),
            &report,
        ),
    ])
}

/// A quarter more than the link carries is offered to it; what arrives has its rate.
fn rate(
    stage: &Stage,
    extent: &Extent,
    megabits: u64,
    bar: &ProgressBar,
) -> Result<Check, Failure> {
    step(bar, "rate");
    let bits_per_second = megabits * 1_000_000;
    let spec = LinkSpec {
        rate: Some(Rate {
            bits_per_second,
            // Longer than the CPU is ever away: the bottleneck never runs dry.
            queue: Queue::Time(100 * MS),
        }),
        ..LinkSpec::ideal(5 * MS)
    };
    let bytes = 1500;
    let on_the_wire = Duration::from_nanos(bytes as u64 * 8 * 1000 / megabits);
    let interval = on_the_wire * 4 / 5;
    let packets = extent.rate_for.as_nanos() / interval.as_nanos();
    let stream = Stream {
        packets: u32::try_from(packets).unwrap_or(u32::MAX),
        bytes,
        interval,
        patience: 500 * MS,
    };
    let (arrivals, report) = stage.play(&spec, stage.seed(), &stream)?;
    bar.inc(1);
    let measured = rate_of(&arrivals, bytes);
    let asked = megabits as f64;
    Ok(Check::new(
        format!("rate of {megabits} Mb/s, Mb/s"),
        asked,
        asked * RATE_WITHIN,
        measured,
        &report,
    ))
}

/// Megabits a second from the first arrival to the last.
fn rate_of(arrivals: &[Arrival], bytes: usize) -> f64 {
    match arrivals {
        [first, rest @ .., last] => {
            let bits = (rest.len() + 1) as f64 * bytes as f64 * 8.0;
            bits / (last.received - first.received).as_secs_f64() / 1e6
        }
        _ => f64::NAN,
    }
}

fn delay(stage: &Stage, extent: &Extent, bar: &ProgressBar) -> Result<Check, Failure> {
    step(bar, "delay");
    let delay = 40 * MS;
    let stream = Stream {
        packets: extent.delay_packets,
        bytes: 200 + HEADERS,
        interval: 2 * MS,
        patience: 300 * MS,
    };
    let (arrivals, report) = stage.play(&LinkSpec::ideal(delay), stage.seed(), &stream)?;
    bar.inc(1);
    let mut errors: Vec<f64> = arrivals
        .iter()
        .map(|a| ((a.received - a.sent).as_secs_f64() - delay.as_secs_f64()) * 1e3)
        .collect();
    errors.sort_by(f64::total_cmp);
    let at = |share: f64| {
        let index = (errors.len() as f64 * share) as usize;
        errors.get(index).copied().unwrap_or(f64::NAN)
    };
    let mut check = Check::new(
        "delay of 40 ms: median error, ms",
        0.0,
        DELAY_WITHIN_MS,
        at(0.5),
        &report,
    );
    check.note = Some(format!(
        "error from socket to socket, ms: least {:.3}, p99 {:.3}, largest {:.3}",
        at(0.0),
        at(0.99),
        errors.last().copied().unwrap_or(f64::NAN)
    ));
    Ok(check)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn arrival(number: u32, millis: u32) -> Arrival {
        Arrival {
            number,
            sent: Duration::ZERO,
            received: millis * MS,
        }
    }

    #[test]
    fn a_rate_is_counted_between_the_first_and_the_last_packet() {
        let arrivals: Vec<_> = (0..11).map(|n| arrival(n, n)).collect();
        assert!((rate_of(&arrivals, 1250) - 10.0).abs() < 1e-9);
        assert!(
            rate_of(&arrivals[..1], 1250).is_nan(),
            "no rate of one packet"
        );
    }

    #[test]
    fn a_figure_beyond_its_bound_or_none_at_all_breaks_the_promise() {
        assert!(keeps(300.0, 6.0, 294.0));
        assert!(!keeps(300.0, 6.0, 293.9));
        assert!(!keeps(0.0, 0.0, 1.0), "one packet that differs");
        assert!(!keeps(0.0, 0.3, f64::NAN));
    }

    #[test]
    fn what_did_not_come_is_lost_and_compared_packet_by_packet() {
        let stream = Stream {
            packets: 4,
            ..loss_stream(&Extent::QUICK)
        };
        let lost = lost(&stream, &[arrival(2, 0), arrival(0, 1), arrival(2, 2)]);
        assert_eq!(lost, BTreeSet::from([1, 3]));
        assert_eq!(differing(&lost, &BTreeSet::from([1, 2])), 2.0);
    }

    #[test]
    fn the_promise_of_200_000_packets_holds_in_the_model_for_many_seeds() {
        let stream = loss_stream(&Extent::FULL);
        let cases = [
            (Profile::Lossy, LOSS_WITHIN),
            (Profile::Bursty, BURST_WITHIN),
        ];
        for (profile, within) in cases {
            let spec = losing(profile.spec().loss);
            for seed in 1..=20 {
                let lost = lost_by_model(&spec, seed, &stream).unwrap();
                let share = percent(lost.len(), stream.packets);
                let asked = 100.0 * spec.loss.mean();
                assert!(
                    (share - asked).abs() <= within,
                    "{profile}, seed {seed}: {share} %"
                );
            }
        }
    }
}
