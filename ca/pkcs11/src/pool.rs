//! The threads that enter the vendor's library: few, each with a session of its own, none of them anybody else's.
//!
//! A call into the library cannot be broken off. Whoever waits for one stops at a deadline; the thread is back when the
//! library lets it go, and until then there is one fewer.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, TrySendError, sync_channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use crate::TokenFault;
use crate::session::{Held, Trouble};
use crate::token::Token;

/// Sessions, and threads: modules sign on several cores, and few do so on many.
const SESSIONS: usize = 4;
/// Jobs that may wait for a thread.
const QUEUE: usize = 64;
/// How long anybody waits, in the queue and for the token.
pub(crate) const PATIENCE: Duration = Duration::from_secs(10);

type Job = Box<dyn FnOnce(&Token, &mut Option<Held>) + Send>;

/// Why a job has no result.
#[derive(Debug)]
pub(crate) enum Stop {
    /// The token.
    Fault(TokenFault),
    /// There is no such key in it.
    Absent,
    /// There is one already.
    Exists,
    /// It would give the key away.
    Loose,
}

impl From<TokenFault> for Stop {
    fn from(fault: TokenFault) -> Self {
        Self::Fault(fault)
    }
}

/// Where jobs go. The threads end when the last clone of it is gone.
#[derive(Clone)]
pub(crate) struct Pool {
    token: Arc<Token>,
    jobs: SyncSender<Job>,
}

impl Pool {
    pub(crate) fn new(token: Token) -> Result<Self, TokenFault> {
        let token = Arc::new(token);
        let (jobs, queue) = sync_channel(QUEUE);
        let queue = Arc::new(Mutex::new(queue));
        for _ in 0..SESSIONS {
            let (token, queue) = (token.clone(), queue.clone());
            std::thread::Builder::new()
                .name("pkcs11".to_owned())
                .spawn(move || work(&token, &queue))
                .map_err(|error| TokenFault::Refused {
                    label: "pkcs11".to_owned(),
                    what: "have a thread",
                    reason: error.to_string(),
                })?;
        }
        Ok(Self { token, jobs })
    }

    pub(crate) fn label(&self) -> &str {
        self.token.label()
    }

    /// Has a job done in a session. It may be done twice: the second time when the token was gone the first time.
    pub(crate) fn run<T: Send + 'static>(
        &self,
        job: impl Fn(&mut Held) -> Result<T, Trouble> + Send + 'static,
    ) -> Result<T, Stop> {
        self.run_within(PATIENCE, job)
    }

    fn run_within<T: Send + 'static>(
        &self,
        patience: Duration,
        job: impl Fn(&mut Held) -> Result<T, Trouble> + Send + 'static,
    ) -> Result<T, Stop> {
        let label = || self.label().to_owned();
        let (done, result) = sync_channel(1);
        let abandoned = Arc::new(AtomicBool::new(false));
        let given_up = abandoned.clone();
        let job: Job = Box::new(move |token, held| {
            // Nobody waits for what comes too late: nothing is begun that nobody knows of.
            if !given_up.load(Ordering::Acquire) {
                let _ = done.send(attempt(token, held, job));
            }
        });
        self.jobs.try_send(job).map_err(|error| match error {
            TrySendError::Full(_) => TokenFault::Busy { label: label() },
            TrySendError::Disconnected(_) => self.token.gone("its threads have ended"),
        })?;
        match result.recv_timeout(patience) {
            Ok(result) => result,
            Err(RecvTimeoutError::Timeout) => {
                abandoned.store(true, Ordering::Release);
                Err(Stop::Fault(TokenFault::NoAnswer {
                    label: label(),
                    seconds: patience.as_secs(),
                }))
            }
            Err(RecvTimeoutError::Disconnected) => {
                Err(Stop::Fault(self.token.gone("its thread broke")))
            }
        }
    }
}

fn work(token: &Token, queue: &Mutex<Receiver<Job>>) {
    let mut held = None;
    loop {
        let next = queue.lock().unwrap_or_else(PoisonError::into_inner).recv();
        match next {
            Ok(job) => job(token, &mut held),
            Err(_) => return,
        }
    }
}

/// Does a job in the session that is held, and once more in a new one if that is gone.
fn attempt<T>(
    token: &Token,
    held: &mut Option<Held>,
    job: impl Fn(&mut Held) -> Result<T, Trouble>,
) -> Result<T, Stop> {
    let known = held.take().filter(Held::is_current);
    let is_new = known.is_none();
    let mut session = match known {
        Some(session) => session,
        None => token.connect()?,
    };
    let trouble = match job(&mut session) {
        Ok(done) => {
            *held = Some(session);
            return Ok(done);
        }
        Err(trouble) => trouble,
    };
    // In a token that was pulled out there are no keys either.
    let lost = match &trouble {
        Trouble::Lost(_) => true,
        Trouble::Absent => !session.is_there(token.label()),
        _ => false,
    };
    if !lost {
        *held = Some(session);
        return Err(stop(token, trouble));
    }
    drop(session);
    let mut session = match is_new {
        true => token.reconnect()?,
        false => token.connect()?,
    };
    let again = job(&mut session).map_err(|trouble| stop(token, trouble));
    if again.is_ok() {
        tracing::info!(token = token.label(), "the token is back");
        *held = Some(session);
    }
    again
}

fn stop(token: &Token, trouble: Trouble) -> Stop {
    match trouble {
        Trouble::Lost(reason) => Stop::Fault(token.gone(reason)),
        Trouble::No { what, reason } => Stop::Fault(TokenFault::Refused {
            label: token.label().to_owned(),
            what,
            reason,
        }),
        Trouble::Absent => Stop::Absent,
        Trouble::Exists => Stop::Exists,
        Trouble::Loose => Stop::Loose,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SHORT: Duration = Duration::from_millis(50);

    #[test]
    fn a_module_that_hangs_is_waited_for_until_a_deadline_and_its_queue_has_an_end() {
        let nowhere = "/nowhere/p11.so".into();
        let pool = Pool::new(Token::new(nowhere, "mesh".to_owned(), None)).unwrap();
        // Every thread gets stuck on its way to the token, as in a library that does not come back.
        let stuck = pool.token.dialling();
        let mut told = Vec::new();
        std::thread::scope(|scope| {
            let callers: Vec<_> = (0..SESSIONS + QUEUE + 8)
                .map(|_| scope.spawn(|| pool.run_within(SHORT, |_| Ok(()))))
                .collect();
            told.extend(callers.into_iter().map(|caller| caller.join().unwrap()));
        });
        let count = |is: fn(&TokenFault) -> bool| {
            let faults = told.iter().filter_map(|end| match end {
                Err(Stop::Fault(fault)) => Some(fault),
                _ => None,
            });
            faults.filter(|fault| is(fault)).count()
        };
        let silent = count(|fault| matches!(fault, TokenFault::NoAnswer { .. }));
        let busy = count(|fault| matches!(fault, TokenFault::Busy { .. }));
        assert_eq!(silent + busy, told.len(), "{told:?}");
        assert!(silent >= QUEUE && busy > 0, "{told:?}");

        // When it does come back, what was given up is not done any more.
        drop(stuck);
        let after = loop {
            let after = pool.run(|_| -> Result<(), Trouble> { panic!("there is no session") });
            // The queue is full until a thread has thrown away what is in it.
            match after {
                Err(Stop::Fault(TokenFault::Busy { .. })) => std::thread::yield_now(),
                other => break other,
            }
        };
        let missing = TokenFault::ModuleMissing {
            path: "/nowhere/p11.so".into(),
        };
        assert!(matches!(after, Err(Stop::Fault(fault)) if fault == missing));
    }
}
