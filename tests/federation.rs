//! Two meshes of different trust domains, with real processes: they fetch each other's bundle, and call each other as
//! far as policy lets them.

#![allow(
    clippy::disallowed_methods,
    clippy::unwrap_used,
    reason = "tests stand outside Env, and a panic is how they fail"
)]

mod support;

use std::io::{Read, Write};
use std::net::TcpStream;
use std::process::Command;
use std::time::Instant;

use support::{Running, SOON, World, eventually, get, run, weft};

const HOME: &str = "home.example";
const PARTNER: &str = "partner.example";

/// Whoever is of the own mesh may call, and orders of the other one as far as `principal` says.
fn policy(principal: &str) -> String {
    format!(
        "\
apiVersion: weft.dev/v1
kind: AuthorizationPolicy
metadata: {{name: invoices}}
spec:
  targetRefs: [{{kind: Service, name: invoices}}]
  rules:
    - from: [{{source: {{namespaces: [default]}}}}]
    - from: [{{source: {{principals: ['*']}}}}]
    - from: [{{source: {{principals: ['{principal}']}}}}]
"
    )
}

/// A mesh whose control node serves its bundle.
struct Mesh {
    domain: &'static str,
    pin: String,
    control: Running,
    world: World,
}

impl Mesh {
    #[track_caller]
    fn new(domain: &'static str, flags: &[String]) -> Self {
        let world = World::new();
        let init = ["init", "--trust-domain", domain, "-o", "json"];
        let pin = world.admin(&init).json()["pin"]
            .as_str()
            .unwrap()
            .to_owned();
        let mut args = world.control_args("127.0.0.1:0");
        args.push("--bundle-listen=127.0.0.1:0".to_owned());
        args.push("--bundle-refresh=1s".to_owned());
        args.extend_from_slice(flags);
        let control = world.start("control", &args);
        Self {
            domain,
            pin,
            control,
            world,
        }
    }

    #[track_caller]
    fn sidecar(&self, (name, service): (&str, &str), flags: &[String]) -> Running {
        let token = self.world.token(service, "10m");
        let at = self.control.addr("mesh").to_string();
        let mut args = self.world.sidecar_args(name, &at, &self.pin, &token);
        args.push(format!("--trust-domain={}", self.domain));
        args.extend_from_slice(flags);
        self.world.start(name, &args)
    }

    #[track_caller]
    fn apply(&self, yaml: &str) {
        let file = self.world.file("resource.yaml", yaml);
        self.world.admin(&["apply", "-f", &file, "--wait"]).ok();
    }

    /// The own trust bundle, as others take it in.
    #[track_caller]
    fn bundle(&self) -> String {
        let shown = self.world.admin(&["federation", "bundle"]);
        shown.ok().stdout.clone()
    }

    fn url(&self) -> String {
        format!("https://localhost:{}/", self.control.addr("bundle").port())
    }

    /// Accepts the other mesh by `https_spiffe`.
    #[track_caller]
    fn accept(&self, other: &Self) {
        let bundle = other.bundle();
        let file = self.world.file("other.json", &bundle);
        let (domain, url) = (other.domain, other.url());
        let added = [
            "federation",
            "add",
            domain,
            "--url",
            &url,
            "--bundle",
            &file,
        ];
        let added = self.world.admin(&added);
        assert!(added.ok().stdout.contains("is accepted"), "{added:?}");
    }

    /// What is known of the other mesh.
    #[track_caller]
    fn relation(&self) -> serde_json::Value {
        let list = self.world.admin(&["federation", "list", "-o", "json"]);
        list.json()[0].clone()
    }
}

#[test]
fn two_meshes_call_each_other_under_policy_while_a_root_is_rotated() {
    let (home, partner) = (Mesh::new(HOME, &[]), Mesh::new(PARTNER, &[]));
    let app = partner.world.app("invoices");
    let flags = [
        format!("--app={}", app.addr("http")),
        format!("--app=tcp/5432={}", app.addr("tcp")),
    ];
    let invoices = partner.sidecar(("invoices", "invoices"), &flags);
    let orders = home.sidecar(
        ("orders", "orders"),
        &["--tcp-listen=127.0.0.1:0=invoices.partner:5432".to_owned()],
    );
    let outbound = orders.addr("outbound");
    let ask = || get(outbound, "invoices.partner", "/echo").expect("a reply of the sidecar");
    partner.apply(&policy("*"));
    home.apply(&format!(
        "\
apiVersion: weft.dev/v1
kind: ServiceEntry
metadata: {{name: invoices, namespace: partner}}
spec:
  identity: spiffe://{PARTNER}/ns/default/sa/invoices
  ports: [{{port: 80}}, {{port: 5432, protocol: tcp}}]
  endpoints: [{{address: '{}'}}]
",
        invoices.addr("mesh")
    ));

    // Neither knows the other: there is no connection at all.
    let stranger = ask();
    assert_eq!(stranger.status, 503, "{stranger:?}");
    home.accept(&partner);
    partner.accept(&home);
    // Authenticated is not allowed, also not by '*' or by a namespace of the same name.
    let refused = eventually("the meshes to connect", || {
        let reply = ask();
        (reply.status != 503).then_some(reply)
    });
    assert_eq!(refused.status, 403, "{refused:?}");
    partner.apply(&policy(&format!("spiffe://{HOME}/ns/default/sa/orders")));
    let reply = ask();
    assert_eq!(reply.status, 200, "{reply:?}");
    for seen in [
        format!("By=spiffe://{PARTNER}/ns/default/sa/invoices"),
        format!("URI=spiffe://{HOME}/ns/default/sa/orders"),
    ] {
        assert!(reply.body.contains(&seen), "{seen} in {reply:?}");
    }

    let listener = orders.ready["tcp"][0].as_str().unwrap();
    let connect = || {
        let tunnel = TcpStream::connect(listener).unwrap();
        tunnel.set_read_timeout(Some(SOON)).unwrap();
        tunnel
    };

    let mut tunnel = connect();
    tunnel.write_all(b"hello, ").unwrap();
    // Everything that certifies the partner is replaced, root included, under load.
    let before = home.relation()["sequence"].as_u64().unwrap();
    let rotate: Vec<String> = ["ca", "rotate", "root"]
        .map(str::to_owned)
        .into_iter()
        .chain([format!(
            "--state-dir={}",
            partner.world.control_dir().display()
        )])
        .collect();
    let rotating = std::thread::spawn(move || run(&mut weft(rotate)));
    // While `over` says no, and for a while after, nothing fails.
    let calls_through = |over: &dyn Fn(&serde_json::Value) -> bool| {
        let deadline = Instant::now() + SOON;
        let mut after = 0;
        while after < 100 {
            let reply = ask();
            assert_eq!(reply.status, 200, "{reply:?}");
            let relation = home.relation();
            assert!(Instant::now() < deadline, "it does not end: {relation}");
            after += u32::from(over(&relation));
        }
    };
    calls_through(&|relation| {
        rotating.is_finished() && relation["sequence"].as_u64() > Some(before)
    });
    rotating.join().unwrap().ok();
    // The application answers with all that it got, at the end.
    tunnel.write_all(b"still here").unwrap();
    tunnel.shutdown(std::net::Shutdown::Write).unwrap();
    let mut echo = String::new();
    tunnel.read_to_string(&mut echo).unwrap();
    assert_eq!(echo, "hello, still here", "one tunnel through it all");
    // Then the old root goes.
    partner.world.admin(&["ca", "rotate", "root", "--now"]).ok();
    calls_through(&|relation| relation["roots"] == 1);
    // A sidecar that meets the partner for the first time trusts the new root.
    let late = home.sidecar(("late", "orders"), &[]);
    let reply = get(late.addr("outbound"), "invoices.partner", "/echo").unwrap();
    assert_eq!(reply.status, 200, "{reply:?}");

    // The end of a federation cuts what it vouched for.
    let mut tunnel = connect();
    tunnel.write_all(b"of no use").unwrap();
    let removed = home.world.admin(&["federation", "remove", PARTNER]);
    removed.ok();
    let cut = tunnel.read(&mut [0; 16]);
    assert!(
        matches!(&cut, Err(error) if error.kind() == std::io::ErrorKind::ConnectionReset),
        "the tunnel is cut: {cut:?}"
    );
    let reply = ask();
    assert_eq!(reply.status, 503, "{reply:?}");
    let audit = home.world.admin(&["ca", "audit", "-o", "json"]).json();
    let events: Vec<_> = audit
        .as_array()
        .unwrap()
        .iter()
        .map(|r| r["event"].clone())
        .collect();
    for event in [
        "federation.added",
        "federation.bundle",
        "federation.removed",
    ] {
        assert!(
            events.iter().any(|seen| seen == event),
            "{event} in {events:?}"
        );
    }
}

/// A certificate for `localhost` by an authority of the test: certificate, key, authority.
fn web_certificate(world: &World) -> [String; 3] {
    let path = |name: &str| world.path(name).to_str().unwrap().to_owned();
    let [cert, key, ca, ca_key] = ["web.pem", "web.key", "web-ca.pem", "web-ca.key"].map(path);
    let openssl = |args: &[&str]| {
        let made = Command::new("openssl")
            .args(args)
            .output()
            .expect("openssl runs");
        assert!(made.status.success(), "{args:?}: {made:?}");
    };
    let new = [
        "req",
        "-x509",
        "-newkey",
        "ec",
        "-pkeyopt",
        "ec_paramgen_curve:P-256",
        "-nodes",
    ];
    openssl(
        &[
            &new[..],
            &["-subj", "/CN=Test", "-keyout", &ca_key, "-out", &ca],
        ]
        .concat(),
    );
    let names = "subjectAltName=DNS:localhost";
    let signed = [
        "-CA",
        &ca,
        "-CAkey",
        &ca_key,
        "-addext",
        names,
        "-addext",
        "basicConstraints=CA:FALSE",
    ];
    let files = ["-subj", "/CN=localhost", "-keyout", &key, "-out", &cert];
    openssl(&[&new[..], &signed, &files].concat());
    [cert, key, ca]
}

#[test]
fn a_bundle_is_served_and_fetched_by_a_certificate_of_the_web() {
    let files = World::new();
    let [cert, key, ca] = web_certificate(&files);
    let flags = [
        format!("--bundle-cert={cert}"),
        format!("--bundle-key={key}"),
    ];
    let (home, partner) = (Mesh::new(HOME, &[]), Mesh::new(PARTNER, &flags));
    let url = partner.url();

    // Any client reads it: no client certificate, plain JSON, the hint of the settings.
    let curl = |extra: &[&str]| {
        let got = Command::new("curl")
            .args(["-s", "-i", "--cacert", &ca, &url])
            .args(extra)
            .output();
        String::from_utf8(got.expect("curl runs").stdout).unwrap()
    };
    let served = curl(&[]);
    assert!(served.starts_with("HTTP/1.1 200"), "{served}");
    assert!(
        served.contains("content-type: application/json"),
        "{served}"
    );
    let (_, body) = served.split_once("\r\n\r\n").unwrap();
    let bundle: serde_json::Value = serde_json::from_str(body).unwrap();
    assert_eq!(bundle["spiffe_refresh_hint"], 1, "{bundle}");
    assert!(curl(&["-X", "POST"]).starts_with("HTTP/1.1 405"));
    assert!(curl(&["--path-as-is", "--request-target", "/x"]).starts_with("HTTP/1.1 404"));

    let add = |extra: &[&str]| {
        let args = [
            "federation",
            "add",
            PARTNER,
            "--url",
            &url,
            "--profile",
            "https_web",
        ];
        home.world.admin(&[&args[..], extra].concat())
    };
    // This machine's authorities do not know the test's; the relation is kept, and told with its failure.
    add(&[]).fails_with(&["fetch the bundle", "tried again"]);
    assert_eq!(home.relation()["sequence"], serde_json::Value::Null);
    assert!(
        home.relation()["failed"]["reason"]
            .as_str()
            .unwrap()
            .contains(&url)
    );
    add(&["--ca", &ca]).ok();
    assert_eq!(home.relation()["roots"], 1);

    // The same place cannot show the partner's SVID, so it is not believed by https_spiffe.
    let own = partner.bundle();
    let own = home.world.file("partner.json", &own);
    let args = [
        "federation",
        "add",
        PARTNER,
        "--url",
        &url,
        "--bundle",
        &own,
    ];
    home.world.admin(&args).fails_with(&["fetch the bundle"]);
}

#[test]
fn what_cannot_be_a_federation_is_refused() {
    let (home, partner) = (Mesh::new(HOME, &[]), Mesh::new(PARTNER, &[]));
    let bundle = partner.bundle();
    let bundle = home.world.file("partner.json", &bundle);
    let add = |args: &[&str]| home.world.admin(&[&["federation", "add"], args].concat());
    let url = partner.url();
    add(&[HOME, "--url", &url]).fails_with(&["this mesh itself"]);
    add(&[PARTNER, "--url", "http://x/"]).fails_with(&["https://"]);
    add(&[PARTNER, "--url", "https://me@x/"]).fails_with(&["user information"]);
    add(&[PARTNER, "--url", &url]).fails_with(&["--bundle", "weft federation bundle"]);
    add(&[PARTNER, "--url", &url, "--bundle", "/does/not/exist"]).fails_with(&["/does/not/exist"]);
    home.world
        .admin(&["federation", "remove", PARTNER])
        .fails_with(&["weft federation list"]);
    assert_eq!(
        home.relation(),
        serde_json::Value::Null,
        "nothing of it was kept"
    );

    // Another identity than the one that was told; then the right one.
    let id = format!("spiffe://{PARTNER}/ns/default/sa/invoices");
    add(&[
        PARTNER,
        "--url",
        &url,
        "--bundle",
        &bundle,
        "--endpoint-id",
        &id,
    ])
    .fails_with(&["fetch the bundle", &id]);
    add(&[PARTNER, "--url", &url, "--bundle", &bundle]).ok();
    // A partner that is down changes nothing: the last bundle stays, and the list says since when.
    drop(partner.control);
    home.world
        .admin(&["federation", "refresh", PARTNER])
        .fails_with(&[&url]);
    assert_eq!(home.relation()["roots"], 1);
    let listed = home.world.admin(&["federation", "list"]);
    assert!(listed.ok().stdout.contains("refused"), "{listed:?}");
}
