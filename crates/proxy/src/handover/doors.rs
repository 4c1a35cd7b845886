//! The listeners of a sidecar: opened, or taken from the process before.

use std::io;
use std::net::SocketAddr;
use std::os::fd::OwnedFd;
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};

use serde::{Deserialize, Serialize};
use tokio::sync::watch;
use weft_env::{Env, Listener};

/// Whose listener it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Role {
    Outbound,
    Metrics,
    /// A local TCP port of the settings.
    Tcp,
    /// One that an `OutboundListener` asks for.
    Port,
    Workload,
    /// Of a later version: nobody asks for it.
    #[serde(other)]
    Unknown,
}

/// By what a listener is known: its address is the one that was asked for, so that port 0 finds its port again.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Key {
    pub(super) role: Role,
    pub(super) asked: String,
}

/// Whether connections are accepted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Gate {
    Open,
    /// Not now: they wait in the kernel's queues.
    Paused,
    /// Never again: another process has taken over.
    Closed,
}

/// All of them.
#[derive(Debug)]
pub(crate) struct Doors {
    env: Env,
    gate: watch::Sender<Gate>,
    /// From the process before, not asked for yet. In the order in which that one opened them.
    inherited: Mutex<Vec<(Key, OwnedFd)>>,
    open: Mutex<Vec<(Key, Weak<Listener>)>>,
}

impl Doors {
    pub(crate) fn new(env: &Env) -> Arc<Self> {
        Self::with(env, Gate::Open, Vec::new())
    }

    /// With the listeners of the process before, and none accepts before the gate is opened.
    pub(crate) fn inheriting(env: &Env, inherited: Vec<(Key, OwnedFd)>) -> Arc<Self> {
        Self::with(env, Gate::Paused, inherited)
    }

    fn with(env: &Env, gate: Gate, inherited: Vec<(Key, OwnedFd)>) -> Arc<Self> {
        Arc::new(Self {
            env: env.clone(),
            gate: watch::Sender::new(gate),
            inherited: Mutex::new(inherited),
            open: Mutex::new(Vec::new()),
        })
    }

    /// Listens on a TCP address.
    ///
    /// # Errors
    /// Names the address and the cause.
    pub(crate) async fn tcp(&self, role: Role, addr: SocketAddr) -> io::Result<Arc<Listener>> {
        let key = Key {
            role,
            asked: addr.to_string(),
        };
        let listener = match self.inherit(&key) {
            Some(fd) => self.env.adopt_listener(fd, None)?,
            None => self.env.listen(addr).await?,
        };
        Ok(self.remember(key, listener))
    }

    /// A Unix socket of the process before, if it had this one.
    ///
    /// # Errors
    /// When it is something else.
    pub(crate) fn inherited_unix(&self, role: Role, path: &Path) -> io::Result<Option<Listener>> {
        let fd = self.inherit(&unix(role, path));
        fd.map(|fd| self.env.adopt_listener(fd, Some(path.to_owned())))
            .transpose()
    }

    /// Remembers a Unix socket for the next process.
    pub(crate) fn remember_unix(&self, role: Role, path: &Path, listener: &Arc<Listener>) {
        self.enter(unix(role, path), listener);
    }

    fn inherit(&self, key: &Key) -> Option<OwnedFd> {
        let mut inherited = lock(&self.inherited);
        let index = inherited.iter().position(|(known, _)| known == key)?;
        Some(inherited.remove(index).1)
    }

    fn remember(&self, key: Key, listener: Listener) -> Arc<Listener> {
        let listener = Arc::new(listener);
        self.enter(key, &listener);
        listener
    }

    fn enter(&self, key: Key, listener: &Arc<Listener>) {
        let mut open = lock(&self.open);
        open.retain(|(_, known)| known.strong_count() > 0);
        open.push((key, Arc::downgrade(listener)));
    }

    fn listening(&self) -> Vec<(Key, Arc<Listener>)> {
        let open = lock(&self.open);
        open.iter()
            .filter_map(|(key, listener)| Some((key.clone(), listener.upgrade()?)))
            .collect()
    }

    /// Those that are open, for the next process.
    ///
    /// # Errors
    /// Such as too many open files.
    pub(crate) fn share(&self) -> io::Result<Vec<(Key, OwnedFd)>> {
        let share = |(key, listener): (Key, Arc<Listener>)| Ok((key, listener.share()?));
        self.listening().into_iter().map(share).collect()
    }

    /// This process accepts from now on, and the files of Unix sockets are its own. What of the process before nobody
    /// has asked for is closed.
    pub(crate) fn take(&self) {
        lock(&self.inherited).clear();
        for (_, listener) in self.listening() {
            listener.own(true);
        }
        self.open_gate();
    }

    /// Another process accepts from now on: the accept loops end, and the files are that one's.
    pub(crate) fn leave(&self) {
        for (_, listener) in self.listening() {
            listener.own(false);
        }
        self.gate.send_replace(Gate::Closed);
    }

    pub(crate) fn pause(&self) {
        self.gate.send_replace(Gate::Paused);
    }

    pub(crate) fn open_gate(&self) {
        self.gate.send_replace(Gate::Open);
    }

    pub(crate) fn gate(&self) -> watch::Receiver<Gate> {
        self.gate.subscribe()
    }

    /// Whether this process still waits to take over, or has stepped back.
    pub(crate) fn is_paused(&self) -> bool {
        *self.gate.borrow() == Gate::Paused
    }

    /// Whether another process has taken over.
    pub(crate) fn is_left(&self) -> bool {
        *self.gate.borrow() == Gate::Closed
    }
}

fn unix(role: Role, path: &Path) -> Key {
    Key {
        role,
        asked: path.display().to_string(),
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // Each change is one call that does not panic half way.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_listener_is_found_again_by_what_was_asked_for() {
        let env = Env::system();
        let any: SocketAddr = "127.0.0.1:0".parse().unwrap();
        let before = Doors::new(&env);
        let outbound = before.tcp(Role::Outbound, any).await.unwrap();
        let first = before.tcp(Role::Tcp, any).await.unwrap();
        let second = before.tcp(Role::Tcp, any).await.unwrap();
        drop(before.tcp(Role::Metrics, any).await.unwrap());

        let after = Doors::inheriting(&env, before.share().unwrap());
        for (role, same) in [
            (Role::Tcp, first),
            (Role::Outbound, outbound),
            (Role::Tcp, second),
        ] {
            let found = after.tcp(role, any).await.unwrap();
            assert_eq!(found.local_addr().unwrap(), same.local_addr().unwrap());
        }
        // One that was closed before is not given, and is opened anew.
        assert!(after.tcp(Role::Metrics, any).await.is_ok());
    }

    #[tokio::test]
    async fn what_the_next_process_does_not_ask_for_is_closed_once_both_have_let_go() {
        let env = Env::system();
        let before = Doors::new(&env);
        let any = "127.0.0.1:0".parse().unwrap();
        let listener = before.tcp(Role::Port, any).await.unwrap();
        let addr = listener.local_addr().unwrap();
        let after = Doors::inheriting(&env, before.share().unwrap());
        drop(listener);
        assert!(env.listen(addr).await.is_err(), "the next process has it");
        after.take();
        env.listen(addr).await.unwrap();
    }
}
