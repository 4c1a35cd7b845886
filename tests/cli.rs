//! The command line as its users meet it: help, completions, settings, resources in and out.

#![allow(
    clippy::disallowed_methods,
    clippy::unwrap_used,
    reason = "tests stand outside Env, and a panic is how they fail"
)]

mod support;

use support::{Ran, World, run, weft};

const ROUTE: &str = "\
apiVersion: gateway.networking.k8s.io/v1
kind: HTTPRoute
metadata:
  name: invoices
spec:
  parentRefs:
    - kind: Service
      name: invoices
  rules:
    - timeouts:
        request: 10s
      backendRefs:
        - name: invoices
          port: 80
";

#[test]
fn help_of_every_command_says_what_it_does() {
    let help = run(&mut weft(["--help"]));
    for command in [
        "init",
        "control",
        "token",
        "sidecar",
        "apply",
        "get",
        "delete",
        "cert",
        "ca",
        "status",
        "top",
        "demo",
        "version",
        "completions",
    ] {
        assert!(
            help.ok().stdout.contains(command),
            "{command} in {}",
            help.stdout
        );
        let own = run(&mut weft([command, "--help"]));
        assert!(
            own.ok().stdout.contains("Usage:"),
            "{command}: {}",
            own.stdout
        );
    }
    assert!(
        !help.stdout.contains("demo-app"),
        "hidden commands stay hidden"
    );
    assert!(run(&mut weft(["version"])).ok().stdout.starts_with("weft "));
    assert_eq!(
        run(&mut weft(["version", "-o", "json"])).json()["version"],
        env!("CARGO_PKG_VERSION")
    );
}

#[test]
fn completions_are_made_for_each_shell() {
    for shell in ["bash", "zsh", "fish", "elvish", "powershell"] {
        let script = run(&mut weft(["completions", shell]));
        assert!(script.ok().stdout.contains("sidecar"), "{shell}");
        // What the help does not show is not offered either.
        for hidden in ["demo-app", "demo-sweep", "clock-offset"] {
            assert!(!script.stdout.contains(hidden), "{shell} {hidden}");
        }
    }
}

#[test]
fn wrong_usage_is_exit_code_2() {
    let cases: [&[&str]; 7] = [
        &[],
        &["nonsense"],
        &["apply"],
        &["token", "create"],
        &["cert", "rotate"],
        &["sidecar", "--outbound", "nowhere"],
        &["get", "nonsense"],
    ];
    for args in cases {
        let ran = run(&mut weft(args));
        assert_eq!(ran.code, Some(2), "weft {args:?}: {ran:?}");
    }
    let near = run(&mut weft(["sidecar", "--state-dri", "/x"]));
    assert!(near.stderr.contains("--state-dir"), "{near:?}");
}

#[test]
fn flag_wins_over_environment_over_file_over_default() {
    let world = World::new();
    let missing = |name: &str| world.path(name).to_str().unwrap().to_owned();
    let file = world.file(
        "settings.yaml",
        &format!("state-dir: {}\n", missing("from-file")),
    );
    // Which one is in force shows in the complaint that it was never initialised.
    let named = |ran: Ran| {
        assert_eq!(ran.code, Some(1), "{ran:?}");
        ["from-file", "from-env", "from-flag"]
            .into_iter()
            .find(|name| ran.stderr.contains(name))
            .map(str::to_owned)
    };
    let control = || {
        let mut command = weft(["control", "--config", &file]);
        command.args(["--listen=127.0.0.1:0", "--metrics=127.0.0.1:0"]);
        command
    };
    assert_eq!(named(run(&mut control())).as_deref(), Some("from-file"));
    let mut by_env = control();
    by_env.env("WEFT_STATE_DIR", missing("from-env"));
    assert_eq!(named(run(&mut by_env)).as_deref(), Some("from-env"));
    let mut by_flag = control();
    by_flag
        .env("WEFT_STATE_DIR", missing("from-env"))
        .arg("--state-dir")
        .arg(missing("from-flag"));
    assert_eq!(named(run(&mut by_flag)).as_deref(), Some("from-flag"));
    // The file may itself be named by the environment.
    let mut config_by_env = weft(["control", "--listen=127.0.0.1:0", "--metrics=127.0.0.1:0"]);
    config_by_env.env("WEFT_CONFIG", &file);
    assert_eq!(named(run(&mut config_by_env)).as_deref(), Some("from-file"));
}

#[test]
fn resources_go_in_and_come_out_as_they_were() {
    let (world, _) = World::initialised();
    let _control = world.control();
    let file = world.file("route.yaml", ROUTE);

    let created = world.admin(&["apply", "-f", &file, "-o", "json"]).json();
    assert_eq!(created["changes"][0]["key"], "HTTPRoute/default/invoices");
    assert_eq!(created["changes"][0]["action"], "created");
    let again = world.admin(&["apply", "-f", &file, "-o", "json"]).json();
    assert_eq!(again["changes"][0]["action"], "unchanged");

    let table = world.admin(&["get"]);
    assert!(
        table.ok().stdout.contains("HTTPRoute  default"),
        "{table:?}"
    );
    let yaml = world.admin(&["get", "httproutes", "invoices", "-o", "yaml"]);
    let back = world.file("back.yaml", &yaml.ok().stdout);
    let unchanged = world.admin(&["apply", "-f", &back, "-o", "json"]).json();
    assert_eq!(
        unchanged["changes"][0]["action"], "unchanged",
        "{}",
        yaml.stdout
    );
    let json = world
        .admin(&["get", "HTTPRoute", "invoices", "-o", "json"])
        .json();
    assert_eq!(json["spec"]["rules"][0]["timeouts"]["request"], "10s");

    world
        .admin(&["get", "HTTPRoute", "nobody"])
        .fails_with(&["nobody", "weft get"]);
    world.admin(&["delete", "httproute", "invoices"]).ok();
    world
        .admin(&["delete", "httproute", "invoices"])
        .fails_with(&["invoices"]);
    // All of a file, or none of it.
    let second = ROUTE.replace("name: invoices", "name: orders");
    let both = world.file("both.yaml", &format!("{ROUTE}---\n{second}"));
    world.admin(&["apply", "-f", &file]).ok();
    world
        .admin(&["delete", "-f", &both])
        .fails_with(&["HTTPRoute/default/orders", "weft get"]);
    world.admin(&["apply", "-f", &both]).ok();
    let gone = world.admin(&["delete", "-f", &both, "-o", "json"]).json();
    assert_eq!(gone["changes"].as_array().unwrap().len(), 2);
    assert_eq!(
        world.admin(&["delete", "-f", &both, "-n", "x"]).code,
        Some(2)
    );
    let empty = world.admin(&["get"]);
    assert!(empty.ok().stdout.contains("no resources"), "{empty:?}");
}

#[test]
fn a_broken_resource_is_pointed_at_and_nothing_is_sent() {
    let world = World::new();
    let file = world.file("broken.yaml", &ROUTE.replace("10s", "ten seconds"));
    // No control node runs: a broken file needs none to be refused.
    let ran = world.admin(&["apply", "-f", &file]);
    assert_eq!(ran.code, Some(1), "{ran:?}");
    assert!(ran.stderr.contains(&format!("{file}:11:18: ")), "{ran:?}");
    assert!(
        ran.stderr.contains("\n                     ^"),
        "a caret line in {ran:?}"
    );
}

#[test]
fn a_resource_may_come_by_standard_input() {
    let (world, _) = World::initialised();
    let _control = world.control();
    let input = std::fs::File::open(world.file("route.yaml", ROUTE)).unwrap();
    let ran = run(weft(["apply", "-f", "-", "--state-dir"])
        .arg(world.control_dir())
        .stdin(input));
    assert!(
        ran.ok()
            .stdout
            .contains("HTTPRoute/default/invoices created"),
        "{ran:?}"
    );
}

#[test]
fn lists_are_tables_json_and_yaml() {
    let (world, pin) = World::initialised();
    let _control = world.control();
    world.token("orders", "10m");
    for args in [
        &["status"][..],
        &["top"],
        &["get"],
        &["cert", "show"],
        &["ca", "show"],
        &["token", "list"],
    ] {
        assert!(!world.admin(args).ok().stdout.is_empty(), "{args:?}");
        let mut json = args.to_vec();
        json.extend(["-o", "json"]);
        world.admin(&json).json();
        let mut yaml = args.to_vec();
        yaml.extend(["-o", "yaml"]);
        world.admin(&yaml).ok();
    }
    let ca = world.admin(&["ca", "show", "-o", "json"]).json();
    assert_eq!(ca["pin"], pin.as_str());
    let tokens = world.admin(&["token", "list", "-o", "json"]).json();
    assert_eq!(tokens[0]["state"], "unused");
    assert_eq!(
        tokens[0]["spiffe_id"],
        "spiffe://weft.local/ns/default/sa/orders"
    );
}

#[test]
fn a_log_whose_reader_has_gone_harms_nobody() {
    let (world, _) = World::initialised();
    let (reader, log) = std::io::pipe().unwrap();
    drop(reader);
    let ready = world.path("ready");
    let mut control = weft(world.control_args("127.0.0.1:0"))
        .arg("--ready-file")
        .arg(&ready)
        .stderr(log)
        .spawn()
        .unwrap();
    support::eventually("the control node to become ready", || {
        let ended = control.try_wait().unwrap();
        assert!(ended.is_none(), "it ended before it was ready: {ended:?}");
        ready.exists().then_some(())
    });
    support::signal(control.id(), "TERM");
    let status = support::ended(&mut control, support::SOON);
    assert_eq!(status.and_then(|status| status.code()), Some(0));
}
