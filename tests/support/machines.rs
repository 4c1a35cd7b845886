//! Certificates of machines, made by openssl in the folder of a world.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::process::Command;

use crate::support::World;

/// Who joins without a token: machines of `machines-ca.pem` and pods of the cluster of `cluster-a.json`.
pub(crate) const RULES: &str = r#"
x509pop:
- name: machines
  caFile: machines-ca.pem
  rules:
  - dns: "{service}.hosts.example"
    identity: {namespace: default}
k8s:
- name: cluster-a
  jwksFile: cluster-a.json
  issuer: https://kubernetes.default.svc
  audience: weft
  rules:
  - namespace: shop
    serviceAccount: orders
    identity: {namespace: default}
"#;

/// What openssl is told to make.
const OPENSSL: &str = "
[req]
distinguished_name = dn
prompt = no
[dn]
CN = of the tests
[ca]
basicConstraints = critical,CA:TRUE
keyUsage = critical,keyCertSign
subjectKeyIdentifier = hash
[invoices]
keyUsage = critical,digitalSignature
extendedKeyUsage = clientAuth
subjectAltName = DNS:invoices.hosts.example
[stranger]
keyUsage = critical,digitalSignature
subjectAltName = DNS:invoices.elsewhere.example
[mute]
keyUsage = critical,keyEncipherment
subjectAltName = DNS:invoices.hosts.example
";

/// Before anything else.
pub(crate) fn configure(world: &World) {
    world.file("openssl.cnf", OPENSSL);
}

#[track_caller]
fn openssl(world: &World, args: &str) {
    let mut command = Command::new("openssl");
    command.args(args.split(' ')).current_dir(world.dir.path());
    let ran = command.output().expect("openssl is installed");
    assert!(ran.status.success(), "openssl {args}: {ran:?}");
}

/// NAME.key and NAME.pem.
pub(crate) fn authority(world: &World, name: &str) {
    key(world, name, "EC");
    openssl(
        world,
        &format!(
            "req -x509 -new -config openssl.cnf -extensions ca -days 30 -key {name}.key -out {name}.pem"
        ),
    );
}

/// NAME.key, of a kind that openssl knows: EC, RSA, ED25519.
pub(crate) fn key(world: &World, name: &str, kind: &str) {
    let option = match kind {
        "EC" => " -pkeyopt ec_paramgen_curve:P-256",
        "RSA" => " -pkeyopt rsa_keygen_bits:2048",
        _ => "",
    };
    openssl(
        world,
        &format!("genpkey -algorithm {kind}{option} -out {name}.key"),
    );
    let mode = fs::Permissions::from_mode(0o600);
    fs::set_permissions(world.path(&format!("{name}.key")), mode).unwrap();
}

/// NAME.pem for NAME.key, signed by BY, with the extensions of this section.
pub(crate) fn issue(world: &World, name: &str, section: &str, by: &str, days: i32) {
    openssl(
        world,
        &format!("req -new -config openssl.cnf -key {name}.key -out {name}.csr"),
    );
    openssl(
        world,
        &format!(
            "x509 -req -in {name}.csr -CA {by}.pem -CAkey {by}.key -set_serial 7 -days {days} -extfile openssl.cnf -extensions {section} -out {name}.pem"
        ),
    );
}
