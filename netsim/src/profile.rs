//! Links by name. The figures' sources stand in `docs/netsim.md`.

use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use crate::spec::{Jitter, LinkSpec, Loss, Outage, Queue, Rate};

/// A named link, the same in both directions. Delays are halves of the round trip.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Profile {
    /// One rack: 0.2 ms round trip, 10 Gb/s.
    Lan,
    /// Two zones of one region: 1 ms, 5 Gb/s.
    CrossAz,
    /// Two regions of one continent: 80 ms, 100 Mb/s, a queue of 200 packets.
    CrossRegion,
    /// Two continents: 180 ms, 100 Mb/s.
    Intercontinental,
    /// Two regions with 1 % of random loss each way: the link that weft's headline is measured on.
    Lossy,
    /// Two regions with 2 % lost on average, in bursts of four packets.
    Bursty,
    /// Geostationary: 600 ms, 20 Mb/s, 0.1 % loss.
    Satellite,
    /// Two zones, down for two seconds in each twenty.
    Flaky,
    /// A busy wireless network: 8 ms with jitter and reordering, 50 Mb/s, 0.5 % loss.
    Wifi,
}

impl Profile {
    /// All of them, in the order of the documentation.
    pub const ALL: [Self; 9] = [
        Self::Lan,
        Self::CrossAz,
        Self::CrossRegion,
        Self::Intercontinental,
        Self::Lossy,
        Self::Bursty,
        Self::Satellite,
        Self::Flaky,
        Self::Wifi,
    ];

    /// Its name on the command line.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Lan => "lan",
            Self::CrossAz => "cross-az",
            Self::CrossRegion => "cross-region",
            Self::Intercontinental => "intercontinental",
            Self::Lossy => "lossy",
            Self::Bursty => "bursty",
            Self::Satellite => "satellite",
            Self::Flaky => "flaky",
            Self::Wifi => "wifi",
        }
    }

    /// One direction of the link.
    #[must_use]
    pub fn spec(self) -> LinkSpec {
        let one_way =
            |round_trip_us: u64| LinkSpec::ideal(Duration::from_micros(round_trip_us / 2));
        let rate = |megabits: u64, packets| {
            Some(Rate {
                bits_per_second: megabits * 1_000_000,
                queue: Queue::Packets(packets),
            })
        };
        match self {
            Self::Lan => LinkSpec {
                rate: rate(10_000, 1000),
                ..one_way(200)
            },
            Self::CrossAz => LinkSpec {
                rate: rate(5_000, 1000),
                ..one_way(1_000)
            },
            Self::CrossRegion => LinkSpec {
                rate: rate(100, 200),
                ..one_way(80_000)
            },
            Self::Intercontinental => LinkSpec {
                rate: rate(100, 400),
                ..one_way(180_000)
            },
            Self::Lossy => LinkSpec {
                loss: Loss::Bernoulli(0.01),
                ..Self::CrossRegion.spec()
            },
            Self::Bursty => LinkSpec {
                loss: BURSTS_OF_FOUR,
                ..Self::CrossRegion.spec()
            },
            Self::Satellite => LinkSpec {
                loss: Loss::Bernoulli(0.001),
                rate: rate(20, 1000),
                ..one_way(600_000)
            },
            Self::Flaky => LinkSpec {
                outages: two_in_twenty(),
                ..Self::CrossAz.spec()
            },
            Self::Wifi => LinkSpec {
                jitter: Jitter::Reordering(Duration::from_millis(6)),
                loss: Loss::Bernoulli(0.005),
                rate: rate(50, 200),
                ..one_way(8_000)
            },
        }
    }
}

/// 2 % on average: all of the loss in the bad state, four packets long, half of them lost.
const BURSTS_OF_FOUR: Loss = Loss::Bursts {
    to_bad: 0.010_416_666_666_666_666,
    to_good: 0.25,
    loss_good: 0.0,
    loss_bad: 0.5,
};

/// Two seconds in each twenty, for an hour.
fn two_in_twenty() -> Vec<Outage> {
    (0..180)
        .map(|n| Outage {
            from: Duration::from_secs(n * 20 + 18),
            until: Duration::from_secs(n * 20 + 20),
        })
        .collect()
}

impl fmt::Display for Profile {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// A name that no profile has.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("there is no link profile '{name}'; near it are: {}", near.join(", "))]
pub struct UnknownProfile {
    /// What was asked for.
    pub name: String,
    /// The nearest names, best first.
    pub near: Vec<&'static str>,
}

impl FromStr for Profile {
    type Err = UnknownProfile;

    fn from_str(text: &str) -> Result<Self, UnknownProfile> {
        if let Some(profile) = Self::ALL.into_iter().find(|p| p.name() == text) {
            return Ok(profile);
        }
        let name: String = text.chars().take(64).collect();
        let mut near: Vec<_> = Self::ALL
            .iter()
            .map(|p| (strsim::levenshtein(&name, p.name()), p.name()))
            .collect();
        near.sort_unstable();
        Err(UnknownProfile {
            name,
            near: near.into_iter().take(3).map(|(_, name)| name).collect(),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_profile_is_possible_and_found_by_its_name() {
        for profile in Profile::ALL {
            assert_eq!(profile.spec().check(), Ok(()), "{profile}");
            assert_eq!(profile.name().parse(), Ok(profile));
        }
        assert!((Profile::Bursty.spec().loss.mean() - 0.02).abs() < 1e-9);
    }

    #[test]
    fn an_unknown_name_is_answered_with_the_near_ones() {
        let error = "losy".parse::<Profile>().unwrap_err();
        assert_eq!(error.near[0], "lossy");
        assert!(error.to_string().contains("'losy'"));
    }
}
