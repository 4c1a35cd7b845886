//! Frame heads (RFC 9114 §7.1): a type and a length, read in pieces of any size.

use bytes::{Buf, Bytes};

use super::{Fault, varint};
use crate::Code;

/// Frame types (RFC 9114 §7.2).
pub(crate) mod kind {
    pub(crate) const DATA: u64 = 0x0;
    pub(crate) const HEADERS: u64 = 0x1;
    pub(crate) const CANCEL_PUSH: u64 = 0x3;
    pub(crate) const SETTINGS: u64 = 0x4;
    pub(crate) const PUSH_PROMISE: u64 = 0x5;
    pub(crate) const GOAWAY: u64 = 0x7;
    pub(crate) const MAX_PUSH_ID: u64 = 0xd;
    /// RFC 9218 §7.2, of a request and of a push.
    pub(crate) const PRIORITY_UPDATE: u64 = 0xf_0700;
    pub(crate) const PRIORITY_UPDATE_PUSH: u64 = 0xf_0701;
    /// Of our own, on control streams only: how far streams may run ahead of their readers (`core::credit`).
    pub(crate) const CREDIT: u64 = 0x3765_6675;

    /// HTTP/2's PRIORITY, PING, WINDOW_UPDATE and CONTINUATION: never valid (RFC 9114 §7.2.8).
    pub(crate) const fn is_reserved(kind: u64) -> bool {
        matches!(kind, 0x2 | 0x6 | 0x8 | 0x9)
    }
}

/// A value of the reserved kind `0x1f * n + 0x21` that peers must ignore (RFC 9114 §7.2.8).
pub(crate) const fn grease(n: u64) -> u64 {
    0x1f * n + 0x21
}

/// Type and payload length of a frame.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct FrameHead {
    pub(crate) kind: u64,
    pub(crate) len: u64,
}

/// Reads frame heads from a stream's chunks, wherever they are cut.
#[derive(Debug, Default)]
pub(crate) struct HeadReader {
    part: [u8; 2 * varint::MAX_LEN],
    filled: u8,
}

impl HeadReader {
    /// Takes a head from the front of `input`; `None` when `input` was used up before its end.
    pub(crate) fn read(&mut self, input: &mut Bytes) -> Option<FrameHead> {
        if self.filled == 0
            && let Some((head, used)) = parse(input)
        {
            input.advance(used);
            return Some(head);
        }
        while input.has_remaining() {
            self.part[usize::from(self.filled)] = input.get_u8();
            self.filled += 1;
            if let Some((head, _)) = parse(&self.part[..usize::from(self.filled)]) {
                self.filled = 0;
                return Some(head);
            }
        }
        None
    }

    /// Whether the stream stands between two frames, as far as this reader knows.
    pub(crate) fn is_empty(&self) -> bool {
        self.filled == 0
    }
}

/// Counts frames that bring nothing: of unknown types, empty, or repeating what is known. Each must be taken,
/// but a peer that sends nothing else only makes work (RFC 9114 §10.5).
#[derive(Debug)]
pub(crate) struct Idle {
    max_frames: u32,
    room: u32,
    bytes: u32,
}

impl Idle {
    /// Most payload of such frames in a row.
    pub(crate) const MAX_BYTES: u64 = 1 << 20;

    /// Most such frames that are ever taken in a row, whatever came before them.
    const MOST: u32 = 1 << 20;

    /// Takes this many in a row.
    pub(crate) const fn new(max_frames: u32) -> Self {
        Self {
            max_frames,
            room: max_frames,
            bytes: 0,
        }
    }

    /// One more, of this length.
    pub(crate) fn add(&mut self, len: u64) -> Result<(), Fault> {
        const LOAD: Fault = Fault::connection(
            Code::EXCESSIVE_LOAD,
            "frames without end that bring nothing",
        );
        let bytes = u64::from(self.bytes).saturating_add(len);
        if bytes > Self::MAX_BYTES {
            return Err(LOAD);
        }
        self.room = self.room.checked_sub(1).ok_or(LOAD)?;
        self.bytes = bytes as u32;
        Ok(())
    }

    /// Something came that counts.
    pub(crate) fn progress(&mut self) {
        *self = Self::new(self.max_frames);
    }

    /// `times` things came elsewhere, each of which excuses `frames`: those may be under way still, so the room
    /// grows with each instead of starting anew.
    pub(crate) fn excuse(&mut self, times: u64, frames: u32) {
        let more = u32::try_from(times.saturating_mul(frames.into())).unwrap_or(u32::MAX);
        let most = self.max_frames.max(Self::MOST);
        self.room = self.room.saturating_add(more).clamp(self.max_frames, most);
        self.bytes = 0;
    }
}

fn parse(buf: &[u8]) -> Option<(FrameHead, usize)> {
    let (kind, kind_len) = varint::decode(buf)?;
    let (len, len_len) = varint::decode(&buf[kind_len..])?;
    Some((FrameHead { kind, len }, kind_len + len_len))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn a_head_cut_anywhere_is_read_the_same(kind in 0..=varint::MAX, len in 0..=varint::MAX, cut in 0usize..16) {
            let mut bytes = Vec::new();
            varint::encode(kind, &mut bytes);
            varint::encode(len, &mut bytes);
            let cut = cut.min(bytes.len() - 1);
            bytes.push(0xaa);
            let (mut a, mut b) = (Bytes::copy_from_slice(&bytes[..cut]), Bytes::copy_from_slice(&bytes[cut..]));
            let mut reader = HeadReader::default();
            prop_assert_eq!(reader.read(&mut a), None);
            prop_assert_eq!(reader.read(&mut b), Some(FrameHead { kind, len }));
            prop_assert_eq!(&b[..], &[0xaa][..]);
            prop_assert!(reader.is_empty());
        }
    }

    #[test]
    fn greased_types_are_of_the_reserved_form() {
        for n in [0, 1, 1000] {
            assert_eq!((grease(n) - 0x21) % 0x1f, 0);
        }
    }
}
