//! Several sidecars in one process, each with an identity of its own (docs/adr/0016-several-identities.md).
//!
//! What they share is the process: its threads, its log, its end. Each is a [`crate::run`] of its own: state directory, keys,
//! trust, endpoint, pool, listeners, metrics, link to the control plane. `check` refuses settings that clash, `muster` has
//! the moments at which they wait for each other.

mod check;
mod muster;

use std::path::PathBuf;
use std::time::Duration;

use tokio::time::timeout;
use tokio_util::sync::CancellationToken;
use tracing::Instrument;
use weft_env::{Broken, Env, Tasks};

pub(crate) use muster::{Group, Seat};

use crate::config::SidecarConfig;
use crate::settings::{self, Backend};
use crate::{Error, sidecar};

/// Most sidecars of one process: a fault in the program ends all of them.
pub const MAX_GROUP: usize = 64;

/// How long the process manager is kept waiting for those that cannot serve yet, once one serves: it would end the
/// process, and with it those that do.
const STRAGGLERS: Duration = Duration::from_secs(30);
/// How often one that the old process of an upgrade has kept asks for its place.
const TAKE_OVERS: usize = 3;

/// One sidecar of a process.
#[derive(Debug, Clone)]
pub struct Member {
    /// By what people know it before it has an identity, such as the name of its settings file.
    pub name: String,
    /// Its settings.
    pub config: SidecarConfig,
}

/// Why a process with several sidecars did not start, or how some of them ended.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum GroupError {
    /// Their settings do not go together.
    #[error("{0}")]
    Settings(String),
    /// One cannot start on this machine, so none does.
    #[error("{name}: {error}; none of the {of} sidecars of this process has started")]
    NotStarted {
        /// Which.
        name: String,
        /// Why not.
        error: Box<Error>,
        /// How many there are to be.
        of: usize,
    },
    /// Some ended by themselves; the others went on to the end.
    #[error("{} of {of} sidecars of this process ended by themselves: {}", .failed.len(), sentences(.failed))]
    Ended {
        /// Which, and why.
        failed: Vec<(String, Error)>,
        /// How many there were.
        of: usize,
    },
}

fn sentences(failed: &[(String, Error)]) -> String {
    let each = failed
        .iter()
        .map(|(name, error)| format!("{name}: {error}"));
    each.collect::<Vec<_>>().join("; and ")
}

/// Runs several sidecars in this process until `shutdown`, each as [`crate::run`] does.
///
/// None joins the mesh, or takes the place of a running one, before all have what they need of this machine. Afterwards
/// each is by itself: one that the mesh refuses, or whose identity ends, leaves the others serving.
///
/// # Errors
/// [`GroupError`]: nothing was started, or some ended before they were told to. That is known when all have ended; the log
/// says it at once.
pub async fn run_group(
    env: &Env,
    members: Vec<Member>,
    shutdown: CancellationToken,
) -> Result<(), GroupError> {
    check::check(&members).map_err(GroupError::Settings)?;
    let of = members.len();
    let mut backends = Vec::with_capacity(of);
    for member in &members {
        let checked = settings::check(&member.config);
        backends.push(checked.map_err(|error| GroupError::NotStarted {
            name: member.name.clone(),
            error: error.into(),
            of,
        })?);
    }
    let group = Group::new(members.iter().map(home).collect());
    let tasks = Tasks::new(env);
    let mut running = Vec::with_capacity(of);
    for ((index, member), backends) in members.into_iter().enumerate().zip(backends) {
        let Member { name, config } = member;
        // At this level it is there whatever is logged.
        let span = tracing::error_span!("sidecar", of = %name, service = tracing::field::Empty);
        let seat = Seat::new(&group, index);
        let (env, shutdown) = (env.clone(), shutdown.clone());
        let run = async move { hold(&env, &config, &backends, &shutdown, &seat).await };
        running.push((name, tasks.spawn(run.instrument(span))));
    }
    let ended = async {
        let mut failed = Vec::new();
        for (name, running) in running {
            let outcome = running.await.unwrap_or_else(|panic| {
                let (task, why) = ("a sidecar", panic.to_string());
                Err(Broken { task, why }.into())
            });
            failed.extend(outcome.err().map(|error| (name, error)));
        }
        failed
    };
    let failed = tokio::select! {
        biased;
        failed = ended => failed,
        never = announce(env, &group) => match never {},
    };
    outcome(failed, group.has_begun(), of)
}

/// What became of all, from the errors in the order of the settings.
fn outcome(mut failed: Vec<(String, Error)>, begun: bool, of: usize) -> Result<(), GroupError> {
    failed.retain(|(_, error)| !matches!(error, Error::Group(_)));
    match (begun, failed.is_empty()) {
        (_, true) => Ok(()),
        (true, false) => Err(GroupError::Ended { failed, of }),
        (false, false) => {
            let (name, error) = failed.swap_remove(0);
            let error = error.into();
            Err(GroupError::NotStarted { name, error, of })
        }
    }
}

fn home(member: &Member) -> PathBuf {
    member.config.state_dir.clone()
}

/// Runs one of them to its end.
async fn hold(
    env: &Env,
    config: &SidecarConfig,
    backends: &[Backend],
    shutdown: &CancellationToken,
    seat: &Seat,
) -> Result<(), Error> {
    let _leaves = seat.leaves_at_the_end();
    let mut attempts = 0;
    loop {
        attempts += 1;
        let (config, backends) = (config.clone(), backends.to_vec());
        let run = sidecar::run_in(env, config, backends, shutdown.clone(), seat);
        let error = match Box::pin(run).await {
            Ok(()) => return Ok(()),
            Err(error) => error,
        };
        let kept = matches!(error, Error::TakeOver(_)) && seat.has_begun();
        if kept && attempts < TAKE_OVERS && !shutdown.is_cancelled() {
            tracing::warn!(%error, "the others are taken over: asking for this one again");
            continue;
        }
        if seat.has_begun() {
            tracing::error!(%error, "this sidecar has ended, others of the process go on: mend it, then `weft upgrade` starts it again");
        }
        return Err(error);
    }
}

enum Never {}

/// Tells the process manager once all serve, or long enough after the first does.
async fn announce(env: &Env, group: &Group) -> Never {
    group.one_serves().await;
    // Who comes later is told of by the log and its own `/readyz`.
    let _ = timeout(STRAGGLERS, group.all_serve()).await;
    // One that took over has been announced by the process before.
    if !group.took_over() {
        env.tell_supervisor("READY=1");
    }
    std::future::pending().await
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_sentence_at_the_end_names_who_failed_and_not_who_only_waited() {
        let error = |text: &str| Error::Config(text.to_owned());
        let waited = || Error::Group("b: no room".to_owned());
        assert!(outcome(Vec::new(), true, 3).is_ok());
        let said = |failed: Vec<(&str, Error)>, begun| {
            let named = failed.into_iter().map(|(name, e)| (name.to_owned(), e));
            outcome(named.collect(), begun, 3).unwrap_err().to_string()
        };
        assert_eq!(
            said(
                vec![("a", waited()), ("b", error("no room")), ("c", waited())],
                false
            ),
            "b: no room; none of the 3 sidecars of this process has started"
        );
        assert_eq!(
            said(vec![("a", error("no")), ("c", error("gone"))], true),
            "2 of 3 sidecars of this process ended by themselves: a: no; and c: gone"
        );
    }
}
