//! One mesh: join, sync, push, renew.

use std::sync::Arc;
use std::time::{Duration, Instant};

use indicatif::ProgressBar;
use serde_json::json;
use tokio::task::JoinSet;
use weft_certs::IdentitySource;
use weft_env::Tasks;

use super::control::{Control, said};
use super::sidecar::{Renewer, Seen, Sidecar, Signed, join};
use super::{Found, ScaleArgs};
use crate::error::{Error, Result};
use crate::load::Recorder;
use crate::stats::Spread;

/// Handshakes at the same time: fewer than the node refuses at (512), enough to keep it busy.
const AT_ONCE: usize = 16;
/// How long renewals are asked for.
const RENEWING: Duration = Duration::from_secs(3);
/// Longest wait for receipts.
const RECEIPTS: Duration = Duration::from_secs(60);
/// When the node signs no more in this second.
const LATER: Duration = Duration::from_millis(25);

pub(super) async fn mesh(
    args: &ScaleArgs,
    sidecars: usize,
    services: usize,
    bar: &ProgressBar,
) -> Result<Found> {
    let dir = tempfile::Builder::new()
        .prefix("weft-benches-")
        .tempdir()
        .map_err(Error::io("make a temporary folder"))?;
    let control = Arc::new(Control::start(&args.weft, dir.path()).await?);
    let tasks = Tasks::new(&control.env);
    let deadline = Instant::now() + Duration::from_secs(args.patience);
    let (identities, joins_per_s, joins_limited) =
        join_all(&control, &tasks, services, deadline).await?;
    bar.set_message(format!(
        "{sidecars} sidecars of {services} services: connecting"
    ));
    let mut swarm = Swarm::connect(&control, &tasks, &identities, sidecars, deadline).await?;
    swarm.settle(&control, deadline).await?;
    bar.set_message(format!(
        "{sidecars} sidecars of {services} services: pushing"
    ));
    let pushes = swarm.push(&control, args.pushes).await?;
    let renewals = renew(&control, &swarm.renewers).await?;
    let found = Found {
        joins_per_s,
        joins_limited,
        syncs_per_s: swarm.syncs_per_s,
        push_all_ms: Spread::of(pushes.all_ms).ok_or_else(|| said("nothing was pushed"))?,
        push_p50_ms: pushes.each.p50 / 1e3,
        push_p99_ms: pushes.each.p99 / 1e3,
        push_cpu_us: Spread::of(pushes.cpu_us).ok_or_else(|| said("nothing was pushed"))?,
        renewals_per_s: renewals.per_s,
        renewals_limited: renewals.limited,
        renewal_cpu_us: renewals.cpu_us,
        rss: control.usage().rss,
    };
    swarm.live.shutdown().await;
    Ok(found)
}

/// One identity for each service.
async fn join_all(
    control: &Arc<Control>,
    tasks: &Tasks,
    services: usize,
    deadline: Instant,
) -> Result<(Vec<Arc<IdentitySource>>, f64, u64)> {
    let started = Instant::now();
    let mut joining = JoinSet::new();
    let (mut identities, mut limited) = (Vec::with_capacity(services), 0);
    for service in 0..services {
        if joining.len() >= AT_ONCE {
            take(&mut joining, &mut identities, &mut limited).await?;
        }
        let (control, tasks) = (Arc::clone(control), tasks.clone());
        joining.spawn(async move { join_one(&control, &tasks, service, deadline).await });
    }
    while !joining.is_empty() {
        take(&mut joining, &mut identities, &mut limited).await?;
    }
    Ok((
        identities,
        services as f64 / started.elapsed().as_secs_f64(),
        limited,
    ))
}

type Joined = Result<(Arc<IdentitySource>, u64)>;

async fn take(
    joining: &mut JoinSet<Joined>,
    identities: &mut Vec<Arc<IdentitySource>>,
    limited: &mut u64,
) -> Result<()> {
    if let Some(joined) = joining.join_next().await {
        let (identity, times) = joined.map_err(said)??;
        identities.push(identity);
        *limited += times;
    }
    Ok(())
}

async fn join_one(control: &Control, tasks: &Tasks, service: usize, deadline: Instant) -> Joined {
    let token = control.token(&format!("service-{service}")).await?;
    let mut limited = 0;
    loop {
        if let Signed::Yes(identity) = join(control, tasks, &token).await? {
            return Ok((identity, limited));
        }
        limited += 1;
        in_time(deadline, "joining")?;
        tokio::time::sleep(LATER).await;
    }
}

fn in_time(deadline: Instant, what: &str) -> Result<()> {
    match Instant::now() < deadline {
        true => Ok(()),
        false => Err(Error::Protocol(format!(
            "{what} took longer than --patience allows"
        ))),
    }
}

/// All sidecars of a mesh.
struct Swarm {
    origin: Instant,
    seen: Vec<Arc<Seen>>,
    renewers: Vec<Renewer>,
    live: JoinSet<Result<()>>,
    syncs_per_s: f64,
}

struct Pushes {
    all_ms: Vec<f64>,
    cpu_us: Vec<f64>,
    each: crate::load::Latency,
}

impl Swarm {
    async fn connect(
        control: &Arc<Control>,
        tasks: &Tasks,
        identities: &[Arc<IdentitySource>],
        sidecars: usize,
        deadline: Instant,
    ) -> Result<Self> {
        let origin = Instant::now();
        let mut swarm = Self {
            origin,
            seen: Vec::with_capacity(sidecars),
            renewers: Vec::new(),
            live: JoinSet::new(),
            syncs_per_s: 0.0,
        };
        let mut connecting = JoinSet::new();
        for index in 0..sidecars {
            in_time(deadline, "connecting")?;
            if connecting.len() >= AT_ONCE
                && let Some(sidecar) = connecting.join_next().await
            {
                swarm.enlist(sidecar.map_err(said)??);
            }
            let (control, tasks) = (Arc::clone(control), tasks.clone());
            let identity = Arc::clone(&identities[index % identities.len()]);
            connecting
                .spawn(async move { Sidecar::connect(&control, &tasks, &identity, index).await });
        }
        while let Some(sidecar) = connecting.join_next().await {
            swarm.enlist(sidecar.map_err(said)??);
        }
        swarm.syncs_per_s = sidecars as f64 / origin.elapsed().as_secs_f64();
        Ok(swarm)
    }

    fn enlist(&mut self, sidecar: Sidecar) {
        let seen = Seen::new(self.origin);
        self.seen.push(Arc::clone(&seen));
        if self.renewers.len() < AT_ONCE {
            self.renewers.push(sidecar.renewer());
        }
        self.live.spawn(sidecar.live(seen));
    }

    /// Waits until all have what the node has.
    async fn settle(&self, control: &Control, deadline: Instant) -> Result<()> {
        let admin = control.admin().await?;
        loop {
            let revision = admin.status().await.map_err(said)?.control.revision;
            if self.seen.iter().all(|seen| seen.revision() >= revision) {
                return Ok(());
            }
            in_time(deadline, "the first config's way to everyone")?;
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    }

    async fn push(&self, control: &Control, pushes: u32) -> Result<Pushes> {
        let admin = control.admin().await?;
        let (mut all_ms, mut cpu_us) = (Vec::new(), Vec::new());
        let mut each = Recorder::new();
        for push in 0..pushes {
            let before = control.usage();
            let began = self.origin.elapsed();
            let applied = admin.apply(&[route(push)]).await.map_err(said)?;
            let receipts = admin.wait(applied.revision, RECEIPTS).await.map_err(said)?;
            let took = self.origin.elapsed().saturating_sub(began);
            if !receipts.is_complete() {
                let missing = receipts.stragglers.len() + receipts.nacks.len();
                return Err(Error::Protocol(format!(
                    "{missing} receipts were missing after {RECEIPTS:?}"
                )));
            }
            all_ms.push(took.as_secs_f64() * 1e3);
            let used = control.usage().since(before);
            cpu_us.push(used.cpu_us as f64 / self.seen.len() as f64);
            for seen in &self.seen {
                each.record(seen.at().saturating_sub(began));
            }
        }
        let each = each.latency().ok_or_else(|| said("nothing was pushed"))?;
        Ok(Pushes {
            all_ms,
            cpu_us,
            each,
        })
    }
}

/// A route whose timeout is another one each time.
fn route(push: u32) -> serde_json::Value {
    json!({
        "apiVersion": "gateway.networking.k8s.io/v1",
        "kind": "HTTPRoute",
        "metadata": {"name": "bench"},
        "spec": {
            "parentRefs": [{"kind": "Service", "group": "", "name": "service-0"}],
            "rules": [{
                "timeouts": {"request": format!("{}ms", 1_000 + push)},
                "backendRefs": [{"kind": "Service", "name": "service-0", "port": 80}],
            }],
        },
    })
}

struct Renewals {
    per_s: f64,
    limited: u64,
    cpu_us: Option<f64>,
}

async fn renew(control: &Control, renewers: &[Renewer]) -> Result<Renewals> {
    let (before, started) = (control.usage(), Instant::now());
    let mut tasks = JoinSet::new();
    for renewer in renewers {
        let renewer = renewer.clone();
        tasks.spawn(async move {
            let (mut done, mut limited) = (0_u64, 0_u64);
            while started.elapsed() < RENEWING {
                match renewer.renew().await? {
                    Signed::Yes(()) => done += 1,
                    Signed::Limited => {
                        limited += 1;
                        tokio::time::sleep(LATER).await;
                    }
                }
            }
            Ok::<_, Error>((done, limited))
        });
    }
    let (mut done, mut limited) = (0, 0);
    while let Some(one) = tasks.join_next().await {
        let (one_done, one_limited) = one.map_err(said)??;
        done += one_done;
        limited += one_limited;
    }
    let used = control.usage().since(before);
    Ok(Renewals {
        per_s: done as f64 / started.elapsed().as_secs_f64(),
        limited,
        cpu_us: (done > 0).then(|| used.cpu_us as f64 / done as f64),
    })
}
