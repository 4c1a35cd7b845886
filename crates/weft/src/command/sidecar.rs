//! `weft sidecar`.

use std::ffi::OsString;
use std::net::SocketAddr;
use std::path::PathBuf;

use tokio_util::sync::CancellationToken;
use weft_env::Env;
use weft_proxy::{
    AppPort, Attestor, Delegate, GroupError, Member, PeerProfile, Program, SidecarConfig,
    TcpListener, TokenSource, WorkloadApi,
};
use weft_workload::Entry;

use crate::demo::tether;
use crate::failure::Failure;
use crate::settings::{
    AppSpec, JoinSettings, PeerProfileSpec, SidecarSettings, Sidecars, TcpListen,
};
use crate::signals;

pub(super) async fn run(mut sidecars: Sidecars) -> Result<(), Failure> {
    let env = sidecars.each[0].process.start()?;
    let stop = signals::stop_token(&env)?;
    if sidecars.each.len() > 1 {
        return run_several(&env, sidecars, stop).await;
    }
    let config = config(&env, sidecars.each.remove(0)).await?;
    weft_proxy::run(&env, config, stop)
        .await
        .map_err(|error| Failure::because("sidecar", &error))
}

async fn run_several(
    env: &Env,
    sidecars: Sidecars,
    stop: CancellationToken,
) -> Result<(), Failure> {
    let mut members = Vec::new();
    for (name, mut settings) in sidecars.names().into_iter().zip(sidecars.each) {
        settings.process.check()?;
        // They are compared with each other, and with those of a process that runs.
        settings.state_dir = absolute(settings.state_dir)?;
        let config = config(env, settings).await;
        let config = config.map_err(|failure| failure.of("sidecar", &name))?;
        members.push(Member { name, config });
    }
    let ended = weft_proxy::run_group(env, members, stop).await;
    ended.map_err(|error| match error {
        GroupError::Settings(sentence) => Failure::usage(format!("sidecar: {sentence}")),
        other => Failure::because("sidecar", &other),
    })
}

fn absolute(dir: PathBuf) -> Result<PathBuf, Failure> {
    let what = || format!("find the state directory {}", dir.display());
    std::path::absolute(&dir)
        .map_err(|error| Failure::new(what(), error, "name it with its whole path"))
}

async fn config(env: &Env, settings: SidecarSettings) -> Result<SidecarConfig, Failure> {
    if settings.control.is_empty() {
        return Err(Failure::usage(
            "sidecar: no control node is named; pass --control HOST:PORT, set WEFT_CONTROL, or write `control:` into the file of --config",
        ));
    }
    let mut config = SidecarConfig::new(settings.state_dir, settings.trust_domain);
    config.control = settings.control;
    config.delegate = match (settings.site, settings.delegate.is_empty()) {
        (Some(site), false) => Some(Delegate {
            site,
            addresses: settings.delegate,
        }),
        (None, true) => None,
        // On a command line clap has said so; a settings file may have one alone.
        _ => {
            return Err(Failure::usage(
                "sidecar: a site and its delegate go together; pass both --site and --delegate",
            ));
        }
    };
    config.pin = settings.pin;
    let credentials = std::env::var_os("CREDENTIALS_DIRECTORY");
    Way {
        token: config.token,
        attestor: config.attestor,
        identity: config.identity,
    } = way(settings.join, credentials.map(PathBuf::from))?;
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
    config.key_exchange = settings.wire.key_exchange();
    config.tcp_fallback = settings.wire.tcp_fallback();
    config.drain_deadline = settings.drain;
    config.upgrade_drain = settings.upgrade_drain;
    config.take_over = settings.takeover;
    config.program = successor(std::env::args_os());
    config.ready_file = settings.process.ready_file;
    Ok(config)
}

/// How the sidecar comes to its identity.
#[derive(Default)]
struct Way {
    token: TokenSource,
    attestor: Option<Attestor>,
    identity: Option<PathBuf>,
}

impl Way {
    fn token(file: PathBuf) -> Self {
        Self {
            token: TokenSource::File(file),
            ..Self::default()
        }
    }

    fn attestor(attestor: Attestor) -> Self {
        Self {
            attestor: Some(attestor),
            ..Self::default()
        }
    }
}

/// The one way that was chosen.
fn way(join: JoinSettings, credentials: Option<PathBuf>) -> Result<Way, Failure> {
    let mut ways = Vec::new();
    if let Some(file) = join.token_file {
        ways.push(("--token-file", Way::token(file)));
    }
    if let Some(name) = join.token_credential {
        let file = credential(&name, credentials)?;
        ways.push(("--token-credential", Way::token(file)));
    }
    match (join.machine_cert, join.machine_key) {
        (Some(chain), Some(key)) => {
            let attestor = Attestor::X509Pop { chain, key };
            ways.push(("--machine-cert", Way::attestor(attestor)));
        }
        (None, None) => {}
        // On a command line clap has said so; a settings file may have one alone.
        _ => {
            return Err(Failure::usage(
                "sidecar: a machine's certificate and its key go together; pass both --machine-cert and --machine-key",
            ));
        }
    }
    if let Some(token) = join.k8s_token {
        ways.push(("--k8s-token", Way::attestor(Attestor::K8s { token })));
    }
    if let Some(socket) = join.identity {
        let way = Way {
            identity: Some(socket),
            ..Way::default()
        };
        ways.push(("--identity", way));
    }
    if ways.len() > 1 {
        let named: Vec<&str> = ways.iter().map(|(flag, _)| *flag).collect();
        return Err(Failure::usage(format!(
            "sidecar: {} are {} ways to an identity; give one of them",
            named.join(" and "),
            named.len()
        )));
    }
    Ok(ways.pop().map(|(_, way)| way).unwrap_or_default())
}

/// The file of a credential (systemd.exec(5), "Credentials").
fn credential(name: &str, directory: Option<PathBuf>) -> Result<PathBuf, Failure> {
    let legal = !name.is_empty() && name != "." && name != ".." && !name.contains('/');
    if !legal {
        return Err(Failure::usage(format!(
            "sidecar: '{name}' is not the name of a credential; pass the NAME of LoadCredential=NAME:PATH with --token-credential, or a path with --token-file"
        )));
    }
    let directory = directory.filter(|directory| directory.is_absolute());
    let directory = directory.ok_or_else(|| {
        Failure::usage(format!(
            "sidecar: there is no $CREDENTIALS_DIRECTORY to find '{name}' in; start it with systemd and LoadCredential={name}:PATH in its unit, or pass --token-file"
        ))
    })?;
    Ok(directory.join(name))
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

    fn join() -> JoinSettings {
        JoinSettings {
            token_file: None,
            token_credential: None,
            machine_cert: None,
            machine_key: None,
            k8s_token: None,
            identity: None,
        }
    }

    #[test]
    fn there_is_one_way_to_an_identity_or_none() {
        let none = way(join(), None).unwrap();
        assert!(matches!(none.token, TokenSource::None));
        assert!(none.attestor.is_none() && none.identity.is_none());
        let two = JoinSettings {
            token_file: Some("t".into()),
            k8s_token: Some("k".into()),
            ..join()
        };
        let said = way(two, None).err().unwrap().to_string();
        assert!(
            said.contains("--token-file and --k8s-token are 2 ways"),
            "{said}"
        );
        let two = JoinSettings {
            token_file: Some("t".into()),
            identity: Some("/run/spire/agent.sock".into()),
            ..join()
        };
        let said = way(two, None).err().unwrap().to_string();
        assert!(said.contains("--token-file and --identity"), "{said}");
        let alone = JoinSettings {
            machine_key: Some("k".into()),
            ..join()
        };
        let said = way(alone, None).err().unwrap().to_string();
        assert!(said.contains("go together"), "{said}");
    }

    #[test]
    fn a_credential_is_a_file_in_the_directory_of_systemd_and_nowhere_else() {
        let named = |name: &str, directory: Option<&str>| {
            let settings = JoinSettings {
                token_credential: Some(name.to_owned()),
                ..join()
            };
            way(settings, directory.map(PathBuf::from))
        };
        let found = named("token", Some("/run/credentials/weft")).unwrap();
        let TokenSource::File(path) = found.token else {
            panic!("expected a file")
        };
        assert_eq!(path, PathBuf::from("/run/credentials/weft/token"));
        for (name, directory) in [
            ("../token", Some("/run/credentials/weft")),
            ("..", Some("/run/credentials/weft")),
            ("", Some("/run/credentials/weft")),
            ("/etc/token", Some("/run/credentials/weft")),
            ("token", None),
            ("token", Some("relative")),
        ] {
            let said = named(name, directory).err().unwrap().to_string();
            assert!(said.contains("LoadCredential"), "{said}");
        }
    }

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
