//! Who is at the other end of a connection, and whether it may have the identity now.

use std::sync::Arc;

use weft_env::{Disk, Env, FileIdentity, PeerCred, PeerProcess, Stream};

use crate::entry::{Caller, Entry, allowed, unit_of};

/// A local process that connected.
#[derive(Debug)]
pub(crate) struct Peer {
    cred: PeerCred,
    /// `None` if it had ended before it could be held, or the kernel did not tell which it is.
    process: Option<PeerProcess>,
}

impl Peer {
    /// Looks at a stream that was just accepted. `None` if it is not from a process of this machine.
    pub(crate) fn of(stream: &Stream) -> Option<Self> {
        let cred = stream.peer_cred()?;
        let process = cred.pid.and_then(|pid| PeerProcess::hold(pid).ok());
        Some(Self { cred, process })
    }

    pub(crate) fn uid(&self) -> u32 {
        self.cred.uid
    }

    pub(crate) fn pid(&self) -> Option<i32> {
        self.cred.pid
    }

    /// Whether an entry allows it at this moment: a process may have started another program since.
    pub(crate) async fn may(self: &Arc<Self>, env: &Env, entries: &Arc<[Entry]>) -> bool {
        if !entries.iter().any(Entry::asks_for_process) {
            return allowed(entries, &self.caller(), |_| None);
        }
        let (peer, entries) = (Arc::clone(self), Arc::clone(entries));
        env.disk(move |_: &Disk| {
            let mut caller = peer.caller();
            if let Some(process) = &peer.process {
                caller.unit = process.cgroups().as_deref().and_then(unit_of);
                caller.program = process.program();
            }
            allowed(&entries, &caller, FileIdentity::of)
        })
        .await
    }

    fn caller(&self) -> Caller {
        Caller {
            uid: self.cred.uid,
            gid: self.cred.gid,
            ..Caller::default()
        }
    }
}
