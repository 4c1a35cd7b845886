//! Real packets over real devices between real namespaces. Needs root, /dev/net/tun and `ip`; elsewhere the
//! tests say so and pass, but where CI runs as root a skip is an error.

#![allow(
    clippy::disallowed_methods,
    reason = "the sockets under test are the kernel's own, in namespaces of the test"
)]
#![allow(clippy::unwrap_used, clippy::print_stderr, reason = "a test may")]

use std::io::ErrorKind;
use std::net::{SocketAddr, UdpSocket};
use std::time::Duration;

use weft_netsim::{Fate, Link, LinkSpec, Loss, Mtu, Queue, Rate, Rebinding};
use weft_netsim_tun::{
    LinkPlan, LinkReport, Mesh, MeshLink, MeshNode, MeshPlan, Namespace, NatPlan, Side, Way,
    preflight, seed_of,
};

const MS: Duration = Duration::from_millis(1);
/// Longest wait for a packet that should come.
const PATIENCE: Duration = Duration::from_secs(5);
/// How long a packet that should not come is waited for.
const SILENCE: Duration = Duration::from_millis(200);

/// Whether the machine can run these tests.
fn possible() -> bool {
    match preflight() {
        Ok(()) => true,
        Err(why) => {
            let must = std::env::var("CI").is_ok_and(|ci| ci == "true")
                && rustix::process::geteuid().is_root();
            assert!(!must, "CI as root must run this test: {why}");
            eprintln!("skipped: {why}");
            false
        }
    }
}

/// Two or more namespaces in a row, `n0` – `n1` – …, with the same link between neighbours.
struct Row {
    mesh: Mesh,
    namespaces: Vec<Namespace>,
}

impl Row {
    fn new(tag: &str, nodes: u8, plan: &LinkPlan) -> Self {
        let name = |n: u8| format!("n{n}");
        let namespace = |n: u8| format!("weft-test-{}-{tag}-n{n}", std::process::id());
        let mesh = MeshPlan {
            nodes: (0..nodes)
                .map(|n| MeshNode {
                    name: name(n),
                    namespace: namespace(n),
                    address: [10, 77, 0, n + 1].into(),
                })
                .collect(),
            links: (1..nodes)
                .map(|n| MeshLink {
                    a: name(n - 1),
                    b: name(n),
                    plan: plan.clone(),
                })
                .collect(),
        };
        let mesh = Mesh::build(&mesh).unwrap();
        let namespaces = (0..nodes)
            .map(|n| Namespace::existing(&namespace(n)).unwrap())
            .collect();
        Self { mesh, namespaces }
    }

    fn socket(&self, n: u8) -> UdpSocket {
        let socket = self.namespaces[usize::from(n)]
            .run(|| UdpSocket::bind(SocketAddr::from(([10, 77, 0, n + 1], 0))))
            .unwrap()
            .unwrap();
        socket.set_read_timeout(Some(PATIENCE)).unwrap();
        socket
    }

    fn stop(self) -> LinkReport {
        let report = self.mesh.stop().unwrap().remove(0);
        for namespace in &self.namespaces {
            assert!(
                Namespace::existing(namespace.name()).is_err(),
                "{} is removed",
                namespace.name()
            );
        }
        report
    }
}

fn plan(spec: LinkSpec) -> LinkPlan {
    LinkPlan {
        forward: Way::steady(spec.clone()),
        backward: Way::steady(spec),
        seed: 7,
        nat: None,
        mtu: 1500,
    }
}

fn is_silent(socket: &UdpSocket) -> bool {
    socket.set_read_timeout(Some(SILENCE)).unwrap();
    let got = socket.recv(&mut [0; 2048]);
    socket.set_read_timeout(Some(PATIENCE)).unwrap();
    got.is_err_and(|error| matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut))
}

#[test]
fn the_packets_that_the_model_loses_are_lost_and_no_others() {
    if !possible() {
        return;
    }
    let spec = LinkSpec {
        loss: Loss::Bernoulli(0.2),
        ..LinkSpec::ideal(5 * MS)
    };
    let row = Row::new("loss", 2, &plan(spec.clone()));
    let (sender, receiver) = (row.socket(0), row.socket(1));
    let mut model = Link::new(spec, seed_of(7, Side::A)).unwrap();
    let to = receiver.local_addr().unwrap();
    let mut expected = Vec::new();
    for n in 0..100_u8 {
        sender.send_to(&[n], to).unwrap();
        if matches!(model.send(Duration::ZERO, 29), Fate::Delivered(_)) {
            expected.push(n);
        }
    }
    assert!((60..100).contains(&expected.len()), "the control");
    let mut got = Vec::new();
    let mut byte = [0];
    while got.len() < expected.len() {
        receiver.recv(&mut byte).unwrap();
        got.push(byte[0]);
    }
    assert_eq!(got, expected);
    assert!(is_silent(&receiver));
    let report = row.stop();
    assert_eq!(report.forward.entered, 100);
    assert_eq!(report.forward.lost.random, 100 - expected.len() as u64);
    assert_eq!(report.backward.entered, 0, "nothing else is on the link");
}

#[test]
fn packets_cross_a_namespace_in_the_middle_and_come_back_after_the_delay() {
    if !possible() {
        return;
    }
    let row = Row::new("row", 3, &plan(LinkSpec::ideal(10 * MS)));
    let (one, other) = (row.socket(0), row.socket(2));
    let clock = weft_netsim_tun::Clock::start();
    one.send_to(b"ping", other.local_addr().unwrap()).unwrap();
    let mut buffer = [0; 16];
    let (_, from) = other.recv_from(&mut buffer).unwrap();
    assert_eq!(from, one.local_addr().unwrap());
    other.send_to(b"pong", from).unwrap();
    one.recv(&mut buffer).unwrap();
    let took = clock.now();
    assert!(took >= 40 * MS, "two links, there and back: {took:?}");
    row.stop();
}

#[test]
fn a_packet_too_big_is_reported_or_falls_into_a_black_hole() {
    if !possible() {
        return;
    }
    for reported in [true, false] {
        let spec = LinkSpec {
            mtu: Some(Mtu {
                bytes: 1300,
                reported,
            }),
            ..LinkSpec::ideal(MS)
        };
        let row = Row::new(&format!("mtu{reported}"), 2, &plan(spec));
        let (sender, receiver) = (row.socket(0), row.socket(1));
        sender.connect(receiver.local_addr().unwrap()).unwrap();
        sender.send(&[1; 1272]).unwrap();
        assert_eq!(receiver.recv(&mut [0; 2048]).unwrap(), 1272, "fits exactly");
        sender.send(&[2; 1273]).unwrap();
        assert!(is_silent(&receiver), "one byte more does not pass");
        // A sender that was told cuts its next packet into fragments that fit; another goes on in vain.
        match sender.send(&[3; 1273]) {
            Ok(_) => {}
            // The first call after the report gives the error itself.
            Err(_) if reported => {
                sender.send(&[3; 1273]).unwrap();
            }
            Err(error) => panic!("nobody reports: {error}"),
        }
        assert_eq!(is_silent(&receiver), !reported, "reported: {reported}");
        let report = row.stop();
        assert_eq!(report.forward.lost.too_big, if reported { 1 } else { 2 });
    }
}

#[test]
fn a_nat_that_forgets_shows_the_peer_another_port_and_answers_still_come_back() {
    if !possible() {
        return;
    }
    let mut plan = plan(LinkSpec::ideal(MS));
    plan.nat = Some(NatPlan {
        inside: Side::A,
        rebinding: Rebinding::Every(300 * MS),
    });
    let row = Row::new("nat", 2, &plan);
    let (inside, outside) = (row.socket(0), row.socket(1));
    let to = outside.local_addr().unwrap();
    let mut buffer = [0; 16];
    let mut seen = Vec::new();
    let clock = weft_netsim_tun::Clock::start();
    while seen.len() < 2 {
        assert!(clock.now() < PATIENCE, "never rebound: {seen:?}");
        inside.send_to(b"hello", to).unwrap();
        let (_, from) = outside.recv_from(&mut buffer).unwrap();
        assert_ne!(from, inside.local_addr().unwrap(), "translated");
        if !seen.contains(&from) {
            seen.push(from);
            outside.send_to(b"answer", from).unwrap();
            assert_eq!(inside.recv_from(&mut buffer).unwrap(), (6, to));
        }
    }
    outside.send_to(b"late", seen[0]).unwrap();
    assert!(is_silent(&inside), "the old mapping is forgotten");
    assert!(row.stop().backward.lost.nat >= 1);
}

#[test]
fn a_full_queue_drops_and_says_so() {
    if !possible() {
        return;
    }
    let spec = LinkSpec {
        rate: Some(Rate {
            bits_per_second: 1_000_000,
            queue: Queue::Packets(10),
        }),
        ..LinkSpec::ideal(MS)
    };
    let row = Row::new("queue", 2, &plan(spec));
    let (sender, receiver) = (row.socket(0), row.socket(1));
    for _ in 0..100 {
        sender
            .send_to(&[0; 1000], receiver.local_addr().unwrap())
            .unwrap();
    }
    for _ in 0..10 {
        receiver.recv(&mut [0; 2048]).unwrap();
    }
    let report = row.stop();
    assert!(report.forward.lost.queue_full >= 80, "{report:?}");
    assert_eq!(report.forward.lost.device, 0, "{report:?}");
}

#[test]
fn a_link_whose_device_is_taken_away_ends_by_itself_and_says_why() {
    if !possible() {
        return;
    }
    let row = Row::new("gone", 2, &plan(LinkSpec::ideal(MS)));
    row.namespaces[1].configure("link del to-n0\n").unwrap();
    let clock = weft_netsim_tun::Clock::start();
    let reports = loop {
        if row.mesh.links().iter().all(|link| !link.is_running()) {
            break row.mesh.stop().unwrap();
        }
        assert!(clock.now() < PATIENCE, "the link ends");
        clock.sleep_until(clock.now() + MS);
    };
    let why = reports[0].ended.as_deref().unwrap();
    assert!(why.contains("device has gone"), "{why}");
}
