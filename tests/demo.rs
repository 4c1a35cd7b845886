//! The demo, as a newcomer runs it: eleven steps, all of them observed to hold.

#![allow(
    clippy::disallowed_methods,
    clippy::unwrap_used,
    reason = "tests stand outside Env, and a panic is how they fail"
)]

mod support;

use std::collections::BTreeSet;
use std::io::{BufRead, BufReader, Read};

use support::{ended, eventually, exists, signal, weft};

const STEPS: [&str; 11] = [
    "control",
    "join",
    "request",
    "balance",
    "tcp",
    "timeout",
    "reject",
    "rotate",
    "control-down",
    "impostor",
    "latency",
];

#[test]
fn the_demo_shows_eleven_steps_that_hold_and_leaves_nothing_behind() {
    let tmp = tempfile::tempdir().unwrap();
    let mut child = weft(["demo", "-o", "json"])
        .env("TMPDIR", tmp.path())
        .stdout(std::process::Stdio::piped())
        .spawn()
        .unwrap();
    let started = std::time::Instant::now();
    let mut text = String::new();
    std::io::Read::read_to_string(&mut child.stdout.take().unwrap(), &mut text).unwrap();
    let status = child.wait().unwrap();
    let took = started.elapsed();

    let document: serde_json::Value = serde_json::from_str(&text).expect("one JSON document");
    assert_eq!(document["version"], env!("CARGO_PKG_VERSION"));
    let steps = document["steps"].as_array().expect("steps");
    let names: Vec<&str> = steps.iter().filter_map(|s| s["name"].as_str()).collect();
    assert_eq!(names, STEPS);
    for step in steps {
        assert_eq!(
            step["ok"], true,
            "expected every step to hold, saw {step:#}"
        );
        assert!(step["ms"].as_f64().is_some_and(|ms| ms > 0.0), "{step:#}");
    }
    assert!(status.success(), "expected exit code 0, saw {status}");
    // The promise is 30 s for a release build; a debug build on two busy cores gets a margin.
    assert!(took.as_secs() < 60, "expected half a minute, took {took:?}");
    assert_eq!(left_in(tmp.path()), Vec::<String>::new());
}

#[test]
fn ctrl_c_and_kill_9_of_the_demo_leave_no_process_and_no_folder() {
    for (name, code) in [("INT", Some(1)), ("TERM", Some(1)), ("KILL", None)] {
        let tmp = tempfile::tempdir().unwrap();
        let mut demo = weft(["demo"])
            .env("TMPDIR", tmp.path())
            .stdout(std::process::Stdio::null())
            .stderr(std::process::Stdio::null())
            .spawn()
            .unwrap();
        // In the midst of it: sidecars run.
        let pids = eventually("the demo's sidecars to run", || {
            let pids = descendants(demo.id());
            (pids.len() >= 6).then_some(pids)
        });
        signal(demo.id(), name);
        let status = ended(&mut demo, support::SOON).expect("the demo to end");
        assert_eq!(status.code(), code, "SIG{name}");
        eventually(&format!("every process to end after SIG{name}"), || {
            pids.iter().all(|pid| !exists(*pid)).then_some(())
        });
        eventually(&format!("the folder to go after SIG{name}"), || {
            left_in(tmp.path()).is_empty().then_some(())
        });
    }
}

#[test]
fn a_demo_that_nobody_reads_any_more_ends_and_fails() {
    let tmp = tempfile::tempdir().unwrap();
    let mut demo = weft(["demo"])
        .env("TMPDIR", tmp.path())
        .stdout(std::process::Stdio::piped())
        .stderr(std::process::Stdio::piped())
        .spawn()
        .unwrap();
    let mut out = BufReader::new(demo.stdout.take().unwrap());
    let mut first = String::new();
    out.read_line(&mut first).unwrap();
    assert!(first.contains("control"), "{first}");
    let pids = eventually("the demo's sidecars to run", || {
        let pids = descendants(demo.id());
        (pids.len() >= 6).then_some(pids)
    });
    drop(out);
    let status = ended(&mut demo, support::SOON).expect("the demo to end");
    assert_eq!(status.code(), Some(1));
    let mut said = String::new();
    demo.stderr.unwrap().read_to_string(&mut said).unwrap();
    assert!(said.contains("whoever read its output has gone"), "{said}");
    assert!(pids.iter().all(|pid| !exists(*pid)), "{pids:?}");
    assert_eq!(left_in(tmp.path()), Vec::<String>::new());
}

#[test]
fn an_interrupted_demo_says_so_in_its_document() {
    let tmp = tempfile::tempdir().unwrap();
    let demo = started(tmp.path());
    eventually("the demo's sidecars to run", || {
        (descendants(demo.id()).len() >= 6).then_some(())
    });
    signal(demo.id(), "INT");
    let document = failed(demo);
    let steps = document["steps"].as_array().unwrap();
    assert_eq!(steps.len(), STEPS.len());
    assert_eq!(steps[0]["ok"], true, "{steps:#?}");
    let last = &steps[10];
    assert_eq!(last["ok"], false);
    let reason = last["detail"]["error"].as_str().unwrap();
    assert!(reason.contains("was interrupted"), "{reason}");
}

#[test]
fn a_process_that_dies_in_the_midst_is_named_by_the_step_that_fails() {
    let tmp = tempfile::tempdir().unwrap();
    let demo = started(tmp.path());
    let sidecar = eventually("the sidecar of orders to run", || {
        let is_it = |pid: &u32| {
            let line = std::fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
            let line = String::from_utf8_lossy(&line).replace('\0', " ");
            line.contains(" sidecar ") && line.contains("/orders")
        };
        descendants(demo.id()).into_iter().find(is_it)
    });
    signal(sidecar, "KILL");
    let document = failed(demo);
    let steps = document["steps"].as_array().unwrap();
    let step = steps.iter().find(|step| step["ok"] == false).unwrap();
    let told = step["detail"].to_string();
    assert!(
        told.contains("orders") && told.contains("signal: 9"),
        "{step:#}"
    );
}

/// A demo that tells its story as JSON.
fn started(tmp: &std::path::Path) -> std::process::Child {
    weft(["demo", "-o", "json"])
        .env("TMPDIR", tmp)
        .stdout(std::process::Stdio::piped())
        .stderr(std::process::Stdio::null())
        .spawn()
        .unwrap()
}

/// What a demo told that has failed.
fn failed(mut demo: std::process::Child) -> serde_json::Value {
    let status = ended(&mut demo, support::SOON).expect("the demo to end");
    assert_eq!(status.code(), Some(1));
    serde_json::from_reader(demo.stdout.take().unwrap()).expect("one JSON document")
}

fn left_in(dir: &std::path::Path) -> Vec<String> {
    std::fs::read_dir(dir)
        .unwrap()
        .map(|entry| entry.unwrap().file_name().to_string_lossy().into_owned())
        .collect()
}

/// Children of a process, from the kernel.
fn descendants(parent: u32) -> BTreeSet<u32> {
    let tasks = std::fs::read_dir(format!("/proc/{parent}/task"));
    tasks
        .into_iter()
        .flatten()
        .filter_map(|task| std::fs::read_to_string(task.ok()?.path().join("children")).ok())
        .flat_map(|text| {
            text.split_whitespace()
                .filter_map(|pid| pid.parse().ok())
                .collect::<Vec<u32>>()
        })
        .collect()
}
