//! What a request of the own application is for: the service and its port.

use http::{HeaderMap, Method, Uri, header};
use weft_resources::ServiceName;

use crate::respond::{Fact, Refusal};

/// Port of an authority that names none.
const DEFAULT_PORT: u16 = 80;

/// The service and port that a request names: by the authority of an absolute target or of CONNECT, else
/// by `Host` (RFC 9112 §3.2.2: the target wins, `Host` is then not looked at).
pub(crate) fn resolve(
    method: &Method,
    uri: &Uri,
    headers: &HeaderMap,
    own_namespace: &str,
) -> Result<(ServiceName, u16), Refusal> {
    let authority = match uri.authority() {
        Some(authority) => {
            if uri.scheme_str().is_some_and(|scheme| scheme != "http") {
                return Err(bad(
                    "only http:// targets can be carried request by request; use CONNECT for others",
                ));
            }
            authority.as_str()
        }
        None => host(headers)?,
    };
    if authority.contains('@') {
        return Err(bad("the authority has user information in it"));
    }
    let (service, port) = ServiceName::parse_host(authority, own_namespace).map_err(|error| {
        Refusal::new(
            Fact::NoSuchService,
            format!("{error}; weft carries traffic to services of the mesh only"),
        )
    })?;
    match port {
        Some(port) => Ok((service, port)),
        None if method == Method::CONNECT => {
            Err(bad("the target of CONNECT has no port: name one"))
        }
        None => Ok((service, DEFAULT_PORT)),
    }
}

/// RFC 9112 §3.2: a request without exactly one valid `Host` is refused.
fn host(headers: &HeaderMap) -> Result<&str, Refusal> {
    let mut all = headers.get_all(header::HOST).iter();
    match (all.next(), all.next()) {
        (Some(host), None) => match host.to_str() {
            Ok(host) if !host.is_empty() => Ok(host),
            _ => Err(bad("the Host field is empty or not text")),
        },
        (None, _) => Err(bad("the request has no Host field")),
        (Some(_), Some(_)) => Err(bad("the request has more than one Host field")),
    }
}

fn bad(details: &str) -> Refusal {
    Refusal::new(Fact::BadRequest, details)
}

#[cfg(test)]
mod tests {
    use super::*;
    use http::HeaderValue;

    fn with_hosts(hosts: &[&'static str]) -> HeaderMap {
        hosts
            .iter()
            .map(|host| (header::HOST, HeaderValue::from_static(host)))
            .collect()
    }

    fn resolved(method: Method, target: &str, hosts: &[&'static str]) -> Result<String, Fact> {
        resolve(
            &method,
            &target.parse().unwrap(),
            &with_hosts(hosts),
            "default",
        )
        .map(|(service, port)| format!("{service}:{port}"))
        .map_err(|refusal| refusal.fact)
    }

    #[test]
    fn rfc9112_3_2_the_target_or_else_one_host_names_the_service() {
        let get = |target, hosts: &[&'static str]| resolved(Method::GET, target, hosts);
        for (target, hosts, expected) in [
            ("http://invoices/a?b", vec!["other"], "invoices.default:80"),
            ("http://invoices.team:8080/", vec![], "invoices.team:8080"),
            ("/a", vec!["invoices"], "invoices.default:80"),
            (
                "/a",
                vec!["INVOICES.default.svc.cluster.local:81"],
                "invoices.default:81",
            ),
        ] {
            assert_eq!(
                get(target, &hosts).as_deref(),
                Ok(expected),
                "{target} {hosts:?}"
            );
        }
        for (target, hosts, fact) in [
            ("/a", vec![], Fact::BadRequest),
            ("/a", vec!["a", "b"], Fact::BadRequest),
            ("/a", vec![""], Fact::BadRequest),
            ("/a", vec!["127.0.0.1:15001"], Fact::NoSuchService),
            ("http://example.com.au.x/", vec![], Fact::NoSuchService),
            ("http://u@invoices/", vec![], Fact::BadRequest),
            ("https://invoices/", vec![], Fact::BadRequest),
        ] {
            assert_eq!(get(target, &hosts), Err(fact), "{target} {hosts:?}");
        }
    }

    #[test]
    fn connect_names_service_and_port() {
        assert_eq!(
            resolved(Method::CONNECT, "ledger:5432", &["x"]).as_deref(),
            Ok("ledger.default:5432")
        );
        assert_eq!(
            resolved(Method::CONNECT, "ledger", &[]),
            Err(Fact::BadRequest)
        );
        assert_eq!(
            resolved(Method::CONNECT, "[::1]:80", &[]),
            Err(Fact::NoSuchService)
        );
    }
}
