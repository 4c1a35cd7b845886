//! The resources that the demo applies, as an operator would write them.

use std::net::SocketAddr;

/// The route of the reference scenario: calls of `invoices`, with a timeout.
pub(super) fn route(timeout: &str) -> String {
    format!(
        "\
apiVersion: gateway.networking.k8s.io/v1
kind: HTTPRoute
metadata:
  name: invoices
  namespace: default
spec:
  parentRefs:
    - kind: Service
      name: invoices
  rules:
    - timeouts:
        request: {timeout}
      backendRefs:
        - kind: Service
          name: invoices
          port: 80
"
    )
}

/// A policy: only `orders` may call `invoices` and `ledger`. What no policy allows is denied.
pub(super) const ONLY_ORDERS: &str = "\
apiVersion: weft.dev/v1
kind: AuthorizationPolicy
metadata:
  name: only-orders
  namespace: default
spec:
  targetRefs:
    - kind: Service
      name: invoices
    - kind: Service
      name: ledger
  action: ALLOW
  rules:
    - from:
        - source:
            principals:
              - spiffe://weft.local/ns/default/sa/orders
";

/// A local port on the sidecars of `orders`, bound to a TCP port of `invoices`.
pub(super) fn listener(name: &str, address: SocketAddr, port: u16) -> String {
    format!(
        "\
apiVersion: weft.dev/v1
kind: OutboundListener
metadata:
  name: {name}
  namespace: default
spec:
  workload:
    service: orders
  address: {address}
  backend:
    name: invoices
    port: {port}
"
    )
}
