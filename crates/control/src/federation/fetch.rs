//! One fetch of a bundle: HTTPS, redirects within the profile, a limit on everything.

use std::sync::{Arc, OnceLock};
use std::time::Duration;

use bytes::Bytes;
use http::{Method, Request, Response, StatusCode, header};
use http_body_util::{BodyExt, Empty, Limited};
use hyper::body::Incoming;
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use serde_json::Value;
use tokio::time::timeout;
use tokio_rustls::TlsConnector;
use tokio_rustls::rustls::ClientConfig;
use tokio_rustls::rustls::pki_types::ServerName;
use weft_certs::{BundleSet, VerifyError, certificates, tls};
use weft_env::Env;

use super::rules::{Place, place};
use super::types::{Profile, Relation};

/// For all of one fetch.
const LIMIT: Duration = Duration::from_secs(10);
/// Largest bundle, in bytes.
const MAX_BUNDLE: usize = 1024 * 1024;
const MAX_REDIRECTS: usize = 3;
const ALPN: &[&[u8]] = &[b"http/1.1"];

/// Fetches the JWK set of a relation. `bundles`: by whom an `https_spiffe` endpoint is recognized.
///
/// # Errors
/// Why not, in one sentence with a next step where there is one.
pub(super) async fn fetch(
    env: &Env,
    relation: &Relation,
    bundles: &BundleSet,
) -> Result<Value, String> {
    let fetching = follow(env, relation, bundles);
    match timeout(LIMIT, fetching).await {
        Ok(fetched) => fetched,
        Err(_) => Err(format!(
            "{} did not answer within {} s",
            relation.url,
            LIMIT.as_secs()
        )),
    }
}

/// A redirect holds for this fetch only, and its target must show the same as the first (§5.1).
async fn follow(env: &Env, relation: &Relation, bundles: &BundleSet) -> Result<Value, String> {
    let mut at = place(&relation.url)?;
    for _ in 0..=MAX_REDIRECTS {
        let reply = get(env, &at, &relation.profile, bundles).await?;
        let status = reply.status();
        if status.is_redirection() {
            at = redirected(&at, &reply)?;
            continue;
        }
        if status != StatusCode::OK {
            return Err(format!("{} answered with status {status}", shown(&at)));
        }
        let body = Limited::new(reply.into_body(), MAX_BUNDLE).collect().await;
        let body = body.map_err(|error| format!("{} broke off: {error}", shown(&at)))?;
        return serde_json::from_slice(&body.to_bytes())
            .map_err(|error| format!("what {} sent is not JSON: {error}", shown(&at)));
    }
    Err(format!(
        "{} redirects more than {MAX_REDIRECTS} times",
        relation.url
    ))
}

fn redirected(from: &Place, reply: &Response<Incoming>) -> Result<Place, String> {
    let location = reply.headers().get(header::LOCATION);
    let location = location.and_then(|value| value.to_str().ok());
    match location {
        Some(path) if path.starts_with('/') && !path.starts_with("//") => Ok(Place {
            path: path.to_owned(),
            ..from.clone()
        }),
        Some(url) => place(url),
        None => Err(format!("{} redirects to nowhere", shown(from))),
    }
}

async fn get(
    env: &Env,
    at: &Place,
    profile: &Profile,
    bundles: &BundleSet,
) -> Result<Response<Incoming>, String> {
    let failed = |error: &dyn std::fmt::Display| format!("{}: {error}", shown(at));
    let failure = Arc::new(OnceLock::new());
    let config = Arc::new(config(env, profile, bundles, Arc::clone(&failure)).await?);
    let found = env.resolve(&at.host, at.port).await;
    let mut last = String::new();
    for addr in found.map_err(|error| failed(&error))? {
        let stream = match env.connect(addr).await {
            Ok(stream) => stream,
            Err(error) => {
                last = failed(&error);
                continue;
            }
        };
        let name = ServerName::try_from(at.host.clone()).map_err(|error| failed(&error))?;
        let connector = TlsConnector::from(config);
        let stream = connector.connect(name, stream).await.map_err(|error| {
            let cause: Option<&VerifyError> = failure.get();
            cause.map_or_else(|| failed(&error), |cause| failed(cause))
        })?;
        return exchange(env, at, stream)
            .await
            .map_err(|error| failed(&error));
    }
    Err(last)
}

async fn exchange<S>(env: &Env, at: &Place, stream: S) -> Result<Response<Incoming>, hyper::Error>
where
    S: tokio::io::AsyncRead + tokio::io::AsyncWrite + Unpin + Send + 'static,
{
    let (mut sender, connection) = http1::Builder::new()
        .max_buf_size(64 * 1024)
        .handshake(TokioIo::new(stream))
        .await?;
    // Ends with the reply's body, or when that is dropped.
    drop(env.spawn(async move {
        let _ = connection.await;
    }));
    let request = Request::builder()
        .method(Method::GET)
        .uri(at.path.as_str())
        .header(header::HOST, host(at))
        .header(header::ACCEPT, "application/json")
        .header(header::CONNECTION, "close")
        .body(Empty::<Bytes>::new())
        .expect("a path that was read as one, and constants");
    sender.send_request(request).await
}

async fn config(
    env: &Env,
    profile: &Profile,
    bundles: &BundleSet,
    failure: tls::Failure,
) -> Result<ClientConfig, String> {
    let roots = match profile {
        Profile::HttpsSpiffe { endpoint_spiffe_id } => {
            let (bundles, id) = (bundles.clone(), endpoint_spiffe_id.clone());
            return Ok(tls::spiffe_endpoint_client(
                bundles,
                id,
                ALPN,
                env.clock(),
                failure,
            ));
        }
        Profile::HttpsWeb { ca: Some(pem) } => {
            certificates(pem.as_bytes()).map_err(|error| error.to_string())?
        }
        Profile::HttpsWeb { ca: None } => {
            env.disk(|_| rustls_native_certs::load_native_certs().certs)
                .await
        }
    };
    tls::web_endpoint_client(&roots, ALPN, env.clock()).map_err(|_| {
        "this machine trusts no authority of the web; install ca-certificates, or give one with --ca FILE"
            .to_owned()
    })
}

fn host(at: &Place) -> String {
    let host = match at.host.contains(':') {
        true => format!("[{}]", at.host),
        false => at.host.clone(),
    };
    match at.port {
        443 => host,
        port => format!("{host}:{port}"),
    }
}

fn shown(at: &Place) -> String {
    format!("https://{}{}", host(at), at.path)
}
