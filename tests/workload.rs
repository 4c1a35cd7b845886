//! SPIFFE for programs that are not weft, with real processes: the published `spiffe` crate takes what a sidecar has,
//! openssl, curl and Envoy use it, through rotations of everything.

#![allow(
    clippy::disallowed_methods,
    clippy::unwrap_used,
    unreachable_pub,
    reason = "tests stand outside Env, and a panic is how they fail"
)]

#[path = "../crates/workload/tests/interop/mod.rs"]
mod interop;
mod support;

use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use interop::envoy::{Envoy, Wish, program};
use interop::http;

use spiffe::{JwtBundleSet, WorkloadApiClient, X509Source};
use support::{Running, World, eventually, run};
use tokio::runtime::Runtime;
use tokio::time::timeout;

const PROMPT: Duration = Duration::from_secs(20);
const INVOICES: &str = "spiffe://weft.local/ns/default/sa/invoices";
const ORDERS: &str = "spiffe://weft.local/ns/default/sa/orders";

fn runtime() -> Runtime {
    tokio::runtime::Builder::new_multi_thread()
        .worker_threads(1)
        .enable_all()
        .build()
        .unwrap()
}

/// A sidecar with a workload socket for the user of this test.
fn sidecar(world: &World, name: &str, control: &Running, pin: &str) -> Running {
    let token = world.token(name, "10m");
    let control = control.addr("mesh").to_string();
    let mut args = world.sidecar_args(name, &control, pin, &token);
    let me = rustix::process::geteuid().as_raw();
    args.push(format!("--workload-socket={}", address(world, name)));
    args.push(format!("--workload-allow=uid={me}"));
    world.start(name, &args)
}

fn socket(world: &World, name: &str) -> PathBuf {
    world.path("run").join(format!("{name}.sock"))
}

fn address(world: &World, name: &str) -> String {
    format!("unix://{}", socket(world, name).display())
}

/// A program beside the sidecar, which keeps files with what it has now, as `curl` and others want them.
struct Program {
    source: X509Source,
    runtime: Runtime,
    files: String,
}

impl Program {
    fn start(world: &World, name: &str) -> Self {
        let runtime = runtime();
        let building = X509Source::builder().endpoint(address(world, name)).build();
        let source = runtime
            .block_on(async { timeout(PROMPT, building).await })
            .expect("the source starts in time")
            .expect("it gets an identity");
        let files = world.path(&format!("{name}-files"));
        std::fs::create_dir(&files).unwrap();
        Self {
            source,
            runtime,
            files: files.display().to_string(),
        }
    }

    fn leaf(&self) -> Vec<u8> {
        self.source.svid().unwrap().leaf().as_bytes().to_vec()
    }

    fn roots(&self) -> Vec<Vec<u8>> {
        let set = self.source.bundle_set().unwrap();
        let bundle = set.get(&"weft.local".parse().unwrap()).unwrap();
        let roots = bundle.authorities().iter();
        roots.map(|root| root.as_bytes().to_vec()).collect()
    }

    /// Waits for a change, if what is looked for is not there yet.
    fn until(&self, what: &str, seen: impl Fn(&Self) -> bool) {
        let mut updates = self.source.updated();
        let waiting = async {
            while !seen(self) {
                updates.changed().await.expect("the source lives");
            }
        };
        self.runtime
            .block_on(async { timeout(PROMPT, waiting).await })
            .unwrap_or_else(|_| panic!("waited for {what}"));
    }

    /// Writes leaf, issuers, chain, key and roots.
    fn export(&self) {
        let svid = self.source.svid().unwrap();
        let chain: Vec<_> = svid.cert_chain().iter().map(|c| c.as_bytes()).collect();
        let (leaf, issuers) = chain.split_first().unwrap();
        self.write("leaf.pem", "CERTIFICATE", &[leaf]);
        self.write("issuers.pem", "CERTIFICATE", issuers);
        self.write("chain.pem", "CERTIFICATE", &chain);
        self.write("key.pem", "PRIVATE KEY", &[svid.private_key().as_bytes()]);
        let roots = self.roots();
        let roots: Vec<&[u8]> = roots.iter().map(Vec::as_slice).collect();
        self.write("roots.pem", "CERTIFICATE", &roots);
    }

    fn write(&self, name: &str, label: &str, ders: &[&[u8]]) {
        use base64::Engine;
        let block = |der: &&[u8]| {
            let text = base64::engine::general_purpose::STANDARD.encode(der);
            let lines: Vec<&str> = text
                .as_bytes()
                .chunks(64)
                .map(|line| std::str::from_utf8(line).unwrap())
                .collect();
            format!(
                "-----BEGIN {label}-----\n{}\n-----END {label}-----\n",
                lines.join("\n")
            )
        };
        let text: String = ders.iter().map(block).collect();
        std::fs::write(self.file(name), text).unwrap();
    }

    fn file(&self, name: &str) -> String {
        format!("{}/{name}", self.files)
    }

    /// Has openssl judge the chain, as a server's and as a client's.
    fn openssl_accepts(&self) {
        self.export();
        for purpose in ["sslserver", "sslclient"] {
            let verified = run(Command::new("openssl")
                .args(["verify", "-x509_strict", "-purpose", purpose])
                .args(["-CAfile", &self.file("roots.pem")])
                .args(["-untrusted", &self.file("issuers.pem")])
                .arg(self.file("leaf.pem")));
            assert!(verified.ok().stdout.contains(": OK"), "{verified:?}");
        }
        let key = run(Command::new("openssl").args([
            "pkey",
            "-check",
            "-noout",
            "-in",
            &self.file("key.pem"),
        ]));
        key.ok();
    }
}

#[test]
fn openssl_accepts_what_a_program_gets_through_rotations_of_leaf_issuing_and_root() {
    let (world, pin) = World::initialised();
    let control = world.control();
    let _sidecar = sidecar(&world, "invoices", &control, &pin);
    let program = Program::start(&world, "invoices");
    assert_eq!(
        program.source.svid().unwrap().spiffe_id().to_string(),
        INVOICES
    );
    program.openssl_accepts();

    let before = program.leaf();
    world.admin(&["cert", "rotate", "--all"]).ok();
    program.until("a new leaf", |program| program.leaf() != before);
    program.openssl_accepts();

    let (before, old) = (program.leaf(), program.roots());
    world.admin(&["ca", "rotate", "root", "--now"]).ok();
    program.until("the new root alone", |program| {
        let roots = program.roots();
        roots.len() == 1 && roots != old && program.leaf() != before
    });
    program.openssl_accepts();
}

/// An HTTPS server that is not weft, which demands a certificate under its roots.
struct Server {
    child: Child,
    port: String,
}

impl Server {
    fn start(program: &Program) -> Self {
        program.export();
        let mut child = Command::new("openssl")
            .args(["s_server", "-accept", "127.0.0.1:0", "-www", "-tls1_3"])
            .args(["-Verify", "3", "-verify_return_error"])
            .args(["-CAfile", &program.file("roots.pem")])
            .args(["-cert", &program.file("leaf.pem")])
            .args(["-cert_chain", &program.file("issuers.pem")])
            .args(["-key", &program.file("key.pem")])
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .expect("openssl starts");
        let lines = BufReader::new(child.stdout.take().unwrap()).lines();
        let port = lines
            .map_while(Result::ok)
            .find_map(|line| Some(line.strip_prefix("ACCEPT ")?.rsplit_once(':')?.1.to_owned()))
            .expect("openssl says where it listens");
        Self { child, port }
    }

    /// The key that a caller pins: its name is not in the certificate, so that curl cannot check it.
    fn key_pin(program: &Program) -> String {
        let script = format!(
            "openssl x509 -in {} -pubkey -noout | openssl pkey -pubin -outform der | openssl dgst -sha256 -binary | openssl base64",
            program.file("leaf.pem")
        );
        let made = run(Command::new("sh").args(["-c", &script]));
        format!("sha256//{}", made.ok().stdout.trim())
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn curl(server: &Server, pin: &str, program: Option<&Program>) -> support::Ran {
    let mut command = Command::new("curl");
    command.args(["--silent", "--show-error", "--max-time", "10", "--insecure"]);
    command.args(["--pinnedpubkey", pin]);
    if let Some(program) = program {
        command.args(["--cert", &program.file("chain.pem")]);
        command.args(["--key", &program.file("key.pem")]);
    }
    run(command.arg(format!("https://127.0.0.1:{}/", server.port)))
}

#[test]
fn curl_and_openssl_speak_mutual_tls_with_exported_files() {
    let (world, pin) = World::initialised();
    let control = world.control();
    let _sidecars = ["invoices", "orders"].map(|name| sidecar(&world, name, &control, &pin));
    let (invoices, orders) = (
        Program::start(&world, "invoices"),
        Program::start(&world, "orders"),
    );
    orders.export();
    let server = Server::start(&invoices);
    let key = Server::key_pin(&invoices);
    let answer = curl(&server, &key, Some(&orders));
    assert!(answer.ok().stdout.contains("TLSv1.3"), "{answer:?}");
    assert_ne!(curl(&server, &key, None).code, Some(0), "no certificate");
    let other = Server::key_pin(&orders);
    let wrong = curl(&server, &other, Some(&orders));
    assert_ne!(wrong.code, Some(0), "another server's key was pinned");

    // Whoever has a certificate of another mesh is a stranger.
    let (elsewhere, pin) = World::initialised();
    let control = elsewhere.control();
    let _sidecar = sidecar(&elsewhere, "orders", &control, &pin);
    let stranger = Program::start(&elsewhere, "orders");
    stranger.export();
    assert_ne!(curl(&server, &key, Some(&stranger)).code, Some(0));
}

/// Two Envoys, one beside each sidecar: `orders` calls `invoices`, with mutual TLS between them.
struct Envoys {
    orders: Envoy,
    invoices: Envoy,
    runtime: Runtime,
}

impl Envoys {
    fn start(world: &World, program: &Path) -> Self {
        let runtime = runtime();
        let start = |name: &str, peer, upstream| {
            let wish = Wish {
                socket: &socket(world, name),
                upstream,
                peer,
                certificate: "default",
                roots: "ALL",
            };
            runtime.block_on(Envoy::start(program, &wish))
        };
        let invoices = start("invoices", ORDERS, 9);
        let orders = start("orders", INVOICES, invoices.inbound);
        Self {
            orders,
            invoices,
            runtime,
        }
    }

    /// Runs an operator's command while requests flow, one after the other, each on connections of its own. How many
    /// there were; all of them must succeed.
    fn requests_during(&self, command: impl FnOnce() + Send) -> usize {
        let entry = format!("127.0.0.1:{}", self.orders.outbound);
        let done = AtomicBool::new(false);
        std::thread::scope(|scope| {
            let requests = scope.spawn(|| {
                let mut count = 0;
                // A few more once it is over.
                let mut rest = 20;
                while rest > 0 {
                    rest -= usize::from(done.load(Ordering::Relaxed));
                    let asking = http::plain(&entry, "/");
                    let asked = self
                        .runtime
                        .block_on(async { timeout(PROMPT, asking).await });
                    let answer = asked.expect("an answer comes in time").unwrap();
                    let logs = || format!("{}\n{}", self.orders.log(), self.invoices.log());
                    assert_eq!(answer, (200, "from envoy".to_owned()), "{}", logs());
                    count += 1;
                }
                count
            });
            command();
            done.store(true, Ordering::Relaxed);
            requests.join().expect("every request succeeds")
        })
    }
}

#[test]
fn two_envoys_speak_mutual_tls_through_rotations_of_leaf_issuing_and_root_without_one_failed_request()
 {
    let Some(program) = program() else { return };
    let (world, pin) = World::initialised();
    let control = world.control();
    let _sidecars = ["invoices", "orders"].map(|name| sidecar(&world, name, &control, &pin));
    let envoys = Envoys::start(&world, program);
    for command in [
        &["cert", "rotate", "--all"][..],
        &["ca", "rotate"],
        &["ca", "rotate", "root", "--now"],
    ] {
        let count = envoys.requests_during(|| {
            world.admin(command).ok();
        });
        assert!(count > 20, "{command:?}: {count} requests");
    }
    let shown = world.admin(&["ca", "show"]).ok().stdout.clone();
    assert!(shown.contains("root-2"), "{shown}");
}

/// A client of the tokens of one sidecar.
struct Tokens {
    client: WorkloadApiClient,
    runtime: Runtime,
}

impl Tokens {
    fn of(world: &World, name: &str) -> Self {
        let runtime = runtime();
        let client = runtime
            .block_on(WorkloadApiClient::connect_to(address(world, name)))
            .unwrap();
        Self { client, runtime }
    }

    fn fetch(&self, audience: &str) -> String {
        let fetching = self.client.fetch_jwt_svid([audience], None);
        let fetched = self
            .runtime
            .block_on(async { timeout(PROMPT, fetching).await });
        let svid = fetched.expect("a token comes in time").expect("a token");
        svid.token().to_owned()
    }

    fn bundles(&self) -> JwtBundleSet {
        let fetching = self.client.fetch_jwt_bundles();
        let fetched = self
            .runtime
            .block_on(async { timeout(PROMPT, fetching).await });
        fetched.expect("bundles come in time").expect("bundles")
    }

    /// Whom the sidecar says that a token is of.
    fn checks(&self, token: &str, audience: &str) -> Option<String> {
        let checking = self.client.validate_jwt_token(audience, token);
        let checked = self
            .runtime
            .block_on(async { timeout(PROMPT, checking).await });
        let svid = checked.expect("an answer comes in time").ok()?;
        Some(svid.spiffe_id().to_string())
    }
}

fn token_keys(world: &World) -> Vec<String> {
    let shown = world.admin(&["ca", "show", "-o", "json"]).json();
    let keys = shown["token_keys"].as_array().cloned().unwrap_or_default();
    keys.iter()
        .map(|key| {
            format!(
                "{} {}",
                key["name"].as_str().unwrap(),
                key["state"].as_str().unwrap()
            )
        })
        .collect()
}

#[test]
fn a_token_of_one_sidecar_is_good_at_another_through_the_rotation_of_keys_until_its_identity_is_revoked()
 {
    let (world, pin) = World::initialised();
    let mut control = world.control();
    let _sidecars = ["invoices", "orders"].map(|name| sidecar(&world, name, &control, &pin));
    let (invoices, orders) = (Tokens::of(&world, "invoices"), Tokens::of(&world, "orders"));
    assert_eq!(token_keys(&world), [] as [&str; 0], "nobody wanted one");

    // The first key was known to all before it signed.
    let token = invoices.fetch("orders");
    assert_eq!(orders.checks(&token, "orders").as_deref(), Some(INVOICES));
    assert_eq!(orders.checks(&token, "others"), None);
    let known = spiffe::JwtSvid::parse_and_validate(&token, &orders.bundles(), &["orders"]);
    assert_eq!(known.unwrap().spiffe_id().to_string(), INVOICES);
    assert_eq!(token_keys(&world), ["jwt-1 active"]);

    world.admin(&["ca", "prepare", "jwt"]).ok();
    eventually("the new key to be known and to sign", || {
        // Refused as long as a sidecar has not said that it knows the key.
        let activated = world.admin(&["ca", "activate", "jwt-2"]);
        (activated.code == Some(0)).then_some(())
    });
    assert_eq!(token_keys(&world), ["jwt-1 old", "jwt-2 active"]);
    let second = invoices.fetch("other-audience");
    for (token, audience) in [(&token, "orders"), (&second, "other-audience")] {
        assert_eq!(orders.checks(token, audience).as_deref(), Some(INVOICES));
    }
    world
        .admin(&["ca", "revoke", "jwt-2"])
        .fails_with(&["signs now"]);
    world.admin(&["ca", "revoke", "jwt-1"]).ok();
    eventually("the first key to be forgotten", || {
        orders.checks(&token, "orders").is_none().then_some(())
    });
    assert!(orders.checks(&second, "other-audience").is_some());
    let audit = world.admin(&["ca", "audit", "--verify"]);
    assert!(audit.ok().stdout.contains("is whole"), "{audit:?}");

    // A control node that is started again goes on with the same key.
    control.stop();
    let args = world.control_args(&control.addr("mesh").to_string());
    let _control = world.start("control-again", &args);
    let third = eventually("a token from the node that was started again", || {
        let fetching = invoices.client.fetch_jwt_svid(["third"], None);
        let fetched = invoices
            .runtime
            .block_on(async { timeout(PROMPT, fetching).await });
        fetched.ok()?.ok()
    });
    assert!(orders.checks(third.token(), "third").is_some());
    assert_eq!(token_keys(&world), ["jwt-1 removed", "jwt-2 active"]);

    world
        .admin(&["cert", "revoke", "--spiffe-id", INVOICES])
        .ok();
    eventually("a revoked identity's token to be refused", || {
        orders
            .checks(third.token(), "third")
            .is_none()
            .then_some(())
    });
}

#[test]
fn settings_that_give_the_identity_to_nobody_or_nowhere_are_refused_in_words() {
    let world = World::new();
    let sidecar = |extra: &[&str]| {
        let mut args = world.sidecar_args("x", "127.0.0.1:1", "sha256:00", "none");
        args.retain(|arg| !arg.starts_with("--pin"));
        args.extend(extra.iter().map(|&arg| arg.to_owned()));
        world.run(&args)
    };
    let socket = format!("--workload-socket={}", world.path("s").display());
    let ran = sidecar(&[&socket]);
    assert!(ran.stderr.contains("--workload-allow uid=1000"), "{ran:?}");
    let ran = sidecar(&["--workload-allow=uid=1000"]);
    assert!(ran.stderr.contains("--workload-socket PATH"), "{ran:?}");
    let ran = sidecar(&[&socket, "--workload-allow=everybody"]);
    assert!(ran.stderr.contains("uid=N"), "{ran:?}");
    let ran = sidecar(&[
        "--workload-socket=tcp://127.0.0.1:1",
        "--workload-allow=uid=1",
    ]);
    assert!(ran.stderr.contains("Unix socket"), "{ran:?}");
}
