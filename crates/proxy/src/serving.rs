//! A sidecar that serves, until it stops or another process takes its place.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{mpsc, watch};
use tokio::time::{Instant, MissedTickBehavior, interval, sleep};
use tokio_util::sync::CancellationToken;
use weft_env::{ChannelListener, Env, Tasks};
use weft_transport::{Endpoint, Relay};

use crate::Error;
use crate::config::SidecarConfig;
use crate::group::Seat;
use crate::handover::give::{Desk, Estate, Outcome, Request};
use crate::link::Link;
use crate::node::Node;
use crate::ready::Ready;
use crate::state_dir::StateDir;

/// What has been told to end gets this long before it is ended.
pub(crate) const GRACE: Duration = Duration::from_secs(1);
/// How often a process that finishes its streams looks whom it is to trust: a revocation holds for it too.
const TRUST: Duration = Duration::from_millis(500);

/// What a sidecar is built of.
pub(crate) struct Built {
    pub(crate) node: Arc<Node>,
    pub(crate) endpoint: Endpoint,
    pub(crate) ready: Ready,
    pub(crate) state: Arc<StateDir>,
    pub(crate) link: Link,
    /// Owner of the callers of the Workload API.
    pub(crate) workload: Tasks,
    /// Owner of what runs beside the traffic, which would end with it.
    pub(crate) background: Tasks,
    pub(crate) desk: Option<ChannelListener>,
    pub(crate) seat: Seat,
}

/// A sidecar whose parts run.
pub(crate) struct Sidecar {
    built: Built,
    desk: Option<Arc<ChannelListener>>,
    /// Ends the listening on it.
    desk_closes: CancellationToken,
    requests: mpsc::Receiver<Request>,
    outcome: watch::Sender<Outcome>,
    asking: mpsc::Sender<Request>,
}

/// How a sidecar ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum End {
    Stopped,
    /// Another process goes on; its files are not to be touched.
    HandedOver,
}

impl Sidecar {
    pub(crate) fn new(mut built: Built) -> Self {
        let (asking, requests) = mpsc::channel(1);
        Self {
            desk: built.desk.take().map(Arc::new),
            desk_closes: built.background.token().child_token(),
            built,
            requests,
            outcome: watch::Sender::new((0, None)),
            asking,
        }
    }

    /// From here on everything is this process's.
    pub(crate) fn go(&mut self, config: &SidecarConfig, took_over: bool) {
        let Built {
            node,
            link,
            background,
            seat,
            ..
        } = &mut self.built;
        if took_over {
            node.doors.take();
            if let Some(relay) = &node.relay {
                relay.resume();
            }
        }
        link.start();
        if let Some(listener) = &self.desk {
            listener.own(true);
            let desk = Desk {
                listener: Arc::clone(listener),
                program: config.program.clone(),
                group: Arc::clone(seat.group()),
                requests: self.asking.clone(),
                outcome: self.outcome.subscribe(),
            };
            let closes = self.desk_closes.clone();
            drop(background.spawn(desk.attend(background.clone(), closes)));
        }
    }

    /// Serves until `shutdown`, or until another process has taken over and all that was under way has ended.
    pub(crate) async fn serve(
        mut self,
        env: &Env,
        config: &SidecarConfig,
        shutdown: CancellationToken,
        tasks: &Tasks,
    ) -> Result<End, Error> {
        let readiness = self.built.node.readiness.clone();
        let mut ready = false;
        loop {
            let request = tokio::select! {
                biased;
                () = shutdown.cancelled() => {
                    self.built.seat.stops(env);
                    self.stop(config.drain_deadline).await;
                    return Ok(End::Stopped);
                }
                broken = tasks.broken() => return Err(self.give_up(config, broken).await),
                broken = self.built.link.broken() => return Err(self.give_up(config, broken).await),
                () = readiness.reached(), if !ready => {
                    ready = true;
                    self.tell_ready(env, config).await?;
                    continue;
                }
                Some(request) = self.requests.recv() => request,
            };
            if self.hand_over(env, config, &request, &shutdown).await {
                self.finish(config, &shutdown).await;
                return Ok(End::HandedOver);
            }
        }
    }

    /// Without one of its parts it must not live on half-dead: a supervisor starts it again.
    async fn give_up(self, config: &SidecarConfig, error: impl Into<Error>) -> Error {
        let error = error.into();
        tracing::error!(%error, "giving up");
        self.stop(config.drain_deadline).await;
        error
    }

    async fn tell_ready(&self, env: &Env, config: &SidecarConfig) -> Result<(), Error> {
        let Ready {
            service,
            mesh,
            outbound,
            metrics,
            ..
        } = &self.built.ready;
        tracing::info!(%service, %mesh, %outbound, %metrics, "ready");
        if let Some(path) = &config.ready_file {
            self.built.ready.write(env, path.clone()).await?;
        }
        self.built.seat.serves(env);
        Ok(())
    }

    /// Gives everything to another process. False if it did not take it: then everything goes on as before.
    async fn hand_over(
        &mut self,
        env: &Env,
        config: &SidecarConfig,
        request: &Request,
        shutdown: &CancellationToken,
    ) -> bool {
        let built = &mut self.built;
        let (Some(relay), Some(desk)) = (&built.node.relay, &self.desk) else {
            return false;
        };
        tracing::info!(to = request.name(), "a new process is to take over");
        // What is in force is on disk then, and nobody writes there but the new process.
        let can_go_on = built.link.rest().await;
        let estate = Estate {
            state: &built.state,
            doors: &built.node.doors,
            relay,
            desk,
            mesh: config.mesh_listen,
        };
        let outcome = request.give(&estate, shutdown).await;
        match &outcome {
            Ok(upgraded) => {
                relay.follow();
                built.node.doors.leave();
                built.endpoint.leave();
                built.state.leave();
                desk.own(false);
                built.seat.left();
                self.desk_closes.cancel();
                env.tell_supervisor(&format!("MAINPID={}", upgraded.to_pid));
            }
            Err(reason) => {
                tracing::error!(
                    to = request.name(),
                    reason,
                    "the new process does not take over: this one goes on"
                );
                if !can_go_on {
                    tracing::error!(
                        "the link to the control plane cannot be taken up again: restart this sidecar"
                    );
                }
                built.link.start();
            }
        }
        let done = outcome.is_ok();
        self.outcome.send_modify(|(number, last)| {
            *number += 1;
            *last = Some(outcome);
        });
        done
    }

    /// First the mesh learns that this instance is gone, then nothing new is taken, then what is under way
    /// ends, or is ended.
    async fn stop(mut self, deadline: Duration) {
        let began = Instant::now();
        tracing::info!(
            deadline_s = deadline.as_secs_f64(),
            "stopping: requests under way may end"
        );
        let built = &mut self.built;
        built.node.readiness.set(Err("stopping".to_owned()));
        built.link.leave().await;
        built.node.listening.shutdown(GRACE).await;
        let left = deadline.saturating_sub(began.elapsed());
        built.end(left).await;
    }

    /// After another process has taken over: peers have been told to connect again, the application is told so with
    /// its next answers, and what is under way goes on for long.
    async fn finish(self, config: &SidecarConfig, shutdown: &CancellationToken) {
        let built = &self.built;
        let node = &built.node;
        let end = Instant::now() + config.upgrade_drain;
        tracing::info!(
            deadline_s = config.upgrade_drain.as_secs_f64(),
            "handed over: what is under way may end"
        );
        node.readiness
            .set(Err("another process has taken over".to_owned()));
        built.workload.shutdown(GRACE).await;
        let trust = follow_trust(Arc::clone(node), Arc::clone(&built.state));
        drop(built.background.spawn(trust));
        let hurry = || hurry(node.relay.as_ref(), shutdown);
        tokio::select! {
            biased;
            () = hurry() => {}
            () = node.traffic.ended() => {}
            // Connections of the application that are idle for so long are closed.
            () = sleep(config.drain_deadline.min(config.upgrade_drain)) => {}
        }
        node.listening.shutdown(GRACE).await;
        let left = || end.saturating_duration_since(Instant::now());
        tokio::select! {
            biased;
            () = built.end(left()) => return,
            () = hurry() => {}
        }
        built.end(left().min(config.drain_deadline)).await;
    }
}

impl Built {
    /// Lets what is under way end, and cuts the rest.
    async fn end(&self, left: Duration) {
        self.node.deadline.set(Instant::now() + left);
        let traffic = self.node.traffic.shutdown(left);
        let cut = async { tokio::join!(self.endpoint.drain(left), traffic) };
        tokio::pin!(cut);
        let ((), ended) = tokio::select! {
            biased;
            ended = &mut cut => ended,
            () = self.node.deadline.approach(left) => cut.await,
        };
        if !ended {
            tracing::warn!("some requests or connections did not end in time and were cut");
        }
        tracing::info!("stopped");
    }
}

/// Resolves when a process that finishes its streams is to end soon: it was told to, or the process that reads for it
/// is gone and its ports should become free.
async fn hurry(relay: Option<&Relay>, shutdown: &CancellationToken) {
    let orphaned = relay.map(Relay::orphaned).unwrap_or_default();
    tokio::select! {
        biased;
        () = shutdown.cancelled() => tracing::info!("ending what is still under way"),
        () = orphaned.cancelled() => {
            tracing::warn!("the process that took over has ended: ending what is still under way here");
        }
    }
}

/// Trusts whom the process that took over trusts: it saves that.
async fn follow_trust(node: Arc<Node>, state: Arc<StateDir>) {
    let mut tick = interval(TRUST);
    tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        tick.tick().await;
        let bundles = match state.bundles(&node.env).await {
            Ok(bundles) => bundles,
            Err(error) => {
                tracing::warn!(%error, "whom to trust now cannot be read");
                continue;
            }
        };
        match node.trust(bundles) {
            Ok(false) => {}
            Ok(true) => tracing::info!("follows what the new process trusts"),
            Err(error) => tracing::warn!(%error, "what the new process trusts is not followed"),
        }
    }
}
