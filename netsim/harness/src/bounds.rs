//! How many tasks a process may have, by the place in the code that spawned them, and how much memory it may hold.
//!
//! A sum over all of them would have to leave room for the load; a task that is leaked now and then would hide in
//! that. What there is one of for a process is one, under whatever load; what comes with connections is as many as
//! there are; what comes with requests is gone when nobody asks.

use std::cell::RefCell;
use std::collections::{BTreeMap, HashMap};

use weft_netsim_sim::Process;

use crate::mesh::Mesh;
use crate::observer::{Observer, Seen};
use crate::schedule::PLACES;

/// Tasks of one process under load: a few for itself, for each connection, and for each request, of which a flood
/// brings 150.
const MOST_TASKS: usize = 400;
/// quinn has a task for each connection, which ends last.
const CONNECTIONS: &str = "/quinn-";
/// Connections of a process: one each way with every other node, as many that are being replaced or have died without
/// anybody knowing yet, and handshakes: whoever wakes from a long sleep finds those of all who have tried meanwhile.
const MOST_CONNECTIONS: usize = 4 * PLACES + MOST_HANDSHAKES;
/// weft's own limit (`weft_transport::Limits`).
const MOST_HANDSHAKES: usize = 512;
/// Of those over TCP, which have no task of quinn's: one with every other node, for whose UDP has broken again and
/// again comes back to QUIC ever more rarely, after ten minutes at last.
const MOST_OVER_TCP: usize = PLACES;
/// With nothing wrong for minutes, one each way is all there is.
const MOST_CONNECTIONS_AT_REST: usize = 2 * PLACES;
/// Bytes of memory for each connection: quinn's books of streams, TLS, packets that are not acknowledged.
const BYTES_OF_CONNECTION: usize = 500_000;
/// What a process needs besides at rest: config, certificates, code's own books.
const BYTES_AT_REST: usize = 2_500_000;
/// Under load: each of some requests may have a stream's window (1 MiB) at its sender and at its receiver, and
/// read-ahead.
const BYTES_UNDER_LOAD: usize = 16_000_000;
/// Kept to the application, idle, for the next request.
const MOST_IDLE_AT_REST: usize = 8;

/// What a place in the code spawns tasks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Purpose {
    Connections,
    /// One for a connection.
    Connection,
    /// One for a connection or for a stream of it, such as that of a link to the control node.
    Stream,
    /// One for a connection to the application.
    Application,
    /// One for a request, or an attempt to connect.
    Request,
    /// One for a connection over TCP, or for its open stream.
    Fallback,
    /// An endpoint of quinn's; the one that joins has its own.
    Endpoint,
    /// One for the process.
    Process,
}

thread_local! {
    /// By where the path lies in memory: the same few are asked for thousands of times in a run.
    static KNOWN: RefCell<HashMap<*const str, Purpose>> = RefCell::default();
}

fn purpose(file: &'static str) -> Purpose {
    KNOWN.with_borrow_mut(|known| {
        *known
            .entry(std::ptr::from_ref(file))
            .or_insert_with(|| read_purpose(file))
    })
}

fn read_purpose(file: &str) -> Purpose {
    const PURPOSES: [(&str, Purpose); 12] = [
        ("transport/src/core.rs", Purpose::Connection),
        ("transport/src/accept.rs", Purpose::Stream),
        ("transport/src/pool.rs", Purpose::Request),
        ("src/tcp/listen.rs", Purpose::Fallback),
        ("src/tcp/server.rs", Purpose::Fallback),
        ("proxy/src/inbound/app.rs", Purpose::Application),
        ("proxy/src/accept.rs", Purpose::Request),
        ("proxy/src/outbound/attempt.rs", Purpose::Request),
        ("proxy/src/outbound/tcp.rs", Purpose::Request),
        ("control/src/accept.rs", Purpose::Request),
        ("/src/connection.rs", Purpose::Connections),
        ("/src/endpoint.rs", Purpose::Endpoint),
    ];
    let found = PURPOSES.iter().find(|(end, purpose)| {
        let of_quinn = matches!(purpose, Purpose::Connections | Purpose::Endpoint);
        file.ends_with(end) && of_quinn == file.contains(CONNECTIONS)
    });
    found.map_or(Purpose::Process, |(_, purpose)| *purpose)
}

/// Tasks by file and line.
type ByPlace = BTreeMap<(&'static str, u32), usize>;

fn connections(tasks: &ByPlace) -> usize {
    let of_quinn = tasks
        .iter()
        .filter(|((file, _), _)| purpose(file) == Purpose::Connections);
    of_quinn.map(|(_, count)| count).sum()
}

/// Bytes that a process with so many connections may hold.
fn most_bytes(connections: usize, at_rest: bool) -> usize {
    let own = if at_rest {
        BYTES_AT_REST
    } else {
        BYTES_UNDER_LOAD
    };
    own + connections * BYTES_OF_CONNECTION
}

/// The place in the code that has more tasks than it may, if there is one.
fn excess(tasks: &ByPlace, at_rest: bool) -> Option<String> {
    let connections = connections(tasks);
    tasks.iter().find_map(|((file, line), count)| {
        let most = most(purpose(file), connections, at_rest);
        // Where a library lies on this machine is nobody's business.
        let parts: Vec<_> = file.rsplitn(4, '/').collect();
        let short = parts[..parts.len().min(3)].iter().rev().copied().collect::<Vec<_>>().join("/");
        (*count > most).then(|| {
            format!("{count} tasks of {short}:{line}, where {most} may be with {connections} connections")
        })
    })
}

fn most(purpose: Purpose, connections: usize, at_rest: bool) -> usize {
    match (purpose, at_rest) {
        (Purpose::Process, _) | (Purpose::Endpoint, true) => 1,
        (Purpose::Endpoint, false) => 2,
        (Purpose::Connections, true) => MOST_CONNECTIONS_AT_REST,
        (Purpose::Connections, false) => MOST_CONNECTIONS,
        (Purpose::Connection | Purpose::Stream, true) => connections + MOST_OVER_TCP,
        (Purpose::Connection, false) => MOST_CONNECTIONS,
        (Purpose::Application, true) => MOST_IDLE_AT_REST,
        (Purpose::Fallback, true) => MOST_OVER_TCP,
        (Purpose::Request, true) => 0,
        (Purpose::Stream | Purpose::Application | Purpose::Fallback | Purpose::Request, false) => {
            MOST_TASKS
        }
    }
}

fn judge(observer: &Observer, process: &Process, at_rest: bool) {
    let by_place = process.tasks_by_place();
    let by_place = by_place
        .iter()
        .map(|(at, count)| ((at.file(), at.line()), *count))
        .collect();
    let when = if at_rest { " at rest" } else { "" };
    if let Some(excess) = excess(&by_place, at_rest) {
        observer.violate(format!("{} has {excess}{when}", process.name()));
    }
    let all: usize = by_place.values().sum();
    let connections = connections(&by_place);
    // A connection has two tasks, and another one for a request.
    if all > MOST_TASKS + 2 * connections {
        observer.violate(format!(
            "{} has {all} tasks{when}: {by_place:?}",
            process.name()
        ));
    }
    let bytes = process.bytes();
    let allowed = most_bytes(connections, at_rest);
    if bytes > allowed {
        observer.violate(format!(
            "{} holds {bytes} bytes of memory{when}, where {allowed} may be with {connections} connections",
            process.name()
        ));
    }
    if at_rest && bytes == 0 {
        observer.violate("nobody counts memory in this program".to_owned());
    }
    let Seen {
        most_tasks,
        tasks_at_rest,
        most_bytes,
        bytes_at_rest,
        ..
    } = &mut *observer.lock();
    let (tasks, held) = if at_rest {
        (tasks_at_rest, bytes_at_rest)
    } else {
        (most_tasks, most_bytes)
    };
    *tasks = all.max(*tasks);
    *held = bytes.max(*held);
}

/// No process has more tasks than it needs, and none piles them up.
pub(crate) fn under_load(observer: &Observer, process: &Process) {
    judge(observer, process, false);
}

/// When nobody asks anything any more, nothing is left of what was asked, and of links that were lost.
pub(crate) fn at_rest(observer: &Observer, mesh: &Mesh) {
    for process in (0..PLACES).filter_map(|place| mesh.process(place)) {
        judge(observer, &process, true);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const QUINN: &str = "/somewhere/quinn-0.11.12/src/connection.rs";

    fn tasks(of: &[(&'static str, usize)]) -> ByPlace {
        of.iter()
            .map(|(file, count)| ((*file, 7), *count))
            .collect()
    }

    #[test]
    fn what_there_is_one_of_is_one_under_load_too() {
        let two = tasks(&[("crates/proxy/src/control_client/mod.rs", 2), (QUINN, 12)]);
        let told = excess(&two, false).unwrap();
        assert!(
            told.starts_with("2 tasks of src/control_client/mod.rs:7, where 1 may be"),
            "{told}"
        );
        let one = tasks(&[("crates/proxy/src/control_client/mod.rs", 1), (QUINN, 12)]);
        assert_eq!(excess(&one, true), None);
    }

    #[test]
    fn what_comes_with_connections_is_as_many_as_there_are_and_requests_end() {
        let accept = "crates/transport/src/accept.rs";
        let most = 6 + MOST_OVER_TCP;
        assert_eq!(excess(&tasks(&[(accept, most), (QUINN, 6)]), true), None);
        assert!(excess(&tasks(&[(accept, most + 1), (QUINN, 6)]), true).is_some());
        assert_eq!(excess(&tasks(&[(accept, 150), (QUINN, 6)]), false), None);
        let request = tasks(&[("crates/proxy/src/accept.rs", 1)]);
        assert_eq!(excess(&request, false), None);
        assert!(excess(&request, true).is_some());
        let told = excess(&tasks(&[(QUINN, 1_000)]), false).unwrap();
        assert!(
            told.contains("tasks of quinn-0.11.12/src/connection.rs:7")
                && !told.contains("somewhere"),
            "{told}"
        );
    }
}
