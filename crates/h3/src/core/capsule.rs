//! The capsule protocol (RFC 9297 §3): type, length, value, again and again on a tunnel's byte stream.

use bytes::{Buf, Bytes, BytesMut};

use super::frame::HeadReader;
use super::{Fault, varint};

/// The DATAGRAM capsule's type (§3.5).
pub(crate) const DATAGRAM: u64 = 0x0;
/// What is kept of a datagram that is too large: enough to see what it would have been.
const START: u64 = varint::MAX_LEN as u64;

/// What was read. Capsules of other types are skipped (§3.2).
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Capsule {
    Datagram(Bytes),
    /// The start of a datagram that is larger than any we take; the rest is skipped.
    Oversized(Bytes),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    Between,
    Datagram { left: u64, oversized: bool },
    Skip(u64),
}

/// Reads capsules from a byte stream, wherever it is cut. Only a datagram is ever kept, up to a limit, and
/// only while it is cut: what arrives whole is a slice of what arrived.
#[derive(Debug)]
pub(crate) struct CapsuleReader {
    head: HeadReader,
    state: State,
    kept: BytesMut,
    max_datagram: u64,
}

impl CapsuleReader {
    /// A reader that takes datagrams of up to `max_datagram` bytes, at least eight.
    pub(crate) fn new(max_datagram: u64) -> Self {
        debug_assert!(max_datagram >= START, "too small to name a context");
        Self {
            head: HeadReader::default(),
            state: State::Between,
            kept: BytesMut::new(),
            max_datagram,
        }
    }

    /// The next capsule in `input`; `None` when it was used up.
    pub(crate) fn next(&mut self, input: &mut Bytes) -> Option<Capsule> {
        loop {
            match self.state {
                State::Between => {
                    // A capsule's head is laid out as a frame's.
                    let head = self.head.read(input)?;
                    self.state = match head.kind {
                        DATAGRAM => State::Datagram {
                            left: head.len,
                            oversized: head.len > self.max_datagram,
                        },
                        _ => State::Skip(head.len),
                    };
                }
                State::Skip(left) => {
                    let step = (input.len() as u64).min(left);
                    input.advance(step as usize);
                    self.state = match left - step {
                        0 => State::Between,
                        left => State::Skip(left),
                    };
                    if left > step {
                        return None;
                    }
                }
                State::Datagram {
                    left,
                    oversized: true,
                } => {
                    let missing = START - self.kept.len() as u64;
                    let step = (input.len() as u64).min(missing);
                    self.kept.extend_from_slice(&input.split_to(step as usize));
                    if step < missing {
                        self.state = State::Datagram {
                            left: left - step,
                            oversized: true,
                        };
                        return None;
                    }
                    self.state = State::Skip(left - step);
                    return Some(Capsule::Oversized(self.kept.split().freeze()));
                }
                State::Datagram { left, .. } => {
                    let part = input.split_to((input.len() as u64).min(left) as usize);
                    let left = left - part.len() as u64;
                    if left > 0 {
                        self.kept.extend_from_slice(&part);
                        self.state = State::Datagram {
                            left,
                            oversized: false,
                        };
                        return None;
                    }
                    self.state = State::Between;
                    if self.kept.is_empty() {
                        return Some(Capsule::Datagram(part));
                    }
                    self.kept.extend_from_slice(&part);
                    return Some(Capsule::Datagram(std::mem::take(&mut self.kept).freeze()));
                }
            }
        }
    }

    /// The stream has ended: malformed when that is inside a capsule (§3.3).
    pub(crate) fn finish(&self) -> Result<(), Fault> {
        if self.state == State::Between && self.head.is_empty() {
            return Ok(());
        }
        Err(Fault::malformed("a stream ends inside a capsule"))
    }

    /// Bytes that are kept between two pieces.
    #[cfg(test)]
    pub(crate) fn kept(&self) -> usize {
        self.kept.len()
    }
}

/// Appends the head of a DATAGRAM capsule.
pub(crate) fn datagram_head(len: usize, out: &mut Vec<u8>) {
    varint::encode(DATAGRAM, out);
    varint::encode(len as u64, out);
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Code;

    fn capsule(kind: u64, value: &[u8]) -> Vec<u8> {
        let mut out = Vec::new();
        varint::encode(kind, &mut out);
        varint::encode(value.len() as u64, &mut out);
        out.extend_from_slice(value);
        out
    }

    fn feed(chunks: &[&[u8]]) -> Result<Vec<Capsule>, Fault> {
        let mut reader = CapsuleReader::new(20);
        let mut seen = Vec::new();
        for chunk in chunks {
            let mut chunk = Bytes::copy_from_slice(chunk);
            while let Some(capsule) = reader.next(&mut chunk) {
                seen.push(capsule);
            }
            assert!(chunk.is_empty(), "a reader uses its input up");
            assert!(reader.kept() <= 20, "{} bytes are kept", reader.kept());
        }
        reader.finish().map(|()| seen)
    }

    /// Reads it whole, byte by byte, and cut anywhere; all must agree.
    fn read(bytes: &[u8]) -> Result<Vec<Capsule>, Fault> {
        let whole = feed(&[bytes]);
        assert_eq!(feed(&bytes.chunks(1).collect::<Vec<_>>()), whole);
        for cut in 0..bytes.len() {
            assert_eq!(feed(&[&bytes[..cut], &bytes[cut..]]), whole, "cut at {cut}");
        }
        whole
    }

    fn datagram(value: &'static [u8]) -> Capsule {
        Capsule::Datagram(Bytes::from_static(value))
    }

    #[test]
    fn datagrams_are_read_and_may_be_empty() {
        let bytes = [capsule(0, b"one"), capsule(0, b""), capsule(0, b"two")].concat();
        let seen = read(&bytes).unwrap();
        assert_eq!(seen, [datagram(b"one"), datagram(b""), datagram(b"two")]);
    }

    #[test]
    fn unknown_capsules_are_skipped() {
        let bytes = [
            capsule(0x21, b""),
            capsule(0x2f, &[7; 100]),
            capsule(0, b"x"),
            capsule(varint::MAX, b"y"),
        ]
        .concat();
        assert_eq!(read(&bytes), Ok(vec![datagram(b"x")]));
    }

    #[test]
    fn an_end_inside_a_capsule_is_malformed() {
        let bytes = [capsule(0x2f, b"skip"), capsule(0, b"one")].concat();
        for cut in 1..bytes.len() {
            let got = feed(&[&bytes[..cut]]);
            match got {
                Err(Fault::Stream { code, .. }) => {
                    assert_eq!(code, Code::MESSAGE_ERROR, "cut at {cut}");
                }
                Ok(_) => assert_eq!(cut, 6, "the first capsule's end"),
                other => panic!("cut at {cut}: {other:?}"),
            }
        }
    }

    #[test]
    fn a_datagram_beyond_the_limit_is_dropped_without_keeping_it() {
        let bytes = [capsule(0, &[9; 21]), capsule(0, &[1; 20])].concat();
        let seen = read(&bytes).unwrap();
        assert_eq!(
            seen,
            [
                Capsule::Oversized(Bytes::from_static(&[9; 8])),
                datagram(&[1; 20])
            ]
        );
    }

    #[test]
    fn a_datagram_that_arrives_whole_is_not_copied() {
        let mut input = Bytes::from(capsule(0, b"0123456789"));
        let origin = input.as_ptr_range();
        let Some(Capsule::Datagram(piece)) = CapsuleReader::new(20).next(&mut input) else {
            panic!("no datagram");
        };
        assert!(origin.contains(&piece.as_ptr()));
    }
}
