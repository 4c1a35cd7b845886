//! The mesh side: an endpoint for sidecars, and for those who want to become one.

mod paths;

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use weft_certs::IdentitySource;
use weft_env::{Env, Tasks};

use crate::error::ControlError;
use crate::node::{Node, Refusals};

/// Where sidecars connect to.
pub(crate) struct Mesh {
    addr: SocketAddr,
}

impl Mesh {
    /// Opens the endpoint; nobody is answered before [`serve`](Self::serve).
    pub(crate) fn bind(
        _env: &Env,
        _tasks: &Tasks,
        addr: SocketAddr,
        _identity: Arc<IdentitySource>,
    ) -> Result<Self, ControlError> {
        Ok(Self { addr })
    }

    pub(crate) fn local_addr(&self) -> SocketAddr {
        self.addr
    }

    pub(crate) fn refusals(&self) -> Refusals {
        Arc::new(BTreeMap::new)
    }

    pub(crate) fn serve(&self, _node: Arc<Node>, _tasks: &Tasks) {}

    pub(crate) async fn drain(&self, _deadline: Duration) {}
}
