#![allow(clippy::unwrap_used)]

use super::*;

const FILE: &str = r#"
x509pop:
- name: machines
  caFile: machines.pem
  rules:
  - dns: "{service}.{namespace}.hosts.example"
  - uri: "urn:host:*:{service}"
    identity: {namespace: edge}
  - commonName: ledger-7
    identity: {namespace: prod, service: ledger}
  - key: sha256:00000000000000000000000000000000000000000000000000000000000000AA
    identity: {namespace: prod, service: vault}
k8s:
- name: cluster-a
  jwksFile: cluster-a.json
  issuer: https://kubernetes.default.svc
  audience: weft
  rules:
  - namespace: shop
    serviceAccount: invoices
  - namespace: "*"
    serviceAccount: worker
    identity: {namespace: jobs, service: "{namespace}-worker"}
  - namespace: weft-system
    serviceAccount: "*"
"#;

fn read(text: &str) -> Attestors {
    parse_attestors(text, "attest.yaml").unwrap()
}

fn machine(dns: &[&str], uris: &[&str], cn: Option<&str>, key: &str) -> Result<String, Unmapped> {
    let own = |texts: &[&str]| texts.iter().map(|t| (*t).to_owned()).collect::<Vec<_>>();
    let (dns, uris) = (own(dns), own(uris));
    let names = MachineNames {
        uris: &uris,
        dns: &dns,
        common_name: cn,
        certificate: "sha256:bb",
        key,
    };
    read(FILE).x509pop[0].service(&names).map(|s| s.to_string())
}

#[test]
fn the_first_rule_that_fits_decides_what_a_machine_is() {
    let ok = |text: &str| Ok(text.to_owned());
    assert_eq!(
        machine(&["db.prod.hosts.example"], &[], Some("ledger-7"), ""),
        ok("db.prod")
    );
    assert_eq!(
        machine(&[], &["urn:host:4:gate"], None, ""),
        ok("gate.edge")
    );
    assert_eq!(
        machine(&["x"], &[], Some("ledger-7"), ""),
        ok("ledger.prod")
    );
    let key = format!("sha256:{}aa", "0".repeat(62));
    assert_eq!(machine(&[], &[], None, &key), ok("vault.prod"));
}

#[test]
fn who_fits_no_rule_or_several_services_gets_nothing() {
    assert!(matches!(
        machine(&["db.hosts.example"], &[], Some("ledger-77"), "sha256:aa"),
        Err(Unmapped::NoRule { .. })
    ));
    let two = ["a.prod.hosts.example", "b.prod.hosts.example"];
    assert!(matches!(
        machine(&two, &[], None, ""),
        Err(Unmapped::Ambiguous { rule: 1, .. })
    ));
    let same = ["a.prod.hosts.example", "a.prod.hosts.example"];
    assert!(machine(&same, &[], None, "").is_ok());
    assert!(matches!(
        machine(&["a.weft-system.hosts.example"], &[], None, ""),
        Err(Unmapped::Reserved { rule: 1, .. })
    ));
    assert!(matches!(
        machine(&["-a.prod.hosts.example"], &[], None, ""),
        Err(Unmapped::NotAService { rule: 1, .. })
    ));
}

#[test]
fn only_service_accounts_that_a_rule_names_are_let_in() {
    let file = read(FILE);
    let service = |namespace: &str, account: &str| {
        let found = file.k8s[0].service(namespace, account);
        found.map(|service| service.to_string())
    };
    assert_eq!(service("shop", "invoices"), Ok("invoices.shop".to_owned()));
    assert_eq!(service("mail", "worker"), Ok("mail-worker.jobs".to_owned()));
    for (namespace, account) in [
        ("shop", "default"),
        ("shop2", "invoices"),
        ("shop", "invoices.x"),
    ] {
        assert!(matches!(
            service(namespace, account),
            Err(Unmapped::NoRule { .. })
        ));
    }
    assert!(matches!(
        service("weft-system", "control"),
        Err(Unmapped::Reserved { rule: 3, .. })
    ));
}

#[test]
fn the_example_of_the_documentation_is_one() {
    let text = include_str!("../../../../docs/ca.md");
    let mut blocks = text.split("```yaml\n").skip(1);
    let example = blocks.find(|block| block.starts_with("x509pop:")).unwrap();
    let file = read(example.split("```").next().unwrap());
    assert_eq!((file.x509pop.len(), file.k8s.len()), (1, 1));
    assert_eq!(
        file.k8s[0].service("mail", "worker").unwrap().to_string(),
        "mail-worker.jobs"
    );
}

#[test]
fn faults_are_named_with_their_place() {
    let machine =
        |rule: &str| format!("x509pop:\n- name: m\n  caFile: m.pem\n  rules:\n  - {rule}\n");
    let hash = format!("sha256:{}", "0".repeat(64));
    for (text, expected) in [
        ("- a\n".to_owned(), "is not one map"),
        ("x509: []\n".to_owned(), "unknown field 'x509': known are x509pop, k8s"),
        (machine("{}"), "5:5: x509pop[0].rules[0]: a rule names machines by one of"),
        (machine("{dns: a, uri: b, identity: {namespace: x, service: y}}"), "by one of"),
        (machine("{dns: '{service}.x'}"), "identity: namespace is missing"),
        (machine("{dns: '{pod}.x'}"), "the placeholders are"),
        (machine("{dns: a, identity: {namespace: x, service: '{service}'}}"), "does not match"),
        (machine("{dns: a, identity: {namespace: weft-system, service: y}}"), "reserved"),
        (machine("{dns: a, identity: {namespace: X, service: y}}"), "is not a name"),
        (machine("{key: 'sha256:1', identity: {namespace: x, service: y}}"), "64 hexadecimal"),
        (machine(&format!("{{key: '{hash}'}}")), "namespace is missing"),
        (
            "k8s:\n- {name: a, jwksFile: a, issuer: '', audience: w, rules: []}\n".to_owned(),
            "k8s[0].issuer: is empty",
        ),
        (
            "k8s:\n- {name: a, jwksFile: a, issuer: b, rules: []}\n".to_owned(),
            "audience",
        ),
        (
            "k8s:\n- {name: a, jwksFile: a, issuer: b, audience: w, rules: [{namespace: '{namespace}', serviceAccount: x}]}\n".to_owned(),
            "has a placeholder",
        ),
        (
            "x509pop:\n- {name: a, caFile: a, rules: []}\n- {name: a, caFile: a, rules: []}\n".to_owned(),
            "another attestor has this name",
        ),
    ] {
        let errors = parse_attestors(&text, "attest.yaml").unwrap_err();
        let said: Vec<String> = errors.iter().map(ToString::to_string).collect();
        assert!(said.iter().any(|s| s.contains(expected)), "{text}: {said:?}");
        assert!(said[0].starts_with("attest.yaml:"), "{said:?}");
    }
    assert_eq!(read("{}"), Attestors::default());
}
