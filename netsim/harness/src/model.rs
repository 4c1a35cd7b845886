//! What the mesh is told: its services, and for each generation of config who may call whom.

use std::collections::BTreeMap;
use std::fmt::Write;
use std::time::Duration;

use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};

/// The services, two instances each.
pub(crate) const SERVICES: [&str; 3] = ["orders", "invoices", "ledger"];
pub(crate) const INSTANCES: usize = 2;

/// No generation of config ever allows these.
const NEVER: [(&str, &str); 2] = [("ledger", "orders"), ("invoices", "invoices")];
/// Every generation allows these.
const ALWAYS: [(&str, &str); 2] = [("orders", "invoices"), ("invoices", "ledger")];

/// Whether no config ever allows it.
pub(crate) fn is_forbidden(caller: &str, callee: &str) -> bool {
    NEVER.contains(&(caller, callee))
}

/// One generation of config: drawn from the seed and its number, applied whole.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Generation {
    pub(crate) number: u32,
    allowed: Vec<(&'static str, &'static str)>,
    timeouts: BTreeMap<&'static str, Duration>,
}

impl Generation {
    pub(crate) fn draw(seed: u64, number: u32) -> Self {
        let mut rng = StdRng::seed_from_u64(seed ^ (u64::from(number) << 40) ^ 0xc0_4f_19);
        let mut allowed = Vec::new();
        let mut timeouts = BTreeMap::new();
        for callee in SERVICES {
            for caller in SERVICES {
                let pair = (caller, callee);
                let drawn = rng.next_u32() % 2 == 0;
                if ALWAYS.contains(&pair) || (drawn && !NEVER.contains(&pair)) {
                    allowed.push(pair);
                }
            }
            let ms = 1_000 + u64::from(rng.next_u32() % 40) * 100;
            timeouts.insert(callee, Duration::from_millis(ms));
        }
        Self {
            number,
            allowed,
            timeouts,
        }
    }

    pub(crate) fn allows(&self, caller: &str, callee: &str) -> bool {
        self.allowed.contains(&(caller, callee))
    }

    pub(crate) fn timeout(&self, callee: &str) -> Duration {
        self.timeouts.get(callee).copied().unwrap_or_default()
    }

    /// The resources: a route of each service that marks its requests with the generation, and who may call it.
    pub(crate) fn yaml(&self) -> String {
        let mut text = String::new();
        for callee in SERVICES {
            let (number, limit) = (self.number, self.timeout(callee).as_millis());
            // A principal that nobody has: a policy has at least one.
            let mut principals = "'spiffe://weft.local/ns/default/sa/nobody'".to_owned();
            for (caller, _) in self.allowed.iter().filter(|(_, to)| *to == callee) {
                let _ = write!(principals, ", 'spiffe://weft.local/ns/default/sa/{caller}'");
            }
            let _ = write!(
                text,
                "---
apiVersion: gateway.networking.k8s.io/v1
kind: HTTPRoute
metadata: {{name: {callee}, namespace: default}}
spec:
  parentRefs: [{{kind: Service, name: {callee}}}]
  rules:
    - filters:
      - type: RequestHeaderModifier
        requestHeaderModifier: {{set: [{{name: x-generation, value: '{number}'}}]}}
      timeouts: {{request: {limit}ms}}
      backendRefs: [{{kind: Service, name: {callee}, port: 80}}]
---
apiVersion: weft.dev/v1
kind: AuthorizationPolicy
metadata: {{name: {callee}-may, namespace: default}}
spec:
  targetRefs: [{{kind: Service, name: {callee}}}]
  action: ALLOW
  rules:
    - from: [{{source: {{principals: [{principals}]}}}}]
"
            );
        }
        text
    }
}

/// What the control node has acknowledged: from which revision on which generation holds.
#[derive(Debug, Default)]
pub(crate) struct Committed {
    by_revision: BTreeMap<u64, Generation>,
}

impl Committed {
    pub(crate) fn enter(&mut self, revision: u64, generation: Generation) {
        self.by_revision.insert(revision, generation);
    }

    /// What a sidecar that runs this revision follows.
    pub(crate) fn at(&self, revision: u64) -> Option<&Generation> {
        self.by_revision
            .range(..=revision)
            .next_back()
            .map(|(_, generation)| generation)
    }

    /// The revision that brought the config of this one.
    pub(crate) fn config_of(&self, revision: u64) -> Option<u64> {
        let mut before = self.by_revision.range(..=revision);
        before.next_back().map(|(revision, _)| *revision)
    }

    pub(crate) fn latest(&self) -> Option<(u64, &Generation)> {
        self.by_revision
            .last_key_value()
            .map(|(revision, generation)| (*revision, generation))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_generation_is_a_valid_config_and_keeps_to_what_never_and_always_holds() {
        for number in 0..50 {
            let generation = Generation::draw(7, number);
            let parsed = weft_resources::parse_yaml(&generation.yaml(), "generation");
            assert_eq!(parsed.unwrap().len(), 6);
            assert!(NEVER.iter().all(|(a, b)| !generation.allows(a, b)));
            assert!(ALWAYS.iter().all(|(a, b)| generation.allows(a, b)));
        }
        assert_ne!(
            Generation::draw(7, 1).allowed,
            Generation::draw(7, 2).allowed
        );
    }
}
