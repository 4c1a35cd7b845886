//! How a datagram, or a batch of them, goes from the process that reads to the one it is for: what the kernel said
//! of it in a head of fixed length, then its bytes.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, SocketAddrV6};

use quinn::udp::{EcnCodepoint, RecvMeta};

/// Length of the head.
pub(super) const HEAD: usize = 48;

const V6: u8 = 1;
const HAS_DST: u8 = 2;
const DST_V6: u8 = 4;

/// The head of a frame: `meta`, with the lengths of what is passed on.
///
/// | bytes | |
/// |---|---|
/// | 0 | families of the addresses |
/// | 1 | ECN bits |
/// | 2–3 | length of each datagram of the batch |
/// | 4–5, 6–9, 10–25 | source: port, scope, address |
/// | 26–41 | destination address |
pub(super) fn encode(meta: &RecvMeta, stride: usize) -> [u8; HEAD] {
    let mut head = [0; HEAD];
    head[1] = meta.ecn.map_or(0, |ecn| ecn as u8);
    // What the kernel hands over in one piece is at most 65,535 bytes.
    let stride = u16::try_from(stride).unwrap_or(u16::MAX);
    head[2..4].copy_from_slice(&stride.to_be_bytes());
    head[4..6].copy_from_slice(&meta.addr.port().to_be_bytes());
    if let SocketAddr::V6(addr) = meta.addr {
        head[6..10].copy_from_slice(&addr.scope_id().to_be_bytes());
    }
    if put(&mut head[10..26], meta.addr.ip()) {
        head[0] |= V6;
    }
    if let Some(dst) = meta.dst_ip {
        head[0] |= HAS_DST;
        if put(&mut head[26..42], dst) {
            head[0] |= DST_V6;
        }
    }
    head
}

/// What the kernel said of a frame with so many bytes after its head; `None` if this is no frame.
pub(super) fn decode(head: &[u8; HEAD], len: usize) -> Option<RecvMeta> {
    let two = |at: usize| u16::from_be_bytes([head[at], head[at + 1]]);
    let stride = usize::from(two(2));
    if stride == 0 || len == 0 {
        return None;
    }
    let (port, scope) = (two(4), [head[6], head[7], head[8], head[9]]);
    let addr = match get(&head[10..26], head[0] & V6 != 0)? {
        IpAddr::V4(ip) => SocketAddr::from((ip, port)),
        IpAddr::V6(ip) => SocketAddrV6::new(ip, port, 0, u32::from_be_bytes(scope)).into(),
    };
    let dst = (head[0] & HAS_DST != 0).then(|| get(&head[26..42], head[0] & DST_V6 != 0));
    Some(RecvMeta {
        addr,
        len,
        stride,
        ecn: EcnCodepoint::from_bits(head[1]),
        dst_ip: dst.flatten(),
    })
}

/// Writes an address; true if it is of IPv6.
fn put(place: &mut [u8], ip: IpAddr) -> bool {
    match ip {
        IpAddr::V4(ip) => {
            place[..4].copy_from_slice(&ip.octets());
            false
        }
        IpAddr::V6(ip) => {
            place.copy_from_slice(&ip.octets());
            true
        }
    }
}

fn get(place: &[u8], v6: bool) -> Option<IpAddr> {
    let whole: [u8; 16] = place.try_into().ok()?;
    let [a, b, c, d, ..] = whole;
    Some(match v6 {
        true => Ipv6Addr::from(whole).into(),
        false => Ipv4Addr::new(a, b, c, d).into(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_the_kernel_said_of_a_datagram_arrives_unchanged() {
        let addrs = ["10.1.2.3:4567", "[::ffff:10.1.2.3]:4567", "[fe80::1%7]:9"];
        let dsts = [None, Some("10.0.0.1"), Some("fe80::2")];
        let ecns = [None, Some(EcnCodepoint::Ce), Some(EcnCodepoint::Ect0)];
        for (addr, (dst, ecn)) in addrs.iter().zip(dsts.iter().zip(ecns)) {
            let meta = RecvMeta {
                addr: addr.parse().unwrap(),
                len: 2_000,
                stride: 1_200,
                ecn,
                dst_ip: dst.map(|dst| dst.parse().unwrap()),
            };
            let decoded = decode(&encode(&meta, meta.stride), meta.len).unwrap();
            assert_eq!(decoded.addr, meta.addr);
            assert_eq!((decoded.len, decoded.stride), (meta.len, meta.stride));
            assert_eq!((decoded.ecn, decoded.dst_ip), (meta.ecn, meta.dst_ip));
        }
    }

    #[test]
    fn what_is_no_frame_is_no_endless_batch() {
        assert!(decode(&[0; HEAD], 100).is_none());
        assert!(decode(&[0xff; HEAD], 0).is_none());
    }
}
