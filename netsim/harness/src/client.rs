//! The client beside a sidecar: sends requests through it and says how each ended.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::time::Duration;

use http::{Method, Request};
use http_body_util::BodyExt;
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use rand::Rng;
use rand::rngs::StdRng;
use tokio::time::{sleep, timeout};
use weft_env::Env;

use crate::content::Content;
use crate::model::SERVICES;
use crate::observer::Observer;
use crate::schedule::{Place, name};

/// Where the sidecar takes requests.
const OUTBOUND: ([u8; 4], u16) = ([127, 0, 0, 1], 15001);
/// The first part of the path of a request whose content the application does not read until it has waited.
pub(crate) const LATE: &str = "late";
/// Far more than any route allows.
const PATIENCE: Duration = Duration::from_secs(40);
/// Requests of one client under way.
const MOST_UNDER_WAY: usize = 12;

/// How a request ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Ending {
    Reply {
        status: u16,
        proxy_status: Option<String>,
        body: String,
    },
    /// The head came, and the rest broke off: HTTP/1.1 has no other way to say that something failed since.
    Cut(u16, String),
    /// No connection, or it broke.
    Broken(String),
    /// Nothing within the client's patience.
    Silence,
}

/// A request, from outside.
#[derive(Debug, Clone)]
pub(crate) struct Outcome {
    pub(crate) place: Place,
    pub(crate) number: u64,
    pub(crate) callee: &'static str,
    pub(crate) started: Duration,
    pub(crate) ending: Ending,
}

/// The client of one node. Cheap to clone.
#[derive(Clone)]
pub(crate) struct Client {
    pub(crate) place: Place,
    pub(crate) service: &'static str,
    pub(crate) env: Env,
    pub(crate) observer: Observer,
    /// Mean pause between requests, in milliseconds; 0: none are sent.
    pub(crate) pace: Arc<AtomicU64>,
    pub(crate) next: Arc<AtomicU64>,
}

impl Client {
    /// Sends request after request until its process ends.
    pub(crate) async fn run(self, mut rng: StdRng) {
        let under_way = Arc::new(AtomicUsize::new(0));
        loop {
            let pace = self.pace.load(Ordering::Relaxed);
            let pause = if pace == 0 {
                500
            } else {
                pace / 2 + rng.next_u64() % pace
            };
            sleep(Duration::from_millis(pause)).await;
            let callee = SERVICES[(rng.next_u32() as usize) % SERVICES.len()];
            let method = if rng.next_u32().is_multiple_of(3) {
                Method::POST
            } else {
                Method::GET
            };
            let wait = match rng.next_u32() % 8 {
                0 => rng.next_u64() % 1_500,
                1..=2 => rng.next_u64() % 100,
                _ => 0,
            };
            if pace == 0 || under_way.load(Ordering::Relaxed) >= MOST_UNDER_WAY {
                continue;
            }
            under_way.fetch_add(1, Ordering::Relaxed);
            let (client, under_way) = (self.clone(), under_way.clone());
            drop(self.env.spawn(async move {
                let outcome = client.request(callee, method, wait).await;
                crate::check::outcome(&client.observer, &outcome);
                under_way.fetch_sub(1, Ordering::Relaxed);
            }));
        }
    }

    /// One request to a service, whose application takes `wait` milliseconds.
    pub(crate) async fn request(&self, callee: &'static str, method: Method, wait: u64) -> Outcome {
        let body = match method {
            Method::POST => Content::of("a body"),
            _ => Content::of(""),
        };
        self.ask(callee, method, wait, body).await
    }

    /// Sends so many bytes to a service, whose application looks at them only after `wait` milliseconds, and takes
    /// no more of them than it needs to answer: none.
    pub(crate) async fn upload(&self, callee: &'static str, bytes: u64, wait: u64) -> Outcome {
        let body = Content::long(bytes);
        self.ask(callee, Method::POST, wait, body).await
    }

    async fn ask(&self, callee: &'static str, method: Method, wait: u64, body: Content) -> Outcome {
        let count = self.next.fetch_add(1, Ordering::Relaxed);
        let number = self.place as u64 * 1_000_000 + count;
        let started = self.observer.now();
        let exchange = self.exchange(callee, &method, number, wait, body);
        let ending = match timeout(PATIENCE, exchange).await {
            Ok(Ok(reply)) => reply,
            Ok(Err(reason)) => Ending::Broken(reason),
            Err(_) => Ending::Silence,
        };
        self.observer.tell(format!(
            "{} {method} {callee} #{number}: {}",
            name(self.place),
            short(&ending)
        ));
        Outcome {
            place: self.place,
            number,
            callee,
            started,
            ending,
        }
    }

    async fn exchange(
        &self,
        callee: &str,
        method: &Method,
        number: u64,
        wait: u64,
        body: Content,
    ) -> Result<Ending, String> {
        let addr = SocketAddr::from(OUTBOUND);
        let stream = self.env.connect(addr).await.map_err(|e| e.to_string())?;
        let handshake = http1::handshake(TokioIo::new(stream)).await;
        let (mut sender, connection) = handshake.map_err(|e| e.to_string())?;
        let driver = self.env.spawn(connection);
        let kind = if body.is_long() { LATE } else { "r" };
        let request = Request::builder()
            .method(method)
            .uri(format!("/{kind}/{number}/{wait}"))
            .header("host", callee)
            .header("x-test-caller", self.service)
            .header("x-test-callee", callee)
            .header(
                "x-forwarded-client-cert",
                "Hash=00;URI=spiffe://weft.local/ns/default/sa/somebody-else",
            )
            .body(body)
            .map_err(|e| e.to_string())?;
        let response = sender
            .send_request(request)
            .await
            .map_err(|e| e.to_string())?;
        let (parts, body) = response.into_parts();
        let body = match body.collect().await {
            Ok(body) => body.to_bytes(),
            Err(error) => return Ok(Ending::Cut(parts.status.as_u16(), error.to_string())),
        };
        driver.abort();
        let proxy_status = parts.headers.get("proxy-status");
        Ok(Ending::Reply {
            status: parts.status.as_u16(),
            proxy_status: proxy_status.map(|v| String::from_utf8_lossy(v.as_bytes()).into_owned()),
            body: String::from_utf8_lossy(&body).into_owned(),
        })
    }
}

/// Of a reason, in a timeline.
const SHOWN: usize = 160;

fn short(ending: &Ending) -> String {
    match ending {
        Ending::Reply { status: 200, .. } => "200".to_owned(),
        Ending::Reply {
            status,
            proxy_status,
            ..
        } => {
            let reason = proxy_status.as_deref().unwrap_or("(no reason)");
            let shown: String = reason.chars().take(SHOWN).collect();
            format!("{status} {shown}")
        }
        Ending::Cut(status, reason) => format!("{status}, then cut: {reason}"),
        Ending::Broken(reason) => format!("broken: {reason}"),
        Ending::Silence => "no answer".to_owned(),
    }
}
