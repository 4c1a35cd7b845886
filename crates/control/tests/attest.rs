//! A machine's proof as it travels: good once, whoever sends it.
#![allow(
    clippy::unwrap_used,
    clippy::disallowed_methods,
    reason = "a test with real sockets"
)]

mod support;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use rcgen::{BasicConstraints, CertificateParams, IsCa, Issuer, KeyPair, KeyUsagePurpose, SanType};
use serde_json::json;
use support::Control;
use support::sidecar::{Failed, ask, call};
use weft_ca::make_csr;
use weft_certs::{JoinStatement, MachineIdentity, SpiffeId, TrustDomain};
use weft_transport::{Connection, JoinConfig, KeyExchange, join_connection};
use weft_wire::{
    Attestation, ChallengeResponse, JoinRequest, MachineProof, PATH_CHALLENGE, PATH_JOIN,
};

const FILE: &str = r#"
x509pop:
- name: machines
  caFile: machines.pem
  rules: [{dns: "{service}.hosts.example", identity: {namespace: default}}]
"#;

/// The folder of the rules, and a machine that they name.
fn machine() -> (tempfile::TempDir, MachineIdentity) {
    let dir = tempfile::tempdir().unwrap();
    let (root_key, key) = (KeyPair::generate().unwrap(), KeyPair::generate().unwrap());
    let mut root = CertificateParams::default();
    root.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    root.key_usages = vec![KeyUsagePurpose::KeyCertSign];
    let root = root.self_signed(&root_key).unwrap();
    let mut leaf = CertificateParams::default();
    let name = "invoices.hosts.example".try_into().unwrap();
    leaf.subject_alt_names = vec![SanType::DnsName(name)];
    leaf.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    let issuer = Issuer::from_ca_cert_der(root.der(), &root_key).unwrap();
    let leaf = leaf.signed_by(&key, &issuer).unwrap().pem();
    std::fs::write(dir.path().join("machines.pem"), root.pem()).unwrap();
    std::fs::write(dir.path().join("attest.yaml"), FILE).unwrap();
    let machine = MachineIdentity::from_pem(leaf.as_bytes(), key.serialize_pem().as_bytes());
    (dir, machine.unwrap())
}

async fn dial(control: &Control) -> Connection {
    let config = JoinConfig {
        pin: control.pin(),
        expected: SpiffeId::parse("spiffe://weft.local/ns/weft-system/sa/control").unwrap(),
        key_exchange: KeyExchange::Preferred,
        fallback: true,
    };
    join_connection(&control.env, &control.tasks, control.ready.mesh, &config)
        .await
        .unwrap()
}

fn code(refused: Failed) -> (u16, String) {
    match refused {
        Failed::Refused(status, problem) => (status, problem.code),
        other => panic!("expected a refusal, saw {other:?}"),
    }
}

#[tokio::test]
async fn a_proof_that_is_sent_again_or_for_another_key_is_refused() {
    let (dir, machine) = machine();
    let file = dir.path().join("attest.yaml");
    let control = Control::start_with(|config| config.attest = Some(file)).await;
    let joiner = dial(&control).await;
    let asked: ChallengeResponse = ask(&joiner, PATH_CHALLENGE, &json!({})).await.unwrap();
    let (domain, pin) = (TrustDomain::parse("weft.local").unwrap(), control.pin());
    let csr = make_csr(None).unwrap().csr;
    let statement = JoinStatement {
        trust_domain: &domain,
        pin: &pin,
        challenge: &asked.challenge,
        csr: &csr,
    };
    let request = |csr: &[u8]| JoinRequest {
        csr: STANDARD.encode(csr),
        attestation: Some(Attestation::X509Pop(MachineProof {
            chain: vec![STANDARD.encode(&machine.chain()[0])],
            pin: pin.to_string(),
            challenge: asked.challenge.clone(),
            signature: STANDARD.encode(machine.prove(&statement).unwrap()),
        })),
        ..JoinRequest::default()
    };
    let thief = dial(&control).await;
    let own = make_csr(None).unwrap().csr;
    let refused = call(&thief, PATH_JOIN, &request(&own)).await.unwrap_err();
    assert_eq!(code(refused), (401, "machine_bad_proof".to_owned()));
    call(&joiner, PATH_JOIN, &request(&csr)).await.unwrap();
    for connection in [&joiner, &thief] {
        let again = call(connection, PATH_JOIN, &request(&csr)).await;
        let refused = code(again.unwrap_err());
        assert_eq!(refused, (409, "challenge_used".to_owned()));
    }
    let mut both = request(&csr);
    both.token = "weft-join-0".to_owned();
    let refused = call(&joiner, PATH_JOIN, &both).await.unwrap_err();
    assert_eq!(code(refused), (400, "two_proofs".to_owned()));
    control.stop().await;
}
