//! Island mode with real processes: the control node is stopped for longer than certificates live, the site goes on with its
//! delegate, somebody joins there, and everything is told when the control node is back.

#![allow(
    clippy::disallowed_methods,
    clippy::unwrap_used,
    reason = "tests stand outside Env, and a panic is how they fail"
)]

mod support;

use std::time::{Duration, Instant};

use serde_json::Value;
use support::shop::ALLOW_ORDERS;
use support::{Ran, Running, World, eventually, get, run, weft};

/// Of a certificate. A renewal is due after half of it, an island begins when a third is left.
const TTL: &str = "20s";
/// Several lives of certificates, on a busy machine.
const PATIENCE: Duration = Duration::from_secs(90);

#[track_caller]
fn patiently<T>(what: &str, mut observe: impl FnMut() -> Option<T>) -> T {
    let deadline = Instant::now() + PATIENCE;
    loop {
        if let Some(seen) = observe() {
            return seen;
        }
        assert!(Instant::now() < deadline, "waited {PATIENCE:?} for {what}");
        std::thread::sleep(Duration::from_millis(50));
    }
}

/// A mesh with a delegate of the site paris.
struct Island {
    control: Running,
    delegate: Running,
    pin: String,
    world: World,
}

impl Island {
    fn new() -> Self {
        let world = World::new();
        let init = world
            .admin(&["init", "--leaf-ttl", TTL, "-o", "json"])
            .json();
        let pin = init["pin"].as_str().unwrap().to_owned();
        let control = world.control();
        let at = control.addr("mesh").to_string();
        let none = world.admin(&["ca", "delegate", "list"]);
        let said = &none.ok().stdout;
        assert!(said.contains("no site has a delegate"), "{said}");
        let made = world
            .admin(&[
                "ca",
                "delegate",
                "create",
                "--site=paris",
                "--allow=spiffe://weft.local/ns/default/*",
                "--ttl=1d",
                "-o=json",
            ])
            .json();
        let token = world.file("delegate.token", made["token"].as_str().unwrap());
        let args = [
            "delegate".to_owned(),
            format!("--state-dir={}", world.path("delegate").display()),
            format!("--control={at}"),
            format!("--pin={pin}"),
            format!("--token-file={token}"),
            "--listen=127.0.0.1:0".to_owned(),
            "--metrics=127.0.0.1:0".to_owned(),
            "--log-level=info,weft_control::delegate=debug".to_owned(),
        ];
        let delegate = world.start("delegate-process", &args);
        Self {
            control,
            delegate,
            pin,
            world,
        }
    }

    /// Waits until the delegate has what these sidecars have from the control node: what it was not told, it cannot tell.
    fn follows(&self, sidecars: &[&Running]) {
        let last = |log: &str, word: &str| -> Option<u64> {
            let ends = log.lines().filter_map(|line| line.split_once(word));
            ends.filter_map(|(_, rest)| rest.split(' ').next()?.parse().ok())
                .max()
        };
        let known = sidecars.iter().map(|sidecar| {
            last(&sidecar.log(), "config in force revision=").expect("it has config")
        });
        let known = known.max().unwrap();
        eventually("the delegate to follow the control node", || {
            let followed = last(&self.delegate.log(), "followed revision=")?;
            (followed >= known).then_some(())
        });
    }

    fn at_delegate(&self, args: &[&str]) -> Ran {
        run(weft(args)
            .arg("--state-dir")
            .arg(self.world.path("delegate")))
    }

    fn sidecar(&self, name: &str, token: &str, more: &[String]) -> Running {
        let at = self.control.addr("mesh").to_string();
        let mut args = self.world.sidecar_args(name, &at, &self.pin, token);
        args.push("--site=paris".to_owned());
        args.push(format!("--delegate={}", self.delegate.addr("mesh")));
        args.extend_from_slice(more);
        self.world.start(name, &args)
    }

    fn island_token(&self, service: &str) -> String {
        let made = self
            .at_delegate(&["token", "create", "--service", service, "-o", "json"])
            .json();
        let token = made["token"].as_str().unwrap();
        self.world.file(&format!("island-{service}.token"), token)
    }
}

/// Certificates in an audit log for a service; those of a delegate have its site among their details.
fn issued(log: &Value, service: &str) -> Vec<Value> {
    let id = format!("spiffe://weft.local/ns/default/sa/{service}");
    let all = log.as_array().unwrap().iter();
    all.filter(|record| record["event"] == "certificate.issued" && record["subject"] == id.as_str())
        .cloned()
        .collect()
}

fn answered_by(orders: &Running, instance: &str) -> Option<()> {
    let reply = get(orders.addr("outbound"), "invoices", "/echo").ok()?;
    (reply.status == 200 && reply.body.contains(instance)).then_some(())
}

#[test]
fn a_site_goes_on_without_its_control_node_and_tells_everything_when_it_is_back() {
    let mut island = Island::new();
    let policy = island.world.file("policy.yaml", ALLOW_ORDERS);
    island.world.admin(&["apply", "-f", &policy]).ok();
    let app = |name: &str| {
        let app = island.world.app(name);
        let flag = format!("--app={}", app.addr("http"));
        (app, [flag])
    };
    let (_app0, flags0) = app("invoices-0");
    let (_app1, flags1) = app("invoices-1");
    let token = island.world.token("invoices", "10m");
    let mut invoices = island.sidecar("invoices-0", &token, &flags0);
    let token = island.world.token("orders", "10m");
    let orders = island.sidecar("orders", &token, &[]);
    eventually("invoices to answer at first", || {
        answered_by(&orders, "invoices-0")
    });
    eventually("the delegate to follow the config", || {
        let seen = island.at_delegate(&["get", "-o", "json"]);
        seen.stdout.contains("only-orders").then_some(())
    });
    island.follows(&[&orders, &invoices]);
    let known = issued(
        &island.at_delegate(&["ca", "audit", "-o", "json"]).json(),
        "orders",
    );
    assert!(known.is_empty(), "while there is a control node, it issues");

    let address = island.control.addr("mesh").to_string();
    assert!(island.control.stop().success());
    // Each certificate is replaced twice by the delegate: those of the control node have ended by then.
    patiently("the delegate to renew all certificates twice", || {
        let reply = get(orders.addr("outbound"), "invoices", "/echo").unwrap();
        assert_eq!(reply.status, 200, "{}", reply.body);
        let log = island.at_delegate(&["ca", "audit", "-o", "json"]).json();
        let twice = |service| issued(&log, service).len() >= 2;
        (twice("orders") && twice("invoices")).then_some(())
    });

    // Nobody beyond the site, and nothing that is the control node's.
    island
        .at_delegate(&["token", "create", "--service=x", "--namespace=rome"])
        .fails_with(&["not of site paris"]);
    island
        .at_delegate(&["apply", "-f", &policy])
        .fails_with(&["delegate of site paris"]);

    // Somebody joins, and takes the place of the one who leaves.
    let token = island.island_token("invoices");
    let _second = island.sidecar("invoices-1", &token, &flags1);
    assert!(invoices.stop().success());
    patiently("the one who joined at the delegate to answer", || {
        answered_by(&orders, "invoices-1")
    });

    let args = island.world.control_args(&address);
    island.control = island.world.start("control", &args);
    let log = patiently("the control node to be told everything", || {
        let log = island.world.admin(&["ca", "audit", "-o", "json"]).json();
        let there = island.at_delegate(&["ca", "audit", "-o", "json"]).json();
        let of_site = |service| {
            let all = issued(&log, service);
            all.iter()
                .filter(|r| r["detail"]["site"] == "paris")
                .count()
        };
        let all = |service| of_site(service) == issued(&there, service).len();
        (all("orders") && all("invoices")).then_some(log)
    });
    for event in ["token.created", "token.used"] {
        let told = log
            .as_array()
            .unwrap()
            .iter()
            .any(|record| record["event"] == event && record["detail"]["site"] == "paris");
        assert!(told, "{event} in {log}");
    }
    island.world.admin(&["ca", "audit", "--verify"]).ok();
    patiently("both sidecars to come back to the control node", || {
        let status = island.world.admin(&["status", "-o", "json"]).json();
        let sidecars = status["sidecars"].as_array().unwrap().iter();
        let live = sidecars.filter(|s| s["state"] == "live").count();
        (live == 2).then_some(())
    });
    patiently("requests as before", || answered_by(&orders, "invoices-1"));
    patiently("certificates of the control node again", || {
        let log = island.world.admin(&["ca", "audit", "-o", "json"]).json();
        let last = |service| issued(&log, service).pop().unwrap();
        let ours = |service| last(service)["detail"]["site"].is_null();
        (ours("orders") && ours("invoices")).then_some(())
    });

    // Certificates that the delegate issued are known by their serial number; and it ends with its key.
    let reported = issued(&log, "orders");
    let mut of_site = reported
        .iter()
        .filter(|record| record["detail"]["site"] == "paris");
    let last = of_site.next_back().unwrap();
    let serial = last["detail"]["serial"].as_str().unwrap().to_owned();
    let revoked = island
        .world
        .admin(&["cert", "revoke", "--serial", &serial, "-o", "json"])
        .json();
    assert!(
        revoked["serials"].to_string().contains(&serial),
        "{revoked}"
    );
    let state = |island: &Island| {
        let all = island
            .world
            .admin(&["ca", "delegate", "list", "-o", "json"]);
        all.json()[0]["state"].as_str().unwrap().to_owned()
    };
    assert_eq!(state(&island), "active");
    let alone = |island: &Island| {
        let log = island.delegate.log();
        log.matches("no control node: the site goes on").count()
    };
    let before = alone(&island);
    island
        .world
        .admin(&["ca", "delegate", "revoke", "paris"])
        .ok();
    assert_eq!(state(&island), "revoked");
    eventually("the delegate to be refused", || {
        (alone(&island) > before).then_some(())
    });
    patiently("nobody else to be harmed", || {
        answered_by(&orders, "invoices-1")
    });
}

#[test]
fn nobody_is_a_delegate_without_a_token_and_no_list_is_too_wide() {
    let world = World::new();
    world.admin(&["init"]).ok();
    let control = world.control();
    let create =
        |allow: &str| world.admin(&["ca", "delegate", "create", "--site=paris", "--allow", allow]);
    create("spiffe://weft.local/*").fails_with(&["whole trust domain"]);
    create("spiffe://weft.local/ns/weft-system/*").fails_with(&["weft's own"]);
    create("spiffe://other.local/ns/paris/*").fails_with(&["another trust domain"]);
    world
        .admin(&[
            "ca",
            "delegate",
            "create",
            "--site=paris",
            "--allow=spiffe://weft.local/ns/paris/*",
            "--ttl=31d",
        ])
        .fails_with(&["lifetime"]);
    let pin = world.admin(&["ca", "show", "-o", "json"]).json()["pin"]
        .as_str()
        .unwrap()
        .to_owned();
    let token = world.token("orders", "10m");
    let args = [
        "delegate".to_owned(),
        format!("--state-dir={}", world.path("delegate").display()),
        format!("--control={}", control.addr("mesh")),
        format!("--pin={pin}"),
        format!("--token-file={token}"),
        "--listen=127.0.0.1:0".to_owned(),
        "--metrics=127.0.0.1:0".to_owned(),
    ];
    // The token of a service makes no delegate.
    world.run(&args).fails_with(&["token"]);
    // Nor does a delegate's token let in a service.
    let made = create("spiffe://weft.local/ns/paris/*");
    let token = world.file("delegate.token", made.ok().stdout.trim());
    let sidecar = world.sidecar_args("orders", &control.addr("mesh").to_string(), &pin, &token);
    world.run(&sidecar).fails_with(&["not known"]);
}
