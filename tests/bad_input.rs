//! What goes wrong by mistake: each gives one sentence with the cause and a next step, exit code 1, and
//! leaves state as it was.

#![allow(
    clippy::disallowed_methods,
    clippy::unwrap_used,
    reason = "tests stand outside Env, and a panic is how they fail"
)]

mod support;

use std::net::{TcpListener, UdpSocket};
use std::os::unix::fs::{PermissionsExt, chown};

use support::{World, eventually, run, weft};

/// A well-formed token that no control node has made.
const NEVER_MADE: &str = "weft-join-00000000000000000000000000000000";

/// A mesh with a running control node, for those that try to join it.
struct Mesh {
    world: World,
    pin: String,
    control: String,
    _running: support::Running,
}

fn mesh() -> Mesh {
    let (world, pin) = World::initialised();
    let running = world.control();
    let control = running.addr("mesh").to_string();
    Mesh {
        world,
        pin,
        control,
        _running: running,
    }
}

impl Mesh {
    /// Starts a sidecar that must not come up, and checks that it leaves no identity behind.
    #[track_caller]
    fn refused(&self, args: &[String], words: &[&str]) {
        self.world.run(args).fails_with(words);
        let left: Vec<_> = self
            .world
            .picture("sidecar")
            .into_iter()
            .filter(|(path, _)| {
                let name = path.file_name().unwrap_or_default().to_string_lossy();
                name.contains("svid") || name.contains("snapshot") || name.contains("bundle")
            })
            .collect();
        assert!(
            left.is_empty(),
            "expected no identity to be left, saw {left:?}"
        );
    }

    fn token_states(&self) -> Vec<String> {
        let list = self.world.admin(&["token", "list", "-o", "json"]).json();
        let states = list.as_array().unwrap().iter();
        states
            .map(|t| t["state"].as_str().unwrap().to_owned())
            .collect()
    }
}

#[test]
fn a_wrong_token_is_refused() {
    let mesh = mesh();
    let sidecar = |token: &str| {
        mesh.world
            .sidecar_args("sidecar", &mesh.control, &mesh.pin, token)
    };
    let wrong = mesh.world.file("wrong.token", NEVER_MADE);
    mesh.refused(&sidecar(&wrong), &["token", "weft token create"]);
    let garbage = mesh.world.file("garbage.token", "let me in");
    mesh.refused(&sidecar(&garbage), &["token", "weft token create"]);
    let empty = mesh.world.file("empty.token", "\n");
    mesh.refused(&sidecar(&empty), &["token", "weft token create"]);
    let missing = mesh.world.path("missing.token");
    mesh.refused(
        &sidecar(missing.to_str().unwrap()),
        &[
            "token",
            "missing.token",
            "weft token create",
            "--token-file",
        ],
    );
}

#[test]
fn settings_of_another_mesh_are_refused_at_the_join_and_later() {
    let mesh = mesh();
    let token = mesh.world.token("orders", "10m");
    let args = |more: &[String]| {
        let joins = mesh
            .world
            .sidecar_args("sidecar", &mesh.control, &mesh.pin, &token);
        let later = joins.into_iter().filter(|arg| {
            let name = |flag: &String| flag.split('=').next().unwrap_or_default().to_owned();
            !more.iter().any(|flag| name(flag) == name(arg))
        });
        later.chain(more.iter().cloned()).collect::<Vec<_>>()
    };
    let domain = ["--trust-domain=other.example".to_owned()];
    mesh.refused(
        &args(&domain),
        &["--trust-domain weft.local", "token was not sent"],
    );
    drop(mesh.world.start("sidecar", &args(&[])));
    let before = mesh.world.picture("sidecar");
    let pin = [format!("--pin=sha256:{}", "0".repeat(64))];
    for (more, words) in [
        (
            &domain,
            ["--trust-domain other.example", "sa/orders", "--state-dir"],
        ),
        (&pin, ["--pin sha256:0000", "sa/orders", "--state-dir"]),
    ] {
        mesh.world.run(&args(more)).fails_with(&words);
        assert_eq!(before, mesh.world.picture("sidecar"));
    }
    let same = ["--trust-domain=weft.local".to_owned()];
    drop(mesh.world.start("sidecar", &args(&same)));
}

#[test]
fn a_directory_too_long_for_a_socket_is_named() {
    let mesh = mesh();
    let long = format!("{}/s", "d".repeat(110));
    let control = mesh.world.path(&long);
    let dir = format!("--state-dir={}", control.display());
    run(&mut weft(["init", &dir])).fails_with(&["may have 107", "--state-dir"]);
    assert!(!control.exists(), "nothing was made");
    let asked = run(&mut weft(["status", &dir]));
    asked.fails_with(&["may have 107", "shorter"]);
    assert!(!asked.stderr.contains("went away"), "{asked:?}");
    let token = mesh.world.token("orders", "10m");
    let mut args = mesh
        .world
        .sidecar_args("sidecar", &mesh.control, &mesh.pin, &token);
    args.push(format!(
        "--workload-socket={}",
        mesh.world.path(&long).display()
    ));
    args.push("--workload-allow=uid=0".to_owned());
    mesh.refused(&args, &["workload socket", "may have 107", "shorter"]);
    assert_eq!(mesh.token_states(), ["unused"]);
}

#[test]
fn a_used_token_is_refused() {
    let mesh = mesh();
    let token = mesh.world.token("orders", "10m");
    let first = mesh
        .world
        .sidecar_args("first", &mesh.control, &mesh.pin, &token);
    let _first = mesh.world.start("first", &first);
    let second = mesh
        .world
        .sidecar_args("sidecar", &mesh.control, &mesh.pin, &token);
    mesh.refused(&second, &["used", "weft token create"]);
    assert_eq!(mesh.token_states(), ["used"]);
}

#[test]
fn an_expired_token_is_refused() {
    let mesh = mesh();
    let token = mesh.world.token("orders", "1s");
    support::eventually("the token to expire", || {
        (mesh.token_states() == ["expired"]).then_some(())
    });
    let sidecar = mesh
        .world
        .sidecar_args("sidecar", &mesh.control, &mesh.pin, &token);
    mesh.refused(&sidecar, &["expired", "weft token create"]);
    assert_eq!(mesh.token_states(), ["expired"]);
}

#[test]
fn a_wrong_pin_ends_the_join_before_the_token_is_sent() {
    let mesh = mesh();
    let token = mesh.world.token("orders", "10m");
    let pin = format!("sha256:{}", "0".repeat(64));
    let wrong = mesh
        .world
        .sidecar_args("sidecar", &mesh.control, &pin, &token);
    mesh.refused(&wrong, &["pin", "token was not sent"]);
    assert_eq!(mesh.token_states(), ["unused"]);
    // The same token is still good.
    let right = mesh
        .world
        .sidecar_args("sidecar", &mesh.control, &mesh.pin, &token);
    let _joined = mesh.world.start("sidecar", &right);

    let malformed = mesh
        .world
        .sidecar_args("other", &mesh.control, "sha256:1234", &token);
    assert_eq!(
        mesh.world.run(&malformed).code,
        Some(2),
        "a malformed pin is wrong usage"
    );
}

#[test]
fn a_sidecar_in_the_place_of_the_control_node_is_named() {
    let mesh = mesh();
    let invoices = mesh.world.token("invoices", "10m");
    let invoices = mesh
        .world
        .sidecar_args("invoices", &mesh.control, &mesh.pin, &invoices);
    let invoices = mesh.world.start("invoices", &invoices);
    let address = invoices.addr("mesh").to_string();
    let token = mesh.world.token("orders", "10m");
    let args = mesh
        .world
        .sidecar_args("sidecar", &address, &mesh.pin, &token);
    mesh.refused(
        &args,
        &[
            &address,
            "it calls itself spiffe://weft.local/ns/default/sa/invoices",
            "--control",
            "token was not sent",
        ],
    );
}

#[test]
fn an_unreachable_control_node_is_named() {
    let (world, pin) = World::initialised();
    let token = world.file("a.token", NEVER_MADE);
    // A port on which nobody answers, held so that nobody will.
    let silent = UdpSocket::bind("127.0.0.1:0").unwrap();
    let address = silent.local_addr().unwrap().to_string();
    let args = world.sidecar_args("sidecar", &address, &pin, &token);
    let said = world.run(&args);
    said.fails_with(&[
        "over QUIC no answer",
        "over TCP connection refused",
        "weft control",
    ]);
    assert_eq!(said.stderr.matches(&address).count(), 1, "{}", said.stderr);
    // The command line finds no control node either, and says how to start one.
    world
        .admin(&["status"])
        .fails_with(&["no control node", "weft control"]);
    let none = World::new();
    none.admin(&["token", "create", "--service", "x"])
        .fails_with(&["no control node", "weft control"]);
}

#[test]
fn a_port_in_use_is_named() {
    let mesh = mesh();
    let held = TcpListener::bind("127.0.0.1:0").unwrap();
    let tcp = held.local_addr().unwrap().to_string();
    let udp_held = UdpSocket::bind("127.0.0.1:0").unwrap();
    let udp = udp_held.local_addr().unwrap().to_string();
    let token = mesh.world.token("orders", "10m");
    for (flag, address) in [
        ("--outbound", &tcp),
        ("--metrics", &tcp),
        ("--listen", &udp),
    ] {
        let mut args = mesh
            .world
            .sidecar_args("sidecar", &mesh.control, &mesh.pin, &token);
        args.retain(|arg| !arg.starts_with(&format!("{flag}=")));
        args.push(format!("{flag}={address}"));
        mesh.world.run(&args).fails_with(&[address, "in use"]);
    }
    // No token was spent on a sidecar that could not serve.
    assert_eq!(mesh.token_states(), ["unused"]);

    let (other, _) = World::initialised();
    let before = other.picture("control");
    for (flag, address) in [("--metrics", &tcp), ("--listen", &udp)] {
        let mut args = other.control_args("127.0.0.1:0");
        args.retain(|arg| !arg.starts_with(&format!("{flag}=")));
        args.push(format!("{flag}={address}"));
        other.run(&args).fails_with(&[address, "in use"]);
    }
    same_keys(&before, &other.picture("control"));
}

#[test]
fn a_state_directory_that_cannot_be_used_is_named() {
    let world = World::new();
    // A file in its place.
    let file = world.file("file", "mine");
    run(&mut weft(["init", "--state-dir", &file])).fails_with(&[&file]);
    assert_eq!(std::fs::read_to_string(&file).unwrap(), "mine");

    // Of another user. Root may write there, and should not.
    if rustix::process::geteuid().is_root() {
        let other = world.path("other");
        std::fs::create_dir(&other).unwrap();
        chown(&other, Some(65534), Some(65534)).unwrap();
        let name = other.to_str().unwrap();
        run(&mut weft(["init", "--state-dir", name])).fails_with(&[name, "belongs to user 65534"]);
        assert_eq!(std::fs::read_dir(&other).unwrap().count(), 0);
    } else {
        let closed = world.path("closed");
        std::fs::create_dir(&closed).unwrap();
        std::fs::set_permissions(&closed, PermissionsExt::from_mode(0o500)).unwrap();
        let below = closed.join("state");
        let name = below.to_str().unwrap();
        run(&mut weft(["init", "--state-dir", name])).fails_with(&[name]);
    }

    // Not initialised.
    let args = world.control_args("127.0.0.1:0");
    world.run(&args).fails_with(&["weft init"]);
}

#[test]
fn a_disk_without_room_does_not_cost_the_token() {
    let mesh = mesh();
    let token = mesh.world.token("orders", "10m");
    let args = mesh
        .world
        .sidecar_args("sidecar", &mesh.control, &mesh.pin, &token);
    // A limit on the size of files stands for the full disk: no file above half a KiB can be written.
    let mut short = std::process::Command::new("sh");
    short
        .arg("-c")
        .arg("trap '' XFSZ; ulimit -f 1; exec \"$0\" \"$@\"")
        .arg(env!("CARGO_BIN_EXE_weft"))
        .args(&args)
        .stdin(std::process::Stdio::null());
    run(&mut short).fails_with(&["state directory", "give it room"]);
    assert_eq!(mesh.token_states(), ["unused"]);
    assert_eq!(
        mesh.world.picture("sidecar"),
        [],
        "what was made for this start is gone"
    );
    let _joined = mesh.world.start("sidecar", &args);
}

#[test]
fn a_log_that_cannot_be_written_stops_nobody() {
    let full = || {
        std::fs::File::options()
            .write(true)
            .open("/dev/full")
            .unwrap()
    };
    let (world, pin) = World::initialised();
    let ready = world.path("control.ready");
    let mut control = weft(world.control_args("127.0.0.1:0"))
        .arg("--ready-file")
        .arg(&ready)
        .stderr(full())
        .spawn()
        .unwrap();
    let told: serde_json::Value = eventually("the control node to be ready", || {
        assert_eq!(control.try_wait().unwrap(), None, "it goes on");
        serde_json::from_str(&std::fs::read_to_string(&ready).ok()?).ok()
    });
    // Each of these is logged there.
    let token = world.token("orders", "10m");
    let at = told["mesh"].as_str().unwrap();
    let orders = world.start("orders", &world.sidecar_args("orders", at, &pin, &token));
    world.admin(&["cert", "rotate", "--all"]).ok();
    drop(orders);
    // A failure keeps its exit code too.
    let failed = weft(world.sidecar_args("orders", at, "sha256:1", &token))
        .stderr(full())
        .status();
    assert_eq!(failed.unwrap().code(), Some(2));
    let failed = weft(world.control_args(at)).stderr(full()).status();
    assert_eq!(failed.unwrap().code(), Some(1), "another one runs there");
    control.kill().unwrap();
    control.wait().unwrap();
}

#[test]
fn a_mesh_is_not_made_twice_on_one_directory() {
    let (world, _) = World::initialised();
    let before = world.picture("control");
    world.admin(&["init"]).fails_with(&["control"]);
    assert_eq!(before, world.picture("control"));
}

#[test]
fn two_control_nodes_on_one_state_are_refused() {
    let (world, _) = World::initialised();
    let _first = world.control();
    world
        .run(&world.control_args("127.0.0.1:0"))
        .fails_with(&["control", "another"]);
    // The first is not disturbed.
    world.admin(&["status"]).ok();
}

#[test]
fn a_settings_file_with_an_unknown_field_is_pointed_at() {
    let world = World::new();
    let file = world.file("settings.yaml", "metrics: 127.0.0.1:0\nstate-dri: /x\n");
    for role in ["control", "sidecar"] {
        let place = format!("{file}:2:1");
        run(&mut weft([role, "--config", &file])).fails_with(&[
            &place,
            "'state-dri'",
            "'state-dir'",
        ]);
    }
    let missing = world.path("missing.yaml");
    run(weft(["control", "--config"]).arg(&missing)).fails_with(&["missing.yaml"]);
}

#[test]
fn a_clock_that_is_off_is_named() {
    let mesh = mesh();
    let token = mesh.world.token("orders", "10m");
    for offset in ["-7200", "7200"] {
        let mut args = mesh
            .world
            .sidecar_args("sidecar", &mesh.control, &mesh.pin, &token);
        args.push(format!("--clock-offset={offset}"));
        mesh.refused(&args, &["clock"]);
    }
    assert_eq!(mesh.token_states(), ["unused"]);
}

#[test]
fn a_control_node_whose_clock_is_off_does_not_start() {
    let (world, _) = World::initialised();
    let mut args = world.control_args("127.0.0.1:0");
    args.push("--clock-offset=-7200".to_owned());
    let before = world.picture("control");
    let words = ["the clock is behind", "nothing was changed"];
    world.run(&args).fails_with(&words);
    same_keys(&before, &world.picture("control"));
    args.pop();
    let _right = world.start("control", &args);
}

#[test]
fn a_sidecar_takes_no_directory_of_a_control_node_or_of_another_user() {
    let mesh = mesh();
    let token = mesh.world.token("orders", "10m");
    let args = |name: &str| {
        mesh.world
            .sidecar_args(name, &mesh.control, &mesh.pin, &token)
    };
    let before = mesh.world.picture("control/ca");
    mesh.world
        .run(&args("control"))
        .fails_with(&["control node", "--state-dir"]);
    assert_eq!(before, mesh.world.picture("control/ca"));
    if rustix::process::geteuid().is_root() {
        let other = mesh.world.path("other");
        std::fs::create_dir(&other).unwrap();
        chown(&other, Some(65534), Some(65534)).unwrap();
        mesh.world
            .run(&args("other"))
            .fails_with(&["belongs to user 65534"]);
        assert_eq!(std::fs::read_dir(&other).unwrap().count(), 0);
    }
    // The token was not spent on either.
    let _orders = mesh.world.start("orders", &args("orders"));
    let second = mesh.world.run(&args("orders"));
    second.fails_with(&["another process", "stop it first"]);
    assert!(!second.stderr.contains("room"), "{second:?}");
}

#[test]
fn a_copied_state_directory_is_told_and_does_not_make_two_sidecars_take_turns() {
    let mesh = mesh();
    let token = mesh.world.token("orders", "10m");
    let args = |name: &str| {
        mesh.world
            .sidecar_args(name, &mesh.control, &mesh.pin, &token)
    };
    let original = mesh.world.start("original", &args("original"));
    let (from, to) = (mesh.world.path("original"), mesh.world.path("copy"));
    let copied = std::process::Command::new("cp")
        .arg("-a")
        .args([&from, &to])
        .status();
    assert!(copied.unwrap().success());
    let copy = mesh.world.start("copy", &args("copy"));
    // The later one has the place, and the earlier one is told why it has not.
    eventually("the cause to be in the log", || {
        original
            .log()
            .contains("copies of one state directory")
            .then_some(())
    });
    let seen = mesh.world.admin(&["status", "-o", "json"]).json();
    let live: Vec<_> = seen["sidecars"]
        .as_array()
        .unwrap()
        .iter()
        .map(|s| &s["pid"])
        .collect();
    assert_eq!(live, [copy.child.id()], "{seen}");
    // It takes its place again when the copy is gone.
    drop(copy);
    eventually("the original to be back", || {
        let seen = mesh.world.admin(&["status", "-o", "json"]).json();
        (seen["sidecars"][0]["pid"] == original.child.id()).then_some(())
    });
}

/// A failed start may leave a lock and a log, but no key or store of other content.
#[track_caller]
fn same_keys(before: &[(std::path::PathBuf, Vec<u8>)], after: &[(std::path::PathBuf, Vec<u8>)]) {
    for (path, content) in before {
        if path.extension().is_some_and(|ext| ext == "redb") {
            continue; // redb marks each opening; its content is checked by its users.
        }
        let same = after.iter().any(|(p, c)| p == path && c == content);
        assert!(same, "expected {} to be as it was", path.display());
    }
}
