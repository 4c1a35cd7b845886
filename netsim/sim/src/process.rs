//! Processes: one life each.

use std::collections::BTreeMap;
use std::panic::Location;
use std::sync::Arc;

use weft_env::Env;

use crate::gate::Gate;
use crate::node::Node;
use crate::platform::SimPlatform;

/// More yields than any task needs to end that has been aborted.
const PATIENCE: usize = 1_000;

/// One life of a process on a node. Cheap to clone; clones are the same process.
#[derive(Clone)]
pub struct Process {
    name: Arc<str>,
    gate: Arc<Gate>,
    platform: Arc<SimPlatform>,
    env: Env,
}

impl std::fmt::Debug for Process {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("Process").field(&self.name).finish()
    }
}

impl Process {
    pub(crate) fn start(node: &Node, name: &str) -> Self {
        let full: Arc<str> = format!("{}/{name}", node.name()).into();
        let gate = Arc::new(Gate::new(
            full.clone(),
            node.shared.polls.clone(),
            node.shared.wakes.clone(),
        ));
        let platform = Arc::new(SimPlatform::new(node.clone(), full.clone(), gate.clone()));
        let env = Env::new(platform.clone());
        Self {
            name: full,
            gate,
            platform,
            env,
        }
    }

    /// `node/process`.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Its access to the world.
    #[must_use]
    pub fn env(&self) -> &Env {
        &self.env
    }

    /// Ends it as SIGKILL does: nothing is said and nothing written any more, the kernel closes its
    /// sockets. What it had written stays.
    ///
    /// # Panics
    /// If a task of it does not end: it would act from beyond.
    pub async fn kill(&self) {
        // The fence first: tasks that are being dropped can send and write no more.
        self.gate.fence();
        self.platform.close_sockets();
        self.gate.abort_all();
        for _ in 0..PATIENCE {
            if self.gate.living() == 0 {
                return;
            }
            // Comes back when the run queue is empty: what was aborted is gone by then.
            tokio::task::yield_now().await;
        }
        panic!(
            "{} was killed, but {} tasks of it live",
            self.name,
            self.gate.living()
        );
    }

    /// Kills it at its `number`-th step on the disk from now on, before that step: between the writing of a
    /// file and its renaming, for instance. [`Process::is_dead`] tells when it happened;
    /// [`Process::kill`] must follow to clear away its tasks.
    pub fn crash_at_disk_step(&self, number: u32) {
        self.platform.crash_at(number);
    }

    /// Whether it was killed.
    #[must_use]
    pub fn is_dead(&self) -> bool {
        self.gate.is_fenced()
    }

    /// Stops it where it stands, as SIGSTOP does: time goes on without it.
    pub fn pause(&self) {
        self.gate.pause();
    }

    /// Lets it go on.
    pub fn resume(&self) {
        self.gate.resume();
    }

    /// Whether it is stopped.
    #[must_use]
    pub fn is_paused(&self) -> bool {
        self.gate.is_paused()
    }

    /// Tasks of it that have not ended.
    #[must_use]
    pub fn tasks(&self) -> usize {
        self.gate.living()
    }

    /// Bytes that it holds in memory, with what the libraries below it do. What others have sent and it has not yet
    /// read is not among them.
    #[must_use]
    pub fn bytes(&self) -> usize {
        self.gate.bytes()
    }

    /// Those tasks by the place in the code that spawned them. All of quinn's have one place, `platform.rs` of this
    /// crate: one task for each connection and one for each endpoint.
    #[must_use]
    pub fn tasks_by_place(&self) -> BTreeMap<&'static Location<'static>, usize> {
        self.gate.living_by_place()
    }
}
