//! Who may call what.

use std::sync::Arc;

use weft_certs::{SpiffeId, TrustDomain};
use weft_resources::{Action, Pattern, ServiceName};

use crate::compile::{Operation, Policy, PolicyRule, Source};
use crate::request::RequestHead;
use crate::snapshot::Snapshot;

/// The label of a refusal that no policy's rule has a part in: nothing allows the call.
pub const DEFAULT_DENY: &str = "default-deny";

/// Whether a call may pass, and by which rule.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Verdict {
    /// Whether it may pass.
    pub allowed: bool,
    /// The rule, such as `AuthorizationPolicy/default/invoices#0`, or [`DEFAULT_DENY`].
    pub rule: Arc<str>,
}

/// Decides whether `caller` may use `port` of `target`, with this request, or (`None`) with a TCP stream.
///
/// Any match of a DENY policy refuses; else any match of an ALLOW policy lets pass; else it is refused. That last
/// is where weft is stricter than Istio, which lets everything pass where there is no ALLOW policy at all.
///
/// A caller of another trust domain than `home`, this mesh's, passes only by an ALLOW that names its trust domain
/// in a principal: to trust the certificates of a mesh must not open what was meant for one's own.
#[must_use]
pub fn authorize(
    snapshot: &Snapshot,
    home: &TrustDomain,
    target: &ServiceName,
    port: u16,
    caller: &SpiffeId,
    request: Option<&RequestHead<'_>>,
) -> Verdict {
    let call = Call {
        foreign: (caller.trust_domain() != home).then(|| caller.trust_domain().as_str()),
        principal: caller
            .as_str()
            .strip_prefix("spiffe://")
            .unwrap_or(caller.as_str()),
        namespace: caller.service().map(|(namespace, _)| namespace),
        port,
        request,
    };
    for action in [Action::Deny, Action::Allow] {
        let policies = snapshot.config().authz.policies(target);
        let matched = policies
            .filter(|policy| policy.action == action)
            .find_map(|policy| policy.find(&call));
        if let Some(rule) = matched {
            return Verdict {
                allowed: action == Action::Allow,
                rule: rule.label.clone(),
            };
        }
    }
    Verdict {
        allowed: false,
        rule: Arc::from(DEFAULT_DENY),
    }
}

struct Call<'c> {
    /// The caller's trust domain, if it is not this mesh's.
    foreign: Option<&'c str>,
    /// SPIFFE ID without scheme.
    principal: &'c str,
    /// `None` if the ID is not a service's.
    namespace: Option<&'c str>,
    port: u16,
    request: Option<&'c RequestHead<'c>>,
}

impl Policy {
    fn find(&self, call: &Call<'_>) -> Option<&PolicyRule> {
        self.rules.iter().find(|rule| {
            let invited = |from: &Source| self.action == Action::Deny || from.invites(call);
            let anybody =
                rule.from.is_empty() && (self.action == Action::Deny || call.foreign.is_none());
            let mut from = rule.from.iter();
            let from = anybody || from.any(|from| from.matches(call) && invited(from));
            let to = rule.to.is_empty() || rule.to.iter().any(|to| to.matches(call, self.action));
            from && to
        })
    }
}

/// No condition, or one of them holds.
fn any(patterns: &[Pattern], text: &str) -> bool {
    patterns.is_empty() || one_of(patterns, text)
}

fn one_of(patterns: &[Pattern], text: &str) -> bool {
    patterns.iter().any(|pattern| pattern.matches(text))
}

impl Source {
    /// Whether the caller is of this mesh, or a principal that it matches names its trust domain.
    fn invites(&self, call: &Call<'_>) -> bool {
        let Some(domain) = call.foreign else {
            return true;
        };
        self.principals.iter().any(|pattern| {
            let named = pattern.as_str().strip_prefix(domain);
            named.is_some_and(|path| path.starts_with('/')) && pattern.matches(call.principal)
        })
    }

    fn matches(&self, call: &Call<'_>) -> bool {
        let namespace = match call.namespace {
            Some(namespace) => any(&self.namespaces, namespace),
            None => self.namespaces.is_empty(),
        };
        any(&self.principals, call.principal)
            && !one_of(&self.not_principals, call.principal)
            && namespace
    }
}

impl Operation {
    fn matches(&self, call: &Call<'_>, action: Action) -> bool {
        (self.ports.is_empty() || self.ports.contains(&call.port))
            && match call.request {
                Some(head) => self.matches_http(head),
                // Istio: on TCP an ALLOW that asks about HTTP never matches, and a DENY is read without what it
                // asks about HTTP. Both ways, less passes than was written.
                None => action == Action::Deny || !self.asks_about_http(),
            }
    }

    fn matches_http(&self, head: &RequestHead<'_>) -> bool {
        let method = head.method().as_str();
        any(&self.methods, method)
            && !one_of(&self.not_methods, method)
            && any(&self.paths, head.path())
            && !one_of(&self.not_paths, head.path())
    }

    fn asks_about_http(&self) -> bool {
        let lists = [
            &self.methods,
            &self.not_methods,
            &self.paths,
            &self.not_paths,
        ];
        lists.iter().any(|list| !list.is_empty())
    }
}
