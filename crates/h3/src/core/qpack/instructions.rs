//! The peer's QPACK encoder and decoder streams (RFC 9204 §4.3, §4.4). With a dynamic table of capacity
//! zero on both sides there is next to nothing that a peer may say on them.

use crate::Code;
use crate::core::Fault;

/// Longest encoding of an integer that is taken, in bytes after the first.
const MAX_CONTINUATION: u8 = 9;

/// Checks bytes of the peer's encoder stream: "set capacity to 0" is all that our capacity of zero allows.
pub(crate) fn check_encoder(bytes: &[u8]) -> Result<(), Fault> {
    const SET_CAPACITY_ZERO: u8 = 0x20;
    if bytes.iter().all(|b| *b == SET_CAPACITY_ZERO) {
        return Ok(());
    }
    Err(Fault::connection(
        Code::QPACK_ENCODER_STREAM_ERROR,
        "the QPACK encoder stream uses a dynamic table, which has capacity 0",
    ))
}

/// Reads the peer's decoder stream, on which only stream cancellations may stand.
#[derive(Debug, Default)]
pub(crate) struct DecoderStream {
    inside: Option<u8>,
}

impl DecoderStream {
    /// Checks the next bytes.
    pub(crate) fn check(&mut self, bytes: &[u8]) -> Result<(), Fault> {
        for byte in bytes {
            self.inside = match self.inside {
                None if byte & 0xc0 == 0x40 => (byte & 0x3f == 0x3f).then_some(0),
                None => return Err(error("an acknowledgement of an insertion that never was")),
                Some(_) if byte & 0x80 == 0 => None,
                Some(MAX_CONTINUATION) => return Err(error("an integer without end")),
                Some(count) => Some(count + 1),
            };
        }
        Ok(())
    }
}

const fn error(reason: &'static str) -> Fault {
    Fault::connection(Code::QPACK_DECODER_STREAM_ERROR, reason)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_capacity_zero_may_be_set() {
        assert!(check_encoder(&[]).is_ok());
        assert!(check_encoder(&[0x20, 0x20]).is_ok());
        for first in [0x21, 0x3f, 0x80, 0xc0, 0x40, 0x00, 0x1f] {
            assert!(
                matches!(
                    check_encoder(&[first]),
                    Err(Fault::Connection {
                        code: Code::QPACK_ENCODER_STREAM_ERROR,
                        ..
                    })
                ),
                "{first:#x}"
            );
        }
    }

    #[test]
    fn only_stream_cancellations_are_taken() {
        let mut stream = DecoderStream::default();
        assert!(stream.check(&[0x40, 0x44, 0x7f, 0x80]).is_ok());
        assert!(stream.check(&[0x01, 0x40]).is_ok(), "cut inside an integer");
        for first in [0x80, 0xff, 0x00, 0x01] {
            assert!(
                DecoderStream::default().check(&[first]).is_err(),
                "{first:#x}"
            );
        }
        let mut endless = vec![0x7f];
        endless.resize(40, 0xff);
        assert!(DecoderStream::default().check(&endless).is_err());
    }
}
