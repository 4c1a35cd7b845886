//! The ports in a packet, read and rewritten for a NAT.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use weft_netsim::Endpoint;

const TCP: u8 = 6;
const UDP: u8 = 17;

/// Which end of a packet.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum PacketEnd {
    /// Who sends it.
    Source,
    /// For whom it is.
    Destination,
}

/// What a NAT can see of one end of a packet.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Seen {
    /// A UDP or TCP endpoint.
    Endpoint(Endpoint),
    /// Another protocol, without ports: passes as it is.
    Portless,
    /// A later fragment, or cut off: its ports cannot be known.
    Unknown,
}

/// Where the transport header begins, and of which protocol.
struct Transport {
    offset: usize,
    protocol: u8,
}

impl Transport {
    fn of(packet: &[u8]) -> Option<Self> {
        match packet.first()? >> 4 {
            4 => {
                let header = packet.get(..20)?;
                let later_fragment = u16::from_be_bytes([header[6], header[7]]) & 0x1fff != 0;
                (!later_fragment).then(|| Self {
                    offset: usize::from(header[0] & 0x0f) * 4,
                    protocol: header[9],
                })
            }
            6 => Some(Self {
                offset: 40,
                protocol: *packet.get(6)?,
            }),
            _ => None,
        }
    }

    fn port(&self, end: PacketEnd) -> usize {
        self.offset
            + match end {
                PacketEnd::Source => 0,
                PacketEnd::Destination => 2,
            }
    }
}

/// One end of `packet`.
pub(crate) fn seen(packet: &[u8], end: PacketEnd) -> Seen {
    let Some(transport) = Transport::of(packet) else {
        return Seen::Unknown;
    };
    if !matches!(transport.protocol, TCP | UDP) {
        return Seen::Portless;
    }
    let at = transport.port(end);
    let (Some(port), Some(ip)) = (packet.get(at..at + 2), address(packet, end)) else {
        return Seen::Unknown;
    };
    let port = u16::from_be_bytes([port[0], port[1]]);
    Seen::Endpoint(Endpoint {
        protocol: transport.protocol,
        address: SocketAddr::new(ip, port),
    })
}

fn address(packet: &[u8], end: PacketEnd) -> Option<IpAddr> {
    let first = end == PacketEnd::Source;
    if packet.first()? >> 4 == 4 {
        let at = if first { 12 } else { 16 };
        let bytes: [u8; 4] = packet.get(at..at + 4)?.try_into().ok()?;
        Some(Ipv4Addr::from(bytes).into())
    } else {
        let at = if first { 8 } else { 24 };
        let bytes: [u8; 16] = packet.get(at..at + 16)?.try_into().ok()?;
        Some(Ipv6Addr::from(bytes).into())
    }
}

/// Gives one end of a UDP or TCP packet another port, and mends the checksum (RFC 1624 §3).
pub(crate) fn set_port(packet: &mut [u8], end: PacketEnd, port: u16) {
    let Some(transport) = Transport::of(packet) else {
        return;
    };
    let at = transport.port(end);
    let sum_at = transport.offset + if transport.protocol == TCP { 16 } else { 6 };
    if packet.len() < sum_at + 2 {
        return;
    }
    let old = u16::from_be_bytes([packet[at], packet[at + 1]]);
    packet[at..at + 2].copy_from_slice(&port.to_be_bytes());
    let sum = u16::from_be_bytes([packet[sum_at], packet[sum_at + 1]]);
    // RFC 768: a UDP checksum of 0 means that there is none.
    if transport.protocol == UDP && sum == 0 {
        return;
    }
    let mended = match mend(sum, old, port) {
        0 if transport.protocol == UDP => 0xffff,
        mended => mended,
    };
    packet[sum_at..sum_at + 2].copy_from_slice(&mended.to_be_bytes());
}

/// RFC 1624 §3, equation 3: HC' = ~(~HC + ~m + m').
fn mend(sum: u16, old: u16, new: u16) -> u16 {
    let total = u32::from(!sum) + u32::from(!old) + u32::from(new);
    let folded = (total & 0xffff) + (total >> 16);
    let folded = (folded & 0xffff) + (folded >> 16);
    !u16::try_from(folded).unwrap_or(u16::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::packet::checksum;

    /// A packet of 10.0.0.1:4000 for 10.0.0.2:53 with a right checksum.
    fn packet(protocol: u8) -> Vec<u8> {
        let transport_len = if protocol == TCP { 24 } else { 12 };
        let mut packet = vec![0; 20 + transport_len];
        packet[0] = 0x45;
        packet[9] = protocol;
        packet[12..16].copy_from_slice(&[10, 0, 0, 1]);
        packet[16..20].copy_from_slice(&[10, 0, 0, 2]);
        packet[20..22].copy_from_slice(&4000_u16.to_be_bytes());
        packet[22..24].copy_from_slice(&53_u16.to_be_bytes());
        let end = packet.len();
        packet[end - 4..].copy_from_slice(b"weft");
        let sum = total(&packet);
        let at = if protocol == TCP { 36 } else { 26 };
        packet[at..at + 2].copy_from_slice(&sum.to_be_bytes());
        packet
    }

    fn total(packet: &[u8]) -> u16 {
        let len = u16::try_from(packet.len() - 20).unwrap().to_be_bytes();
        checksum(&[
            &packet[12..20],
            &[0, packet[9], len[0], len[1]],
            &packet[20..],
        ])
    }

    #[test]
    fn rfc1624_3_a_translated_packet_keeps_a_right_checksum() {
        for protocol in [TCP, UDP] {
            for port in [0_u16, 1, 53, 20_000, 0x7fff, u16::MAX] {
                let mut packet = packet(protocol);
                assert_eq!(total(&packet), 0, "the control");
                set_port(&mut packet, PacketEnd::Source, port);
                assert_eq!(total(&packet), 0, "protocol {protocol}, port {port}");
                let Seen::Endpoint(source) = seen(&packet, PacketEnd::Source) else {
                    panic!("has ports")
                };
                assert_eq!(source.address, SocketAddr::from(([10, 0, 0, 1], port)));
                let Seen::Endpoint(destination) = seen(&packet, PacketEnd::Destination) else {
                    panic!("has ports")
                };
                assert_eq!(destination.address, SocketAddr::from(([10, 0, 0, 2], 53)));
            }
        }
    }

    #[test]
    fn rfc768_a_packet_without_a_checksum_gets_none() {
        let mut packet = packet(UDP);
        packet[26..28].fill(0);
        set_port(&mut packet, PacketEnd::Destination, 4444);
        assert_eq!(packet[26..28], [0, 0]);
    }

    #[test]
    fn what_has_no_ports_is_told_from_what_cannot_be_known() {
        let mut icmp = packet(UDP);
        icmp[9] = 1;
        assert_eq!(seen(&icmp, PacketEnd::Source), Seen::Portless);
        let mut fragment = packet(UDP);
        fragment[7] = 1;
        assert_eq!(seen(&fragment, PacketEnd::Source), Seen::Unknown);
        assert_eq!(seen(&packet(UDP)[..21], PacketEnd::Source), Seen::Unknown);
        assert_eq!(seen(&[], PacketEnd::Source), Seen::Unknown);
    }
}
