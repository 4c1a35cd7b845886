//! quinn's configs from ours. Everything that is random comes from `Env`, so that a run repeats.

use std::net::{IpAddr, SocketAddr};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, SystemTime};

use aws_lc_rs::{hkdf, hmac};
use quinn::{ConnectionId, ConnectionIdGenerator, IdleTimeout, MtuDiscoveryConfig, VarInt};
use weft_certs::tls::{self, ClientSessions, Failure, Resumable, ServerSessions};
use weft_certs::{Clock, ExpectedPeer};
use weft_env::{Env, Rng};

use crate::places::Places;
use crate::session::{ClientTls, ServerTls};
use crate::steer::Wheel;
use crate::{
    ALPN, JoinConfig, Limits, Liveness, Profile, Relay, ResetKey, Tag, Target, TransportConfig,
    TransportError, tcp,
};

/// Control stream, two for QPACK, and room for streams of kinds that we do not know (RFC 9114 §6.2.3).
const UNI_STREAMS: u32 = 16;

/// Makes the config of each connection.
pub(crate) struct Quic {
    config: TransportConfig,
    clock: Clock,
    /// With everything but the TLS config, which each connection gets its own of.
    server: quinn::ServerConfig,
    cids: FirstIds,
    dialled: Arc<ClientSessions>,
    accepted: Arc<ServerSessions>,
}

/// First destination connection IDs of dials.
type FirstIds = Arc<dyn Fn() -> ConnectionId + Send + Sync>;

impl Quic {
    pub(crate) fn new(config: TransportConfig, env: &Env) -> Result<Self, TransportError> {
        let clock = env.clock();
        let most = config.limits.max_sessions;
        let (identity, key_exchange) = (&config.identity, config.key_exchange);
        let dialled = ClientSessions::new(identity.clone(), key_exchange, clock.clone(), most);
        let accepted = ServerSessions::new(identity.clone(), key_exchange, clock.clone(), most);
        let crypto = server_tls(&config, &accepted, Failure::default())?;
        let mut token_secret = [0; 32];
        env.rng("quic-token").fill_bytes(&mut token_secret);
        let token_key = hkdf::Salt::new(hkdf::HKDF_SHA256, &[]).extract(&token_secret);
        let mut server = quinn::ServerConfig::new(crypto, Arc::new(token_key));
        server
            .time_source(Arc::new(WallClock(clock.clone())))
            .max_incoming(config.limits.max_handshakes.saturating_mul(2))
            .transport_config(Path::to(&config, None).transport(first_places(&config.limits))?);
        let cids = first_ids(env);
        Ok(Self {
            config,
            clock,
            server,
            cids,
            dialled,
            accepted,
        })
    }

    pub(crate) fn endpoint(&self, env: &Env) -> Result<quinn::EndpointConfig, TransportError> {
        let tag = self.config.relay.as_ref().map(Relay::tag);
        endpoint(env, &self.config.profile, self.config.reset_key, tag)
    }

    /// The config that the endpoint is born with; [`Quic::accept`] makes that of each connection.
    pub(crate) fn server(&self) -> quinn::ServerConfig {
        self.server.clone()
    }

    /// The config for one arriving connection. Its own, so that the reason for which a certificate was
    /// refused stands beside the address that it came from, and so that its congestion control can follow who it
    /// turns out to be. Costs microseconds, a handshake a millisecond.
    pub(crate) fn accept(
        &self,
        from: SocketAddr,
        failure: Failure,
    ) -> Result<(quinn::ServerConfig, Wheel), TransportError> {
        let mut server = self.server.clone();
        server.crypto = server_tls(&self.config, &self.accepted, failure)?;
        let path = Path::to(&self.config, Some(from));
        server.transport_config(path.transport(first_places(&self.config.limits))?);
        Ok((server, path.wheel))
    }

    /// Wipes all sessions: what they were made under has changed.
    pub(crate) fn forget_sessions(&self) {
        self.dialled.forget();
        self.accepted.forget();
    }

    /// Sessions that may be resumed: as the dialling side, as the accepting side.
    pub(crate) fn sessions(&self) -> (usize, usize) {
        (self.dialled.len(), self.accepted.len())
    }

    /// The TLS config of one connection that arrives over TCP. Nothing is resumed there.
    pub(crate) fn tls_over_tcp(&self, failure: Failure) -> rustls::ServerConfig {
        let config = &self.config;
        tls::server_config(
            config.identity.clone(),
            config.client_auth,
            &[tcp::ALPN],
            config.key_exchange,
            self.clock.clone(),
            observer(failure),
        )
    }

    /// The TLS config of one dial over TCP.
    pub(crate) fn dial_over_tcp(
        &self,
        expected: ExpectedPeer,
        failure: Failure,
    ) -> rustls::ClientConfig {
        tls::client_config(
            self.config.identity.clone(),
            expected,
            &[tcp::ALPN],
            self.config.key_exchange,
            self.clock.clone(),
            failure,
        )
    }

    /// The config of one dial. `rtt` is the round trip that was last seen there.
    pub(crate) fn dial(
        &self,
        target: &Target,
        profile: &Profile,
        rtt: Option<Duration>,
        failure: Failure,
    ) -> Result<(quinn::ClientConfig, Wheel), TransportError> {
        let (expected, cids) = (target.expected.clone(), &self.cids);
        let tls = self.dialled.config(target.addr, expected, &[ALPN], failure);
        let path = Path {
            profile,
            liveness: profile.liveness(target.liveness),
            rtt: rtt.filter(|_| profile.remembers_rtt),
            local: is_local(target.addr),
            wheel: Wheel::new(profile.congestion),
        };
        let transport = path.transport(FROM_SERVERS)?;
        Ok((client(tls, transport, cids.clone())?, path.wheel))
    }
}

/// The config of one that joins: it has no identity to present.
pub(crate) fn join(
    env: &Env,
    profile: &Profile,
    addr: SocketAddr,
    join: &JoinConfig,
    failure: Failure,
) -> Result<(quinn::ClientConfig, Wheel), TransportError> {
    let tls = tls::join_config(
        join.pin,
        join.expected.clone(),
        &[ALPN],
        join.key_exchange,
        env.clock(),
        failure,
    );
    let path = Path {
        profile,
        liveness: Liveness::CONTROL,
        rtt: None,
        local: is_local(addr),
        wheel: Wheel::new(profile.congestion),
    };
    let transport = path.transport(FROM_SERVERS)?;
    let tls = Resumable::never(tls);
    Ok((client(tls, transport, first_ids(env))?, path.wheel))
}

/// The config of an endpoint, whatever its role.
pub(crate) fn endpoint(
    env: &Env,
    profile: &Profile,
    reset_key: Option<ResetKey>,
    tag: Option<Tag>,
) -> Result<quinn::EndpointConfig, TransportError> {
    let (mut reset, mut seed) = ([0; 32], [0; 32]);
    match reset_key {
        Some(ResetKey(key)) => reset = key,
        None => env.rng("quic-reset").fill_bytes(&mut reset),
    }
    env.rng("quic-endpoint").fill_bytes(&mut seed);
    let env = env.clone();
    let mut endpoint =
        quinn::EndpointConfig::new(Arc::new(hmac::Key::new(hmac::HMAC_SHA256, &reset)));
    endpoint
        .rng_seed(Some(seed))
        .cid_generator(move || {
            Box::new(RandomIds {
                rng: env.rng("quic-own-cid"),
                tag,
            })
        })
        .max_udp_payload_size(
            profile
                .mtu_upper_bound
                .max(profile.loopback_mtu_upper_bound),
        )
        .map_err(|e| TransportError::Config(format!("MTU upper bound: {e}")))?;
    Ok(endpoint)
}

fn first_ids(env: &Env) -> FirstIds {
    let rng = Mutex::new(env.rng("quic-cid"));
    Arc::new(move || {
        let mut cid = [0; 20];
        // A random stream has no half-done state.
        rng.lock()
            .unwrap_or_else(PoisonError::into_inner)
            .fill_bytes(&mut cid);
        ConnectionId::new(&cid)
    })
}

fn client(
    tls: Resumable<rustls::ClientConfig>,
    transport: Arc<quinn::TransportConfig>,
    ids: FirstIds,
) -> Result<quinn::ClientConfig, TransportError> {
    let crypto = ClientTls::new(tls).ok_or_else(|| {
        let missing = "TLS of the dialling side: it has no AES-128-GCM for Initial packets";
        TransportError::Config(missing.to_owned())
    })?;
    let mut client = quinn::ClientConfig::new(Arc::new(crypto));
    client
        .initial_dst_cid_provider(ids)
        .transport_config(transport);
    Ok(client)
}

fn server_tls(
    config: &TransportConfig,
    sessions: &Arc<ServerSessions>,
    failure: Failure,
) -> Result<Arc<ServerTls>, TransportError> {
    let tls = sessions.config(config.client_auth, &[ALPN], observer(failure));
    let crypto = ServerTls::new(tls)
        .map_err(|e| TransportError::Config(format!("TLS of the accepting side: {e}")))?;
    Ok(Arc::new(crypto))
}

fn observer(failure: Failure) -> tls::Observer {
    Arc::new(move |error: &weft_certs::VerifyError| {
        // The first failure is the cause.
        let _ = failure.set(error.clone());
    })
}

/// What the transport settings of one connection follow from.
struct Path<'a> {
    profile: &'a Profile,
    liveness: Liveness,
    /// In place of the profile's guess.
    rtt: Option<Duration>,
    local: bool,
    wheel: Wheel,
}

impl<'a> Path<'a> {
    /// Of one that is accepted.
    fn to(config: &'a TransportConfig, from: Option<SocketAddr>) -> Self {
        let profile = &config.profile;
        Self {
            profile,
            liveness: profile.liveness(config.liveness),
            rtt: None,
            local: from.is_some_and(is_local),
            wheel: Wheel::new(profile.congestion),
        }
    }

    /// `requests` is what the peer may have under way at first.
    fn transport(&self, requests: u32) -> Result<Arc<quinn::TransportConfig>, TransportError> {
        let profile = self.profile;
        let idle = IdleTimeout::try_from(self.liveness.idle_timeout)
            .map_err(|_| TransportError::Config("the idle timeout is too long".to_owned()))?;
        let mut mtu = MtuDiscoveryConfig::default();
        mtu.upper_bound(match self.local {
            true => profile.loopback_mtu_upper_bound,
            false => profile.mtu_upper_bound,
        });
        let mut transport = quinn::TransportConfig::default();
        transport
            .max_concurrent_bidi_streams(VarInt::from_u32(requests))
            .max_concurrent_uni_streams(VarInt::from_u32(UNI_STREAMS))
            .stream_receive_window(VarInt::from_u32(profile.stream_window))
            .receive_window(VarInt::from_u32(profile.connection_window))
            .send_window(profile.send_window)
            .initial_rtt(self.rtt.unwrap_or(profile.initial_rtt))
            .mtu_discovery_config(Some(mtu))
            .congestion_controller_factory(Arc::new(self.wheel.clone()))
            .max_idle_timeout(Some(idle))
            .keep_alive_interval(Some(self.liveness.keep_alive))
            // UDP tunnels will bring datagrams; until then a peer cannot make us buffer any.
            .datagram_receive_buffer_size(None);
        Ok(Arc::new(transport))
    }
}

/// A server opens no request (RFC 9114 §6.1): one place is enough to see it done and say so.
const FROM_SERVERS: u32 = 1;

fn first_places(limits: &Limits) -> u32 {
    Places::new(limits.max_requests).promised()
}

/// Whether the path is the loopback interface, with its MTU of 65,536.
fn is_local(addr: SocketAddr) -> bool {
    match addr.ip() {
        IpAddr::V4(ip) => ip.is_loopback(),
        IpAddr::V6(ip) => {
            ip.is_loopback() || ip.to_ipv4_mapped().is_some_and(|ip| ip.is_loopback())
        }
    }
}

/// Connection IDs of our own choice.
struct RandomIds {
    rng: Rng,
    /// What they begin with, where several processes may have one socket.
    tag: Option<Tag>,
}

/// Long enough that connections never collide and none can be guessed.
pub(crate) const ID_LEN: usize = 8;

impl ConnectionIdGenerator for RandomIds {
    fn generate_cid(&mut self) -> ConnectionId {
        let mut id = [0; ID_LEN];
        self.rng.fill_bytes(&mut id);
        if let Some(tag) = self.tag {
            tag.mark(&mut id);
        }
        ConnectionId::new(&id)
    }

    fn cid_len(&self) -> usize {
        ID_LEN
    }

    fn cid_lifetime(&self) -> Option<Duration> {
        None
    }
}

struct WallClock(Clock);

impl quinn::TimeSource for WallClock {
    fn now(&self) -> SystemTime {
        (self.0)()
    }
}

impl std::fmt::Debug for Quic {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Quic")
            .field("profile", &self.config.profile.name)
            .finish_non_exhaustive()
    }
}
