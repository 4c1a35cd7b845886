//! The payload of CONNECT-UDP's datagrams (RFC 9298 §5): a context id, then what it says.

use bytes::{Buf, Bytes};

use super::capsule::{Capsule, CapsuleReader};
use super::{Fault, varint};
use crate::Code;

/// Longest UDP payload there is (RFC 9298 §5).
pub(crate) const MAX_PAYLOAD: usize = 65_527;
/// The context of UDP payloads (RFC 9298 §4), as it stands before each of them.
pub(crate) const CONTEXT: &[u8] = &[0];

/// A reader of the capsules of a CONNECT-UDP stream.
pub(crate) fn capsules() -> CapsuleReader {
    CapsuleReader::new((CONTEXT.len() + MAX_PAYLOAD) as u64)
}

/// The UDP payload in an HTTP datagram; `None` for one of a context that nobody registered, which is dropped
/// in silence (§5): we register none.
pub(crate) fn payload(mut datagram: Bytes) -> Result<Option<Bytes>, Fault> {
    let (context, used) = context(&datagram)?;
    datagram.advance(used);
    if context == 0 && datagram.len() > MAX_PAYLOAD {
        return Err(TOO_LONG);
    }
    Ok((context == 0).then_some(datagram))
}

/// As [`payload`], for what a capsule holds.
pub(crate) fn capsule_payload(capsule: Capsule) -> Result<Option<Bytes>, Fault> {
    match capsule {
        Capsule::Datagram(datagram) => payload(datagram),
        Capsule::Oversized(start) => match context(&start)? {
            (0, _) => Err(TOO_LONG),
            _ => Ok(None),
        },
    }
}

/// RFC 9298 §5: the stream must be aborted.
const TOO_LONG: Fault = Fault::Stream {
    code: Code::DATAGRAM_ERROR,
    rule: "a UDP payload is longer than 65527 bytes",
};

fn context(datagram: &[u8]) -> Result<(u64, usize), Fault> {
    // RFC 9297 §3.3: a payload that ends before its fields do.
    varint::decode(datagram).ok_or(Fault::malformed("a datagram ends inside its context id"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn datagram(context: u64, len: usize) -> Bytes {
        let mut out = Vec::new();
        varint::encode(context, &mut out);
        out.resize(out.len() + len, 7);
        out.into()
    }

    #[test]
    fn context_0_is_a_udp_payload_which_may_be_empty() {
        assert_eq!(payload(datagram(0, 0)), Ok(Some(Bytes::new())));
        assert_eq!(payload(datagram(0, 3)), Ok(Some(vec![7; 3].into())));
        // RFC 9000 §16: also when it is written with more bytes than it needs.
        assert_eq!(
            payload(Bytes::from_static(&[0x40, 0, 5])),
            Ok(Some(Bytes::from_static(&[5])))
        );
    }

    #[test]
    fn unknown_contexts_are_dropped() {
        for context in [1, 2, 4, varint::MAX] {
            assert_eq!(payload(datagram(context, 3)), Ok(None), "{context}");
        }
    }

    #[test]
    fn a_udp_payload_above_65527_bytes_aborts_the_stream() {
        assert!(matches!(payload(datagram(0, MAX_PAYLOAD)), Ok(Some(_))));
        assert_eq!(payload(datagram(0, MAX_PAYLOAD + 1)), Err(TOO_LONG));
        let long = |context| capsule_payload(Capsule::Oversized(datagram(context, 8)));
        assert_eq!(long(0), Err(TOO_LONG));
        assert_eq!(long(4), Ok(None), "its context is unknown: dropped");
    }

    #[test]
    fn a_datagram_without_a_context_is_malformed() {
        for cut in [&[][..], &[0x40]] {
            let got = payload(Bytes::copy_from_slice(cut));
            assert!(
                matches!(
                    got,
                    Err(Fault::Stream {
                        code: Code::MESSAGE_ERROR,
                        ..
                    })
                ),
                "{got:?}"
            );
        }
    }
}
