//! Looks at the readers of a connection, presses its peer when too many stand still, and lends the others room.

use std::convert::Infallible;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use quinn::VarInt;
use tokio::time::sleep;

use crate::core::credit::{FIRST, Pressure, Windows, stands_still};
use crate::credit::{Credit, lock};
use crate::shared::{Shared, Stream, changed};

/// How often readers are looked at, while enough of them have something in hand.
pub(crate) const LOOK: Duration = Duration::from_millis(100);
/// Lent for what the peer's control stream has to say, once each look until it has said it.
const RESERVE: u64 = 16 * 1024;
const MOST_RESERVES: u64 = 64;

/// Memory that the connections of a node may lend to readers that stand still. Clones are the same purse.
#[derive(Debug, Clone)]
pub struct Lending(Arc<AtomicU64>);

impl Lending {
    /// A purse of so many bytes.
    pub fn new(bytes: u64) -> Self {
        Self(Arc::new(AtomicU64::new(bytes)))
    }

    /// Takes as much of `wanted` as there is.
    fn take(&self, wanted: u64) -> u64 {
        let left = |left: u64| Some(left - wanted.min(left));
        let before = self
            .0
            .fetch_update(Ordering::AcqRel, Ordering::Acquire, left);
        wanted.min(before.unwrap_or(0))
    }

    pub(crate) fn give_back(&self, bytes: u64) {
        self.0.fetch_add(bytes, Ordering::AcqRel);
    }
}

/// Looks at the readers of a connection for as long as it lives.
pub(crate) async fn watch(shared: &Shared) -> Infallible {
    let credit = &shared.credit;
    let Some(windows) = credit.windows else {
        return std::future::pending().await;
    };
    let (mut pressure, mut presses) = (Pressure::default(), 0);
    // What was lent and is used up, which DATA_BLOCKED tells (RFC 9000 §4.1).
    let (mut blocked, mut used) = (0, 0);
    loop {
        credit.looking.store(false, Ordering::Release);
        let crowd = || credit.busy.load(Ordering::Acquire) >= windows.crowd();
        changed(&credit.crowded, || crowd().then_some(())).await;
        credit.looking.store(true, Ordering::Release);
        while crowd() || pressure.is_on() {
            sleep(LOOK).await;
            let still = look(credit);
            lock(&credit.seen).still = still;
            match pressure.judge(still, windows.crowd()) {
                Some(true) => {
                    presses += 1;
                    (blocked, used) = (count_blocked(shared), 0);
                    press(shared, presses);
                }
                Some(false) => {
                    presses += 1;
                    relieve(shared, windows, presses);
                }
                None if pressure.is_on() && credit.heard.load(Ordering::Acquire) == presses => {
                    let before = std::mem::replace(&mut blocked, count_blocked(shared));
                    if blocked != before {
                        used += u64::from(windows.connection) / 2;
                    }
                    lend(shared, windows, used);
                }
                None if pressure.is_on() => make_room_to_answer(shared, windows),
                None => {}
            }
        }
        lock(&credit.seen).still = 0;
    }
}

/// Counts the readers that stand still.
fn look(credit: &Credit) -> usize {
    let now = credit.look.load(Ordering::Acquire).wrapping_add(1).max(1);
    credit.look.store(now, Ordering::Release);
    let handed = |stream: &Arc<Stream>| stream.meter.handed.load(Ordering::Acquire);
    let streams = credit.all();
    let still = streams.iter().map(handed);
    still
        .filter(|handed| *handed != 0 && stands_still(*handed, now))
        .count()
}

/// Times that the peer said that it would send more on this connection if it might.
fn count_blocked(shared: &Shared) -> u64 {
    shared.conn.stats().frame_rx.data_blocked
}

fn press(shared: &Shared, epoch: u32) {
    let credit = &shared.credit;
    credit.grown.store(0, Ordering::Release);
    credit.pressing.store(epoch, Ordering::Release);
    lock(&credit.words).press = Some((epoch, FIRST));
    let standing = {
        let mut seen = lock(&credit.seen);
        seen.pressed += 1;
        *seen
    };
    tracing::debug!(
        peer = %shared.conn.remote_address(),
        still = standing.still,
        "readers stand still: the peer is to send less ahead of them"
    );
    shared.local_changed.notify_waiters();
}

fn relieve(shared: &Shared, windows: Windows, epoch: u32) {
    let credit = &shared.credit;
    credit.pressing.store(0, Ordering::Release);
    {
        let mut words = lock(&credit.words);
        words.press = Some((epoch, 0));
        words.grants.clear();
    }
    shared.local_changed.notify_waiters();
    settle(shared, windows, 0);
}

/// The peer's control stream, too, needs credit of the connection. It goes before all others, but only once the peer has
/// heard of the pressure: what comes too early is used up, and tried again.
fn make_room_to_answer(shared: &Shared, windows: Windows) {
    let lent = shared.credit.standing().lent;
    if lent < MOST_RESERVES * RESERVE {
        settle(shared, windows, lent + RESERVE);
    }
}

/// Makes room beside what stands still, once the peer knows that this room is not for that. `used`: room of which the
/// peer made use so that there is none again.
pub(crate) fn lend(shared: &Shared, windows: Windows, used: u64) {
    let streams = lock(&shared.credit.streams).len();
    let wanted = windows.lent(streams) + used;
    // What was lent may be full: it comes back at the end only.
    settle(shared, windows, wanted.max(shared.credit.standing().lent));
}

/// Brings what is lent to `wanted`, or as near as the purse allows.
fn settle(shared: &Shared, windows: Windows, wanted: u64) {
    let Some(lending) = shared.credit.lending.get() else {
        return;
    };
    let mut seen = lock(&shared.credit.seen);
    let before = seen.lent;
    if wanted > before {
        seen.lent += lending.take(wanted - before);
    } else {
        lending.give_back(before - wanted);
        seen.lent = wanted;
    }
    if seen.lent == before {
        return;
    }
    let window = u64::from(windows.connection) + seen.lent;
    let window = VarInt::from_u64(window).unwrap_or(VarInt::MAX);
    shared.conn.set_receive_window(window);
}
