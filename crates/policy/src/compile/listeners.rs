//! Compiles `OutboundListener`s.

use std::sync::Arc;

use weft_resources::OutboundListener;

use super::CompileError;
use crate::snapshot::ListenerSpec;

pub(super) fn add(
    listeners: &mut Vec<ListenerSpec>,
    key: &Arc<str>,
    listener: &OutboundListener,
) -> Result<(), CompileError> {
    let namespace = &listener.metadata.namespace;
    let spec = &listener.spec;
    let (Some(workload), Some(backend)) = (
        spec.workload_service(namespace),
        spec.backend_service(namespace),
    ) else {
        return Err(CompileError::new(key, "names a service that cannot exist"));
    };
    let taken = listeners
        .iter()
        .find(|other| other.workload == workload && other.address == spec.address);
    if let Some(other) = taken {
        let reason = format!("{} is the address of {} already", spec.address, other.key);
        return Err(CompileError::new(key, reason));
    }
    listeners.push(ListenerSpec {
        key: key.clone(),
        workload,
        address: spec.address,
        backend,
        port: spec.backend.port,
    });
    Ok(())
}
