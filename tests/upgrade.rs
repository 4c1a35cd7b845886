//! A sidecar is replaced by a new process while it carries traffic: nothing is lost, whatever becomes of the new
//! process.

#![allow(
    clippy::disallowed_methods,
    clippy::unwrap_used,
    reason = "tests stand outside Env, and a panic is how they fail"
)]

mod support;

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use support::shop::Shop;
use support::{Running, SOON, World, ended, eventually, get};

/// Connections of the application that stay open, each with so many requests a second.
const KEPT: u32 = 16;
const RATE: u32 = 30;
const UPGRADES: u32 = 20;

/// An application that answers each line with itself.
fn line_server() -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let addr = listener.local_addr().unwrap();
    thread::spawn(move || {
        for stream in listener.incoming() {
            let stream = stream.unwrap();
            thread::spawn(move || {
                let mut lines = BufReader::new(stream.try_clone().unwrap());
                let (mut stream, mut line) = (stream, String::new());
                while lines.read_line(&mut line).is_ok_and(|read| read > 0) {
                    if stream.write_all(line.as_bytes()).is_err() {
                        return;
                    }
                    line.clear();
                }
            });
        }
    });
    addr
}

/// A tunnel through both sidecars.
struct Tunnel {
    stream: TcpStream,
    lines: BufReader<TcpStream>,
    sent: u32,
}

impl Tunnel {
    fn open(addr: SocketAddr) -> Self {
        let stream = TcpStream::connect(addr).unwrap();
        stream.set_read_timeout(Some(SOON)).unwrap();
        Self {
            lines: BufReader::new(stream.try_clone().unwrap()),
            stream,
            sent: 0,
        }
    }

    fn ping(&mut self) -> Result<(), String> {
        self.sent += 1;
        let sent = format!("{}\n", self.sent);
        let mut back = String::new();
        self.stream
            .write_all(sent.as_bytes())
            .and_then(|()| self.lines.read_line(&mut back))
            .map_err(|error| format!("line {}: {error}", self.sent))?;
        match back == sent {
            true => Ok(()),
            false => Err(format!("line {} came back as {back:?}", self.sent)),
        }
    }
}

/// A client that keeps its connection as long as it is let, and forgives nothing.
struct Kept {
    addr: SocketAddr,
    stream: Option<BufReader<TcpStream>>,
}

impl Kept {
    fn get(&mut self) -> Result<(), String> {
        self.exchange().map_err(|error| error.to_string())?
    }

    fn exchange(&mut self) -> std::io::Result<Result<(), String>> {
        let mut stream = match self.stream.take() {
            Some(stream) => stream,
            None => {
                let stream = TcpStream::connect(self.addr)?;
                stream.set_read_timeout(Some(SOON))?;
                stream.set_nodelay(true)?;
                BufReader::new(stream)
            }
        };
        let request = b"GET /echo HTTP/1.1\r\nHost: invoices\r\n\r\n";
        stream.get_mut().write_all(request)?;
        let (mut head, mut line) = (String::new(), String::new());
        while line != "\r\n" {
            line.clear();
            if stream.read_line(&mut line)? == 0 {
                return Ok(Err(format!("the connection ended after {head:?}")));
            }
            head.push_str(&line.to_ascii_lowercase());
        }
        let field = |name: &str| {
            head.lines()
                .find_map(|line| line.strip_prefix(name)?.strip_prefix(": "))
                .map(str::to_owned)
        };
        let length = field("content-length").and_then(|text| text.parse().ok());
        let mut body = vec![0; length.unwrap_or(0)];
        stream.read_exact(&mut body)?;
        if !head.starts_with("http/1.1 200") {
            return Ok(Err(format!("{head}{}", String::from_utf8_lossy(&body))));
        }
        if field("connection").is_none_or(|value| value != "close") {
            self.stream = Some(stream);
        }
        Ok(Ok(()))
    }
}

/// Traffic of orders, until it is told to stop.
struct Load {
    stop: Arc<AtomicBool>,
    requests: Arc<AtomicU32>,
    workers: Vec<JoinHandle<Vec<String>>>,
    began: Instant,
}

impl Load {
    fn start(shop: &Shop) -> Self {
        let (http, tcp) = (shop.orders.addr("outbound"), tcp_port(&shop.orders));
        let mut load = Self {
            stop: Arc::default(),
            requests: Arc::default(),
            workers: Vec::new(),
            began: Instant::now(),
        };
        for _ in 0..KEPT {
            let mut kept = Kept {
                addr: http,
                stream: None,
            };
            load.work(RATE, move || kept.get());
        }
        // And connections of one request each.
        load.work(RATE, move || match get(http, "invoices", "/echo") {
            Ok(reply) if reply.status == 200 => Ok(()),
            other => Err(format!("{other:?}")),
        });
        load.work(RATE, move || Tunnel::open(tcp).ping());
        load
    }

    fn work(&mut self, rate: u32, mut step: impl FnMut() -> Result<(), String> + Send + 'static) {
        let (stop, requests) = (Arc::clone(&self.stop), Arc::clone(&self.requests));
        self.workers.push(thread::spawn(move || {
            let mut failures = Vec::new();
            while !stop.load(Ordering::Relaxed) {
                let next = Instant::now() + Duration::from_secs(1) / rate;
                if let Err(failure) = step() {
                    failures.push(failure);
                }
                requests.fetch_add(1, Ordering::Relaxed);
                thread::sleep(next.saturating_duration_since(Instant::now()));
            }
            failures
        }));
    }

    /// Requests, requests a second, and what failed.
    fn end(self) -> (u32, f64, Vec<String>) {
        self.stop.store(true, Ordering::Relaxed);
        let failures = self.workers.into_iter();
        let failures = failures.flat_map(|worker| worker.join().unwrap()).collect();
        let requests = self.requests.load(Ordering::Relaxed);
        let rate = f64::from(requests) / self.began.elapsed().as_secs_f64();
        (requests, rate, failures)
    }
}

fn tcp_port(sidecar: &Running) -> SocketAddr {
    sidecar.ready["tcp"][0].as_str().unwrap().parse().unwrap()
}

/// Starts a process that takes over from `running`, and gives the old one.
fn replace(world: &World, running: &mut Running, args: &[String]) -> Running {
    let mut args = args.to_vec();
    args.push("--takeover".to_owned());
    let name = running.name.clone();
    let new = world.start(&name, &args);
    for address in ["mesh", "outbound", "metrics"] {
        assert_eq!(new.addr(address), running.addr(address), "{address}");
    }
    std::mem::replace(running, new)
}

fn sidecar<'a>(status: &'a serde_json::Value, service: &str) -> &'a serde_json::Value {
    let mut all = status["sidecars"].as_array().unwrap().iter();
    all.find(|sidecar| sidecar["service"] == service).unwrap()
}

#[test]
fn twenty_upgrades_under_load_lose_nothing() {
    let mut shop = Shop::with(1, &["--drain=2s"], Some(line_server()));
    let mut tunnel = Tunnel::open(tcp_port(&shop.orders));
    tunnel.ping().unwrap();
    let load = Load::start(&shop);
    let (mut first, mut later) = (Vec::new(), Vec::new());
    for number in 0..UPGRADES {
        let old = match number % 2 {
            0 => replace(&shop.world, &mut shop.orders, &shop.orders_args),
            _ => replace(&shop.world, &mut shop.invoices[0], &shop.invoices_args[0]),
        };
        match number {
            0 | 1 => first.push(old),
            _ => later.push(old),
        }
        tunnel.ping().unwrap();
    }
    let (requests, rate, failures) = load.end();
    assert_eq!(failures, Vec::<String>::new(), "of {requests} requests");
    assert!(rate >= 200.0, "{rate} requests a second are no load");

    // Every process has ended by itself, but the two that the tunnel goes through.
    for old in &mut later {
        let status = ended(&mut old.child, SOON);
        assert!(
            status.is_some_and(|s| s.success()),
            "{status:?}: {}",
            old.log()
        );
    }
    tunnel.ping().unwrap();
    let status = eventually("the status of the newest generation", || {
        let status = shop.world.admin(&["status", "-o", "json"]).json();
        let shown = |service: &str, running: &Running, earlier: &Running| {
            let shown = sidecar(&status, service);
            shown["state"] == "live"
                && shown["pid"] == running.child.id()
                && shown["earlier"]
                    .as_array()
                    .is_some_and(|all| all.len() == 1)
                && shown["earlier"][0]["pid"] == earlier.child.id()
        };
        (shown("orders.default", &shop.orders, &first[0])
            && shown("invoices.default", &shop.invoices[0], &first[1]))
        .then_some(status)
    });
    assert_eq!(status["sidecars"].as_array().unwrap().len(), 2, "{status}");
    let text = shop.world.admin(&["status"]).ok().stdout.clone();
    assert!(text.contains("still finishes streams in process"), "{text}");

    // With its end, they end.
    drop(tunnel);
    for old in &mut first {
        let status = ended(&mut old.child, SOON);
        assert!(
            status.is_some_and(|s| s.success()),
            "{status:?}: {}",
            old.log()
        );
    }
    shop.serves("after all upgrades");
    assert_eq!(shop.live(), 2);
}
