//! `weft sidecar`.

use std::ffi::OsString;
use std::net::SocketAddr;
use std::path::PathBuf;

use weft_env::Env;
use weft_proxy::{
    AppPort, PeerProfile, Program, SidecarConfig, TcpListener, TokenSource, WorkloadApi,
};
use weft_workload::Entry;

use crate::demo::tether;
use crate::failure::Failure;
use crate::settings::{AppSpec, PeerProfileSpec, SidecarSettings, TcpListen};
use crate::signals;

pub(super) async fn run(settings: SidecarSettings) -> Result<(), Failure> {
    let env = settings.process.start()?;
    let stop = signals::stop_token(&env)?;
    let config = config(&env, settings).await?;
    weft_proxy::run(&env, config, stop)
        .await
        .map_err(|error| Failure::because("sidecar", &error))
}

async fn config(env: &Env, settings: SidecarSettings) -> Result<SidecarConfig, Failure> {
    if settings.control.is_empty() {
        return Err(Failure::usage(
            "sidecar: no control node is named; pass --control HOST:PORT, set WEFT_CONTROL, or write `control:` into the file of --config",
        ));
    }
    let mut config = SidecarConfig::new(settings.state_dir, settings.trust_domain);
    config.control = settings.control;
    config.pin = settings.pin;
    config.token = settings
        .token_file
        .map_or(TokenSource::None, TokenSource::File);
    for app in &settings.app {
        config.apps.push(app_port(env, app).await?);
    }
    config.mesh_listen = settings.listen;
    config.advertise = settings.advertise;
    config.outbound_listen = settings.outbound;
    config.tcp_listeners = settings.tcp_listen.into_iter().map(tcp_listener).collect();
    config.metrics_listen = settings.metrics;
    config.workload = workload(settings.workload_socket, settings.workload_allow)?;
    config.profile = settings.profile.into();
    config.peer_profiles = settings
        .peer_profile
        .into_iter()
        .map(peer_profile)
        .collect();
    config.key_exchange = settings.key_exchange.taken();
    config.drain_deadline = settings.drain;
    config.upgrade_drain = settings.upgrade_drain;
    config.take_over = settings.takeover;
    config.program = successor(std::env::args_os());
    config.ready_file = settings.process.ready_file;
    Ok(config)
}

/// The same command line as this one, for a process that takes over. By its name and not by the file that runs: what
/// is installed under that name now is what an upgrade is about.
fn successor(args: impl IntoIterator<Item = OsString>) -> Option<Program> {
    let mut args = args.into_iter();
    let program = args.next()?;
    let mut args: Vec<OsString> = args.collect();
    let said = |arg: &OsString| {
        let arg = arg.to_string_lossy();
        arg == TAKEOVER || arg.starts_with("--takeover=")
    };
    if !args.iter().any(said) {
        args.push(TAKEOVER.into());
    }
    Some(Program {
        program,
        args,
        // It is tied to its parent, which ends after an upgrade.
        without: vec![tether::PARENT.into()],
    })
}

const TAKEOVER: &str = "--takeover";

/// The one makes no sense without the other.
fn workload(socket: Option<PathBuf>, allow: Vec<Entry>) -> Result<Option<WorkloadApi>, Failure> {
    match socket {
        Some(_) if allow.is_empty() => Err(Failure::usage(
            "sidecar: nobody may use the workload socket; say who with --workload-allow, such as --workload-allow uid=1000",
        )),
        Some(socket) => Ok(Some(WorkloadApi { socket, allow })),
        None if allow.is_empty() => Ok(None),
        None => Err(Failure::usage(
            "sidecar: --workload-allow has no socket to allow anybody on; pass --workload-socket PATH",
        )),
    }
}

/// The application is on this machine, so its name is looked up once.
async fn app_port(env: &Env, app: &AppSpec) -> Result<AppPort, Failure> {
    let fail = |why: &dyn std::fmt::Display| {
        Failure::new(
            format!("sidecar: find the application '{}'", app.host),
            why,
            "name a host that resolves with --app, such as 127.0.0.1:8080",
        )
    };
    let found: Vec<SocketAddr> = env
        .resolve(&app.host, app.app_port)
        .await
        .map_err(|error| fail(&error))?;
    let addr = *found.first().ok_or_else(|| fail(&"it has no address"))?;
    Ok(AppPort {
        protocol: app.protocol,
        port: app.port,
        addr,
    })
}

fn peer_profile(spec: PeerProfileSpec) -> PeerProfile {
    PeerProfile {
        service: spec.service,
        profile: spec.profile.into(),
    }
}

fn tcp_listener(listen: TcpListen) -> TcpListener {
    let namespace = listen
        .namespace
        .map_or_else(String::new, |ns| format!(".{ns}"));
    TcpListener {
        listen: listen.listen,
        backend: format!("{}{namespace}:{}", listen.service, listen.port),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_successor_has_the_same_command_line_and_takes_over_once() {
        let line = |args: &[&str]| {
            let all = std::iter::once("/opt/weft").chain(args.iter().copied());
            let program = successor(all.map(OsString::from)).unwrap();
            assert_eq!(program.program, "/opt/weft");
            program.args
        };
        assert_eq!(
            line(&["sidecar", "--drain=1s"]),
            ["sidecar", "--drain=1s", "--takeover"]
        );
        for said in ["--takeover", "--takeover=true"] {
            assert_eq!(line(&["sidecar", said]), ["sidecar", said]);
        }
    }
}
