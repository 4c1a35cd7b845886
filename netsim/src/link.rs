//! One direction of a link, packet by packet.

use std::collections::VecDeque;
use std::time::Duration;

use rand::rngs::Xoshiro256PlusPlus;
use rand::{Rng, SeedableRng};

use crate::spec::{Change, Jitter, LinkSpec, Loss, Queue, Rate, SpecError};

/// What becomes of a packet.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fate {
    /// It arrives, once or twice.
    Delivered(Delivery),
    /// It does not.
    Lost(LossCause),
}

/// When and how a packet arrives. Times are since the start of the link.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Delivery {
    /// The packet.
    pub first: Arrival,
    /// A copy, if the link duplicated it.
    pub second: Option<Arrival>,
}

/// One arrival.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Arrival {
    /// When.
    pub at: Duration,
    /// The bit that was flipped on the way, counted from the packet's first.
    pub flipped_bit: Option<usize>,
}

/// To what a packet was lost.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LossCause {
    /// Random loss.
    Random,
    /// No room in the queue of the bottleneck.
    QueueFull,
    /// Larger than the MTU; with the limit if the sender is to hear of it.
    TooBig(Option<usize>),
    /// The link was down.
    Outage,
}

/// One direction of a link. See the crate's page.
#[derive(Debug, Clone)]
pub struct Link {
    spec: LinkSpec,
    /// Changes still to come, the next one first.
    schedule: VecDeque<Change>,
    rng: Xoshiro256PlusPlus,
    /// Gilbert-Elliott: whether the link is in its bad state.
    bad: bool,
    /// Packets that the bottleneck holds: when each has left it, and its size. Bounded by the queue.
    waiting: VecDeque<(Duration, usize)>,
    waiting_bytes: usize,
    /// Latest arrival given so far, to keep order.
    last_arrival: Duration,
}

impl Link {
    /// A link as `spec` says, with all chance drawn from `seed`.
    ///
    /// # Errors
    /// [`SpecError`] for impossible figures.
    pub fn new(spec: LinkSpec, seed: u64) -> Result<Self, SpecError> {
        Self::with_schedule(spec, Vec::new(), seed)
    }

    /// A link that changes on a schedule: as `spec` says until the first of `changes`, then as that says.
    /// What is under way at a change stays as it is.
    ///
    /// # Errors
    /// [`SpecError`] for impossible figures or changes out of order.
    pub fn with_schedule(
        spec: LinkSpec,
        changes: Vec<Change>,
        seed: u64,
    ) -> Result<Self, SpecError> {
        spec.check()?;
        if let Some(index) = changes.windows(2).position(|pair| pair[1].at <= pair[0].at) {
            return Err(SpecError::Changes(index + 1));
        }
        for change in &changes {
            change.spec.check()?;
        }
        Ok(Self {
            spec,
            schedule: changes.into(),
            rng: Xoshiro256PlusPlus::seed_from_u64(seed),
            bad: false,
            waiting: VecDeque::new(),
            waiting_bytes: 0,
            last_arrival: Duration::ZERO,
        })
    }

    /// What the link is like, as of the latest packet.
    #[must_use]
    pub fn spec(&self) -> &LinkSpec {
        &self.spec
    }

    /// Changes what the link is like from now on. What is under way stays as it is.
    ///
    /// # Errors
    /// [`SpecError`] for impossible figures; the link then stays as it is.
    pub fn change(&mut self, spec: LinkSpec) -> Result<(), SpecError> {
        spec.check()?;
        self.spec = spec;
        Ok(())
    }

    /// A packet of `bytes` enters the link at `now` (since its start; never before an earlier packet's).
    ///
    /// Each packet draws the same number of random figures whatever becomes of it, so that the loss of
    /// packet *n* depends on the seed and *n* alone, not on queues.
    pub fn send(&mut self, now: Duration, bytes: usize) -> Fate {
        self.keep_schedule(now);
        let chance = Chance::draw(&mut self.rng);
        let lost = self.random_loss(&chance);
        if self.is_down(now) {
            return Fate::Lost(LossCause::Outage);
        }
        if let Some(mtu) = self.spec.mtu
            && bytes > mtu.bytes
        {
            return Fate::Lost(LossCause::TooBig(mtu.reported.then_some(mtu.bytes)));
        }
        let Some(left) = self.bottleneck(now, bytes) else {
            return Fate::Lost(LossCause::QueueFull);
        };
        // Loss comes after the bottleneck: a lost packet has used up its rate, as on a real path.
        if lost {
            return Fate::Lost(LossCause::Random);
        }
        let at = self.arrival(left, chance.jitter);
        let flipped_bit =
            (chance.corrupt < self.spec.corrupt).then(|| chance.bit % (bytes.max(1) * 8));
        let first = Arrival { at, flipped_bit };
        let second = (chance.duplicate < self.spec.duplicate).then(|| Arrival {
            at: self.arrival(left, chance.jitter_of_copy),
            flipped_bit: None,
        });
        Fate::Delivered(Delivery { first, second })
    }

    fn keep_schedule(&mut self, now: Duration) {
        while self.schedule.front().is_some_and(|next| next.at <= now)
            && let Some(change) = self.schedule.pop_front()
        {
            self.spec = change.spec;
        }
    }

    /// Outages are in order and do not overlap (`LinkSpec::check`): the first that has not ended decides.
    fn is_down(&self, now: Duration) -> bool {
        let outages = &self.spec.outages;
        let next = outages.partition_point(|outage| outage.until <= now);
        outages.get(next).is_some_and(|outage| outage.from <= now)
    }

    fn random_loss(&mut self, chance: &Chance) -> bool {
        match self.spec.loss {
            Loss::None => false,
            Loss::Bernoulli(p) => chance.loss < p,
            Loss::Bursts {
                to_bad,
                to_good,
                loss_good,
                loss_bad,
            } => {
                let step = if self.bad { to_good } else { to_bad };
                if chance.step < step {
                    self.bad = !self.bad;
                }
                chance.loss < if self.bad { loss_bad } else { loss_good }
            }
        }
    }

    /// When the packet has left the bottleneck, or `None` if its queue has no room.
    fn bottleneck(&mut self, now: Duration, bytes: usize) -> Option<Duration> {
        let Some(Rate {
            bits_per_second,
            queue,
        }) = self.spec.rate
        else {
            return Some(now);
        };
        while let Some(&(left, size)) = self.waiting.front()
            && left <= now
        {
            self.waiting.pop_front();
            self.waiting_bytes -= size;
        }
        let start = self.waiting.back().map_or(now, |&(left, _)| left.max(now));
        let left = start + transmission(bytes, bits_per_second);
        let has_room = match queue {
            Queue::Packets(n) => self.waiting.len() < n,
            Queue::Bytes(n) => self.waiting_bytes + bytes <= n,
            Queue::Time(t) => start - now <= t,
        };
        if !has_room {
            return None;
        }
        self.waiting.push_back((left, bytes));
        self.waiting_bytes += bytes;
        Some(left)
    }

    fn arrival(&mut self, left: Duration, jitter: f64) -> Duration {
        let at = left + self.spec.delay;
        let at = match self.spec.jitter {
            Jitter::None => at,
            Jitter::InOrder(most) | Jitter::Reordering(most) => at + most.mul_f64(jitter),
        };
        match self.spec.jitter {
            Jitter::Reordering(_) => at,
            Jitter::None | Jitter::InOrder(_) => {
                self.last_arrival = self.last_arrival.max(at);
                self.last_arrival
            }
        }
    }
}

/// Time on the wire, rounded up to the nanosecond.
fn transmission(bytes: usize, bits_per_second: u64) -> Duration {
    let nanos = (bytes as u128 * 8 * 1_000_000_000).div_ceil(u128::from(bits_per_second));
    Duration::from_nanos(u64::try_from(nanos).unwrap_or(u64::MAX))
}

/// All that is random about one packet.
struct Chance {
    loss: f64,
    step: f64,
    jitter: f64,
    jitter_of_copy: f64,
    duplicate: f64,
    corrupt: f64,
    bit: usize,
}

impl Chance {
    fn draw(rng: &mut Xoshiro256PlusPlus) -> Self {
        Self {
            loss: unit(rng),
            step: unit(rng),
            jitter: unit(rng),
            jitter_of_copy: unit(rng),
            duplicate: unit(rng),
            corrupt: unit(rng),
            bit: usize::try_from(rng.next_u64() >> 32).expect("32 bits fit"),
        }
    }
}

/// Uniform in 0 (included) to 1 (not): the upper 53 bits, as a double holds them.
fn unit(rng: &mut Xoshiro256PlusPlus) -> f64 {
    (rng.next_u64() >> 11) as f64 / (1_u64 << 53) as f64
}

#[cfg(test)]
#[path = "link_tests.rs"]
mod tests;
