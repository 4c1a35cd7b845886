//! How far a stream may run ahead of its reader while readers stand still (docs/adr/0011-standing-readers.md).
//!
//! QUIC gives each stream the same window, and all of them together one: a few streams that nobody reads use that up,
//! and then nothing flows on the connection. QUIC cannot take back a window that it gave. So a receiver that sees
//! readers stand still *presses*: from then on each stream may send [`FIRST`] bytes, and more as it is read. This is
//! said in frames of an extension type on the control stream, which peers that do not know it ignore
//! (RFC 9114 §9). Pure: no clock, no I/O.

use super::{Fault, varint};
use crate::Code;

/// What each stream may send, from the moment on that its sender knows of the pressure, before it is granted more.
pub(crate) const FIRST: u32 = 16 * 1024;
/// Looks at a reader until one that did not come back for more stands still.
const PATIENCE: u32 = 2;
/// Looks without enough of them until the pressure ends.
const RELIEF: u8 = 20;

/// Windows of QUIC, as the peer was told.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Windows {
    /// Bytes that a peer may send on one stream ahead of its reader.
    pub stream: u32,
    /// The same on one connection, ahead of all readers.
    pub connection: u32,
}

impl Windows {
    /// So many streams that stand still can hold half of the connection's window.
    pub(crate) fn crowd(self) -> usize {
        ((self.connection / 2 / self.stream.max(1)) as usize).max(1)
    }

    /// What streams that are read may have of it together, beyond [`FIRST`] each, under pressure.
    pub(crate) fn shared(self) -> u64 {
        u64::from(self.connection) / 4
    }

    /// What the connection's window grows by under pressure, with so many streams: as much as before is free, and
    /// each stream has its [`FIRST`].
    pub(crate) fn lent(self, streams: usize) -> u64 {
        u64::from(self.connection) + streams as u64 * u64::from(FIRST)
    }
}

/// Whether a reader that was handed something at one look, and has not come back, stands still at another.
pub(crate) fn stands_still(handed: u32, now: u32) -> bool {
    now.wrapping_sub(handed) >= PATIENCE
}

/// Whether to press.
#[derive(Debug, Default)]
pub(crate) struct Pressure {
    on: bool,
    calm: u8,
}

impl Pressure {
    pub(crate) fn is_on(&self) -> bool {
        self.on
    }

    /// `still` readers stand still; `crowd` of them are too many. `Some` when that changes what is to be done.
    pub(crate) fn judge(&mut self, still: usize, crowd: usize) -> Option<bool> {
        if !self.on {
            self.on = still >= crowd;
            self.calm = 0;
            return self.on.then_some(true);
        }
        self.calm = if still * 2 > crowd { 0 } else { self.calm + 1 };
        if self.calm < RELIEF {
            return None;
        }
        self.on = false;
        Some(false)
    }
}

/// What a stream that is read was granted.
#[derive(Debug, Default)]
pub(crate) struct Grants {
    /// Bytes read of the stream.
    read: u64,
    /// Which pressure it knows; 0 for none.
    epoch: u32,
    /// What was read at the last grant.
    basis: u64,
    window: u32,
}

impl Grants {
    pub(crate) fn read(&mut self, bytes: usize) {
        self.read += bytes as u64;
    }

    /// The new limit to tell the sender, if one is due. Whoever reads on has twice as much each time, up to `most`, as
    /// long as `grow` gives it the difference.
    pub(crate) fn due(
        &mut self,
        epoch: u32,
        most: u32,
        grow: impl FnOnce(u32) -> bool,
    ) -> Option<u64> {
        if self.epoch != epoch {
            (self.epoch, self.window) = (epoch, FIRST);
        } else if self.read - self.basis < u64::from(self.window / 2) {
            return None;
        } else {
            let twice = self.window.saturating_mul(2).min(most.max(FIRST));
            if twice > self.window && grow(twice - self.window) {
                self.window = twice;
            }
        }
        self.basis = self.read;
        Some(self.read + u64::from(self.window))
    }

    /// What it has beyond [`FIRST`] of the pressure of this epoch.
    pub(crate) fn grown(&self, epoch: u32) -> u32 {
        match self.epoch == epoch {
            true => self.window.saturating_sub(FIRST),
            false => 0,
        }
    }
}

/// What the peer has told our streams.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Told {
    /// Tells what the peer has said from what it said before.
    pub(crate) epoch: u32,
    /// What each stream may send without a grant; 0: whatever QUIC allows.
    pub(crate) first: u32,
}

/// How far one stream of ours may go.
#[derive(Debug, Default)]
pub(crate) struct Allowance {
    sent: u64,
    epoch: u32,
    /// What was sent when the pressure became known.
    base: u64,
}

impl Allowance {
    pub(crate) fn sent(&mut self, bytes: usize) {
        self.sent += bytes as u64;
    }

    /// Whether the stream has sent so little, ever, that it does not wait for its reader.
    pub(crate) fn is_small(&self) -> bool {
        self.sent < super::priority::BULK
    }

    /// Bytes that may be sent now. `granted`: the highest limit that the peer has granted this stream.
    pub(crate) fn room(&mut self, told: Told, granted: u64) -> u64 {
        if told.first == 0 {
            return u64::MAX;
        }
        if self.epoch != told.epoch {
            (self.epoch, self.base) = (told.epoch, self.sent);
        }
        let limit = (self.base + u64::from(told.first)).max(granted);
        limit.saturating_sub(self.sent)
    }
}

/// The longest payload.
pub(crate) const LONGEST: u64 = 3 * varint::MAX_LEN as u64;

/// What a frame of the extension says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Word {
    /// From now on a stream sends this many bytes, and more when that is granted; 0: whatever QUIC allows.
    Press {
        /// Tells it from those before.
        epoch: u32,
        first: u32,
    },
    /// The sender of this has heard that.
    Heard { epoch: u32 },
    /// This stream may send up to this many bytes, from its begin.
    Grant { stream: u64, limit: u64 },
    /// Of a later version.
    Unknown,
}

impl Word {
    pub(crate) fn parse(payload: &[u8]) -> Result<Self, Fault> {
        let mut rest = payload;
        let mut next = || -> Result<u64, Fault> {
            let (value, used) = varint::decode(rest).ok_or(CUT)?;
            rest = &rest[used..];
            Ok(value)
        };
        let clamp = |value| u32::try_from(value).unwrap_or(u32::MAX);
        let word = match next()? {
            0 => Self::Press {
                epoch: clamp(next()?),
                first: clamp(next()?),
            },
            1 => Self::Heard {
                epoch: clamp(next()?),
            },
            2 => Self::Grant {
                stream: next()?,
                limit: next()?,
            },
            _ => return Ok(Self::Unknown),
        };
        if !rest.is_empty() {
            return Err(CUT);
        }
        match word {
            // Requests only (RFC 9000 §2.1).
            Self::Grant { stream, .. } if !stream.is_multiple_of(4) => Err(Fault::connection(
                Code::ID_ERROR,
                "credit for a stream that is no request",
            )),
            word => Ok(word),
        }
    }

    pub(crate) fn encode(self, out: &mut Vec<u8>) {
        let (what, values, count) = match self {
            Self::Press { epoch, first } => (0, [epoch.into(), first.into()], 2),
            Self::Heard { epoch } => (1, [epoch.into(), 0], 1),
            Self::Grant { stream, limit } => (2, [stream, limit.min(varint::MAX)], 2),
            Self::Unknown => return,
        };
        let mut payload = Vec::with_capacity(LONGEST as usize);
        varint::encode(what, &mut payload);
        for value in &values[..count] {
            varint::encode(*value, &mut payload);
        }
        varint::encode(super::frame::kind::CREDIT, out);
        varint::encode(payload.len() as u64, out);
        out.extend_from_slice(&payload);
    }
}

const CUT: Fault = Fault::connection(
    Code::FRAME_ERROR,
    "a credit frame does not hold what it should",
);

#[cfg(test)]
mod tests {
    use super::*;

    const WINDOWS: Windows = Windows {
        stream: 1 << 20,
        connection: 16 << 20,
    };

    #[test]
    fn half_a_window_of_streams_is_a_crowd_and_one_at_least() {
        assert_eq!(WINDOWS.crowd(), 8);
        let wide = Windows {
            stream: 12_500_000,
            connection: 25_000_000,
        };
        assert_eq!(wide.crowd(), 1);
        let odd = Windows {
            stream: 0,
            connection: 0,
        };
        assert_eq!(odd.crowd(), 1);
    }

    #[test]
    fn pressure_begins_with_a_crowd_and_ends_when_it_has_gone_for_a_while() {
        let mut pressure = Pressure::default();
        assert_eq!(pressure.judge(7, 8), None);
        assert_eq!(pressure.judge(8, 8), Some(true));
        assert_eq!(pressure.judge(100, 8), None);
        for _ in 1..RELIEF {
            assert_eq!(pressure.judge(4, 8), None);
        }
        assert_eq!(pressure.judge(5, 8), None, "a crowd again: from the start");
        for _ in 1..RELIEF {
            assert_eq!(pressure.judge(0, 8), None);
        }
        assert_eq!(pressure.judge(0, 8), Some(false));
        assert!(!pressure.is_on());
    }

    #[test]
    fn who_reads_on_is_granted_more_and_who_does_not_is_not() {
        let (mut grants, first) = (Grants::default(), u64::from(FIRST));
        grants.read(1_000_000);
        let at = |bytes| Some(1_000_000 + bytes);
        assert_eq!(grants.due(1, 1 << 20, |_| true), at(first), "at once");
        assert_eq!(grants.due(1, 1 << 20, |_| true), None, "nothing was read");
        grants.read(FIRST as usize / 2);
        let limit = grants.due(1, 1 << 20, |by| by == FIRST);
        assert_eq!(limit, at(first / 2 + 2 * first));
        assert_eq!(grants.grown(1), FIRST);
        assert_eq!(grants.grown(2), 0, "of another time");
        grants.read(FIRST as usize);
        let limit = grants.due(1, 1 << 20, |_| false);
        assert_eq!(limit, at(3 * first / 2 + 2 * first), "no more to be had");
        for _ in 0..20 {
            grants.read(1 << 20);
            grants.due(1, 1 << 20, |_| true);
        }
        assert_eq!(grants.grown(1), (1 << 20) - FIRST, "never more than QUIC's");
    }

    /// Whatever a reader has read when the pressure becomes known on either side, it never waits for ever: what its
    /// sender may send always reaches the next grant.
    #[test]
    fn a_stream_that_is_read_never_dries_up() {
        for before in [0, 1, 5_000, 16_384, 70_000, 3_000_000_u64] {
            for unread in [0, 1, 8_191, 8_192, 16_384, 1_000_000_u64] {
                let (mut grants, mut allowance) = (Grants::default(), Allowance::default());
                allowance.sent((before + unread) as usize);
                grants.read(before as usize);
                let told = Told {
                    epoch: 1,
                    first: FIRST,
                };
                let (mut granted, mut read, mut sent) = (0, before, before + unread);
                for _ in 0..200 {
                    let room = allowance.room(told, granted).min(100_000);
                    allowance.sent(room as usize);
                    sent += room;
                    let step = (sent - read).min(1_200);
                    assert!(step > 0, "dry at {read}, {before} and {unread} before");
                    read += step;
                    grants.read(step as usize);
                    if let Some(limit) = grants.due(1, 1 << 20, |_| false) {
                        granted = limit.max(granted);
                    }
                }
            }
        }
    }

    #[test]
    fn a_stream_sends_so_much_after_the_pressure_began_and_then_what_is_granted() {
        let mut allowance = Allowance::default();
        allowance.sent(500_000);
        assert_eq!(allowance.room(Told::default(), 0), u64::MAX);
        let told = Told {
            epoch: 1,
            first: 100,
        };
        assert_eq!(allowance.room(told, 0), 100);
        allowance.sent(100);
        assert_eq!(allowance.room(told, 0), 0);
        assert_eq!(allowance.room(told, 500_300), 200);
        assert_eq!(allowance.room(told, 1_000), 0, "an old grant");
        let relieved = Told { epoch: 2, first: 0 };
        assert_eq!(allowance.room(relieved, 0), u64::MAX);
    }

    #[test]
    fn words_are_read_as_they_are_written() {
        for word in [
            Word::Press {
                epoch: 3,
                first: FIRST,
            },
            Word::Press { epoch: 4, first: 0 },
            Word::Heard { epoch: 7 },
            Word::Grant {
                stream: 400,
                limit: 1 << 40,
            },
        ] {
            let mut out = Vec::new();
            word.encode(&mut out);
            let head = varint::len_of(out[0]) + 1;
            assert!((out.len() - head) as u64 <= LONGEST);
            assert_eq!(Word::parse(&out[head..]), Ok(word));
            assert_eq!(Word::parse(&out[head..out.len() - 1]), Err(CUT), "{word:?}");
            out.push(0);
            assert_eq!(Word::parse(&out[head..]), Err(CUT), "{word:?} and more");
        }
        assert_eq!(Word::parse(&[9, 1, 2]), Ok(Word::Unknown));
        let of_ours = Word::parse(&[2, 3, 9]);
        assert!(
            matches!(
                of_ours,
                Err(Fault::Connection {
                    code: Code::ID_ERROR,
                    ..
                })
            ),
            "{of_ours:?}"
        );
    }
}
