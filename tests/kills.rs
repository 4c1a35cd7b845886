//! Any process is killed in the midst of anything that changes the mesh: what was acknowledged stays, what was
//! cut off can be done again, and whoever is not dead goes on.

#![allow(
    clippy::disallowed_methods,
    clippy::unwrap_used,
    reason = "tests stand outside Env, and a panic is how they fail"
)]

mod support;

use std::io::{Read, Write};
use std::net::TcpStream;
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use support::load::Load;
use support::shop::{Shop, on_the_same_port};
use support::{Ran, SOON, eventually};

/// What is under way when somebody is killed.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Act {
    Apply,
    RotateLeaves,
    RotateIssuing,
    Join,
}

const ACTS: [Act; 4] = [Act::Apply, Act::RotateLeaves, Act::RotateIssuing, Act::Join];

/// From the start of the act to the kill: before the command has connected, in its midst, and at its end.
const MOMENTS: [Duration; 3] = [
    Duration::from_millis(8),
    Duration::from_millis(30),
    Duration::from_millis(90),
];

fn route(mark: u32) -> String {
    format!(
        "\
apiVersion: gateway.networking.k8s.io/v1
kind: HTTPRoute
metadata: {{name: invoices}}
spec:
  parentRefs: [{{kind: Service, name: invoices}}]
  rules:
    - timeouts: {{request: {mark}s}}
      backendRefs: [{{name: invoices, port: 80}}]
"
    )
}

/// The mark of the route that the control node has.
fn mark(shop: &Shop) -> u32 {
    let route = shop
        .world
        .admin(&["get", "HTTPRoute", "invoices", "-o", "json"]);
    let route = route.json();
    let text = route["spec"]["rules"][0]["timeouts"]["request"].as_str();
    text.unwrap().trim_end_matches('s').parse().unwrap()
}

/// Runs a command of the operator beside the test.
fn beside(shop: &Shop, args: &[&str]) -> JoinHandle<Ran> {
    let mut all: Vec<String> = args.iter().map(|arg| (*arg).to_owned()).collect();
    all.push(format!(
        "--state-dir={}",
        shop.world.control_dir().display()
    ));
    thread::spawn(move || support::run(&mut support::weft(all)))
}

fn begin(shop: &Shop, act: Act, number: u32) -> JoinHandle<Ran> {
    match act {
        Act::Apply => {
            let file = shop.world.file("route.yaml", &route(number));
            beside(shop, &["apply", "-f", &file, "--wait", "--timeout=5s"])
        }
        Act::RotateLeaves => beside(shop, &["cert", "rotate", "--all", "--timeout=5s"]),
        Act::RotateIssuing => beside(shop, &["ca", "rotate", "issuing"]),
        Act::Join => beside(shop, &["token", "create", "--service", "reports"]),
    }
}

/// Everything is as the design promises it: the journal whole, everybody back, and each act possible again.
fn is_whole(shop: &Shop, when: &str) {
    eventually(&format!("all sidecars to be back {when}"), || {
        (shop.live() == 3).then_some(())
    });
    shop.serves(when);
    shop.world.admin(&["ca", "audit", "--verify"]).ok();
    let file = shop.world.file("route.yaml", &route(9));
    shop.world.admin(&["apply", "-f", &file, "--wait"]).ok();
    assert_eq!(mark(shop), 9, "{when}");
}

#[test]
fn a_control_node_killed_in_the_midst_of_anything_loses_nothing() {
    let mut shop = Shop::open(2);
    let file = shop.world.file("route.yaml", &route(9));
    shop.world.admin(&["apply", "-f", &file, "--wait"]).ok();
    let mut tunnel = {
        let port = shop.orders.ready["tcp"][0].as_str().unwrap();
        TcpStream::connect(port).unwrap()
    };
    tunnel.set_read_timeout(Some(SOON)).unwrap();
    let load = Load::on(shop.orders.addr("outbound"));
    let (mut number, mut sent) = (10, 0);
    for act in ACTS {
        for moment in MOMENTS {
            number += 1;
            let when = format!("after a kill {moment:?} into {act:?}");
            let started = Instant::now();
            let command = begin(&shop, act, number);
            thread::sleep(moment.saturating_sub(started.elapsed()));
            shop.control.kill();
            let ran = command.join().unwrap();
            shop.restart_control();
            if act == Act::Apply {
                let now = mark(&shop);
                let done = ran.code == Some(0);
                assert!(
                    now == number || (now == 9 && !done),
                    "{when}: {now}, {ran:?}"
                );
            }
            if ran.code != Some(0) {
                assert!(ran.stderr.starts_with("weft: "), "{when}: {ran:?}");
            }
            is_whole(&shop, &when);
            let again = begin(&shop, act, 9).join().unwrap();
            assert_eq!(again.code, Some(0), "{when}: {again:?}");
            tunnel.write_all(b"still here, ").expect(&when);
            sent += 1;
        }
    }
    // The application answers with all that it got, at the end.
    tunnel.shutdown(std::net::Shutdown::Write).unwrap();
    let mut echo = String::new();
    tunnel.read_to_string(&mut echo).unwrap();
    assert_eq!(
        echo,
        "still here, ".repeat(sent),
        "one tunnel through it all"
    );
    let account = load.end();
    assert_eq!(account.failed, 0, "{account:?}");
    assert!(account.asked > 1000, "{} requests", account.asked);
}

#[test]
fn a_sidecar_killed_in_the_midst_of_anything_comes_back_as_it_was() {
    let mut shop = Shop::open(2);
    let file = shop.world.file("route.yaml", &route(9));
    shop.world.admin(&["apply", "-f", &file, "--wait"]).ok();
    let load = Load::on(shop.orders.addr("outbound"));
    for (act, moment) in ACTS
        .into_iter()
        .flat_map(|act| MOMENTS.map(|moment| (act, moment)))
    {
        let when = format!("after a kill of invoices-0 {moment:?} into {act:?}");
        let started = Instant::now();
        let command = begin(&shop, act, 9);
        thread::sleep(moment.saturating_sub(started.elapsed()));
        let args = on_the_same_port(&shop.invoices_args[0], &shop.invoices[0]);
        shop.invoices[0].kill();
        shop.invoices[0] = shop.world.start("invoices-0", &args);
        // Whether it waited for the one that was killed is not what counts, but that it ends.
        command.join().unwrap();
        is_whole(&shop, &when);
    }
    let account = load.end();
    assert_eq!(account.failed, 0, "the other instance answers: {account:?}");
}
