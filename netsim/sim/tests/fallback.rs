//! UDP that is dropped between two nodes, in virtual time: who goes around it, when, and when back.
#![allow(clippy::unwrap_used)]

mod support;

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use support::{MS, Ok200, Peer, get, in_world, pair};
use tokio::time::{Instant, sleep, sleep_until};
use weft_netsim::LinkSpec;
use weft_netsim_sim::World;
use weft_transport::{Carrier, Pool, Target};

/// Drops UDP both ways, and nothing else, or nothing: QUIC packets have a bit set that a simulated segment has not
/// (RFC 9000 §17: the fixed bit).
fn block_udp(world: &World, one: &Peer, other: &Peer, blocked: bool) {
    for (from, to) in [(one, other), (other, one)] {
        world.set_filter(&from.node, &to.node, move |content| {
            !blocked || content.first().is_none_or(|first| *first == 0)
        });
    }
}

/// One request to its end; how long it took.
async fn request(pool: &Pool, target: &Target) -> Result<Duration, String> {
    let (began, head) = (Instant::now(), get("/"));
    let sent = pool.request_with(target, &head, Bytes::new(), true).await;
    let mut exchange = sent.map_err(|error| error.to_string())?;
    let answer = async {
        exchange.recv.response().await?;
        while exchange.recv.data().await?.is_some() {}
        Ok::<_, weft_transport::StreamError>(())
    };
    answer.await.map_err(|error| error.to_string())?;
    Ok(began.elapsed())
}

#[test]
fn the_first_request_waits_for_the_race_and_no_longer() {
    in_world(1, |world| async move {
        let (ca, client, server) = pair(&world, LinkSpec::ideal(10 * MS), Arc::new(Ok200)).await;
        block_udp(&world, &client, &server, true);
        let (pool, target) = (client.endpoint.pool(), server.target(&ca, "invoices"));
        let took = request(&pool, &target).await.unwrap();
        // QUIC's head start; then a round trip each for TCP, TLS, HTTP/2 and the request.
        let expected = Duration::from_millis(250 + 4 * 20);
        assert!(took >= expected && took < expected + 5 * MS, "{took:?}");
        let took = request(&pool, &target).await.unwrap();
        assert!(took < 25 * MS, "the connection stands: {took:?}");
    });
}

#[test]
fn on_a_path_that_lets_udp_pass_nobody_goes_around_however_long_it_is() {
    in_world(2, |world| async move {
        let (ca, client, server) = pair(&world, LinkSpec::ideal(150 * MS), Arc::new(Ok200)).await;
        let (pool, target) = (client.endpoint.pool(), server.target(&ca, "invoices"));
        let connection = pool.connection(&target).await.unwrap();
        assert_eq!(connection.carrier(), Carrier::Quic);
        assert_eq!(client.endpoint.fallback().to_tcp, 0);
    });
}

/// A request each 100 ms for a minute, in the middle of which no UDP passes for 20 s.
#[test]
fn an_outage_of_udp_costs_what_was_under_way_a_second_attempt_and_nothing_else() {
    in_world(3, |world| async move {
        let (ca, client, server) = pair(&world, LinkSpec::ideal(5 * MS), Arc::new(Ok200)).await;
        let (pool, target) = (client.endpoint.pool(), server.target(&ca, "invoices"));
        let begin = Instant::now();
        let (blocked, passes) = (begin + 5_000 * MS, begin + 25_000 * MS);
        let mut callers = Vec::new();
        for n in 0..600 {
            let (pool, target) = (pool.clone(), target.clone());
            callers.push(client.tasks.spawn(async move {
                let at = begin + 100 * MS * n;
                sleep_until(at).await;
                let first = request(&pool, &target).await;
                // GET is safe to send again: a sidecar does so by itself.
                let second = match &first {
                    Ok(_) => Ok(Duration::ZERO),
                    Err(_) => request(&pool, &target).await,
                };
                (at, first, second)
            }));
        }
        sleep_until(blocked).await;
        block_udp(&world, &client, &server, true);
        sleep_until(passes).await;
        block_udp(&world, &client, &server, false);
        // A dead path is known within three seconds.
        let known = blocked + 3_000 * MS;
        for caller in callers {
            let (at, first, second) = caller.await.unwrap();
            let since = at - begin;
            if at + 20 * MS < blocked || at > known {
                let took = first.unwrap_or_else(|error| panic!("at {since:?}: {error}"));
                assert!(took < 100 * MS, "at {since:?} it took {took:?}");
            } else {
                second.unwrap_or_else(|error| panic!("at {since:?}, again: {error}"));
            }
        }
        let connection = pool.connection(&target).await.unwrap();
        assert_eq!(connection.carrier(), Carrier::Quic, "it has come back");
        let stats = client.endpoint.fallback();
        assert_eq!((stats.to_tcp, stats.to_quic, stats.blocked), (1, 1, 0));
        assert!(stats.probes_failed >= 3, "{stats:?}");
    });
}

/// A box that lets handshakes through and then drops the connection.
#[test]
fn a_path_that_breaks_quic_again_and_again_is_left_alone_for_longer_and_longer() {
    in_world(4, |world| async move {
        let (ca, client, server) = pair(&world, LinkSpec::ideal(5 * MS), Arc::new(Ok200)).await;
        let (pool, target) = (client.endpoint.pool(), server.target(&ca, "invoices"));
        for (from, to) in [(&client, &server), (&server, &client)] {
            world.set_filter(&from.node, &to.node, |content| {
                // Of QUIC only packets with a long header pass: those of a handshake (RFC 9000 §17.2).
                content.first().is_none_or(|b| *b == 0 || b & 0x80 != 0)
            });
        }
        let end = Instant::now() + Duration::from_secs(600);
        let (mut all, mut failed) = (0, 0);
        while Instant::now() < end {
            all += 1;
            // In the seconds in which QUIC looks good.
            failed += u32::from(request(&pool, &target).await.is_err());
            sleep(1_000 * MS).await;
        }
        assert!(failed <= 8 && all > 500, "{failed} of {all} failed");
        let stats = client.endpoint.fallback();
        assert!(
            (2..=6).contains(&stats.to_quic),
            "ten minutes, waits from 30 s on that double: {stats:?}"
        );
    });
}
