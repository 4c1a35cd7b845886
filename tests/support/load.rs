//! Requests without an end beside a test, over kept-alive connections, and TCP streams that live through it.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use super::{SOON, eventually};

/// What all workers of a load share.
#[derive(Default)]
struct Counts {
    stop: AtomicBool,
    asked: AtomicU32,
    /// The first few failures in words, and how many there were.
    failures: Mutex<(u32, Vec<String>)>,
    latencies: Mutex<Vec<Duration>>,
}

/// Requests of `orders` to `invoices` until it is dropped.
pub(crate) struct Load {
    counts: Arc<Counts>,
    workers: Vec<JoinHandle<()>>,
    started: Instant,
}

/// What became of the requests.
pub(crate) struct Account {
    pub(crate) asked: u32,
    pub(crate) failed: u32,
    /// The first of them, in words.
    pub(crate) failures: Vec<String>,
    pub(crate) took: Duration,
    /// Ascending.
    latencies: Vec<Duration>,
}

impl std::fmt::Debug for Account {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(
            f,
            "{} of {} requests failed: {:?}",
            self.failed, self.asked, self.failures
        )
    }
}

impl Account {
    pub(crate) fn per_second(&self) -> f64 {
        f64::from(self.asked) / self.took.as_secs_f64()
    }

    /// The latency that this share of the requests did not exceed.
    pub(crate) fn quantile(&self, share: f64) -> Duration {
        let last = self.latencies.len().saturating_sub(1);
        #[expect(
            clippy::cast_possible_truncation,
            clippy::cast_precision_loss,
            clippy::cast_sign_loss,
            reason = "the index of one of some thousand"
        )]
        let index = (last as f64 * share).round() as usize;
        self.latencies.get(index).copied().unwrap_or_default()
    }
}

impl Load {
    /// One request after the other, without a pause.
    pub(crate) fn on(outbound: SocketAddr) -> Self {
        Self::begin(outbound, 1, Duration::ZERO)
    }

    /// This many requests per second in all, by a plan: what a slow moment delays is caught up with.
    pub(crate) fn at_rate(outbound: SocketAddr, workers: u32, per_second: u32) -> Self {
        Self::begin(
            outbound,
            workers,
            Duration::from_secs(1) * workers / per_second,
        )
    }

    fn begin(outbound: SocketAddr, workers: u32, every: Duration) -> Self {
        let counts: Arc<Counts> = Arc::default();
        let started = Instant::now();
        let workers = (0..workers)
            .map(|number| {
                let (counts, first) = (Arc::clone(&counts), started + every * number / workers);
                thread::spawn(move || worker(outbound, first, every, &counts))
            })
            .collect();
        Self {
            counts,
            workers,
            started,
        }
    }

    /// Waits until this many more requests were answered.
    #[track_caller]
    pub(crate) fn goes_on_for(&self, more: u32) {
        let goal = self.counts.asked.load(Ordering::Relaxed) + more;
        eventually(&format!("{more} more requests"), || {
            (self.counts.asked.load(Ordering::Relaxed) >= goal).then_some(())
        });
    }

    pub(crate) fn end(mut self) -> Account {
        self.stop();
        let took = self.started.elapsed();
        let (failed, failures) = std::mem::take(&mut *self.counts.failures.lock().unwrap());
        let mut latencies = std::mem::take(&mut *self.counts.latencies.lock().unwrap());
        latencies.sort_unstable();
        Account {
            asked: self.counts.asked.load(Ordering::Relaxed),
            failed,
            failures,
            took,
            latencies,
        }
    }

    fn stop(&mut self) {
        self.counts.stop.store(true, Ordering::Relaxed);
        for worker in self.workers.drain(..) {
            worker.join().expect("a worker of the load ends well");
        }
    }
}

impl Drop for Load {
    fn drop(&mut self) {
        self.counts.stop.store(true, Ordering::Relaxed);
    }
}

fn worker(outbound: SocketAddr, first: Instant, every: Duration, counts: &Counts) {
    let mut connection = None;
    let mut due = first;
    while !counts.stop.load(Ordering::Relaxed) {
        thread::sleep(due.saturating_duration_since(Instant::now()));
        due += every;
        let began = Instant::now();
        let result = ask(&mut connection, outbound);
        counts.latencies.lock().unwrap().push(began.elapsed());
        counts.asked.fetch_add(1, Ordering::Relaxed);
        if let Err(error) = result {
            connection = None;
            let mut failures = counts.failures.lock().unwrap();
            failures.0 += 1;
            if failures.1.len() < 5 {
                failures.1.push(error.to_string());
            }
        }
    }
}

/// One request over the kept connection; whatever is not a whole reply with 200 is an error.
fn ask(connection: &mut Option<BufReader<TcpStream>>, outbound: SocketAddr) -> std::io::Result<()> {
    let stream = match connection {
        Some(stream) => stream,
        None => {
            let stream = TcpStream::connect(outbound)?;
            stream.set_nodelay(true)?;
            stream.set_read_timeout(Some(SOON))?;
            connection.insert(BufReader::new(stream))
        }
    };
    stream
        .get_mut()
        .write_all(b"GET /echo HTTP/1.1\r\nHost: invoices\r\n\r\n")?;
    let (mut head, mut length) = (String::new(), None);
    while !head.ends_with("\r\n\r\n") {
        let mut line = String::new();
        if stream.read_line(&mut line)? == 0 {
            return Err(std::io::Error::other(format!(
                "closed in mid-reply: {head:?}"
            )));
        }
        let lower = line.to_ascii_lowercase();
        if let Some(value) = lower.strip_prefix("content-length:") {
            length = value.trim().parse().ok();
        }
        head.push_str(&line);
    }
    let length: usize =
        length.ok_or_else(|| std::io::Error::other(format!("no content-length: {head}")))?;
    let mut body = vec![0; length];
    stream.read_exact(&mut body)?;
    if head
        .to_ascii_lowercase()
        .contains("\r\nconnection: close\r\n")
    {
        *connection = None;
    }
    match head.starts_with("HTTP/1.1 200 ") {
        true => Ok(()),
        false => Err(std::io::Error::other(format!(
            "{head}{}",
            String::from_utf8_lossy(&body)
        ))),
    }
}

/// An application that sends back what it gets as it comes. Its threads end with its clients.
pub(crate) fn tcp_echo() -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let addr = listener.local_addr().unwrap();
    thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            thread::spawn(move || {
                let (mut from, mut to) = (&stream, &stream);
                let _ = std::io::copy(&mut from, &mut to);
                let _ = stream.shutdown(std::net::Shutdown::Write);
            });
        }
    });
    addr
}

/// TCP streams through the mesh to [`tcp_echo`], each with a message on its way at any time.
pub(crate) struct Tunnels {
    stop: Arc<AtomicBool>,
    streams: Vec<JoinHandle<Result<u32, String>>>,
}

impl Tunnels {
    pub(crate) fn open(listener: SocketAddr, count: usize) -> Self {
        let stop: Arc<AtomicBool> = Arc::default();
        let streams = (0..count)
            .map(|number| {
                let stop = Arc::clone(&stop);
                thread::spawn(move || {
                    tunnel(listener, &stop).map_err(|(round, error)| {
                        format!("tunnel {number} was cut in round {round}: {error}")
                    })
                })
            })
            .collect();
        Self { stop, streams }
    }

    /// Closes them; the rounds that each has made, or how it was cut.
    pub(crate) fn end(mut self) -> Result<Vec<u32>, Vec<String>> {
        self.stop.store(true, Ordering::Relaxed);
        let ended = self.streams.drain(..).map(|stream| stream.join().unwrap());
        let (whole, cut): (Vec<_>, Vec<_>) = ended.partition(Result::is_ok);
        match cut.is_empty() {
            true => Ok(whole.into_iter().flatten().collect()),
            false => Err(cut.into_iter().filter_map(Result::err).collect()),
        }
    }
}

impl Drop for Tunnels {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
    }
}

/// Sends a numbered message and waits for it, twenty times a second. The number of rounds.
fn tunnel(listener: SocketAddr, stop: &AtomicBool) -> Result<u32, (u32, std::io::Error)> {
    let mut round = 0;
    let mut go = || {
        let mut stream = TcpStream::connect(listener)?;
        stream.set_read_timeout(Some(SOON))?;
        while !stop.load(Ordering::Relaxed) {
            let message = format!("round {round:8}\n");
            stream.write_all(message.as_bytes())?;
            let mut echo = vec![0; message.len()];
            stream.read_exact(&mut echo)?;
            if echo != message.as_bytes() {
                return Err(std::io::Error::other("something else came back"));
            }
            round += 1;
            thread::sleep(Duration::from_millis(50));
        }
        // The end passes through as well: nothing is left behind on the way.
        stream.shutdown(std::net::Shutdown::Write)?;
        let mut rest = Vec::new();
        stream.read_to_end(&mut rest)?;
        match rest.is_empty() {
            true => Ok(()),
            false => Err(std::io::Error::other("more came back than was sent")),
        }
    };
    let ended = go();
    ended.map(|()| round).map_err(|error| (round, error))
}
