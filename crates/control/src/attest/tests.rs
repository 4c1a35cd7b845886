use std::net::SocketAddr;
use std::time::Duration;

use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::signature::{ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, KeyPair};
use base64::Engine;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use rcgen::{BasicConstraints, CertificateParams, DnType, IsCa, Issuer, KeyUsagePurpose, SanType};
use serde_json::{Value, json};
use weft_certs::{JoinStatement, MachineIdentity, TrustDomain};
use weft_wire::{JoinRequest, JoinResponse, MachineProof};

use super::*;
use crate::admin::types::{ReadmitRequest, RevokeRequest};
use crate::issue::{CaService, join_attested, readmit, revoke};
use crate::time::unix_s;

const FILE: &str = r#"
x509pop:
- name: machines
  caFile: machines.pem
  rules:
  - dns: "{service}.hosts.example"
    identity: {namespace: default}
k8s:
- name: cluster
  jwksFile: keys.json
  issuer: https://cluster
  audience: weft
  rules:
  - {namespace: default, serviceAccount: invoices}
"#;

/// An authority of the mesh, an authority of machines, and a cluster.
struct Bench {
    env: Env,
    ca: CaService,
    dir: tempfile::TempDir,
    attestors: Attestors,
    machines: (rcgen::Certificate, rcgen::KeyPair),
    cluster: EcdsaKeyPair,
    remote: SocketAddr,
}

impl Bench {
    async fn new() -> Self {
        let (env, dir) = (Env::system(), tempfile::tempdir().unwrap());
        let (_, ca) = crate::testing::authority(&env, dir.path()).await;
        let key = rcgen::KeyPair::generate().unwrap();
        let mut params = CertificateParams::default();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign];
        let root = params.self_signed(&key).unwrap();
        let cluster = EcdsaKeyPair::generate(&ECDSA_P256_SHA256_FIXED_SIGNING).unwrap();
        let (x, y) = cluster.public_key().as_ref()[1..].split_at(32);
        let b64 = |bytes| URL_SAFE_NO_PAD.encode::<&[u8]>(bytes);
        let jwk = json!({"kid": "1", "kty": "EC", "crv": "P-256", "x": b64(x), "y": b64(y)});
        let file = dir.path().join("attest.yaml");
        std::fs::write(&file, FILE).unwrap();
        std::fs::write(dir.path().join("machines.pem"), root.pem()).unwrap();
        let jwks = json!({"keys": [jwk]}).to_string();
        std::fs::write(dir.path().join("keys.json"), jwks).unwrap();
        let attestors = Attestors::load(&env, Some(&file)).await.unwrap();
        Self {
            env,
            ca,
            dir,
            attestors,
            machines: (root, key),
            cluster,
            remote: "127.0.0.1:1".parse().unwrap(),
        }
    }

    /// A machine of this name.
    fn machine(&self, dns: &str) -> MachineIdentity {
        let key = rcgen::KeyPair::generate().unwrap();
        let mut params = CertificateParams::default();
        params.distinguished_name.push(DnType::CommonName, "host");
        let name = dns.try_into().unwrap();
        params.subject_alt_names = vec![SanType::DnsName(name)];
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        let issuer = Issuer::from_ca_cert_der(self.machines.0.der(), &self.machines.1).unwrap();
        let leaf = params.signed_by(&key, &issuer).unwrap();
        MachineIdentity::from_pem(leaf.pem().as_bytes(), key.serialize_pem().as_bytes()).unwrap()
    }

    async fn challenge(&self) -> String {
        self.attestors.challenge().await.unwrap().challenge
    }

    fn proof(&self, machine: &MachineIdentity, challenge: &str, csr: &[u8]) -> MachineProof {
        let authority = self.ca.authority();
        let domain = TrustDomain::parse("weft.local").unwrap();
        let pin = authority.pin().unwrap();
        let statement = JoinStatement {
            trust_domain: &domain,
            pin: &pin,
            challenge,
            csr,
        };
        MachineProof {
            chain: machine
                .chain()
                .iter()
                .map(|der| STANDARD.encode(der))
                .collect(),
            pin: pin.to_string(),
            challenge: challenge.to_owned(),
            signature: STANDARD.encode(machine.prove(&statement).unwrap()),
        }
    }

    fn token(&self, changes: &[(&str, Value)]) -> Attestation {
        let now = unix_s(self.env.wall());
        let mut claims = json!({
            "iss": "https://cluster", "aud": ["weft"], "iat": now, "exp": now + 600,
            "sub": "system:serviceaccount:default:invoices",
            "kubernetes.io": {
                "namespace": "default", "serviceaccount": {"name": "invoices"},
                "pod": {"name": "invoices-1", "uid": "u-1"},
            },
        });
        for (name, value) in changes {
            claims[*name] = value.clone();
        }
        let part = |json: Value| URL_SAFE_NO_PAD.encode(json.to_string());
        let signed = format!(
            "{}.{}",
            part(json!({"alg": "ES256", "kid": "1"})),
            part(claims)
        );
        let signature = self.cluster.sign(&SystemRandom::new(), signed.as_bytes());
        let signature = URL_SAFE_NO_PAD.encode(signature.unwrap().as_ref());
        Attestation::K8s {
            token: format!("{signed}.{signature}\n"),
        }
    }

    async fn join(&self, attestation: Attestation, csr: &[u8]) -> Result<JoinResponse, String> {
        let request = JoinRequest {
            csr: STANDARD.encode(csr),
            attestation: Some(attestation.clone()),
            ..JoinRequest::default()
        };
        let now = self.env.wall();
        let joined = join_attested(
            &self.ca,
            &self.attestors,
            &request,
            &attestation,
            self.remote,
            now,
        );
        joined.await.map_err(|reject| reject.problem.code)
    }

    /// The audit log's events of attestation, in order.
    async fn recorded(&self) -> Vec<weft_ca::audit::Event> {
        let page = self.ca.audit().page(0).await.unwrap();
        let events = page.records.into_iter().map(|record| record.event);
        events
            .filter(|event| event.event.starts_with("attestation."))
            .collect()
    }
}

fn csr() -> Vec<u8> {
    weft_ca::make_csr(None).unwrap().csr
}

#[tokio::test]
async fn a_machine_joins_once_for_each_challenge_and_for_the_key_that_it_signed() {
    let bench = Bench::new().await;
    let (machine, csr, challenge) = (
        bench.machine("invoices.hosts.example"),
        csr(),
        bench.challenge().await,
    );
    let proof = bench.proof(&machine, &challenge, &csr);
    // Somebody in between would have another key certified.
    let relayed = bench
        .join(Attestation::X509Pop(proof.clone()), &self::csr())
        .await;
    assert_eq!(relayed.unwrap_err(), "machine_bad_proof");
    bench
        .join(Attestation::X509Pop(proof.clone()), &csr)
        .await
        .unwrap();
    let again = bench.join(Attestation::X509Pop(proof.clone()), &csr).await;
    assert_eq!(again.unwrap_err(), "challenge_used");
    let made_up = MachineProof {
        challenge: "AAAA".to_owned(),
        ..proof.clone()
    };
    let made_up = bench.join(Attestation::X509Pop(made_up), &csr).await;
    assert_eq!(made_up.unwrap_err(), "challenge_unknown");

    let fresh = bench.challenge().await;
    let of_another_mesh = MachineProof {
        pin: RootPin::from([7; 32]).to_string(),
        ..bench.proof(&machine, &fresh, &csr)
    };
    let of_another_mesh = bench
        .join(Attestation::X509Pop(of_another_mesh), &csr)
        .await;
    assert_eq!(of_another_mesh.unwrap_err(), "wrong_pin");

    let events = bench.recorded().await;
    let accepted: Vec<_> = events
        .iter()
        .filter(|event| event.event == "attestation.accepted")
        .collect();
    assert_eq!(accepted.len(), 1);
    assert_eq!(
        accepted[0].subject,
        "spiffe://weft.local/ns/default/sa/invoices"
    );
    assert_eq!(accepted[0].detail["kind"], "x509pop");
    assert_eq!(accepted[0].detail["attestor"], "machines");
    assert_eq!(accepted[0].detail["dns"], "invoices.hosts.example");
    assert!(accepted[0].detail["certificate"].starts_with("sha256:"));
    let refused = events.iter().filter(|e| e.event == "attestation.refused");
    let codes: Vec<&str> = refused.map(|e| e.detail["code"].as_str()).collect();
    assert_eq!(
        codes,
        [
            "machine_bad_proof",
            "challenge_used",
            "challenge_unknown",
            "wrong_pin"
        ]
    );
}

#[tokio::test]
async fn a_machine_that_no_rule_names_or_that_is_reserved_gets_nothing() {
    let bench = Bench::new().await;
    let csr = csr();
    let challenge = bench.challenge().await;
    let stranger = bench.machine("db.elsewhere.example");
    let proof = bench.proof(&stranger, &challenge, &csr);
    let refused = bench.join(Attestation::X509Pop(proof), &csr).await;
    assert_eq!(refused.unwrap_err(), "no_rule");
    let event = bench.recorded().await.pop().unwrap();
    assert_eq!(event.detail["dns"], "db.elsewhere.example");
    let none = Attestors::load(&bench.env, None).await.unwrap();
    assert_eq!(
        none.challenge().await.unwrap_err().problem.code,
        "attestation_off"
    );
    let occasion = Occasion {
        bundle: &bench.ca.authority().bundle(),
        csr: &csr,
        now: bench.env.wall(),
    };
    for attestation in [bench.token(&[]), Attestation::Unknown] {
        none.attest(&attestation, &occasion).await.unwrap_err();
    }
}

#[tokio::test]
async fn what_is_revoked_stays_out_whatever_vouches_for_it() {
    let bench = Bench::new().await;
    let (machine, csr) = (bench.machine("invoices.hosts.example"), csr());
    let by_machine = async || {
        let challenge = bench.challenge().await;
        let proof = bench.proof(&machine, &challenge, &csr);
        bench.join(Attestation::X509Pop(proof), &csr).await
    };
    let id = "spiffe://weft.local/ns/default/sa/invoices";
    let identity = RevokeRequest {
        spiffe_id: Some(id.to_owned()),
        ..RevokeRequest::default()
    };
    let old = bench.token(&[("iat", json!(unix_s(bench.env.wall()) - 5))]);
    bench.join(old.clone(), &csr).await.unwrap();
    revoke(&bench.ca, &identity, "uid 0").await.unwrap();
    assert_eq!(by_machine().await.unwrap_err(), "revoked");
    assert_eq!(bench.join(old.clone(), &csr).await.unwrap_err(), "revoked");

    let request = ReadmitRequest {
        spiffe_id: id.to_owned(),
    };
    readmit(&bench.ca, &request, "uid 0").await.unwrap();
    let csr = self::csr();
    assert_eq!(
        bench.join(old, &csr).await.unwrap_err(),
        "old_proof",
        "what it had before stays dead"
    );
    let ahead = unix_s(bench.env.wall()) + 20;
    bench
        .join(bench.token(&[("iat", json!(ahead))]), &csr)
        .await
        .unwrap();

    let pin = RootPin::of(&machine.chain()[0]).unwrap();
    let key = RevokeRequest {
        key: Some(pin.to_string()),
        ..RevokeRequest::default()
    };
    revoke(&bench.ca, &key, "uid 0").await.unwrap();
    assert_eq!(by_machine().await.unwrap_err(), "revoked_key");
}

#[tokio::test]
async fn only_service_accounts_of_the_rules_join_and_the_log_says_of_which_pod() {
    let bench = Bench::new().await;
    let csr = csr();
    bench.join(bench.token(&[]), &csr).await.unwrap();
    bench.join(bench.token(&[]), &csr).await.unwrap();
    let other = json!({
        "namespace": "default", "serviceaccount": {"name": "default"},
        "pod": {"name": "x", "uid": "u-2"},
    });
    let sub = json!("system:serviceaccount:default:default");
    let unlisted = bench.token(&[("kubernetes.io", other), ("sub", sub)]);
    assert_eq!(bench.join(unlisted, &csr).await.unwrap_err(), "no_rule");
    let elsewhere = bench.token(&[("aud", json!(["vault"]))]);
    assert_eq!(
        bench.join(elsewhere, &csr).await.unwrap_err(),
        "account_audience"
    );
    let Attestation::K8s { token } = bench.token(&[]) else {
        unreachable!("a token is of a cluster");
    };
    let events = bench.recorded().await;
    assert_eq!(events[0].detail["pod_uid"], "u-1");
    assert_eq!(events[0].detail["attestor"], "cluster");
    assert_eq!(events[2].detail["service_account"], "default");
    let log = serde_json::to_string(&events).unwrap();
    assert!(!log.contains(&token[..40]), "the token itself is a secret");
}

#[tokio::test]
async fn a_change_of_the_file_is_in_force_soon_and_a_broken_one_lets_nobody_in() {
    let bench = Bench::new().await;
    let csr = csr();
    let file = bench.dir.path().join("attest.yaml");
    let until = async |code: &str| {
        let looked = async {
            let mut look = tokio::time::interval(Duration::from_millis(20));
            loop {
                look.tick().await;
                let said = bench.join(bench.token(&[]), &csr).await;
                if said.map_or_else(|code| code, |_| "joined".to_owned()) == code {
                    break;
                }
            }
        };
        tokio::time::timeout(Duration::from_secs(20), looked)
            .await
            .unwrap_or_else(|_| panic!("{code} in time"));
    };
    until("joined").await;
    std::fs::write(&file, "k8s: [").unwrap();
    until("attestors_unusable").await;
    std::fs::write(&file, FILE.replace("invoices", "orders")).unwrap();
    until("no_rule").await;
    std::fs::write(&file, FILE).unwrap();
    until("joined").await;
}

#[tokio::test]
async fn a_file_that_cannot_be_used_is_said_with_its_place() {
    let (env, dir) = (Env::system(), tempfile::tempdir().unwrap());
    let file = dir.path().join("attest.yaml");
    let said = async |text: &str| {
        std::fs::write(&file, text).unwrap();
        let error = Attestors::load(&env, Some(&file)).await.err().unwrap();
        error.to_string()
    };
    let machines = "x509pop: [{name: a, caFile: a.pem, rules: []}]";
    assert!(said(machines).await.contains("a.pem: no such file"));
    std::fs::write(dir.path().join("a.pem"), "nothing").unwrap();
    let error = said(machines).await;
    assert!(
        error.contains("a.pem of attestor a") && error.contains("CERTIFICATE"),
        "{error}"
    );
    let error = said("k8s: [{name: a}]").await;
    assert!(error.contains("attest.yaml:1:7: k8s[0]"), "{error}");
    assert!(error.contains("--attest"), "{error}");
}
