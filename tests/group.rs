//! One process as the sidecar of several services: each has its own identity, and none of what another has.

#![allow(
    clippy::disallowed_methods,
    clippy::unwrap_used,
    reason = "tests stand outside Env, and a panic is how they fail"
)]

mod support;

use std::io::Write;
use std::net::{SocketAddr, TcpListener};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixDatagram;
use std::os::unix::process::CommandExt;
use std::path::PathBuf;
use std::process::Command;

use serde_json::Value;
use support::load::Load;
use support::{Ran, Running, SOON, World, ended, eventually, exists, get, run, signal, weft};

/// invoices may be called by orders and payments, payments by orders alone, orders by nobody.
const POLICIES: &str = "\
apiVersion: weft.dev/v1
kind: AuthorizationPolicy
metadata:
  name: invoices
spec:
  targetRefs:
    - kind: Service
      name: invoices
  action: ALLOW
  rules:
    - from:
        - source:
            principals:
              - spiffe://weft.local/ns/default/sa/orders
              - spiffe://weft.local/ns/default/sa/payments
---
apiVersion: weft.dev/v1
kind: AuthorizationPolicy
metadata:
  name: payments
spec:
  targetRefs:
    - kind: Service
      name: payments
  action: ALLOW
  rules:
    - from:
        - source:
            principals: [spiffe://weft.local/ns/default/sa/orders]
";

fn id(service: &str) -> String {
    format!("spiffe://weft.local/ns/default/sa/{service}")
}

/// A control node, payments by itself, and the applications of all.
struct Town {
    control: Running,
    payments: Running,
    apps: Vec<Running>,
    pin: String,
    // Last: its folder outlives the processes.
    world: World,
}

const GROUP: [&str; 2] = ["orders", "invoices"];

impl Town {
    #[track_caller]
    fn open() -> Self {
        let (world, pin) = World::initialised();
        let control = world.control();
        let policies = world.file("policies.yaml", POLICIES);
        world.admin(&["apply", "-f", &policies]).ok();
        let apps: Vec<Running> = ["orders", "invoices", "payments"]
            .map(|name| world.app(name))
            .into();
        let token = world.token("payments", "10m");
        let at = control.addr("mesh").to_string();
        let mut args = world.sidecar_args("payments", &at, &pin, &token);
        args.push(format!("--app={}", apps[2].addr("http")));
        let payments = world.start("payments", &args);
        Self {
            control,
            payments,
            apps,
            pin,
            world,
        }
    }

    /// Writes the settings of one sidecar of the group.
    fn settings(&self, index: usize, token: &str) -> String {
        let name = GROUP[index];
        let path = |end: &str| self.world.path(&format!("{name}{end}"));
        let text = format!(
            "state-dir: {}\ntoken-file: {token}\nready-file: {}\napp: {}\nlisten: 127.0.0.1:0\noutbound: 127.0.0.1:0\nmetrics: 127.0.0.1:0\n",
            path("").display(),
            path(".ready").display(),
            self.apps[index].addr("http"),
        );
        self.world.file(&format!("{name}.yaml"), &text)
    }

    /// The settings of both, with good tokens.
    fn both(&self) -> Vec<String> {
        let settings = |index| self.settings(index, &self.world.token(GROUP[index], "10m"));
        vec![settings(0), settings(1)]
    }

    fn command(&self, files: &[String]) -> Command {
        let mut command = weft(["sidecar", "--drain=2s"]);
        command.arg(format!("--control={}", self.control.addr("mesh")));
        command.arg(format!("--pin={}", self.pin));
        command.args(files.iter().map(|file| format!("--config={file}")));
        command
    }

    fn ready_file(&self, name: &str) -> PathBuf {
        self.world.path(&format!("{name}.ready"))
    }

    #[track_caller]
    fn start(&self, command: Command) -> Running {
        let files = GROUP.map(|name| (name, self.ready_file(name)));
        self.world.start_writing("group", command, &files)
    }

    fn status(&self, service: &str) -> Value {
        let status = self.world.admin(&["status", "-o", "json"]).json();
        let mut all = status["sidecars"].as_array().unwrap().iter();
        let name = format!("{service}.default");
        all.find(|one| one["service"] == name.as_str())
            .cloned()
            .unwrap_or_default()
    }

    #[track_caller]
    fn serves(&self, from: SocketAddr, service: &str, when: &str) {
        eventually(&format!("{service} to answer {when}"), || {
            let reply = get(from, service, "/echo").ok()?;
            (reply.status == 200).then_some(())
        });
    }
}

#[track_caller]
fn outbound(group: &Running, of: &str) -> SocketAddr {
    address(group, of, "outbound")
}

#[track_caller]
fn address(group: &Running, of: &str, field: &str) -> SocketAddr {
    group.ready[of][field].as_str().unwrap().parse().unwrap()
}

/// One sentence, with exit code 2: nothing was tried.
#[track_caller]
fn refused(ran: &Ran, words: &[&str]) {
    assert_eq!(ran.code, Some(2), "{ran:?}");
    assert_eq!(ran.stderr.trim().lines().count(), 1, "{ran:?}");
    for word in words {
        assert!(ran.stderr.contains(word), "expected '{word}' in {ran:?}");
    }
}

#[test]
fn each_service_of_a_process_speaks_and_is_spoken_to_as_itself() {
    let town = Town::open();
    let mut group = town.start(town.command(&town.both()));
    let (orders, invoices) = (outbound(&group, "orders"), outbound(&group, "invoices"));
    for name in GROUP {
        assert_eq!(group.ready[name]["pid"], group.child.id());
        assert_eq!(group.ready[name]["spiffe_id"], id(name).as_str());
    }

    // The called application sees who called, within the process and in another one.
    for called in ["invoices", "payments"] {
        town.serves(orders, called, "orders");
        let reply = get(orders, called, "/echo").unwrap();
        let seen: Value = serde_json::from_str(&reply.body).unwrap();
        assert_eq!(seen["instance"], called);
        let who = seen["headers"]["x-forwarded-client-cert"].as_str().unwrap();
        assert!(who.contains(&format!("URI={}", id("orders"))), "{who}");
        assert!(who.contains(&format!("By={}", id(called))), "{who}");
    }
    // The other identity may not, though orders' connection to the same peer is open beside it.
    for called in ["payments", "invoices", "orders"] {
        town.serves(orders, "payments", "orders");
        let reply = get(invoices, called, "/echo").unwrap();
        assert_eq!(reply.status, 403, "invoices calls {called}: {reply:?}");
    }
    town.serves(town.payments.addr("outbound"), "invoices", "payments");

    // To the control node they are two sidecars.
    let (before, other) = (town.status("orders"), town.status("invoices"));
    for one in [&before, &other] {
        assert_eq!(
            (&one["state"], &one["pid"]),
            (&"live".into(), &group.child.id().into())
        );
    }
    assert_ne!(before["serial"], other["serial"]);
    assert_ne!(before["instance"], other["instance"]);
    town.world
        .admin(&["cert", "rotate", "--service", "orders"])
        .ok();
    eventually("the new serial of orders", || {
        (town.status("orders")["serial"] != before["serial"]).then_some(())
    });
    assert_eq!(town.status("invoices")["serial"], other["serial"]);
    town.serves(orders, "payments", "orders after its rotation");

    // The log says whose each line is.
    let log = group.log();
    for name in GROUP {
        let of = format!("sidecar{{of={name} service={name}.default}}: ");
        assert!(
            log.contains(&format!("{of}weft_proxy::serving: ready")),
            "{log}"
        );
        assert!(log.contains(&format!("{of}access: ")), "{log}");
    }
    // And its metrics tell of its own calls.
    for name in GROUP {
        let reply = get(address(&group, name, "metrics"), "localhost", "/metrics").unwrap();
        let calls = reply
            .body
            .lines()
            .filter(|line| line.contains(r#"reporter="source""#));
        let calls: Vec<&str> = calls.collect();
        let own = format!(r#"source_principal="{}""#, id(name));
        assert!(!calls.is_empty(), "{name}: {}", reply.body);
        assert!(
            calls.iter().all(|line| line.contains(&own)),
            "{name}: {calls:?}"
        );
    }

    // The end of one identity is not that of the other.
    town.world
        .admin(&["cert", "revoke", "--spiffe-id", &id("orders"), "--prove"]);
    eventually("orders to be refused", || {
        let reply = get(orders, "payments", "/echo");
        reply
            .map_or(true, |reply| reply.status != 200)
            .then_some(())
    });
    let reply = get(orders, "invoices", "/echo");
    assert!(
        reply.map_or(true, |reply| reply.status != 200),
        "within the process too"
    );
    for _ in 0..20 {
        let reply = get(town.payments.addr("outbound"), "invoices", "/echo").unwrap();
        assert_eq!(reply.status, 200, "{reply:?}");
    }

    let status = group.stop();
    assert!(status.success(), "{status:?}: {}", group.log());
    for name in GROUP {
        assert!(!town.ready_file(name).exists(), "{name}");
    }
    assert_eq!(group.log().matches("serving: stopped").count(), 2);
}

#[test]
fn one_that_the_mesh_refuses_leaves_the_other_serving_and_is_started_by_an_upgrade() {
    let town = Town::open();
    let bad = town.world.file("bad-token", "weft-token-of-nobody");
    let files = [
        town.settings(0, &bad),
        town.settings(1, &town.world.token("invoices", "10m")),
    ];
    let manager = UnixDatagram::bind(town.world.path("notify")).unwrap();
    manager.set_read_timeout(Some(SOON)).unwrap();
    let told = || {
        let mut text = [0; 64];
        let read = manager.recv(&mut text).expect("a message in time");
        String::from_utf8(text[..read].to_vec()).unwrap()
    };
    let mut command = town.command(&files);
    command.env("NOTIFY_SOCKET", town.world.path("notify"));
    let ready = [("invoices", town.ready_file("invoices"))];
    let mut group = town.world.start_writing("group", command, &ready);
    town.serves(town.payments.addr("outbound"), "invoices", "payments");
    assert_eq!(told(), "READY=1");
    let log = group.log();
    let line = log
        .lines()
        .find(|line| line.contains("this sidecar has ended"));
    let line = line.unwrap_or_else(|| panic!("{log}"));
    assert!(line.contains("ERROR sidecar{of=orders}"), "{line}");

    town.settings(0, &town.world.token("orders", "10m"));
    let upgrade = |dir: &str| {
        let dir = town.world.path(dir);
        run(weft(["upgrade", "-o", "json", "--state-dir"]).arg(dir))
    };
    let done = upgrade("invoices").json();
    let new = Orphan(u32::try_from(done["to_pid"].as_u64().unwrap()).unwrap());
    assert_eq!(told(), format!("MAINPID={}", new.0));
    // The old one has to tell of its failure, at the end.
    let status = ended(&mut group.child, SOON).expect("the old process ends");
    assert_eq!(status.code(), Some(1));
    let sentence = group.log().lines().last().unwrap().to_owned();
    assert!(
        sentence.starts_with(
            "weft: sidecar: 1 of 2 sidecars of this process ended by themselves: orders: "
        ),
        "{sentence}"
    );
    let orders = eventually("orders to be ready", || {
        let text = std::fs::read(town.ready_file("orders")).ok()?;
        let ready: Value = serde_json::from_slice(&text).ok()?;
        ready["outbound"].as_str()?.parse::<SocketAddr>().ok()
    });
    town.serves(orders, "invoices", "orders after the upgrade");
    assert_eq!(town.status("orders")["pid"], new.0);
    assert_eq!(town.status("invoices")["pid"], new.0);
}

/// Ends a process that is nobody's child any more.
struct Orphan(u32);

impl Drop for Orphan {
    fn drop(&mut self) {
        if exists(self.0) {
            signal(self.0, "KILL");
        }
    }
}

#[test]
fn an_upgrade_takes_all_over_or_none_and_loses_nothing() {
    let town = Town::open();
    let files = town.both();
    let mut group = town.start(town.command(&files));
    let (orders, invoices) = (outbound(&group, "orders"), outbound(&group, "invoices"));
    town.serves(orders, "invoices", "orders");
    town.serves(town.payments.addr("outbound"), "invoices", "payments");
    // orders is in the process, and so is invoices, which others call too.
    let loads = [orders, town.payments.addr("outbound")].map(|from| Load::at_rate(from, 4, 100));

    // Half of a process is not given away.
    let half = run(town.command(&files[..1]).arg("--takeover"));
    half.fails_with(&["does not take over", "holds the sidecar of", "/invoices"]);
    // Nor when one of the new process cannot do it.
    let text = std::fs::read_to_string(&files[1]).unwrap();
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let other = text.replace(
        "metrics: 127.0.0.1:0",
        &format!("metrics: {}", taken.local_addr().unwrap()),
    );
    std::fs::write(&files[1], other).unwrap();
    let upgrade = || {
        let dir = town.world.path("orders");
        run(weft(["upgrade", "-o", "json", "--state-dir"]).arg(dir))
    };
    upgrade().fails_with(&["goes on as it is", "another sidecar", "the metrics port"]);
    std::fs::write(&files[1], text).unwrap();
    assert!(group.child.try_wait().unwrap().is_none());

    let mut news: Vec<Orphan> = Vec::new();
    for _ in 0..3 {
        let done = upgrade().json();
        news.push(Orphan(
            u32::try_from(done["to_pid"].as_u64().unwrap()).unwrap(),
        ));
    }
    for name in GROUP {
        let text = std::fs::read(town.ready_file(name)).unwrap();
        let now: Value = serde_json::from_slice(&text).unwrap();
        for field in ["mesh", "outbound", "metrics", "instance"] {
            assert_eq!(now[field], group.ready[name][field], "{name} {field}");
        }
    }
    let reply = get(invoices, "payments", "/echo").unwrap();
    assert_eq!(reply.status, 403, "{reply:?}");
    for load in loads {
        load.goes_on_for(50);
        let account = load.end();
        assert_eq!(account.failed, 0, "{account:?}");
    }
    let status = ended(&mut group.child, SOON);
    assert!(
        status.is_some_and(|status| status.success()),
        "{status:?}: {}",
        group.log()
    );
    let newest = news.pop().unwrap();
    eventually("both sidecars of the newest process to be linked", || {
        let linked = GROUP.iter().all(|name| {
            let shown = town.status(name);
            shown["state"] == "live" && shown["pid"] == newest.0
        });
        linked.then_some(())
    });
    signal(newest.0, "TERM");
    eventually("the newest process to end", || {
        (!exists(newest.0)).then_some(())
    });
}

#[test]
fn a_process_is_upgraded_once_at_a_time_whichever_of_its_sidecars_is_asked() {
    let town = Town::open();
    let installed = town.world.path("weft");
    std::os::unix::fs::symlink(env!("CARGO_BIN_EXE_weft"), &installed).unwrap();
    let mut command = town.command(&[]);
    command.arg0(&installed).arg("--log-format=json");
    command.env("WEFT_CONFIG", town.both().join(","));
    let mut group = town.start(command);
    // What is installed now waits for a word, and fails.
    let word = town.world.path("word");
    assert!(
        Command::new("mkfifo")
            .arg(&word)
            .status()
            .unwrap()
            .success()
    );
    // For both, as one that is for writing alone waits for a reader.
    let mut options = std::fs::OpenOptions::new();
    let mut speaks = options.read(true).write(true).open(&word).unwrap();
    std::fs::remove_file(&installed).unwrap();
    let script = format!("#!/bin/sh\nread word < {}\nexit 3\n", word.display());
    std::fs::write(&installed, script).unwrap();
    std::fs::set_permissions(&installed, std::fs::Permissions::from_mode(0o755)).unwrap();
    let upgrade = |name: &str| {
        let dir = town.world.path(name);
        run(weft(["upgrade", "--state-dir"]).arg(dir))
    };
    std::thread::scope(|scope| {
        let first = scope.spawn(|| upgrade("orders"));
        eventually("the successor to be started", || {
            group.log().contains("starting a successor").then_some(())
        });
        for name in GROUP {
            upgrade(name).fails_with(&["another upgrade is under way"]);
        }
        speaks.write_all(b"go\n").unwrap();
        first.join().unwrap().fails_with(&["exit status: 3"]);
    });
    town.serves(
        outbound(&group, "orders"),
        "invoices",
        "orders after upgrades that failed",
    );
    assert!(group.stop().success());
    let log = group.log();
    for name in GROUP {
        let of = format!(r#""span":{{"of":"{name}","service":"{name}.default","name":"sidecar"}}"#);
        let ready = log
            .lines()
            .find(|line| line.contains(r#""message":"ready""#) && line.contains(&of));
        assert!(
            ready.is_some_and(|line| !line.contains("\"spans\"")),
            "{log}"
        );
    }
}

#[test]
fn settings_that_do_not_go_together_are_refused_before_anything_is_touched() {
    let town = Town::open();
    let files = town.both();
    let tokens: Vec<String> = files
        .iter()
        .map(|file| std::fs::read_to_string(file).unwrap())
        .collect();
    let with = |change: &str| {
        std::fs::write(&files[1], format!("{}{change}", tokens[1])).unwrap();
        run(&mut town.command(&files))
    };
    refused(
        &with("workers: 2\n"),
        &["`workers`", "orders.yaml", "pass --workers once"],
    );
    std::fs::write(&files[1], &tokens[1]).unwrap();
    for (flag, word) in [
        (
            "--outbound=127.0.0.1:15999",
            "orders and invoices both have `outbound` 127.0.0.1:15999",
        ),
        ("--state-dir=/nowhere/x", "both have `state-dir` /nowhere/x"),
        (
            "--token-file=/nowhere/t",
            "both have `token-file` /nowhere/t",
        ),
    ] {
        refused(&run(town.command(&files).arg(flag)), &[word, "its own"]);
    }
    refused(
        &run(&mut town.command(&vec![files[0].clone(); 65])),
        &["65 sidecars", "64"],
    );
    refused(
        &run(&mut town.command(&[files[0].clone(), files[0].clone()])),
        &["both have `state-dir`"],
    );

    // What this machine does not have for one ends the start of all, and costs no token.
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let at = taken.local_addr().unwrap();
    let other = tokens[1].replace("metrics: 127.0.0.1:0", &format!("metrics: {at}"));
    std::fs::write(&files[1], other).unwrap();
    run(&mut town.command(&files))
        .fails_with(&["invoices: the metrics port", "none of the 2 sidecars"]);
    for name in GROUP {
        assert!(!town.world.path(name).exists(), "{name} left a directory");
    }
    std::fs::write(&files[1], &tokens[1]).unwrap();
    let group = town.start(town.command(&files));
    town.serves(outbound(&group, "orders"), "invoices", "orders");
    drop(group);

    // One instance cannot be two.
    let copy = town.world.path("copy");
    let copied = Command::new("cp")
        .arg("-r")
        .arg(town.world.path("orders"))
        .arg(&copy)
        .status();
    assert!(copied.unwrap().success());
    let _ = std::fs::remove_file(copy.join("handover.sock"));
    let text = format!(
        "state-dir: {}\nlisten: 127.0.0.1:0\noutbound: 127.0.0.1:0\nmetrics: 127.0.0.1:0\n",
        copy.display()
    );
    let third = town.world.file("copy.yaml", &text);
    run(&mut town.command(&[files[0].clone(), third]))
        .fails_with(&["is a copy of", "cannot be two"]);
}
