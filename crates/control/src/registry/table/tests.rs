#![allow(clippy::disallowed_methods)]

use super::*;
use weft_wire::{PROTOCOL, Protocol};

fn id(text: &str) -> SpiffeId {
    SpiffeId::parse(text).unwrap()
}

fn hello(instance: &str, addr: &str) -> Hello {
    Hello {
        protocol: PROTOCOL,
        version: "0.1.0".into(),
        instance: instance.into(),
        mesh_addr: addr.parse().unwrap(),
        ports: vec![PortRecord {
            port: 80,
            protocol: Protocol::Http,
        }],
        revision: None,
        serial: "01".into(),
        pid: 7,
        identity_from: None,
    }
}

fn arrive(table: &mut Table, identity: &str, hello: &Hello) -> Result<Epoch, Refusal> {
    table.arrive(&Arrival {
        identity: &id(identity),
        not_after_unix: 100,
        remote: "::ffff:10.0.0.9".parse().unwrap(),
        hello,
        unix_ms: 1,
    })
}

const INVOICES: &str = "spiffe://weft.local/ns/default/sa/invoices";
const ORDERS: &str = "spiffe://weft.local/ns/default/sa/orders";

#[test]
fn the_identity_of_the_connection_decides_the_service() {
    let mut table = Table::default();
    arrive(&mut table, INVOICES, &hello("a1", "10.0.0.1:15008")).unwrap();
    let sidecar = table.iter().next().unwrap();
    assert_eq!(sidecar.service.to_string(), "invoices.default");
    assert_eq!(sidecar.endpoint().0, "endpoint/default/invoices/a1");
    for refused in [
        "spiffe://weft.local/ns/weft-system/sa/control",
        "spiffe://weft.local/workload",
        "spiffe://weft.local",
        "spiffe://weft.local/ns/Default/sa/invoices",
    ] {
        let reply = arrive(&mut table, refused, &hello("a2", "10.0.0.1:15008"));
        assert_eq!(reply, Err(Refusal::NotAService(id(refused))));
    }
}

#[test]
fn an_instance_of_another_identity_is_refused_even_in_grace() {
    let now = Instant::now();
    let mut table = Table::default();
    let epoch = arrive(&mut table, INVOICES, &hello("a1", "10.0.0.1:1")).unwrap();
    let taken = Refusal::InstanceTaken {
        instance: "a1".into(),
        owner: id(INVOICES),
    };
    let again = |table: &mut Table| arrive(table, ORDERS, &hello("a1", "10.0.0.1:1"));
    assert_eq!(again(&mut table), Err(taken.clone()));
    assert!(table.lose("a1", epoch, now, 2));
    assert_eq!(again(&mut table), Err(taken));
    table.expire(now + Duration::from_secs(15), Duration::from_secs(15));
    assert!(again(&mut table).is_ok());
}

#[test]
fn two_sidecars_with_one_state_do_not_take_turns() {
    let mut table = Table::default();
    let (original, copy) = (hello("a1", "10.0.0.1:1"), hello("a1", "10.0.0.2:1"));
    arrive(&mut table, INVOICES, &original).unwrap();
    let epoch = arrive(&mut table, INVOICES, &copy).unwrap();
    let contested = Refusal::Contested {
        instance: "a1".into(),
        at: "10.0.0.2:1".parse().unwrap(),
        pid: 7,
    };
    assert_eq!(
        arrive(&mut table, INVOICES, &original),
        Err(contested.clone())
    );
    assert!(
        table.live_mut("a1", epoch).is_some(),
        "the copy is left alone"
    );
    // A new connection of the copy changes nothing; its end does.
    let epoch = arrive(&mut table, INVOICES, &copy).unwrap();
    assert_eq!(arrive(&mut table, INVOICES, &original), Err(contested));
    assert!(table.lose("a1", epoch, Instant::now(), 2));
    arrive(&mut table, INVOICES, &original).unwrap();
}

#[test]
fn a_sidecar_that_restarts_before_its_death_is_noticed_is_let_in_each_time() {
    let mut table = Table::default();
    for pid in 7..12 {
        let mut hello = hello("a1", "10.0.0.1:1");
        hello.pid = pid;
        arrive(&mut table, INVOICES, &hello).unwrap();
    }
}

#[test]
fn a_bad_instance_id_is_refused() {
    let mut table = Table::default();
    for bad in ["", "a/b", "a b", "../x", &"x".repeat(64)] {
        let reply = arrive(&mut table, INVOICES, &hello(bad, "10.0.0.1:1"));
        assert!(matches!(reply, Err(Refusal::BadInstance(_))), "{bad}");
    }
}

#[test]
fn an_unspecified_address_becomes_the_observed_one() {
    for (announced, seen) in [
        ("0.0.0.0:15008", "10.0.0.9:15008"),
        ("[::]:15008", "10.0.0.9:15008"),
        ("192.168.1.1:1", "192.168.1.1:1"),
    ] {
        let mut table = Table::default();
        arrive(&mut table, INVOICES, &hello("a1", announced)).unwrap();
        let addr = table.iter().next().unwrap().addr;
        assert_eq!(addr, seen.parse().unwrap(), "{announced}");
    }
}

#[test]
fn a_lost_sidecar_stays_for_the_grace_and_a_reconnect_ends_it() {
    let (start, grace) = (Instant::now(), Duration::from_secs(15));
    let mut table = Table::default();
    let first = arrive(&mut table, INVOICES, &hello("a1", "10.0.0.1:1")).unwrap();
    assert_eq!(table.next_expiry(grace), None);
    assert!(table.lose("a1", first, start, 2));
    assert_eq!(table.next_expiry(grace), Some(start + grace));
    assert!(
        table
            .expire(start + grace - Duration::from_millis(1), grace)
            .is_empty()
    );

    let second = arrive(&mut table, INVOICES, &hello("a1", "10.0.0.1:1")).unwrap();
    assert_eq!(table.next_expiry(grace), None);
    assert!(
        !table.lose("a1", first, start, 3),
        "of a replaced connection"
    );
    assert!(!table.leave("a1", first));
    assert!(table.expire(start + grace * 2, grace).is_empty());

    assert!(table.lose("a1", second, start, 3));
    assert_eq!(table.expire(start + grace, grace).len(), 1);
    assert_eq!(table.iter().count(), 0);
}

#[test]
fn goodbye_needs_no_grace() {
    let mut table = Table::default();
    let epoch = arrive(&mut table, INVOICES, &hello("a1", "10.0.0.1:1")).unwrap();
    assert!(table.leave("a1", epoch));
    assert_eq!(table.iter().count(), 0);
}

#[test]
fn stored_endpoints_get_the_same_grace_after_a_restart() {
    let (start, grace) = (Instant::now(), Duration::from_secs(15));
    let mut table = Table::default();
    let record = EndpointRecord {
        spiffe_id: INVOICES.into(),
        mesh_addr: "10.0.0.1:1".parse().unwrap(),
        ports: Vec::new(),
    };
    let service = ServiceName::new("default", "invoices").unwrap();
    table.restore(service, "a1", &record, id(INVOICES), (start, 1));
    assert!(!table.iter().next().unwrap().is_live());
    assert_eq!(table.next_expiry(grace), Some(start + grace));
    assert_eq!(table.expire(start + grace, grace).len(), 1);
}

#[test]
fn an_ack_of_the_refused_revision_or_later_ends_the_refusal() {
    let now = Instant::now();
    let mut table = Table::default();
    let epoch = arrive(&mut table, INVOICES, &hello("a1", "10.0.0.1:1")).unwrap();
    let sidecar = table.live_mut("a1", epoch).unwrap();
    let ack = |revision| Ack {
        revision,
        in_force_unix_ms: 1,
        took_us: 1,
        unsaved: None,
    };
    acknowledge(sidecar, ack(4), now);
    sidecar.nack = Some(Nack {
        revision: 6,
        running: Some(4),
        key: None,
        reason: "x".into(),
    });
    acknowledge(sidecar, ack(5), now);
    assert!(sidecar.nack.is_some(), "an older receipt does not");
    acknowledge(sidecar, ack(7), now);
    assert!(sidecar.nack.is_none());
    acknowledge(sidecar, ack(6), now);
    assert_eq!(sidecar.acked.as_ref().unwrap().ack.revision, 7);
}

#[test]
fn who_was_lost_is_remembered_for_a_day_and_who_left_is_not() {
    let (start, grace) = (Instant::now(), Duration::from_secs(15));
    let mut table = Table::default();
    for instance in ["lost", "back", "left"] {
        let epoch = arrive(&mut table, INVOICES, &hello(instance, "10.0.0.1:1")).unwrap();
        match instance {
            "left" => assert!(table.leave(instance, epoch)),
            _ => assert!(table.lose(instance, epoch, start, 2)),
        }
    }
    assert_eq!(table.expire(start + grace, grace).len(), 2);
    assert_eq!(table.iter().count(), 0, "no part of the mesh");
    let lost = |table: &Table| table.lost().map(|s| s.instance.clone()).collect::<Vec<_>>();
    assert_eq!(lost(&table), ["back", "lost"]);
    arrive(&mut table, ORDERS, &hello("back", "10.0.0.1:1")).unwrap();
    assert_eq!(lost(&table), ["lost"], "its name is free for others");
    let over = start + REMEMBERED;
    assert_eq!(table.next_expiry(grace), Some(over));
    assert!(table.expire(over, grace).is_empty());
    assert!(lost(&table).is_empty());
}

#[test]
fn the_lost_that_are_remembered_are_bounded() {
    let (start, grace) = (Instant::now(), Duration::ZERO);
    let mut table = Table::default();
    for n in 0..=MAX_LOST as u64 {
        let (instance, at) = (format!("i{n}"), start + Duration::from_millis(n));
        let epoch = arrive(&mut table, INVOICES, &hello(&instance, "10.0.0.1:1")).unwrap();
        table.lose(&instance, epoch, at, n);
    }
    table.expire(start + Duration::from_secs(10), grace);
    assert_eq!(table.lost().count(), MAX_LOST);
    assert!(table.lost().all(|lost| lost.instance != "i0"), "the oldest");
}

#[test]
fn where_an_identity_comes_from_is_on_one_line_and_no_longer_than_a_sockets_path() {
    let mut table = Table::default();
    let mut hello = hello("a", "10.0.0.1:15008");
    hello.identity_from = Some(format!("unix:///run/\n{}", "x".repeat(500)));
    arrive(
        &mut table,
        "spiffe://weft.local/ns/default/sa/orders",
        &hello,
    )
    .unwrap();
    let sidecar = table.iter().next().unwrap();
    let shown = sidecar.identity_from.as_deref().unwrap();
    assert!(shown.starts_with("unix:///run/ xxx"), "{shown}");
    assert_eq!(shown.len(), MAX_SHOWN);
}
