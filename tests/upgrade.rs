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
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixDatagram;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use support::shop::Shop;
use support::{Running, SOON, World, ended, eventually, get, run, signal, weft};
use weft_env::Env;

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

/// A new process may want it otherwise than the old one did.
#[test]
fn the_tcp_fallback_is_switched_by_an_upgrade() {
    let mut shop = Shop::open(1);
    let answers = |sidecar: &Running| TcpStream::connect(sidecar.addr("mesh")).is_ok();
    assert!(answers(&shop.orders));
    for (switch, answered) in [("off", false), ("off", false), ("on", true)] {
        let mut args = shop.orders_args.clone();
        args.push(format!("--tcp-fallback={switch}"));
        let mut old = replace(&shop.world, &mut shop.orders, &args);
        // The old one lets go of its own when it has given all away.
        eventually(&format!("TCP to be {switch}"), || {
            (answers(&shop.orders) == answered).then_some(())
        });
        shop.serves(&format!("with TCP {switch}"));
        assert!(ended(&mut old.child, SOON).is_some());
        assert_eq!(answers(&shop.orders), answered, "{switch}");
    }
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

/// Ends a process that is nobody's child any more.
struct Orphan(u32);

impl Drop for Orphan {
    fn drop(&mut self) {
        if support::exists(self.0) {
            signal(self.0, "KILL");
        }
    }
}

#[test]
fn an_upgrade_says_what_became_of_it_and_tells_the_process_manager() {
    let mut shop = Shop::with(1, &["--drain=1s"], None);
    assert!(shop.orders.stop().success());
    let installed = shop.world.path("weft");
    std::os::unix::fs::symlink(env!("CARGO_BIN_EXE_weft"), &installed).unwrap();
    let manager = UnixDatagram::bind(shop.world.path("notify")).unwrap();
    manager.set_read_timeout(Some(SOON)).unwrap();
    let told = || {
        let mut text = [0; 64];
        let read = manager.recv(&mut text).expect("a message in time");
        String::from_utf8(text[..read].to_vec()).unwrap()
    };
    let mut command = weft(&shop.orders_args);
    command
        .arg0(&installed)
        .env("NOTIFY_SOCKET", shop.world.path("notify"));
    shop.orders = shop.world.start_command("orders", command);
    assert_eq!(told(), "READY=1");
    let dir = shop.world.path("orders");
    let upgrade = || run(weft(["upgrade", "-o", "json", "--state-dir"]).arg(&dir));

    // What is installed now is broken.
    std::fs::remove_file(&installed).unwrap();
    upgrade().fails_with(&["goes on as it is", "cannot be started"]);
    let script = "#!/bin/sh\nexit 3\n";
    std::fs::write(&installed, script).unwrap();
    std::fs::set_permissions(&installed, std::fs::Permissions::from_mode(0o755)).unwrap();
    upgrade().fails_with(&["goes on as it is", "exit status: 3"]);
    shop.serves("after upgrades that failed");

    std::fs::remove_file(&installed).unwrap();
    std::os::unix::fs::symlink(env!("CARGO_BIN_EXE_weft"), &installed).unwrap();
    let done = upgrade().json();
    let new = u32::try_from(done["to_pid"].as_u64().unwrap()).unwrap();
    let _orphan = Orphan(new);
    assert_eq!(done["from_pid"], shop.orders.child.id());
    assert_eq!(told(), format!("MAINPID={new}"));
    let status = ended(&mut shop.orders.child, SOON);
    assert!(status.is_some_and(|status| status.success()), "{status:?}");
    shop.serves("after an upgrade");
    signal(new, "TERM");
    assert_eq!(told(), "STOPPING=1");
    eventually("the new process to end", || {
        (!support::exists(new)).then_some(())
    });
    upgrade().fails_with(&["no sidecar answers", "--state-dir"]);
}

#[test]
fn a_new_process_that_fails_or_dies_half_way_costs_nothing() {
    let shop = Shop::with(1, &[], Some(line_server()));
    let load = Load::start(&shop);
    let mut other = shop.orders_args.clone();
    other.retain(|arg| !arg.starts_with("--listen="));
    other.extend(["--listen=127.0.0.1:1".to_owned(), "--takeover".to_owned()]);
    shop.world
        .run(&other)
        .fails_with(&["does not take over", "listens on", "goes on"]);
    let desk = shop.world.path("orders").join("handover.sock");
    let hello = |oldest: u32| {
        format!(
            r#"{{"type":"hello","protocols":{{"oldest":{oldest},"newest":9}},"version":"9.0.0","pid":1}}"#
        )
    };
    let refused = half_way(&desk, &[&hello(9)]);
    assert!(
        refused.contains("refused") && refused.contains("9.0.0"),
        "{refused}"
    );
    let offer = half_way(&desk, &[&hello(1)]);
    assert!(offer.contains("offer"), "{offer}");
    let yours = half_way(&desk, &[&hello(1), r#"{"type":"ready"}"#]);
    assert!(yours.contains("yours"), "{yours}");
    let failed = half_way(
        &desk,
        &[&hello(1), r#"{"type":"failed","reason":"no disk"}"#],
    );
    assert!(failed.contains("no disk"), "{failed}");
    let (requests, _, failures) = load.end();
    assert_eq!(failures, Vec::<String>::new(), "of {requests} requests");
    eventually("both sidecars to be linked again", || {
        (shop.live() == 2).then_some(())
    });
}

#[test]
fn a_process_whose_predecessor_dies_before_it_gave_anything_starts_as_usual() {
    let mut shop = Shop::open(1);
    signal(shop.orders.child.id(), "STOP");
    let mut args = shop.orders_args.clone();
    args.push("--takeover".to_owned());
    let (old, desk) = (shop.orders.child.id(), shop.world.path("orders/"));
    // The kernel knows the socket by the name that it had first, in the same directory.
    let desk = desk.display().to_string();
    let killer = thread::spawn(move || {
        // The new process asks whom it finds, who does not answer any more.
        eventually("the new process to ask", || {
            let sockets = std::fs::read_to_string("/proc/net/unix").unwrap();
            let asked = sockets.lines().filter(|line| line.contains(&desk)).count() > 1;
            asked.then_some(())
        });
        signal(old, "KILL");
    });
    let new = shop.world.start("orders", &args);
    killer.join().unwrap();
    shop.orders = new;
    shop.serves("from a process that started as usual");
}

/// A new process that says so much and dies; the last word that it heard.
fn half_way(desk: &Path, words: &[&str]) -> String {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap();
    runtime.block_on(async {
        let channel = Env::system().connect_channel(desk).unwrap();
        let hear = async || {
            let heard = tokio::time::timeout(SOON, channel.recv()).await;
            let heard = heard.expect("a word in time").unwrap();
            String::from_utf8(heard.expect("a word").bytes).unwrap()
        };
        let mut last = String::new();
        for word in words {
            channel.send(word.as_bytes(), None).await.unwrap();
            last = hear().await;
            let offer: serde_json::Value = serde_json::from_str(&last).unwrap();
            for _ in 0..offer["sockets"].as_u64().unwrap_or(0) {
                hear().await;
            }
        }
        last
    })
}
