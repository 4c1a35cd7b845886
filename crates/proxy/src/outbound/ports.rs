//! The local TCP ports that pushed `OutboundListener`s ask for.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use weft_env::{Listener, Tasks};
use weft_policy::ListenerSpec;
use weft_resources::ServiceName;

use super::tcp;
use crate::control_client::Unusable;
use crate::handover::doors::Role;
use crate::node::Node;

/// A closed port's accept loop ends at once; its connections are not its tasks.
const CLOSE_GRACE: Duration = Duration::from_millis(100);

/// The ports that are open now.
#[derive(Default)]
pub(crate) struct Ports {
    open: BTreeMap<SocketAddr, Port>,
}

struct Port {
    /// Ends the accept loop. Connections go on to their own end.
    accepting: Tasks,
    backend: Arc<Mutex<Backend>>,
}

type Backend = (ServiceName, u16);

impl Ports {
    /// Opens what is wanted and not open, then closes what is open and not wanted. If one cannot be
    /// opened, nothing changes.
    pub(crate) async fn replace(
        &mut self,
        node: &Arc<Node>,
        wanted: &[ListenerSpec],
    ) -> Result<(), Unusable> {
        let mut opened = Vec::new();
        for spec in wanted {
            if self.open.contains_key(&spec.address) {
                continue;
            }
            let listener = node.doors.tcp(Role::Port, spec.address).await;
            opened.push((
                spec,
                listener.map_err(|error| Unusable {
                    key: Some(spec.key.to_string()),
                    reason: error.to_string(),
                })?,
            ));
        }
        let closed = self.keep_only(wanted);
        for spec in wanted {
            if let Some(port) = self.open.get(&spec.address) {
                *port.backend.lock().unwrap_or_else(PoisonError::into_inner) = backend(spec);
            }
        }
        for (spec, listener) in opened {
            self.open
                .insert(spec.address, Port::serve(node, spec, listener));
        }
        for port in closed {
            port.accepting.shutdown(CLOSE_GRACE).await;
        }
        Ok(())
    }

    fn keep_only(&mut self, wanted: &[ListenerSpec]) -> Vec<Port> {
        let gone: Vec<SocketAddr> = self
            .open
            .keys()
            .filter(|address| !wanted.iter().any(|spec| spec.address == **address))
            .copied()
            .collect();
        gone.iter()
            .filter_map(|address| self.open.remove(address))
            .collect()
    }
}

fn backend(spec: &ListenerSpec) -> Backend {
    (spec.backend.clone(), spec.port)
}

impl Port {
    fn serve(node: &Arc<Node>, spec: &ListenerSpec, listener: Arc<Listener>) -> Self {
        tracing::info!(listener = %spec.key, address = %spec.address, backend = %spec.backend, "local port open");
        let accepting = node.listening.child();
        let shared = Arc::new(Mutex::new(backend(spec)));
        let current = Arc::clone(&shared);
        let stop = accepting.token();
        let backend = move || {
            let backend = current.lock().unwrap_or_else(PoisonError::into_inner);
            backend.clone()
        };
        let serve = tcp::serve(Arc::clone(node), stop, listener, backend);
        drop(accepting.spawn_essential("a local TCP port", serve));
        Self {
            accepting,
            backend: shared,
        }
    }
}
