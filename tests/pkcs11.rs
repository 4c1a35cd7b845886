//! The authority's keys in a PKCS#11 token, with real processes and SoftHSM2: joins, rotations, a wrong PIN, a token that
//! goes and comes back, backup and restore.

#![allow(
    clippy::disallowed_methods,
    clippy::print_stdout,
    clippy::unwrap_used,
    reason = "tests stand outside Env, and a panic is how they fail"
)]

mod support;

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;
use std::process::Command;

use support::shop::ALLOW_ORDERS;
use support::{Ran, Running, World, eventually, get, run, weft};

const MODULE: &str = "/usr/lib/softhsm/libsofthsm2.so";
const PIN: &str = "2468-user";

/// A folder with a token `mesh` of its own.
struct Lab {
    world: World,
}

impl Lab {
    /// `None` where softhsm2 is not installed and need not be.
    fn new() -> Option<Self> {
        if !PathBuf::from(MODULE).exists() {
            assert!(std::env::var_os("CI").is_none(), "softhsm2 is missing");
            println!("softhsm2 is not installed: skipped");
            return None;
        }
        let lab = Self {
            world: World::new(),
        };
        fs::create_dir(lab.tokens()).unwrap();
        let text = format!("directories.tokendir = {}\n", lab.tokens().display());
        lab.world.file("softhsm2.conf", &text);
        let made = Command::new("softhsm2-util")
            .args(["--init-token", "--free", "--label", "mesh"])
            .args(["--pin", PIN, "--so-pin", "1357-officer"])
            .env("SOFTHSM2_CONF", lab.world.path("softhsm2.conf"))
            .output()
            .unwrap();
        assert!(made.status.success(), "{made:?}");
        lab.secret("pin", PIN);
        Some(lab)
    }

    fn tokens(&self) -> PathBuf {
        self.world.path("tokens")
    }

    fn secret(&self, name: &str, text: &str) -> String {
        let path = self.world.file(name, text);
        fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).unwrap();
        path
    }

    fn weft(&self, args: &[&str]) -> Command {
        let mut command = weft(args);
        command.env("SOFTHSM2_CONF", self.world.path("softhsm2.conf"));
        command
    }

    /// On the state of the control node, with the PIN.
    fn admin(&self, args: &[&str]) -> Ran {
        let mut command = self.weft(args);
        command
            .arg("--state-dir")
            .arg(self.world.control_dir())
            .env("WEFT_PKCS11_PIN_FILE", self.world.path("pin"));
        run(&mut command)
    }

    fn init(&self) -> String {
        let init = [
            "init",
            "--pkcs11-module",
            MODULE,
            "--pkcs11-token",
            "mesh",
            "-o",
            "json",
        ];
        let made = self.admin(&init).json();
        made["pin"].as_str().unwrap().to_owned()
    }

    fn control(&self, listen: &str) -> Running {
        let args = self.world.control_args(listen);
        let args: Vec<&str> = args.iter().map(String::as_str).collect();
        let mut command = self.weft(&args);
        command.env("WEFT_PKCS11_PIN", PIN);
        self.world.start_command("control", command)
    }

    /// Pulls the token out, or puts it back.
    fn pull_out(&self) {
        fs::rename(self.tokens(), self.world.path("away")).unwrap();
    }

    fn put_back(&self) {
        fs::rename(self.world.path("away"), self.tokens()).unwrap();
    }
}

/// The pin of the root that is active now.
fn shown(world: &World) -> String {
    let shown = world.admin(&["ca", "show", "-o", "json"]).json();
    shown["pin"].as_str().unwrap().to_owned()
}

fn answered(orders: &Running) -> bool {
    get(orders.addr("outbound"), "invoices", "/echo").is_ok_and(|reply| reply.status == 200)
}

#[test]
fn a_mesh_lives_through_rotations_and_the_absence_of_its_token() {
    let Some(lab) = Lab::new() else { return };
    let (world, pin) = (&lab.world, lab.init());
    assert!(pin.starts_with("sha256:"), "{pin}");
    let control = lab.control("127.0.0.1:0");
    let at = control.addr("mesh").to_string();
    let policy = world.file("policy.yaml", ALLOW_ORDERS);
    world.admin(&["apply", "-f", &policy]).ok();
    let app = world.app("invoices");
    let join = |service: &str, name: &str, flag: &str| {
        let mut args = world.sidecar_args(name, &at, &shown(world), &world.token(service, "10m"));
        args.extend((!flag.is_empty()).then(|| flag.to_owned()));
        args
    };
    let flag = format!("--app={}", app.addr("http"));
    let _invoices = world.start("invoices", &join("invoices", "invoices-0", &flag));
    let orders = world.start("orders", &join("orders", "orders-0", ""));
    eventually("a first answer", || answered(&orders).then_some(()));

    for role in ["issuing", "root"] {
        world.admin(&["ca", "rotate", role, "--now"]).ok();
        assert!(answered(&orders), "after the rotation of {role}");
    }

    lab.pull_out();
    world
        .admin(&["ca", "prepare", "issuing"])
        .fails_with(&["the token 'mesh'", "nothing is signed until it is back"]);
    let stuck = world.admin(&["cert", "rotate", "--all", "--timeout", "2s"]);
    assert_eq!(stuck.code, Some(1), "{stuck:?}");
    assert!(answered(&orders), "who has a certificate goes on");
    let log = world
        .admin(&["ca", "audit", "-o", "json"])
        .ok()
        .stdout
        .clone();
    assert!(log.contains("certificate.refused"), "{log}");
    assert!(
        log.contains("the token 'mesh' is not to be reached"),
        "{log}"
    );

    lab.put_back();
    eventually("signing to be back", || {
        let again = world.admin(&["cert", "rotate", "--all", "--timeout", "5s"]);
        (again.code == Some(0)).then_some(())
    });
    eventually("a rotation", || {
        let again = world.admin(&["ca", "rotate", "issuing", "--now"]);
        (again.code == Some(0)).then_some(())
    });
    let _late = world.start("late", &join("orders", "orders-1", ""));
    assert!(answered(&orders));
    world.admin(&["ca", "audit", "--verify"]).ok();
}

#[test]
fn a_control_node_needs_the_right_pin_and_says_so_and_its_backup_needs_the_token() {
    let Some(lab) = Lab::new() else { return };
    let (world, _) = (&lab.world, lab.init());
    let dir = world.control_dir().to_str().unwrap().to_owned();
    let start = |pin: Option<&str>| {
        let mut command = lab.weft(&[
            "control",
            "--listen=127.0.0.1:0",
            "--metrics=127.0.0.1:0",
            "--state-dir",
            &dir,
        ]);
        if let Some(pin) = pin {
            command.env("WEFT_PKCS11_PIN", pin);
        }
        run(&mut command)
    };
    start(None).fails_with(&["in the token 'mesh'", "--pkcs11-pin-file"]);
    start(Some("0000")).fails_with(&["refuses the PIN", "few wrong ones"]);
    lab.pull_out();
    start(Some(PIN)).fails_with(&["--pkcs11-module"]);
    lab.put_back();

    let (key, file) = (
        lab.secret("backup.secret", "correct horse battery"),
        world.path("mesh.backup").to_str().unwrap().to_owned(),
    );
    let before = {
        let _control = lab.control("127.0.0.1:0");
        let backup = world.admin(&["ca", "backup", &file, "--secret-file", &key]);
        let told = &backup.ok().stdout;
        assert!(told.contains("cannot leave the token 'mesh'"), "{told}");
        shown(world)
    };
    fs::remove_dir_all(world.control_dir()).unwrap();
    let restore = ["ca", "restore", &file, "--secret-file", &key];
    world.admin(&restore).fails_with(&["--pkcs11-pin-file"]);
    lab.admin(&restore).ok();
    let _control = lab.control("127.0.0.1:0");
    assert_eq!(shown(world), before);
}

#[test]
fn an_offline_root_lives_in_a_token_too_and_a_failed_init_leaves_nothing_in_it() {
    let Some(lab) = Lab::new() else { return };
    let world = &lab.world;
    let token = ["--pkcs11-module", MODULE, "--pkcs11-token", "mesh"];
    let init = |more: &[&str]| lab.admin(&[&["init"][..], &token, more].concat());
    init(&["--key-type", "ed25519"]).fails_with(&["p256 or p384"]);
    assert!(!world.control_dir().exists(), "nothing is left behind");
    world.admin(&["init"]).ok();
    let _control = world.control();
    let csr = world.file("issuing.csr", &world.admin(&["ca", "csr"]).ok().stdout);
    let offline = world.path("offline").to_str().unwrap().to_owned();
    let sign = ["ca", "sign", "--root-dir", &offline, "--csr", &csr];
    let signed = |args: &[&str]| {
        let mut command = lab.weft(&[&sign[..], args].concat());
        run(command.env("WEFT_PKCS11_PIN_FILE", world.path("pin")))
    };
    let first = signed(&token);
    world.file("signed.pem", &first.ok().stdout);
    // It is known from now on where the key is.
    let signed = world.file("signed.pem", &signed(&[]).ok().stdout);
    world.admin(&["ca", "import", &signed]).ok();
    world.admin(&["ca", "rotate", "root", "--now"]).ok();
    run(&mut lab.weft(&sign)).fails_with(&["in the token 'mesh'"]);
}
