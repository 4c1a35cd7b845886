//! Compiles `ServiceEntry`s: services of other meshes, with where their sidecars are.

use std::collections::BTreeMap;
use std::sync::Arc;

use weft_certs::SpiffeId;
use weft_resources::{EntryProtocol, ServiceEntry, ServiceName};

use super::CompileError;
use crate::snapshot::{Endpoint, PortProtocol, Service};

pub(super) fn add(
    entries: &mut BTreeMap<ServiceName, Service>,
    key: &str,
    entry: &ServiceEntry,
) -> Result<(), CompileError> {
    let refuse = |error: &dyn std::fmt::Display| CompileError::new(key, error.to_string());
    let metadata = &entry.metadata;
    let name = ServiceName::new(&metadata.namespace, &metadata.name).map_err(|e| refuse(&e))?;
    let spiffe_id = SpiffeId::parse(&entry.spec.identity).map_err(|e| refuse(&e))?;
    let at_home = match spiffe_id.service() {
        Some((namespace, service)) => {
            ServiceName::new(namespace, service).map_err(|e| refuse(&e))?
        }
        None => {
            return Err(refuse(&format!(
                "{spiffe_id} is not the identity of a service"
            )));
        }
    };
    let ports: Vec<_> = entry
        .spec
        .ports
        .iter()
        .map(|port| (port.port, protocol(port.protocol)))
        .collect();
    let endpoints = entry.spec.endpoints.iter().map(|endpoint| Endpoint {
        instance: Arc::from(endpoint.address.to_string()),
        spiffe_id: spiffe_id.clone(),
        addr: endpoint.address,
        ports: ports.clone(),
    });
    let service = Service::new(endpoints.collect()).called(at_home);
    entries.insert(name, service);
    Ok(())
}

fn protocol(protocol: EntryProtocol) -> PortProtocol {
    match protocol {
        EntryProtocol::Http => PortProtocol::Http,
        EntryProtocol::Tcp => PortProtocol::Tcp,
    }
}
