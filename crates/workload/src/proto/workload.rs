//! The SPIFFE Workload API. Its definition has no package.

use std::collections::BTreeMap;

use bytes::Bytes;
use zeroize::Zeroize;

/// Paths of the calls.
pub(crate) mod path {
    pub(crate) const PREFIX: &str = "/SpiffeWorkloadAPI/";
    pub(crate) const X509_SVID: &str = "/SpiffeWorkloadAPI/FetchX509SVID";
    pub(crate) const X509_BUNDLES: &str = "/SpiffeWorkloadAPI/FetchX509Bundles";
    pub(crate) const JWT_SVID: &str = "/SpiffeWorkloadAPI/FetchJWTSVID";
    pub(crate) const JWT_BUNDLES: &str = "/SpiffeWorkloadAPI/FetchJWTBundles";
    pub(crate) const VALIDATE_JWT_SVID: &str = "/SpiffeWorkloadAPI/ValidateJWTSVID";
}

#[derive(Clone, PartialEq, prost::Message)]
pub(crate) struct X509SvidRequest {}

#[derive(Clone, PartialEq, prost::Message)]
pub(crate) struct X509SvidResponse {
    #[prost(message, repeated, tag = "1")]
    pub(crate) svids: Vec<X509Svid>,
    #[prost(bytes = "bytes", repeated, tag = "2")]
    pub(crate) crl: Vec<Bytes>,
    /// Roots of other trust domains, by `spiffe://name`.
    #[prost(btree_map = "string, bytes", tag = "3")]
    pub(crate) federated_bundles: BTreeMap<String, Bytes>,
}

#[derive(Clone, PartialEq, prost::Message)]
pub(crate) struct X509Svid {
    #[prost(string, tag = "1")]
    pub(crate) spiffe_id: String,
    /// Certificates one behind the other, leaf first.
    #[prost(bytes = "bytes", tag = "2")]
    pub(crate) x509_svid: Bytes,
    /// PKCS#8.
    #[prost(bytes = "bytes", tag = "3")]
    pub(crate) x509_svid_key: Bytes,
    /// Roots one behind the other.
    #[prost(bytes = "bytes", tag = "4")]
    pub(crate) bundle: Bytes,
    #[prost(string, tag = "5")]
    pub(crate) hint: String,
}

/// [`X509SvidResponse`] as it is received: what holds a key is wiped.
#[derive(Clone, PartialEq, prost::Message)]
#[prost(skip_debug)]
pub(crate) struct ProvidedSvids {
    #[prost(message, repeated, tag = "1")]
    pub(crate) svids: Vec<ProvidedSvid>,
    #[prost(btree_map = "string, bytes", tag = "3")]
    pub(crate) federated_bundles: BTreeMap<String, Bytes>,
}

impl std::fmt::Debug for ProvidedSvids {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("ProvidedSvids(redacted)")
    }
}

/// [`X509Svid`] as it is received.
#[derive(Clone, PartialEq, prost::Message)]
#[prost(skip_debug)]
pub(crate) struct ProvidedSvid {
    #[prost(string, tag = "1")]
    pub(crate) spiffe_id: String,
    #[prost(bytes = "vec", tag = "2")]
    pub(crate) x509_svid: Vec<u8>,
    #[prost(bytes = "vec", tag = "3")]
    pub(crate) x509_svid_key: Vec<u8>,
    #[prost(bytes = "vec", tag = "4")]
    pub(crate) bundle: Vec<u8>,
}

impl std::fmt::Debug for ProvidedSvid {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("ProvidedSvid(redacted)")
    }
}

impl Drop for ProvidedSvid {
    fn drop(&mut self) {
        self.x509_svid_key.zeroize();
    }
}

#[derive(Clone, PartialEq, prost::Message)]
pub(crate) struct X509BundlesRequest {}

#[derive(Clone, PartialEq, prost::Message)]
pub(crate) struct X509BundlesResponse {
    #[prost(bytes = "bytes", repeated, tag = "1")]
    pub(crate) crl: Vec<Bytes>,
    /// Roots of each trust domain, by `spiffe://name`.
    #[prost(btree_map = "string, bytes", tag = "2")]
    pub(crate) bundles: BTreeMap<String, Bytes>,
}

#[derive(Clone, PartialEq, prost::Message)]
pub(crate) struct JwtSvidRequest {
    #[prost(string, repeated, tag = "1")]
    pub(crate) audience: Vec<String>,
    /// The identity that is wanted; empty: any.
    #[prost(string, tag = "2")]
    pub(crate) spiffe_id: String,
}

#[derive(Clone, PartialEq, prost::Message)]
pub(crate) struct JwtSvidResponse {
    #[prost(message, repeated, tag = "1")]
    pub(crate) svids: Vec<JwtSvid>,
}

#[derive(Clone, PartialEq, prost::Message)]
pub(crate) struct JwtSvid {
    #[prost(string, tag = "1")]
    pub(crate) spiffe_id: String,
    #[prost(string, tag = "2")]
    pub(crate) svid: String,
    #[prost(string, tag = "3")]
    pub(crate) hint: String,
}

#[derive(Clone, PartialEq, prost::Message)]
pub(crate) struct JwtBundlesRequest {}

#[derive(Clone, PartialEq, prost::Message)]
pub(crate) struct JwtBundlesResponse {
    /// JWK Sets, by `spiffe://name`.
    #[prost(btree_map = "string, bytes", tag = "1")]
    pub(crate) bundles: BTreeMap<String, Bytes>,
}

#[derive(Clone, PartialEq, prost::Message)]
pub(crate) struct ValidateJwtSvidRequest {
    #[prost(string, tag = "1")]
    pub(crate) audience: String,
    #[prost(string, tag = "2")]
    pub(crate) svid: String,
}

#[derive(Clone, PartialEq, prost::Message)]
pub(crate) struct ValidateJwtSvidResponse {
    #[prost(string, tag = "1")]
    pub(crate) spiffe_id: String,
    #[prost(message, optional, tag = "2")]
    pub(crate) claims: Option<super::Struct>,
}
