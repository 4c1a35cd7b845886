//! Where the sidecars of one process wait for each other.
//!
//! ```text
//!  opening ──▶ opened ───────────────────────────▶ (all opened, all heirs prepared) ──▶ joins, serves
//!              opened, of an heir ──▶ prepared ──▶ (the same)                       ──▶ takes over, serves
//! ```
//!
//! An heir is a sidecar that takes the place of one in a running process. Whoever fails on the left of the brackets ends
//! the start of all.

use std::path::PathBuf;
use std::sync::Arc;

use tokio::sync::{Semaphore, watch};
use weft_env::Env;

use crate::Error;

/// All sidecars of one process.
#[derive(Debug)]
pub(crate) struct Group {
    /// Their state directories.
    homes: Vec<PathBuf>,
    roll: watch::Sender<Roll>,
    /// One upgrade of the process at a time.
    pub(crate) upgrading: Semaphore,
}

/// How far a sidecar is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default)]
enum Stage {
    #[default]
    Opening,
    /// It has what it needs of this machine.
    Opened,
    /// It could take over now.
    Prepared,
    Serving,
    /// It has ended, or another process has it.
    Gone,
}

#[derive(Debug, Default)]
struct Entry {
    stage: Stage,
    heir: bool,
    instance: Option<String>,
}

/// Where all of them are.
#[derive(Debug)]
struct Roll {
    entries: Vec<Entry>,
    /// Why none starts.
    failed: Option<String>,
    stopping: bool,
}

impl Roll {
    fn all_opened(&self) -> bool {
        self.entries.iter().all(|e| e.stage >= Stage::Opened)
    }

    /// Whether each is by itself from here on.
    fn begun(&self) -> bool {
        let mut heirs = self.entries.iter().filter(|entry| entry.heir);
        self.all_opened() && heirs.all(|heir| heir.stage >= Stage::Prepared)
    }

    /// A failure of one before that is one of all.
    fn fail(&mut self, reason: &str) {
        if !self.begun() {
            self.failed.get_or_insert_with(|| reason.to_owned());
        }
    }
}

impl Group {
    pub(crate) fn new(homes: Vec<PathBuf>) -> Arc<Self> {
        let entries = homes.iter().map(|_| Entry::default()).collect();
        Arc::new(Self {
            homes,
            roll: watch::Sender::new(Roll {
                entries,
                failed: None,
                stopping: false,
            }),
            upgrading: Semaphore::new(1),
        })
    }

    /// The state directories of all.
    pub(crate) fn homes(&self) -> &[PathBuf] {
        &self.homes
    }

    /// Whether a process that is to hold the sidecars of these state directories may have one of ours: all or none. Half
    /// of a process would be left behind otherwise, of which its supervisor knows nothing.
    pub(crate) fn all_held(&self, by: &[PathBuf]) -> Result<(), String> {
        if self.homes.len() == 1 {
            return Ok(());
        }
        let roll = self.roll.borrow();
        let mut here = self.homes.iter().zip(&roll.entries);
        match here.find(|(home, entry)| entry.stage < Stage::Gone && !by.contains(home)) {
            None => Ok(()),
            Some((home, _)) => Err(format!(
                "the running process holds the sidecar of {} too, which the new one is not to hold: give the new one the settings of all, or stop the one and start the other",
                home.display()
            )),
        }
    }

    /// Whether each is by itself, for better or worse.
    pub(crate) fn has_begun(&self) -> bool {
        let roll = self.roll.borrow();
        roll.failed.is_none() && roll.begun()
    }

    pub(crate) fn took_over(&self) -> bool {
        self.roll.borrow().entries.iter().any(|entry| entry.heir)
    }

    pub(crate) async fn one_serves(&self) {
        let serves = |roll: &Roll| roll.entries.iter().any(|e| e.stage == Stage::Serving);
        self.until(serves).await;
    }

    /// Resolves once all serve but those that have ended.
    pub(crate) async fn all_serve(&self) {
        let serve = |roll: &Roll| roll.entries.iter().all(|e| e.stage >= Stage::Serving);
        self.until(serve).await;
    }

    async fn until(&self, reached: impl Fn(&Roll) -> bool) {
        // It fails only when there is no sender any more, and this is one.
        let _ = self.roll.subscribe().wait_for(reached).await;
    }

    /// Waits for the others, unless they do not start.
    async fn wait(&self, reached: impl Fn(&Roll) -> bool) -> Result<(), Error> {
        self.until(|roll| roll.failed.is_some() || reached(roll))
            .await;
        match &self.roll.borrow().failed {
            None => Ok(()),
            Some(reason) => Err(Error::Group(reason.clone())),
        }
    }
}

/// The place of one of them.
#[derive(Debug, Clone)]
pub(crate) struct Seat {
    group: Arc<Group>,
    index: usize,
}

impl Seat {
    pub(crate) fn new(group: &Arc<Group>, index: usize) -> Self {
        Self {
            group: Arc::clone(group),
            index,
        }
    }

    /// Of a process with one sidecar.
    pub(crate) fn alone(home: PathBuf) -> Self {
        Self::new(&Group::new(vec![home]), 0)
    }

    pub(crate) fn group(&self) -> &Arc<Group> {
        &self.group
    }

    pub(crate) fn has_begun(&self) -> bool {
        self.group.has_begun()
    }

    fn enter(&self, change: impl FnOnce(&mut Entry)) {
        self.group
            .roll
            .send_modify(|roll| change(&mut roll.entries[self.index]));
    }

    /// Never back: one that asks for its place again has been here before.
    fn reach(&self, stage: Stage) {
        self.enter(|entry| entry.stage = entry.stage.max(stage));
    }

    /// It is to take the place of a sidecar that runs.
    pub(crate) fn inherits(&self) {
        self.enter(|entry| entry.heir = true);
    }

    /// It has what it needs of this machine, under this instance's name. Waits until the others have too.
    pub(crate) async fn opened(&self, instance: &str) -> Result<(), Error> {
        let twin = {
            let roll = self.group.roll.borrow();
            let mut all = roll.entries.iter().enumerate();
            all.find(|(index, entry)| {
                *index != self.index && entry.instance.as_deref() == Some(instance)
            })
            .map(|(index, _)| index)
        };
        if let Some(twin) = twin {
            let home = |index: usize| self.group.homes[index].display();
            return Err(Error::Config(format!(
                "{} is a copy of {}, and one instance of a service cannot be two: remove one of them, and join that sidecar again",
                home(self.index),
                home(twin)
            )));
        }
        let heir = self.group.roll.borrow().entries[self.index].heir;
        self.enter(|entry| entry.instance = Some(instance.to_owned()));
        self.reach(Stage::Opened);
        match heir {
            true => self.group.wait(Roll::all_opened).await,
            false => self.group.wait(Roll::begun).await,
        }
    }

    /// An heir could take over now. Waits until all of them can.
    pub(crate) async fn prepared(&self) -> Result<(), Error> {
        self.reach(Stage::Prepared);
        self.group.wait(Roll::begun).await
    }

    /// It cannot start.
    pub(crate) fn failed(&self, error: &Error) {
        let reason = format!("{}: {error}", self.group.homes[self.index].display());
        self.group.roll.send_modify(|roll| roll.fail(&reason));
    }

    /// It serves. A process with one sidecar is ready then.
    pub(crate) fn serves(&self, env: &Env) {
        self.reach(Stage::Serving);
        if self.group.homes.len() == 1 && !self.group.took_over() {
            env.tell_supervisor("READY=1");
        }
    }

    /// The process stops.
    pub(crate) fn stops(&self, env: &Env) {
        let told = |roll: &mut Roll| !std::mem::replace(&mut roll.stopping, true);
        if self.group.roll.send_if_modified(told) {
            env.tell_supervisor("STOPPING=1");
        }
    }

    /// Another process has it.
    pub(crate) fn left(&self) {
        self.reach(Stage::Gone);
    }

    /// Marks it as gone when the guard goes, however that comes.
    pub(crate) fn leaves_at_the_end(&self) -> Leaves {
        Leaves(self.clone())
    }
}

/// See [`Seat::leaves_at_the_end`].
#[derive(Debug)]
pub(crate) struct Leaves(Seat);

impl Drop for Leaves {
    fn drop(&mut self) {
        let group = &self.0.group;
        let reason = "another one broke off";
        group.roll.send_modify(|roll| roll.fail(reason));
        self.0.left();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::future::Future;
    use std::task::{Context, Poll, Waker};

    fn seats(count: usize) -> Vec<Seat> {
        let homes = (0..count).map(|index| PathBuf::from(format!("/{index}")));
        let group = Group::new(homes.collect());
        (0..count).map(|index| Seat::new(&group, index)).collect()
    }

    /// Whether it is done by now, and how.
    fn now<F: Future>(future: &mut std::pin::Pin<Box<F>>) -> Option<F::Output> {
        match future
            .as_mut()
            .poll(&mut Context::from_waker(Waker::noop()))
        {
            Poll::Ready(output) => Some(output),
            Poll::Pending => None,
        }
    }

    #[test]
    fn nobody_joins_before_all_have_what_they_need() {
        let seats = seats(2);
        let mut first = Box::pin(seats[0].opened("a"));
        assert!(now(&mut first).is_none());
        let mut second = Box::pin(seats[1].opened("b"));
        assert!(now(&mut second).unwrap().is_ok());
        assert!(now(&mut first).unwrap().is_ok());
        // From here on a failure is that of one.
        seats[1].failed(&Error::NoPin);
        assert!(seats[0].has_begun());
    }

    #[test]
    fn one_that_cannot_start_ends_the_start_of_all() {
        let seats = seats(2);
        let mut first = Box::pin(seats[0].opened("a"));
        assert!(now(&mut first).is_none());
        seats[1].failed(&Error::NoPin);
        let said = now(&mut first).unwrap().unwrap_err().to_string();
        assert!(said.contains("/1: joining needs"), "{said}");
        assert!(!seats[0].has_begun());
    }

    #[test]
    fn one_that_breaks_off_without_a_word_ends_the_start_too() {
        let seats = seats(2);
        let mut first = Box::pin(seats[0].opened("a"));
        assert!(now(&mut first).is_none());
        drop(seats[1].leaves_at_the_end());
        assert!(now(&mut first).unwrap().is_err());
    }

    #[test]
    fn nobody_takes_over_before_all_can_and_nobody_joins_before_that() {
        let seats = seats(3);
        seats[0].inherits();
        seats[1].inherits();
        let mut fresh = Box::pin(seats[2].opened("c"));
        assert!(now(&mut fresh).is_none());
        for (seat, name) in seats[..2].iter().zip(["a", "b"]) {
            let _ = now(&mut Box::pin(seat.opened(name)));
        }
        assert!(now(&mut Box::pin(seats[0].opened("a"))).unwrap().is_ok());
        let mut first = Box::pin(seats[0].prepared());
        assert!(now(&mut first).is_none());
        assert!(now(&mut fresh).is_none());
        let mut second = Box::pin(seats[1].prepared());
        assert!(now(&mut second).unwrap().is_ok());
        assert!(now(&mut first).unwrap().is_ok() && now(&mut fresh).unwrap().is_ok());
    }

    #[test]
    fn an_heir_that_cannot_take_over_leaves_all_where_they_are() {
        let seats = seats(2);
        seats[0].inherits();
        seats[1].inherits();
        for (seat, name) in seats.iter().zip(["a", "b"]) {
            let _ = now(&mut Box::pin(seat.opened(name)));
        }
        let mut first = Box::pin(seats[0].prepared());
        assert!(now(&mut first).is_none());
        seats[1].failed(&Error::NoPin);
        assert!(now(&mut first).unwrap().is_err());
    }

    #[test]
    fn two_copies_of_a_state_directory_are_told_apart_from_two_instances() {
        let seats = seats(2);
        assert!(now(&mut Box::pin(seats[0].opened("a"))).is_none());
        let said = now(&mut Box::pin(seats[1].opened("a"))).unwrap();
        let said = said.unwrap_err().to_string();
        assert!(said.contains("/1 is a copy of /0"), "{said}");
    }

    #[test]
    fn a_process_is_taken_over_whole() {
        let seats = seats(2);
        let group = seats[0].group();
        let of = |homes: &[&str]| homes.iter().map(PathBuf::from).collect::<Vec<_>>();
        assert!(group.all_held(&of(&["/0", "/1", "/2"])).is_ok());
        let said = group.all_held(&of(&["/0"])).unwrap_err();
        assert!(said.contains("the sidecar of /1"), "{said}");
        // What has ended is nothing to leave behind.
        seats[1].left();
        assert!(group.all_held(&of(&["/0"])).is_ok());
        assert!(Seat::alone("/x".into()).group().all_held(&[]).is_ok());
    }
}
