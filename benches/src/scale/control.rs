//! The control node of a run, and its admin API.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use serde::Deserialize;
use weft_certs::RootPin;
use weft_control::{AdminClient, TokenRequest};
use weft_env::Env;

use crate::error::{Error, Result};
use crate::process::{Place, Process, run};
use crate::usage::Usage;

/// A control node that runs.
pub(super) struct Control {
    pub(super) env: Env,
    pub(super) mesh: SocketAddr,
    pub(super) pin: RootPin,
    state: PathBuf,
    process: Process,
}

#[derive(Deserialize)]
struct Made {
    pin: String,
}

#[derive(Deserialize)]
struct Ready {
    mesh: SocketAddr,
}

impl Control {
    /// `weft init`, `weft control`.
    pub(super) async fn start(weft: &Path, dir: &Path) -> Result<Self> {
        let weft = weft.canonicalize().map_err(|_| Error::Missing {
            what: "weft",
            how: "cargo build --release -p weft".into(),
        })?;
        let (place, state) = (Place::here(), dir.join("control"));
        let state_dir = format!("--state-dir={}", state.display());
        let made = run(&place, &weft, &["init", &state_dir, "-o", "json"]).await?;
        let made: Made = parse(&made)?;
        let file = dir.join("control.ready");
        let args = [
            "control".to_owned(),
            state_dir,
            "--listen=127.0.0.1:0".into(),
            "--metrics=127.0.0.1:0".into(),
            "--log-level=warn".into(),
            format!("--ready-file={}", file.display()),
        ];
        let mut process = Process::start(&place, dir, "control", &weft, &args)?;
        let ready: Ready = parse(&process.ready_file(&file).await?)?;
        let pin = RootPin::parse(&made.pin).map_err(said)?;
        Ok(Self {
            env: Env::system(),
            mesh: ready.mesh,
            pin,
            state,
            process,
        })
    }

    pub(super) async fn admin(&self) -> Result<AdminClient> {
        AdminClient::connect(&self.env, &self.state)
            .await
            .map_err(said)
    }

    /// A token for a service.
    pub(super) async fn token(&self, service: &str) -> Result<String> {
        let request = TokenRequest {
            namespace: "default".into(),
            service: service.into(),
            ttl_s: 3_600,
        };
        let made = self.admin().await?.create_token(&request).await;
        made.map(|made| made.token).map_err(said)
    }

    pub(super) fn usage(&self) -> Usage {
        Usage::of(&self.process.family())
    }
}

fn parse<T: for<'de> Deserialize<'de>>(text: &str) -> Result<T> {
    serde_json::from_str(text)
        .map_err(|error| Error::Protocol(format!("weft wrote {text}: {error}")))
}

/// Another layer's error as a sentence.
pub(super) fn said(error: impl std::fmt::Display) -> Error {
    Error::Protocol(error.to_string())
}
