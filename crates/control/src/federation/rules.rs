//! What the standard asks of relations, places and bundles. Pure.

use std::time::Duration;

use http::Uri;
use serde_json::Value;
use weft_certs::{TrustBundle, TrustDomain};

use super::types::{Profile, Relation};

/// Between two fetches where the bundle says nothing (SPIFFE Federation §4.1).
pub(super) const DEFAULT_REFRESH: Duration = Duration::from_secs(300);
/// A hint below is taken as this: a mesh must not be made to ask without pause.
const MIN_REFRESH: Duration = Duration::from_secs(1);
/// A hint above is taken as this: revoked roots must go within a day.
const MAX_REFRESH: Duration = Duration::from_secs(24 * 3600);
/// Longest URL.
const MAX_URL: usize = 2048;

/// A place to fetch from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Place {
    pub(super) host: String,
    pub(super) port: u16,
    /// Path and query.
    pub(super) path: String,
}

/// Reads an `https` URL (§5.1: https, and no user information).
pub(super) fn place(url: &str) -> Result<Place, String> {
    let wrong = |why: &str| format!("'{url}' is not the URL of a bundle endpoint: {why}");
    if url.len() > MAX_URL {
        return Err(format!("the URL is longer than {MAX_URL} characters"));
    }
    let uri: Uri = url.parse().map_err(|error| wrong(&format!("{error}")))?;
    if uri.scheme_str() != Some("https") {
        return Err(wrong("it must begin with https://"));
    }
    let authority = uri.authority().ok_or_else(|| wrong("it has no host"))?;
    if authority.as_str().contains('@') {
        return Err(wrong("user information is not allowed in it"));
    }
    if url.contains('#') {
        return Err(wrong("a fragment is not allowed in it"));
    }
    let path = uri.path_and_query().map_or("/", |path| path.as_str());
    Ok(Place {
        host: authority.host().trim_matches(['[', ']']).to_owned(),
        port: authority.port_u16().unwrap_or(443),
        path: path.to_owned(),
    })
}

/// Whether this mesh may have such a relation. `has_bundle`: of which trust domains a bundle is there, the request's
/// own included.
pub(super) fn check(
    relation: &Relation,
    home: &TrustDomain,
    has_bundle: impl Fn(&TrustDomain) -> bool,
) -> Result<(), String> {
    if relation.trust_domain == *home {
        return Err(format!(
            "{home} is this mesh itself: its own roots are not taken from elsewhere"
        ));
    }
    place(&relation.url)?;
    if let Profile::HttpsSpiffe { endpoint_spiffe_id } = &relation.profile {
        let domain = endpoint_spiffe_id.trust_domain();
        if domain != home && !has_bundle(domain) {
            return Err(format!(
                "nothing is known of {domain} by which {endpoint_spiffe_id} could be recognized: bring its bundle along with --bundle FILE (the other side prints it with: weft federation bundle)"
            ));
        }
    }
    Ok(())
}

/// Seconds between two fetches, by the bundle's own hint.
pub(super) fn refresh(jwks: &Value) -> Duration {
    let hint = jwks.get("spiffe_refresh_hint").and_then(Value::as_u64);
    hint.map_or(DEFAULT_REFRESH, Duration::from_secs)
        .clamp(MIN_REFRESH, MAX_REFRESH)
}

/// What to do with a fetched bundle.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Judged {
    /// It is what is in force.
    Same,
    /// It takes the place of what is in force.
    Newer,
    /// It is of an earlier edition: somebody's cache, or somebody who wants an old root back.
    Older,
}

/// By `spiffe_sequence`; one without (0) is judged by its content.
pub(super) fn judge(current: Option<&TrustBundle>, fetched: &TrustBundle) -> Judged {
    match current {
        None => Judged::Newer,
        Some(current) if current == fetched => Judged::Same,
        Some(current) if fetched.sequence > 0 && fetched.sequence < current.sequence => {
            Judged::Older
        }
        Some(_) => Judged::Newer,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn relation(domain: &str, url: &str, endpoint: Option<&str>) -> Relation {
        Relation {
            trust_domain: TrustDomain::parse(domain).unwrap(),
            url: url.to_owned(),
            profile: match endpoint {
                None => Profile::HttpsWeb { ca: None },
                Some(id) => Profile::HttpsSpiffe {
                    endpoint_spiffe_id: id.parse().unwrap(),
                },
            },
        }
    }

    #[test]
    fn places_are_https_without_user_information() {
        let read = |host: &str, port, path: &str| {
            Ok(Place {
                host: host.to_owned(),
                port,
                path: path.to_owned(),
            })
        };
        assert_eq!(place("https://p.example"), read("p.example", 443, "/"));
        assert_eq!(
            place("https://p.example:8443/b?x=1"),
            read("p.example", 8443, "/b?x=1")
        );
        assert_eq!(place("https://[::1]:1/"), read("::1", 1, "/"));
        for (url, why) in [
            ("http://p.example/", "https://"),
            ("p.example", "https://"),
            ("https://u@p.example/", "user information"),
            ("https://u:x@p.example/", "user information"),
            ("https://p.example/#x", "fragment"),
            ("https:///x", "not the URL"),
            ("spiffe://p.example", "https://"),
        ] {
            let error = place(url).expect_err(url);
            assert!(error.contains(why), "{error}");
        }
    }

    #[test]
    fn a_relation_needs_something_to_recognize_its_endpoint_by() {
        let home = TrustDomain::parse("home.example").unwrap();
        let told = |domain: &str, endpoint, known: &str| {
            let relation = relation(domain, "https://p.example/", endpoint);
            check(&relation, &home, |domain| domain.as_str() == known)
        };
        let id = "spiffe://p.example/ns/weft-system/sa/control";
        assert!(told("p.example", None, "").is_ok());
        assert!(told("p.example", Some(id), "p.example").is_ok());
        assert!(told("p.example", Some("spiffe://home.example/x"), "").is_ok());
        let error = told("p.example", Some(id), "q.example").unwrap_err();
        assert!(error.contains("--bundle"), "{error}");
        let error = told("home.example", None, "").unwrap_err();
        assert!(error.contains("this mesh itself"), "{error}");
    }

    #[test]
    fn the_hint_has_bounds() {
        let seconds = |jwks: Value| refresh(&jwks).as_secs();
        assert_eq!(seconds(json!({})), 300);
        assert_eq!(seconds(json!({"spiffe_refresh_hint": 60})), 60);
        assert_eq!(seconds(json!({"spiffe_refresh_hint": 0})), 1);
        assert_eq!(seconds(json!({"spiffe_refresh_hint": u64::MAX})), 86_400);
        assert_eq!(seconds(json!({"spiffe_refresh_hint": "x"})), 300);
    }

    #[test]
    fn editions_go_forward_only() {
        let bundle = |sequence, keys: Value| {
            let jwks = json!({"spiffe_sequence": sequence, "keys": keys});
            TrustBundle::from_jwks(TrustDomain::parse("p.example").unwrap(), &jwks).unwrap()
        };
        let (one, two) = (bundle(1, json!([])), bundle(2, json!([])));
        assert_eq!(judge(None, &one), Judged::Newer);
        assert_eq!(judge(Some(&one), &two), Judged::Newer);
        assert_eq!(judge(Some(&two), &two), Judged::Same);
        assert_eq!(judge(Some(&two), &one), Judged::Older);
        assert_eq!(judge(Some(&two), &bundle(0, json!([]))), Judged::Newer);
    }
}
