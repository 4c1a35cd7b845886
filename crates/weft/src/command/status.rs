//! `weft status`.

use std::fmt::Write as _;
use std::time::Duration;

use weft_control::{AdminClient, SidecarState, SidecarStatus, Status};
use weft_wire::{ConnectionReport, EarlierProcess};

use weft_env::Env;

use super::admin::{connect, date, failed, left};
use crate::cli::StatusArgs;
use crate::failure::Failure;
use crate::output::{self, Format, Table};

pub(super) async fn run(args: StatusArgs) -> Result<(), Failure> {
    let client = connect(&args.admin).await?;
    if let Some(within) = args.expiring {
        return expiring(&client, within, args.output.output).await;
    }
    let status = client.status().await.map_err(failed)?;
    if args.paths {
        return super::paths::show(args.output.output, &status, Env::system().wall());
    }
    output::show(args.output.output, &status, || shown(&status))
}

/// Every certificate that ends within this time. One that ends is a failure, so that a monitor sees it.
async fn expiring(client: &AdminClient, within: Duration, format: Format) -> Result<(), Failure> {
    let (status, ca) = (client.status().await, client.ca().await);
    let (status, ca) = (status.map_err(failed)?, ca.map_err(failed)?);
    let limit = i64::try_from(within.as_secs()).unwrap_or(i64::MAX);
    let authorities = ca
        .authorities
        .iter()
        .filter(|authority| authority.state != "removed")
        .map(|a| (a.role.clone(), a.name.clone(), a.seconds_left));
    // One that is gone cannot be helped, and may be gone for good.
    let live = |s: &&SidecarStatus| s.state == SidecarState::Live;
    let leaves = status.sidecars.iter().filter(live).map(|s| {
        let name = format!("{}/{}", s.service, s.instance);
        ("leaf".to_owned(), name, s.certificate_seconds_left)
    });
    let own = (
        "leaf".to_owned(),
        "control".to_owned(),
        status.control.certificate_seconds_left,
    );
    let mut ending: Vec<_> = authorities
        .chain(leaves)
        .chain([own])
        .filter(|(_, _, left)| *left <= limit)
        .collect();
    ending.sort_by_key(|(_, _, left)| *left);
    let value: Vec<_> = ending
        .iter()
        .map(|(role, name, left)| serde_json::json!({"role": role, "name": name, "seconds_left": left}))
        .collect();
    output::show(format, &value, || {
        let mut table = Table::new(&["ROLE", "NAME", "LEFT"], "nothing ends within that time");
        for (role, name, seconds) in &ending {
            table.row([role.clone(), name.clone(), left(*seconds)]);
        }
        table.render()
    })?;
    match ending.len() {
        0 => Ok(()),
        n => Err(Failure::new(
            "status",
            format!(
                "{} within {}",
                output::counted(n, "certificate ends", "certificates end"),
                output::span(within)
            ),
            "sidecars renew by themselves at half of a certificate's life, authorities are replaced by schedule: look at the logs of those whose time is nearly over",
        )),
    }
}

fn shown(status: &Status) -> String {
    let control = &status.control;
    let mut out = format!(
        "control  {} {} pid {}, up {}, revision {}, certificate {}\n\n",
        control.mesh_addr,
        control.version,
        control.pid,
        output::span(Duration::from_secs(control.uptime_s)),
        control.revision,
        left(control.certificate_seconds_left)
    );
    let mut table = Table::new(
        &[
            "SERVICE",
            "INSTANCE",
            "STATE",
            "VERSION",
            "REVISION",
            "CERTIFICATE",
            "CONNS",
            "RTT",
            "ADDRESS",
        ],
        "no sidecar has connected; start one with: weft sidecar --control … --token-file …",
    );
    for sidecar in &status.sidecars {
        table.row(cells(sidecar));
    }
    out.push_str(&table.render());
    for nack in status
        .sidecars
        .iter()
        .filter_map(|sidecar| sidecar.nack.as_ref())
    {
        let key = nack.key.as_deref().unwrap_or("the config");
        let _ = write!(
            out,
            "\n{}/{} refused revision {}: {key}: {}\n",
            nack.service, nack.instance, nack.revision, nack.reason
        );
    }
    for sidecar in &status.sidecars {
        // What it said last is no news of a sidecar that is gone.
        if sidecar.state == SidecarState::Live && !sidecar.earlier.is_empty() {
            let _ = write!(
                out,
                "\n{}/{} was upgraded, and still finishes streams in {}\n",
                sidecar.service,
                sidecar.instance,
                earlier(sidecar)
            );
        }
        if let (SidecarState::Live, Some(from)) = (sidecar.state, &sidecar.identity_from) {
            let _ = write!(
                out,
                "\n{}/{} has its identity from {from}\n",
                sidecar.service, sidecar.instance
            );
        }
        if let (SidecarState::Live, Some(reason)) = (sidecar.state, &sidecar.unsaved) {
            let _ = write!(
                out,
                "\n{}/{} cannot save what is in force, a restart would go back: {reason}\n",
                sidecar.service, sidecar.instance
            );
        }
    }
    for line in status.sidecars.iter().filter_map(around_udp) {
        out.push_str(&line);
    }
    if let Some(note) = on_loopback(&status.sidecars) {
        let _ = write!(out, "\n{note}\n");
    }
    out
}

fn earlier(sidecar: &SidecarStatus) -> String {
    let process = |p: &EarlierProcess| format!("process {} (version {})", p.pid, p.version);
    let all: Vec<String> = sidecar.earlier.iter().map(process).collect();
    all.join(", ")
}

/// A sidecar's line of the table.
fn cells(sidecar: &SidecarStatus) -> [String; 9] {
    let state = match sidecar.state {
        SidecarState::Live => "live".to_owned(),
        SidecarState::Away => format!("away since {}", date(sidecar.since_unix_ms / 1000)),
        SidecarState::Gone => format!("gone since {}", date(sidecar.since_unix_ms / 1000)),
    };
    let revision = sidecar
        .acked_revision
        .map_or_else(|| "none".to_owned(), |revision| revision.to_string());
    let refused = if sidecar.nack.is_some() {
        " (refused)"
    } else {
        ""
    };
    // What it said last is no news of a sidecar that is gone.
    let live = sidecar.state == SidecarState::Live;
    let rtt = match sidecar.rtt_us {
        us if live && us > 0 => output::millis(us),
        _ => "-".to_owned(),
    };
    let connections = match live {
        true => sidecar.connections.len().to_string(),
        false => "-".to_owned(),
    };
    // One that has not come back since a restart of the control node has not said.
    let certificate = match sidecar.not_after_unix {
        0 => "-".to_owned(),
        _ => left(sidecar.certificate_seconds_left),
    };
    [
        sidecar.service.clone(),
        sidecar.instance.clone(),
        state,
        sidecar.version.clone(),
        format!("{revision}{refused}"),
        certificate,
        connections,
        rtt,
        sidecar.addr.to_string(),
    ]
}

/// Whom a sidecar reaches over TCP only. Said because it costs: a lost packet holds up every request.
fn around_udp(sidecar: &SidecarStatus) -> Option<String> {
    const NAMED: usize = 4;
    if sidecar.state != SidecarState::Live {
        return None;
    }
    let over_tcp = |c: &&ConnectionReport| c.direction == "outbound" && c.transport == "tcp";
    let mut whom: Vec<_> = sidecar
        .connections
        .iter()
        .filter(over_tcp)
        .map(|connection| connection.addr.clone())
        .collect();
    if sidecar.transport == "tcp" {
        whom.push("this control node".to_owned());
    }
    if whom.is_empty() {
        return None;
    }
    let more = whom.len().saturating_sub(NAMED);
    whom.truncate(NAMED);
    let more = match more {
        0 => String::new(),
        more => format!(" and {more} more"),
    };
    Some(format!(
        "\n{}/{} reaches {}{more} over TCP, because no UDP passes: let UDP through to the port of the mesh\n",
        sidecar.service,
        sidecar.instance,
        whom.join(", "),
    ))
}

/// Who is registered at an address that means this machine to every other one, in a mesh of several machines.
fn on_loopback(sidecars: &[SidecarStatus]) -> Option<String> {
    let live = || sidecars.iter().filter(|s| s.state == SidecarState::Live);
    if live().all(|s| s.addr.ip().is_loopback()) {
        return None;
    }
    let who: Vec<String> = live()
        .filter(|s| s.addr.ip().is_loopback())
        .map(|s| format!("{}/{} at {}", s.service, s.instance, s.addr))
        .collect();
    if who.is_empty() {
        return None;
    }
    Some(format!(
        "other machines cannot reach {}: start it with --control and the control node's address on the network in place of a loopback address, or with --listen IP:PORT and its machine's own",
        who.join(", ")
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sidecar(instance: &str, addr: &str) -> SidecarStatus {
        SidecarStatus {
            spiffe_id: String::new(),
            service: "orders.default".to_owned(),
            instance: instance.to_owned(),
            identity_from: None,
            version: String::new(),
            pid: 1,
            addr: addr.parse().unwrap(),
            state: SidecarState::Live,
            since_unix_ms: 0,
            acked_revision: None,
            in_force_unix_ms: None,
            nack: None,
            serial: String::new(),
            issuer: String::new(),
            not_after_unix: 0,
            certificate_seconds_left: 0,
            connections: Vec::new(),
            unreachable: Vec::new(),
            rtt_us: 0,
            transport: "quic".to_owned(),
            refusals: std::collections::BTreeMap::new(),
            unsaved: None,
            earlier: Vec::new(),
        }
    }

    #[test]
    fn what_is_not_known_of_a_sidecar_is_not_made_up() {
        let mut gone = sidecar("a1", "10.0.0.2:1");
        gone.state = SidecarState::Gone;
        gone.certificate_seconds_left = -1_700_000_000;
        let cells = cells(&gone);
        assert_eq!(cells[2], "gone since 1970-01-01T00:00:00Z");
        assert_eq!(cells[5..8], ["-", "-", "-"]);
    }

    #[test]
    fn who_is_on_loopback_while_others_are_not_is_named_with_what_to_do() {
        let (here, v6, there) = (
            sidecar("a1", "127.0.0.1:15018"),
            sidecar("a2", "[::1]:1"),
            sidecar("b1", "10.0.0.2:15008"),
        );
        let one_machine = [here.clone(), v6];
        assert_eq!(on_loopback(&one_machine), None);
        assert_eq!(on_loopback(std::slice::from_ref(&there)), None);
        let said = on_loopback(&[here, there]).unwrap();
        for part in [
            "orders.default/a1 at 127.0.0.1:15018",
            "--control",
            "--listen IP:PORT",
        ] {
            assert!(said.contains(part), "{part} in {said}");
        }
        assert!(!said.contains("b1"), "{said}");
    }
}
