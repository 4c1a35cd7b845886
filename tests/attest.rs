//! Joining without a token, with real processes: machines with certificates that openssl made, pods with tokens of a
//! cluster that the test plays, credentials of systemd. And everything of that which is not to be let in.

#![allow(
    clippy::disallowed_methods,
    clippy::unwrap_used,
    reason = "tests stand outside Env, and a panic is how they fail"
)]

#[path = "support/cluster.rs"]
mod cluster;
#[path = "support/machines.rs"]
mod machines;
mod support;

use std::fs;
use std::os::unix::fs::PermissionsExt;

use serde_json::{Value, json};

use cluster::{Cluster, now};
use machines::{RULES, authority, issue, key};
use support::shop::ALLOW_ORDERS;
use support::{Ran, Running, World, eventually, get, weft};

/// A mesh whose control node accepts the machines and the cluster.
struct Lab {
    control: Running,
    pin: String,
    cluster: Cluster,
    // Last: its folder outlives the processes.
    world: World,
}

impl Lab {
    fn new() -> Self {
        let (world, pin) = World::initialised();
        let cluster = Cluster::new();
        world.file("attest.yaml", RULES);
        world.file("cluster-a.json", &cluster.jwks().to_string());
        machines::configure(&world);
        authority(&world, "machines-ca");
        let control = world.start("control", &control_args(&world));
        Self {
            control,
            pin,
            cluster,
            world,
        }
    }

    /// Flags of a sidecar without a way to join.
    fn args(&self, name: &str) -> Vec<String> {
        let at = self.control.addr("mesh").to_string();
        let mut args = self.world.sidecar_args(name, &at, &self.pin, "");
        args.retain(|arg| !arg.starts_with("--token-file"));
        args
    }

    fn machine_args(&self, name: &str, cert: &str, key: &str) -> Vec<String> {
        let mut args = self.args(name);
        args.push(format!("--machine-cert={}", self.path(cert)));
        args.push(format!("--machine-key={}", self.path(key)));
        args
    }

    fn pod_args(&self, name: &str, token: &str) -> Vec<String> {
        let mut args = self.args(name);
        // The kubelet writes none, an editor does.
        let file = self
            .world
            .file(&format!("{name}.jwt"), &format!("{token}\n"));
        args.push(format!("--k8s-token={file}"));
        args
    }

    fn path(&self, name: &str) -> String {
        self.world.path(name).to_str().unwrap().to_owned()
    }

    /// A sidecar that must not get in, and leaves nothing behind.
    #[track_caller]
    fn refused(&self, args: &[String], words: &[&str]) {
        let ran: Ran = self.world.run(args);
        ran.fails_with(words);
        let dir = args.iter().find_map(|arg| arg.strip_prefix("--state-dir="));
        let svid = std::path::Path::new(dir.unwrap()).join("svid.pem");
        assert!(!svid.exists(), "{} was written", svid.display());
    }

    #[track_caller]
    fn pod_refused(&self, token: &str, words: &[&str]) {
        self.refused(&self.pod_args("pod", token), words);
    }

    fn audit(&self) -> Vec<Value> {
        let log = self.world.admin(&["ca", "audit", "-o", "json"]).json();
        log.as_array().unwrap().clone()
    }
}

fn control_args(world: &World) -> Vec<String> {
    let mut args = world.control_args("127.0.0.1:0");
    args.push(format!("--attest={}", world.path("attest.yaml").display()));
    args
}

#[test]
fn machines_and_pods_join_without_a_token_and_speak_as_what_the_rules_say() {
    let lab = Lab::new();
    let world = &lab.world;
    let app = world.app("invoices");
    world
        .admin(&["apply", "-f", &world.file("policy.yaml", ALLOW_ORDERS)])
        .ok();
    // Behind an issuing authority; keys of each kind.
    key(world, "issuing", "EC");
    issue(world, "issuing", "ca", "machines-ca", 30);
    let mut machines = Vec::new();
    for kind in ["EC", "RSA", "ED25519"] {
        let name = format!("machine-{kind}");
        key(world, &name, kind);
        issue(world, &name, "invoices", "issuing", 30);
        let read = |name: &str| fs::read_to_string(world.path(name)).unwrap();
        let chain = format!("{}{}", read(&format!("{name}.pem")), read("issuing.pem"));
        world.file(&format!("{name}-chain.pem"), &chain);
        let mut args =
            lab.machine_args(&name, &format!("{name}-chain.pem"), &format!("{name}.key"));
        args.push(format!("--app={}", app.addr("http")));
        machines.push(world.start(&name, &args));
    }
    for machine in &machines {
        assert_eq!(
            machine.ready["spiffe_id"],
            "spiffe://weft.local/ns/default/sa/invoices"
        );
    }
    let mut pods = Vec::new();
    for (alg, kid) in [("RS256", "rsa"), ("ES256", "ec")] {
        let token = lab.cluster.token(alg, kid, "orders", |_| {});
        let name = format!("pod-{kid}");
        pods.push(world.start(&name, &lab.pod_args(&name, &token)));
    }
    for pod in &pods {
        eventually("an answer", || {
            let reply = get(pod.addr("outbound"), "invoices", "/echo");
            reply.is_ok_and(|reply| reply.status == 200).then_some(())
        });
    }
    let log = lab.audit();
    let accepted: Vec<_> = log
        .iter()
        .filter(|record| record["event"] == "attestation.accepted")
        .collect();
    assert_eq!(accepted.len(), 5);
    assert_eq!(accepted[0]["detail"]["dns"], "invoices.hosts.example");
    assert_eq!(accepted[4]["detail"]["pod_uid"], "a1b2");
}

#[test]
fn a_machine_that_is_not_to_be_let_in_is_told_why() {
    let lab = Lab::new();
    let world = &lab.world;
    authority(world, "other-ca");
    for (name, section, by, days) in [
        ("good", "invoices", "machines-ca", 30),
        ("foreign", "invoices", "other-ca", 30),
        ("old", "invoices", "machines-ca", -1),
        ("stranger", "stranger", "machines-ca", 30),
        ("mute", "mute", "machines-ca", 30),
    ] {
        key(world, name, "EC");
        issue(world, name, section, by, days);
    }
    let of = |name: &str| lab.machine_args("m", &format!("{name}.pem"), &format!("{name}.key"));
    lab.refused(
        &of("foreign"),
        &["not issued by an authority that is accepted", "caFile"],
    );
    lab.refused(
        &of("old"),
        &["machine's certificate expired at", "renew it"],
    );
    lab.refused(
        &of("stranger"),
        &[
            "invoices.elsewhere.example",
            "no rule of machines",
            "--attest",
        ],
    );
    lab.refused(&of("mute"), &["lacks digitalSignature", "issue one"]);
    lab.refused(
        &lab.machine_args("m", "good.pem", "mute.key"),
        &["not that of the first certificate", "--machine-key"],
    );
    lab.refused(
        &lab.machine_args("m", "good.pem", "nothing.key"),
        &["nothing.key: no such file", "--machine-key"],
    );
    let open = fs::Permissions::from_mode(0o644);
    fs::set_permissions(world.path("good.key"), open).unwrap();
    lab.refused(
        &of("good"),
        &["good.key can be read by every user", "chmod 600"],
    );
    let mode = fs::Permissions::from_mode(0o440);
    fs::set_permissions(world.path("good.key"), mode).unwrap();

    let id = "spiffe://weft.local/ns/default/sa/invoices";
    world.admin(&["cert", "revoke", "--spiffe-id", id]).ok();
    lab.refused(&of("good"), &["is revoked", "weft cert readmit"]);
    world.admin(&["cert", "readmit", "--spiffe-id", id]).ok();
    let joined = world.start("m", &of("good"));
    assert_eq!(joined.ready["spiffe_id"], id);

    // All of it is on record, and counted.
    let log = lab.audit();
    let refused = log.iter().filter(|r| r["event"] == "attestation.refused");
    let codes: Vec<_> = refused
        .map(|r| r["detail"]["code"].as_str().unwrap())
        .collect();
    for code in [
        "machine_unknown_authority",
        "machine_expired",
        "no_rule",
        "machine_unfit",
        "revoked",
    ] {
        assert!(codes.contains(&code), "{code} of {codes:?}");
    }
    let metrics = get(lab.control.addr("metrics"), "control", "/metrics")
        .unwrap()
        .body;
    let line = "weft_refusals_total{side=\"inbound\",reason=\"machine_unknown_authority\"} 1";
    assert!(metrics.contains(line), "{metrics}");
}

#[test]
fn a_pod_that_is_not_to_be_let_in_is_told_why() {
    let lab = Lab::new();
    let token = |change: &dyn Fn(&mut Value)| lab.cluster.token("RS256", "rsa", "orders", change);
    lab.pod_refused(
        &token(&|c| c["aud"] = json!(["vault"])),
        &["not for the audience \"weft\"", "audience: weft"],
    );
    lab.pod_refused(
        &token(&|c| c["exp"] = json!(now() - 60)),
        &["expired at", "kubelet keeps fresh"],
    );
    lab.pod_refused(
        &token(&|c| c["iss"] = json!("https://elsewhere")),
        &["its issuer is \"https://elsewhere\"", "cluster-a"],
    );
    lab.pod_refused(
        &lab.cluster.token("none", "rsa", "orders", |_| {}),
        &[
            "its algorithm \"none\" is not one of",
            "serviceAccountToken",
        ],
    );
    lab.pod_refused(
        &lab.cluster.token("HS256", "rsa", "orders", |_| {}),
        &["its algorithm \"HS256\" is not one of"],
    );
    lab.pod_refused(
        &lab.cluster.token("ES256", "rsa", "orders", |_| {}),
        &["its algorithm is ES256, that of the key is RS256"],
    );
    lab.pod_refused(
        &Cluster::new().token("RS256", "rsa", "orders", |_| {}),
        &["signature does not fit", "/openid/v1/jwks"],
    );
    lab.pod_refused(
        &lab.cluster.token("RS256", "rsa", "default", |_| {}),
        &[
            "shop/default is known, but no rule of cluster-a",
            "--attest",
        ],
    );
    lab.pod_refused(
        "not.a.token",
        &["not a projected token of a service account"],
    );
    lab.pod_refused("", &["does not hold a token", "--k8s-token"]);
    lab.pod_refused(&"a".repeat(17_000), &["larger than 16384 bytes"]);
}

#[test]
fn nobody_joins_this_way_where_nothing_says_so() {
    let (world, pin) = World::initialised();
    machines::configure(&world);
    authority(&world, "ca");
    key(&world, "m", "EC");
    issue(&world, "m", "invoices", "ca", 30);
    let control = world.control();
    let cluster = Cluster::new();
    let lab = Lab {
        control,
        pin,
        cluster,
        world,
    };
    let off = [
        "nobody joins this mesh with",
        "weft control --attest",
        "weft token create",
    ];
    lab.refused(&lab.machine_args("m", "m.pem", "m.key"), &off);
    lab.pod_refused(&lab.cluster.token("ES256", "ec", "orders", |_| {}), &off);

    // And a file with a fault in it is no start.
    let mut args = lab.world.control_args("127.0.0.1:0");
    let file = lab
        .world
        .file("broken.yaml", "x509pop:\n- name: a\n  caFil: b\n");
    args.push(format!("--attest={file}"));
    let mut apart = lab.world.control_args("127.0.0.1:0");
    apart.push("--attest=/nowhere/attest.yaml".to_owned());
    drop(lab.control);
    lab.world
        .run(&args)
        .fails_with(&["broken.yaml:3:3: x509pop[0]", "did you mean 'caFile'?"]);
    lab.world
        .run(&apart)
        .fails_with(&["/nowhere/attest.yaml", "--attest"]);
}

#[test]
fn who_slept_past_its_certificate_joins_again_by_itself() {
    let lab = Lab::new();
    let world = &lab.world;
    key(world, "m", "EC");
    issue(world, "m", "invoices", "machines-ca", 30);
    let mut args = lab.machine_args("m", "m.pem", "m.key");
    let mut sidecar = world.start("m", &args);
    assert!(sidecar.stop().success());
    let Lab {
        mut control, world, ..
    } = lab;
    let at = control.addr("mesh");
    assert!(control.stop().success());
    // Its certificate was good for an hour.
    let later = |args: &[String]| [args, &["--clock-offset=7200".to_owned()]].concat();
    let mut node = world.control_args(&at.to_string());
    node.push(format!("--attest={}", world.path("attest.yaml").display()));
    let _control = world.start("control", &later(&node));
    let again = world.start("m", &later(&args));
    assert!(
        again.log().contains("cannot be used: joining again"),
        "{}",
        again.log()
    );
    assert_eq!(
        again.ready["spiffe_id"],
        "spiffe://weft.local/ns/default/sa/invoices"
    );

    // The certificate that has ended is no proof by itself.
    args.retain(|arg| !arg.starts_with("--machine"));
    drop(again);
    let ran = world.run(&[&args[..], &["--clock-offset=14400".to_owned()]].concat());
    ran.fails_with(&["has expired", "weft token create"]);
}

#[test]
fn a_token_may_be_a_credential_of_systemd() {
    let (world, pin) = World::initialised();
    let control = world.control();
    let token = fs::read_to_string(world.token("orders", "10m")).unwrap();
    let directory = world.path("credentials");
    fs::create_dir(&directory).unwrap();
    fs::write(directory.join("join-token"), format!("{token}\n")).unwrap();
    let mode = |path, bits| fs::set_permissions(path, fs::Permissions::from_mode(bits)).unwrap();
    mode(directory.join("join-token"), 0o400);
    mode(directory.clone(), 0o500);
    let at = control.addr("mesh").to_string();
    let mut args = world.sidecar_args("orders", &at, &pin, "");
    args.retain(|arg| !arg.starts_with("--token-file"));
    args.push("--token-credential=join-token".to_owned());
    let without = support::run(weft(&args).env_remove("CREDENTIALS_DIRECTORY"));
    assert_eq!(without.code, Some(2), "{without:?}");
    assert!(
        without.stderr.contains("LoadCredential=join-token:PATH"),
        "{without:?}"
    );
    let mut command = weft(&args);
    command.env("CREDENTIALS_DIRECTORY", &directory);
    let joined = world.start_command("orders", command);
    assert_eq!(joined.ready["service"], "orders.default");
    mode(directory, 0o700);
}
