//! What keeps a sidecar in touch with the control plane: the sync stream and the renewal of its SVID, or the word of the
//! provider that it comes from. The first two write the state directory, so they rest while another process is to go on
//! with it.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use tokio_util::sync::CancellationToken;
use weft_env::{Broken, JoinHandle, Tasks};

use crate::Error;
use crate::control_client::ControlClient;
use crate::identity::Renewal;
use crate::provider::Follow;

/// The link, at rest or running.
pub(crate) struct Link {
    tasks: Tasks,
    state: State,
    /// Shared with the client: whether to leave without a goodbye.
    goes_on: Arc<AtomicBool>,
}

/// Keeps the SVID fresh.
pub(crate) enum Keeper {
    /// From the mesh's own CA.
    Renewal(Box<Renewal>),
    /// From elsewhere.
    Follow(Box<Follow>),
}

impl Keeper {
    async fn run(self, stop: CancellationToken) -> Self {
        match self {
            Self::Renewal(renewal) => Self::Renewal(Box::new(renewal.run(stop).await)),
            Self::Follow(follow) => Self::Follow(Box::new(follow.run(stop).await)),
        }
    }

    /// Why it has ended by itself, where that is no fault.
    fn end(&mut self) -> Option<Error> {
        match self {
            Self::Renewal(_) => None,
            Self::Follow(follow) => follow.end(),
        }
    }
}

enum State {
    Resting(Box<(ControlClient, Keeper)>),
    Running(Running),
    /// Ended for good, or lost by a panic.
    Ended,
}

struct Running {
    leave: CancellationToken,
    client: JoinHandle<ControlClient>,
    rest: CancellationToken,
    renewal: JoinHandle<Keeper>,
}

impl Link {
    /// A link at rest, whose tasks will be those of `tasks`.
    pub(crate) fn new(tasks: Tasks, client: ControlClient, keeper: Keeper) -> Self {
        Self {
            tasks,
            goes_on: Arc::clone(&client.goes_on),
            state: State::Resting(Box::new((client, keeper))),
        }
    }

    /// Begins, or begins again.
    pub(crate) fn start(&mut self) {
        self.state = match std::mem::replace(&mut self.state, State::Ended) {
            State::Resting(both) => {
                let (client, keeper) = *both;
                self.goes_on.store(false, Ordering::Relaxed);
                let token = || self.tasks.token().child_token();
                let (leave, rest) = (token(), token());
                State::Running(Running {
                    renewal: self.tasks.spawn(keeper.run(rest.clone())),
                    client: self.tasks.spawn(client.run(leave.clone())),
                    leave,
                    rest,
                })
            }
            other => other,
        };
    }

    /// Stops without a goodbye; all that is in force is on disk then. False if it cannot be started again.
    pub(crate) async fn rest(&mut self) -> bool {
        self.goes_on.store(true, Ordering::Relaxed);
        if let State::Running(running) = std::mem::replace(&mut self.state, State::Ended) {
            running.leave.cancel();
            running.rest.cancel();
            if let (Ok(client), Ok(keeper)) = (running.client.await, running.renewal.await) {
                self.state = State::Resting(Box::new((client, keeper)));
            }
        }
        matches!(self.state, State::Resting(_))
    }

    /// Waits until one of the two has ended by itself: the identity has been withdrawn, or it is a fault in weft.
    pub(crate) async fn broken(&mut self) -> Error {
        let State::Running(running) = &mut self.state else {
            return std::future::pending().await;
        };
        let (task, error) = tokio::select! {
            ended = &mut running.client => ("the link to the control plane", ended.err()),
            ended = &mut running.renewal => match ended {
                Ok(mut keeper) => {
                    if let Some(end) = keeper.end() {
                        return end;
                    }
                    ("the renewal of the certificate", None)
                }
                Err(error) => ("the renewal of the certificate", Some(error)),
            },
        };
        self.state = State::Ended;
        let why = error.map_or_else(
            || "it ended too early".to_owned(),
            |error| error.to_string(),
        );
        Broken { task, why }.into()
    }

    /// Says goodbye. The SVID is kept fresh to the end.
    pub(crate) async fn leave(&mut self) {
        if let State::Running(running) = &mut self.state {
            running.leave.cancel();
            // The goodbye has a limit of its own.
            let _ = (&mut running.client).await;
        }
    }
}
