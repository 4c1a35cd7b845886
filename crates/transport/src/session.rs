//! The TLS of one QUIC connection (RFC 9001): rustls behind quinn's trait.
//!
//! quinn has such glue itself. It tells its user neither the key exchange nor the cipher that was agreed on, nor
//! whether the session was resumed, and reports every failure by the words of rustls. The rest is as there:
//! packet protection is rustls', and what a server does before there is a session is quinn's.
//!
//! One thing is more than there: a resumed handshake ends here unless its peer passes the check that a full one would
//! have made. There is no other way to a QUIC connection.

use std::any::Any;
use std::io::Cursor;
use std::sync::Arc;

use quinn::crypto::rustls::{NoInitialCipherSuite, QuicServerConfig};
use quinn::crypto::{
    ClientConfig, ExportKeyingMaterialError, HeaderKey, KeyPair, Keys, PacketKey, ServerConfig,
    Session, UnsupportedVersion,
};
use quinn::{ConnectError, ConnectionId};
use quinn_proto::transport_parameters::TransportParameters;
use quinn_proto::{Side, TransportError, TransportErrorCode};
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::quic::{self, Connection, KeyChange, Secrets, Suite, Version};
use rustls::{CipherSuite, HandshakeKind, NamedGroup, PeerIncompatible};
use weft_certs::tls::{Recheck, Refused, Resumable};

/// QUIC version 1 (RFC 9000 §15), the only one that weft speaks.
const V1: u32 = 1;

/// What is said, to the peer too, when the two sides have no key exchange in common.
pub(crate) const NO_COMMON_KEY_EXCHANGE: &str =
    "no key exchange in common: one side requires X25519MLKEM768 and the other does not offer it";

/// What a handshake agreed on.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Negotiated {
    /// The key exchange: `X25519MLKEM768` is safe from a later quantum computer, the others are not.
    pub key_exchange: &'static str,
    /// The cipher that protects the packets, by its name in RFC 8446 §B.4.
    pub cipher: &'static str,
    /// Whether the peer was known by a ticket of an earlier connection.
    pub resumed: bool,
}

impl Negotiated {
    /// What a TLS connection has agreed on; for TLS over TCP too.
    #[must_use]
    pub fn of(tls: &rustls::CommonState) -> Self {
        let group = tls.negotiated_key_exchange_group().map(|g| g.name());
        let cipher = tls.negotiated_cipher_suite().map(|suite| suite.suite());
        Self {
            key_exchange: group.map_or("", group_name),
            cipher: cipher.map_or("", cipher_name),
            resumed: tls.handshake_kind() == Some(HandshakeKind::Resumed),
        }
    }
}

fn group_name(group: NamedGroup) -> &'static str {
    match group {
        NamedGroup::X25519MLKEM768 => "X25519MLKEM768",
        NamedGroup::X25519 => "X25519",
        NamedGroup::secp256r1 => "P-256",
        NamedGroup::secp384r1 => "P-384",
        _ => "other",
    }
}

fn cipher_name(cipher: CipherSuite) -> &'static str {
    match cipher {
        CipherSuite::TLS13_AES_128_GCM_SHA256 => "TLS_AES_128_GCM_SHA256",
        CipherSuite::TLS13_AES_256_GCM_SHA384 => "TLS_AES_256_GCM_SHA384",
        CipherSuite::TLS13_CHACHA20_POLY1305_SHA256 => "TLS_CHACHA20_POLY1305_SHA256",
        _ => "other",
    }
}

/// What [`quinn::Connection::handshake_data`] gives for these sessions, once the handshake is done.
#[derive(Clone, Debug, Default)]
pub(crate) struct HandshakeData {
    pub(crate) alpn: Vec<u8>,
    pub(crate) negotiated: Negotiated,
}

/// The facts of a connection whose handshake is done.
pub(crate) fn handshake_data(connection: &quinn::Connection) -> HandshakeData {
    connection
        .handshake_data()
        .and_then(|data| data.downcast::<HandshakeData>().ok())
        .map_or_else(HandshakeData::default, |data| *data)
}

/// The suite that protects Initial packets (RFC 9001 §5.2).
fn initial_suite(provider: &rustls::crypto::CryptoProvider) -> Option<Suite> {
    let suites = provider.cipher_suites.iter();
    suites
        .filter(|suite| suite.suite() == CipherSuite::TLS13_AES_128_GCM_SHA256)
        .find_map(|suite| suite.tls13()?.quic_suite())
}

/// TLS of the dialling side.
pub(crate) struct ClientTls {
    config: Arc<rustls::ClientConfig>,
    recheck: Recheck,
    initial: Suite,
}

impl ClientTls {
    /// `None` if the config has no AES-128-GCM.
    pub(crate) fn new(tls: Resumable<rustls::ClientConfig>) -> Option<Self> {
        let Resumable { config, recheck } = tls;
        let initial = initial_suite(config.crypto_provider())?;
        Some(Self {
            config: Arc::new(config),
            recheck,
            initial,
        })
    }
}

impl ClientConfig for ClientTls {
    fn start_session(
        self: Arc<Self>,
        version: u32,
        server_name: &str,
        params: &TransportParameters,
    ) -> Result<Box<dyn Session>, ConnectError> {
        if version != V1 {
            return Err(ConnectError::UnsupportedVersion);
        }
        let invalid = || ConnectError::InvalidServerName(server_name.to_owned());
        let name = ServerName::try_from(server_name).map_err(|_| invalid())?;
        let tls = quic::ClientConnection::new(
            self.config.clone(),
            Version::V1,
            name.to_owned(),
            encoded(params),
        )
        // A config for TLS 1.3 with a protocol to offer, as all of ours, is never refused.
        .map_err(|_| invalid())?;
        let tls = Connection::Client(tls);
        let session = TlsSession::new(tls, self.recheck.clone(), self.initial);
        Ok(Box::new(session))
    }
}

/// TLS of the accepting side.
pub(crate) struct ServerTls {
    config: Arc<rustls::ServerConfig>,
    recheck: Recheck,
    initial: Suite,
    /// Answers what comes before a session: Initial keys and Retry.
    before: QuicServerConfig,
}

impl ServerTls {
    pub(crate) fn new(tls: Resumable<rustls::ServerConfig>) -> Result<Self, NoInitialCipherSuite> {
        let Resumable { config, recheck } = tls;
        let initial = initial_suite(config.crypto_provider());
        let config = Arc::new(config);
        let before = QuicServerConfig::try_from(config.clone())?;
        Ok(Self {
            config,
            recheck,
            initial: initial.expect("quinn has looked for the same suite"),
            before,
        })
    }
}

impl ServerConfig for ServerTls {
    fn initial_keys(
        &self,
        version: u32,
        dst_cid: &ConnectionId,
    ) -> Result<Keys, UnsupportedVersion> {
        match version {
            V1 => self.before.initial_keys(version, dst_cid),
            _ => Err(UnsupportedVersion),
        }
    }

    fn retry_tag(&self, version: u32, orig_dst_cid: &ConnectionId, packet: &[u8]) -> [u8; 16] {
        self.before.retry_tag(version, orig_dst_cid, packet)
    }

    fn start_session(
        self: Arc<Self>,
        _version: u32,
        params: &TransportParameters,
    ) -> Box<dyn Session> {
        let tls = quic::ServerConnection::new(self.config.clone(), Version::V1, encoded(params))
            .expect("a config for TLS 1.3 whose limit of early data is one that QUIC allows");
        let tls = Connection::Server(tls);
        Box::new(TlsSession::new(tls, self.recheck.clone(), self.initial))
    }
}

fn encoded(params: &TransportParameters) -> Vec<u8> {
    let mut bytes = Vec::new();
    params.write(&mut bytes);
    bytes
}

struct TlsSession {
    tls: Connection,
    recheck: Recheck,
    /// Whether it is resumed, by a peer that has passed.
    rechecked: bool,
    initial: Suite,
    announced: bool,
    next: Option<Secrets>,
}

impl TlsSession {
    fn new(tls: Connection, recheck: Recheck, initial: Suite) -> Self {
        Self {
            tls,
            recheck,
            rechecked: false,
            initial,
            announced: false,
            next: None,
        }
    }

    /// A resumed handshake is known as such before it is done: on the accepting side by the first message, before
    /// anything is answered, on the dialling side before its last one is sent.
    fn recheck(&mut self) -> Result<(), TransportError> {
        if !self.rechecked {
            self.rechecked = self.recheck.check(&self.tls).map_err(refused)?;
        }
        Ok(())
    }

    fn side(&self) -> Side {
        match self.tls {
            Connection::Client(_) => Side::Client,
            Connection::Server(_) => Side::Server,
        }
    }
}

impl Session for TlsSession {
    fn initial_keys(&self, dst_cid: &ConnectionId, side: Side) -> Keys {
        let side = match side {
            Side::Client => rustls::Side::Client,
            Side::Server => rustls::Side::Server,
        };
        keys(self.initial.keys(dst_cid, side, Version::V1))
    }

    fn handshake_data(&self) -> Option<Box<dyn Any>> {
        self.announced.then(|| -> Box<dyn Any> {
            Box::new(HandshakeData {
                alpn: self.tls.alpn_protocol().unwrap_or_default().to_vec(),
                negotiated: Negotiated::of(&self.tls),
            })
        })
    }

    /// A `Vec<CertificateDer<'static>>`.
    fn peer_identity(&self) -> Option<Box<dyn Any>> {
        let chain: Vec<CertificateDer<'static>> = self.tls.peer_certificates()?.to_vec();
        Some(Box::new(chain))
    }

    fn early_crypto(&self) -> Option<(Box<dyn HeaderKey>, Box<dyn PacketKey>)> {
        let early = self.tls.zero_rtt_keys()?;
        Some((Box::new(early.header), Box::new(early.packet)))
    }

    fn early_data_accepted(&self) -> Option<bool> {
        match &self.tls {
            Connection::Client(tls) => Some(tls.is_early_data_accepted()),
            Connection::Server(_) => None,
        }
    }

    fn is_handshaking(&self) -> bool {
        self.tls.is_handshaking()
    }

    fn read_handshake(&mut self, bytes: &[u8]) -> Result<bool, TransportError> {
        self.tls
            .read_hs(bytes)
            .map_err(|error| failed(&self.tls, &error))?;
        self.recheck()?;
        if self.announced {
            return Ok(false);
        }
        // rustls does not say when the peer's first message has been read.
        let name = match &self.tls {
            Connection::Client(_) => None,
            Connection::Server(tls) => tls.server_name(),
        };
        self.announced =
            name.is_some() || self.tls.alpn_protocol().is_some() || !self.tls.is_handshaking();
        Ok(self.announced)
    }

    fn transport_parameters(&self) -> Result<Option<TransportParameters>, TransportError> {
        let Some(bytes) = self.tls.quic_transport_parameters() else {
            return Ok(None);
        };
        let params = TransportParameters::read(self.side(), &mut Cursor::new(bytes));
        Ok(Some(params?))
    }

    fn write_handshake(&mut self, out: &mut Vec<u8>) -> Option<Keys> {
        match self.tls.write_hs(out)? {
            KeyChange::Handshake { keys: handshake } => Some(keys(handshake)),
            KeyChange::OneRtt { keys: data, next } => {
                self.next = Some(next);
                Some(keys(data))
            }
        }
    }

    fn next_1rtt_keys(&mut self) -> Option<KeyPair<Box<dyn PacketKey>>> {
        let next = self.next.as_mut()?.next_packet_keys();
        Some(KeyPair {
            local: Box::new(next.local),
            remote: Box::new(next.remote),
        })
    }

    fn is_valid_retry(&self, orig_dst_cid: &ConnectionId, header: &[u8], payload: &[u8]) -> bool {
        retry::is_valid(orig_dst_cid, header, payload)
    }

    fn export_keying_material(
        &self,
        output: &mut [u8],
        label: &[u8],
        context: &[u8],
    ) -> Result<(), ExportKeyingMaterialError> {
        self.tls
            .export_keying_material(output, label, Some(context))
            .map(drop)
            .map_err(|_| ExportKeyingMaterialError)
    }
}

fn keys(keys: quic::Keys) -> Keys {
    Keys {
        header: KeyPair {
            local: Box::new(keys.local.header),
            remote: Box::new(keys.remote.header),
        },
        packet: KeyPair {
            local: Box::new(keys.local.packet),
            remote: Box::new(keys.remote.packet),
        },
    }
}

fn failed(tls: &Connection, error: &rustls::Error) -> TransportError {
    let reason = match error {
        rustls::Error::PeerIncompatible(PeerIncompatible::NoKxGroupsInCommon) => {
            NO_COMMON_KEY_EXCHANGE.to_owned()
        }
        other => other.to_string(),
    };
    let code = match tls.alert() {
        Some(alert) => TransportErrorCode::crypto(alert.into()),
        None => TransportErrorCode::PROTOCOL_VIOLATION,
    };
    TransportError {
        code,
        frame: None,
        reason,
    }
}

/// As if the verifier had refused the peer in a full handshake.
fn refused(Refused { alert, error }: Refused) -> TransportError {
    TransportError {
        code: TransportErrorCode::crypto(alert.into()),
        frame: None,
        reason: format!("a resumed session was refused: {}", error.reason()),
    }
}

#[cfg(test)]
#[path = "session_tests.rs"]
mod tests;

mod retry {
    //! Whether a Retry packet answers what we sent (RFC 9001 §5.8).

    use aws_lc_rs::aead::{AES_128_GCM, Aad, LessSafeKey, Nonce, UnboundKey};
    use quinn::ConnectionId;

    /// Key and nonce are the RFC's, for everybody: the tag keeps accidents out, not attackers.
    const KEY: [u8; 16] = [
        0xbe, 0x0c, 0x69, 0x0b, 0x9f, 0x66, 0x57, 0x5a, 0x1d, 0x76, 0x6b, 0x54, 0xe3, 0x68, 0xc8,
        0x4e,
    ];
    const NONCE: [u8; 12] = [
        0x46, 0x15, 0x99, 0xd3, 0x5d, 0x63, 0x2b, 0xf2, 0x23, 0x98, 0x25, 0xbb,
    ];
    const TAG: usize = 16;

    /// `payload` is what follows the header: the token and the tag.
    pub(super) fn is_valid(orig_dst_cid: &ConnectionId, header: &[u8], payload: &[u8]) -> bool {
        let Some(token) = payload.len().checked_sub(TAG) else {
            return false;
        };
        let (token, tag) = payload.split_at(token);
        let Ok(cid_len) = u8::try_from(orig_dst_cid.len()) else {
            return false;
        };
        let pseudo = [&[cid_len], &**orig_dst_cid, header, token].concat();
        let Ok(key) = UnboundKey::new(&AES_128_GCM, &KEY) else {
            return false;
        };
        let nonce = Nonce::assume_unique_for_key(NONCE);
        LessSafeKey::new(key)
            .open_in_place(nonce, Aad::from(&pseudo), &mut tag.to_vec())
            .is_ok()
    }

    #[cfg(test)]
    mod tests {
        use super::*;

        /// RFC 9001 §A.4.
        #[test]
        fn the_retry_packet_of_the_rfc_is_valid_and_a_changed_one_is_not() {
            let cid = ConnectionId::new(&[0x83, 0x94, 0xc8, 0xf0, 0x3e, 0x51, 0x57, 0x08]);
            let packet: [u8; 36] = [
                0xff, 0x00, 0x00, 0x00, 0x01, 0x00, 0x08, 0xf0, 0x67, 0xa5, 0x50, 0x2a, 0x42, 0x62,
                0xb5, 0x74, 0x6f, 0x6b, 0x65, 0x6e, 0x04, 0xa2, 0x65, 0xba, 0x2e, 0xff, 0x4d, 0x82,
                0x90, 0x58, 0xfb, 0x3f, 0x0f, 0x24, 0x96, 0xba,
            ];
            let (header, payload) = packet.split_at(15);
            assert!(is_valid(&cid, header, payload));
            assert!(!is_valid(&ConnectionId::new(&[1; 8]), header, payload));
            assert!(!is_valid(&cid, header, &payload[..10]), "no room for a tag");
        }
    }
}
