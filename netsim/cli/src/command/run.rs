//! `weft-netsim run`: a mesh around a command.

use std::os::unix::process::ExitStatusExt;
use std::process::{ExitCode, ExitStatus};

use tokio::process::Command;
use weft_netsim_tun::{BareTimer, LatenessReport, LinkReport, Mesh, MeshPlan, preflight};

use super::signals::{Ending, Endings, runtime};
use crate::args::RunArgs;
use crate::failure::Failure;
use crate::lease::Lease;
use crate::mesh_file::{self, variables};
use crate::output::{RunReport, json, note};
use crate::processes::RUN_VARIABLE;

/// Shells add this to the number of the signal that ended a command.
const BY_SIGNAL: i32 = 128;

/// Builds the mesh, runs the command, removes everything, and ends as the command did.
pub(super) fn run(args: &RunArgs) -> Result<ExitCode, Failure> {
    // What is wrong with the file is said before what is wrong with the machine.
    let plan = plan(args, "check")?;
    if let Some(node) = &args.node
        && !plan.nodes.iter().any(|known| known.name == *node)
    {
        return Err(Failure::Usage(format!(
            "there is no node '{node}' in {}; its nodes are {}",
            args.mesh.display(),
            variables(&plan)["WEFT_NODES"]
        )));
    }
    preflight()?;

    let lease = Lease::take()?;
    let plan = self::plan(args, &lease.prefix())?;
    let mesh = Mesh::build(&plan)?;
    let timer = BareTimer::start()?;
    let ended = runtime()?.block_on(command(args, &plan, lease.id()));
    let bare = timer.stop();
    lease.end_processes();
    let mut links = mesh.stop()?;
    drop(lease);
    // The file's names mean more to its reader than the namespaces, which are gone.
    for (link, asked) in links.iter_mut().zip(plan.links) {
        (link.a, link.b) = (asked.a, asked.b);
    }
    tell(args, links, bare)?;
    ended
}

/// The mesh that is asked for, its namespaces' names beginning with `prefix`.
fn plan(args: &RunArgs, prefix: &str) -> Result<MeshPlan, Failure> {
    let mut plan = mesh_file::read(&args.mesh, prefix)?;
    if let Some(first) = args.seed {
        for (link, number) in plan.links.iter_mut().zip(0..) {
            link.plan.seed = first.wrapping_add(number);
        }
    }
    Ok(plan)
}

/// Runs the command to its end, or to the signal that ends this process.
async fn command(args: &RunArgs, plan: &MeshPlan, id: &str) -> Result<ExitCode, Failure> {
    let mut words: Vec<&str> = Vec::new();
    let variables = variables(plan);
    let node = args.node.as_ref();
    if let Some(node) = node.and_then(|name| plan.nodes.iter().find(|n| n.name == *name)) {
        words.extend(["ip", "netns", "exec", &node.namespace]);
    }
    words.extend(args.command.iter().map(String::as_str));
    let mut endings = Endings::listen()?;
    let mut child = Command::new(words[0])
        .args(&words[1..])
        .envs(variables)
        .env(RUN_VARIABLE, id)
        .spawn()
        .map_err(Failure::io(
            format!("run {}", words[0]),
            "name a command that is installed",
        ))?;
    let mut interrupted = false;
    loop {
        tokio::select! {
            biased;
            status = child.wait() => {
                let status = status.map_err(Failure::io("wait for the command", "start again"))?;
                return Ok(code_of(status));
            }
            ending = endings.next() => match ending {
                // The terminal has told the command, too; its answer counts, unless it has none.
                Ending::Interrupt if !interrupted => interrupted = true,
                Ending::Interrupt => return Ok(code(BY_SIGNAL + 2)),
                Ending::Terminate(signal) => return Ok(code(BY_SIGNAL + signal)),
            },
        }
    }
}

fn code_of(status: ExitStatus) -> ExitCode {
    code(match (status.code(), status.signal()) {
        (Some(code), _) => code,
        (None, Some(signal)) => BY_SIGNAL + signal,
        (None, None) => 1,
    })
}

fn code(number: i32) -> ExitCode {
    ExitCode::from(u8::try_from(number).unwrap_or(1))
}

fn tell(args: &RunArgs, links: Vec<LinkReport>, bare: LatenessReport) -> Result<(), Failure> {
    let report = RunReport::new(links, bare);
    if let Some(path) = &args.report {
        let text = json(&report)?;
        std::fs::write(path, text).map_err(Failure::io(
            format!("write the report {}", path.display()),
            "name a file that can be written",
        ))?;
    }
    if !args.quiet {
        note(&report.table());
    }
    Ok(())
}
