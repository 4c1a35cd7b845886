//! What two sidecars of one process may not both have, checked before anything is touched.

use std::fmt;
use std::net::SocketAddr;
use std::path::Path;

use super::{MAX_GROUP, Member};
use crate::config::TokenSource;

/// Something that only one can have.
#[derive(Debug, Clone, Copy)]
enum Claim<'a> {
    Udp(SocketAddr),
    Tcp(SocketAddr),
    File(&'a Path),
}

impl Claim<'_> {
    fn clashes(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::Udp(one), Self::Udp(other)) | (Self::Tcp(one), Self::Tcp(other)) => {
                overlap(*one, *other)
            }
            (Self::File(one), Self::File(other)) => one == other,
            _ => false,
        }
    }
}

impl fmt::Display for Claim<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Udp(addr) | Self::Tcp(addr) => addr.fmt(f),
            Self::File(path) => path.display().fmt(f),
        }
    }
}

/// Whether both cannot be listened on. Linux takes `[::]` for all of IPv4 too.
fn overlap(one: SocketAddr, other: SocketAddr) -> bool {
    let covers = |all: SocketAddr, some: SocketAddr| {
        all.ip().is_unspecified() && (all.is_ipv6() || some.is_ipv4())
    };
    one.port() != 0
        && one.port() == other.port()
        && (one.ip() == other.ip() || covers(one, other) || covers(other, one))
}

/// The claims of one, with the settings that make them.
fn claims(member: &Member) -> Vec<(&'static str, Claim<'_>)> {
    let config = &member.config;
    let mut claims = vec![
        ("state-dir", Claim::File(&config.state_dir)),
        ("listen", Claim::Udp(config.mesh_listen)),
        ("outbound", Claim::Tcp(config.outbound_listen)),
        ("metrics", Claim::Tcp(config.metrics_listen)),
    ];
    if config.tcp_fallback {
        claims.push(("listen", Claim::Tcp(config.mesh_listen)));
    }
    let tcp = config.tcp_listeners.iter();
    claims.extend(tcp.map(|local| ("tcp-listen", Claim::Tcp(local.listen))));
    if let Some(workload) = &config.workload {
        claims.push(("workload-socket", Claim::File(&workload.socket)));
    }
    if let Some(file) = &config.ready_file {
        claims.push(("ready-file", Claim::File(file)));
    }
    // A provider gives a process one identity, so both would be the same service.
    if let Some(provider) = &config.identity {
        claims.push(("identity", Claim::File(provider)));
    }
    // It would be the one service or the other, whichever comes first.
    if let TokenSource::File(file) = &config.token {
        claims.push(("token-file", Claim::File(file)));
    }
    claims
}

/// Refuses in one sentence what cannot go on together.
pub(super) fn check(members: &[Member]) -> Result<(), String> {
    match members.len() {
        0 => {
            return Err(
                "no sidecar is described: name at least one settings file with --config".to_owned(),
            );
        }
        count if count > MAX_GROUP => {
            return Err(format!(
                "{count} sidecars are too many for one process, which holds {MAX_GROUP} at most: start another one for the rest"
            ));
        }
        _ => {}
    }
    for (index, member) in members.iter().enumerate() {
        for earlier in &members[..index] {
            clash(earlier, member)?;
        }
    }
    Ok(())
}

fn clash(one: &Member, other: &Member) -> Result<(), String> {
    let theirs = claims(other);
    for (of_one, claim) in claims(one) {
        let clashing = theirs.iter().find(|(_, their)| claim.clashes(their));
        let Some((of_other, their)) = clashing else {
            continue;
        };
        let (one, other) = (&one.name, &other.name);
        let same = of_one == *of_other && claim.to_string() == their.to_string();
        return Err(match same {
            true => format!(
                "{one} and {other} both have `{of_one}` {claim}: each needs one of its own, in its settings file"
            ),
            false => format!(
                "`{of_one}` {claim} of {one} and `{of_other}` {their} of {other} clash: give one of them another"
            ),
        });
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{SidecarConfig, TcpListener, WorkloadApi};

    /// With nothing in common with another number's.
    fn member(number: u16) -> Member {
        let at = |port: u16| SocketAddr::from(([127, 0, 0, 1], port + number));
        let mut config = SidecarConfig::new(
            format!("/state/{number}").into(),
            None::<weft_certs::TrustDomain>,
        );
        config.mesh_listen = at(10_000);
        config.outbound_listen = at(11_000);
        config.metrics_listen = at(12_000);
        Member {
            name: format!("{number}.yaml"),
            config,
        }
    }

    #[test]
    fn none_and_too_many_are_refused() {
        assert!(check(&[]).unwrap_err().contains("--config"));
        let many: Vec<Member> = (0..65).map(member).collect();
        assert_eq!(check(&many[..64]), Ok(()));
        let said = check(&many).unwrap_err();
        assert!(said.contains("65") && said.contains("64 at most"), "{said}");
    }

    #[test]
    fn what_only_one_can_have_is_refused_to_the_second() {
        type Change = fn(&mut SidecarConfig);
        let any = |port: u16| SocketAddr::from(([0, 0, 0, 0], port));
        assert!(overlap(any(7), "127.0.0.1:7".parse().unwrap()));
        let cases: [(&str, Change); 11] = [
            ("`state-dir` /state/1", |c| c.state_dir = "/state/1".into()),
            ("`listen` 127.0.0.1:10001", |c| {
                c.mesh_listen = "127.0.0.1:10001".parse().unwrap();
            }),
            ("0.0.0.0:10001", |c| {
                c.mesh_listen = "0.0.0.0:10001".parse().unwrap()
            }),
            ("[::]:10001", |c| {
                c.mesh_listen = "[::]:10001".parse().unwrap()
            }),
            ("`outbound` 127.0.0.1:11001", |c| {
                c.outbound_listen = "127.0.0.1:11001".parse().unwrap();
            }),
            ("`outbound` 127.0.0.1:11001 of 1.yaml and `metrics`", |c| {
                c.metrics_listen = "127.0.0.1:11001".parse().unwrap();
            }),
            ("`tcp-listen` 0.0.0.0:12001 of 2.yaml", |c| {
                c.tcp_listeners.push(TcpListener {
                    listen: "0.0.0.0:12001".parse().unwrap(),
                    backend: "ledger:1".to_owned(),
                });
            }),
            ("`workload-socket` /run/w", |c| {
                c.workload = Some(WorkloadApi {
                    socket: "/run/w".into(),
                    allow: Vec::new(),
                });
            }),
            ("`ready-file` /run/r", |c| {
                c.ready_file = Some("/run/r".into())
            }),
            ("`identity` /run/i", |c| {
                c.identity = Some("/run/i".into());
            }),
            ("`token-file` /t", |c| {
                c.token = TokenSource::File("/t".into())
            }),
        ];
        for (expected, change) in cases {
            let mut one = member(1);
            if !expected.contains("1000")
                && !expected.contains("1100")
                && !expected.contains("1200")
            {
                change(&mut one.config);
            }
            let mut two = member(2);
            change(&mut two.config);
            let said = check(&[member(3), one, two]).unwrap_err();
            assert!(said.contains(expected), "{expected}: {said}");
            assert!(said.contains("1.yaml") && said.contains("2.yaml"), "{said}");
        }
    }

    #[test]
    fn what_both_may_have_is_let_through() {
        let (mut one, mut two) = (member(1), member(2));
        for config in [&mut one.config, &mut two.config] {
            // The system chooses, twice.
            config.mesh_listen = "0.0.0.0:0".parse().unwrap();
            config.outbound_listen = "127.0.0.1:0".parse().unwrap();
            config.metrics_listen = "127.0.0.1:0".parse().unwrap();
            config.control = vec!["10.0.0.1:15008".to_owned()];
        }
        assert_eq!(check(&[one, two]), Ok(()));
        // UDP and TCP are two worlds; so are two addresses of one machine.
        let (one, mut two) = (member(1), member(2));
        two.config.outbound_listen = "127.0.0.2:11001".parse().unwrap();
        assert_eq!(check(&[one.clone(), two.clone()]), Ok(()));
        two.config.outbound_listen = one.config.mesh_listen;
        assert!(
            check(&[one.clone(), two.clone()]).is_err(),
            "TCP answers there"
        );
        let mut quic = one;
        quic.config.tcp_fallback = false;
        assert_eq!(check(&[quic, two]), Ok(()));
    }
}
