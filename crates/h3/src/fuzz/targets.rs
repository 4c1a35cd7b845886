//! The targets: one test for each thing that reads a peer's bytes.

use bytes::Bytes;
use http::{Method, Request};

use super::{Seen, fuzz, seeds};
use crate::core::capsule::{Capsule, CapsuleReader};
use crate::core::control::{ControlEvent, ControlReader};
use crate::core::frame::HeadReader;
use crate::core::message::{Content, Event, MessageReader};
use crate::core::qpack::decode::{Limits, decode};
use crate::core::qpack::huffman;
use crate::core::qpack::instructions::{DecoderStream, check_encoder};
use crate::core::settings::Settings;
use crate::core::uni::{StreamType, TypeReader};
use crate::core::{Fault, Role, datagram, incoming, outgoing, udp};
use crate::{Protocol, UdpTemplate};

const LIMITS: Limits = Limits {
    size: 512,
    fields: 16,
};
const MAX_BLOCK: u64 = 512;

#[test]
fn frame_heads() {
    let read = |bytes: &[u8], cuts: &[usize]| {
        let mut reader = HeadReader::default();
        let mut heads = Vec::new();
        for mut piece in pieces(bytes, cuts) {
            while let Some(head) = reader.read(&mut piece) {
                heads.push(head);
            }
        }
        (heads, reader.is_empty())
    };
    fuzz("frame_heads", seeds::control(), |bytes, cuts| {
        let whole = read(bytes, &[]);
        assert_eq!(read(bytes, cuts), whole);
        whole.0.iter().map(|h| size(h.len)).collect()
    });
}

#[test]
fn stream_types() {
    fuzz("stream_types", seeds::datagrams(), |bytes, cuts| {
        let read = |cuts| {
            let mut reader = TypeReader::default();
            pieces(bytes, cuts).find_map(|mut piece| reader.read(&mut piece))
        };
        let whole = read(&[]);
        assert_eq!(read(cuts), whole);
        vec![match whole {
            None => "cut",
            Some(StreamType::Unknown(_)) => "unknown",
            Some(_) => "known",
        }]
    });
}

#[test]
fn settings() {
    fuzz(
        "settings",
        seeds::settings(),
        |bytes, _| match Settings::parse(bytes) {
            Ok(settings) => vec![
                size(settings.max_field_section_size),
                flag(settings.enable_connect_protocol),
                flag(settings.h3_datagram),
            ],
            Err(fault) => vec![rule(fault)],
        },
    );
}

#[test]
fn control_streams() {
    for role in [Role::Client, Role::Server] {
        let name = format!("control_{role:?}").to_lowercase();
        fuzz(&name, seeds::control(), |bytes, cuts| {
            let whole = read_control(role, bytes, &[]);
            assert_eq!(read_control(role, bytes, cuts), whole);
            whole
        });
    }
}

fn read_control(role: Role, bytes: &[u8], cuts: &[usize]) -> Seen {
    let mut reader = ControlReader::new(role);
    let mut seen = Vec::new();
    for mut piece in pieces(bytes, cuts) {
        loop {
            match reader.next(&mut piece) {
                Ok(Some(ControlEvent::Settings(_))) => seen.push("settings"),
                Ok(Some(ControlEvent::Goaway(id))) => seen.push(size(id)),
                Ok(Some(ControlEvent::Credit(_))) => seen.push("credit"),
                Ok(Some(ControlEvent::Priority { .. })) => seen.push("priority"),
                Ok(None) => break,
                Err(fault) => {
                    seen.push(rule(fault));
                    return seen;
                }
            }
        }
    }
    seen
}

#[test]
fn qpack_sections() {
    fuzz("qpack_sections", seeds::sections(), |bytes, _| {
        let (mut seen, mut total) = (Vec::new(), 0);
        let result = decode(&Bytes::copy_from_slice(bytes), LIMITS, |line| {
            total += line.name.as_bytes().len() + line.value.as_bytes().len() + 32;
            seen.push(size(line.value.as_bytes().len() as u64));
            seen.push(flag(line.sensitive));
            Ok(())
        });
        assert!(total as u64 <= LIMITS.size, "{total} bytes were taken");
        seen.extend(result.err().map(rule));
        seen
    });
}

#[test]
fn huffman_strings() {
    fuzz("huffman_strings", seeds::huffman(), |bytes, _| {
        let Some(text) = huffman::decode(bytes) else {
            return vec!["refused"];
        };
        assert!(text.len() <= bytes.len() * 8 / 5);
        assert_eq!(huffman::tests::encode(&text), bytes, "{text:02x?}");
        vec![size(text.len() as u64), flag(text.is_ascii())]
    });
}

#[test]
fn qpack_streams() {
    fuzz("qpack_streams", seeds::instructions(), |bytes, cuts| {
        let decoder = |cuts| {
            let mut stream = DecoderStream::default();
            pieces(bytes, cuts).try_for_each(|piece| stream.check(&piece))
        };
        let whole = decoder(&[]);
        assert_eq!(decoder(cuts), whole);
        let encoder = check_encoder(bytes);
        [whole, encoder]
            .map(|r| r.map_or_else(rule, |()| "ok"))
            .to_vec()
    });
}

#[test]
fn requests() {
    message("requests", Role::Server);
}

#[test]
fn responses() {
    message("responses", Role::Client);
}

fn message(name: &str, role: Role) {
    fuzz(name, seeds::messages(), |bytes, cuts| {
        let whole = read_message(role, bytes, &[]);
        assert_eq!(read_message(role, bytes, cuts), whole);
        whole.0
    });
}

/// What was seen, and the content if the whole message was good: what came before a fault depends on the
/// cuts, since a fault may be seen earlier in a larger piece.
fn read_message(role: Role, bytes: &[u8], cuts: &[usize]) -> (Seen, Vec<u8>) {
    let mut reader = MessageReader::new(role, MAX_BLOCK);
    let (mut seen, mut content) = (Vec::new(), Vec::new());
    let result = pieces(bytes, cuts).try_for_each(|mut piece| {
        loop {
            assert!(reader.kept() as u64 <= MAX_BLOCK, "kept {}", reader.kept());
            match reader.next(&mut piece)? {
                None => return Ok(()),
                Some(Event::Data(data)) => content.extend_from_slice(&data),
                Some(Event::Head(block)) => {
                    if let Some(next) = head(role, &block, &mut seen)? {
                        reader.head_done(next);
                    }
                }
                Some(Event::Trailers(block)) => {
                    incoming::trailers(&block, LIMITS)?;
                    seen.push("trailers");
                }
            }
        }
    });
    match result.and_then(|()| reader.finish()) {
        Ok(()) => seen.push(size(content.len() as u64)),
        Err(fault) => {
            seen.push(rule(fault));
            content.clear();
        }
    }
    (seen, content)
}

/// Checks a header, and that one which was accepted can be sent on and comes out the same.
fn head(role: Role, block: &Bytes, seen: &mut Seen) -> Result<Option<Content>, Fault> {
    let content = |length: Option<u64>| length.map_or(Content::Open, Content::Exactly);
    match role {
        Role::Server => {
            let (request, length) = incoming::request(block, LIMITS, true)?;
            let again = outgoing::request(&request, u64::MAX).expect("what was taken can be sent");
            let (back, _) =
                incoming::request(&payload(again), WIDE, true).expect("and taken again");
            assert_eq!(back.uri(), request.uri());
            assert_eq!(back.method(), request.method());
            seen.push(size(request.headers().len() as u64));
            if request.method() == Method::CONNECT {
                seen.push("tunnel");
                return Ok(Some(Content::Tunnel));
            }
            Ok(Some(content(length)))
        }
        Role::Client => {
            let (response, length) = incoming::response(block, LIMITS)?;
            outgoing::response(&response, u64::MAX).expect("what was taken can be sent");
            seen.push(size(response.headers().len() as u64));
            seen.push(flag(response.status().is_informational()));
            Ok((!response.status().is_informational()).then(|| content(length)))
        }
    }
}

const WIDE: Limits = Limits {
    size: 1 << 20,
    fields: 1000,
};

/// The payload of one frame.
fn payload(frame: Vec<u8>) -> Bytes {
    let mut bytes = Bytes::from(frame);
    HeadReader::default()
        .read(&mut bytes)
        .expect("a frame's head");
    bytes
}

#[test]
fn capsules() {
    const MAX: u64 = 50;
    let read = |bytes: &[u8], cuts: &[usize]| {
        let mut reader = CapsuleReader::new(MAX);
        let mut got = Vec::new();
        for mut piece in pieces(bytes, cuts) {
            while let Some(capsule) = reader.next(&mut piece) {
                got.push(capsule);
            }
            assert!(piece.is_empty(), "a reader uses its input up");
            assert!(reader.kept() as u64 <= MAX, "kept {}", reader.kept());
        }
        (got, reader.finish())
    };
    fuzz("capsules", seeds::capsules(), |bytes, cuts| {
        let whole = read(bytes, &[]);
        assert_eq!(read(bytes, cuts), whole);
        let mut seen = vec![whole.1.map_or_else(rule, |()| "ok")];
        for capsule in whole.0 {
            seen.push(match &capsule {
                Capsule::Datagram(datagram) => size(datagram.len() as u64),
                Capsule::Oversized(_) => "oversized",
            });
            seen.push(packet(udp::capsule_payload(capsule)));
        }
        seen
    });
}

#[test]
fn datagrams() {
    fuzz("datagrams", seeds::datagrams(), |bytes, _| {
        let (id, payload) = match datagram::decode(Bytes::copy_from_slice(bytes)) {
            Ok(parts) => parts,
            Err(fault) => return vec![rule(fault)],
        };
        assert!(id.is_multiple_of(4) && id < 1 << 62, "stream {id}");
        let again = datagram::encode(id, [&[], &payload]);
        assert!(again.len() <= bytes.len() && again.ends_with(&payload));
        vec![size(id), packet(udp::payload(payload))]
    });
}

fn packet(payload: Result<Option<Bytes>, Fault>) -> &'static str {
    match payload {
        Ok(Some(payload)) => size(payload.len() as u64),
        Ok(None) => "another context",
        Err(fault) => rule(fault),
    }
}

#[test]
fn udp_templates() {
    let target = crate::UdpTarget::new("2001:db8::1", 53).unwrap();
    fuzz("udp_templates", seeds::templates(), |bytes, _| {
        let Ok(text) = str::from_utf8(bytes) else {
            return vec!["not UTF-8"];
        };
        match text.parse::<UdpTemplate>() {
            Ok(template) => {
                let request = template.request(&target);
                assert_eq!(template.target(&request).as_ref(), Ok(&target), "{text}");
                outgoing::request(&request, u64::MAX).expect("it can be sent");
                vec!["good", size(text.len() as u64)]
            }
            Err(error) => vec![error.rule()],
        }
    });
}

#[test]
fn udp_targets() {
    let templates = [
        UdpTemplate::well_known("a:443".parse().unwrap()),
        "https://a/m{?target_host,target_port}".parse().unwrap(),
    ];
    fuzz("udp_targets", seeds::paths(), |bytes, _| {
        let Ok(path) = http::uri::PathAndQuery::try_from(bytes) else {
            return vec!["no path"];
        };
        let mut uri = http::uri::Parts::default();
        uri.scheme = Some(http::uri::Scheme::HTTPS);
        uri.authority = Some("a".parse().unwrap());
        uri.path_and_query = Some(path);
        let mut request = Request::new(());
        *request.uri_mut() = http::Uri::from_parts(uri).unwrap();
        request.extensions_mut().insert(Protocol::CONNECT_UDP);
        templates
            .iter()
            .map(|template| match template.target(&request) {
                Ok(target) => {
                    let again = template.request(&target);
                    assert_eq!(template.target(&again).as_ref(), Ok(&target));
                    size(target.host.to_string().len() as u64)
                }
                Err(error) => error.rule(),
            })
            .collect()
    });
}

/// `bytes` in pieces of the lengths in `cuts`, over and over; whole when there are none.
fn pieces<'a>(bytes: &'a [u8], cuts: &'a [usize]) -> impl Iterator<Item = Bytes> + 'a {
    let mut rest = bytes;
    let mut cuts = cuts.iter().cycle();
    std::iter::from_fn(move || {
        if rest.is_empty() {
            return None;
        }
        let cut = cuts
            .next()
            .map_or(rest.len(), |c| (*c).clamp(1, rest.len()));
        let (piece, tail) = rest.split_at(cut);
        rest = tail;
        Some(Bytes::copy_from_slice(piece))
    })
}

fn rule(fault: Fault) -> &'static str {
    match fault {
        Fault::Connection { reason, .. } => reason,
        Fault::Stream { rule, .. } => rule,
        Fault::TooLarge => "too large",
    }
}

fn flag(set: bool) -> &'static str {
    if set { "yes" } else { "no" }
}

/// A number's order of magnitude.
fn size(of: u64) -> &'static str {
    const SIZES: [&str; 9] = [
        "0", "1", "2-3", "4-7", "8-15", "16-63", "64-255", "to 2^16", "more",
    ];
    SIZES[match of {
        0..=15 => (u64::BITS - of.leading_zeros()) as usize,
        16..=63 => 5,
        64..=255 => 6,
        256..=65_535 => 7,
        _ => 8,
    }]
}
