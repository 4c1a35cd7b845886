//! `x-forwarded-client-cert`: tells the application who called, in the form that Envoy made common.

use http::HeaderValue;
use weft_certs::{PeerIdentity, SpiffeId};

/// The field's name. What a caller sends under it is dropped: it would be a claim, this is a proof.
pub(crate) const HEADER: &str = "x-forwarded-client-cert";

/// One element: `By` (own identity), `Hash` (of the caller's leaf), `Subject` (empty: an X509-SVID's name
/// is its URI), `URI` (the caller's identity).
///
/// Neither identity needs quoting: SPIFFE-ID §2 allows no `,`, `;`, `=` or `"` in an ID.
pub(crate) fn element(own: &SpiffeId, caller: &PeerIdentity) -> HeaderValue {
    let text = format!(
        "By={own};Hash={};Subject=\"\";URI={}",
        caller.fingerprint, caller.id
    );
    HeaderValue::try_from(text).expect("SPIFFE IDs and hexadecimal digits are visible ASCII")
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::UNIX_EPOCH;

    #[test]
    fn names_own_identity_and_the_callers_with_its_hash() {
        let own = SpiffeId::parse("spiffe://weft.local/ns/default/sa/invoices").unwrap();
        let caller = PeerIdentity {
            id: SpiffeId::parse("spiffe://weft.local/ns/default/sa/orders").unwrap(),
            serial: "01".to_owned(),
            not_after: UNIX_EPOCH,
            fingerprint: "ab".repeat(32),
        };
        assert_eq!(
            element(&own, &caller),
            format!(
                "By=spiffe://weft.local/ns/default/sa/invoices;Hash={};Subject=\"\";URI=spiffe://weft.local/ns/default/sa/orders",
                "ab".repeat(32)
            )
        );
    }
}
