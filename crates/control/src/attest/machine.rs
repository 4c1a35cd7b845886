//! `x509pop`: a machine's certificate of another authority, and a signature of our challenge by its key.

use std::sync::Mutex;
use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use http::StatusCode;
use weft_ca::Challenges;
use weft_certs::{
    CertificateDer, JoinStatement, Machine, MachineError, RootPin, check_proof, verify_machine,
};
use weft_resources::MachineNames;
use weft_wire::MachineProof;

use super::file::Machines;
use super::{Attested, Facts, Occasion, Refused, lock, shown, unmapped};
use crate::problem::Reject;

const KIND: &str = "x509pop";
/// Leaf, issuers and root.
const MAX_CHAIN: usize = 10;
/// Names of a certificate that are shown.
const NAMES_SHOWN: usize = 4;

/// What a proof is judged by.
pub(super) struct Seat<'a> {
    pub(super) attestors: &'a [Machines],
    pub(super) challenges: &'a Mutex<Challenges>,
    /// Since the challenges began.
    pub(super) since: Duration,
}

impl Seat<'_> {
    /// The cheap questions first; the challenge is used up once its signature is good.
    pub(super) fn judge(
        &self,
        proof: &MachineProof,
        occasion: &Occasion<'_>,
    ) -> Result<Attested, Refused> {
        lock(self.challenges)
            .check(&proof.challenge, self.since)
            .map_err(Reject::from)?;
        let chain = chain(proof)?;
        let (attestor, machine) = self.trusted(&chain, occasion)?;
        let mut facts = facts(&machine);
        facts.push(("attestor", attestor.rules.name.clone()));
        let refused = |reject: Reject| Refused {
            reject,
            facts: facts.clone(),
        };
        self.check_signature(proof, &chain[0], occasion)
            .map_err(&refused)?;
        let names = MachineNames {
            uris: &machine.uris,
            dns: &machine.dns,
            common_name: machine.common_name.as_deref(),
            certificate: &machine.fingerprint,
            key: &machine.key.to_string(),
        };
        let service = attestor.rules.service(&names).map_err(|error| {
            let who = format!("the machine ({})", describe(&machine));
            refused(unmapped(&error, &who))
        })?;
        Ok(Attested {
            service,
            key: Some(machine.key),
            issued: None,
            facts,
        })
    }

    /// The first attestor whose roots vouch for the chain; otherwise what the most forthcoming one says.
    fn trusted(
        &self,
        chain: &[CertificateDer<'static>],
        occasion: &Occasion<'_>,
    ) -> Result<(&Machines, Machine), Refused> {
        let mut worst = MachineError::UnknownAuthority;
        for attestor in self.attestors {
            match verify_machine(chain, &attestor.roots, occasion.now) {
                Ok(machine) => return Ok((attestor, machine)),
                Err(MachineError::UnknownAuthority) => {}
                Err(error) => worst = error,
            }
        }
        let facts = vec![
            ("kind", KIND.to_owned()),
            ("chain", format!("{} certificates", chain.len())),
        ];
        let reject = refusal(&worst);
        Err(Refused { reject, facts })
    }

    fn check_signature(
        &self,
        proof: &MachineProof,
        leaf: &CertificateDer<'_>,
        occasion: &Occasion<'_>,
    ) -> Result<(), Reject> {
        let pin = RootPin::parse(&proof.pin)
            .map_err(|error| Reject::bad_request("bad_pin", error.to_string()))?;
        if !occasion.bundle.has_pin(&pin) {
            return Err(Reject::new(
                StatusCode::UNAUTHORIZED,
                "wrong_pin",
                format!("{pin} is the pin of no root of this mesh: compare it with `weft ca show`"),
            ));
        }
        let statement = JoinStatement {
            trust_domain: &occasion.bundle.trust_domain,
            pin: &pin,
            challenge: &proof.challenge,
            csr: occasion.csr,
        };
        let signature = STANDARD
            .decode(&proof.signature)
            .map_err(|_| Reject::bad_request("bad_proof", "the signature is not base64"))?;
        check_proof(leaf, &statement, &signature).map_err(|error| refusal(&error))?;
        // Of two at the same time one fails: it is looked up and put down under one lock.
        lock(self.challenges)
            .redeem(&proof.challenge, self.since)
            .map_err(Reject::from)
    }
}

fn chain(proof: &MachineProof) -> Result<Vec<CertificateDer<'static>>, Reject> {
    if proof.chain.is_empty() || proof.chain.len() > MAX_CHAIN {
        return Err(Reject::bad_request(
            "machine_bad_chain",
            format!(
                "a machine sends 1 to {MAX_CHAIN} certificates: its own, then those of its issuers"
            ),
        ));
    }
    let chain = proof.chain.iter();
    chain
        .map(|text| STANDARD.decode(text).map(CertificateDer::from))
        .collect::<Result<_, _>>()
        .map_err(|_| Reject::bad_request("machine_malformed", "a certificate is not base64"))
}

/// The sentence with its next step.
fn refusal(error: &MachineError) -> Reject {
    let next = match error {
        MachineError::Malformed(_) => "name a file with certificates, the machine's own first",
        MachineError::Unfit(_) => {
            "issue one for this machine with key usage digitalSignature, that is no CA"
        }
        MachineError::UnknownAuthority => {
            "compare its issuer with the caFile of the attestors on the control node, and send the certificates between along"
        }
        MachineError::BadChain(_) => "issue one under an authority that may sign certificates",
        MachineError::Expired { .. } | MachineError::NotYetValid { .. } => {
            "renew it, or set the clock that is wrong"
        }
        _ => "join again with the key that belongs to the certificate",
    };
    Reject::new(
        StatusCode::UNAUTHORIZED,
        error.reason(),
        format!("{error}: {next}"),
    )
}

fn facts(machine: &Machine) -> Facts {
    let mut facts = vec![
        ("kind", KIND.to_owned()),
        ("certificate", machine.fingerprint.clone()),
        ("machine_key", machine.key.to_string()),
        ("serial", shown(&machine.serial)),
    ];
    if let Some(name) = &machine.common_name {
        facts.push(("common_name", shown(name)));
    }
    for (what, names) in [("dns", &machine.dns), ("uri", &machine.uris)] {
        if !names.is_empty() {
            let some: Vec<&str> = names.iter().take(NAMES_SHOWN).map(String::as_str).collect();
            facts.push((what, shown(&some.join(" "))));
        }
    }
    facts
}

/// Its names, or its hash if it has none.
fn describe(machine: &Machine) -> String {
    let names = machine.dns.iter().chain(&machine.uris);
    let names = names.chain(&machine.common_name);
    let some: Vec<String> = names.take(NAMES_SHOWN).map(|name| shown(name)).collect();
    match some.is_empty() {
        true => format!("certificate {}", machine.fingerprint),
        false => some.join(", "),
    }
}
