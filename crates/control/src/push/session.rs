//! One sidecar's sync stream, from its greeting to its end.
//!
//! Two halves run side by side, so that a sidecar that is slow to read can still be heard. The sending half
//! holds nothing back: whenever it is free it asks the feed for what takes the sidecar from what was last
//! sent to the newest state. There is no queue to grow.

use std::future::Future;
use std::time::Duration;

use bytes::Bytes;
use tokio::time::{Instant, timeout, timeout_at};
use tokio_util::sync::CancellationToken;
use weft_wire::{ControlMessage, FrameReader, Hello, SidecarMessage};

use super::Feed;
use crate::registry::{Registered, Registry};
use crate::store::Revision;

/// A sidecar greets at once; more is a slow network.
const GREETING: Duration = Duration::from_secs(10);
/// A frame that cannot be handed to the transport for this long: the sidecar reads no more.
const SEND: Duration = Duration::from_secs(30);
/// Largest message of a sidecar, in bytes: a report of a few thousand edges.
const MAX_MESSAGE: usize = 4 * 1024 * 1024;

/// Where a sidecar's bytes come from.
pub(crate) trait Inlet: Send {
    /// The next bytes; `None` at the end. Dropping the future loses nothing.
    fn next(&mut self) -> impl Future<Output = Result<Option<Bytes>, String>> + Send;
}

/// Where frames for a sidecar go.
pub(crate) trait Outlet: Send {
    /// Hands over a whole frame, as fast as the sidecar reads.
    fn send(&mut self, frame: Bytes) -> impl Future<Output = Result<(), String>> + Send;
}

/// Messages out of an inlet, each of bounded size.
pub(crate) struct Messages<I> {
    inlet: I,
    reader: FrameReader,
    /// Bytes since the last whole message.
    pending: usize,
}

impl<I: Inlet> Messages<I> {
    pub(crate) fn new(inlet: I) -> Self {
        Self {
            inlet,
            reader: FrameReader::new(),
            pending: 0,
        }
    }

    /// The next message; `None` at a clean end.
    async fn next(&mut self) -> Result<Option<SidecarMessage>, String> {
        loop {
            match self.reader.next_message() {
                Ok(Some(message)) => {
                    self.pending = 0;
                    return Ok(Some(message));
                }
                Ok(None) => {}
                Err(error) => return Err(error.to_string()),
            }
            if self.pending > MAX_MESSAGE {
                return Err(format!("a message is over {MAX_MESSAGE} bytes"));
            }
            match self.inlet.next().await? {
                Some(bytes) => {
                    self.pending += bytes.len();
                    self.reader.push(&bytes);
                }
                None if self.reader.is_mid_frame() => {
                    return Err("the stream ended within a message".to_owned());
                }
                None => return Ok(None),
            }
        }
    }

    /// The greeting, which comes first.
    ///
    /// # Errors
    /// In words: nothing came in time, or something else.
    pub(crate) async fn greeting(&mut self) -> Result<Hello, String> {
        match timeout(GREETING, self.next()).await {
            Ok(Ok(Some(SidecarMessage::Hello(hello)))) => Ok(hello),
            Ok(Ok(_)) => Err("a sync stream begins with a hello message".to_owned()),
            Ok(Err(reason)) => Err(reason),
            Err(_) => Err(format!("no hello within {} s", GREETING.as_secs())),
        }
    }
}

/// How a session ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Ending {
    /// The sidecar said goodbye.
    Goodbye,
    /// The connection broke, or was no longer of use.
    Lost(String),
    /// A later connection of the same instance took its place.
    Replaced,
    /// The control node stops.
    Stopped,
}

/// A registered sidecar.
pub(crate) struct Session {
    pub(crate) registry: Registry,
    pub(crate) feed: Feed,
    pub(crate) instance: String,
    pub(crate) registered: Registered,
}

impl Session {
    /// Serves the sidecar until it leaves, its connection breaks, or `stop`.
    pub(crate) async fn run(
        self,
        messages: Messages<impl Inlet>,
        outlet: &mut impl Outlet,
        stop: CancellationToken,
    ) -> Ending {
        let (instance, epoch) = (self.instance.clone(), self.registered.epoch);
        let hear = hear(&self.registry, &instance, epoch, messages);
        let tell = tell(self.feed, self.registered.orders, outlet);
        tokio::select! {
            biased;
            () = stop.cancelled() => Ending::Stopped,
            ending = hear => ending,
            ending = tell => ending,
        }
    }
}

async fn hear(
    registry: &Registry,
    instance: &str,
    epoch: crate::registry::Epoch,
    mut messages: Messages<impl Inlet>,
) -> Ending {
    loop {
        match messages.next().await {
            Ok(Some(SidecarMessage::Ack(ack))) => {
                tracing::debug!(
                    instance,
                    revision = ack.revision,
                    took_us = ack.took_us,
                    "ack"
                );
                registry.acked(instance, epoch, ack);
            }
            Ok(Some(SidecarMessage::Nack(nack))) => {
                tracing::warn!(
                    instance,
                    revision = nack.revision,
                    key = nack.key,
                    reason = nack.reason,
                    "a sidecar refuses the config"
                );
                registry.nacked(instance, epoch, nack);
            }
            Ok(Some(SidecarMessage::Report(report))) => {
                registry.reported(instance, epoch, *report);
            }
            Ok(Some(SidecarMessage::Goodbye)) => return Ending::Goodbye,
            Ok(Some(SidecarMessage::Hello(_))) => {
                return Ending::Lost("it sent a second hello".to_owned());
            }
            Ok(Some(SidecarMessage::Unknown)) => {}
            Ok(None) => return Ending::Lost("it closed the stream".to_owned()),
            Err(reason) => return Ending::Lost(reason),
        }
    }
}

async fn tell(
    feed: Feed,
    mut orders: tokio::sync::watch::Receiver<Option<weft_wire::Renew>>,
    outlet: &mut impl Outlet,
) -> Ending {
    let mut sent: Option<Revision> = None;
    let mut revisions = feed.subscribe();
    loop {
        revisions.mark_unchanged();
        match feed.frame_since(sent) {
            Ok(Some((revision, frame))) => {
                if let Err(reason) = hand_over(outlet, frame).await {
                    return Ending::Lost(reason);
                }
                sent = Some(revision);
                // Something may have come while this was under way.
                continue;
            }
            Ok(None) => {}
            Err(error) => return Ending::Lost(error.to_string()),
        }
        tokio::select! {
            biased;
            order = orders.changed() => {
                if order.is_err() {
                    return Ending::Replaced;
                }
                let renew = orders.borrow_and_update().clone();
                if let Some(renew) = renew {
                    let frame = match weft_wire::encode(&ControlMessage::Renew(renew)) {
                        Ok(frame) => frame,
                        Err(error) => return Ending::Lost(error.to_string()),
                    };
                    if let Err(reason) = hand_over(outlet, frame).await {
                        return Ending::Lost(reason);
                    }
                }
            }
            changed = revisions.changed() => if changed.is_err() {
                return Ending::Stopped;
            },
        }
    }
}

async fn hand_over(outlet: &mut impl Outlet, frame: Bytes) -> Result<(), String> {
    match timeout_at(Instant::now() + SEND, outlet.send(frame)).await {
        Ok(result) => result,
        Err(_) => Err(format!("it has not read for {} s", SEND.as_secs())),
    }
}

#[cfg(test)]
mod tests;
