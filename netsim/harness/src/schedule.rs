//! Faults from a seed.

use std::fmt;
use std::time::Duration;

use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use weft_netsim::{Jitter, LinkSpec, Loss, Profile, Queue, Rate};

use crate::mesh::LEAF_TTL;
use crate::model::{INSTANCES, SERVICES};

/// A node by number: 0 is the control node, the others are instances of services.
pub(crate) type Place = usize;

/// Nodes in the mesh.
pub(crate) const PLACES: usize = 1 + SERVICES.len() * INSTANCES;

/// Something that happens to the mesh.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Fault {
    /// Both directions of all links between these two.
    Link(Place, Place, Box<LinkSpec>),
    Cut(Place, Place, bool),
    /// The node hears and says nothing.
    Isolate(Place, bool),
    Kill(Place),
    /// Dies at its so-and-so-many-th step on the disk.
    Crash(Place, u32),
    Stop(Place),
    /// Starts it if it does not run.
    Start(Place),
    Pause(Place, bool),
    SlowDisk(Place, Duration),
    FullDisk(Place, bool),
    /// Milliseconds ahead of the true time; 0: right again.
    Clock(Place, i64),
    /// The application beside a sidecar, not the sidecar.
    KillApp(Place),
    StartApp(Place),
    /// Two machines exchange their addresses while their sidecars are down.
    Swap(Place, Place),
    Push(u32),
    PushInvalid,
    RotateCerts,
    RotateCa,
    RotateRoot,
    /// An operator revokes the certificate that an instance has now, and sees to it that it joins again.
    Revoke(Place),
    /// So many requests at once.
    Flood(Place, u32),
    /// So many long uploads at once, to applications that do not read.
    Upload(Place, u32),
    /// Somebody tries a token that has been used.
    ReuseToken(Place),
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let n = |place: &Place| name(*place);
        match self {
            Self::Link(a, b, spec) => write!(
                f,
                "link {} - {}: {:?} each way, {:?}, {:?}",
                n(a),
                n(b),
                spec.delay,
                spec.loss,
                spec.jitter
            ),
            Self::Cut(a, b, true) => write!(f, "nothing passes from {} to {}", n(a), n(b)),
            Self::Cut(a, b, false) => write!(f, "packets pass from {} to {} again", n(a), n(b)),
            Self::Isolate(a, true) => write!(f, "{} is cut off from all", n(a)),
            Self::Isolate(a, false) => write!(f, "{} is reachable again", n(a)),
            Self::Kill(a) => write!(f, "{} is killed", n(a)),
            Self::Crash(a, step) => write!(f, "{} will die before its disk step {step}", n(a)),
            Self::Stop(a) => write!(f, "{} is told to stop", n(a)),
            Self::Start(a) => write!(f, "{} is started", n(a)),
            Self::Pause(a, true) => write!(f, "{} stands still", n(a)),
            Self::Pause(a, false) => write!(f, "{} goes on", n(a)),
            Self::SlowDisk(a, by) => write!(f, "disk jobs of {} take {by:?}", n(a)),
            Self::FullDisk(a, true) => write!(f, "the disk of {} is full", n(a)),
            Self::FullDisk(a, false) => write!(f, "the disk of {} has room again", n(a)),
            Self::Clock(a, ms) => write!(f, "the clock of {} is {ms} ms ahead", n(a)),
            Self::KillApp(a) => write!(f, "the application of {} is killed", n(a)),
            Self::StartApp(a) => write!(f, "the application of {} is started", n(a)),
            Self::Swap(a, b) => write!(f, "{} and {} exchange addresses", n(a), n(b)),
            Self::Push(number) => write!(f, "config generation {number} is pushed"),
            Self::PushInvalid => f.write_str("an invalid config is pushed"),
            Self::RotateCerts => f.write_str("all certificates are rotated"),
            Self::RotateCa => f.write_str("the issuing CA is rotated"),
            Self::RotateRoot => f.write_str("the root is rotated"),
            Self::Revoke(a) => write!(f, "the certificate of {} is revoked", n(a)),
            Self::Flood(a, count) => write!(f, "{count} requests at once at {}", n(a)),
            Self::Upload(a, count) => write!(f, "{count} uploads at once at {}", n(a)),
            Self::ReuseToken(a) => write!(f, "a used token is tried at {}", n(a)),
        }
    }
}

/// The name of a node.
pub(crate) fn name(place: Place) -> String {
    match place.checked_sub(1) {
        None => "control".to_owned(),
        Some(instance) => format!(
            "{}-{}",
            SERVICES[instance / INSTANCES],
            instance % INSTANCES
        ),
    }
}

/// A fault and when.
pub(crate) type Step = (Duration, Fault);

struct Drawing {
    rng: StdRng,
    steps: Vec<Step>,
    end: Duration,
    generation: u32,
}

/// The schedule of a seed: so many faults within this time, each healed by its end. In some seeds a node sleeps
/// longer, past the end of its certificate.
pub(crate) fn schedule(seed: u64, faults: u32, length: Duration) -> Vec<Step> {
    let mut drawing = Drawing {
        rng: StdRng::seed_from_u64(seed ^ 0x5c_4e_d0_1e),
        steps: Vec::new(),
        end: length,
        generation: 1,
    };
    for _ in 0..faults {
        drawing.fault();
    }
    if faults > 0 && drawing.below(8) == 0 {
        drawing.sleep();
    }
    // Stable: what was drawn first comes first at the same moment.
    drawing.steps.sort_by_key(|(at, _)| *at);
    drawing.steps
}

impl Drawing {
    fn below(&mut self, bound: u64) -> u64 {
        self.rng.next_u64() % bound
    }

    fn place(&mut self) -> Place {
        self.below(PLACES as u64) as Place
    }

    fn sidecar(&mut self) -> Place {
        1 + self.below(PLACES as u64 - 1) as Place
    }

    /// Two different ones.
    fn pair(&mut self) -> (Place, Place) {
        let one = self.place();
        let other = (one + 1 + self.below(PLACES as u64 - 1) as usize) % PLACES;
        (one, other)
    }

    /// Begin and end of a fault: mostly seconds, sometimes most of the time that there is.
    fn span(&mut self) -> (Duration, Duration) {
        let end = self.end.as_millis() as u64;
        let begin = self.below(end * 3 / 4);
        let most = if self.below(4) == 0 { end } else { 12_000 };
        let until = (begin + 200 + self.below(most)).min(end);
        (Duration::from_millis(begin), Duration::from_millis(until))
    }

    fn both(&mut self, begin: Fault, end: Fault) {
        let (from, until) = self.span();
        self.steps.push((from, begin));
        self.steps.push((until, end));
    }

    fn one(&mut self, fault: Fault) {
        let (at, _) = self.span();
        self.steps.push((at, fault));
    }

    fn fault(&mut self) {
        match self.below(29) {
            0..=1 => self.bad_link(),
            2..=3 => {
                let (a, b) = self.pair();
                self.both(Fault::Cut(a, b, true), Fault::Cut(a, b, false));
            }
            4 => {
                let a = self.place();
                self.both(Fault::Isolate(a, true), Fault::Isolate(a, false));
            }
            5..=6 => {
                let a = self.place();
                self.both(Fault::Kill(a), Fault::Start(a));
            }
            7 => {
                let (a, step) = (self.place(), 1 + self.below(8) as u32);
                self.both(Fault::Crash(a, step), Fault::Start(a));
            }
            8 => {
                let a = self.place();
                self.both(Fault::Stop(a), Fault::Start(a));
            }
            9 => {
                let a = self.place();
                self.both(Fault::Pause(a, true), Fault::Pause(a, false));
            }
            10 => {
                let (a, ms) = (self.place(), 50 + self.below(3_000));
                let slow = Duration::from_millis(ms);
                self.both(Fault::SlowDisk(a, slow), Fault::SlowDisk(a, Duration::ZERO));
            }
            11 => {
                let a = self.place();
                self.both(Fault::FullDisk(a, true), Fault::FullDisk(a, false));
            }
            12..=13 => self.bad_clock(),
            14 => {
                let a = self.sidecar();
                self.both(Fault::KillApp(a), Fault::StartApp(a));
            }
            15 => self.swap(),
            16..=19 => {
                let number = self.generation;
                self.generation += 1;
                self.one(Fault::Push(number));
            }
            20 => self.one(Fault::PushInvalid),
            21 => self.one(Fault::RotateCerts),
            22 => self.one(Fault::RotateCa),
            23 => self.one(Fault::RotateRoot),
            24..=25 => {
                let a = self.sidecar();
                self.one(Fault::Revoke(a));
            }
            26 => {
                let (a, count) = (self.sidecar(), 50 + self.below(100) as u32);
                self.one(Fault::Flood(a, count));
            }
            27 => {
                let (a, count) = (self.sidecar(), 2 + self.below(6) as u32);
                self.one(Fault::Upload(a, count));
            }
            _ => {
                let a = self.sidecar();
                self.one(Fault::ReuseToken(a));
            }
        }
    }

    fn bad_link(&mut self) {
        let (a, b) = self.pair();
        let profile = Profile::ALL[self.below(Profile::ALL.len() as u64) as usize];
        let mut spec = profile.spec();
        // Outages of a profile are reckoned from the start of the world; here faults have their own times.
        spec.outages.clear();
        if self.below(2) == 0 {
            spec.loss = Loss::Bernoulli(self.below(40) as f64 / 100.0);
        }
        if self.below(3) == 0 {
            spec.jitter = Jitter::Reordering(Duration::from_millis(self.below(50)));
        }
        if self.below(4) == 0 {
            spec.duplicate = 0.1;
            spec.corrupt = 0.02;
        }
        if self.below(4) == 0 {
            // So narrow that its queue is full most of the time.
            spec.rate = Some(Rate {
                bits_per_second: 64_000 + self.below(1_000_000),
                queue: Queue::Packets(1 + self.below(12) as usize),
            });
        }
        self.both(
            Fault::Link(a, b, Box::new(spec)),
            Fault::Link(a, b, Box::new(usual_link())),
        );
    }

    fn bad_clock(&mut self) {
        let (a, size) = (self.place(), self.below(3));
        let ms = match size {
            0 => self.below(4_000),
            1 => self.below(50_000),
            // Beyond the life of every certificate.
            _ => 130_000 + self.below(100_000),
        };
        let ms = i64::try_from(ms).unwrap_or(i64::MAX);
        let ahead = if self.below(3) == 0 { -ms } else { ms };
        // A control node that is far off signs certificates that are of no use to anybody.
        let ahead = if a == 0 {
            ahead.clamp(-40_000, 40_000)
        } else {
            ahead
        };
        self.both(Fault::Clock(a, ahead), Fault::Clock(a, 0));
    }

    /// A machine that sleeps past the end of every certificate that it has or knows.
    fn sleep(&mut self) {
        let a = self.place();
        let (from, _) = self.span();
        let until = self.end + LEAF_TTL + Duration::from_secs(10);
        self.steps.push((from, Fault::Pause(a, true)));
        self.steps.push((until, Fault::Pause(a, false)));
    }

    fn swap(&mut self) {
        let one = self.sidecar();
        let other = 1 + (one + self.below(PLACES as u64 - 2) as usize) % (PLACES - 1);
        let (from, until) = self.span();
        self.steps.push((from, Fault::Kill(one)));
        self.steps.push((from, Fault::Kill(other)));
        self.steps.push((from, Fault::Swap(one, other)));
        self.steps.push((until, Fault::Start(one)));
        self.steps.push((until, Fault::Start(other)));
    }
}

/// What links are like when nothing is wrong with them: two zones of a region, with a real MTU.
pub(crate) fn usual_link() -> LinkSpec {
    LinkSpec {
        mtu: Some(weft_netsim::Mtu {
            bytes: 1_500,
            reported: false,
        }),
        ..Profile::CrossAz.spec()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_seed_gives_the_same_schedule_and_everything_ends_in_time() {
        let length = Duration::from_secs(60);
        for seed in 0..200 {
            let steps = schedule(seed, 12, length);
            assert_eq!(steps, schedule(seed, 12, length));
            assert!(
                steps.iter().all(|(at, fault)| {
                    *at <= length || matches!(fault, Fault::Pause(_, false))
                })
            );
            assert!(steps.iter().all(|(_, fault)| match fault {
                Fault::Swap(a, b) | Fault::Cut(a, b, _) => a != b && *b < PLACES,
                _ => true,
            }));
        }
        assert_ne!(schedule(1, 12, length), schedule(2, 12, length));
    }
}
