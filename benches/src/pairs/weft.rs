//! weft: a control node and two sidecars, as its users start them.

use std::net::SocketAddr;
use std::path::Path;

use serde::Deserialize;
use serde::de::DeserializeOwned;

use super::{Kind, Pair, Site, folder};
use crate::error::{Error, Result};
use crate::process::{Place, Process, run};

/// The service's port for TCP streams.
const TCP_PORT: u16 = 9000;
/// Everything but a line for each request, as with the other proxies.
const LOG: &str = "--log-level=info,access=off";

/// Lets the client's service call the server's.
const POLICY: &str = include_str!("../../configs/weft-policy.yaml");

#[derive(Deserialize)]
struct Made {
    pin: String,
}

#[derive(Deserialize)]
struct Token {
    token: String,
}

#[derive(Deserialize)]
struct ControlReady {
    mesh: SocketAddr,
}

#[derive(Deserialize)]
struct SidecarReady {
    outbound: SocketAddr,
    tcp: Vec<SocketAddr>,
}

struct Mesh<'a> {
    site: &'a Site,
    dir: &'a Path,
    control: SocketAddr,
    pin: String,
}

pub(super) async fn start(kind: Kind, site: &Site, dir: &Path) -> Result<Pair> {
    if !site.weft.is_file() {
        return Err(Error::Missing {
            what: "weft",
            how: format!(
                "build it with `cargo build --release -p weft`; {} is not there",
                site.weft.display()
            ),
        });
    }
    let state = dir.join("control");
    let state_dir = format!("--state-dir={}", state.display());
    let made = run(&site.b, &site.weft, &["init", &state_dir, "-o", "json"]).await?;
    let Made { pin } = json("weft init", &made)?;
    let (control, addr) = start_control(site, dir, &state_dir).await?;
    let mesh = Mesh {
        site,
        dir,
        control: addr,
        pin,
    };
    let apps = [
        format!("--app=http/80={}", site.server),
        format!("--app=tcp/{TCP_PORT}={}", site.server),
    ];
    let (b, _) = mesh.sidecar(&site.b, "echo", &apps).await?;
    let listen = [format!("--tcp-listen={}:0=echo:{TCP_PORT}", site.a.ip)];
    let (a, ready) = mesh.sidecar(&site.a, "client", &listen).await?;
    let policy = folder(dir, "policy")?.join("policy.yaml");
    std::fs::write(&policy, POLICY).map_err(Error::io("write the policy"))?;
    let file = policy.display().to_string();
    run(
        &site.b,
        &site.weft,
        &["apply", &state_dir, "--wait", "-f", &file],
    )
    .await?;
    let entry = match kind {
        Kind::WeftL4 => *ready
            .tcp
            .first()
            .ok_or_else(|| Error::Protocol("weft opened no TCP port".into()))?,
        _ => ready.outbound,
    };
    Ok(Pair {
        others: vec![control],
        ..Pair::of(entry, vec![a, b])
    })
}

async fn start_control(site: &Site, dir: &Path, state_dir: &str) -> Result<(Process, SocketAddr)> {
    let file = dir.join("control.ready");
    let args = [
        "control".to_owned(),
        state_dir.to_owned(),
        format!("--listen={}", site.b.addr(0)),
        format!("--metrics={}", site.b.addr(0)),
        format!("--ready-file={}", file.display()),
        LOG.to_owned(),
    ];
    let mut process = Process::start(&site.b, dir, "control", &site.weft, &args)?;
    let ready: ControlReady = json("control", &process.ready_file(&file).await?)?;
    Ok((process, ready.mesh))
}

impl Mesh<'_> {
    async fn sidecar(
        &self,
        place: &Place,
        service: &str,
        more: &[String],
    ) -> Result<(Process, SidecarReady)> {
        let control_dir = format!("--state-dir={}", self.dir.join("control").display());
        let args = [
            "token",
            "create",
            &control_dir,
            "--service",
            service,
            "-o",
            "json",
        ];
        let token: Token = json(
            "weft token create",
            &run(&self.site.b, &self.site.weft, &args).await?,
        )?;
        let token_file = self.dir.join(format!("{service}.token"));
        std::fs::write(&token_file, token.token).map_err(Error::io("write a token"))?;
        let file = self.dir.join(format!("{service}.ready"));
        let mut args = vec![
            "sidecar".to_owned(),
            format!("--state-dir={}", self.dir.join(service).display()),
            format!("--control={}", self.control),
            format!("--pin={}", self.pin),
            format!("--token-file={}", token_file.display()),
            format!("--listen={}", place.addr(0)),
            format!("--outbound={}", place.addr(0)),
            format!("--metrics={}", place.addr(0)),
            format!("--ready-file={}", file.display()),
            LOG.to_owned(),
        ];
        args.extend_from_slice(more);
        let mut process = Process::start(place, self.dir, service, &self.site.weft, &args)?;
        let ready = json(service, &process.ready_file(&file).await?)?;
        Ok((process, ready))
    }
}

fn json<T: DeserializeOwned>(whose: &str, text: &str) -> Result<T> {
    serde_json::from_str(text)
        .map_err(|error| Error::Protocol(format!("{whose} wrote {text}: {error}")))
}
