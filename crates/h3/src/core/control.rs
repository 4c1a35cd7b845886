//! The peer's control stream (RFC 9114 §6.2.1), as a reader of chunks.

use bytes::{Buf, Bytes};

use super::credit::{self, Word};
use super::frame::{HeadReader, Idle, kind};
use super::priority::{self, Given};
use super::settings::{MAX_PAYLOAD, Settings};
use super::{Fault, Role, varint};
use crate::Code;

/// Frames in a row that bring nothing while no request comes. A client may send a PRIORITY_UPDATE for each of
/// its requests (RFC 9218 §7.1), and they may all be here before the first of these is taken.
const MAX_IDLE: u32 = 16 * 1024;

/// How many more each request excuses: those about requests that were answered long ago may still wait behind a
/// lost packet of the control stream, or behind the requests in whoever reads both.
const EXCUSED: u32 = 1024;

/// The longest PRIORITY_UPDATE that is looked at; a longer one is skipped.
const LONGEST_UPDATE: u64 = (varint::MAX_LEN + priority::LONGEST) as u64;

/// What a control stream tells.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum ControlEvent {
    Settings(Settings),
    /// To a client: the first request that will not be processed. To a server: a push id.
    Goaway(u64),
    /// About how far our streams may run ahead, or what was heard of that.
    Credit(Word),
    /// To a server: a client says anew what a request's response is to it.
    Priority {
        stream: u64,
        given: Given,
    },
}

enum Payload {
    None,
    Keep { kind: u64, left: u64 },
    Skip { left: u64 },
}

/// Reads one control stream.
pub(crate) struct ControlReader {
    role: Role,
    head: HeadReader,
    payload: Payload,
    kept: Vec<u8>,
    settled: bool,
    idle: Idle,
    goaway: Option<u64>,
    max_push_id: Option<u64>,
}

impl ControlReader {
    /// A reader for an endpoint of this role.
    pub(crate) fn new(role: Role) -> Self {
        Self {
            role,
            head: HeadReader::default(),
            payload: Payload::None,
            kept: Vec::new(),
            settled: false,
            idle: Idle::new(MAX_IDLE),
            goaway: None,
            max_push_id: None,
        }
    }

    /// So many requests have come since the last call, or streams were sent on.
    pub(crate) fn progress(&mut self, times: u64) {
        self.idle.excuse(times, EXCUSED);
    }

    /// The next event in `input`; `None` when it was used up.
    pub(crate) fn next(&mut self, input: &mut Bytes) -> Result<Option<ControlEvent>, Fault> {
        loop {
            match &mut self.payload {
                Payload::None => {
                    let Some(head) = self.head.read(input) else {
                        return Ok(None);
                    };
                    self.payload = self.admit(head.kind, head.len)?;
                }
                Payload::Skip { left } => {
                    let step = (input.len() as u64).min(*left);
                    input.advance(step as usize);
                    *left -= step;
                    if *left > 0 {
                        return Ok(None);
                    }
                    self.payload = Payload::None;
                }
                Payload::Keep { kind, left } => {
                    let step = (input.len() as u64).min(*left);
                    self.kept.extend_from_slice(&input.split_to(step as usize));
                    *left -= step;
                    if *left > 0 {
                        return Ok(None);
                    }
                    let kind = *kind;
                    self.payload = Payload::None;
                    let kept = std::mem::take(&mut self.kept);
                    if let Some(event) = self.complete(kind, &kept)? {
                        return Ok(Some(event));
                    }
                }
            }
        }
    }

    /// Whether a frame of this kind may stand here, and whether its payload is of interest.
    fn admit(&mut self, frame: u64, len: u64) -> Result<Payload, Fault> {
        let unexpected = |reason| Err(Fault::connection(Code::FRAME_UNEXPECTED, reason));
        if !self.settled && frame != kind::SETTINGS {
            return Err(Fault::connection(
                Code::MISSING_SETTINGS,
                "the control stream does not start with SETTINGS",
            ));
        }
        let longest = match frame {
            kind::SETTINGS if self.settled => return unexpected("a second SETTINGS frame"),
            kind::SETTINGS => {
                self.settled = true;
                MAX_PAYLOAD
            }
            kind::MAX_PUSH_ID if self.role == Role::Client => {
                return unexpected("MAX_PUSH_ID sent by a server");
            }
            kind::GOAWAY | kind::CANCEL_PUSH | kind::MAX_PUSH_ID => varint::MAX_LEN as u64,
            kind::CREDIT => credit::LONGEST,
            // RFC 9218 §7.1.
            kind::PRIORITY_UPDATE | kind::PRIORITY_UPDATE_PUSH if self.role == Role::Client => {
                return unexpected("PRIORITY_UPDATE sent by a server");
            }
            kind::PRIORITY_UPDATE_PUSH => {
                return Err(Fault::connection(
                    Code::ID_ERROR,
                    "PRIORITY_UPDATE for a push that never was",
                ));
            }
            kind::PRIORITY_UPDATE if len <= LONGEST_UPDATE => LONGEST_UPDATE,
            kind::DATA | kind::HEADERS | kind::PUSH_PROMISE => {
                return unexpected("a request frame on the control stream");
            }
            _ if kind::is_reserved(frame) => return unexpected("a frame type of HTTP/2"),
            _ => {
                self.idle.add(len)?;
                return Ok(Payload::Skip { left: len });
            }
        };
        if len > longest {
            return Err(match frame {
                kind::SETTINGS => Fault::connection(Code::EXCESSIVE_LOAD, "SETTINGS is too long"),
                _ => Fault::connection(Code::FRAME_ERROR, "a frame of a few integers is too long"),
            });
        }
        self.idle.add(len)?;
        Ok(Payload::Keep {
            kind: frame,
            left: len,
        })
    }

    fn complete(&mut self, frame: u64, payload: &[u8]) -> Result<Option<ControlEvent>, Fault> {
        if frame == kind::SETTINGS {
            return Settings::parse(payload).map(|s| Some(ControlEvent::Settings(s)));
        }
        if frame == kind::PRIORITY_UPDATE {
            return prioritized(payload).map(Some);
        }
        if frame == kind::CREDIT {
            return Word::parse(payload).map(|word| Some(ControlEvent::Credit(word)));
        }
        let id = match varint::decode(payload) {
            Some((id, used)) if used == payload.len() => id,
            _ => {
                return Err(Fault::connection(
                    Code::FRAME_ERROR,
                    "a frame of one integer does not hold exactly one",
                ));
            }
        };
        match frame {
            kind::GOAWAY => self.going_away(id).map(Some),
            kind::MAX_PUSH_ID => {
                if self.max_push_id.is_some_and(|old| id < old) {
                    return Err(Fault::connection(Code::ID_ERROR, "MAX_PUSH_ID went down"));
                }
                self.max_push_id = Some(id);
                Ok(None)
            }
            // RFC 9114 §7.2.3: no push was ever promised or allowed, so no id is valid.
            _ => Err(Fault::connection(
                Code::ID_ERROR,
                "CANCEL_PUSH for a push that never was",
            )),
        }
    }

    fn going_away(&mut self, id: u64) -> Result<ControlEvent, Fault> {
        // RFC 9114 §7.2.6: a server names a request, which is a client's bidirectional stream.
        if self.role == Role::Client && !id.is_multiple_of(4) {
            return Err(Fault::connection(
                Code::ID_ERROR,
                "GOAWAY names a stream that is no request",
            ));
        }
        if self.goaway.is_some_and(|old| id > old) {
            return Err(Fault::connection(Code::ID_ERROR, "GOAWAY's id went up"));
        }
        self.goaway = Some(id);
        Ok(ControlEvent::Goaway(id))
    }
}

/// RFC 9218 §7.2.
fn prioritized(payload: &[u8]) -> Result<ControlEvent, Fault> {
    let (stream, used) = varint::decode(payload).ok_or(Fault::connection(
        Code::FRAME_ERROR,
        "PRIORITY_UPDATE names nothing",
    ))?;
    if !stream.is_multiple_of(4) {
        return Err(Fault::connection(
            Code::ID_ERROR,
            "PRIORITY_UPDATE for a stream that is no request",
        ));
    }
    let given = Given::parse(&payload[used..]);
    Ok(ControlEvent::Priority { stream, given })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn frame(kind: u64, payload: &[u8]) -> Vec<u8> {
        let mut out = Vec::new();
        varint::encode(kind, &mut out);
        varint::encode(payload.len() as u64, &mut out);
        out.extend_from_slice(payload);
        out
    }

    /// Feeds the frames after an empty SETTINGS, whole and byte by byte; both must agree.
    fn read(role: Role, frames: &[Vec<u8>]) -> Result<Vec<ControlEvent>, Code> {
        let mut bytes = frame(kind::SETTINGS, &[]);
        bytes.extend(frames.concat());
        let whole = feed(role, [Bytes::from(bytes.clone())]);
        let single = feed(role, bytes.iter().map(|b| Bytes::copy_from_slice(&[*b])));
        assert_eq!(whole, single, "how the stream is cut must not matter");
        whole.map(|events| events[1..].to_vec())
    }

    fn feed(
        role: Role,
        chunks: impl IntoIterator<Item = Bytes>,
    ) -> Result<Vec<ControlEvent>, Code> {
        let mut reader = ControlReader::new(role);
        let mut events = Vec::new();
        for mut chunk in chunks {
            loop {
                match reader.next(&mut chunk) {
                    Ok(Some(event)) => events.push(event),
                    Ok(None) => break,
                    Err(Fault::Connection { code, .. }) => return Err(code),
                    Err(other) => panic!("control stream faults close the connection: {other:?}"),
                }
            }
        }
        Ok(events)
    }

    #[test]
    fn a_control_stream_starts_with_settings() {
        for first in [kind::GOAWAY, kind::DATA, 0x21, kind::MAX_PUSH_ID] {
            let got = feed(Role::Server, [Bytes::from(frame(first, &[0]))]);
            assert_eq!(got, Err(Code::MISSING_SETTINGS), "frame {first:#x} first");
        }
    }

    #[test]
    fn frames_that_have_no_place_are_h3_frame_unexpected() {
        for kind in [
            kind::SETTINGS,
            kind::DATA,
            kind::HEADERS,
            kind::PUSH_PROMISE,
            2,
            6,
            8,
            9,
        ] {
            for role in [Role::Client, Role::Server] {
                let got = read(role, &[frame(kind, &[])]);
                assert_eq!(
                    got,
                    Err(Code::FRAME_UNEXPECTED),
                    "frame {kind:#x} to {role:?}"
                );
            }
        }
    }

    #[test]
    fn max_push_id_is_for_servers_and_never_falls() {
        let push = |id| frame(kind::MAX_PUSH_ID, &[id]);
        assert_eq!(read(Role::Client, &[push(1)]), Err(Code::FRAME_UNEXPECTED));
        assert_eq!(read(Role::Server, &[push(1), push(1), push(9)]), Ok(vec![]));
        assert_eq!(read(Role::Server, &[push(9), push(8)]), Err(Code::ID_ERROR));
    }

    /// RFC 9218 §7.1, §7.2.
    #[test]
    fn priority_update_is_for_servers_and_names_a_request() {
        let update = |payload: &[u8]| frame(kind::PRIORITY_UPDATE, payload);
        for kind in [kind::PRIORITY_UPDATE, kind::PRIORITY_UPDATE_PUSH] {
            let got = read(Role::Client, &[frame(kind, b"\0u=1")]);
            assert_eq!(got, Err(Code::FRAME_UNEXPECTED));
        }
        let push = frame(kind::PRIORITY_UPDATE_PUSH, b"\0u=1");
        assert_eq!(read(Role::Server, &[push]), Err(Code::ID_ERROR));
        for id in 1..4 {
            assert_eq!(read(Role::Server, &[update(&[id])]), Err(Code::ID_ERROR));
        }
        assert_eq!(read(Role::Server, &[update(&[])]), Err(Code::FRAME_ERROR));
        assert_eq!(
            read(Role::Server, &[update(&[0x40])]),
            Err(Code::FRAME_ERROR)
        );
        let said = |stream, value: &[u8]| ControlEvent::Priority {
            stream,
            given: Given::parse(value),
        };
        assert_eq!(
            read(
                Role::Server,
                &[update(b"\x04u=1, i"), update(b"\x08"), update(b"\x08u=x y")]
            ),
            Ok(vec![said(4, b"u=1, i"), said(8, b""), said(8, b"")])
        );
        let long = [&[4][..], &[b' '; priority::LONGEST + varint::MAX_LEN]].concat();
        assert_eq!(read(Role::Server, &[update(&long)]), Ok(vec![]), "skipped");
    }

    #[test]
    fn cancel_push_of_a_push_that_never_was_is_h3_id_error() {
        for role in [Role::Client, Role::Server] {
            assert_eq!(
                read(role, &[frame(kind::CANCEL_PUSH, &[0])]),
                Err(Code::ID_ERROR)
            );
        }
    }

    #[test]
    fn goaway_may_fall_but_never_rise() {
        let away = |id| frame(kind::GOAWAY, &[id]);
        assert_eq!(
            read(Role::Client, &[away(8), away(8), away(4)]),
            Ok(vec![
                ControlEvent::Goaway(8),
                ControlEvent::Goaway(8),
                ControlEvent::Goaway(4)
            ])
        );
        assert_eq!(read(Role::Client, &[away(4), away(8)]), Err(Code::ID_ERROR));
        assert_eq!(read(Role::Client, &[away(5)]), Err(Code::ID_ERROR));
        assert_eq!(
            read(Role::Server, &[away(5)]),
            Ok(vec![ControlEvent::Goaway(5)]),
            "a client's GOAWAY names a push id"
        );
    }

    #[test]
    fn frames_of_one_integer_hold_exactly_one() {
        for payload in [&[][..], &[1, 2], &[0x40]] {
            let got = read(Role::Client, &[frame(kind::GOAWAY, payload)]);
            assert_eq!(got, Err(Code::FRAME_ERROR), "GOAWAY with {payload:02x?}");
        }
        let got = read(Role::Client, &[frame(kind::GOAWAY, &[0; 9])]);
        assert_eq!(got, Err(Code::FRAME_ERROR));
    }

    #[test]
    fn settings_without_bound_are_h3_excessive_load() {
        let mut bytes = Vec::new();
        varint::encode(kind::SETTINGS, &mut bytes);
        varint::encode(MAX_PAYLOAD + 1, &mut bytes);
        assert_eq!(
            feed(Role::Client, [Bytes::from(bytes)]),
            Err(Code::EXCESSIVE_LOAD)
        );
    }

    #[test]
    fn unknown_frames_are_skipped_and_never_kept() {
        let mut reader = ControlReader::new(Role::Client);
        let mut start = frame(kind::SETTINGS, &[]);
        varint::encode(0x21, &mut start);
        varint::encode(Idle::MAX_BYTES, &mut start);
        let mut start = Bytes::from(start);
        assert!(matches!(reader.next(&mut start), Ok(Some(_))));
        assert_eq!(reader.next(&mut start), Ok(None));
        for _ in 0..Idle::MAX_BYTES / 65_536 {
            assert_eq!(reader.next(&mut Bytes::from(vec![0; 65_536])), Ok(None));
        }
        assert_eq!(reader.kept.capacity(), 0);
    }

    /// RFC 9114 §10.5.
    #[test]
    fn frames_without_end_are_h3_excessive_load_unless_requests_come_too() {
        for spam in [
            frame(0xf0700, b"\0u=1"),
            frame(kind::GOAWAY, &[0]),
            frame(kind::MAX_PUSH_ID, &[7]),
        ] {
            let mut reader = ControlReader::new(Role::Server);
            let mut start = Bytes::from(frame(kind::SETTINGS, &[]));
            assert!(matches!(reader.next(&mut start), Ok(Some(_))));
            let send = |reader: &mut ControlReader, count: u32| {
                let mut bytes = Bytes::from(spam.repeat(count as usize));
                while reader.next(&mut bytes)?.is_some() {}
                Ok(())
            };
            for _ in 0..3 {
                reader.progress(1);
                assert_eq!(send(&mut reader, MAX_IDLE), Ok(()));
            }
            // What the requests of one stretch excuse may all come behind them, and in pieces.
            reader.progress(20);
            assert_eq!(send(&mut reader, 15 * EXCUSED), Ok(()));
            reader.progress(1);
            assert_eq!(send(&mut reader, MAX_IDLE), Ok(()));
            let got = send(&mut reader, 1);
            assert!(
                matches!(
                    got,
                    Err(Fault::Connection {
                        code: Code::EXCESSIVE_LOAD,
                        ..
                    })
                ),
                "{got:?}"
            );
        }
    }
}
