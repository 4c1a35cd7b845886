//! What differs from a profile: the same names as flags and in a mesh file.

use std::time::Duration;

use clap::Args;
use serde::Deserialize;
use weft_netsim::{Jitter, LinkSpec, Loss, Mtu, Queue, Rate};

use crate::units::{BitRate, QueueSize, Share, Span, Window};

/// Figures that replace a profile's. Each stands for one direction.
#[derive(Debug, Clone, Default, PartialEq, Args, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case", default)]
#[command(next_help_heading = "In place of the profile's figures, each way")]
pub(crate) struct Overrides {
    /// Delay one way: half of the round trip, such as 40ms
    #[arg(long, value_name = "TIME", allow_hyphen_values = true)]
    delay: Option<Span>,
    /// Up to this much more delay, evenly spread, such as 5ms
    #[arg(long, value_name = "TIME", allow_hyphen_values = true)]
    jitter: Option<Span>,
    /// Let packets overtake each other by their jitter
    #[arg(long, num_args = 0..=1, require_equals = true, default_missing_value = "true", value_name = "BOOL")]
    reorder: Option<bool>,
    /// Share of packets lost at random, such as 2%
    #[arg(long, value_name = "SHARE", allow_hyphen_values = true)]
    loss: Option<Share>,
    /// Lose in bursts of this mean length in packets, half of each burst, keeping the mean loss
    #[arg(long, value_name = "PACKETS")]
    burst: Option<f64>,
    /// Rate of the bottleneck, such as 100Mbit, or unlimited
    #[arg(long, value_name = "RATE", allow_hyphen_values = true)]
    rate: Option<BitRate>,
    /// Queue of the bottleneck: 200packets, 64KiB or 50ms
    #[arg(long, value_name = "SIZE", allow_hyphen_values = true)]
    queue: Option<QueueSize>,
    /// Share of packets that arrive twice
    #[arg(long, value_name = "SHARE", allow_hyphen_values = true)]
    duplicate: Option<Share>,
    /// Share of packets that arrive with one bit flipped
    #[arg(long, value_name = "SHARE", allow_hyphen_values = true)]
    corrupt: Option<Share>,
    /// Largest packet that the path passes, unknown to both ends; the sender hears "packet too big"
    #[arg(long, value_name = "BYTES")]
    path_mtu: Option<usize>,
    /// Lose packets over the path's MTU in silence
    #[arg(long, num_args = 0..=1, require_equals = true, default_missing_value = "true", value_name = "BOOL")]
    black_hole: Option<bool>,
    /// Nothing passes in this window since the start, such as 5s..7s; may be repeated
    #[arg(long = "outage", value_name = "FROM..UNTIL")]
    #[serde(default)]
    outages: Option<Vec<Window>>,
}

/// The queue of a bottleneck that none is given for: that of `cross-region`.
const DEFAULT_QUEUE: Queue = Queue::Packets(200);
/// The share of packets that a burst loses.
const LOSS_IN_BURST: f64 = 0.5;

impl Overrides {
    /// `spec` with these figures in place of its own.
    ///
    /// # Errors
    /// A sentence about figures that do not go together or that no link can have.
    pub(crate) fn apply(&self, spec: &LinkSpec) -> Result<LinkSpec, String> {
        let mut spec = spec.clone();
        if let Some(Span(delay)) = self.delay {
            spec.delay = delay;
        }
        spec.jitter = self.jitter(spec.jitter)?;
        spec.loss = self.loss(spec.loss)?;
        spec.rate = self.rate(spec.rate)?;
        spec.mtu = self.mtu(spec.mtu)?;
        if let Some(Share(share)) = self.duplicate {
            spec.duplicate = share;
        }
        if let Some(Share(share)) = self.corrupt {
            spec.corrupt = share;
        }
        if let Some(outages) = &self.outages {
            spec.outages = outages.iter().map(|window| window.0).collect();
        }
        spec.check().map_err(|error| error.to_string())?;
        Ok(spec)
    }

    fn jitter(&self, jitter: Jitter) -> Result<Jitter, String> {
        let (most, reorders) = match jitter {
            Jitter::None => (Duration::ZERO, false),
            Jitter::InOrder(most) => (most, false),
            Jitter::Reordering(most) => (most, true),
        };
        let most = self.jitter.map_or(most, |span| span.0);
        let reorders = self.reorder.unwrap_or(reorders);
        match (most, reorders) {
            (Duration::ZERO, _) if self.reorder == Some(true) => {
                Err("reordering needs jitter; give one, such as 5ms".to_owned())
            }
            (Duration::ZERO, _) => Ok(Jitter::None),
            (most, false) => Ok(Jitter::InOrder(most)),
            (most, true) => Ok(Jitter::Reordering(most)),
        }
    }

    fn loss(&self, loss: Loss) -> Result<Loss, String> {
        let Some(burst) = self.burst else {
            return Ok(match self.loss {
                None => loss,
                Some(Share(0.0)) => Loss::None,
                Some(Share(share)) => Loss::Bernoulli(share),
            });
        };
        let mean = self.loss.map_or(loss.mean(), |share| share.0);
        if !(burst >= 1.0 && burst.is_finite()) {
            return Err(format!(
                "a burst of {burst} packets is none; give 1 or more"
            ));
        }
        let bad = mean / LOSS_IN_BURST;
        let to_good = 1.0 / burst;
        let to_bad = to_good * bad / (1.0 - bad);
        if bad <= 0.0 || !(0.0..=1.0).contains(&to_bad) {
            return Err(format!(
                "bursts of {burst} packets, half of them lost, cannot make a loss of {} %; \
                 give longer bursts, or a loss above 0 and below 50 %",
                mean * 100.0
            ));
        }
        Ok(Loss::Bursts {
            to_bad,
            to_good,
            loss_good: 0.0,
            loss_bad: LOSS_IN_BURST,
        })
    }

    fn rate(&self, rate: Option<Rate>) -> Result<Option<Rate>, String> {
        let bits = match self.rate {
            None => rate.map(|rate| rate.bits_per_second),
            Some(BitRate::Unlimited) => None,
            Some(BitRate::Bits(bits)) => Some(bits),
        };
        let Some(bits_per_second) = bits else {
            return match self.queue {
                Some(_) => Err("a queue needs a rate; give one, such as 100Mbit".to_owned()),
                None => Ok(None),
            };
        };
        let queue = match (self.queue, rate) {
            (Some(QueueSize(queue)), _) => queue,
            (None, Some(rate)) => rate.queue,
            (None, None) => DEFAULT_QUEUE,
        };
        Ok(Some(Rate {
            bits_per_second,
            queue,
        }))
    }

    fn mtu(&self, mtu: Option<Mtu>) -> Result<Option<Mtu>, String> {
        let bytes = self.path_mtu.or(mtu.map(|mtu| mtu.bytes));
        let reported = match self.black_hole {
            Some(black_hole) => !black_hole,
            None => mtu.is_none_or(|mtu| mtu.reported),
        };
        match bytes {
            Some(bytes) => Ok(Some(Mtu { bytes, reported })),
            None if self.black_hole == Some(true) => {
                Err("a black hole needs a path MTU; give one, such as 1400".to_owned())
            }
            None => Ok(None),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use weft_netsim::Profile;

    fn read(yaml: &str) -> Overrides {
        serde_saphyr::from_str(yaml).unwrap()
    }

    #[test]
    fn what_is_given_replaces_and_what_is_not_stays() {
        let lossy = Profile::Lossy.spec();
        assert_eq!(Overrides::default().apply(&lossy), Ok(lossy.clone()));
        let spec = read("{delay: 20ms, jitter: 5ms, loss: 2%, queue: 64KiB, path-mtu: 1400}")
            .apply(&lossy)
            .unwrap();
        let ms = Duration::from_millis;
        assert_eq!(spec.delay, ms(20));
        assert_eq!(spec.jitter, Jitter::InOrder(ms(5)));
        assert_eq!(spec.loss, Loss::Bernoulli(0.02));
        let rate = spec.rate.unwrap();
        assert_eq!(rate.bits_per_second, 100_000_000);
        assert_eq!(rate.queue, Queue::Bytes(65_536));
        let mtu = spec.mtu.unwrap();
        assert_eq!((mtu.bytes, mtu.reported), (1400, true));
        let plain = read("{loss: 0, rate: unlimited}").apply(&lossy).unwrap();
        assert_eq!((plain.loss, plain.rate), (Loss::None, None));
        let hole = read("{path-mtu: 1400, black-hole: true, reorder: true, jitter: 1ms}");
        let spec = hole.apply(&lossy).unwrap();
        assert!(!spec.mtu.unwrap().reported);
        assert_eq!(spec.jitter, Jitter::Reordering(ms(1)));
    }

    #[test]
    fn bursts_keep_the_mean() {
        let spec = read("{loss: 2%, burst: 4}")
            .apply(&Profile::Lossy.spec())
            .unwrap();
        let bursty = Profile::Bursty.spec().loss.mean();
        assert!((spec.loss.mean() - bursty).abs() < 1e-12);
        let kept = read("{burst: 8}").apply(&Profile::Lossy.spec()).unwrap();
        assert!((kept.loss.mean() - 0.01).abs() < 1e-12);
    }

    #[test]
    fn figures_that_do_not_go_together_are_refused() {
        let lan = LinkSpec::ideal(Duration::ZERO);
        for (yaml, text) in [
            ("{queue: 10}", "needs a rate"),
            ("{reorder: true}", "needs jitter"),
            ("{black-hole: true}", "needs a path MTU"),
            ("{burst: 4}", "loss above 0"),
            ("{burst: 0.5, loss: 2%}", "is none"),
            ("{burst: 4, loss: 60%}", "below 50 %"),
            ("{delay: 2m}", "one minute"),
            ("{path-mtu: 10}", "68"),
            ("{outages: [5s..7s, 6s..8s]}", "outage 1"),
        ] {
            let error = read(yaml).apply(&lan).unwrap_err();
            assert!(error.contains(text), "{yaml}: '{error}' says '{text}'");
        }
    }
}
