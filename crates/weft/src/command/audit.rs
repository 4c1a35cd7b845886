//! `weft ca audit`.

use std::time::Duration;

use serde_json::json;
use weft_ca::audit::{Head, Record, check, check_end};
use weft_control::AdminClient;
use weft_env::Env;

use super::admin::{date, failed};
use crate::failure::Failure;
use crate::output::{self, Format, Table};

/// Reads the log page by page, checks it, and shows what is asked for.
pub(super) async fn run(
    client: &AdminClient,
    verify: bool,
    since: Option<Duration>,
    format: Format,
) -> Result<(), Failure> {
    let (records, head) = read(client).await?;
    if verify {
        return verified(&records, &head, format);
    }
    let now = Env::system().wall();
    let oldest = since
        .and_then(|since| now.checked_sub(since))
        .and_then(|at| at.duration_since(std::time::UNIX_EPOCH).ok())
        .map_or(0, |at| at.as_millis());
    let shown: Vec<&Record> = records
        .iter()
        .filter(|record| u128::from(record.at_unix_ms) >= oldest)
        .collect();
    output::show(format, &shown, || table(&shown))
}

async fn read(client: &AdminClient) -> Result<(Vec<Record>, Head), Failure> {
    let (mut records, mut after) = (Vec::new(), 0);
    loop {
        let page = client.audit(after).await.map_err(failed)?;
        records.extend(page.records);
        match page.next {
            Some(next) => after = next,
            None => return Ok((records, page.head)),
        }
    }
}

/// The log begins where the oldest record that is kept says: what was before it has been forgotten in order.
fn verified(records: &[Record], end: &Head, format: Format) -> Result<(), Failure> {
    let begin = records.first().map_or_else(Head::default, |first| Head {
        seq: first.seq - 1,
        hash: first.prev.clone(),
    });
    let checked = check(&begin, records).and_then(|head| check_end(&head, end));
    if let Err(error) = checked {
        return Err(Failure::new(
            "verify the audit log",
            error,
            "somebody changed the store; compare with a backup and with the hashes in your evidence",
        ));
    }
    let value = json!({"whole": true, "first": begin.seq + 1, "last": end.seq, "hash": end.hash});
    output::show(format, &value, || {
        format!(
            "the audit log is whole: records {} to {}\nits last hash, to be kept elsewhere: {}\n",
            begin.seq + 1,
            end.seq,
            end.hash
        )
    })
}

fn table(records: &[&Record]) -> String {
    let mut table = Table::new(
        &["NO", "WHEN", "EVENT", "SUBJECT", "BY", "DETAIL"],
        "nothing happened in that time",
    );
    for record in records {
        let detail = record.event.detail.iter();
        let detail: Vec<String> = detail
            .map(|(name, value)| format!("{name}={value}"))
            .collect();
        table.row([
            record.seq.to_string(),
            date(record.at_unix_ms / 1000),
            record.event.event.clone(),
            record.event.subject.clone(),
            record.event.by.clone(),
            detail.join(" "),
        ]);
    }
    table.render()
}
