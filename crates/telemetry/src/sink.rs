//! Standard error, written by a thread of its own. A reader that stands still, such as a pager or the log of a container
//! runtime, and a disk that does so must hold up nobody's request: lines wait here, within a bound, and are lost beyond it.

use std::io::{self, Write};
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tracing_subscriber::fmt::MakeWriter;

use crate::LogFormat;

/// Most bytes that wait; as many again may be on their way to the reader.
const MAX_WAITING: usize = 1 << 20;

/// Lines on their way to a writer that may stand still.
#[derive(Debug, Default)]
pub(crate) struct Sink {
    waiting: Mutex<Waiting>,
    changed: Condvar,
}

#[derive(Debug, Default)]
struct Waiting {
    lines: Vec<u8>,
    /// Lines that had no room since the last were told.
    lost: u64,
    /// Whether some are being written.
    busy: bool,
}

impl Waiting {
    fn is_calm(&self) -> bool {
        self.lines.is_empty() && self.lost == 0
    }
}

impl Sink {
    pub(crate) const fn new() -> Self {
        Self {
            waiting: Mutex::new(Waiting {
                lines: Vec::new(),
                lost: 0,
                busy: false,
            }),
            changed: Condvar::new(),
        }
    }

    fn lock(&self) -> MutexGuard<'_, Waiting> {
        // Bytes and a number, whole after every statement.
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes a line, and never waits for its reader.
    fn take(&self, line: &[u8]) {
        let mut waiting = self.lock();
        if waiting.lines.len() + line.len() > MAX_WAITING {
            waiting.lost += 1;
            return;
        }
        waiting.lines.extend_from_slice(line);
        drop(waiting);
        self.changed.notify_all();
    }

    /// Writes what comes, for as long as the process lives. What cannot be written is lost.
    pub(crate) fn write_to(&self, mut out: impl Write, format: LogFormat) -> ! {
        let mut lines = Vec::new();
        loop {
            let mut waiting = self.lock();
            waiting.busy = false;
            self.changed.notify_all();
            let calm = |waiting: &mut Waiting| waiting.is_calm();
            waiting = self
                .changed
                .wait_while(waiting, calm)
                .unwrap_or_else(PoisonError::into_inner);
            std::mem::swap(&mut lines, &mut waiting.lines);
            let lost = std::mem::take(&mut waiting.lost);
            waiting.busy = true;
            drop(waiting);
            let _ = out.write_all(&lines);
            if lost > 0 {
                let _ = out.write_all(told(lost, format).as_bytes());
            }
            lines.clear();
        }
    }

    /// Waits until all is written. `false`: it is not, after this time.
    pub(crate) fn flush(&self, within: Duration) -> bool {
        let open = |waiting: &mut Waiting| waiting.busy || !waiting.is_calm();
        let (waiting, _) = self
            .changed
            .wait_timeout_while(self.lock(), within, open)
            .unwrap_or_else(PoisonError::into_inner);
        !waiting.busy && waiting.is_calm()
    }
}

fn told(lost: u64, format: LogFormat) -> String {
    let what = "lines of the log were lost here: whoever takes standard error stood still, and no more could wait";
    match format {
        LogFormat::Text => format!("weft: {lost} {what}\n"),
        LogFormat::Json => {
            format!("{{\"level\":\"WARN\",\"message\":\"{what}\",\"lost\":{lost}}}\n")
        }
    }
}

/// One line.
#[derive(Debug)]
pub(crate) struct Line(&'static Sink);

impl Write for Line {
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        self.0.take(line);
        Ok(line.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl<'a> MakeWriter<'a> for &'static Sink {
    type Writer = Line;

    fn make_writer(&'a self) -> Line {
        Line(self)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::mpsc::{Receiver, Sender, channel};

    /// A reader that takes a write when it is told to.
    struct Slow(Receiver<()>, Sender<Vec<u8>>);

    impl Write for Slow {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.recv().map_err(io::Error::other)?;
            self.1.send(bytes.to_vec()).map_err(io::Error::other)?;
            Ok(bytes.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    #[test]
    #[allow(clippy::disallowed_methods, reason = "as logging starts its thread")]
    fn a_reader_that_stands_still_holds_up_nobody_and_hears_how_much_it_missed() {
        static SINK: Sink = Sink::new();
        let (go, may) = channel();
        let (say, heard) = channel();
        std::thread::spawn(move || SINK.write_to(Slow(may, say), LogFormat::Text));
        assert!(SINK.flush(Duration::ZERO), "nothing is there yet");
        let line = [b'x'; 1024];
        SINK.take(&line);
        let waits = Duration::from_millis(1);
        assert!(!SINK.flush(waits), "its reader stands still");
        // The first is on its way, or waits with the others.
        for _ in 0..3000 {
            SINK.take(&line);
        }
        let (mut bytes, mut said) = (0, String::new());
        while said.is_empty() {
            go.send(()).unwrap();
            let part = heard.recv().unwrap();
            match part.strip_prefix(b"weft: ") {
                Some(text) => said = String::from_utf8_lossy(text).into_owned(),
                None => bytes += part.len(),
            }
        }
        let lost: usize = said.split(' ').next().unwrap().parse().unwrap();
        assert_eq!(bytes / 1024 + lost, 3001, "{said}");
        assert!(bytes <= 2 * MAX_WAITING, "{bytes}");
        assert!(SINK.flush(Duration::from_secs(20)));
    }

    #[test]
    fn what_was_lost_is_a_line_of_the_format() {
        let json = told(7, LogFormat::Json);
        assert!(
            json.starts_with(r#"{"level":"WARN","message":"lines"#)
                && json.ends_with("\"lost\":7}\n"),
            "{json}"
        );
        assert!(told(7, LogFormat::Text).starts_with("weft: 7 lines"));
    }
}
