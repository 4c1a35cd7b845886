//! One sync stream, from its greeting to its end.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use bytes::Bytes;
use tokio::sync::Notify;
use tokio::time::{Instant, MissedTickBehavior, interval, sleep, sleep_until, timeout};
use tokio_util::sync::CancellationToken;
use weft_env::mutants::{Mutant, broken};
use weft_transport::Connection;
use weft_transport::{RecvStream, SendStream};
use weft_wire::{ControlMessage, FrameReader, Hello, PATH_SYNC, Renew, SidecarMessage, encode};

use super::ControlClient;
use super::homes::{Home, Homes, is_of_delegate};
use super::report::Reporter;
use crate::backoff::{Backoff, fraction};
use crate::node::Node;
use crate::rpc;

/// How often health and traffic are told.
const REPORT: Duration = Duration::from_secs(1);
/// A greeting is answered at once; a frame is taken at once. A control node that does neither is lost.
const PATIENCE: Duration = Duration::from_secs(10);
/// Changes that come within this time are saved together.
const SAVE_AFTER: Duration = Duration::from_millis(250);
/// The first bytes after a goodbye are waited for no longer than this.
const FAREWELL: Duration = Duration::from_millis(500);
/// A connection that takes no new requests (a certificate was replaced) still carries its stream for long.
/// Its successor is dialled at a random moment within this time, so that not all sidecars come at once.
const SUCCESSION: Duration = Duration::from_secs(5);

/// How often a sidecar that is linked to the delegate of its site looks for a control node; half as much more or less, so that
/// not all come back at once.
const HOMEWARD: Duration = Duration::from_secs(3);

/// How a session ended.
pub(super) enum End {
    /// This sidecar stops, and said so.
    Stopped,
    /// The stream broke.
    Lost(String),
    /// There is a newer connection; the old stream is kept until the new one is greeted.
    Replaced(Box<Open>, (Home, Connection)),
}

/// A sync stream that stands.
pub(super) struct Open {
    home: Home,
    connection: Connection,
    send: SendStream,
    recv: RecvStream,
    frames: FrameReader,
}

pub(super) struct Session<'c> {
    client: &'c mut ControlClient,
    open: Open,
    /// Somebody waits for what only the next connection can do.
    hurry: Arc<Notify>,
}

/// What happened next.
enum Event {
    Stop,
    Bytes(Option<Bytes>),
    Broken(String),
    Identity,
    Tick,
    Save,
    Successor((Home, Connection)),
}

impl<'c> Session<'c> {
    /// Greets on a connection. Why not, if the control node does not take us.
    pub(super) async fn open(
        client: &'c mut ControlClient,
        (home, connection): (Home, Connection),
    ) -> Result<Self, String> {
        let hello = SidecarMessage::Hello(Hello {
            revision: client.applier.revision(),
            serial: client.node.identity.current().svid.serial().to_owned(),
            ..client.hello.clone()
        });
        let greeting = encode(&hello).map_err(|error| error.to_string())?;
        let opened = timeout(PATIENCE, greet((home, connection), greeting)).await;
        let open =
            opened.map_err(|_| format!("no answer to the greeting within {PATIENCE:?}"))??;
        match home {
            Home::Control(_) => {
                tracing::info!(control = %open.connection.remote(), "linked to a control node");
                client.come_home();
            }
            Home::Delegate => tracing::warn!(
                delegate = %open.connection.remote(),
                "no control node can be reached: linked to the delegate of the site"
            ),
        }
        client.link.send_replace(Some(open.connection.clone()));
        Ok(Self {
            client,
            open,
            hurry: Arc::default(),
        })
    }

    /// Serves the stream to its end.
    pub(super) async fn run(mut self, reporter: &mut Reporter, stop: &CancellationToken) -> End {
        let node = Arc::clone(&self.client.node);
        let mut identity = node.identity.subscribe();
        identity.mark_unchanged();
        let mut enforced = self.client.endpoint.enforced();
        enforced.mark_unchanged();
        let mut tick = interval(REPORT);
        tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut save_at: Option<Instant> = None;
        let homes = self.client.homes.clone();
        let hurry = Arc::clone(&self.hurry);
        let successor = successor(
            Arc::clone(&node),
            (self.open.home, self.open.connection.clone()),
            homes,
            hurry,
        );
        tokio::pin!(successor);
        loop {
            let save_due = sleep_until(save_at.unwrap_or_else(Instant::now));
            let event = tokio::select! {
                biased;
                () = stop.cancelled() => Event::Stop,
                bytes = self.open.recv.data() => match bytes {
                    Ok(bytes) => Event::Bytes(bytes),
                    Err(error) => Event::Broken(error.to_string()),
                },
                changed = identity.changed() => match changed {
                    Ok(()) => Event::Identity,
                    Err(_) => Event::Stop,
                },
                changed = enforced.changed() => match changed {
                    // At once: somebody waits for the receipt of a revocation.
                    Ok(()) => Event::Identity,
                    Err(_) => Event::Stop,
                },
                next = &mut successor => Event::Successor(next),
                () = save_due, if save_at.is_some() => Event::Save,
                _ = tick.tick() => Event::Tick,
            };
            let done = match event {
                Event::Stop => {
                    self.farewell(reporter).await;
                    return End::Stopped;
                }
                Event::Successor(next) => return End::Replaced(Box::new(self.open), next),
                Event::Bytes(Some(bytes)) => {
                    save_at = save_at.or_else(|| Some(Instant::now() + SAVE_AFTER));
                    self.take(&bytes).await
                }
                Event::Bytes(None) => Err("the control node ended the stream".to_owned()),
                Event::Broken(reason) => Err(reason),
                Event::Identity => self.report(reporter).await,
                Event::Tick => {
                    // A disk that was full may have room again.
                    if self.client.unsaved.is_some() {
                        self.client.save().await;
                    }
                    self.report(reporter).await
                }
                Event::Save => {
                    save_at = None;
                    self.client.save().await;
                    Ok(())
                }
            };
            if let Err(reason) = done {
                return End::Lost(reason);
            }
        }
    }

    /// Takes bytes in and obeys the messages that they complete.
    async fn take(&mut self, bytes: &[u8]) -> Result<(), String> {
        self.open.frames.push(bytes);
        loop {
            let message = self.open.frames.next_message::<ControlMessage>();
            match message.map_err(|error| error.to_string())? {
                None => return Ok(()),
                Some(ControlMessage::Update(update)) => {
                    let mut answer = self.client.applier.apply(update, Instant::now()).await;
                    let unsaved = broken(Mutant::AcknowledgesUnsaved);
                    if self.client.applier.must_save() && !unsaved {
                        self.client.save().await;
                    }
                    if self.client.applier.revision().is_some() {
                        self.client.node.readiness.set(Ok(()));
                    }
                    if let SidecarMessage::Ack(ack) = &mut answer {
                        ack.unsaved.clone_from(&self.client.unsaved);
                    }
                    self.send(&answer).await?;
                }
                Some(ControlMessage::Renew(renew)) => {
                    tracing::info!(
                        reason = renew.reason,
                        "the control node asks for a new SVID"
                    );
                    if self.open.connection.is_retired() {
                        self.hurry.notify_one();
                    }
                    // One wish that waits is enough: all of them mean the same.
                    let _ = self.client.renew.try_send(renew);
                }
                Some(ControlMessage::Unknown) => {}
            }
        }
    }

    async fn report(&mut self, reporter: &mut Reporter) -> Result<(), String> {
        let client = &self.client;
        let mut report = reporter.make(&client.node, &client.endpoint, &self.open.connection);
        report.unsaved.clone_from(&client.unsaved);
        self.send(&SidecarMessage::Report(Box::new(report))).await?;
        reporter.sent();
        Ok(())
    }

    async fn send(&mut self, message: &SidecarMessage) -> Result<(), String> {
        let frame = encode(message).map_err(|error| error.to_string())?;
        match timeout(PATIENCE, self.open.send.send_data(frame)).await {
            Ok(sent) => sent.map_err(|error| error.to_string()),
            Err(_) => Err(format!(
                "the control node has read nothing for {PATIENCE:?}"
            )),
        }
    }

    /// A last report, and a goodbye that has arrived; without the goodbye if another process goes on.
    async fn farewell(&mut self, reporter: &mut Reporter) {
        let said = async {
            self.report(reporter).await?;
            if !self.client.goes_on.load(Ordering::Relaxed) {
                self.send(&SidecarMessage::Goodbye).await?;
            }
            let heard = self.open.send.stopped();
            let finished = self.open.send.finish().await;
            finished.map_err(|error| error.to_string())?;
            // Resolves when the control node has all of it.
            heard.await.map(drop).map_err(|error| error.to_string())
        };
        match timeout(FAREWELL, said).await {
            Ok(Ok(())) => {}
            Ok(Err(reason)) => tracing::debug!(%reason, "the goodbye did not arrive"),
            Err(_) => tracing::debug!("the goodbye did not arrive in time"),
        }
    }
}

impl ControlClient {
    /// A certificate of the delegate is replaced soon after the control node is back: the delegate may then end without harm
    /// to anybody.
    fn come_home(&self) {
        if is_of_delegate(&self.node.identity.current().svid) {
            let within_ms = HOMEWARD.as_millis().try_into().unwrap_or(u64::MAX);
            // One wish that waits is enough.
            let _ = self.renew.try_send(Renew {
                reason: "the control node is back".to_owned(),
                within_ms,
            });
        }
    }
}

async fn greet((home, connection): (Home, Connection), greeting: Bytes) -> Result<Open, String> {
    let request = rpc::head(PATH_SYNC);
    let exchange = connection
        .request_with(&request, greeting, false)
        .await
        .map_err(|error| error.to_string())?;
    let (send, mut recv) = (exchange.send, exchange.recv);
    let response = recv.response().await.map_err(|error| error.to_string())?;
    if !response.status().is_success() {
        let status = response.status().as_u16();
        return Err(rpc::refusal(status, &mut recv).await);
    }
    Ok(Open {
        home,
        connection,
        send,
        recv,
        frames: FrameReader::new(),
    })
}

/// A newer connection, once the present one takes no more requests.
async fn successor(
    node: Arc<Node>,
    (home, present): (Home, Connection),
    homes: Homes,
    hurry: Arc<Notify>,
) -> (Home, Connection) {
    if home == Home::Delegate {
        return back(&node, &present, &homes, &hurry).await;
    }
    present.retired().await;
    tokio::select! {
        // Somebody waits for a new SVID, which is asked for on the next connection.
        () = hurry.notified() => {}
        () = sleep(fraction(SUCCESSION, node.dice.draw())) => {}
    }
    let mut backoff = Backoff::new(super::RECONNECT.0, super::RECONNECT.1);
    loop {
        match homes.dial_control(&node, 0).await {
            Ok(next) => return next,
            Err(reason) => tracing::debug!(%reason, "no newer connection to a control node yet"),
        }
        sleep(backoff.next(node.dice.draw())).await;
    }
}

/// From the delegate back to a control node, once one answers; to the delegate again if the connection to it takes no more
/// requests before.
async fn back(
    node: &Node,
    present: &Connection,
    homes: &Homes,
    hurry: &Notify,
) -> (Home, Connection) {
    loop {
        let wait = HOMEWARD / 2 + fraction(HOMEWARD, node.dice.draw());
        tokio::select! {
            () = hurry.notified() => {}
            () = present.retired(), if !present.is_retired() => {
                sleep(fraction(SUCCESSION, node.dice.draw())).await;
            }
            () = sleep(wait) => {}
        }
        if present.is_retired()
            && let Ok(next) = homes.dial_delegate(node).await
        {
            return next;
        }
        match homes.dial_control(node, 0).await {
            Ok(next) => return next,
            Err(reason) => tracing::debug!(%reason, "still no control node"),
        }
    }
}
