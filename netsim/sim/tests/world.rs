//! The world itself: exact times, faults, and runs that repeat.
#![allow(clippy::unwrap_used)]

mod support;

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use support::{MS, Ok200, get, in_world, pair};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::time::{Instant, sleep, timeout};
use weft_env::Mode;
use weft_netsim::{Jitter, LinkSpec, Loss, Profile};
use weft_netsim_sim::{Hashes, World};

/// Some requests over a bad link, with a kill in the middle.
async fn busy(world: World) -> (Hashes, bool) {
    let link = LinkSpec {
        jitter: Jitter::Reordering(3 * MS),
        loss: Loss::Bernoulli(0.05),
        ..Profile::CrossAz.spec()
    };
    let (ca, client, server) = pair(&world, link, Arc::new(Ok200)).await;
    let target = server.target(&ca, "invoices");
    for number in 0..50_u32 {
        if number == 30 {
            server.process.kill().await;
        }
        let pool = client.endpoint.pool();
        let answer = timeout(500 * MS, async {
            let path = get(&format!("/{number}"));
            let mut exchange = pool
                .request_with(&target, &path, Bytes::new(), true)
                .await
                .ok()?;
            exchange.recv.response().await.ok()
        })
        .await;
        world.decided(&format!("{number}: {:?}", answer.map(|a| a.is_some())));
    }
    (world.hashes(), world.repeats_payloads())
}

#[test]
fn a_seed_repeats_to_the_byte_and_another_one_differs() {
    let (first, wrapped) = in_world(11, busy);
    assert!(
        wrapped,
        "the linker has not put aws-lc's randomness under the seed: a wrong symbol prefix?"
    );
    let (again, _) = in_world(11, busy);
    assert_eq!(first, again);
    let (other, _) = in_world(12, busy);
    assert_ne!(first.datagrams, other.datagrams, "the control");
    assert_ne!(first.payload, other.payload, "the control");
}

#[test]
fn packets_arrive_at_the_nanosecond_that_the_link_says() {
    let trips = in_world(1, |world| async move {
        let link = LinkSpec::ideal(Duration::from_nanos(154_321));
        let (ca, client, server) = pair(&world, link, Arc::new(Ok200)).await;
        let target = server.target(&ca, "invoices");
        let pool = client.endpoint.pool();
        pool.connection(&target).await.unwrap();
        let mut trips = Vec::new();
        for _ in 0..20 {
            sleep(7 * MS).await;
            let began = world.now();
            let mut exchange = pool
                .request_with(&target, &get("/"), Bytes::new(), true)
                .await
                .unwrap();
            exchange.recv.response().await.unwrap();
            trips.push(world.now() - began);
        }
        trips
    });
    let exact = Duration::from_nanos(2 * 154_321);
    assert!(
        trips.iter().all(|trip| *trip == exact),
        "not all took {exact:?}: {trips:?}"
    );
}

#[test]
fn an_hour_passes_in_no_time_and_each_node_has_its_own_clock() {
    let began = std::time::Duration::from_secs(3_600);
    in_world(1, move |world| async move {
        let (one, other) = (world.node("one"), world.node("other"));
        let start = one.wall();
        other.set_wall_ahead(-90_000);
        sleep(began).await;
        assert_eq!(one.wall().duration_since(start).unwrap(), began);
        assert_eq!(
            one.wall().duration_since(other.wall()).unwrap(),
            Duration::from_secs(90)
        );
    });
}

#[test]
fn tcp_between_nodes_delivers_all_in_order_whatever_is_lost() {
    in_world(5, |world| async move {
        let link = LinkSpec {
            loss: Loss::Bernoulli(0.05),
            jitter: Jitter::Reordering(2 * MS),
            ..LinkSpec::ideal(5 * MS)
        };
        world.set_default_link(link).unwrap();
        let (one, other) = (world.node("one"), world.node("other"));
        let (near, far) = (one.process("a"), other.process("b"));
        let listener = far
            .env()
            .listen("0.0.0.0:80".parse().unwrap())
            .await
            .unwrap();
        let echo = far.env().spawn(async move {
            let (mut stream, _) = listener.accept().await.unwrap();
            let mut all = Vec::new();
            stream.read_to_end(&mut all).await.unwrap();
            stream.write_all(&all).await.unwrap();
            stream.shutdown().await.unwrap();
            // Held until the peer has closed, as a server does.
            stream.read_to_end(&mut Vec::new()).await.unwrap();
        });
        let sent: Vec<u8> = (0..300_000_u32).map(|n| (n % 251) as u8).collect();
        let addr = SocketAddr::new(other.ip(), 80);
        let mut stream = near.env().connect(addr).await.unwrap();
        stream.write_all(&sent).await.unwrap();
        stream.shutdown().await.unwrap();
        let mut got = Vec::new();
        stream.read_to_end(&mut got).await.unwrap();
        assert!(
            got == sent,
            "{} of {} bytes came back",
            got.len(),
            sent.len()
        );
        drop(stream);
        echo.await.unwrap();
        let nobody = near.env().connect(SocketAddr::new(other.ip(), 81)).await;
        assert_eq!(
            nobody.unwrap_err().kind(),
            std::io::ErrorKind::ConnectionRefused
        );
    });
}

#[test]
fn loopback_streams_tell_an_end_from_a_reset() {
    in_world(6, |world| async move {
        let node = world.node("one");
        let (a, b) = (node.process("a"), node.process("b"));
        let listener = a
            .env()
            .listen("127.0.0.1:0".parse().unwrap())
            .await
            .unwrap();
        let addr = listener.local_addr().unwrap();
        for kill in [false, true] {
            let server = node.process("server");
            let mut client = b.env().connect(addr).await.unwrap();
            let (mut stream, _) = listener.accept().await.unwrap();
            client.write_all(b"unread").await.unwrap();
            let held = server.env().spawn(async move {
                stream.write_all(b"x").await.unwrap();
                sleep(Duration::from_secs(1)).await;
                if !kill {
                    stream.read_exact(&mut [0; 6]).await.unwrap();
                }
            });
            assert_eq!(client.read_u8().await.unwrap(), b'x');
            if kill {
                server.kill().await;
                assert!(held.await.unwrap_err().is_cancelled());
                // What was unread makes it a reset.
                let error = client.read_u8().await.unwrap_err();
                assert_eq!(error.kind(), std::io::ErrorKind::ConnectionReset);
            } else {
                held.await.unwrap();
                assert_eq!(client.read(&mut [0; 8]).await.unwrap(), 0, "a clean end");
            }
        }
    });
}

#[test]
fn a_killed_process_does_nothing_more_and_a_paused_one_goes_on_later() {
    in_world(7, |world| async move {
        let node = world.node("one");
        let file = world.dir().join("counter");
        let count = async |process: &weft_netsim_sim::Process| {
            let (env, file) = (process.env().clone(), file.clone());
            process.env().spawn(async move {
                loop {
                    sleep(100 * MS).await;
                    let file = file.clone();
                    let now = format!("{:?}", env.wall());
                    env.disk(move |disk| disk.write_atomic(&file, now.as_bytes(), Mode::Secret))
                        .await
                        .unwrap();
                }
            });
        };
        let read = || std::fs::read_to_string(world.dir().join("counter")).unwrap();
        let process = node.process("writer");
        count(&process).await;
        sleep(1_050 * MS).await;
        let before = read();
        process.pause();
        sleep(1_000 * MS).await;
        assert_eq!(read(), before, "a stopped process writes nothing");
        process.resume();
        sleep(1_000 * MS).await;
        assert_ne!(read(), before, "it goes on");
        process.crash_at_disk_step(2);
        sleep(1_000 * MS).await;
        assert!(process.is_dead(), "it died between writing and renaming");
        process.kill().await;
        assert_eq!(process.tasks(), 0);
        let after = read();
        sleep(Duration::from_secs(5)).await;
        assert_eq!(read(), after, "a dead process writes nothing");
        let again = node.process("writer");
        count(&again).await;
        let began = Instant::now();
        while read() == after {
            assert!(
                began.elapsed() < Duration::from_secs(1),
                "the next life does not write"
            );
            sleep(100 * MS).await;
        }
    });
}
