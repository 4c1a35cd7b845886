//! What goes first: what was said of each stream, and how that reaches QUIC.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU8, AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use http::HeaderMap;
use tokio::time::Instant;

use crate::core::priority::{BULK, FIRST, Given, SMALL};
use crate::shared::Shared;

/// Requests of which a client may say something before they are here (RFC 9218 §7.1 asks for a bound); what it says of
/// more is forgotten.
const EARLY: usize = 64;
/// Quiet after which what a stream sends is a message of its own.
const QUIET: Duration = Duration::from_millis(250);
/// Marks what came in a PRIORITY_UPDATE, which goes before the request's field whichever came first (RFC 9218 §7).
const UPDATED: u8 = 0x80;

/// What was said of one stream.
#[derive(Debug, Default)]
pub(crate) struct Said {
    by_client: AtomicU8,
    by_server: AtomicU8,
}

impl Said {
    /// In the request.
    pub(crate) fn request(&self, headers: &HeaderMap) {
        let given = Given::of(headers).pack();
        let unless_updated = |old: u8| (old & UPDATED == 0).then_some(given);
        // Declined when an update came before.
        let _ = self
            .by_client
            .fetch_update(Ordering::AcqRel, Ordering::Acquire, unless_updated);
    }

    /// In the response.
    pub(crate) fn response(&self, headers: &HeaderMap) {
        let given = Given::of(headers).pack();
        self.by_server.store(given, Ordering::Release);
    }

    fn update(&self, given: Given) {
        self.by_client
            .store(given.pack() | UPDATED, Ordering::Release);
    }

    fn now(&self) -> Given {
        let client = self.by_client.load(Ordering::Acquire) & !UPDATED;
        let server = self.by_server.load(Ordering::Acquire);
        Given::unpack(server).or(Given::unpack(client))
    }
}

/// What was said of requests that are not here yet.
#[derive(Debug, Default)]
pub(crate) struct Early {
    /// One more than the highest request that was ever here.
    next: AtomicU64,
    said: Mutex<BTreeMap<u64, Given>>,
}

impl Early {
    fn lock(&self) -> MutexGuard<'_, BTreeMap<u64, Given>> {
        // The map is whole after every statement.
        self.said.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A request is here.
    pub(crate) fn take(&self, id: u64, said: &Said) {
        self.next.fetch_max(id + 1, Ordering::AcqRel);
        if let Some(given) = self.lock().remove(&id) {
            said.update(given);
        }
    }
}

/// Takes what a client says anew of a request.
pub(crate) fn update(shared: &Shared, id: u64, given: Given) {
    if let Some(stream) = shared.credit.stream(id) {
        stream.said.update(given);
        return;
    }
    // Of one that has been here, nothing is left to say.
    if id < shared.early.next.load(Ordering::Acquire) {
        return;
    }
    let mut early = shared.early.lock();
    if early.len() < EARLY || early.contains_key(&id) {
        early.insert(id, given);
    }
}

/// The place that a stream has in QUIC's order, and what it follows from.
#[derive(Debug, Default)]
pub(crate) struct Place {
    given: i32,
    /// Sent since it was last quiet.
    burst: u64,
    /// When something was sent; only looked at for those that have sent more than a little.
    last: Option<Instant>,
}

impl Place {
    /// The place that the stream must be given before it sends, if that is another than before.
    pub(crate) fn change(&mut self, said: &Said) -> Option<i32> {
        if self.burst >= SMALL {
            let now = Instant::now();
            if self.last.is_some_and(|last| now - last >= QUIET) {
                self.burst = 0;
            }
            self.last = Some(now);
        }
        let place = said.now().place(self.burst);
        (std::mem::replace(&mut self.given, place) != place).then_some(place)
    }

    /// Whether what the stream sends now is a bulk.
    pub(crate) fn is_bulk(&self) -> bool {
        self.burst >= BULK
    }

    pub(crate) fn sent(&mut self, bytes: usize) {
        self.burst = self.burst.saturating_add(bytes as u64);
    }
}

/// The connection's own streams go before all others.
pub(crate) fn before_all(stream: &quinn::SendStream) {
    // It fails only on a stream that has ended.
    let _ = stream.set_priority(FIRST);
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::core::priority::PRIORITY;

    fn headers(value: &str) -> HeaderMap {
        HeaderMap::from_iter([(PRIORITY, value.parse().unwrap())])
    }

    /// RFC 9218 §7, §8.
    #[test]
    fn an_update_goes_before_the_requests_field_and_the_response_before_both() {
        let urgency = |said: &Said| said.now().urgency;
        let said = Said::default();
        said.request(&headers("u=5"));
        assert_eq!(urgency(&said), Some(5));
        said.update(Given::parse(b"u=2"));
        assert_eq!(urgency(&said), Some(2));
        said.request(&headers("u=6"));
        assert_eq!(urgency(&said), Some(2), "the update came first");
        said.update(Given::parse(b""));
        assert_eq!(urgency(&said), None, "the default, and not the field again");
        said.response(&headers("u=1"));
        said.update(Given::parse(b"u=7"));
        assert_eq!(urgency(&said), Some(1));
        said.response(&headers("i"));
        assert_eq!(urgency(&said), Some(7));
    }

    #[tokio::test(start_paused = true)]
    async fn a_stream_sinks_while_it_sends_much_and_rises_when_it_has_been_quiet() {
        let (said, mut place) = (Said::default(), Place::default());
        let small = place.change(&said).expect("the first place");
        assert_eq!(place.change(&said), None);
        place.sent(1_000_000);
        let bulk = place.change(&said).expect("it sinks");
        assert!(bulk < small);
        tokio::time::advance(QUIET / 2).await;
        assert_eq!(place.change(&said), None);
        tokio::time::advance(QUIET).await;
        assert_eq!(place.change(&said), Some(small));
        said.update(Given::parse(b"u=0"));
        assert!(place.change(&said).is_some_and(|first| first > small));
    }
}
