//! `weft-netsim link`: two namespaces that are there already.

#![allow(
    clippy::unwrap_used,
    clippy::print_stderr,
    clippy::disallowed_methods,
    reason = "a test of real processes and the kernel's own sockets"
)]

#[allow(dead_code, reason = "shared with the other tests")]
mod support;

use std::io::{BufRead, BufReader, Read};
use std::net::UdpSocket;
use std::process::{Child, ChildStderr, Stdio};

use rustix::process::Signal;
use support::{PATIENCE, netsim, possible, signal, wait_for};
use weft_netsim_tun::Namespace;

/// Two namespaces of a test, removed at its end, however it ends.
struct Pair([Namespace; 2]);

impl Pair {
    fn new(tag: &str) -> Self {
        let name = |side| format!("weft-test-{}-{tag}-{side}", std::process::id());
        Self(["a", "b"].map(|side| Namespace::create(&name(side)).unwrap()))
    }

    /// Starts a link and waits until it is up.
    fn link(&self, arguments: &[&str]) -> (Child, BufReader<ChildStderr>) {
        let [a, b] = &self.0;
        let mut child = netsim()
            .args(["link", "--a", a.name(), "--b", b.name()])
            .args(arguments)
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let mut notes = BufReader::new(child.stderr.take().unwrap());
        let mut line = String::new();
        notes.read_line(&mut line).unwrap();
        assert!(line.contains("are joined"), "{line}");
        (child, notes)
    }

    fn socket(&self, n: usize) -> UdpSocket {
        let address = ["10.77.0.1:0", "10.77.0.2:0"][n];
        let socket = self.0[n].run(|| UdpSocket::bind(address)).unwrap().unwrap();
        socket.set_read_timeout(Some(PATIENCE)).unwrap();
        socket
    }

    fn devices(&self) -> Vec<String> {
        self.0
            .iter()
            .flat_map(|namespace| {
                let table = namespace
                    .run(|| std::fs::read_to_string("/proc/thread-self/net/dev").unwrap())
                    .unwrap();
                table
                    .lines()
                    .filter_map(|line| Some(line.split_once(':')?.0.trim().to_owned()))
                    .filter(|name| name.starts_with("weft"))
                    .collect::<Vec<_>>()
            })
            .collect()
    }
}

impl Drop for Pair {
    fn drop(&mut self) {
        for namespace in &self.0 {
            let _ = namespace.delete();
        }
    }
}

#[test]
fn packets_cross_and_the_report_counts_them() {
    if !possible() {
        return;
    }
    let pair = Pair::new("report");
    let (mut child, _notes) = pair.link(&["--profile", "lan", "-o", "json"]);
    let (a, b) = (pair.socket(0), pair.socket(1));
    for _ in 0..10 {
        a.send_to(b"there", b.local_addr().unwrap()).unwrap();
        let (_, from) = b.recv_from(&mut [0; 8]).unwrap();
        b.send_to(b"back", from).unwrap();
        a.recv(&mut [0; 8]).unwrap();
    }
    signal(&child.id().to_string(), Signal::INT);
    assert!(child.wait().unwrap().success());
    let mut text = String::new();
    child
        .stdout
        .take()
        .unwrap()
        .read_to_string(&mut text)
        .unwrap();
    let report: serde_json::Value = serde_json::from_str(&text).unwrap();
    for way in ["forward", "backward"] {
        assert_eq!(report["links"][0][way]["delivered"], 10, "{report}");
        assert_eq!(report["links"][0][way]["lateness"]["count"], 10, "{report}");
    }
    assert!(report["late"].is_boolean(), "{report}");
    assert!(pair.devices().is_empty());
}

#[test]
fn no_device_is_left_of_a_link_that_is_killed() {
    if !possible() {
        return;
    }
    let pair = Pair::new("kill");
    let (mut child, _notes) = pair.link(&["--profile", "lossy"]);
    assert_eq!(pair.devices(), ["weft0", "weft0"], "the control");
    child.kill().unwrap();
    child.wait().unwrap();
    wait_for("the devices are gone", || pair.devices().is_empty());
}

#[test]
fn a_link_ends_by_itself_after_its_time_or_without_its_device() {
    if !possible() {
        return;
    }
    let pair = Pair::new("ends");
    let (mut child, _notes) = pair.link(&["--profile", "lan", "--duration", "50ms"]);
    assert!(child.wait().unwrap().success());

    let (mut child, mut notes) = pair.link(&["--profile", "lan", "--device", "weft7"]);
    pair.0[0].configure("link del weft7\n").unwrap();
    assert_eq!(child.wait().unwrap().code(), Some(1));
    let mut said = String::new();
    notes.read_to_string(&mut said).unwrap();
    assert!(said.contains("ended by itself"), "{said}");
}

#[test]
fn a_name_that_is_taken_is_said_and_leaves_nothing() {
    if !possible() {
        return;
    }
    let pair = Pair::new("taken");
    let (mut child, _notes) = pair.link(&["--profile", "lan"]);
    let [a, b] = &pair.0;
    let second = netsim()
        .args(["link", "--profile", "lan", "--a", a.name(), "--b", b.name()])
        .output()
        .unwrap();
    assert_eq!(second.status.code(), Some(1));
    let said = String::from_utf8(second.stderr).unwrap();
    assert!(said.contains("weft0") && said.contains(a.name()), "{said}");
    child.kill().unwrap();
    child.wait().unwrap();
}
