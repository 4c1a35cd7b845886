//! The other side of the Workload API: an identity is taken from a provider, such as SPIRE's agent, and followed as it
//! changes.

use std::future::Future;
use std::io;
use std::path::Path;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use http::{Request, Response, Uri};
use hyper::body::Incoming;
use hyper::client::conn::http2;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::time::timeout;
use tonic::body::Body;
use tonic::client::Grpc;
use tonic::metadata::MetadataValue;
use tonic::{Code, Status, Streaming};
use tonic_prost::ProstCodec;
use weft_certs::{BundleSet, TrustBundle, TrustDomain, X509Svid, concatenated};
use weft_env::Tasks;
use zeroize::Zeroizing;

use crate::executor::On;
use crate::proto::workload::{ProvidedSvid, ProvidedSvids, X509SvidRequest, path};
use crate::rpc::SECURITY_HEADER;

/// A provider answers at once (Workload API §4.1), or is in trouble.
const PATIENCE: Duration = Duration::from_secs(10);
/// The kernel tells when the provider ends; a ping finds one that is stuck.
const PING: (Duration, Duration) = (Duration::from_secs(30), Duration::from_secs(20));
/// Bundles of hundreds of trust domains fit in.
const MAX_MESSAGE: usize = 4 * 1024 * 1024;
/// Trust domains of one message.
const MAX_DOMAINS: usize = 1024;
/// Characters of what a provider says that are passed on.
const SHOWN: usize = 300;

/// One message of a provider: the whole state, in which whatever is missing is withdrawn (Workload API §4.4).
#[derive(Debug)]
pub struct Provided {
    /// The first identity of the message, which is the default one (Workload API §4).
    pub svid: X509Svid,
    /// The roots of its trust domain, and of those that are federated with it. They have no edition.
    pub bundles: BundleSet,
}

/// Why there is no identity from a provider. Each says the cause; [`next_step`](Self::next_step) what to do.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ProviderError {
    /// Nobody answers on the socket.
    #[error("{0}")]
    Connect(#[source] io::Error),
    /// It has no identity for this process, or none any more.
    #[error("the provider has no identity for this process ({0})")]
    NoIdentity(String),
    /// What answers does not serve this, and never will (`InvalidArgument`, `Unimplemented`).
    #[error("what answers there refuses the call ({0})")]
    Never(String),
    /// It cannot serve at the moment.
    #[error("the provider cannot serve ({0})")]
    Unavailable(String),
    /// The stream ended, as it does when the provider stops.
    #[error("the provider ended the stream")]
    Ended,
    /// A message that breaks a rule is not used as a whole (Workload API §4.5). The stream goes on.
    #[error("the provider's message cannot be used: {0}")]
    Unusable(String),
}

impl ProviderError {
    /// Whether it makes no sense to ask again.
    #[must_use]
    pub fn is_final(&self) -> bool {
        matches!(self, Self::Never(_))
    }

    /// What an operator does about it.
    #[must_use]
    pub fn next_step(&self) -> &'static str {
        match self {
            Self::Connect(error) if error.kind() == io::ErrorKind::PermissionDenied => {
                "give the user of this process access to the socket"
            }
            Self::Connect(_) => "start the provider there, or name its socket with --identity",
            Self::NoIdentity(_) => {
                "register this process with the provider (SPIRE: `spire-server entry create`; a sidecar of weft: its --workload-allow)"
            }
            Self::Never(_) => "name the socket of a SPIFFE Workload API with --identity",
            Self::Unavailable(_) | Self::Ended => "look at the provider's log",
            Self::Unusable(_) => "mend the provider's registration of this process",
        }
    }
}

impl From<Status> for ProviderError {
    fn from(status: Status) -> Self {
        let code = status.code();
        let said: String = status.message().chars().take(SHOWN).collect();
        let said = match said.is_empty() {
            true => code.to_string(),
            false => said.replace(char::is_control, " "),
        };
        match code {
            Code::PermissionDenied => Self::NoIdentity(said),
            Code::InvalidArgument | Code::Unimplemented => Self::Never(said),
            _ => Self::Unavailable(said),
        }
    }
}

/// A stream of identities that is open. What it needs ends with it.
pub struct Subscription {
    messages: Streaming<ProvidedSvids>,
    _owner: Owner,
}

/// Owns the tasks of one connection, and ends them.
struct Owner(Tasks);

impl Drop for Owner {
    fn drop(&mut self) {
        self.0.token().cancel();
    }
}

impl std::fmt::Debug for Subscription {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Subscription")
    }
}

impl Subscription {
    /// Asks the provider on this socket, and waits for its first message.
    ///
    /// # Errors
    /// [`ProviderError`].
    pub async fn open(tasks: &Tasks, socket: &Path) -> Result<(Self, Provided), ProviderError> {
        let first = async {
            let mut subscription = Self::ask(Owner(tasks.child()), socket).await?;
            let provided = subscription.next().await?;
            Ok((subscription, provided))
        };
        timeout(PATIENCE, first).await.unwrap_or_else(|_| {
            let said = format!("no answer within {PATIENCE:?}");
            Err(ProviderError::Unavailable(said))
        })
    }

    async fn ask(owner: Owner, socket: &Path) -> Result<Self, ProviderError> {
        let tasks = &owner.0;
        let stream = tasks.env().connect_unix(socket).await;
        let stream = stream.map_err(ProviderError::Connect)?;
        let broken = |error: &dyn std::fmt::Display| ProviderError::Unavailable(error.to_string());
        let (calls, connection) = http2::Builder::new(On(tasks.clone()))
            .timer(TokioTimer::new())
            .keep_alive_interval(PING.0)
            .keep_alive_timeout(PING.1)
            .handshake(TokioIo::new(stream))
            .await
            .map_err(|error| broken(&error))?;
        let stop = tasks.token();
        // The stream tells how it ends.
        drop(tasks.spawn(async move {
            tokio::select! {
                biased;
                () = stop.cancelled() => {}
                _ = connection => {}
            }
        }));
        let origin = Uri::from_static("http://localhost");
        let mut grpc =
            Grpc::with_origin(Calls(calls), origin).max_decoding_message_size(MAX_MESSAGE);
        grpc.ready().await.map_err(|error| broken(&error))?;
        let mut request = tonic::Request::new(X509SvidRequest {});
        let yes = MetadataValue::from_static("true");
        request.metadata_mut().insert(SECURITY_HEADER, yes);
        let codec: ProstCodec<X509SvidRequest, ProvidedSvids> = ProstCodec::default();
        let method = http::uri::PathAndQuery::from_static(path::X509_SVID);
        let answer = grpc.server_streaming(request, method, codec).await?;
        Ok(Self {
            messages: answer.into_inner(),
            _owner: owner,
        })
    }

    /// The next state. Dropping the future loses nothing.
    ///
    /// # Errors
    /// [`ProviderError`]; after [`ProviderError::Unusable`] it goes on.
    pub async fn next(&mut self) -> Result<Provided, ProviderError> {
        match self.messages.message().await? {
            Some(message) => read(&message).map_err(ProviderError::Unusable),
            None => Err(ProviderError::Ended),
        }
    }
}

/// The state that a message is. The reason, where it breaks a rule.
fn read(message: &ProvidedSvids) -> Result<Provided, String> {
    let svid = message.svids.first().ok_or("it names no identity")?;
    for (field, is_empty) in [
        ("spiffe_id", svid.spiffe_id.is_empty()),
        ("x509_svid", svid.x509_svid.is_empty()),
        ("x509_svid_key", svid.x509_svid_key.is_empty()),
        ("bundle", svid.bundle.is_empty()),
    ] {
        if is_empty {
            return Err(format!("its field {field} is empty"));
        }
    }
    if message.federated_bundles.len() > MAX_DOMAINS {
        return Err(format!("it has more than {MAX_DOMAINS} trust domains"));
    }
    let taken = identity(svid)?;
    let own = taken.id().trust_domain().clone();
    let mut bundles = BundleSet::new();
    for (name, roots) in &message.federated_bundles {
        let domain = TrustDomain::parse(name).map_err(|error| error.to_string())?;
        bundles.insert(bundle(domain, roots)?);
    }
    // Last: no federated bundle takes the place of the own one.
    bundles.insert(bundle(own, &svid.bundle)?);
    Ok(Provided {
        svid: taken,
        bundles,
    })
}

fn identity(svid: &ProvidedSvid) -> Result<X509Svid, String> {
    let chain = concatenated(&svid.x509_svid).map_err(|error| error.to_string())?;
    let key = Zeroizing::new(svid.x509_svid_key.clone());
    let taken = X509Svid::new(chain, key).map_err(|error| error.to_string())?;
    match taken.id().as_str() == svid.spiffe_id {
        true => Ok(taken),
        false => Err(format!(
            "the certificate is of {}, and not of the identity that is named",
            taken.id()
        )),
    }
}

fn bundle(trust_domain: TrustDomain, ders: &[u8]) -> Result<TrustBundle, String> {
    let roots =
        concatenated(ders).map_err(|error| format!("the bundle of {trust_domain}: {error}"));
    Ok(TrustBundle {
        roots: roots?,
        trust_domain,
        sequence: 0,
        jwt_keys: Vec::new(),
    })
}

/// hyper's side of a connection as the kind of service that tonic calls.
struct Calls(http2::SendRequest<Body>);

impl tower_service::Service<Request<Body>> for Calls {
    type Response = Response<Incoming>;
    type Error = hyper::Error;
    type Future = Pin<Box<dyn Future<Output = Result<Self::Response, Self::Error>> + Send>>;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), Self::Error>> {
        self.0.poll_ready(context)
    }

    fn call(&mut self, request: Request<Body>) -> Self::Future {
        Box::pin(self.0.send_request(request))
    }
}
