//! What of the settings must fit together, checked before anything is touched.

use std::collections::BTreeSet;
use std::net::SocketAddr;

use weft_certs::TrustDomain;
use weft_resources::{DEFAULT_NAMESPACE, ServiceName};

use crate::Error;
use crate::config::{DEFAULT_TRUST_DOMAIN, Delegate, PeerProfile, SidecarConfig};

/// Where a local TCP port leads.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Backend {
    /// As written, without the port.
    host: String,
    port: u16,
}

impl Backend {
    fn parse(text: &str) -> Result<Self, Error> {
        // The namespace of a bare name is the sidecar's own, known once it has joined.
        match ServiceName::parse_host(text, DEFAULT_NAMESPACE) {
            Ok((_, Some(port))) => {
                let host = text.rsplit_once(':').map_or(text, |(host, _)| host);
                let host = host.to_owned();
                Ok(Self { host, port })
            }
            Ok((_, None)) => Err(Error::Config(format!(
                "the local TCP port's backend '{text}' has no port: write it as SERVICE:PORT"
            ))),
            Err(error) => Err(Error::Config(format!(
                "the local TCP port's backend: {error}"
            ))),
        }
    }

    /// The service, for a sidecar of this namespace.
    pub(crate) fn in_namespace(&self, namespace: &str) -> (ServiceName, u16) {
        let (service, _) = ServiceName::parse_host(&self.host, namespace)
            .expect("parsed before, with another namespace");
        (service, self.port)
    }
}

/// Checks the settings; gives the backends of the local TCP ports, in their order.
pub(crate) fn check(config: &SidecarConfig) -> Result<Vec<Backend>, Error> {
    let mut ports = BTreeSet::new();
    for app in &config.apps {
        if app.port == 0 || app.addr.port() == 0 {
            return Err(Error::Config(format!(
                "the application's port {} at {} cannot be called: ports are 1 to 65535",
                app.port, app.addr
            )));
        }
        if !ports.insert(app.port) {
            return Err(Error::Config(format!(
                "port {} of the service is given twice: give each port of the application a number of its own",
                app.port
            )));
        }
    }
    if config.control.is_empty() {
        return Err(Error::Config(
            "no control node is named: pass --control HOST:PORT".to_owned(),
        ));
    }
    if let (Some(identity), Some(own)) = (&config.identity, &config.workload)
        && *identity == own.socket
    {
        return Err(Error::Config(format!(
            "{} is this sidecar's own workload socket, which has no identity to give before it has got one: name the socket of another provider with --identity",
            identity.display()
        )));
    }
    if let Some(delegate) = &config.delegate {
        check_delegate(delegate)?;
    }
    for profile in &config.peer_profiles {
        peer(profile, DEFAULT_NAMESPACE)?;
    }
    config
        .tcp_listeners
        .iter()
        .map(|listener| Backend::parse(&listener.backend))
        .collect()
}

fn check_delegate(delegate: &Delegate) -> Result<(), Error> {
    let domain = TrustDomain::parse(DEFAULT_TRUST_DOMAIN).expect("a constant that is a legal name");
    weft_certs::delegate_id(&domain, &delegate.site)
        .map_err(|error| Error::Config(format!("the site: {error}")))?;
    match delegate.addresses.is_empty() {
        true => Err(Error::Config(format!(
            "the delegate of site {} has no address: pass --delegate HOST:PORT",
            delegate.site
        ))),
        false => Ok(()),
    }
}

/// The service that a profile is for, for a sidecar of this namespace.
pub(crate) fn peer(profile: &PeerProfile, namespace: &str) -> Result<ServiceName, Error> {
    let named = ServiceName::parse_host(&profile.service, namespace);
    let (name, reason) = (
        &profile.service,
        "a profile is for a service, not for a port",
    );
    match named {
        Ok((service, None)) => Ok(service),
        Ok((_, Some(_))) => Err(Error::Config(format!(
            "the peer '{name}' has a port: {reason}"
        ))),
        Err(error) => Err(Error::Config(format!("the profile of a peer: {error}"))),
    }
}

/// The address that is told to the control node. An unspecified IP stands for the one that it sees.
pub(crate) fn advertised(config: &SidecarConfig, mesh: SocketAddr) -> SocketAddr {
    match config.advertise {
        Some(addr) if addr.port() == 0 => SocketAddr::new(addr.ip(), mesh.port()),
        Some(addr) => addr,
        None => mesh,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{AppPort, TcpListener};

    fn config() -> SidecarConfig {
        let mut config =
            SidecarConfig::new("/nowhere".into(), TrustDomain::parse("weft.local").unwrap());
        config.control.push("127.0.0.1:15008".to_owned());
        config
    }

    #[test]
    fn settings_that_cannot_work_are_refused_in_words() {
        let app = |port| AppPort {
            protocol: weft_wire::Protocol::Http,
            port,
            addr: "127.0.0.1:8080".parse().unwrap(),
        };
        let tcp = |backend: &str| TcpListener {
            listen: "127.0.0.1:0".parse().unwrap(),
            backend: backend.to_owned(),
        };
        type Change = Box<dyn Fn(&mut SidecarConfig)>;
        let pinned = |service: &str| crate::PeerProfile {
            service: service.to_owned(),
            profile: weft_transport::Profile::dc(),
        };
        let away = |site: &str, addresses: &[&str]| crate::Delegate {
            site: site.to_owned(),
            addresses: addresses.iter().map(|a| (*a).to_owned()).collect(),
        };
        let cases: [(&str, Change); 10] = [
            (
                "given twice",
                Box::new(move |c| c.apps = vec![app(80), app(80)]),
            ),
            ("cannot be called", Box::new(move |c| c.apps = vec![app(0)])),
            ("no control node", Box::new(|c| c.control.clear())),
            (
                "own workload socket",
                Box::new(|c| {
                    c.identity = Some("/run/a.sock".into());
                    c.workload = Some(crate::WorkloadApi {
                        socket: "/run/a.sock".into(),
                        allow: Vec::new(),
                    });
                }),
            ),
            (
                "name of a site",
                Box::new(move |c| c.delegate = Some(away("Paris", &["10.0.0.1:15008"]))),
            ),
            (
                "has no address",
                Box::new(move |c| c.delegate = Some(away("paris", &[]))),
            ),
            (
                "has no port",
                Box::new(move |c| c.tcp_listeners = vec![tcp("ledger")]),
            ),
            (
                "not for a port",
                Box::new(move |c| c.peer_profiles = vec![pinned("ledger:80")]),
            ),
            (
                "does not name a service",
                Box::new(move |c| c.peer_profiles = vec![pinned("10.0.0.1.2.3")]),
            ),
            (
                "does not name a service",
                Box::new(move |c| c.tcp_listeners = vec![tcp("10.0.0.1.2.3:1")]),
            ),
        ];
        for (expected, change) in cases {
            let mut config = config();
            change(&mut config);
            let error = check(&config).unwrap_err().to_string();
            assert!(error.contains(expected), "{error}");
        }
    }

    #[test]
    fn a_bare_backend_is_in_the_sidecars_namespace() {
        for (text, expected) in [
            ("ledger:5432", "ledger.team"),
            ("ledger.default:5432", "ledger.default"),
        ] {
            let (service, port) = Backend::parse(text).unwrap().in_namespace("team");
            assert_eq!((service.to_string().as_str(), port), (expected, 5432));
        }
    }

    #[test]
    fn the_advertised_address_is_the_given_one_or_the_one_that_is_seen() {
        let mesh = "0.0.0.0:15008".parse().unwrap();
        for (given, expected) in [
            (None, "0.0.0.0:15008"),
            (Some("10.0.0.1:0"), "10.0.0.1:15008"),
            (Some("10.0.0.1:7"), "10.0.0.1:7"),
        ] {
            let mut config = config();
            config.advertise = given.map(|text| text.parse().unwrap());
            assert_eq!(advertised(&config, mesh), expected.parse().unwrap());
        }
    }
}
