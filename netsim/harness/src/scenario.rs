//! One seed from its begin to its end.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use http::Method;
use rand::SeedableRng;
use rand::rngs::StdRng;
use thiserror::Error;
use tokio::time::sleep;
use weft_netsim_sim::{Hashes, RunError, World, run};

use crate::bounds;
use crate::certificates;
use crate::check;
use crate::client::{Client, Ending};
use crate::listen::Ears;
use crate::mesh::{LEAF_TTL, Mesh, lab, service};
use crate::model::{Generation, SERVICES};
use crate::observer::Observer;
use crate::operator::EXPECTED;
use crate::schedule::{Fault, PLACES, Place, Step, name, schedule, usual_link};

/// How long a run is and how much happens in it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Settings {
    /// Faults.
    pub faults: u32,
    /// Virtual time in which they happen.
    pub length: Duration,
    /// Mean pause between requests of each client, while faults happen.
    pub pace: Duration,
    /// How long it must stay right afterwards: longer than certificates live.
    pub quiet: Duration,
    /// Whether to keep what is hashed line by line, to find where two runs part.
    pub keep_lines: bool,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            faults: 14,
            length: Duration::from_secs(45),
            pace: Duration::from_millis(400),
            quiet: LEAF_TTL + Duration::from_secs(20),
            keep_lines: false,
        }
    }
}

/// What a run came to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Summary {
    /// The seed.
    pub seed: u64,
    /// Virtual time that passed.
    pub virtual_time: Duration,
    /// How long everything took to come right after the faults.
    pub converged_after: Duration,
    /// What repeats.
    pub hashes: Hashes,
    /// Whether payloads are under the seed in this program.
    pub repeats_payloads: bool,
    /// Requests that clients have sent.
    pub requests: u64,
    /// Of those: answered by an application.
    pub answered: u64,
    /// Denied by policy.
    pub denied: u64,
    /// Answered by weft with another reason.
    pub failed: u64,
    /// Cut with their own sidecar.
    pub broken: u64,
    /// Datagrams sent between nodes.
    pub datagrams: u64,
    /// The fullest socket buffer, in datagrams.
    pub fullest_socket: usize,
    /// The most tasks that a process had.
    pub most_tasks: usize,
    /// The most that one had at the end, at rest.
    pub tasks_at_rest: usize,
    /// The most memory that a process held, in bytes.
    pub most_bytes: usize,
    /// The most that one held at the end, at rest.
    pub bytes_at_rest: usize,
    /// What is hashed, if it was to be kept.
    pub lines: Vec<String>,
}

/// A seed that found something.
#[derive(Clone, Debug, Error)]
#[error("seed {seed}: {what}\n\n{timeline}\nReplay it with: {replay}")]
pub struct Failure {
    /// The seed.
    pub seed: u64,
    /// What did not hold.
    pub what: String,
    /// What happened, in virtual time.
    pub timeline: String,
    /// The command that does it again.
    pub replay: String,
}

/// Runs one seed.
///
/// # Errors
/// [`Failure`] if an invariant did not hold, or the run could not be made.
pub fn run_seed(seed: u64, settings: &Settings) -> Result<Summary, Box<Failure>> {
    run_steps(
        seed,
        settings,
        schedule(seed, settings.faults, settings.length),
    )
}

/// Runs given faults.
fn run_steps(seed: u64, settings: &Settings, steps: Vec<Step>) -> Result<Summary, Box<Failure>> {
    let failure = |what: String, timeline: String| {
        Box::new(Failure {
            seed,
            what,
            timeline,
            replay: replay(seed),
        })
    };
    // Files in memory where that is possible: what is synced there is synced at once.
    let memory = std::path::Path::new("/dev/shm");
    let dir = if memory.is_dir() {
        tempfile::tempdir_in(memory)
    } else {
        tempfile::tempdir()
    };
    let dir =
        dir.map_err(|error| failure(format!("no directory for the run: {error}"), String::new()))?;
    let settings = *settings;
    let outcome = run(seed, dir.path(), move |world| {
        let observer = Observer::new(&world);
        let ears = Ears {
            observer: observer.clone(),
        };
        // The thread is the run's own: it listens until the thread ends.
        std::mem::forget(tracing::subscriber::set_default(ears));
        scenario(world, observer, settings, steps)
    });
    match outcome {
        Ok(Ok(summary)) => Ok(summary),
        Ok(Err((what, timeline))) => Err(failure(what, timeline)),
        Err(RunError::Panicked(what)) => Err(failure(format!("a panic: {what}"), String::new())),
        Err(error) => Err(failure(error.to_string(), String::new())),
    }
}

fn replay(seed: u64) -> String {
    #[cfg(feature = "mutants")]
    let (features, mutant) = weft_env::mutants::active().map_or_else(Default::default, |mutant| {
        (" --features mutants", format!(" --mutant {mutant}"))
    });
    #[cfg(not(feature = "mutants"))]
    let (features, mutant) = ("", "");
    format!(
        "cargo run -p weft-netsim-cli{features} -- fuzz{mutant} --first {seed} --seeds 1 --timeline"
    )
}

/// Within this everything must be right again: the longest back-offs one after the other, and a certificate that ends
/// in the midst of them.
const CONVERGES_WITHIN: Duration = Duration::from_secs(120);
/// Bytes of an upload: far more than may be under way on a stream.
const UPLOAD: u64 = 16 << 20;
/// Mean pause between the requests of a client when nothing happens.
const QUIET_PACE: Duration = Duration::from_secs(4);
/// How often everything is looked at then.
const LOOKS_WHEN_QUIET: Duration = Duration::from_secs(20);
/// After this without a request, whatever a request needed is gone.
const AT_REST: Duration = Duration::from_secs(15);

struct Scenario {
    world: World,
    observer: Observer,
    mesh: Mesh,
    clients: Vec<Client>,
    pace: Arc<AtomicU64>,
    settings: Settings,
}

async fn scenario(
    world: World,
    observer: Observer,
    settings: Settings,
    steps: Vec<Step>,
) -> Result<Summary, (String, String)> {
    if settings.keep_lines {
        world.keep_lines();
    }
    world
        .set_default_link(usual_link())
        .map_err(|error| (error.to_string(), String::new()))?;
    let mesh = Mesh::new(&world, &observer);
    let (keys, tap) = (mesh.certificates.clone(), observer.clone());
    world.set_tap(move |payload| check::key_on_the_wire(&tap, &keys, payload));
    let pace = Arc::new(AtomicU64::new(0));
    let clients = (1..PLACES)
        .map(|place| Client {
            place,
            service: service(place),
            env: mesh.node(place).process("client").env().clone(),
            observer: observer.clone(),
            pace: pace.clone(),
            next: Arc::default(),
        })
        .collect();
    let scenario = Arc::new(Scenario {
        world,
        observer: observer.clone(),
        mesh,
        clients,
        pace,
        settings,
    });
    let running = scenario.clone();
    let outcome = tokio::select! {
        biased;
        () = observer.failed().cancelled() => Err("an invariant".to_owned()),
        outcome = running.run(steps) => outcome,
    };
    if let Err(what) = &outcome
        && observer.violation().is_none()
    {
        observer.violate(what.clone());
    }
    // What is known only afterwards may be the cause of what was seen first, but is told second.
    check::afterwards(&observer);
    match (observer.violation(), outcome) {
        (None, Ok(converged_after)) => Ok(scenario.summary(converged_after)),
        (Some(what), _) => Err((what, observer.timeline())),
        (None, Err(what)) => Err((what, observer.timeline())),
    }
}

impl Scenario {
    async fn run(self: Arc<Self>, steps: Vec<Step>) -> Result<Duration, String> {
        let seed = self.world.seed();
        self.mesh.first_start().await?;
        self.until_converged("the first start").await?;
        self.mesh.operator.push(Generation::draw(seed, 0)).await?;
        self.until_converged("the first config").await?;
        self.watch();
        for client in &self.clients {
            let rng = StdRng::seed_from_u64(seed ^ ((client.place as u64) << 32));
            drop(client.env.spawn(client.clone().run(rng)));
        }
        self.set_pace(self.settings.pace);
        self.faults(steps).await;
        self.heal().await;
        let began = self.world.now();
        self.until_converged("the faults").await?;
        let took = self.world.now() - began;
        self.observer.note(format!("converged after {took:?}"));
        self.set_pace(QUIET_PACE);
        self.stay_right().await?;
        self.set_pace(Duration::ZERO);
        sleep(AT_REST).await;
        bounds::at_rest(&self.observer, &self.mesh);
        self.mesh.certificates.refresh();
        let keys = self.mesh.certificates.keys();
        check::keys_at_home(&self.observer, &keys, self.world.dir());
        Ok(took)
    }

    fn set_pace(&self, pace: Duration) {
        let ms = u64::try_from(pace.as_millis()).unwrap_or(u64::MAX);
        self.pace.store(ms, Ordering::Relaxed);
    }

    /// Looks at what can be looked at, again and again.
    fn watch(self: &Arc<Self>) {
        let this = self.clone();
        drop(lab(&self.world).spawn(async move {
            let mut round = 0_u64;
            loop {
                sleep(Duration::from_millis(200)).await;
                for place in 0..PLACES {
                    this.mesh.reap(place).await;
                    let process = this.mesh.process(place);
                    if let Some(process) = process {
                        bounds::under_load(&this.observer, &process);
                    }
                }
                round += 1;
                if round.is_multiple_of(10) {
                    // No answer is no news: the control node may be down.
                    if let Ok(status) = this.mesh.operator.look().await {
                        this.mesh.heard(&status);
                    }
                    this.mesh.certificates.refresh();
                }
            }
        }));
    }

    async fn faults(self: &Arc<Self>, steps: Vec<Step>) {
        let began = self.world.now();
        for (at, fault) in steps {
            if at > self.settings.length {
                // Somebody sleeps for long: the others need not be busy all the while.
                self.set_pace(QUIET_PACE);
            }
            let wait = (began + at).saturating_sub(self.world.now());
            sleep(wait).await;
            self.observer.note(format!("--- {fault}"));
            self.act(fault).await;
        }
        sleep((began + self.settings.length).saturating_sub(self.world.now())).await;
    }

    async fn act(self: &Arc<Self>, fault: Fault) {
        let (mesh, world) = (&self.mesh, &self.world);
        match fault {
            Fault::Link(a, b, spec) => {
                for (from, to) in [(a, b), (b, a)] {
                    let set = world.set_link(mesh.node(from), mesh.node(to), (*spec).clone());
                    if let Err(error) = set {
                        self.observer
                            .violate(format!("the schedule is impossible: {error}"));
                    }
                }
            }
            Fault::Cut(a, b, cut) => world.set_cut(mesh.node(a), mesh.node(b), cut),
            Fault::Isolate(a, cut) => {
                for b in (0..PLACES).filter(|b| *b != a) {
                    world.set_cut(mesh.node(a), mesh.node(b), cut);
                    world.set_cut(mesh.node(b), mesh.node(a), cut);
                }
            }
            Fault::Kill(a) => mesh.kill(a).await,
            Fault::Crash(a, step) => {
                if let Some(process) = mesh.process(a) {
                    process.crash_at_disk_step(step);
                }
            }
            Fault::Stop(a) => mesh.stop(a),
            Fault::Start(a) => mesh.start(a),
            Fault::Pause(a, pause) => {
                if let Some(process) = mesh.process(a) {
                    let was_up = self.observer.lock().up.contains(&a);
                    self.observer.disturbed(a);
                    if pause {
                        process.pause();
                        self.observer
                            .lock()
                            .up_when_paused
                            .insert(process.name().to_owned(), was_up);
                    } else {
                        process.resume();
                        let was_up = self.observer.lock().up_when_paused.remove(process.name());
                        if was_up == Some(true) {
                            self.observer.up(process.name());
                        }
                    }
                }
            }
            Fault::SlowDisk(a, delay) => mesh.node(a).set_disk_delay(delay),
            Fault::FullDisk(a, full) => {
                mesh.node(a).set_disk_full(full);
                self.observer.lock().unsaved.insert(a);
            }
            Fault::Clock(a, ms) => {
                mesh.node(a).set_wall_ahead(ms);
                self.observer.shaken(a);
            }
            Fault::KillApp(a) => mesh.kill_app(a).await,
            Fault::StartApp(a) => mesh.start_app(a),
            Fault::Swap(a, b) => {
                mesh.kill(a).await;
                mesh.kill(b).await;
                world.swap_addresses(mesh.node(a), mesh.node(b));
            }
            other => self.ask(other),
        }
    }

    /// Many requests at once, to whichever service.
    async fn flood(&self, place: Place, count: u32) {
        let Some(client) = self.clients.iter().find(|client| client.place == place) else {
            return;
        };
        let client_env = client.env.clone();
        for number in 0..count {
            let client = client.clone();
            let callee = SERVICES[number as usize % SERVICES.len()];
            let request = async move {
                let outcome = client.request(callee, Method::GET, 200).await;
                check::outcome(&client.observer, &outcome);
            };
            drop(client_env.spawn(request));
            // As fast as an application can; at one and the same moment they would fill the kernel's own queue.
            sleep(Duration::from_millis(1)).await;
        }
    }

    /// Uploads at once, each to another service in turn, which outlast the longest route.
    fn upload(&self, place: Place, count: u32) {
        let Some(client) = self.clients.iter().find(|client| client.place == place) else {
            return;
        };
        for number in 0..count {
            let owner = client.env.clone();
            let client = client.clone();
            let callee = SERVICES[number as usize % SERVICES.len()];
            let wait = 1_000 * u64::from(number);
            drop(owner.spawn(async move {
                let outcome = client.upload(callee, UPLOAD, wait).await;
                check::outcome(&client.observer, &outcome);
            }));
        }
    }

    /// What the operator does takes its time, in which other faults happen.
    fn ask(self: &Arc<Self>, fault: Fault) {
        let this = self.clone();
        drop(lab(&self.world).spawn(async move {
            let (mesh, seed) = (&this.mesh, this.world.seed());
            let done = match &fault {
                Fault::Push(number) => mesh.operator.push(Generation::draw(seed, *number)).await,
                Fault::RotateCerts => mesh.operator.rotate_certs().await,
                Fault::RotateCa => mesh.operator.rotate_ca(false).await,
                Fault::RotateRoot => mesh.operator.rotate_ca(true).await,
                Fault::Revoke(place) => mesh.revoke(*place).await,
                Fault::Flood(place, count) => {
                    this.flood(*place, *count).await;
                    Ok(())
                }
                Fault::Upload(place, count) => {
                    this.upload(*place, *count);
                    Ok(())
                }
                Fault::ReuseToken(place) => {
                    mesh.reuse_token(*place).await;
                    Ok(())
                }
                _ => {
                    mesh.operator.push_invalid().await;
                    Ok(())
                }
            };
            if let Err(reason) = done {
                this.observer.tell(format!("{fault}: {reason}"));
            }
        }));
    }

    /// Ends all faults.
    async fn heal(self: &Arc<Self>) {
        self.observer.note("--- the faults are over".to_owned());
        for a in 0..PLACES {
            for b in (0..PLACES).filter(|b| *b != a) {
                self.act(Fault::Cut(a, b, false)).await;
                if a < b {
                    self.act(Fault::Link(a, b, Box::new(usual_link()))).await;
                }
            }
            for end in [
                Fault::FullDisk(a, false),
                Fault::SlowDisk(a, Duration::ZERO),
                Fault::Clock(a, 0),
            ] {
                self.act(end).await;
            }
            if let Some(process) = self.mesh.process(a) {
                process.crash_at_disk_step(0);
                if process.is_paused() {
                    self.act(Fault::Pause(a, false)).await;
                }
            }
            self.mesh.reap(a).await;
            self.mesh.start(a);
            if a > 0 {
                self.mesh.start_app(a);
            }
        }
    }

    /// Waits until everything is right, or says what is not.
    async fn until_converged(&self, after: &str) -> Result<(), String> {
        let limit = CONVERGES_WITHIN;
        let began = self.world.now();
        loop {
            let wrong = match self.is_right().await {
                Ok(()) => return Ok(()),
                Err(wrong) => wrong,
            };
            if self.world.now() - began > limit {
                return Err(format!("{limit:?} after {after}: {wrong}"));
            }
            self.rejoin_expired().await;
            sleep(Duration::from_millis(500)).await;
        }
    }

    /// An operator sees to sidecars whose certificates have ended: they cannot help themselves.
    async fn rejoin_expired(&self) {
        for place in 1..PLACES {
            let Some(svid) = certificates::read(&self.mesh.state(place)) else {
                continue;
            };
            if self.mesh.node(place).wall() > svid.not_after() + Duration::from_secs(2) {
                self.observer.note(format!("{} joins again", name(place)));
                self.mesh.rejoin(place).await;
            }
        }
    }

    async fn is_right(&self) -> Result<(), String> {
        let operator = &self.mesh.operator;
        operator.remember().await?;
        operator.everyone_is_up_to_date(EXPECTED).await?;
        let generation = {
            let seen = self.observer.lock();
            seen.committed
                .latest()
                .map(|(_, generation)| generation.clone())
        };
        let Some(generation) = generation else {
            return Ok(());
        };
        for client in &self.clients {
            for callee in SERVICES {
                self.one_request(client, callee, &generation).await?;
            }
        }
        Ok(())
    }

    async fn one_request(
        &self,
        client: &Client,
        callee: &'static str,
        generation: &Generation,
    ) -> Result<(), String> {
        let outcome = client.request(callee, Method::GET, 0).await;
        check::outcome(&self.observer, &outcome);
        let expected = if generation.allows(client.service, callee) {
            200
        } else {
            403
        };
        match outcome.ending {
            Ending::Reply { status, .. } if status == expected => Ok(()),
            other => Err(format!(
                "a request of {} for {callee} should end in {expected}, but ended so: {other:?}",
                name(client.place)
            )),
        }
    }

    /// Nothing is wrong any more, and certificates are renewed by themselves.
    async fn stay_right(&self) -> Result<(), String> {
        let began = self.world.now();
        while self.world.now() - began < self.settings.quiet {
            sleep(LOOKS_WHEN_QUIET).await;
            self.is_right()
                .await
                .map_err(|wrong| format!("long after the faults: {wrong}"))?;
        }
        Ok(())
    }

    fn summary(&self, converged_after: Duration) -> Summary {
        let counters = self.world.counters();
        let seen = self.observer.lock();
        Summary {
            seed: self.world.seed(),
            virtual_time: self.world.now(),
            converged_after,
            hashes: self.world.hashes(),
            repeats_payloads: self.world.repeats_payloads(),
            requests: seen.requests,
            answered: seen.answered,
            denied: seen.denied,
            failed: seen.failed,
            broken: seen.broken,
            datagrams: counters.sent,
            fullest_socket: counters.fullest_socket,
            most_tasks: seen.most_tasks,
            tasks_at_rest: seen.tasks_at_rest,
            most_bytes: seen.most_bytes,
            bytes_at_rest: seen.bytes_at_rest,
            lines: self.world.take_lines(),
        }
    }
}

#[cfg(test)]
#[path = "scenario_tests.rs"]
mod tests;
