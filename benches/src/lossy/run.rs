//! All turns, some at the same time.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use indicatif::ProgressBar;
use tokio::sync::Semaphore;
use tokio::task::JoinSet;

use super::{Condition, Found, Lossy, LossyArgs, Peer, Row, Taken, Turn, link, plan};
use crate::error::{Error, Result};
use crate::meta::{Measured, Meta};

/// How often a turn is done again whose link was late.
const AGAIN: u32 = 2;
/// Before the window that counts: a dozen round trips of the longest link.
const WARM_UP: Duration = Duration::from_secs(8);
const QUICK_WARM_UP: Duration = Duration::from_secs(4);

/// Measures every pair under every condition.
pub(crate) async fn lossy(args: &LossyArgs, bar: &ProgressBar) -> Result<Lossy> {
    if !rustix::process::geteuid().is_root() || !Path::new("/dev/net/tun").exists() {
        return Err(Error::Missing {
            what: "root with /dev/net/tun",
            how: "links between namespaces need both: run as root, and `modprobe tun`".into(),
        });
    }
    let (conditions, peers) = (plan::conditions(args), plan::peers(args));
    let seeds = args.first_seed..args.first_seed + args.seeds;
    bar.set_length((conditions.len() * peers.len()) as u64 * args.seeds);
    let mut meta = Meta::now().await;
    let mut lossy = Lossy::default();
    if let Some(file) = args.json.as_ref().filter(|_| args.add) {
        let earlier = Measured::<Lossy>::read(file)?;
        (meta, lossy) = (meta.after(earlier.meta), earlier.found);
    }
    lossy.window_s = lossy.window_s.max(args.window);
    for condition in &conditions {
        let turns = seeds
            .clone()
            .flat_map(|seed| peers.iter().map(move |peer| (*peer, seed)));
        for (peer, taken) in all(args, condition, turns, bar).await? {
            lossy.take(condition, peer, taken);
        }
        // What was measured in an hour is not lost with what comes after it.
        if let Some(file) = &args.json {
            meta.clone().with(&lossy).write(file)?;
        }
    }
    Ok(lossy)
}

impl Lossy {
    /// A turn, in the place of an earlier one with the same seed.
    fn take(&mut self, condition: &Condition, peer: Peer, taken: Taken) {
        let is_it = |row: &&mut Row| row.peer == peer && row.condition == *condition;
        let row = match self.rows.iter_mut().find(is_it) {
            Some(row) => row,
            None => {
                self.rows.push(Row {
                    condition: condition.clone(),
                    peer,
                    turns: Vec::new(),
                });
                let last = self.rows.len() - 1;
                &mut self.rows[last]
            }
        };
        row.turns.retain(|turn| turn.seed != taken.seed);
        row.turns.push(taken);
    }
}

/// The turns of one condition.
async fn all(
    args: &LossyArgs,
    condition: &Condition,
    turns: impl Iterator<Item = (Peer, u64)>,
    bar: &ProgressBar,
) -> Result<Vec<(Peer, Taken)>> {
    let at_once = args.at_once.max(condition.weight());
    let places = Arc::new(Semaphore::new(at_once as usize));
    let mut running = JoinSet::new();
    let mut all = Vec::new();
    for (peer, seed) in turns {
        let place = Arc::clone(&places).acquire_many_owned(condition.weight());
        let place = place
            .await
            .map_err(|error| Error::Protocol(error.to_string()))?;
        bar.set_message(format!("{}: {}", peer.title(), condition.title()));
        let (args, condition, bar) = (args.clone(), condition.clone(), bar.clone());
        running.spawn(async move {
            let found = until_in_time(&args, &condition, peer, seed).await;
            if let Err(reason) = &found {
                let title = peer.title();
                bar.println(format!(
                    "{title}, {}: not measured: {reason}",
                    condition.title()
                ));
            }
            bar.inc(1);
            drop(place);
            (peer, Taken { seed, found })
        });
    }
    while let Some(taken) = running.join_next().await {
        all.push(taken.map_err(|error| Error::Protocol(error.to_string()))?);
    }
    all.sort_by_key(|(peer, taken)| (*peer, taken.seed));
    Ok(all)
}

/// One turn; again while its link was late.
async fn until_in_time(
    args: &LossyArgs,
    condition: &Condition,
    peer: Peer,
    seed: u64,
) -> std::result::Result<Found, String> {
    let turn = Turn {
        peer,
        load: condition.load,
        warm_up: if args.quick { QUICK_WARM_UP } else { WARM_UP },
        // Many more bytes say the same in half of the time.
        window: Duration::from_secs_f64(args.window) / condition.weight(),
        weft: args
            .weft
            .canonicalize()
            .unwrap_or_else(|_| args.weft.clone()),
    };
    let mut again = 0;
    loop {
        let found = link::turn(args, condition, &turn, seed).await;
        let found = found.map_err(|error| error.to_string())?;
        if !found.late || again == AGAIN {
            return Ok(found);
        }
        again += 1;
    }
}
