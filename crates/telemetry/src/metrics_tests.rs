use super::*;
use crate::PathTotals;
use crate::{HttpExchange, Protocol, Reporter, TcpConnection};

fn key(destination: &str, protocol: Protocol) -> EdgeKey {
    EdgeKey {
        reporter: Reporter::Source,
        source: Party::service(
            "default",
            "orders",
            "spiffe://weft.local/ns/default/sa/orders",
        ),
        destination: Party::service("default", destination, "spiffe://weft.local/x"),
        protocol,
    }
}

fn exchange(code: u16, millis: u64) -> HttpExchange {
    HttpExchange {
        code,
        duration: Duration::from_millis(millis),
        request_bytes: 10,
        response_bytes: 20,
        failed: false,
    }
}

#[test]
fn one_prefix_base_units_and_istio_label_names() {
    let telemetry = Telemetry::new("1.2.3");
    telemetry
        .edge(&key("invoices", Protocol::Http))
        .http(exchange(200, 3));
    let tcp = telemetry.edge(&key("ledger", Protocol::Tcp));
    tcp.tcp_opened();
    tcp.tcp_closed(TcpConnection {
        duration: Duration::from_secs(1),
        sent_bytes: 7,
        received_bytes: 9,
        failed: false,
    });
    telemetry.refused(Side::Inbound, "policy");
    telemetry.set_connections(Direction::Dialled, "tcp", 2);
    telemetry.handshakes_total(Direction::Accepted, "resumed", 1);
    telemetry.handshakes_total(Direction::Accepted, "resumed", 4);
    telemetry.fallbacks_total("to_tcp", 3);
    telemetry.set_fallback_paths(1);
    telemetry.set_revision(42);
    telemetry.set_svid_left(Duration::from_secs(1800));
    telemetry.set_authorities_left([("root", "root-1", Duration::from_secs(9))]);
    telemetry.set_authorities_left([("root", "root-2", Duration::from_secs(7))]);
    let text = telemetry.encode();
    assert!(
        text.contains("weft_authority_remaining_seconds{role=\"root\",name=\"root-2\"} 7"),
        "{text}"
    );
    assert!(
        !text.contains("root-1"),
        "one that is gone is not shown: {text}"
    );
    telemetry.config_nacked();
    let text = telemetry.encode();
    for line in text
        .lines()
        .filter(|line| !line.starts_with('#') && !line.is_empty())
    {
        assert!(line.starts_with("weft_"), "{line}");
    }
    for expected in [
        "weft_build_info{version=\"1.2.3\"} 1",
        "weft_requests_total{reporter=\"source\",source_workload=\"orders\",source_workload_namespace=\"default\",source_principal=\"spiffe://weft.local/ns/default/sa/orders\",destination_service=\"invoices.default\"",
        "response_code=\"200\"} 1",
        "connection_security_policy=\"mutual_tls\"",
        "request_protocol=\"tcp\"",
        "weft_request_duration_seconds_bucket{",
        "weft_request_bytes_total{",
        "weft_response_bytes_total{",
        "weft_tcp_sent_bytes_total{",
        "weft_tcp_connections_opened_total{",
        "weft_refusals_total{side=\"inbound\",reason=\"policy\"} 1",
        "weft_connections{direction=\"outbound\",transport=\"tcp\"} 2",
        "weft_handshakes_total{direction=\"inbound\",kind=\"resumed\"} 4",
        "weft_fallbacks_total{event=\"to_tcp\"} 3",
        "weft_fallback_paths 1",
        "weft_config_revision 42",
        "weft_config_nacks_total 1",
        "weft_svid_remaining_seconds 1800",
    ] {
        assert!(text.contains(expected), "missing {expected} in\n{text}");
    }
}

#[test]
fn take_edges_gives_the_change_since_the_last_take() {
    let telemetry = Telemetry::new("0");
    let edge = telemetry.edge(&key("invoices", Protocol::Http));
    for _ in 0..99 {
        edge.http(exchange(200, 2));
    }
    edge.http(exchange(503, 1000));
    let first = telemetry.take_edges();
    assert_eq!(first.len(), 1);
    assert_eq!((first[0].requests, first[0].failures), (100, 1));
    assert_eq!(first[0].latency_us.iter().map(|(_, n)| n).sum::<u64>(), 100);
    let (upper, count) = first[0].latency_us[0];
    assert_eq!(count, 99);
    assert!(
        (2_000..2_020).contains(&upper),
        "two significant digits: {upper}"
    );
    assert!(
        telemetry.take_edges().is_empty(),
        "nothing happened since the last take"
    );
    edge.http(exchange(200, 1));
    assert_eq!(telemetry.take_edges()[0].requests, 1);
}

#[test]
fn a_reset_is_a_failure_whatever_its_code() {
    let telemetry = Telemetry::new("0");
    telemetry
        .edge(&key("invoices", Protocol::Http))
        .http(HttpExchange {
            failed: true,
            ..exchange(200, 1)
        });
    assert_eq!(telemetry.take_edges()[0].failures, 1);
}

#[test]
fn edges_and_codes_are_bounded() {
    let telemetry = Telemetry::new("0");
    for n in 0..MAX_EDGES + 10 {
        telemetry
            .edge(&key(&format!("s{n}"), Protocol::Http))
            .http(exchange(200, 1));
    }
    let edges = telemetry.take_edges();
    assert_eq!(edges.len(), MAX_EDGES + 1);
    let other = edges
        .iter()
        .find(|edge| edge.destination == "other.other")
        .unwrap();
    assert_eq!(other.requests, 10);

    let edge = telemetry.edge(&key("s0", Protocol::Http));
    for code in 400..440 {
        edge.http(exchange(code, 1));
    }
    assert!(telemetry.encode().contains("response_code=\"4xx\""));
}

#[test]
fn a_total_counted_elsewhere_never_goes_back() {
    let telemetry = Telemetry::new("0");
    telemetry.refusals_total(Side::Inbound, "expired", 3);
    telemetry.refusals_total(Side::Inbound, "expired", 2);
    telemetry.refusals_total(Side::Inbound, "expired", 5);
    assert!(
        telemetry
            .encode()
            .contains("weft_refusals_total{side=\"inbound\",reason=\"expired\"} 5")
    );
}

#[test]
fn paths_are_shown_as_they_are_and_counted_over_connections_that_come_and_go() {
    let telemetry = Telemetry::new("1");
    let sample = |id, peer, sent, blocked| PathSample {
        id,
        direction: Direction::Dialled,
        peer,
        transport: "quic",
        key_exchange: "X25519MLKEM768",
        cipher: "TLS_AES_128_GCM_SHA256",
        rtt: Duration::from_millis(80),
        recent_loss: (sent > 100).then_some(0.01),
        mtu: 1_452,
        window: 12_000,
        blocked_streams: 2,
        standing_readers: 3,
        lent: 1_000,
        totals: PathTotals {
            sent_packets: sent,
            blocked: Duration::from_millis(blocked),
            pressed: blocked / 250,
            ..PathTotals::default()
        },
    };
    telemetry.set_paths(&[sample(1, "a", 100, 500), sample(2, "b", 7, 0)]);
    telemetry.set_paths(&[sample(1, "a", 250, 750), sample(2, "b", 7, 0)]);
    telemetry.set_paths(&[sample(3, "a", 40, 0)]);
    let text = telemetry.encode();
    for line in [
        r#"weft_path_packets_sent_total{direction="outbound",peer="a"} 290"#,
        r#"weft_path_packets_sent_total{direction="outbound",peer="b"} 7"#,
        r#"weft_path_blocked_seconds_total{direction="outbound",peer="a"} 0.75"#,
        r#"weft_path_rtt_seconds{direction="outbound",peer="a"} 0.08"#,
        r#"weft_path_mtu_bytes{direction="outbound",peer="a"} 1452"#,
        r#"weft_path_blocked_streams{direction="outbound",peer="a"} 2"#,
        r#"weft_path_standing_readers{direction="outbound",peer="a"} 3"#,
        r#"weft_path_lent_bytes{direction="outbound",peer="a"} 1000"#,
        r#"weft_path_pressed_total{direction="outbound",peer="a"} 3"#,
        r#"weft_path_connections{transport="quic",key_exchange="X25519MLKEM768",cipher="TLS_AES_128_GCM_SHA256"} 1"#,
    ] {
        assert!(text.lines().any(|l| l == line), "no {line} in {text}");
    }
    assert!(
        !text.contains(r#"rtt_seconds{direction="outbound",peer="b"}"#),
        "b is gone"
    );
    assert!(
        !text.contains("weft_path_recent_loss_ratios{"),
        "too little was sent to tell"
    );
}

#[test]
fn peers_beyond_the_bound_go_by_one_name() {
    let telemetry = Telemetry::new("1");
    let names: Vec<String> = (0..1_000).map(|n| format!("peer-{n}")).collect();
    let samples: Vec<PathSample<'_>> = (0..)
        .zip(&names)
        .map(|(id, peer)| PathSample {
            id,
            direction: Direction::Accepted,
            peer,
            transport: "quic",
            key_exchange: "X25519",
            cipher: "",
            rtt: Duration::ZERO,
            recent_loss: None,
            mtu: 1_200,
            window: 1,
            blocked_streams: 0,
            standing_readers: 0,
            lent: 0,
            totals: PathTotals::default(),
        })
        .collect();
    telemetry.set_paths(&samples);
    let text = telemetry.encode();
    let shown = text
        .lines()
        .filter(|line| line.starts_with("weft_path_mtu_bytes{"));
    assert_eq!(shown.count(), 257);
    assert!(text.contains(r#"weft_path_mtu_bytes{direction="inbound",peer="other"} 1200"#));
}
