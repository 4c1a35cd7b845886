//! The new side: asking for everything, and going on with it.

use std::io;
use std::net::SocketAddr;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use tokio::time::timeout;
use weft_env::{Channel, ChannelListener, Env, LockGuard, PeerProcess};
use weft_transport::{Earlier, Relay};

use super::doors::{Doors, Key};
use super::message::{Generation, Hello, Message, Offer, Socket, hear, say};
use super::{PATIENCE, STARTING, desk};
use crate::Error;

/// How often to ask again when the running sidecar ends, or gives its place to another, before it has offered anything.
const ATTEMPTS: usize = 3;
/// More than any sidecar has.
const MAX_SOCKETS: usize = 4_096;

/// The process that runs now.
pub(crate) struct Predecessor {
    channel: Channel,
    pid: u32,
    version: String,
}

/// What it has given.
pub(crate) struct Estate {
    pub(crate) lock: LockGuard,
    pub(crate) relay: Relay,
    pub(crate) doors: Arc<Doors>,
    pub(crate) desk: ChannelListener,
}

/// The sockets as they come in.
#[derive(Default)]
struct Sockets {
    lock: Option<OwnedFd>,
    mesh: Option<OwnedFd>,
    mesh_tcp: Option<OwnedFd>,
    desk: Option<OwnedFd>,
    packets: Vec<OwnedFd>,
    doors: Vec<(Key, OwnedFd)>,
}

/// Asks the sidecar of this state directory for everything. `None` when none answers there: there is nothing to
/// take over. `holds` are the state directories of all sidecars of this process.
///
/// # Errors
/// [`Error::TakeOver`]: it goes on, and this says why.
pub(crate) async fn ask(
    env: &Env,
    state_dir: &Path,
    mesh: SocketAddr,
    holds: &[PathBuf],
) -> Result<Option<(Predecessor, Estate)>, Error> {
    let path = desk(state_dir);
    for _ in 0..ATTEMPTS {
        let channel = match env.connect_channel(&path) {
            Ok(channel) => channel,
            Err(error) if nobody(&error) => return Ok(None),
            Err(error) => return Err(Error::TakeOver(error.to_string())),
        };
        match timeout(STARTING, ask_on(env, channel, &path, mesh, holds)).await {
            Ok(Ok(got)) => return Ok(Some(got)),
            // It has ended before it gave anything, or given its place to another.
            Ok(Err(Denial::Gone)) => {}
            Ok(Err(Denial::Reason(reason))) => return Err(Error::TakeOver(reason)),
            Err(_) => break,
        }
    }
    Err(Error::TakeOver(
        "the running sidecar gives no answer".to_owned(),
    ))
}

/// Why there is nothing to go on with.
enum Denial {
    Gone,
    Reason(String),
}

impl From<String> for Denial {
    fn from(reason: String) -> Self {
        Self::Reason(reason)
    }
}

/// Whether nobody listens there.
pub(super) fn nobody(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::NotFound | io::ErrorKind::ConnectionRefused | io::ErrorKind::Unsupported
    )
}

async fn ask_on(
    env: &Env,
    channel: Channel,
    path: &Path,
    mesh: SocketAddr,
    holds: &[PathBuf],
) -> Result<(Predecessor, Estate), Denial> {
    let uid = channel.peer_cred().map_err(|error| error.to_string())?.uid;
    if uid != Env::own_uid() {
        return Err(format!(
            "the running sidecar is that of user {uid}, not of user {}",
            Env::own_uid()
        )
        .into());
    }
    say(&channel, &Message::Hello(Hello::of_holder(holds)), None)
        .await
        .map_err(|_| Denial::Gone)?;
    let offer = match hear(&channel).await {
        Ok(Some((Message::Offer(offer), _))) => offer,
        Ok(Some((Message::Refused { reason }, _))) => return Err(reason.into()),
        Ok(Some(_)) => return Err("the running sidecar offers nothing".to_owned().into()),
        Ok(None) => return Err(Denial::Gone),
        Err(error) => return Err(error.to_string().into()),
    };
    if offer.mesh != mesh {
        let reason = format!(
            "the running sidecar listens on {}, and this one is to listen on {mesh}: stop the one and start the other",
            offer.mesh
        );
        tell_failure(&channel, &reason).await;
        return Err(reason.into());
    }
    let mut sockets = Sockets::default();
    for _ in 0..offer.sockets.min(MAX_SOCKETS) {
        match word(&channel).await? {
            (Message::Socket(socket), Some(fd)) => sockets.sort_in(socket, fd),
            _ => {
                let reason = "the running sidecar gave something else than a socket";
                return Err(reason.to_owned().into());
            }
        }
    }
    let Offer {
        pid,
        version,
        earlier,
        ..
    } = offer;
    let estate = sockets
        .into_estate(env, path, earlier)
        .map_err(|error| format!("what the running sidecar gave is of no use: {error}"))?;
    tracing::info!(pid, version, "taking over from the sidecar that runs");
    Ok((
        Predecessor {
            channel,
            pid,
            version,
        },
        estate,
    ))
}

async fn word(channel: &Channel) -> Result<(Message, Option<OwnedFd>), String> {
    match hear(channel).await {
        Ok(Some((Message::Refused { reason }, _))) => Err(reason),
        Ok(Some(said)) => Ok(said),
        Ok(None) => Err("the running sidecar ended meanwhile: start again".to_owned()),
        Err(error) => Err(error.to_string()),
    }
}

async fn tell_failure(channel: &Channel, reason: &str) {
    let reason = reason.to_owned();
    // It sees the end of this process otherwise.
    let _ = timeout(PATIENCE, say(channel, &Message::Failed { reason }, None)).await;
}

impl Sockets {
    fn sort_in(&mut self, socket: Socket, fd: OwnedFd) {
        match socket {
            Socket::Lock => self.lock = Some(fd),
            Socket::Mesh => self.mesh = Some(fd),
            Socket::MeshTcp => self.mesh_tcp = Some(fd),
            Socket::Desk => self.desk = Some(fd),
            Socket::Packets => self.packets.push(fd),
            Socket::Door(key) => self.doors.push((key, fd)),
            Socket::Unknown => {}
        }
    }

    fn into_estate(
        self,
        env: &Env,
        desk: &Path,
        generations: Vec<Generation>,
    ) -> io::Result<Estate> {
        let missing = || io::Error::new(io::ErrorKind::InvalidData, "a socket is missing");
        if generations.len() != self.packets.len() {
            return Err(missing());
        }
        let earlier = generations.into_iter().zip(self.packets);
        let earlier = earlier
            .map(|(generation, channel)| Earlier {
                tag: generation.tag(),
                pid: generation.pid,
                version: generation.version,
                channel,
            })
            .collect();
        let mesh = (self.mesh.ok_or_else(missing)?, self.mesh_tcp);
        Ok(Estate {
            lock: LockGuard::adopt(self.lock.ok_or_else(missing)?),
            relay: Relay::adopt(env, mesh, earlier)?,
            doors: Doors::inheriting(env, self.doors),
            desk: env.adopt_channel_listener(self.desk.ok_or_else(missing)?, desk)?,
        })
    }
}

impl Predecessor {
    /// Says that this process cannot take over: the other goes on.
    pub(crate) async fn give_up(&self, reason: &Error) {
        tell_failure(&self.channel, &reason.to_string()).await;
    }

    /// Takes over: once this returns, the other process accepts and reads nothing more.
    ///
    /// # Errors
    /// [`Error::TakeOver`]: the other goes on. If it has ended meanwhile, this one goes on alone, which is no error.
    pub(crate) async fn take(&self) -> Result<(), Error> {
        match timeout(STARTING, self.agree()).await {
            Ok(agreed) => agreed.map_err(Error::TakeOver),
            Err(_) => Err(Error::TakeOver(
                "the running sidecar does not let go".to_owned(),
            )),
        }
    }

    async fn agree(&self) -> Result<(), String> {
        // A process that has ended is seen at the next word.
        let _ = say(&self.channel, &Message::Ready, None).await;
        loop {
            match hear(&self.channel).await {
                Ok(Some((Message::Yours, _))) => {
                    if say(&self.channel, &Message::Taken, None).await.is_ok() {
                        tracing::info!(from_pid = self.pid, from_version = %self.version, "this process has taken over");
                        return Ok(());
                    }
                    // It has ended, or wants it back and says so next.
                }
                Ok(Some((Message::Refused { reason }, _))) => return Err(reason),
                Ok(Some(_)) => {}
                Ok(None) | Err(_) => return self.alone(),
            }
        }
    }

    /// The channel has ended without a word.
    fn alone(&self) -> Result<(), String> {
        let pid = i32::try_from(self.pid).unwrap_or_default();
        if PeerProcess::hold(pid).is_ok_and(|process| process.is_alive()) {
            return Err("the running sidecar has broken it off".to_owned());
        }
        tracing::warn!(
            pid = self.pid,
            "the sidecar that ran has ended before it had handed over: this one goes on in its place, what was under way there is lost"
        );
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    async fn after(words: &[Message], pid: u32) -> Result<(), String> {
        let env = Env::system();
        let (here, there) = env.channel_pair().unwrap();
        let old = env.adopt_channel(there).unwrap();
        for word in words {
            say(&old, word, None).await.unwrap();
        }
        let taking = Predecessor {
            channel: here,
            pid,
            version: "old".to_owned(),
        };
        // What is said after "yours" and before "taken" is heard too.
        drop(old);
        taking.take().await.map_err(|error| error.to_string())
    }

    /// The number of a process that has ended.
    fn ended() -> u32 {
        let mut child = std::process::Command::new("true").spawn().unwrap();
        child.wait().unwrap();
        child.id()
    }

    #[tokio::test]
    async fn a_process_whose_predecessor_has_ended_goes_on_alone() {
        after(&[], ended()).await.unwrap();
        after(&[Message::Yours], ended()).await.unwrap();
    }

    #[tokio::test]
    async fn one_whose_predecessor_lives_without_a_word_does_not_take_over() {
        let error = after(&[], std::process::id()).await.unwrap_err();
        assert!(error.contains("broken it off"), "{error}");
    }

    #[tokio::test]
    async fn what_the_predecessor_wants_back_is_not_taken() {
        let back = || Message::Refused {
            reason: "you were silent".to_owned(),
        };
        for words in [vec![back()], vec![Message::Yours, back()]] {
            let error = after(&words, ended()).await.unwrap_err();
            assert!(error.contains("you were silent"), "{error}");
        }
    }

    #[tokio::test]
    async fn it_is_taken_when_both_have_said_so() {
        let env = Env::system();
        let (here, there) = env.channel_pair().unwrap();
        let old = env.adopt_channel(there).unwrap();
        let taking = Predecessor {
            channel: here,
            pid: std::process::id(),
            version: "old".to_owned(),
        };
        let giving = async {
            assert_eq!(hear(&old).await.unwrap().unwrap().0, Message::Ready);
            say(&old, &Message::Yours, None).await.unwrap();
            hear(&old).await.unwrap().unwrap().0
        };
        let (taken, said) = tokio::join!(taking.take(), giving);
        taken.unwrap();
        assert_eq!(said, Message::Taken);
    }
}
