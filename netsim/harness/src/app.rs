//! The simulated application beside a sidecar.

use std::convert::Infallible;
use std::net::SocketAddr;
use std::time::Duration;

use bytes::Bytes;
use http::{Request, Response, StatusCode};
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use tokio::time::sleep;
use weft_env::Env;
use weft_netsim_sim::Node;

use crate::certificates::Certificates;
use crate::client::LATE;
use crate::observer::{Arrival, Observer};
use crate::schedule::Place;

/// Where it listens.
pub(crate) const APP: ([u8; 4], u16) = ([127, 0, 0, 1], 8080);

/// What an application needs to know.
#[derive(Clone)]
pub(crate) struct App {
    pub(crate) place: Place,
    pub(crate) service: &'static str,
    pub(crate) node: Node,
    pub(crate) observer: Observer,
    pub(crate) certificates: Certificates,
}

impl App {
    /// Serves until its process ends.
    pub(crate) async fn run(self, env: Env) {
        let Ok(listener) = env.listen(SocketAddr::from(APP)).await else {
            return self
                .observer
                .violate(format!("the application of {:?} cannot listen", self.node));
        };
        while let Ok((stream, _)) = listener.accept().await {
            let app = self.clone();
            drop(env.spawn(async move {
                let service = service_fn(|request| app.answer(request));
                let mut server = http1::Builder::new();
                // The header would bring the machine's clock into the run.
                server.auto_date_header(false);
                // A connection that breaks is the sidecar's end of it.
                let _ = server.serve_connection(TokioIo::new(stream), service).await;
            }));
        }
    }

    async fn answer(
        &self,
        request: Request<Incoming>,
    ) -> Result<Response<Full<Bytes>>, Infallible> {
        let (parts, body) = request.into_parts();
        let header = |name: &str| {
            let value = parts
                .headers
                .get(name)
                .and_then(|value| value.to_str().ok());
            value.unwrap_or_default().to_owned()
        };
        // /r/NUMBER/WAIT
        let mut path = parts.uri.path().split('/').skip(2);
        let mut next = || path.next().and_then(|part| part.parse::<u64>().ok());
        let (Some(number), Some(wait)) = (next(), next()) else {
            return Ok(reply(StatusCode::BAD_REQUEST, "what?".to_owned()));
        };
        let xfcc = Xfcc::of(&header("x-forwarded-client-cert"));
        let arrival = Arrival {
            at: self.observer.now(),
            place: self.place,
            callee: self.service,
            caller: xfcc.service.clone(),
            number,
            generation: header("x-generation").parse().ok(),
        };
        let wanted = (header("x-test-caller"), header("x-test-callee"));
        let once = parts.method == http::Method::POST;
        self.check(&arrival, &xfcc, &wanted, once);
        self.observer.lock().arrivals.push(arrival);
        let late = parts.uri.path().split('/').nth(1) == Some(LATE);
        if !late && body.collect().await.is_err() {
            return Ok(reply(
                StatusCode::BAD_REQUEST,
                "the body broke off".to_owned(),
            ));
        }
        sleep(Duration::from_millis(wait)).await;
        Ok(reply(StatusCode::OK, answer_to(self.service, number)))
    }
}

/// What the application of a service answers to a request.
pub(crate) fn answer_to(service: &str, number: u64) -> String {
    format!("{service} answers {number}")
}

fn reply(status: StatusCode, text: String) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::new(Bytes::from(text)));
    *response.status_mut() = status;
    response
}

/// What `x-forwarded-client-cert` says of the caller.
pub(crate) struct Xfcc {
    /// Name of the service in the default namespace.
    pub(crate) service: String,
    /// Hash of its certificate.
    pub(crate) hash: String,
}

impl Xfcc {
    fn of(header: &str) -> Self {
        let part = |key: &str| {
            let found = header.split(';').find_map(|part| part.strip_prefix(key));
            found.unwrap_or_default().to_owned()
        };
        let id = part("URI=");
        let service = id.strip_prefix("spiffe://weft.local/ns/default/sa/");
        Self {
            service: service.unwrap_or_default().to_owned(),
            hash: part("Hash="),
        }
    }
}
