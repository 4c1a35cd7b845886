//! What one Envoy stream wants and has been told: pure.

use super::secrets::Validation;
use crate::proto::sds::{DiscoveryRequest, kind};
use crate::proto::{Kind, Struct};

/// More names than an Envoy has secrets of one sidecar.
const MAX_NAMES: usize = 64;
/// SPIRE's word for it, in the metadata of Envoy's node.
const PLAIN: &str = "disable_spiffe_cert_validation";

/// The state of a stream.
#[derive(Debug, Default)]
pub(crate) struct Subscription {
    /// What is wanted; `None` before the first request.
    names: Option<Vec<String>>,
    validation: Validation,
    /// How many responses were sent: the last one's version and nonce.
    sent: u64,
}

/// What a request means.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Asked {
    /// Other secrets than before: send them.
    New,
    /// The last response is in use.
    Taken,
    /// The last response is not in use, for this reason.
    Refused(String),
    /// It speaks of an earlier response.
    Stale,
    /// It cannot be served.
    Bad(&'static str),
}

impl Subscription {
    /// Takes a request in.
    pub(crate) fn request(&mut self, request: DiscoveryRequest) -> Asked {
        let kind = request.type_url.strip_prefix("type.googleapis.com/");
        if !request.type_url.is_empty() && kind != Some(kind::SECRET) {
            return Asked::Bad("only secrets are known here");
        }
        if request.resource_names.len() > MAX_NAMES {
            return Asked::Bad("it names too many secrets");
        }
        if self.sent > 0 && request.response_nonce != self.nonce() {
            return Asked::Stale;
        }
        // Envoy tells of its node in the first request of a stream.
        if let Some(node) = request.node {
            self.validation = validation(node.metadata.as_ref());
        }
        let mut names = request.resource_names;
        names.retain(|name| !name.is_empty());
        names.sort_unstable();
        names.dedup();
        // A refusal may come with other names.
        if self.names.as_ref() != Some(&names) {
            self.names = Some(names);
            return Asked::New;
        }
        match request.error_detail {
            Some(error) => Asked::Refused(error.message),
            None => Asked::Taken,
        }
    }

    /// The names, once there was a request.
    pub(crate) fn wanted(&self) -> Option<(&[String], Validation)> {
        Some((self.names.as_deref()?, self.validation))
    }

    /// Version and nonce of the next response.
    pub(crate) fn next(&mut self) -> String {
        self.sent += 1;
        self.nonce()
    }

    fn nonce(&self) -> String {
        self.sent.to_string()
    }
}

/// How a node with this metadata judges its peers.
pub(crate) fn validation(metadata: Option<&Struct>) -> Validation {
    let value = metadata
        .and_then(|metadata| metadata.fields.get(PLAIN))
        .and_then(|value| value.kind.as_ref());
    match value {
        Some(Kind::Bool(true)) => Validation::Plain,
        Some(Kind::Text(text)) if text == "true" => Validation::Plain,
        _ => Validation::Spiffe,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::proto::Value;
    use crate::proto::sds::{Node, RpcStatus};

    fn request(names: &[&str], nonce: &str) -> DiscoveryRequest {
        DiscoveryRequest {
            resource_names: names.iter().map(|&name| name.to_owned()).collect(),
            response_nonce: nonce.to_owned(),
            ..DiscoveryRequest::default()
        }
    }

    fn plain(kind: Kind) -> Option<Node> {
        let value = Value { kind: Some(kind) };
        let fields = [(PLAIN.to_owned(), value)].into();
        Some(Node {
            id: "envoy".into(),
            metadata: Some(Struct { fields }),
        })
    }

    #[test]
    fn a_stream_sends_for_new_names_and_not_for_an_acknowledgement() {
        let mut stream = Subscription::default();
        assert_eq!(stream.wanted(), None);
        assert_eq!(stream.request(request(&["default"], "")), Asked::New);
        let first = stream.next();
        assert_eq!(stream.request(request(&["default"], &first)), Asked::Taken);
        let more = request(&["default", "ROOTCA"], &first);
        assert_eq!(stream.request(more), Asked::New);
        let second = stream.next();
        assert_ne!(first, second);
        let reordered = request(&["ROOTCA", "default", "", "default"], &second);
        assert_eq!(stream.request(reordered), Asked::Taken);
        assert_eq!(
            stream.wanted().unwrap().0,
            ["ROOTCA".to_owned(), "default".to_owned()]
        );
    }

    #[test]
    fn what_speaks_of_an_earlier_response_is_passed_over() {
        let mut stream = Subscription::default();
        stream.request(request(&["default"], ""));
        let first = stream.next();
        stream.next();
        assert_eq!(stream.request(request(&["other"], &first)), Asked::Stale);
        assert_eq!(stream.request(request(&["other"], "")), Asked::Stale);
        assert_eq!(stream.wanted().unwrap().0, ["default".to_owned()]);
    }

    #[test]
    fn a_refusal_is_not_answered_with_the_same_again() {
        let mut stream = Subscription::default();
        stream.request(request(&["default"], ""));
        let first = stream.next();
        let error = RpcStatus {
            code: 13,
            message: "no".to_owned(),
        };
        let mut refusal = request(&["default"], &first);
        refusal.error_detail = Some(error.clone());
        assert_eq!(stream.request(refusal), Asked::Refused("no".to_owned()));
        let mut refusal = request(&["ROOTCA"], &first);
        refusal.error_detail = Some(error);
        assert_eq!(stream.request(refusal), Asked::New, "with other names");
    }

    #[test]
    fn the_node_chooses_how_peers_are_judged_and_is_told_once() {
        for (kind, expected) in [
            (Kind::Bool(true), Validation::Plain),
            (Kind::Text("true".into()), Validation::Plain),
            (Kind::Bool(false), Validation::Spiffe),
            (Kind::Text("yes".into()), Validation::Spiffe),
            (Kind::Number(1.0), Validation::Spiffe),
        ] {
            let mut stream = Subscription::default();
            let mut first = request(&["ALL"], "");
            first.node = plain(kind.clone());
            stream.request(first);
            let nonce = stream.next();
            stream.request(request(&["ROOTCA"], &nonce));
            assert_eq!(stream.wanted().unwrap().1, expected, "{kind:?}");
        }
    }

    #[test]
    fn other_types_and_endless_lists_are_refused() {
        let mut stream = Subscription::default();
        let mut other = request(&[], "");
        other.type_url = "type.googleapis.com/envoy.config.cluster.v3.Cluster".into();
        assert!(matches!(stream.request(other), Asked::Bad(_)));
        let mut secret = request(&[], "");
        secret.type_url = format!("type.googleapis.com/{}", kind::SECRET);
        assert_eq!(stream.request(secret), Asked::New);
        let many = DiscoveryRequest {
            resource_names: vec!["x".to_owned(); MAX_NAMES + 1],
            ..DiscoveryRequest::default()
        };
        assert!(matches!(stream.request(many), Asked::Bad(_)));
    }
}
