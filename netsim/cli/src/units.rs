//! Figures as people write them: `40ms`, `2%`, `100Mbit`, `200 packets`.

use std::str::FromStr;
use std::time::Duration;

use serde::Deserialize;
use weft_netsim::{Outage, Queue};

/// A figure that cannot be read.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("'{text}' is no {what}: {why}; write for instance {example}")]
pub(crate) struct UnitError {
    text: String,
    what: &'static str,
    why: &'static str,
    example: &'static str,
}

/// What is being read, for the error.
struct Kind {
    what: &'static str,
    example: &'static str,
}

impl Kind {
    fn refuse(&self, text: &str, why: &'static str) -> UnitError {
        UnitError {
            text: text.chars().take(40).collect(),
            what: self.what,
            why,
            example: self.example,
        }
    }

    /// A number of 0 or more and what follows it.
    fn split<'a>(&self, text: &'a str) -> Result<(f64, &'a str), UnitError> {
        let trimmed = text.trim();
        if trimmed.starts_with('-') {
            return Err(self.refuse(text, "it is negative"));
        }
        let end = trimmed
            .find(|c: char| !c.is_ascii_digit() && c != '.')
            .unwrap_or(trimmed.len());
        let (number, unit) = trimmed.split_at(end);
        let number: f64 = number
            .parse()
            .map_err(|_| self.refuse(text, "it does not begin with a number"))?;
        Ok((number, unit.trim()))
    }
}

const DURATION: Kind = Kind {
    what: "duration",
    example: "40ms, 500us or 2s",
};
const SHARE: Kind = Kind {
    what: "share of packets",
    example: "2% or 0.02",
};
const RATE: Kind = Kind {
    what: "rate",
    example: "100Mbit, 1.5Gbit or unlimited",
};
const QUEUE: Kind = Kind {
    what: "queue",
    example: "200packets, 64KiB or 50ms",
};
const WINDOW: Kind = Kind {
    what: "window of time",
    example: "5s..7s",
};

/// A span of time.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(try_from = "String")]
pub(crate) struct Span(pub(crate) Duration);

impl FromStr for Span {
    type Err = UnitError;

    fn from_str(text: &str) -> Result<Self, UnitError> {
        let (number, unit) = DURATION.split(text)?;
        seconds(unit)
            .or((number == 0.0 && unit.is_empty()).then_some(1.0))
            .ok_or_else(|| DURATION.refuse(text, "its unit is none of ns, us, ms, s and m"))
            .and_then(|factor| {
                Duration::try_from_secs_f64(number * factor)
                    .map_err(|_| DURATION.refuse(text, "it is longer than can be counted"))
            })
            .map(Self)
    }
}

fn seconds(unit: &str) -> Option<f64> {
    match unit {
        "ns" => Some(1e-9),
        "us" | "µs" => Some(1e-6),
        "ms" => Some(1e-3),
        "s" => Some(1.0),
        "m" | "min" => Some(60.0),
        _ => None,
    }
}

/// A share of packets, 0 to 1.
#[derive(Debug, Clone, Copy, PartialEq, Deserialize)]
#[serde(try_from = "String")]
pub(crate) struct Share(pub(crate) f64);

impl FromStr for Share {
    type Err = UnitError;

    fn from_str(text: &str) -> Result<Self, UnitError> {
        let (number, unit) = SHARE.split(text)?;
        let share = match unit {
            "%" => number / 100.0,
            "" => number,
            _ => return Err(SHARE.refuse(text, "its unit is not %")),
        };
        if share > 1.0 {
            return Err(SHARE.refuse(text, "it is more than all packets"));
        }
        Ok(Self(share))
    }
}

/// A rate of a bottleneck, or that there is none.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(try_from = "String")]
pub(crate) enum BitRate {
    /// No bottleneck.
    Unlimited,
    /// Bits a second.
    Bits(u64),
}

impl FromStr for BitRate {
    type Err = UnitError;

    fn from_str(text: &str) -> Result<Self, UnitError> {
        if text.trim() == "unlimited" {
            return Ok(Self::Unlimited);
        }
        let (number, unit) = RATE.split(text)?;
        let factor = match unit {
            "bit" | "b/s" => 1.0,
            "kbit" | "kb/s" => 1e3,
            "Mbit" | "Mb/s" => 1e6,
            "Gbit" | "Gb/s" => 1e9,
            "B/s" | "kB/s" | "MB/s" | "GB/s" => {
                return Err(RATE.refuse(text, "rates are in bits, not bytes"));
            }
            _ => return Err(RATE.refuse(text, "its unit is none of kbit, Mbit and Gbit")),
        };
        let bits = (number * factor).round();
        if bits < 1.0 {
            return Err(RATE.refuse(text, "nothing would ever pass"));
        }
        // Far above any link; and it keeps the conversion exact.
        if bits > 1e15 {
            return Err(RATE.refuse(text, "no link is that fast"));
        }
        Ok(Self::Bits(bits as u64))
    }
}

/// The size of a bottleneck's queue.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(try_from = "String")]
pub(crate) struct QueueSize(pub(crate) Queue);

impl FromStr for QueueSize {
    type Err = UnitError;

    fn from_str(text: &str) -> Result<Self, UnitError> {
        let (number, unit) = QUEUE.split(text)?;
        if number <= 0.0 {
            return Err(QUEUE.refuse(text, "nothing would ever pass"));
        }
        if number > 1e12 {
            return Err(QUEUE.refuse(text, "no machine holds that much"));
        }
        let count = |factor: f64| (number * factor).ceil() as usize;
        let queue = match unit {
            "" | "p" | "packet" | "packets" => Queue::Packets(count(1.0)),
            "B" => Queue::Bytes(count(1.0)),
            "kB" => Queue::Bytes(count(1e3)),
            "KiB" => Queue::Bytes(count(1024.0)),
            "MB" => Queue::Bytes(count(1e6)),
            "MiB" => Queue::Bytes(count(1024.0 * 1024.0)),
            _ if seconds(unit).is_some() => Queue::Time(text.parse::<Span>()?.0),
            _ => {
                return Err(QUEUE.refuse(
                    text,
                    "its unit is none of packets, B, KiB, MiB, kB, MB, us, ms and s",
                ));
            }
        };
        Ok(Self(queue))
    }
}

/// From one time to another.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(try_from = "String")]
pub(crate) struct Window(pub(crate) Outage);

impl FromStr for Window {
    type Err = UnitError;

    fn from_str(text: &str) -> Result<Self, UnitError> {
        let (from, until) = text
            .split_once("..")
            .ok_or_else(|| WINDOW.refuse(text, "it has no '..'"))?;
        let (from, until) = (from.parse::<Span>()?.0, until.parse::<Span>()?.0);
        if until <= from {
            return Err(WINDOW.refuse(text, "it ends before it begins"));
        }
        Ok(Self(Outage { from, until }))
    }
}

macro_rules! read_from_text {
    ($($kind:ty),*) => {$(
        impl TryFrom<String> for $kind {
            type Error = UnitError;

            fn try_from(text: String) -> Result<Self, UnitError> {
                text.parse()
            }
        }
    )*};
}
read_from_text!(Span, Share, BitRate, QueueSize, Window);

#[cfg(test)]
mod tests {
    use super::*;

    const MS: Duration = Duration::from_millis(1);

    #[test]
    fn figures_are_read_as_people_write_them() {
        for (text, value) in [
            ("40ms", 40 * MS),
            ("0.5ms", MS / 2),
            ("500us", MS / 2),
            ("2s", 2000 * MS),
            ("1m", 60_000 * MS),
            (" 3 ms ", 3 * MS),
            ("0", Duration::ZERO),
        ] {
            assert_eq!(text.parse(), Ok(Span(value)), "{text}");
        }
        for (text, value) in [("2%", 0.02), ("0.02", 0.02), ("100%", 1.0), ("0", 0.0)] {
            let share: Share = text.parse().unwrap();
            assert!((share.0 - value).abs() < 1e-12, "{text}");
        }
        for (text, value) in [
            ("100Mbit", 100_000_000),
            ("1.5 Gb/s", 1_500_000_000),
            ("64kbit", 64_000),
        ] {
            assert_eq!(text.parse(), Ok(BitRate::Bits(value)), "{text}");
        }
        assert_eq!("unlimited".parse(), Ok(BitRate::Unlimited));
        for (text, value) in [
            ("200", Queue::Packets(200)),
            ("200 packets", Queue::Packets(200)),
            ("64KiB", Queue::Bytes(65_536)),
            ("50ms", Queue::Time(50 * MS)),
        ] {
            assert_eq!(text.parse(), Ok(QueueSize(value)), "{text}");
        }
        let outage = Outage {
            from: 5000 * MS,
            until: 7500 * MS,
        };
        assert_eq!("5s..7.5s".parse(), Ok(Window(outage)));
    }

    #[test]
    fn impossible_figures_are_refused_with_the_reason_and_an_example() {
        let spans = ["-5ms", "5", "5 parsecs", "ms", "", "1..2ms", "9e9s"];
        let errors = spans.map(|text| text.parse::<Span>().unwrap_err().to_string());
        assert!(errors[0].contains("negative"), "{}", errors[0]);
        assert!(errors[0].contains("40ms"), "{}", errors[0]);
        for text in ["130%", "2", "-1%", "2ms", "NaN", "inf"] {
            assert!(text.parse::<Share>().is_err(), "{text}");
        }
        for text in ["0Mbit", "-1Mbit", "100MB/s", "100", "9999999Gbit"] {
            assert!(text.parse::<BitRate>().is_err(), "{text}");
        }
        for text in ["0", "-3", "5 apples", "9999999999999"] {
            assert!(text.parse::<QueueSize>().is_err(), "{text}");
        }
        for text in ["5s", "7s..5s", "5s..5s", "a..b"] {
            assert!(text.parse::<Window>().is_err(), "{text}");
        }
    }
}
