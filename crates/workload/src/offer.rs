//! What an entitled caller gets, from one state of the identity: pure.

use std::collections::BTreeMap;
use std::time::SystemTime;

use bytes::Bytes;
use weft_certs::{CertificateDer, Identity, VerifyError};
use zeroize::Zeroizing;

use crate::proto::secret;
use crate::proto::workload::{X509BundlesResponse, X509Svid, X509SvidResponse};

/// Why there is nothing to give out at the moment.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Withheld {
    /// Nobody accepts it any more: the workload is to stop using it too.
    #[error("the identity was revoked; an operator can readmit it with `weft cert readmit`")]
    Revoked,
    /// A new one may come.
    #[error("the sidecar's own certificate cannot be used at the moment: {0}")]
    Unusable(VerifyError),
}

/// Checks that the identity is good at `now`.
pub(crate) fn usable(identity: &Identity, now: SystemTime) -> Result<(), Withheld> {
    match identity.svid.validate(&identity.bundles, now) {
        Ok(()) => Ok(()),
        Err(VerifyError::Revoked { .. }) => Err(Withheld::Revoked),
        Err(other) => Err(Withheld::Unusable(other)),
    }
}

/// The SVID with the bundles. Each message is the whole state (Workload API §4.3).
pub(crate) fn x509_svid(identity: &Identity) -> X509SvidResponse {
    let svid = &identity.svid;
    let own = svid.id().trust_domain();
    let key = svid.private_key().secret_der();
    X509SvidResponse {
        svids: vec![X509Svid {
            spiffe_id: svid.id().to_string(),
            x509_svid: concatenated(svid.chain()),
            x509_svid_key: secret(Zeroizing::new(key.to_vec())),
            bundle: identity
                .bundles
                .get(own)
                .map_or_else(Bytes::new, |bundle| concatenated(&bundle.roots)),
            hint: String::new(),
        }],
        crl: Vec::new(),
        federated_bundles: roots(identity)
            .filter(|(domain, _)| domain != &own.id().to_string())
            .collect(),
    }
}

/// The roots of all trust domains, the own one among them.
pub(crate) fn x509_bundles(identity: &Identity) -> X509BundlesResponse {
    X509BundlesResponse {
        crl: Vec::new(),
        bundles: roots(identity).collect::<BTreeMap<_, _>>(),
    }
}

fn roots(identity: &Identity) -> impl Iterator<Item = (String, Bytes)> {
    identity.bundles.iter().map(|bundle| {
        let domain = bundle.trust_domain.id().to_string();
        (domain, concatenated(&bundle.roots))
    })
}

fn concatenated(ders: &[CertificateDer<'static>]) -> Bytes {
    let mut bytes = Vec::new();
    ders.iter().for_each(|der| bytes.extend_from_slice(der));
    bytes.into()
}
