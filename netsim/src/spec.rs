//! What a link is like, and the refusal of figures that no link can have.

use std::time::Duration;

/// One direction of a link.
#[derive(Debug, Clone, PartialEq)]
pub struct LinkSpec {
    /// Propagation delay, one way. At most one minute.
    pub delay: Duration,
    /// Variation of the delay.
    pub jitter: Jitter,
    /// Random loss.
    pub loss: Loss,
    /// Bottleneck with its queue; `None` for a link without one.
    pub rate: Option<Rate>,
    /// Share of packets that arrive twice, 0 to 1.
    pub duplicate: f64,
    /// Share of packets that arrive with one bit flipped, 0 to 1.
    pub corrupt: f64,
    /// Largest packet; `None` for no limit.
    pub mtu: Option<Mtu>,
    /// Windows in which nothing passes, in order, not overlapping.
    pub outages: Vec<Outage>,
}

/// Variation of the delay, added to it.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Jitter {
    /// None.
    None,
    /// Uniform in 0 to this much more; packets stay in order, as in a queue on the way.
    InOrder(Duration),
    /// Uniform in 0 to this much more, each packet for itself: packets overtake each other.
    Reordering(Duration),
}

/// Random loss.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Loss {
    /// None.
    None,
    /// Each packet for itself with this probability.
    Bernoulli(f64),
    /// Gilbert-Elliott: a good and a bad state, with a step between them at each packet.
    Bursts {
        /// Probability of going from good to bad.
        to_bad: f64,
        /// Probability of going from bad to good; 1 / this is the mean length of a burst, in packets.
        to_good: f64,
        /// Loss in the good state.
        loss_good: f64,
        /// Loss in the bad state.
        loss_bad: f64,
    },
}

impl Loss {
    /// The share of packets that are lost in the long run.
    #[must_use]
    pub fn mean(&self) -> f64 {
        match *self {
            Self::None => 0.0,
            Self::Bernoulli(p) => p,
            Self::Bursts {
                to_bad,
                to_good,
                loss_good,
                loss_bad,
            } => {
                // A link that never changes its state stays in the good one, where it starts.
                let bad = if to_bad == 0.0 {
                    0.0
                } else {
                    to_bad / (to_bad + to_good)
                };
                bad * loss_bad + (1.0 - bad) * loss_good
            }
        }
    }
}

/// A bottleneck.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Rate {
    /// Bits a second, counted over whole packets.
    pub bits_per_second: u64,
    /// What may wait for it; more is dropped at the tail.
    pub queue: Queue,
}

/// How much may wait at a bottleneck, the packet in transmission included.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Queue {
    /// That many packets.
    Packets(usize),
    /// That many bytes.
    Bytes(usize),
    /// Whatever leaves within this time.
    Time(Duration),
}

/// The largest packet that passes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Mtu {
    /// Bytes, IP header included.
    pub bytes: usize,
    /// Whether the sender hears of it ("packet too big"), or the packet is lost in silence: a black hole.
    pub reported: bool,
}

/// A window in which nothing passes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Outage {
    /// Begin, since the start of the link.
    pub from: Duration,
    /// End, since the start of the link.
    pub until: Duration,
}

/// The link is like this from `at` on, until the next change.
#[derive(Debug, Clone, PartialEq)]
pub struct Change {
    /// When, since the start of the link.
    pub at: Duration,
    /// What the link is like from then on. Its outages, too, count from the start of the link.
    pub spec: LinkSpec,
}

/// A figure that no link can have.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
pub enum SpecError {
    /// Not a probability.
    #[error("{what} is {value}, but a share of packets lies between 0 and 1 (100 %)")]
    NotAShare {
        /// Which figure.
        what: &'static str,
        /// What was given.
        value: f64,
    },
    /// More than a minute.
    #[error("{what} is {value:?}, the limit is one minute")]
    TooLong {
        /// Which figure.
        what: &'static str,
        /// What was given.
        value: Duration,
    },
    /// Zero where nothing would ever pass.
    #[error("{0} is 0: nothing would ever pass")]
    Zero(&'static str),
    /// Outages out of order.
    #[error("outage {0} ends before it begins, or begins before the one before it has ended")]
    Outages(usize),
    /// Changes out of order.
    #[error("change {0} is not after the one before it")]
    Changes(usize),
    /// Rebindings out of order.
    #[error("rebinding {0} is not after the one before it")]
    Rebindings(usize),
    /// No IP packet need be so small.
    #[error("the MTU is {0} bytes, but every link of the Internet carries 68 (RFC 791)")]
    MtuTooSmall(usize),
}

/// RFC 791 §3.2: what every host and link must carry unfragmented.
const MIN_MTU: usize = 68;
const MAX_DELAY: Duration = Duration::from_secs(60);

impl LinkSpec {
    /// A link that passes everything after `delay`.
    #[must_use]
    pub fn ideal(delay: Duration) -> Self {
        Self {
            delay,
            jitter: Jitter::None,
            loss: Loss::None,
            rate: None,
            duplicate: 0.0,
            corrupt: 0.0,
            mtu: None,
            outages: Vec::new(),
        }
    }

    /// Refuses impossible figures.
    ///
    /// # Errors
    /// The first of them.
    pub fn check(&self) -> Result<(), SpecError> {
        let jitter = match self.jitter {
            Jitter::None => Duration::ZERO,
            Jitter::InOrder(j) | Jitter::Reordering(j) => j,
        };
        for (what, value) in [("the delay", self.delay), ("the jitter", jitter)] {
            if value > MAX_DELAY {
                return Err(SpecError::TooLong { what, value });
            }
        }
        self.check_shares()?;
        if let Some(rate) = self.rate {
            if rate.bits_per_second == 0 {
                return Err(SpecError::Zero("the rate"));
            }
            if matches!(
                rate.queue,
                Queue::Packets(0) | Queue::Bytes(0) | Queue::Time(Duration::ZERO)
            ) {
                return Err(SpecError::Zero("the queue"));
            }
        }
        if let Some(mtu) = self.mtu
            && mtu.bytes < MIN_MTU
        {
            return Err(SpecError::MtuTooSmall(mtu.bytes));
        }
        self.check_outages()
    }

    fn check_shares(&self) -> Result<(), SpecError> {
        let mut shares = vec![
            ("duplication", self.duplicate),
            ("corruption", self.corrupt),
        ];
        match self.loss {
            Loss::None => {}
            Loss::Bernoulli(p) => shares.push(("loss", p)),
            Loss::Bursts {
                to_bad,
                to_good,
                loss_good,
                loss_bad,
            } => shares.extend([
                ("the step to the bad state", to_bad),
                ("the step to the good state", to_good),
                ("loss in the good state", loss_good),
                ("loss in the bad state", loss_bad),
            ]),
        }
        match shares.into_iter().find(|(_, p)| !(0.0..=1.0).contains(p)) {
            Some((what, value)) => Err(SpecError::NotAShare { what, value }),
            None => Ok(()),
        }
    }

    fn check_outages(&self) -> Result<(), SpecError> {
        let mut end = Duration::ZERO;
        for (index, outage) in self.outages.iter().enumerate() {
            if outage.from < end || outage.until <= outage.from {
                return Err(SpecError::Outages(index));
            }
            end = outage.until;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn impossible_figures_are_refused_with_their_name() {
        let ideal = LinkSpec::ideal(Duration::from_millis(1));
        let cases: [(LinkSpec, &str); 7] = [
            (
                LinkSpec {
                    mtu: Some(Mtu {
                        bytes: 67,
                        reported: true,
                    }),
                    ..ideal.clone()
                },
                "the MTU is 67 bytes",
            ),
            (
                LinkSpec {
                    loss: Loss::Bernoulli(1.3),
                    ..ideal.clone()
                },
                "loss is 1.3",
            ),
            (
                LinkSpec {
                    duplicate: -0.1,
                    ..ideal.clone()
                },
                "duplication is -0.1",
            ),
            (
                LinkSpec {
                    corrupt: f64::NAN,
                    ..ideal.clone()
                },
                "corruption is NaN",
            ),
            (
                LinkSpec {
                    delay: Duration::from_secs(61),
                    ..ideal.clone()
                },
                "the delay is 61s",
            ),
            (
                LinkSpec {
                    rate: Some(Rate {
                        bits_per_second: 0,
                        queue: Queue::Packets(1),
                    }),
                    ..ideal.clone()
                },
                "the rate is 0",
            ),
            (
                LinkSpec {
                    outages: vec![Outage {
                        from: Duration::from_secs(2),
                        until: Duration::from_secs(1),
                    }],
                    ..ideal.clone()
                },
                "outage 0",
            ),
        ];
        assert_eq!(ideal.check(), Ok(()));
        for (spec, text) in cases {
            let error = spec.check().unwrap_err().to_string();
            assert!(error.contains(text), "'{error}' names '{text}'");
        }
    }

    #[test]
    fn bursts_that_never_begin_lose_what_the_good_state_loses() {
        let never = Loss::Bursts {
            to_bad: 0.0,
            to_good: 0.0,
            loss_good: 0.01,
            loss_bad: 1.0,
        };
        assert!((never.mean() - 0.01).abs() < 1e-12);
    }
}
