//! How far a rotation has come: whom to ask, who is done. Pure.

use std::collections::BTreeMap;
use std::time::Duration;

use tokio::time::Instant;

use crate::admin::types::Rotated;
use crate::registry::{Epoch, Link, Sidecar, Table};

/// A sidecar that was asked and did nothing is asked again after the window and this.
const ASK_AGAIN: Duration = Duration::from_secs(30);
/// A sidecar that has just connected says within a second who issued its certificate; it is not asked for
/// another one before it could.
const HEAR_FIRST: Duration = Duration::from_secs(3);
/// Renewals per second that a window is made for: below what the authority signs.
const SPREAD_PER_S: usize = 40;
/// Shortest window.
const MIN_WINDOW: Duration = Duration::from_millis(200);

/// What every sidecar has to come to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Goal {
    /// A certificate issued by the one with this serial. Sidecars that join later are included.
    Issuer(String),
    /// Another certificate than the one it had; only those in the baseline.
    NewLeaf,
}

/// One rotation under way.
#[derive(Debug)]
pub(crate) struct Tracker {
    goal: Goal,
    window: Duration,
    /// Serial at the start, by instance.
    baseline: BTreeMap<String, String>,
    /// For sessions that are not done, or were not at first.
    plans: BTreeMap<Epoch, Plan>,
    /// Serials of this mesh's issuing CAs.
    ours: Vec<String>,
}

/// When a session is to be asked next.
#[derive(Debug)]
struct Plan {
    ask_at: Instant,
    asked: bool,
}

/// Where it stands now.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Standing {
    /// To be asked for a new certificate now.
    pub(crate) ask: Vec<String>,
    /// Live sidecars that it is about.
    pub(crate) total: usize,
    /// Those of them that are done.
    pub(crate) done: usize,
    /// The others.
    pub(crate) absent: Vec<String>,
    /// Those of the beginning that are not connected any more, and were not done before.
    pub(crate) gone: Vec<String>,
    /// Those whose identity comes from elsewhere, with where from: nobody waits for them.
    pub(crate) elsewhere: Vec<(String, String)>,
    /// Certificates that changed.
    pub(crate) rotated: Vec<Rotated>,
    /// When someone is to be asked again, if nothing happens before.
    pub(crate) look_again: Option<Instant>,
}

impl Standing {
    pub(crate) fn is_complete(&self) -> bool {
        self.done == self.total
    }
}

impl Tracker {
    /// Starts with the live sidecars of `table` that `concerns` picks.
    pub(crate) fn new(
        goal: Goal,
        window: Option<Duration>,
        table: &Table,
        concerns: impl Fn(&Sidecar) -> bool,
    ) -> Self {
        let baseline: BTreeMap<String, String> = table
            .iter()
            .filter(|sidecar| sidecar.is_live() && concerns(sidecar))
            .map(|sidecar| (sidecar.instance.clone(), sidecar.serial.clone()))
            .collect();
        let window = window.unwrap_or_else(|| default_window(baseline.len()));
        Self {
            goal,
            window,
            baseline,
            plans: BTreeMap::new(),
            ours: Vec::new(),
        }
    }

    /// With the serials of this mesh's issuing CAs. One whose identity comes from elsewhere, and from one of them at last,
    /// gets a new one in its turn: it is waited for.
    pub(crate) fn with_ours(self, ours: Vec<String>) -> Self {
        Self { ours, ..self }
    }

    /// Whether this is about a sidecar that will never reach the goal by being asked.
    fn is_elsewhere(&self, sidecar: &Sidecar) -> bool {
        match &self.goal {
            Goal::NewLeaf => sidecar.identity_from.is_some(),
            Goal::Issuer(_) => !ends_here(sidecar, &self.ours),
        }
    }

    /// Within which time a sidecar asked now is to act.
    pub(crate) fn window(&self) -> Duration {
        self.window
    }

    /// Looks at the table. Whoever is in `ask` counts as asked from now on.
    pub(crate) fn look(&mut self, table: &Table, now: Instant) -> Standing {
        let patience = self.window + ASK_AGAIN;
        let mut standing = Standing {
            ask: Vec::new(),
            total: 0,
            done: 0,
            absent: Vec::new(),
            gone: Vec::new(),
            elsewhere: Vec::new(),
            rotated: Vec::new(),
            look_again: None,
        };
        for sidecar in table.iter() {
            let before = self.baseline.get(&sidecar.instance);
            let Link::Live(epoch) = sidecar.link else {
                if before == Some(&sidecar.serial) {
                    standing.gone.push(sidecar.label());
                }
                continue;
            };
            if before.is_some() && self.is_elsewhere(sidecar) {
                let from = sidecar.identity_from.clone().unwrap_or_default();
                standing.elsewhere.push((sidecar.label(), from));
            }
            if self.is_elsewhere(sidecar) {
                continue;
            }
            let done = match &self.goal {
                Goal::Issuer(serial) => sidecar.issuer() == serial,
                Goal::NewLeaf => match before {
                    Some(before) => *before != sidecar.serial,
                    None => continue,
                },
            };
            standing.total += 1;
            if done {
                standing.done += 1;
                standing.rotated.extend(rotated(sidecar, before));
                continue;
            }
            standing.absent.push(sidecar.label());
            let unheard = matches!(self.goal, Goal::Issuer(_)) && sidecar.issuer().is_empty();
            let plan = self.plans.entry(epoch).or_insert(Plan {
                ask_at: now + HEAR_FIRST,
                asked: false,
            });
            if !unheard && !plan.asked {
                plan.ask_at = now;
            }
            if plan.ask_at <= now {
                plan.ask_at = now + patience;
                plan.asked = true;
                if sidecar.identity_from.is_none() {
                    standing.ask.push(sidecar.instance.clone());
                }
            }
            standing.look_again = standing.look_again.into_iter().chain([plan.ask_at]).min();
        }
        standing
    }
}

/// Whether the certificate of a sidecar is this mesh's to replace, be it by way of others; also of one that has not said
/// yet.
pub(super) fn ends_here(sidecar: &Sidecar, ours: &[String]) -> bool {
    let issuer = sidecar.issuer();
    sidecar.identity_from.is_none() || issuer.is_empty() || ours.iter().any(|own| own == issuer)
}

fn rotated(sidecar: &Sidecar, before: Option<&String>) -> Option<Rotated> {
    let before = before.filter(|before| **before != sidecar.serial)?;
    Some(Rotated {
        instance: sidecar.instance.clone(),
        service: sidecar.service.to_string(),
        serial_before: before.clone(),
        serial_after: sidecar.serial.clone(),
    })
}

/// Long enough that the authority's rate limit turns nobody away.
fn default_window(sidecars: usize) -> Duration {
    let seconds = sidecars as f64 / SPREAD_PER_S as f64;
    Duration::from_secs_f64(seconds).max(MIN_WINDOW)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::disallowed_methods)]

    use super::*;
    use crate::registry::Arrival;
    use crate::testing;
    use weft_wire::Report;

    fn arrive(table: &mut Table, service: &str, instance: &str) -> Epoch {
        table
            .arrive(&Arrival {
                identity: &testing::id(service),
                not_after_unix: 1,
                remote: "127.0.0.1".parse().unwrap(),
                hello: &testing::hello(instance),
                unix_ms: 1,
            })
            .unwrap()
    }

    fn report(table: &mut Table, instance: &str, epoch: Epoch, serial: &str, issuer: &str) {
        let sidecar = table.live_mut(instance, epoch).unwrap();
        sidecar.serial = serial.into();
        sidecar.report = Some(Report {
            issuer: issuer.into(),
            ..Report::default()
        });
    }

    #[test]
    fn a_leaf_rotation_is_done_when_everyone_of_the_start_has_another_serial() {
        let now = Instant::now();
        let mut table = Table::default();
        let a = arrive(&mut table, "invoices", "a");
        let b = arrive(&mut table, "orders", "b");
        arrive(&mut table, "other", "c");
        let mut tracker =
            Tracker::new(Goal::NewLeaf, None, &table, |s| s.service.name() != "other");
        let first = tracker.look(&table, now);
        assert_eq!((first.total, first.done), (2, 0));
        assert_eq!(first.ask, ["a", "b"]);
        assert!(tracker.look(&table, now).ask.is_empty(), "asked once");

        report(&mut table, "a", a, "02", "i1");
        arrive(&mut table, "invoices", "late");
        let second = tracker.look(&table, now);
        assert_eq!((second.total, second.done), (2, 1));
        assert_eq!(second.absent, ["orders.default/b"]);
        assert_eq!(second.rotated[0].serial_before, "01");
        assert_eq!(second.rotated[0].serial_after, "02");

        report(&mut table, "b", b, "03", "i1");
        assert!(tracker.look(&table, now).is_complete());
    }

    #[test]
    fn an_issuer_rotation_includes_those_who_join_or_reconnect_meanwhile() {
        let now = Instant::now();
        let mut table = Table::default();
        let a = arrive(&mut table, "invoices", "a");
        report(&mut table, "a", a, "01", "i1");
        let goal = Goal::Issuer("i2".into());
        let mut tracker = Tracker::new(goal, None, &table, |_| true);
        assert_eq!(tracker.look(&table, now).ask, ["a"]);

        let again = arrive(&mut table, "invoices", "a");
        let late = arrive(&mut table, "invoices", "late");
        assert_ne!(a, again);
        let standing = tracker.look(&table, now);
        assert!(standing.ask.is_empty(), "they may have a new one already");
        assert_eq!(standing.look_again, Some(now + HEAR_FIRST));
        report(&mut table, "late", late, "04", "i1");
        assert_eq!(tracker.look(&table, now).ask, ["late"], "it has not");
        let silent = tracker.look(&table, now + HEAR_FIRST);
        assert_eq!(silent.ask, ["a"], "a new connection is asked anew");

        report(&mut table, "a", again, "02", "i2");
        report(&mut table, "late", late, "05", "i2");
        let standing = tracker.look(&table, now);
        assert!(standing.is_complete());
        assert_eq!(standing.rotated.len(), 1, "a latecomer has no before");
    }

    #[test]
    fn a_silent_sidecar_is_asked_again_and_a_gone_one_is_not_waited_for() {
        let now = Instant::now();
        let mut table = Table::default();
        let a = arrive(&mut table, "invoices", "a");
        let window = Duration::from_secs(1);
        let mut tracker = Tracker::new(Goal::NewLeaf, Some(window), &table, |_| true);
        tracker.look(&table, now);
        let patience = window + ASK_AGAIN;
        let standing = tracker.look(&table, now + patience - Duration::from_millis(1));
        assert!(standing.ask.is_empty());
        assert_eq!(standing.look_again, Some(now + patience));
        assert_eq!(tracker.look(&table, now + patience).ask, ["a"]);
        table.lose("a", a, now, 1);
        let without = tracker.look(&table, now + patience);
        assert!(without.is_complete());
        assert_eq!(without.gone, ["invoices.default/a"], "but it is named");
    }

    fn arrive_from_elsewhere(table: &mut Table, service: &str, instance: &str) -> Epoch {
        let mut hello = testing::hello(instance);
        hello.identity_from = Some("unix:///run/spire.sock".to_owned());
        let arrival = Arrival {
            identity: &testing::id(service),
            not_after_unix: 1,
            remote: "127.0.0.1".parse().unwrap(),
            hello: &hello,
            unix_ms: 1,
        };
        table.arrive(&arrival).unwrap()
    }

    #[test]
    fn one_with_an_identity_from_elsewhere_is_named_and_neither_asked_nor_waited_for() {
        let now = Instant::now();
        let mut table = Table::default();
        let a = arrive(&mut table, "invoices", "a");
        arrive_from_elsewhere(&mut table, "orders", "b");
        let mut tracker = Tracker::new(Goal::NewLeaf, None, &table, |_| true);
        let first = tracker.look(&table, now);
        assert_eq!((first.total, first.ask), (1, vec!["a".to_owned()]));
        let from = "unix:///run/spire.sock".to_owned();
        assert_eq!(first.elsewhere, [("orders.default/b".to_owned(), from)]);
        report(&mut table, "a", a, "02", "i1");
        assert!(tracker.look(&table, now).is_complete());
    }

    #[test]
    fn one_whose_identity_came_from_here_in_the_end_is_waited_for_when_an_authority_goes() {
        let now = Instant::now();
        let mut table = Table::default();
        let b = arrive_from_elsewhere(&mut table, "orders", "b");
        let c = arrive_from_elsewhere(&mut table, "other", "c");
        report(&mut table, "b", b, "01", "i1");
        report(&mut table, "c", c, "01", "spire");
        let ours = vec!["i1".to_owned(), "i2".to_owned()];
        let goal = Goal::Issuer("i2".into());
        let mut tracker = Tracker::new(goal, None, &table, |_| true).with_ours(ours);
        let standing = tracker.look(&table, now);
        assert_eq!(standing.absent, ["orders.default/b"]);
        assert!(standing.ask.is_empty(), "its provider is asked, not it");
        assert_eq!(standing.elsewhere[0].0, "other.default/c");
        report(&mut table, "b", b, "02", "i2");
        assert!(tracker.look(&table, now).is_complete());
    }

    #[test]
    fn the_window_grows_with_the_mesh() {
        assert_eq!(default_window(3), MIN_WINDOW);
        assert_eq!(default_window(4000), Duration::from_secs(100));
    }
}
