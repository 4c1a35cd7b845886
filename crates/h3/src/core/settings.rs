//! SETTINGS (RFC 9114 §7.2.4).

use std::collections::BTreeSet;

use super::frame::{grease, kind};
use super::{Fault, varint};
use crate::Code;

const QPACK_MAX_TABLE_CAPACITY: u64 = 0x1;
const MAX_FIELD_SECTION_SIZE: u64 = 0x6;
const QPACK_BLOCKED_STREAMS: u64 = 0x7;
const ENABLE_CONNECT_PROTOCOL: u64 = 0x8;
const H3_DATAGRAM: u64 = 0x33;
/// "weft" and the number of the form of its parity (`docs/adr/0017-parity.md`).
const PARITY: u64 = u64::from_be_bytes(*b"\0\0\0weft\x01");

/// Largest SETTINGS payload that is taken, in bytes. Real ones have about 30.
pub(crate) const MAX_PAYLOAD: u64 = 4096;

/// What a peer said about itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Settings {
    /// Largest field section that the peer takes; no limit when it did not say.
    pub(crate) max_field_section_size: u64,
    /// A server takes extended CONNECT (RFC 9220 §3).
    pub(crate) enable_connect_protocol: bool,
    /// HTTP datagrams are taken in QUIC DATAGRAM frames (RFC 9297 §2.1.1).
    pub(crate) h3_datagram: bool,
    /// Parity is taken beneath QUIC.
    pub(crate) parity: bool,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            max_field_section_size: u64::MAX,
            enable_connect_protocol: false,
            h3_datagram: false,
            parity: false,
        }
    }
}

impl Settings {
    /// Reads a SETTINGS payload.
    pub(crate) fn parse(mut payload: &[u8]) -> Result<Self, Fault> {
        let mut settings = Self::default();
        let mut seen = BTreeSet::new();
        while !payload.is_empty() {
            let id = take(&mut payload)?;
            let value = take(&mut payload)?;
            if !seen.insert(id) {
                return Err(error("a setting was sent twice"));
            }
            match id {
                // RFC 9114 §7.2.4.1: HTTP/2's settings are reserved.
                0x2..=0x5 => return Err(error("a reserved HTTP/2 setting was sent")),
                MAX_FIELD_SECTION_SIZE => settings.max_field_section_size = value,
                ENABLE_CONNECT_PROTOCOL | H3_DATAGRAM | PARITY if value > 1 => {
                    return Err(error("a boolean setting was neither 0 nor 1"));
                }
                ENABLE_CONNECT_PROTOCOL => settings.enable_connect_protocol = value == 1,
                H3_DATAGRAM => settings.h3_datagram = value == 1,
                PARITY => settings.parity = value == 1,
                // Our encoder never uses a dynamic table, whatever the peer would allow.
                QPACK_MAX_TABLE_CAPACITY | QPACK_BLOCKED_STREAMS => {}
                _ => {}
            }
        }
        Ok(settings)
    }
}

/// Appends a SETTINGS frame that says `ours`. No dynamic table, no blocked streams, no push; values left out
/// are zero.
pub(crate) fn encode(ours: &Settings, greased: bool, out: &mut Vec<u8>) {
    let mut payload = Vec::with_capacity(32);
    varint::encode(MAX_FIELD_SECTION_SIZE, &mut payload);
    varint::encode(ours.max_field_section_size.min(varint::MAX), &mut payload);
    for (id, on) in [
        (ENABLE_CONNECT_PROTOCOL, ours.enable_connect_protocol),
        (H3_DATAGRAM, ours.h3_datagram),
        (PARITY, ours.parity),
    ] {
        if on {
            varint::encode(id, &mut payload);
            varint::encode(1, &mut payload);
        }
    }
    if greased {
        varint::encode(grease(7), &mut payload);
        varint::encode(0, &mut payload);
    }
    varint::encode(kind::SETTINGS, out);
    varint::encode(payload.len() as u64, out);
    out.extend_from_slice(&payload);
}

fn take(payload: &mut &[u8]) -> Result<u64, Fault> {
    let (value, used) = varint::decode(payload).ok_or(Fault::connection(
        Code::FRAME_ERROR,
        "SETTINGS ends inside a setting",
    ))?;
    *payload = &payload[used..];
    Ok(value)
}

const fn error(reason: &'static str) -> Fault {
    Fault::connection(Code::SETTINGS_ERROR, reason)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn payload(pairs: &[(u64, u64)]) -> Vec<u8> {
        let mut out = Vec::new();
        for (id, value) in pairs {
            varint::encode(*id, &mut out);
            varint::encode(*value, &mut out);
        }
        out
    }

    fn code(pairs: &[(u64, u64)]) -> Option<Code> {
        match Settings::parse(&payload(pairs)) {
            Ok(_) => None,
            Err(Fault::Connection { code, .. }) => Some(code),
            Err(other) => panic!("settings errors close the connection, not {other:?}"),
        }
    }

    #[test]
    fn settings_2_to_5_are_h3_settings_error() {
        for id in 2..=5 {
            assert_eq!(code(&[(id, 0)]), Some(Code::SETTINGS_ERROR), "setting {id}");
        }
    }

    #[test]
    fn a_duplicate_setting_is_h3_settings_error() {
        assert_eq!(code(&[(6, 1), (6, 1)]), Some(Code::SETTINGS_ERROR));
        assert_eq!(code(&[(0x21, 1), (0x21, 2)]), Some(Code::SETTINGS_ERROR));
    }

    #[test]
    fn boolean_settings_take_0_and_1_only() {
        for id in [ENABLE_CONNECT_PROTOCOL, H3_DATAGRAM] {
            assert_eq!(code(&[(id, 0)]), None);
            assert_eq!(code(&[(id, 1)]), None);
            assert_eq!(code(&[(id, 2)]), Some(Code::SETTINGS_ERROR));
        }
    }

    #[test]
    fn unknown_and_greased_settings_are_ignored() {
        let parsed = Settings::parse(&payload(&[(grease(0), 9), (0x4242, 1), (6, 77)]));
        assert_eq!(
            parsed,
            Ok(Settings {
                max_field_section_size: 77,
                ..Settings::default()
            })
        );
    }

    #[test]
    fn settings_cut_short_are_h3_frame_error() {
        let whole = payload(&[(6, 70_000)]);
        for cut in 1..whole.len() {
            let Err(Fault::Connection { code, .. }) = Settings::parse(&whole[..cut]) else {
                panic!("cut at {cut} was accepted");
            };
            assert_eq!(code, Code::FRAME_ERROR);
        }
    }

    #[test]
    fn ours_are_greased_and_understood() {
        let ours = Settings {
            max_field_section_size: 65_536,
            enable_connect_protocol: true,
            h3_datagram: true,
            parity: true,
        };
        for ours in [
            ours,
            Settings {
                max_field_section_size: 1,
                ..Settings::default()
            },
        ] {
            let mut out = Vec::new();
            encode(&ours, true, &mut out);
            assert_eq!(u64::from(out[0]), kind::SETTINGS);
            assert_eq!(usize::from(out[1]), out.len() - 2);
            assert_eq!(Settings::parse(&out[2..]), Ok(ours));
            let mut plain = Vec::new();
            encode(&ours, false, &mut plain);
            assert!(plain.len() < out.len(), "no greased setting in {out:02x?}");
        }
    }
}
