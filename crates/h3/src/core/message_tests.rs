//! The order of frames on a request stream (RFC 9114 §4.1, §7), and that how it is cut never matters.

use bytes::Bytes;

use super::frame::{Idle, grease, kind};
use super::message::{Content, Event, MAX_IDLE, MessageReader};
use super::{Fault, Role, varint};
use crate::Code;

fn frame(kind: u64, payload: &[u8]) -> Vec<u8> {
    let mut out = Vec::new();
    varint::encode(kind, &mut out);
    varint::encode(payload.len() as u64, &mut out);
    out.extend_from_slice(payload);
    out
}

fn head() -> Vec<u8> {
    frame(kind::HEADERS, b"head")
}

fn data(payload: &[u8]) -> Vec<u8> {
    frame(kind::DATA, payload)
}

/// What was read: the content joined, each section as text.
#[derive(Debug, Default, PartialEq, Eq)]
struct Seen {
    sections: Vec<String>,
    content: Vec<u8>,
}

fn feed(role: Role, content: Content, chunks: &[&[u8]]) -> Result<Seen, Fault> {
    let mut reader = MessageReader::new(role, 100);
    let mut seen = Seen::default();
    for chunk in chunks {
        let mut chunk = Bytes::copy_from_slice(chunk);
        while let Some(event) = reader.next(&mut chunk)? {
            match event {
                Event::Head(block) => {
                    seen.sections.push(format!("head {block:?}"));
                    reader.head_done(content);
                }
                Event::Data(piece) => seen.content.extend_from_slice(&piece),
                Event::Trailers(block) => seen.sections.push(format!("trailers {block:?}")),
            }
        }
        assert!(chunk.is_empty(), "a reader uses its input up");
    }
    reader.finish()?;
    Ok(seen)
}

/// Reads the frames whole and byte by byte; both must agree.
fn read(role: Role, content: Content, frames: &[Vec<u8>]) -> Result<Seen, Fault> {
    let bytes = frames.concat();
    let whole = feed(role, content, &[&bytes]);
    let single: Vec<&[u8]> = bytes.chunks(1).collect();
    assert_eq!(
        feed(role, content, &single),
        whole,
        "how it is cut must not matter"
    );
    for cut in 0..bytes.len() {
        let halves = [&bytes[..cut], &bytes[cut..]];
        assert_eq!(feed(role, content, &halves), whole, "cut at {cut}");
    }
    whole
}

fn code(result: Result<Seen, Fault>) -> Option<(Code, &'static str)> {
    match result {
        Ok(_) => None,
        Err(Fault::Connection { code, .. }) => Some((code, "connection")),
        Err(Fault::Stream { code, .. }) => Some((code, "stream")),
        Err(Fault::TooLarge) => Some((Code::EXCESSIVE_LOAD, "too large")),
    }
}

const BOTH: [Role; 2] = [Role::Client, Role::Server];

#[test]
fn header_content_and_trailers_come_in_this_order() {
    let frames = [
        head(),
        data(b"one "),
        data(b""),
        data(b"two"),
        frame(kind::HEADERS, b"end"),
    ];
    for role in BOTH {
        let seen = read(role, Content::Open, &frames).unwrap();
        assert_eq!(seen.content, b"one two");
        assert_eq!(seen.sections, ["head b\"head\"", "trailers b\"end\""]);
    }
}

#[test]
fn frames_out_of_order_are_h3_frame_unexpected() {
    let trailers = || frame(kind::HEADERS, b"end");
    let cases: [(&str, Vec<Vec<u8>>); 4] = [
        ("DATA first", vec![data(b"x"), head()]),
        ("empty DATA first", vec![data(b""), head()]),
        ("DATA after trailers", vec![head(), trailers(), data(b"x")]),
        (
            "HEADERS after trailers",
            vec![head(), trailers(), trailers()],
        ),
    ];
    for (what, frames) in cases {
        for role in BOTH {
            let got = code(read(role, Content::Open, &frames));
            assert_eq!(got, Some((Code::FRAME_UNEXPECTED, "connection")), "{what}");
        }
    }
}

#[test]
fn control_frames_and_http2_frames_are_h3_frame_unexpected() {
    for kind in [
        kind::SETTINGS,
        kind::GOAWAY,
        kind::CANCEL_PUSH,
        kind::MAX_PUSH_ID,
        kind::PRIORITY_UPDATE,
        kind::PRIORITY_UPDATE_PUSH,
        kind::CREDIT,
        2,
        6,
        8,
        9,
    ] {
        for role in BOTH {
            for frames in [vec![frame(kind, &[0])], vec![head(), frame(kind, &[0])]] {
                let got = code(read(role, Content::Open, &frames));
                assert_eq!(
                    got,
                    Some((Code::FRAME_UNEXPECTED, "connection")),
                    "{kind:#x}"
                );
            }
        }
    }
}

#[test]
fn a_push_promise_is_refused() {
    let frames = [head(), frame(kind::PUSH_PROMISE, &[0, 0, 0])];
    let client = code(read(Role::Client, Content::Open, &frames));
    assert_eq!(client, Some((Code::ID_ERROR, "connection")));
    let server = code(read(Role::Server, Content::Open, &frames));
    assert_eq!(server, Some((Code::FRAME_UNEXPECTED, "connection")));
}

#[test]
fn unknown_and_greased_frames_are_skipped_anywhere() {
    let odd = || frame(grease(5), b"ignored");
    let frames = [
        odd(),
        head(),
        odd(),
        data(b"x"),
        frame(grease(9), b""),
        odd(),
        frame(kind::HEADERS, b"t"),
        odd(),
    ];
    for role in BOTH {
        let seen = read(role, Content::Open, &frames).unwrap();
        assert_eq!(
            (seen.content.as_slice(), seen.sections.len()),
            (&b"x"[..], 2)
        );
    }
    let tunnel = read(Role::Client, Content::Tunnel, &[head(), odd(), data(b"x")]).unwrap();
    assert_eq!(tunnel.content, b"x");
}

#[test]
fn an_end_inside_a_frame_is_h3_frame_error() {
    let whole = [
        head(),
        data(b"0123456789"),
        frame(grease(1), b"skipped"),
        frame(kind::HEADERS, b"end"),
    ];
    let bytes = whole.concat();
    let mut ends = vec![0];
    for frame in &whole {
        ends.push(ends.last().unwrap() + frame.len());
    }
    for cut in 1..bytes.len() {
        let got = code(feed(Role::Client, Content::Open, &[&bytes[..cut]]));
        let expected = (!ends.contains(&cut)).then_some((Code::FRAME_ERROR, "connection"));
        assert_eq!(got, expected, "stream ends after {cut} bytes");
    }
}

#[test]
fn an_end_before_the_header_is_an_error_of_the_stream() {
    for frames in [vec![], vec![frame(grease(1), b"x")]] {
        let server = code(read(Role::Server, Content::Open, &frames));
        assert_eq!(server, Some((Code::REQUEST_INCOMPLETE, "stream")));
        let client = code(read(Role::Client, Content::Open, &frames));
        assert_eq!(client, Some((Code::MESSAGE_ERROR, "stream")));
    }
}

#[test]
fn content_that_differs_from_content_length_is_h3_message_error() {
    let cases: [(u64, &[&[u8]], bool); 7] = [
        (3, &[b"abc"], true),
        (3, &[b"a", b"", b"bc"], true),
        (0, &[], true),
        (0, &[b""], true),
        (3, &[b"ab"], false),
        (3, &[b"ab", b"cd"], false),
        (0, &[b"x"], false),
    ];
    for (length, pieces, good) in cases {
        let mut frames = vec![head()];
        frames.extend(pieces.iter().map(|p| data(p)));
        let got = code(read(Role::Server, Content::Exactly(length), &frames));
        let expected = (!good).then_some((Code::MESSAGE_ERROR, "stream"));
        assert_eq!(got, expected, "content-length {length}, pieces {pieces:?}");
    }
}

#[test]
fn a_tunnel_carries_data_frames_only() {
    for role in BOTH {
        let seen = read(role, Content::Tunnel, &[head(), data(b"bytes")]).unwrap();
        assert_eq!(seen.content, b"bytes");
        let trailers = [head(), data(b"bytes"), frame(kind::HEADERS, b"end")];
        let got = code(read(role, Content::Tunnel, &trailers));
        assert_eq!(got, Some((Code::FRAME_UNEXPECTED, "connection")));
    }
}

#[test]
fn a_header_frame_beyond_the_limit_is_refused_by_its_length_alone() {
    let mut start = Vec::new();
    varint::encode(kind::HEADERS, &mut start);
    varint::encode(101, &mut start);
    let got = code(feed(Role::Server, Content::Open, &[&start]));
    assert_eq!(got, Some((Code::EXCESSIVE_LOAD, "too large")));
}

#[test]
fn unknown_frames_are_never_kept() {
    let mut reader = MessageReader::new(Role::Server, 100);
    let mut start = Vec::new();
    varint::encode(grease(3), &mut start);
    varint::encode(Idle::MAX_BYTES, &mut start);
    assert_eq!(reader.next(&mut Bytes::from(start)), Ok(None));
    for _ in 0..Idle::MAX_BYTES / 65_536 {
        assert_eq!(reader.next(&mut Bytes::from(vec![0; 65_536])), Ok(None));
        assert_eq!(reader.kept(), 0);
    }
}

/// RFC 9114 §10.5.
#[test]
fn frames_that_bring_nothing_are_h3_excessive_load_when_there_is_nothing_else() {
    let load = Some((Code::EXCESSIVE_LOAD, "connection"));
    let most = MAX_IDLE as usize;
    let read = |frames: &[Vec<u8>]| code(feed(Role::Server, Content::Open, &[&frames.concat()]));
    for useless in [frame(grease(1), b"x"), frame(grease(9), b""), data(b"")] {
        let mut frames = vec![head()];
        frames.extend(std::iter::repeat_n(useless.clone(), most));
        assert_eq!(read(&frames), None, "{most} are taken");
        let mut more = frames.clone();
        more.extend([data(b"x"), useless.clone()]);
        assert_eq!(read(&more), None, "content in between counts");
        frames.push(useless);
        assert_eq!(read(&frames), load);
    }
    // By its length alone, before a byte of it is here.
    let mut start = Vec::new();
    varint::encode(grease(3), &mut start);
    varint::encode(Idle::MAX_BYTES + 1, &mut start);
    assert_eq!(code(feed(Role::Server, Content::Open, &[&start])), load);
}

#[test]
fn content_is_handed_on_without_a_copy() {
    let mut reader = MessageReader::new(Role::Server, 100);
    let mut input = Bytes::from([head(), data(b"0123456789")].concat());
    let origin = input.as_ptr_range();
    assert!(matches!(reader.next(&mut input), Ok(Some(Event::Head(_)))));
    reader.head_done(Content::Open);
    let Ok(Some(Event::Data(piece))) = reader.next(&mut input) else {
        panic!("no content");
    };
    assert!(origin.contains(&piece.as_ptr()));
}
