//! `weft upgrade`: asking a running sidecar to start its successor, and doing so.

use std::path::{Path, PathBuf};
use std::time::Duration;

use tokio::sync::watch;
use tokio::time::timeout;
use weft_env::Env;

use super::give::Outcome;
use super::message::{Hello, Message, SPOKEN, Upgraded, hear, say};
use super::{PATIENCE, Program, STARTING, desk, take};
use crate::{Error, VERSION};

/// A successor that ends has said why before, if it could.
const LAST_WORD: Duration = Duration::from_millis(500);

/// Asks the sidecar of a state directory to start the program that is installed now in its own place, and waits
/// until that serves.
///
/// # Errors
/// [`Error::Upgrade`]: the running sidecar goes on, and this says why. [`Error::NoSidecar`].
pub async fn upgrade(env: &Env, state_dir: &Path) -> Result<Upgraded, Error> {
    let path = desk(state_dir);
    let channel = env
        .connect_channel(&path)
        .map_err(|source| match take::nobody(&source) {
            true => Error::NoSidecar { source },
            false => Error::Upgrade(format!("{source}: ask as the user that it runs as")),
        })?;
    let hello = Message::Upgrade(Hello::own());
    let asked = async {
        say(&channel, &hello, None).await?;
        hear(&channel).await
    };
    let broken = |why: String| Error::Upgrade(format!("the running sidecar gave no answer: {why}"));
    match timeout(STARTING + STARTING, asked).await {
        Ok(Ok(Some((Message::Upgraded(upgraded), _)))) => Ok(upgraded),
        Ok(Ok(Some((Message::Refused { reason }, _)))) => Err(Error::Upgrade(reason)),
        Ok(Ok(Some(_))) => Err(broken("it is of another version".to_owned())),
        Ok(Ok(None)) => Err(broken("it ended".to_owned())),
        Ok(Err(error)) => Err(broken(error.to_string())),
        Err(_) => Err(broken("it took too long".to_owned())),
    }
}

impl Hello {
    /// This process.
    pub(super) fn own() -> Self {
        Self {
            protocols: SPOKEN,
            version: VERSION.to_owned(),
            pid: std::process::id(),
            holds: Vec::new(),
        }
    }

    /// This process, which is to hold the sidecars of these state directories.
    pub(super) fn of_holder(holds: &[PathBuf]) -> Self {
        Self {
            holds: holds.to_vec(),
            ..Self::own()
        }
    }
}

/// Starts the successor and waits for what becomes of it.
pub(super) async fn start(
    program: Option<&Program>,
    mut outcome: watch::Receiver<Outcome>,
) -> Result<Upgraded, String> {
    let program = program.ok_or("the running sidecar does not know its own program")?;
    outcome.mark_unchanged();
    let name = program.program.display();
    let mut child = program
        .start()
        .map_err(|error| format!("{name} cannot be started: {error}"))?;
    tracing::info!(program = %name, pid = child.id(), "an upgrade is asked for: starting a successor");
    let decided = tokio::select! {
        biased;
        decided = decision(&mut outcome) => decided,
        ended = child.wait() => {
            match timeout(LAST_WORD, decision(&mut outcome)).await {
                Ok(decided) => decided,
                Err(_) => {
                    let how = ended.map_or_else(|error| error.to_string(), |status| status.to_string());
                    Some(Err(format!("{name} ended before it took over ({how}); the log of the sidecar has its reason")))
                }
            }
        }
        () = tokio::time::sleep(STARTING + PATIENCE) => {
            let _ = child.start_kill();
            Some(Err(format!("{name} did not ask to take over, and was ended")))
        }
    };
    decided.unwrap_or_else(|| Err("the running sidecar stops".to_owned()))
}

async fn decision(outcome: &mut watch::Receiver<Outcome>) -> Option<Result<Upgraded, String>> {
    outcome.changed().await.ok()?;
    outcome.borrow_and_update().1.clone()
}
