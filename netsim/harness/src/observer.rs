//! Everything that is seen of a run, from outside of the processes: what they log, what clients and
//! applications meet, what the operator is told.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio_util::sync::CancellationToken;
use tracing::Level;
use weft_netsim_sim::World;

use crate::listen::Fields;
use crate::model::Committed;
use crate::schedule::{PLACES, Place, name};

/// Lines of a timeline: more nobody reads.
const MAX_LINES: usize = 20_000;

/// One line of the access log.
#[derive(Debug, Clone)]
pub(crate) struct Access {
    pub(crate) process: Arc<str>,
    pub(crate) started: Duration,
    pub(crate) ended: Duration,
    pub(crate) inbound: bool,
    pub(crate) number: u64,
    pub(crate) code: u16,
    pub(crate) revision: u64,
    pub(crate) reason: String,
}

/// A request that reached an application.
#[derive(Debug, Clone)]
pub(crate) struct Arrival {
    pub(crate) at: Duration,
    pub(crate) place: Place,
    pub(crate) callee: &'static str,
    /// From the certificate, as the sidecar told.
    pub(crate) caller: String,
    pub(crate) number: u64,
    pub(crate) generation: Option<u32>,
}

/// Revisions that came into force at one life of a sidecar, and when.
type InForce = Vec<(Duration, u64)>;

#[derive(Default)]
pub(crate) struct Seen {
    timeline: Vec<(Duration, String)>,
    violation: Option<String>,
    pub(crate) in_force: BTreeMap<Arc<str>, InForce>,
    pub(crate) access: Vec<Access>,
    pub(crate) arrivals: Vec<Arrival>,
    /// Numbers of requests that must not be repeated and have reached an application.
    pub(crate) posted: BTreeSet<u64>,
    /// Numbers of requests whose answer broke off though their sidecar ran.
    pub(crate) cut: BTreeSet<u64>,
    pub(crate) committed: Committed,
    /// When a node's sidecar was last not running as it should: killed, stopped, paused, or starting.
    pub(crate) disturbed: BTreeMap<Place, Duration>,
    /// Nodes whose sidecar has said that it is ready, and has not been disturbed since.
    pub(crate) up: BTreeSet<Place>,
    /// The control node's process that was ready last.
    pub(crate) control: String,
    /// Processes that were told to stop.
    leaving: BTreeSet<String>,
    /// Whether a process that stands still was up when that began.
    pub(crate) up_when_paused: BTreeMap<String, bool>,
    /// When a node's clock or pace last changed.
    pub(crate) shaken: BTreeMap<Place, Duration>,
    /// Certificates (by hash) that a node has said it refuses, and since when.
    pub(crate) refuses: BTreeMap<(Place, String), Duration>,
    /// The highest revision that a node is known to have acknowledged, in whatever life.
    pub(crate) acked: BTreeMap<Place, u64>,
    /// Nodes whose disk has been full: what they could not save they may forget.
    pub(crate) unsaved: BTreeSet<Place>,
    pub(crate) most_tasks: usize,
    pub(crate) tasks_at_rest: usize,
    pub(crate) most_bytes: usize,
    pub(crate) bytes_at_rest: usize,
    pub(crate) requests: u64,
    pub(crate) answered: u64,
    pub(crate) denied: u64,
    pub(crate) failed: u64,
    pub(crate) broken: u64,
}

/// The node of a process.
pub(crate) fn place_of(process: &str) -> Option<Place> {
    let node = process.split('/').next().unwrap_or_default();
    (0..PLACES).find(|place| name(*place) == node)
}

/// Cheap to clone; clones see the same.
#[derive(Clone)]
pub(crate) struct Observer {
    world: World,
    seen: Arc<Mutex<Seen>>,
    failed: CancellationToken,
}

impl Observer {
    pub(crate) fn new(world: &World) -> Self {
        Self {
            world: world.clone(),
            seen: Arc::default(),
            failed: CancellationToken::new(),
        }
    }

    pub(crate) fn lock(&self) -> MutexGuard<'_, Seen> {
        self.seen.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn now(&self) -> Duration {
        self.world.now()
    }

    /// Something that happened, for the timeline and the hash of decisions.
    pub(crate) fn note(&self, what: String) {
        self.world.decided(&what);
        self.tell(what);
    }

    /// Something for the timeline only.
    pub(crate) fn tell(&self, what: String) {
        let now = self.now();
        let mut seen = self.lock();
        if seen.timeline.len() < MAX_LINES {
            seen.timeline.push((now, what));
        }
    }

    /// An invariant does not hold. The first one counts.
    pub(crate) fn violate(&self, what: String) {
        self.note(format!("VIOLATION: {what}"));
        self.lock().violation.get_or_insert(what);
        self.failed.cancel();
    }

    /// Cancelled when an invariant was violated.
    pub(crate) fn failed(&self) -> &CancellationToken {
        &self.failed
    }

    pub(crate) fn violation(&self) -> Option<String> {
        self.lock().violation.clone()
    }

    pub(crate) fn timeline(&self) -> String {
        let mut text = String::new();
        for (at, what) in &self.lock().timeline {
            let _ = writeln!(text, "{:>11.6} s  {what}", at.as_secs_f64());
        }
        text
    }

    /// The sidecar of a node is not what it should be, now.
    pub(crate) fn disturbed(&self, place: Place) {
        let now = self.now();
        let mut seen = self.lock();
        seen.disturbed.insert(place, now);
        seen.shaken.insert(place, now);
        seen.up.remove(&place);
    }

    /// A process was told to stop: whatever it goes through until it ends, it does not count as running again.
    pub(crate) fn leaving(&self, process: &str) {
        self.lock().leaving.insert(process.to_owned());
    }

    /// The process of a node is as it should be from now on, unless it was told to stop before.
    pub(crate) fn up(&self, process: &str) {
        let Some(place) = place_of(process) else {
            return;
        };
        let now = self.now();
        let mut seen = self.lock();
        if place == 0 {
            process.clone_into(&mut seen.control);
        }
        if seen.leaving.contains(process) {
            return;
        }
        seen.disturbed.insert(place, now);
        seen.up.insert(place);
    }

    /// Whether what a request met that began then may be due to its own sidecar not running.
    pub(crate) fn excuses(&self, place: Place, started: Duration) -> bool {
        let seen = self.lock();
        let disturbed = seen.disturbed.get(&place).is_some_and(|at| *at >= started);
        disturbed || !seen.up.contains(&place)
    }

    /// The node's clock was set.
    pub(crate) fn shaken(&self, place: Place) {
        let now = self.now();
        self.lock().shaken.insert(place, now);
    }

    /// A line of the access log.
    pub(crate) fn access(&self, process: Arc<str>, fields: &Fields) {
        let get = |name: &str| fields.get(name).map_or("", String::as_str);
        let mut path = get("path").split('/').skip(2);
        let Some(number) = path.next().and_then(|part| part.parse().ok()) else {
            return;
        };
        let ended = self.now();
        let ms: f64 = get("duration_ms").parse().unwrap_or_default();
        let took = Duration::from_nanos((ms * 1e6).round() as u64);
        let access = Access {
            started: ended.saturating_sub(took),
            ended,
            inbound: get("side") == "inbound",
            number,
            code: get("code").parse().unwrap_or_default(),
            revision: get("revision").parse().unwrap_or_default(),
            reason: get("reason").to_owned(),
            process,
        };
        self.world.decided(&format!(
            "{} {} {number} {} {} rule '{}' revision {} attempts {} {}",
            access.process,
            get("side"),
            get("peer"),
            access.code,
            get("rule"),
            access.revision,
            get("attempts"),
            access.reason
        ));
        self.lock().access.push(access);
    }

    /// Another line of a log.
    pub(crate) fn said(&self, process: Arc<str>, level: Level, fields: &Fields) {
        let message = fields.get("message").map_or("", String::as_str);
        let revision = fields.get("revision").and_then(|text| text.parse().ok());
        if let Some(revision) = revision
            && matches!(
                message,
                "config in force" | "starting with the saved snapshot" | "config refused"
            )
        {
            if message == "starting with the saved snapshot" {
                crate::check::kept(self, &process, revision);
            }
            let now = self.now();
            let mut seen = self.lock();
            let lives = seen.in_force.entry(process.clone()).or_default();
            lives.push((now, revision));
        }
        if message == "ready" {
            self.up(&process);
        }
        let mut line = format!("{process} {level} {message}");
        for (name, value) in fields {
            // Paths and times of this very run say nothing about it.
            if *name != "message" && *name != "took_us" {
                let _ = write!(line, " {name}={value}");
            }
        }
        self.tell(line);
    }
}
