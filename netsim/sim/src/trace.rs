//! What happened, as three hashes, and on request line by line.

use std::fmt;

use aws_lc_rs::digest::{Context, SHA256};

/// Lines kept for the comparison of two runs. More would only fill memory: the first difference counts.
const MAX_LINES: usize = 2_000_000;

/// What two runs of one seed have in common.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Hashes {
    /// Every datagram between nodes: time in nanoseconds, from, to, size, what became of it.
    pub datagrams: String,
    /// The bytes of every datagram.
    pub payload: String,
    /// What the run decided, as told by whoever runs it.
    pub decisions: String,
}

impl fmt::Debug for Hashes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "datagrams {} payload {} decisions {}",
            self.datagrams, self.payload, self.decisions
        )
    }
}

pub(crate) struct Trace {
    datagrams: Context,
    payload: Context,
    decisions: Context,
    lines: Option<Vec<String>>,
}

impl Trace {
    pub(crate) fn new() -> Self {
        Self {
            datagrams: Context::new(&SHA256),
            payload: Context::new(&SHA256),
            decisions: Context::new(&SHA256),
            lines: None,
        }
    }

    pub(crate) fn keep_lines(&mut self) {
        self.lines.get_or_insert_default();
    }

    pub(crate) fn take_lines(&mut self) -> Vec<String> {
        self.lines.take().unwrap_or_default()
    }

    pub(crate) fn datagram(&mut self, line: &str, payload: &[u8]) {
        self.datagrams.update(line.as_bytes());
        self.datagrams.update(b"\n");
        self.payload.update(payload);
        self.line(line);
    }

    pub(crate) fn decision(&mut self, line: &str) {
        self.decisions.update(line.as_bytes());
        self.decisions.update(b"\n");
        self.line(line);
    }

    fn line(&mut self, line: &str) {
        if let Some(lines) = &mut self.lines
            && lines.len() < MAX_LINES
        {
            lines.push(line.to_owned());
        }
    }

    pub(crate) fn hashes(&self) -> Hashes {
        Hashes {
            datagrams: short(&self.datagrams),
            payload: short(&self.payload),
            decisions: short(&self.decisions),
        }
    }
}

/// 64 bits are plenty to tell two runs apart, and can be read aloud.
fn short(hash: &Context) -> String {
    let whole = hash.clone().finish();
    whole.as_ref()[..8]
        .iter()
        .map(|byte| format!("{byte:02x}"))
        .collect()
}
