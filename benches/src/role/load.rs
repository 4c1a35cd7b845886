//! The client. In a closed loop each connection asks again as soon as it has its reply. In an open loop
//! requests are due on a fixed schedule, and latency counts from when a request was due, so that a stall is
//! seen by all the requests that it delays (no coordinated omission).

use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::rc::Rc;
use std::time::{Duration, Instant};

use hdrhistogram::Histogram;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::sync::mpsc;
use tokio::task::{JoinSet, LocalSet, spawn_local};
use tokio::time::timeout;

use super::connect;
use super::server::head_end;
use crate::error::{Error, Result};
use crate::process::{cpu_seconds, rss_kib};
use crate::sample::Load;
use crate::workload::{Workload, request};

/// How long an open loop waits for the last replies after its schedule.
const PATIENCE: Duration = Duration::from_secs(10);
/// Requests that may be due and not yet sent.
const BACKLOG: usize = 65_536;
/// Most that is read at a time.
const BUFFER: usize = 256 << 10;

/// What to ask, of whom, and whose CPU to watch.
#[derive(Debug, Clone, clap::Args)]
pub(crate) struct LoadArgs {
    /// Address of the pair's calling side
    #[arg(long)]
    to: SocketAddr,
    /// Value of the Host field
    #[arg(long)]
    host: String,
    /// Bytes of each reply
    #[arg(long)]
    size: u64,
    /// Header fields each way
    #[arg(long)]
    fields: u8,
    /// Connections
    #[arg(long)]
    connections: u32,
    /// Requests a second; 0 is a closed loop
    #[arg(long, default_value_t = 0)]
    rate: u32,
    /// Milliseconds before anything counts
    #[arg(long)]
    warm_up_ms: u64,
    /// Milliseconds that count
    #[arg(long)]
    measured_ms: u64,
    /// A process whose CPU is counted, as NAME=PID
    #[arg(long, value_parser = watched)]
    watch: Vec<(String, u32)>,
}

fn watched(text: &str) -> Result<(String, u32), String> {
    let (name, pid) = text.split_once('=').ok_or("expected NAME=PID")?;
    let pid = pid.parse().map_err(|_| format!("'{pid}' is not a PID"))?;
    Ok((name.to_owned(), pid))
}

/// What all connections share.
struct Shared {
    to: SocketAddr,
    request: Vec<u8>,
    from: Instant,
    until: Instant,
    latency: RefCell<Histogram<u64>>,
    bytes: Cell<u64>,
    failed: Cell<u64>,
    first_failure: RefCell<Option<String>>,
}

impl Shared {
    fn counts(&self, at: Instant) -> bool {
        at >= self.from && at < self.until
    }

    /// One latency of a request that was due at `due`; the histogram's bound is above any that can occur.
    fn record(&self, due: Instant) {
        let _ = self
            .latency
            .borrow_mut()
            .record(due.elapsed().as_nanos() as u64);
    }

    fn fail(&self, at: Instant, why: &std::io::Error) {
        if self.counts(at) {
            self.failed.set(self.failed.get() + 1);
        }
        self.first_failure
            .borrow_mut()
            .get_or_insert_with(|| why.to_string());
    }
}

struct Client {
    stream: TcpStream,
    buffer: Vec<u8>,
}

impl Client {
    async fn new(to: SocketAddr) -> std::io::Result<Self> {
        let stream = connect(to).await?;
        let buffer = vec![0; BUFFER];
        Ok(Self { stream, buffer })
    }

    /// One exchange; bytes of the body count as they arrive.
    async fn ask(&mut self, shared: &Shared) -> std::io::Result<()> {
        self.stream.write_all(&shared.request).await?;
        let mut have = 0;
        let (end, length) = loop {
            match self.stream.read(&mut self.buffer[have..]).await? {
                0 => return Err(std::io::ErrorKind::UnexpectedEof.into()),
                read => have += read,
            }
            if let Some(end) = head_end(&self.buffer[..have]) {
                break (end, length(&self.buffer[..end])?);
            }
        };
        let mut arrived = (have - end) as u64;
        self.count(shared, arrived);
        while arrived < length {
            match self.stream.read(&mut self.buffer).await? {
                0 => return Err(std::io::ErrorKind::UnexpectedEof.into()),
                read => {
                    arrived += read as u64;
                    self.count(shared, read as u64);
                }
            }
        }
        Ok(())
    }

    fn count(&self, shared: &Shared, bytes: u64) {
        if shared.counts(Instant::now()) {
            shared.bytes.set(shared.bytes.get() + bytes);
        }
    }
}

/// The body's length of a reply that must be a 200.
fn length(head: &[u8]) -> std::io::Result<u64> {
    let text = std::str::from_utf8(head).map_err(std::io::Error::other)?;
    if !text.starts_with("HTTP/1.1 200") {
        let line = text.lines().next().unwrap_or_default();
        return Err(std::io::Error::other(format!("the reply is '{line}'")));
    }
    text.lines()
        .filter_map(|line| line.split_once(':'))
        .find(|(name, _)| name.eq_ignore_ascii_case("content-length"))
        .and_then(|(_, value)| value.trim().parse().ok())
        .ok_or_else(|| std::io::Error::other("the reply has no length"))
}

/// Runs the workload.
pub(super) async fn run(args: LoadArgs) -> Result<Load> {
    let workload = Workload {
        size: args.size,
        fields: args.fields,
        connections: args.connections,
        rate: args.rate,
    };
    let from = Instant::now() + Duration::from_millis(args.warm_up_ms);
    let until = from + Duration::from_millis(args.measured_ms);
    let bound = Duration::from_secs(3600).as_nanos() as u64;
    let latency = Histogram::new_with_max(bound, 3).map_err(Error::because("a histogram"))?;
    let shared = Rc::new(Shared {
        to: args.to,
        request: request(&workload, &args.host),
        from,
        until,
        latency: RefCell::new(latency),
        bytes: Cell::new(0),
        failed: Cell::new(0),
        first_failure: RefCell::new(None),
    });
    let local = LocalSet::new();
    let watch = args.watch.clone();
    let (cpu_s, unfinished) = local
        .run_until(async {
            let cpu = spawn_local(watch_cpu(watch, from, until));
            let unfinished = match workload.rate {
                0 => closed(&shared, workload.connections).await,
                rate => open(&shared, workload.connections, rate).await,
            };
            cpu.await
                .map(|cpu| (cpu, unfinished))
                .map_err(Error::because("watch the CPU"))
        })
        .await?;
    let rss = |(name, pid): &(String, u32)| Some((name.clone(), rss_kib(*pid)?));
    Ok(Load {
        requests: shared.latency.borrow().len(),
        failed: shared.failed.get(),
        unfinished,
        seconds: (until - from).as_secs_f64(),
        bytes: shared.bytes.get(),
        latency_us: percentiles(&shared.latency.borrow()),
        cpu_s,
        rss_kib: args.watch.iter().filter_map(rss).collect(),
        first_failure: shared.first_failure.take(),
    })
}

fn percentiles(latency: &Histogram<u64>) -> BTreeMap<String, f64> {
    if latency.is_empty() {
        return BTreeMap::new();
    }
    let at = |quantile| latency.value_at_quantile(quantile) as f64 / 1000.0;
    [
        ("p50", at(0.5)),
        ("p90", at(0.9)),
        ("p99", at(0.99)),
        ("p99.9", at(0.999)),
        ("max", at(1.0)),
    ]
    .map(|(name, value)| (name.to_owned(), value))
    .into()
}

async fn watch_cpu(
    watch: Vec<(String, u32)>,
    from: Instant,
    until: Instant,
) -> BTreeMap<String, f64> {
    let read = || -> Vec<Option<f64>> {
        let each = watch.iter().map(|(_, pid)| cpu_seconds(*pid));
        each.collect()
    };
    tokio::time::sleep_until(from.into()).await;
    let before = read();
    tokio::time::sleep_until(until.into()).await;
    let after = read();
    let spent = before.into_iter().zip(after).zip(watch);
    spent
        .filter_map(|((before, after), (name, _))| Some((name, after? - before?)))
        .collect()
}

async fn closed(shared: &Rc<Shared>, connections: u32) -> u64 {
    let mut tasks = JoinSet::new();
    for _ in 0..connections {
        let shared = shared.clone();
        tasks.spawn_local(async move {
            while Instant::now() < shared.until {
                let Err(error) = ask_until_the_end(&shared).await else {
                    return;
                };
                shared.fail(Instant::now(), &error);
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
        });
    }
    // A reply that takes longer than the measured time is one that did not come.
    let deadline = shared.until + Duration::from_millis(50);
    let all = async { while tasks.join_next().await.is_some() {} };
    let _ = tokio::time::timeout_at(deadline.into(), all).await;
    0
}

async fn ask_until_the_end(shared: &Shared) -> std::io::Result<()> {
    let mut client = Client::new(shared.to).await?;
    loop {
        let start = Instant::now();
        if start >= shared.until {
            return Ok(());
        }
        client.ask(shared).await?;
        if shared.counts(Instant::now()) {
            shared.record(start);
        }
    }
}

/// Sends what is due on whichever connection is free; more than the pool's size wait, and that counts.
async fn open(shared: &Rc<Shared>, connections: u32, rate: u32) -> u64 {
    let (send, receive) = mpsc::channel::<Instant>(BACKLOG);
    let receive = Rc::new(tokio::sync::Mutex::new(receive));
    let done = Rc::new(Cell::new(0_u64));
    let mut tasks = JoinSet::new();
    for _ in 0..connections {
        let (shared, receive, done) = (shared.clone(), receive.clone(), done.clone());
        tasks.spawn_local(async move {
            let mut client = Client::new(shared.to).await.ok();
            loop {
                let due = receive.lock().await.recv().await;
                let Some(due) = due else { return };
                let result = one(&mut client, &shared).await;
                if shared.counts(due) {
                    done.set(done.get() + 1);
                }
                match result {
                    Ok(()) if shared.counts(due) => shared.record(due),
                    Ok(()) => {}
                    Err(error) => {
                        client = None;
                        shared.fail(due, &error);
                    }
                }
            }
        });
    }
    let (start, until) = (Instant::now(), shared.until);
    // A thread, because the runtime's timers have steps of a millisecond.
    let schedule = std::thread::spawn(move || schedule(&send, start, until, rate));
    let from = shared.from;
    let all = async { while tasks.join_next().await.is_some() {} };
    let deadline = until + PATIENCE;
    let _ = tokio::time::timeout_at(deadline.into(), all).await;
    drop(tasks);
    // The threads ends as the channel has no reader any more, if not before.
    drop(receive);
    let due = schedule.join().map_or(0, |times| {
        times.filter(|due| *due >= from && *due < until).count()
    });
    (due as u64).saturating_sub(done.get())
}

async fn one(client: &mut Option<Client>, shared: &Shared) -> std::io::Result<()> {
    let client = match client {
        Some(client) => client,
        None => client.insert(Client::new(shared.to).await?),
    };
    timeout(PATIENCE * 3, client.ask(shared))
        .await
        .map_err(|_| std::io::Error::from(std::io::ErrorKind::TimedOut))?
}

/// Sends each due time when it has come; gives all of them.
fn schedule(
    send: &mpsc::Sender<Instant>,
    start: Instant,
    until: Instant,
    rate: u32,
) -> impl Iterator<Item = Instant> + use<> {
    let due = move |number: u32| start + Duration::from_secs(1) * number / rate;
    let all = (0..).map(due).take_while(move |due| *due < until);
    for due in all.clone() {
        std::thread::sleep(due.saturating_duration_since(Instant::now()));
        if send.blocking_send(due).is_err() {
            break;
        }
    }
    all
}
