//! Envoy takes its certificates from here: `envoy.service.secret.v3`, with the names that SPIRE's agent knows.

mod secrets;
mod subscription;

use std::sync::Arc;

use tokio::sync::{mpsc, watch};
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Status, Streaming};
use weft_certs::Identity;

use crate::proto::sds::{DiscoveryRequest, DiscoveryResponse, kind};
use crate::session::Session;
use secrets::{Validation, secrets};
use subscription::{Asked, Subscription, validation};

type Messages = mpsc::Sender<Result<DiscoveryResponse, Status>>;

/// `FetchSecrets`: once.
pub(crate) async fn fetch(
    session: Arc<Session>,
    request: DiscoveryRequest,
) -> Result<tonic::Response<DiscoveryResponse>, Status> {
    let metadata = request
        .node
        .as_ref()
        .and_then(|node| node.metadata.as_ref());
    let validation = validation(metadata);
    let mut once = Subscription::default();
    if let Asked::Bad(why) = once.request(request) {
        return Err(Status::invalid_argument(why));
    }
    let names = once.wanted().map_or(&[][..], |(names, _)| names);
    let identity = session.admit().await?;
    response(&identity, names, validation).map(tonic::Response::new)
}

/// `StreamSecrets`: now, and at each change.
pub(crate) async fn stream(
    session: Arc<Session>,
    requests: Streaming<DiscoveryRequest>,
) -> Result<tonic::Response<ReceiverStream<Result<DiscoveryResponse, Status>>>, Status> {
    let changes = session.shared.identity.subscribe();
    session.admit().await?;
    let (messages, stream) = mpsc::channel(1);
    let (owner, stop) = (Arc::clone(&session), session.tasks.token());
    drop(session.tasks.spawn(async move {
        let _call = owner.begin();
        let end = tokio::select! {
            biased;
            () = stop.cancelled() => Some(Status::unavailable("the sidecar is stopping")),
            () = messages.closed() => None,
            end = serve(&owner, changes, requests, &messages) => end.err(),
        };
        if let Some(status) = end {
            let _ = messages.try_send(Err(status));
        }
    }));
    Ok(tonic::Response::new(ReceiverStream::new(stream)))
}

/// Runs until Envoy has ended its side.
async fn serve(
    session: &Session,
    mut changes: watch::Receiver<u64>,
    mut requests: Streaming<DiscoveryRequest>,
    messages: &Messages,
) -> Result<(), Status> {
    let _following = session.following();
    let mut subscription = Subscription::default();
    loop {
        let pushed = tokio::select! {
            request = requests.message() => match request? {
                Some(request) => taken(&mut subscription, request)?,
                None => return Ok(()),
            },
            changed = changes.changed() => {
                if changed.is_err() {
                    return Ok(());
                }
                session.take_turns().await;
                true
            }
        };
        if pushed {
            tell(session, &mut subscription, &mut changes, messages).await?;
        }
    }
}

/// Whether a request is to be answered.
fn taken(subscription: &mut Subscription, request: DiscoveryRequest) -> Result<bool, Status> {
    match subscription.request(request) {
        Asked::New => Ok(true),
        Asked::Taken | Asked::Stale => Ok(false),
        Asked::Refused(reason) => {
            tracing::warn!(reason, "an Envoy does not use the secrets that it was sent");
            Ok(false)
        }
        Asked::Bad(why) => Err(Status::invalid_argument(why)),
    }
}

/// Sends what is wanted, as it is now.
async fn tell(
    session: &Session,
    subscription: &mut Subscription,
    changes: &mut watch::Receiver<u64>,
    messages: &Messages,
) -> Result<(), Status> {
    let Ok(room) = messages.reserve().await else {
        return Ok(());
    };
    changes.mark_unchanged();
    let identity = session.admit().await?;
    let Some((names, validation)) = subscription.wanted() else {
        return Ok(());
    };
    let made = response(&identity, names, validation)?;
    let version = subscription.next();
    room.send(Ok(DiscoveryResponse {
        version_info: version.clone(),
        nonce: version,
        ..made
    }));
    Ok(())
}

fn response(
    identity: &Identity,
    names: &[String],
    validation: Validation,
) -> Result<DiscoveryResponse, Status> {
    let resources = secrets(identity, names, validation)
        .map_err(|unknown| Status::invalid_argument(unknown.to_string()))?;
    Ok(DiscoveryResponse {
        resources,
        type_url: format!("type.googleapis.com/{}", kind::SECRET),
        ..DiscoveryResponse::default()
    })
}
