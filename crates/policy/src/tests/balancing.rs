//! Peak EWMA, the power of two choices, and the memory of failed dials.

use std::time::Duration;

use proptest::prelude::*;

use crate::balance::{
    DECAY, DialHealth, FAILURE_RTT, FIRST_BACKOFF, INITIAL_RTT, LoadView, MAX_BACKOFF, PeakEwma,
    Readiness, pick,
};

fn ms(n: u64) -> Duration {
    Duration::from_millis(n)
}

fn near(a: f64, b: f64) -> bool {
    (a - b).abs() < 1e-9
}

#[test]
fn an_endpoint_never_used_costs_the_initial_estimate() {
    let ewma = PeakEwma::new(ms(500));
    assert!(near(ewma.load(ms(500), 0), INITIAL_RTT.as_secs_f64()));
    assert!(near(ewma.load(ms(500), 3), 4.0 * INITIAL_RTT.as_secs_f64()));
}

#[test]
fn a_peak_counts_at_once_and_is_forgotten_slowly() {
    let mut ewma = PeakEwma::new(ms(0));
    ewma.observe(ms(1000), ms(10));
    assert!(near(ewma.load(ms(10), 0), 1.0));
    // A tenth of the decay time later, a fast sample moves it by 1 - e^-0.1.
    ewma.observe(ms(100), ms(10) + DECAY / 10);
    let weight = (-0.1_f64).exp();
    assert!(near(
        ewma.load(ms(10) + DECAY / 10, 0),
        weight + 0.1 * (1.0 - weight)
    ));
}

#[test]
fn the_estimate_sinks_to_nothing_while_nothing_is_heard() {
    let ewma = PeakEwma::new(ms(0));
    assert!(near(
        ewma.load(DECAY, 0),
        INITIAL_RTT.as_secs_f64() / std::f64::consts::E
    ));
    assert!(ewma.load(DECAY * 100, 0) < 1e-40);
}

#[test]
fn time_that_goes_back_changes_nothing() {
    let mut ewma = PeakEwma::new(ms(100));
    ewma.observe(ms(10), ms(50));
    assert!(near(ewma.load(ms(0), 0), INITIAL_RTT.as_secs_f64()));
}

#[test]
fn failing_fast_does_not_look_like_being_fast() {
    let (mut broken, mut slow) = (PeakEwma::new(ms(0)), PeakEwma::new(ms(0)));
    broken.observe_failure(ms(1));
    slow.observe(ms(900), ms(1));
    assert!(near(broken.load(ms(1), 0), FAILURE_RTT.as_secs_f64()));
    assert!(broken.load(ms(1), 0) > slow.load(ms(1), 3));
}

fn view(load: f64, readiness: Readiness) -> LoadView {
    LoadView { load, readiness }
}

#[test]
fn nothing_to_pick_from_is_none() {
    assert_eq!(pick(&[], (0, 0)), None);
    assert_eq!(pick(&[view(1.0, Readiness::Excluded)], (0, 0)), None);
}

#[test]
fn the_last_resort_is_used_only_when_nothing_is_ready() {
    use Readiness::{Excluded, LastResort, Ready};
    for (states, allowed) in [
        (vec![Ready, LastResort, Excluded], vec![0]),
        (vec![LastResort, LastResort, Excluded], vec![0, 1]),
        (vec![Excluded, LastResort, Excluded], vec![1]),
        (vec![Excluded, Ready, Ready], vec![1, 2]),
    ] {
        let views: Vec<LoadView> = states.iter().map(|state| view(1.0, *state)).collect();
        let mut seen: Vec<usize> = Vec::new();
        for n in 0..64 {
            let index = pick(&views, (u64::MAX / 64 * n, u64::MAX / 7 * (n % 7))).unwrap();
            assert!(allowed.contains(&index), "{states:?} gave {index}");
            seen.push(index);
        }
        assert!(
            allowed.iter().all(|index| seen.contains(index)),
            "{states:?}"
        );
    }
}

#[test]
fn equal_endpoints_get_equal_shares_and_the_worst_of_all_gets_none() {
    let mut views = vec![view(1.0, Readiness::Ready); 4];
    let shares = |views: &[LoadView]| {
        let mut counts = [0; 4];
        for a in 0..64 {
            for b in 0..63 {
                counts[pick(views, (u64::MAX / 64 * a, u64::MAX / 63 * b)).unwrap()] += 1;
            }
        }
        counts
    };
    for count in shares(&views) {
        assert!((900..=1120).contains(&count), "{count} of 4032");
    }
    views[2].load = 9.0;
    assert_eq!(shares(&views)[2], 0);
}

proptest! {
    #[test]
    fn the_pick_is_never_worse_than_both_of_two_others(loads in prop::collection::vec(0.0_f64..10.0, 1..9), draw: (u64, u64)) {
        let views: Vec<LoadView> = loads.iter().map(|load| view(*load, Readiness::Ready)).collect();
        let index = pick(&views, draw).unwrap();
        let worse = loads.iter().filter(|load| **load > loads[index]).count();
        let same = loads.iter().filter(|load| **load == loads[index]).count();
        prop_assert!(loads.len() == 1 || worse >= 1 || same >= 2, "the worst was picked");
    }

    #[test]
    fn a_load_is_a_number_whatever_was_observed(samples in prop::collection::vec((0_u64..1 << 50, 0_u64..1 << 60), 0..20)) {
        let mut ewma = PeakEwma::new(Duration::ZERO);
        for (rtt, now) in samples {
            ewma.observe(Duration::from_nanos(rtt), Duration::from_nanos(now));
            let load = ewma.load(Duration::from_nanos(now), u32::MAX);
            prop_assert!(load.is_finite() && load >= 0.0);
        }
    }

    #[test]
    fn the_wait_after_failed_dials_grows_to_a_bound(draws in prop::collection::vec(any::<u64>(), 1..80)) {
        let mut health = DialHealth::default();
        for (n, draw) in draws.iter().enumerate() {
            health.failed(ms(0), *draw);
            let full = FIRST_BACKOFF.saturating_mul(1 << n.min(16)).min(MAX_BACKOFF);
            prop_assert_eq!(health.readiness(full / 2 - ms(1)), Readiness::LastResort);
            prop_assert_eq!(health.readiness(full), Readiness::Ready);
        }
        health.succeeded();
        prop_assert_eq!(health, DialHealth::default());
    }
}
