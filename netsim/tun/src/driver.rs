//! A running link: two devices and the thread between them.

use std::io;
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::Duration;

use rustix::event::{EventfdFlags, PollFd, PollFlags, eventfd, poll};
use rustix::time::{
    Itimerspec, TimerfdClockId, TimerfdFlags, TimerfdTimerFlags, Timespec, timerfd_create,
    timerfd_settime,
};

use crate::clock::Clock;
use crate::device::Device;
use crate::direction::{Direction, Release, Verdict};
use crate::error::Error;
use crate::namespace::Namespace;
use crate::nat_box::NatBox;
use crate::packet::too_big;
use crate::plan::LinkPlan;
use crate::priority::{LINK_LEVEL, Priority, raise_priority};
use crate::report::LinkReport;

/// Where a link ends.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct End {
    /// The namespace.
    pub namespace: Namespace,
    /// The device's name there, at most 15 bytes.
    pub device: String,
}

/// A link that runs until it is stopped or dropped. Its devices go with it.
#[derive(Debug)]
pub struct RunningLink {
    ends: [End; 2],
    stop: Arc<OwnedFd>,
    thread: Option<JoinHandle<Ended>>,
}

impl RunningLink {
    /// Makes both devices, takes them up, and starts the thread between them. Addresses and routes are the
    /// caller's ([`Namespace::configure`]).
    ///
    /// # Errors
    /// [`Error`]: impossible figures, a namespace that is not there, a device name that is taken.
    pub fn start(plan: &LinkPlan, a: End, b: End) -> Result<Self, Error> {
        let ways = plan.models()?;
        let nat = plan.nat.as_ref().map(NatBox::new).transpose()?;
        let make = |end: &End| Device::create(&end.namespace, &end.device, plan.mtu);
        let devices = [make(&a)?, make(&b)?];
        let stop = eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)
            .map_err(Error::system("make an event"))?;
        let timer = timerfd_create(
            TimerfdClockId::Monotonic,
            TimerfdFlags::CLOEXEC | TimerfdFlags::NONBLOCK,
        )
        .map_err(Error::system("make a timer"))?;
        let stop = Arc::new(stop);
        let driver = Driver {
            devices,
            ways: ways.map(Direction::new),
            nat,
            clock: Clock::start(),
            timer,
            armed: None,
            stop: Arc::clone(&stop),
        };
        let thread = std::thread::Builder::new()
            .name("link".into())
            .spawn(move || driver.run())
            .map_err(Error::system("start the thread of the link"))?;
        Ok(Self {
            ends: [a, b],
            stop,
            thread: Some(thread),
        })
    }

    /// Where the link ends.
    #[must_use]
    pub fn ends(&self) -> &[End; 2] {
        &self.ends
    }

    /// Whether it still runs; it ends by itself when a device is taken away.
    #[must_use]
    pub fn is_running(&self) -> bool {
        self.thread
            .as_ref()
            .is_some_and(|thread| !thread.is_finished())
    }

    /// Stops the link and says what it did. Packets under way are gone.
    ///
    /// # Errors
    /// [`Error::System`] if its thread had died.
    pub fn stop(mut self) -> Result<LinkReport, Error> {
        // The devices live until the thread is joined: ask what they dropped before.
        let dropped = self
            .ends
            .each_ref()
            .map(|end| end.namespace.dropped_by(&end.device).unwrap_or_default());
        let ended = self.join().ok_or(Error::System {
            what: "learn what the link did",
            source: io::Error::other("its thread has died"),
        })?;
        let [a, b] = self
            .ends
            .each_ref()
            .map(|end| end.namespace.name().to_owned());
        let [forward, backward] = &ended.ways;
        Ok(LinkReport {
            a,
            b,
            priority: ended.priority,
            seconds: ended.ran.as_secs_f64(),
            forward: forward.report(dropped[0]),
            backward: backward.report(dropped[1]),
            ended: ended
                .failure
                .map(|error| format!("a device has gone: {error}")),
        })
    }

    fn join(&mut self) -> Option<Ended> {
        // Fails only if the counter were full, and then the thread is being told already.
        let _ = rustix::io::write(&*self.stop, &1_u64.to_ne_bytes());
        self.thread.take().and_then(|thread| thread.join().ok())
    }
}

impl Drop for RunningLink {
    fn drop(&mut self) {
        self.join();
    }
}

/// What the thread leaves.
struct Ended {
    ways: [Direction; 2],
    ran: Duration,
    priority: Priority,
    failure: Option<io::Error>,
}

struct Driver {
    devices: [Device; 2],
    /// From device 0 to 1, and from 1 to 0.
    ways: [Direction; 2],
    nat: Option<NatBox>,
    clock: Clock,
    timer: OwnedFd,
    /// For when the timer is set.
    armed: Option<Duration>,
    stop: Arc<OwnedFd>,
}

/// Packets read from a device before due ones are released again: together they take less than 0.1 ms.
const BATCH: usize = 16;
/// Packets released each way before devices are read again: more than are read, so that the queue drains.
const RELEASES: usize = 2 * BATCH;
/// A deadline so near is not worth a sleep, which takes as long.
const SPIN: Duration = Duration::from_micros(10);
/// The largest IP packet.
const MAX_PACKET: usize = 65_535;

impl Driver {
    fn run(mut self) -> Ended {
        let priority = raise_priority(LINK_LEVEL);
        let mut buffer = vec![0; MAX_PACKET];
        let failure = loop {
            self.release();
            let busy = match self.receive(&mut buffer) {
                Ok(busy) => busy,
                Err(error) => break Some(error),
            };
            if busy {
                continue;
            }
            match self.sleep() {
                Ok(Wake::Work) => {}
                Ok(Wake::Stop) => break None,
                Err(error) => break Some(error),
            }
        };
        Ended {
            ways: self.ways,
            ran: self.clock.now(),
            priority,
            failure,
        }
    }

    /// Writes what is due.
    fn release(&mut self) {
        for (from, way) in self.ways.iter_mut().enumerate() {
            let to = &self.devices[1 - from];
            // Bounded, so that a flood one way does not hold up the other; what is left is due at once.
            for _ in 0..RELEASES {
                let now = self.clock.now();
                let nat = &mut self.nat;
                let released = way.release(now, |packet| {
                    if nat
                        .as_mut()
                        .is_some_and(|nat| !nat.inward(1 - from, now, packet))
                    {
                        Release::NoMapping
                    } else if to.write(packet) {
                        Release::Delivered
                    } else {
                        Release::Refused
                    }
                });
                if !released {
                    break;
                }
            }
        }
    }

    /// Reads what has come, up to a batch from each device; whether a device may hold more.
    fn receive(&mut self, buffer: &mut [u8]) -> io::Result<bool> {
        let mut more = false;
        for from in 0..2 {
            let mut taken = 0;
            while taken < BATCH
                && let Some(len) = self.devices[from].read(buffer)?
            {
                taken += 1;
                self.enter(from, &mut buffer[..len]);
            }
            more |= taken == BATCH;
        }
        Ok(more)
    }

    fn enter(&mut self, from: usize, packet: &mut [u8]) {
        let now = self.clock.now();
        let way = &mut self.ways[from];
        match way.judge(now, packet.len()) {
            Verdict::Arrives(first, second) => {
                let nat = self.nat.as_mut();
                if nat.is_none_or(|nat| nat.outward(from, now, packet)) {
                    way.launch(packet, first, second);
                } else {
                    way.lost_to_nat();
                }
            }
            Verdict::Lost => {}
            Verdict::TellSender(mtu) => {
                if let Some(answer) = too_big(packet, mtu) {
                    self.devices[from].write(&answer);
                }
            }
        }
    }

    /// Sleeps until a packet is due or comes, or the link is stopped.
    fn sleep(&mut self) -> io::Result<Wake> {
        let due = self.ways.iter().filter_map(Direction::next_due).min();
        if due.is_some_and(|due| due.saturating_sub(self.clock.now()) <= SPIN) {
            return Ok(Wake::Work);
        }
        if due != self.armed {
            self.arm(due)?;
        }
        let mut files = [
            PollFd::new(&*self.stop, PollFlags::IN),
            PollFd::from_borrowed_fd(self.devices[0].fd(), PollFlags::IN),
            PollFd::from_borrowed_fd(self.devices[1].fd(), PollFlags::IN),
            PollFd::new(&self.timer, PollFlags::IN),
        ];
        match poll(&mut files, None) {
            Ok(_) | Err(rustix::io::Errno::INTR) => {}
            Err(error) => return Err(error.into()),
        }
        Ok(if files[0].revents().is_empty() {
            Wake::Work
        } else {
            Wake::Stop
        })
    }

    fn arm(&mut self, due: Option<Duration>) -> io::Result<()> {
        let off = Timespec {
            tv_sec: 0,
            tv_nsec: 0,
        };
        let setting = Itimerspec {
            it_interval: off,
            it_value: due.map_or(off, |due| self.clock.absolute(due - SPIN.min(due))),
        };
        timerfd_settime(&self.timer, TimerfdTimerFlags::ABSTIME, &setting)?;
        self.armed = due;
        Ok(())
    }
}

enum Wake {
    Work,
    Stop,
}
