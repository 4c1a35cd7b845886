//! What must hold, whatever happens.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use memchr::memmem;

use crate::app::{App, Xfcc, answer_to};
use crate::certificates::{Certificates, secret_of};
use crate::client::{Ending, Outcome};
use crate::model::is_forbidden;
use crate::observer::{Access, Arrival, Observer, Seen, place_of};
use crate::schedule::name;

/// The warden of connections looks every five seconds at the least, and a clock can be set in between.
const AFTER_A_SHAKE: Duration = Duration::from_secs(7);
/// Otherwise it sleeps until the very moment.
const LATE: Duration = Duration::from_secs(1);
/// A timeout is answered by a timer of a millisecond's grain; what is written after it takes its way.
const OVERTIME: Duration = Duration::from_millis(50);
/// What was on its way when a certificate was revoked.
const UNDER_WAY: Duration = Duration::from_secs(1);

/// A new life begins with no config older than what an earlier one has acknowledged.
pub(crate) fn kept(observer: &Observer, process: &str, revision: u64) {
    let found = place_of(process).and_then(|place| {
        let seen = observer.lock();
        if seen.unsaved.contains(&place) {
            return None;
        }
        let acked = *seen.acked.get(&place)?;
        // Endpoints make revisions too, and are not worth a write each: what counts is the config.
        let config = |revision| seen.committed.config_of(revision);
        (config(revision) < config(acked)).then(|| {
            format!(
                "{process} starts with revision {revision}, though an earlier life of it has acknowledged {acked}, \
                 and config was pushed in between"
            )
        })
    });
    if let Some(what) = found {
        observer.violate(what);
    }
}

/// No datagram bears a private key.
pub(crate) fn key_on_the_wire(observer: &Observer, certificates: &Certificates, payload: &[u8]) {
    if let Some(home) = certificates.owner_of_key_in(payload) {
        observer.violate(format!("a private key of {} was sent", home.display()));
    }
}

impl App {
    /// What must hold when a request reaches an application.
    pub(crate) fn check(
        &self,
        arrival: &Arrival,
        xfcc: &Xfcc,
        wanted: &(String, String),
        once: bool,
    ) {
        let Arrival { number, caller, .. } = arrival;
        let (claimed, callee) = wanted;
        let here = name(self.place);
        if callee != self.service {
            self.observer.violate(format!(
                "request {number} was for {callee}, but {here} answers it"
            ));
        }
        if caller != claimed {
            self.observer.violate(format!(
                "request {number} of {claimed} reached {here} under the identity '{caller}'"
            ));
        }
        if is_forbidden(caller, self.service) {
            self.observer.violate(format!(
                "request {number} of {caller} reached {here}, which no config ever allowed"
            ));
        }
        if once && !self.observer.lock().posted.insert(*number) {
            self.observer.violate(format!(
                "request {number}, a POST, reached an application a second time (at {here})"
            ));
        }
        self.check_certificate(arrival, xfcc);
        self.check_revoked(arrival, xfcc);
    }

    /// Who has said that it refuses a certificate takes no request under it any more.
    fn check_revoked(&self, arrival: &Arrival, xfcc: &Xfcc) {
        let key = (self.place, xfcc.hash.clone());
        let since = self.observer.lock().refuses.get(&key).copied();
        if let Some(since) = since
            && arrival.at > since + UNDER_WAY
        {
            self.observer.violate(format!(
                "request {} of {} was taken at {} under a certificate that is revoked, and that it has said it \
                 refuses since {since:?}",
                arrival.number,
                arrival.caller,
                name(self.place)
            ));
        }
    }

    fn check_certificate(&self, arrival: &Arrival, xfcc: &Xfcc) {
        let shaken = self.observer.lock().shaken.get(&self.place).copied();
        if shaken.is_some_and(|at| arrival.at < at + AFTER_A_SHAKE) {
            return;
        }
        let Some(end) = self.certificates.end(&xfcc.hash) else {
            return;
        };
        if let Ok(late) = self.node.wall().duration_since(end)
            && late > LATE
        {
            self.observer.violate(format!(
                "request {} of {} was taken at {} under a certificate that ended {late:?} before",
                arrival.number,
                arrival.caller,
                name(self.place)
            ));
        }
    }
}

/// What must hold when a client has its answer, or none.
pub(crate) fn outcome(observer: &Observer, outcome: &Outcome) {
    let Outcome {
        place,
        number,
        callee,
        started,
        ..
    } = outcome;
    let excused = observer.excuses(*place, *started);
    {
        let mut seen = observer.lock();
        seen.requests += 1;
        match &outcome.ending {
            Ending::Reply { status: 200, .. } => seen.answered += 1,
            Ending::Reply { status: 403, .. } => seen.denied += 1,
            Ending::Reply { .. } => seen.failed += 1,
            Ending::Cut(..) => {
                seen.broken += 1;
                if !excused {
                    seen.cut.insert(*number);
                }
            }
            Ending::Broken(_) | Ending::Silence => seen.broken += 1,
        }
    }
    let here = name(*place);
    match &outcome.ending {
        Ending::Reply {
            status: 200, body, ..
        } => {
            if *body != answer_to(callee, *number) {
                observer.violate(format!(
                    "request {number} of {here} for {callee} was answered with '{body}'"
                ));
            }
        }
        Ending::Reply {
            status,
            proxy_status: None,
            ..
        } => observer.violate(format!(
            "request {number} of {here} for {callee} ended in {status} without a reason"
        )),
        Ending::Reply { .. } => {}
        // Its reason is in the access log, which may be written a moment later: see `afterwards`.
        Ending::Cut(..) => {}
        Ending::Broken(_) | Ending::Silence if excused => {}
        Ending::Broken(reason) => observer.violate(format!(
            "request {number} of {here} for {callee} got no answer though its sidecar ran: {reason}"
        )),
        Ending::Silence => observer.violate(format!(
            "request {number} of {here} for {callee} was lost in silence"
        )),
    }
}

/// What can be told only when it is known which revision is which generation: each request followed one whole
/// revision, the one in force when it began.
pub(crate) fn afterwards(observer: &Observer) {
    let found = {
        let seen = observer.lock();
        let arrivals: BTreeMap<u64, &Arrival> =
            seen.arrivals.iter().map(|a| (a.number, a)).collect();
        let wrong = seen
            .access
            .iter()
            .find_map(|access| of_access(&seen, access, &arrivals));
        wrong.or_else(|| cut_without_reason(&seen))
    };
    if let Some(what) = found {
        observer.violate(what);
    }
}

/// An answer that broke off has its reason in the log of the caller's sidecar.
fn cut_without_reason(seen: &Seen) -> Option<String> {
    let told = |number: &u64| {
        let mut access = seen.access.iter();
        access.any(|a| a.number == *number && !a.inbound && !a.reason.is_empty())
    };
    let number = seen.cut.iter().find(|number| !told(number))?;
    Some(format!(
        "the answer to request {number} broke off, and its sidecar's log does not say why"
    ))
}

fn of_access(seen: &Seen, access: &Access, arrivals: &BTreeMap<u64, &Arrival>) -> Option<String> {
    // Written while its process was killed: by whom is not known then.
    if access.reason.starts_with("broken off") {
        return None;
    }
    in_force(seen, access)
        .or_else(|| {
            arrivals
                .get(&access.number)
                .and_then(|a| whole(seen, access, a))
        })
        .or_else(|| in_time(seen, access))
}

/// The revision of a request is the one in force when it began: never an older one, never one to come.
fn in_force(seen: &Seen, access: &Access) -> Option<String> {
    let none = Vec::new();
    let changes = seen.in_force.get(&access.process).unwrap_or(&none);
    // The log's duration is rounded.
    let grain = Duration::from_micros(1);
    let before = changes
        .iter()
        .rev()
        .find(|(at, _)| *at + grain < access.started);
    let around = changes
        .iter()
        .filter(|(at, _)| *at + grain >= access.started && *at <= access.started + grain);
    let mut possible: Vec<u64> = around.map(|(_, revision)| *revision).collect();
    possible.push(before.map_or(0, |(_, revision)| *revision));
    if possible.contains(&access.revision) {
        return None;
    }
    Some(format!(
        "{} {} request {} by revision {}, begun at {:?} when {possible:?} was in force",
        access.process,
        if access.inbound { "answered" } else { "sent" },
        access.number,
        access.revision,
        access.started
    ))
}

/// What a request met is what its revision says.
fn whole(seen: &Seen, access: &Access, arrival: &Arrival) -> Option<String> {
    let generation = seen.committed.at(access.revision);
    let number = generation.map(|generation| generation.number);
    if !access.inbound {
        // Another attempt may have been the one that arrived, but all follow the same snapshot.
        return (arrival.generation != number).then(|| {
            format!(
                "request {} was sent by {} at revision {} (generation {number:?}), but bears generation {:?}",
                access.number, access.process, access.revision, arrival.generation
            )
        });
    }
    let allowed = generation.is_some_and(|g| g.allows(&arrival.caller, arrival.callee));
    let own = access.process.starts_with(&name(arrival.place));
    (own && !allowed).then(|| {
        format!(
            "request {} of {} reached {} at revision {}, which does not allow it",
            access.number, arrival.caller, access.process, access.revision
        )
    })
}

/// No request takes longer than its route allows.
fn in_time(seen: &Seen, access: &Access) -> Option<String> {
    if access.inbound || access.code == 0 {
        return None;
    }
    let generation = seen.committed.at(access.revision)?;
    let longest = crate::model::SERVICES
        .iter()
        .map(|service| generation.timeout(service))
        .max()?;
    let node = access.process.split('/').next().unwrap_or_default();
    let shaken = seen
        .shaken
        .iter()
        .any(|(place, at)| name(*place) == node && *at >= access.started);
    let took = access.ended - access.started;
    (took > longest + OVERTIME && !shaken).then(|| {
        format!(
            "request {} of {} took {took:?}, no route of revision {} allows more than {longest:?}",
            access.number, access.process, access.revision
        )
    })
}

/// Private keys stay where they were made: neither their secret numbers nor their text is in a file of anybody
/// else, nor in what anybody has logged.
pub(crate) fn keys_at_home(observer: &Observer, keys: &[(PathBuf, Vec<u8>)], root: &Path) {
    let files = files(root);
    let log = observer.timeline();
    for (home, key) in keys {
        let text = BASE64.encode(key);
        // PEM has 64 characters a line; the second one is different for each key.
        let (Some(secret), Some(line)) = (secret_of(key), text.get(64..128)) else {
            observer.violate(format!("the key of {} is not a P-256 key", home.display()));
            return;
        };
        let holds = |content: &[u8]| {
            memmem::find(content, secret).is_some()
                || memmem::find(content, line.as_bytes()).is_some()
        };
        let elsewhere = files
            .iter()
            .find(|(file, content)| !file.starts_with(home) && holds(content));
        if let Some((file, _)) = elsewhere {
            observer.violate(format!(
                "a private key of {} is in {}",
                home.display(),
                file.display()
            ));
        }
        if holds(log.as_bytes()) {
            observer.violate(format!("a private key of {} was logged", home.display()));
        }
    }
}

fn files(dir: &Path) -> Vec<(PathBuf, Vec<u8>)> {
    let mut found = Vec::new();
    let Ok(entries) = std::fs::read_dir(dir) else {
        return found;
    };
    for entry in entries.flatten() {
        let path = entry.path();
        if path.is_dir() {
            found.extend(files(&path));
        } else if let Ok(content) = std::fs::read(&path) {
            found.push((path, content));
        }
    }
    found
}
