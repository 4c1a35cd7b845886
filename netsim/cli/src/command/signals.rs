//! Signals that end a command, and the runtime that hears them.

use tokio::signal::unix::{Signal, SignalKind, signal};

use crate::failure::Failure;

/// A runtime for waiting on children and signals.
///
/// # Errors
/// [`Failure::Io`] if the machine is out of resources.
pub(crate) fn runtime() -> Result<tokio::runtime::Runtime, Failure> {
    tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(out_of_resources("wait for signals"))
}

fn out_of_resources(what: &'static str) -> impl FnOnce(std::io::Error) -> Failure {
    Failure::io(what, "the machine seems to be out of resources")
}

/// The signals that ask a program to end.
pub(crate) struct Endings {
    interrupt: Signal,
    terminate: Signal,
    hang_up: Signal,
}

/// One of them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Ending {
    /// Ctrl-C: the terminal has sent it to the command, too.
    Interrupt,
    /// SIGTERM or SIGHUP, with its number: for this process alone.
    Terminate(i32),
}

impl Endings {
    /// Listens for them from now on. Call it within the runtime.
    ///
    /// # Errors
    /// [`Failure::Io`] if the machine is out of resources.
    pub(crate) fn listen() -> Result<Self, Failure> {
        let listen = |kind| signal(kind).map_err(out_of_resources("listen for signals"));
        Ok(Self {
            interrupt: listen(SignalKind::interrupt())?,
            terminate: listen(SignalKind::terminate())?,
            hang_up: listen(SignalKind::hangup())?,
        })
    }

    /// The next one.
    pub(crate) async fn next(&mut self) -> Ending {
        tokio::select! {
            biased;
            _ = self.terminate.recv() => Ending::Terminate(SignalKind::terminate().as_raw_value()),
            _ = self.hang_up.recv() => Ending::Terminate(SignalKind::hangup().as_raw_value()),
            _ = self.interrupt.recv() => Ending::Interrupt,
        }
    }
}
