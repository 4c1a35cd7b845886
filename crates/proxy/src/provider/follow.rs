//! What a provider says as time goes on: the next SVID, other roots, that it takes the identity back.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use tokio::sync::mpsc;
use tokio::time::{Instant, sleep, sleep_until};
use tokio_util::sync::CancellationToken;
use weft_env::Tasks;
use weft_wire::Renew;
use weft_workload::{Provided, ProviderError, Subscription};

use super::Provider;
use crate::Error;
use crate::backoff::Backoff;
use crate::control_client::Outage;
use crate::node::Node;

/// First and longest wait before a provider is asked again, with full jitter.
const RECONNECT: (Duration, Duration) = (Duration::from_millis(500), Duration::from_secs(30));
/// A stream that lasted so long is no reason to wait.
const LASTED: Duration = Duration::from_secs(10);
/// A provider that has no identity for this process any more has withdrawn it (Workload API §4.4). One that restarts may
/// say so for a moment, until it knows its registrations again.
const WITHDRAWN: Duration = Duration::from_secs(10);
/// Longest wait while that is to be found out.
const PROMPT: Duration = Duration::from_secs(1);
/// The wall clock can be set while we sleep, so no sleep is longer than this.
const LOOK: Duration = Duration::from_secs(30);

/// Follows the provider for the life of the sidecar.
pub(crate) struct Follow {
    node: Arc<Node>,
    provider: Arc<Provider>,
    source: Source,
    /// Wishes of the control node for a new SVID, which only the provider makes.
    wishes: mpsc::Receiver<Renew>,
    /// Since when it says that there is no identity.
    withdrawn: Option<Instant>,
    outage: Outage,
    expired: bool,
    end: Option<Error>,
}

/// The way to the provider.
struct Source {
    tasks: Tasks,
    provider: Arc<Provider>,
    subscription: Option<Subscription>,
    opened: Instant,
    /// When it is asked again.
    due: Instant,
    backoff: Backoff,
    /// It makes no sense to ask again.
    closed: bool,
}

impl Source {
    /// The next word of the provider. Dropping the future loses nothing.
    async fn hear(&mut self) -> Result<Provided, ProviderError> {
        if self.closed {
            return std::future::pending().await;
        }
        if let Some(subscription) = &mut self.subscription {
            return subscription.next().await;
        }
        sleep_until(self.due).await;
        let opened = Subscription::open(&self.tasks, &self.provider.socket).await;
        let (subscription, provided) = opened?;
        self.subscription = Some(subscription);
        self.opened = Instant::now();
        Ok(provided)
    }

    /// It is asked again after a wait.
    fn lost(&mut self, longest: Duration, draw: u64) -> Duration {
        if self.subscription.take().is_some() && self.opened.elapsed() >= LASTED {
            self.backoff.reset();
        }
        let wait = self.backoff.next(draw).min(longest);
        self.due = Instant::now() + wait;
        wait
    }
}

impl Follow {
    pub(crate) fn new(
        node: Arc<Node>,
        provider: Arc<Provider>,
        wishes: mpsc::Receiver<Renew>,
        tasks: Tasks,
    ) -> Self {
        let now = Instant::now();
        Self {
            node,
            source: Source {
                tasks,
                provider: Arc::clone(&provider),
                subscription: provider.begun(),
                opened: now,
                due: now,
                backoff: Backoff::new(RECONNECT.0, RECONNECT.1),
                closed: false,
            },
            provider,
            wishes,
            withdrawn: None,
            outage: Outage::default(),
            expired: false,
            end: None,
        }
    }

    /// Why it has ended by itself, if it has.
    pub(crate) fn end(&mut self) -> Option<Error> {
        self.end.take()
    }

    /// Runs until `stop`, or until there is an [`end`](Self::end). It may be run again.
    pub(crate) async fn run(mut self, stop: CancellationToken) -> Self {
        while self.end.is_none() {
            let heard = tokio::select! {
                biased;
                () = stop.cancelled() => break,
                wish = self.wishes.recv() => match wish {
                    Some(wish) => {
                        self.decline(&wish);
                        continue;
                    }
                    None => break,
                },
                heard = self.source.hear() => heard,
                () = sleep(LOOK) => {
                    self.look_at_the_end();
                    continue;
                }
            };
            match heard {
                Ok(provided) => self.take(provided),
                Err(cause) => self.failed(cause),
            }
        }
        self
    }

    fn decline(&self, wish: &Renew) {
        tracing::info!(
            reason = wish.reason,
            from = self.provider.address(),
            "asked for a new SVID, which only the provider of this identity makes"
        );
    }

    fn take(&mut self, provided: Provided) {
        (self.withdrawn, self.outage) = (None, Outage::default());
        let node = &self.node;
        let from = self.provider.address();
        if *provided.svid.id() != node.id {
            tracing::error!(
                from, id = %provided.svid.id(),
                "the provider gives another identity now, which is not taken: restart this sidecar if it is to be that one"
            );
            return;
        }
        let before = node.identity.current().svid.serial().to_owned();
        let serial = provided.svid.serial().to_owned();
        let taken = self
            .provider
            .provide(provided, &node.identity, node.env.wall());
        match taken {
            Err(cause) => {
                tracing::error!(from, %cause, "what the provider gives cannot be used: the SVID in use stays");
            }
            Ok(()) if serial == before => tracing::info!(from, "the provider's roots are in use"),
            Ok(()) => {
                self.expired = false;
                node.telemetry.svid_renewed();
                tracing::info!(serial, from, "a new SVID is in use");
            }
        }
    }

    fn failed(&mut self, cause: ProviderError) {
        let from = self.provider.address();
        if let ProviderError::Unusable(_) = cause {
            // The stream goes on.
            tracing::error!(from, %cause, "the SVID in use stays");
            return;
        }
        if cause.is_final() {
            self.source.closed = true;
            self.source.subscription = None;
            tracing::error!(from, %cause, "the provider is not asked again: the SVID in use stays to its end");
            return;
        }
        let refused = matches!(cause, ProviderError::NoIdentity(_));
        self.withdrawn = refused.then(|| self.withdrawn.unwrap_or_else(Instant::now));
        if self
            .withdrawn
            .is_some_and(|since| since.elapsed() >= WITHDRAWN)
        {
            self.end = Some(self.over(cause));
            return;
        }
        let longest = if refused { PROMPT } else { RECONNECT.1 };
        let wait = self.source.lost(longest, self.node.dice.draw());
        let reason = cause.to_string();
        if let Some(attempts) = self.outage.failed(&reason, self.node.uptime()) {
            tracing::warn!(
                from,
                reason,
                attempts,
                left_s = self.left().as_secs(),
                wait_ms = wait.as_millis(),
                "no word from the provider, asking again: the SVID in use stays"
            );
        }
    }

    fn over(&self, cause: ProviderError) -> Error {
        Error::Withdrawn {
            id: self.node.id.clone(),
            address: self.provider.address(),
            next_step: cause.next_step(),
            cause,
        }
    }

    fn left(&self) -> Duration {
        let end: SystemTime = self.node.identity.current().svid.not_after();
        end.duration_since(self.node.env.wall()).unwrap_or_default()
    }

    /// Says once that the SVID has ended.
    fn look_at_the_end(&mut self) {
        if !self.left().is_zero() {
            return;
        }
        if self.source.closed {
            let cause = ProviderError::Never("it was not asked again".to_owned());
            self.end = Some(self.over(cause));
        } else if !std::mem::replace(&mut self.expired, true) {
            tracing::error!(
                from = self.provider.address(),
                "the SVID has expired and the provider gives no other: peers refuse this sidecar"
            );
        }
    }
}
