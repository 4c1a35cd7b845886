//! Readers that stand still, seen from both ends of a connection: the shell around [`crate::core::credit`].

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError, Weak};

use tokio::sync::Notify;
use tokio::time::Instant;

use crate::Code;
use crate::core::Fault;
use crate::core::credit::{Grants, Told, Windows, Word};
use crate::readers::{LOOK, Lending, lend};
use crate::shared::{Shared, Stream};

/// Changes of mind that a peer may send at once, and one each [`LOOK`]: each of them wakes all that wait.
const CHANGES: u64 = 64;

/// What is known of the readers of one connection.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Standing {
    /// Readers that were handed something and have not come back for more, at the last look.
    pub still: usize,
    /// Times that the peer was asked to send ahead less, since the connection was opened.
    pub pressed: u64,
    /// Bytes by which the connection's window is larger now, so that the others go on.
    pub lent: u64,
}

/// The state of one connection.
#[derive(Debug)]
pub(crate) struct Credit {
    pub(crate) windows: Option<Windows>,
    pub(crate) streams: Mutex<BTreeMap<u64, Weak<Stream>>>,

    // As a reader.
    pub(crate) look: AtomicU32,
    /// Readers that have something in hand.
    pub(crate) busy: AtomicUsize,
    pub(crate) looking: AtomicBool,
    pub(crate) crowded: Notify,
    /// Which pressure of ours is in force; 0 for none.
    pub(crate) pressing: AtomicU32,
    /// The one that the peer has heard of last.
    pub(crate) heard: AtomicU32,
    /// What streams have been granted beyond [`FIRST`].
    pub(crate) grown: AtomicU64,
    pub(crate) seen: Mutex<Standing>,
    pub(crate) lending: OnceLock<Lending>,

    // As a sender.
    told: Mutex<Told>,
    is_told: AtomicBool,
    /// Bytes that were sent under pressure.
    sent: AtomicU64,

    /// What there is to say.
    pub(crate) words: Mutex<Words>,
}

#[derive(Debug, Default)]
pub(crate) struct Words {
    /// Epoch and first bytes.
    pub(crate) press: Option<(u32, u32)>,
    heard: Option<u32>,
    /// At most one for each stream that lives, or has died since the last were sent.
    pub(crate) grants: BTreeMap<u64, u64>,
}

/// Each change is whole after the statement that makes it.
pub(crate) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Credit {
    pub(crate) fn new(windows: Option<Windows>) -> Self {
        Self {
            windows,
            streams: Mutex::default(),
            // 0 stands for a reader that has nothing in hand.
            look: AtomicU32::new(1),
            busy: AtomicUsize::new(0),
            looking: AtomicBool::new(false),
            crowded: Notify::new(),
            pressing: AtomicU32::new(0),
            heard: AtomicU32::new(0),
            grown: AtomicU64::new(0),
            seen: Mutex::default(),
            lending: OnceLock::new(),
            told: Mutex::default(),
            is_told: AtomicBool::new(false),
            sent: AtomicU64::new(0),
            words: Mutex::default(),
        }
    }

    /// Whose memory is lent. Without one, none is.
    pub(crate) fn set_lending(&self, lending: Lending) {
        // The first one stays.
        let _ = self.lending.set(lending);
    }

    pub(crate) fn opened(&self, stream: &Arc<Stream>) {
        lock(&self.streams).insert(stream.id, Arc::downgrade(stream));
    }

    pub(crate) fn closed(&self, id: u64) {
        lock(&self.streams).remove(&id);
    }

    pub(crate) fn stream(&self, id: u64) -> Option<Arc<Stream>> {
        lock(&self.streams).get(&id).and_then(Weak::upgrade)
    }

    /// All that live. They are let go outside the lock, which their end takes.
    pub(crate) fn all(&self) -> Vec<Arc<Stream>> {
        lock(&self.streams)
            .values()
            .filter_map(Weak::upgrade)
            .collect()
    }

    pub(crate) fn standing(&self) -> Standing {
        *lock(&self.seen)
    }

    /// A number that changes when there is work which frames about credit belong to.
    pub(crate) fn work(&self) -> u64 {
        self.sent.load(Ordering::Relaxed) >> 12
    }

    /// A reader begins or ends to have something in hand.
    fn now_busy(&self, busy: bool) {
        if !busy {
            self.busy.fetch_sub(1, Ordering::AcqRel);
            return;
        }
        let busy = self.busy.fetch_add(1, Ordering::AcqRel) + 1;
        if self.windows.is_some_and(|w| busy >= w.crowd()) && !self.looking.load(Ordering::Acquire)
        {
            self.crowded.notify_one();
        }
    }

    /// Which pressure of ours is in force, for a reader that has read.
    pub(crate) fn pressing(&self) -> Option<(u32, Windows)> {
        match self.pressing.load(Ordering::Acquire) {
            0 => None,
            epoch => self.windows.map(|windows| (epoch, windows)),
        }
    }

    /// Tells the peer that it may send more of a stream that is read, when that is due.
    pub(crate) fn grant(&self, id: u64, grants: &mut Grants, to_say: &Notify) {
        let Some((epoch, windows)) = self.pressing() else {
            return;
        };
        let grow = |by: u32| {
            let most = windows.shared();
            let grown = |grown: u64| Some(grown + u64::from(by)).filter(|sum| *sum <= most);
            let taken = self
                .grown
                .fetch_update(Ordering::AcqRel, Ordering::Acquire, grown);
            taken.is_ok()
        };
        if let Some(limit) = grants.due(epoch, windows.stream, grow) {
            lock(&self.words).grants.insert(id, limit);
            to_say.notify_waiters();
        }
    }

    /// A stream is read no more.
    pub(crate) fn give_back(&self, grants: &Grants) {
        let grown = grants.grown(self.pressing.load(Ordering::Acquire)).into();
        let less = |all: u64| Some(all.saturating_sub(grown));
        // `less` never declines.
        let _ = self
            .grown
            .fetch_update(Ordering::AcqRel, Ordering::Acquire, less);
    }

    /// What the peer has told our streams; for one that sends.
    pub(crate) fn told(&self) -> Told {
        match self.is_told.load(Ordering::Acquire) {
            true => *lock(&self.told),
            false => Told::default(),
        }
    }

    pub(crate) fn sent(&self, bytes: usize) {
        if self.is_told.load(Ordering::Relaxed) {
            self.sent.fetch_add(bytes as u64, Ordering::Relaxed);
        }
    }

    /// Frames with what there is to say, and nothing twice. Empty when there is nothing.
    pub(crate) fn take_words(&self) -> Vec<u8> {
        let words = std::mem::take(&mut *lock(&self.words));
        let mut out = Vec::new();
        if let Some(epoch) = words.heard {
            Word::Heard { epoch }.encode(&mut out);
        }
        if let Some((epoch, first)) = words.press {
            Word::Press { epoch, first }.encode(&mut out);
        }
        for (stream, limit) in words.grants {
            Word::Grant { stream, limit }.encode(&mut out);
        }
        out
    }
}

/// What one stream has of it.
#[derive(Debug)]
pub(crate) struct Meter {
    /// The look at which the reader was last handed something; 0: it waits for more, or has ended.
    pub(crate) handed: AtomicU32,
    /// How far the peer lets us send.
    granted: AtomicU64,
    more: Notify,
}

impl Meter {
    /// Of a stream that nobody has begun to read.
    pub(crate) fn new(credit: &Credit) -> Self {
        credit.now_busy(true);
        Self {
            handed: AtomicU32::new(credit.look.load(Ordering::Acquire)),
            granted: AtomicU64::new(0),
            more: Notify::new(),
        }
    }

    /// The reader has got something.
    pub(crate) fn hand_over(&self, credit: &Credit) {
        let now = credit.look.load(Ordering::Acquire);
        if self.handed.swap(now, Ordering::AcqRel) == 0 {
            credit.now_busy(true);
        }
    }

    /// The reader waits for more, or will never want any.
    pub(crate) fn empty(&self, credit: &Credit) {
        if self.handed.swap(0, Ordering::AcqRel) != 0 {
            credit.now_busy(false);
        }
    }

    pub(crate) fn granted(&self) -> u64 {
        self.granted.load(Ordering::Acquire)
    }

    /// Completes when `has_room` says so, which changes with what the peer says.
    pub(crate) async fn more(&self, mut has_room: impl FnMut() -> bool) {
        loop {
            let mut more = std::pin::pin!(self.more.notified());
            more.as_mut().enable();
            if has_room() {
                return;
            }
            more.await;
        }
    }
}

/// Takes what the peer says about credit. `changes`: how often it has changed its mind.
pub(crate) fn hear(shared: &Shared, word: Word, changes: &mut Changes) -> Result<(), Fault> {
    let credit = &shared.credit;
    match word {
        Word::Press { epoch, first } => {
            changes.count()?;
            *lock(&credit.told) = Told { epoch, first };
            credit.is_told.store(true, Ordering::Release);
            for stream in credit.all() {
                stream.meter.more.notify_waiters();
            }
            lock(&credit.words).heard = Some(epoch);
            shared.local_changed.notify_waiters();
        }
        Word::Heard { epoch } => {
            if let Some((pressing, windows)) = credit.pressing()
                && pressing == epoch
            {
                credit.heard.store(epoch, Ordering::Release);
                lend(shared, windows, 0);
            }
        }
        Word::Grant { stream, limit } => {
            if let Some(stream) = credit.stream(stream) {
                stream.meter.granted.fetch_max(limit, Ordering::AcqRel);
                stream.meter.more.notify_waiters();
            }
        }
        Word::Unknown => {}
    }
    Ok(())
}

/// How often a peer may change its mind.
#[derive(Debug)]
pub(crate) struct Changes {
    since: Instant,
    count: u64,
}

impl Changes {
    pub(crate) fn new() -> Self {
        Self {
            since: Instant::now(),
            count: 0,
        }
    }

    fn count(&mut self) -> Result<(), Fault> {
        self.count += 1;
        let looks = self.since.elapsed().as_millis() / LOOK.as_millis();
        if self.count > CHANGES + looks as u64 {
            return Err(Fault::connection(
                Code::EXCESSIVE_LOAD,
                "changes of credit without end",
            ));
        }
        Ok(())
    }
}

impl Drop for Credit {
    fn drop(&mut self) {
        if let Some(lending) = self.lending.get() {
            lending.give_back(self.standing().lent);
        }
    }
}
