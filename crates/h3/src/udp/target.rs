//! Where a CONNECT-UDP request wants its packets to go.

use std::fmt;
use std::net::{IpAddr, Ipv6Addr};
use std::num::NonZeroU16;

use super::InvalidUdp;

/// Longest host name (RFC 1035 §2.3.4).
const MAX_NAME: usize = 255;

/// A host: an address, or a name that the server resolves before it answers (RFC 9298 §3.1).
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum UdpHost {
    /// An IPv4 or IPv6 address, without a zone.
    Ip(IpAddr),
    /// A name, in the characters of host names.
    Name(Box<str>),
}

/// A host and a port. Whether anybody may send there is for the layer above to decide.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct UdpTarget {
    /// The host.
    pub host: UdpHost,
    /// The port: 1 to 65535.
    pub port: NonZeroU16,
}

impl UdpTarget {
    /// Checks a host (an IPv6 address without brackets) and a port.
    ///
    /// # Errors
    /// When the host is empty, or neither an address nor a host name; when the port is 0.
    pub fn new(host: &str, port: u16) -> Result<Self, InvalidUdp> {
        Ok(Self {
            host: parse_host(host)?,
            port: NonZeroU16::new(port).ok_or(invalid("the port is 0"))?,
        })
    }

    /// From the values of `target_host` and `target_port`, still percent-encoded.
    pub(super) fn decode(host: &str, port: &str) -> Result<Self, InvalidUdp> {
        const PORT: InvalidUdp = invalid("the port is not a number from 1 to 65535");
        let port = percent_decode(port)?;
        // Takes "+53", which is no port.
        let digits = port.bytes().all(|b| b.is_ascii_digit());
        let port: u16 = port.parse().ok().filter(|_| digits).ok_or(PORT)?;
        Self::new(&percent_decode(host)?, port)
    }
}

impl fmt::Display for UdpTarget {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.host {
            UdpHost::Ip(IpAddr::V6(ip)) => write!(f, "[{ip}]:{}", self.port),
            UdpHost::Ip(ip) => write!(f, "{ip}:{}", self.port),
            UdpHost::Name(name) => write!(f, "{name}:{}", self.port),
        }
    }
}

impl fmt::Display for UdpHost {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Ip(ip) => ip.fmt(f),
            Self::Name(name) => f.write_str(name),
        }
    }
}

fn parse_host(host: &str) -> Result<UdpHost, InvalidUdp> {
    if let Ok(ip) = host.parse::<IpAddr>() {
        return Ok(UdpHost::Ip(ip));
    }
    let rule = if host.is_empty() {
        "the host is empty"
    } else if host.len() > MAX_NAME {
        "the host is longer than 255 bytes"
    } else if host
        .split_once('%')
        .is_some_and(|(ip, _)| ip.parse::<Ipv6Addr>().is_ok())
    {
        "an address with a zone has a meaning on one machine only"
    } else if !host
        .bytes()
        .all(|b| b.is_ascii_alphanumeric() || b"-._".contains(&b))
    {
        "the host is neither an address nor a host name"
    } else {
        return Ok(UdpHost::Name(host.into()));
    };
    Err(invalid(rule))
}

/// A template variable's value (RFC 6570 §3.2.1): unreserved characters and percent-encoded bytes.
fn percent_decode(text: &str) -> Result<String, InvalidUdp> {
    let mut out = String::with_capacity(text.len());
    let mut bytes = text.bytes();
    while let Some(byte) = bytes.next() {
        let byte = match byte {
            b'%' => hex(bytes.next())
                .zip(hex(bytes.next()))
                .map(|(a, b)| a << 4 | b),
            byte => Some(byte),
        };
        match byte {
            Some(byte) if byte.is_ascii() => out.push(char::from(byte)),
            _ => return Err(invalid("a percent-encoding is broken, or not ASCII")),
        }
    }
    Ok(out)
}

fn hex(digit: Option<u8>) -> Option<u8> {
    char::from(digit?).to_digit(16).map(|d| d as u8)
}

const fn invalid(rule: &'static str) -> InvalidUdp {
    InvalidUdp {
        what: "target",
        rule,
    }
}
