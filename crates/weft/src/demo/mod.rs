//! `weft demo`: the reference scenario with real processes, each of them this executable again.
//!
//! `mesh` holds the processes and asks them; `steps` are the eleven things that are shown, each of which
//! observes from outside (replies, receipts, counters, process ids) and checks; `report` makes a line for
//! people and a document for programs of what was found. Nothing outlives the demo: `tether`.

mod admin;
mod http;
mod impostor;
mod load;
mod mesh;
mod process;
mod report;
mod resources;
mod steps;
pub(crate) mod tether;
mod wait;

use std::io::IsTerminal;
use std::process::ExitCode;
use std::time::Duration;

use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use weft_env::Env;

use crate::failure::Failure;
use crate::{output, signals};
use mesh::Mesh;
use report::{Document, Step};

/// Longest that a step may take. The longest that does by its nature takes 7 s.
const STEP: Duration = Duration::from_secs(25);

/// Shows weft at work in half a minute: a mesh of real processes on this machine, step by step.
///
/// Needs no root, no network beyond loopback and no fixed port. Everything is in a temporary folder and
/// ends with the demo.
#[derive(Debug, clap::Args)]
#[command(after_help = "Exits 1 if a step fails.")]
pub(crate) struct DemoArgs {
    /// Leave it running at the end, and print commands to play with; Ctrl-C ends it
    #[arg(long, conflicts_with = "output")]
    keep: bool,

    /// Form of the output
    #[arg(short, long, value_enum, value_name = "FORMAT", default_value_t = DemoFormat::Text)]
    output: DemoFormat,
}

/// How the demo is told.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
enum DemoFormat {
    /// One line a step
    Text,
    /// One JSON document
    Json,
}

/// Runs the demo to its end, to Ctrl-C, or to a failure, and takes everything down.
pub(crate) async fn run(args: DemoArgs) -> Result<ExitCode, Failure> {
    let env = Env::system();
    let stop = signals::stop_token(&env)?;
    let mut mesh = Mesh::new(&env).map_err(|error| Failure::said(format!("demo: {error}")))?;
    let steps = all(&mut mesh, args.output, &stop).await;
    let mut shown = finish(&args, &mesh, steps);
    if stop.is_cancelled() {
        shown = Err(Failure::said(
            "demo: interrupted, everything was taken down",
        ));
    }
    if args.keep && shown.is_ok() {
        match output::line_of("demo", &mesh.things_to_try()) {
            Ok(()) => stop.cancelled().await,
            Err(unread) => shown = Err(unread),
        }
    }
    mesh.take_down().await;
    shown
}

/// Every step in order, until one fails or `stop`: what comes after a failure would be seen in a mesh that is not
/// what it should be.
async fn all(
    mesh: &mut Mesh,
    format: DemoFormat,
    stop: &CancellationToken,
) -> Result<Vec<Step>, Failure> {
    let mut told = Told {
        format,
        colour: std::io::stdout().is_terminal() && std::env::var_os("NO_COLOR").is_none(),
        steps: Vec::new(),
        ended: None,
    };
    macro_rules! step {
        ($name:literal, $module:ident) => {
            if let Some(reason) = &told.ended {
                told.tell(Step::skipped($name, reason))?;
            } else {
                let started = Instant::now();
                let found = tokio::select! {
                    biased;
                    () = stop.cancelled() => Err("the demo was interrupted".to_owned()),
                    found = tokio::time::timeout(STEP, steps::$module::run(mesh)) => found
                        .unwrap_or_else(|_| Err(format!("it did not end within {STEP:?}"))),
                };
                let mut step = Step::ran($name, started.elapsed(), found);
                if !step.ok {
                    step.blame(mesh.fallen());
                }
                if stop.is_cancelled() {
                    told.ended = Some("the demo was interrupted".to_owned());
                } else if !step.ok {
                    told.ended = Some(format!("'{}' failed", $name));
                }
                told.tell(step)?;
            }
        };
    }
    step!("control", control);
    step!("join", join);
    step!("request", request);
    step!("balance", balance);
    step!("tcp", tcp);
    step!("timeout", timeout);
    step!("reject", reject);
    step!("rotate", rotate);
    step!("control-down", control_down);
    step!("impostor", impostor);
    step!("latency", latency);
    Ok(told.steps)
}

/// Tells the steps as they end.
struct Told {
    format: DemoFormat,
    colour: bool,
    steps: Vec<Step>,
    /// Why no further step is tried.
    ended: Option<String>,
}

impl Told {
    fn tell(&mut self, step: Step) -> Result<(), Failure> {
        if self.format == DemoFormat::Text {
            output::line_of("demo", &step.line(self.colour))?;
        }
        self.steps.push(step);
        Ok(())
    }
}

/// The end of the story: the document, or the last lines.
fn finish(
    args: &DemoArgs,
    mesh: &Mesh,
    steps: Result<Vec<Step>, Failure>,
) -> Result<ExitCode, Failure> {
    let steps = steps?;
    let failed = steps.iter().filter(|step| !step.ok).count();
    match args.output {
        DemoFormat::Json => {
            let version = env!("CARGO_PKG_VERSION");
            let document = Document { version, steps };
            let text = serde_json::to_string_pretty(&document)
                .map_err(|error| Failure::because("demo: write the document", &error))?;
            output::line_of("demo", &text)?;
        }
        DemoFormat::Text => {
            if let Some(table) = mesh.edges_table() {
                output::line_of("demo", &format!("\n{table}"))?;
            }
        }
    }
    Ok(if failed == 0 {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    })
}
