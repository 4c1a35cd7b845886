//! Envoy's secret discovery: the parts of its v3 API that weft needs.

use bytes::Bytes;

use super::{Any, Struct};

/// Paths of the calls.
pub(crate) mod path {
    pub(crate) const STREAM: &str = "/envoy.service.secret.v3.SecretDiscoveryService/StreamSecrets";
    pub(crate) const FETCH: &str = "/envoy.service.secret.v3.SecretDiscoveryService/FetchSecrets";
}

/// Names of types.
pub(crate) mod kind {
    pub(crate) const SECRET: &str = "envoy.extensions.transport_sockets.tls.v3.Secret";
    pub(crate) const SPIFFE_VALIDATOR: &str =
        "envoy.extensions.transport_sockets.tls.v3.SPIFFECertValidatorConfig";
}

/// The extension that judges SPIFFE peers.
pub(crate) const SPIFFE_VALIDATOR: &str = "envoy.tls.cert_validator.spiffe";

/// `envoy.service.discovery.v3.DiscoveryRequest`.
#[derive(Clone, PartialEq, prost::Message)]
pub(crate) struct DiscoveryRequest {
    #[prost(string, tag = "1")]
    pub(crate) version_info: String,
    #[prost(message, optional, tag = "2")]
    pub(crate) node: Option<Node>,
    #[prost(string, repeated, tag = "3")]
    pub(crate) resource_names: Vec<String>,
    #[prost(string, tag = "4")]
    pub(crate) type_url: String,
    #[prost(string, tag = "5")]
    pub(crate) response_nonce: String,
    #[prost(message, optional, tag = "6")]
    pub(crate) error_detail: Option<RpcStatus>,
}

/// `envoy.config.core.v3.Node`.
#[derive(Clone, PartialEq, prost::Message)]
pub(crate) struct Node {
    #[prost(string, tag = "1")]
    pub(crate) id: String,
    #[prost(message, optional, tag = "3")]
    pub(crate) metadata: Option<Struct>,
}

/// `google.rpc.Status`.
#[derive(Clone, PartialEq, prost::Message)]
pub(crate) struct RpcStatus {
    #[prost(int32, tag = "1")]
    pub(crate) code: i32,
    #[prost(string, tag = "2")]
    pub(crate) message: String,
}

/// `envoy.service.discovery.v3.DiscoveryResponse`.
#[derive(Clone, PartialEq, prost::Message)]
pub(crate) struct DiscoveryResponse {
    #[prost(string, tag = "1")]
    pub(crate) version_info: String,
    #[prost(message, repeated, tag = "2")]
    pub(crate) resources: Vec<Any>,
    #[prost(string, tag = "4")]
    pub(crate) type_url: String,
    #[prost(string, tag = "5")]
    pub(crate) nonce: String,
}

/// `envoy.extensions.transport_sockets.tls.v3.Secret`.
#[derive(Clone, PartialEq, prost::Message)]
pub(crate) struct Secret {
    #[prost(string, tag = "1")]
    pub(crate) name: String,
    #[prost(message, optional, tag = "2")]
    pub(crate) tls_certificate: Option<TlsCertificate>,
    #[prost(message, optional, tag = "4")]
    pub(crate) validation_context: Option<ValidationContext>,
}

#[derive(Clone, PartialEq, prost::Message)]
pub(crate) struct TlsCertificate {
    #[prost(message, optional, tag = "1")]
    pub(crate) certificate_chain: Option<DataSource>,
    #[prost(message, optional, tag = "2")]
    pub(crate) private_key: Option<DataSource>,
}

/// `CertificateValidationContext`.
#[derive(Clone, PartialEq, prost::Message)]
pub(crate) struct ValidationContext {
    #[prost(message, optional, tag = "1")]
    pub(crate) trusted_ca: Option<DataSource>,
    #[prost(message, optional, tag = "12")]
    pub(crate) custom_validator_config: Option<ExtensionConfig>,
}

/// `TypedExtensionConfig`.
#[derive(Clone, PartialEq, prost::Message)]
pub(crate) struct ExtensionConfig {
    #[prost(string, tag = "1")]
    pub(crate) name: String,
    #[prost(message, optional, tag = "2")]
    pub(crate) typed_config: Option<Any>,
}

/// `SPIFFECertValidatorConfig`.
#[derive(Clone, PartialEq, prost::Message)]
pub(crate) struct SpiffeValidator {
    #[prost(message, repeated, tag = "1")]
    pub(crate) trust_domains: Vec<TrustedDomain>,
}

/// `SPIFFECertValidatorConfig.TrustDomain`.
#[derive(Clone, PartialEq, prost::Message)]
pub(crate) struct TrustedDomain {
    /// Without `spiffe://`.
    #[prost(string, tag = "1")]
    pub(crate) name: String,
    #[prost(message, optional, tag = "2")]
    pub(crate) trust_bundle: Option<DataSource>,
}

#[derive(Clone, PartialEq, prost::Message)]
pub(crate) struct DataSource {
    #[prost(bytes = "bytes", tag = "2")]
    pub(crate) inline_bytes: Bytes,
}

impl From<Bytes> for DataSource {
    fn from(inline_bytes: Bytes) -> Self {
        Self { inline_bytes }
    }
}
