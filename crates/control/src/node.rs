//! Everything that a running control node is made of.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Arc;

use tokio::time::Instant;
use weft_env::Env;
use weft_transport::Direction;

use crate::attest::Attestors;
use crate::federation::Federations;
use crate::issue::{CaService, JoinRefusals, OwnIdentity, Rotations, Tokens};
use crate::push::Feed;
use crate::registry::Registry;
use crate::settings::MeshSettings;
use crate::store::Store;

/// Counts of handshakes that became connections, by who dialled and kind.
pub(crate) type Handshakes =
    Arc<dyn Fn() -> BTreeMap<(Direction, &'static str), u64> + Send + Sync>;

/// Counts of refused peers, by reason.
pub(crate) type Refusals = Arc<dyn Fn() -> BTreeMap<&'static str, u64> + Send + Sync>;

/// The parts, shared by the mesh endpoint and the admin API.
pub(crate) struct Node {
    pub(crate) env: Env,
    pub(crate) settings: MeshSettings,
    pub(crate) store: Arc<dyn Store>,
    pub(crate) registry: Registry,
    pub(crate) feed: Feed,
    pub(crate) ca: CaService,
    pub(crate) own: OwnIdentity,
    pub(crate) rotations: Rotations,
    pub(crate) tokens: Tokens,
    pub(crate) federations: Federations,
    pub(crate) attestors: Attestors,
    pub(crate) join_refusals: Arc<JoinRefusals>,
    /// Those of peers and those of joiners.
    pub(crate) refusals: Refusals,
    pub(crate) handshakes: Handshakes,
    pub(crate) mesh_addr: SocketAddr,
    pub(crate) started: Instant,
}
