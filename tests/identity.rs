//! Sidecars whose identity comes from elsewhere, with real processes: from the workload socket of another sidecar, and
//! from a SPIFFE provider that is not weft, with roots of its own.

#![allow(
    clippy::disallowed_methods,
    clippy::unwrap_used,
    reason = "tests stand outside Env, and a panic is how they fail"
)]

#[path = "support/environment.rs"]
mod environment;
#[path = "support/provider.rs"]
mod provider;
mod support;

use std::net::SocketAddr;
use std::path::Path;
use std::time::Duration;

use provider::Provider;
use serde_json::Value;
use support::load::Load;
use support::shop::ALLOW_ORDERS;
use support::{Ran, Running, World, ended, eventually, get};

const ORDERS: &str = "spiffe://weft.local/ns/default/sa/orders";
/// How long a sidecar believes a provider that takes its identity back to be restarting, and a little more.
const WITHDRAWN: Duration = Duration::from_secs(30);

const ALLOW_INVOICES: &str = "\
apiVersion: weft.dev/v1
kind: AuthorizationPolicy
metadata:
  name: only-invoices
spec:
  targetRefs:
    - kind: Service
      name: orders
  action: ALLOW
  rules:
    - from:
        - source:
            principals: [spiffe://weft.local/ns/default/sa/invoices]
";

/// Flags of a sidecar that has its identity from this socket.
fn args(world: &World, name: &str, control: &Running, identity: &str) -> Vec<String> {
    let at = control.addr("mesh").to_string();
    let mut args = world.sidecar_args(name, &at, "", "");
    args.retain(|arg| !arg.starts_with("--token-file") && !arg.starts_with("--pin"));
    args.push(format!("--identity={identity}"));
    args
}

/// The processes of a mesh that has its policy, and one service with a certificate of the mesh.
fn joined(world: &World, control: &Running, pin: &str, name: &str, flags: &[String]) -> Running {
    let token = world.token(name, "10m");
    let at = control.addr("mesh").to_string();
    let mut args = world.sidecar_args(name, &at, pin, &token);
    args.extend_from_slice(flags);
    world.start(&format!("{name}-joined"), &args)
}

/// What the control node says of the sidecar of this instance.
fn status(world: &World, sidecar: &Running) -> Value {
    let instance = &sidecar.ready["instance"];
    let status = world.admin(&["status", "-o", "json"]).json();
    let sidecars = status["sidecars"].as_array().unwrap();
    let found = sidecars.iter().find(|s| s["instance"] == *instance);
    found.cloned().unwrap_or_default()
}

#[track_caller]
fn serves(from: SocketAddr, service: &str, when: &str) {
    eventually(&format!("{service} to answer {when}"), || {
        let reply = get(from, service, "/echo").ok()?;
        (reply.status == 200).then_some(())
    });
}

/// Waits until a sidecar shows another certificate, and gives its serial.
#[track_caller]
fn another_serial(world: &World, sidecar: &Running, before: &Value) -> Value {
    eventually("another certificate", || {
        let serial = status(world, sidecar)["serial"].clone();
        (serial != *before && serial.is_string()).then_some(serial)
    })
}

#[track_caller]
fn no_key_in(world: &World, name: &str) {
    for (path, content) in world.picture(name) {
        assert!(!path.ends_with("svid.pem"), "{}", path.display());
        let text = String::from_utf8_lossy(&content);
        assert!(!text.contains("PRIVATE KEY"), "in {}", path.display());
    }
}

#[track_caller]
fn names_elsewhere(ran: &Ran, sidecar: &Running, identity: &str) {
    let instance = sidecar.ready["instance"].as_str().unwrap();
    let told = &ran.ok().stdout;
    assert!(
        told.contains(instance) && told.contains(&format!("has its identity from {identity}")),
        "{told}"
    );
}

#[test]
fn an_identity_from_the_workload_socket_of_another_sidecar_serves_and_calls_through_rotations() {
    let (world, pin) = World::initialised();
    let control = world.control();
    for (name, policy) in [("a", ALLOW_ORDERS), ("b", ALLOW_INVOICES)] {
        let file = world.file(&format!("{name}.yaml"), policy);
        world.admin(&["apply", "-f", &file]).ok();
    }
    let me = rustix::process::geteuid().as_raw();
    let identity = format!("unix://{}", world.path("run").join("w.sock").display());
    let lends = [
        format!("--workload-socket={identity}"),
        format!("--workload-allow=uid={me}"),
    ];
    // It serves nothing itself: what is answered, the other one answers.
    let mut lender = joined(&world, &control, &pin, "invoices", &lends);
    let apps = ["invoices", "orders"].map(|name| world.app(name));
    let app = |n: usize| format!("--app={}", apps[n].addr("http"));
    let orders = joined(&world, &control, &pin, "orders", &[app(1)]);
    let mut invoices_args = args(&world, "borrower", &control, &identity);
    invoices_args.push(app(0));
    let mut invoices = world.start("borrower", &invoices_args);

    serves(orders.addr("outbound"), "invoices", "orders");
    serves(invoices.addr("outbound"), "orders", "invoices");
    no_key_in(&world, "borrower");
    let told = status(&world, &invoices);
    assert_eq!(told["identity_from"], Value::from(identity.as_str()));
    assert_eq!(told["serial"], status(&world, &lender)["serial"]);
    let shown = world.admin(&["status"]).ok().stdout.clone();
    assert!(
        shown.contains(&format!("has its identity from {identity}")),
        "{shown}"
    );

    // What the lender gets, the borrower has a moment later.
    let load = Load::at_rate(orders.addr("outbound"), 2, 50);
    for command in [
        &["cert", "rotate", "--all"][..],
        &["ca", "rotate"],
        &["ca", "rotate", "root", "--now"],
    ] {
        let before = status(&world, &invoices)["serial"].clone();
        let ran = world.admin(command);
        match command[0] {
            "cert" => names_elsewhere(&ran, &invoices, &identity),
            _ => {
                ran.ok();
            }
        }
        let serial = another_serial(&world, &invoices, &before);
        assert_eq!(serial, status(&world, &lender)["serial"], "{command:?}");
        load.goes_on_for(50);
    }
    let alone = invoices.ready["instance"].as_str().unwrap();
    let ran = world.admin(&["cert", "rotate", "--instance", alone]);
    names_elsewhere(&ran, &invoices, &identity);

    // Without its provider it goes on, and finds it again.
    lender.kill();
    eventually("the borrower to notice", || {
        invoices
            .log()
            .contains("no word from the provider")
            .then_some(())
    });
    load.goes_on_for(50);
    let before = status(&world, &invoices)["serial"].clone();
    let mut again = world.sidecar_args("invoices", &control.addr("mesh").to_string(), &pin, "");
    again.retain(|arg| !arg.starts_with("--token-file"));
    again.extend(lends);
    let lender = world.start("lender-again", &again);
    eventually("the lender to be back", || {
        let known = status(&world, &lender);
        let back = known["state"] == "live" && known["pid"] == lender.ready["pid"];
        back.then_some(())
    });
    world
        .admin(&["cert", "rotate", "--service", "invoices"])
        .ok();
    another_serial(&world, &invoices, &before);
    load.goes_on_for(50);
    let account = load.end();
    assert_eq!(account.failed, 0, "{account:?}");
    no_key_in(&world, "borrower");

    // A restart begins with what the provider says.
    assert!(invoices.stop().success());
    let again = world.start("borrower", &invoices_args);
    serves(
        orders.addr("outbound"),
        "invoices",
        "orders after a restart",
    );
    assert_eq!(again.ready["instance"], invoices.ready["instance"]);
}

/// A mesh that trusts a provider's roots beside its own, with `orders` from there.
struct Mixed {
    orders: Running,
    invoices: Running,
    _app: Running,
    control: Running,
    provider: Provider,
    // Last: its folder outlives the processes.
    world: World,
}

impl Mixed {
    fn start() -> Option<Self> {
        let (world, pin) = World::initialised();
        let provider = Provider::start(&world, ORDERS)?;
        let mut control_args = world.control_args("127.0.0.1:0");
        control_args.push(format!("--trust-bundle={}", provider.bundle.display()));
        let control = world.start("control", &control_args);
        let policy = world.file("policy.yaml", ALLOW_ORDERS);
        world.admin(&["apply", "-f", &policy]).ok();
        let app = world.app("invoices");
        let flags = [format!("--app={}", app.addr("http"))];
        let invoices = joined(&world, &control, &pin, "invoices", &flags);
        let mut args = args(&world, "orders", &control, &provider.address());
        args.push(format!("--pin={pin}"));
        let orders = world.start("orders", &args);
        serves(orders.addr("outbound"), "invoices", "orders");
        Some(Self {
            orders,
            invoices,
            _app: app,
            control,
            provider,
            world,
        })
    }

    /// Waits until the control node trusts so many roots of others.
    fn trusts(&self, count: usize) {
        eventually(&format!("{count} roots of others to be trusted"), || {
            let shown = self.world.admin(&["ca", "show", "-o", "json"]).json();
            let found = shown["foreign"].as_array()?.len();
            (found == count).then_some(())
        });
    }
}

#[test]
fn an_identity_from_a_provider_with_its_own_root_is_followed_through_rotations_on_either_side() {
    let Some(mut mesh) = Mixed::start() else {
        return;
    };
    mesh.trusts(1);
    no_key_in(&mesh.world, "orders");
    let identity = mesh.provider.address();
    let load = Load::at_rate(mesh.orders.addr("outbound"), 2, 50);
    let mut serial = status(&mesh.world, &mesh.orders)["serial"].clone();
    mesh.provider.tell("leaf");
    serial = another_serial(&mesh.world, &mesh.orders, &serial);
    load.goes_on_for(50);

    // Another root, which everybody knows before it signs.
    mesh.provider.tell("root");
    mesh.trusts(2);
    for (name, sidecar) in [("invoices", &mesh.invoices), ("orders", &mesh.orders)] {
        eventually(&format!("{name} to trust it"), || {
            let state = mesh.world.path(name).join("bundles.json");
            let bundles: Value = serde_json::from_slice(&std::fs::read(state).ok()?).ok()?;
            let known = bundles["trust_domains"]["weft.local"]["keys"].as_array()?;
            assert!(sidecar.ready["instance"].is_string());
            (known.len() == 3).then_some(())
        });
    }
    mesh.provider.tell("leaf");
    serial = another_serial(&mesh.world, &mesh.orders, &serial);
    load.goes_on_for(50);

    // The mesh's own certificates and root, which are none of the provider's business.
    let ran = mesh.world.admin(&["cert", "rotate", "--all"]);
    names_elsewhere(&ran, &mesh.orders, &identity);
    let ran = mesh.world.admin(&["ca", "rotate", "root", "--now"]);
    names_elsewhere(&ran, &mesh.orders, &identity);
    load.goes_on_for(50);
    assert_eq!(status(&mesh.world, &mesh.orders)["serial"], serial);
    let account = load.end();
    assert_eq!(account.failed, 0, "{account:?}");

    // The provider comes back as another one, with nothing of what it had.
    mesh.provider = mesh.provider.replaced();
    mesh.trusts(1);
    another_serial(&mesh.world, &mesh.orders, &serial);
    serves(mesh.orders.addr("outbound"), "invoices", "orders");
    no_key_in(&mesh.world, "orders");

    let audit = mesh.world.admin(&["ca", "audit"]).ok().stdout.clone();
    assert!(audit.contains("trust.foreign"), "{audit}");
}

#[test]
fn revocation_ends_an_identity_from_elsewhere_and_so_does_its_provider() {
    let Some(mut mesh) = Mixed::start() else {
        return;
    };
    // Whoever asks during ten seconds is told; a moment of it means nothing.
    mesh.provider.tell("deny");
    eventually("the refusal to be noticed", || {
        let log = mesh.orders.log();
        log.contains("no identity for this process").then_some(())
    });
    mesh.provider.tell("allow");
    mesh.provider.tell("leaf");
    serves(mesh.orders.addr("outbound"), "invoices", "orders");

    let revoke = ["cert", "revoke", "--spiffe-id", ORDERS, "--prove"];
    let shown = mesh.world.admin(&revoke).ok().stdout.clone();
    assert!(shown.contains("cut off by it: orders.default/"), "{shown}");
    let reply = get(mesh.orders.addr("outbound"), "invoices", "/echo").unwrap();
    assert_ne!(reply.status, 200, "{reply:?}");
    mesh.world
        .admin(&["cert", "readmit", "--spiffe-id", ORDERS])
        .ok();
    mesh.provider.tell("leaf");
    serves(mesh.orders.addr("outbound"), "invoices", "orders again");

    mesh.provider.tell("deny");
    let end = ended(&mut mesh.orders.child, WITHDRAWN).expect("it stops by itself");
    assert_eq!(end.code(), Some(1));
    let log = mesh.orders.log();
    let said = log.lines().find(|line| line.starts_with("weft: "));
    let said = said.unwrap_or_else(|| panic!("no sentence in {log}"));
    for word in [ORDERS, "no identity issued", "register this process"] {
        assert!(said.contains(word), "'{word}' in {said}");
    }
    assert!(mesh.control.child.try_wait().unwrap().is_none());
}

/// The roots of others are trusted for as long as the operator says so.
#[test]
fn without_its_roots_named_a_providers_identity_is_a_strangers() {
    let Some(mesh) = Mixed::start() else {
        return;
    };
    let (world, mut control) = (&mesh.world, mesh.control);
    assert!(control.stop().success());
    let args = world.control_args(&control.addr("mesh").to_string());
    let control = world.start("control-alone", &args);
    eventually("invoices to be back, and to trust nobody else", || {
        let known = status(world, &mesh.invoices);
        (known["state"] == "live").then_some(())
    });
    eventually("orders to be refused", || {
        let reply = get(mesh.orders.addr("outbound"), "invoices", "/echo").ok()?;
        (reply.status == 503).then_some(())
    });
    // Its own link is tried again a moment later.
    eventually("the refusal to be counted at the control node", || {
        let status = world.admin(&["status", "-o", "json"]).json();
        let counted = &status["control"]["refusals"]["unknown_authority"];
        (counted.as_u64()? > 0).then_some(())
    });
    drop(control);
}

#[test]
fn why_there_is_no_identity_is_told_in_one_sentence_with_what_to_do() {
    let (world, pin) = World::initialised();
    let control = world.control();
    let me = rustix::process::geteuid().as_raw();
    let lends = |socket: &Path| {
        [
            format!("--workload-socket={}", socket.display()),
            // Nobody of this number asks.
            format!("--workload-allow=uid={}", me + 1),
        ]
    };
    let socket = world.path("run").join("w.sock");
    let _lender = joined(&world, &control, &pin, "invoices", &lends(&socket));
    let try_with = |name: &str, identity: &str, more: &[&str]| {
        let mut args = args(&world, name, &control, identity);
        args.extend(more.iter().map(|&arg| arg.to_owned()));
        world.run(&args)
    };
    let asked = format!("unix://{}", socket.display());
    let nowhere = format!("unix://{}", world.path("nobody.sock").display());
    let other = format!("unix://{}", world.path("control/control.sock").display());
    // Each waits for its provider for ten seconds.
    std::thread::scope(|scope| {
        scope.spawn(|| {
            try_with("a", &asked, &[]).fails_with(&[
                &asked,
                "no identity for this process",
                "--workload-allow",
            ]);
        });
        scope.spawn(|| {
            try_with("b", &nowhere, &[]).fails_with(&[&nowhere, "start the provider there"]);
        });
        scope.spawn(|| {
            try_with("c", &other, &[]).fails_with(&[&other, "no identity from"]);
        });
    });
    for name in ["a", "b", "c"] {
        assert!(
            world.picture(name).is_empty(),
            "{name} left something behind"
        );
    }
    let own = format!("--workload-socket={}", world.path("nobody.sock").display());
    let allow = format!("--workload-allow=uid={me}");
    try_with("d", &nowhere, &[&own, &allow]).fails_with(&["own workload socket"]);
    let both = try_with("e", &nowhere, &["--token-file=none"]);
    assert_eq!(both.code, Some(2), "{both:?}");
    assert!(
        both.stderr.contains("--token-file and --identity"),
        "{both:?}"
    );
    let tcp = try_with("f", "tcp://127.0.0.1:1", &[]);
    assert_eq!(tcp.code, Some(2), "{tcp:?}");
    assert!(tcp.stderr.contains("unix:///PATH"), "{tcp:?}");
}

#[test]
fn an_identity_of_the_mesh_with_its_key_on_disk_is_not_left_lying_around() {
    let (world, pin) = World::initialised();
    let control = world.control();
    let mut joined = joined(&world, &control, &pin, "invoices", &[]);
    assert!(joined.stop().success());
    let args = args(&world, "invoices", &control, "unix:///nowhere.sock");
    world
        .run(&args)
        .fails_with(&["svid.pem", "remove it", "--identity"]);
}

#[test]
fn roots_of_another_provider_that_cannot_be_read_are_named_before_anything_starts() {
    let (world, _) = World::initialised();
    let mut args = world.control_args("127.0.0.1:0");
    args.push(format!(
        "--trust-bundle={}",
        world.path("none.pem").display()
    ));
    world.run(&args).fails_with(&["none.pem", "--trust-bundle"]);
    let file = world.file("empty.json", "{\"keys\": []}");
    *args.last_mut().unwrap() = format!("--trust-bundle={file}");
    world
        .run(&args)
        .fails_with(&["empty.json", "no root in it"]);
}
