//! The audit log: each record holds the hash of the one before, so that none can be changed, left out or put in
//! between without all that follow giving it away. Pure; the caller stores the records.

use std::collections::BTreeMap;
use std::fmt;

use aws_lc_rs::digest::{SHA256, digest};
use serde::{Deserialize, Serialize};

/// What happened.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Event {
    /// What, such as `certificate.issued`.
    pub event: String,
    /// To whom or what: a SPIFFE ID, a slot, a rotation.
    pub subject: String,
    /// By whom: `uid 0` for an operator, an address for a sidecar, `control` for the control node itself.
    pub by: String,
    /// What else there is to know.
    #[serde(default)]
    pub detail: BTreeMap<String, String>,
}

impl Event {
    /// An event without detail.
    pub fn new(event: &str, subject: impl fmt::Display, by: impl fmt::Display) -> Self {
        Self {
            event: event.to_owned(),
            subject: subject.to_string(),
            by: by.to_string(),
            detail: BTreeMap::new(),
        }
    }

    /// With one more thing to know.
    #[must_use]
    pub fn with(mut self, name: &str, value: impl fmt::Display) -> Self {
        self.detail.insert(name.to_owned(), value.to_string());
        self
    }
}

/// One record of the log.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Record {
    /// Its number, from 1 on, without gaps.
    pub seq: u64,
    /// When, Unix milliseconds.
    pub at_unix_ms: u64,
    /// What.
    #[serde(flatten)]
    pub event: Event,
    /// Hash of the record before; 64 zeros for the first.
    pub prev: String,
    /// SHA-256 over all of the above, hexadecimal.
    pub hash: String,
}

/// Where the log ends.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Head {
    /// Number of the last record; 0 if there is none.
    pub seq: u64,
    /// Its hash.
    pub hash: String,
}

impl Default for Head {
    fn default() -> Self {
        Self {
            seq: 0,
            hash: "0".repeat(64),
        }
    }
}

/// Why a log is not to be believed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Broken {
    /// A record is missing, or one is there twice.
    #[error("after record {after} comes record {found}: some are missing or were put in between")]
    Gap {
        /// The last good one.
        after: u64,
        /// What follows.
        found: u64,
    },
    /// A record does not hold the hash of the one before.
    #[error("record {seq} does not follow the record before it: one of the two was changed")]
    Unlinked {
        /// Which.
        seq: u64,
    },
    /// A record's hash is not that of its content.
    #[error("record {seq} was changed after it was written")]
    Changed {
        /// Which.
        seq: u64,
    },
    /// Records at the end are missing.
    #[error(
        "the log ends with record {found}, and should end with record {expected}: the end was cut off or replaced"
    )]
    Truncated {
        /// The last record.
        found: u64,
        /// The last record that is known to have been written.
        expected: u64,
    },
}

/// The next record after `head`.
#[must_use]
pub fn append(head: &Head, event: Event, at_unix_ms: u64) -> (Head, Record) {
    let seq = head.seq + 1;
    let hash = hash(seq, at_unix_ms, &event, &head.hash);
    let record = Record {
        seq,
        at_unix_ms,
        event,
        prev: head.hash.clone(),
        hash: hash.clone(),
    };
    (Head { seq, hash }, record)
}

/// Checks records in their order, as far as `after` led. The head to go on from.
///
/// # Errors
/// The first record that does not fit.
pub fn check<'a>(
    after: &Head,
    records: impl IntoIterator<Item = &'a Record>,
) -> Result<Head, Broken> {
    let mut head = after.clone();
    for record in records {
        if record.seq != head.seq + 1 {
            return Err(Broken::Gap {
                after: head.seq,
                found: record.seq,
            });
        }
        if record.prev != head.hash {
            return Err(Broken::Unlinked { seq: record.seq });
        }
        let expected = hash(record.seq, record.at_unix_ms, &record.event, &record.prev);
        if record.hash != expected {
            return Err(Broken::Changed { seq: record.seq });
        }
        head = Head {
            seq: record.seq,
            hash: expected,
        };
    }
    Ok(head)
}

/// Checks that a log ends where it is known to end.
///
/// # Errors
/// [`Broken::Truncated`].
pub fn check_end(found: &Head, expected: &Head) -> Result<(), Broken> {
    match found == expected {
        true => Ok(()),
        false => Err(Broken::Truncated {
            found: found.seq,
            expected: expected.seq,
        }),
    }
}

/// Every field with its length in front, so that no two records have the same bytes.
fn hash(seq: u64, at_unix_ms: u64, event: &Event, prev: &str) -> String {
    let mut bytes = Vec::with_capacity(512);
    let mut field = |text: &str| {
        bytes.extend_from_slice(&(text.len() as u64).to_be_bytes());
        bytes.extend_from_slice(text.as_bytes());
    };
    field("weft audit 1");
    field(prev);
    field(&seq.to_string());
    field(&at_unix_ms.to_string());
    field(&event.event);
    field(&event.subject);
    field(&event.by);
    for (name, value) in &event.detail {
        field(name);
        field(value);
    }
    digest(&SHA256, &bytes)
        .as_ref()
        .iter()
        .map(|byte| format!("{byte:02x}"))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn log() -> Vec<Record> {
        let mut head = Head::default();
        let mut records = Vec::new();
        for n in 0..5 {
            let event = Event::new("certificate.issued", format!("s{n}"), "control").with("n", n);
            let (next, record) = append(&head, event, 1000 + n);
            head = next;
            records.push(record);
        }
        records
    }

    #[test]
    fn a_log_survives_its_text_form_and_links_from_anywhere() {
        let records = log();
        let text = serde_json::to_string(&records).expect("plain JSON");
        let read: Vec<Record> = serde_json::from_str(&text).expect("read back");
        let head = check(&Head::default(), &read).expect("whole");
        assert_eq!(head.seq, 5);
        let middle = check(&Head::default(), &read[..2]).expect("whole");
        assert_eq!(check(&middle, &read[2..]), Ok(head));
    }

    #[test]
    fn whatever_is_done_to_a_log_shows() {
        type Change = fn(&mut Vec<Record>);
        let cases: [(&str, Change, Broken); 7] = [
            (
                "changed subject",
                |l| l[2].event.subject = "x".into(),
                Broken::Changed { seq: 3 },
            ),
            (
                "changed time",
                |l| l[2].at_unix_ms += 1,
                Broken::Changed { seq: 3 },
            ),
            (
                "changed detail",
                |l| l[2].event.detail.clear(),
                Broken::Changed { seq: 3 },
            ),
            (
                "left out",
                |l| drop(l.remove(2)),
                Broken::Gap { after: 2, found: 4 },
            ),
            (
                "twice",
                |l| l.insert(2, l[1].clone()),
                Broken::Gap { after: 2, found: 2 },
            ),
            (
                "swapped",
                |l| l.swap(1, 2),
                Broken::Gap { after: 1, found: 3 },
            ),
            (
                "replaced and hashed anew",
                |l| {
                    let head = Head {
                        seq: 2,
                        hash: l[1].hash.clone(),
                    };
                    l[2] = append(&head, Event::new("x", "y", "z"), 1).1;
                },
                Broken::Unlinked { seq: 4 },
            ),
        ];
        for (name, change, expected) in cases {
            let mut records = log();
            change(&mut records);
            assert_eq!(check(&Head::default(), &records), Err(expected), "{name}");
        }
        let records = log();
        let whole = check(&Head::default(), &records).expect("whole");
        let cut = check(&Head::default(), &records[..4]).expect("a part is whole in itself");
        assert_eq!(
            check_end(&cut, &whole),
            Err(Broken::Truncated {
                found: 4,
                expected: 5
            })
        );
        assert_eq!(check_end(&whole, &whole), Ok(()));
    }
}
