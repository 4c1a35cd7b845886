//! The sidecar: listeners, outbound, inbound; joins policy to transport
