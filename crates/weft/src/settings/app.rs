//! Two settings with a form of their own: what the application serves, and local ports for TCP services.

use std::net::SocketAddr;
use std::str::FromStr;

use weft_wire::Protocol;

/// One port of the application beside this sidecar: `[http/|tcp/][PORT=]HOST:PORT`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct AppSpec {
    /// How the port is carried.
    pub(crate) protocol: Protocol,
    /// The port that callers name.
    pub(crate) port: u16,
    /// Host of the application, a name or an address without brackets.
    pub(crate) host: String,
    /// Port on which the application listens.
    pub(crate) app_port: u16,
}

/// A local port bound to a named TCP service: `LISTEN=SERVICE[.NAMESPACE]:PORT`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct TcpListen {
    /// Where the sidecar listens for its application.
    pub(crate) listen: SocketAddr,
    /// Service called.
    pub(crate) service: String,
    /// Its namespace, if named.
    pub(crate) namespace: Option<String>,
    /// Port of the service.
    pub(crate) port: u16,
}

impl FromStr for AppSpec {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let (protocol, rest) = match text.split_once('/') {
            None => (Protocol::Http, text),
            Some(("http", rest)) => (Protocol::Http, rest),
            Some(("tcp", rest)) => (Protocol::Tcp, rest),
            Some((other, _)) => return Err(format!("'{other}/' is not 'http/' or 'tcp/'")),
        };
        let (service_port, address) = match rest.split_once('=') {
            None => (None, rest),
            Some((port, address)) => (Some(port_number(port)?), address),
        };
        let (host, app_port) = host_port(address)?;
        let port = service_port.unwrap_or(match protocol {
            Protocol::Http => 80,
            Protocol::Tcp => app_port,
        });
        Ok(Self {
            protocol,
            port,
            host,
            app_port,
        })
    }
}

impl FromStr for TcpListen {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let (listen, target) = text
            .split_once('=')
            .ok_or("expected LISTEN=SERVICE:PORT, such as 127.0.0.1:5432=invoices:5432")?;
        let listen = listen
            .parse()
            .map_err(|_| format!("'{listen}' is not an address with a port"))?;
        let (name, port) = target
            .rsplit_once(':')
            .ok_or_else(|| format!("'{target}' has no port"))?;
        let port = port_number(port)?;
        let (service, namespace) = match name.split_once('.') {
            Some((service, namespace)) => (service, Some(namespace)),
            None => (name, None),
        };
        if service.is_empty() || namespace.is_some_and(str::is_empty) {
            return Err(format!("'{name}' is not SERVICE or SERVICE.NAMESPACE"));
        }
        Ok(Self {
            listen,
            service: service.to_owned(),
            namespace: namespace.map(str::to_owned),
            port,
        })
    }
}

/// `HOST:PORT` or `[IPV6]:PORT`.
pub(super) fn host_port(text: &str) -> Result<(String, u16), String> {
    let (host, port) = text
        .rsplit_once(':')
        .ok_or_else(|| format!("'{text}' has no port: expected HOST:PORT"))?;
    let bare = host.strip_prefix('[').and_then(|h| h.strip_suffix(']'));
    if host.is_empty() || (bare.is_none() && host.contains(':')) {
        return Err(format!("'{host}' is not a host: expected HOST:PORT"));
    }
    Ok((bare.unwrap_or(host).to_owned(), port_number(port)?))
}

fn port_number(text: &str) -> Result<u16, String> {
    match text.parse() {
        Ok(port) if port != 0 => Ok(port),
        _ => Err(format!("'{text}' is not a port from 1 to 65535")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_app_is_http_on_port_80_unless_it_says_otherwise() {
        let app = |protocol, port, host: &str, app_port| {
            Ok(AppSpec {
                protocol,
                port,
                host: host.to_owned(),
                app_port,
            })
        };
        let cases = [
            ("127.0.0.1:8080", app(Protocol::Http, 80, "127.0.0.1", 8080)),
            ("http/[::1]:80", app(Protocol::Http, 80, "::1", 80)),
            ("81=localhost:1", app(Protocol::Http, 81, "localhost", 1)),
            (
                "tcp/localhost:5432",
                app(Protocol::Tcp, 5432, "localhost", 5432),
            ),
            (
                "tcp/25=127.0.0.1:2525",
                app(Protocol::Tcp, 25, "127.0.0.1", 2525),
            ),
        ];
        for (text, expected) in cases {
            assert_eq!(text.parse::<AppSpec>(), expected, "{text}");
        }
        for text in [
            "", ":80", "a", "a:0", "a:65536", "udp/a:1", "x=a:1", "::1:80",
        ] {
            assert!(text.parse::<AppSpec>().is_err(), "{text:?} was taken");
        }
    }

    #[test]
    fn a_tcp_listener_names_a_service_and_its_port() {
        let listen: TcpListen = "127.0.0.1:5432=invoices.billing:5433".parse().unwrap();
        assert_eq!(listen.listen.port(), 5432);
        assert_eq!(listen.service, "invoices");
        assert_eq!(listen.namespace.as_deref(), Some("billing"));
        assert_eq!(listen.port, 5433);
        for text in [
            "",
            "127.0.0.1:1",
            "x=invoices:1",
            "127.0.0.1:1=invoices",
            "127.0.0.1:1=:1",
        ] {
            assert!(text.parse::<TcpListen>().is_err(), "{text:?} was taken");
        }
    }
}
