//! What a link does to a packet's bytes: a bit flipped, an answer that it was too big.

/// Flips one bit, counted from the packet's first.
pub(crate) fn flip(packet: &mut [u8], bit: usize) {
    if let Some(byte) = packet.get_mut(bit / 8) {
        *byte ^= 0x80 >> (bit % 8);
    }
}

/// RFC 1812 §4.3.2.3: an ICMP error quotes as much as fits into 576 bytes.
const QUOTE_V4: usize = 576 - 28;
/// RFC 4443 §2.4 (c): as much as fits into IPv6's smallest MTU.
const MIN_MTU_V6: usize = 1280;
const QUOTE_V6: usize = MIN_MTU_V6 - 48;
const ICMP: u8 = 1;
const ICMP_V6: u8 = 58;

/// The answer to the sender of a packet that does not fit: "fragmentation needed" (RFC 1191 §4) or "packet
/// too big" (RFC 4443 §3.2). `None` where the rules allow no answer: for an ICMP error, for a fragment other
/// than the first, and for an IPv4 packet that may be fragmented, which this link does not do.
///
/// The answer comes from the address that the packet was for: the link has none of its own.
pub(crate) fn too_big(packet: &[u8], mtu: usize) -> Option<Vec<u8>> {
    match packet.first()? >> 4 {
        4 => too_big_v4(packet, mtu),
        6 => too_big_v6(packet, mtu),
        _ => None,
    }
}

fn too_big_v4(packet: &[u8], mtu: usize) -> Option<Vec<u8>> {
    let header = packet.get(..20)?;
    let fragment = u16::from_be_bytes([header[6], header[7]]);
    let may_not_fragment = fragment & 0x4000 != 0;
    let first = fragment & 0x1fff == 0;
    let payload = packet.get(usize::from(header[0] & 0x0f) * 4..)?;
    // RFC 1122 §3.2.2: no error about an error. Echo (8) and its reply (0) are none.
    let is_error = header[9] == ICMP && !matches!(payload.first(), Some(0 | 8));
    if !may_not_fragment || !first || is_error {
        return None;
    }
    let quote = &packet[..packet.len().min(QUOTE_V4)];

    let total = u16::try_from(28 + quote.len()).ok()?;
    let mut answer = vec![0; 28];
    answer[0] = 0x45;
    answer[2..4].copy_from_slice(&total.to_be_bytes());
    answer[8] = 64;
    answer[9] = ICMP;
    answer[12..16].copy_from_slice(&header[16..20]);
    answer[16..20].copy_from_slice(&header[12..16]);
    let sum = checksum(&[&answer[..20]]);
    answer[10..12].copy_from_slice(&sum.to_be_bytes());

    answer[20] = 3; // destination unreachable
    answer[21] = 4; // fragmentation needed and DF set
    answer[26..28].copy_from_slice(&u16::try_from(mtu).unwrap_or(u16::MAX).to_be_bytes());
    answer.extend_from_slice(quote);
    let sum = checksum(&[&answer[20..]]);
    answer[22..24].copy_from_slice(&sum.to_be_bytes());
    Some(answer)
}

fn too_big_v6(packet: &[u8], mtu: usize) -> Option<Vec<u8>> {
    let header = packet.get(..40)?;
    // RFC 4443 §2.4 (e.1): error messages have types below 128.
    let is_error = header[6] == ICMP_V6 && packet.get(40).is_some_and(|kind| *kind < 128);
    if is_error {
        return None;
    }
    let quote = &packet[..packet.len().min(QUOTE_V6)];

    let length = u16::try_from(8 + quote.len()).ok()?;
    let mut answer = vec![0; 48];
    answer[0] = 0x60;
    answer[4..6].copy_from_slice(&length.to_be_bytes());
    answer[6] = ICMP_V6;
    answer[7] = 64;
    answer[8..24].copy_from_slice(&header[24..40]);
    answer[24..40].copy_from_slice(&header[8..24]);

    answer[40] = 2; // packet too big
    // RFC 8201 §4: a host does not go below 1,280, whatever it is told.
    let mtu = u32::try_from(mtu.max(MIN_MTU_V6)).unwrap_or(u32::MAX);
    answer[44..48].copy_from_slice(&mtu.to_be_bytes());
    answer.extend_from_slice(quote);
    let pseudo = [
        0,
        0,
        length.to_be_bytes()[0],
        length.to_be_bytes()[1],
        0,
        0,
        0,
        ICMP_V6,
    ];
    let sum = checksum(&[&answer[8..40], &pseudo, &answer[40..]]);
    answer[42..44].copy_from_slice(&sum.to_be_bytes());
    Some(answer)
}

/// The Internet checksum (RFC 1071) over parts of which all but the last have even length.
pub(crate) fn checksum(parts: &[&[u8]]) -> u16 {
    let mut sum = 0_u64;
    for part in parts {
        for pair in part.chunks(2) {
            sum += u64::from(u16::from_be_bytes([
                pair[0],
                pair.get(1).copied().unwrap_or(0),
            ]));
        }
    }
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    !u16::try_from(sum).unwrap_or(u16::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn udp_v4(len: usize, fragment: u16) -> Vec<u8> {
        let mut packet = vec![0; len];
        packet[0] = 0x45;
        packet[6..8].copy_from_slice(&fragment.to_be_bytes());
        packet[9] = 17;
        packet[12..16].copy_from_slice(&[10, 0, 0, 1]);
        packet[16..20].copy_from_slice(&[10, 0, 0, 2]);
        packet
    }

    #[test]
    fn rfc1191_4_the_answer_names_the_mtu_and_quotes_the_packet() {
        let packet = udp_v4(1500, 0x4000);
        let answer = too_big(&packet, 1400).unwrap();
        assert_eq!(answer.len(), 576);
        assert_eq!((answer[20], answer[21]), (3, 4));
        assert_eq!(u16::from_be_bytes([answer[26], answer[27]]), 1400);
        assert_eq!(answer[12..16], [10, 0, 0, 2], "from the far end");
        assert_eq!(answer[16..20], [10, 0, 0, 1], "to the sender");
        assert_eq!(answer[28..], packet[..548]);
        assert_eq!(checksum(&[&answer[..20]]), 0, "the header's checksum holds");
        assert_eq!(checksum(&[&answer[20..]]), 0, "and ICMP's");
    }

    #[test]
    fn rfc4443_3_2_the_answer_for_ipv6_has_a_checksum_over_its_pseudo_header() {
        let mut packet = vec![0; 1500];
        packet[0] = 0x60;
        packet[6] = 17;
        packet[8..24].fill(0xaa);
        packet[24..40].fill(0xbb);
        let answer = too_big(&packet, 1400).unwrap();
        assert_eq!((answer[40], answer.len()), (2, 1280));
        assert_eq!(answer[8..24], [0xbb; 16]);
        assert_eq!(u32::from_be_bytes(answer[44..48].try_into().unwrap()), 1400);
        let length = u32::try_from(answer.len() - 40).unwrap().to_be_bytes();
        let pseudo = [&length[..], &[0, 0, 0, 58]].concat();
        assert_eq!(checksum(&[&answer[8..40], &pseudo, &answer[40..]]), 0);
    }

    #[test]
    fn rfc1122_3_2_2_some_packets_get_no_answer() {
        let mut error = udp_v4(1500, 0x4000);
        error[9] = ICMP;
        error[20] = 3;
        let mut echo = error.clone();
        echo[20] = 8;
        assert!(too_big(&echo, 1400).is_some());
        for (packet, why) in [
            (error, "an ICMP error"),
            (udp_v4(1500, 0), "may be fragmented"),
            (udp_v4(1500, 0x4001), "not the first fragment"),
            (vec![], "empty"),
            (vec![0x45; 3], "cut off"),
            (vec![0x60; 39], "cut off"),
            (
                vec![
                    0x4f, 0, 0, 0, 0, 0, 0x40, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0,
                ],
                "options cut off",
            ),
        ] {
            assert_eq!(too_big(&packet, 1400), None, "{why}");
        }
    }

    #[test]
    fn a_flip_changes_one_bit_and_never_beyond_the_end() {
        let mut packet = vec![0_u8; 2];
        flip(&mut packet, 9);
        assert_eq!(packet, [0, 0x40]);
        flip(&mut packet, 16);
        assert_eq!(packet, [0, 0x40]);
    }
}
