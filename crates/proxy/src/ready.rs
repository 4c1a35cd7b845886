//! The ready file: tells whoever started the process that it can serve, and where.

use std::net::SocketAddr;
use std::path::PathBuf;

use serde::{Deserialize, Serialize};
use weft_env::{Env, Mode};

use crate::Error;

/// Content of the ready file, as JSON.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Ready {
    /// Process id.
    pub pid: u32,
    /// Service that the sidecar stands for, `name.namespace`.
    pub service: String,
    /// Its identity.
    pub spiffe_id: String,
    /// Instance, unique in the mesh.
    pub instance: String,
    /// Where other sidecars reach it (UDP).
    pub mesh: SocketAddr,
    /// Where the application reaches the mesh (HTTP proxy, TCP).
    pub outbound: SocketAddr,
    /// Where metrics and health are (TCP).
    pub metrics: SocketAddr,
    /// The local ports of the settings that lead to TCP services, in their order.
    pub tcp: Vec<SocketAddr>,
}

impl Ready {
    /// Writes the file, whole or not at all.
    pub(crate) async fn write(&self, env: &Env, path: PathBuf) -> Result<(), Error> {
        let json = serde_json::to_vec_pretty(self).expect("addresses and names are plain JSON");
        env.disk(move |disk| disk.write_atomic(&path, &json, Mode::Public))
            .await
            .map_err(Error::ReadyFile)
    }
}
