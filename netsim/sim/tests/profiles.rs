//! What a pinned profile changes on the wire, to the millisecond.
#![allow(clippy::unwrap_used)]

mod support;

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use support::{MS, Ok200, Peer, in_world};
use tokio::time::{sleep, timeout};
use weft_netsim::LinkSpec;
use weft_transport::{Measured, Profile};

/// A pair 40 ms apart, both of this profile.
async fn pair(world: &weft_netsim_sim::World, profile: Profile) -> (support::Ca, Peer, Peer) {
    world.set_default_link(LinkSpec::ideal(20 * MS)).unwrap();
    let ca = support::Ca::new(world);
    let with = |config: &mut weft_transport::TransportConfig| {
        config.profile = profile.clone();
        config.fallback = false;
    };
    let client = Peer::start_with(&ca, &world.node("client"), "orders", with).await;
    let server = Peer::start_with(&ca, &world.node("server"), "invoices", with).await;
    server.endpoint.serve(Arc::new(Ok200));
    (ca, client, server)
}

/// Datagrams that a dial sends in its first 250 ms when nothing answers.
fn first_datagrams(profile: Profile) -> usize {
    in_world(1, move |world| async move {
        let (ca, client, server) = pair(&world, profile).await;
        let sent = Arc::new(AtomicUsize::new(0));
        let counted = sent.clone();
        world.set_filter(&client.node, &server.node, move |_| {
            counted.fetch_add(1, Ordering::SeqCst);
            false
        });
        let pool = client.endpoint.pool();
        let target = server.target(&ca, "invoices");
        timeout(250 * MS, pool.connection(&target))
            .await
            .unwrap_err();
        sent.load(Ordering::SeqCst)
    })
}

#[test]
fn the_round_trip_assumed_at_first_is_the_profiles() {
    let (dc, wan) = (
        first_datagrams(Profile::dc()),
        first_datagrams(Profile::wan()),
    );
    assert_eq!(wan, 2, "one flight: the key share of the hybrid takes two");
    assert!(dc >= 6, "three flights and more: {dc} datagrams");
}

/// How long it takes until a silent peer is lost.
fn lost_after(profile: Profile) -> Duration {
    in_world(2, move |world| async move {
        let (ca, client, server) = pair(&world, profile).await;
        let target = server.target(&ca, "invoices");
        let connection = client.endpoint.pool().connection(&target).await.unwrap();
        sleep(1_700 * MS).await;
        let stats = &client.endpoint.connections()[0];
        assert_eq!(stats.measured, Some(Measured::Wan), "whatever is pinned");
        world.set_cut(&server.node, &client.node, true);
        world.set_cut(&client.node, &server.node, true);
        let gone = world.now();
        timeout(Duration::from_secs(30), connection.retired())
            .await
            .expect("the peer is never found dead");
        world.now() - gone
    })
}

#[test]
fn the_patience_with_silence_is_the_profiles() {
    for (profile, least, most) in [
        (Profile::auto(), 2, 3),
        (Profile::dc(), 2, 3),
        (Profile::wan(), 4, 6),
        (Profile::lossy(), 9, 11),
    ] {
        let (name, took) = (profile.name, lost_after(profile));
        let seconds = Duration::from_secs;
        assert!(
            took >= seconds(least) && took <= seconds(most),
            "{name}: {took:?}"
        );
    }
}
