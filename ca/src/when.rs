//! Times in whole seconds, written in RFC 3339, as certificates and people have them.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use rcgen::date_time_ymd;
use serde::{Deserialize, Deserializer, Serializer};
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

/// Cuts to whole seconds, the unit of certificates: what is kept in memory then equals what is read back.
pub(crate) fn whole(time: SystemTime) -> SystemTime {
    UNIX_EPOCH + Duration::from_secs(seconds(time))
}

/// Seconds since 1970; a clock before that counts as 1970.
fn seconds(time: SystemTime) -> u64 {
    time.duration_since(UNIX_EPOCH)
        .map_or(0, |since| since.as_secs())
}

/// From a certificate's time; before 1970 counts as 1970.
pub(crate) fn from_unix(seconds: i64) -> SystemTime {
    UNIX_EPOCH + Duration::from_secs(u64::try_from(seconds).unwrap_or(0))
}

pub(crate) fn offset(time: SystemTime) -> OffsetDateTime {
    let seconds = i64::try_from(seconds(time)).unwrap_or(i64::MAX);
    // Past the year 9999, which X.509 cannot write either: the end of time.
    OffsetDateTime::from_unix_timestamp(seconds).unwrap_or_else(|_| date_time_ymd(9999, 12, 31))
}

/// As people and logs read it: RFC 3339, in UTC.
pub fn rfc3339(time: SystemTime) -> String {
    offset(time)
        .format(&Rfc3339)
        .unwrap_or_else(|_| format!("{} s after 1970", seconds(time)))
}

fn parse(text: &str) -> Option<SystemTime> {
    let seconds = OffsetDateTime::parse(text, &Rfc3339).ok()?.unix_timestamp();
    UNIX_EPOCH.checked_add(Duration::from_secs(u64::try_from(seconds).ok()?))
}

/// For `#[serde(with = "when")]`.
pub(crate) fn serialize<S: Serializer>(
    time: &SystemTime,
    serializer: S,
) -> Result<S::Ok, S::Error> {
    serializer.serialize_str(&rfc3339(*time))
}

/// For `#[serde(with = "when")]`.
pub(crate) fn deserialize<'de, D: Deserializer<'de>>(
    deserializer: D,
) -> Result<SystemTime, D::Error> {
    let text = String::deserialize(deserializer)?;
    parse(&text).ok_or_else(|| {
        serde::de::Error::custom(format!("{text:?} is not a time (RFC 3339, after 1970)"))
    })
}

/// The same for a time that may be absent.
pub(crate) mod option {
    use super::{Deserialize, Deserializer, Serializer, SystemTime, parse, rfc3339};

    pub(crate) fn serialize<S: Serializer>(
        time: &Option<SystemTime>,
        serializer: S,
    ) -> Result<S::Ok, S::Error> {
        match time {
            Some(time) => serializer.serialize_some(&rfc3339(*time)),
            None => serializer.serialize_none(),
        }
    }

    pub(crate) fn deserialize<'de, D: Deserializer<'de>>(
        deserializer: D,
    ) -> Result<Option<SystemTime>, D::Error> {
        let Some(text) = Option::<String>::deserialize(deserializer)? else {
            return Ok(None);
        };
        let time = parse(&text);
        time.map(Some)
            .ok_or_else(|| serde::de::Error::custom(format!("{text:?} is not a time (RFC 3339)")))
    }
}
