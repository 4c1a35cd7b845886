//! What happens when something fails, as the design promises it: each kind of process is killed while
//! requests flow.

#![allow(
    clippy::disallowed_methods,
    clippy::unwrap_used,
    reason = "tests stand outside Env, and a panic is how they fail"
)]

mod support;

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::thread;

use support::shop::{Shop, on_the_same_port};
use support::{Running, SOON, World, ended, eventually, get, signal};

#[test]
fn traffic_goes_on_without_the_control_node_and_config_survives_its_kill() {
    let mut shop = Shop::open(1);
    let route = "\
apiVersion: gateway.networking.k8s.io/v1
kind: HTTPRoute
metadata: {name: invoices}
spec:
  parentRefs: [{kind: Service, name: invoices}]
  rules:
    - timeouts: {request: 1s}
      backendRefs: [{name: invoices, port: 80}]
";
    let file = shop.world.file("route.yaml", route);
    shop.world.admin(&["apply", "-f", &file]).ok();
    // What was acknowledged to the operator is there after a kill at that very moment.
    shop.control.kill();
    let outbound = shop.orders.addr("outbound");
    for _ in 0..50 {
        let reply = get(outbound, "invoices", "/echo").expect("a reply without control");
        assert_eq!(reply.status, 200, "{reply:?}");
    }
    shop.restart_control();
    // Sidecars that are not back yet are waited for all the same, and are back at their next word: the new
    // process tells them that it does not know their connections.
    let restarted = std::time::Instant::now();
    let wait = shop
        .world
        .admin(&["apply", "-f", &file, "--wait", "-o", "json"])
        .json();
    assert_eq!(
        wait["wait"]["receipts"].as_array().map(Vec::len),
        Some(2),
        "{wait}"
    );
    assert!(
        restarted.elapsed().as_secs() < 5,
        "{:?}",
        restarted.elapsed()
    );
    let kept = shop
        .world
        .admin(&["get", "HTTPRoute", "invoices", "-o", "json"])
        .json();
    assert_eq!(kept["spec"]["rules"][0]["timeouts"]["request"], "1s");
    eventually("both sidecars to come back", || {
        (shop.live() == 2).then_some(())
    });
    // And a push reaches them again.
    shop.world.admin(&["apply", "-f", &file, "--wait"]).ok();
    let slow = get(outbound, "invoices", "/slow?ms=3000").unwrap();
    assert_eq!(slow.status, 504, "{slow:?}");
}

/// Keeps a TCP port from those who let the system choose, and not from the one who asks for it by number.
fn reserve(addr: SocketAddr) -> std::os::fd::OwnedFd {
    use rustix::net::{AddressFamily, SocketType, bind, socket, sockopt};
    let held = socket(AddressFamily::INET, SocketType::STREAM, None).unwrap();
    sockopt::set_socket_reuseaddr(&held, true).unwrap();
    bind(&held, &addr).unwrap();
    held
}

/// A pager that nobody moves, a log driver that hangs: what a sidecar writes is not read, and nobody's request waits for it.
#[test]
fn a_log_that_nobody_reads_holds_up_nothing() {
    let mut shop = Shop::open(1);
    let fifo = shop.world.path("log-pipe");
    let made = std::process::Command::new("mkfifo").arg(&fifo).status();
    assert!(made.unwrap().success());
    // Held open, so that writing does not fail; never read.
    let held = std::fs::OpenOptions::new()
        .read(true)
        .write(true)
        .open(&fifo);
    shop.orders.stop();
    let mut command = std::process::Command::new("sh");
    let script = r#"pipe=$1; shift; exec "$@" 2>"$pipe""#;
    command.args(["-c", script, "sh"]).arg(&fifo);
    command
        .arg(env!("CARGO_BIN_EXE_weft"))
        .args(&shop.orders_args);
    shop.orders = shop.world.start_command("orders", command);
    shop.serves("at first");
    let outbound = shop.orders.addr("outbound");
    // Each is a line of some 400 bytes in the access log, and a pipe holds 64 KiB.
    for sent in 0..1000 {
        let began = std::time::Instant::now();
        let reply = get(outbound, "invoices", "/echo").unwrap();
        assert_eq!(reply.status, 200);
        assert!(began.elapsed() < SOON, "request {sent} waited for the log");
    }
    // Its end waits no longer than for its last words.
    let status = shop.orders.stop();
    assert!(status.success(), "{status}");
    drop(held);
}

/// `--tcp-fallback off`: the mesh port is one of UDP only, and requests pass all the same.
#[test]
fn without_the_tcp_fallback_no_process_answers_on_tcp() {
    let on = Shop::open(1);
    let listens = |process: &Running| std::net::TcpStream::connect(process.addr("mesh")).is_ok();
    assert!(listens(&on.control) && listens(&on.orders) && listens(&on.invoices[0]));
    drop(on);

    let mut off = Shop::with(1, &["--tcp-fallback=off"], None);
    off.control.stop();
    let mut args = off.world.control_args(&off.control_addr.to_string());
    args.push("--tcp-fallback=off".to_owned());
    off.control = off.world.start("control", &args);
    assert!(!listens(&off.control) && !listens(&off.orders) && !listens(&off.invoices[0]));
    off.serves("over QUIC alone");
    eventually("all to be back at the control node", || {
        (off.live() == 2).then_some(())
    });
}

#[test]
fn sidecars_start_from_what_they_saved_while_control_is_down() {
    let mut shop = Shop::open(1);
    shop.control.kill();
    let _for_its_return = reserve(shop.control_addr);
    shop.orders.kill();
    shop.invoices[0].kill();
    let args = on_the_same_port(&shop.invoices_args[0], &shop.invoices[0]);
    shop.invoices[0] = shop.world.start("invoices-0", &args);
    shop.orders = shop.world.start("orders", &shop.orders_args);
    shop.serves("from saved snapshots");
    shop.restart_control();
    eventually("both sidecars to come back", || {
        (shop.live() == 2).then_some(())
    });
    shop.serves("after the control node came back");
}

#[test]
fn idempotent_requests_survive_the_kill_of_an_endpoint() {
    let mut shop = Shop::open(2);
    let outbound = shop.orders.addr("outbound");
    // Requests under way on both instances.
    let under_way: Vec<_> = (0..8)
        .map(|_| thread::spawn(move || get(outbound, "invoices", "/slow?ms=500")))
        .collect();
    let apps: Vec<SocketAddr> = shop.apps.iter().map(|app| app.addr("http")).collect();
    eventually("all requests to be under way", || {
        let busy: u32 = apps
            .iter()
            .filter_map(|app| {
                get(*app, "localhost", "/busy")
                    .ok()?
                    .body
                    .trim()
                    .parse::<u32>()
                    .ok()
            })
            .sum();
        (busy == 8).then_some(())
    });
    shop.invoices[0].kill();
    for request in under_way {
        let reply = request
            .join()
            .unwrap()
            .expect("a reply, not a broken connection");
        assert_eq!(
            reply.status, 200,
            "a GET is tried again elsewhere: {reply:?}"
        );
    }
    for _ in 0..50 {
        let reply = get(outbound, "invoices", "/echo").unwrap();
        assert_eq!(reply.status, 200, "the other instance answers: {reply:?}");
    }
}

#[test]
fn what_may_not_be_repeated_gets_a_503_that_names_the_cause() {
    let mut shop = Shop::open(1);
    let outbound = shop.orders.addr("outbound");
    let posted = thread::spawn(move || {
        let mut stream = TcpStream::connect(outbound).unwrap();
        stream.set_read_timeout(Some(SOON)).unwrap();
        let head = "POST /slow?ms=10000 HTTP/1.1\r\nHost: invoices\r\nContent-Length: 0\r\nConnection: close\r\n\r\n";
        stream.write_all(head.as_bytes()).unwrap();
        let mut text = String::new();
        stream.read_to_string(&mut text).unwrap();
        text.to_ascii_lowercase()
    });
    let app = shop.apps[0].addr("http");
    eventually("the request to be under way", || {
        (get(app, "localhost", "/busy").ok()?.body.trim() == "1").then_some(())
    });
    shop.invoices[0].kill();
    let reply = posted.join().unwrap();
    assert!(reply.starts_with("http/1.1 503"), "{reply}");
    assert!(
        reply.contains("proxy-status: orders.default/outbound"),
        "{reply}"
    );
    // Nobody is left: that has a reason too, and no hang.
    let nobody = get(outbound, "invoices", "/echo").unwrap();
    assert_eq!(nobody.status, 503, "{nobody:?}");
    assert!(nobody.head.contains("proxy-status:"), "{nobody:?}");
}

#[test]
fn a_dead_application_is_told_apart_from_a_dead_network() {
    let mut shop = Shop::open(1);
    shop.apps[0].kill();
    let reply = get(shop.orders.addr("outbound"), "invoices", "/echo").unwrap();
    assert!([502, 503].contains(&reply.status), "{reply:?}");
    assert!(
        reply
            .head
            .contains("proxy-status: invoices.default/inbound"),
        "{reply:?}"
    );
    // The TCP port says it the only way that TCP can: the connection ends.
    let mut tcp = TcpStream::connect(shop.orders.ready["tcp"][0].as_str().unwrap()).unwrap();
    tcp.set_read_timeout(Some(SOON)).unwrap();
    let mut nothing = Vec::new();
    let ended = tcp.read_to_end(&mut nothing);
    assert!(
        ended.is_err() || nothing.is_empty(),
        "{ended:?} {nothing:?}"
    );
}

#[test]
fn a_stop_lets_requests_under_way_end_and_a_second_signal_does_not_wait() {
    let mut shop = Shop::open(1);
    let outbound = shop.orders.addr("outbound");
    let app = shop.apps[0].addr("http");
    let under_way = |ms: u32| {
        let request = thread::spawn(move || get(outbound, "invoices", &format!("/slow?ms={ms}")));
        eventually("the request to be under way", || {
            (get(app, "localhost", "/busy").ok()?.body.trim() == "1").then_some(())
        });
        request
    };
    let request = under_way(1000);
    assert!(
        shop.invoices[0].stop().success(),
        "{}",
        shop.invoices[0].log()
    );
    let reply = request
        .join()
        .unwrap()
        .expect("a reply of the draining sidecar");
    assert_eq!(reply.status, 200, "{reply:?}");

    let args = on_the_same_port(&shop.invoices_args[0], &shop.invoices[0]);
    shop.invoices[0] = shop.world.start("invoices-0", &args);
    shop.serves("after a restart");
    let request = under_way(5000);
    signal(shop.orders.child.id(), "INT");
    eventually("the sidecar to drain", || {
        get(shop.orders.addr("metrics"), "localhost", "/readyz")
            .map_or(true, |reply| reply.status != 200)
            .then_some(())
    });
    signal(shop.orders.child.id(), "INT");
    let status = ended(&mut shop.orders.child, SOON).expect("it ends at once");
    assert_eq!(status.code(), Some(130));
    let _ = request.join();
}

#[test]
fn a_damaged_store_is_never_served() {
    let (world, _) = World::initialised();
    let store = world.control_dir().join("store.redb");
    std::fs::write(&store, b"not a database at all").unwrap();
    world
        .run(&world.control_args("127.0.0.1:0"))
        .fails_with(&["store.redb"]);
    assert_eq!(std::fs::read(&store).unwrap(), b"not a database at all");
}
