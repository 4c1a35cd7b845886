//! `weft status --paths`: one line for each path, which begins with whether it is the network.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use serde::Serialize;
use weft_control::{SidecarState, SidecarStatus, Status};
use weft_wire::{ConnectionReport, UnreachableReport};

use crate::failure::Failure;
use crate::output::{self, Format, Table};

/// What programs get.
#[derive(Debug, Serialize)]
struct Paths<'a> {
    paths: Vec<Path<'a>>,
    unreachable: Vec<Unreachable<'a>>,
}

#[derive(Debug, Serialize)]
struct Path<'a> {
    service: &'a str,
    instance: &'a str,
    /// Whether the network is at fault.
    network: Network,
    /// The same in words.
    verdict: String,
    #[serde(flatten)]
    connection: &'a ConnectionReport,
}

#[derive(Debug, Serialize)]
struct Unreachable<'a> {
    service: &'a str,
    instance: &'a str,
    #[serde(flatten)]
    peer: &'a UnreachableReport,
}

/// Is it the network?
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
enum Network {
    No,
    Maybe,
    Yes,
}

pub(super) fn show(format: Format, status: &Status, now: SystemTime) -> Result<(), Failure> {
    // What a sidecar said last is no news once it is gone.
    let live = || {
        let all = status.sidecars.iter();
        all.filter(|sidecar| sidecar.state == SidecarState::Live)
    };
    let paths = Paths {
        paths: live().flat_map(of_sidecar).collect(),
        unreachable: live()
            .flat_map(|sidecar| {
                sidecar.unreachable.iter().map(|peer| Unreachable {
                    service: &sidecar.service,
                    instance: &sidecar.instance,
                    peer,
                })
            })
            .collect(),
    };
    output::show(format, &paths, || shown(&paths, now))
}

fn of_sidecar(sidecar: &SidecarStatus) -> impl Iterator<Item = Path<'_>> {
    sidecar.connections.iter().map(|connection| {
        let (network, verdict) = verdict(connection);
        Path {
            service: &sidecar.service,
            instance: &sidecar.instance,
            network,
            verdict,
            connection,
        }
    })
}

/// Silence beyond this is none of a path that is alive: keep-alives bring an answer more often.
const SILENT_MS: u64 = 2_000;

/// Whether the network is at fault, and what tells it. The gravest sign decides.
fn verdict(path: &ConnectionReport) -> (Network, String) {
    let lost = path.recent_loss_ppm.map_or_else(String::new, percent);
    let waits = path.rtt_us.saturating_sub(path.min_rtt_us);
    if path.silent_ms >= SILENT_MS {
        let words = format!("nothing heard for {} s", path.silent_ms / 1_000);
        return (Network::Yes, words);
    }
    if path.transport == "tcp" {
        return (
            Network::Yes,
            "UDP does not pass: carried over TCP".to_owned(),
        );
    }
    match path.measured.as_str() {
        "broken" => return (Network::Yes, format!("{lost} lost")),
        "lossy" if path.copying => {
            let words = format!("{lost} lost; small messages are sent twice");
            return (Network::Yes, words);
        }
        "lossy" => return (Network::Yes, format!("{lost} lost")),
        "full" => {
            let words = format!("full: {} in queues", output::millis(waits));
            return (Network::Yes, words);
        }
        _ => {}
    }
    if path.blocked_streams > 0 && path.out_of_credit > 0 {
        let words = format!("{} streams wait for the peer to read", path.blocked_streams);
        return (Network::No, words);
    }
    if path.blocked_streams > 0 {
        let words = format!("{} streams wait for the path", path.blocked_streams);
        return (Network::Maybe, words);
    }
    if path.black_holes > 0 {
        let words = format!("its MTU shrank to {}", path.mtu);
        return (Network::Maybe, words);
    }
    if !path.retired.is_empty() {
        let words = format!("being replaced ({})", path.retired.replace('_', " "));
        return (Network::No, words);
    }
    (Network::No, String::new())
}

fn shown(paths: &Paths<'_>, now: SystemTime) -> String {
    let mut table = Table::new(
        &[
            "SIDECAR",
            "PEER",
            "ADDRESS",
            "NETWORK?",
            "RTT (MIN)",
            "LOST 10s (ALL)",
            "MTU",
            "WINDOW",
            "SENT",
            "RECEIVED",
            "BLOCKED",
            "MOVED",
            "PROFILE (SHOWS)",
            "CONTROL",
            "KEYS",
            "CIPHER",
            "RESUMED",
            "BY",
        ],
        "no path: no live sidecar has a connection to another; they are made by the first request",
    );
    for path in &paths.paths {
        table.row(row(path));
    }
    let mut out = table.render();
    for Unreachable {
        service,
        instance,
        peer,
    } in &paths.unreachable
    {
        let at = UNIX_EPOCH + Duration::from_millis(peer.at_unix_ms);
        let ago = now.duration_since(at).unwrap_or_default();
        out.push_str(&format!(
            "\n{service}/{} could not reach {} ({} ago): {}\n",
            short(instance),
            peer.addr,
            output::span(ago),
            peer.detail
        ));
    }
    out
}

fn row(path: &Path<'_>) -> [String; 18] {
    let connection = path.connection;
    let arrow = match connection.direction.as_str() {
        "outbound" => "→",
        _ => "←",
    };
    let network = match (path.network, path.verdict.as_str()) {
        (Network::No, "") => "no".to_owned(),
        (Network::No, words) => format!("no: {words}"),
        (Network::Maybe, words) => format!("maybe: {words}"),
        (Network::Yes, words) => format!("YES: {words}"),
    };
    let recent = connection
        .recent_loss_ppm
        .map_or_else(|| "-".to_owned(), percent);
    let profile = match (connection.profile.as_str(), connection.measured.as_str()) {
        ("", "") => "-".to_owned(),
        (profile, measured) => format!("{profile} ({measured})"),
    };
    [
        format!("{}/{}", path.service, short(path.instance)),
        format!("{arrow} {}", peer(&connection.peer)),
        connection.addr.clone(),
        network,
        format!(
            "{} ({})",
            output::millis(connection.rtt_us),
            output::millis(connection.min_rtt_us)
        ),
        format!(
            "{recent} ({} of {})",
            connection.lost_packets, connection.sent_packets
        ),
        connection.mtu.to_string(),
        bytes(connection.window),
        bytes(connection.sent_bytes),
        bytes(connection.received_bytes),
        output::span(Duration::from_micros(connection.blocked_us)),
        connection.migrations.to_string(),
        profile,
        or_dash(&connection.congestion),
        or_dash(&connection.key_exchange),
        or_dash(connection.cipher.trim_start_matches("TLS_")),
        if connection.resumed { "yes" } else { "no" }.to_owned(),
        or_dash(&connection.transport),
    ]
}

fn or_dash(text: &str) -> String {
    if text.is_empty() { "-" } else { text }.to_owned()
}

/// Enough of an instance's name to find it by.
fn short(instance: &str) -> &str {
    instance.get(..8).unwrap_or(instance)
}

/// `name.namespace` of a service's SPIFFE ID, the ID of anything else.
fn peer(id: &str) -> String {
    let parts: Vec<&str> = id.split('/').collect();
    match parts[..] {
        ["spiffe:", "", _, "ns", namespace, "sa", name] => format!("{name}.{namespace}"),
        _ => or_dash(id),
    }
}

fn percent(ppm: u32) -> String {
    format!("{:.2} %", f64::from(ppm) / 1e4)
}

#[allow(clippy::cast_precision_loss, reason = "shown with three digits")]
fn bytes(bytes: u64) -> String {
    let (mut value, mut unit) = (bytes as f64, "B");
    for larger in ["KiB", "MiB", "GiB", "TiB"] {
        if value < 1024.0 {
            break;
        }
        (value, unit) = (value / 1024.0, larger);
    }
    match unit {
        "B" => format!("{bytes} B"),
        _ => format!("{value:.1} {unit}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn healthy() -> ConnectionReport {
        ConnectionReport {
            direction: "outbound".to_owned(),
            peer: "spiffe://weft.local/ns/default/sa/invoices".to_owned(),
            addr: "10.0.0.2:15008".to_owned(),
            rtt_us: 81_000,
            min_rtt_us: 80_000,
            recent_loss_ppm: Some(0),
            measured: "wan".to_owned(),
            profile: "auto".to_owned(),
            ..ConnectionReport::default()
        }
    }

    #[test]
    fn one_line_answers_whether_it_is_the_network() {
        type Change = fn(&mut ConnectionReport);
        let cases: [(Change, Network, &str); 10] = [
            (|_| {}, Network::No, ""),
            (
                |c| c.transport = "tcp".to_owned(),
                Network::Yes,
                "UDP does not pass: carried over TCP",
            ),
            (
                |c| c.silent_ms = 2_400,
                Network::Yes,
                "nothing heard for 2 s",
            ),
            (
                |c| {
                    c.measured = "lossy".to_owned();
                    c.recent_loss_ppm = Some(12_000);
                },
                Network::Yes,
                "1.20 % lost",
            ),
            (
                |c| {
                    c.measured = "lossy".to_owned();
                    c.recent_loss_ppm = Some(12_000);
                    c.copying = true;
                },
                Network::Yes,
                "1.20 % lost; small messages are sent twice",
            ),
            (
                |c| {
                    c.measured = "full".to_owned();
                    c.rtt_us = 125_000;
                },
                Network::Yes,
                "full: 45.0 ms in queues",
            ),
            (
                |c| {
                    c.blocked_streams = 3;
                    c.out_of_credit = 1;
                },
                Network::No,
                "3 streams wait for the peer to read",
            ),
            (
                |c| c.blocked_streams = 3,
                Network::Maybe,
                "3 streams wait for the path",
            ),
            (
                |c| {
                    c.black_holes = 1;
                    c.mtu = 1_200;
                },
                Network::Maybe,
                "its MTU shrank to 1200",
            ),
            (
                |c| c.retired = "own_certificate_replaced".to_owned(),
                Network::No,
                "being replaced (own certificate replaced)",
            ),
        ];
        for (change, network, words) in cases {
            let mut path = healthy();
            change(&mut path);
            assert_eq!(verdict(&path), (network, words.to_owned()));
        }
    }

    #[test]
    fn an_older_sidecar_that_tells_less_is_shown_with_dashes() {
        let told = r#"{"direction":"inbound","peer":"spiffe://weft.local/ns/a/sa/b","rtt_us":900}"#;
        let connection: ConnectionReport = serde_json::from_str(told).unwrap();
        let path = Path {
            service: "c.d",
            instance: "0123456789",
            network: Network::No,
            verdict: verdict(&connection).1,
            connection: &connection,
        };
        let row = row(&path);
        assert_eq!(row[..4], ["c.d/01234567", "← b.a", "", "no"]);
        assert_eq!(row[14], "-");
    }

    #[test]
    fn whom_a_sidecar_cannot_dial_is_named_with_the_reason() {
        let unreachable = UnreachableReport {
            addr: "10.0.0.9:15008".to_owned(),
            reason: "timeout".to_owned(),
            detail: "no answer".to_owned(),
            at_unix_ms: 5_000,
        };
        let paths = Paths {
            paths: Vec::new(),
            unreachable: vec![Unreachable {
                service: "a.b",
                instance: "i",
                peer: &unreachable,
            }],
        };
        let text = shown(&paths, UNIX_EPOCH + Duration::from_secs(17));
        let line = "a.b/i could not reach 10.0.0.9:15008 (12s ago): no answer";
        assert!(text.contains(line), "{text}");
    }

    #[test]
    fn sizes_are_in_the_unit_that_reads_best() {
        assert_eq!(
            [bytes(12), bytes(1_536), bytes(12 << 20)],
            ["12 B", "1.5 KiB", "12.0 MiB"]
        );
    }
}
