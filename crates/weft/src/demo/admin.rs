//! The control node's admin API, as the demo asks it: errors are sentences.

use std::path::{Path, PathBuf};

use weft_control::{AdminClient, Edge, SidecarStatus, Status};
use weft_env::Env;

/// Asks the control node of one state directory, which may come and go between two questions.
pub(super) struct Admin {
    env: Env,
    dir: PathBuf,
}

impl Admin {
    pub(super) fn new(env: &Env, dir: &Path) -> Self {
        Self {
            env: env.clone(),
            dir: dir.to_owned(),
        }
    }

    async fn client(&self) -> Result<AdminClient, String> {
        AdminClient::connect(&self.env, &self.dir)
            .await
            .map_err(|error| error.to_string())
    }

    /// The control node and every sidecar that it knows.
    pub(super) async fn full_status(&self) -> Result<Status, String> {
        let status = self.client().await?.status().await;
        status.map_err(|error| error.to_string())
    }

    /// Every sidecar that the control node knows.
    pub(super) async fn status(&self) -> Result<Vec<SidecarStatus>, String> {
        self.full_status().await.map(|status| status.sidecars)
    }

    /// Every edge.
    pub(super) async fn edges(&self) -> Result<Vec<Edge>, String> {
        let list = self.client().await?.edges().await;
        list.map(|list| list.edges)
            .map_err(|error| error.to_string())
    }
}
