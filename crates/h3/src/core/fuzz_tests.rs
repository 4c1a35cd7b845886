//! A fuzzing harness that runs on stable Rust as a test: mutated messages and control streams, cut at random,
//! through everything that reads a peer's bytes. Whatever comes, nothing panics, what is kept stays within
//! its bound, and how the bytes were cut changes nothing.

use bytes::Bytes;
use proptest::prelude::*;

use super::control::ControlReader;
use super::frame::kind;
use super::message::{Content, Event, MessageReader};
use super::qpack::decode::Limits;
use super::{Fault, Role, incoming, outgoing, settings, varint};

const LIMITS: Limits = Limits {
    size: 512,
    fields: 16,
};
const MAX_BLOCK: u64 = 512;

/// Reads `bytes` as one stream and describes all that was seen; content is joined.
fn read_message(role: Role, bytes: &[u8], cuts: &[usize]) -> Vec<String> {
    let mut reader = MessageReader::new(role, MAX_BLOCK);
    let mut log = Vec::new();
    let mut content = Vec::new();
    for chunk in pieces(bytes, cuts) {
        let mut chunk = chunk;
        loop {
            assert!(reader.kept() as u64 <= MAX_BLOCK, "kept {}", reader.kept());
            match reader.next(&mut chunk) {
                Ok(None) => break,
                Ok(Some(Event::Data(piece))) => content.extend_from_slice(&piece),
                Ok(Some(Event::Head(block))) => match head(role, &block, &mut log) {
                    Ok(Some(next)) => reader.head_done(next),
                    Ok(None) => {}
                    Err(fault) => return end(log, content, Err(fault)),
                },
                Ok(Some(Event::Trailers(block))) => {
                    log.push(format!("{:?}", incoming::trailers(&block, LIMITS)));
                }
                Err(fault) => return end(log, content, Err(fault)),
            }
        }
    }
    end(log, content, reader.finish())
}

fn head(role: Role, block: &Bytes, log: &mut Vec<String>) -> Result<Option<Content>, Fault> {
    let content = |length: Option<u64>| length.map_or(Content::Open, Content::Exactly);
    match role {
        Role::Server => {
            let (request, length) = incoming::request(block, LIMITS, true)?;
            log.push(format!("{request:?}"));
            if request.method() == http::Method::CONNECT {
                return Ok(Some(Content::Tunnel));
            }
            Ok(Some(content(length)))
        }
        Role::Client => {
            let (response, length) = incoming::response(block, LIMITS)?;
            log.push(format!("{response:?}"));
            Ok((!response.status().is_informational()).then(|| content(length)))
        }
    }
}

/// Content that came before a fault depends on the cuts (a fault may be seen earlier in a larger piece), so
/// only a whole message's is compared.
fn end(mut log: Vec<String>, content: Vec<u8>, result: Result<(), Fault>) -> Vec<String> {
    log.push(format!("{result:?}"));
    if result.is_ok() {
        log.push(format!("{content:?}"));
    }
    log
}

fn read_control(role: Role, bytes: &[u8], cuts: &[usize]) -> Vec<String> {
    let mut reader = ControlReader::new(role);
    let mut log = Vec::new();
    for mut chunk in pieces(bytes, cuts) {
        loop {
            match reader.next(&mut chunk) {
                Ok(Some(event)) => log.push(format!("{event:?}")),
                Ok(None) => break,
                Err(fault) => {
                    log.push(format!("{fault:?}"));
                    return log;
                }
            }
        }
    }
    log
}

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

/// Good streams to start from.
fn seeds() -> Vec<Vec<u8>> {
    let mut request = http::Request::new(());
    *request.uri_mut() = "https://invoices.default:80/a?b=c".parse().unwrap();
    request.headers_mut().insert("content-length", 5.into());
    request
        .headers_mut()
        .insert("x-request-id", "0123".parse().unwrap());
    let mut post = outgoing::request(&request, u64::MAX).unwrap();
    outgoing::data_head(5, &mut post);
    post.extend_from_slice(b"hello");
    let mut trailers = http::HeaderMap::new();
    trailers.insert("grpc-status", 0.into());
    post.extend(outgoing::trailers(&trailers, u64::MAX).unwrap());

    let mut connect = http::Request::new(());
    *connect.method_mut() = http::Method::CONNECT;
    *connect.uri_mut() = "invoices.default:5432".parse().unwrap();
    let mut tunnel = outgoing::request(&connect, u64::MAX).unwrap();
    outgoing::data_head(3, &mut tunnel);
    tunnel.extend_from_slice(b"abc");

    let mut answer = http::Response::new(());
    *answer.status_mut() = http::StatusCode::EARLY_HINTS;
    let mut response = outgoing::response(&answer, u64::MAX).unwrap();
    *answer.status_mut() = http::StatusCode::OK;
    response.extend(outgoing::response(&answer, u64::MAX).unwrap());
    varint::encode(0x21, &mut response);
    response.extend_from_slice(&[3, 1, 2, 3]);

    let mut control = Vec::new();
    settings::encode(&settings::Settings::default(), true, &mut control);
    control.extend_from_slice(&[
        kind::GOAWAY as u8,
        1,
        8,
        0x21,
        2,
        0,
        0,
        kind::GOAWAY as u8,
        1,
        4,
    ]);
    vec![post, tunnel, response, control]
}

fn mutate(mut bytes: Vec<u8>, edits: &[(u8, usize, u8)]) -> Vec<u8> {
    for (what, at, with) in edits {
        if bytes.is_empty() {
            break;
        }
        let at = at % bytes.len();
        match what % 5 {
            0 => bytes[at] = *with,
            1 => bytes[at] ^= 1 << (with % 8),
            2 => bytes.insert(at, *with),
            3 => drop(bytes.remove(at)),
            _ => bytes.extend_from_within(at..),
        }
    }
    bytes
}

fn check(bytes: &[u8], cuts: &[usize]) {
    for role in [Role::Client, Role::Server] {
        let whole = read_message(role, bytes, &[]);
        assert_eq!(
            read_message(role, bytes, cuts),
            whole,
            "cuts change the message"
        );
        let whole = read_control(role, bytes, &[]);
        assert_eq!(
            read_control(role, bytes, cuts),
            whole,
            "cuts change the control stream"
        );
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(4096))]

    #[test]
    fn mutated_streams_never_panic_and_do_not_depend_on_their_cuts(
        seed in 0usize..4,
        edits in proptest::collection::vec((any::<u8>(), any::<usize>(), any::<u8>()), 0..6),
        cuts in proptest::collection::vec(1usize..20, 1..4),
    ) {
        check(&mutate(seeds().swap_remove(seed), &edits), &cuts);
    }

    #[test]
    fn random_streams_never_panic_and_do_not_depend_on_their_cuts(
        bytes in proptest::collection::vec(any::<u8>(), 0..300),
        cuts in proptest::collection::vec(1usize..20, 1..4),
    ) {
        check(&bytes, &cuts);
    }
}

#[test]
fn the_seeds_themselves_are_good() {
    let all = seeds();
    for (role, seed) in [(Role::Server, 0), (Role::Server, 1), (Role::Client, 2)] {
        let log = read_message(role, &all[seed], &[]);
        assert!(log.contains(&"Ok(())".to_owned()), "seed {seed}: {log:?}");
    }
    assert_eq!(read_control(Role::Client, &all[3], &[]).len(), 3);
}
