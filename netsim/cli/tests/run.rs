//! `weft-netsim run`: the mesh is there, and afterwards it is not, whatever ended the run.

#![allow(
    clippy::unwrap_used,
    clippy::print_stderr,
    clippy::disallowed_methods,
    reason = "a test of real processes and the kernel's own sockets"
)]

mod support;

use std::net::{SocketAddr, UdpSocket};
use std::time::Duration;

use rustix::process::Signal;
use support::{
    PATIENCE, Run, example, hold_starts, left_of, netsim, possible, processes_of, signal, wait_for,
    watcher_of,
};
use weft_netsim_tun::{Clock, Namespace};

/// Prints its variables and waits for its standard input to end.
const UNTIL_INPUT_ENDS: &str = "env; echo; exec cat";
/// Leaves processes behind that do not want to end: one in a namespace, one outside.
const STUBBORN: &str = "trap '' TERM; env; \
    $WEFT_IN_A sh -c 'trap \"\" TERM; exec sleep 1000' & \
    (trap '' TERM; exec sleep 1000) & \
    echo; exec sleep 1000";

fn socket(run: &Run, node: &str) -> UdpSocket {
    let namespace = Namespace::existing(run.variable(&format!("WEFT_NS_{node}"))).unwrap();
    let address: std::net::IpAddr = run.variable(&format!("WEFT_IP_{node}")).parse().unwrap();
    let socket = namespace
        .run(|| UdpSocket::bind(SocketAddr::new(address, 0)))
        .unwrap()
        .unwrap();
    socket
        .set_read_timeout(Some(Duration::from_millis(500)))
        .unwrap();
    socket
}

#[test]
fn packets_cross_the_mesh_and_nothing_is_left_of_it() {
    if !possible() {
        return;
    }
    let mut run = Run::start(&example("three.yaml"), UNTIL_INPUT_ENDS);
    assert_eq!(run.variable("WEFT_NODES"), "control orders invoices");
    let (orders, invoices) = (socket(&run, "ORDERS"), socket(&run, "INVOICES"));
    let to = invoices.local_addr().unwrap();
    let clock = Clock::start();
    // The link loses packets: ask until one has come.
    let mut got = [0; 1];
    let took = (0..20_u8)
        .find_map(|n| {
            let sent = clock.now();
            orders.send_to(&[n], to).unwrap();
            invoices.recv(&mut got).ok()?;
            (got[0] == n).then(|| clock.now() - sent)
        })
        .expect("one of 20 packets crosses");
    assert!(
        took >= Duration::from_micros(40_500),
        "half a round trip of each of the two links: {took:?}"
    );
    let id = run.id();
    assert!(!left_of(&id).is_empty(), "the control: there is something");
    drop(run.child.stdin.take());
    assert!(run.child.wait().unwrap().success());
    assert_eq!(left_of(&id), [""; 0]);
}

#[test]
fn the_exit_code_is_the_commands_and_it_may_run_in_a_node() {
    if !possible() {
        return;
    }
    let report = tempfile::NamedTempFile::new().unwrap();
    let output = netsim()
        .arg("run")
        .arg(example("two-machines.yaml"))
        .arg("--report")
        .arg(report.path())
        .args([
            "--seed",
            "3",
            "--in",
            "a",
            "--",
            "sh",
            "-c",
            "ip -o addr; exit 7",
        ])
        .output()
        .unwrap();
    assert_eq!(output.status.code(), Some(7));
    let addresses = String::from_utf8(output.stdout).unwrap();
    assert!(addresses.contains("10.0.0.1/32"), "{addresses}");
    let report: serde_json::Value =
        serde_json::from_reader(std::fs::File::open(report.path()).unwrap()).unwrap();
    assert_eq!(report["links"][0]["a"], "a");
    assert_eq!(report["links"][0]["forward"]["entered"], 0);
}

#[test]
fn processes_that_the_command_left_end_with_the_run() {
    if !possible() {
        return;
    }
    let script = format!("({STUBBORN}) & read line; exit 0");
    let mut run = Run::start(&example("two-machines.yaml"), &script);
    let id = run.id();
    wait_for("the stubborn processes run", || {
        processes_of(&id).len() >= 5
    });
    drop(run.child.stdin.take());
    assert!(run.child.wait().unwrap().success());
    assert_eq!(left_of(&id), [""; 0]);
}

#[test]
fn nothing_is_left_of_a_run_that_is_killed() {
    if !possible() {
        return;
    }
    let mut run = Run::start(&example("two-machines.yaml"), STUBBORN);
    let id = run.id();
    // Three sleepers and the watcher.
    wait_for("the stubborn processes run", || {
        processes_of(&id).len() >= 4
    });
    run.child.kill().unwrap();
    run.child.wait().unwrap();
    wait_for("nothing is left", || left_of(&id).is_empty());
}

#[test]
fn the_next_start_sweeps_what_a_run_and_its_watcher_left() {
    if !possible() {
        return;
    }
    let mut run = Run::start(&example("two-machines.yaml"), STUBBORN);
    let id = run.id();
    wait_for("the stubborn processes run", || {
        processes_of(&id).len() >= 4
    });
    let held = hold_starts();
    signal(&watcher_of(&id).unwrap(), Signal::KILL);
    wait_for("the watcher is gone", || watcher_of(&id).is_none());
    run.child.kill().unwrap();
    run.child.wait().unwrap();
    assert!(
        left_of(&id).len() >= 5,
        "nobody has cleaned up: {:?}",
        left_of(&id)
    );
    drop(held);

    let next = netsim()
        .arg("run")
        .arg(example("two-machines.yaml"))
        .args(["--quiet", "--", "true"])
        .status()
        .unwrap();
    assert!(next.success());
    assert_eq!(left_of(&id), [""; 0]);
}

#[test]
fn a_run_that_is_asked_to_end_ends_everything() {
    if !possible() {
        return;
    }
    let mut run = Run::start(&example("two-machines.yaml"), STUBBORN);
    let id = run.id();
    signal(&run.child.id().to_string(), Signal::TERM);
    assert_eq!(run.child.wait().unwrap().code(), Some(128 + 15));
    assert_eq!(left_of(&id), [""; 0]);
}

#[test]
fn two_runs_at_a_time_do_not_meet() {
    if !possible() {
        return;
    }
    let mut one = Run::start(&example("two-machines.yaml"), UNTIL_INPUT_ENDS);
    let mut other = Run::start(&example("two-machines.yaml"), UNTIL_INPUT_ENDS);
    let (first, second) = (one.id(), other.id());
    drop(one.child.stdin.take());
    assert!(one.child.wait().unwrap().success());
    assert_eq!(left_of(&first), [""; 0]);
    let a = socket(&other, "A");
    let b = socket(&other, "B");
    b.set_read_timeout(Some(PATIENCE)).unwrap();
    a.send_to(b"x", b.local_addr().unwrap()).unwrap();
    assert_eq!(b.recv(&mut [0; 8]).unwrap(), 1);
    drop(other.child.stdin.take());
    assert!(other.child.wait().unwrap().success());
    assert_eq!(left_of(&second), [""; 0]);
}
