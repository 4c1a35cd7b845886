//! From a delegate's audit log into this one: what is taken of a report, and as what. Pure.
//!
//! The delegate's log is a chain of hashes. A report goes on where the last one ended, or is refused: a record can be sent
//! twice, but none left out, changed or put in between.

use weft_ca::audit::{Broken, Event, Head, Record, check};
use weft_certs::{RootPin, Site, SpiffeId};

use crate::issue::Leaf;

/// Longest text of a record that goes into this log. A SPIFFE ID has at most 2,048 bytes.
const LONGEST: usize = 2_048;
/// Most details of one record.
const MOST_DETAILS: usize = 32;
/// What a delegate does. Whatever else it says that it did is noted as said.
const KNOWN: [&str; 13] = [
    "certificate.issued",
    "certificate.refused",
    "token.created",
    "token.used",
    "token.refused",
    "token.revoked",
    "token.expired",
    "join.refused",
    "attestation.accepted",
    "attestation.refused",
    "delegate.enrolled",
    "delegate.renewed",
    "delegate.followed",
];

/// What a report comes to.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Merged {
    /// Where the delegate's log ends now, as far as it is here.
    pub(super) taken: Head,
    pub(super) events: Vec<Event>,
    pub(super) leaves: Vec<Leaf>,
}

/// Takes those records of a report that are not here yet.
///
/// # Errors
/// The first that does not follow the one before.
pub(super) fn merge(site: &Site, taken: &Head, records: &[Record]) -> Result<Merged, Broken> {
    let known = records.partition_point(|record| record.seq <= taken.seq);
    let new = &records[known..];
    let end = check(taken, new)?;
    Ok(Merged {
        taken: end,
        events: new.iter().map(|record| event(site, record)).collect(),
        leaves: new.iter().filter_map(|record| leaf(site, record)).collect(),
    })
}

fn cut(text: &str) -> &str {
    let end = text
        .char_indices()
        .map(|(at, c)| at + c.len_utf8())
        .take_while(|end| *end <= LONGEST)
        .last();
    &text[..end.unwrap_or(0)]
}

/// The record as this log has it: what was done there, by whom, when, and that it was there.
fn event(site: &Site, record: &Record) -> Event {
    let said = &record.event;
    let known = KNOWN.contains(&said.event.as_str());
    let name = match known {
        true => said.event.as_str(),
        false => "delegate.reported",
    };
    let mut event = Event::new(name, cut(&said.subject), cut(&said.by));
    for (name, value) in said.detail.iter().take(MOST_DETAILS) {
        event = event.with(cut(name), cut(value));
    }
    if !known {
        event = event.with("event", cut(&said.event));
    }
    if said.event == "certificate.issued" && leaf(site, record).is_none() {
        event = event.with("accepted_by", "nobody");
    }
    event
        .with("site", site.name())
        .with("record", record.seq)
        .with("at_unix_ms", record.at_unix_ms)
}

/// A certificate that the delegate issued; `None` also for one that no peer would accept.
fn leaf(site: &Site, record: &Record) -> Option<Leaf> {
    let said = &record.event;
    if said.event != "certificate.issued" {
        return None;
    }
    let id = SpiffeId::parse(&said.subject).ok()?;
    let serial = said.detail.get("serial")?;
    let hex = serial
        .bytes()
        .all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'));
    let legal = hex && (1..=40).contains(&serial.len()) && site.permits(&id);
    legal.then_some(Leaf {
        serial: serial.clone(),
        id,
        key: RootPin::parse(said.detail.get("key")?).ok()?,
        issuer: format!("site-{}", site.name()),
        not_after_unix: said.detail.get("not_after_unix")?.parse().ok()?,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use weft_ca::audit::append;
    use weft_certs::TrustDomain;

    fn site() -> Site {
        let domain = TrustDomain::parse("weft.local").unwrap();
        Site::new("paris", &domain, &["spiffe://weft.local/ns/paris/*"]).unwrap()
    }

    fn issued(id: &str, serial: &str) -> Event {
        Event::new("certificate.issued", id, "10.0.0.1:5")
            .with("serial", serial)
            .with("key", RootPin::from([7; 32]))
            .with("issuer", "site-paris")
            .with("not_after_unix", 1_800_003_600_u64)
    }

    fn log(events: Vec<Event>) -> Vec<Record> {
        let mut head = Head::default();
        let all = events.into_iter().zip(1_000..).map(|(event, at)| {
            let (next, record) = append(&head, event, at);
            head = next;
            record
        });
        all.collect()
    }

    const ORDERS: &str = "spiffe://weft.local/ns/paris/sa/orders";

    fn some() -> Vec<Record> {
        log(vec![
            Event::new("token.created", ORDERS, "uid 0").with("token", "abc"),
            issued(ORDERS, "5a"),
            Event::new("token.used", ORDERS, "10.0.0.1:5").with("token", "abc"),
            issued(ORDERS, "5b"),
        ])
    }

    #[test]
    fn a_report_is_taken_once_however_often_and_in_whatever_pieces_it_comes() {
        let records = some();
        let whole = merge(&site(), &Head::default(), &records).unwrap();
        assert_eq!((whole.taken.seq, whole.events.len()), (4, 4));
        let serials: Vec<&str> = whole.leaves.iter().map(|l| l.serial.as_str()).collect();
        assert_eq!(serials, ["5a", "5b"]);
        assert_eq!(whole.leaves[0].id.as_str(), ORDERS);
        let first = &whole.events[0];
        assert_eq!(
            (first.event.as_str(), first.by.as_str()),
            ("token.created", "uid 0")
        );
        assert_eq!(first.detail["site"], "paris");
        assert_eq!(first.detail["at_unix_ms"], "1000");
        // Again: nothing. Cut off after any record, and then all of it: each once.
        let again = merge(&site(), &whole.taken, &records).unwrap();
        assert_eq!(
            (again.taken, again.events.len(), again.leaves.len()),
            (whole.taken.clone(), 0, 0)
        );
        for cut in 0..=records.len() {
            let part = merge(&site(), &Head::default(), &records[..cut]).unwrap();
            let rest = merge(&site(), &part.taken, &records).unwrap();
            assert_eq!(rest.taken, whole.taken);
            let events: Vec<Event> = part.events.into_iter().chain(rest.events).collect();
            assert_eq!(events, whole.events);
        }
    }

    #[test]
    fn a_report_with_a_record_left_out_changed_or_of_another_log_is_refused() {
        let records = some();
        let taken = merge(&site(), &Head::default(), &records[..2])
            .unwrap()
            .taken;
        assert!(merge(&site(), &taken, &records[3..]).is_err(), "left out");
        let mut changed = records.clone();
        changed[2].event.subject = "somebody else".into();
        assert!(merge(&site(), &taken, &changed).is_err(), "changed");
        let other = log((0..4).map(|n| issued(ORDERS, &format!("6{n}"))).collect());
        assert!(merge(&site(), &taken, &other).is_err(), "another log");
    }

    #[test]
    fn what_a_delegate_may_not_do_is_noted_and_counts_for_nothing() {
        let rome = "spiffe://weft.local/ns/rome/sa/orders";
        let records = log(vec![
            issued(rome, "5a"),
            Event::new("rotation.finished", "1", "control"),
            Event::new("token.created", "x".repeat(5_000), "uid 0"),
            issued(ORDERS, "not hexadecimal"),
        ]);
        let merged = merge(&site(), &Head::default(), &records).unwrap();
        assert!(merged.leaves.is_empty(), "{:?}", merged.leaves);
        assert_eq!(merged.events[0].detail["accepted_by"], "nobody");
        assert_eq!(merged.events[1].event, "delegate.reported");
        assert_eq!(merged.events[1].detail["event"], "rotation.finished");
        assert_eq!(merged.events[2].subject.len(), LONGEST);
    }
}
