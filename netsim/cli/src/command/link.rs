//! `weft-netsim link`: two namespaces that are there already, one link, until somebody ends it.

use std::time::Duration;

use weft_netsim::Rebinding;
use weft_netsim_tun::{
    BareTimer, End, LinkPlan, Namespace, NatPlan, RunningLink, Side, Way, preflight,
};

use super::signals::{Endings, runtime};
use crate::args::LinkArgs;
use crate::failure::Failure;
use crate::mesh_file::check_mtu;
use crate::output::{RunReport, note, show};

/// How often the link is looked after: it ends by itself when a device is taken away.
const LOOK: Duration = Duration::from_millis(200);
/// What a link may be asked to last, so that the sum with the clock stays a time.
const LONGEST: Duration = Duration::from_secs(366 * 24 * 3600);

/// Joins the two namespaces. When this process ends, however it ends, the devices are gone.
pub(super) fn link(args: &LinkArgs) -> Result<(), Failure> {
    let plan = plan(args)?;
    preflight()?;
    let end = |name: &str| {
        Ok::<_, Failure>(End {
            namespace: Namespace::existing(name)?,
            device: args.device.clone(),
        })
    };
    let (a, b) = (end(&args.a)?, end(&args.b)?);
    let timer = BareTimer::start()?;
    let link = RunningLink::start(&plan, a, b)?;
    let [a, b] = link.ends();
    for (end, own, peer) in [
        (a, args.a_address, args.b_address),
        (b, args.b_address, args.a_address),
    ] {
        let address = format!("addr add {own} peer {peer}/32 dev {}\n", end.device);
        end.namespace.configure(&address)?;
    }
    note(&format!(
        "{} ({}) and {} ({}) are joined by {}, seed {}; Ctrl-C ends it",
        args.a, args.a_address, args.b, args.b_address, args.profile, args.seed
    ));
    wait(args, &link)?;
    let report = link.stop()?;
    let ended = report.ended.clone();
    let report = RunReport::new(vec![report], timer.stop());
    show(args.output, &report, || report.table())?;
    match ended {
        None => Ok(()),
        Some(why) => Err(Failure::Failed(format!(
            "the link ended by itself: {why}; start it again"
        ))),
    }
}

fn plan(args: &LinkArgs) -> Result<LinkPlan, Failure> {
    let spec = args
        .overrides
        .apply(&args.profile.spec())
        .map_err(Failure::Usage)?;
    check_mtu(args.mtu).map_err(Failure::Usage)?;
    if args.a == args.b || args.a_address == args.b_address {
        return Err(Failure::Usage(
            "both ends are the same; name two namespaces and two addresses".to_owned(),
        ));
    }
    let plan = LinkPlan {
        forward: Way::steady(spec.clone()),
        backward: Way::steady(spec),
        seed: args.seed,
        nat: args.nat_rebind.map(|period| NatPlan {
            inside: Side::A,
            rebinding: Rebinding::Every(period.0),
        }),
        mtu: args.mtu,
    };
    plan.check()
        .map_err(|error| Failure::Usage(error.to_string()))?;
    Ok(plan)
}

/// Until a signal, the end of the time, or the end of the link.
fn wait(args: &LinkArgs, link: &RunningLink) -> Result<(), Failure> {
    runtime()?.block_on(async {
        let mut endings = Endings::listen()?;
        let lasting = args.duration.map_or(LONGEST, |span| span.0.min(LONGEST));
        let over = tokio::time::sleep(lasting);
        let gone = async {
            while link.is_running() {
                tokio::time::sleep(LOOK).await;
            }
        };
        tokio::select! {
            biased;
            _ = endings.next() => {}
            () = over => {}
            () = gone => {}
        }
        Ok(())
    })
}
