//! What each subcommand does. One file a command; those for the control node go through its admin socket.

mod admin;
mod audit;
mod ca;
mod ca_files;
mod cert;
mod cert_files;
mod control;
mod delegate;
mod federation;
mod init;
mod inputs;
mod paths;
mod resources;
mod rotation;
mod secret;
mod sidecar;
mod status;
mod token;
pub(crate) mod top;
mod upgrade;
mod version;

use std::process::ExitCode;

use crate::cli::Role;
use crate::failure::Failure;
use crate::runtime::block_on;
use crate::{demo, demo_app};

/// Carries a command out. Failures are told by the caller.
pub(crate) fn run(role: Role) -> Result<ExitCode, Failure> {
    match role {
        Role::Init(args) => done(block_on(0, init::run(args))?),
        Role::Control(settings) => done(block_on(settings.workers, control::run(*settings))?),
        Role::Delegate(settings) => done(block_on(settings.workers, delegate::run(*settings))?),
        Role::Token(command) => done(block_on(0, token::run(command))?),
        Role::Sidecar(sidecars) => {
            sidecars.agree()?;
            done(block_on(sidecars.each[0].workers, sidecar::run(sidecars))?)
        }
        Role::Upgrade(args) => done(block_on(0, upgrade::run(args))?),
        Role::Apply(args) => done(block_on(0, resources::apply(args))?),
        Role::Get(args) => done(block_on(0, resources::get(args))?),
        Role::Delete(args) => done(block_on(0, resources::delete(args))?),
        Role::Cert(command) => done(block_on(0, cert::run(command))?),
        Role::Federation(command) => done(block_on(0, federation::run(command))?),
        Role::Ca(command) => done(block_on(0, ca::run(command))?),
        Role::Status(args) => done(block_on(0, status::run(args))?),
        Role::Top(args) => done(block_on(0, top::run(args))?),
        Role::Demo(args) => block_on(0, demo::run(args))?,
        Role::Version(args) => done(version::run(args)),
        Role::Completions(args) => done(version::completions(args)),
        Role::DemoApp(args) => done(block_on(0, demo_app::run(args))?),
        Role::DemoSweep { dir } => done(block_on(0, demo::tether::sweep(&dir))?),
    }
}

fn done(result: Result<(), Failure>) -> Result<ExitCode, Failure> {
    result.map(|()| ExitCode::SUCCESS)
}
