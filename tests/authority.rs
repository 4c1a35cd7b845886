//! The authority from the command line, with real processes: rotation, revocation, proof, offline root, and the
//! disasters of docs/ca.md, step by step.

#![allow(
    clippy::disallowed_methods,
    clippy::unwrap_used,
    reason = "tests stand outside Env, and a panic is how they fail"
)]

mod support;

use std::os::unix::fs::PermissionsExt;

use support::{World, run, weft};

fn secret(world: &World, name: &str, text: &str) -> String {
    let path = world.file(name, text);
    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o600)).unwrap();
    path
}

fn pin(world: &World) -> String {
    let shown = world.admin(&["ca", "show", "-o", "json"]).json();
    shown["pin"].as_str().unwrap().to_owned()
}

fn states(world: &World) -> Vec<String> {
    let shown = world.admin(&["ca", "show", "-o", "json"]).json();
    let all = shown["authorities"].as_array().unwrap().iter();
    all.map(|a| {
        format!(
            "{} {}",
            a["name"].as_str().unwrap(),
            a["state"].as_str().unwrap()
        )
    })
    .collect()
}

#[test]
fn a_root_is_rotated_and_the_proof_is_checked_without_the_mesh() {
    let (world, old_pin) = World::initialised();
    let control = world.control();
    let plan = world.admin(&["ca", "rotate", "root", "--dry-run"]);
    assert!(plan.ok().stdout.contains("drop root-1 once"), "{plan:?}");
    let rotated = world.admin(&["ca", "rotate", "root", "--now"]);
    assert!(
        rotated.ok().stdout.contains("proof: weft ca evidence 1"),
        "{rotated:?}"
    );
    assert_eq!(
        states(&world),
        [
            "root-1 removed",
            "root-2 active",
            "issuing-1 removed",
            "issuing-2 active"
        ]
    );

    let new_pin = pin(&world);
    let document = world.admin(&["ca", "evidence", "1"]).ok().stdout.clone();
    let file = world.file("evidence.json", &document);
    let roots = world.file("roots.pem", &world.admin(&["ca", "export"]).ok().stdout);
    let list = world.admin(&["ca", "evidence"]);
    assert!(list.ok().stdout.contains("root-1"), "{list:?}");
    let whole = world.admin(&["ca", "audit", "--verify"]);
    assert!(whole.ok().stdout.contains("is whole"), "{whole:?}");
    let recent = world
        .admin(&["ca", "audit", "--since", "1h", "-o", "json"])
        .json();
    let events: Vec<&str> = recent
        .as_array()
        .unwrap()
        .iter()
        .filter_map(|record| record["event"].as_str())
        .collect();
    for event in [
        "rotation.started",
        "authority.prepared",
        "rotation.finished",
    ] {
        assert!(events.contains(&event), "{event} in {events:?}");
    }
    drop(control);

    for anchor in [["--pin", &new_pin], ["--bundle", &roots]] {
        let checked = run(weft(["ca", "evidence", "--check", &file]).args(anchor));
        assert!(
            checked.ok().stdout.contains("proved: rotation 1"),
            "{checked:?}"
        );
    }
    run(&mut weft([
        "ca", "evidence", "--check", &file, "--pin", &old_pin,
    ]))
    .fails_with(&["another root"]);
    let forged = world.file("forged.json", &document.replacen("eyJ", "eyK", 1));
    run(&mut weft([
        "ca", "evidence", "--check", &forged, "--pin", &new_pin,
    ]))
    .fails_with(&["evidence"]);
}

#[test]
fn an_offline_root_signs_on_a_machine_that_never_joins() {
    let (world, _) = World::initialised();
    let _control = world.control();
    let csr = world.file("issuing.csr", &world.admin(&["ca", "csr"]).ok().stdout);
    let offline = world.path("offline").to_str().unwrap().to_owned();
    let key = secret(&world, "offline.secret", "a long passphrase");
    let sign = |ttl: &str| {
        run(&mut weft([
            "ca",
            "sign",
            "--root-dir",
            &offline,
            "--csr",
            &csr,
            "--ttl",
            ttl,
            "--key-type",
            "p384",
            "--ca-secret-file",
            &key,
        ]))
    };
    let short = world.file("short.pem", &sign("1d").ok().stdout);
    world
        .admin(&["ca", "import", &short])
        .fails_with(&["less than 6 times"]);
    let signed = world.file("signed.pem", &sign("90d").ok().stdout);
    world.admin(&["ca", "import", &signed]).ok();
    assert_eq!(
        states(&world),
        [
            "root-1 active",
            "root-2 prepared",
            "issuing-1 active",
            "issuing-2 prepared"
        ]
    );
    world.admin(&["ca", "rotate", "root", "--now"]).ok();
    let shown = world.admin(&["ca", "show"]);
    assert!(
        shown.ok().stdout.contains("active, key elsewhere"),
        "{shown:?}"
    );
    world
        .admin(&["ca", "rotate", "issuing"])
        .fails_with(&["weft ca csr"]);
    run(&mut weft([
        "ca",
        "sign",
        "--root-dir",
        &offline,
        "--csr",
        &csr,
    ]))
    .fails_with(&["--ca-secret-file"]);
}

#[test]
fn disaster_the_store_is_lost() {
    let (world, pin_before) = World::initialised();
    let key = secret(&world, "backup.secret", "correct horse battery");
    let file = world.path("mesh.backup").to_str().unwrap().to_owned();
    {
        let _control = world.control();
        world
            .admin(&["ca", "backup", &file, "--secret-file", &key])
            .ok();
    }
    let open = world.file("open.secret", "correct horse battery");
    world
        .admin(&["ca", "restore", &file, "--secret-file", &open])
        .fails_with(&["chmod 600"]);
    world
        .admin(&["ca", "restore", &file, "--secret-file", &key])
        .fails_with(&["already has the state"]);
    std::fs::remove_dir_all(world.control_dir()).unwrap();
    let wrong = secret(&world, "wrong.secret", "battery staple");
    world
        .admin(&["ca", "restore", &file, "--secret-file", &wrong])
        .fails_with(&["passphrase"]);
    world
        .admin(&["ca", "restore", &file, "--secret-file", &key])
        .ok();
    let _control = world.control();
    assert_eq!(pin(&world), pin_before);
    world.admin(&["ca", "audit", "--verify"]).ok();
}

#[test]
fn disaster_the_issuing_key_is_stolen() {
    let (world, _) = World::initialised();
    let _control = world.control();
    world
        .admin(&["ca", "revoke", "issuing-1"])
        .fails_with(&["weft ca rotate issuing --now"]);
    world.admin(&["ca", "rotate", "issuing", "--now"]).ok();
    world.admin(&["ca", "revoke", "issuing-1"]).ok();
    let revoked = world.admin(&["cert", "revoked", "-o", "json"]).json();
    assert_eq!(revoked["keys"].as_array().unwrap().len(), 1, "{revoked}");
}

#[test]
fn disaster_the_root_key_is_stolen() {
    let (world, _) = World::initialised();
    let _control = world.control();
    world
        .admin(&["ca", "taint", "root-1"])
        .fails_with(&["root-1 is active", "--now"]);
    world.admin(&["ca", "rotate", "root", "--now"]).ok();
    assert!(states(&world).contains(&"root-1 removed".to_owned()));
}

#[test]
fn identities_are_revoked_and_readmitted_by_name() {
    let (world, _) = World::initialised();
    let _control = world.control();
    let id = "spiffe://weft.local/ns/default/sa/invoices";
    world
        .admin(&["token", "create", "--service", "invoices"])
        .ok();
    let revoked = world.admin(&["cert", "revoke", "--spiffe-id", id, "--prove"]);
    assert!(
        revoked.ok().stdout.contains("1 join token is void"),
        "{revoked:?}"
    );
    world
        .admin(&["token", "create", "--service", "invoices"])
        .fails_with(&["weft cert readmit"]);
    world.admin(&["cert", "readmit", "--spiffe-id", id]).ok();
    world
        .admin(&["token", "create", "--service", "invoices"])
        .ok();
    world
        .admin(&["cert", "readmit", "--spiffe-id", id])
        .fails_with(&["is not revoked"]);
    let none = world.admin(&["status", "--expiring", "1m"]);
    assert!(none.ok().stdout.contains("nothing ends"), "{none:?}");
    world
        .admin(&["status", "--expiring", "31d"])
        .fails_with(&["end within"]);
}

#[test]
fn keys_are_sealed_with_a_passphrase_that_the_node_then_needs() {
    let world = World::new();
    let key = secret(&world, "ca.secret", "correct horse battery");
    world
        .admin(&["init", "--ca-secret-file", &key, "--key-type", "ed25519"])
        .ok();
    let dir = world.control_dir().to_str().unwrap().to_owned();
    let start = [
        "control",
        "--listen=127.0.0.1:0",
        "--metrics=127.0.0.1:0",
        "--state-dir",
    ];
    run(weft(start).arg(&dir)).fails_with(&["--ca-secret-file"]);
    let wrong = secret(&world, "wrong.secret", "battery staple");
    run(weft(start).args([&dir, "--ca-secret-file", &wrong])).fails_with(&["does not open"]);
}

#[test]
fn a_certificate_is_explained_rule_by_rule() {
    let (world, _) = World::initialised();
    let _control = world.control();
    let roots = world.file("roots.pem", &world.admin(&["ca", "export"]).ok().stdout);
    let inspected = run(&mut weft(["cert", "inspect", &roots]));
    assert!(
        inspected.ok().stdout.contains("spiffe://weft.local"),
        "{inspected:?}"
    );
    let verified = run(&mut weft(["cert", "verify", &roots, "--bundle", &roots]));
    assert!(
        verified.stdout.contains("NO   it is an X509-SVID"),
        "{verified:?}"
    );
    verified.fails_with(&["names a trust domain"]);
    let junk = world.file("junk.pem", "nothing");
    run(&mut weft(["cert", "inspect", &junk])).fails_with(&["no CERTIFICATE block"]);
}
