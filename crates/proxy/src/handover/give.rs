//! The running side: who may ask, and what is given.

use std::io;
use std::net::SocketAddr;
use std::os::fd::OwnedFd;
use std::sync::Arc;

use tokio::sync::{Semaphore, mpsc, watch};
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;
use weft_env::{Channel, ChannelListener, Env, Tasks};
use weft_transport::{Given, Relay};

use super::doors::Doors;
use super::message::{
    Generation, Hello, Message, Offer, Protocols, SPOKEN, Socket, Upgraded, hear, say, understand,
};
use super::{LETTING_GO, MAX_EARLIER, PATIENCE, Program, STARTING, upgrade};
use crate::VERSION;
use crate::group::Group;
use crate::state_dir::StateDir;

/// Who may ask at one time; more wait in the kernel's queue.
const MAX_ASKING: usize = 4;

/// A new process that wants to take over.
pub(crate) struct Request {
    channel: Channel,
    hello: Hello,
    protocol: u32,
}

/// How the last attempt went; a number tells one from the next.
pub(crate) type Outcome = (u64, Option<Result<Upgraded, String>>);

/// Answers on the desk.
pub(crate) struct Desk {
    pub(crate) listener: Arc<ChannelListener>,
    /// How to start a successor, if that is known.
    pub(crate) program: Option<Program>,
    /// All sidecars of this process.
    pub(crate) group: Arc<Group>,
    /// Where requests go.
    pub(crate) requests: mpsc::Sender<Request>,
    pub(crate) outcome: watch::Receiver<Outcome>,
}

impl Desk {
    /// Listens until `stop`. Whoever has been heard is answered by a task of `tasks`.
    pub(crate) async fn attend(self, tasks: Tasks, stop: CancellationToken) {
        let desk = Arc::new(self);
        let places = Arc::new(Semaphore::new(MAX_ASKING));
        loop {
            let place = Arc::clone(&places).acquire_owned();
            let place = place.await.expect("the semaphore is never closed");
            let accepted = tokio::select! {
                biased;
                () = stop.cancelled() => return,
                accepted = desk.listener.accept() => accepted,
            };
            let Ok(channel) = accepted else {
                tokio::time::sleep(crate::accept::PAUSE).await;
                continue;
            };
            let desk = Arc::clone(&desk);
            drop(tasks.spawn(async move {
                desk.hear_out(channel).await;
                drop(place);
            }));
        }
    }

    async fn hear_out(&self, channel: Channel) {
        let said = timeout(PATIENCE, hear(&channel)).await;
        let Ok(Ok(Some((message, _)))) = said else {
            return;
        };
        let judged = match channel.peer_cred() {
            Ok(cred) => judge(&message, cred.uid, Env::own_uid()),
            Err(error) => Err(error.to_string()),
        };
        let judged = judged.and_then(|protocol| match &message {
            Message::Hello(hello) => self.group.all_held(&hello.holds).map(|()| protocol),
            _ => Ok(protocol),
        });
        let refusal = match judged {
            Err(reason) => reason,
            Ok(protocol) => match message {
                Message::Hello(hello) => {
                    let request = Request {
                        channel,
                        hello,
                        protocol,
                    };
                    match self.requests.try_send(request) {
                        Ok(()) => return,
                        Err(back) => {
                            let request = back.into_inner();
                            refuse(&request.channel, "another upgrade is under way").await;
                            return;
                        }
                    }
                }
                _ => match self.upgrade().await {
                    Ok(upgraded) => {
                        // Who asked may have gone; it is done all the same.
                        let _ = say(&channel, &Message::Upgraded(upgraded), None).await;
                        return;
                    }
                    Err(reason) => reason,
                },
            },
        };
        tracing::warn!(reason = %refusal, "an upgrade is refused");
        refuse(&channel, &refusal).await;
    }

    /// Starts a successor of the whole process, one at a time.
    async fn upgrade(&self) -> Result<Upgraded, String> {
        let _alone = self
            .group
            .upgrading
            .try_acquire()
            .map_err(|_| "another upgrade is under way".to_owned())?;
        upgrade::start(self.program.as_ref(), self.outcome.clone()).await
    }
}

/// The protocol to speak with somebody of this user, or why not to. Pure.
fn judge(message: &Message, uid: u32, me: u32) -> Result<u32, String> {
    let hello = match message {
        Message::Hello(hello) if uid == me => hello,
        // Root may ask for what the sidecar then does by itself.
        Message::Upgrade(hello) if uid == me || uid == 0 => hello,
        Message::Hello(_) | Message::Upgrade(_) => {
            return Err(format!(
                "user {uid} may not upgrade a sidecar of user {me}: run it as that user"
            ));
        }
        _ => return Err("it does not say what it wants".to_owned()),
    };
    SPOKEN.common(hello.protocols).ok_or_else(|| {
        let Protocols { oldest, newest } = SPOKEN;
        format!(
            "version {} and the running version {VERSION} have no way to hand over in common (this one speaks {oldest} to {newest}): stop the running sidecar and start the new one",
            hello.version
        )
    })
}

async fn refuse(channel: &Channel, reason: &str) {
    let reason = reason.to_owned();
    // Who is gone needs no reason.
    let _ = timeout(PATIENCE, say(channel, &Message::Refused { reason }, None)).await;
}

/// All that changes hands.
pub(crate) struct Estate<'a> {
    pub(crate) state: &'a StateDir,
    pub(crate) doors: &'a Doors,
    pub(crate) relay: &'a Relay,
    pub(crate) desk: &'a ChannelListener,
    /// The address that the mesh socket was asked for.
    pub(crate) mesh: SocketAddr,
}

impl Request {
    /// Who asks, for people.
    pub(crate) fn name(&self) -> String {
        format!("process {} ({})", self.hello.pid, self.hello.version)
    }

    /// Gives everything to the new process and lets it take over. If that fails, everything is as it was before.
    ///
    /// # Errors
    /// Why it did not come to be.
    pub(crate) async fn give(
        &self,
        estate: &Estate<'_>,
        stop: &CancellationToken,
    ) -> Result<Upgraded, String> {
        let given = tokio::select! {
            biased;
            () = stop.cancelled() => Err("this sidecar stops".to_owned()),
            given = self.offer(estate) => given,
        };
        let taken = match given {
            Ok(()) => {
                estate.doors.pause();
                estate.relay.pause();
                let taken = self.commit().await;
                if taken.is_err() {
                    estate.relay.resume();
                    estate.doors.open_gate();
                }
                taken
            }
            Err(reason) => Err(reason),
        };
        match taken {
            Ok(()) => Ok(Upgraded {
                from_pid: std::process::id(),
                from_version: VERSION.to_owned(),
                to_pid: self.hello.pid,
                to_version: self.hello.version.clone(),
            }),
            Err(reason) => {
                refuse(&self.channel, &reason).await;
                Err(reason)
            }
        }
    }

    /// Until the new process could serve.
    async fn offer(&self, estate: &Estate<'_>) -> Result<(), String> {
        let sent = timeout(PATIENCE, self.send(estate)).await;
        sent.map_err(|_| "the new process reads nothing".to_owned())??;
        let said = timeout(STARTING, hear(&self.channel)).await;
        match said.map_err(|_| format!("the new process was not ready within {STARTING:?}"))? {
            Ok(Some((Message::Ready, _))) => Ok(()),
            Ok(Some((Message::Failed { reason }, _))) => Err(reason),
            Ok(None) => Err("the new process ended before it was ready".to_owned()),
            Ok(Some(_)) => Err("the new process said something else than that it is ready".into()),
            Err(error) => Err(error.to_string()),
        }
    }

    async fn send(&self, estate: &Estate<'_>) -> Result<(), String> {
        if estate.relay.earlier().len() >= MAX_EARLIER {
            return Err(format!(
                "{MAX_EARLIER} earlier processes still finish their streams: wait for them, end them with SIGTERM, or set a shorter --upgrade-drain"
            ));
        }
        let (offer, sockets) = self
            .gather(estate)
            .map_err(|error| format!("what is to be given cannot be shared: {error}"))?;
        let gone = |error: io::Error| format!("the new process is gone: {error}");
        say(&self.channel, &Message::Offer(offer), None)
            .await
            .map_err(gone)?;
        for (socket, fd) in sockets {
            say(&self.channel, &Message::Socket(socket), Some(fd))
                .await
                .map_err(gone)?;
        }
        Ok(())
    }

    fn gather(&self, estate: &Estate<'_>) -> io::Result<(Offer, Vec<(Socket, OwnedFd)>)> {
        let Given {
            udp,
            tcp,
            tag,
            channel,
            earlier,
        } = estate.relay.give()?;
        let lock = estate.state.share_lock()?;
        let mut sockets = vec![(Socket::Lock, lock), (Socket::Mesh, udp)];
        sockets.extend(tcp.map(|tcp| (Socket::MeshTcp, tcp)));
        sockets.push((Socket::Desk, estate.desk.share()?));
        let mut generations = Vec::new();
        for one in earlier {
            generations.push(Generation {
                tag: one.tag.number(),
                pid: one.pid,
                version: one.version,
            });
            sockets.push((Socket::Packets, one.channel));
        }
        generations.push(Generation {
            tag: tag.number(),
            pid: std::process::id(),
            version: VERSION.to_owned(),
        });
        sockets.push((Socket::Packets, channel));
        let doors = estate.doors.share()?;
        sockets.extend(doors.into_iter().map(|(key, fd)| (Socket::Door(key), fd)));
        let offer = Offer {
            protocol: self.protocol,
            version: VERSION.to_owned(),
            pid: std::process::id(),
            mesh: estate.mesh,
            earlier: generations,
            sockets: sockets.len(),
        };
        Ok((offer, sockets))
    }

    /// From "it is yours" to "I have it". Both sides agree on whether the second was said: what comes after this side
    /// has stopped listening cannot be sent.
    async fn commit(&self) -> Result<(), String> {
        let said = async {
            say(&self.channel, &Message::Yours, None).await?;
            hear(&self.channel).await
        };
        let answer = match timeout(LETTING_GO, said).await {
            Ok(answer) => answer,
            Err(_) => {
                self.channel.stop_receiving();
                let last = self.channel.try_recv();
                last.and_then(|packet| packet.map(understand).transpose())
            }
        };
        match answer {
            Ok(Some((Message::Taken, _))) => Ok(()),
            Ok(Some((Message::Failed { reason }, _))) => Err(reason),
            Ok(_) => Err("the new process ended, or fell silent, when it was to take over".into()),
            Err(error) => Err(format!("the new process is gone: {error}")),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_own_user_may_take_over_and_root_may_ask_for_it() {
        let (me, root, other) = (1000, 0, 1001);
        for (uid, take, ask) in [(me, true, true), (root, false, true), (other, false, false)] {
            let hello = Message::Hello(Hello::own());
            assert_eq!(judge(&hello, uid, me).is_ok(), take, "{uid}");
            let wish = Message::Upgrade(Hello::own());
            assert_eq!(judge(&wish, uid, me).is_ok(), ask, "{uid}");
        }
        let reason = judge(&Message::Hello(Hello::own()), other, me).unwrap_err();
        assert!(
            reason.contains("1001") && reason.contains("1000"),
            "{reason}"
        );
        assert!(judge(&Message::Ready, me, me).is_err());
    }

    #[test]
    fn a_version_without_a_common_protocol_is_refused_in_words() {
        let of = |oldest, newest| {
            let protocols = Protocols { oldest, newest };
            let version = "7.0.0".to_owned();
            judge(
                &Message::Hello(Hello {
                    protocols,
                    version,
                    ..Hello::own()
                }),
                1,
                1,
            )
        };
        assert_eq!(of(1, 9), Ok(1));
        let reason = of(8, 9).unwrap_err();
        assert!(
            reason.contains("7.0.0") && reason.contains("stop the running"),
            "{reason}"
        );
    }

    #[tokio::test]
    async fn a_new_process_that_is_silent_when_it_is_to_take_over_can_not_do_so_later() {
        let env = Env::system();
        let (channel, there) = env.channel_pair().unwrap();
        let silent = env.adopt_channel(there).unwrap();
        let request = Request {
            channel,
            hello: Hello::own(),
            protocol: 1,
        };
        let reason = request.commit().await.unwrap_err();
        assert!(reason.contains("fell silent"), "{reason}");
        assert_eq!(hear(&silent).await.unwrap().unwrap().0, Message::Yours);
        let late = say(&silent, &Message::Taken, None).await.unwrap_err();
        assert_eq!(late.kind(), io::ErrorKind::BrokenPipe);
    }

    #[tokio::test]
    async fn a_word_in_time_is_heard_however_late_it_is_read() {
        let env = Env::system();
        let (channel, there) = env.channel_pair().unwrap();
        let new = env.adopt_channel(there).unwrap();
        say(&new, &Message::Taken, None).await.unwrap();
        let request = Request {
            channel,
            hello: Hello::own(),
            protocol: 1,
        };
        request.commit().await.unwrap();
    }
}
