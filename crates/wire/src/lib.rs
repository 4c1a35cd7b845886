//! The protocol between a sidecar and a control node: messages and framing, and nothing else.
//!
//! `proxy` and `control` do not know each other; this crate is all that they share. Both ends tolerate
//! fields and message types they do not know, so that nodes of neighbouring versions work together
//! (`docs/wire.md` is the written form of this crate).
//!
//! A sidecar holds one QUIC connection to a control node. On it are HTTP/3 requests: [`PATH_JOIN`]
//! (once, with a token; or with an attestation, after [`PATH_CHALLENGE`]), [`PATH_BUNDLE`] (once, by whoever has its identity from
//! elsewhere), [`PATH_RENEW`] (each new SVID), [`PATH_JWT`] (each token) and [`PATH_SYNC`], which stays open:
//! its request body carries [`SidecarMessage`] frames, its response body [`ControlMessage`] frames.

mod delegate;
mod frame;
mod join;
mod key;
mod message;

pub use delegate::{
    DelegateFollow, DelegateReport, DelegateReportReply, DelegateRequest, DelegateResponse,
    DelegateTerms,
};
pub use frame::{FrameError, FrameReader, MAX_FRAME, encode};
pub use join::{
    Attestation, BundleResponse, ChallengeResponse, JoinRequest, JoinResponse, JwtRequest,
    JwtResponse, MachineProof, Problem, RenewRequest, RenewResponse,
};
pub use key::{Group, KeyError, ResourcePath};
pub use message::{
    Ack, ConnectionReport, ControlMessage, EarlierProcess, EdgeReport, EndpointRecord, Hello,
    MAX_CONNECTIONS, MAX_UNREACHABLE, Nack, PROTOCOL, PortRecord, Protocol, Renew, Report,
    ServiceRecord, SidecarMessage, TrustReport, UnreachableReport, Update,
};

/// HTTP/3 authority under which a control node answers.
pub const CONTROL_AUTHORITY: &str = "control.weft-system";
/// Joining, with a one-time token or an attestation. This, [`PATH_CHALLENGE`] and [`PATH_BUNDLE`] are the only requests
/// allowed without a client certificate.
pub const PATH_JOIN: &str = "/v1/join";
/// What a joiner with a machine's certificate has to sign.
pub const PATH_CHALLENGE: &str = "/v1/challenge";
/// Whom the mesh trusts: what a sidecar that has its identity from elsewhere needs before it can know the control node by
/// anything but the pin.
pub const PATH_BUNDLE: &str = "/v1/bundle";
/// A new SVID for the identity of the connection.
pub const PATH_RENEW: &str = "/v1/renew";
/// A token (JWT-SVID) for the identity of the connection.
pub const PATH_JWT: &str = "/v1/jwt";
/// The long-lived stream of config, acknowledgements and reports.
pub const PATH_SYNC: &str = "/v1/sync";
/// A delegate of a site that is made, with a one-time token, or renews its certificate.
pub const PATH_DELEGATE: &str = "/v1/delegate";
/// What a delegate did while nobody watched.
pub const PATH_DELEGATE_REPORT: &str = "/v1/delegate/report";
/// What the control node pushes, for a delegate that is to hand it on.
pub const PATH_DELEGATE_FOLLOW: &str = "/v1/delegate/follow";
/// Largest body of a join or renew request or reply, in bytes.
pub const MAX_BODY: usize = 64 * 1024;
