//! Which congestion control a connection has. It may change once the peer is known: the accepting side begins
//! before it has seen a certificate, and a profile may be pinned to an identity.

use std::any::Any;
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, AtomicU64, Ordering};
use std::time::Instant;

use quinn::congestion::{BbrConfig, Controller, ControllerFactory, ControllerMetrics, CubicConfig};
use quinn_proto::RttEstimator;

use crate::Congestion;
use crate::congestion::DiscerningConfig;

/// How the losses of a connection were judged, by [`Congestion::Discerning`].
#[derive(Debug, Default)]
pub(crate) struct Losses {
    random: AtomicU64,
    congestion: AtomicU64,
}

impl Losses {
    pub(crate) fn judged(&self, is_congestion: bool) {
        let count = match is_congestion {
            true => &self.congestion,
            false => &self.random,
        };
        count.fetch_add(1, Ordering::Relaxed);
    }

    /// Losses that did not slow the sender down.
    pub(crate) fn random(&self) -> u64 {
        self.random.load(Ordering::Relaxed)
    }

    /// Losses that did.
    pub(crate) fn congestion(&self) -> u64 {
        self.congestion.load(Ordering::Relaxed)
    }
}

/// The choice for one connection. Clones are the same choice.
#[derive(Clone, Debug, Default)]
pub(crate) struct Wheel {
    choice: Arc<AtomicU8>,
    losses: Arc<Losses>,
}

impl Wheel {
    pub(crate) fn new(choice: Congestion) -> Self {
        let wheel = Self::default();
        wheel.choose(choice);
        wheel
    }

    /// From the next packet on.
    pub(crate) fn choose(&self, choice: Congestion) {
        self.choice.store(choice as u8, Ordering::Relaxed);
    }

    pub(crate) fn choice(&self) -> Congestion {
        match self.choice.load(Ordering::Relaxed) {
            c if c == Congestion::Cubic as u8 => Congestion::Cubic,
            c if c == Congestion::Bbr as u8 => Congestion::Bbr,
            _ => Congestion::Discerning,
        }
    }

    pub(crate) fn losses(&self) -> &Losses {
        &self.losses
    }

    fn controller(&self, choice: Congestion, now: Instant, mtu: u16) -> Box<dyn Controller> {
        let factory: Arc<dyn ControllerFactory> = match choice {
            Congestion::Discerning => Arc::new(DiscerningConfig::new(self.losses.clone())),
            Congestion::Cubic => Arc::new(CubicConfig::default()),
            Congestion::Bbr => Arc::new(BbrConfig::default()),
        };
        factory.build(now, mtu)
    }
}

impl ControllerFactory for Wheel {
    fn build(self: Arc<Self>, now: Instant, current_mtu: u16) -> Box<dyn Controller> {
        let running = self.choice();
        Box::new(Steered {
            inner: self.controller(running, now, current_mtu),
            running,
            mtu: current_mtu,
            wheel: Self::clone(&self),
        })
    }
}

/// The control that is chosen. A change begins anew, with the first window of the new one.
struct Steered {
    wheel: Wheel,
    running: Congestion,
    mtu: u16,
    inner: Box<dyn Controller>,
}

impl Controller for Steered {
    fn on_sent(&mut self, now: Instant, bytes: u64, last_packet_number: u64) {
        let choice = self.wheel.choice();
        if choice != self.running {
            self.running = choice;
            self.inner = self.wheel.controller(choice, now, self.mtu);
        }
        self.inner.on_sent(now, bytes, last_packet_number);
    }

    fn on_ack(
        &mut self,
        now: Instant,
        sent: Instant,
        bytes: u64,
        app_limited: bool,
        rtt: &RttEstimator,
    ) {
        self.inner.on_ack(now, sent, bytes, app_limited, rtt);
    }

    fn on_end_acks(
        &mut self,
        now: Instant,
        in_flight: u64,
        app_limited: bool,
        largest_packet_num_acked: Option<u64>,
    ) {
        self.inner
            .on_end_acks(now, in_flight, app_limited, largest_packet_num_acked);
    }

    fn on_congestion_event(
        &mut self,
        now: Instant,
        sent: Instant,
        is_persistent_congestion: bool,
        lost_bytes: u64,
    ) {
        self.inner
            .on_congestion_event(now, sent, is_persistent_congestion, lost_bytes);
    }

    fn on_mtu_update(&mut self, new_mtu: u16) {
        self.mtu = new_mtu;
        self.inner.on_mtu_update(new_mtu);
    }

    fn window(&self) -> u64 {
        self.inner.window()
    }

    fn metrics(&self) -> ControllerMetrics {
        self.inner.metrics()
    }

    fn clone_box(&self) -> Box<dyn Controller> {
        Box::new(Self {
            wheel: self.wheel.clone(),
            running: self.running,
            mtu: self.mtu,
            inner: self.inner.clone_box(),
        })
    }

    fn initial_window(&self) -> u64 {
        self.inner.initial_window()
    }

    /// The control inside, for who wants to look at it.
    fn into_any(self: Box<Self>) -> Box<dyn Any> {
        self.inner.into_any()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::congestion::Discerning;
    use quinn::congestion::{Bbr, Cubic};

    #[test]
    #[allow(clippy::disallowed_methods, reason = "any instant will do")]
    fn the_control_is_the_chosen_one_from_the_next_packet_on() {
        let wheel = Wheel::new(Congestion::Discerning);
        let mut controller = Arc::new(wheel.clone()).build(Instant::now(), 1_200);
        let is = |controller: &dyn Controller, choice| {
            let inner = controller.clone_box().into_any();
            match choice {
                Congestion::Discerning => inner.is::<Discerning>(),
                Congestion::Cubic => inner.is::<Cubic>(),
                Congestion::Bbr => inner.is::<Bbr>(),
            }
        };
        assert!(is(&*controller, Congestion::Discerning));
        for choice in [Congestion::Cubic, Congestion::Bbr, Congestion::Discerning] {
            wheel.choose(choice);
            assert_eq!(wheel.choice(), choice);
            assert!(!is(&*controller, choice), "nothing was sent yet");
            controller.on_sent(Instant::now(), 1_200, 1);
            assert!(is(&*controller, choice), "{choice:?}");
        }
    }
}
