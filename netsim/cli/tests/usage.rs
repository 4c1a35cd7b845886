//! What is refused, with which words and exit code. Needs no root: most of it is refused before that matters.

#![allow(clippy::unwrap_used, clippy::print_stderr, reason = "a test")]

#[allow(dead_code, reason = "shared with the other tests")]
mod support;

use std::io::ErrorKind;
use std::os::unix::process::CommandExt;
use std::process::Command;

use support::{example, netsim, possible, wait_for};

#[test]
fn usage_errors_name_the_figure_and_end_with_2() {
    let link = ["link", "--a", "x", "--b", "y", "--profile"];
    for (arguments, text) in [
        (&["losy"][..], "near it are: lossy"),
        (&["lossy", "--loss", "130%"], "more than all packets"),
        (&["lossy", "--delay", "-5ms"], "negative"),
        (&["lossy", "--rate", "100MB/s"], "not bytes"),
        (&["lan", "--path-mtu", "10"], "68"),
        (&["lan", "--mtu", "10"], "MTU of 10"),
        (&["cross-az", "--reorder"], "needs jitter"),
        (&["lan", "--nat-rebind", "0s"], "rebindings"),
        (&["lan", "--b", "x"], "used multiple times"),
    ] {
        let output = netsim().args(link).args(arguments).output().unwrap();
        let said = String::from_utf8(output.stderr).unwrap();
        assert_eq!(output.status.code(), Some(2), "{arguments:?}: {said}");
        assert!(said.contains(text), "{arguments:?}: '{said}' says '{text}'");
    }
    let same = ["link", "--profile", "lan", "--a", "x", "--b", "x"];
    assert_eq!(netsim().args(same).status().unwrap().code(), Some(2));
}

#[test]
fn a_mistake_in_a_mesh_file_is_said_with_its_place_and_ends_with_2() {
    let file = tempfile::NamedTempFile::new().unwrap();
    let text =
        "nodes: [{ name: a }, { name: b }]\nlinks:\n  - { between: [a, b], profile: losy }\n";
    std::fs::write(file.path(), text).unwrap();
    let output = netsim()
        .arg("run")
        .arg(file.path())
        .args(["--", "true"])
        .output()
        .unwrap();
    let said = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(2), "{said}");
    let place = format!("{}:3:33: ", file.path().display());
    assert!(said.contains(&place), "'{said}' has '{place}'");
    assert!(said.contains("lossy"), "{said}");

    let output = netsim()
        .arg("run")
        .arg(example("three.yaml"))
        .args(["--in", "order", "--", "true"])
        .output()
        .unwrap();
    let said = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(2), "{said}");
    assert!(said.contains("control orders invoices"), "{said}");
}

#[test]
fn without_root_one_sentence_says_what_to_do() {
    let mesh = example("two-machines.yaml");
    let run = ["run", mesh.to_str().unwrap(), "--", "true"];
    let link = ["link", "--profile", "lan", "--a", "x", "--b", "y"];
    // A copy that anybody may run, in a folder that anybody may enter.
    let dir = tempfile::tempdir().unwrap();
    let copy = dir.path().join("weft-netsim");
    std::fs::copy(env!("CARGO_BIN_EXE_weft-netsim"), &copy).unwrap();
    let mesh_copy = dir.path().join("mesh.yaml");
    std::fs::copy(&mesh, &mesh_copy).unwrap();
    let open = std::os::unix::fs::PermissionsExt::from_mode(0o755);
    std::fs::set_permissions(dir.path(), open).unwrap();
    let run = run.map(|word| {
        if word.ends_with("yaml") {
            mesh_copy.to_str().unwrap()
        } else {
            word
        }
    });
    for arguments in [&run[..], &link[..], &["selftest", "--quick"][..]] {
        let mut command = Command::new(&copy);
        if rustix::process::geteuid().is_root() {
            command.uid(65_534).gid(65_534);
        }
        command.args(arguments).current_dir("/");
        let mut result = None;
        // Another test's child may hold the copy open for writing until it has become its own program.
        wait_for("the copy can be run", || {
            let output = command.output();
            let busy = output
                .as_ref()
                .is_err_and(|error| error.kind() == ErrorKind::ExecutableFileBusy);
            result = Some(output);
            !busy
        });
        let output = result.unwrap().unwrap();
        let said = String::from_utf8(output.stderr).unwrap();
        assert_eq!(output.status.code(), Some(1), "{arguments:?}: {said}");
        assert_eq!(
            said,
            "weft-netsim: network namespaces and TUN devices need root; run it again with sudo\n",
            "{arguments:?}"
        );
    }
}

#[test]
fn without_iproute_one_sentence_says_what_to_install() {
    if !possible() {
        return;
    }
    let output = netsim()
        .args(["selftest", "--quick"])
        .env("PATH", "/nowhere")
        .output()
        .unwrap();
    assert_eq!(output.status.code(), Some(1));
    assert_eq!(
        String::from_utf8(output.stderr).unwrap(),
        "weft-netsim: the command `ip` is missing; install the package iproute2\n"
    );
}

#[test]
fn profiles_are_listed_for_people_and_for_programs() {
    let table = netsim().arg("profiles").output().unwrap();
    assert!(
        String::from_utf8(table.stdout)
            .unwrap()
            .contains("satellite")
    );
    let json = netsim().args(["profiles", "-o", "json"]).output().unwrap();
    let rows: Vec<serde_json::Value> = serde_json::from_slice(&json.stdout).unwrap();
    let lossy = rows.iter().find(|row| row["name"] == "lossy").unwrap();
    assert_eq!(lossy["mean_loss"], 0.01);
    assert_eq!(lossy["round_trip_ms"], 80.0);
}
