//! Durations as the Gateway API writes them (GEP-2257): `5s`, `1h30m`, `250ms`.

use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::name::shorten;

/// Text that is not a duration of GEP-2257.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "'{0}' is not a duration: write 1 to 4 numbers of up to 5 digits, each with h, m, s or ms, such as 5s, 250ms or 1h30m"
)]
pub struct DurationError(String);

/// A duration of GEP-2257. It remembers how its author wrote it ("never rewrite user specs"), and shows
/// itself in the canonical form. Compares by its value.
#[derive(Clone, Serialize, Deserialize)]
#[serde(into = "String", try_from = "String")]
pub struct GatewayDuration {
    written: Box<str>,
    value: Duration,
}

/// Largest number of hours that five digits can say.
const MAX_HOURS: u64 = 99_999;

impl GatewayDuration {
    /// The duration as a value. Zero means "no limit" wherever the Gateway API takes a timeout.
    #[must_use]
    pub fn value(&self) -> Duration {
        self.value
    }

    /// As its author wrote it.
    #[must_use]
    pub fn as_written(&self) -> &str {
        &self.written
    }

    /// A duration in whole milliseconds, or `None` if it has a finer part or is over 99,999 hours.
    #[must_use]
    pub fn from_value(value: Duration) -> Option<Self> {
        if !value.subsec_nanos().is_multiple_of(1_000_000) || value.as_secs() / 3600 > MAX_HOURS {
            return None;
        }
        Some(Self {
            written: canonical(value).into(),
            value,
        })
    }
}

/// GEP-2257: descending units, each as large as it can be, and `0s` for nothing.
fn canonical(value: Duration) -> String {
    let seconds = value.as_secs();
    let parts = [
        (seconds / 3600, "h"),
        (seconds / 60 % 60, "m"),
        (seconds % 60, "s"),
        (u64::from(value.subsec_millis()), "ms"),
    ];
    let text: String = parts
        .iter()
        .filter(|(number, _)| *number > 0)
        .map(|(number, unit)| format!("{number}{unit}"))
        .collect();
    if text.is_empty() {
        "0s".to_owned()
    } else {
        text
    }
}

/// GEP-2257: `^([0-9]{1,5}(h|m|s|ms)){1,4}$`.
impl FromStr for GatewayDuration {
    type Err = DurationError;

    fn from_str(text: &str) -> Result<Self, DurationError> {
        let wrong = || DurationError(shorten(text));
        let mut rest = text;
        let mut value = Duration::ZERO;
        let mut parts = 0;
        while !rest.is_empty() {
            let digits = rest.bytes().take_while(u8::is_ascii_digit).count();
            if digits == 0 || digits > 5 || parts == 4 {
                return Err(wrong());
            }
            let number: u64 = rest[..digits].parse().map_err(|_| wrong())?;
            rest = &rest[digits..];
            let (unit, length) = match rest.as_bytes() {
                [b'm', b's', ..] => (Duration::from_millis(number), 2),
                [b'h', ..] => (Duration::from_secs(number * 3600), 1),
                [b'm', ..] => (Duration::from_secs(number * 60), 1),
                [b's', ..] => (Duration::from_secs(number), 1),
                _ => return Err(wrong()),
            };
            rest = &rest[length..];
            value += unit;
            parts += 1;
        }
        if parts == 0 {
            return Err(wrong());
        }
        Ok(Self {
            written: text.into(),
            value,
        })
    }
}

impl fmt::Display for GatewayDuration {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&canonical(self.value))
    }
}

impl fmt::Debug for GatewayDuration {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.written)
    }
}

impl PartialEq for GatewayDuration {
    fn eq(&self, other: &Self) -> bool {
        self.value == other.value
    }
}

impl Eq for GatewayDuration {}

impl TryFrom<String> for GatewayDuration {
    type Error = DurationError;

    fn try_from(text: String) -> Result<Self, DurationError> {
        text.parse()
    }
}

impl From<GatewayDuration> for String {
    fn from(duration: GatewayDuration) -> Self {
        duration.written.into()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn gep_2257_accepts_and_shows_the_canonical_form() {
        for (text, seconds, shown) in [
            ("0s", 0, "0s"),
            ("0h0m0s", 0, "0s"),
            ("0ms", 0, "0s"),
            ("1h", 3600, "1h"),
            ("150m", 9000, "2h30m"),
            ("7230s", 7230, "2h30s"),
            ("10s30m1h", 5410, "1h30m10s"),
            ("1h2h20m10m", 12600, "3h30m"),
            ("00060m", 3600, "1h"),
            ("99999h", 359_996_400, "99999h"),
        ] {
            let duration: GatewayDuration = text.parse().expect(text);
            assert_eq!(duration.value(), Duration::from_secs(seconds), "{text}");
            assert_eq!(duration.to_string(), shown, "{text}");
            assert_eq!(duration.as_written(), text);
        }
        let duration: GatewayDuration = "1500ms".parse().unwrap();
        assert_eq!(duration.to_string(), "1s500ms");
    }

    #[test]
    fn gep_2257_refuses() {
        for text in [
            "",
            "0",
            "1",
            "1m1",
            "1d",
            "1.5h",
            "-15m",
            "+1s",
            " 1s",
            "1s ",
            "999999h",
            "h",
            "1H",
            "1h30m10s20ms50h",
            "1µs",
            "٣s",
            "1ns",
        ] {
            assert!(text.parse::<GatewayDuration>().is_err(), "{text}");
        }
    }

    #[test]
    fn json_keeps_what_the_author_wrote() {
        let duration: GatewayDuration = serde_json::from_str("\"150m\"").unwrap();
        assert_eq!(serde_json::to_string(&duration).unwrap(), "\"150m\"");
    }

    #[test]
    fn only_what_can_be_written_is_made_from_a_value() {
        assert!(GatewayDuration::from_value(Duration::from_nanos(1)).is_none());
        assert!(GatewayDuration::from_value(Duration::from_secs(100_000 * 3600)).is_none());
        let five = GatewayDuration::from_value(Duration::from_secs(5)).unwrap();
        assert_eq!(five.as_written(), "5s");
    }

    proptest! {
        #[test]
        fn any_text_parses_or_is_refused(text in "\\PC{0,24}") {
            let _ = text.parse::<GatewayDuration>();
        }

        #[test]
        fn the_canonical_form_is_read_back(ms in 0_u64..360_000_000_000) {
            let value = Duration::from_millis(ms);
            if let Some(made) = GatewayDuration::from_value(value) {
                let again: GatewayDuration = made.to_string().parse().unwrap();
                prop_assert_eq!(again.value(), value);
                prop_assert_eq!(again.to_string(), made.to_string());
            }
        }
    }
}
