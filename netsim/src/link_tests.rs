use super::*;
use crate::spec::{Mtu, Outage};

const MS: Duration = Duration::from_millis(1);

fn link(spec: LinkSpec, seed: u64) -> Link {
    Link::new(spec, seed).unwrap()
}

fn arrival(fate: Fate) -> Option<Duration> {
    match fate {
        Fate::Delivered(delivery) => Some(delivery.first.at),
        Fate::Lost(_) => None,
    }
}

fn share_lost(spec: LinkSpec, packets: u32) -> f64 {
    let mut link = link(spec, 7);
    let lost = (0..packets)
        .filter(|_| arrival(link.send(Duration::ZERO, 1200)).is_none())
        .count();
    lost as f64 / f64::from(packets)
}

#[test]
fn an_ideal_link_delays_and_nothing_else() {
    let mut link = link(LinkSpec::ideal(40 * MS), 1);
    for n in 0..1000 {
        assert_eq!(arrival(link.send(n * MS, 1200)), Some((n + 40) * MS));
    }
}

#[test]
fn loss_is_what_was_asked_within_a_tenth_of_a_point() {
    for p in [0.001, 0.01, 0.02, 0.3] {
        let spec = LinkSpec {
            loss: Loss::Bernoulli(p),
            ..LinkSpec::ideal(MS)
        };
        let got = share_lost(spec, 200_000);
        // Four standard deviations at 0.3, and never more than the promise below it.
        assert!(
            (got - p).abs() < 0.001_f64.max(p * 0.014),
            "asked {p}, got {got}"
        );
    }
}

#[test]
fn bursts_have_the_mean_and_the_length_that_was_asked() {
    let loss = Loss::Bursts {
        to_bad: 0.01,
        to_good: 0.25,
        loss_good: 0.0,
        loss_bad: 0.5,
    };
    let spec = LinkSpec {
        loss,
        ..LinkSpec::ideal(MS)
    };
    let got = share_lost(spec.clone(), 400_000);
    assert!(
        (got - loss.mean()).abs() < 0.001,
        "mean {}, got {got}",
        loss.mean()
    );

    // In bursts, the packet after a lost one is lost far more often than on average.
    let mut link = link(spec, 9);
    let fates: Vec<bool> = (0..200_000)
        .map(|_| arrival(link.send(Duration::ZERO, 100)).is_none())
        .collect();
    let after_loss: Vec<_> = fates.windows(2).filter(|w| w[0]).map(|w| w[1]).collect();
    let again = after_loss.iter().filter(|lost| **lost).count() as f64 / after_loss.len() as f64;
    assert!(
        (again - 0.375).abs() < 0.02,
        "0.75 stay bad x 0.5 lost, got {again}"
    );
}

#[test]
fn the_same_seed_loses_the_same_packets_whatever_the_queue_does() {
    let lossy = LinkSpec {
        loss: Loss::Bernoulli(0.05),
        ..LinkSpec::ideal(MS)
    };
    let narrow = LinkSpec {
        rate: Some(Rate {
            bits_per_second: 1_000_000,
            queue: Queue::Packets(1000),
        }),
        ..lossy.clone()
    };
    let lost = |spec: &LinkSpec, seed| -> Vec<u32> {
        let mut link = link(spec.clone(), seed);
        (0..900)
            .filter(|_| arrival(link.send(Duration::ZERO, 1200)).is_none())
            .collect()
    };
    assert_eq!(lost(&lossy, 3), lost(&narrow, 3));
    assert_ne!(
        lost(&lossy, 3),
        lost(&lossy, 4),
        "the control: another seed differs"
    );
}

#[test]
fn a_bottleneck_spaces_packets_by_its_rate_and_drops_at_the_tail() {
    let rate = Rate {
        bits_per_second: 8_000_000,
        queue: Queue::Packets(5),
    };
    let mut link = link(
        LinkSpec {
            rate: Some(rate),
            ..LinkSpec::ideal(10 * MS)
        },
        1,
    );
    let fates: Vec<_> = (0..7).map(|_| link.send(Duration::ZERO, 1000)).collect();
    for (n, fate) in fates[..5].iter().enumerate() {
        assert_eq!(arrival(*fate), Some((u32::try_from(n).unwrap() + 11) * MS));
    }
    assert_eq!(fates[5], Fate::Lost(LossCause::QueueFull));
    assert_eq!(
        arrival(link.send(MS, 1000)),
        Some(16 * MS),
        "one has left, one may enter"
    );
}

#[test]
fn queues_are_bounded_in_bytes_and_in_time_too() {
    for (queue, fit) in [(Queue::Bytes(3000), 3), (Queue::Time(2 * MS), 3)] {
        let rate = Rate {
            bits_per_second: 8_000_000,
            queue,
        };
        let mut link = link(
            LinkSpec {
                rate: Some(rate),
                ..LinkSpec::ideal(MS)
            },
            1,
        );
        let passed = (0..10)
            .filter(|_| arrival(link.send(Duration::ZERO, 1000)).is_some())
            .count();
        assert_eq!(passed, fit, "{queue:?}");
    }
}

#[test]
fn jitter_keeps_order_unless_reordering_was_asked() {
    let overtaken = |jitter| {
        let mut link = link(
            LinkSpec {
                jitter,
                ..LinkSpec::ideal(MS)
            },
            5,
        );
        let at: Vec<_> = (0..500)
            .filter_map(|n| arrival(link.send(n * MS, 100)))
            .collect();
        at.windows(2).filter(|w| w[1] < w[0]).count()
    };
    assert_eq!(overtaken(Jitter::InOrder(10 * MS)), 0);
    assert!(overtaken(Jitter::Reordering(10 * MS)) > 50);
}

#[test]
fn duplication_corruption_mtu_and_outage_do_what_they_say() {
    let ideal = LinkSpec::ideal(MS);
    let mut twice = link(
        LinkSpec {
            duplicate: 1.0,
            ..ideal.clone()
        },
        1,
    );
    assert!(matches!(
        twice.send(MS, 100),
        Fate::Delivered(Delivery {
            second: Some(_),
            ..
        })
    ));

    let mut dirty = link(
        LinkSpec {
            corrupt: 1.0,
            ..ideal.clone()
        },
        1,
    );
    let Fate::Delivered(delivery) = dirty.send(MS, 100) else {
        panic!("delivered")
    };
    assert!(delivery.first.flipped_bit.unwrap() < 800);

    for (reported, limit) in [(true, Some(1400)), (false, None)] {
        let mtu = Some(Mtu {
            bytes: 1400,
            reported,
        });
        let mut narrow = link(
            LinkSpec {
                mtu,
                ..ideal.clone()
            },
            1,
        );
        assert_eq!(narrow.send(MS, 1401), Fate::Lost(LossCause::TooBig(limit)));
        assert!(arrival(narrow.send(MS, 1400)).is_some());
    }

    let outages = vec![Outage {
        from: 10 * MS,
        until: 20 * MS,
    }];
    let mut flaky = link(LinkSpec { outages, ..ideal }, 1);
    assert!(arrival(flaky.send(9 * MS, 100)).is_some());
    assert_eq!(flaky.send(10 * MS, 100), Fate::Lost(LossCause::Outage));
    assert!(arrival(flaky.send(20 * MS, 100)).is_some());
}

#[test]
fn a_schedule_changes_the_link_from_its_moment_on() {
    let slower = Change {
        at: 10 * MS,
        spec: LinkSpec::ideal(50 * MS),
    };
    let dead = Change {
        at: 20 * MS,
        spec: LinkSpec {
            loss: Loss::Bernoulli(1.0),
            ..LinkSpec::ideal(MS)
        },
    };
    let start = LinkSpec::ideal(MS);
    let mut link =
        Link::with_schedule(start.clone(), vec![slower.clone(), dead.clone()], 1).unwrap();
    assert_eq!(arrival(link.send(9 * MS, 100)), Some(10 * MS));
    assert_eq!(arrival(link.send(10 * MS, 100)), Some(60 * MS));
    assert_eq!(link.send(25 * MS, 100), Fate::Lost(LossCause::Random));

    let backwards = Link::with_schedule(start.clone(), vec![dead.clone(), slower], 1);
    assert_eq!(backwards.unwrap_err(), SpecError::Changes(1));
    let impossible = Change {
        spec: LinkSpec {
            loss: Loss::Bernoulli(1.3),
            ..start.clone()
        },
        ..dead
    };
    assert!(Link::with_schedule(start, vec![impossible], 1).is_err());
}

#[test]
fn a_change_does_not_move_the_draws_of_later_packets() {
    let lossy = |p| LinkSpec {
        loss: Loss::Bernoulli(p),
        ..LinkSpec::ideal(MS)
    };
    let change = Change {
        at: 100 * MS,
        spec: lossy(0.0),
    };
    let back = Change {
        at: 200 * MS,
        spec: lossy(0.3),
    };
    let mut changing = Link::with_schedule(lossy(0.3), vec![change, back], 5).unwrap();
    let mut steady = link(lossy(0.3), 5);
    for n in 0..300 {
        let (a, b) = (changing.send(n * MS, 100), steady.send(n * MS, 100));
        if !(100..200).contains(&n) {
            assert_eq!(arrival(a).is_some(), arrival(b).is_some(), "packet {n}");
        }
    }
}
